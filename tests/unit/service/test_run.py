"""Jobs that go well, and jobs that go wrong at one worker."""

import pytest

from orchestrator.journal import JobState
from orchestrator.metrics import EventKind
from orchestrator.models import JobStatus
from tests.unit.service.conftest import World


async def test_job_is_executed_recorded_marked_and_its_result_kept(world: World) -> None:
    worker = world.add_worker()
    job_id = world.submit(worker)

    summary = await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED
    assert summary.counts[EventKind.PROCESSED] == 1
    assert summary.open == 0
    assert world.record(job_id).state is JobState.PROCESSED
    (event,) = world.chain_events("JobProcessed")
    assert world.blobs.has(event.fields["result_hash"])
