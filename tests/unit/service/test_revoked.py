"""What a worker attested before it was revoked: told, not marked, and the owner's to cancel."""

from collections.abc import Callable

import pytest

from orchestrator.journal import JobState
from orchestrator.metrics import EventKind
from orchestrator.models import JobStatus, Outcome, Worker
from tests.unit.service.chains import CountingChain
from tests.unit.service.test_chain_first import STRANGER, attest
from tests.unit.service.world import ADMIN, MEASUREMENT, OWNER, World

Revoke = Callable[[World, Worker], None]


def revoke_worker(world: World, worker: Worker) -> None:
    call = world.processor.revoke_worker(worker.worker, b"r" * 32)
    world.chain.call(call, signer=ADMIN)


def revoke_measurement(world: World, worker: Worker) -> None:
    world.chain.call(world.processor.revoke_measurement(worker.measurement), signer=ADMIN)


@pytest.mark.parametrize(
    ("revoke", "why"),
    [(revoke_worker, "WorkerRevoked"), (revoke_measurement, "MeasurementRevoked")],
)
async def test_what_was_attested_before_is_told_and_never_sent(
    world: World, revoke: Revoke, why: str
) -> None:
    number = world.add_worker()
    job_id = world.submit(number)
    world.chain.call(
        world.processor.record_attestation(await attest(world, job_id)), signer=STRANGER
    )
    revoke(world, world.worker(number))
    chain = CountingChain(world.served)
    world.wrapped = chain

    summary = await world.run()

    assert world.status(job_id) is JobStatus.ATTESTED
    assert chain.sent == []
    assert summary.open == 1
    refused = world.heard(EventKind.ATTESTATION_REFUSED)
    assert {(event.code, event.job_id) for event in refused} == {("AttestationNotValid", job_id)}
    with world.journal() as journal:
        (detail,) = {refusal.detail for refusal in journal.refusals(job_id)}
    assert f"{why}: it can't be marked any more, and its owner can cancel it" in detail


async def test_its_owner_cancels_it_and_it_is_closed(world: World) -> None:
    number = world.add_worker()
    job_id = world.submit(number)
    world.chain.call(
        world.processor.record_attestation(await attest(world, job_id)), signer=STRANGER
    )
    revoke_worker(world, world.worker(number))
    await world.run()

    world.chain.call(world.processor.cancel_job(job_id), signer=OWNER)
    summary = await world.run()

    assert world.status(job_id) is JobStatus.CANCELLED
    assert world.record(job_id).state is JobState.CANCELLED
    assert summary.open == 0


async def test_the_next_worker_gets_what_the_revoked_one_had_not_attested(world: World) -> None:
    revoked, other = world.add_worker(), world.add_worker()
    job_id = world.submit(revoked, other)
    revoke_worker(world, world.worker(revoked))

    await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED
    assert world.scripted[0].puts == []
    recorded = world.chain.read(world.processor.get_attestation(job_id))
    assert recorded is not None
    assert recorded.worker == other
    assert recorded.attestation_proof.outcome is Outcome.COMPLETED
    assert world.worker(other).measurement == MEASUREMENT
