"""What a transaction came to, by the events of its block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from orchestrator.chain import Block, ContractCall, RawEvent, Receipt
from orchestrator.chain.dispatch_errors import DispatchFailure
from orchestrator.chain.refusals import refusal_of
from orchestrator.chain.runtime import EventRecord, Runtime
from orchestrator.errors import ChainMismatchError

__all__ = [
    "Item",
    "Outcome",
    "instantiated",
    "is_emitted",
    "only_item",
    "outcome_of",
    "raw_event",
    "receipt_of",
]

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Item:
    """What one call of a transaction came to: its events, or why it failed."""

    events: tuple[RawEvent, ...]
    deposit: int
    failure: DispatchFailure | None
    records: tuple[EventRecord, ...]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a transaction came to: its block, its fee, and its calls in order."""

    block: Block
    fee: int
    items: tuple[Item, ...]


def outcome_of(
    runtime: Runtime, records: Sequence[EventRecord], block: Block, signer: bytes
) -> Outcome:
    """Return what a transaction of *signer* came to, given its events."""
    fee = sum(
        cast("int", _fields(record)["actual_fee"])
        for record in records
        if (record.pallet, record.name) == ("TransactionPayment", "TransactionFeePaid")
    )
    items = tuple(_item(runtime, part, block, signer, end) for part, end in _split(records))
    return Outcome(block=block, fee=fee, items=items)


def _fields(record: EventRecord) -> Mapping[str, object]:
    return cast("Mapping[str, object]", record.fields)


def _split(
    records: Sequence[EventRecord],
) -> list[tuple[list[EventRecord], EventRecord]]:
    """Return the events of each call, and the event that ends it."""
    parts: list[tuple[list[EventRecord], EventRecord]] = []
    part: list[EventRecord] = []
    is_batch = any(record.pallet == "Utility" for record in records)
    ends = (
        {("Utility", "ItemCompleted"), ("Utility", "ItemFailed"), ("System", "ExtrinsicFailed")}
        if is_batch
        else {("System", "ExtrinsicSuccess"), ("System", "ExtrinsicFailed")}
    )
    for record in records:
        if (record.pallet, record.name) in ends:
            parts.append((part, record))
            part = []
        else:
            part.append(record)
    return parts


def _item(
    runtime: Runtime, records: Sequence[EventRecord], block: Block, signer: bytes, end: EventRecord
) -> Item:
    failure = None
    if end.name == "ExtrinsicFailed":
        failure = runtime.failure(_fields(end)["dispatch_error"])
    elif end.name == "ItemFailed":
        failure = runtime.failure(_fields(end)["error"])
    return Item(
        events=tuple(
            raw_event(record, block)
            for record in records
            if (record.pallet, record.name) == ("Contracts", "ContractEmitted")
        ),
        deposit=sum(_deposit(record, signer) for record in records),
        failure=failure,
        records=tuple(records),
    )


def _deposit(record: EventRecord, signer: bytes) -> int:
    """Return what an event says the signer's deposits grew by, in planck."""
    if (record.pallet, record.name) == ("Balances", "Transfer"):
        # No call of ours transfers value: it is the existential deposit of a new contract.
        fields = _fields(record)
        return cast("int", fields["amount"]) if fields["from"] == signer else 0
    if record.pallet != "Contracts":
        return 0
    if record.name == "StorageDepositTransferredAndHeld":
        fields = _fields(record)
        return cast("int", fields["amount"]) if fields["from"] == signer else 0
    if record.name == "StorageDepositTransferredAndReleased":
        fields = _fields(record)
        return -cast("int", fields["amount"]) if fields["to"] == signer else 0
    if record.name == "CodeStored":
        fields = _fields(record)
        return cast("int", fields["deposit_held"]) if fields["uploader"] == signer else 0
    return 0


def is_emitted(record: EventRecord, contract: bytes) -> bool:
    """Whether an event is one of the contract's own."""
    return (record.pallet, record.name) == ("Contracts", "ContractEmitted") and _fields(record)[
        "contract"
    ] == contract


def raw_event(record: EventRecord, block: Block) -> RawEvent:
    """Return a contract's event."""
    fields = _fields(record)
    return RawEvent(
        contract=cast("bytes", fields["contract"]),
        topics=record.topics,
        data=cast("bytes", fields["data"]),
        block=block,
        index=record.index,
    )


def receipt_of(
    call: ContractCall[T], foreseen: T, item: Item, outcome: Outcome, fee: int
) -> Receipt[T]:
    """Return the receipt of a call that succeeded."""
    own = tuple(event for event in item.events if event.contract == call.contract)
    return Receipt(
        value=call.settle(foreseen, own),
        events=item.events,
        block=outcome.block,
        fee=fee,
        deposit=item.deposit,
    )


def only_item(outcome: Outcome, call: ContractCall[object] | None) -> Item:
    """Return what the only call of a transaction came to, if it succeeded."""
    if len(outcome.items) != 1:
        raise ChainMismatchError("the chain does not tell what the transaction came to")
    (item,) = outcome.items
    if item.failure is not None:
        raise refusal_of(item.failure, call)
    return item


def instantiated(item: Item) -> bytes:
    """Return the address of the contract that a deployment made."""
    for record in item.records:
        if (record.pallet, record.name) == ("Contracts", "Instantiated"):
            contract = record.fields["contract"] if isinstance(record.fields, dict) else None
            if isinstance(contract, bytes):
                return contract
    raise ChainMismatchError("the chain told of no new contract")
