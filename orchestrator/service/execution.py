"""
One job at one worker: hand it over, wait for the signed outcome, fetch the sealed result.

Nothing here decides about a statement; see `turns`.
"""

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestrator.encoding import blake2_256
from orchestrator.errors import (
    BlobNotFoundError,
    BlobTooLargeError,
    DigestMismatchError,
    RefusedError,
    WorkerProtocolError,
    WorkerUnavailableError,
)
from orchestrator.journal import JobState
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.models import Completion, InlinePayload, Job, Worker, WorkerId
from orchestrator.service.backlog import OpenJob
from orchestrator.service.clients import WorkerClients, ask
from orchestrator.service.deletions import Deletions
from orchestrator.service.parts import Parts
from orchestrator.service.steps import Step
from orchestrator.workers import (
    JobKey,
    JobRequest,
    RequestHead,
    WorkerClient,
    WorkerJob,
    WorkerJobState,
)

__all__ = ["Answer", "Execution"]

EARLY_ANSWERS = 2  # a worker answers early when a job leaves the queue, and when it is final
EARLY_SECONDS = 0.25
QUEUED_PER_SLOT = 4
EARLY_MAX_SECONDS = 5.0


@dataclass(frozen=True, kw_only=True)
class Answer:
    """A worker's final answer, and how long it says that the sealed result is."""

    completion: Completion
    result_length: int


