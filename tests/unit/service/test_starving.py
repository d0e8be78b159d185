"""Workers that are slow on purpose take nothing from the jobs of others, nor from stopping."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from orchestrator.journal import JobState, Journal
from orchestrator.metrics import EventKind
from orchestrator.models import JobId, JobStatus
from orchestrator.service import Orchestrator, OrchestratorSettings
from orchestrator.service.deletions import AT_ONCE, MOST_WAITING
from orchestrator.testing.workers import Behaviour, ScriptedWorker
from orchestrator.workers import JobKey, WorkerJob, WorkerJobState
from tests.unit.service.world import OTHER_OWNER, OWNER, QUICK, World, until

NARROW = replace(QUICK, concurrency=2, lease_seconds=60)


@asynccontextmanager
async def working(
    world: World, settings: OrchestratorSettings = NARROW
) -> AsyncIterator[tuple[Orchestrator, Journal]]:
    """An orchestrator at work while the context lasts."""
    stop = asyncio.Event()
    with world.journal() as journal:
        orchestrator = world.orchestrator(journal, settings=settings)
        running = asyncio.create_task(orchestrator.run(stop))
        try:
            yield orchestrator, journal
        finally:
            stop.set()
            await running


def hang(monkeypatch: pytest.MonkeyPatch, worker: ScriptedWorker, what: str) -> list[float]:
    """Let the worker not answer such requests; when each came."""
    asked: list[float] = []

    async def silent(*_: object, **__: object) -> None:
        asked.append(time.monotonic())
        await asyncio.sleep(3_600)

    monkeypatch.setattr(worker, what, silent)
    return asked


def keep_queued(monkeypatch: pytest.MonkeyPatch, worker: ScriptedWorker) -> None:
    """Let the worker say that its slots are taken by others."""

    async def get_job(key: JobKey, *, wait_seconds: float = 0) -> WorkerJob:
        worker.polls.append(key.job_id)
        await asyncio.sleep(wait_seconds)
        return WorkerJob(state=WorkerJobState.QUEUED)

    monkeypatch.setattr(worker, "get_job", get_job)


@pytest.mark.parametrize("hangs", ["", "identity", "put_job"])
async def test_workers_that_never_end_leave_room_for_another_owners_job(
    world: World, monkeypatch: pytest.MonkeyPatch, hangs: str
) -> None:
    slow = [world.add_worker(Behaviour.NEVER) for _ in range(3)]
    honest = world.add_worker()
    if hangs:
        for scripted in world.scripted[:3]:
            hang(monkeypatch, scripted, hangs)
    for number in range(12):
        world.submit(slow[number % 3])

    async with working(world) as (orchestrator, _):
        await until(lambda: orchestrator._jobs._backlog.at_workers >= 6)
        job_id = world.submit(honest, owner=OTHER_OWNER)
        await until(lambda: world.chain_done(job_id), seconds=3)

    assert world.status(job_id) is JobStatus.PROCESSED


async def test_owner_with_many_open_jobs_leaves_room_for_another_owners(world: World) -> None:
    """Four jobs are an owner's share of sixteen; the others of its jobs come when they are done."""
    slow, honest = world.add_worker(Behaviour.NEVER), world.add_worker()
    many = [world.submit(slow) for _ in range(20)]

    async with working(world, replace(QUICK, open_jobs=16, lease_seconds=60)) as (at_work, journal):
        job_id = world.submit(honest, owner=OTHER_OWNER)
        await until(lambda: world.chain_done(job_id), seconds=3)
        assert at_work.open_jobs == 4
        for waiting in many[4:]:
            record = world.record_of(journal, waiting)
            assert (record.state, record.code) == (JobState.DEFERRED, "OpenJobs")
        world.scripted[0].make_honest()
        await until(lambda: all(world.chain_done(one) for one in many), seconds=20)

    assert len(world.chain_events("JobProcessed")) == len(many) + 1
    assert at_work._jobs._by_owner == {}


async def cancel_at_slow_worker(world: World, count: int) -> list[JobId]:
    """Have jobs that are at the first worker cancelled."""
    scripted = world.scripted[0]
    jobs = [world.submit(1) for _ in range(count)]
    await until(lambda: set(jobs) <= set(scripted.polls))
    for job_id in jobs:
        world.chain.call(world.processor.cancel_job(job_id), signer=OWNER)
    return jobs


