"""
What will fail next, and when: so that everybody is warned before a worker is refused.

Each worker's stored evidence is examined again, as a renewal would be, with the newest collateral
and the policy of today: what refuses it now is told while the registration still holds. A renewal
brings a new quote of the same machine, so what the stored one says of its TCB is what that one will
say, until the machine is updated.

Nothing here does I/O or reads a clock; `TrustWatch` in `trust_watch` does.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from orchestrator.collateral.facts import CollateralFacts, is_signed, read_facts
from orchestrator.errors import EncodingError
from orchestrator.evidence import (
    Collateral,
    EvidenceBundle,
    EvidenceCheck,
    EvidenceFinding,
    ExpectedBinding,
    KeyStanding,
    Policy,
    TcbRules,
    Verdict,
    dump_bundle,
    examine_evidence,
    load_bundle,
)
from orchestrator.evidence.intel_root import INTEL_ROOT
from orchestrator.evidence.tcb import TCB_STATUSES
from orchestrator.models import Worker, WorkerStatus
from orchestrator.registrar.forecast import (
    NO_EVIDENCE,
    Failure,
    KnownWorker,
    TrustForecast,
    TrustLevel,
    WorkerForecast,
)

__all__ = ["forecast_trust"]

_TCB_CHECKS: Final = (
    EvidenceCheck.TCB_STATUS,
    EvidenceCheck.ADVISORIES,
    EvidenceCheck.EVALUATION_NUMBER,
)
_SECOND: Final = 1_000  # what the dates of Intel are exact to


def forecast_trust(
    workers: Sequence[KnownWorker],
    *,
    policy: Policy,
    genesis_hash: bytes,
    contract: bytes,
    now: int,
    window: int,
) -> TrustForecast:
    """
    Return what will fail next for each worker; *now* and *window* in ms.

    Does **not** say whether a worker is there and answers, nor what its machine has become since:
    only new evidence can.
    """
    maker = _Maker(policy, genesis_hash=genesis_hash, contract=contract, now=now, window=window)
    return TrustForecast(
        at=now, until=now + window, workers=tuple(maker.forecast(known) for known in workers)
    )


class _Maker:
    """Makes the forecast of each worker."""

    def __init__(
        self, policy: Policy, *, genesis_hash: bytes, contract: bytes, now: int, window: int
    ) -> None:
        self._policy = policy
        self._genesis_hash = genesis_hash
        self._contract = contract
        self._now = now
        self._until = now + window

    def forecast(self, known: KnownWorker) -> WorkerForecast:
        worker = known.worker
        if worker.status is WorkerStatus.REVOKED:
            return WorkerForecast(worker=worker, level=TrustLevel.FINE)
        ends = _registration_ends(worker, self._now)
        if worker.evidence_hash == NO_EVIDENCE:
            none = Failure(
                code="NoEvidence",
                at=self._now,
                detail="it was registered on its own word, without evidence",
                hint="register it anew with a policy",
            )
            found = WorkerForecast(worker=worker, level=TrustLevel.FINE, has_evidence=False)
            return self._judged(found, [none, ends])
        try:
            return self._examined(known, ends)
        except EncodingError as error:
            return self._unknown(known, ends, str(error))

    def _examined(self, known: KnownWorker, ends: Failure) -> WorkerForecast:
        if known.bundle is None:
            return self._unknown(known, ends, known.trouble or "its evidence is not to be had")
        bundle = load_bundle(known.bundle)
        in_use = None if bundle.collateral is None else read_facts(bundle.collateral)
        if known.newest is None:
            trouble = known.trouble or "no collateral is to be had for its platform"
            return replace(
                self._unknown(known, ends, trouble),
                evaluation_number=None if in_use is None else in_use.evaluation_number,
                is_simulated=None
                if bundle.collateral is None
                else not is_signed(bundle.collateral, [INTEL_ROOT]),
            )
        newest = read_facts(known.newest)
        early = self._signed_early(known)
        numbers = [facts.evaluation_number for facts in (newest, early) if facts is not None]
        failures = [ends]
        verdict = self._examine(known, bundle, known.newest, now=self._now)
        refusal = None if verdict is None else verdict.refused_by
        if verdict is None:
            failures.append(_not_in_policy(worker=known.worker, now=self._now))
        elif refusal is not None:
            failures.append(_refused(refusal, self._now))
        else:
            failures.append(self._next_refusal(known, bundle, known.newest, newest))
            failures += self._ahead(known, bundle, early)
        status = None if verdict is None else self._status(known, bundle, known.newest, verdict)
        found = WorkerForecast(
            worker=known.worker,
            level=TrustLevel.FINE,
            collateral_ends_at=newest.expires_at,
            tcb_status=status,
            evaluation_number=None if in_use is None else in_use.evaluation_number,
            newest_evaluation_number=max(numbers),
            is_simulated=not is_signed(known.newest, [INTEL_ROOT]),
        )
        return self._judged(found, failures)

    def _status(
        self,
        known: KnownWorker,
        bundle: EvidenceBundle,
        collateral: Collateral,
        verdict: Verdict,
    ) -> str | None:
        """Return the TCB's status, of a worker that its policy refuses for it as well."""
        if verdict.evidence is not None:
            return verdict.evidence.tcb_status
        any_status = replace(self._policy, tcb=TcbRules(statuses=frozenset(TCB_STATUSES)))
        told = self._examine(known, bundle, collateral, now=self._now, policy=any_status)
        return None if told is None or told.evidence is None else told.evidence.tcb_status

    def _examine(
        self,
        known: KnownWorker,
        bundle: EvidenceBundle,
        collateral: Collateral,
        *,
        now: int,
        policy: Policy | None = None,
    ) -> Verdict | None:
        """
        What a renewal's checks would come to; `None` when its set is not in the policy.

        Another *policy* than the one that decides is for finding out facts.
        """
        worker = known.worker
        same = tuple(
            one for one in self._policy.measurements if one.measurement == worker.measurement
        )
        if not same:
            return None  # a renewal can't change the measurement that the contract keeps
        policy = replace(policy or self._policy, measurements=same)
        completed = replace(bundle, collateral=collateral, policy_hash=policy.policy_hash)
        standing = KeyStanding(
            worker=worker,
            renews=worker.worker,
            is_measurement_revoked=known.is_measurement_revoked,
            is_renewal=True,
        )
        return examine_evidence(
            dump_bundle(completed),
            policy=policy,
            now=now,
            expected=ExpectedBinding(
                genesis_hash=self._genesis_hash,
                contract=self._contract,
                signing_key=worker.signing_key,
                encryption_key=worker.encryption_key,
            ),
            challenge=None,
            standing=standing,
        )

    def _next_refusal(
        self,
        known: KnownWorker,
        bundle: EvidenceBundle,
        collateral: Collateral,
        facts: CollateralFacts,
    ) -> Failure:
        """
        When a renewal with this collateral is refused first, and by what.

        Time alone makes evidence worse: a grace ends, collateral ends. So the first time is found
        by halving.
        """

        def refusal_at(now: int) -> EvidenceFinding | None:
            verdict = self._examine(known, bundle, collateral, now=now)
            return None if verdict is None else verdict.refused_by

        last = refusal_at(facts.expires_at)
        if last is None:
            return Failure(
                code="CollateralEnds",
                at=facts.expires_at + 1,
                detail="the newest collateral ends; a renewal after that wants newer",
                hint="is the collateral source in order? It gave nothing newer",
            )
        at, finding = _first_refusal(refusal_at, self._now, facts.expires_at, last)
        return _refused(finding, at)

    def _signed_early(self, known: KnownWorker) -> CollateralFacts | None:
        """What is published, where an allowed root signed it: else anybody could raise alarms."""
        roots = [root.certificate for root in self._policy.roots]
        if known.early is None or not is_signed(known.early, roots):
            return None
        return read_facts(known.early)

    def _ahead(
        self, known: KnownWorker, bundle: EvidenceBundle, early: CollateralFacts | None
    ) -> list[Failure]:
        """What is published, and refuses this worker's TCB once it is in effect."""
        if known.early is None or early is None:
            return []
        verdict = self._examine(known, bundle, known.early, now=self._now)
        refusal = None if verdict is None else verdict.refused_by
        if refusal is None or refusal.check not in _TCB_CHECKS:
            return []
        return [
            Failure(
                code="TcbRecoveryAhead",
                at=None,
                detail=(
                    f"TCB evaluation {early.evaluation_number} is published; once it is in effect,"
                    f" {refusal.check.value} refuses: {refusal.detail}"
                ),
                hint=refusal.hint or "update the machine before",
            )
        ]

    def _unknown(self, known: KnownWorker, ends: Failure, why: str) -> WorkerForecast:
        found = WorkerForecast(
            worker=known.worker,
            level=TrustLevel.UNKNOWN,
            has_evidence=known.bundle is not None,
            unknown=why,
        )
        return self._judged(found, [ends])

    def _judged(self, found: WorkerForecast, failures: list[Failure]) -> WorkerForecast:
        ordered = sorted(failures, key=lambda one: (one.at is None, one.at or 0))
        if any(one.is_due(by=self._until) for one in ordered):
            level = TrustLevel.FAILS
        elif found.unknown:
            level = TrustLevel.UNKNOWN
        elif any(one.at is None for one in ordered):
            level = TrustLevel.WARNING
        elif found.worker.status is WorkerStatus.SUSPENDED:
            level = TrustLevel.SUSPENDED
        else:
            level = TrustLevel.FINE
        return replace(found, failures=tuple(ordered), level=level)


