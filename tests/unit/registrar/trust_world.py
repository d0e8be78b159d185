"""Workers with simulated evidence on an embedded chain, a registrar's rules, and a clock."""

import secrets
from collections.abc import Sequence
from pathlib import Path

from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.crypto import EcdsaSigner
from orchestrator.encoding import blake2_256, registration_digest
from orchestrator.errors import CollateralUnavailableError
from orchestrator.evidence import (
    MAX_BUNDLE_BYTES,
    Collateral,
    ExpectedBinding,
    IssuedChallenge,
    KeyStanding,
    Policy,
    verify_evidence,
)
from orchestrator.models import Worker, WorkerRegistration
from orchestrator.registrar.forecast import TrustForecast
from orchestrator.registrar.trust_watch import TrustWatch
from orchestrator.simulator import Simulator
from orchestrator.testing.chain import FixedClock, LocalAccount, deploy_processor
from orchestrator.testing.evidence import evidence_maker, simulated_bundle, simulated_policy
from orchestrator.testing.local_worker import LocalWorker

HOUR = 3_600_000
DAY = 24 * HOUR
ADMIN = LocalAccount.named("admin")


class SimulatedSource:
    """What a PCCS of the world's simulator says, issued anew each day; or nothing, when away."""

    def __init__(self, world: "TrustWorld", *, early: bool = False) -> None:
        self._world = world
        self._early = early
        self._made: dict[tuple[int, int], Collateral] = {}
        self.is_away = False

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        assert quote
        if self.is_away:
            raise CollateralUnavailableError("the source is away")
        day = now // DAY * DAY
        simulator = self._world.simulator
        key = (day, simulator.release_at(now, early=self._early).evaluation_number)
        if key not in self._made:
            self._made[key] = simulator.collateral(now=now, early=self._early)
        return self._made[key]

    def close(self) -> None:
        """Nothing is open."""


class TrustWorld:
    """A chain with the contract, a simulator, a policy that it meets, and workers."""

    def __init__(self, folder: Path) -> None:
        self.clock = FixedClock()
        self.simulator = Simulator.create()
        self.policy: Policy = simulated_policy(self.simulator)
        self.measurement = self.simulator.guest.measurements().measurement
        self.chain = EmbeddedChain(":memory:", clock=self.clock)
        self.processor = deploy_processor(self.chain, admin=ADMIN, measurement=self.measurement)
        self.blobs = DirectoryBlobStore(folder / "evidence", durable=False)
        self.source = SimulatedSource(self)
        self.early = SimulatedSource(self, early=True)
        self.local: list[LocalWorker] = []

    def add_worker(self, *, valid_for: int = 7 * DAY, collateral: Collateral | None = None) -> int:
        """Register a worker on simulated evidence."""
        number = len(self.local) + 1
        made = evidence_maker(
            self.simulator,
            genesis_hash=self.chain.genesis_hash,
            contract=self.processor.contract,
            collateral=collateral or self.source.collateral(b"q", now=self.clock()),
        )
        worker = LocalWorker(
            self.chain,
            self.processor,
            signer=EcdsaSigner.from_bytes(bytes([number]) * 32),
            registrar=ADMIN,
            measurement=self.measurement,
            blobs=self.blobs,
            evidence=made,
            valid_for=valid_for,
        )
        self.local.append(worker)
        return worker.worker

    def workers(self) -> Sequence[Worker]:
        """All workers of the contract."""
        return self.chain.read(self.processor.workers_page(1, 50)).items

    def worker(self, number: int) -> Worker:
        """One of them."""
        found = self.chain.read(self.processor.get_worker(number))
        assert found is not None
        return found

    def evidence(self, worker: Worker) -> bytes:
        """The bundle that it was registered or renewed on."""
        return self.blobs.get(worker.evidence_hash, max_bytes=MAX_BUNDLE_BYTES)

    def watch(self, *, with_early: bool = False, with_source: bool = True) -> TrustWatch:
        """What looks at all of them."""
        return TrustWatch(
            policy=self.policy,
            genesis_hash=self.chain.genesis_hash,
            contract=self.processor.contract,
            evidence=self.evidence,
            collateral=self.source if with_source else None,
            early=self.early if with_early else None,
            is_measurement_allowed=lambda measurement: self.chain.read(
                self.processor.has_measurement(measurement)
            ),
        )

    def look(self, *, window: int = 48 * HOUR, with_early: bool = False) -> TrustForecast:
        """Look once, now."""
        watch = self.watch(with_early=with_early)
        return watch.look(self.workers(), now=self.clock(), window=window)

    def renew(self, local: LocalWorker) -> None:
        """
        Renew on new evidence: challenge, quote, the verifier, the contract.

        Raises: what the verifier and the contract raise.
        """
        now, worker = self.clock(), self.worker(local.worker)
        challenge = secrets.token_bytes(32)
        data = simulated_bundle(
            self.simulator,
            genesis_hash=self.chain.genesis_hash,
            contract=self.processor.contract,
            signing_key=worker.signing_key,
            encryption_key=worker.encryption_key,
            challenge=challenge,
            collateral=self.source.collateral(b"q", now=now),
        )
        evidence = verify_evidence(
            data,
            policy=self.policy,
            now=now,
            expected=ExpectedBinding(
                genesis_hash=self.chain.genesis_hash,
                contract=self.processor.contract,
                signing_key=worker.signing_key,
                encryption_key=worker.encryption_key,
            ),
            challenge=IssuedChallenge(value=challenge, issued_at=now),
            standing=KeyStanding(worker=worker, renews=worker.worker, is_renewal=True),
        )
        registration = WorkerRegistration(
            signing_key=worker.signing_key,
            encryption_key=worker.encryption_key,
            measurement=worker.measurement,
            evidence_hash=blake2_256(data),
            endpoint=worker.endpoint,
            valid_until=evidence.valid_until,
        )
        digest = registration_digest(
            registration,
            genesis_hash=self.chain.genesis_hash,
            contract=self.processor.contract,
        )
        self.blobs.put(data)
        call = self.processor.renew_worker(
            worker.worker,
            registration.evidence_hash,
            registration.valid_until,
            local.signer.sign(digest),
        )
        self.chain.call(call, signer=ADMIN)

    def close(self) -> None:
        """Close the chain."""
        self.chain.close()
