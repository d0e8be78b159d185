"""What a receipt's evidence shows: that the worker's keys live in what the policy allows."""

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.attestation import AttestationFile, CheckOutcome
from orchestrator.encoding import blake2_256
from orchestrator.errors import EncodingError, Error
from orchestrator.evidence import (
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
    takes_own: bool,
    is_refused: bool,
    facts: StoredFacts | None,
    now: int,
    show_time: Callable[[int], str],
) -> EvidenceSteps:
    """
    Check the evidence at *now* (ms), by the reader's policy, or else by the receipt's.

    1. `evidence`: the bundle hashes to what the worker was registered with.
    2. `policy`: the policy file hashes to what the bundle names. Whoever made the evidence may have
       made the policy too, so this is missing unless the reader has a policy or *takes_own*.
    3. `E01` to `E14`: the production verifier's checks, for the measurement that the worker was
       registered with. Who did not issue the challenge can't tell `E13`, and `E14` is told by the
       contract's storage in *facts*.
    4. `measurement`: what was measured.
    5. `receipt's policy`: only where the reader's decided, what the receipt's own says. It is a
       stranger's, so it is not even read where the receipt *is_refused* already.
    """
    try:
        bundle = load_bundle(evidence)
    except EncodingError as error:
        return _ended([_failed(StepName.EVIDENCE, error)], StepName.POLICY)
    if blake2_256(evidence) != claimed.worker.evidence_hash:
        words = "the bundle is not the one that the worker is registered with"
        return _ended([_failed(StepName.EVIDENCE, words)], StepName.POLICY)
    steps = [_passed(StepName.EVIDENCE, "the bundle is the one the worker is registered with")]
    if blake2_256(policy) != bundle.policy_hash:
        words = "the policy is not the one that the bundle names"
        return _ended([*steps, _failed(StepName.POLICY, words)])
    deciding = reader_policy
    if deciding is None:
        try:
            deciding = load_policy(policy)
        except Error as error:
            return _ended([*steps, _failed(StepName.POLICY, error)])
    steps.append(_whose_policy(is_readers=reader_policy is not None, takes_own=takes_own))
    verdict = _examined(claimed, evidence, deciding, facts, now)
    steps += [
        Step(
            name=f"{finding.check.value} {finding.check.title}",
            outcome=finding.outcome,
            detail=finding.detail,
            is_decisive=finding.check is not EvidenceCheck.CHALLENGE,
        )
        for finding in verdict.findings
    ]
    steps.append(_measured(verdict, now, show_time))
    if reader_policy is not None:
        is_refused = is_refused or any(step.is_failed for step in steps)
        steps.append(
            _not_reached(StepName.OWN_POLICY, is_decisive=False)
            if is_refused
            else _by_own(lambda: _examined(claimed, evidence, load_policy(policy), facts, now))
        )
    return EvidenceSteps(steps=tuple(steps), verified=verdict.evidence)


def _whose_policy(*, is_readers: bool, takes_own: bool) -> Step:
    if is_readers:
        return _passed(StepName.POLICY, "the registrar's, which the bundle names; yours decides")
    if takes_own:
        return _passed(StepName.POLICY, "the registrar's decides, as you want it")
    return Step(
        name=StepName.POLICY,
        outcome=CheckOutcome.NOT_CHECKED,
        detail="this is the registrar's policy; --policy names yours, --receipts-policy takes this"
        " one",
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
            measurement=claimed.worker.measurement,
        ),
        challenge=None,
        standing=standing,
    )


def _measured(verdict: Verdict, now: int, show_time: Callable[[int], str]) -> Step:
    verified = verdict.evidence
    if verified is None:
        return _not_reached(StepName.MEASUREMENT)
    found = (
        f"measurement set {verified.measurement_set}, TCB {verified.tcb_status}, root"
        f" {verified.root}, at {show_time(now)}"
    )
    if verified.is_simulated:
        found = f"{SIMULATED}; {found}"
    return _passed(StepName.MEASUREMENT, found)


def _by_own(examine: Callable[[], Verdict]) -> Step:
    try:
        refused = examine().refused_by
    except Error as error:
        says = f"can't be read ({error})"
    else:
        says = "accepts it too" if refused is None else f"refuses it ({refused.check.value})"
    return Step(
        name=StepName.OWN_POLICY,
        outcome=CheckOutcome.PASSED if says == "accepts it too" else CheckOutcome.FAILED,
        detail=f"the receipt's own policy {says}; yours decides",
        is_decisive=False,
    )


def _not_reached(name: str, *, is_decisive: bool = True) -> Step:
    return Step(
        name=name,
        outcome=CheckOutcome.NOT_CHECKED,
        detail=_NOT_REACHED,
        is_decisive=is_decisive,
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
    return EvidenceSteps(steps=(*steps, *map(_not_reached, rest)), verified=None)
