"""The client for asyncio does the same, in one thread, and does not block the loop."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.client import AsyncJobClient, JobClient, RebuildProgress, Submission, WaitProgress
from orchestrator.errors import ChainUnavailableError, InputError, JobStateError, WaitTimeoutError
from orchestrator.models import JobStatus, TaskInput
from orchestrator.testing.owner_world import OWNER, SECRET, World, make_world


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[World]:
    """A world whose chain is in a file, so that the client's thread has a connection of its own."""
    world = make_world(tmp_path, path=tmp_path / "chain")
    yield world
    world.close()


def _threads() -> list[str]:
    return [t.name for t in threading.enumerate() if t.name.startswith("job-client")]


@pytest_asyncio.fixture
async def client(shared: World) -> AsyncIterator[AsyncJobClient]:
    @contextlib.contextmanager
    def opened() -> Iterator[JobClient]:
        assert threading.current_thread().name.startswith("job-client")
        chain = EmbeddedChain(shared.folder / "chain", clock=shared.clock, create=False)
        with (
            contextlib.closing(chain),
            JobClient(
                chain=chain,
                contract=shared.processor.contract,
                account=OWNER,
                secret=SECRET,
                state_dir=shared.folder / "state",
                trusted_node=True,
                blob_sources=[shared.blobs],
                clock=shared.clock,
            ) as inner,
        ):
            yield inner

    async with AsyncJobClient(opened) as client:
        yield client
    assert _threads() == []


async def test_whole_life_of_a_job(shared: World, client: AsyncJobClient, task: TaskInput) -> None:
    sealed = await client.seal(task, workers=[1])
    job_id = await client.submit(task, workers=[1])
    statuses: list[JobStatus | None] = []

    def progress(step: WaitProgress) -> None:
        assert threading.current_thread() is threading.main_thread()
        statuses.append(step.status)
        if len(statuses) == 1:
            shared.process(job_id)

    status = await client.wait(job_id, timeout_seconds=60, progress=progress)
    result = await client.result(job_id)

    assert sealed.envelope
    assert status is JobStatus.PROCESSED
    assert await client.status(job_id) is JobStatus.PROCESSED
    assert statuses == [JobStatus.SUBMITTED]
    assert result.output == b"SECRET WORDS"
    assert await client.failures(job_id) == ()
    await client.purge(job_id)
    assert [job.purged for job in await client.jobs()] == [True]


async def test_many_jobs_and_many_waits_at_once(
    shared: World, client: AsyncJobClient, task: TaskInput
) -> None:
    ids = await client.submit_many([Submission(task=task, workers=(1,))] * 20)
    waits = [
        asyncio.create_task(client.wait(job_id, timeout_seconds=60))
        for job_id in ids
        if isinstance(job_id, int)
    ]
    await asyncio.sleep(0)
    assert await client.status(1) is JobStatus.SUBMITTED, "calls go on beside the waits"

    for job_id in range(1, 21):
        shared.process(job_id)

    assert await asyncio.gather(*waits) == [JobStatus.PROCESSED] * 20


async def test_cancel_expire_resume_and_rebuild(
    shared: World, client: AsyncJobClient, task: TaskInput
) -> None:
    await client.submit(task)
    await client.cancel(1)
    await client.submit(task, ttl_ms=60_000)
    shared.clock.advance(60_001)
    await client.expire(2)
    seen: list[RebuildProgress] = []

    assert await client.resume() == []
    assert await client.unfinished() == []
    assert await client.rebuild(progress=seen.append) == 2
    await asyncio.sleep(0)
    assert [step.found for step in seen] == [2, 2]
    assert await client.rebuild() == 2


async def test_errors_come_through(shared: World, client: AsyncJobClient, task: TaskInput) -> None:
    job_id = await client.submit(task)

    with pytest.raises(WaitTimeoutError):
        await client.wait(job_id, timeout_seconds=0)
    with pytest.raises(JobStateError):
        await client.result(job_id)


async def test_not_open(task: TaskInput) -> None:
    client = AsyncJobClient(lambda: pytest.fail("opened"))

    with pytest.raises(InputError, match="not open"):
        await client.submit(task)

    await client.close()


async def test_closing_twice_and_using_afterwards(client: AsyncJobClient, task: TaskInput) -> None:
    await client.close()
    await client.close()

    with pytest.raises(InputError, match="not open"):
        await client.submit(task)
    assert _threads() == []


async def test_opening_that_fails_leaves_no_thread() -> None:
    def fail() -> contextlib.AbstractContextManager[JobClient]:
        raise ChainUnavailableError

    with pytest.raises(ChainUnavailableError):
        async with AsyncJobClient(fail):
            pytest.fail("opened")

    assert _threads() == []


async def test_abandoned_wait_does_not_hold_up_closing(
    shared: World, client: AsyncJobClient, task: TaskInput
) -> None:
    job_id = await client.submit(task)
    waiting = asyncio.create_task(client.wait(job_id, timeout_seconds=3_600))
    await client.status(job_id)

    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting

    assert await client.status(job_id) is JobStatus.SUBMITTED


async def test_cancelled_submission_is_left_behind_at_once(
    shared: World, client: AsyncJobClient, task: TaskInput
) -> None:
    """Not only when the last reference to it is gone."""
    reached = asyncio.Event()
    submitting = asyncio.create_task(
        client.submit_many([Submission(task=task)] * 20, progress=lambda _: reached.set())
    )
    await reached.wait()
    submitting.cancel()
    with pytest.raises(asyncio.CancelledError) as cancelled:
        await submitting

    assert len(await client.unfinished()) == 4
    assert await client.resume() == [17, 18, 19, 20]
    assert cancelled.traceback, "which still refers to it"


async def test_client_that_is_closed_during_a_submission(
    shared: World, client: AsyncJobClient, task: TaskInput
) -> None:
    reached = asyncio.Event()
    submitting = asyncio.create_task(
        client.submit_many([Submission(task=task)] * 60, progress=lambda _: reached.set())
    )
    await reached.wait()

    await client.close()

    # By the thread that is gone, or by the list that is closed.
    with pytest.raises((RuntimeError, InputError)):
        await submitting
    left_behind = shared.client().unfinished()
    assert len(left_behind) == 60 - shared.job_count() > 0
