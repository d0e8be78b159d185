"""Each transaction takes effect once, or is known to take none: whatever the node does."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from orchestrator.chain.answers import hex_text
from orchestrator.chain.extrinsics import Sender, read_block
from orchestrator.chain.heads import parse_header
from orchestrator.chain.runtime import ERA_BLOCKS, Call
from orchestrator.errors import (
    ChainError,
    ChainMismatchError,
    ChainUnavailableError,
    InsufficientFundsError,
    TooHeavyError,
)
from orchestrator.testing.chain import LocalAccount
from orchestrator.testing.scripted_node import CUT, SILENCE, Refusal, Subscribed
from tests.unit.chain.node_world import GENESIS, OUTDATED, FakeNode, World, header_json, read

ALICE = LocalAccount.named("Alice")
Open = Callable[..., Sender]


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    yield world
    world.node.close()


@pytest.fixture
def sender(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Open]:
    """Make senders with connections of their own, and pauses that take no time."""
    nodes: list[FakeNode] = []

    def make(*, finality_seconds: float = 5.0, timeout_seconds: float = 5.0) -> Sender:
        nodes.append(FakeNode(world, timeout_seconds=timeout_seconds))
        nodes[-1].rpc.open()
        monkeypatch.setattr(nodes[-1].rpc, "pause", lambda _seconds: None)
        return Sender(nodes[-1], finality_seconds=finality_seconds)

    yield make
    for node in nodes:
        node.close()


def call(name: object = "hello") -> Call:
    return Call(pallet="System", function="remark", arguments={"remark": name})


def refuse(code: int, data: object = None) -> Callable[[str], object]:
    return lambda _extrinsic: Refusal(code, "Invalid Transaction", data)


def test_a_transaction_is_final_when_it_is_returned(world: World, sender: Open) -> None:
    included = sender().send(call("one"), signer=ALICE)

    assert included.header.number == 1
    assert included.index == 0
    assert world.calls() == [{"remark": "one"}]


def test_a_transaction_is_mortal(world: World, sender: Open) -> None:
    """Trap B17: substrate-interface makes immortal transactions."""
    sender().send(call(), signer=ALICE)

    assert world.submitted[0]["birth"] == 0


def test_an_era_begins_a_block_before_the_last(world: World, sender: Open) -> None:
    """A pool that has not taken note of the last block yet would find the signature bad."""
    world.include()
    world.include()

    sender().send(call(), signer=ALICE)

    assert world.submitted[0]["birth"] == 1


def test_a_finished_subscription_costs_no_request(world: World, sender: Open) -> None:
    """Round trips: the node has ended it."""
    sending = sender()
    sending.send(call(), signer=ALICE)
    before = len(world.node.requests)

    sending.send(call(), signer=ALICE)

    asked = [method for method, _ in world.node.requests[before:]]
    assert asked == ["author_submitAndWatchExtrinsic", "chain_getBlock"]


# Nonces.


def test_calls_of_one_account_at_once_share_no_nonce(world: World, sender: Open) -> None:
    """Traps B15 and B16: eight threads, two connections, ten calls each; none lost or doubled."""
    senders = [sender(finality_seconds=60), sender(finality_seconds=60)]

    def work(thread: int) -> None:
        for number in range(10):
            senders[thread % 2].send(call([thread, number]), signer=ALICE)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    counted = Counter(json.dumps(one) for one in world.calls())
    assert len(counted) == 80
    assert set(counted.values()) == {1}


def test_a_nonce_counts_what_the_pool_has(world: World, sender: Open) -> None:
    """Trap B15: substrate-interface asks for the nonce at the best block."""
    mine = sender()
    mine.send(call(1), signer=ALICE)
    waiting = hex_text(json.dumps({"account": ALICE.account_id.hex(), "nonce": 1}).encode())
    world.pool.append(waiting)
    world.plans = [lambda extrinsic: Subscribed([{"finalized": world.include(waiting, extrinsic)}])]

    sender().send(call(2), signer=ALICE)

    assert world.submitted[-1]["nonce"] == 2


@pytest.mark.parametrize(
    "refusal",
    [OUTDATED, Refusal(1014, "Priority is too low: (1 vs 1)", "The transaction has too low")],
    ids=["stale", "priority too low"],
)
def test_a_nonce_that_others_have_used_is_read_anew(
    world: World, sender: Open, refusal: Refusal
) -> None:
    mine = sender()
    mine.send(call(1), signer=ALICE)
    other = hex_text(json.dumps({"account": ALICE.account_id.hex(), "call": "other"}).encode())

    def use_nonce(_extrinsic: str) -> object:
        world.include(other)
        return refusal

    world.plans = [use_nonce]

    mine.send(call(2), signer=ALICE)

    assert [one["nonce"] for one in world.submitted] == [0, 1, 2]
    assert world.calls() == [{"remark": 1}, "other", {"remark": 2}]


def test_others_that_use_every_nonce_are_named(world: World, sender: Open) -> None:
    world.plans = [refuse(1014)] * 50

    with pytest.raises(ChainUnavailableError, match="nothing was sent"):
        sender().send(call(), signer=ALICE)

    assert len(world.submitted) == 8


def test_after_a_doubt_that_stays_the_next_call_takes_the_nonce_that_is_free(
    world: World, sender: Open
) -> None:
    """A gap would hold everything that comes later."""
    mine = sender(finality_seconds=0.05)
    world.plans = [lambda _: Subscribed(["ready"])]
    world.resent = lambda _: Refusal(1016, "Immediately Dropped")
    with pytest.raises(ChainUnavailableError, match="it may take effect until block 64"):
        mine.send(call("lost"), signer=ALICE)

    mine.send(call("next"), signer=ALICE)

    assert [one["nonce"] for one in world.submitted] == [0, 0]
    assert world.calls() == [{"remark": "next"}]


def test_chains_behind_one_host_share_no_nonces(sender: Open) -> None:
    """A host may serve several, which are told apart by the rest of the URL."""
    mine, same, other = sender(), sender(), sender()
    other._rpc.url += "/other"

    assert mine._sequence(ALICE.account_id) is same._sequence(ALICE.account_id)
    assert mine._sequence(ALICE.account_id) is not other._sequence(ALICE.account_id)


def test_others_that_send_for_too_long_are_not_waited_for(world: World, sender: Open) -> None:
    is_sending, go_on = threading.Event(), threading.Event()

    def hold(extrinsic: str) -> object:
        is_sending.set()
        go_on.wait(10)
        return Subscribed([{"finalized": world.include(extrinsic)}])

    world.plans = [hold]
    slow, quick = sender(), sender(finality_seconds=0.05)
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(slow.send, call(1), signer=ALICE)
        is_sending.wait(10)
        with pytest.raises(ChainUnavailableError, match="nothing was sent: others are being sent"):
            quick.send(call(2), signer=ALICE)
        go_on.set()
        first.result(10)

    assert world.calls() == [{"remark": 1}]


@pytest.mark.parametrize("nonce", [None, "5", -1, 1 << 32, [], 1.5])
def test_a_nonce_of_another_form_is_named(world: World, sender: Open, nonce: object) -> None:
    world.node.answers["system_accountNextIndex"] = nonce

    with pytest.raises(ChainMismatchError, match="a nonce that is not of 32 bits"):
        sender().send(call(), signer=ALICE)


# What the node refuses.


@pytest.mark.parametrize(
    ("plan", "error", "words"),
    [
        (
            refuse(1010, "Inability to pay some fees (e.g. account balance too low)"),
            InsufficientFundsError,
            "can't pay the fee; nothing was sent",
        ),
        (
            refuse(1010, "Transaction would exhaust the block limits"),
            TooHeavyError,
            "nothing was sent",
        ),
        (refuse(1010, "Custom error: 7"), ChainError, "nothing was sent: .*Custom error: 7"),
        (refuse(1011, "No unsigned validator"), ChainError, "nothing was sent"),
        (refuse(-32603), ChainError, "nothing was sent"),
        (refuse(1010, "Transaction has a bad signature"), ChainError, "nothing was sent"),
    ],
    ids=["no funds", "too heavy", "custom", "unknown validity", "internal", "bad signature"],
)
def test_what_is_refused_for_good_is_named(
    world: World, sender: Open, plan: Callable[[str], object], error: type[ChainError], words: str
) -> None:
    world.plans = [plan] * 8

    with pytest.raises(error, match=words):
        sender().send(call(), signer=ALICE)

    assert world.calls() == []


@pytest.mark.parametrize("code", [1012, 1016], ids=["banned", "pool full"])
def test_a_pool_that_is_full_is_tried_again(world: World, sender: Open, code: int) -> None:
    world.plans = [refuse(code), refuse(code)]

    sender().send(call(), signer=ALICE)

    assert len(world.submitted) == 3
    assert len(world.calls()) == 1


@pytest.mark.parametrize("code", [1012, 1016], ids=["banned", "pool full"])
def test_a_pool_that_stays_full_is_named(world: World, sender: Open, code: int) -> None:
    world.plans = [refuse(code)] * 50

    with pytest.raises(ChainUnavailableError, match="nothing was sent"):
        sender(finality_seconds=60).send(call(), signer=ALICE)

    assert len(world.submitted) == 8


def test_there_is_no_time_for_another_attempt_at_a_full_pool(world: World, sender: Open) -> None:
    world.plans = [refuse(1016)] * 50

    with pytest.raises(ChainUnavailableError, match="nothing was sent"):
        sender(finality_seconds=0.2).send(call(), signer=ALICE)

    assert len(world.submitted) == 1


@pytest.mark.parametrize(
    "words", ["Transaction has a bad signature", "Transaction has an ancient birth block"]
)
def test_a_signature_for_another_runtime_is_made_anew(
    world: World, sender: Open, words: str
) -> None:
    """Trap B13: the runtime has changed since it was read."""
    mine = sender()

    def upgrade(_extrinsic: str) -> object:
        world.version = {"specName": "scripted", "specVersion": 2, "transactionVersion": 1}
        world.node.notify("state_subscribeRuntimeVersion", world.version)
        return Refusal(1010, "Invalid Transaction", words)

    world.plans = [upgrade]
    mine._node.runtime()

    included = mine.send(call(), signer=ALICE)

    assert len(world.submitted) == 2
    assert included.runtime.version.spec_version in (1, 2)
    assert isinstance(mine._node, FakeNode)
    assert mine._node.read_anew == 2  # when it connected, and when it was refused


def test_what_the_node_has_already_is_followed(world: World, sender: Open) -> None:
    def already(extrinsic: str) -> object:
        world.include(extrinsic)
        return Refusal(1013, "Transaction Already Imported")

    world.plans = [already]

    assert sender().send(call(), signer=ALICE).header.number == 1
    assert len(world.submitted) == 1


# Refusals that were none.


@pytest.mark.parametrize(
    "refusal",
    [
        OUTDATED,
        Refusal(1014, "Priority is too low: (1 vs 1)"),
        Refusal(1010, "Invalid Transaction", "Inability to pay some fees"),
        Refusal(1010, "Invalid Transaction", "Transaction would exhaust the block limits"),
        Refusal(-32603, "Internal error: request timed out"),
    ],
    ids=["stale", "priority too low", "no funds", "too heavy", "internal"],
)
def test_what_was_taken_and_is_called_refused_is_found(
    world: World, sender: Open, refusal: Refusal
) -> None:
    def take(extrinsic: str) -> object:
        world.include(extrinsic)
        return refusal

    world.plans = [take]

    assert sender().send(call(), signer=ALICE).header.number == 1
    assert len(world.submitted) == 1


def test_a_refusal_is_doubted_while_nobody_tells_the_nonces(world: World, sender: Open) -> None:
    mine = sender(timeout_seconds=0.2)

    def take(extrinsic: str) -> object:
        world.include(extrinsic)
        world.node.answers["system_accountNextIndex"] = SILENCE
        return Refusal(-32603, "Internal error")

    world.plans = [take]

    assert mine.send(call(), signer=ALICE).header.number == 1
    assert len(world.submitted) == 1


# Doubt.

ENDED = ["invalid", "dropped", {"usurped": "0x00"}, {"finalityTimeout": "0x00"}]


@pytest.mark.parametrize("status", ENDED, ids=str)
def test_a_status_that_ends_is_doubted_and_the_transaction_found(
    world: World, sender: Open, status: object
) -> None:
    """Trap B14: substrate-interface waits for ever. It is in a block all the same."""

    def include(extrinsic: str) -> object:
        world.include()
        world.include(extrinsic)
        world.include()
        return Subscribed(["ready", status])

    world.plans = [include]

    assert sender().send(call(), signer=ALICE).header.number == 2
    assert len(world.calls()) == 1
    assert world.node.count("author_unwatchExtrinsic") == 0


@pytest.mark.parametrize("status", ENDED, ids=str)
def test_a_status_that_ends_is_doubted_and_the_transaction_sent_again(
    world: World, sender: Open, status: object
) -> None:
    """Trap B14: it is nowhere; the same bytes can't take effect twice."""
    world.plans = [lambda _: Subscribed([status])]

    sender().send(call(), signer=ALICE)

    assert world.node.count("author_submitAndWatchExtrinsic") == 1
    assert world.node.count("author_submitExtrinsic") == 1
    assert len(world.calls()) == 1


