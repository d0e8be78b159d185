"""One connection to a chain, and the thread that uses it."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

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

    async def run(self, work: Callable[[Chain], T]) -> T:
        """Run *work* once; who is cancelled meanwhile leaves it to end unheard."""
        future = self._thread.submit(work, self._chain)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            future.cancel()  # no effect once it runs; it is then finished, its answer dropped
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

    def close(self) -> None:
        """End the thread once it has finished what it does; the chain stays open."""
        self._thread.shutdown(wait=True, cancel_futures=True)