def _registration_ends(worker: Worker, now: int) -> Failure:
    is_over = now > worker.valid_until
    return Failure(
        code="RegistrationEnds",
        at=worker.valid_until + 1,  # it is trusted in the millisecond itself
        detail="its registration has ended" if is_over else "its registration ends",
        hint="renew it, or revoke it if it is gone" if is_over else "renew it before",
    )


def _not_in_policy(*, worker: Worker, now: int) -> Failure:
    return Failure(
        code="MeasurementNotInPolicy",
        at=now,
        detail=f"the policy has no measurement set 0x{worker.measurement.hex()}",
        hint="rotate its keys to register it with another set, or let it end",
    )


def _refused(finding: EvidenceFinding, at: int) -> Failure:
    return Failure(code=finding.check.value, at=at, detail=finding.detail, hint=finding.hint)


def _first_refusal(
    refusal_at: Callable[[int], EvidenceFinding | None],
    accepted_at: int,
    refused_at: int,
    refusal: EvidenceFinding,
) -> tuple[int, EvidenceFinding]:
    """Halve until the second of the first refusal is known."""
    while refused_at - accepted_at > _SECOND:
        middle = (accepted_at + refused_at) // 2
        finding = refusal_at(middle)
        if finding is None:
            accepted_at = middle
        else:
            refused_at, refusal = middle, finding
    return refused_at, refusal
