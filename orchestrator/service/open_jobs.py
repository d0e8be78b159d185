"""The jobs that still need something: who has a turn, and what follows from it."""

import asyncio
import logging
from collections import Counter

from orchestrator.errors import JournalError
from orchestrator.metrics import EventKind
from orchestrator.models import JobId, WorkerId
from orchestrator.service.backlog import Backlog, Backoff, OpenJob, Turn
from orchestrator.service.deletions import Deletions
from orchestrator.service.parts import Parts
from orchestrator.service.settlement import Settlement
from orchestrator.service.turns import Next, Result, Turns

__all__ = ["OpenJobs"]

_LOG = logging.getLogger("orchestrator.service")
SWEEP_SECONDS = 1.0
KEPT_JOBS = 256  # jobs whose payload stays in memory between admission and dispatch
SETTLING_JOBS = 512  # jobs that may wait for the chain beside those at workers
PLACES = 4  # jobs at workers together, for each that is worked on at once


class OpenJobs:
    """
    Gives jobs their turns.

    Jobs at workers wait most of the time, and how long is the workers' to say: they count by
    worker and not among those that are worked on at once. The same goes for jobs that wait for
    the chain, or for workers to drop them.
    """

    def __init__(self, parts: Parts, settlement: Settlement, deletions: Deletions) -> None:
        settings = parts.settings
        self._parts = parts
        self._settlement = settlement
        self._deletions = deletions
        self._backoff = Backoff(first=settings.retry_seconds, most=settings.retry_max_seconds)
        self._backlog = Backlog(backoff=self._backoff, places=PLACES * settings.concurrency)
        self._open: dict[JobId, OpenJob] = {}
        self._by_owner: Counter[bytes] = Counter()
        self._tasks: dict[OpenJob, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._kept = 0
        self._fatal: JournalError | None = None

    def __len__(self) -> int:
        """How many jobs still need something."""
        return len(self._open)

    def __getitem__(self, job_id: JobId) -> OpenJob:
        return self._open[job_id]

    def of_owner(self, owner: bytes) -> int:
        """How many of them are the owner's."""
        return self._by_owner[owner]

    # The loop.

    async def give_turns(self, turns: Turns) -> None:
        """
        Give turns, as long as there is room; then wait until something changes.

        Raises:
            JournalError: A turn could not be written down.
        """
        loop = asyncio.get_running_loop()
        swept_at = loop.time()
        while self._fatal is None:
            self._wake.clear()
            self._start(turns, loop.time())
            if loop.time() - swept_at >= SWEEP_SECONDS:
                swept_at = loop.time()
                self._sweep()
            wait = SWEEP_SECONDS
            wake_at = self._backlog.next_wake(now=loop.time())
            if wake_at is not None:
                wait = min(wait, max(0.001, wake_at - loop.time()))
            try:
                async with asyncio.timeout(wait):
                    await self._wake.wait()
            except TimeoutError:
                pass
        self.raise_fatal()

    def raise_fatal(self) -> None:
        """
        Say whether a turn could not be written down.

        Raises:
            JournalError: So it was.
        """
        if self._fatal is not None:
            raise self._fatal

    def _start(self, turns: Turns, now: float) -> None:
        while self._has_room() and (turn := self._backlog.pop(now=now)) is not None:
            open_job = turn.job
            open_job.is_active = True
            if turn.worker is not None:
                self._backlog.enter(open_job, turn.worker)
            self._tasks[open_job] = asyncio.create_task(self._take(turns, turn))

    def _has_room(self) -> bool:
        limit, settling = self._parts.settings.concurrency, self._settlement.pending
        here = len(self._tasks) - self._backlog.at_workers - self._deletions.pending
        return here - settling < limit and here < limit + SETTLING_JOBS

    def _sweep(self) -> None:
        """Have the jobs looked at whose deadline has passed while nobody worked on them."""
        now = self._parts.ledger.now()
        for open_job in self._open.values():
            is_over = now > open_job.record.deadline and open_job.attested_by is None
            if is_over and not open_job.was_swept:
                open_job.was_swept = True
                self._review_soon(open_job)

    # One job's turn.

    async def _take(self, turns: Turns, turn: Turn) -> None:
        open_job = turn.job
        try:
            result = await self._guarded(turns, turn)
        except JournalError as error:
            self._fatal = error
            return
        finally:
            self._tasks.pop(open_job, None)
            self._backlog.leave(open_job)
            open_job.is_active = False
            self._wake.set()
        self._apply(turn, result)

    async def _guarded(self, turns: Turns, turn: Turn) -> Result:
        """Take the turn; a fault of ours must not stop other jobs, nor bind one to a worker."""
        open_job = turn.job
        try:
            return await turns.take(turn)
        except asyncio.CancelledError:
            if not open_job.was_interrupted:
                raise
            open_job.was_interrupted = False
            return Result(next=Next.TURN)
        except JournalError:
            raise
        except Exception as error:  # noqa: BLE001  # as promised
            _LOG.exception("job %s", open_job.job_id)
            self._parts.write_refusal(
                EventKind.ATTESTATION_REFUSED,
                job_id=open_job.job_id,
                worker=turn.worker,
                code="InternalError",
                detail=type(error).__name__,
            )
            if turn.worker is None or open_job.attested_by is not None:
                return Result(next=Next.WAIT)
            open_job.job = None  # whatever went wrong may have come after the recording
            return Result(next=Next.NEXT_WORKER)

    def _apply(self, turn: Turn, result: Result) -> None:
        """Let the job wait for what follows."""
        open_job, now = turn.job, asyncio.get_running_loop().time()
        if turn.worker is not None:
            if result.pause_worker:
                self._backlog.pause(turn.worker, now=now, seconds=result.pause_seconds)
            else:
                self._backlog.succeeded(turn.worker)
        if result.next is Next.CLOSED:
            self._remove(open_job)
            self._unkeep(open_job)
        elif result.next in (Next.TURN, Next.NEXT_WORKER):
            if result.next is Next.NEXT_WORKER and turn.worker is not None:
                open_job.tried.add(turn.worker)
            if not open_job.is_kept:
                open_job.job = None
            self._backlog.put(open_job, now=now)
        else:
            open_job.needs_review = True
            open_job.rounds += 1
            self._unkeep(open_job)
            self._backlog.delay(
                open_job,
                now + self._backoff.delay(open_job.rounds),
                is_resting=result.next is Next.WAIT,
            )

    # What other parts tell.

    def add(self, open_job: OpenJob) -> None:
        """Follow one more job."""
        self._open[open_job.job_id] = open_job
        self._by_owner[open_job.record.owner] += 1
        if open_job.job is not None:
            if self._kept >= KEPT_JOBS:
                open_job.job = None
            else:
                self._kept += 1
                open_job.is_kept = True
        self._backlog.put(open_job, now=asyncio.get_running_loop().time())
        self._wake.set()

    def _remove(self, open_job: OpenJob) -> None:
        owner = open_job.record.owner
        del self._open[open_job.job_id]
        self._by_owner[owner] -= 1
        if not self._by_owner[owner]:
            del self._by_owner[owner]

    def leave(self, open_job: OpenJob) -> None:
        """The worker's part is over: its room is free while the chain does its own."""
        self._backlog.leave(open_job)
        self._wake.set()

    def set_room(self, worker: WorkerId, jobs: int) -> None:
        """Say how many jobs may be at the worker at once."""
        self._backlog.set_room(worker, jobs)

    def note_change(self, job_id: JobId, *, is_closed: bool) -> None:
        """Something was recorded about a job; if it was not us, its turn is over."""
        open_job = self._open.get(job_id)
        if open_job is not None and (is_closed or open_job.is_interruptible):
            self._review_soon(open_job)

    def _review_soon(self, open_job: OpenJob) -> None:
        open_job.needs_review = True
        if not open_job.is_active:
            self._backlog.put(open_job, now=asyncio.get_running_loop().time())
            self._wake.set()
        elif open_job.is_interruptible:
            open_job.was_interrupted = True
            self._tasks[open_job].cancel()

    def _unkeep(self, open_job: OpenJob) -> None:
        open_job.job = None
        if open_job.is_kept:
            open_job.is_kept = False
            self._kept -= 1

    # The end.

    @property
    def are_resting(self) -> bool:
        """Whether all that could be done now was done."""
        return not self._tasks and all(open_job.is_resting for open_job in self._open.values())

    async def wind_down(self, seconds: float) -> None:
        """Give up waiting for workers, and finish everything else in at most *seconds*."""
        for open_job, task in self._tasks.items():
            if open_job.is_interruptible:
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=seconds)

    async def end(self) -> None:
        """End all turns where they are."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
