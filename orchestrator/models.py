"""
What contract and orchestrator talk about, as frozen values (protocol section 2.1).

Bytes are `bytes`; times are milliseconds since the epoch; account and contract ids are 32 bytes.
Nothing here does I/O, reads a clock or checks a rule; lengths of keys and hashes are checked where
bytes enter the program.
"""

from dataclasses import dataclass, field
from enum import Enum, IntEnum
from typing import Generic, Protocol, TypeAlias, TypeVar

T = TypeVar("T")

JobId: TypeAlias = int
WorkerId: TypeAlias = int


class Scheme(IntEnum):
    """Signature schemes; the value is the first of the 34 signing key bytes (protocol 3)."""

    SR25519 = 1
    ECDSA = 2


class Outcome(IntEnum):
    """How an execution ended; the value is the outcome byte of a statement (protocol 3)."""

    COMPLETED = 1
    FAILED = 2


class JobStatus(Enum):
    """Contract `JobStatus`, in the order of its variants."""

    SUBMITTED = "Submitted"
    ATTESTED = "Attested"
    PROCESSED = "Processed"
    FAILED = "Failed"
    CANCELLED = "Cancelled"
    EXPIRED = "Expired"

    @property
    def is_final(self) -> bool:
        """Whether no message but `purge_job` can change the job any more."""
        return self not in (JobStatus.SUBMITTED, JobStatus.ATTESTED)


class WorkerStatus(Enum):
    """Contract `WorkerStatus`, in the order of its variants."""

    ACTIVE = "Active"
    SUSPENDED = "Suspended"
    REVOKED = "Revoked"


class AttestationStatus(Enum):
    """Contract `AttestationStatus`, in the order of its variants."""

    NOT_FOUND = "NotFound"
    BAD_SIGNATURE = "BadSignature"
    WORKER_REVOKED = "WorkerRevoked"
    MEASUREMENT_REVOKED = "MeasurementRevoked"
    WORKER_SUSPENDED = "WorkerSuspended"
    WORKER_EXPIRED = "WorkerExpired"
    VALID = "Valid"


class Mode(Enum):
    """Contract `Mode`, in the order of its variants."""

    RUNNING = "Running"
    DRAINING = "Draining"
    HALTED = "Halted"


class Role(Enum):
    """Contract `Role`, in the order of its variants."""

    REGISTRAR = "Registrar"
    OPERATOR = "Operator"
    GUARDIAN = "Guardian"


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """A signing key: 32 bytes for sr25519, 33 (compressed) for ECDSA secp256k1."""

    scheme: Scheme
    key: bytes


@dataclass(frozen=True, kw_only=True)
class Signature:
    """A signature: 64 bytes for sr25519, 65 (`r ‖ s ‖ v`) for ECDSA secp256k1."""

    scheme: Scheme
    data: bytes


class Signer(Protocol):
    """Signs 32-byte digests with a worker's signing key."""

    @property
    def public_key(self) -> PublicKey: ...

    def sign(self, digest: bytes) -> Signature: ...


class Account(Protocol):
    """A chain account that can sign transactions (sr25519, raw bytes, context `substrate`)."""

    @property
    def account_id(self) -> bytes: ...

    def sign(self, message: bytes) -> bytes: ...


@dataclass(frozen=True, kw_only=True)
class InlinePayload:
    """A sealed payload that is stored in the contract."""

    data: bytes


@dataclass(frozen=True, kw_only=True)
class ReferencePayload:
    """A sealed payload that is stored elsewhere; `location` is only a hint."""

    length: int
    location: bytes


Payload: TypeAlias = InlinePayload | ReferencePayload


@dataclass(frozen=True, kw_only=True)
class WorkerFailure:
    """A signed statement with outcome Failed, as the contract keeps it."""

    worker: WorkerId
    result_hash: bytes
    units: int
    timestamp: int


@dataclass(frozen=True, kw_only=True)
class JobHead:
    """What `jobs_page` returns of a job."""

    job_id: JobId
    owner: bytes
    status: JobStatus
    created_at: int
    deadline: int
    payload_hash: bytes
    workers: tuple[WorkerId, ...]
    processed_at: int | None


@dataclass(frozen=True, kw_only=True)
class Job:
    """Contract `ConfidentialJob`."""

    job_id: JobId
    owner: bytes
    encrypted_payload: Payload
    public_key: bytes
    created_at: int
    processed: bool
    status: JobStatus
    payload_hash: bytes
    deadline: int
    workers: tuple[WorkerId, ...]
    failures: tuple[WorkerFailure, ...]
    processed_at: int | None


@dataclass(frozen=True, kw_only=True)
class AttestationProof:
    """The worker's statement without what the contract rebuilds itself, and its signature."""

    outcome: Outcome
    units: int
    started_at: int
    finished_at: int
    issued_at: int
    signature: Signature


@dataclass(frozen=True, kw_only=True)
class Attestation:
    """Contract `JobAttestation`; `timestamp` is the block time of recording."""

    job_id: JobId
    result_hash: bytes
    attestation_proof: AttestationProof
    tee_worker_pubkey: PublicKey
    timestamp: int
    worker: WorkerId


@dataclass(frozen=True, kw_only=True)
class Completion:
    """What `record_attestation` takes, as one item of `complete_jobs`."""

    job_id: JobId
    result_hash: bytes
    attestation_proof: AttestationProof
    tee_worker_pubkey: PublicKey


@dataclass(frozen=True, kw_only=True)
class Statement:
    """All that a worker signs about one job (protocol 3.1), without the domain tag."""

    genesis_hash: bytes
    contract: bytes
    job_id: JobId
    payload_hash: bytes
    outcome: Outcome
    result_hash: bytes
    units: int
    measurement: bytes
    started_at: int
    finished_at: int
    issued_at: int


@dataclass(frozen=True, kw_only=True)
class Worker:
    """A worker as the contract lists it."""

    worker: WorkerId
    signing_key: PublicKey
    encryption_key: bytes
    measurement: bytes
    evidence_hash: bytes
    endpoint: bytes
    registered_at: int
    valid_until: int
    status: WorkerStatus


@dataclass(frozen=True, kw_only=True)
class WorkerRegistration:
    """What `register_worker` takes."""

    signing_key: PublicKey
    encryption_key: bytes
    measurement: bytes
    evidence_hash: bytes
    endpoint: bytes
    valid_until: int


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """Which workers may execute a job, in the owner's order, and for how long (ms)."""

    workers: tuple[WorkerId, ...]
    ttl: int


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """The contract's limits (protocol 2.4) with their defaults: bytes, ms, counts."""

    max_payload: int = 8_192
    max_reference: int = 1 << 30
    min_ttl: int = 60_000
    max_ttl: int = 7 * 86_400_000
    rate_limit: int = 60
    rate_window: int = 3_600_000
    max_attestation_age: int = 600_000
    max_clock_skew: int = 60_000
    max_registration: int = 30 * 86_400_000
    mark_grace: int = 3_600_000


@dataclass(frozen=True, kw_only=True)
class Page(Generic[T]):
    """One page of a list; `next` is where to go on, `None` at the end."""

    items: tuple[T, ...]
    next: int | None
    total: int


@dataclass(frozen=True, kw_only=True)
class TaskInput:
    """
    What a job's plaintext says: the task, its input and its parameters (protocol 3.4).

    `repr` shows the task's name alone: the rest is confidential.
    """

    task: str
    input: bytes = field(repr=False)
    parameters: dict[str, object] = field(default_factory=dict, repr=False)
