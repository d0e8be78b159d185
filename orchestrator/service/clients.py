"""The workers' clients, one each, and asking them with an end to every wait."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from orchestrator.errors import WorkerUnavailableError
from orchestrator.models import Worker, WorkerId
from orchestrator.workers import WorkerClient

__all__ = ["WorkerClients", "ask"]

T = TypeVar("T")


class WorkerClients:
    """
    Keeps one client per worker, so that its connections are used again.

    Another is made when *tokens* gives another token for the worker than the last time.
    """

    def __init__(
        self,
        make: Callable[[Worker], WorkerClient],
        tokens: Callable[[Worker], str | None] = lambda _: None,
    ) -> None:
        self._make = make
        self._tokens = tokens
        self._clients: dict[WorkerId, tuple[str | None, WorkerClient]] = {}
        # Jobs may still be using them.
        self._replaced: list[WorkerClient] = []

    def of(self, worker: Worker) -> WorkerClient:
        """
        Return the worker's client.

        Raises:
            InputError: There can't be one: no token, or an endpoint that is no URL.
        """
        token = self._tokens(worker)
        kept = self._clients.get(worker.worker)
        if kept is not None and kept[0] == token:
            return kept[1]
        client = self._make(worker)
        if kept is not None:
            self._replaced.append(kept[1])
        self._clients[worker.worker] = (token, client)
        return client

    async def close(self) -> None:
        """Close all connections."""
        clients = [*self._replaced, *(client for _, client in self._clients.values())]
        self._replaced.clear()
        self._clients.clear()
        for client in clients:
            await client.close()


async def ask(question: Awaitable[T], *, seconds: float) -> T:
    """
    Return the worker's answer, if it comes in time.

    Raises:
        WorkerUnavailableError: It did not.
    """
    try:
        async with asyncio.timeout(seconds):
            return await question
    except TimeoutError as error:
        raise WorkerUnavailableError(f"no answer within {seconds:.0f} s") from error
