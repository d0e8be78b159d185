"""
What a worker believes about a job before it opens or signs anything.

`ChainHeads` believes the chain alone. `UnsafeRequestHeads` believes the request, for development
without a chain.
"""

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

from orchestrator.chain import Chain
from orchestrator.chain.processor import JobProcessor
from orchestrator.crypto.sealing import read_job_header, verify_job_header
from orchestrator.errors import ChainError, OpenError
from orchestrator.models import (
    InlinePayload,
    Job,
    JobStatus,
    Parameters,
    PublicKey,
    Worker,
    WorkerId,
    WorkerStatus,
)
from orchestrator.worker.identity import KeyRing
from orchestrator.worker.outcomes import OutcomeStore
from orchestrator.worker.refusal import RefusalError
from orchestrator.workers import JobKey, JobRequest, RequestHead

__all__ = ["ChainHeads", "Heads", "JobFacts", "UnsafeRequestHeads"]

T = TypeVar("T")

_RETRY_SECONDS = 2
_UNREADABLE = "the chain can't be read now"
# Sooner than an orchestrator gives up on us: then it knows that it is not the worker's fault.
_READ_SECONDS = 5.0
# A chain that makes blocks makes one in this time; the time of one that does not says nothing.
_IDLE_SECONDS = 20.0
# The clock was set when it has moved so far against the one that nobody sets.
_STEP_MS = 1_000
# The administrator can change it, so it is read again now and then.
_PARAMETERS_MS = 60_000
# No contract lets a job live longer (protocol 2.4), and none starts after a registration's end.
_LONGEST_TTL_MS = 30 * 86_400_000


@dataclass(frozen=True, kw_only=True)
class JobFacts:
    """
    The job's head, which of the worker's keys signs about it, and its payload if known.

    `measurement` is what statements say: that of the key's registration.
    """

    head: RequestHead
    signing_key: PublicKey
    measurement: bytes
    max_clock_skew: int
    payload: bytes | None = None


class Heads(Protocol):
    """Where facts come from."""

    async def facts(self, request: JobRequest) -> JobFacts:
        """
        Return what is true of the job.

        Raises:
            RefusalError: 422, the request says otherwise; 409, the job is over; 503, can't tell.
        """
        ...

    def check_envelope(self, request: JobRequest, envelope: bytes) -> None:
        """Refuse with 422 an envelope that belongs to another head than the request's."""
        ...

    def knows(self, genesis: bytes, contract: bytes) -> bool:
        """Whether this worker works for the contract."""
        ...

    async def is_registered(self, key: PublicKey, genesis: bytes, contract: bytes) -> bool:
        """
        Whether one of the worker's keys was registered at the contract, whatever became of it.

        Raises:
            RefusalError: 503, can't tell.
        """
        ...

    async def is_over(self, key: PublicKey) -> bool:
        """
        Whether no outcome can be recorded any more that is signed by one of the worker's keys.

        One that is not registered anywhere counts as over.

        Raises:
            RefusalError: 503, can't tell.
        """
        ...

    def evidence_in_force(self, key: PublicKey) -> bytes | None:
        """
        Return the evidence hash of the key's registration, `None` when there is none.

        Takes as long as asking the chain does; not for the event loop.

        Raises:
            RefusalError: 503, can't tell.
        """
        ...

    def clock_trouble(self) -> str | None:
        """
        Say why times of the worker's clock can't be signed now, `None` when they can.

        Takes as long as asking the chain does; not for the event loop.
        """
        ...

    def block_time(self) -> int | None:
        """
        Return the time (ms) of the last finalized block, `None` without a chain.

        Takes as long as asking the chain does; not for the event loop.

        Raises:
            ChainError: It can't be asked now.
        """
        ...

    def close(self) -> None: ...


