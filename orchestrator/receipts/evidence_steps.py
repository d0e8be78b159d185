"""What a receipt's evidence shows: that the worker's keys live in what the policy allows."""

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.attestation import AttestationFile, CheckOutcome
from orchestrator.encoding import blake2_256
from orchestrator.errors import EncodingError, Error
from orchestrator.evidence import (
    EvidenceBundle,
    EvidenceCheck,
    ExpectedBinding,
    KeyStanding,
    Policy,
    Verdict,
    VerifiedEvidence,
    examine_evidence,
    load_bundle,
    load_policy,
)
from orchestrator.receipts.facts import StoredFacts
from orchestrator.receipts.steps import Step, StepName

__all__ = ["EvidenceSteps", "take_evidence_steps"]

_NOT_REACHED = "not reached"
SIMULATED = "simulated: proves no TEE"


@dataclass(frozen=True, kw_only=True)
class EvidenceSteps:
    """The steps, and what the deciding policy makes of the evidence, if it was asked."""

    steps: tuple[Step, ...]
    verified: VerifiedEvidence | None


def take_evidence_steps(
    claimed: AttestationFile,
    *,
    evidence: bytes,
    policy: bytes,
    reader_policy: Policy | None,
    facts: StoredFacts | None,
    now: int,
    show_time: Callable[[int], str],
) -> EvidenceSteps:
    """
    Check the evidence at *now* (ms), by the receipt's policy, or by the reader's when given.

    1. `evidence`: the bundle hashes to what the worker was registered with.
    2. `policy`: the policy file hashes to what the bundle names, and can be read.
    3. `E01` to `E14`: the production verifier's checks. Who did not issue the challenge can't tell
       `E13`, and `E14` is told by the contract's storage in *facts*.
    4. `measurement`: what was measured is what the worker was registered with.
    5. `receipt's policy`: only where the reader's decided, what the receipt's own says.
    """
    try:
        bundle = load_bundle(evidence)
    except EncodingError as error:
        return _ended([_failed(StepName.EVIDENCE, error)], StepName.POLICY)
    if blake2_256(evidence) != claimed.worker.evidence_hash:
        words = "the bundle is not the one that the worker is registered with"
        return _ended([_failed(StepName.EVIDENCE, words)], StepName.POLICY)
    steps = [_passed(StepName.EVIDENCE, "the bundle is the one the worker is registered with")]
    own, step = _own_policy(bundle, policy, is_readers=reader_policy is not None)
    steps.append(step)
    if own is None:
        return _ended(steps)
    verdict = _examined(claimed, evidence, reader_policy or own, facts, now)
    steps += [
        Step(
            name=f"{finding.check.value} {finding.check.title}",
            outcome=finding.outcome,
            detail=finding.detail,
            is_decisive=finding.check is not EvidenceCheck.CHALLENGE,
        )
        for finding in verdict.findings
    ]
    steps.append(_measured(claimed, verdict, now, show_time))
    if reader_policy is not None:
        steps.append(_by_own(_examined(claimed, evidence, own, facts, now)))
    return EvidenceSteps(steps=tuple(steps), verified=verdict.evidence)


def _own_policy(
    bundle: EvidenceBundle, policy: bytes, *, is_readers: bool
) -> tuple[Policy | None, Step]:
    if blake2_256(policy) != bundle.policy_hash:
        return None, _failed(StepName.POLICY, "the policy is not the one that the bundle names")
    try:
        loaded = load_policy(policy)
    except Error as error:
        return None, _failed(StepName.POLICY, error)
    whose = "yours decides below" if is_readers else "not yours, which --policy would name"
    return loaded, _passed(
        StepName.POLICY, f"the policy is the one that the bundle names: the registrar's; {whose}"
    )


def _examined(
    claimed: AttestationFile, evidence: bytes, policy: Policy, facts: StoredFacts | None, now: int
) -> Verdict:
    standing = None
    if facts is not None:
        standing = KeyStanding(
            worker=facts.worker,
            renews=claimed.worker.worker,
            is_measurement_revoked=facts.is_measurement_revoked,
        )
    return examine_evidence(
        evidence,
        policy=policy,
        now=now,
        expected=ExpectedBinding(
            genesis_hash=claimed.genesis_hash,
            contract=claimed.contract,
            signing_key=claimed.worker.signing_key,
            encryption_key=claimed.worker.encryption_key,
        ),
        challenge=None,
        standing=standing,
    )


def _measured(
    claimed: AttestationFile, verdict: Verdict, now: int, show_time: Callable[[int], str]
) -> Step:
    verified = verdict.evidence
    if verified is None:
        return Step(
            name=StepName.MEASUREMENT, outcome=CheckOutcome.NOT_CHECKED, detail=_NOT_REACHED
        )
    found = (
        f"measurement set {verified.measurement_set}, TCB {verified.tcb_status}, root"
        f" {verified.root}, at {show_time(now)}"
    )
    if verified.is_simulated:
        found = f"{SIMULATED}; {found}"
    if verified.measurement != claimed.worker.measurement:
        return _failed(
            StepName.MEASUREMENT, f"the worker is registered with another than was found: {found}"
        )
    return _passed(StepName.MEASUREMENT, found)


def _by_own(verdict: Verdict) -> Step:
    refused = verdict.refused_by
    return Step(
        name=StepName.OWN_POLICY,
        outcome=CheckOutcome.PASSED if refused is None else CheckOutcome.FAILED,
        detail="the receipt's own policy accepts it too; yours decides"
        if refused is None
        else f"the receipt's own policy refuses it ({refused.check.value}); yours decides",
        is_decisive=False,
    )


def _passed(name: str, detail: str) -> Step:
    return Step(name=name, outcome=CheckOutcome.PASSED, detail=detail)


def _failed(name: str, why: object) -> Step:
    return Step(name=name, outcome=CheckOutcome.FAILED, detail=str(why))


def _ended(steps: list[Step], *names: str) -> EvidenceSteps:
    rest = [
        *names,
        *(f"{check.value} {check.title}" for check in EvidenceCheck),
        StepName.MEASUREMENT,
    ]
    missing = (
        Step(name=name, outcome=CheckOutcome.NOT_CHECKED, detail=_NOT_REACHED) for name in rest
    )
    return EvidenceSteps(steps=(*steps, *missing), verified=None)
