"""A worker's evidence once it was examined, and what is registered of it, as values."""

from dataclasses import dataclass

from orchestrator.errors import RefusedError
from orchestrator.evidence import (
    EvidenceError,
    ExpectedBinding,
    IssuedChallenge,
    Verdict,
    VerifiedEvidence,
)
from orchestrator.evidence.instants import format_utc
from orchestrator.models import Worker, WorkerRegistration

__all__ = ["Admission", "Examined", "registration_of"]


@dataclass(frozen=True, kw_only=True)
class Examined:
    """
    What a worker showed, and what came of the checks; `renews` is the worker that it has to be.

    `evidence` raises `EvidenceError` where a check refused. `bundle`, `expected` and `challenge`
    are what was examined, to do it again.
    """

    url: str
    verdict: Verdict
    renews: Worker | None
    bundle: bytes
    expected: ExpectedBinding
    challenge: IssuedChallenge

    @property
    def evidence(self) -> VerifiedEvidence:
        """The verified evidence."""
        if self.verdict.evidence is None:
            raise EvidenceError(self.verdict)
        return self.verdict.evidence


@dataclass(frozen=True, kw_only=True)
class Admission:
    """
    A worker as the chain lists it after it was registered or renewed, and on what evidence.

    `too_long` (ms) is by how much it lasts longer than the policy allows, by the time of the chain
    after it was sent: then our clock is ahead.
    """

    worker: Worker
    evidence: VerifiedEvidence
    too_long: int = 0


def registration_of(
    evidence: VerifiedEvidence, *, endpoint: bytes, valid_until: int
) -> WorkerRegistration:
    """
    Return what is registered of verified evidence: its keys, its measurement, its hash.

    Raises:
        RefusedError: *valid_until* is later than the evidence allows.
        TypeError: It is no verified evidence, only something like it.
    """
    if type(evidence) is not VerifiedEvidence:
        raise TypeError("only verified evidence is registered")
    if valid_until > evidence.valid_until:
        raise RefusedError(
            "ValidityOutOfRange",
            f"valid until {format_utc(valid_until)}, and policy and collateral allow until"
            f" {format_utc(evidence.valid_until)}",
        )
    return WorkerRegistration(
        signing_key=evidence.bundle.signing_key,
        encryption_key=evidence.bundle.encryption_key,
        measurement=evidence.measurement,
        evidence_hash=evidence.evidence_hash,
        endpoint=endpoint,
        valid_until=valid_until,
    )
