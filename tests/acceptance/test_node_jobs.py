"""
Ten jobs on a real node, with real worker processes: each processed exactly once, and paid for.

What an operator pays is fees alone, and what an owner's deposits held comes back with the purge.
"""

import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.chain import Chain, Cursor, Receipt
from orchestrator.chain.devnode import DevNode
from orchestrator.chain.processor import JobProcessor
from orchestrator.chain.url import open_chain
from orchestrator.client import AsyncJobClient, JobClient, Submission
from orchestrator.crypto import AccountKey, OwnerSecret
from orchestrator.journal import Journal
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.models import (
    JobStatus,
    Parameters,
    Role,
    TaskInput,
    Worker,
    WorkerId,
    WorkerRegistration,
)
from orchestrator.service import AdmissionPolicy, Orchestrator, OrchestratorSettings
from orchestrator.testing import deploy_processor
from orchestrator.worker import TokenList, TokenScope
from orchestrator.workers.http import HttpWorkerClient

WORKER_PROGRAM = Path(__file__).parent / "worker_program.py"
MEASUREMENT = b"m" * 32
ADMIN = AccountKey.from_uri("//Alice")
OPERATOR = AccountKey.from_uri("//Bob")
OWNER = AccountKey.from_uri("//Charlie")
JOBS = 10
ROUNDING = 2  # planck that the pallet may keep of a job's deposit (protocol 2.2)
SECONDS = 60.0


def wall_clock() -> int:
    return time.time_ns() // 1_000_000


@dataclass
class NodeWorld:
    """A contract on a node, two registered worker processes, and connections as they are wanted."""

    url: str
    folder: Path
    stack: ExitStack
    chain: Chain
    processor: JobProcessor
    first_block: int
    tokens: dict[WorkerId, str] = field(default_factory=dict)
    events: list[ServiceEvent] = field(default_factory=list)

    def connect(self) -> Chain:
        chain = open_chain(self.url)
        self.stack.callback(chain.close)
        return chain

    def balance(self, account: AccountKey) -> int:
        balance = self.chain.account(account.account_id).balance
        assert balance is not None
        return balance

    def client_of(self, worker: Worker) -> HttpWorkerClient:
        return HttpWorkerClient(worker.endpoint.decode(), self.tokens[worker.worker])

    def chain_events(self) -> Counter[str]:
        """How many events there are of each name, and how many hold a statement."""
        found: Counter[str] = Counter()
        head = self.chain.finalized_head().number
        after = Cursor(block=self.first_block, index=-1)
        while True:
            page = self.chain.events(self.processor.contract, after=after)
            events = [self.processor.decode_event(raw) for raw in page.events]
            found.update(event.name for event in events)
            found["statements"] += sum(event.statement is not None for event in events)
            if page.next <= after or (not page.events and page.next.block >= head):
                return found
            after = page.next

    @asynccontextmanager
    async def orchestrating(self) -> AsyncIterator[Orchestrator]:
        """Have the orchestrator run meanwhile; it must end well."""
        with self.stack.enter_context(ExitStack()) as stack:
            journal = Journal(
                self.folder / "journal.db",
                genesis_hash=self.chain.genesis_hash,
                contract=self.processor.contract,
            )
            stack.callback(journal.close)
            orchestrator = Orchestrator(
                chain=self.connect(),
                sender=self.connect(),
                processor=self.processor,
                account=OPERATOR,
                journal=journal,
                blobs=DirectoryBlobStore(self.folder / "blobs"),
                worker_clients=self.client_of,
                policy=AdmissionPolicy(owners=frozenset({OWNER.account_id})),
                settings=OrchestratorSettings(from_block=self.first_block),
                clock=wall_clock,
                on_event=self.events.append,
            )
            stop = asyncio.Event()
            running = asyncio.create_task(orchestrator.run(stop))
            try:
                yield orchestrator
            finally:
                stop.set()
                await running


def _start_worker(world: NodeWorld, name: str) -> None:
    """Start a worker process and register it, as a registrar does."""
    folder = world.folder / name
    folder.mkdir(mode=0o700)
    token = TokenList(folder).add("all", TokenScope.JOBS, now=0)
    registering = TokenList(folder).add("registrar", TokenScope.REGISTRATION, now=0)
    process = subprocess.Popen(
        [
            *(sys.executable, str(WORKER_PROGRAM)),
            *(str(folder), world.url, world.processor.contract.hex()),
        ],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(WORKER_PROGRAM.parents[2])},
    )
    world.stack.callback(process.wait, 20)
    world.stack.callback(process.terminate)
    assert process.stdout is not None
    world.stack.callback(process.stdout.close)
    url = process.stdout.readline().strip()
    valid_until = wall_clock() + 86_400_000

    async def register() -> WorkerId:
        client = HttpWorkerClient(url, registering)
        identity = await client.identity()
        possession = await client.registration(
            genesis=world.chain.genesis_hash,
            contract=world.processor.contract,
            measurement=MEASUREMENT,
            evidence_hash=bytes(32),
            valid_until=valid_until,
        )
        await client.close()
        registration = WorkerRegistration(
            signing_key=identity.signing_key,
            encryption_key=identity.encryption_key,
            measurement=MEASUREMENT,
            evidence_hash=bytes(32),
            endpoint=url.encode(),
            valid_until=valid_until,
        )
        call = world.processor.register_worker(registration, possession)
        return world.chain.call(call, signer=ADMIN).value

    world.tokens[asyncio.run(register())] = token


