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
    """Keeps one client per worker, so that its connections are used again."""

    def __init__(self, make: Callable[[Worker], WorkerClient]) -> None:
        self._make = make
        self._clients: dict[WorkerId, WorkerClient] = {}

    def of(self, worker: Worker) -> WorkerClient:
        """
        Return the worker's client.

        Raises:
            InputError: There can't be one: no token, or an endpoint that is no URL.
        """
        client = self._clients.get(worker.worker)
        if client is None:
            client = self._clients[worker.worker] = self._make(worker)
        return client

    async def close(self) -> None:
        """Close all connections."""
        clients = list(self._clients.values())
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