class Execution:
    """Talks to workers about jobs; tells *on_room* how many a worker is worth handing at once."""

    def __init__(
        self,
        parts: Parts,
        clients: WorkerClients,
        deletions: Deletions,
        on_room: Callable[[WorkerId, int], None],
    ) -> None:
        self._parts = parts
        self._clients = clients
        self._deletions = deletions
        self._on_room = on_room
        self._known: set[WorkerId] = set()

    async def execute(self, open_job: OpenJob, job: Job, worker: Worker) -> Answer:
        """
        Have the worker execute the job.

        Raises:
            WorkerError: It did not, or does not answer.
            RefusedError: Its lease ended (`LeaseTimeout`).
            InputError: There is no client for it.
        """
        client = self._clients.of(worker)
        request = await self._request(job)
        try:
            await self._introduce(client, worker)
            return await self._hand_over(client, request, open_job, worker)
        except WorkerUnavailableError:
            self._known.discard(worker.worker)  # it may come back as another
            raise

    async def _introduce(self, client: WorkerClient, worker: Worker) -> None:
        """Make sure that it is this worker which answers there, and ask how much it can do."""
        if worker.worker in self._known:
            return
        settings = self._parts.settings
        identity = await ask(client.identity(), seconds=settings.answer_seconds)
        if not identity.serves(worker.signing_key):
            raise WorkerProtocolError("the worker at this address has another signing key")
        # A few more than it has slots for, so that it need not wait for us between two jobs.
        self._on_room(
            worker.worker, min(settings.jobs_per_worker, QUEUED_PER_SLOT * identity.slots)
        )
        self._known.add(worker.worker)

    async def _hand_over(
        self, client: WorkerClient, request: JobRequest, open_job: OpenJob, worker: Worker
    ) -> Answer:
        await self._write_dispatch(open_job, worker)
        await self._deletions.settled(open_job.job_id, worker.worker)
        parts = self._parts
        with parts.steps.at(Step.PUT_JOB):
            await ask(client.put_job(request), seconds=parts.settings.answer_seconds)
        parts.emit(
            ServiceEvent(kind=EventKind.DISPATCHED, job_id=open_job.job_id, worker=worker.worker)
        )
        with parts.steps.at(Step.AWAIT_OUTCOME):
            answer = await self._outcome(client, request.key)
        if isinstance(answer, Answer):
            return answer
        self._end_lease(open_job, worker, answer)
        lease = parts.settings.lease_seconds
        raise RefusedError("LeaseTimeout", f"no outcome within {lease:.0f} s")

    def _end_lease(self, open_job: OpenJob, worker: Worker, state: WorkerJobState | None) -> None:
        """
        Have the worker drop what it has not begun, when another one can take the job.

        What runs may still end first, and what one worker decides it decides once: dropping
        that could lose the only result that there will ever be.
        """
        others = set(open_job.record.workers) - open_job.failed - {worker.worker}
        if others and state is WorkerJobState.QUEUED:
            self._deletions.begin(open_job.record, worker)

    async def _request(self, job: Job) -> JobRequest:
        recipients = []
        for worker_id in job.workers:
            worker = await self._parts.ledger.worker(worker_id)
            if worker is None:
                raise RefusedError("WorkerNotFound", f"the job names worker {worker_id}")
            recipients.append(worker.encryption_key)
        if not isinstance(job.encrypted_payload, InlinePayload):
            raise RefusedError("PayloadByReference", f"{job.encrypted_payload.length} bytes")
        return JobRequest(
            key=self.key(job),
            head=RequestHead(
                owner=job.owner,
                public_key=job.public_key,
                recipients=tuple(recipients),
                created_at=job.created_at,
                deadline=job.deadline,
            ),
            envelope=job.encrypted_payload.data,
        )

    def key(self, job: Job) -> JobKey:
        """What workers know the job by."""
        return JobKey(
            genesis=self._parts.ledger.genesis_hash,
            contract=self._parts.ledger.contract,
            job_id=job.job_id,
            payload_hash=job.payload_hash,
        )

    async def _write_dispatch(self, open_job: OpenJob, worker: Worker) -> None:
        record = open_job.record
        if worker.worker in record.dispatched and record.state is JobState.DISPATCHED:
            return
        open_job.record = replace(
            self._parts.moved(record, JobState.DISPATCHED),
            dispatched=tuple(dict.fromkeys((*record.dispatched, worker.worker))),
        )
        with self._parts.steps.at(Step.WRITE_DISPATCH):
            await self._parts.records.save(open_job.record)

    async def _outcome(self, client: WorkerClient, key: JobKey) -> Answer | WorkerJobState | None:
        """Return the final answer, or what the worker said last before its lease ended."""
        settings = self._parts.settings
        clock = asyncio.get_running_loop().time
        ends_at = clock() + settings.lease_seconds
        lost = early = 0
        state: WorkerJobState | None = None
        while (left := ends_at - clock()) > 0:
            wait = min(settings.long_poll_seconds, left)
            asked_at = clock()
            try:
                answer = await ask(
                    client.get_job(key, wait_seconds=wait), seconds=wait + settings.answer_seconds
                )
            except WorkerUnavailableError as error:
                lost += 1
                if lost > 1 or error.retry_after_seconds is not None:
                    raise
                # One lost connection may be an idle one that was closed as we used it.
                await asyncio.sleep(random.uniform(0.02, 0.1))  # noqa: S311  # spreads retries
                continue
            if answer.state.is_final:
                return _final(answer, key)
            lost, state = 0, answer.state
            if clock() - asked_at < wait / 2:
                early += 1
                await _rest(early, left)
        return state

    async def fetch(self, worker: Worker, digest: bytes, *, length: int | None) -> bytes:
        """
        Return the sealed result from the worker.

        Raises:
            WorkerError: It does not answer.
            RefusedError: It has no such result, one of other bytes, or one that is too
                large: `ResultNotFound`, `ResultHashMismatch`, `ResultTooLarge`.
        """
        limit = self._parts.settings.max_result_bytes
        if length is not None and length > limit:
            raise RefusedError("ResultTooLarge", f"{length} bytes, limit {limit}")
        most = limit if length is None else length
        client = self._clients.of(worker)
        with self._parts.steps.at(Step.FETCH_RESULT):
            try:
                data = await ask(
                    client.get_blob(digest, max_bytes=most),
                    seconds=self._parts.settings.answer_seconds + most / (1 << 20),
                )
            except BlobNotFoundError as error:
                raise RefusedError("ResultNotFound", f"0x{digest.hex()}") from error
            except BlobTooLargeError as error:
                raise RefusedError("ResultTooLarge", f"more than {most} bytes") from error
            except DigestMismatchError as error:
                raise RefusedError("ResultHashMismatch", str(error)) from error
        if blake2_256(data) != digest:
            raise RefusedError("ResultHashMismatch", f"not the bytes of 0x{digest.hex()}")
        return data


def _final(answer: WorkerJob, key: JobKey) -> Answer:
    if answer.completion is None or answer.result_length is None:
        raise WorkerProtocolError("a final answer without a statement")
    if answer.completion.job_id != key.job_id:
        raise WorkerProtocolError(
            f"the answer is about job {answer.completion.job_id}, asked for {key.job_id}"
        )
    return Answer(completion=answer.completion, result_length=answer.result_length)


async def _rest(early: int, left: float) -> None:
    """Keep a worker that answers at once, every time, from making us ask all the time."""
    if early >= EARLY_ANSWERS:
        rest = EARLY_SECONDS * 2 ** min(early - EARLY_ANSWERS, 10)
        await asyncio.sleep(max(0.0, min(rest, EARLY_MAX_SECONDS, left)))
