"""A chain that fails when it is told to, before or after it has done what was asked."""

import contextlib
from collections.abc import Callable, Sequence
from enum import Enum
from typing import TypeVar

from orchestrator.chain import (
    AccountInfo,
    Block,
    Chain,
    ContractCall,
    Cursor,
    Deployment,
    Estimate,
    EventPage,
    Receipt,
)
from orchestrator.errors import ChainUnavailableError, ContractError, ContractTrappedError
from orchestrator.models import Account

__all__ = ["Fault", "FlakyChain"]

T = TypeVar("T")


class Fault(Enum):
    """How a call goes wrong."""

    BEFORE = "the chain can't be reached, nothing is done"
    AFTER = "it is done, and the answer is lost"
    LATER = "it is on its way, nobody knows, and done before whatever is called next"
    TRAP = "the call traps, nothing is done"


class FlakyChain:
    """
    Hands everything on to *chain*, except where *fault* says that it goes wrong.

    *fault* gets the label of the message, or the name of the method for what is no message.

    What is on its way (`Fault.LATER`) takes effect at `include`, or before whatever is called
    next, as in a pool where both wait; `wait_for_pending` waits for it. `on_its_way` counts it,
    `is_stuck` says that it stays there.
    """

    def __init__(self, chain: Chain, fault: Callable[[str], Fault | None]) -> None:
        self._chain = chain
        self._fault = fault
        self._later: list[Callable[[], object]] = []
        self.is_stuck = False

    @property
    def on_its_way(self) -> int:
        """How many calls have not taken effect yet."""
        return len(self._later)

    def include(self) -> None:
        """Let what is on its way take effect; what it is refused nobody hears of."""
        later, self._later = self._later, []
        for work in later:
            with contextlib.suppress(ContractError, ContractTrappedError):
                work()

    def drop(self) -> None:
        """Forget what is on its way, as a pool may."""
        self._later.clear()

    def _send(self, label: str, work: Callable[[], T]) -> T:
        def after_others() -> T:
            self.include()
            return work()

        return self._through(label, after_others)

    def _through(self, label: str, work: Callable[[], T]) -> T:
        fault = self._fault(label)
        if fault is Fault.BEFORE:
            raise ChainUnavailableError(f"{label}: as told, before")
        if fault is Fault.TRAP:
            raise ContractTrappedError(f"{label}: as told")
        if fault is Fault.LATER:
            self._later.append(work)
            raise ChainUnavailableError(f"{label}: as told, later")
        done = work()
        if fault is Fault.AFTER:
            raise ChainUnavailableError(f"{label}: as told, after")
        return done

    @property
    def genesis_hash(self) -> bytes:
        """The chain's identity."""
        return self._chain.genesis_hash

    def deploy(
        self, code: bytes, constructor: ContractCall[None], *, signer: Account, salt: bytes = b""
    ) -> Deployment:
        return self._through(
            "deploy",
            lambda: self._chain.deploy(code, constructor, signer=signer, salt=salt),
        )

    def upload(self, code: bytes, *, signer: Account) -> bytes:
        return self._through("upload", lambda: self._chain.upload(code, signer=signer))

    def code_hash(self, contract: bytes) -> bytes | None:
        return self._through("code_hash", lambda: self._chain.code_hash(contract))

    def dry_run(self, call: ContractCall[T], *, caller: bytes) -> T:
        return self._through(call.label, lambda: self._chain.dry_run(call, caller=caller))

    def estimate(self, call: ContractCall[T], *, caller: bytes) -> Estimate[T]:
        return self._through(call.label, lambda: self._chain.estimate(call, caller=caller))

    def estimate_deploy(
        self, code: bytes, constructor: ContractCall[None], *, deployer: bytes, salt: bytes = b""
    ) -> Estimate[None]:
        return self._through(
            "estimate_deploy",
            lambda: self._chain.estimate_deploy(code, constructor, deployer=deployer, salt=salt),
        )

    def call(self, call: ContractCall[T], *, signer: Account) -> Receipt[T]:
        return self._send(call.label, lambda: self._chain.call(call, signer=signer))

    def batch(
        self, calls: Sequence[ContractCall[T]], *, signer: Account
    ) -> list[Receipt[T] | ContractError]:
        return self._send("batch", lambda: self._chain.batch(calls, signer=signer))

    def read(self, call: ContractCall[T]) -> T:
        return self._through(call.label, lambda: self._chain.read(call))

    def events(self, contract: bytes, *, after: Cursor, limit: int = 1_000) -> EventPage:
        return self._through(
            "events", lambda: self._chain.events(contract, after=after, limit=limit)
        )

    def finalized_head(self) -> Block:
        return self._through("finalized_head", self._chain.finalized_head)

    def block_hash(self, number: int) -> bytes | None:
        return self._through("block_hash", lambda: self._chain.block_hash(number))

    def now(self) -> int:
        return self._through("now", self._chain.now)

    def account(self, account_id: bytes) -> AccountInfo:
        return self._through("account", lambda: self._chain.account(account_id))

    def wait_for_pending(
        self, account_id: bytes, *, timeout_seconds: float, signer: Account | None = None
    ) -> None:
        def wait() -> None:
            if self.is_stuck and self._later:
                raise ChainUnavailableError("wait_for_pending: still on its way")
            self.include()
            self._chain.wait_for_pending(account_id, timeout_seconds=timeout_seconds, signer=signer)

        self._through("wait_for_pending", wait)

    def close(self) -> None:
        self._chain.close()
