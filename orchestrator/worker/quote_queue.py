"""Whose quote is made next: one at a time, and whoever has a token comes before strangers."""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator

from orchestrator.worker.refusal import RefusalError

__all__ = ["QuoteQueue"]

# Who asks and waits, the one whose quote is being made included.
_STRANGERS = 4
_ALL = 16
_RETRY_SECONDS = 2


class QuoteQueue:
    """Turns at the platform, for one event loop; `waiting` counts the one whose turn it is too."""

    def __init__(self) -> None:
        self.waiting = 0
        self._is_taken = False
        self._known: deque[asyncio.Future[None]] = deque()
        self._strangers: deque[asyncio.Future[None]] = deque()

    @contextlib.asynccontextmanager
    async def turn(self, *, is_known: bool, has_gone: asyncio.Future[None]) -> AsyncIterator[None]:
        """
        Wait for a turn and have it; *has_gone* is done when whoever asks has hung up.

        Raises:
            RefusalError: 503, too many wait; 400, whoever asked has gone.
        """
        if self.waiting >= (_ALL if is_known else _STRANGERS):
            words = "too many ask for evidence at once"
            raise RefusalError(503, words, retry_after_seconds=_RETRY_SECONDS)
        self.waiting += 1
        try:
            await asyncio.sleep(0)  # so that whoever had gone before is known to have
            await self._take(self._known if is_known else self._strangers, has_gone)
            try:
                yield
            finally:
                self._pass_on()
        finally:
            self.waiting -= 1

    async def _take(
        self, queue: deque[asyncio.Future[None]], has_gone: asyncio.Future[None]
    ) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(mine)
        if not self._is_taken:
            self._pass_on()
        try:
            await asyncio.wait({mine, has_gone}, return_when=asyncio.FIRST_COMPLETED)
        except asyncio.CancelledError:
            self._leave(queue, mine)
            raise
        if has_gone.done():
            self._leave(queue, mine)
            raise RefusalError(400, "whoever asked has gone")

    def _leave(self, queue: deque[asyncio.Future[None]], mine: asyncio.Future[None]) -> None:
        if mine.done():
            self._pass_on()
        else:
            queue.remove(mine)

    def _pass_on(self) -> None:
        """Give the turn to who comes next, if there is one."""
        queue = self._known or self._strangers
        self._is_taken = bool(queue)
        if queue:
            queue.popleft().set_result(None)
