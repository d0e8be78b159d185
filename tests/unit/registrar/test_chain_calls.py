"""A registrar's calls: what is read can be left, what is sent is waited for."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from orchestrator.chain import AccountInfo, Chain, Cost, Estimate
from orchestrator.errors import InsufficientFundsError
from orchestrator.registrar import ChainCalls
from tests.unit.registrar.world import ADMIN, World


@pytest.fixture
def stuck() -> Iterator[threading.Event]:
    """What lets the threads of a test go on."""
    event = threading.Event()
    yield event
    event.set()


async def test_who_is_stopped_leaves_a_read_that_does_not_end(
    world: World, stuck: threading.Event
) -> None:
    calls, is_read = ChainCalls(world.chain, ADMIN, leave_seconds=0.01), threading.Event()

    def endless(_: Chain) -> None:
        is_read.set()
        stuck.wait()

    async with asyncio.timeout(10):
        reading = asyncio.create_task(calls.read(endless))
        await asyncio.to_thread(is_read.wait)
        reading.cancel()
        with pytest.raises(asyncio.CancelledError):
            await reading

    assert not stuck.is_set()
    left = [one for one in threading.enumerate() if one.name == "registrar"]
    assert left
    assert all(one.daemon for one in left)


async def test_what_had_not_begun_when_it_was_stopped_is_never_done(
    world: World, stuck: threading.Event
) -> None:
    calls, done = ChainCalls(world.chain, ADMIN, leave_seconds=0.01), []
    has_begun = threading.Event()

    def endless(_: Chain) -> None:
        has_begun.set()
        stuck.wait()

    first = asyncio.create_task(calls.read(endless))
    await asyncio.to_thread(has_begun.wait)
    second = asyncio.create_task(calls.read(lambda _: done.append(1)))
    await asyncio.sleep(0)

    async with asyncio.timeout(10):
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        stuck.set()
        await first
        await calls.read(lambda _: None)

    assert done == []


@pytest.mark.parametrize(
    ("deposit", "balance", "is_enough"), [(5, 15, True), (5, 14, False), (-5, 10, True)]
)
async def test_an_account_that_can_not_pay_is_told_before_anything_is_stored(
    world: World, monkeypatch: pytest.MonkeyPatch, deposit: int, balance: int, is_enough: bool
) -> None:
    cost = Cost(fee=10, deposit=deposit, ref_time=1, proof_size=1)
    monkeypatch.setattr(world.chain, "estimate", lambda *_, **__: Estimate(value=None, cost=cost))
    monkeypatch.setattr(world.chain, "account", lambda _: AccountInfo(nonce=0, balance=balance))
    before = world.head()

    if is_enough:
        await world.register()
        return
    with pytest.raises(InsufficientFundsError, match="nothing was sent"):
        await world.register()

    assert world.head() == before
    assert world.worker.evidence_kept == {}
    assert not any(world.folder.glob("*/*"))
