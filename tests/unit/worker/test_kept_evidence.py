"""Which evidence bundles a worker with a chain keeps: the one in force is never pushed off."""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.crypto import EcdsaSigner
from orchestrator.encoding import blake2_256, registration_digest
from orchestrator.errors import WorkerUnavailableError
from orchestrator.evidence import EvidenceBundle, dump_bundle
from orchestrator.models import WorkerRegistration
from orchestrator.testing import LocalAccount, register_test_worker
from orchestrator.worker import TokenScope
from orchestrator.worker.identity import MAX_PAIRS, WorkerKeys
from orchestrator.worker.outcomes import HELD_MS, NEWCOMERS_PER_KEY, WorkerBlobs
from tests.unit.worker.test_heads import FlakyChain
from tests.unit.worker.world import MEASUREMENT, ChainWorld, chain_worker

ADMIN = LocalAccount.named("admin")
DAY = 86_400_000


@dataclass
class Subject:
    """A worker, whoever has a token for registering it, and the chain's registrar."""

    world: ChainWorld
    chain: FlakyChain
    bundles: int = 0

    @property
    def blobs(self) -> WorkerBlobs:
        return self.world.server._blobs

    def bundle(self, pair: WorkerKeys | None = None) -> bytes:
        """Return another bundle of the pair; nobody has verified it."""
        self.bundles += 1
        of = pair or self.world.pair
        return dump_bundle(
            EvidenceBundle(
                producer="test",
                genesis_hash=self.world.chain.genesis_hash,
                contract=self.world.processor.contract,
                signing_key=of.signing_key,
                encryption_key=of.encryption_key.public_key,
                challenge=self.bundles.to_bytes(32, "big"),
                quote=b"not a quote",
            )
        )

    async def put(self, data: bytes | None = None) -> bytes:
        client = self.world.client(TokenScope.REGISTRATION)
        return await client.put_evidence(self.bundle() if data is None else data)

    async def flood(self, times: int = NEWCOMERS_PER_KEY + 2) -> list[bytes]:
        """Put bundles that nobody registers, slowly enough for each to be taken."""
        put = []
        for _ in range(times):
            self.world.clock.advance(HELD_MS)
            put.append(await self.put())
        return put

    def renew(self, evidence_hash: bytes) -> None:
        world, pair = self.world, self.world.pair
        worker = world.chain.read(world.processor.worker_by_key(pair.signing_key))
        assert worker is not None
        valid_until = max(worker.valid_until + 1, world.chain.now() + DAY)
        registration = WorkerRegistration(
            signing_key=pair.signing_key,
            encryption_key=pair.encryption_key.public_key,
            measurement=MEASUREMENT,
            evidence_hash=evidence_hash,
            endpoint=b"",
            valid_until=valid_until,
        )
        digest = registration_digest(
            registration,
            genesis_hash=world.chain.genesis_hash,
            contract=world.processor.contract,
        )
        call = world.processor.renew_worker(
            worker.worker, evidence_hash, valid_until, pair.signer.sign(digest)
        )
        world.chain.call(call, signer=ADMIN)

    async def renewed(self) -> bytes:
        digest = await self.put()
        self.renew(digest)
        return digest


@pytest.fixture
async def subject(tmp_path: Path) -> AsyncIterator[Subject]:
    chains: list[FlakyChain] = []

    def wrap(chain: object) -> FlakyChain:
        chains.append(FlakyChain(chain))  # type: ignore[arg-type]  # it is the embedded one
        return chains[0]

    async with chain_worker(tmp_path, wrap=wrap) as world:
        yield Subject(world, chains[0])


async def test_what_nobody_registers_pushes_nothing_off_that_is_in_force(subject: Subject) -> None:
    before = await subject.renewed()
    in_force = await subject.renewed()

    junk = await subject.flood()

    assert subject.blobs.has(before)
    assert subject.blobs.has(in_force)
    kept = [subject.blobs.has(digest) for digest in junk]
    assert kept == [False] * (len(junk) - NEWCOMERS_PER_KEY) + [True] * NEWCOMERS_PER_KEY