@pytest.mark.parametrize("status", ENDED, ids=str)
def test_a_transaction_whose_place_another_took_is_signed_anew(
    world: World, sender: Open, status: object
) -> None:
    """Trap B14: its nonce is used and it is in no block, so it takes no effect ever."""
    other = hex_text(json.dumps({"account": ALICE.account_id.hex(), "call": "other"}).encode())

    def replace(_extrinsic: str) -> object:
        world.include(other)
        return Subscribed([status])

    world.plans = [replace]

    sender().send(call(), signer=ALICE)

    assert world.calls() == ["other", {"remark": "hello"}]
    assert [one["nonce"] for one in world.submitted] == [0, 1]


def test_a_transaction_whose_era_is_over_is_signed_anew(world: World, sender: Open) -> None:
    def forget(_extrinsic: str) -> object:
        for _ in range(ERA_BLOCKS + 1):
            world.include()
        return Subscribed(["dropped"])

    world.plans = [forget]
    world.resent = lambda _: SILENCE

    sender().send(call(), signer=ALICE)

    assert [one["nonce"] for one in world.submitted] == [0, 0]
    assert len(world.calls()) == 1


def test_blocks_that_can_not_hold_it_are_not_looked_at(world: World, sender: Open) -> None:
    """However high a node says that its chain is."""
    asked: list[object] = []
    genesis = world.head_hash

    def block_hash(number: object) -> object:
        asked.append(number)
        return genesis if number in range(ERA_BLOCKS + 1) else Refusal(1, "too far")

    def be_high(_extrinsic: str) -> object:
        high = header_json(10**6, bytes(32))
        world.by_hash[hex_text(parse_header(high).hash)] = world.blocks[0]
        world.node.notify("chain_subscribeFinalizedHeads", high)
        return Subscribed(["dropped"])

    world.plans = [be_high]
    world.node.answers["chain_getBlockHash"] = block_hash
    world.resent = lambda _: SILENCE

    sender(timeout_seconds=0.2).send(call(), signer=ALICE)

    assert asked[-ERA_BLOCKS:] == list(range(1, ERA_BLOCKS + 1))


