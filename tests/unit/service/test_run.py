"""Jobs that go well, and jobs that go wrong at a worker."""

import asyncio
from dataclasses import replace

import pytest

from orchestrator.errors import ConfigError, WorkerRefusedError
from orchestrator.journal import JobState
from orchestrator.metrics import EventKind
from orchestrator.models import Completion, Job, JobStatus, Outcome, Role, Worker, WorkerStatus
from orchestrator.service.settlement import Settlement
from orchestrator.testing import LocalAccount
from orchestrator.testing.workers import Behaviour
from orchestrator.workers import JobRequest, WorkerClient
from orchestrator.workers.http import HttpWorkerClient
from tests.unit.service.world import ADMIN, OPERATOR, OWNER, QUICK, World, until


async def test_job_is_executed_recorded_marked_and_its_result_kept(world: World) -> None:
    worker = world.add_worker()
    job_id = world.submit(worker)

    summary = await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED
    assert summary.counts[EventKind.PROCESSED] == 1
    assert summary.open == 0
    assert world.record(job_id).state is JobState.PROCESSED
    (event,) = world.chain_events("JobProcessed")
    digest = event.fields["result_hash"]
    assert isinstance(digest, bytes)
    assert world.blobs.has(digest)
    assert world.scripted[0].is_closed


async def test_many_jobs_share_calls_and_each_is_processed_once(world: World) -> None:
    workers = [world.add_worker(), world.add_worker()]
    jobs = [world.submit(*workers, data=bytes([n])) for n in range(35)]

    await world.run()

    assert {world.status(job_id) for job_id in jobs} == {JobStatus.PROCESSED}
    done = [event.fields["job_id"] for event in world.chain_events("JobProcessed")]
    assert sorted(map(int, map(str, done))) == jobs
    blocks = {event.raw.block.number for event in world.chain_events("JobProcessed")}
    assert len(blocks) < len(jobs) / 3


async def test_finished_jobs_leave_memory(world: World) -> None:
    workers = [world.add_worker(), world.add_worker(Behaviour.BAD_SIGNATURE)]
    for number in range(20):
        world.submit(workers[number % 2], workers[1 - number % 2])

    with world.journal() as journal:
        orchestrator = world.orchestrator(journal)
        await orchestrator.run_once(20)

    jobs = orchestrator._jobs
    backlog = jobs._backlog
    assert (orchestrator.open_jobs, jobs._kept, backlog.at_workers) == (0, 0, 0)
    assert not any([jobs._tasks, backlog._owners, backlog._delayed, orchestrator._deletions._tasks])
    assert {lane.active for lane in backlog._lanes.values()} == {0}


async def test_owners_order_of_workers_is_kept(world: World) -> None:
    first, second = world.add_worker(), world.add_worker()
    job_id = world.submit(second, first)

    await world.run()

    assert world.record(job_id).dispatched == (second,)


REFUSED = {
    Behaviour.REFUSES: "WorkerRefused",
    Behaviour.GARBAGE: "WorkerProtocol",
    Behaviour.NEVER: "LeaseTimeout",
    Behaviour.AT_ONCE: "LeaseTimeout",
    Behaviour.BAD_SIGNATURE: "BadSignature",
    Behaviour.OTHER_JOB: "BadSignature",
    Behaviour.UNREGISTERED_KEY: "WorkerNotFound",
    Behaviour.TOO_OLD: "StatementTooOld",
    Behaviour.FROM_FUTURE: "StatementFromFuture",
    Behaviour.BEFORE_JOB: "StatementBeforeJob",
    Behaviour.EMPTY_RESULT: "EmptyResultHash",
    Behaviour.NO_RESULT: "ResultNotFound",
    Behaviour.OTHER_RESULT: "ResultHashMismatch",
    Behaviour.HUGE_RESULT: "ResultTooLarge",
}


@pytest.mark.parametrize(("behaviour", "code"), REFUSED.items())
async def test_refusal_is_written_down_and_the_next_worker_is_asked(
    world: World, behaviour: Behaviour, code: str
) -> None:
    bad, good = world.add_worker(behaviour), world.add_worker()
    job_id = world.submit(bad, good)

    await world.run(settings=replace(QUICK, lease_seconds=0.3))

    assert world.status(job_id) is JobStatus.PROCESSED
    (statement,) = world.chain_statements()
    assert statement["worker"] == good
    assert world.codes(job_id) == {code}
    is_request = code == "WorkerRefused"
    kind = EventKind.WORKER_REFUSED if is_request else EventKind.ATTESTATION_REFUSED
    assert code in {event.code for event in world.heard(kind)}


