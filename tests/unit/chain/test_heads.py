"""The heads that a node tells, on one connection after the other."""

import threading
from collections.abc import Iterator

import pytest

from orchestrator.chain import heads as heads_module
from orchestrator.chain.answers import hex_text
from orchestrator.chain.heads import Heads, check_hashes, parse_header
from orchestrator.chain.node import Node
from orchestrator.chain.rpc import RpcConnection
from orchestrator.errors import ChainMismatchError, ChainUnavailableError
from orchestrator.testing.scripted_node import Refusal, Subscribed
from tests.unit.chain.node_world import GENESIS, FakeNode, World, header_json


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


def with_field(name: str, value: object) -> dict[str, object]:
    return {**GENESIS, name: value}


@pytest.mark.parametrize(
    "header",
    [
        None,
        [],
        "0x",
        {},
        *(
            with_field("number", n)
            for n in (None, 5, "", "0x", "5", "0x1_0", "0x-1", "0x100000000")
        ),
        with_field("parentHash", "0x00"),
        with_field("stateRoot", "00" * 32),
        with_field("extrinsicsRoot", None),
        with_field("digest", None),
        with_field("digest", {}),
        with_field("digest", {"logs": "0x"}),
        with_field("digest", {"logs": [5]}),
        with_field("digest", {"logs": ["0x0"]}),
        with_field("digest", {"logs": ["0x00"] * 65}),
    ],
    ids=str,
)
def test_a_header_of_another_form_is_named(header: object) -> None:
    with pytest.raises(ChainMismatchError, match="the node sent"):
        parse_header(header)


def test_a_head_that_is_none_ends_the_connection(world: World, node: FakeNode) -> None:
    assert node.heads.finalized.number == 0

    world.node.notify("chain_subscribeFinalizedHeads", {"number": "0x" + "f" * 100_000})

    assert node.rpc.request("system_accountNextIndex", "any") == 0
    assert node.rpc.generation == 2


def test_the_finalized_head_never_goes_back(world: World, node: FakeNode) -> None:
    known = parse_header(header_json(5, bytes(32)))

    node.heads.note_finalized(known)
    node.heads.note_finalized(parse_header(GENESIS))

    assert node.heads.finalized == known
    assert node.heads.best == known


def test_the_best_head_may_be_above_the_finalized_one(world: World, node: FakeNode) -> None:
    best = header_json(7, bytes(32))

    world.node.notify("chain_subscribeNewHeads", best)
    node.rpc.request("state_getRuntimeVersion")  # answers come after what was said before

    assert node.heads.best.number == 7
    assert node.heads.finalized.number == 0


def test_a_lost_connection_is_made_anew_before_a_head_is_believed(
    world: World, node: FakeNode
) -> None:
    """Nothing else would notice: a head is known without asking."""
    assert node.heads.finalized.number == 0
    world.node.cut()
    assert not node.heads.wait_beyond(0, 30)
    world.include()

    assert node.heads.finalized.number == 1
    assert node.rpc.generation == 2


def test_a_node_that_tells_no_head_is_named(
    world: World, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heads_module, "_FIRST_SECONDS", 0.02)
    heads = Heads(node.rpc.ensure_connected)

    with pytest.raises(ChainUnavailableError, match="has not told its finalized head"):
        _ = heads.finalized


def test_waiting_ends_with_a_block_the_time_or_the_connection(world: World, node: FakeNode) -> None:
    assert not node.heads.wait_beyond(0, 0.01)

    timer = threading.Timer(0.01, world.include)
    timer.start()
    assert node.heads.wait_beyond(0, 30)
    timer.join()

    timer = threading.Timer(0.01, world.node.cut)
    timer.start()
    assert not node.heads.wait_beyond(9, 30)
    timer.join()


def test_hashes_that_are_computed_in_another_way_are_named(world: World) -> None:
    world.node.answers["chain_getFinalizedHead"] = hex_text(bytes(32))
    world.node.answers["chain_getHeader"] = GENESIS
    rpc = RpcConnection(world.node.url)

    with pytest.raises(ChainMismatchError, match="headers of a form that is not known"):
        check_hashes(rpc)

    rpc.close()


# What a new connection is asked before it is used.


def test_another_chain_behind_the_same_url_is_named(world: World, node: FakeNode) -> None:
    world.node.answers["chain_getBlockHash"] = hex_text(bytes(32))
    world.node.cut()

    with pytest.raises(ChainMismatchError, match="is on another chain now"):
        node.rpc.request("state_getRuntimeVersion")


@pytest.mark.parametrize("answer", [None, 5, "0x", "0x" + "00" * 31, "0x" + "zz" * 32, []], ids=str)
def test_a_genesis_hash_of_another_form_is_named(world: World, answer: object) -> None:
    world.node.answers["chain_getBlockHash"] = answer
    node = FakeNode(world)

    with pytest.raises(ChainMismatchError, match="a genesis hash"):
        node.open()

    node.close()


def test_what_is_no_substrate_node_is_named(world: World) -> None:
    world.node.answers["chain_getBlockHash"] = Refusal(-32601, "Method not found")
    node = FakeNode(world)

    with pytest.raises(ChainMismatchError, match="no Substrate node at ws://"):
        node.open()
    with pytest.raises(ChainUnavailableError, match="has not told its genesis hash"):
        _ = node.genesis_hash

    node.close()


@pytest.mark.parametrize(
    "version",
    [
        None,
        5,
        {},
        {"specName": "x", "specVersion": 1},
        {"specName": 5, "specVersion": 1, "transactionVersion": 1},
        {"specName": "x", "specVersion": "1", "transactionVersion": 1},
        {"specName": "x", "specVersion": 1, "transactionVersion": None},
    ],
    ids=str,
)
def test_a_runtime_version_of_another_form_is_named(world: World, version: object) -> None:
    world.node.answers["state_subscribeRuntimeVersion"] = Subscribed()
    world.version = version
    node = Node(world.node.url, timeout_seconds=5)

    with pytest.raises(ChainMismatchError, match="a runtime version of unknown form"):
        node.open()

    node.close()
