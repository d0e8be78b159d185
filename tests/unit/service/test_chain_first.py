"""What the chain says counts, whatever the journal says and whoever else is at work."""

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.chain.processor import JobProcessor
from orchestrator.errors import ChainMismatchError, ContractTrappedError
from orchestrator.journal import JobState
from orchestrator.metrics import EventKind
from orchestrator.models import Completion, JobStatus, Mode, Role
from orchestrator.service import AdmissionPolicy
from orchestrator.testing import LocalAccount
from orchestrator.testing.flaky_chain import Fault, FlakyChain
from orchestrator.testing.workers import Behaviour
from orchestrator.workers import JobKey, JobRequest, RequestHead
from tests.unit.service.chains import CountingChain
from tests.unit.service.world import ADMIN, OPERATOR, OWNER, QUICK, World, until, wall_clock

TURN = threading.Lock()
STRANGER = LocalAccount.named("stranger")


async def attest(world: World, job_id: int, number: int = 0) -> Completion:
    """Have a scripted worker execute the job, without any orchestrator."""
    job = world.job(job_id)
    key = JobKey(
        genesis=world.chain.genesis_hash,
        contract=world.processor.contract,
        job_id=job_id,
        payload_hash=job.payload_hash,
    )
    head = RequestHead(
        owner=job.owner,
        public_key=job.public_key,
        recipients=(),
        created_at=job.created_at,
        deadline=job.deadline,
    )
    envelope = getattr(job.encrypted_payload, "data")  # noqa: B009  # inline in all these tests
    scripted = world.scripted[number]
    await scripted.put_job(JobRequest(key=key, head=head, envelope=envelope))
    answer = await scripted.get_job(key)
    scripted.puts.clear()
    assert answer.completion is not None
    return answer.completion


async def test_job_attested_by_another_carrier_is_marked(world: World) -> None:
    job_id = world.submit(world.add_worker())
    completion = await attest(world, job_id)
    world.chain.call(world.processor.record_attestation(completion), signer=STRANGER)

    await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED
    assert world.blobs.has(completion.result_hash)
    assert world.scripted[0].puts == []


async def test_one_that_is_attested_already_is_marked_and_nothing_more_is_paid_for(
    world: World,
) -> None:
    job_id = world.submit(world.add_worker())
    completion = await attest(world, job_id)
    world.chain.call(world.processor.record_attestation(completion), signer=STRANGER)
    chain = CountingChain(world.served)
    world.wrapped = chain

    await world.run()

    assert chain.sent == ["mark_job_processed"]
    assert world.status(job_id) is JobStatus.PROCESSED


async def test_attested_job_is_not_marked_until_its_result_can_be_had(world: World) -> None:
    job_id = world.submit(world.add_worker())
    completion = await attest(world, job_id)
    world.chain.call(world.processor.record_attestation(completion), signer=STRANGER)
    results = dict(world.scripted[0]._results)
    world.scripted[0]._results.clear()

    await world.run()

    assert world.status(job_id) is JobStatus.ATTESTED
    assert world.codes(job_id) == {"ResultNotFound"}
    world.scripted[0]._results.update(results)
    await world.run()
    assert world.status(job_id) is JobStatus.PROCESSED


async def test_attested_job_whose_result_is_in_our_store_needs_no_worker(world: World) -> None:
    job_id = world.submit(world.add_worker())
    completion = await attest(world, job_id)
    world.chain.call(world.processor.record_attestation(completion), signer=STRANGER)
    world.blobs.put(world.scripted[0]._results.pop(completion.result_hash))

    await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED


async def test_attestation_of_a_suspended_worker_is_not_marked(world: World) -> None:
    worker = world.add_worker()
    job_id = world.submit(worker)
    completion = await attest(world, job_id)
    world.chain.call(world.processor.record_attestation(completion), signer=STRANGER)
    world.chain.call(world.processor.suspend_worker(worker), signer=ADMIN)

    await world.run()

    assert world.status(job_id) is JobStatus.ATTESTED
    assert world.codes(job_id) == {"AttestationNotValid"}


async def test_attestation_of_a_worker_expired_since_is_marked(world: World) -> None:
    job_id = world.submit(world.add_worker(), ttl=6 * 86_400_000)
    completion = await attest(world, job_id)
    world.chain.call(world.processor.record_attestation(completion), signer=STRANGER)
    world.advance_time(3 * 86_400_000)

    await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED


