"""Answers and moments that only a broken worker, a race or a bug could bring about."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import pytest

from orchestrator.errors import (
    BlobTooLargeError,
    ContractError,
    DigestMismatchError,
    JournalError,
)
from orchestrator.metrics import EventKind
from orchestrator.models import Completion, JobStatus, Mode, Role, Worker, WorkerId
from orchestrator.service.ledger import Ledger
from orchestrator.testing.workers import Behaviour
from orchestrator.workers import JobKey, WorkerJob, WorkerJobState
from tests.unit.service.test_chain_first import STRANGER, attest
from tests.unit.service.world import ADMIN, OPERATOR, OWNER, World, until

Groups = Sequence[Sequence[Completion]]


@pytest.mark.parametrize(
    ("error", "code"),
    [(BlobTooLargeError(), "ResultTooLarge"), (DigestMismatchError(), "ResultHashMismatch")],
)
async def test_result_that_the_client_refuses_is_a_refusal(
    world: World, monkeypatch: pytest.MonkeyPatch, error: Exception, code: str
) -> None:
    job_id = world.submit(world.add_worker())

    async def get_blob(digest: bytes, *, max_bytes: int) -> bytes:
        raise error

    monkeypatch.setattr(world.scripted[0], "get_blob", get_blob)
    await world.run()

    assert world.codes(job_id) == {code}
    assert world.status(job_id) is JobStatus.SUBMITTED


@pytest.mark.parametrize("is_about_another", [True, False])
async def test_final_answer_must_be_a_statement_about_the_job(
    world: World, monkeypatch: pytest.MonkeyPatch, is_about_another: bool
) -> None:
    job_id = world.submit(world.add_worker())
    completion = await attest(world, job_id)

    async def get_job(key: JobKey, *, wait_seconds: float = 0) -> WorkerJob:
        return WorkerJob(
            state=WorkerJobState.DONE,
            completion=replace(completion, job_id=77) if is_about_another else None,
            result_length=1,
        )

    monkeypatch.setattr(world.scripted[0], "get_job", get_job)
    await world.run()

    assert world.codes(job_id) == {"WorkerProtocol"}
    assert world.status(job_id) is JobStatus.SUBMITTED


async def test_worker_that_the_chain_does_not_know_is_a_refusal(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, unknown = world.add_worker(), world.add_worker()
    job_id = world.submit(first, unknown)
    read = Ledger.worker

    async def worker(ledger: Ledger, number: WorkerId) -> Worker | None:
        return None if number == unknown else await read(ledger, number)

    monkeypatch.setattr(Ledger, "worker", worker)
    await world.run()

    assert world.codes(job_id) == {"WorkerNotFound"}
    assert world.status(job_id) is JobStatus.SUBMITTED


async def test_contract_that_sees_the_deadline_otherwise_is_asked_later(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = world.submit(world.add_worker(), ttl=60_000)
    world.advance_time(60_001)

    async def expire(ledger: Ledger, number: int) -> None:
        raise ContractError("DeadlineNotPassed")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "expire", expire)
        summary = await world.run()

    assert summary.open == 1
    assert {event.code for event in world.heard(EventKind.CHAIN_ERROR)} == {"DeadlineNotPassed"}
    await world.run()
    assert world.status(job_id) is JobStatus.EXPIRED


async def test_guardian_whose_role_is_gone_tries_again_when_it_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    role = world.processor.grant_role(OPERATOR.account_id, Role.GUARDIAN)
    world.chain.call(role, signer=ADMIN)
    bad = world.add_worker(Behaviour.TWO_RESULTS)
    world.submit(bad)

    async def suspend(ledger: Ledger, worker: WorkerId) -> None:
        raise ContractError("MissingRole")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "suspend", suspend)
        await world.run()

    with world.journal() as journal:
        assert journal.unsuspended() == [bad]
    await world.run()
    with world.journal() as journal:
        assert journal.unsuspended() == []


async def test_fault_in_settling_one_job_does_not_stop_the_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = world.add_worker()
    jobs = [world.submit(worker) for _ in range(3)]
    complete = Ledger.complete_jobs

    async def broken(ledger: Ledger, groups: Groups) -> object:
        if any(item.job_id == jobs[0] for group in groups for item in group):
            raise ZeroDivisionError
        return await complete(ledger, groups)

    monkeypatch.setattr(Ledger, "complete_jobs", broken)
    await world.run()

    assert [world.status(job) for job in jobs] == [
        JobStatus.SUBMITTED,
        JobStatus.PROCESSED,
        JobStatus.PROCESSED,
    ]
    assert world.codes(jobs[0]) == {"InternalError"}


async def test_attested_job_is_not_marked_while_the_contract_is_halted(world: World) -> None:
    job_id = world.submit(world.add_worker())
    completion = await attest(world, job_id)
    world.chain.call(world.processor.record_attestation(completion), signer=STRANGER)
    world.chain.call(world.processor.set_mode(Mode.HALTED), signer=ADMIN)

    await world.run()

    assert world.codes(job_id) == {"WrongMode"}
    assert world.status(job_id) is JobStatus.ATTESTED


async def test_attestation_that_is_gone_when_it_is_read_is_looked_up_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = world.submit(world.add_worker())
    completion = await attest(world, job_id)
    world.chain.call(world.processor.record_attestation(completion), signer=STRANGER)
    recorded = Ledger.recorded
    calls = iter([True, False])

    async def gone(ledger: Ledger, number: int) -> object:
        return await recorded(ledger, number) if next(calls, True) else None

    monkeypatch.setattr(Ledger, "recorded", gone)
    await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED


async def test_statement_recorded_by_somebody_else_first_is_no_harm(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another carrier records it between our check and our call."""
    job_id = world.submit(world.add_worker(), world.add_worker())
    other = await attest(world, job_id, number=1)
    complete = Ledger.complete_jobs
    is_first = iter([True])

    async def late(ledger: Ledger, groups: Groups) -> object:
        if next(is_first, False):
            world.chain.call(world.processor.record_attestation(other), signer=STRANGER)
        return await complete(ledger, groups)

    monkeypatch.setattr(Ledger, "complete_jobs", late)
    await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED
    assert world.codes(job_id) == {"AlreadyAttested"}
    (statement,) = world.chain_statements()
    assert statement["worker"] == 2
    assert world.blobs.has(other.result_hash)


