"""The host's trouble is never an outcome, and never costs a job its place."""

import asyncio
import os
import re
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from orchestrator.errors import BlobUnavailableError, TaskHostError
from orchestrator.models import Outcome, PublicKey, Scheme, TaskInput
from orchestrator.testing import FixedClock
from orchestrator.worker.execution import Execution
from orchestrator.worker.heads import JobFacts
from orchestrator.worker.identity import WorkerKeys
from orchestrator.worker.meters import Meters
from orchestrator.worker.outcomes import OutcomeStore, StoredOutcome
from orchestrator.worker.refusal import RefusalError
from orchestrator.worker.running import AcceptedJob, JobRunner, _Reply
from orchestrator.workers import JobKey, RequestHead, WorkerJobState
from tests.unit.worker.world import development_worker, until

KEY = PublicKey(scheme=Scheme.ECDSA, key=b"\2" + bytes(32))


def accepted(job_id: int, *, deadline: int = 1 << 60, size: int = 10) -> AcceptedJob:
    return AcceptedJob(
        key=JobKey(genesis=bytes(32), contract=bytes(32), job_id=job_id, payload_hash=bytes(32)),
        facts=JobFacts(
            head=RequestHead(
                owner=bytes(32),
                public_key=bytes(32),
                recipients=(bytes(32),),
                created_at=0,
                deadline=deadline,
            ),
            signing_key=KEY,
            measurement=bytes(32),
            max_clock_skew=0,
        ),
        envelope=bytes(size),
    )


def stored(job: AcceptedJob) -> StoredOutcome:
    return StoredOutcome(
        key=job.key,
        outcome=Outcome.COMPLETED,
        result_hash=bytes(32),
        result_length=1,
        units=1,
        measurement=bytes(32),
        started_at=0,
        finished_at=0,
        deadline=0,
        signing_key=KEY,
    )


@dataclass
class Runner:
    """Runs jobs as told: holds them while `hold` is clear, and raises what is in `errors`."""

    errors: list[Exception] = field(default_factory=list)
    started: list[int] = field(default_factory=list)
    hold: threading.Event = field(default_factory=threading.Event)

    def __call__(self, job: AcceptedJob) -> StoredOutcome:
        self.started.append(job.key.job_id)
        while not self.hold.wait(0.01):
            if job.stopped.is_set():
                raise TaskHostError("stopped")
        if self.errors:
            raise self.errors.pop(0)
        return stored(job)


Make = Callable[[Runner], Execution]


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setattr("orchestrator.worker.execution._FIRST_PAUSE_SECONDS", 0.01)
    made: list[Execution] = []

    def build(runner: Runner) -> Execution:
        made.append(
            Execution(
                runner,
                slots=1,
                queue=3,
                queue_bytes=1_000,
                clock=FixedClock(1_000),
                meters=Meters(version="0"),
            )
        )
        return made[-1]

    yield build
    for execution in made:
        await execution.close()


def free(errors: list[Exception] | None = None) -> Runner:
    runner = Runner(errors or [])
    runner.hold.set()
    return runner


async def test_jobs_run_in_order_of_arrival(make: Make) -> None:
    runner = Runner()
    execution = make(runner)
    jobs = [accepted(number) for number in (3, 1, 2)]
    for job in jobs:
        assert execution.accept(job)
    assert not execution.accept(jobs[0])
    assert (execution.running, execution.waiting) == (1, 2)

    runner.hold.set()
    await execution.wait(jobs[2].key, 10)

    assert runner.started == [3, 1, 2]
    assert execution.find(jobs[2].key) is None
    assert (execution.running, execution.waiting) == (0, 0)


async def test_each_job_leaves_one_line_in_the_log(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "orchestrator")
    execution = make(free())
    job = accepted(7)

    execution.accept(job)
    await execution.wait(job.key, 10)

    assert len(caplog.messages) == 1
    assert re.fullmatch(r"job 7: completed in \d+ ms", caplog.messages[0])


