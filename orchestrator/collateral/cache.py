"""
Collateral that is kept: one file per kind of platform, so that a source may be away for a while.

1. What is held is served while it is younger than a week and has more than a third of its life
   left; else the source is asked, and what is held serves on only where that fails.
2. Whatever has ended is never served.
3. Nothing is kept that the allowed roots did not sign, or whose TCB evaluation number is lower
   than one that was kept before: a source that gives such goes back in time. Both are alarms.
"""

import contextlib
import json
import logging
import os
import secrets
from collections.abc import Callable, Collection
from dataclasses import dataclass
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

__all__ = ["AlarmHook", "CachedCollateral", "HeldCollateral", "NewestCollateral"]

_LOG: Final = logging.getLogger(__name__)
REFRESH_AFTER_MS: Final = 7 * 86_400_000
_MAX_FILE: Final = 3 * MAX_COLLATERAL_BYTES

AlarmHook = Callable[[str, str], None]
"""Hears of an alarm: its code, and words."""


@dataclass(frozen=True, kw_only=True)
class HeldCollateral:
    """What the cache holds for a kind of platform; `fetched_at` in ms."""

    collateral: Collateral
    facts: CollateralFacts
    fetched_at: int

    def age(self, *, now: int) -> int:
        """How long ago it was fetched, in ms."""
        return max(0, now - self.fetched_at)

    def is_fresh(self, *, now: int) -> bool:
        """Whether it need not be asked for again."""
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
    `CollateralSourceAway`.
    """

    def __init__(
        self,
        source: CollateralSource,
        folder: Path,
        *,
        roots: Collection[bytes],
        on_alarm: AlarmHook = _log_alarm,
    ) -> None:
        self._source = source
        self._folder = folder
        self._roots = frozenset(roots)
        self._on_alarm = on_alarm

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        held = self.held(quote, now=now)
        if held is not None and held.is_fresh(now=now):
            return held.collateral
        return self._refreshed(quote, held, now=now)

    def newest(self, quote: bytes, *, now: int) -> Collateral:
        """Ask the source however fresh what is held; else as `collateral`."""
        return self._refreshed(quote, self.held(quote, now=now), now=now)

    def held(self, quote: bytes, *, now: int) -> HeldCollateral | None:
        """
        Return what is held for the quote's kind of platform and valid at *now*, if anything is.

        Raises:
            EncodingError: The quote can't be parsed.
        """
        stored = self._load(platform_of(quote))
        return stored if stored is not None and stored.is_valid(now=now) else None

    def close(self) -> None:
        self._source.close()

    def _refreshed(self, quote: bytes, held: HeldCollateral | None, *, now: int) -> Collateral:
        kind = platform_of(quote)
        try:
            found = self._source.collateral(quote, now=now)
            facts = self._require_better(found, kind)
        except CollateralUnavailableError as error:
            if held is None:
                raise
            self._on_alarm(
                "CollateralSourceAway", f"what was fetched before serves a {kind}: {error}"
            )
            return held.collateral
        self._store(HeldCollateral(collateral=found, facts=facts, fetched_at=now))
        return found

    def _require_better(self, found: Collateral, kind: PlatformKind) -> CollateralFacts:
        try:
            facts = read_facts(found)
        except EncodingError as error:
            raise CollateralUnavailableError(str(error)) from error
        if not is_signed(found, self._roots):
            self._refuse("CollateralNotSigned", f"for a {kind}: no allowed root signed it")
        highest = self._highest(kind)
        if facts.evaluation_number < highest:
            self._refuse(
                "CollateralWentBack",
                f"for a {kind}: the source gives TCB evaluation {facts.evaluation_number}, and"
                f" {highest} was there before; {self._place(kind)} remembers it",
            )
        return facts

    def _refuse(self, code: str, detail: str) -> None:
        self._on_alarm(code, detail)
        raise CollateralUnavailableError(f"{code}: {detail}")

    # Files.

    def _place(self, kind: PlatformKind) -> Path:
        return self._folder / f"{kind.tee}-{kind.fmspc}-{kind.ca}.json"

    def _highest(self, kind: PlatformKind) -> int:
        """The highest number that was kept, of collateral that may have ended since."""
        stored = self._load(kind)
        return 0 if stored is None else stored.facts.evaluation_number

    def _load(self, kind: PlatformKind) -> HeldCollateral | None:
        """What the file holds; one that is damaged, or signed by nobody allowed now, is none."""
        try:
            with self._place(kind).open("rb") as file:
                document = json.loads(file.read(_MAX_FILE))
            collateral = load_collateral_json(document["collateral"])
            facts = read_facts(collateral)
            fetched_at = int(document["fetched_at"])
        except (OSError, ValueError, TypeError, KeyError, RecursionError, EncodingError):
            return None
        if facts.kind != kind or not is_signed(collateral, self._roots):
            return None
        return HeldCollateral(collateral=collateral, facts=facts, fetched_at=fetched_at)

    def _store(self, held: HeldCollateral) -> None:
        """Keep it, whole or not at all; a folder that can't be written costs the cache, no more."""
        place = self._place(held.facts.kind)
        document = {
            "fetched_at": held.fetched_at,
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
        except OSError as error:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            self._on_alarm("CollateralNotKept", f"{self._folder}: {error.strerror or error}")


class NewestCollateral:
    """The newest of a cache, however fresh what it holds: for whoever warns. It is not closed."""

    def __init__(self, cache: CachedCollateral) -> None:
        self._cache = cache

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        return self._cache.newest(quote, now=now)

    def close(self) -> None:
        """Leave the cache to whoever opened it."""
