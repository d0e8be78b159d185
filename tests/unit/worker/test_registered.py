"""A worker and the registrar that real ones are registered by, from the first keys to the next."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.encoding import blake2_256
from orchestrator.evidence import load_bundle
from orchestrator.models import Worker
from orchestrator.quotes.simulated import SimulatedQuoteSource
from orchestrator.registrar import ChainCalls, EvidenceArchive, Registrar
from orchestrator.registrar.rotation import rotate_keys
from orchestrator.simulator import create_simulator
from orchestrator.testing import FixedClock, LocalAccount
from orchestrator.testing.evidence import simulated_policy
from orchestrator.worker import TokenScope
from orchestrator.workers import WorkerJobState
from tests.unit.worker.world import ChainWorld, chain_worker

ADMIN = LocalAccount.named("admin")
POLICY_FILE = b"# a policy file"
URL = "http://worker.invalid:9301"
DAY = 86_400_000


@dataclass
class Subject:
    """A worker on a simulated platform, which proves no TEE, and its registrar."""

    world: ChainWorld
    registrar: Registrar

    async def register(self) -> Worker:
        client = self.world.client(TokenScope.REGISTRATION)
        examined = await self.registrar.examine(client, url=URL)
        worker = (await self.registrar.admit(client, examined)).worker
        self.world.workers = (worker.worker,)  # jobs go to it from now on
        return worker


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    clock = FixedClock()
    simulator = create_simulator(tmp_path / "simulator")
    source = SimulatedQuoteSource(tmp_path / "simulator", clock=clock)
    policy = replace(simulated_policy(simulator), policy_hash=blake2_256(POLICY_FILE))
    async with chain_worker(
        tmp_path / "worker", is_registered=False, quotes=source, clock=clock
    ) as world:
        measurement = simulator.guest.measurements().measurement
        world.chain.call(world.processor.allow_measurement(measurement), signer=ADMIN)
        archive = EvidenceArchive(
            DirectoryBlobStore(tmp_path / "evidence", durable=False), tmp_path / "evidence"
        )
        registrar = Registrar(
            calls=ChainCalls(world.chain, ADMIN, on_receipt=lambda _: None),
            processor=world.processor,
            policy=policy,
            policy_file=POLICY_FILE,
            archive=archive,
            collateral=None,
            clock=clock,
        )
        yield Subject(world, registrar)


async def test_what_the_chain_names_as_evidence_is_served_by_the_worker(subject: Subject) -> None:
    worker = await subject.register()

    client = subject.world.client(None)
    bundle = load_bundle(await client.get_blob(worker.evidence_hash, max_bytes=1 << 20))
    assert bundle.signing_key == worker.signing_key
    assert bundle.encryption_key == worker.encryption_key
    assert bundle.policy_hash == blake2_256(POLICY_FILE)


async def test_jobs_run_under_both_registrations_and_both_can_be_renewed(subject: Subject) -> None:
    world = subject.world
    old = await subject.register()
    old_request = world.submit(world.sealed(b"for the old keys"))

    client = world.client(TokenScope.REGISTRATION)
    identity = await rotate_keys(subject.registrar, client, old)
    new = await subject.register()
    new_request = world.submit(world.sealed(b"for the new keys"))
    jobs = [await world.finish(request) for request in (old_request, new_request)]

    assert identity.signing_key == new.signing_key != old.signing_key
    assert [job.state for job in jobs] == [WorkerJobState.DONE] * 2
    signers = [job.completion and job.completion.tee_worker_pubkey for job in jobs]
    assert signers == [old.signing_key, new.signing_key]
    assert [await world.output(job) for job in jobs] == [b"for the old keys", b"for the new keys"]
    world.clock.advance(DAY)
    for worker in (old, new):
        renewed = (await subject.registrar.renew(client, worker)).worker
        assert renewed.worker == worker.worker
        assert renewed.valid_until > worker.valid_until
        data = await client.get_blob(renewed.evidence_hash, max_bytes=1 << 20)
        assert load_bundle(data).signing_key == worker.signing_key
