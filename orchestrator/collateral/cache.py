"""
Collateral that is kept: for each kind of platform, so that a source may be away for a while.

1. What is held is served while it is younger than a week and has more than a third of its life
   left; else the source is asked, and what is held serves on only where that fails.
2. Whatever has ended is never served.
3. Nothing is kept that the allowed roots did not sign, nor what goes back in time: a lower TCB
   evaluation number of either document, or an older list of what is revoked. Both are alarms.
4. A document of the same number and an older date goes back in nothing but its date, and a source
   of several machines gives such: the newer one that is held stays, and nobody is alarmed. A list
   has no such number, and a day's difference can be what revokes a machine: no tolerance.
5. A higher number holds at once, and can't be gone below once the source has given it twice, an
   hour apart: Intel signs evaluations months before they are in effect, and one of those, slipped
   in once, must not shut out the honest source until then. Going below one that was given for a
   shorter time is an alarm alone.

What is held is, in each part, the newest of what came; so it is the memory of what came as well.
"""

import contextlib
import fcntl
import json
import logging
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from orchestrator.collateral import CollateralSource
from orchestrator.collateral.facts import (
    CollateralFacts,
    PlatformKind,
    is_signed,
    platform_of,
    read_facts,
)
from orchestrator.errors import CollateralUnavailableError, EncodingError
from orchestrator.evidence import Collateral, dump_collateral_json, load_collateral_json
from orchestrator.evidence.bundle import MAX_COLLATERAL_BYTES

__all__ = [
    "AlarmHook",
    "CachedCollateral",
    "HeldCollateral",
    "NewestCollateral",
    "forget_collateral",
]

_LOG: Final = logging.getLogger(__name__)
REFRESH_AFTER_MS: Final = 7 * 86_400_000
CONFIRMED_AFTER_MS: Final = 3_600_000
_MAX_FILE: Final = 3 * MAX_COLLATERAL_BYTES
_KEPT: Final = re.compile(r"(tdx|sgx)-[0-9A-F]{12}-[a-z]+(\.unconfirmed)?\.json")
_DOCUMENTS: Final = ("tcb_info", "qe_identity")

AlarmHook = Callable[[str, str], None]
"""Hears of an alarm: its code, and words."""


@dataclass(frozen=True, kw_only=True)
class HeldCollateral:
    """
    What the cache holds for a kind of platform; `fetched_at` in ms.

    Its evaluation numbers first came at `seen_at` (ms); `is_confirmed` says that they came again
    an hour later.
    """

    collateral: Collateral
    facts: CollateralFacts
    fetched_at: int
    seen_at: int
    is_confirmed: bool

    def age(self, *, now: int) -> int:
        """How long ago it was fetched, in ms."""
        return max(0, now - self.fetched_at)

    def is_fresh(self, *, now: int) -> bool:
        """Whether it need not be asked for again."""
        if not self.is_confirmed and not 0 <= now - self.seen_at < CONFIRMED_AFTER_MS:
            return False
        life = self.facts.expires_at - self.facts.issued_at
        left = self.facts.expires_at - now
        return 0 <= now - self.fetched_at < REFRESH_AFTER_MS and 3 * left > life

    def is_valid(self, *, now: int) -> bool:
        """Whether it holds at *now*."""
        return self.facts.issued_at <= now <= self.facts.expires_at


def _log_alarm(code: str, detail: str) -> None:
    _LOG.error("ALARM: %s: %s", code, detail)


