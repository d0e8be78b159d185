"""Chains on which calls take long, blocks have limits, pages are empty, and time stands still."""

import asyncio
import gc
import logging
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from orchestrator.chain import Chain
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.errors import ChainUnavailableError
from orchestrator.metrics import EventKind
from orchestrator.models import JobStatus
from orchestrator.service import OrchestratorSettings
from orchestrator.service.chain_line import ChainLine
from orchestrator.testing.flaky_chain import FlakyChain
from orchestrator.testing.workers import Behaviour
from tests.unit.service.chains import (
    CountingChain,
    GatedChain,
    IdleChain,
    NarrowChain,
    PagedChain,
)
from tests.unit.service.world import ADMIN, QUICK, World, until


@pytest.fixture
def gated(world: World) -> Iterator[GatedChain]:
    """A connection of its own, for calls alone."""
    chain = EmbeddedChain(world.folder / "chain.db")
    yield GatedChain(chain)
    chain.close()


@asynccontextmanager
async def running(
    world: World, sender: CountingChain, settings: OrchestratorSettings = QUICK
) -> AsyncIterator[None]:
    """Have an orchestrator run that reads over one connection and sends over another."""
    world.sender = sender
    stop = asyncio.Event()
    with world.journal() as journal:
        task = asyncio.create_task(world.orchestrator(journal, settings=settings).run(stop))
        try:
            yield
        finally:
            stop.set()
            await task


async def settled(world: World, count: int) -> None:
    await until(lambda: len(world.heard(EventKind.PROCESSED)) == count)


async def test_reading_goes_on_while_a_call_waits_for_finality(
    world: World, gated: GatedChain
) -> None:
    worker = world.add_worker()
    first = world.submit(worker)
    async with running(world, gated):
        await until(lambda: gated.sent == ["complete_jobs"])
        second = world.submit(worker)
        await until(lambda: second in world.scripted[0].polls)

        assert not world.heard(EventKind.PROCESSED)
        gated.gate.set()
        await settled(world, 2)

    assert [world.status(job) for job in (first, second)] == [JobStatus.PROCESSED] * 2


