"""Workers are told to drop jobs that nobody will ask them for, beside all other work."""

import asyncio
import logging
from collections import Counter, defaultdict
from functools import partial

import stamina

from orchestrator.errors import InputError, WorkerError, WorkerUnavailableError
from orchestrator.journal import JobRecord
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.models import JobId, Worker, WorkerId
from orchestrator.service.clients import WorkerClients, ask
from orchestrator.service.parts import Parts
from orchestrator.service.steps import Step
from orchestrator.workers import JobKey

__all__ = ["Deletions"]

_LOG = logging.getLogger("orchestrator.service")
AT_ONCE = 4  # per worker
MOST_WAITING = 1_000  # per worker, of those that nobody waits for
ATTEMPTS = 2


class Deletions:
    """
    Tells workers, a few times at once each, for at most as long as two answers may take.

    A worker that does not answer delays nobody but those who wait for that very job; it keeps
    sealed bytes that it would have dropped, until its own retention ends. `pending` is how many
    jobs wait in `finish`.
    """

    def __init__(self, parts: Parts, clients: WorkerClients) -> None:
        self._parts = parts
        self._clients = clients
        self._tasks: dict[tuple[JobId, WorkerId], asyncio.Task[None]] = {}
        self._at_worker: Counter[WorkerId] = Counter()
        self._rooms: defaultdict[WorkerId, asyncio.Semaphore] = defaultdict(
            partial(asyncio.Semaphore, AT_ONCE)
        )
        self._is_stopped = False
        self.pending = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing is under way."""
        return not self._tasks

    async def finish(self, record: JobRecord) -> bool:
        """
        Tell all workers that may hold the job; whether each was told or has had its time.

        Not when the service stops meanwhile: then the next run has to tell them again.

        Raises:
            ChainUnavailableError: The workers can't be looked up.
        """
        found = [await self._parts.ledger.worker(worker) for worker in record.dispatched]
        workers = [worker for worker in found if worker is not None]
        if not workers:
            return True
        if self._is_stopped:
            return False
        tasks = [self._start(record, worker) for worker in workers]
        self.pending += 1
        try:
            await asyncio.wait(tasks)
        finally:
            self.pending -= 1
        return not any(task.cancelled() for task in tasks)

    def begin(self, record: JobRecord, worker: Worker) -> None:
        """Tell one worker soon, as far as there is room and until the service stops."""
        if not self._is_stopped and self._at_worker[worker.worker] < MOST_WAITING:
            self._start(record, worker)

    async def settled(self, job_id: JobId, worker: WorkerId) -> None:
        """Return once the worker is not being told to drop the job, so that it can be given it."""
        task = self._tasks.get((job_id, worker))
        if task is not None:
            await asyncio.wait([task])

    def stop(self) -> None:
        """Break off what is under way, and begin nothing more."""
        self._is_stopped = True
        for task in self._tasks.values():
            task.cancel()

    async def close(self) -> None:
        """Stop, and return once nothing is under way."""
        self.stop()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _start(self, record: JobRecord, worker: Worker) -> asyncio.Task[None]:
        place = (record.job_id, worker.worker)
        task = self._tasks.get(place)
        if task is None:
            task = self._tasks[place] = asyncio.create_task(self._tell(record, worker))
            self._at_worker[worker.worker] += 1
            task.add_done_callback(partial(self._forget, place))
        return task

    def _forget(self, place: tuple[JobId, WorkerId], _: asyncio.Task[None]) -> None:
        del self._tasks[place]
        self._at_worker[place[1]] -= 1

    async def _tell(self, record: JobRecord, worker: Worker) -> None:
        seconds = self._parts.settings.answer_seconds
        try:
            async with asyncio.timeout(ATTEMPTS * seconds), self._rooms[worker.worker]:
                await self._ask(record, worker, seconds)
        except Exception as error:  # noqa: BLE001  # none may keep a job open that is over
            if not isinstance(error, WorkerError | InputError | TimeoutError):
                _LOG.exception("job %s: delete at worker %s", record.job_id, worker.worker)
            self._parts.emit(
                ServiceEvent(
                    kind=EventKind.WORKER_ERROR,
                    job_id=record.job_id,
                    worker=worker.worker,
                    code=type(error).__name__,
                    detail=f"delete: {str(error) or 'no answer in time'}",
                )
            )

    async def _ask(self, record: JobRecord, worker: Worker, seconds: float) -> None:
        key = JobKey(
            genesis=self._parts.ledger.genesis_hash,
            contract=self._parts.ledger.contract,
            job_id=record.job_id,
            payload_hash=record.payload_hash,
        )
        client = self._clients.of(worker)
        with self._parts.steps.at(Step.DELETE_AT_WORKER):
            async for attempt in stamina.retry_context(
                on=WorkerUnavailableError, attempts=ATTEMPTS, wait_initial=0.2, wait_jitter=0.2
            ):
                with attempt:
                    await ask(client.delete_job(key), seconds=seconds)