async def test_attestation_of_a_worker_outside_our_list_is_not_marked(world: World) -> None:
    job_id = world.submit(world.add_worker())
    completion = await attest(world, job_id)
    world.chain.call(world.processor.record_attestation(completion), signer=STRANGER)

    await world.run(settings=replace(QUICK, trusted_workers=frozenset({99})))

    assert world.status(job_id) is JobStatus.ATTESTED
    assert world.codes(job_id) == {"WorkerNotListed"}


async def test_failure_recorded_by_another_carrier_sends_the_job_to_the_next(world: World) -> None:
    failing, good = world.add_worker(Behaviour.FAILS), world.add_worker()
    job_id = world.submit(failing, good)
    completion = await attest(world, job_id)
    world.chain.call(world.processor.record_attestation(completion), signer=STRANGER)

    await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED
    assert world.scripted[0].puts == []


async def test_worker_that_told_the_chain_something_else_is_believed_no_more(world: World) -> None:
    """It gave us one result, too old to record, and another one to somebody else."""
    worker = world.add_worker(Behaviour.TWO_RESULTS)
    job_id = world.submit(worker)
    await world.run(settings=replace(QUICK, stale_answers=1))
    completion = await attest(world, job_id)
    world.chain.call(world.processor.record_attestation(completion), signer=STRANGER)

    await world.run()

    assert world.heard(EventKind.CONFLICT)
    assert world.status(job_id) is JobStatus.ATTESTED
    assert "ConflictingStatements" in world.codes(job_id)


@pytest.mark.parametrize(
    ("close", "state", "kind"),
    [
        ("cancel", JobState.CANCELLED, EventKind.CANCELLED),
        ("purge", JobState.PURGED, EventKind.PURGED),
        ("expire", JobState.EXPIRED, EventKind.EXPIRED),
    ],
)
async def test_job_closed_while_a_worker_has_it_is_dropped_there(
    world: World, close: str, state: JobState, kind: EventKind
) -> None:
    job_id = world.submit(world.add_worker(Behaviour.NEVER))
    stop = asyncio.Event()

    with world.journal() as journal:
        settings = replace(QUICK, lease_seconds=60, expire_jobs=False)
        orchestrator = world.orchestrator(journal, settings=settings)
        running = asyncio.create_task(orchestrator.run(stop))
        await until(lambda: bool(world.scripted[0].polls))
        if close == "expire":
            world.advance_time(601_000)
            world.chain.call(world.processor.expire_job(job_id), signer=STRANGER)
        else:
            world.chain.call(world.processor.cancel_job(job_id), signer=OWNER)
        if close == "purge":
            world.chain.call(world.processor.purge_job(job_id), signer=OWNER)
        await until(lambda: orchestrator.open_jobs == 0)
        stop.set()
        await running

    assert world.scripted[0].deleted == [job_id]
    assert world.record(job_id).state is state
    assert len(world.heard(kind)) == 1


async def test_worker_that_is_away_does_not_keep_a_cancelled_job_open(world: World) -> None:
    worker = world.add_worker(Behaviour.LOSES_CONNECTION)
    job_id = world.submit(worker)
    await world.run()
    world.scripted[0].behaviour = Behaviour.UNAVAILABLE
    world.chain.call(world.processor.cancel_job(job_id), signer=OWNER)

    summary = await world.run()

    assert summary.open == 0
    assert world.record(job_id).state is JobState.CANCELLED
    assert any("delete" in event.detail for event in world.heard(EventKind.WORKER_ERROR))


