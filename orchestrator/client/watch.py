"""What becomes of jobs after they are submitted."""

from collections.abc import Callable, Generator
from dataclasses import dataclass

from orchestrator.client.chain_view import ChainView
from orchestrator.client.job_list import JobList
from orchestrator.client.prospects import why_stuck
from orchestrator.errors import ChainUnavailableError, InputError, JobStateError, WaitTimeoutError
from orchestrator.models import JobId, JobStatus

__all__ = ["WaitProgress", "Watch"]

_FIRST_POLL_SECONDS = 0.05
_LONGEST_POLL_SECONDS = 2.0
# A chain that makes no blocks stays at the time of its last one. One that does has made a block
# after the deadline, and it is final, within this time of our own clock.
_FINALITY_MS = 60_000


@dataclass(frozen=True, kw_only=True)
class WaitProgress:
    """What `wait` last saw; `status` is `None` while the chain can't be read."""

    job_id: JobId
    status: JobStatus | None
    waited_seconds: float
    wait_seconds: float


class Watch:
    """Follows jobs on the chain and notes in the list of *owner* what it saw."""

    def __init__(
        self, view: ChainView, job_list: JobList, *, owner: bytes, clock: Callable[[], int]
    ) -> None:
        self._view = view
        self._list = job_list
        self._owner = owner
        self._clock = clock

    def steps(
        self, job_id: JobId, *, timeout_seconds: float
    ) -> Generator[WaitProgress, None, JobStatus]:
        """Look at the job until it is finished; see `JobClient.wait`."""
        self._view.require_contract()
        started = self._clock()
        pause = _FIRST_POLL_SECONDS
        while True:
            trouble: ChainUnavailableError | None = None
            status: JobStatus | None = None
            try:
                # Read first: what is then still open after this time stays so.
                time = max(
                    self._view.chain.finalized_head().timestamp, self._clock() - _FINALITY_MS
                )
                status, deadline = self.look(job_id)
                if status.is_final:
                    return status
                if status is JobStatus.SUBMITTED and time > deadline:
                    raise JobStateError(
                        "DeadlinePassed",
                        f"job {job_id} was not attested before its deadline {deadline};"
                        " expire and purge it",
                    )
            except ChainUnavailableError as error:
                trouble = error
            waited = (self._clock() - started) / 1_000
            if waited >= timeout_seconds:
                shown = f"is still {status.value}" if status else "is in a status that is not known"
                stuck = None if trouble else self._why_stuck(job_id)
                raise WaitTimeoutError(
                    f"job {job_id} {shown} after {timeout_seconds:g} s; {stuck or 'it goes on'}",
                    stuck=stuck,
                ) from trouble
            pause = min(pause, max(timeout_seconds - waited, 0.001))
            yield WaitProgress(
                job_id=job_id, status=status, waited_seconds=waited, wait_seconds=pause
            )
            pause = min(pause * 1.5, _LONGEST_POLL_SECONDS)

    def _why_stuck(self, job_id: JobId) -> str | None:
        """Why nobody can finish the job; `None` too where the chain does not say now."""
        try:
            job = self._view.job(job_id)
            if job is None:
                return None
            return why_stuck(
                self._view.chain,
                self._view.processor,
                job_id,
                status=job.status,
                workers=job.workers,
                failed={failure.worker for failure in job.failures},
            )
        except ChainUnavailableError:
            return None

    def look(self, job_id: JobId) -> tuple[JobStatus, int]:
        """Return status and deadline, 0 when the job is purged and so finished."""
        head = self._view.heads([job_id]).get(job_id)
        if head is not None:
            # Jobs of others are not in the list, where this then changes nothing.
            self._list.update(job_id, status=head.status)
            return head.status, head.deadline
        if not 1 <= job_id <= self._view.job_counter():
            raise InputError(f"job_id: there is no job {job_id} on this contract")
        listed = self._list.job(job_id)
        history = self._view.history(job_id, block=listed.block if listed else 0)
        self._list.update(job_id, status=history.status, purged=history.purged)
        return history.status, 0

    def refresh(self) -> None:
        """Look at all jobs in the list that were not finished when last seen."""
        jobs = self._list.jobs()
        moving = {job.job_id for job in jobs if not job.status.is_final and not job.purged}
        heads = self._view.heads(moving)
        self._list.update_many([(head.job_id, head.status, False) for head in heads.values()])
        purged = moving - heads.keys()
        if purged:
            # By another machine of the same owner: only the events still know them.
            block = min(job.block for job in jobs if job.job_id in purged)
            histories = self._view.histories(owner=self._owner, block=block)
            self._list.update_many(
                [
                    (job_id, histories[job_id].status, histories[job_id].purged)
                    for job_id in purged & histories.keys()
                ]
            )