async def test_a_call_that_never_becomes_final_does_not_keep_the_service_from_ending(
    world: World, gated: GatedChain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.service.orchestrator.CLOSING_SECONDS", 0.05)
    world.submit(world.add_worker())
    async with running(world, gated, replace(QUICK, shutdown_seconds=0.05)):
        await until(lambda: gated.sent == ["complete_jobs"])

    assert not gated.gate.is_set()
    gated.gate.set()


async def test_an_error_that_nobody_waits_for_any_more_is_dropped(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    """Cancelled while the chain is asked: what it answers then is nobody's."""
    asked, told = threading.Event(), threading.Event()

    def work(_: Chain) -> None:
        asked.set()
        told.wait(10)
        raise ChainUnavailableError

    line = ChainLine(world.served, "test")
    task = asyncio.create_task(line.run(work))
    await asyncio.to_thread(asked.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    told.set()
    await asyncio.to_thread(line.close, seconds=10)
    await asyncio.sleep(0)
    del task
    gc.collect()

    assert caplog.text == ""


async def test_results_gather_while_a_call_waits_and_go_together(
    world: World, gated: GatedChain
) -> None:
    worker = world.add_worker()
    world.submit(worker)
    async with running(world, gated):
        await until(lambda: gated.sent == ["complete_jobs"])
        for _ in range(25):
            world.submit(worker)
        await until(lambda: len(set(world.scripted[0].polls)) == 26)
        await asyncio.sleep(0.1)  # statements are checked and results kept
        gated.gate.set()
        await settled(world, 26)

    assert gated.sent == ["complete_jobs", "batch of 3"]


async def test_a_transaction_takes_no_more_jobs_than_the_setting(
    world: World, gated: GatedChain
) -> None:
    worker = world.add_worker()
    world.submit(worker)
    async with running(world, gated, replace(QUICK, batch_jobs=15)):
        await until(lambda: gated.sent == ["complete_jobs"])
        for _ in range(25):
            world.submit(worker)
        await until(lambda: len(set(world.scripted[0].polls)) == 26)
        await asyncio.sleep(0.1)
        gated.gate.set()
        await settled(world, 26)

    assert gated.sent == ["complete_jobs", "batch of 2", "complete_jobs"]


async def test_a_batch_that_is_too_heavy_is_split(world: World) -> None:
    worker = world.add_worker()
    narrow = NarrowChain(world.served)
    world.wrapped = narrow
    jobs = [world.submit(worker) for _ in range(25)]

    await world.run(settings=replace(QUICK, group_seconds=1.0, group_size=5, batch_jobs=25))

    assert {world.status(job) for job in jobs} == {JobStatus.PROCESSED}
    assert len(world.chain_events("JobProcessed")) == 25
    assert not world.heard(EventKind.CHAIN_ERROR)


async def test_empty_pages_are_not_the_end(world: World) -> None:
    """Blocks without events come before the one with the job: a run that is done has read it."""
    worker = world.add_worker()
    for _ in range(5):
        world.chain.upload(world.processor.bundle.code, signer=ADMIN)
    job_id = world.submit(worker)
    world.wrapped = PagedChain(world.served)

    await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED


async def test_a_new_journal_begins_with_the_block_that_is_named(world: World) -> None:
    worker = world.add_worker()
    before = world.submit(worker)
    after = world.submit(worker)
    head = world.chain.finalized_head().number
    chain = PagedChain(world.served)
    world.wrapped = chain

    await world.run(settings=replace(QUICK, from_block=head))

    assert chain.asked[0].block == head
    assert [world.status(job) for job in (before, after)] == [
        JobStatus.SUBMITTED,
        JobStatus.PROCESSED,
    ]


async def test_a_chain_that_is_behind_what_was_read_is_trouble(world: World) -> None:
    job_id = world.submit(world.add_worker())
    head = world.chain.finalized_head().number

    stop = asyncio.Event()
    with world.journal() as journal:
        orchestrator = world.orchestrator(journal, settings=replace(QUICK, from_block=head + 1))
        running = asyncio.create_task(orchestrator.run(stop))
        await until(lambda: bool(world.heard(EventKind.CHAIN_ERROR)))
        stop.set()
        await running

    assert world.status(job_id) is JobStatus.SUBMITTED
    error = world.heard(EventKind.CHAIN_ERROR)[0]
    assert f"last block is {head}, and events were read up to block {head + 1}" in error.detail


async def test_an_old_journal_goes_on_where_it_was(world: World) -> None:
    world.submit(world.add_worker())
    await world.run()
    with world.journal() as journal:
        cursor = journal.cursor()
    chain = PagedChain(world.served)
    world.wrapped = chain

    await world.run(settings=replace(QUICK, from_block=1))

    assert (chain.asked[0].block, chain.asked[0].index) == cursor


async def test_a_long_way_to_the_head_is_told_with_what_to_do(
    world: World, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        world.submit(world.add_worker())
    world.wrapped = PagedChain(world.served)
    monkeypatch.setattr("orchestrator.service.orchestrator.FAR_BEHIND", 5)

    with caplog.at_level(logging.WARNING):
        await world.run()

    assert caplog.text.count("--from-block") == 1


async def test_a_node_that_shows_nothing_new_is_trouble_and_no_endless_loop(world: World) -> None:
    job_id = world.submit(world.add_worker())
    chain = FlakyChain(world.served, lambda _: None)
    read = chain.events
    stuck = iter(range(4))  # a read is tried so often

    def events(contract: bytes, *, after: object, limit: int = 1_000) -> object:
        page = read(contract, after=after, limit=limit)  # type: ignore[arg-type]  # handed on
        if next(stuck, None) is not None:
            return replace(page, events=(), next=after)  # type: ignore[arg-type]  # the same
        return page

    chain.events = events  # type: ignore[method-assign,assignment]  # stands in for it
    world.wrapped = chain
    await world.run()

    errors = world.heard(EventKind.CHAIN_ERROR)
    assert {error.code for error in errors} == {ChainUnavailableError.__name__}
    assert world.status(job_id) is JobStatus.PROCESSED


class TestIdleChain:
    """A chain that makes no blocks: its time is that of the last one."""

    async def test_statements_are_not_from_its_future(self, world: World) -> None:
        job_id = world.submit(world.add_worker())
        world.wrapped = IdleChain(world.served, age=3_600_000)

        await world.run()

        assert world.status(job_id) is JobStatus.PROCESSED
        assert world.codes(job_id) == set()

    async def test_deadlines_pass_by_the_own_clock(self, world: World) -> None:
        job_id = world.submit(world.add_worker(Behaviour.NEVER), ttl=60_000)
        real = world.clock
        world.clock = lambda: real() + 60_001
        world.served.advance_time(60_001)
        world.wrapped = IdleChain(world.served, age=3_600_000)

        await world.run()

        assert world.status(job_id) is JobStatus.EXPIRED

    async def test_a_registration_ends_by_the_own_clock(self, world: World) -> None:
        job_id = world.submit(world.add_worker())
        real = world.clock
        world.clock = lambda: real() + 86_400_001
        world.wrapped = IdleChain(world.served, age=3_600_000)

        await world.run(seconds=1)

        assert world.scripted[0].puts == []
        assert world.status(job_id) is not JobStatus.PROCESSED