@contextmanager
def make_node_world(url: str, folder: Path, *, salt: bytes) -> Iterator[NodeWorld]:
    """Deploy the contract on the node and register two workers."""
    with ExitStack() as stack:
        chain = open_chain(url)
        stack.callback(chain.close)
        first_block = chain.finalized_head().number
        processor = deploy_processor(
            chain,
            admin=ADMIN,
            # Over when the last job is purged, which then releases the owner's account cell too.
            parameters=Parameters(rate_window=1_000),
            measurement=MEASUREMENT,
            salt=salt,
        )
        chain.call(processor.grant_role(OPERATOR.account_id, Role.OPERATOR), signer=ADMIN)
        world = NodeWorld(
            url=url,
            folder=folder,
            stack=stack,
            chain=chain,
            processor=processor,
            first_block=first_block,
        )
        for name in ("worker-1", "worker-2"):
            _start_worker(world, name)
        yield world


@pytest.fixture(params=["a block for each transaction", "a block each second"])
def world(
    request: pytest.FixtureRequest, node_program: Path, tmp_path: Path
) -> Iterator[NodeWorld]:
    if request.param == "a block for each transaction":
        url = request.getfixturevalue("node").url
        with make_node_world(url, tmp_path, salt=b"node jobs") as world:
            yield world
        return
    flags = ("--finalize-delay-sec", "0", "--block-time", "1000")
    with (
        DevNode(node_program, flags=flags) as node,
        make_node_world(node.url, tmp_path, salt=b"") as world,
    ):
        yield world


async def test_ten_jobs_are_processed_once_and_deposits_come_back(world: NodeWorld) -> None:
    receipts: list[Receipt[object]] = []

    @contextmanager
    def open_client() -> Iterator[JobClient]:
        chain = open_chain(world.url)
        with JobClient(
            chain=chain,
            contract=world.processor.contract,
            account=OWNER,
            secret=OwnerSecret.from_bytes(bytes(range(32))),
            state_dir=world.folder / "client",
            trusted_node=True,
            blob_sources=[DirectoryBlobStore(world.folder / "blobs")],
            on_receipt=receipts.append,
        ) as client:
            yield client
        chain.close()

    operator_before, owner_before = world.balance(OPERATOR), world.balance(OWNER)
    async with world.orchestrating() as orchestrator, AsyncJobClient(open_client) as client:
        submissions = [
            Submission(task=TaskInput(task="echo", input=b"input %d" % number))
            for number in range(JOBS)
        ]
        jobs = await client.submit_many(submissions)
        assert jobs == list(range(1, JOBS + 1))
        held = sum(receipt.deposit for receipt in receipts)
        submit_fees = sum(receipt.fee for receipt in receipts)
        assert held > 0
        assert world.balance(OWNER) == owner_before - held - submit_fees

        for job_id in range(1, JOBS + 1):
            ended = await client.wait(job_id, timeout_seconds=SECONDS)
            assert ended is JobStatus.PROCESSED
            result = await client.result(job_id)
            assert result.output == b"input %d" % (job_id - 1)
        await _until_closed(orchestrator)

        for job_id in range(1, JOBS + 1):
            await client.purge(job_id)

    events = world.chain_events()
    assert events["JobSubmitted"] == JOBS
    assert events["JobProcessed"] == events["statements"] == events["JobPurged"] == JOBS
    # The operator paid its fees, and no deposit.
    fees = sum(event.planck for event in world.events if event.kind is EventKind.FEE)
    assert world.balance(OPERATOR) == operator_before - fees
    assert orchestrator.balance is not None
    # The owner's deposit is back, but for what the pallet rounds.
    left = sum(receipt.deposit for receipt in receipts)
    assert 0 <= left <= ROUNDING * JOBS
    owner_fees = sum(receipt.fee for receipt in receipts)
    assert world.balance(OWNER) == owner_before - owner_fees - left
    assert not [event for event in world.events if event.kind in _TROUBLE]


_TROUBLE = frozenset(
    {
        EventKind.ATTESTATION_REFUSED,
        EventKind.CHAIN_ERROR,
        EventKind.CONFLICT,
        EventKind.LOW_BALANCE,
        EventKind.NO_FUNDS,
        EventKind.WORKER_ERROR,
        EventKind.WORKER_REFUSED,
    }
)


async def _until_closed(orchestrator: Orchestrator) -> None:
    async with asyncio.timeout(SECONDS):
        while orchestrator.open_jobs:  # noqa: ASYNC110  # it closes them when it has read back
            await asyncio.sleep(0.02)
