"""A turn that nobody takes goes to the next, however its own one left."""

import asyncio

import pytest

from orchestrator.worker.quote_queue import QuoteQueue
from orchestrator.worker.refusal import RefusalError


@pytest.mark.parametrize("how", ["hangs up", "is cancelled"])
@pytest.mark.parametrize("is_its_turn", [False, True])
async def test_who_leaves_holds_nobody_up(how: str, *, is_its_turn: bool) -> None:
    queue, had = QuoteQueue(), list[str]()
    loop = asyncio.get_running_loop()
    gone = {name: loop.create_future() for name in ("first", "leaves", "last")}
    let_go = {name: asyncio.Event() for name in gone}

    async def ask(name: str) -> None:
        async with queue.turn(is_known=False, has_gone=gone[name]):
            had.append(name)
            await let_go[name].wait()

    asking = {}
    for name in gone:
        asking[name] = asyncio.create_task(ask(name))
        for _ in range(3):
            await asyncio.sleep(0)
    assert had == ["first"]
    assert queue.waiting == 3

    if is_its_turn:
        let_go["first"].set()
        await asyncio.sleep(0)
        assert len(queue._strangers) == 1  # it was given the turn, and does not know yet
    if how == "hangs up":
        gone["leaves"].set_result(None)
    else:
        asking["leaves"].cancel()
    with pytest.raises((RefusalError, asyncio.CancelledError)):
        await asking["leaves"]
    for event in let_go.values():
        event.set()
    async with asyncio.timeout(10):
        await asyncio.gather(asking["first"], asking["last"])

    assert had == ["first", "last"]
    assert queue.waiting == 0
    async with queue.turn(is_known=False, has_gone=loop.create_future()):
        assert queue.waiting == 1
