"""A worker that changes its keys goes on serving the jobs that are sealed to the old ones."""

from orchestrator.models import JobStatus, WorkerId
from orchestrator.testing import register_test_worker
from tests.unit.service.world import ADMIN, MEASUREMENT, World


async def rotate(world: World) -> WorkerId:
    """Give the only worker new keys, and register them."""
    (scripted,) = world.scripted
    await scripted.rotate(genesis=world.chain.genesis_hash, contract=world.processor.contract)
    worker = register_test_worker(
        world.chain,
        world.processor,
        scripted.signer,
        registrar=ADMIN,
        measurement=MEASUREMENT,
        encryption_key=scripted.encryption_key.public_key,
    )
    world.workers[worker] = scripted
    return worker


async def test_a_job_for_the_old_keys_is_processed(world: World) -> None:
    old = world.add_worker()
    job_id = world.submit(old)
    new = await rotate(world)
    new_job = world.submit(new)

    await world.run()

    assert [world.status(job) for job in (job_id, new_job)] == [JobStatus.PROCESSED] * 2
    assert _signed_by(world, job_id) == old
    assert _signed_by(world, new_job) == new


async def test_a_statement_by_another_of_the_jobs_workers_is_taken(world: World) -> None:
    """Both are one process: which of its keys signs is its own choice, and it chooses once."""
    old = world.add_worker()
    new = await rotate(world)
    job_id = world.submit(new, old)

    await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED
    assert world.scripted[0].puts == [job_id]
    assert _signed_by(world, job_id) == old  # the new one was asked


async def test_a_worker_that_lost_its_old_keys_gets_no_job_for_them(world: World) -> None:
    job_id = world.submit(world.add_worker())
    await rotate(world)
    world.scripted[0]._retired.clear()

    await world.run()

    assert world.status(job_id) is JobStatus.SUBMITTED
    assert world.scripted[0].puts == []
    assert world.chain_statements() == []


def _signed_by(world: World, job_id: int) -> WorkerId:
    attestation = world.chain.read(world.processor.get_attestation(job_id))
    assert attestation is not None
    return attestation.worker
