"""
The `Chain` port: what every chain that can run the contract does for us.

A chain moves bytes. What the bytes mean is known to `chain.ink` (the codec) and `chain.processor`
(the contract's messages and events, typed). All methods are synchronous; an instance may be used
from one thread at a time.

Rules that every adapter keeps:

* A refused or trapped call changes nothing. A refusal is a `ContractError`, a trap a
  `ContractTrappedError`; `ChainUnavailableError` says nothing about what happened to the call.
* Reads, events and receipts are of finalized blocks.
* The calls of one batch do not depend on each other: a chain may judge each by the state before
  the batch.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
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
    "Cost",
    "Cursor",
    "Deployment",
    "Estimate",
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
    """
    One contract event as the chain stores it.

    `index` orders the events of its block; there may be gaps.
    """

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


def _as_foreseen(value: T, _events: "tuple[RawEvent, ...]") -> T:
    return value


def _none_in_part(_value: object) -> Sequence[ContractError]:
    return ()


@dataclass(frozen=True, kw_only=True)
class ContractCall(Generic[T_co]):
    """
    One encoded message to a contract.

    `decode` turns the returned bytes into the value, or raises `ContractError` when
    they hold the contract's error. A node does not tell what a transaction returned:
    `settle` gives the value from what the dry run returned and the contract's own events in the
    block, which tell the truth where the two differ.

    `turned_by_time` has, by the name of a refusal that time alone may turn in some states, the
    question whether this is one of them. `refusals` gives those that the value holds, where a
    message can refuse a part of what it is asked.
    """

    contract: bytes
    label: str
    data: bytes
    decode: Callable[[bytes], T_co]
    settle: Callable[[T_co, tuple[RawEvent, ...]], T_co] = _as_foreseen
    turned_by_time: "Mapping[str, ContractCall[bool]]" = field(default_factory=dict)
    refusals: Callable[[T_co], Sequence[ContractError]] = _none_in_part


@dataclass(frozen=True, kw_only=True)
class Cost:
    """
    What a call costs whoever sends it, in planck.

    `fee` is the most that it can be. `deposit` is held while the storage is used, and negative
    when storage is freed. `ref_time` (ps) and `proof_size` (bytes) are what the call uses.
    """

    fee: int
    deposit: int
    ref_time: int
    proof_size: int


@dataclass(frozen=True, kw_only=True)
class Estimate(Generic[T_co]):
    """What a call would return now, and cost (`None` where there is no money)."""

    value: T_co
    cost: Cost | None


@dataclass(frozen=True, kw_only=True)
class Receipt(Generic[T_co]):
    """
    A finalized call: its value, the events of all contracts that it reached, its block.

    `fee` and `deposit` are what the signer paid, in planck; see `Cost`.
    """

    value: T_co
    events: tuple[RawEvent, ...]
    block: Block
    fee: int
    deposit: int = 0


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """A finalized instantiation; `fee` and `deposit` as of a `Receipt`."""

    contract: bytes
    code_hash: bytes
    block: Block
    fee: int
    deposit: int = 0


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

    def estimate(self, call: ContractCall[T], *, caller: bytes) -> Estimate[T]:
        """What the call would return and cost now, changing nothing."""
        ...

    def estimate_deploy(
        self, code: bytes, constructor: ContractCall[None], *, deployer: bytes, salt: bytes = b""
    ) -> Estimate[None]:
        """What `deploy` would cost now, changing nothing."""
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

    def block_hash(self, number: int) -> bytes | None:
        """The hash of the finalized block of that number, `None` when there is none yet."""
        ...

    def now(self) -> int:
        """The time (ms) that a call made now would see."""
        ...

    def account(self, account_id: bytes) -> AccountInfo: ...

    def wait_for_pending(
        self, account_id: bytes, *, timeout_seconds: float, signer: Account | None = None
    ) -> None:
        """
        Return once nothing that the account sent before is on its way any more.

        After `ChainUnavailableError` from `call`, what was sent may still take effect. Wait here,
        look for its effect, and only then send it again.

        A node does not tell of what waits for an earlier nonce that was lost. With *signer*, the
        account itself, such a nonce is used up by an empty transaction, which costs its fee: do
        so before what would take effect twice is sent again.

        Raises:
            ChainUnavailableError: It still is after *timeout_seconds*, or nobody can tell.
            ChainError: With *signer*: as `call`.
        """
        ...

    def close(self) -> None: ...
