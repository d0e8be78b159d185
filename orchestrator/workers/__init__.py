"""
The `WorkerClient` port: what an orchestrator, a registrar or an owner asks of a worker over HTTP.

What it says is protocol section 4. The adapter for real workers is `workers.http`; nothing here
imports an HTTP library, because the worker itself uses these types and should import little.

A worker's answers are claims. Adapters check their form, and that they answer the question that
was asked; whether a signature is good is for `attestation` to say.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Protocol

from orchestrator.models import Completion, JobId, PublicKey, Signature

__all__ = [
    "JobKey",
    "JobRequest",
    "RequestHead",
    "WorkerClient",
    "WorkerIdentity",
    "WorkerJob",
    "WorkerJobState",
]


class WorkerJobState(Enum):
    """What a worker says about a job."""

    QUEUED = "queued"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Whether the worker has signed an outcome, which never changes again."""
        return self in (WorkerJobState.DONE, WorkerJobState.FAILED)


@dataclass(frozen=True, kw_only=True)
class JobKey:
    """What a worker knows a job by: it signs one outcome for each such key, ever."""

    genesis: bytes
    contract: bytes
    job_id: JobId
    payload_hash: bytes


@dataclass(frozen=True, kw_only=True)
class RequestHead:
    """
    What the chain says about the job; `recipients` are its workers' encryption keys in order.

    A worker with a chain compares all of it with the chain.
    """

    owner: bytes
    public_key: bytes
    recipients: tuple[bytes, ...]
    created_at: int
    deadline: int


@dataclass(frozen=True, kw_only=True)
class JobRequest:
    """A job for a worker; `envelope` is `None` when the worker can get it by `key.payload_hash`."""

    key: JobKey
    head: RequestHead
    envelope: bytes | None


@dataclass(frozen=True, kw_only=True)
class WorkerJob:
    """
    A job as its worker sees it.

    `completion` and `result_length` are there exactly when `state.is_final`; the completion names
    the job that was asked for, and its outcome agrees with the state.
    """

    state: WorkerJobState
    completion: Completion | None = None
    result_length: int | None = None


@dataclass(frozen=True, kw_only=True)
class WorkerIdentity:
    """
    What a worker says about itself, none of it proven.

    `slots` jobs run at once and `queue` more may wait; `running` and `waiting` are the load.
    `tee` is `None` for a worker that does not claim to run in one; `development` lists the
    developer options it runs with. The keys are the newest; jobs for a worker that is registered
    under one of `retired_keys` still run here.
    """

    signing_key: PublicKey
    encryption_key: bytes
    version: str
    tasks: tuple[str, ...]
    slots: int
    queue: int
    running: int
    waiting: int
    tee: str | None
    development: tuple[str, ...]
    retired_keys: tuple[PublicKey, ...] = ()

    def serves(self, signing_key: PublicKey) -> bool:
        """Whether jobs for the worker registered under *signing_key* are run here."""
        return signing_key in (self.signing_key, *self.retired_keys)


class WorkerClient(Protocol):
    """
    One worker.

    Every method raises `WorkerUnavailableError` (no answer, too slow, full, 5xx: says nothing
    about the job), `WorkerRefusedError` (4xx, `status` says which; 404 is an unknown job) or
    `WorkerProtocolError` (an answer that is not of the protocol).
    """

    async def identity(self) -> WorkerIdentity: ...

    async def registration(
        self,
        *,
        genesis: bytes,
        contract: bytes,
        measurement: bytes,
        evidence_hash: bytes,
        valid_until: int,
        signing_key: PublicKey | None = None,
    ) -> Signature:
        """
        Return the worker's possession signature (protocol 3.3), unverified.

        It is by the worker's newest key, or by the older one named by *signing_key*.
        """
        ...

    async def evidence(
        self,
        *,
        genesis: bytes,
        contract: bytes,
        challenge: bytes,
        signing_key: PublicKey | None = None,
    ) -> bytes:
        """
        Return the bytes of an evidence bundle, unverified and not even parsed.

        It is for the worker's newest keys, or for the older pair named by *signing_key*; there are
        at most `MAX_BUNDLE_BYTES` of it. A worker without a TEE refuses with 501.
        """
        ...

    async def put_evidence(self, data: bytes) -> bytes:
        """Have the worker keep the bytes of a bundle of its own, and return their hash."""
        ...

    async def rotate(self, *, genesis: bytes, contract: bytes) -> WorkerIdentity:
        """
        Have the worker make new keys, and return what it says about itself then.

        Refused with 409 while the newest keys are not registered at the contract.
        """
        ...

    async def put_blob(self, data: bytes) -> bytes:
        """Store sealed bytes at the worker and return their hash."""
        ...

    async def get_blob(self, digest: bytes, *, max_bytes: int) -> bytes:
        """
        Return the bytes that hash to *digest*; the hash is checked.

        Raises:
            BlobNotFoundError: The worker has no such blob.
            BlobTooLargeError: It is longer than *max_bytes*; no more than that was read.
            DigestMismatchError: The worker answered with other bytes.
        """
        ...

    async def put_job(self, request: JobRequest) -> bool:
        """Hand the job over; `True` when it is new to the worker, `False` when it is there."""
        ...

    async def get_job(self, key: JobKey, *, wait_seconds: float = 0) -> WorkerJob:
        """
        Return what the worker says about the job, after at most *wait_seconds*.

        The worker answers early when the job gets final. A final answer is signed anew each time,
        with the time of signing.
        """
        ...

    async def delete_job(self, key: JobKey) -> None:
        """Stop the job and drop its bytes; what was signed stays known."""
        ...

    async def close(self) -> None: ...
