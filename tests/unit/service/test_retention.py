"""Stored results and the journal's rows about closed jobs go when the settings say so."""

from dataclasses import replace

import pytest

from orchestrator.errors import BlobUnavailableError
from orchestrator.metrics import EventKind
from orchestrator.service.admission import DAY
from tests.unit.service.world import QUICK, World


def result_hash(world: World, job_id: int) -> bytes:
    attestation = world.chain.read(world.processor.get_attestation(job_id))
    assert attestation is not None
    return attestation.result_hash


async def test_results_are_deleted_after_their_days_and_not_before(world: World) -> None:
    old = world.submit(world.add_worker())
    await world.run()
    world.advance_time(2 * DAY)
    young = world.submit(world.add_worker())
    settings = replace(QUICK, keep_results_days=3, keep_days=1)
    await world.run(settings=settings)
    assert world.blobs.has(result_hash(world, old))

    world.advance_time(DAY + 60_000)
    await world.run(settings=settings)

    assert not world.blobs.has(result_hash(world, old))
    assert world.blobs.has(result_hash(world, young))
    with world.journal() as journal:
        # What names the results is kept as long as they are.
        assert [record.job_id for record in journal.records([old, young])] == [young]


async def test_results_are_kept_for_ever_when_nothing_is_said(world: World) -> None:
    job_id = world.submit(world.add_worker())
    await world.run()
    world.advance_time(89 * DAY)

    await world.run()
    assert world.record(job_id).job_id == job_id
    world.advance_time(900 * DAY)
    await world.run()

    assert world.blobs.has(result_hash(world, job_id))


async def test_result_that_can_not_be_deleted_is_deleted_another_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = world.submit(world.add_worker())
    await world.run()
    world.advance_time(2 * DAY)
    settings = replace(QUICK, keep_results_days=1)

    def delete(_: bytes) -> None:
        raise BlobUnavailableError("read-only")

    with monkeypatch.context() as patch:
        patch.setattr(world.blobs, "delete", delete)
        await world.run(settings=settings)
    assert world.blobs.has(result_hash(world, job_id))
    assert [event.detail for event in world.heard(EventKind.BLOB_ERROR)] == ["delete: read-only"]

    await world.run(settings=settings)
    assert not world.blobs.has(result_hash(world, job_id))
