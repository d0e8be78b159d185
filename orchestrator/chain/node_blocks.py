"""What is in a node's finalized blocks: contract events, and what a transaction came to."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from orchestrator.chain import Block, Cursor, EventPage, RawEvent
from orchestrator.chain.extrinsics import Included
from orchestrator.chain.heads import Header
from orchestrator.chain.rpc import RpcConnection
from orchestrator.chain.runtime import (
    DispatchFailure,
    EventRecord,
    Runtime,
    RuntimeVersion,
)
from orchestrator.errors import ChainMismatchError

__all__ = ["Blocks", "Item", "Outcome"]

# Blocks asked for at once, and looked through in one call of `events`.
_BLOCKS_AT_ONCE = 64
_BLOCKS_PER_PAGE = 1_024


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


def text(value: bytes) -> str:
    """Return the `0x` text of bytes."""
    return "0x" + value.hex()


class Blocks:
    """Reads finalized blocks over *rpc*; *runtime_of* gives the runtime of a version at a block."""

    def __init__(
        self,
        rpc: RpcConnection,
        *,
        runtime: Callable[[], Runtime],
        runtime_of: Callable[[RuntimeVersion, bytes], Runtime],
    ) -> None:
        self._rpc = rpc
        self._runtime = runtime
        self._runtime_of = runtime_of
        self._lock = threading.Lock()
        self._newest: Block | None = None

    def block(self, header: Header) -> Block:
        """Return a block with its time."""
        with self._lock:
            if self._newest is not None and self._newest.hash == header.hash:
                return self._newest
        key = self._runtime().storage_key("Timestamp", "Now")
        raw = self._rpc.request("state_getStorage", key, text(header.hash))
        block = Block(number=header.number, hash=header.hash, timestamp=_moment(raw))
        with self._lock:
            self._newest = block
        return block

    def outcome(self, included: Included, signer: bytes) -> Outcome:
        """Return what a transaction came to."""
        runtime = self._runtime()
        key = runtime.storage_key("System", "Events")
        raw = self._rpc.request("state_getStorage", key, text(included.header.hash))
        block = Block(
            number=included.header.number,
            hash=included.header.hash,
            timestamp=runtime.moment(included.extrinsics),
        )
        records = [
            record
            for record in self._decode(runtime, raw, included.header.hash)
            if record.extrinsic == included.index
        ]
        fee = sum(
            cast("int", _fields(record)["actual_fee"])
            for record in records
            if (record.pallet, record.name) == ("TransactionPayment", "TransactionFeePaid")
        )
        items = tuple(_item(runtime, part, block, signer, end) for part, end in _split(records))
        return Outcome(block=block, fee=fee, items=items)

    def events(self, contract: bytes, head: Header, *, after: Cursor, limit: int) -> EventPage:
        """Return events of *contract* up to *head*; it looks through a bounded number of blocks."""
        events: list[RawEvent] = []
        number = max(0, after.block)
        last = min(head.number, number + _BLOCKS_PER_PAGE)
        while number <= last:
            chunk = range(number, min(number + _BLOCKS_AT_ONCE, last + 1))
            for event in self._chunk(contract, chunk):
                if event.cursor > after:
                    events.append(event)
                if len(events) == limit:
                    return EventPage(events=tuple(events), next=events[-1].cursor)
            number = chunk.stop
        ends = [after, *(event.cursor for event in events[-1:])]
        if last >= after.block:
            ends.append(Cursor(block=last, index=-1))
        return EventPage(events=tuple(events), next=max(ends))

    def _chunk(self, contract: bytes, numbers: range) -> list[RawEvent]:
        asked = self._rpc.request("chain_getBlockHash", list(numbers))
        hashes = [str(one) for one in cast("Sequence[object]", asked)]
        if not hashes:
            return []
        runtime = self._runtime()
        key = runtime.storage_key("System", "Events")
        first, last, *raws = self._rpc.request_all(
            [
                ("state_getRuntimeVersion", (hashes[0],)),
                ("state_getRuntimeVersion", (hashes[-1],)),
                *(("state_getStorage", (key, one)) for one in hashes),
            ]
        )
        versions = {parse_version(first), parse_version(last)}
        found: list[RawEvent] = []
        for number, block_hash, raw in zip(numbers, hashes, raws, strict=True):
            # Decoding takes longer than looking whether there is anything of ours.
            if raw is None or contract.hex() not in str(raw):
                continue
            raw_hash = bytes.fromhex(block_hash[2:])
            if versions != {runtime.version}:
                runtime = self._runtime_at(block_hash)
            records = self._decode(runtime, raw, raw_hash)
            header = Header(number=number, hash=raw_hash, parent=b"")
            emitted = [record for record in records if _is_emitted(record, contract)]
            if emitted:
                block = self.block(header)
                found += [_raw_event(record, block) for record in emitted]
        return found

    def _runtime_at(self, block_hash: str) -> Runtime:
        # What a block did was done by the runtime of its parent's state: an upgrade counts from
        # the next block on.
        parent = self._rpc.request("chain_getHeader", block_hash)
        at = str(parent["parentHash"]) if isinstance(parent, Mapping) else block_hash
        if int(at, 16) == 0:
            at = block_hash
        version = parse_version(self._rpc.request("state_getRuntimeVersion", at))
        return self._runtime_of(version, bytes.fromhex(at[2:]))

    def _decode(self, runtime: Runtime, raw: object, block_hash: bytes) -> list[EventRecord]:
        if not isinstance(raw, str):
            raise ChainMismatchError(f"the node has no events of block {text(block_hash)}")
        return runtime.events(bytes.fromhex(raw[2:]))


def parse_version(value: object) -> RuntimeVersion:
    """Return the runtime version that a node sent."""
    if isinstance(value, Mapping):
        name, spec = value.get("specName"), value.get("specVersion")
        transaction = value.get("transactionVersion")
        if isinstance(name, str) and isinstance(spec, int) and isinstance(transaction, int):
            return RuntimeVersion(
                spec_name=name, spec_version=spec, transaction_version=transaction
            )
    raise ChainMismatchError("the node sent a runtime version of unknown form")


def _moment(raw: object) -> int:
    # The genesis block has no time.
    return 0 if raw is None else int.from_bytes(bytes.fromhex(str(raw)[2:]), "little")


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
            _raw_event(record, block)
            for record in records
            if (record.pallet, record.name) == ("Contracts", "ContractEmitted")
        ),
        deposit=sum(_deposit(record, signer) for record in records),
        failure=failure,
        records=tuple(records),
    )


def _deposit(record: EventRecord, signer: bytes) -> int:
    """Return what an event says the signer's deposits grew by, in planck."""
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


def _is_emitted(record: EventRecord, contract: bytes) -> bool:
    return (record.pallet, record.name) == ("Contracts", "ContractEmitted") and _fields(record)[
        "contract"
    ] == contract


def _raw_event(record: EventRecord, block: Block) -> RawEvent:
    fields = _fields(record)
    return RawEvent(
        contract=cast("bytes", fields["contract"]),
        topics=record.topics,
        data=cast("bytes", fields["data"]),
        block=block,
        index=record.index,
    )
