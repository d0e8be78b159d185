"""What is written down, as frozen values."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

from orchestrator.models import JobId, Outcome, WorkerId

__all__ = ["JobRecord", "JobState", "PageChanges", "Refusal", "SeenStatement", "Usage"]


class JobState(Enum):
    """Where a job stands for this orchestrator; after `ATTESTED` it is closed for good."""

    DEFERRED = "deferred"
    ADMITTED = "admitted"
    DISPATCHED = "dispatched"
    ATTESTED = "attested"
    REFUSED = "refused"
    PROCESSED = "processed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    PURGED = "purged"

    @property
    def is_closed(self) -> bool:
        """Whether nothing more is done about the job."""
        return self in _CLOSED


_CLOSED = frozenset(
    {
        JobState.REFUSED,
        JobState.PROCESSED,
        JobState.FAILED,
        JobState.CANCELLED,
        JobState.EXPIRED,
        JobState.PURGED,
    }
)


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """
    One job's row; `code` is why it is where it is, empty when nothing went wrong.

    `dispatched` lists the workers that may hold the job's bytes.
    """

    job_id: JobId
    owner: bytes
    payload_hash: bytes
    workers: tuple[WorkerId, ...]
    created_at: int
    deadline: int
    size: int
    state: JobState
    seen_at: int
    updated_at: int
    code: str = ""
    detail: str = ""
    dispatched: tuple[WorkerId, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """Something refused about a job; `worker` is 0 when no worker had a part in it."""

    job_id: JobId
    worker: WorkerId
    code: str
    detail: str
    count: int
    first_at: int
    last_at: int


@dataclass(frozen=True, kw_only=True)
class SeenStatement:
    """A statement that a worker has signed about a job, as first seen; its signature verified."""

    job_id: JobId
    worker: WorkerId
    payload_hash: bytes
    outcome: Outcome
    result_hash: bytes
    units: int
    started_at: int
    finished_at: int
    issued_at: int
    signature: bytes

    def conflicts_with(self, other: "SeenStatement") -> bool:
        """
        Whether the two say different things about one job (protocol 4: times of issue apart).

        With another payload it is another job, of the same id on another run of the chain.
        """
        if self.payload_hash != other.payload_hash:
            return False
        return (self.outcome, self.result_hash, self.units, self.started_at, self.finished_at) != (
            other.outcome,
            other.result_hash,
            other.units,
            other.started_at,
            other.finished_at,
        )


@dataclass(frozen=True, kw_only=True)
class Usage:
    """What was admitted of one owner on one day."""

    jobs: int = 0
    bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class PageChanges:
    """
    What one page of events changes, written together with the cursor behind it.

    `cursor_hash` is the hash of the cursor's block, empty where it is not known.
    """

    cursor: tuple[int, int]
    cursor_hash: bytes = b""
    records: Sequence[JobRecord] = ()
    usage: Mapping[tuple[int, bytes], Usage] = field(default_factory=dict)
