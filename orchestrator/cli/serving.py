"""What every long-running command does: serve, work, log, and stop cleanly."""

import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    import asyncio

    from starlette.types import ASGIApp

    from orchestrator.http_server import Listen

T = TypeVar("T")


async def serve_role(
    application: "ASGIApp",
    listen: "Listen",
    *,
    work: "Callable[[asyncio.Event], Awaitable[T]]",
    ready: Callable[[str], None],
) -> T:
    """
    Serve and work until a signal, or until either ends, then stop both and return what work did.

    Raises: what either raised, the server's first.
    """
    import asyncio

    from orchestrator.http_server import serve, stop_on_signal

    stop = asyncio.Event()

    async def working() -> T:
        return await work(stop)

    with stop_on_signal(stop):
        tasks = (
            asyncio.create_task(serve(application, listen, stop=stop, ready=ready)),
            asyncio.create_task(working()),
        )
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        stop.set()
        await asyncio.wait(tasks)
    tasks[0].result()
    return tasks[1].result()


@contextlib.contextmanager
def service_log() -> Iterator[None]:
    """Write what the roles log to stderr, a line each."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger = logging.getLogger("orchestrator")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.setLevel(before)
        logger.removeHandler(handler)