@pytest.mark.parametrize(("status", "is_named"), [(401, True), (403, True), (422, False)])
async def test_a_refused_token_leaves_one_line_a_try_that_names_the_option(
    world: World, monkeypatch: pytest.MonkeyPatch, status: int, *, is_named: bool
) -> None:
    worker = world.add_worker()
    tries: list[JobRequest] = []

    async def refuse(request: JobRequest) -> bool:
        tries.append(request)
        raise WorkerRefusedError(status, "no")

    monkeypatch.setattr(world.scripted[0], "put_job", refuse)
    world.submit(worker)

    summary = await world.run()

    told = world.heard(EventKind.WORKER_REFUSED)
    assert len(told) == len(tries) == summary.refusals["WorkerRefused"]
    assert told[0].detail.startswith(f"the worker answered {status}: no")
    words = f"add a line for worker {worker} or its URL to the --tokens file"
    assert (words in told[0].detail) is is_named
    assert not world.heard(EventKind.ATTESTATION_REFUSED)
    assert not world.heard(EventKind.WORKER_ERROR)


@pytest.mark.parametrize("behaviour", REFUSED)
async def test_nothing_is_recorded_when_the_only_worker_misbehaves(
    world: World, behaviour: Behaviour
) -> None:
    job_id = world.submit(world.add_worker(behaviour))

    await world.run(settings=replace(QUICK, lease_seconds=0.3))

    assert world.status(job_id) is JobStatus.SUBMITTED
    assert world.chain_statements() == []
    assert REFUSED[behaviour] in world.codes(job_id)
    assert world.record(job_id).state is JobState.DISPATCHED


@pytest.mark.parametrize(
    "behaviour", [Behaviour.UNAVAILABLE, Behaviour.BUSY, Behaviour.LOSES_CONNECTION]
)
async def test_worker_that_is_away_is_passed_over_without_blame(
    world: World, behaviour: Behaviour
) -> None:
    bad, good = world.add_worker(behaviour), world.add_worker()
    job_id = world.submit(bad, good)

    await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED
    assert world.codes(job_id) == set()
    assert world.heard(EventKind.WORKER_ERROR)


async def test_statement_that_is_only_too_old_is_asked_for_again(world: World) -> None:
    worker = world.add_worker(Behaviour.TOO_OLD)
    world.scripted[0].behaviour = Behaviour.TOO_OLD_ONCE
    job_id = world.submit(worker)

    await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED
    assert world.codes(job_id) == {"StatementTooOld"}


async def test_signed_failure_is_recorded_and_the_next_worker_is_asked(world: World) -> None:
    failing, good = world.add_worker(Behaviour.FAILS), world.add_worker()
    job_id = world.submit(failing, good)

    await world.run()

    job = world.job(job_id)
    assert job.status is JobStatus.PROCESSED
    assert [failure.worker for failure in job.failures] == [failing]
    assert world.blobs.has(job.failures[0].result_hash)


async def test_job_that_failed_everywhere_is_failed(world: World) -> None:
    workers = [world.add_worker(Behaviour.FAILS) for _ in range(2)]
    job_id = world.submit(*workers)

    summary = await world.run()

    assert world.status(job_id) is JobStatus.FAILED
    assert world.record(job_id).state is JobState.FAILED
    assert summary.counts[EventKind.FAILED] == 1
    outcomes = {said["outcome"] for said in world.chain_statements()}
    assert outcomes == {Outcome.FAILED}
    assert all(len(scripted.puts) == 1 for scripted in world.scripted)


async def test_worker_that_answers_at_once_is_not_asked_all_the_time(world: World) -> None:
    world.submit(world.add_worker(Behaviour.AT_ONCE))

    await world.run(settings=replace(QUICK, lease_seconds=1.0))

    assert len(world.scripted[0].polls) < 10


