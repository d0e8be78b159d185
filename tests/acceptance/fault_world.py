"""
The whole system on a real node, with a proxy between the node and each part that talks to it.

The owner's client, the orchestrator and the worker are the ones of production. What became of the
jobs is counted on the chain, over a connection of its own that no proxy touches.
"""

import asyncio
import contextlib
import itertools
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self, TypeVar

from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.chain import Cursor
from orchestrator.chain.devnode import DevNode
from orchestrator.chain.processor import JobProcessor
from orchestrator.chain.rpc import RpcConnection
from orchestrator.chain.substrate import SubstrateChain
from orchestrator.client import DEFAULT_TTL_MS, JobClient
from orchestrator.crypto import AccountKey, OwnerSecret
from orchestrator.errors import ChainUnavailableError
from orchestrator.journal import Journal
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.models import (
    JobId,
    JobStatus,
    Parameters,
    Role,
    Signature,
    TaskInput,
    Worker,
    WorkerId,
    WorkerRegistration,
)
from orchestrator.service import AdmissionPolicy, Orchestrator, OrchestratorSettings
from orchestrator.testing.chain import deploy_processor
from orchestrator.testing.node_proxy import NodeProxy
from orchestrator.worker import TokenList, TokenScope, WorkerServer, WorkerSettings
from orchestrator.workers.http import HttpWorkerClient

__all__ = [
    "LONG",
    "SHORT",
    "FaultWorld",
    "Owner",
    "Sealer",
    "Service",
    "Tally",
    "make_world",
    "until",
    "wall_clock",
]

T = TypeVar("T")

ADMIN = AccountKey.from_uri("//Alice")
FUNDER = AccountKey.from_uri("//Alice//stash")
MEASUREMENT = b"m" * 32
# A node forgets the events of all but its last 256 blocks otherwise; they are counted here.
ARCHIVE = ("--state-pruning", "archive")
# How long anything may take before it counts as hanging.
PATIENCE_SECONDS = 180.0

SETTINGS = OrchestratorSettings(
    poll_seconds=0.02,
    group_seconds=0.02,
    retry_seconds=0.1,
    retry_max_seconds=1.0,
    long_poll_seconds=2,
    answer_seconds=5,
    pending_seconds=5,
    shutdown_seconds=30,
)


@dataclass(frozen=True)
class Timeouts:
    """How long the connections of a world wait for an answer, and for finality."""

    answer_seconds: float
    finality_seconds: float


# Small, so that a fault that only time tells is over soon.
SHORT = Timeouts(2.0, 6.0)
# Where no fault is told by time, none may be made by a busy machine.
LONG = Timeouts(20.0, 60.0)


def wall_clock() -> int:
    return time.time_ns() // 1_000_000


