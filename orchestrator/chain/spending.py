"""
How much this program may spend: limits that are checked before anything is sent.

Amounts are planck. What was spent today (by UTC) is in one file, shared by every process that has
the same one, and is written down **before** a call is sent: a process that dies meanwhile has
spent what it reserved. Deposits count as spent, and what comes back gives nothing back, so the
day's sum is never too small.

A file that can't be read or written refuses everything: a limit that nobody can check is no limit.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

from orchestrator.chain import Cost
from orchestrator.errors import SpendingLimitError

__all__ = ["Reservation", "SpendingLimits"]

_MAX_LEDGER_BYTES = 4_096


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


class SpendingLimits:
    """
    What may be spent: fee per call, and fee and deposit per day (`None` is no limit).

    *ledger_file* is made when it is first needed, with its folder. *clock* gives the time in ms.
    """

    def __init__(
        self,
        *,
        per_call: int | None,
        per_day: int | None,
        ledger_file: Path,
        clock: Callable[[], int] = _wall_clock,
    ) -> None:
        self.per_call = per_call
        self.per_day = per_day
        self._file = ledger_file
        self._clock = clock

    def reserve(self, cost: Cost, *, calls: int = 1) -> "Reservation":
        """
        Write down what a transaction with *calls* calls will cost at most, before it is sent.

        1. The fee is at most the limit per call, for each call.
        2. Fee and deposit, with what was spent today, are at most the limit per day.

        Raises:
            SpendingLimitError: A limit would be exceeded, or nobody can tell.
        """
        if self.per_call is not None and cost.fee > self.per_call * calls:
            raise SpendingLimitError(
                f"the fee is up to {cost.fee:,} planck, and max_fee_per_call allows"
                f" {self.per_call:,}" + (f" for each of {calls} calls" if calls > 1 else "")
            )
        amount = _spent(cost.fee, cost.deposit)
        if self.per_day is None:
            return Reservation(self, day="", amount=amount)
        with self._ledger() as ledger:
            total = ledger.spent + amount
            if total > self.per_day:
                raise SpendingLimitError(
                    f"it costs up to {amount:,} planck, {ledger.spent:,} are spent on {ledger.day}"
                    f" (UTC), and max_spend_per_day allows {self.per_day:,} ({self._file})"
                    + ledger.why_ahead()
                )
            ledger.write(total)
            return Reservation(self, day=ledger.day, amount=amount)

    def spent_today(self) -> int:
        """
        What is written down as spent today; 0 while there is no limit per day.

        Raises:
            SpendingLimitError: The file can't be read.
        """
        if self.per_day is None:
            return 0
        with self._ledger() as ledger:
            return ledger.spent

    def correct(self, day: str, difference: int) -> None:
        """Add *difference* to what was spent on *day*, while that day lasts."""
        if self.per_day is None or difference == 0:
            return
        with self._ledger() as ledger:
            if ledger.day == day:
                ledger.write(max(0, ledger.spent + difference))

    @contextlib.contextmanager
    def _ledger(self) -> Iterator["_Ledger"]:
        """Hold the file: nobody else reads or writes it meanwhile."""
        today = datetime.fromtimestamp(self._clock() / 1_000, tz=UTC).strftime("%Y-%m-%d")
        try:
            self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(
                self._file.with_name(self._file.name + ".lock"),
                os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
            )
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                yield _Ledger(self._file, today)
            finally:
                os.close(lock)
        except (OSError, OverflowError) as error:
            raise SpendingLimitError(f"{self._file}: what was spent can't be known: {error}") from (
                error
            )


class Reservation:
    """What one transaction may spend; without `settle` all of it counts as spent."""

    def __init__(self, limits: SpendingLimits, *, day: str, amount: int) -> None:
        self._limits = limits
        self._day = day
        self.amount = amount

    def settle(self, fee: int, deposit: int) -> None:
        """
        Replace what was reserved by what was paid, 0 and 0 when nothing was sent.

        Never raises: while the file can't be written, what was reserved counts as spent.
        """
        actual = _spent(fee, deposit)
        with contextlib.suppress(SpendingLimitError):
            self._limits.correct(self._day, actual - self.amount)
            self.amount = actual


class _Ledger:
    """The file, while its lock is held: a day, and what was spent on it."""

    def __init__(self, path: Path, today: str) -> None:
        self._path = path
        self._today = today
        day, spent = self._read() or (today, 0)
        # A clock that was set back must not begin the later day again.
        self.day = max(day, today)
        self.spent = spent if self.day == day else 0

    def why_ahead(self) -> str:
        """What to do about a day that is not near: no midnight ends it soon."""
        ahead = date.fromisoformat(self.day) - date.fromisoformat(self._today)
        if ahead <= timedelta(days=1):
            return ""
        return (
            f"; that day is {ahead.days} days ahead of this machine's clock, {self._today}: put the"
            " clock right, or, if it was ahead when the file was written, remove the file"
        )

    def write(self, spent: int) -> None:
        """Replace the file: whole, or not at all."""
        new = self._path.with_name(self._path.name + ".new")
        descriptor = os.open(
            new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600
        )
        with os.fdopen(descriptor, "w", encoding="ascii") as file:
            json.dump({"day": self.day, "spent": str(spent)}, file)
            file.flush()
            os.fsync(descriptor)
        new.replace(self._path)
        self.spent = spent

    def _read(self) -> tuple[str, int] | None:
        try:
            with self._path.open("rb") as file:
                data = file.read(_MAX_LEDGER_BYTES)
        except FileNotFoundError:
            return None
        try:
            return _parsed(data)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise SpendingLimitError(
                f"{self._path}: damaged, so what was spent can't be known; remove it to begin anew"
            ) from error


def _parsed(data: bytes) -> tuple[str, int]:
    """The day and the sum; raises what Python raises where it finds something else."""
    found = json.loads(data)
    day, spent = found["day"], found["spent"]
    datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC)
    if not spent.isdecimal():
        raise ValueError(spent)
    return day, int(spent)


def _spent(fee: int, deposit: int) -> int:
    return fee + max(deposit, 0)
