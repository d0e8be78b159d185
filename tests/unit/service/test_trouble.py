"""The host's own trouble: full disks, and stores and journals that fail."""

import asyncio

import pytest

from orchestrator.errors import BlobUnavailableError, DigestMismatchError, JournalError
from orchestrator.journal import JobRecord, JobState
from orchestrator.metrics import EventKind
from orchestrator.models import JobStatus
from orchestrator.service import Moment, Step
from orchestrator.testing.workers import Behaviour
from tests.unit.service.world import World, until


@pytest.mark.parametrize(
    "error",
    [BlobUnavailableError("disk full"), OSError(28, "No space left"), DigestMismatchError()],
)
async def test_result_that_can_not_be_kept_is_not_recorded(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    job_id = world.submit(world.add_worker())

    def put(_: bytes) -> bytes:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(world.blobs, "put", put)
        summary = await world.run()

    assert world.status(job_id) is JobStatus.SUBMITTED
    assert world.chain_statements() == []
    assert summary.open == 1
    assert world.heard(EventKind.BLOB_ERROR)
    await world.run()
    assert world.status(job_id) is JobStatus.PROCESSED


@pytest.mark.parametrize("method", ["write_page", "save", "remember_statement", "add_refusal"])
async def test_journal_that_can_not_be_written_stops_the_service(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    is_refusal = method == "add_refusal"
    worker = world.add_worker(Behaviour.BAD_SIGNATURE if is_refusal else Behaviour.HONEST)
    job_id = world.submit(worker)

    def full(*_: object, **__: object) -> None:
        raise JournalError("journal /x can't be used: database or disk is full")

    with world.journal() as journal:
        monkeypatch.setattr(journal, method, full)
        with pytest.raises(JournalError, match="disk is full"):
            await world.orchestrator(journal).run_once(10)

    assert world.status(job_id) is JobStatus.SUBMITTED
    world.scripted[0].behaviour = Behaviour.HONEST
    await world.run()
    assert world.status(job_id) is JobStatus.PROCESSED


async def test_closing_row_that_can_not_be_written_is_written_next_time(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = world.submit(world.add_worker())
    with world.journal() as journal:
        save = journal.save

        def full(records: list[JobRecord]) -> None:
            if any(record.state is JobState.PROCESSED for record in records):
                raise JournalError("disk is full")
            save(records)

        monkeypatch.setattr(journal, "save", full)
        with pytest.raises(JournalError):
            await world.orchestrator(journal).run_once(10)
    assert world.status(job_id) is JobStatus.PROCESSED
    assert world.record(job_id).state is JobState.DISPATCHED

    await world.run()

    assert world.record(job_id).state is JobState.PROCESSED
    assert len(world.chain_events("JobProcessed")) == 1


async def test_stopping_waits_for_what_is_on_its_way_to_the_chain(world: World) -> None:
    """Told to stop as the statement is handed to the chain: it is recorded, marked and noted."""
    job_id = world.submit(world.add_worker())
    stop = asyncio.Event()

    def fail_point(step: Step, moment: Moment) -> None:
        if step is Step.COMPLETE_JOBS and moment is Moment.BEFORE:
            stop.set()

    with world.journal() as journal:
        summary = await world.orchestrator(journal, fail_point=fail_point).run(stop)

    assert summary.open == 0
    assert world.status(job_id) is JobStatus.PROCESSED
    assert world.record(job_id).state is JobState.PROCESSED


async def test_being_cancelled_ends_everything(world: World) -> None:
    world.submit(world.add_worker(Behaviour.NEVER))
    with world.journal() as journal:
        running = asyncio.create_task(world.orchestrator(journal).run(asyncio.Event()))
        await until(lambda: bool(world.scripted[0].polls))
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running

    assert world.scripted[0].is_closed
    assert len(asyncio.all_tasks()) == 1