def open_chain(url: str, timeouts: Timeouts, *, ahead_ms: int = 0) -> SubstrateChain:
    """Open a chain, also while the node is being started again."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return SubstrateChain(
                url,
                clock=lambda: wall_clock() + ahead_ms,
                timeout_seconds=timeouts.answer_seconds,
                finality_seconds=timeouts.finality_seconds,
            )
        except ChainUnavailableError:
            if time.monotonic() > deadline:
                raise


class Owner:
    """An owner's program, in a thread: after a doubt it submits the same again, as it is told."""

    def __init__(self, world: "FaultWorld", account: AccountKey, *, ahead_ms: int = 0) -> None:
        self.account = account
        self.proxy = world.proxy()
        self.jobs: list[JobId] = []
        self.doubts = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="owner")
        self._world = world
        self._ahead_ms = ahead_ms
        self._chain, self._client = self._thread.submit(self._open).result(PATIENCE_SECONDS)

    def _open(self) -> tuple[SubstrateChain, JobClient]:
        world = self._world
        chain = open_chain(self.proxy.url, world.timeouts, ahead_ms=self._ahead_ms)
        return chain, JobClient(
            chain=chain,
            contract=world.processor.contract,
            account=self.account,
            secret=OwnerSecret.generate(),
            state_dir=world.folder / f"owner-{self.account.account_id.hex()[:8]}",
            trusted_node=True,
            blob_sources=[world.blobs],
            clock=lambda: wall_clock() + self._ahead_ms,
        )

    def begin(self, work: Callable[[JobClient], T]) -> "Future[T]":
        """Have the owner do something, and do not wait for it."""
        return self._thread.submit(lambda: work(self._client))

    def begin_submit(
        self,
        data: bytes,
        *,
        workers: Sequence[WorkerId] | None = None,
        ttl_ms: int = DEFAULT_TTL_MS,
    ) -> "Future[JobId]":
        """Begin to submit a job that echoes *data*, however often it takes."""

        def submit(client: JobClient) -> JobId:
            task = TaskInput(task="echo", input=data)
            job_id = self._repeat(lambda: client.submit(task, workers=workers, ttl_ms=ttl_ms))
            self.jobs.append(job_id)
            return job_id

        return self.begin(submit)

    def submit(
        self,
        data: bytes,
        *,
        workers: Sequence[WorkerId] | None = None,
        ttl_ms: int = DEFAULT_TTL_MS,
    ) -> JobId:
        """Submit a job that echoes *data*."""
        begun = self.begin_submit(data, workers=workers, ttl_ms=ttl_ms)
        return begun.result(2 * PATIENCE_SECONDS)

    def finish(self, job_id: JobId, data: bytes) -> None:
        """Wait until the job is processed, and see that its result is the right one."""

        def finish(client: JobClient) -> None:
            status = client.wait(job_id, timeout_seconds=PATIENCE_SECONDS)
            assert status is JobStatus.PROCESSED, f"job {job_id} is {status}"
            assert self._repeat(lambda: client.result(job_id)).output == data

        self.begin(finish).result(3 * PATIENCE_SECONDS)

    def _repeat(self, work: Callable[[], T]) -> T:
        """Do it again for as long as the chain can't be reached, or nothing is known."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                return work()
            except ChainUnavailableError:
                self.doubts += 1
                if time.monotonic() > deadline:
                    raise

    def close(self) -> None:
        self._thread.submit(self._client.close).result(PATIENCE_SECONDS)
        self._chain.close()
        self._thread.shutdown()


class Service:
    """An orchestrator in a thread of its own, with two connections, each through a proxy."""

    def __init__(
        self,
        world: "FaultWorld",
        account: AccountKey,
        *,
        owners: Sequence[AccountKey],
        ahead_ms: int = 0,
        settings: OrchestratorSettings = SETTINGS,
    ) -> None:
        self._world = world
        self.account = account
        self.reading = world.proxy()
        self.sending = world.proxy()
        self.heard: list[ServiceEvent] = []
        self._owners = frozenset(owner.account_id for owner in owners)
        self._ahead_ms = ahead_ms
        self._settings = settings
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stop: asyncio.Event | None = None
        self._is_running = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="fault-service")
        self._thread.start()
        assert self._is_running.wait(PATIENCE_SECONDS)

    def count(self, kind: EventKind) -> int:
        return sum(event.kind is kind for event in list(self.heard))

    def told(self, kind: EventKind) -> set[JobId]:
        """The jobs that it has told this of."""
        told = {event.job_id for event in list(self.heard) if event.kind is kind}
        return {job_id for job_id in told if job_id is not None}

    def wait_for(self, kind: EventKind, jobs: Sequence[JobId]) -> None:
        """Return once it has told this of each of the jobs."""
        until(lambda: set(jobs) <= self.told(kind), f"{kind.value}: not told of all of {jobs}")

    def stop(self) -> None:
        """Stop it, which must take no longer than finishing what is under way."""
        if self._loop is not None and self._stop is not None and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "the orchestrator hangs"
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001  # told by `stop`
            self._failure = error
        finally:
            self._is_running.set()

    async def _main(self) -> None:
        world = self._world
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        self._is_running.set()
        with contextlib.ExitStack() as stack:
            chains = []
            for proxy in (self.reading, self.sending):
                chain = await asyncio.to_thread(
                    open_chain, proxy.url, world.timeouts, ahead_ms=self._ahead_ms
                )
                stack.callback(chain.close)
                chains.append(chain)
            journal = Journal(
                world.folder / f"journal-{self.account.account_id.hex()[:8]}.db",
                genesis_hash=chains[0].genesis_hash,
                contract=world.processor.contract,
            )
            stack.callback(journal.close)
            orchestrator = Orchestrator(
                chain=chains[0],
                sender=chains[1],
                processor=JobProcessor(world.processor.contract),
                account=self.account,
                journal=journal,
                blobs=world.blobs,
                worker_clients=world.worker_client,
                policy=AdmissionPolicy(owners=self._owners, jobs_per_day=1_000_000),
                settings=self._settings,
                clock=lambda: wall_clock() + self._ahead_ms,
                on_event=self.heard.append,
            )
            await orchestrator.run(self._stop)


class WorkerThread:
    """The real worker application with a server of its own, on a connection of its own."""

    def __init__(self, folder: Path, url: str, contract: bytes) -> None:
        folder.mkdir(mode=0o700)
        self.token = TokenList(folder).add("all", TokenScope.JOBS, now=0)
        self.registering = TokenList(folder).add("registrar", TokenScope.REGISTRATION, now=0)
        self._chain = SubstrateChain(url, timeout_seconds=SHORT.answer_seconds)
        self._server = WorkerServer(
            WorkerSettings(folder=folder, contract=contract, tasks=("echo",), slots=4),
            self._chain,
            clock=wall_clock,
        )
        self.url = ""
        self._stop: asyncio.Event | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._is_ready = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="worker")
        self._thread.start()
        assert self._is_ready.wait(PATIENCE_SECONDS)

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        await self._server.serve(stop=self._stop, ready=self._note)

    def _note(self, url: str) -> None:
        self.url = url
        self._is_ready.set()

    def close(self) -> None:
        assert self._loop is not None
        assert self._stop is not None
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "the worker hangs"
        self._chain.close()


@dataclass(frozen=True, kw_only=True)
class Tally:
    """What the chain says about some of an owner's jobs."""

    jobs: int
    processed: int
    duplicated: int
    lost: int


