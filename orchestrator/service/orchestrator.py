"""`Orchestrator`: the loops that keep the parts of the service going."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from orchestrator.blobs import BlobStore
from orchestrator.chain import Chain
from orchestrator.chain.processor import JobProcessor
from orchestrator.errors import ChainUnavailableError, JournalError
from orchestrator.journal import Journal
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.models import Account, JobId, Worker
from orchestrator.service.admission import DAY, AdmissionPolicy
from orchestrator.service.backlog import Backlog, Backoff, OpenJob, Turn
from orchestrator.service.clients import WorkerClients
from orchestrator.service.closing import Closing
from orchestrator.service.execution import Execution
from orchestrator.service.ledger import EVENTS_PER_PAGE, Ledger
from orchestrator.service.parts import Parts, RecordWriter
from orchestrator.service.settings import OrchestratorSettings
from orchestrator.service.settlement import Settlement
from orchestrator.service.steps import FailPoint, Step, Steps, no_fail_point
from orchestrator.service.summary import RunSummary, StopEvent
from orchestrator.service.trust import TrustedWorkers
from orchestrator.service.turns import Next, Result, Turns
from orchestrator.service.watch import Watch
from orchestrator.workers import WorkerClient

__all__ = ["Orchestrator"]

_LOG = logging.getLogger("orchestrator.service")
SWEEP_SECONDS = 1.0
KEPT_JOBS = 256  # jobs whose payload stays in memory between admission and dispatch
SETTLING_JOBS = 512  # jobs that may wait for the chain beside those at workers


class Orchestrator:
    """
    Brings admitted jobs to workers and what workers sign to the chain.

    *chain*, *journal* and *blobs* are the caller's to close, after the run; an
    instance runs once. *clock* gives milliseconds; the chain's own time is what counts
    where the two differ. *on_event* hears of everything that happens. *fail_point* is for
    tests.
    """

    def __init__(  # noqa: PLR0913  # one keyword for each port and each choice
        self,
        *,
        chain: Chain,
        processor: JobProcessor,
        account: Account,
        journal: Journal,
        blobs: BlobStore,
        worker_clients: Callable[[Worker], WorkerClient],
        policy: AdmissionPolicy,
        settings: OrchestratorSettings,
        clock: Callable[[], int],
        on_event: Callable[[ServiceEvent], None] = lambda _: None,
        fail_point: FailPoint = no_fail_point,
    ) -> None:
        self._on_event = on_event
        self._summary = RunSummary()
        self._settings = settings
        self._parts = Parts(
            ledger=Ledger(chain, processor, account, clock),
            journal=journal,
            blobs=blobs,
            settings=settings,
            steps=Steps(fail_point),
            records=RecordWriter(journal),
            on_event=self._hear,
        )
        self._clients = WorkerClients(worker_clients)
        self._trust = TrustedWorkers(self._parts)
        self._settlement = Settlement(self._parts)
        self._backlog = Backlog(
            backoff=Backoff(first=settings.retry_seconds, most=settings.retry_max_seconds),
        )
        self._backoff = Backoff(first=settings.retry_seconds, most=settings.retry_max_seconds)
        self._turns = Turns(
            self._parts,
            trust=self._trust,
            execution=Execution(self._parts, self._clients, self._backlog.set_room),
            settlement=self._settlement,
            closing=Closing(self._parts, self._clients),
            leave=self._leave,
        )
        self._watch = Watch(
            self._parts,
            policy=policy,
            trust=self._trust,
            on_admitted=self._add,
            on_changed=self._note_change,
        )
        self._open: dict[JobId, OpenJob] = {}
        self._tasks: dict[OpenJob, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self._kept = 0
        self._fatal: BaseException | None = None
        self._is_caught_up = False
        self._pruned_day = -1
        self.head_number = 0
        self.last_read_at: float | None = None

    # The public face.

    @property
    def open_jobs(self) -> int:
        """How many jobs still need something."""
        return len(self._open)

    def attestation_expiry(self) -> int | None:
        """When (ms) the first of the trusted workers' registrations ends, as far as seen."""
        return min(
            (
                worker.valid_until
                for worker in self._parts.ledger.known_workers()
                if self._trust.objection(worker) is None
            ),
            default=None,
        )

    async def run(self, stop: StopEvent) -> RunSummary:
        """
        Work until *stop*; then finish what is under way on the chain, and return.

        Raises:
            ChainMismatchError: The contract is not there, or for another chain.
            JournalError: The journal can't be written any more.
        """
        return await self._run(stop.wait)

    async def run_once(self, timeout_seconds: float) -> RunSummary:
        """
        Do all that can be done now, for at most *timeout_seconds*, and say what it came to.

        Raises: as `run`.
        """

        async def wait() -> None:
            try:
                async with asyncio.timeout(timeout_seconds):
                    while not self._is_done_for_now():  # noqa: ASYNC110  # several parts decide
                        await asyncio.sleep(self._settings.poll_seconds)
            except TimeoutError:
                pass

        return await self._run(wait)

    # The loops.

    async def _run(self, wait: Callable[[], Awaitable[object]]) -> RunSummary:
        self._summary = RunSummary()
        loops: list[asyncio.Task[None]] = []
        try:
            await self._parts.ledger.start()
            await self._trust.suspend_distrusted()
            self._load()
            settling = asyncio.create_task(self._settlement.run())
            loops = [
                asyncio.create_task(_until(wait)),
                asyncio.create_task(self._watch_loop()),
                asyncio.create_task(self._turn_loop()),
                settling,
            ]
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            await self._wind_down(loops, settling)
            for task in done:
                task.result()
        finally:
            for task in [*loops, *self._tasks.values()]:
                task.cancel()
            await asyncio.gather(*loops, *self._tasks.values(), return_exceptions=True)
            await self._clients.close()
            await asyncio.to_thread(self._parts.ledger.close)
        if self._fatal is not None:
            raise self._fatal
        self._summary.open = len(self._open)
        return self._summary

    async def _wind_down(
        self, loops: list[asyncio.Task[None]], settling: asyncio.Task[None]
    ) -> None:
        """Take nothing new, give up waiting for workers, finish everything else."""
        for task in loops:
            if task is not settling:
                task.cancel()
        for open_job, task in self._tasks.items():
            if open_job.is_interruptible:
                task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=self._settings.shutdown_seconds)
        self._settlement.stop()
        await asyncio.wait([settling], timeout=self._settings.shutdown_seconds)

    def _load(self) -> None:
        """Take up the jobs that an earlier run left open."""
        after = 0
        while records := self._parts.journal.open_records(after=after):
            after = records[-1].job_id
            for record in records:
                self._add(OpenJob(record=record, needs_review=True))

    async def _watch_loop(self) -> None:
        """Read events as they come; a chain that can't be reached is asked again, ever slower."""
        failures = 0
        while True:
            try:
                room = self._settings.open_jobs - len(self._open)
                if room > 0:
                    page = await self._watch.read_page(room=min(room, EVENTS_PER_PAGE))
                    self.head_number = page.head.number
                    self.last_read_at = asyncio.get_running_loop().time()
                    await self._watch.readmit()
                    self._is_caught_up = not page.is_full
                    self._prune()
                    failures = 0
                    if page.is_full:
                        continue
                await asyncio.sleep(self._settings.poll_seconds)
            except ChainUnavailableError as error:
                failures += 1
                self._parts.emit(
                    ServiceEvent(
                        kind=EventKind.CHAIN_ERROR, code="ChainUnavailableError", detail=str(error)
                    )
                )
                await asyncio.sleep(self._backoff.delay(failures))

    def _prune(self) -> None:
        day = self._parts.ledger.now() // DAY
        if day != self._pruned_day:
            self._pruned_day = day
            with self._parts.steps.at(Step.PRUNE_JOURNAL):
                self._parts.journal.prune(
                    before=self._parts.ledger.now() - self._settings.keep_days * DAY
                )

    async def _turn_loop(self) -> None:
        """Give turns, as long as there is room; then wait until something changes."""
        loop = asyncio.get_running_loop()
        swept_at = loop.time()
        while True:
            self._wake.clear()
            self._start_turns(loop.time())
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
            if self._fatal is not None:
                return

    def _start_turns(self, now: float) -> None:
        limit = self._settings.concurrency
        while (
            len(self._tasks) - self._settlement.pending < limit
            and len(self._tasks) < limit + SETTLING_JOBS
            and (turn := self._backlog.pop(now=now)) is not None
        ):
            open_job = turn.job
            open_job.is_active = True
            if turn.worker is not None:
                self._backlog.enter(open_job, turn.worker)
            self._tasks[open_job] = asyncio.create_task(self._take(turn))

    def _sweep(self) -> None:
        """Have the jobs looked at whose deadline has passed while nobody worked on them."""
        now = self._parts.ledger.now()
        for open_job in self._open.values():
            is_over = now > open_job.record.deadline and open_job.attested_by is None
            if is_over and not open_job.was_swept:
                open_job.was_swept = True
                self._review_soon(open_job)

    # One job's turn.

    async def _take(self, turn: Turn) -> None:
        open_job = turn.job
        try:
            result = await self._guarded(turn)
        except JournalError as error:
            self._fatal = error
            return
        finally:
            self._tasks.pop(open_job, None)
            self._backlog.leave(open_job)
            open_job.is_active = False
            self._wake.set()
        self._apply(turn, result)

    async def _guarded(self, turn: Turn) -> Result:
        """Take the turn; a fault of ours must not stop other jobs, nor bind one to a worker."""
        open_job = turn.job
        try:
            return await self._turns.take(turn)
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
            self._open.pop(open_job.job_id, None)
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

    def _hear(self, event: ServiceEvent) -> None:
        self._summary.add(event)
        self._on_event(event)

    def _leave(self, open_job: OpenJob) -> None:
        """The worker's part is over: its room is free while the chain does its own."""
        self._backlog.leave(open_job)
        self._wake.set()

    def _add(self, open_job: OpenJob) -> None:
        self._open[open_job.job_id] = open_job
        if open_job.job is not None:
            if self._kept >= KEPT_JOBS:
                open_job.job = None
            else:
                self._kept += 1
                open_job.is_kept = True
        self._backlog.put(open_job, now=asyncio.get_running_loop().time())
        self._wake.set()

    def _unkeep(self, open_job: OpenJob) -> None:
        open_job.job = None
        if open_job.is_kept:
            open_job.is_kept = False
            self._kept -= 1

    def _note_change(self, job_id: JobId, *, is_closed: bool) -> None:
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

    def _is_done_for_now(self) -> bool:
        return (
            self._is_caught_up
            and not self._tasks
            and all(open_job.is_resting for open_job in self._open.values())
        )


async def _until(wait: Callable[[], Awaitable[object]]) -> None:
    await wait()
