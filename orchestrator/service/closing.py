"""The end of a job: workers drop what nobody will ask for, and the journal says how it ended."""

import asyncio
import logging

import stamina

from orchestrator.errors import InputError, WorkerError, WorkerUnavailableError
from orchestrator.journal import JobState
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.models import JobId, JobStatus, WorkerId
from orchestrator.service.backlog import OpenJob
from orchestrator.service.clients import WorkerClients, ask
from orchestrator.service.parts import Parts
from orchestrator.service.steps import Step
from orchestrator.workers import JobKey

__all__ = ["Closing"]

_LOG = logging.getLogger("orchestrator.service")
_STATES = {
    JobStatus.PROCESSED: (JobState.PROCESSED, EventKind.PROCESSED),
    JobStatus.FAILED: (JobState.FAILED, EventKind.FAILED),
    JobStatus.CANCELLED: (JobState.CANCELLED, EventKind.CANCELLED),
    JobStatus.EXPIRED: (JobState.EXPIRED, EventKind.EXPIRED),
}
_UNWANTED = frozenset({JobState.CANCELLED, JobState.EXPIRED, JobState.PURGED})


class Closing:
    """Closes jobs."""

    def __init__(self, parts: Parts, clients: WorkerClients) -> None:
        self._parts = parts
        self._clients = clients

    async def expire(self, job_id: JobId) -> None:
        """
        Tell the chain that the job's deadline has passed.

        Raises:
            ContractError: The contract sees it otherwise.
        """
        with self._parts.steps.at(Step.EXPIRE_JOB):
            await self._parts.ledger.expire(job_id)

    async def close(self, open_job: OpenJob, status: JobStatus | None) -> None:
        """
        Close the job as the chain has it, `None` for purged.

        Workers are told first, so that a restart tells them again; one that does not
        answer keeps sealed bytes that it would have dropped, until its own retention ends.
        """
        parts = self._parts
        state, kind = (JobState.PURGED, EventKind.PURGED) if status is None else _STATES[status]
        if state in _UNWANTED and open_job.record.dispatched:
            await asyncio.gather(
                *(self._delete(open_job, worker) for worker in open_job.record.dispatched)
            )
        open_job.record = parts.moved(open_job.record, state)
        with parts.steps.at(Step.WRITE_CLOSED):
            await parts.records.save(open_job.record)
        seconds = (parts.ledger.now() - open_job.record.created_at) / 1_000
        parts.emit(ServiceEvent(kind=kind, job_id=open_job.job_id, seconds=max(0.0, seconds)))

    async def _delete(self, open_job: OpenJob, worker_id: WorkerId) -> None:
        parts, record = self._parts, open_job.record
        worker = await parts.ledger.worker(worker_id)
        if worker is None:
            return
        key = JobKey(
            genesis=parts.ledger.genesis_hash,
            contract=parts.ledger.contract,
            job_id=record.job_id,
            payload_hash=record.payload_hash,
        )
        try:
            client = self._clients.of(worker)
            with parts.steps.at(Step.DELETE_AT_WORKER):
                async for attempt in stamina.retry_context(
                    on=WorkerUnavailableError, attempts=2, wait_initial=0.2, wait_jitter=0.2
                ):
                    with attempt:
                        await ask(client.delete_job(key), seconds=parts.settings.answer_seconds)
        except Exception as error:  # noqa: BLE001  # none may keep a job open that is over
            if not isinstance(error, WorkerError | InputError):
                _LOG.exception("job %s: delete at worker %s", record.job_id, worker_id)
            parts.emit(
                ServiceEvent(
                    kind=EventKind.WORKER_ERROR,
                    job_id=record.job_id,
                    worker=worker_id,
                    code=type(error).__name__,
                    detail=f"delete: {error}",
                )
            )
