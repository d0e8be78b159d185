"""A worker in the test's own process, with a chain or without, and an owner who sends it jobs."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import httpx

from orchestrator.chain import Chain
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.processor import JobProcessor
from orchestrator.crypto import OwnerSecret, SealedJob, open_result, seal_job
from orchestrator.encoding import (
    blake2_256,
    decode_failure,
    decode_output,
    encode_task_input,
)
from orchestrator.models import JobOptions, Scheme, TaskInput
from orchestrator.quotes import QuoteSource
from orchestrator.testing import FixedClock, LocalAccount, deploy_processor, register_test_worker
from orchestrator.worker import TokenList, TokenScope, WorkerServer, WorkerSettings
from orchestrator.worker.identity import WorkerKeys, load_or_make_keys
from orchestrator.workers import JobKey, JobRequest, RequestHead, WorkerJob
from orchestrator.workers.http import HttpWorkerClient

GENESIS, CONTRACT, OWNER = b"g" * 32, b"c" * 32, b"o" * 32
MEASUREMENT = b"m" * 32
URL = "http://127.0.0.1:1"


@dataclass
class World:
    """One worker without a chain, or the base of one with it."""

    server: WorkerServer
    settings: WorkerSettings
    clock: FixedClock
    tokens: dict[TokenScope, str]
    secret: OwnerSecret = field(default_factory=OwnerSecret.generate)
    clients: list[HttpWorkerClient] = field(default_factory=list)
    jobs: int = 0

    @property
    def pair(self) -> WorkerKeys:
        """The worker's newest keys."""
        return load_or_make_keys(self.settings.folder, self.settings.scheme).newest

    @property
    def encryption_key(self) -> bytes:
        return self.pair.encryption_key.public_key

    def http(
        self, *, peer: str = "127.0.0.1", scheme: str = "http", token: str | None = None
    ) -> httpx.AsyncClient:
        """Return a plain HTTP client that comes from *peer*."""
        return httpx.AsyncClient(
            transport=httpx.ASGITransport(app=self.server.app, client=(peer, 1)),
            base_url=f"{scheme}://worker",
            headers={} if token is None else {"authorization": f"Bearer {token}"},
        )

    def client(self, scope: TokenScope | None = TokenScope.JOBS) -> HttpWorkerClient:
        """Return a worker client with the token for *scope*."""
        made = HttpWorkerClient(
            URL,
            None if scope is None else self.tokens[scope],
            transport=httpx.ASGITransport(app=self.server.app),
        )
        self.clients.append(made)
        return made

    async def register(self) -> None:
        """Tell a worker without a chain its measurement."""
        await self.client(TokenScope.REGISTRATION).registration(
            genesis=GENESIS,
            contract=CONTRACT,
            measurement=MEASUREMENT,
            evidence_hash=bytes(32),
            valid_until=1,
        )

    def seal(self, data: bytes, task: str = "echo", **parameters: object) -> SealedJob:
        plaintext = encode_task_input(TaskInput(task=task, input=data, parameters=parameters))
        return self.seal_plaintext(plaintext)

    def seal_plaintext(self, plaintext: bytes) -> SealedJob:
        return seal_job(
            plaintext,
            genesis=GENESIS,
            contract=CONTRACT,
            owner=OWNER,
            secret=self.secret,
            recipients=[self.encryption_key],
        )

    def request(self, sealed: SealedJob, envelope: bytes | None = None) -> JobRequest:
        """Return a job of its own; *envelope* replaces the sealed bytes."""
        self.jobs += 1
        sent = sealed.envelope if envelope is None else envelope
        return JobRequest(
            key=JobKey(
                genesis=sealed.header.genesis,
                contract=sealed.header.contract,
                job_id=self.jobs,
                payload_hash=blake2_256(sent),
            ),
            head=RequestHead(
                owner=sealed.header.owner,
                public_key=sealed.header.reply_key,
                recipients=(self.encryption_key,),
                created_at=self.clock(),
                deadline=self.clock() + 3_600_000,
            ),
            envelope=sent,
        )

    async def finish(self, request: JobRequest) -> WorkerJob:
        """Hand the job over and wait for its outcome."""
        client = self.client()
        assert await client.put_job(request)
        return await client.get_job(request.key, wait_seconds=30)

    async def open(self, job: WorkerJob) -> bytes:
        """Return the plaintext of a final job's result."""
        assert job.completion is not None
        envelope = await self.client().get_blob(job.completion.result_hash, max_bytes=1 << 25)
        assert len(envelope) == job.result_length
        return open_result(envelope, secret=self.secret).plaintext

    async def output(self, job: WorkerJob) -> bytes:
        return decode_output(await self.open(job))

    async def failure(self, job: WorkerJob) -> tuple[str, str | None]:
        return decode_failure(await self.open(job))


