"""
Calls of our account, each made once, and what is known of those whose answer was lost.

A call of which nobody knows what became may still take effect. So may one of an earlier run that
was killed. `settle_doubt` waits until nothing is on its way any more. What is then known of a job
may be older than what took effect: who sends looks at it again first (`has_doubted`).
"""

import time
from collections.abc import Callable
from typing import TypeVar

from orchestrator.chain import Chain, ContractCall
from orchestrator.errors import (
    ContractError,
    ContractTrappedError,
    InsufficientFundsError,
    SpendingLimitError,
    TooHeavyError,
)
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.models import Account
from orchestrator.service.chain_line import ChainLine

__all__ = ["Calls"]

T = TypeVar("T")

# After these it is known that nothing was changed; after anything else it is not.
_CERTAIN = (
    ContractError,
    ContractTrappedError,
    InsufficientFundsError,
    SpendingLimitError,
    TooHeavyError,
)


class Calls:
    """
    Makes calls over *line*.

    What is on its way is waited for, for *pending_seconds*; after it could not pay, the account is
    left alone for *broke_seconds*. *on_event* hears of fees, and of that.
    """

    def __init__(
        self,
        line: ChainLine,
        account: Account,
        *,
        pending_seconds: float,
        broke_seconds: float,
        on_event: Callable[[ServiceEvent], None],
    ) -> None:
        self._line = line
        self._account = account
        self._pending_seconds = pending_seconds
        self._broke_seconds = broke_seconds
        self._broke_until = 0.0
        self._on_event = on_event
        self._is_in_doubt = True
        self.has_doubted = False

    async def settle_doubt(self) -> None:
        """
        Return once nothing that was sent before, by whomever, is on its way.

        Raises:
            ChainUnavailableError: It still is, or nobody can tell.
        """
        if not self._is_in_doubt:
            return

        def wait(chain: Chain) -> None:
            chain.wait_for_pending(self._account.account_id, timeout_seconds=self._pending_seconds)
            self._is_in_doubt = False

        try:
            await self._line.run(wait)
        except BaseException:
            self.has_doubted = True
            raise

    async def make(self, call: ContractCall[T], *, jobs: int = 0) -> T:
        """Make one call and return its value once it is finalized; *jobs* are paid with it."""
        await self.settle_doubt()

        def work(chain: Chain) -> tuple[T, int]:
            receipt = chain.call(call, signer=self._account)
            return receipt.value, receipt.fee

        return await self.send(work, jobs=jobs)

    async def send(self, work: Callable[[Chain], tuple[T, int]], *, jobs: int) -> T:
        """
        Run something that sends, returns its fee too, and is not repeated.

        Raises:
            InsufficientFundsError: The account can't pay, or could not a moment ago.
            SpendingLimitError: A limit of ours.
        """

        def noting_doubt(chain: Chain) -> tuple[T, int]:
            try:
                return work(chain)
            except _CERTAIN:
                raise
            except BaseException:
                self._is_in_doubt = self.has_doubted = True
                raise

        if time.monotonic() < self._broke_until:
            raise InsufficientFundsError("the account could not pay a moment ago; nothing was sent")
        try:
            value, fee = await self._line.run(noting_doubt)
        except (InsufficientFundsError, SpendingLimitError) as error:
            self._broke_until = time.monotonic() + self._broke_seconds
            self._on_event(
                ServiceEvent(kind=EventKind.NO_FUNDS, code=type(error).__name__, detail=str(error))
            )
            raise
        if fee:
            self._on_event(ServiceEvent(kind=EventKind.FEE, planck=fee, jobs=jobs))
        return value