async def test_two_results_alarm_and_the_worker_is_believed_no_more(world: World) -> None:
    bad, good = world.add_worker(Behaviour.TWO_RESULTS), world.add_worker()
    first = world.submit(bad, good)
    await world.run()
    world.scripted[0].behaviour = Behaviour.HONEST
    second = world.submit(bad, good)

    await world.run()

    assert len(world.heard(EventKind.CONFLICT)) == 1
    assert world.status(first) is world.status(second) is JobStatus.PROCESSED
    assert {said["worker"] for said in world.chain_statements()} == {good}
    assert world.codes(second) == {"ConflictingStatements"}
    assert second not in world.scripted[0].puts
    assert world.worker(bad).status is WorkerStatus.ACTIVE
    with world.journal() as journal:
        evidence = journal.evidence(bad)
    assert isinstance(evidence, list)
    assert evidence[0]["result_hash"] != evidence[1]["result_hash"]


async def test_guardian_suspends_a_worker_that_signed_two_results(world: World) -> None:
    role = world.processor.grant_role(OPERATOR.account_id, Role.GUARDIAN)
    world.chain.call(role, signer=ADMIN)
    bad, good = world.add_worker(Behaviour.TWO_RESULTS), world.add_worker()
    job_id = world.submit(bad, good)

    await world.run()

    assert world.worker(bad).status is WorkerStatus.SUSPENDED
    assert world.status(job_id) is JobStatus.PROCESSED
    with world.journal() as journal:
        assert journal.unsuspended() == []


async def test_guardian_role_granted_later_is_used_at_the_next_start(world: World) -> None:
    bad = world.add_worker(Behaviour.TWO_RESULTS)
    world.submit(bad)
    await world.run()
    assert world.worker(bad).status is WorkerStatus.ACTIVE
    role = world.processor.grant_role(OPERATOR.account_id, Role.GUARDIAN)
    world.chain.call(role, signer=ADMIN)

    await world.run()

    assert world.worker(bad).status is WorkerStatus.SUSPENDED


async def test_suspending_twice_is_not_tried(world: World) -> None:
    role = world.processor.grant_role(OPERATOR.account_id, Role.GUARDIAN)
    world.chain.call(role, signer=ADMIN)
    bad = world.add_worker(Behaviour.TWO_RESULTS)
    world.chain.call(world.processor.suspend_worker(bad), signer=ADMIN)
    world.chain.call(world.processor.reinstate_worker(bad), signer=ADMIN)
    world.submit(bad)
    await world.run()
    world.chain.call(world.processor.reinstate_worker(bad), signer=ADMIN)

    await world.run()

    assert world.worker(bad).status is WorkerStatus.ACTIVE, "a registrar's decision stands"


async def test_worker_outside_our_own_list_is_not_asked(world: World) -> None:
    other, listed = world.add_worker(), world.add_worker()
    job_id = world.submit(other, listed)

    await world.run(settings=replace(QUICK, trusted_workers=frozenset({listed})))

    assert world.codes(job_id) == {"WorkerNotListed"}
    assert world.scripted[0].puts == []
    assert world.status(job_id) is JobStatus.PROCESSED


async def test_list_of_keys_restricts_the_workers(world: World) -> None:
    other, listed = world.add_worker(), world.add_worker()
    job_id = world.submit(other, listed)
    keys = frozenset({world.scripted[1].signer.public_key})

    await world.run(settings=replace(QUICK, trusted_keys=keys))

    assert world.codes(job_id) == {"WorkerNotListed"}
    assert world.scripted[0].puts == []
    assert world.status(job_id) is JobStatus.PROCESSED


@pytest.mark.parametrize("how", ["suspended", "expired", "measurement"])
async def test_worker_that_the_chain_does_not_trust_is_not_asked(world: World, how: str) -> None:
    worker = world.add_worker()
    job_id = world.submit(worker, ttl=6 * 86_400_000)
    if how == "suspended":
        world.chain.call(world.processor.suspend_worker(worker), signer=ADMIN)
    elif how == "expired":
        world.advance_time(2 * 86_400_000)
    else:
        world.chain.call(world.processor.revoke_measurement(b"m" * 32), signer=ADMIN)

    await world.run()

    assert world.codes(job_id) == {"WorkerNotTrusted"}
    assert world.scripted[0].puts == []
    assert world.status(job_id) is JobStatus.SUBMITTED


