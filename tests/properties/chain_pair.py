"""
The same calls on two chains, compared byte for byte.

The *node* is the chain under test. The mirror is an embedded chain with the same contract at the
same address; it runs each call after the node did, at the time of the node's block. A node judges
a call twice, by a dry run at its last block's time and in the block: so does the mirror.

Left out are block hashes, fees and deposits, which an embedded chain has its own or none of.
"""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias, cast

from orchestrator.chain import Block, Chain, Cursor, RawEvent, Receipt
from orchestrator.chain.processor import JobProcessor
from orchestrator.crypto.keys import AccountKey
from orchestrator.errors import (
    ChainMismatchError,
    ContractError,
    ContractTrappedError,
)
from orchestrator.testing.mirror_chain import MirrorChain
from tests.properties.chain_calls import AnyCall

Cells: TypeAlias = "Callable[[bytes, Block], dict[bytes, bytes]]"
Answer: TypeAlias = "Receipt[Any] | Exception"
_Items: TypeAlias = "list[ContractError | None]"

_REFUSALS = (ContractError, ContractTrappedError, ChainMismatchError)
# A receipt's value of these is made of events and of what the dry run said.
_ITEMS = "complete_jobs"
_EVENTS_AT_ONCE = 50


class DifferenceError(AssertionError):
    """The two chains differ."""


@dataclass(frozen=True)
class Judgement:
    """What the mirror says of a call: the returned bytes, and the value or the refusal."""

    raw: tuple[bytes, ...]
    value: object = None
    refusal: Exception | None = None


