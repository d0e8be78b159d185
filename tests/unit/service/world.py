"""A contract on an embedded chain, scripted workers, and an orchestrator between them."""

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.chain import Chain, Cursor
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.processor import ContractEvent, JobProcessor
from orchestrator.crypto import EcdsaSigner, OwnerSecret, seal_job
from orchestrator.encoding import encode_task_input
from orchestrator.journal import JobRecord, Journal
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.models import (
    Job,
    JobOptions,
    JobStatus,
    Parameters,
    Role,
    TaskInput,
    Worker,
    WorkerId,
)
from orchestrator.service import (
    AdmissionPolicy,
    FailPoint,
    Orchestrator,
    OrchestratorSettings,
    RunSummary,
)
from orchestrator.service.steps import no_fail_point
from orchestrator.testing import LocalAccount, deploy_processor, register_test_worker
from orchestrator.testing.workers import Behaviour, ScriptedWorker
from orchestrator.workers import WorkerClient

MEASUREMENT = b"m" * 32
ADMIN = LocalAccount.named("admin")
OPERATOR = LocalAccount.named("orchestrator")
OWNER = LocalAccount.named("owner")
OTHER_OWNER = LocalAccount.named("other owner")
ANYBODY = AdmissionPolicy(owners=None)
QUICK = OrchestratorSettings(
    poll_seconds=0.01,
    group_seconds=0.005,
    retry_seconds=0.02,
    retry_max_seconds=0.2,
    long_poll_seconds=0.2,
    lease_seconds=5,
    answer_seconds=5,
    shutdown_seconds=5,
)


def wall_clock() -> int:
    return time.time_ns() // 1_000_000


