"""
Keeps registrations alive: looks at the workers again and again, and renews what will end.

* Several workers are talked to at once, those first that end first, and each has its time: one that
  answers slowly or not at all keeps none of the others from being renewed. Calls to the chain are
  made one after the other.
* A renewal that fails is an alarm each time: told, counted, and tried again, ever slower, but
  never more rarely than the workers are looked at anyway. While it waits, each look tells of it.
* What is due is read from the chain each time. So a renewal that was interrupted, at whatever
  step, is found done, or is done again on new evidence.
* What is due is due by our clock or by the chain's, whichever is later. How long to wait is
  measured by a clock that nobody sets.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from orchestrator.chain import Chain
from orchestrator.chain.answers import shown
from orchestrator.chain.paging import all_workers
from orchestrator.errors import (
    ChainError,
    ChainUnavailableError,
    ContractError,
    Error,
    RefusedError,
)
from orchestrator.evidence.instants import format_utc
from orchestrator.metrics import RegistrarEvent, RegistrarEventKind
from orchestrator.models import Parameters, Worker, WorkerId, WorkerStatus
from orchestrator.registrar.admission import Admission
from orchestrator.registrar.registration import CLOCK_MARGIN_MS, Registrar
from orchestrator.registrar.rotation import successors
from orchestrator.registrar.rounds import (
    Outcome,
    RenewalSettings,
    Round,
    WorkerReport,
    report_on,
)
from orchestrator.registrar.talking import TimedWorker
from orchestrator.workers import WorkerClient

__all__ = ["Renewals", "StopEvent"]

T = TypeVar("T")

_LOG = logging.getLogger("orchestrator.registrar")
MAX_DOUBLINGS = 20
# A renewal that gains little is put off until so many looks are left before the worker ends.
LAST_LOOKS = 2
HOUR_MS = 3_600_000


def steady_clock() -> int:
    """Milliseconds of a clock that never jumps and has no date."""
    return time.monotonic_ns() // 1_000_000


class StopEvent(Protocol):
    """What ends a run."""

    def is_set(self) -> bool: ...

    async def wait(self) -> object: ...


@dataclass(kw_only=True)
class _Trouble:
    failures: int = 0
    next_at: int = 0
    code: str = ""
    detail: str = ""


@dataclass(kw_only=True)
class _Counts:
    renewed: int = 0
    troubles: dict[WorkerId, _Trouble] = field(default_factory=dict)


class Renewals:
    """
    Renews workers through *registrar*; *clients* gives the client for a worker's URL.

    *clock* gives the time of day (ms), which may jump; *steady* never does, and has no date.
    *forecast* is asked in each round what will fail next, and its alarms are told. *on_event* hears
    of everything that happens.
    """

    def __init__(
        self,
        registrar: Registrar,
        *,
        clients: Callable[[str], WorkerClient],
        settings: RenewalSettings,
        clock: Callable[[], int],
        steady: Callable[[], int] = steady_clock,
        forecast: Callable[[Sequence[Worker]], Sequence[RegistrarEvent]] = lambda _: (),
        on_event: Callable[[RegistrarEvent], None] = lambda _: None,
    ) -> None:
        self._registrar = registrar
        self._clients = clients
        self._settings = settings
        self._clock = clock
        self._steady = steady
        self._forecast = forecast
        self._on_event = on_event
        self._counts = _Counts()
        self._behind = 0  # how far our clock is behind the chain's (ms), as of this round
        self._looked_at: int | None = None

    @property
    def renewed(self) -> int:
        """How many registrations were renewed so far."""
        return self._counts.renewed

    @property
    def failing(self) -> frozenset[WorkerId]:
        """The workers whose last renewal failed."""
        return frozenset(self._counts.troubles)

    @property
    def since_last_round(self) -> int | None:
        """How long ago (ms) the last round was over, `None` before the first."""
        return None if self._looked_at is None else self._steady() - self._looked_at

    async def run(self, stop: StopEvent) -> None:
        """
        Look and renew until *stop*.

        A call that is on its way to the chain is waited for; whatever else is under way is given
        up, which changes nothing. A node that is just being read has some seconds to answer.
        """
        await self._settle()
        failures = 0
        while not stop.is_set():
            try:
                is_over = await _unless(stop, self.round())
                failures = 0
            except ChainError as error:
                failures += 1
                is_over = False
                self._alarm(None, _code(error), f"the workers can't be read: {error}")
            if is_over:
                return
            await _unless(stop, asyncio.sleep(self._pause(failures) / 1_000))

    async def round(self) -> Round:
        """
        Look at all workers once, and renew those that are due.

        Raises:
            ChainError: The workers can't be read.
        """
        contract = await self._registrar.calls.read(self._read_contract)
        everyone = await self._read_workers()
        mine = [worker for worker in everyone if self._is_mine(worker)]
        self._forget_all_but(mine)
        alarms = [*self._doubts(contract), *self._missing(everyone)]
        reports = [
            replace(one, is_simulated=self._is_simulated(one, everyone))
            for one in await self._look_at(mine, everyone, alarms)
        ]
        alarms += await self._ask_forecast(await self._still_needed(reports))
        self._looked_at = self._steady()
        return Round(at=self._clock(), workers=tuple(reports), alarms=tuple(alarms))

    async def settle(self) -> None:
        """Wait for what an earlier run may have sent just before it ended."""
        await self._settle()

    # Workers.

    async def _read_workers(self) -> list[Worker]:
        processor = self._registrar.processor
        return await self._registrar.calls.read(lambda chain: list(all_workers(chain, processor)))

    def _read_contract(self, chain: Chain) -> Parameters:
        """Read the contract's limits, and how far we are behind the chain."""
        self._behind = max(0, chain.now() - self._clock())
        return chain.read(self._registrar.processor.parameters())

    def _now(self) -> int:
        """The later one of our time and the chain's: what has ended by either is not trusted."""
        return self._clock() + self._behind

    def _is_mine(self, worker: Worker) -> bool:
        """Suspended workers are renewed where they are named: whoever suspended them decides."""
        named = self._settings.workers
        if named is None:
            return worker.status is WorkerStatus.ACTIVE
        return worker.worker in named and worker.status is not WorkerStatus.REVOKED

    async def _look_at(
        self, mine: Sequence[Worker], everyone: Sequence[Worker], alarms: list[RegistrarEvent]
    ) -> list[WorkerReport]:
        """Look at workers of different URLs at once, and at those of one URL in turn."""
        by_url: dict[bytes, list[Worker]] = {}
        for worker in sorted(mine, key=lambda one: one.valid_until):
            by_url.setdefault(worker.endpoint, []).append(worker)
        turns = asyncio.Semaphore(self._settings.at_once)

        async def look_at_url(workers: Sequence[Worker]) -> list[WorkerReport]:
            async with turns:
                return [await self._look(worker, everyone, alarms) for worker in workers]

        reports = await _all_of(look_at_url(workers) for workers in by_url.values())
        return sorted((one for made in reports for one in made), key=lambda one: one.worker)

    async def _look(
        self, worker: Worker, everyone: Sequence[Worker], alarms: list[RegistrarEvent]
    ) -> WorkerReport:
        if worker.valid_until - self._now() > self._settings.renew_before:
            self._counts.troubles.pop(worker.worker, None)
            return report_on(worker, Outcome.NOT_DUE)
        trouble = self._counts.troubles.get(worker.worker)
        if trouble is not None and self._steady() < trouble.next_at:
            self._alarm(
                worker.worker, trouble.code, f"{self._still_has(worker)}, still: {trouble.detail}"
            )
            return report_on(worker, Outcome.WAITS, trouble.code, trouble.detail)
        try:
            return await self._renew(worker, everyone, alarms)
        except (Error, OSError) as error:
            return self._failed(worker, _code(error), str(error))
        except Exception as error:  # noqa: BLE001  # told with its traceback, and counted
            # Whatever a worker's answer has set off, the others have to be renewed all the same.
            _LOG.exception("renewing worker %d set off a bug", worker.worker)
            return self._failed(worker, type(error).__name__, str(error))

    async def _renew(
        self, worker: Worker, everyone: Sequence[Worker], alarms: list[RegistrarEvent]
    ) -> WorkerReport:
        client = self._clients(worker.endpoint.decode("utf-8", "replace"))
        timed = TimedWorker(client, seconds=self._settings.answers / 1_000)
        due_again = self._now() + self._settings.renew_before
        is_last_chance = worker.valid_until - self._now() <= LAST_LOOKS * self._settings.interval
        try:
            newer = successors(worker, everyone)
            if newer:
                identity = await timed.identity()
                if identity.signing_key in {other.signing_key for other in newer}:
                    self._counts.troubles.pop(worker.worker, None)
                    return report_on(worker, Outcome.REPLACED)
            admission = await self._registrar.renew(
                timed, worker, at_least_until=0 if is_last_chance else due_again + 1
            )
        finally:
            await client.close()
        self._counts.troubles.pop(worker.worker, None)
        self._counts.renewed += 1
        self._on_event(RegistrarEvent(kind=RegistrarEventKind.RENEWED, worker=worker.worker))
        is_simulated = admission.evidence.is_simulated
        _LOG.info(
            "worker %d is renewed until %s%s",
            worker.worker,
            format_utc(admission.worker.valid_until),
            " (simulated: proves no TEE)" if is_simulated else "",
        )
        alarms += self._shortcomings(admission, due_again)
        return report_on(admission.worker, Outcome.RENEWED, is_simulated=is_simulated)

    def _shortcomings(self, admission: Admission, due_again: int) -> list[RegistrarEvent]:
        """Tell of a renewal that is due again at once, or lasts longer than it may."""
        worker, found = admission.worker, []
        until = format_utc(worker.valid_until)
        if worker.valid_until <= due_again:
            words = f"renewed until {until} only: policy, collateral or contract allow no more"
            found.append(self._alarm(worker.worker, "GainsTooLittle", words))
        if admission.too_long:
            found.append(
                self._alarm(
                    worker.worker,
                    "OwnClockAhead",
                    f"renewed until {until}, {admission.too_long / HOUR_MS:.1f} hours longer than"
                    " the policy allows by the chain's time: set this machine's clock",
                )
            )
        return found

    def _is_simulated(self, report: WorkerReport, everyone: Sequence[Worker]) -> bool | None:
        """By the evidence that was just seen, else by what was written when it was registered."""
        if report.is_simulated is not None:
            return report.is_simulated
        worker = next(one for one in everyone if one.worker == report.worker)
        return self._registrar.archive.is_simulated(worker)

    def _failed(self, worker: Worker, code: str, detail: str) -> WorkerReport:
        trouble = self._counts.troubles.setdefault(worker.worker, _Trouble())
        detail = shown(detail)
        trouble.code, trouble.detail = code, detail
        trouble.next_at = self._steady() + self._delay(trouble.failures)
        trouble.failures += 1
        _LOG.error(
            "ALARM: worker %d could not be renewed, %s: %s",
            worker.worker,
            self._still_has(worker),
            detail,
        )
        self._on_event(
            RegistrarEvent(
                kind=RegistrarEventKind.RENEWAL_FAILED,
                worker=worker.worker,
                code=code,
                detail=detail,
            )
        )
        return report_on(worker, Outcome.FAILED, code, detail)

    def _still_has(self, worker: Worker) -> str:
        hours = (worker.valid_until - self._now()) / HOUR_MS
        return f"{hours:.1f} hours before its registration ends"

    def _doubts(self, contract: Parameters) -> list[RegistrarEvent]:
        """Tell of clock and limits that renewals can't go well with."""
        found = []
        if self._behind > contract.max_clock_skew:
            # Not the other way round: a chain where nothing is sent may rest, with its time.
            words = f"this machine's clock is {self._behind / 1_000:.0f} s behind the chain's"
            found.append(self._alarm(None, "OwnClockBehind", words))
        if contract.max_registration - CLOCK_MARGIN_MS <= self._settings.renew_before:
            words = (
                f"the contract takes registrations of {contract.max_registration / HOUR_MS:.1f}"
                f" hours, and {self._settings.renew_before / HOUR_MS:.1f} hours before their end"
                " they are due again: shorten registrar.renew_before"
            )
            found.append(self._alarm(None, "RenewBeforeTooLong", words))
        return found

    def _missing(self, everyone: Sequence[Worker]) -> tuple[RegistrarEvent, ...]:
        """Tell of workers that are named and can't be renewed: a slip must not be a silence."""
        living = {one.worker for one in everyone if one.status is not WorkerStatus.REVOKED}
        return tuple(
            self._alarm(
                worker, "WorkerNotFound", "it is named, and there is none, or it is revoked"
            )
            for worker in sorted((self._settings.workers or frozenset()) - living)
        )

    def _forget_all_but(self, mine: Sequence[Worker]) -> None:
        kept = {worker.worker for worker in mine}
        for worker in set(self._counts.troubles) - kept:
            del self._counts.troubles[worker]

    # The rest.

    async def _still_needed(self, reports: Sequence[WorkerReport]) -> list[Worker]:
        """The workers as they are after a round, but for those that are left to end."""
        wanted = {one.worker for one in reports if one.outcome is not Outcome.REPLACED}
        everyone = await self._read_workers()
        return [worker for worker in everyone if worker.worker in wanted]

    async def _ask_forecast(self, workers: Sequence[Worker]) -> tuple[RegistrarEvent, ...]:
        try:
            # It may ask the chain too, which is for one thread at a time.
            alarms = tuple(await self._registrar.calls.read(lambda _: self._forecast(workers)))
        except Exception as error:  # noqa: BLE001  # no forecast is a reason not to renew
            # That nobody can tell what will fail is itself to be told.
            return (self._alarm(None, _code(error), f"no forecast: {error}"),)
        return tuple(self._alarm(alarm.worker, alarm.code, alarm.detail) for alarm in alarms)

    def _alarm(self, worker: WorkerId | None, code: str, detail: str) -> RegistrarEvent:
        detail = shown(detail)
        who = "" if worker is None else f"worker {worker}: "
        _LOG.error("ALARM: %s%s: %s", who, code, detail)
        alarm = RegistrarEvent(
            kind=RegistrarEventKind.ALARM, worker=worker, code=code, detail=detail
        )
        self._on_event(alarm)
        return alarm

    async def _settle(self) -> None:
        with contextlib.suppress(ChainUnavailableError):
            await self._registrar.calls.settle_pending()

    def _delay(self, failures: int) -> int:
        longer = self._settings.retry << min(failures, MAX_DOUBLINGS)
        return min(self._settings.interval, longer)

    def _pause(self, chain_failures: int) -> int:
        """How long (ms) until the next look: sooner when something is to be tried again."""
        if chain_failures:
            return self._delay(chain_failures - 1)
        now = self._steady()
        retries = [trouble.next_at - now for trouble in self._counts.troubles.values()]
        return max(1, min([self._settings.interval, *retries]))


async def _unless(stop: StopEvent, work: Awaitable[object]) -> bool:
    """Do the work, or give it up when *stop* comes first; return whether it came."""
    doing = asyncio.ensure_future(work)
    stopping = asyncio.ensure_future(stop.wait())
    try:
        await asyncio.wait([doing, stopping], return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            doing.result()
            return stop.is_set()
        return True
    finally:
        for task in (doing, stopping):
            task.cancel()
        await asyncio.gather(doing, stopping, return_exceptions=True)


async def _all_of(work: Iterable[Awaitable[T]]) -> list[T]:
    """Do all of it at once; when one raises, or this is cancelled, none goes on."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _code(error: Exception) -> str:
    if isinstance(error, ContractError):
        return error.variant
    return error.code if isinstance(error, RefusedError) else type(error).__name__