def test_a_nonce_that_others_keep_using_is_named(world: World, sender: Open) -> None:
    other = hex_text(json.dumps({"account": ALICE.account_id.hex(), "call": "other"}).encode())

    def replace(_extrinsic: str) -> object:
        world.include(other)
        return Subscribed(["dropped"])

    world.plans = [replace] * 50

    with pytest.raises(ChainUnavailableError, match="others keep using its nonces"):
        sender().send(call(), signer=ALICE)


@pytest.mark.parametrize("is_included", [True, False])
def test_a_connection_that_is_lost_while_sending_loses_and_doubles_nothing(
    world: World, sender: Open, is_included: bool
) -> None:
    def cut(extrinsic: str) -> object:
        if is_included:
            world.include(extrinsic)
        return CUT

    world.plans = [cut]

    sender().send(call(), signer=ALICE)

    assert world.calls() == [{"remark": "hello"}]
    assert world.node.count("author_submitAndWatchExtrinsic") == 1


def test_a_connection_that_is_lost_while_waiting_loses_nothing(world: World, sender: Open) -> None:
    def cut_later(extrinsic: str) -> object:
        threading.Timer(0.01, world.node.cut).start()
        world.include(extrinsic)
        return Subscribed(["ready"])

    world.plans = [cut_later]

    assert sender().send(call(), signer=ALICE).header.number == 1


