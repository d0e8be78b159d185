"""
The `Chain` port: what every chain that can run the contract does for us.

A chain moves bytes. What the bytes mean is known to `chain.ink` (the codec) and `chain.processor`
(the contract's messages and events, typed). All methods are synchronous; an instance may be used
from one thread at a time.

Rules that every adapter keeps:

* A refused or trapped call changes nothing. A refusal is a `ContractError`, a trap a
  `ContractTrappedError`; `ChainUnavailableError` says nothing about what happened to the call.
* Reads, events and receipts are of finalized blocks.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from orchestrator.errors import ContractError
from orchestrator.models import Account

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

__all__ = [
    "AccountInfo",
    "Block",
    "Chain",
    "ContractCall",
    "Cursor",
    "Deployment",
    "EventPage",
    "RawEvent",
    "Receipt",
]


@dataclass(frozen=True, kw_only=True)
class Block:
    """A finalized block; `timestamp` in ms."""

    number: int
    hash: bytes
    timestamp: int


@dataclass(frozen=True, kw_only=True, order=True)
class Cursor:
    """A place in the order of events: everything up to and including it has been seen."""

    block: int
    index: int


@dataclass(frozen=True, kw_only=True)
class RawEvent:
    """One contract event as the chain stores it; `index` counts contract events in its block."""

    contract: bytes
    topics: tuple[bytes, ...]
    data: bytes
    block: Block
    index: int

    @property
    def cursor(self) -> Cursor:
        """The place of this event."""
        return Cursor(block=self.block.number, index=self.index)


@dataclass(frozen=True, kw_only=True)
class EventPage:
    """Events in order, and the cursor to go on from (past them, even when there are none)."""

    events: tuple[RawEvent, ...]
    next: Cursor


@dataclass(frozen=True, kw_only=True)
class ContractCall(Generic[T_co]):
    """
    One encoded message to a contract.

    `decode` turns the returned bytes into the value, or raises `ContractError` when
    they hold the contract's error.
    """

    contract: bytes
    label: str
    data: bytes
    decode: Callable[[bytes], T_co]


@dataclass(frozen=True, kw_only=True)
class Receipt(Generic[T_co]):
    """A finalized call: its value, the events it emitted, its block, and its fee in planck."""

    value: T_co
    events: tuple[RawEvent, ...]
    block: Block
    fee: int


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A finalized instantiation."""

    contract: bytes
    code_hash: bytes
    block: Block
    fee: int


@dataclass(frozen=True, kw_only=True)
class AccountInfo:
    """An account's next nonce, and its free balance in planck (`None` where there is no money)."""

    nonce: int
    balance: int | None


class Chain(Protocol):
    """See the module's docstring for the rules that every adapter keeps."""

    @property
    def genesis_hash(self) -> bytes: ...

    def deploy(
        self, code: bytes, constructor: ContractCall[None], *, signer: Account, salt: bytes = b""
    ) -> Deployment:
        """Upload *code* and instantiate it (the call's `contract` is ignored)."""
        ...

    def upload(self, code: bytes, *, signer: Account) -> bytes:
        """Upload *code* and return its code hash (blake2-256)."""
        ...

    def code_hash(self, contract: bytes) -> bytes | None:
        """The hash of the code that *contract* runs, `None` when there is no such contract."""
        ...

    def dry_run(self, call: ContractCall[T], *, caller: bytes) -> T:
        """What the call would return now, changing nothing."""
        ...

    def call(self, call: ContractCall[T], *, signer: Account) -> Receipt[T]:
        """Make the call and return once it is finalized."""
        ...

    def batch(
        self, calls: Sequence[ContractCall[T]], *, signer: Account
    ) -> list[Receipt[T] | ContractError]:
        """Make the calls in one transaction; each succeeds or fails by itself."""
        ...

    def read(self, call: ContractCall[T]) -> T:
        """What a read message returns at the finalized head."""
        ...

    def events(self, contract: bytes, *, after: Cursor, limit: int = 1_000) -> EventPage:
        """Events of *contract* after the cursor, at most *limit*, in order."""
        ...

    def finalized_head(self) -> Block: ...

    def now(self) -> int:
        """The time (ms) that a call made now would see."""
        ...

    def account(self, account_id: bytes) -> AccountInfo: ...

    def close(self) -> None: ...