async def until(condition: Callable[[], bool], *, seconds: float = 10) -> None:
    """Return once the condition holds; it must, in time."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  # the condition is not one of this loop's
            await asyncio.sleep(0.005)


@dataclass
class World:
    """
    Everything around an orchestrator; `run` makes one and lets it do what it can.

    `served` is the orchestrator's own connection to the chain, which is for one thread at a time.
    """

    folder: Path
    chain: EmbeddedChain
    served: EmbeddedChain
    processor: JobProcessor
    blobs: DirectoryBlobStore
    clock: Callable[[], int] = wall_clock
    workers: dict[WorkerId, WorkerClient] = field(default_factory=dict)
    scripted: list[ScriptedWorker] = field(default_factory=list)
    events: list[ServiceEvent] = field(default_factory=list)
    secret: OwnerSecret = field(default_factory=OwnerSecret.generate)
    ahead: int = 0
    wrapped: Chain | None = None
    sender: Chain | None = None

    def add_worker(self, behaviour: Behaviour = Behaviour.HONEST) -> WorkerId:
        scripted = ScriptedWorker(
            signer=EcdsaSigner.generate(),
            measurement=MEASUREMENT,
            clock=self.chain_time,
            behaviour=behaviour,
        )
        worker = register_test_worker(
            self.chain,
            self.processor,
            scripted.signer,
            registrar=ADMIN,
            measurement=MEASUREMENT,
            encryption_key=scripted.encryption_key.public_key,
        )
        self.workers[worker] = scripted
        self.scripted.append(scripted)
        return worker

    def chain_time(self) -> int:
        """The workers' clock, kept with the chain's without using the chain from two threads."""
        return self.clock() + self.ahead

    def advance_time(self, milliseconds: int) -> None:
        self.chain.advance_time(milliseconds)
        self.ahead += milliseconds

    def submit(
        self,
        *workers: WorkerId,
        owner: LocalAccount = OWNER,
        data: bytes = b"hello",
        ttl: int = 600_000,
        public_key: bytes | None = None,
    ) -> int:
        sealed = seal_job(
            encode_task_input(TaskInput(task="echo", input=data)),
            genesis=self.chain.genesis_hash,
            contract=self.processor.contract,
            owner=owner.account_id,
            secret=self.secret,
            recipients=[self.worker(worker).encryption_key for worker in workers],
        )
        call = self.processor.submit_confidential_job(
            sealed.envelope,
            public_key or sealed.header.reply_key,
            JobOptions(workers=workers, ttl=ttl),
        )
        return self.chain.call(call, signer=owner).value

    def worker(self, worker: WorkerId) -> Worker:
        found = self.chain.read(self.processor.get_worker(worker))
        assert found is not None
        return found

    def job(self, job_id: int) -> Job:
        found = self.chain.read(self.processor.get_job(job_id))
        assert found is not None
        return found

    def status(self, job_id: int) -> JobStatus:
        return self.job(job_id).status

    def chain_events(self, name: str) -> list[ContractEvent]:
        return [event for event in self._decoded_events() if event.name == name]

    def chain_statements(self) -> list[Mapping[str, object]]:
        """The statements that the chain's events hold, whatever their events are called."""
        statements = [event.statement for event in self._decoded_events()]
        return [statement for statement in statements if statement is not None]

    def _decoded_events(self) -> list[ContractEvent]:
        page = self.chain.events(
            self.processor.contract, after=Cursor(block=0, index=-1), limit=100_000
        )
        return [self.processor.decode_event(raw) for raw in page.events]

    def chain_done(self, job_id: int) -> bool:
        """Whether the service has told that the job is processed."""
        return any(event.job_id == job_id for event in self.heard(EventKind.PROCESSED))

    @contextmanager
    def journal(self) -> Iterator[Journal]:
        journal = Journal(
            self.folder / "journal.db",
            genesis_hash=self.chain.genesis_hash,
            contract=self.processor.contract,
        )
        try:
            yield journal
        finally:
            journal.close()

    def record(self, job_id: int) -> JobRecord:
        with self.journal() as journal:
            return self.record_of(journal, job_id)

    def record_of(self, journal: Journal, job_id: int) -> JobRecord:
        record = journal.record(job_id)
        assert record is not None
        return record

    def codes(self, job_id: int) -> set[str]:
        """The reasons of all refusals about the job in the journal."""
        with self.journal() as journal:
            return {refusal.code for refusal in journal.refusals(job_id)}

    def heard(self, kind: EventKind) -> list[ServiceEvent]:
        return [event for event in self.events if event.kind is kind]

    def hear(self, event: ServiceEvent) -> None:
        self.events.append(event)

    def client(self, worker: Worker) -> WorkerClient:
        return self.workers[worker.worker]

    def orchestrator(
        self,
        journal: Journal,
        *,
        settings: OrchestratorSettings = QUICK,
        policy: AdmissionPolicy = ANYBODY,
        account: LocalAccount = OPERATOR,
        fail_point: FailPoint = no_fail_point,
    ) -> Orchestrator:
        return Orchestrator(
            chain=self.wrapped or self.served,
            sender=self.sender,
            processor=self.processor,
            account=account,
            journal=journal,
            blobs=self.blobs,
            worker_clients=self.client,
            policy=policy,
            settings=settings,
            clock=self.clock,
            on_event=self.hear,
            fail_point=fail_point,
        )

    async def run(
        self,
        *,
        settings: OrchestratorSettings = QUICK,
        policy: AdmissionPolicy = ANYBODY,
        account: LocalAccount = OPERATOR,
        fail_point: FailPoint = no_fail_point,
        seconds: float = 20,
    ) -> RunSummary:
        """Let a new orchestrator do all that can be done now."""
        with self.journal() as journal:
            orchestrator = self.orchestrator(
                journal, settings=settings, policy=policy, account=account, fail_point=fail_point
            )
            return await orchestrator.run_once(seconds)


@contextmanager
def make_world(folder: Path) -> Iterator[World]:
    """A world with a contract, an operator, and no workers yet."""
    chain = EmbeddedChain(folder / "chain.db")
    processor = deploy_processor(
        chain,
        admin=ADMIN,
        parameters=Parameters(max_attestation_age=10_000, rate_limit=10_000),
        measurement=MEASUREMENT,
    )
    chain.call(processor.grant_role(OPERATOR.account_id, Role.OPERATOR), signer=ADMIN)
    served = EmbeddedChain(folder / "chain.db")
    try:
        yield World(
            folder=folder,
            chain=chain,
            served=served,
            processor=processor,
            blobs=DirectoryBlobStore(folder / "blobs", durable=False),
        )
    finally:
        served.close()
        chain.close()
