"""
Which job runs when: a bounded queue, a fixed number of slots, and who waits for what.

All methods belong to one event loop; jobs run in threads of their own, their tasks in processes.
"""

import asyncio
import logging
import traceback
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from orchestrator.errors import BlobUnavailableError, TaskHostError
from orchestrator.worker.meters import Meters
from orchestrator.worker.outcomes import StoredOutcome
from orchestrator.worker.refusal import RefusalError
from orchestrator.worker.running import AcceptedJob
from orchestrator.workers import JobKey, WorkerJobState

__all__ = ["Execution"]

_log = logging.getLogger(__name__)

_RETRY_AFTER_SECONDS = 2
_FIRST_PAUSE_SECONDS = 0.5
_LONGEST_PAUSE_SECONDS = 60.0


@dataclass(kw_only=True)
class _Entry:
    """A job that has no outcome yet."""

    job: AcceptedJob
    state: WorkerJobState = WorkerJobState.QUEUED
    pause_seconds: float = _FIRST_PAUSE_SECONDS
    over: asyncio.Event = field(default_factory=asyncio.Event)


class Execution:
    """
    Runs accepted jobs in order of arrival, *slots* at once.

    *run* gives a job an outcome and stores it; when the host is in trouble the job goes back to
    the queue, and waits a little longer each time.
    """

    def __init__(
        self,
        run: Callable[[AcceptedJob], StoredOutcome],
        *,
        slots: int,
        queue: int,
        queue_bytes: int,
        clock: Callable[[], int],
        meters: Meters,
    ) -> None:
        self._run = run
        self._slots = slots
        self._queue = queue
        self._queue_bytes = queue_bytes
        self._clock = clock
        self._meters = meters
        self._entries: dict[JobKey, _Entry] = {}
        self._waiting: deque[_Entry] = deque()
        self._running: set[asyncio.Task[None]] = set()
        self._bytes = 0
        self._is_open = True
        self._threads = ThreadPoolExecutor(max_workers=slots, thread_name_prefix="worker-job")

    @property
    def running(self) -> int:
        """How many jobs run."""
        return len(self._running)

    @property
    def waiting(self) -> int:
        """How many jobs are accepted and do not run."""
        return len(self._entries) - len(self._running)

    def find(self, key: JobKey) -> tuple[AcceptedJob, WorkerJobState] | None:
        """Return a job that has no outcome yet, and its state."""
        entry = self._entries.get(key)
        return None if entry is None else (entry.job, entry.state)

    def check_room(self, envelope_bytes: int) -> None:
        """
        Return if one more job may wait.

        Raises:
            RefusalError: 429, the queue is full; 503, the worker shuts down.
        """
        if not self._is_open:
            raise RefusalError(503, "the worker is shutting down")
        if self.waiting >= self._queue:
            full = f"the queue is full: {self._queue} jobs"
        elif self._entries and self._bytes + envelope_bytes > self._queue_bytes:
            full = f"the queue is full: {self._queue_bytes} bytes"
        else:
            return
        raise RefusalError(429, full, retry_after_seconds=_RETRY_AFTER_SECONDS)

    def accept(self, job: AcceptedJob) -> bool:
        """Put the job into the queue; `False` when it is there already."""
        if job.key in self._entries:
            return False
        self.check_room(len(job.envelope))
        entry = _Entry(job=job)
        self._entries[job.key] = entry
        self._bytes += len(job.envelope)
        self._waiting.append(entry)
        self._fill_slots()
        return True

    async def wait(self, key: JobKey, seconds: float) -> None:
        """Return when the job has an outcome or is dropped, or the time is over."""
        entry = self._entries.get(key)
        if entry is None or not self._is_open:
            return
        try:
            async with asyncio.timeout(seconds):
                await entry.over.wait()
        except TimeoutError:
            return

    def drop(self, key: JobKey) -> None:
        """Stop the job and forget it, with its result if it has just ended by itself."""
        entry = self._entries.get(key)
        if entry is None:
            return
        entry.job.drop()
        if entry.state is WorkerJobState.QUEUED:
            self._forget(entry)

    def wake_all(self) -> None:
        """Let everybody who waits have an answer, and accept nothing more."""
        self._is_open = False
        for entry in self._entries.values():
            entry.over.set()

    async def close(self) -> None:
        """Stop what runs; none of it gets an outcome, unless it has just ended by itself."""
        self.wake_all()
        for entry in tuple(self._entries.values()):
            entry.job.stop()
        if self._running:
            await asyncio.wait(self._running)
        self._threads.shutdown()

    def _fill_slots(self) -> None:
        while self._is_open and self._waiting and len(self._running) < self._slots:
            entry = self._waiting.popleft()
            if entry.job.stopped.is_set():
                continue
            if entry.job.facts.head.deadline < self._clock():
                self._forget(entry)
                continue
            entry.state = WorkerJobState.RUNNING
            task = asyncio.create_task(self._run_one(entry))
            self._running.add(task)

    async def _run_one(self, entry: _Entry) -> None:
        began = self._clock()
        loop = asyncio.get_running_loop()
        try:
            stored = await loop.run_in_executor(self._threads, self._run, entry.job)
        except (TaskHostError, BlobUnavailableError) as error:
            self._put_back(entry, str(error))
        except Exception as error:  # noqa: BLE001 - a mistake of ours must not lose the slot
            # It is the host's trouble as well: nothing is signed. The message stays out of the
            # log, because it may hold what was sealed.
            place = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{place.filename}:{place.lineno}"
            self._put_back(entry, f"a mistake of the worker, {type(error).__name__} at {where}")
        else:
            took_ms = self._clock() - began
            _log.info(
                "job %d: %s in %d ms", entry.job.key.job_id, stored.outcome.name.lower(), took_ms
            )
            self._meters.finished(stored.outcome, took_ms)
            self._forget(entry)
        finally:
            current = asyncio.current_task()
            if current is not None:
                self._running.discard(current)
            self._fill_slots()

    def _put_back(self, entry: _Entry, why: str) -> None:
        if entry.job.stopped.is_set():
            self._forget(entry)
            return
        _log.warning("job %d goes back to the queue: %s", entry.job.key.job_id, why)
        self._meters.put_back()
        entry.state = WorkerJobState.QUEUED
        entry.job.task = None
        pause = entry.pause_seconds
        entry.pause_seconds = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        asyncio.get_running_loop().call_later(pause, self._queue_again, entry)

    def _queue_again(self, entry: _Entry) -> None:
        if not entry.job.stopped.is_set() and self._entries.get(entry.job.key) is entry:
            self._waiting.append(entry)
            self._fill_slots()

    def _forget(self, entry: _Entry) -> None:
        if self._entries.get(entry.job.key) is entry:
            del self._entries[entry.job.key]
            self._bytes -= len(entry.job.envelope)
        entry.over.set()
