"""What a worker shows is evidence to the verifier that judges real workers, and to nobody else."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.attestation import CheckOutcome
from orchestrator.errors import EncodingError
from orchestrator.evidence import (
    EvidenceCheck,
    EvidenceError,
    ExpectedBinding,
    IssuedChallenge,
    KeyStanding,
    VerifiedEvidence,
    dump_bundle,
    load_bundle,
    verify_evidence,
)
from orchestrator.quotes.dstack import DstackQuoteSource
from orchestrator.quotes.simulated import SimulatedQuoteSource
from orchestrator.simulator import Simulator, create_simulator
from orchestrator.testing import FixedClock
from orchestrator.testing.evidence import simulated_policy
from orchestrator.worker import TokenScope
from tests.unit.quotes.guest_agent import GuestAgent
from tests.unit.worker.world import CONTRACT, GENESIS, World, development_worker

CHALLENGE = b"h" * 32


@dataclass
class Subject:
    """A worker on a simulated platform, and a registrar that knows the platform's root."""

    world: World
    simulator: Simulator

    async def evidence(
        self, *, genesis: bytes = GENESIS, contract: bytes = CONTRACT, challenge: bytes = CHALLENGE
    ) -> bytes:
        """Return what the worker shows, with collateral where it has none."""
        client = self.world.client(None)
        bundle = load_bundle(
            await client.evidence(genesis=genesis, contract=contract, challenge=challenge)
        )
        if bundle.collateral is None:
            collateral = self.simulator.collateral(now=self.world.clock())
            bundle = replace(bundle, collateral=collateral)
        return dump_bundle(bundle)

    async def verify(self, data: bytes) -> VerifiedEvidence:
        identity = await self.world.client(None).identity()
        now = self.world.clock()
        return verify_evidence(
            data,
            policy=simulated_policy(self.simulator),
            now=now,
            expected=ExpectedBinding(
                genesis_hash=GENESIS,
                contract=CONTRACT,
                signing_key=identity.signing_key,
                encryption_key=identity.encryption_key,
            ),
            challenge=IssuedChallenge(value=CHALLENGE, issued_at=now),
            standing=KeyStanding(worker=None, renews=None),
        )


@pytest.fixture(params=["dstack", "simulated"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    clock = FixedClock()
    if request.param == "dstack":
        agent = GuestAgent(Simulator.create())
        async with (
            agent.serve() as socket,
            development_worker(tmp_path, clock=clock, quotes=DstackQuoteSource(socket)) as world,
        ):
            yield Subject(world, agent.simulator)
        return
    simulator = create_simulator(tmp_path / "simulator")
    source = SimulatedQuoteSource(tmp_path / "simulator", clock=clock)
    async with development_worker(tmp_path / "worker", clock=clock, quotes=source) as world:
        yield Subject(world, simulator)


async def test_it_verifies(subject: Subject) -> None:
    evidence = await subject.verify(await subject.evidence())

    assert evidence.is_simulated


async def test_it_verifies_for_the_new_keys_after_a_rotation(subject: Subject) -> None:
    before = await subject.evidence()
    await subject.world.client(TokenScope.REGISTRATION).rotate(genesis=GENESIS, contract=CONTRACT)

    await subject.verify(await subject.evidence())
    with pytest.raises(EvidenceError) as caught:
        await subject.verify(before)

    assert _failed(caught.value) == [EvidenceCheck.REPORT_DATA]


@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("genesis", EvidenceCheck.REPORT_DATA),
        ("contract", EvidenceCheck.REPORT_DATA),
        ("challenge", EvidenceCheck.CHALLENGE),
    ],
)
async def test_it_is_for_what_was_asked_alone(
    subject: Subject, name: str, check: EvidenceCheck
) -> None:
    data = await subject.evidence(**{name: b"x" * 32})

    with pytest.raises(EvidenceError) as caught:
        await subject.verify(data)

    assert _failed(caught.value) == [check]


async def test_what_is_no_bundle_is_not_evidence(subject: Subject) -> None:
    with pytest.raises(EncodingError):
        load_bundle((await subject.evidence())[:-1])


def _failed(error: EvidenceError) -> list[EvidenceCheck]:
    failed = (found for found in error.verdict.findings if found.outcome is CheckOutcome.FAILED)
    return [finding.check for finding in failed]