class CachedCollateral:
    """
    What *source* gives, kept in *folder*; several processes may share the folder.

    *roots* are the certificates (DER) that a policy allows. *on_alarm* hears the codes
    `CollateralWentBack`, `CollateralNotSigned` and, where what is held had to serve instead,
    `CollateralSourceAway`. *is_read_only* looks at another's folder and leaves it as it is.
    """

    def __init__(
        self,
        source: CollateralSource,
        folder: Path,
        *,
        roots: Collection[bytes],
        on_alarm: AlarmHook = _log_alarm,
        is_read_only: bool = False,
    ) -> None:
        self._source = source
        self._folder = folder
        self._roots = frozenset(roots)
        self._on_alarm = on_alarm
        self._is_read_only = is_read_only

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        held = self.held(quote, now=now)
        if held is not None and held.is_fresh(now=now):
            return held.collateral
        return self._refreshed(quote, now=now)

    def newest(self, quote: bytes, *, now: int) -> Collateral:
        """Ask the source however fresh what is held; else as `collateral`."""
        return self._refreshed(quote, now=now)

    def held(self, quote: bytes, *, now: int) -> HeldCollateral | None:
        """
        Return what is held for the quote's kind of platform and valid at *now*, if anything is.

        Raises:
            EncodingError: The quote can't be parsed.
        """
        stored = self._last(platform_of(quote))
        return stored if stored is not None and stored.is_valid(now=now) else None

    def close(self) -> None:
        self._source.close()

    def _refreshed(self, quote: bytes, *, now: int) -> Collateral:
        kind = platform_of(quote)
        try:
            found = self._source.collateral(quote, now=now)
            with self._alone():
                found = self._require_better(found, kind, now=now)
                self._keep(found, now=now)
        except CollateralUnavailableError as error:
            held = self.held(quote, now=now)  # another process may have found newer
            if held is None:
                raise
            self._on_alarm(
                "CollateralSourceAway", f"what was fetched before serves a {kind}: {error}"
            )
            return held.collateral
        return found

    def _require_better(self, found: Collateral, kind: PlatformKind, *, now: int) -> Collateral:
        """Return it, with those documents of what is held that are newer."""
        try:
            facts = read_facts(found)
        except EncodingError as error:
            raise CollateralUnavailableError(str(error)) from error
        if not is_signed(found, self._roots):
            self._refuse("CollateralNotSigned", f"for a {kind}: no allowed root signed it")
        confirmed, last = self._load(kind, is_confirmed=True), self._last(kind)
        if confirmed is not None and _is_below(facts, confirmed.facts):
            self._refuse(
                "CollateralWentBack",
                f"for a {kind}: the source gives TCB evaluation {_numbers(facts)}, and"
                f" {_numbers(confirmed.facts)} was there before; {self._folder} remembers it",
            )
        if last is None:
            return found
        if any(now_is < was for now_is, was in zip(facts.listed, last.facts.listed, strict=True)):
            self._refuse(
                "CollateralWentBack",
                f"for a {kind}: the source gives an older list of what is revoked than before;"
                f" {self._folder} remembers the newer one",
            )
        newer = _with_newer_documents(found, facts, last) if last.is_valid(now=now) else found
        return newer if is_signed(newer, self._roots) else found

    def _refuse(self, code: str, detail: str) -> None:
        self._on_alarm(code, detail)
        raise CollateralUnavailableError(f"{code}: {detail}")

    # Files.

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """Let no other process replace what is held between looking at it and replacing it."""
        try:
            descriptor = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # there is nothing yet
            yield
            return
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _place(self, kind: PlatformKind, *, is_confirmed: bool) -> Path:
        mark = "" if is_confirmed else ".unconfirmed"
        return self._folder / f"{kind.tee}-{kind.fmspc}-{kind.ca}{mark}.json"

    def _last(self, kind: PlatformKind) -> HeldCollateral | None:
        """What came last, which may have ended since."""
        return self._load(kind, is_confirmed=False) or self._load(kind, is_confirmed=True)

    def _load(self, kind: PlatformKind, *, is_confirmed: bool) -> HeldCollateral | None:
        """What the file holds; one that is damaged, or signed by nobody allowed now, is none."""
        try:
            with self._place(kind, is_confirmed=is_confirmed).open("rb") as file:
                document = json.loads(file.read(_MAX_FILE))
            collateral = load_collateral_json(document["collateral"])
            facts = read_facts(collateral)
            fetched_at = int(document["fetched_at"])
            seen_at = int(document.get("seen_at", fetched_at))
        except (
            *(OSError, ValueError, TypeError, KeyError, AttributeError),
            *(OverflowError, RecursionError, EncodingError),
        ):
            return None
        if facts.kind != kind or not is_signed(collateral, self._roots):
            return None
        return HeldCollateral(
            collateral=collateral,
            facts=facts,
            fetched_at=fetched_at,
            seen_at=seen_at,
            is_confirmed=is_confirmed,
        )

    def _keep(self, found: Collateral, *, now: int) -> None:
        """Keep what is good, and note since when its numbers come."""
        facts = read_facts(found)
        kind, numbers = facts.kind, facts.evaluation_numbers
        confirmed = self._load(kind, is_confirmed=True)
        short = self._load(kind, is_confirmed=False)
        seen_at = now
        is_confirmed = confirmed is not None and numbers == confirmed.facts.evaluation_numbers
        if short is not None and _is_below(facts, short.facts):
            self._on_alarm(
                "CollateralWentBack",
                f"for a {kind}: the source gives TCB evaluation {_numbers(facts)}, and gave"
                f" {_numbers(short.facts)} once before: it goes back, or gave what is not in effect"
                " yet",
            )
        elif short is not None and numbers == short.facts.evaluation_numbers:
            seen_at = min(short.seen_at, now)
            is_confirmed = now - seen_at >= CONFIRMED_AFTER_MS
        if not self._is_read_only:
            self._store(
                HeldCollateral(
                    collateral=found,
                    facts=facts,
                    fetched_at=now,
                    seen_at=seen_at,
                    is_confirmed=is_confirmed,
                )
            )

    def _store(self, held: HeldCollateral) -> None:
        """Keep it, whole or not at all; a folder that can't be written costs the cache, no more."""
        place = self._place(held.facts.kind, is_confirmed=held.is_confirmed)
        document = {
            "fetched_at": held.fetched_at,
            "seen_at": held.seen_at,
            "collateral": dump_collateral_json(held.collateral),
        }
        draft = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(document).encode())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(place)
            if held.is_confirmed:
                self._place(held.facts.kind, is_confirmed=False).unlink(missing_ok=True)
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            self._on_alarm("CollateralNotKept", f"{self._folder}: {error.strerror or error}")


