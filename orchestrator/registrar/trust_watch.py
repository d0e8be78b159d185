"""
Looks at workers, evidence and collateral, and tells what will fail next: numbers and alarms.

`TrustWatch` is what a registrar calls in each round; `phala-jobs trust status` looks once.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from orchestrator.collateral import CollateralSource
from orchestrator.collateral.facts import platform_of
from orchestrator.errors import CollateralUnavailableError, EncodingError, Error
from orchestrator.evidence import Collateral, Policy, load_bundle
from orchestrator.metrics import RegistrarEvent, RegistrarEventKind, RegistrarMetrics
from orchestrator.models import Worker, WorkerStatus
from orchestrator.registrar.forecast import (
    NO_EVIDENCE,
    KnownWorker,
    TrustForecast,
    WorkerForecast,
)
from orchestrator.registrar.trust import forecast_trust

__all__ = ["ALARM_WINDOW_MS", "TrustWatch", "alarms_of"]

# A registrar renews 72 hours ahead: with two days left, a day of renewals has failed.
ALARM_WINDOW_MS = 48 * 3_600_000


class TrustWatch:
    """
    Finds out what `forecast_trust` needs; times in ms.

    *evidence* returns the bytes of a worker's bundle, checked against its hash on the chain, or
    raises. *collateral* is asked at each look (`newest_of` a cache); without it each bundle's own
    serves. *early* gives what is published and not yet in effect. *metrics* are set at each look.
    """

    def __init__(
        self,
        *,
        policy: Policy,
        genesis_hash: bytes,
        contract: bytes,
        evidence: Callable[[Worker], bytes],
        collateral: CollateralSource | None,
        early: CollateralSource | None = None,
        is_measurement_allowed: Callable[[bytes], bool] = lambda _: True,
        metrics: RegistrarMetrics | None = None,
    ) -> None:
        self._policy = policy
        self._genesis_hash = genesis_hash
        self._contract = contract
        self._evidence = evidence
        self._collateral = collateral
        self._early = early
        self._is_measurement_allowed = is_measurement_allowed
        self._metrics = metrics

    def look(
        self, workers: Sequence[Worker], *, now: int, window: int = ALARM_WINDOW_MS
    ) -> TrustForecast:
        """
        Look once, and set the numbers. It blocks: from a coroutine, call it in a thread.

        What can't be had for one worker is told in its forecast, and hides no other's.
        """
        sources = _Sources(self._collateral, self._early, now=now)
        made = forecast_trust(
            [self._known(worker, sources) for worker in workers],
            policy=self._policy,
            genesis_hash=self._genesis_hash,
            contract=self._contract,
            now=now,
            window=window,
        )
        if self._metrics is not None:
            _set_numbers(self._metrics, made)
        return made

    def _known(self, worker: Worker, sources: "_Sources") -> KnownWorker:
        known = KnownWorker(worker=worker, bundle=None, newest=None)
        if worker.status is WorkerStatus.REVOKED or worker.evidence_hash == NO_EVIDENCE:
            return known
        is_allowed = self._is_measurement_allowed(worker.measurement)
        known = replace(known, is_measurement_revoked=not is_allowed)
        try:
            data = self._evidence(worker)
        except (Error, OSError) as error:
            return replace(known, trouble=f"its evidence: {_words(error)}")
        try:
            bundle = load_bundle(data)
            newest = sources.newest(bundle.quote) if self._collateral else bundle.collateral
            early = sources.early(bundle.quote)
        except (CollateralUnavailableError, EncodingError) as error:
            return replace(known, bundle=data, trouble=_words(error))
        return replace(known, bundle=data, newest=newest, early=early)


class _Sources:
    """The sources in one look: each is asked once for each kind of platform."""

    def __init__(
        self, newest: CollateralSource | None, early: CollateralSource | None, *, now: int
    ) -> None:
        self._newest = newest
        self._early = early
        self._now = now
        self._found: dict[tuple[bool, object], Collateral | CollateralUnavailableError] = {}

    def newest(self, quote: bytes) -> Collateral | None:
        """
        Return the newest, `None` without a source.

        Raises:
            CollateralUnavailableError: There is none now.
            EncodingError: The quote can't be parsed.
        """
        found = self._ask(self._newest, quote, early=False)
        if isinstance(found, CollateralUnavailableError):
            raise found
        return found

    def early(self, quote: bytes) -> Collateral | None:
        """Return what is not in effect yet, `None` where there is none: not every PCCS has it."""
        found = self._ask(self._early, quote, early=True)
        return None if isinstance(found, CollateralUnavailableError) else found

    def _ask(
        self, source: CollateralSource | None, quote: bytes, *, early: bool
    ) -> Collateral | CollateralUnavailableError | None:
        if source is None:
            return None
        key = (early, platform_of(quote))
        if key not in self._found:
            try:
                self._found[key] = source.collateral(quote, now=self._now)
            except CollateralUnavailableError as error:
                self._found[key] = error
        return self._found[key]


def alarms_of(made: TrustForecast) -> tuple[RegistrarEvent, ...]:
    """
    Return what is to be told of a forecast: all that fails up to its end, and what is unknown.

    A recovery that is published and not yet in effect is an alarm too: it is why there is time.
    """
    return tuple(alarm for one in made.watched for alarm in _alarms(one, until=made.until))


def _alarms(one: WorkerForecast, *, until: int) -> list[RegistrarEvent]:
    found = [
        (failure.code, failure.detail)
        for failure in one.failures
        if failure.at is None or failure.is_due(by=until)
    ]
    if one.unknown:
        found.append(("TrustUnknown", one.unknown))
    return [
        RegistrarEvent(
            kind=RegistrarEventKind.ALARM, worker=one.worker.worker, code=code, detail=detail
        )
        for code, detail in found
    ]


def _set_numbers(metrics: RegistrarMetrics, made: TrustForecast) -> None:
    metrics.set_registrations(
        {one.worker.worker: one.worker.valid_until for one in made.watched}, now=made.at
    )
    metrics.set_collateral_expiry(made.collateral_ends_at or 0)
    metrics.set_evaluation_numbers(
        in_use=made.evaluation_number, newest=made.newest_evaluation_number
    )


def _words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