async def test_one_that_was_replaced_twice_is_a_newcomer_again(subject: Subject) -> None:
    first, second, third = [await subject.renewed() for _ in range(3)]

    await subject.flood()

    assert not subject.blobs.has(first)
    assert subject.blobs.has(second)
    assert subject.blobs.has(third)


async def test_put_again_what_is_in_force_stays(subject: Subject) -> None:
    data = subject.bundle()
    in_force = await subject.put(data)
    subject.renew(in_force)
    other = await subject.renewed()
    await subject.put()
    subject.renew(in_force)  # back to the one before
    await subject.put()

    await subject.put(data)
    await subject.flood()

    assert subject.blobs.has(in_force)
    assert subject.blobs.has(other)


async def test_a_newcomer_has_time_to_get_on_the_chain(subject: Subject) -> None:
    """A registrar sends it after it was put; what comes in between must not push it off."""
    there = subject.bundle()
    in_force = await subject.put(there)
    subject.renew(in_force)
    data = subject.bundle()
    mine = await subject.put(data)
    for _ in range(NEWCOMERS_PER_KEY - 1):
        await subject.put()
    subject.world.clock.advance(HELD_MS - 1)
    refused = subject.bundle()

    with pytest.raises(WorkerUnavailableError, match="too many evidence bundles") as caught:
        await subject.put(refused)

    assert caught.value.retry_after_seconds == HELD_MS // 1_000
    assert not subject.blobs.has(blake2_256(refused))
    for again in (data, there):  # what is there takes no room
        await subject.put(again)
    subject.renew(mine)
    await subject.flood()
    assert subject.blobs.has(mine)
    assert subject.blobs.has(in_force)


async def test_a_clock_that_was_set_back_holds_nothing_for_ever(subject: Subject) -> None:
    first = [await subject.put() for _ in range(NEWCOMERS_PER_KEY)]
    subject.world.clock.advance(-10 * DAY)

    newest = await subject.put()

    assert [subject.blobs.has(digest) for digest in first] == [False] + [True] * (len(first) - 1)
    assert subject.blobs.has(newest)


async def test_when_the_chain_can_not_tell_nothing_is_put_and_nothing_goes(
    subject: Subject,
) -> None:
    there = await subject.renewed()
    data = subject.bundle()
    subject.chain.failing = "worker_by_key"

    with pytest.raises(WorkerUnavailableError, match="the chain can't be read"):
        await subject.put(data)

    assert subject.blobs.has(there)
    assert not subject.blobs.has(blake2_256(data))


async def test_evidence_goes_with_its_keys(subject: Subject) -> None:
    world = subject.world
    first = world.pair
    of_first = await subject.renewed()
    kept = []
    for _ in range(MAX_PAIRS - 1):
        await _rotate(world)
        _register(world)
        kept.append(await subject.put())
    world.chain.call(world.processor.revoke_worker(world.workers[0], b"r" * 32), signer=ADMIN)
    assert subject.blobs.has(of_first)

    await _rotate(world)

    assert world.server._enrolment._keys.find(first.signing_key) is None
    assert not subject.blobs.has(of_first)
    assert all(subject.blobs.has(digest) for digest in kept)


async def test_evidence_that_outlived_its_keys_goes_later(subject: Subject) -> None:
    """The process may have ended between one and the other."""
    kept = await subject.put()
    nobody = EcdsaSigner.generate().public_key
    of_nobody = subject.blobs.put_evidence(b"left over", nobody)

    subject.world.server.prune()

    assert subject.blobs.has(kept)
    assert not subject.blobs.has(of_nobody)


async def _rotate(world: ChainWorld) -> None:
    await world.client(TokenScope.REGISTRATION).rotate(
        genesis=world.chain.genesis_hash, contract=world.processor.contract
    )


def _register(world: ChainWorld) -> None:
    register_test_worker(
        world.chain,
        world.processor,
        world.pair.signer,
        registrar=ADMIN,
        measurement=MEASUREMENT,
        encryption_key=world.encryption_key,
    )