class Pair:
    """
    A node and its mirror, with the same contract.

    *cells* reads the node's storage cells of a contract at a block; *starts* are where the events
    of each chain begin. `refused_in_blocks` counts calls that passed their dry run and were refused
    all the same.
    """

    def __init__(
        self,
        node: Chain,
        mirror: MirrorChain,
        processor: JobProcessor,
        *,
        cells: Cells,
        starts: tuple[Cursor, Cursor],
    ) -> None:
        self.node = node
        self.mirror = mirror
        self.processor = processor
        self.refused_in_blocks = 0
        self._cells = cells
        self._seen = dict(zip((node, mirror), starts, strict=True))

    def call(self, call: AnyCall, signer: AccountKey) -> Answer:
        """Make one call on both and return the node's answer."""
        head = self.node.finalized_head()
        foreseen = self._judge(call, signer, head.timestamp)
        seen: list[bytes] = []
        try:
            receipt = self.node.call(_watched(call, seen), signer=signer)
        except _REFUSALS as error:
            after = self.node.finalized_head()
            # Either nothing was sent, or what was sent changed nothing.
            judged = self._judge(call, signer, after.timestamp)
            _same(f"{call.label}: bytes of the refusal", tuple(seen[-1:]), judged.raw)
            _same(f"{call.label}: refusal", _shape(error), _shape(judged.refusal))
            return error
        _same(f"{call.label}: bytes of the dry run", tuple(seen[:1]), foreseen.raw)
        (mirrored,) = self._mirrored([call], signer, receipt.block)
        self._compare(call, (foreseen, foreseen), receipt, mirrored)
        return receipt

    def batch(self, calls: Sequence[AnyCall], signer: AccountKey) -> list[Answer]:
        """Make the calls on both, in one transaction, and return the node's answers."""
        head = self.node.finalized_head()
        foreseen = [self._judge(call, signer, head.timestamp) for call in calls]
        seen: list[list[bytes]] = [[] for _ in calls]
        watched = [_watched(call, raw) for call, raw in zip(calls, seen, strict=True)]
        answers: list[Answer] = list(self.node.batch(watched, signer=signer))
        after = self.node.finalized_head()
        for call, raw, judged in zip(calls, seen, foreseen, strict=True):
            _same(f"{call.label}: bytes of the dry run", tuple(raw[:1]), judged.raw)
        sent = [n for n, judged in enumerate(foreseen) if judged.refusal is None]
        if not sent:
            _same("the head after a batch of refused calls", after, head)
        if not _blocks(answers) <= {after}:
            raise DifferenceError("the node made a batch in several blocks")
        mirrored = dict(
            zip(sent, self._mirrored([calls[n] for n in sent], signer, after), strict=True)
        )
        for n, (call, judged, answer) in enumerate(zip(calls, foreseen, answers, strict=True)):
            if n in mirrored:
                afterwards = self._judge(call, signer, after.timestamp)
                self._compare(call, (judged, afterwards), answer, mirrored[n])
            else:
                _same(f"{call.label}: refusal", _shape(answer), _shape(judged.refusal))
        return answers

    def compare_state(self) -> int:
        """Compare code and all storage cells; return how many cells there are."""
        contract = self.processor.contract
        head = self.node.finalized_head()
        ours, theirs = self._cells(contract, head), self.mirror.cells(contract)
        _same("keys of the cells", sorted(ours), sorted(theirs))
        for key, value in ours.items():
            _same(f"cell 0x{key.hex()}", value, theirs[key])
        _same("code", self.node.code_hash(contract), self.mirror.code_hash(contract))
        return len(ours)

    def compare_views(self, views: Sequence[AnyCall]) -> int:
        """Compare what read messages return at the head; return how many there were."""
        time = self.node.finalized_head().timestamp
        for view in views:
            seen: list[bytes] = []
            with contextlib.suppress(*_REFUSALS):
                self.node.read(_watched(view, seen))
            _same(f"view {view.label}", tuple(seen), self._judge(view, None, time).raw)
        return len(views)

    def compare_events(self) -> int:
        """Compare the events since the last time, as the port pages them; return their number."""
        # Often enough, for a node forgets old states, and with them the events.
        ours, theirs = self._new_events(self.node), self._new_events(self.mirror)
        _same("events of the contract", _shapes(ours), _shapes(theirs))
        return len(ours)

    def _new_events(self, chain: Chain) -> list[RawEvent]:
        found: list[RawEvent] = []
        while True:
            page = chain.events(
                self.processor.contract, after=self._seen[chain], limit=_EVENTS_AT_ONCE
            )
            found += page.events
            if page.next == self._seen[chain]:
                return found
            self._seen[chain] = page.next

    def _judge(self, call: AnyCall, signer: AccountKey | None, time: int) -> Judgement:
        """Say what the mirror returns at a time, changing nothing."""
        self.mirror.time = time
        seen: list[bytes] = []
        caller = bytes(32) if signer is None else signer.account_id
        try:
            value = self.mirror.dry_run(_watched(call, seen), caller=caller)
        except _REFUSALS as error:
            return Judgement(tuple(seen), refusal=error)
        return Judgement(tuple(seen), value=value)

    def _mirrored(self, calls: Sequence[AnyCall], signer: AccountKey, block: Block) -> list[Answer]:
        self.mirror.time = block.timestamp
        return list(self.mirror.batch(calls, signer=signer))

    def _compare(
        self, call: AnyCall, judged: tuple[Judgement, Judgement], answer: Answer, mirrored: Answer
    ) -> None:
        """Compare what became of a call that was sent; *judged* is by dry runs before and after."""
        foreseen, afterwards = judged
        if isinstance(answer, Exception) or isinstance(mirrored, Exception):
            _same(f"{call.label}: outcome in the block", _kept(answer), _kept(mirrored))
            self.refused_in_blocks += 1
            # A block does not say why it refused: the node can only ask again, after the block.
            _same(f"{call.label}: reason", _shape(answer), _shape(afterwards.refusal) or "Reverted")
            return
        _same(f"{call.label}: events", _shapes(answer.events), _shapes(mirrored.events))
        if call.label == _ITEMS:
            self._compare_items(cast("_Items", foreseen.value), answer.value, mirrored.value)
        elif self.processor.bundle.ink.messages[call.label].mutates:
            _same(f"{call.label}: value", answer.value, mirrored.value)
        else:
            _same(f"{call.label}: value of the dry run", answer.value, foreseen.value)

    def _compare_items(self, foreseen: _Items, answer: _Items, mirrored: _Items) -> None:
        """
        Compare the items of `complete_jobs`.

        Whether an item succeeded is known from events, why not only from the dry run: where the
        reason changed until the block, the node can't know it.
        """
        for before, ours, theirs in zip(foreseen, answer, mirrored, strict=True):
            if _shape(before) == _shape(theirs):
                _same("item of complete_jobs", _shape(ours), _shape(theirs))
            else:
                _same("item of complete_jobs", ours is None, theirs is None)


def _watched(call: AnyCall, seen: list[bytes]) -> AnyCall:
    """Return the call with a decoder that also keeps the bytes."""

    def decode(data: bytes) -> object:
        seen.append(data)
        return call.decode(data)

    return replace(call, decode=decode)


def _shape(answer: object) -> object:
    """Return what two chains have to have in common of an answer."""
    if isinstance(answer, ContractError):
        return answer.variant
    if isinstance(answer, Exception):
        return type(answer).__name__
    return "accepted" if isinstance(answer, Receipt) else answer


def _blocks(answers: Sequence[Answer]) -> set[Block]:
    return {answer.block for answer in answers if isinstance(answer, Receipt)}


def _kept(answer: Answer) -> bool:
    return isinstance(answer, Receipt)


def _shapes(events: Sequence[RawEvent]) -> list[tuple[object, ...]]:
    return [(event.contract, event.topics, event.data) for event in events]


def _same(what: str, node: object, mirror: object) -> None:
    if node != mirror:
        raise DifferenceError(f"{what}: the node has {node!r}, the mirror {mirror!r}")
