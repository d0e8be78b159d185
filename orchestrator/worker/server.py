"""A whole worker: its parts put together, started, served and stopped."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator, Callable, Coroutine

from starlette.types import ASGIApp

from orchestrator.chain import Chain
from orchestrator.encoding import encode_signing_key
from orchestrator.errors import BlobUnavailableError, ChainError, ConfigError, InputError
from orchestrator.http_server import PeerRateLimit, serve, stop_on_signal
from orchestrator.keystore.private_files import ensure_private_directory
from orchestrator.quotes import QuoteSource
from orchestrator.tasks.registry import find_tasks
from orchestrator.tasks.sandbox import Sandbox
from orchestrator.worker.access import Access
from orchestrator.worker.app import WorkerApp
from orchestrator.worker.database import Database
from orchestrator.worker.enrolment import Enrolment
from orchestrator.worker.execution import Execution
from orchestrator.worker.heads import ChainHeads, Heads, UnsafeRequestHeads
from orchestrator.worker.identity import KeyRing, load_or_make_keys, remove_drafts
from orchestrator.worker.meters import Meters
from orchestrator.worker.outcomes import OutcomeStore, StoredOutcome, WorkerBlobs
from orchestrator.worker.running import AcceptedJob, JobRunner
from orchestrator.worker.settings import WorkerSettings
from orchestrator.worker.tokens import TokenList

__all__ = ["WorkerServer"]

_PRUNE_SECONDS = 600.0
_UPLOADS_MS = 3_600_000


class WorkerServer:
    """
    One worker process.

    Making it takes hold of the folder, makes keys if there are none, and starts the process that
    runs tasks. `serve` (or `run`) must follow, or `close`.

    *quotes* is the platform's, `None` where there is no TEE; it is closed with the server.
    *on_signed* is called after each signature, before it is sent: tests end the process there.

    Raises:
        ConfigError: A setting is wrong, or there is neither a chain nor leave to do without.
        InputError: Another process works in the folder.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        chain: Chain | None,
        *,
        clock: Callable[[], int],
        quotes: QuoteSource | None = None,
        on_signed: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._quotes = quotes
        self._clock = clock
        if chain is None and not settings.unsafe_without_chain:
            raise ConfigError("chain: missing; only a development worker may do without")
        if chain is not None and (settings.unsafe_without_chain or settings.contract is None):
            raise ConfigError("chain: needs a contract, and excludes unsafe_without_chain")
        references = self._references()
        self._closing = contextlib.ExitStack()
        with contextlib.ExitStack() as on_failure:
            on_failure.enter_context(self._closing)
            self._take_folder()
            remove_drafts(settings.folder)
            # The forking process is started before there are keys in this one's memory.
            self._sandbox = self._start_sandbox(references)
            keys = load_or_make_keys(settings.folder, settings.scheme)
            self._keys = keys
            first_key = encode_signing_key(keys.pairs[0].signing_key)
            database = Database(settings.folder / "worker.db", first_key)
            self._closing.callback(database.close)
            self._outcomes = OutcomeStore(database)
            meters = Meters(version=settings.version)
            self._heads = self._make_heads(chain, keys)
            runner = JobRunner(
                keys=keys,
                sandbox=self._sandbox,
                clock=clock,
                clock_trouble=self._heads.clock_trouble,
                hold_seconds=settings.developer_hold_seconds,
            )
            self._execution = Execution(
                _and_store(runner, self._outcomes),
                slots=settings.slots,
                queue=settings.queue,
                queue_bytes=settings.queue_bytes,
                clock=clock,
                meters=meters,
            )
            access = Access(TokenList(settings.folder))
            self._blobs = WorkerBlobs(database, max_bytes=settings.uploads_bytes, clock_ms=clock)
            self._enrolment = Enrolment(
                keys=keys,
                heads=self._heads,
                outcomes=self._outcomes,
                blobs=self._blobs,
                quotes=quotes,
                version=settings.version,
                has_chain=chain is not None,
            )
            app = WorkerApp(
                settings=settings,
                keys=keys,
                enrolment=self._enrolment,
                access=access,
                heads=self._heads,
                outcomes=self._outcomes,
                blobs=self._blobs,
                execution=self._execution,
                sandbox=self._sandbox,
                meters=meters,
                clock=clock,
                on_signed=on_signed,
            )
            self.app: ASGIApp = PeerRateLimit(
                app.build(),
                per_second=settings.requests_per_second,
                burst=settings.request_burst,
                is_exempt=access.is_known,
            )
            on_failure.pop_all()

    @property
    def tasks_not_offered(self) -> dict[str, str]:
        """Tasks that are installed and can't be offered, and why."""
        missing = dict.fromkeys(self._sandbox.missing, "a package that it needs is not installed")
        return {**missing, **self._sandbox.broken}

    async def serve(
        self, *, stop: asyncio.Event, ready: Callable[[str], None] | None = None
    ) -> None:
        """
        Serve until *stop* is set, then stop what runs and close.

        Raises:
            InputError: The port is in use.
        """
        try:
            async with self._pruning(), self._waking(stop):
                await serve(self.app, self._settings.listen, stop=stop, ready=ready)
        finally:
            await self.shut_down()

    async def shut_down(self) -> None:
        """Stop what runs, none of which gets an outcome by that, and let go of everything."""
        await self._execution.close()
        if self._quotes is not None:
            await self._quotes.close()
        await asyncio.to_thread(self.close)

    def run(self, *, ready: Callable[[str], None] | None = None) -> None:
        """Serve until SIGINT or SIGTERM, in an event loop of its own."""

        async def main() -> None:
            stop = asyncio.Event()
            with stop_on_signal(stop):
                await self.serve(stop=stop, ready=ready)

        with asyncio.Runner(loop_factory=_new_event_loop) as runner:
            runner.run(main())

    def close(self) -> None:
        """Let go of everything; a second time does nothing."""
        self._closing.close()

    def _take_folder(self) -> None:
        folder = self._settings.folder
        try:
            ensure_private_directory(folder)
            descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"folder {folder}: {error.strerror}") from error
        except InputError as error:
            raise ConfigError(f"folder: {error}") from error
        self._closing.callback(os.close, descriptor)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"folder {folder}: another worker works there") from error

    def _references(self) -> dict[str, str]:
        references, chosen = find_tasks(), self._settings.tasks
        if chosen is None:
            return references
        unknown = sorted(set(chosen) - set(references))
        if unknown:
            raise ConfigError(f"tasks: {unknown[0]!r}, there are {', '.join(references)}")
        return {name: references[name] for name in chosen}

    def _start_sandbox(self, references: dict[str, str]) -> Sandbox:
        sandbox = Sandbox(
            references,
            folder=self._settings.folder / "running",
            environment=self._settings.task_environment,
        )
        self._closing.callback(sandbox.close)
        return sandbox

    def _make_heads(self, chain: Chain | None, keys: KeyRing) -> Heads:
        heads: Heads
        if chain is None or self._settings.contract is None:
            heads = UnsafeRequestHeads(self._outcomes, keys)
        else:
            heads = ChainHeads(chain, self._settings.contract, keys=keys, clock=self._clock)
        self._closing.callback(heads.close)
        return heads

    @contextlib.asynccontextmanager
    async def _waking(self, stop: asyncio.Event) -> AsyncIterator[None]:
        async def wake() -> None:
            await stop.wait()
            self._execution.wake_all()

        async with _background(wake()):
            yield

    @contextlib.asynccontextmanager
    async def _pruning(self) -> AsyncIterator[None]:
        async def prune() -> None:
            while True:
                with contextlib.suppress(BlobUnavailableError, ChainError):
                    await asyncio.to_thread(self.prune)
                await asyncio.sleep(_PRUNE_SECONDS)

        async with _background(prune()):
            yield

    def prune(self) -> None:
        """
        Forget what the retention no longer asks for.

        Deadlines are over when the chain says so: a job whose outcome is forgotten before that
        could be executed and signed again.

        Raises:
            ChainError: The chain can't be asked, so nothing is forgotten.
            BlobUnavailableError: It could not be written.
        """
        now, block_time = self._clock(), self._heads.block_time()
        chain_now = now if block_time is None else block_time
        self._outcomes.prune(
            deadline_before=chain_now - self._settings.retention_ms,
            uploaded_before=now - _UPLOADS_MS,
            keep_outcomes=self._settings.unsafe_without_chain,
        )
        self._blobs.drop_evidence(self._keys)


def _and_store(runner: JobRunner, outcomes: OutcomeStore) -> Callable[[AcceptedJob], StoredOutcome]:
    def run(job: AcceptedJob) -> StoredOutcome:
        outcome, envelope = runner.run(job)
        stored = outcomes.add(outcome, envelope)
        if job.is_dropped:
            # Whoever dropped it may have dropped the bytes before there were any.
            outcomes.drop_bytes(job.key)
        return stored

    return run


@contextlib.asynccontextmanager
async def _background(work: Coroutine[None, None, None]) -> AsyncIterator[None]:
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def _new_event_loop() -> asyncio.AbstractEventLoop:
    # uvloop is there on all systems but Windows, where workers do not run.
    import uvloop  # noqa: PLC0415 - only a process that serves needs it

    return uvloop.new_event_loop()