async def test_worker_that_hangs_on_deleting_holds_up_neither_jobs_nor_the_stop(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add_worker(Behaviour.NEVER)
    honest = world.add_worker()
    with monkeypatch.context() as patch:
        asked = hang(patch, world.scripted[0], "delete_job")
        async with working(world, replace(NARROW, answer_seconds=30, shutdown_seconds=30)):
            jobs = await cancel_at_slow_worker(world, 3)
            await until(lambda: len(asked) == len(jobs))
            job_id = world.submit(honest, owner=OTHER_OWNER)
            await until(lambda: world.chain_done(job_id), seconds=3)
            stopped_at = time.monotonic()
        assert time.monotonic() - stopped_at < 3

    # The next run tells the worker again: nothing was written down about the cancelled jobs.
    assert all(world.record(job_id).state is JobState.DISPATCHED for job_id in jobs)
    await world.run()
    assert sorted(world.scripted[0].deleted) == jobs
    assert all(world.record(job_id).state is JobState.CANCELLED for job_id in jobs)


async def test_worker_that_hangs_on_deleting_keeps_no_job_open_for_long(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.add_worker(Behaviour.NEVER)
    asked = hang(monkeypatch, world.scripted[0], "delete_job")
    settings = replace(NARROW, concurrency=8, answer_seconds=0.3, long_poll_seconds=0.05)
    monkeypatch.setattr("orchestrator.service.execution.QUEUED_PER_SLOT", 8)

    async with working(world, settings) as (orchestrator, _):
        jobs = await cancel_at_slow_worker(world, 2 * AT_ONCE)
        await until(lambda: orchestrator.open_jobs == 0, seconds=3)

    assert len(asked) >= AT_ONCE
    assert all(world.record(job_id).state is JobState.CANCELLED for job_id in jobs)
    told = [event for event in world.heard(EventKind.WORKER_ERROR) if "delete" in event.detail]
    assert {event.job_id for event in told} == set(jobs)


LEASED = replace(QUICK, lease_seconds=0.3, long_poll_seconds=0.1)


async def test_job_that_a_worker_only_queued_is_dropped_there_when_the_next_is_asked(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.add_worker(), world.add_worker(Behaviour.NEVER)
    keep_queued(monkeypatch, world.scripted[0])
    job_id = world.submit(first, second)

    async with working(world, LEASED) as (_, journal):
        await until(lambda: bool(world.scripted[0].deleted))
        await until(lambda: bool(world.scripted[1].puts))
        assert {refusal.code for refusal in journal.refusals(job_id)} == {"LeaseTimeout"}

    assert world.scripted[0].deleted[0] == job_id
    assert world.scripted[1].deleted == []  # it runs there: its outcome may still come


async def test_job_of_one_worker_is_not_dropped_there(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = world.add_worker()
    keep_queued(monkeypatch, world.scripted[0])
    world.submit(worker)

    async with working(world, LEASED):
        await until(lambda: len(world.scripted[0].puts) >= 2)

    assert world.scripted[0].deleted == []


async def test_job_done_elsewhere_is_dropped_by_the_worker_whose_lease_has_ended(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = world.submit(world.add_worker(Behaviour.NEVER), world.add_worker())

    await world.run(settings=LEASED)

    assert world.status(job_id) is JobStatus.PROCESSED
    assert world.scripted[1].deleted == []  # the worker keeps its copy of the result
    assert world.scripted[0].deleted == [job_id]


async def test_job_is_not_handed_over_while_the_worker_is_told_to_drop_it(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two workers that have it queued for ever: each is told before it is given it again."""
    workers = [world.add_worker(), world.add_worker()]
    told: dict[int, list[str]] = {}
    for number, scripted in enumerate(world.scripted):
        keep_queued(monkeypatch, scripted)
        record_order(monkeypatch, scripted, told.setdefault(number, []))
    world.submit(*workers)

    async with working(world, replace(LEASED, answer_seconds=30)):
        await until(lambda: told[0].count("put") >= 2)

    assert told[0][:4] == ["put", "delete begins", "delete ends", "put"]


def record_order(
    monkeypatch: pytest.MonkeyPatch, scripted: ScriptedWorker, told: list[str]
) -> None:
    """Note what the worker is told; deleting takes longer than a round over all workers."""
    put, delete = scripted.put_job, scripted.delete_job

    async def put_job(request: object) -> bool:
        told.append("put")
        return await put(request)  # type: ignore[arg-type]  # as it came

    async def delete_job(key: JobKey) -> None:
        told.append("delete begins")
        await asyncio.sleep(1)
        await delete(key)
        told.append("delete ends")

    monkeypatch.setattr(scripted, "put_job", put_job)
    monkeypatch.setattr(scripted, "delete_job", delete_job)


async def test_no_more_is_begun_at_a_worker_than_there_is_room_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = world.submit(world.add_worker())
    await world.run()
    asked = hang(monkeypatch, world.scripted[0], "delete_job")
    with world.journal() as journal:
        orchestrator = world.orchestrator(journal)
        deletions, record = orchestrator._deletions, world.record_of(journal, job_id)
        for number in range(MOST_WAITING + 5):
            deletions.begin(replace(record, job_id=number + 1), world.worker(1))
        await until(lambda: len(asked) >= AT_ONCE)

        assert len(deletions._tasks) == MOST_WAITING
        assert len(asked) == AT_ONCE
        await deletions.close()
        assert deletions.is_idle
        deletions.begin(record, world.worker(1))
        assert deletions.is_idle
        assert not await deletions.finish(replace(record, dispatched=(1,)))