@dataclass
class ChainWorld(World):
    """One worker with a chain; job and worker ids are the chain's."""

    chain: EmbeddedChain = field(default_factory=lambda: EmbeddedChain(":memory:"))
    processor: JobProcessor = field(default_factory=lambda: JobProcessor(bytes(32)))
    account: LocalAccount = field(default_factory=lambda: LocalAccount.named("owner"))
    workers: tuple[int, ...] = ()

    def sealed(
        self,
        data: bytes = b"data",
        *,
        contract: bytes | None = None,
        owner: bytes | None = None,
        recipients: list[bytes] | None = None,
    ) -> SealedJob:
        return seal_job(
            encode_task_input(TaskInput(task="echo", input=data)),
            genesis=self.chain.genesis_hash,
            contract=contract or self.processor.contract,
            owner=owner or self.account.account_id,
            secret=self.secret,
            recipients=recipients or [self.encryption_key],
        )

    def submit(
        self,
        sealed: SealedJob,
        *,
        public_key: bytes | None = None,
        workers: tuple[int, ...] | None = None,
        send_envelope: bool = True,
    ) -> JobRequest:
        """Submit on the chain and return what an honest orchestrator asks for."""
        chosen = self.workers if workers is None else workers
        call = self.processor.submit_confidential_job(
            sealed.envelope,
            public_key or sealed.header.reply_key,
            JobOptions(workers=chosen, ttl=3_600_000),
        )
        job_id = self.chain.call(call, signer=self.account).value
        job = self.chain.read(self.processor.get_job(job_id))
        assert job is not None
        keys = []
        for worker in chosen:
            found = self.chain.read(self.processor.get_worker(worker))
            assert found is not None
            keys.append(found.encryption_key)
        return JobRequest(
            key=JobKey(
                genesis=self.chain.genesis_hash,
                contract=self.processor.contract,
                job_id=job_id,
                payload_hash=job.payload_hash,
            ),
            head=RequestHead(
                owner=job.owner,
                public_key=job.public_key,
                recipients=tuple(keys),
                created_at=job.created_at,
                deadline=job.deadline,
            ),
            envelope=sealed.envelope if send_envelope else None,
        )


def settings_for(folder: Path, **changes: object) -> WorkerSettings:
    base = WorkerSettings(folder=folder, tasks=("echo",), unsafe_without_chain=True, slots=1)
    return replace(base, **changes)  # type: ignore[arg-type]  # names are checked by replace


def _tokens(folder: Path) -> dict[TokenScope, str]:
    tokens = TokenList(folder)
    for entry in tokens.entries():
        tokens.revoke(entry.name)
    return {scope: tokens.add(scope.value, scope, now=1) for scope in TokenScope}


def _keys(folder: Path) -> WorkerKeys:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return load_or_make_keys(folder, Scheme.ECDSA).newest


@contextlib.asynccontextmanager
async def development_worker(
    folder: Path,
    *,
    clock: FixedClock | None = None,
    quotes: QuoteSource | None = None,
    **changes: object,
) -> AsyncIterator[World]:
    """A registered worker without a chain."""
    clock = clock or FixedClock()
    settings = settings_for(folder, **changes)
    server = WorkerServer(settings, None, clock=clock, quotes=quotes)
    world = World(server=server, settings=settings, clock=clock, tokens=_tokens(folder))
    try:
        await world.register()
        yield world
    finally:
        await _end(world)


@contextlib.asynccontextmanager
async def chain_worker(
    folder: Path,
    *,
    wrap: Callable[[EmbeddedChain], Chain] = lambda chain: chain,
    is_registered: bool = True,
    quotes: QuoteSource | None = None,
    clock: FixedClock | None = None,
    **changes: object,
) -> AsyncIterator[ChainWorld]:
    """A worker that is registered on an embedded chain of its own."""
    clock = clock or FixedClock()
    chain = EmbeddedChain(":memory:", clock=clock)
    admin = LocalAccount.named("admin")
    processor = deploy_processor(chain, admin=admin, measurement=MEASUREMENT)
    keys = _keys(folder)
    workers: tuple[int, ...] = ()
    if is_registered:
        workers = (
            register_test_worker(
                chain,
                processor,
                keys.signer,
                registrar=admin,
                measurement=MEASUREMENT,
                encryption_key=keys.encryption_key.public_key,
            ),
        )
    settings = settings_for(
        folder, unsafe_without_chain=False, contract=processor.contract, **changes
    )
    server = WorkerServer(settings, wrap(chain), clock=clock, quotes=quotes)
    world = ChainWorld(
        server=server,
        settings=settings,
        clock=clock,
        tokens=_tokens(folder),
        chain=chain,
        processor=processor,
        workers=workers,
    )
    try:
        yield world
    finally:
        await _end(world)
        chain.close()


async def _end(world: World) -> None:
    for client in world.clients:
        await client.close()
    await world.server.shut_down()


async def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    """Return once *condition* holds."""
    latest = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < latest, "it did not come true in time"
        await asyncio.sleep(0.005)
