"""Chains behind the port that are like a node in one way that the embedded chain is not."""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

from orchestrator.chain import (
    AccountInfo,
    Chain,
    ContractCall,
    Cursor,
    EventPage,
    Receipt,
)
from orchestrator.errors import ChainError, ContractError, TooHeavyError
from orchestrator.models import Account
from orchestrator.testing.flaky_chain import Fault, FlakyChain

T = TypeVar("T")


def once(label: str, fault: Fault) -> Callable[[str], Fault | None]:
    """Let the first of these calls go wrong."""
    left = iter([fault])
    return lambda called: next(left, None) if called == label else None


class CountingChain(FlakyChain):
    """Notes the labels of what is sent, and of each batch how many calls are in it."""

    def __init__(self, chain: Chain, fault: Callable[[str], Fault | None] = lambda _: None) -> None:
        super().__init__(chain, fault)
        self.sent: list[str] = []

    def call(self, call: ContractCall[T], *, signer: Account) -> Receipt[T]:
        self.sent.append(call.label)
        return super().call(call, signer=signer)

    def batch(
        self, calls: Sequence[ContractCall[T]], *, signer: Account
    ) -> list[Receipt[T] | ContractError]:
        self.sent.append(f"batch of {len(calls)}")
        return super().batch(calls, signer=signer)


class GatedChain(CountingChain):
    """Calls wait for finality, which comes when the gate is opened."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain)
        self.gate = threading.Event()

    def call(self, call: ContractCall[T], *, signer: Account) -> Receipt[T]:
        receipt = super().call(call, signer=signer)
        self.gate.wait(20)
        return receipt


class NarrowChain(CountingChain):
    """A batch of more than one call is more than a block takes."""

    def batch(
        self, calls: Sequence[ContractCall[T]], *, signer: Account
    ) -> list[Receipt[T] | ContractError]:
        self.sent.append(f"batch of {len(calls)}")
        if len(calls) > 1:
            raise TooHeavyError
        return FlakyChain.batch(self, calls, signer=signer)


class PagedChain(FlakyChain):
    """`events` looks at one block per page, as a node's looks at a bounded number."""

    def __init__(self, chain: Chain) -> None:
        super().__init__(chain, lambda _: None)
        self.asked: list[Cursor] = []

    def events(self, contract: bytes, *, after: Cursor, limit: int = 1_000) -> EventPage:
        self.asked.append(after)
        page = super().events(contract, after=after, limit=limit)
        until = after.block + 1
        events = tuple(event for event in page.events if event.block.number <= until)
        last = events[-1].cursor if events else after
        if len(events) == limit:
            return EventPage(events=events, next=last)
        head = super().finalized_head().number
        return EventPage(events=events, next=max(last, Cursor(block=min(until, head), index=999)))


class IdleChain(FlakyChain):
    """Its time is that of a block long ago, until the next call."""

    def __init__(self, chain: Chain, age: int) -> None:
        super().__init__(chain, lambda _: None)
        self._age = age

    def now(self) -> int:
        return super().now() - self._age


class PricedChain(FlakyChain):
    """Each call has a fee, and the account a balance."""

    def __init__(
        self,
        chain: Chain,
        *,
        balance: int,
        fee: int = 0,
        fault: Callable[[str], Fault | None] = lambda _: None,
    ) -> None:
        super().__init__(chain, fault)
        self.balance = balance
        self.fee = fee
        self.refusal: ChainError | None = None
        self.refused = 0

    def call(self, call: ContractCall[T], *, signer: Account) -> Receipt[T]:
        self._refuse()
        self.balance -= self.fee
        return replace(super().call(call, signer=signer), fee=self.fee)

    def batch(
        self, calls: Sequence[ContractCall[T]], *, signer: Account
    ) -> list[Receipt[T] | ContractError]:
        self._refuse()
        answers = super().batch(calls, signer=signer)
        self.balance -= self.fee * len(answers)
        return [
            replace(answer, fee=self.fee) if isinstance(answer, Receipt) else answer
            for answer in answers
        ]

    def _refuse(self) -> None:
        if self.refusal is not None:
            self.refused += 1
            raise self.refusal

    def account(self, account_id: bytes) -> AccountInfo:
        return replace(super().account(account_id), balance=self.balance)