@pytest.mark.parametrize(
    "error",
    [TaskHostError("out of forks"), BlobUnavailableError("disk full"), KeyError("a mistake")],
    ids=["task_host", "disk", "mistake"],
)
async def test_after_the_hosts_trouble_a_job_runs_again(
    make: Make, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    runner = free([error, error])
    execution = make(runner)
    job = accepted(1)

    execution.accept(job)
    await execution.wait(job.key, 10)

    assert runner.started == [1, 1, 1]
    assert execution.find(job.key) is None
    assert "goes back to the queue" in caplog.text
    assert "a mistake" not in caplog.text.replace("a mistake of the worker", "")


async def test_a_job_that_waits_for_the_host_lets_others_pass(make: Make) -> None:
    runner = free([TaskHostError("trouble")])
    execution = make(runner)
    for number in (1, 2):
        execution.accept(accepted(number))

    await execution.wait(accepted(1).key, 10)

    assert runner.started == [1, 2, 1]


async def test_a_job_dropped_while_it_waits_for_the_host_never_runs_again(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.worker.execution._FIRST_PAUSE_SECONDS", 0.05)
    runner = free([TaskHostError("trouble")])
    execution = make(runner)
    job = accepted(1)
    execution.accept(job)
    await until(lambda: execution.find(job.key) == (job, WorkerJobState.QUEUED))

    execution.drop(job.key)
    assert execution.find(job.key) is None
    await asyncio.sleep(0.1)

    assert runner.started == [1]


async def test_a_job_whose_deadline_passes_while_it_waits_is_forgotten(make: Make) -> None:
    runner = Runner()
    execution = make(runner)
    execution.accept(accepted(1))
    late = accepted(2, deadline=999)
    execution.accept(late)

    runner.hold.set()
    await execution.wait(late.key, 10)

    assert runner.started == [1]
    assert execution.find(late.key) is None


async def test_dropping_a_waiting_job_frees_its_place(make: Make) -> None:
    runner = Runner()
    execution = make(runner)
    for number in range(4):
        execution.accept(accepted(number))
    with pytest.raises(RefusalError, match="3 jobs"):
        execution.accept(accepted(9))

    execution.drop(accepted(2).key)

    assert execution.accept(accepted(9))
    execution.drop(accepted(77).key)


async def test_the_queues_bytes_are_counted_and_given_back(make: Make) -> None:
    runner = Runner()
    execution = make(runner)
    execution.accept(accepted(1, size=900))
    with pytest.raises(RefusalError, match="1000 bytes"):
        execution.accept(accepted(2, size=101))
    assert execution.accept(accepted(3, size=100))

    runner.hold.set()
    await execution.wait(accepted(3).key, 10)

    # One job may be larger than the whole queue, or it could never be executed.
    assert execution.accept(accepted(4, size=5_000))


async def test_closing_stops_what_runs_and_accepts_nothing(make: Make) -> None:
    runner = Runner()
    execution = make(runner)
    jobs = [accepted(number) for number in (1, 2)]
    for job in jobs:
        execution.accept(job)

    await execution.close()

    assert runner.started == [1]
    with pytest.raises(RefusalError, match="shutting down"):
        execution.accept(accepted(3))
    await execution.wait(jobs[1].key, 60)


async def test_waiting_for_an_unknown_job_ends_at_once(make: Make) -> None:
    await make(free()).wait(accepted(1).key, 60)


async def test_a_full_disk_is_never_signed_and_the_job_is_done_once_there_is_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add, calls = OutcomeStore.add, []

    def fail_twice(store: OutcomeStore, outcome: StoredOutcome, envelope: bytes) -> StoredOutcome:
        calls.append(outcome)
        if len(calls) < 3:
            raise BlobUnavailableError("database or disk is full")
        return add(store, outcome, envelope)

    monkeypatch.setattr(OutcomeStore, "add", fail_twice)
    monkeypatch.setattr("orchestrator.worker.execution._FIRST_PAUSE_SECONDS", 0.01)
    async with development_worker(tmp_path) as world:
        job = await world.finish(world.request(world.seal(b"hello")))

        assert job.state is WorkerJobState.DONE
        assert len(calls) == 3
        assert job.completion is not None
        assert job.completion.result_hash == calls[2].result_hash


async def test_a_killed_forking_process_costs_no_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.worker.execution._FIRST_PAUSE_SECONDS", 0.01)
    async with development_worker(tmp_path) as world:
        (pid,) = world.server._sandbox.pids
        os.kill(pid, 9)

        job = await world.finish(world.request(world.seal(b"hello")))

        assert await world.output(job) == b"hello"


async def test_a_clock_that_jumps_back_while_the_job_waits_starts_nothing(tmp_path: Path) -> None:
    clock = FixedClock()
    async with development_worker(tmp_path, clock=clock, developer_hold_seconds=600.0) as world:
        running, waiting = (world.request(world.seal(b"x")) for _ in range(2))
        for request in (running, waiting):
            await world.client().put_job(request)
        clock.advance(-60_001)

        await world.client().delete_job(running.key)
        await until(lambda: "put_back_total 1.0" in _metrics(world.server.app))

        assert (await world.client().get_job(waiting.key)).state is WorkerJobState.QUEUED


async def test_a_clock_that_jumps_ahead_while_the_job_runs_gives_it_no_times(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.worker.execution._FIRST_PAUSE_SECONDS", 0.01)
    clock, execute = FixedClock(), JobRunner._execute
    started: list[int] = []

    def execute_and_jump(runner: JobRunner, job: AcceptedJob, keys: WorkerKeys) -> object:
        started.append(clock())
        if len(started) == 1:
            clock.advance(120_000)
        return execute(runner, job, keys)

    monkeypatch.setattr(JobRunner, "_execute", execute_and_jump)
    async with development_worker(tmp_path, clock=clock) as world:
        job = await world.finish(world.request(world.seal(b"x")))

        assert job.completion is not None
        proof = job.completion.attestation_proof
        assert [proof.started_at, proof.finished_at] == [started[0] + 120_000] * 2
        assert "put_back_total 1.0" in _metrics(world.server.app)


def _metrics(app: object) -> str:
    handlers = app._app  # type: ignore[attr-defined]  # the application inside the rate limit
    for route in handlers.routes:
        if route.path == "/metrics":
            meters: Meters = route.endpoint.__self__.meters
            return meters.text(running=0, waiting=0).decode()
    raise AssertionError


def test_a_job_stopped_before_its_task_starts_is_stopped_all_the_same() -> None:
    """The stop may come between the start of the process and its being known."""

    class Task:
        cpu_ms = 0
        is_stopped = False

        def stop(self) -> None:
            self.is_stopped = True

        def wait(self) -> object:
            raise TaskHostError("stopped" if self.is_stopped else "not stopped")

    class Sandbox:
        tasks: dict[str, object] = {}  # noqa: RUF012 - a stand-in

        def start(self, name: str, plaintext: bytes) -> Task:
            del name, plaintext
            return Task()

    runner = JobRunner(keys=None, sandbox=Sandbox(), clock=FixedClock())  # type: ignore[arg-type]  # stand-ins
    job = accepted(1)
    job.stop()

    with pytest.raises(TaskHostError, match=r"^stopped"):
        runner._run_task(job, TaskInput(task="t", input=b""), b"", _Reply(key=b"", nonce=b""))


def test_a_job_shows_no_bytes() -> None:
    job = replace(accepted(7), envelope=b"sealed")

    assert repr(job) == "AcceptedJob(job_id=7, envelope=<6 bytes>)"