async def test_worker_without_a_client_is_passed_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.add_worker(), world.add_worker()
    job_id = world.submit(first, second)
    honest = world.client

    def client(worker: Worker) -> WorkerClient:
        if worker.worker == first:
            raise ConfigError("no token for worker 1")
        return honest(worker)

    monkeypatch.setattr(world, "client", client)
    await world.run()

    assert world.codes(job_id) == {"NoClient"}
    assert world.status(job_id) is JobStatus.PROCESSED


async def test_fault_of_ours_in_one_job_does_not_stop_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = world.add_worker()
    poison, healthy = world.submit(worker), world.submit(worker)
    put_job = world.scripted[0].put_job

    async def broken(request: JobRequest) -> bool:
        if request.key.job_id == poison:
            raise ZeroDivisionError
        return await put_job(request)

    monkeypatch.setattr(world.scripted[0], "put_job", broken)
    await world.run()

    assert world.status(healthy) is JobStatus.PROCESSED
    assert world.status(poison) is JobStatus.SUBMITTED
    assert world.codes(poison) == {"InternalError"}


async def test_fault_of_ours_at_one_worker_sends_the_job_to_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = world.submit(world.add_worker(), world.add_worker())

    async def broken(_: JobRequest) -> bool:
        raise ZeroDivisionError

    monkeypatch.setattr(world.scripted[0], "put_job", broken)
    await world.run()

    assert world.codes(job_id) == {"InternalError"}
    assert world.status(job_id) is JobStatus.PROCESSED
    assert world.record(job_id).dispatched == (1, 2)


async def test_job_is_read_again_before_the_next_worker_is_asked_after_a_fault(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fault may come after the statement is on the chain: nobody executes the job again."""
    job_id = world.submit(world.add_worker(), world.add_worker())
    settle = Settlement.settle

    async def broken(self: Settlement, completion: Completion, job: Job) -> object:
        await settle(self, completion, job)
        raise ZeroDivisionError

    monkeypatch.setattr(Settlement, "settle", broken)
    summary = await world.run()

    assert world.codes(job_id) == {"InternalError"}
    assert world.status(job_id) is JobStatus.PROCESSED
    assert summary.open == 0
    assert world.scripted[1].puts == []


async def test_address_that_is_none_sends_the_job_to_the_next_worker(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = world.add_worker(), world.add_worker()
    job_id = world.submit(first, second)
    honest = world.client

    def client(worker: Worker) -> WorkerClient:
        if worker.worker == first:
            return HttpWorkerClient("http://127.0.0.1:99999")
        return honest(worker)

    monkeypatch.setattr(world, "client", client)
    await world.run()

    assert world.codes(job_id) == {"NoClient"}
    assert world.status(job_id) is JobStatus.PROCESSED


async def test_hook_that_fails_does_not_stop_the_work(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = world.submit(world.add_worker())

    def hook(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(world, "hear", hook)
    await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED


async def test_run_ends_when_told_and_leaves_what_a_worker_still_has(world: World) -> None:
    slow = world.add_worker(Behaviour.NEVER)
    job_id = world.submit(slow)
    stop = asyncio.Event()

    with world.journal() as journal:
        running = asyncio.create_task(world.orchestrator(journal).run(stop))
        await until(lambda: bool(world.scripted[0].polls))
        stop.set()
        async with asyncio.timeout(5):
            summary = await running

    assert summary.open == 1
    assert world.status(job_id) is JobStatus.SUBMITTED
    world.scripted[0].behaviour = Behaviour.HONEST
    await world.run()
    assert world.status(job_id) is JobStatus.PROCESSED


async def test_orchestrator_of_the_owner_marks_without_the_role(world: World) -> None:
    job_id = world.submit(world.add_worker())

    await world.run(account=OWNER)

    assert world.status(job_id) is JobStatus.PROCESSED


async def test_without_the_role_a_statement_is_recorded_and_the_owner_marks(world: World) -> None:
    job_id = world.submit(world.add_worker())

    summary = await world.run(account=LocalAccount.named("stranger"))

    assert world.status(job_id) is JobStatus.ATTESTED
    assert summary.open == 1
    assert world.codes(job_id) == set()
    world.chain.call(world.processor.mark_job_processed(job_id), signer=OWNER)
    summary = await world.run(account=LocalAccount.named("stranger"))
    assert summary.open == 0
    assert world.record(job_id).state is JobState.PROCESSED
