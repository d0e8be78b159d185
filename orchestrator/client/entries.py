"""What the client's own list of jobs holds, as frozen values."""

from dataclasses import dataclass, field
from enum import Enum

from orchestrator.models import JobId, JobStatus, WorkerId

__all__ = ["Entry", "EntryState", "ListedJob", "NewEntry", "UnfinishedJob"]


class EntryState(Enum):
    """What is known of an entry's way to the chain."""

    SEALED = "sealed"
    SENDING = "sending"
    SUBMITTED = "submitted"
    REFUSED = "refused"


@dataclass(frozen=True, kw_only=True)
class NewEntry:
    """
    What goes into the list before it is sent.

    `counter` and `block` are the chain's job counter and finalized block before sending:
    the job, if there is one, comes after both. `fingerprint` recognises the same content
    again without telling what it is. `session` is who holds the entry for as long as it lives.
    `policy_hash` names the policy that the workers met, `None` when they were a node's to name.
    """

    key: str | None
    fingerprint: bytes
    payload_hash: bytes
    envelope: bytes = field(repr=False)
    public_key: bytes
    workers: tuple[WorkerId, ...]
    ttl: int
    counter: int
    block: int
    created_at: int
    session: str
    policy_hash: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class Entry(NewEntry):
    """An entry of the list that may still have to be sent, or was refused."""

    entry: int
    state: EntryState


@dataclass(frozen=True, kw_only=True)
class UnfinishedJob:
    """A sealed job that was left behind: whether it is on the chain is not known (times in ms)."""

    entry: int
    key: str | None
    payload_hash: bytes
    workers: tuple[WorkerId, ...]
    created_at: int
    perhaps_sent: bool


@dataclass(frozen=True, kw_only=True)
class ListedJob:
    """
    A job of this owner, as last seen (times in ms).

    `status` is the last one known; of a purged job it is the one it ended with. `block` is
    a block that is not after the one the job was submitted in. `policy_hash` names the policy that
    it was sealed under, where this list sealed it under one.
    """

    job_id: JobId
    key: str | None
    payload_hash: bytes
    workers: tuple[WorkerId, ...]
    status: JobStatus
    purged: bool
    block: int
    created_at: int
    policy_hash: bytes | None = None
