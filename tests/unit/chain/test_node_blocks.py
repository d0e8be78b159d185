"""What a node's blocks tell: events of a contract, and what a transaction came to."""

from collections.abc import Callable, Iterator

import pytest

from orchestrator.chain import Cursor, node_blocks
from orchestrator.chain.answers import hex_text
from orchestrator.chain.dispatch_errors import DispatchFailure
from orchestrator.chain.extrinsics import Included
from orchestrator.chain.heads import Header
from orchestrator.chain.node_blocks import Blocks
from orchestrator.chain.outcomes import Outcome
from orchestrator.chain.runtime import EventRecord, RuntimeVersion
from orchestrator.errors import (
    ChainError,
    ChainMismatchError,
    ChainUnavailableError,
    PrunedStateError,
)
from orchestrator.testing.scripted_node import Refusal
from tests.unit.chain.node_world import VERSION_ANSWER, FakeNode, FakeRuntime, World, header_of

ALICE, BOB = b"\xaa" * 32, b"\xbb" * 32
OURS, THEIRS = b"\x01" * 32, b"\x02" * 32
BEGIN = Cursor(block=0, index=-1)
Told = tuple[str, str, dict[str, object]]


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.node.close()


@pytest.fixture
def node(world: World) -> Iterator[FakeNode]:
    node = FakeNode(world)
    node.open()
    yield node
    node.close()


@pytest.fixture
def blocks(node: FakeNode) -> Blocks:
    return Blocks(node)


def emitted(data: bytes, contract: bytes = OURS) -> Told:
    return ("Contracts", "ContractEmitted", {"contract": contract.hex(), "data": data.hex()})


def held(amount: int, payer: bytes = ALICE) -> Told:
    fields = {"from": payer.hex(), "to": OURS.hex(), "amount": amount}
    return ("Contracts", "StorageDepositTransferredAndHeld", fields)


def released(amount: int, payee: bytes = ALICE) -> Told:
    fields = {"from": OURS.hex(), "to": payee.hex(), "amount": amount}
    return ("Contracts", "StorageDepositTransferredAndReleased", fields)


def fee(amount: int) -> Told:
    return ("TransactionPayment", "TransactionFeePaid", {"actual_fee": amount})


SUCCESS: Told = ("System", "ExtrinsicSuccess", {})
COMPLETED: Told = ("Utility", "ItemCompleted", {})
BATCH_ENDED: Told = ("Utility", "BatchCompletedWithErrors", {})


@pytest.fixture
def outcome_of(world: World, blocks: Blocks, monkeypatch: pytest.MonkeyPatch) -> "OutcomeOf":
    monkeypatch.setattr(
        FakeRuntime,
        "failure",
        lambda _self, error: DispatchFailure(pallet="Contracts", name=str(error)),
        raising=False,
    )
    return OutcomeOf(world, blocks)


class OutcomeOf:
    """What a transaction comes to whose block has given events."""

    def __init__(self, world: World, blocks: Blocks) -> None:
        self._world = world
        self._blocks = blocks

    def __call__(self, *events: object) -> Outcome:
        self._world.include(events=events)
        header = header_of(self._world.blocks[-1].header)
        included = Included(header=header, extrinsics=(), index=0, runtime=FakeRuntime())
        return self._blocks.outcome(included, ALICE)


def test_a_call_has_its_events_its_fee_and_its_deposit(outcome_of: OutcomeOf) -> None:
    """Trap B5: the library drops the events of other contracts that a call reached."""
    outcome = outcome_of(
        held(100), emitted(b"a"), released(30), emitted(b"b", THEIRS), fee(7), SUCCESS
    )

    (item,) = outcome.items
    assert (outcome.fee, item.deposit, item.failure) == (7, 70, None)
    assert [(event.contract, event.data) for event in item.events] == [(OURS, b"a"), (THEIRS, b"b")]
    assert outcome.block.number == 1
    assert {event.block for event in item.events} == {outcome.block}


def test_deposits_of_others_are_not_the_signers(outcome_of: OutcomeOf) -> None:
    stored: Told = ("Contracts", "CodeStored", {"uploader": BOB.hex(), "deposit_held": 9})

    outcome = outcome_of(held(100, BOB), released(30, BOB), stored, SUCCESS)

    assert outcome.items[0].deposit == 0


def test_stored_code_holds_a_deposit(outcome_of: OutcomeOf) -> None:
    stored: Told = ("Contracts", "CodeStored", {"uploader": ALICE.hex(), "deposit_held": 9})

    assert outcome_of(stored, SUCCESS).items[0].deposit == 9


