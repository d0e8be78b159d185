"""`Orchestrator`: the loops that keep the parts of the service going."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from orchestrator.blobs import BlobStore
from orchestrator.chain import Chain
from orchestrator.chain.processor import JobProcessor
from orchestrator.errors import ChainError, ChainMismatchError, PrunedStateError
from orchestrator.journal import Journal
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.models import Account, Worker
from orchestrator.service.admission import AdmissionPolicy
from orchestrator.service.backlog import Backoff, OpenJob
from orchestrator.service.clients import WorkerClients
from orchestrator.service.closing import Closing
from orchestrator.service.deletions import Deletions
from orchestrator.service.execution import Execution
from orchestrator.service.funds import Funds
from orchestrator.service.ledger import EVENTS_PER_PAGE, EventsRead, Ledger
from orchestrator.service.open_jobs import OpenJobs
from orchestrator.service.parts import Parts, RecordWriter
from orchestrator.service.retention import Retention
from orchestrator.service.settings import OrchestratorSettings
from orchestrator.service.settlement import Settlement
from orchestrator.service.steps import FailPoint, Steps, no_fail_point
from orchestrator.service.summary import RunSummary, StopEvent
from orchestrator.service.trust import TrustedWorkers
from orchestrator.service.turns import Turns
from orchestrator.service.watch import Watch
from orchestrator.workers import WorkerClient

__all__ = ["Orchestrator"]

_LOG = logging.getLogger("orchestrator.service")
FAR_BEHIND = 10_000  # blocks: minutes of reading
CLOSING_SECONDS = 5.0  # a node that is gone keeps a request for longer


class Orchestrator:
    """
    Brings admitted jobs to workers and what workers sign to the chain.

    *chain*, *journal* and *blobs* are the caller's to close, after the run; an
    instance runs once. *sender* is another connection to the same chain, so that reading does not
    wait for calls to become final; without it one is used for both. *clock* gives milliseconds;
    where it differs from the chain's time, the later of the two counts. A worker's client is made
    anew when *worker_tokens* gives another token for it than before. *on_event* hears of
    everything that happens. *fail_point* is for tests.
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
        sender: Chain | None = None,
        worker_tokens: Callable[[Worker], str | None] = lambda _: None,
        on_event: Callable[[ServiceEvent], None] = lambda _: None,
        fail_point: FailPoint = no_fail_point,
    ) -> None:
        self._on_event = on_event
        self._summary = RunSummary()
        self._settings = settings
        self._parts = Parts(
            ledger=Ledger(
                chain,
                processor,
                account,
                clock,
                sender=sender,
                pending_seconds=settings.pending_seconds,
                broke_seconds=settings.retry_max_seconds,
                on_event=self._emit,
            ),
            journal=journal,
            blobs=blobs,
            settings=settings,
            steps=Steps(fail_point),
            records=RecordWriter(journal),
            on_event=self._hear,
        )
        self._clients = WorkerClients(worker_clients, worker_tokens)
        self._trust = TrustedWorkers(self._parts)
        self._settlement = Settlement(self._parts)
        self._backoff = Backoff(first=settings.retry_seconds, most=settings.retry_max_seconds)
        self._deletions = Deletions(self._parts, self._clients)
        self._jobs = OpenJobs(self._parts, self._settlement, self._deletions)
        self._turns = Turns(
            self._parts,
            trust=self._trust,
            execution=Execution(
                self._parts, self._clients, self._deletions, on_room=self._jobs.set_room
            ),
            settlement=self._settlement,
            closing=Closing(self._parts, self._deletions),
            leave=self._jobs.leave,
        )
        self._watch = Watch(
            self._parts,
            policy=policy,
            trust=self._trust,
            on_admitted=self._jobs.add,
            on_changed=self._jobs.note_change,
            open_of=self._jobs.of_owner,
        )
        self._retention = Retention(self._parts)
        self._funds = Funds(self._parts)
        self._is_caught_up = False
        self._is_far_behind = False
        self.head_number = 0
        self.last_read_at: float | None = None

    # The public face.

    @property
    def open_jobs(self) -> int:
        """How many jobs still need something."""
        return len(self._jobs)

    @property
    def balance(self) -> int | None:
        """What the account has, in planck, as last read; `None` where there is no money."""
        return self._funds.balance

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
            await self._watch.check_chain()
            await self._trust.suspend_distrusted()
            self._load()
            settling = asyncio.create_task(self._settlement.run())
            loops = [
                asyncio.create_task(_until(wait)),
                asyncio.create_task(self._watch_loop()),
                asyncio.create_task(self._jobs.give_turns(self._turns)),
                settling,
            ]
            done, _ = await asyncio.wait(loops, return_when=asyncio.FIRST_COMPLETED)
            await self._wind_down(loops, settling)
            for task in done:
                task.result()
        finally:
            for task in loops:
                task.cancel()
            await asyncio.gather(*loops, return_exceptions=True)
            await self._jobs.end()
            await self._deletions.close()
            await self._clients.close()
            await asyncio.to_thread(self._parts.ledger.close, seconds=CLOSING_SECONDS)
        self._jobs.raise_fatal()
        self._summary.open = len(self._jobs)
        return self._summary

    async def _wind_down(
        self, loops: list[asyncio.Task[None]], settling: asyncio.Task[None]
    ) -> None:
        """Take nothing new, give up waiting for workers, finish everything else."""
        for task in loops:
            if task is not settling:
                task.cancel()
        self._deletions.stop()
        await self._jobs.wind_down(self._settings.shutdown_seconds)
        self._settlement.stop()
        await asyncio.wait([settling], timeout=self._settings.shutdown_seconds)

    def _load(self) -> None:
        """Take up the jobs that an earlier run left open."""
        after = 0
        while records := self._parts.journal.open_records(after=after):
            after = records[-1].job_id
            for record in records:
                self._jobs.add(OpenJob(record=record, needs_review=True))

    async def _watch_loop(self) -> None:
        """
        Read events as they come; whatever is wrong with the chain, it is asked again, ever slower.

        One answer of a node must not end the service: nobody knows whether it holds a moment
        later. What only somebody's doing can mend is told again at the longest waits.
        """
        failures = 0
        while True:
            try:
                room = self._settings.open_jobs - len(self._jobs)
                if room > 0:
                    page = await self._watch.read_page(room=min(room, EVENTS_PER_PAGE))
                    self.head_number = page.head.number
                    self._tell_distance(page)
                    self.last_read_at = asyncio.get_running_loop().time()
                    await self._watch.readmit()
                    await self._retention.apply()
                    await self._funds.check()
                    self._is_caught_up = page.is_last
                    failures = 0
                    if not page.is_last:
                        continue
                await asyncio.sleep(self._settings.poll_seconds)
            except ChainError as error:
                failures += 1
                self._parts.emit(
                    ServiceEvent(
                        kind=EventKind.CHAIN_ERROR, code=type(error).__name__, detail=str(error)
                    )
                )
                is_lasting = isinstance(error, (ChainMismatchError, PrunedStateError))
                await asyncio.sleep(
                    self._settings.retry_max_seconds
                    if is_lasting
                    else self._backoff.delay(failures)
                )

    def _tell_distance(self, page: EventsRead) -> None:
        """Say once that there is much to read before anything new is."""
        distance = page.head.number - page.cursor.block
        if distance >= FAR_BEHIND and not self._is_far_behind:
            _LOG.warning(
                "reading the events of %d blocks first; a new journal begins with the block that"
                " --from-block names, that of the contract's deployment",
                distance,
            )
        self._is_far_behind = distance >= FAR_BEHIND

    # What other parts tell.

    def _emit(self, event: ServiceEvent) -> None:
        self._parts.emit(event)

    def _hear(self, event: ServiceEvent) -> None:
        self._summary.add(event)
        if event.kind is EventKind.FEE:
            self._funds.note_fee(event)
        self._on_event(event)

    def _is_done_for_now(self) -> bool:
        return (
            self._is_caught_up
            and not self._watch.is_readmitting
            and self._jobs.are_resting
            and self._deletions.is_idle
        )


async def _until(wait: Callable[[], Awaitable[object]]) -> None:
    await wait()