async def test_fault_of_ours_in_a_delete_does_not_keep_a_cancelled_job_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = world.submit(world.add_worker(Behaviour.LOSES_CONNECTION))
    await world.run()
    world.chain.call(world.processor.cancel_job(job_id), signer=OWNER)

    async def broken(_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(world.scripted[0], "delete_job", broken)
    summary = await world.run()

    assert summary.open == 0
    assert world.record(job_id).state is JobState.CANCELLED
    assert "ZeroDivisionError" in {event.code for event in world.heard(EventKind.WORKER_ERROR)}


async def test_job_past_its_deadline_is_expired_and_not_handed_out(world: World) -> None:
    job_id = world.submit(world.add_worker(), ttl=60_000)
    world.advance_time(60_001)

    await world.run()

    assert world.status(job_id) is JobStatus.EXPIRED
    assert world.scripted[0].puts == []
    assert world.record(job_id).state is JobState.EXPIRED


async def test_job_that_only_our_clock_thinks_too_late_is_executed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is ahead by more than the time a job has: what the contract says counts."""
    job_id = world.submit(world.add_worker(), ttl=60_000)

    with world.journal() as journal:
        with monkeypatch.context() as patch:
            patch.setattr(world, "clock", lambda: wall_clock() + 3_600_000)
            orchestrator = world.orchestrator(journal)
        await orchestrator.run_once(10)

    assert world.status(job_id) is JobStatus.PROCESSED
    assert {event.code for event in world.heard(EventKind.CHAIN_ERROR)} == {"DeadlineNotPassed"}


async def test_deadline_that_passes_at_a_worker_ends_the_job(world: World) -> None:
    job_id = world.submit(world.add_worker(Behaviour.NEVER), ttl=60_000)
    stop = asyncio.Event()

    with world.journal() as journal:
        orchestrator = world.orchestrator(journal, settings=replace(QUICK, lease_seconds=60))
        running = asyncio.create_task(orchestrator.run(stop))
        await until(lambda: bool(world.scripted[0].polls))
        world.advance_time(60_001)
        await until(lambda: orchestrator.open_jobs == 0)
        stop.set()
        await running

    assert world.status(job_id) is JobStatus.EXPIRED
    assert world.scripted[0].deleted == [job_id]


async def test_expiring_can_be_left_to_others(world: World) -> None:
    job_id = world.submit(world.add_worker(), ttl=60_000)
    world.advance_time(60_001)

    summary = await world.run(settings=replace(QUICK, expire_jobs=False))

    assert world.status(job_id) is JobStatus.SUBMITTED
    assert summary.open == 1


async def test_lost_journal_is_made_again_from_the_chain(world: World) -> None:
    worker = world.add_worker()
    done = world.submit(worker)
    await world.run()
    for path in world.folder.glob("journal.db*"):
        path.unlink()
    fresh = world.submit(worker)

    summary = await world.run()

    assert world.record(done).state is JobState.PROCESSED
    assert world.status(fresh) is JobStatus.PROCESSED
    assert summary.counts[EventKind.PROCESSED] == 1
    assert len(world.chain_events("JobProcessed")) == 2


async def test_purged_job_of_the_past_is_noted(world: World) -> None:
    job_id = world.submit(world.add_worker())
    world.chain.call(world.processor.cancel_job(job_id), signer=OWNER)
    world.chain.call(world.processor.purge_job(job_id), signer=OWNER)

    await world.run()

    assert world.record(job_id).state is JobState.PURGED


async def test_halted_contract_is_waited_for(world: World) -> None:
    job_id = world.submit(world.add_worker())
    world.chain.call(world.processor.set_mode(Mode.HALTED), signer=ADMIN)

    summary = await world.run()

    assert summary.open == 1
    assert world.codes(job_id) == {"WrongMode"}
    world.chain.call(world.processor.set_mode(Mode.DRAINING), signer=ADMIN)
    await world.run()
    assert world.status(job_id) is JobStatus.PROCESSED


async def test_role_revoked_while_running_is_noticed(world: World) -> None:
    """The role goes between two reads of it; the refused call makes us read again."""
    job_id = world.submit(world.add_worker())
    faults = iter([True])

    def revoke(label: str) -> Fault | None:
        if label == "complete_jobs" and next(faults, False):
            call = world.processor.revoke_role(OPERATOR.account_id, Role.OPERATOR)
            world.chain.call(call, signer=ADMIN)
        return None

    world.wrapped = FlakyChain(world.served, revoke)
    summary = await world.run(seconds=3)

    assert world.codes(job_id) == {"MissingRole"}
    assert world.status(job_id) is JobStatus.SUBMITTED
    assert summary.open == 1
    world.wrapped = None
    await world.run()
    assert world.status(job_id) is JobStatus.ATTESTED, "recorded without the role, not marked"


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER])
@pytest.mark.parametrize("label", ["complete_jobs", "jobs_page"])
async def test_lost_answer_of_a_call_is_looked_up_on_the_chain(
    world: World, label: str, fault: Fault
) -> None:
    job_id = world.submit(world.add_worker())
    faults = iter([fault])
    world.wrapped = FlakyChain(
        world.served, lambda called: next(faults, None) if called == label else None
    )

    with world.journal() as journal:
        orchestrator = world.orchestrator(journal)
        stop = asyncio.Event()
        running = asyncio.create_task(orchestrator.run(stop))
        await until(lambda: bool(world.heard(EventKind.PROCESSED)))
        stop.set()
        await running

    assert world.status(job_id) is JobStatus.PROCESSED
    assert len(world.chain_events("JobProcessed")) == 1


async def test_chain_that_is_away_for_a_while_stops_nothing(world: World) -> None:
    left = iter(range(8))
    world.wrapped = FlakyChain(
        world.served,
        lambda label: Fault.BEFORE if label == "events" and next(left, None) is not None else None,
    )
    stop = asyncio.Event()

    with world.journal() as journal:
        orchestrator = world.orchestrator(journal)
        running = asyncio.create_task(orchestrator.run(stop))
        await until(lambda: bool(world.heard(EventKind.CHAIN_ERROR)))
        job_id = world.submit(world.add_worker())
        await until(lambda: bool(world.heard(EventKind.PROCESSED)), seconds=30)
        stop.set()
        await running

    assert world.status(job_id) is JobStatus.PROCESSED


async def test_call_that_traps_for_one_job_does_not_stop_the_others(world: World) -> None:
    worker = world.add_worker()
    jobs = [world.submit(worker) for _ in range(3)]
    poison = jobs[1]
    chain = FlakyChain(world.served, lambda _: None)
    call = chain.call

    def trap(made: object, *, signer: object) -> object:
        data = getattr(made, "data")  # noqa: B009  # any call
        label = getattr(made, "label")  # noqa: B009  # any call
        if label == "complete_jobs" and poison.to_bytes(16, "little") in data:
            raise ContractTrappedError
        return call(made, signer=signer)  # type: ignore[arg-type]  # handed on

    chain.call = trap  # type: ignore[method-assign,assignment]  # stands in for it
    world.wrapped = chain
    await world.run()

    assert [world.status(job) for job in jobs] == [
        JobStatus.PROCESSED,
        JobStatus.SUBMITTED,
        JobStatus.PROCESSED,
    ]
    assert world.codes(poison) == {"ContractTrapped"}


async def test_contract_of_another_genesis_is_refused(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = world.submit(world.add_worker())
    with world.journal() as journal:
        orchestrator = world.orchestrator(journal)
        monkeypatch.setattr(orchestrator._parts.ledger, "genesis_hash", bytes(32))

        with pytest.raises(ChainMismatchError, match="genesis"):
            await orchestrator.run_once(1)

    assert world.status(job_id) is JobStatus.SUBMITTED


async def test_address_without_a_contract_is_refused(world: World) -> None:
    world.processor = JobProcessor(b"\x01" * 32)

    with pytest.raises(ChainMismatchError, match="no contract"):
        await world.run(policy=AdmissionPolicy(owners=None))


async def test_two_orchestrators_process_each_job_once(world: World) -> None:
    workers = [world.add_worker(), world.add_worker()]
    jobs = [world.submit(*workers) for _ in range(8)]
    second = replace(world, folder=world.folder / "second")
    second.folder.mkdir()

    await asyncio.gather(_run_on_its_own_chain(world), _run_on_its_own_chain(second))

    assert {world.status(job) for job in jobs} == {JobStatus.PROCESSED}
    assert len(world.chain_events("JobProcessed")) == len(jobs)
    assert len(world.chain_statements()) == len(jobs)


async def _run_on_its_own_chain(world: World) -> None:
    """One thread at a time may use a chain, so the two take turns at it."""
    chain = FlakyChain(world.served, lambda _: None)
    through: Callable[..., object] = chain._through

    def locked(label: str, work: Callable[[], object]) -> object:
        with TURN:
            return through(label, work)

    chain._through = locked  # type: ignore[method-assign,assignment]  # stands in for it
    world.wrapped = chain
    await world.run()