class ChainHeads:
    """
    Reads the chain at a finalized block, in a thread of its own.

    A job's head and a worker's keys and measurement never change, but a job's status does, so the
    job is read for every request, and nothing else as a rule.

    The worker's clock must not be ahead of the chain's, or what it signs is from the future. The
    time of any block proves that it is not, from then on until the clock is set. A last block that
    is old proves nothing: the clock may be ahead, or the chain makes no blocks while nothing
    happens. Then the chain is watched for a while, by *monotonic* (seconds): a new block tells,
    and no new block says that the chain rests.
    """

    def __init__(
        self,
        chain: Chain,
        contract: bytes,
        *,
        keys: KeyRing,
        clock: Callable[[], int],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._chain = chain
        self._contract = contract
        self._processor = JobProcessor(contract)
        self._keys = keys
        self._clock = clock
        self._monotonic = monotonic
        # The clock against the monotonic one (ms), when it was last known not to be ahead.
        self._proven: float | None = None
        self._watched: tuple[int, float] | None = None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="worker-chain")
        self._genesis = chain.genesis_hash
        self._workers: dict[WorkerId, Worker] = {}
        self._parameters: tuple[int, Parameters] | None = None

    async def facts(self, request: JobRequest) -> JobFacts:
        key = request.key
        if not self.knows(key.genesis, key.contract):
            raise RefusalError(422, "genesis, contract: not those that this worker works for")
        return await self._in_thread(lambda: self._read(request))

    async def is_registered(self, key: PublicKey, genesis: bytes, contract: bytes) -> bool:
        del genesis, contract  # those of the chain
        return await self._in_thread(lambda: self._registration(key) is not None)

    async def is_over(self, key: PublicKey) -> bool:
        return await self._in_thread(lambda: self._is_over(key))

    def evidence_in_force(self, key: PublicKey) -> bytes | None:
        try:
            worker = self._thread.submit(self._registration, key).result(_READ_SECONDS)
        except (ChainError, TimeoutError) as error:
            raise _later(_UNREADABLE) from error
        return None if worker is None else worker.evidence_hash

    async def _in_thread(self, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_READ_SECONDS):
                return await loop.run_in_executor(self._thread, work)
        except (ChainError, TimeoutError) as error:
            raise _later(_UNREADABLE) from error

    def check_envelope(self, request: JobRequest, envelope: bytes) -> None:
        # The envelope is compared with the chain when it is opened, and a failure is signed.
        del request, envelope

    def knows(self, genesis: bytes, contract: bytes) -> bool:
        return genesis == self._genesis and contract == self._contract

    def clock_trouble(self) -> str | None:
        try:
            return self._thread.submit(self._clock_trouble).result(_READ_SECONDS)
        except (ChainError, TimeoutError):
            return _UNREADABLE

    def block_time(self) -> int | None:
        return self._thread.submit(self._chain.finalized_head).result().timestamp

    def close(self) -> None:
        self._thread.shutdown()

    def _read(self, request: JobRequest) -> JobFacts:
        key = request.key
        job = self._chain.read(self._processor.get_job(key.job_id))
        if job is None:
            raise _later(f"no finalized job {key.job_id} yet")
        trouble = self._clock_trouble(job.created_at)
        if trouble is not None:
            raise _later(trouble)
        workers = [self._worker(worker) for worker in job.workers]
        ours = [worker for worker in workers if self._keys.find(worker.signing_key) is not None]
        if not ours and not self._is_registered():
            raise _later("this worker is not registered on the chain yet")
        head = _head(job, workers)
        _check_head(key, request.head, job, head)
        if not ours:
            raise RefusalError(422, f"job {key.job_id} is not for this worker")
        if job.status is not JobStatus.SUBMITTED:
            raise RefusalError(409, f"job {key.job_id} is {job.status.value} on the chain")
        us = self._signs(ours)
        payload = job.encrypted_payload
        return JobFacts(
            head=head,
            signing_key=us.signing_key,
            measurement=us.measurement,
            max_clock_skew=self._skew(),
            payload=payload.data if isinstance(payload, InlinePayload) else None,
        )

    def _clock_trouble(self, block_time: int | None = None) -> str | None:
        """Say why the clock can't be vouched for; *block_time* is of any block, if one is known."""
        # The contract takes no statement from its future, however long the worker waits.
        now, skew = self._clock(), self._skew()
        offset = now - self._monotonic() * 1_000
        if self._proven is not None and offset <= self._proven + _STEP_MS:
            return None
        head = None
        if block_time is None or now - block_time > skew:
            head = self._chain.finalized_head()
            block_time = head.timestamp
        if now - block_time <= skew or (head is not None and self._rests(head.number)):
            self._proven = offset
            return None
        return (
            f"the worker's clock is {now - block_time} ms ahead of the chain's last block; whether"
            " the chain makes blocks is being watched"
        )

    def _rests(self, number: int) -> bool:
        """Whether this has been the last block for so long that the chain makes none."""
        now = self._monotonic()
        if self._watched is None or self._watched[0] != number:
            self._watched = (number, now)
        return now - self._watched[1] >= _IDLE_SECONDS

    def _worker(self, worker: WorkerId) -> Worker:
        """Return a worker as first read: its keys and its measurement never change."""
        if worker not in self._workers:
            found = self._chain.read(self._processor.get_worker(worker))
            if found is None:
                raise _later(f"the chain has no worker {worker}")
            self._workers[worker] = found
        return self._workers[worker]

    def _signs(self, ours: list[Worker]) -> Worker:
        """Return the first that is trusted now, or else the first: one of them signs, for ever."""
        if len(ours) > 1:
            for worker in ours:
                if self._chain.read(self._processor.is_trusted(worker.worker)):
                    return worker
        return ours[0]

    def _is_registered(self) -> bool:
        pairs = self._keys.pairs
        return any(self._registration(pair.signing_key) is not None for pair in pairs)

    def _registration(self, key: PublicKey) -> Worker | None:
        return self._chain.read(self._processor.worker_by_key(key))

    def _is_over(self, key: PublicKey) -> bool:
        # The time first: a renewal after it only makes the registration end later.
        now = self._chain.finalized_head().timestamp
        worker = self._registration(key)
        # Revoking is final, and the contract records nothing of whoever is revoked.
        return (
            worker is None
            or worker.status is WorkerStatus.REVOKED
            or now > worker.valid_until + _LONGEST_TTL_MS
        )

    def _skew(self) -> int:
        now = self._clock()
        if self._parameters is None or not 0 <= now - self._parameters[0] < _PARAMETERS_MS:
            self._parameters = now, self._chain.read(self._processor.parameters())
        return self._parameters[1].max_clock_skew