def _is_below(found: CollateralFacts, held: CollateralFacts) -> bool:
    pairs = zip(found.evaluation_numbers, held.evaluation_numbers, strict=True)
    return any(number < before for number, before in pairs)


def _numbers(facts: CollateralFacts) -> str:
    """Return both numbers in words, or the one that both documents have."""
    return " and ".join(str(number) for number in dict.fromkeys(facts.evaluation_numbers))


def _with_newer_documents(
    found: Collateral, facts: CollateralFacts, held: HeldCollateral
) -> Collateral:
    """Return *found* with the documents of *held* that have the same number and a newer date."""
    for place, name in enumerate(_DOCUMENTS):
        is_same = facts.evaluation_numbers[place] == held.facts.evaluation_numbers[place]
        if is_same and facts.dated[place] < held.facts.dated[place]:
            parts = (name, f"{name}_signature", f"{name}_issuer_chain")
            found = replace(found, **{part: getattr(held.collateral, part) for part in parts})
    return found


def forget_collateral(folder: Path) -> tuple[Path, ...]:
    """
    Remove all that a cache keeps in *folder*, and with it what it remembers; return the files.

    Raises:
        OSError: One can't be removed, or the folder can't be read.
    """
    kept = sorted(path for path in folder.iterdir() if _KEPT.fullmatch(path.name))
    for path in kept:
        path.unlink()
    return tuple(kept)


class NewestCollateral:
    """The newest of a cache, however fresh what it holds: for whoever warns. It is not closed."""

    def __init__(self, cache: CachedCollateral) -> None:
        self._cache = cache

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        return self._cache.newest(quote, now=now)

    def close(self) -> None:
        """Leave the cache to whoever opened it."""