def test_what_a_new_contract_has_to_own_is_part_of_the_deposit(outcome_of: OutcomeOf) -> None:
    def given(amount: int, giver: bytes) -> Told:
        fields = {"from": giver.hex(), "to": OURS.hex(), "amount": amount}
        return ("Balances", "Transfer", fields)

    assert outcome_of(given(10, ALICE), held(5), SUCCESS).items[0].deposit == 15
    assert outcome_of(given(10, BOB), held(5), SUCCESS).items[0].deposit == 5


def test_each_item_of_a_batch_has_its_own(outcome_of: OutcomeOf) -> None:
    outcome = outcome_of(
        held(5),
        emitted(b"a"),
        COMPLETED,
        ("Utility", "ItemFailed", {"error": 5}),
        held(6),
        COMPLETED,
        BATCH_ENDED,
        fee(7),
        SUCCESS,
    )

    assert [len(item.events) for item in outcome.items] == [1, 0, 0]
    assert [item.deposit for item in outcome.items] == [5, 0, 6]
    assert [item.failure is None for item in outcome.items] == [True, False, True]
    assert outcome.fee == 7


def test_a_call_that_failed_says_why(outcome_of: OutcomeOf) -> None:
    outcome = outcome_of(fee(7), ("System", "ExtrinsicFailed", {"dispatch_error": 5}))

    assert outcome.items[0].failure == DispatchFailure(pallet="Contracts", name="5")
    assert outcome.fee == 7


@pytest.mark.parametrize(
    "events",
    [
        [("TransactionPayment", "TransactionFeePaid", {})],
        [("System", "ExtrinsicFailed", {})],
        [("Contracts", "StorageDepositTransferredAndHeld", {"from": ALICE.hex()}), SUCCESS],
        [("Contracts", "ContractEmitted", {}), SUCCESS],
    ],
    ids=["no fee", "no error", "no amount", "no contract"],
)
def test_an_event_without_its_fields_is_named(outcome_of: OutcomeOf, events: list[object]) -> None:
    with pytest.raises(ChainMismatchError, match="the chain's events can't be read"):
        outcome_of(*events)


@pytest.mark.parametrize("raw", [None, 5, "0", "0xz", []])
def test_events_that_are_none_are_named(world: World, outcome_of: OutcomeOf, raw: object) -> None:
    world.node.answers["state_getStorage"] = raw

    with pytest.raises(ChainMismatchError, match="a block's events"):
        outcome_of(SUCCESS)


# Events of a contract.


def head_of(world: World) -> Header:
    return header_of(world.blocks[-1].header)


def test_events_over_more_blocks_than_a_page_come_page_by_page(
    world: World, blocks: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_blocks, "_BLOCKS_PER_PAGE", 100)
    monkeypatch.setattr(node_blocks, "_BLOCKS_AT_ONCE", 16)
    for number in range(1, 221):
        world.include(events=[emitted(bytes([number]))] if number % 100 == 0 else [])
    seen: list[tuple[int, bytes]] = []
    nexts = [BEGIN]

    while len(nexts) < 3 or nexts[-1] != nexts[-2]:
        page = blocks.events(OURS, head_of(world), after=nexts[-1], limit=1_000)
        seen += [(event.block.number, event.data) for event in page.events]
        nexts.append(page.next)

    assert seen == [(100, b"\x64"), (200, b"\xc8")]
    # 100 blocks after the one that the page begins with, which may have more.
    assert [cursor.block for cursor in nexts] == [0, 101, 201, 220, 220]


def test_an_empty_page_goes_on_past_what_was_looked_at(
    world: World, node: FakeNode, blocks: Blocks
) -> None:
    world.include(events=[emitted(b"theirs", THEIRS)])

    page = blocks.events(OURS, head_of(world), after=BEGIN, limit=10)

    assert page.events == ()
    assert page.next == Cursor(block=1, index=-1)


def test_a_page_ends_at_its_limit_and_the_next_begins_there(
    world: World, node: FakeNode, blocks: Blocks
) -> None:
    world.include(events=[emitted(b"a"), SUCCESS, emitted(b"b"), emitted(b"c")])
    head = head_of(world)

    first = blocks.events(OURS, head, after=BEGIN, limit=2)
    second = blocks.events(OURS, head, after=first.next, limit=2)

    assert [event.data for event in first.events] == [b"a", b"b"]
    assert first.next == Cursor(block=1, index=2)
    assert [event.data for event in second.events] == [b"c"]
    assert second.next == Cursor(block=1, index=3)


def test_a_cursor_beyond_the_head_stays(world: World, blocks: Blocks) -> None:
    """A node that is behind, after another was asked."""
    cursor = Cursor(block=10**30, index=5)

    page = blocks.events(OURS, head_of(world), after=cursor, limit=10)

    assert (page.events, page.next) == ((), cursor)