class UnsafeRequestHeads:
    """Believes requests: whoever has a token can have anything signed. For development alone."""

    def __init__(self, outcomes: OutcomeStore, keys: KeyRing) -> None:
        self._outcomes = outcomes
        self._keys = keys

    async def facts(self, request: JobRequest) -> JobFacts:
        key = request.key
        pairs = {pair.encryption_key.public_key: pair for pair in self._keys.pairs}
        named = [pairs[recipient] for recipient in request.head.recipients if recipient in pairs]
        signing_key = (named[0] if named else self._keys.newest).signing_key
        measurement = self._outcomes.measurement(key.genesis, key.contract, signing_key)
        if measurement is None:
            raise _later("this worker was not asked to register for this contract yet")
        return JobFacts(
            head=request.head,
            signing_key=signing_key,
            measurement=measurement,
            max_clock_skew=Parameters().max_clock_skew,
        )

    async def is_registered(self, key: PublicKey, genesis: bytes, contract: bytes) -> bool:
        return self._outcomes.measurement(genesis, contract, key) is not None

    async def is_over(self, key: PublicKey) -> bool:
        # Without a chain nothing tells when a registration ends.
        return not self._outcomes.has_measurement(key)

    def evidence_in_force(self, key: PublicKey) -> bytes | None:
        del key
        return None

    def check_envelope(self, request: JobRequest, envelope: bytes) -> None:
        try:
            header = read_job_header(envelope)
        except OpenError:
            # That is the owner's fault, and is signed as a failure when the job is run.
            return
        head = request.head
        try:
            verify_job_header(
                header,
                genesis=request.key.genesis,
                contract=request.key.contract,
                owner=head.owner,
                reply_key=head.public_key,
                recipients=head.recipients,
            )
        except OpenError as error:
            raise RefusalError(422, "head: not that of the envelope") from error

    def knows(self, genesis: bytes, contract: bytes) -> bool:
        del genesis, contract
        return True

    def clock_trouble(self) -> str | None:
        return None

    def block_time(self) -> int | None:
        return None

    def close(self) -> None:
        """Nothing is open."""


def _head(job: Job, workers: list[Worker]) -> RequestHead:
    return RequestHead(
        owner=job.owner,
        public_key=job.public_key,
        recipients=tuple(worker.encryption_key for worker in workers),
        created_at=job.created_at,
        deadline=job.deadline,
    )


def _check_head(key: JobKey, said: RequestHead, job: Job, head: RequestHead) -> None:
    if job.payload_hash != key.payload_hash:
        raise RefusalError(422, "payload_hash: the chain has another")
    for name in ("owner", "public_key", "recipients", "created_at", "deadline"):
        if getattr(said, name) != getattr(head, name):
            raise RefusalError(422, f"head.{name}: the chain has another")


def _later(message: str) -> RefusalError:
    return RefusalError(503, message, retry_after_seconds=_RETRY_SECONDS)
