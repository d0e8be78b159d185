"""The end of a job: workers drop what nobody will ask for, and the journal says how it ended."""

from orchestrator.journal import JobState
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.models import JobId, JobStatus, WorkerId
from orchestrator.service.backlog import OpenJob
from orchestrator.service.deletions import Deletions
from orchestrator.service.parts import Parts
from orchestrator.service.steps import Step

__all__ = ["Closing"]

_STATES = {
    JobStatus.PROCESSED: (JobState.PROCESSED, EventKind.PROCESSED),
    JobStatus.FAILED: (JobState.FAILED, EventKind.FAILED),
    JobStatus.CANCELLED: (JobState.CANCELLED, EventKind.CANCELLED),
    JobStatus.EXPIRED: (JobState.EXPIRED, EventKind.EXPIRED),
}
_UNWANTED = frozenset({JobState.CANCELLED, JobState.EXPIRED, JobState.PURGED})


class Closing:
    """Closes jobs."""

    def __init__(self, parts: Parts, deletions: Deletions) -> None:
        self._parts = parts
        self._deletions = deletions

    async def expire(self, job_id: JobId) -> None:
        """
        Tell the chain that the job's deadline has passed.

        Raises:
            ContractError: The contract sees it otherwise.
        """
        with self._parts.steps.at(Step.EXPIRE_JOB):
            await self._parts.ledger.expire(job_id)

    async def close(
        self, open_job: OpenJob, status: JobStatus | None, *, done_by: WorkerId | None = None
    ) -> bool:
        """
        Close the job as the chain has it, `None` for purged; not when the service stops meanwhile.

        Workers are told first of a job that nobody wants any more, so that a restart tells them
        again. When the outcome of *done_by* is the one that counts, the job's other workers
        are told beside, once.
        """
        parts = self._parts
        state, kind = (JobState.PURGED, EventKind.PURGED) if status is None else _STATES[status]
        open_job.job = None  # not worth its memory, however long the workers take
        if state in _UNWANTED and not await self._deletions.finish(open_job.record):
            return False
        if state is JobState.PROCESSED and done_by is not None:
            await self._stop_others(open_job, done_by)
        open_job.record = parts.moved(open_job.record, state)
        with parts.steps.at(Step.WRITE_CLOSED):
            await parts.records.save(open_job.record)
        seconds = (parts.ledger.now() - open_job.record.created_at) / 1_000
        parts.emit(ServiceEvent(kind=kind, job_id=open_job.job_id, seconds=max(0.0, seconds)))
        return True

    async def _stop_others(self, open_job: OpenJob, done_by: WorkerId) -> None:
        """A worker whose lease has ended may still have the job queued, or be at it."""
        record = open_job.record
        for worker_id in record.dispatched:
            if worker_id != done_by and worker_id not in open_job.failed:
                worker = await self._parts.ledger.worker(worker_id)
                if worker is not None:
                    self._deletions.begin(record, worker)
