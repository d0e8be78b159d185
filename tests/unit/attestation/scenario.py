"""
A statement that the contract would record, and one fault for each reason not to.

A `Scenario` is made of plain facts; `completion` signs what they say at that moment, so that a
fault in a signed field fails its own check and not the signature's.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from orchestrator.attestation import JobView, sign_statement, statement_of, verify_statement
from orchestrator.crypto import EcdsaSigner, Sr25519Signer
from orchestrator.models import (
    AttestationProof,
    Completion,
    InlinePayload,
    Job,
    JobStatus,
    Mode,
    Outcome,
    Parameters,
    PublicKey,
    Scheme,
    Signature,
    Statement,
    Worker,
    WorkerFailure,
    WorkerStatus,
)

GENESIS, CONTRACT = b"\x01" * 32, b"\x02" * 32
CREATED_AT = 1_793_000_000_000
PARAMETERS = Parameters(max_clock_skew=60_000, max_attestation_age=600_000)
ECDSA, SR25519 = EcdsaSigner.from_bytes(b"\x11" * 32), Sr25519Signer.from_bytes(b"\x12" * 32)
STRANGER = EcdsaSigner.from_bytes(b"\x13" * 32).public_key
SIGNERS = (ECDSA, SR25519)
UNSIGNED = {
    Scheme.ECDSA: Signature(scheme=Scheme.ECDSA, data=bytes(65)),
    Scheme.SR25519: Signature(scheme=Scheme.SR25519, data=bytes(64)),
}

JOB = Job(
    job_id=7,
    owner=b"\x03" * 32,
    encrypted_payload=InlinePayload(data=b"sealed"),
    public_key=b"\x04" * 32,
    created_at=CREATED_AT,
    processed=False,
    status=JobStatus.SUBMITTED,
    payload_hash=b"\x05" * 32,
    deadline=CREATED_AT + 3_600_000,
    workers=(3, 1),
    failures=(),
    processed_at=None,
)


def worker_of(signer: EcdsaSigner | Sr25519Signer) -> Worker:
    return Worker(
        worker=1,
        signing_key=signer.public_key,
        encryption_key=b"\x06" * 32,
        measurement=b"\x07" * 32,
        evidence_hash=b"\x08" * 32,
        endpoint=b"https://worker.example",
        registered_at=CREATED_AT - 1_000,
        valid_until=CREATED_AT + 7_200_000,
        status=WorkerStatus.ACTIVE,
    )


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """Everything that decides about one completion."""

    signer: EcdsaSigner | Sr25519Signer
    now: int = CREATED_AT + 30_000
    view: JobView
    job_id: int = JOB.job_id
    result_hash: bytes = b"\x09" * 32
    outcome: Outcome = Outcome.COMPLETED
    units: int = 5
    started_at: int = CREATED_AT + 10_000
    finished_at: int = CREATED_AT + 20_000
    issued_at: int = CREATED_AT + 25_000
    key: PublicKey | None = None
    signed: dict[str, object] = field(default_factory=dict)
    edit_signature: Callable[[Signature], Signature] = lambda signature: signature

    @property
    def completion(self) -> Completion:
        """The completion, its statement signed with *signed* in place of the true fields."""
        signed = replace(self.statement, **self.signed)  # type: ignore[arg-type]  # of the field's type
        signature = self.edit_signature(sign_statement(signed, self.signer))
        return self._completion(signature)

    @property
    def statement(self) -> Statement:
        """What the contract would rebuild."""
        return statement_of(
            self._completion(UNSIGNED[self.signer.public_key.scheme]),
            genesis_hash=self.view.genesis_hash,
            contract=self.view.contract,
            payload_hash=self.job.payload_hash,
            measurement=self.worker.measurement,
        )

    @property
    def job(self) -> Job:
        return self.view.job or JOB

    @property
    def worker(self) -> Worker:
        return self.view.worker or worker_of(self.signer)

    def verify(self) -> Statement:
        return verify_statement(self.completion, view=self.view, now=self.now)

    def with_view(self, **changes: object) -> "Scenario":
        return replace(self, view=replace(self.view, **changes))  # type: ignore[arg-type]  # the same

    def with_job(self, **changes: object) -> "Scenario":
        return self.with_view(job=replace(self.job, **changes))  # type: ignore[arg-type]  # the same

    def with_worker(self, **changes: object) -> "Scenario":
        return self.with_view(worker=replace(self.worker, **changes))  # type: ignore[arg-type]  # the same

    def _completion(self, signature: Signature) -> Completion:
        return Completion(
            job_id=self.job_id,
            result_hash=self.result_hash,
            attestation_proof=AttestationProof(
                outcome=self.outcome,
                units=self.units,
                started_at=self.started_at,
                finished_at=self.finished_at,
                issued_at=self.issued_at,
                signature=signature,
            ),
            tee_worker_pubkey=self.key or self.signer.public_key,
        )


def valid_scenario(signer: EcdsaSigner | Sr25519Signer) -> Scenario:
    return Scenario(
        signer=signer,
        view=JobView(
            genesis_hash=GENESIS,
            contract=CONTRACT,
            mode=Mode.RUNNING,
            parameters=PARAMETERS,
            job=JOB,
            worker=worker_of(signer),
            measurement_allowed=True,
        ),
    )


def _other_scheme(signature: Signature) -> Signature:
    other = Scheme.ECDSA if signature.scheme is Scheme.SR25519 else Scheme.SR25519
    return UNSIGNED[other]


def _broken(signature: Signature) -> Signature:
    return replace(signature, data=signature.data[:5] + b"\0" + signature.data[6:])


_FAILURE = WorkerFailure(worker=1, result_hash=b"\x0a" * 32, units=1, timestamp=CREATED_AT)

# (row of protocol 3.2, code, name, what to change in a valid scenario): each fails only its check.
FAULTS: list[tuple[int, str, str, Callable[[Scenario], Scenario]]] = [
    (1, "WrongMode", "halted", lambda s: s.with_view(mode=Mode.HALTED)),
    (2, "JobNotFound", "no_job", lambda s: s.with_view(job=None)),
    (2, "JobNotFound", "another_job", lambda s: replace(s, job_id=8)),
    (3, "AlreadyAttested", "attested", lambda s: s.with_job(status=JobStatus.ATTESTED)),
    (3, "AlreadyAttested", "processed", lambda s: s.with_job(status=JobStatus.PROCESSED)),
    (3, "WrongStatus", "failed", lambda s: s.with_job(status=JobStatus.FAILED)),
    (3, "WrongStatus", "cancelled", lambda s: s.with_job(status=JobStatus.CANCELLED)),
    (3, "WrongStatus", "expired", lambda s: s.with_job(status=JobStatus.EXPIRED)),
    (3, "DeadlinePassed", "deadline", lambda s: s.with_job(deadline=s.now - 1)),
    (4, "WorkerNotFound", "no_worker", lambda s: s.with_view(worker=None)),
    (4, "WorkerNotFound", "another_worker", lambda s: s.with_worker(signing_key=STRANGER)),
    (4, "KeyMismatch", "other_scheme", lambda s: replace(s, edit_signature=_other_scheme)),
    (5, "WorkerNotEligible", "not_in_job", lambda s: s.with_job(workers=(3, 2))),
    (6, "WorkerNotTrusted", "suspended", lambda s: s.with_worker(status=WorkerStatus.SUSPENDED)),
    (6, "WorkerNotTrusted", "revoked", lambda s: s.with_worker(status=WorkerStatus.REVOKED)),
    (6, "WorkerNotTrusted", "expired", lambda s: s.with_worker(valid_until=s.now - 1)),
    (6, "WorkerNotTrusted", "measurement", lambda s: s.with_view(measurement_allowed=False)),
    (7, "AlreadyFailed", "failed_before", lambda s: s.with_job(failures=(_FAILURE,))),
    (8, "EmptyResultHash", "no_result", lambda s: replace(s, result_hash=bytes(32))),
    (9, "StatementTimesInverted", "finish", lambda s: replace(s, finished_at=s.started_at - 1)),
    (9, "StatementTimesInverted", "issue", lambda s: replace(s, issued_at=s.finished_at - 1)),
    (10, "StatementBeforeJob", "early", lambda s: replace(s, started_at=CREATED_AT - 60_001)),
    (11, "StatementFromFuture", "future", lambda s: replace(s, issued_at=s.now + 60_001)),
    (12, "StatementTooOld", "old", lambda s: replace(s, now=s.issued_at + 600_001)),
    (13, "BadSignature", "signature", lambda s: replace(s, edit_signature=_broken)),
    (13, "BadSignature", "genesis", lambda s: replace(s, signed={"genesis_hash": bytes(32)})),
    (13, "BadSignature", "contract", lambda s: replace(s, signed={"contract": bytes(32)})),
    (13, "BadSignature", "job_id", lambda s: replace(s, signed={"job_id": 8})),
    (13, "BadSignature", "payload", lambda s: replace(s, signed={"payload_hash": bytes(32)})),
    (13, "BadSignature", "outcome", lambda s: replace(s, signed={"outcome": Outcome.FAILED})),
    (13, "BadSignature", "result", lambda s: replace(s, signed={"result_hash": bytes(32)})),
    (13, "BadSignature", "units", lambda s: replace(s, signed={"units": 6})),
    (13, "BadSignature", "measured", lambda s: replace(s, signed={"measurement": bytes(32)})),
    (13, "BadSignature", "started", lambda s: replace(s, signed={"started_at": CREATED_AT})),
    (13, "BadSignature", "finished", lambda s: replace(s, signed={"finished_at": CREATED_AT})),
    (13, "BadSignature", "issued", lambda s: replace(s, signed={"issued_at": CREATED_AT})),
]