async def test_row_that_nobody_waits_for_any_more_is_written_all_the_same(world: World) -> None:
    job_id = world.submit(world.add_worker())
    await world.run()
    with world.journal() as journal:
        records = world.orchestrator(journal)._parts.records
        record = world.record_of(journal, job_id)
        first = asyncio.create_task(records.save(replace(record, code="first")))
        second = asyncio.create_task(records.save(replace(record, code="second")))
        await asyncio.sleep(0)
        first.cancel()
        await second

        assert world.record_of(journal, job_id).code == "second"


async def test_journal_that_fails_tells_everybody_who_waits(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = [world.add_worker()]
    for _ in range(3):
        world.submit(*workers)

    def full(*_: object) -> None:
        raise JournalError("disk is full")

    with world.journal() as journal:
        monkeypatch.setattr(journal, "save", full)
        with pytest.raises(JournalError, match="full"):
            await world.orchestrator(journal).run_once(10)


async def test_job_cancelled_just_before_it_is_handed_out_is_not(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The event comes while the worker is looked up, when the turn can't be interrupted."""
    job_id = world.submit(world.add_worker(Behaviour.NEVER))
    has_measurement = Ledger.has_measurement

    with world.journal() as journal:
        orchestrator = world.orchestrator(journal)

        async def slow(ledger: Ledger, measurement: bytes) -> bool:
            world.chain.call(world.processor.cancel_job(job_id), signer=OWNER)
            await until(lambda: orchestrator._jobs[job_id].needs_review)
            return await has_measurement(ledger, measurement)

        monkeypatch.setattr(Ledger, "has_measurement", slow)
        summary = await orchestrator.run_once(10)

    assert summary.counts[EventKind.CANCELLED] == 1
    assert world.scripted[0].puts == []
