"""
Chain calls of a registrar: each made once, its answer lost or not.

After an answer was lost nobody knows whether the call took effect. So what is on its way is waited
for, the chain is looked at, and only what is not there is sent again.
"""

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

from orchestrator.chain import Chain, ContractCall, Receipt
from orchestrator.errors import ChainUnavailableError, ContractError
from orchestrator.models import Account

__all__ = ["ChainCalls"]

T = TypeVar("T")

ATTEMPTS = 3


class ChainCalls:
    """
    Uses *chain* from one thread at a time, with one account.

    *on_receipt* hears of every call that was made, from another thread; what was sent before is
    waited for, for *pending_seconds*.
    """

    def __init__(
        self,
        chain: Chain,
        account: Account,
        *,
        on_receipt: Callable[[Receipt[object]], None] = lambda _: None,
        pending_seconds: float = 60.0,
    ) -> None:
        self._chain = chain
        self._account = account
        self._on_receipt = on_receipt
        self._pending_seconds = pending_seconds
        self._lock = threading.Lock()
        self.genesis_hash = chain.genesis_hash
        self.account_id = account.account_id

    async def read(self, work: Callable[[Chain], T]) -> T:
        """Run something with the chain; who is cancelled meanwhile waits until it is over."""

        def locked() -> T:
            with self._lock:
                return work(self._chain)

        running = asyncio.ensure_future(asyncio.to_thread(locked))
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            await asyncio.wait([running])
            raise

    async def settle_pending(self) -> None:
        """
        Return once nothing of our account is on its way any more.

        Raises:
            ChainUnavailableError: It still is, or nobody can tell.
        """
        await self.read(self._wait)

    async def send(self, call: ContractCall[object], *, find: Callable[[Chain], T | None]) -> T:
        """
        Make *call* and return what it came to, which *find* reads from the chain.

        Raises:
            ContractError: The contract refused, and what was wanted is not there.
            ChainUnavailableError: Nobody knows what became of it.
            ChainError: As `Chain.call`.
        """
        return await self.read(lambda chain: self._send(chain, call, find))

    def _send(
        self, chain: Chain, call: ContractCall[object], find: Callable[[Chain], T | None]
    ) -> T:
        for attempt in range(1, ATTEMPTS + 1):
            try:
                self._on_receipt(chain.call(call, signer=self._account))
                break
            except ChainUnavailableError:
                self._wait(chain)
                found = find(chain)
                if found is not None:
                    return found
                if attempt == ATTEMPTS:
                    raise
            except ContractError:
                # It may refuse because an earlier one, whose answer was lost, has taken effect.
                found = find(chain)
                if found is None:
                    raise
                return found
        found = find(chain)
        if found is None:
            raise ChainUnavailableError("the call was made, and the chain does not show its effect")
        return found

    def _wait(self, chain: Chain) -> None:
        chain.wait_for_pending(self._account.account_id, timeout_seconds=self._pending_seconds)
