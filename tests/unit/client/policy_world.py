"""Workers with simulated evidence on an owner's chain. It proves no TEE."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.client import JobClient
from orchestrator.crypto import EcdsaSigner
from orchestrator.errors import BlobNotFoundError
from orchestrator.evidence import Policy, Verdict
from orchestrator.models import PublicKey, Worker
from orchestrator.simulator import Simulator
from orchestrator.testing.evidence import simulated_bundle, simulated_policy
from orchestrator.testing.local_worker import LocalWorker
from orchestrator.testing.owner_world import ADMIN, World
from tests.unit.client.shelf import Shelf

DAY = 86_400_000


class NoBlobs(Shelf):
    """A store that has nothing and counts who asks."""

    def __init__(self) -> None:
        super().__init__(BlobNotFoundError("no such blob"))


@dataclass
class PolicyWorld:
    """An owner's world in which some workers show evidence; `told` is what `on_verdict` got."""

    world: World
    simulator: Simulator
    told: list[tuple[int, Verdict]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.measurement = self.simulator.guest.measurements().measurement
        allow = self.world.processor.allow_measurement(self.measurement)
        self.world.chain.inside.call(allow, signer=ADMIN)

    @property
    def policy(self) -> Policy:
        """What the evidence of this world meets."""
        return simulated_policy(self.simulator)

    @property
    def kept(self) -> DirectoryBlobStore:
        """The owner's folder of evidence."""
        return DirectoryBlobStore(self.world.folder / "evidence", durable=False)

    def worker(
        self,
        *,
        simulator: Simulator | None = None,
        endpoint: bytes | None = None,
        valid_for: int = DAY,
        collateral_for: int = 30 * DAY,
        damage: Callable[[bytes], bytes] = lambda data: data,
    ) -> LocalWorker:
        """Register a worker on evidence of this world's simulator, or of another."""
        shown = simulator or self.simulator

        def evidence(signing_key: PublicKey, encryption_key: bytes) -> bytes:
            return damage(self.bundle(shown, signing_key, encryption_key, collateral_for))

        made = LocalWorker(
            self.world.chain.inside,
            self.world.processor,
            signer=EcdsaSigner.generate(),
            registrar=ADMIN,
            measurement=self.measurement,
            blobs=self.world.blobs,
            evidence=evidence,
            endpoint=endpoint,
            valid_for=valid_for,
        )
        self.world.workers.append(made)
        return made

    def bundle(
        self,
        simulator: Simulator,
        signing_key: PublicKey,
        encryption_key: bytes,
        collateral_for: int = 30 * DAY,
    ) -> bytes:
        """A bundle for these keys, with collateral of now."""
        return simulated_bundle(
            simulator,
            genesis_hash=self.world.chain.inside.genesis_hash,
            contract=self.world.processor.contract,
            signing_key=signing_key,
            encryption_key=encryption_key,
            collateral=simulator.collateral(now=self.world.clock.now, valid_for=collateral_for),
        )

    def client(self, **changes: Any) -> JobClient:  # noqa: ANN401 - those of JobClient
        """An owner's client under the policy; the node is not trusted."""

        def note(worker: Worker, verdict: Verdict) -> None:
            self.told.append((worker.worker, verdict))

        settings: dict[str, Any] = {
            "trusted_node": False,
            "policy": self.policy,
            "evidence": self.kept,
            "on_verdict": note,
        }
        return self.world.client(**{**settings, **changes})

    def nothing_happened(self, client: JobClient) -> None:
        """Assert that nothing was sealed for later, sent, or made."""
        assert self.world.job_count() == 0
        assert self.world.chain.sent == 0
        assert client.unfinished() == []
        assert client.jobs(refresh=False) == []