def test_a_node_that_says_nothing_more_is_left_in_time(world: World, sender: Open) -> None:
    world.plans = [lambda _: Subscribed(["future"])]
    world.resent = lambda _: SILENCE
    mine = sender(finality_seconds=0.05, timeout_seconds=0.2)

    with pytest.raises(ChainUnavailableError, match="nothing is known of transaction 0"):
        mine.send(call(), signer=ALICE)

    assert world.node.count("author_unwatchExtrinsic") == 1


def test_a_node_that_says_too_much_is_left_in_time(world: World, sender: Open) -> None:
    world.plans = [lambda _: Subscribed(["ready"] * 900)]
    world.resent = lambda _: OUTDATED
    begun = time.monotonic()

    with pytest.raises(ChainUnavailableError, match="outdated"):
        sender(finality_seconds=0.05).send(call(), signer=ALICE)

    assert time.monotonic() - begun < 5


@pytest.mark.parametrize(
    "status",
    [
        None,
        [],
        5,
        "",
        {},
        {"inBlock": 5},
        ["finalized"],
    ],
    ids=str,
)
def test_a_status_of_another_form_is_passed_over(
    world: World, sender: Open, status: object
) -> None:
    world.plans = [lambda extrinsic: Subscribed([status, {"finalized": world.include(extrinsic)}])]

    assert sender().send(call(), signer=ALICE).header.number == 1


