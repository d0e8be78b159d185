"""One connection to a chain, and the thread that uses it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

import stamina

from orchestrator.chain import Chain
from orchestrator.errors import ChainUnavailableError

__all__ = ["ChainLine"]

T = TypeVar("T")


class ChainLine:
    """Runs what uses *chain*, one thing after another, in a thread of that *name*."""

    def __init__(self, chain: Chain, name: str) -> None:
        self._chain = chain
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)
        self._futures: set[Future[Any]] = set()

    async def run(self, work: Callable[[Chain], T]) -> T:
        """Run *work* once; who is cancelled meanwhile leaves it to end unheard."""
        future = self._thread.submit(work, self._chain)
        self._futures.add(future)
        future.add_done_callback(self._futures.discard)
        answer = asyncio.wrap_future(future)
        try:
            return await asyncio.shield(answer)
        except asyncio.CancelledError:
            future.cancel()  # no effect once it runs; it is then finished, its answer dropped
            answer.add_done_callback(_drop)
            raise

    async def repeated(self, work: Callable[[Chain], T]) -> T:
        """Run something that changes nothing, a few times if the chain can't be reached."""
        try:
            return await self.run(work)
        except ChainUnavailableError:
            async for attempt in stamina.retry_context(
                on=ChainUnavailableError, attempts=3, wait_initial=0.2, wait_max=2.0
            ):
                with attempt:
                    return await self.run(work)
            raise

    def close(self, *, seconds: float) -> None:
        """
        End the thread once it has finished what it does; the chain stays open.

        After *seconds* it is left to itself: it ends when whoever has the chain closes it.
        """
        self._thread.shutdown(wait=False, cancel_futures=True)
        wait(list(self._futures), timeout=seconds)


def _drop(answer: "asyncio.Future[T]") -> None:
    """Look at the answer, so that nobody warns that an error in it was never looked at."""
    if not answer.cancelled():
        answer.exception()
