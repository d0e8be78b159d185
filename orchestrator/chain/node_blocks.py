"""What is in a node's finalized blocks: contract events, and what a transaction came to."""

import threading
from collections.abc import Sequence

from orchestrator.chain import Block, Cursor, EventPage, RawEvent
from orchestrator.chain.answers import at_key, hash_of, hex_bytes, hex_text
from orchestrator.chain.extrinsics import Included
from orchestrator.chain.heads import Header
from orchestrator.chain.link import Request, RpcError
from orchestrator.chain.node import Node, parse_version
from orchestrator.chain.outcomes import Outcome, is_emitted, outcome_of, raw_event
from orchestrator.chain.refusals import history_error
from orchestrator.chain.runtime import EventRecord, Runtime
from orchestrator.chain.runtime_types import reading
from orchestrator.errors import ChainMismatchError, ChainUnavailableError

__all__ = ["Blocks"]

# Blocks asked for at once, and looked through in one call of `events`.
_BLOCKS_AT_ONCE = 64
_BLOCKS_PER_PAGE = 1_024
_EVENTS = ("System", "Events")
_NOW = ("Timestamp", "Now")


class Blocks:
    """Reads finalized blocks of *node*."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._lock = threading.Lock()
        self._newest: Block | None = None

    def block(self, header: Header) -> Block:
        """Return a block with its time."""
        with self._lock:
            if self._newest is not None and self._newest.hash == header.hash:
                return self._newest
        key = self._node.runtime().storage_key(*_NOW)
        (raw,) = self._ask([("state_getStorage", (key, hex_text(header.hash)))])
        block = Block(number=header.number, hash=header.hash, timestamp=_moment(raw))
        with self._lock:
            self._newest = block
        return block

    def hash_at(self, number: int) -> bytes | None:
        """Return the hash of the finalized block of that number, `None` when there is none yet."""
        if number > self._node.heads.finalized.number:
            return None
        (block_hash,) = self._hashes(range(number, number + 1))
        return block_hash

    def outcome(self, included: Included, signer: bytes) -> Outcome:
        """
        Return what a transaction came to.

        Raises:
            ChainError: Its block can't be read, which says nothing about what it came to.
        """
        runtime, header = included.runtime, included.header
        (raw,) = self._ask(
            [("state_getStorage", (runtime.storage_key(*_EVENTS), hex_text(header.hash)))]
        )
        moment = runtime.moment(included.extrinsics)
        block = Block(number=header.number, hash=header.hash, timestamp=moment)
        records = [
            record
            for record in runtime.events(hex_bytes(raw, "a block's events"))
            if record.extrinsic == included.index
        ]
        with reading("events"):
            return outcome_of(runtime, records, block, signer)

    def events(self, contract: bytes, head: Header, *, after: Cursor, limit: int) -> EventPage:
        """
        Return events of *contract* up to *head*; it looks through a bounded number of blocks.

        Raises:
            PrunedStateError: The node has no longer the state of these blocks.
        """
        events: list[RawEvent] = []
        number = max(1, after.block)  # the genesis block has no events
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
        # What a block did was done by the runtime of its parent's state: an upgrade counts from
        # the next block on.
        parent, *hashes = self._hashes(range(numbers.start - 1, numbers.stop))
        runtime = self._node.runtime()
        key = runtime.storage_key(*_EVENTS)
        first, last, *raws = self._ask(
            [
                ("state_getRuntimeVersion", (hex_text(parent),)),
                ("state_getRuntimeVersion", (hex_text(hashes[-1]),)),
                *(("state_getStorage", (key, hex_text(one))) for one in hashes),
            ]
        )
        is_current = {parse_version(first), parse_version(last)} == {runtime.version}
        found: list[tuple[int, bytes, list[EventRecord]]] = []
        for number, block_hash, raw in zip(numbers, hashes, raws, strict=True):
            # Decoding takes longer than looking whether there is anything of ours.
            if raw is None or contract.hex() not in str(raw):
                continue
            maker = runtime if is_current else self._maker(block_hash)
            records = maker.events(hex_bytes(raw, "a block's events"))
            with reading("events"):
                emitted = [record for record in records if is_emitted(record, contract)]
            if emitted:
                found.append((number, block_hash, emitted))
        return self._dated(found, runtime.storage_key(*_NOW))

    def _dated(
        self, found: Sequence[tuple[int, bytes, list[EventRecord]]], key: str
    ) -> list[RawEvent]:
        """Return events with their blocks, of which the times are asked for at once."""
        if not found:
            return []
        times = self._ask([("state_getStorage", (key, hex_text(one))) for _, one, _ in found])
        events: list[RawEvent] = []
        for (number, block_hash, records), raw in zip(found, times, strict=True):
            block = Block(number=number, hash=block_hash, timestamp=_moment(raw))
            with reading("events"):
                events += [raw_event(record, block) for record in records]
        return events

    def _hashes(self, numbers: range) -> list[bytes]:
        (asked,) = self._ask([("chain_getBlockHash", (list(numbers),))])
        if not isinstance(asked, list) or len(asked) != len(numbers):
            raise ChainMismatchError("the node sent other hashes than was asked for")
        if None in asked:
            raise ChainUnavailableError("the node does not have blocks that it said are final")
        return [hash_of(one, "a block's hash") for one in asked]

    def _maker(self, block_hash: bytes) -> Runtime:
        (header,) = self._ask([("chain_getHeader", (hex_text(block_hash),))])
        parent = hash_of(at_key(header, "parentHash", "a header"), "a block's hash")
        (version,) = self._ask([("state_getRuntimeVersion", (hex_text(parent),))])
        return self._node.runtime_of(parse_version(version), parent)

    def _ask(self, requests: Sequence[Request]) -> list[object]:
        try:
            return self._node.rpc.request_all(requests)
        except RpcError as error:
            found = history_error(error)
            if isinstance(found, RpcError):
                # Nothing of ours was refused: too many requests, or a block not here yet.
                raise ChainUnavailableError(str(error)) from error
            raise found from error


def _moment(raw: object) -> int:
    # The genesis block has no time.
    return 0 if raw is None else int.from_bytes(hex_bytes(raw, "a block's time")[:8], "little")
