"""What our account has, and how many jobs that pays for."""

import asyncio

from orchestrator.encoding import to_ss58
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.service.parts import Parts

__all__ = ["Funds"]

CHECK_SECONDS = 30.0


class Funds:
    """Reads the balance now and then, and tells once when it becomes low."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._checked_at: float | None = None
        self._fee_per_job = 0
        self._is_low = False
        self.balance: int | None = None

    def note_fee(self, event: ServiceEvent) -> None:
        """Learn from a transaction what a job costs."""
        if event.jobs:
            self._fee_per_job = -(-event.planck // event.jobs)

    async def check(self) -> None:
        """
        Read the balance, unless that was done a moment ago.

        Raises:
            ChainUnavailableError: The chain can't be asked.
        """
        now = asyncio.get_running_loop().time()
        if self._checked_at is not None and now - self._checked_at < CHECK_SECONDS:
            return
        self.balance = await self._parts.ledger.balance()
        self._checked_at = now
        if self.balance is None:
            return
        jobs = self._parts.settings.low_balance_jobs
        was_low, self._is_low = self._is_low, self.balance <= jobs * self._fee_per_job
        if self._is_low and not was_low:
            account = to_ss58(self._parts.ledger.account_id)
            enough = (
                f"enough for fewer than {jobs} jobs" if self._fee_per_job else "no fee can be paid"
            )
            self._parts.emit(
                ServiceEvent(
                    kind=EventKind.LOW_BALANCE,
                    detail=f"account {account} has {self.balance} planck, {enough}",
                )
            )