@pytest.mark.parametrize("block_hash", [None, "0x", "0x12", 5, hex_text(bytes(32)), "finalized"])
def test_a_finalized_block_that_is_none_is_doubted(
    world: World, sender: Open, block_hash: object
) -> None:
    def lie(extrinsic: str) -> object:
        world.include(extrinsic)
        return Subscribed([{"finalized": block_hash}])

    world.plans = [lie]
    find = world.node.answers["chain_getBlock"]
    assert callable(find)
    world.node.answers["chain_getBlock"] = lambda one: (
        None if one == hex_text(bytes(32)) else find(one)
    )

    assert sender().send(call(), signer=ALICE).header.number == 1
    assert len(world.submitted) == 1


def test_a_finalized_block_without_the_transaction_is_doubted(world: World, sender: Open) -> None:
    def lie(extrinsic: str) -> object:
        empty = world.include()
        world.include(extrinsic)
        return Subscribed([{"finalized": empty}])

    world.plans = [lie]

    assert sender().send(call(), signer=ALICE).header.number == 2


def test_another_block_than_was_asked_for_is_not_believed(world: World, sender: Open) -> None:
    mine = sender(finality_seconds=0.05)

    def lie(extrinsic: str) -> object:
        block = world.include(extrinsic)
        other = {"header": header_json(1, bytes(32), salt=9), "extrinsics": [extrinsic]}
        world.node.answers["chain_getBlock"] = {"block": other}
        return Subscribed([{"finalized": block}])

    world.plans = [lie]

    with pytest.raises(ChainUnavailableError, match="another block than was asked for"):
        mine.send(call(), signer=ALICE)


