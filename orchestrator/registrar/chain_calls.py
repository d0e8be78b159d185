"""
Chain calls of a registrar: each made once, its answer lost or not.

After an answer was lost nobody knows whether the call took effect. So what is on its way is waited
for, the chain is looked at, and only what is not there is sent again.
"""

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import TypeVar

from orchestrator.chain import Chain, ContractCall, Receipt
from orchestrator.encoding import to_ss58
from orchestrator.errors import ChainUnavailableError, ContractError, InsufficientFundsError
from orchestrator.models import Account

__all__ = ["ChainCalls", "in_thread"]

T = TypeVar("T")

ATTEMPTS = 3


class ChainCalls:
    """
    Uses *chain* from one thread at a time, with one account.

    *on_receipt* hears of every call that was made, from another thread; what was sent before is
    waited for, for *pending_seconds*. Who is cancelled waits for what it sends, and for
    *leave_seconds* for what it reads: a node must not be able to keep a registrar from ending.
    """

    def __init__(
        self,
        chain: Chain,
        account: Account,
        *,
        on_receipt: Callable[[Receipt[object]], None] = lambda _: None,
        pending_seconds: float = 60.0,
        leave_seconds: float = 10.0,
    ) -> None:
        self._chain = chain
        self._account = account
        self._on_receipt = on_receipt
        self._pending_seconds = pending_seconds
        self._leave_seconds = leave_seconds
        self._lock = threading.Lock()
        self.genesis_hash = chain.genesis_hash
        self.account_id = account.account_id

    async def read(self, work: Callable[[Chain], T]) -> T:
        """Run something with the chain that changes nothing."""
        return await self._run(work, patience=self._leave_seconds)

    async def settle_pending(self) -> None:
        """
        Return once nothing of our account is on its way any more.

        Raises:
            ChainUnavailableError: It still is, or nobody can tell.
        """
        await self.read(self._wait)

    async def require_possible(self, call: ContractCall[object]) -> None:
        """
        Return if *call* would not be refused now, and our account can pay for it.

        Raises:
            ContractError: The contract would refuse it.
            InsufficientFundsError: The account can't pay.
            ChainError: As `Chain.estimate`.
        """

        def work(chain: Chain) -> None:
            cost = chain.estimate(call, caller=self.account_id).cost
            balance = chain.account(self.account_id).balance
            needed = 0 if cost is None else cost.fee + max(cost.deposit, 0)
            if balance is not None and balance < needed:
                raise InsufficientFundsError(
                    f"account {to_ss58(self.account_id)} has {balance:,} planck, and up to"
                    f" {needed:,} are needed; nothing was sent"
                )

        await self.read(work)

    async def send(self, call: ContractCall[object], *, find: Callable[[Chain], T | None]) -> T:
        """
        Make *call* and return what it came to, which *find* reads from the chain.

        Raises:
            ContractError: The contract refused, and what was wanted is not there.
            ChainUnavailableError: Nobody knows what became of it.
            ChainError: As `Chain.call`.
        """
        return await self._run(lambda chain: self._send(chain, call, find), patience=None)

    async def _run(self, work: Callable[[Chain], T], *, patience: float | None) -> T:
        """
        Do the work in a thread; who is cancelled waits for *patience* seconds until it is over.

        Work that has not begun when it is cancelled is never done.
        """
        claim = threading.Lock()  # whoever gets it decides whether the work is begun

        def locked() -> T:
            with self._lock:
                if not claim.acquire(blocking=False):
                    raise ChainUnavailableError("given up before it was begun")
                return work(self._chain)

        running = in_thread(locked)
        try:
            return await asyncio.shield(running)
        except asyncio.CancelledError:
            if not claim.acquire(blocking=False):
                await asyncio.wait([running], timeout=patience)
            raise

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


def in_thread(work: Callable[[], T]) -> "asyncio.Future[T]":
    """Do the work in a thread of its own, which keeps no process from ending."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def succeed(value: T) -> None:
        if not future.done():
            future.set_result(value)

    def fail(error: BaseException) -> None:
        if not future.done():
            future.set_exception(error)

    def run() -> None:
        try:
            value = work()
        except BaseException as error:  # noqa: BLE001  # it is whoever waits that is to hear of it
            _tell(loop, fail, error)
        else:
            _tell(loop, succeed, value)

    threading.Thread(target=run, name="registrar", daemon=True).start()
    return future


def _tell(loop: asyncio.AbstractEventLoop, hear: Callable[[T], None], said: T) -> None:
    with contextlib.suppress(RuntimeError):  # the loop has ended: nobody waits any more
        loop.call_soon_threadsafe(hear, said)
