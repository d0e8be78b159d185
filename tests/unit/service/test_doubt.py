"""A call of which nobody knows what became is not made a second time while it is on its way."""

import asyncio

import pytest

from orchestrator.chain import ContractCall, Receipt
from orchestrator.errors import ChainError, ChainUnavailableError
from orchestrator.metrics import EventKind
from orchestrator.models import Account, JobStatus
from orchestrator.service import Moment, Step
from orchestrator.testing.flaky_chain import Fault
from orchestrator.testing.workers import Behaviour
from tests.unit.service.chains import CountingChain, once
from tests.unit.service.test_chain_first import attest
from tests.unit.service.world import OWNER, World, until


@pytest.fixture
def chain(world: World) -> CountingChain:
    """The orchestrator's chain, whose first `complete_jobs` is on its way for longer than asked."""
    made = CountingChain(world.served, once("complete_jobs", Fault.LATER))
    world.wrapped = made
    return made


async def test_call_that_is_on_its_way_is_waited_for_and_not_made_again(
    world: World, chain: CountingChain
) -> None:
    job_id = world.submit(world.add_worker())

    await world.run()
    await world.run()

    assert chain.sent == ["complete_jobs"]
    assert world.status(job_id) is JobStatus.PROCESSED
    assert world.codes(job_id) == set()


async def test_without_the_wait_it_would_be_made_again(
    world: World, chain: CountingChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the test above can fail."""
    job_id = world.submit(world.add_worker())
    monkeypatch.setattr(chain, "wait_for_pending", lambda *_, **__: None)

    await world.run()
    await world.run()

    assert chain.sent == ["complete_jobs"] * 2
    assert world.status(job_id) is JobStatus.PROCESSED


async def test_call_that_took_effect_before_anybody_waited_is_not_made_again(
    world: World, chain: CountingChain
) -> None:
    job_id = world.submit(world.add_worker())
    await world.run()

    chain.include()
    await world.run()

    assert chain.sent == ["complete_jobs"]
    assert world.status(job_id) is JobStatus.PROCESSED


async def test_call_that_the_pool_dropped_is_made_again(world: World, chain: CountingChain) -> None:
    job_id = world.submit(world.add_worker())
    await world.run()

    chain.drop()
    await world.run()

    assert chain.sent == ["complete_jobs"] * 2
    assert world.status(job_id) is JobStatus.PROCESSED
    assert world.codes(job_id) == set()


async def test_nothing_is_sent_while_something_stays_on_its_way(
    world: World, chain: CountingChain
) -> None:
    first = world.submit(world.add_worker())
    await world.run()
    chain.is_stuck = True
    second = world.submit(1)

    await world.run()

    assert chain.sent == ["complete_jobs"]
    assert world.heard(EventKind.CHAIN_ERROR)
    chain.is_stuck = False
    await world.run()
    assert [world.status(job) for job in (first, second)] == [JobStatus.PROCESSED] * 2
    assert len(world.chain_events("JobProcessed")) == 2


async def test_signed_failure_that_is_on_its_way_is_not_recorded_again(
    world: World, chain: CountingChain
) -> None:
    job_id = world.submit(world.add_worker(Behaviour.FAILS), world.add_worker())

    await world.run()
    await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED
    assert chain.sent == ["complete_jobs"] * 2, "one for each worker's statement"
    assert world.codes(job_id) == set()


async def test_any_error_that_does_not_say_that_nothing_was_sent_is_a_doubt(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a node that can't tell what was in the block."""
    job_id = world.submit(world.add_worker())
    chain = CountingChain(world.served)
    call = chain.call
    errors = iter([ChainError("state already discarded")])

    def lossy(made: ContractCall[object], *, signer: Account) -> Receipt[object]:
        receipt = call(made, signer=signer)
        for error in errors:
            raise error
        return receipt

    monkeypatch.setattr(chain, "call", lossy)
    world.wrapped = chain

    await world.run()
    await world.run()

    assert chain.sent == ["complete_jobs"]
    assert world.status(job_id) is JobStatus.PROCESSED


async def test_what_was_read_before_the_doubt_ended_is_read_again(
    world: World, chain: CountingChain
) -> None:
    """Another call ends the doubt; a job that is known from before is still looked at first."""
    job_id = world.submit(world.add_worker())
    job, completion = world.job(job_id), await attest(world, job_id)
    with world.journal() as journal:
        orchestrator = world.orchestrator(journal)
        settlement, ledger = orchestrator._settlement, orchestrator._parts.ledger
        await ledger.start()
        settling = asyncio.create_task(settlement.run())
        with pytest.raises(ChainUnavailableError):
            await settlement.settle(completion, job)
        await ledger.calls.settle_doubt()

        settled = await settlement.settle(completion, job)

        settlement.stop()
        await settling
        await asyncio.to_thread(ledger.close, seconds=5)
    assert settled.status is JobStatus.PROCESSED
    assert chain.sent == ["complete_jobs"]


async def test_a_killed_orchestrators_call_is_waited_for_by_the_next(world: World) -> None:
    """Who starts does not know what an earlier run has sent: the first thing is to wait."""
    job_id = world.submit(world.add_worker())
    chain = CountingChain(world.served, once("complete_jobs", Fault.LATER))
    world.wrapped = chain
    sent = asyncio.Event()

    def fail_point(step: Step, moment: Moment) -> None:
        if step is Step.COMPLETE_JOBS and moment is Moment.BEFORE:
            sent.set()

    with world.journal() as journal:
        running = asyncio.create_task(
            world.orchestrator(journal, fail_point=fail_point).run(asyncio.Event())
        )
        await sent.wait()
        await until(lambda: chain.on_its_way == 1)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    await world.run()

    assert chain.sent == ["complete_jobs"]
    assert world.status(job_id) is JobStatus.PROCESSED


async def test_without_the_role_nothing_is_sent_twice_either(world: World) -> None:
    chain = CountingChain(world.served, once("record_attestation", Fault.LATER))
    world.wrapped = chain
    job_id = world.submit(world.add_worker())

    await world.run(account=OWNER)
    await world.run(account=OWNER)

    assert chain.sent == ["record_attestation", "mark_job_processed"]
    assert world.status(job_id) is JobStatus.PROCESSED