@pytest.mark.parametrize(
    "block",
    [
        5,
        {},
        {"block": None},
        {"block": {"header": GENESIS}},
        {"block": {"header": GENESIS, "extrinsics": {}}},
        {"block": {"header": GENESIS, "extrinsics": [5]}},
        {"block": {"header": {}, "extrinsics": []}},
    ],
)
def test_a_block_of_another_form_is_named(block: object) -> None:
    with pytest.raises(ChainMismatchError, match="the node sent"):
        read_block(block)


def test_a_block_that_the_node_does_not_have_is_named() -> None:
    with pytest.raises(ChainUnavailableError, match="does not have the block"):
        read_block(None)


# Waiting for what is on its way.


def test_nothing_is_on_its_way_of_an_account_that_never_sent(sender: Open) -> None:
    sender().wait_for_pending(ALICE.account_id, timeout_seconds=0)


def test_waits_until_what_is_on_its_way_is_final(world: World, sender: Open) -> None:
    mine = sender()
    mine.send(call(1), signer=ALICE)
    waiting = hex_text(json.dumps({"account": ALICE.account_id.hex(), "call": 2}).encode())
    world.pool.append(waiting)

    def include() -> None:
        with world.lock:
            world.pool.clear()
            world.include(waiting)

    timer = threading.Timer(0.02, include)
    timer.start()
    mine.wait_for_pending(ALICE.account_id, timeout_seconds=30)

    assert read(waiting)["call"] in world.calls()
    timer.join()


def test_what_stays_on_its_way_is_named(world: World, sender: Open) -> None:
    mine = sender()
    mine.send(call(1), signer=ALICE)
    world.pool.append(hex_text(json.dumps({"account": ALICE.account_id.hex()}).encode()))

    with pytest.raises(ChainUnavailableError, match=r"on their way for more than 0\.01 s"):
        mine.wait_for_pending(ALICE.account_id, timeout_seconds=0.01)


@pytest.mark.parametrize("is_used", [True, False], ids=["nonce used", "era over"])
def test_what_was_given_up_is_in_doubt_until_it_can_not_be_included(
    world: World, sender: Open, is_used: bool
) -> None:
    mine, other = sender(finality_seconds=0.05), sender()
    world.plans = [lambda _: Subscribed(["future"])]
    world.resent = lambda _: OUTDATED
    with pytest.raises(ChainUnavailableError, match="nothing is known of transaction 0"):
        mine.send(call(), signer=ALICE)

    def is_settled(nonce: int) -> bool:
        # Whoever asks: it is the process that remembers.
        other._heads.wait_beyond(len(world.blocks) - 2, 5)
        return other.is_settled(ALICE.account_id, nonce)

    # Up to the last block of its era.
    for _ in range(1 if is_used else ERA_BLOCKS):
        world.include()
    assert not is_settled(0)
    taken = hex_text(json.dumps({"account": ALICE.account_id.hex(), "call": "other"}).encode())
    world.include(*[taken] * is_used)

    assert is_settled(int(is_used))
    assert not is_settled(int(is_used) + 1)


def test_who_starts_anew_takes_the_first_nonce_that_is_free(world: World, sender: Open) -> None:
    mine = sender()
    mine.send(call(1), signer=ALICE)
    mine._sequence(ALICE.account_id).next = 7

    assert mine.start_anew(ALICE.account_id) == 1
    mine.send(call(2), signer=ALICE)

    assert world.submitted[-1]["nonce"] == 1


@pytest.mark.parametrize("account", [[], {}, {"nonce": "1"}, 5, None])
def test_an_account_of_another_form_is_named(world: World, sender: Open, account: object) -> None:
    world.node.answers["state_getStorage"] = hex_text(json.dumps(account).encode())

    with pytest.raises(ChainMismatchError, match="accounts have no nonce"):
        sender().wait_for_pending(ALICE.account_id, timeout_seconds=0)
