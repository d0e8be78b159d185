"""What a registrar asks of a worker, within a time that no worker can stretch."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Protocol, TypeVar

from orchestrator.errors import WorkerUnavailableError
from orchestrator.models import PublicKey, Signature
from orchestrator.workers import WorkerIdentity

__all__ = ["AskedWorker", "TimedWorker"]

T = TypeVar("T")


class AskedWorker(Protocol):
    """The part of a `WorkerClient` that admitting and renewing needs."""

    async def identity(self) -> WorkerIdentity: ...

    async def evidence(
        self,
        *,
        genesis: bytes,
        contract: bytes,
        challenge: bytes,
        signing_key: PublicKey | None = None,
    ) -> bytes: ...

    async def registration(
        self,
        *,
        genesis: bytes,
        contract: bytes,
        measurement: bytes,
        evidence_hash: bytes,
        valid_until: int,
        signing_key: PublicKey | None = None,
    ) -> Signature: ...

    async def put_evidence(self, data: bytes) -> bytes: ...


class TimedWorker:
    """
    *worker*, whose answers may take *seconds* altogether.

    What takes longer raises `WorkerUnavailableError`, as if it had not answered.
    """

    def __init__(self, worker: AskedWorker, *, seconds: float) -> None:
        self._worker = worker
        self._seconds = seconds
        self._left = seconds

    async def identity(self) -> WorkerIdentity:
        """Ask for its identity."""
        return await self._within(self._worker.identity())

    async def evidence(
        self,
        *,
        genesis: bytes,
        contract: bytes,
        challenge: bytes,
        signing_key: PublicKey | None = None,
    ) -> bytes:
        """Ask for evidence."""
        return await self._within(
            self._worker.evidence(
                genesis=genesis, contract=contract, challenge=challenge, signing_key=signing_key
            )
        )

    async def registration(
        self,
        *,
        genesis: bytes,
        contract: bytes,
        measurement: bytes,
        evidence_hash: bytes,
        valid_until: int,
        signing_key: PublicKey | None = None,
    ) -> Signature:
        """Ask for its possession signature."""
        return await self._within(
            self._worker.registration(
                genesis=genesis,
                contract=contract,
                measurement=measurement,
                evidence_hash=evidence_hash,
                valid_until=valid_until,
                signing_key=signing_key,
            )
        )

    async def put_evidence(self, data: bytes) -> bytes:
        """Have it keep a bundle."""
        return await self._within(self._worker.put_evidence(data))

    async def _within(self, answer: Awaitable[T]) -> T:
        started = time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, self._left)):
                return await answer
        except TimeoutError as error:
            raise WorkerUnavailableError(
                f"the worker's answers take longer than {self._seconds:g} s altogether"
            ) from error
        finally:
            self._left -= time.monotonic() - started