@dataclass
class Counts:
    """What the contract's events say, as far as they were read."""

    submitted: defaultdict[bytes, list[JobId]] = field(default_factory=lambda: defaultdict(list))
    recorded: Counter[JobId] = field(default_factory=Counter)
    processed: Counter[JobId] = field(default_factory=Counter)
    _cursor: Cursor = field(default_factory=lambda: Cursor(block=0, index=-1))

    def read(self, chain: SubstrateChain, processor: JobProcessor) -> None:
        """Read on, up to the finalized head."""
        head = chain.finalized_head().number
        while True:
            page = chain.events(processor.contract, after=self._cursor)
            for raw in page.events:
                event = processor.decode_event(raw)
                job_id, owner = event.fields.get("job_id"), event.fields.get("owner")
                if not isinstance(job_id, int):
                    continue
                if event.name == "JobSubmitted" and isinstance(owner, bytes):
                    self.submitted[owner].append(job_id)
                if event.statement is not None:
                    self.recorded[job_id] += 1
                if event.name == "JobProcessed":
                    self.processed[job_id] += 1
            self._cursor = page.next
            if page.next.block >= head:
                return


@dataclass
class FaultWorld:
    """A node with the contract and a worker; `owner` and `service` add the rest."""

    folder: Path
    node: DevNode
    direct: SubstrateChain
    processor: JobProcessor
    blobs: DirectoryBlobStore
    stack: contextlib.ExitStack
    timeouts: Timeouts
    tokens: dict[WorkerId, str] = field(default_factory=dict)
    worker: WorkerId = 0
    _numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))
    _administering: threading.Lock = field(default_factory=threading.Lock)
    _bank: "Rival | None" = None
    _counting: threading.Lock = field(default_factory=threading.Lock)
    _counts: Counts = field(default_factory=Counts)

    def proxy(self) -> NodeProxy:
        """A proxy before the node, for one part of the system."""
        return self.stack.enter_context(NodeProxy(self.node.rpc_port))

    @contextlib.contextmanager
    def owner(self, account: AccountKey, *, ahead_ms: int = 0) -> Iterator[Owner]:
        """An owner, while the context lasts."""
        owner = Owner(self, account, ahead_ms=ahead_ms)
        try:
            yield owner
        finally:
            owner.close()

    @contextlib.contextmanager
    def service(
        self,
        account: AccountKey,
        *owners: Owner,
        ahead_ms: int = 0,
        settings: OrchestratorSettings = SETTINGS,
    ) -> Iterator[Service]:
        """An orchestrator for some owners, while the context lasts; it must end without error."""
        service = Service(
            self,
            account,
            owners=[owner.account for owner in owners],
            ahead_ms=ahead_ms,
            settings=settings,
        )
        try:
            yield service
        finally:
            service.stop()

    def operator(self, *, planck: int = 1 << 50) -> AccountKey:
        """A new account that may complete jobs."""
        account = self.account(planck=planck)
        call = self.processor.grant_role(account.account_id, Role.OPERATOR)
        with self._administering:
            self.direct.call(call, signer=ADMIN)
        return account

    def account(self, *, planck: int = 1 << 50) -> AccountKey:
        """A new account; one without money pays nothing."""
        account = AccountKey.from_uri(f"//fault//{next(self._numbers)}")
        if planck:
            self.fund(account, planck)
        return account

    def fund(self, account: AccountKey, planck: int = 1 << 50) -> None:
        """Give the account money."""
        with self._administering:
            if self._bank is None:
                self._bank = self.stack.enter_context(Rival(self.node.url))
            self._bank.transfer(account.account_id, planck)

    def worker_client(self, worker: Worker) -> HttpWorkerClient:
        return HttpWorkerClient(worker.endpoint.decode(), self.tokens.get(worker.worker))

    def data(self) -> bytes:
        """What no other job of this world echoes."""
        return b"job %d" % next(self._numbers)

    def tally(self, owner: Owner, jobs: Sequence[JobId]) -> Tally:
        """Count on the chain what became of *jobs*, and how many jobs too many the owner has."""
        with self._counting:
            self._counts.read(self.direct, self.processor)
            counts = self._counts
            submitted = counts.submitted[owner.account.account_id]
            recorded, processed = counts.recorded, counts.processed
            # What was submitted more often than the owner asked for is nobody's job.
            nobodys = len(submitted) - len(set(submitted) & set(owner.jobs))
            return Tally(
                jobs=len(jobs),
                processed=sum(processed[job] == recorded[job] == 1 for job in jobs),
                duplicated=nobodys
                + (len(owner.jobs) - len(set(owner.jobs)))
                + sum(recorded[job] > 1 or processed[job] > 1 for job in jobs),
                lost=len(set(jobs) - set(submitted)) + sum(processed[job] == 0 for job in jobs),
            )


