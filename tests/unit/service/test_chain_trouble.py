"""A chain that answers with errors, or is another one than the journal has read."""

import asyncio
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.chain import Cursor, EventPage
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.errors import (
    ChainError,
    ChainMismatchError,
    ChainUnavailableError,
    PrunedStateError,
)
from orchestrator.journal import PageChanges
from orchestrator.metrics import EventKind
from orchestrator.models import JobStatus
from orchestrator.testing.flaky_chain import FlakyChain
from tests.unit.service.world import QUICK, World, until


class FaultyChain(FlakyChain):
    """Its events can't be read while `error` is set."""

    def __init__(self, chain: EmbeddedChain, error: ChainError) -> None:
        super().__init__(chain, lambda _: None)
        self.error: ChainError | None = error

    def events(self, contract: bytes, *, after: Cursor, limit: int = 1_000) -> EventPage:
        if self.error is not None:
            raise self.error
        return super().events(contract, after=after, limit=limit)


@pytest.mark.parametrize(
    "error",
    [
        ChainError("the node refused state_call: Too many requests (code -32029)"),
        ChainMismatchError("the node sent a runtime version of unknown form"),
        ChainUnavailableError("the node refused chain_getBlockHash: UnknownBlock"),
        PrunedStateError("state discarded; take a node that keeps old states"),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_no_error_of_a_chain_ends_the_service(world: World, error: ChainError) -> None:
    job_id = world.submit(world.add_worker())
    chain = world.wrapped = FaultyChain(world.served, error)
    stop = asyncio.Event()

    with world.journal() as journal:
        task = asyncio.create_task(world.orchestrator(journal).run(stop))
        await until(lambda: len(world.heard(EventKind.CHAIN_ERROR)) > 1 or task.done())
        chain.error = None
        await until(lambda: world.chain_done(job_id) or task.done())
        stop.set()
        await task

    assert world.status(job_id) is JobStatus.PROCESSED
    told = world.heard(EventKind.CHAIN_ERROR)[0]
    assert (told.code, told.detail) == (type(error).__name__, str(error))


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (PrunedStateError("take an archive node"), logging.ERROR),
        (ChainMismatchError("another run"), logging.ERROR),
        (ChainError("too many requests"), logging.WARNING),
    ],
    ids=lambda value: type(value).__name__,
)
async def test_what_asking_again_does_not_mend_is_an_alarm(
    world: World, caplog: pytest.LogCaptureFixture, error: ChainError, level: int
) -> None:
    world.wrapped = FaultyChain(world.served, error)

    await world.run(seconds=1)

    told = [one for one in caplog.records if str(error) in one.getMessage()]
    assert {one.levelno for one in told} == {level}


async def test_pruned_state_is_asked_for_at_the_longest_waits_only(world: World) -> None:
    world.wrapped = FaultyChain(world.served, PrunedStateError())

    await world.run(settings=replace(QUICK, retry_max_seconds=600), seconds=1)

    assert len(world.heard(EventKind.CHAIN_ERROR)) == 1


async def test_journal_of_another_run_of_the_chain_is_refused_at_the_start(world: World) -> None:
    job_id = world.submit(world.add_worker())
    with world.journal() as journal:
        journal.write_page(PageChanges(cursor=(1, 0), cursor_hash=b"x" * 32))

        with pytest.raises(ChainMismatchError, match=r"another run of a dev.*remove the journal"):
            await world.orchestrator(journal).run_once(10)

        assert journal.cursor() == (1, 0)
    assert world.status(job_id) is JobStatus.SUBMITTED


async def test_journal_goes_on_with_its_own_chain(world: World) -> None:
    world.submit(world.add_worker())
    await world.run()
    with world.journal() as journal:
        assert journal.cursor_hash() == world.chain.block_hash(journal.cursor()[0])
    job_id = world.submit(1)

    await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED


async def test_node_that_is_replaced_by_one_of_another_run_is_told_and_not_read(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.submit(world.add_worker())
    stop = asyncio.Event()
    with world.journal() as journal:
        task = asyncio.create_task(world.orchestrator(journal).run(stop))
        await until(lambda: len(world.heard(EventKind.PROCESSED)) == 1)
        monkeypatch.setattr(world.served, "block_hash", lambda _: b"x" * 32)
        job_id = world.submit(1)
        await until(lambda: bool(world.heard(EventKind.CHAIN_ERROR)))
        stop.set()
        await task

    assert world.heard(EventKind.CHAIN_ERROR)[0].code == "ChainMismatchError"
    assert world.status(job_id) is JobStatus.SUBMITTED


def test_embedded_chain_tells_a_blocks_hash_by_its_number(tmp_path: Path) -> None:
    chain = EmbeddedChain(tmp_path / "chain.db")
    head = chain.finalized_head()

    assert chain.block_hash(head.number) == head.hash
    assert chain.block_hash(head.number + 1) is None
    chain.close()