def test_the_times_of_all_blocks_are_asked_for_at_once(
    world: World, node: FakeNode, blocks: Blocks
) -> None:
    for _ in range(5):
        world.include(events=[emitted(b"x")])

    page = blocks.events(OURS, head_of(world), after=BEGIN, limit=10)

    assert len(page.events) == 5
    assert {event.block.timestamp for event in page.events} == {1_000}


def noting(
    used: list[int], version: int, read: Callable[[bytes], list[EventRecord]]
) -> Callable[[bytes], list[EventRecord]]:
    def events(data: bytes) -> list[EventRecord]:
        used.append(version)
        return read(data)

    return events


def test_events_of_an_older_runtime_are_read_by_that_one(
    world: World, node: FakeNode, blocks: Blocks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trap B13: an upgrade changes how events are encoded, from the next block on."""
    used: list[int] = []
    for number in range(1, 4):
        world.include(events=[emitted(bytes([number]))])
    old = {**VERSION_ANSWER, "specVersion": 0}
    # Block 2 upgrades: its state has the new runtime, its events are the old one's.
    early = {world.blocks[0].hash, world.blocks[1].hash}
    world.node.answers["state_getRuntimeVersion"] = lambda *at: (
        old if at and at[0] in early else VERSION_ANSWER
    )
    for version in (0, 1):
        runtime = node.runtime_of(
            RuntimeVersion(spec_name="scripted", spec_version=version, transaction_version=1), b""
        )
        monkeypatch.setattr(runtime, "events", noting(used, version, runtime.events))

    page = blocks.events(OURS, head_of(world), after=BEGIN, limit=10)

    assert [event.data for event in page.events] == [b"\x01", b"\x02", b"\x03"]
    assert used == [0, 0, 1]


def test_a_state_that_the_node_threw_away_is_named_with_what_to_do(
    world: World, node: FakeNode, blocks: Blocks
) -> None:
    world.include()
    world.node.answers["state_getStorage"] = Refusal(
        4003, "Client error: UnknownBlock: State already discarded for 0x12"
    )

    with pytest.raises(PrunedStateError, match=r"--state-pruning archive.*or begin at a later"):
        blocks.events(OURS, head_of(world), after=BEGIN, limit=10)


@pytest.mark.parametrize(
    "method", ["state_getStorage", "state_getRuntimeVersion", "chain_getBlockHash"]
)
def test_another_refusal_says_nothing_and_is_to_be_asked_again(
    world: World, node: FakeNode, blocks: Blocks, method: str
) -> None:
    world.include()
    world.node.answers[method] = Refusal(-32029, "Too many requests")

    with pytest.raises(ChainUnavailableError, match="Too many requests"):
        blocks.events(OURS, head_of(world), after=BEGIN, limit=10)


def test_a_blocks_hash_is_told_by_its_number(world: World, node: FakeNode, blocks: Blocks) -> None:
    world.include()
    world.include()
    head = head_of(world)
    node.heads.note_finalized(head)

    assert blocks.hash_at(head.number) == head.hash
    assert blocks.hash_at(head.number - 1) == head.parent


def test_a_block_that_is_not_final_has_no_hash(
    world: World, node: FakeNode, blocks: Blocks
) -> None:
    head = head_of(world)
    node.heads.note_finalized(head)
    world.include()

    assert blocks.hash_at(head.number + 1) is None


@pytest.mark.parametrize(
    ("hashes", "error"),
    [
        (None, ChainMismatchError),
        ("0x", ChainMismatchError),
        ([], ChainMismatchError),
        ([hex_text(bytes(32))], ChainMismatchError),
        ([hex_text(bytes(32)), "0x00"], ChainMismatchError),
        ([hex_text(bytes(32)), None], ChainUnavailableError),
    ],
)
def test_hashes_of_another_form_are_named(
    world: World,
    node: FakeNode,
    blocks: Blocks,
    hashes: object,
    error: type[ChainError],
) -> None:
    world.include()
    world.node.answers["chain_getBlockHash"] = hashes

    with pytest.raises(error, match="the node"):
        blocks.events(OURS, head_of(world), after=BEGIN, limit=10)


def test_a_blocks_time_is_asked_for_once(world: World, node: FakeNode, blocks: Blocks) -> None:
    world.include()
    head = head_of(world)

    assert blocks.block(head) == blocks.block(head)

    assert world.node.count("state_getStorage") == 1


def test_the_genesis_block_has_no_time(world: World, node: FakeNode, blocks: Blocks) -> None:
    world.node.answers["state_getStorage"] = None

    assert blocks.block(head_of(world)).timestamp == 0