class Rival:
    """Another program with keys of ours; see `rival_program.py`."""

    def __init__(self, url: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("rival_program.py")), url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._process:
            self._process.terminate()

    def transfer(self, account_id: bytes, planck: int) -> None:
        """Give an account money of Alice's stash."""
        assert self._ask("transfer", FUNDER, account_id.hex(), str(planck))

    def use_nonce(self, account: AccountKey) -> bool:
        """Send something of no effect; say whether the node took it."""
        return self._ask("remark", account)

    def _ask(self, wish: str, account: AccountKey, *rest: str) -> bool:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = (wish, account.account_id.hex(), account.to_bytes().hex(), *rest)
        self._process.stdin.write(" ".join(line) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer in ("taken", "refused")
        return answer == "taken"


class Sealer:
    """Makes the blocks of a node with `--manual-seal`; by itself while it is on."""

    def __init__(self, url: str) -> None:
        self._rpc = RpcConnection(url, timeout_seconds=10.0)
        self._lock = threading.Lock()
        self._is_on = threading.Event()
        self._is_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sealer")
        self._thread.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._is_ended.set()
        self._is_on.set()
        self._thread.join(PATIENCE_SECONDS)
        assert not self._thread.is_alive(), "the sealer hangs"
        self._rpc.close()

    def on(self) -> None:
        """Seal and finalize whatever is waiting, from now on."""
        self._is_on.set()

    def off(self) -> None:
        """Return once nothing is sealed any more unless `seal` is called."""
        self._is_on.clear()
        with self._lock:
            pass

    def pending(self) -> int:
        """How many extrinsics wait in the pool."""
        found = self._rpc.request("author_pendingExtrinsics")
        assert isinstance(found, list)
        return len(found)

    def seal(self, *, parent: str | None = None, finalize: bool = False) -> str:
        """Make a block of what waits on top of *parent* (or the best one); return its hash."""
        made = self._rpc.request("engine_createBlock", True, finalize, parent)
        assert isinstance(made, dict), made
        return str(made["hash"])

    def finalize(self, block: str) -> None:
        assert self._rpc.request("engine_finalizeBlock", block, None) is True

    def best(self) -> str:
        """The best block's hash."""
        return str(self._rpc.request("chain_getBlockHash"))

    def _run(self) -> None:
        while not self._is_ended.wait(0.02):
            self._is_on.wait()
            with self._lock, contextlib.suppress(ChainUnavailableError):
                if not self._is_on.is_set() or self._is_ended.is_set():
                    continue
                if self.pending():
                    self._rpc.request("engine_createBlock", True, True, None)
                elif self.best() != self._rpc.request("chain_getFinalizedHead"):
                    self.finalize(self.best())


def until(condition: Callable[[], bool], words: str) -> None:
    """Return once the condition holds; fail with *words* when it does not in good time."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    pause = threading.Event()
    while not condition():
        assert time.monotonic() < deadline, words
        pause.wait(0.02)


@contextlib.contextmanager
def make_world(
    folder: Path,
    program: Path,
    *,
    timeouts: Timeouts = SHORT,
    flags: Sequence[str] = ("--finalize-delay-sec", "0", *ARCHIVE),
    sealer: Callable[[str], contextlib.AbstractContextManager[Sealer]] | None = None,
) -> Iterator[tuple[FaultWorld, Sealer | None]]:
    """
    Start a node, deploy the contract and start a worker.

    When it is left, every thread that was started must be gone.
    """
    before = set(threading.enumerate())
    with contextlib.ExitStack() as stack:
        node = stack.enter_context(DevNode(program, base_path=folder / "node", flags=flags))
        sealing = None
        if sealer is not None:
            sealing = stack.enter_context(sealer(node.url))
            sealing.on()
        direct = SubstrateChain(node.url)
        stack.callback(direct.close)
        processor = deploy_processor(
            direct,
            admin=ADMIN,
            parameters=Parameters(rate_limit=100_000, min_ttl=10_000),
            measurement=MEASUREMENT,
        )
        world = FaultWorld(
            folder=folder,
            node=node,
            direct=direct,
            processor=processor,
            blobs=DirectoryBlobStore(folder / "blobs", durable=False),
            stack=stack,
            timeouts=timeouts,
        )
        thread = WorkerThread(folder / "worker", node.url, processor.contract)
        stack.callback(thread.close)
        world.worker = _register(world, thread)
        world.tokens[world.worker] = thread.token
        yield world, sealing
    left = [thread for thread in threading.enumerate() if thread not in before]
    for one in left:
        one.join(PATIENCE_SECONDS)
        assert not one.is_alive(), f"the thread {one.name} was left behind"


def _register(world: FaultWorld, thread: WorkerThread) -> WorkerId:
    """Register the worker, as a registrar does."""

    async def ask() -> tuple[WorkerRegistration, Signature]:
        client = HttpWorkerClient(thread.url, thread.registering)
        identity = await client.identity()
        registration = WorkerRegistration(
            signing_key=identity.signing_key,
            encryption_key=identity.encryption_key,
            measurement=MEASUREMENT,
            evidence_hash=bytes(32),
            endpoint=thread.url.encode(),
            valid_until=wall_clock() + 86_400_000,
        )
        possession = await client.registration(
            genesis=world.direct.genesis_hash,
            contract=world.processor.contract,
            measurement=MEASUREMENT,
            evidence_hash=bytes(32),
            valid_until=registration.valid_until,
        )
        await client.close()
        return registration, possession

    registration, possession = asyncio.run(ask())
    call = world.processor.register_worker(registration, possession)
    return world.direct.call(call, signer=ADMIN).value
