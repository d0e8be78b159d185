"""A chain, a worker on a simulated platform that proves no TEE, and a registrar between them."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.chain import Chain
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.processor import JobProcessor
from orchestrator.collateral import CollateralSource
from orchestrator.crypto import EcdsaSigner
from orchestrator.encoding import blake2_256
from orchestrator.evidence import MeasurementSet, Policy
from orchestrator.models import Worker, WorkerId
from orchestrator.quotes import PlatformEvidence
from orchestrator.registrar import ChainCalls, EvidenceArchive, Registrar
from orchestrator.simulator import Simulator
from orchestrator.testing import FixedClock, LocalAccount, deploy_processor
from orchestrator.testing.evidence import simulated_policy
from orchestrator.testing.flaky_chain import Fault
from orchestrator.testing.workers import ScriptedWorker

ADMIN = LocalAccount.named("admin")
STRANGER = LocalAccount.named("stranger")
POLICY_FILE = b"# what these tests call a policy file"
URL = "http://worker.invalid:9301"
HOUR = 3_600_000
DAY = 24 * HOUR


@dataclass
class Machine:
    """Quotes of a simulator that a test may change; the collateral is of *clock*'s time."""

    simulator: Simulator
    clock: FixedClock
    collateral_for: int = 30 * DAY
    quotes: int = 0
    name: str = "simulated TDX: proves no TEE"

    async def quote(self, report_data: bytes) -> PlatformEvidence:
        self.quotes += 1
        return PlatformEvidence(
            quote=self.simulator.quote(report_data),
            event_log=self.simulator.guest.event_log,
            compose=self.simulator.guest.compose,
            collateral=self.simulator.collateral(now=self.clock(), valid_for=self.collateral_for),
        )

    async def close(self) -> None:
        """Nothing is open."""


@dataclass
class World:
    """Everything around a registrar; `registrar` makes one by the policy as it is then."""

    folder: Path
    clock: FixedClock
    chain: EmbeddedChain
    processor: JobProcessor
    machine: Machine
    worker: ScriptedWorker
    policy: Policy
    account: LocalAccount = ADMIN
    wrapped: Chain | None = None
    receipts: list[object] = field(default_factory=list)

    @property
    def archive(self) -> EvidenceArchive:
        return EvidenceArchive(self.blobs, self.folder)

    @property
    def blobs(self) -> DirectoryBlobStore:
        return DirectoryBlobStore(self.folder, durable=False)

    def registrar(self, collateral: CollateralSource | None = None) -> Registrar:
        return Registrar(
            calls=ChainCalls(
                self.wrapped or self.chain, self.account, on_receipt=self.receipts.append
            ),
            processor=self.processor,
            policy=self.policy,
            policy_file=POLICY_FILE,
            archive=self.archive,
            collateral=collateral,
            clock=self.clock,
        )

    async def register(self, worker: ScriptedWorker | None = None, url: str = URL) -> Worker:
        """Register a worker in the proper way."""
        registrar, client = self.registrar(), worker or self.worker
        examined = await registrar.examine(client, url=url)
        return (await registrar.admit(client, examined)).worker

    def another_worker(self) -> ScriptedWorker:
        """A worker with keys of its own on the same machine."""
        return ScriptedWorker(
            signer=EcdsaSigner.generate(),
            measurement=self.measurement,
            clock=self.clock,
            quotes=self.machine,
        )

    @property
    def measurement(self) -> bytes:
        return self.machine.simulator.guest.measurements().measurement

    def read(self, worker: WorkerId) -> Worker:
        found = self.chain.read(self.processor.get_worker(worker))
        assert found is not None
        return found

    def head(self) -> int:
        """The number of the last block: each call that changes something makes one."""
        return self.chain.finalized_head().number

    def records(self) -> list[dict[str, object]]:
        """The JSON records of the archive, by their time."""
        found = [json.loads(path.read_bytes()) for path in (self.folder / "records").iterdir()]
        return sorted(found, key=lambda record: int(record["verified_at"]))

    def set_policy(self, **changes: object) -> None:
        self.policy = replace(self.policy, **changes)  # type: ignore[arg-type]  # checked by replace

    def change_simulator(self, change: Callable[[Simulator], Simulator]) -> None:
        self.machine.simulator = change(self.machine.simulator)

    def add_measurements(self, *sets: MeasurementSet) -> None:
        """Put sets before those that the policy has."""
        self.set_policy(measurements=(*sets, *self.policy.measurements))


def lose_call(label: str, faults: list[Fault | None]) -> Callable[[str], Fault | None]:
    """
    Let calls of this message go wrong, as the list says from its end on.

    What a call would cost is asked before it is made, and counts.
    """
    return lambda asked: faults.pop() if asked == label and faults else None


@contextmanager
def make_world(folder: Path) -> Iterator[World]:
    """A contract that allows the measurement of a worker which is not registered yet."""
    clock = FixedClock()
    machine = Machine(simulator=Simulator.create(), clock=clock)
    measurement = machine.simulator.guest.measurements().measurement
    chain = EmbeddedChain(":memory:", clock=clock)
    processor = deploy_processor(chain, admin=ADMIN, measurement=measurement)
    worker = ScriptedWorker(
        signer=EcdsaSigner.generate(), measurement=measurement, clock=clock, quotes=machine
    )
    policy = replace(simulated_policy(machine.simulator), policy_hash=blake2_256(POLICY_FILE))
    try:
        yield World(
            folder=folder / "evidence",
            clock=clock,
            chain=chain,
            processor=processor,
            machine=machine,
            worker=worker,
            policy=policy,
        )
    finally:
        chain.close()
