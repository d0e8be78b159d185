"""Jobs that nobody can finish any more, or not as things are."""

from collections.abc import Collection

import pytest

from orchestrator.client.prospects import why_stuck
from orchestrator.errors import ChainUnavailableError, WaitTimeoutError
from orchestrator.models import JobStatus, TaskInput
from orchestrator.testing.owner_world import ADMIN, MEASUREMENT, World


def stuck(
    world: World,
    *,
    status: JobStatus = JobStatus.SUBMITTED,
    workers: tuple[int, ...] = (1, 2),
    failed: Collection[int] = (),
) -> str | None:
    return why_stuck(world.chain, world.processor, 1, status=status, workers=workers, failed=failed)


def revoke(world: World, *workers: int) -> None:
    for worker in workers:
        world.chain.inside.call(world.processor.revoke_worker(worker, bytes(32)), signer=ADMIN)


def test_a_trusted_worker_is_enough(world: World) -> None:
    revoke(world, 1)

    assert stuck(world) is None
    assert stuck(world, workers=(1,)) == "all of its workers are revoked"


def test_all_revoked(world: World) -> None:
    revoke(world, 1, 2)

    assert stuck(world) == "all of its workers are revoked"


def test_one_that_has_failed_is_no_hope(world: World) -> None:
    revoke(world, 1)

    assert stuck(world, failed={2}) == "all of its workers that have not failed are revoked"


def test_suspended_workers_are_named(world: World) -> None:
    revoke(world, 1)
    world.chain.inside.call(world.processor.suspend_worker(2), signer=ADMIN)

    assert stuck(world) == (
        "none of its workers is trusted now (worker 1 is revoked, worker 2 is suspended)"
    )


def test_expired_workers_are_named(world: World) -> None:
    row = world.chain.read(world.processor.get_worker(1))
    world.clock.advance(row.valid_until - world.clock.now + 1)

    assert stuck(world, workers=(1,)) == (
        "none of its workers is trusted now (worker 1 is expired)"
    )


def test_workers_of_a_revoked_measurement_are_named(world: World) -> None:
    world.chain.inside.call(world.processor.revoke_measurement(MEASUREMENT), signer=ADMIN)

    assert stuck(world, workers=(1,)) == (
        "none of its workers is trusted now (worker 1 is of a measurement that is allowed no more)"
    )


@pytest.mark.parametrize("status", [status for status in JobStatus if status.is_final])
def test_a_job_that_is_over_is_not_stuck(world: World, status: JobStatus) -> None:
    revoke(world, 1, 2)

    assert stuck(world, status=status) is None


def test_an_attestation_by_a_worker_that_is_revoked_since_is_stuck(
    world: World, task: TaskInput
) -> None:
    job_id = world.client().submit(task, workers=[1, 2])
    world.record(world.workers[0].execute(job_id, lambda _: b""))
    before = stuck(world, status=JobStatus.ATTESTED)

    revoke(world, 1)

    assert before is None
    assert stuck(world, status=JobStatus.ATTESTED) == (
        "its attestation can't be marked any more (WorkerRevoked)"
    )


def test_a_wait_that_times_out_says_so(world: World, task: TaskInput) -> None:
    client = world.client()
    job_id = client.submit(task, workers=[1])
    revoke(world, 1)

    with pytest.raises(WaitTimeoutError, match="all of its workers are revoked") as caught:
        client.wait(job_id, timeout_seconds=3)

    assert caught.value.stuck == "all of its workers are revoked"


def test_a_chain_that_is_away_then_leaves_it_open(world: World, task: TaskInput) -> None:
    client = world.client()
    job_id = client.submit(task, workers=[1])
    revoke(world, 1)

    def away(_value: object) -> object:
        raise ChainUnavailableError

    world.chain.answers["get_worker"] = away

    with pytest.raises(WaitTimeoutError, match="it goes on") as caught:
        client.wait(job_id, timeout_seconds=3)

    assert caught.value.stuck is None
