"""What a call may make the host do: every function counts, and nothing is kept of what exceeds."""

import time
from collections.abc import Callable

import pytest

from orchestrator.chain import ContractCall, Cursor
from orchestrator.chain import host as host_module
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.errors import ContractTrappedError
from orchestrator.testing.chain import LocalAccount

Deploy = Callable[..., bytes]
RawCall = Callable[..., ContractCall[bytes]]

TIMES = 5
WORK = "OutOfGas: it made the host do more than .* units of work"
HELD = "OutOfGas: its cells and events are more than .* bytes"
NUMBER = "(i32.store (i32.const 0) (local.get $i))"
KEY = "(i32.const 0) (i32.const 4)"
CELLS = 10
EVENT = """
  (i32.store8 (i32.const 0) (i32.const 16))
  (call $deposit_event (i32.const 0) (i32.const 129) (i32.const 0) (i32.const 1000))
"""
SR25519 = """
  (drop (call $sr25519_verify
    (i32.const 0) (i32.const 0) (i32.const {length}) (i32.const 0)))
"""


def repeat(body: str, times: int, first: str = "") -> str:
    """Do *body* with `$i` from 0 up; forever where *times* is 0."""
    step = "(local.set $i (i32.add (local.get $i) (i32.const 1)))"
    again = f"(br_if $l (i32.lt_u (local.get $i) (i32.const {times})))" if times else "(br $l)"
    return f"(local $i i32) {first} (loop $l {body} {step} {again})"


def room(at: int, size: int) -> str:
    return f"(i32.store (i32.const {at}) (i32.const {size}))"


# What each costs by `chain.host`: 20,000 (80,000 for a signature), one for each byte that is
# copied, and what a byte costs to hash.
COSTS = [
    *(
        (f"{room(0, 32)} (call ${name} (i32.const 16) (i32.const 0))", 20_000 + size + 8)
        for name, size in (("caller", 32), ("address", 32), ("now", 8), ("value_transferred", 16))
    ),
    ("(call $read)", 20_000 + 16_000 + 8),
    (
        "(call $hash_blake2_256 (i32.const 0) (i32.const 1000) (i32.const 0))",
        20_000 + 3 * 1_000 + 32,
    ),
    (
        "(drop (call $ecdsa_recover (i32.const 0) (i32.const 0) (i32.const 0)))",
        80_000 + 65 + 32,
    ),
    (
        SR25519.format(length=1_000),
        80_000 + 96 + 5 * 1_000,
    ),
    ("(drop (call $set_code_hash (i32.const 0)))", 20_000 + 32),
    (f"(drop (call $contains_storage {KEY}))", 20_000 + 4),
    (f"(drop (call $clear_storage {KEY}))", 20_000 + 4),
    (f"(drop (call $set_storage {KEY} (i32.const 0) (i32.const 1000)))", 20_000 + 4 + 1_000),
    (
        room(0, 2_000)
        + "(drop (call $get_storage (i32.const 8) (i32.const 4) (i32.const 16) (i32.const 0)))",
        20_000 + 4 + 1_000 + 8,
    ),
    (
        EVENT,
        20_000 + 129 + 1_000,
    ),
]


@pytest.mark.parametrize(("body", "cost"), COSTS)
def test_each_function_costs_work(
    chain: EmbeddedChain,
    deploy: Deploy,
    raw_call: RawCall,
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    cost: int,
) -> None:
    # The cell that `get_storage` finds.
    stored = "(drop (call $set_storage (i32.const 8) (i32.const 4) (i32.const 0) (i32.const 1000)))"
    enough, too_often = (
        raw_call(deploy(repeat(body, times), deploy=stored), bytes(16_000))
        for times in (TIMES, TIMES + 1)
    )
    monkeypatch.setattr(host_module, "WORK_LIMIT", TIMES * cost)

    assert chain.read(enough) == b""
    with pytest.raises(ContractTrappedError, match=WORK):
        chain.read(too_often)
    monkeypatch.setattr(host_module, "WORK_LIMIT", TIMES * cost - 1)
    with pytest.raises(ContractTrappedError, match=WORK):
        chain.read(enough)


EACH = 256
HOLDS = [
    ("(drop (call $contains_storage (i32.const 0) (i32.const 5)))", EACH + 5),
    (f"(drop (call $contains_storage {KEY}))", EACH + 4 + 1_000),
    # Clearing or writing reads first.
    (f"(drop (call $clear_storage {KEY}))", 2 * (EACH + 4) + 1_000),
    (
        f"(drop (call $set_storage {KEY} (i32.const 0) (i32.const 2000)))",
        2 * (EACH + 4) + 1_000 + 2_000,
    ),
    (
        EVENT,
        EACH + 128 + 1_000,
    ),
]


@pytest.mark.parametrize(("body", "size"), HOLDS)
def test_cells_and_events_are_held(
    chain: EmbeddedChain,
    deploy: Deploy,
    raw_call: RawCall,
    monkeypatch: pytest.MonkeyPatch,
    body: str,
    size: int,
) -> None:
    write = f"(drop (call $set_storage {KEY} (i32.const 0) (i32.const 1000)))"
    enough, too_often = (
        raw_call(deploy(repeat(NUMBER + body, times), deploy=repeat(NUMBER + write, CELLS)))
        for times in (TIMES, TIMES + 1)
    )
    monkeypatch.setattr(host_module, "HELD_LIMIT", TIMES * size)

    assert chain.read(enough) == b""
    with pytest.raises(ContractTrappedError, match=HELD):
        chain.read(too_often)
    monkeypatch.setattr(host_module, "HELD_LIMIT", TIMES * size - 1)
    with pytest.raises(ContractTrappedError, match=HELD):
        chain.read(enough)


def test_a_cell_is_held_once_however_often_it_is_read(
    chain: EmbeddedChain, deploy: Deploy, raw_call: RawCall, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = deploy(repeat(f"(drop (call $contains_storage {KEY}))", 100))
    monkeypatch.setattr(host_module, "HELD_LIMIT", EACH + 4)

    assert chain.read(raw_call(address)) == b""


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("(call $hash_blake2_256 (i32.const 0) (i32.const 131072) (i32.const 0))", WORK),
        (
            SR25519.format(length=131_072),
            WORK,
        ),
        ("(drop (call $ecdsa_recover (i32.const 0) (i32.const 0) (i32.const 0)))", WORK),
        (
            "(call $deposit_event (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 16384))",
            HELD,
        ),
        ("(call $deposit_event (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))", HELD),
        (f"{NUMBER} (drop (call $set_storage {KEY} (i32.const 0) (i32.const 16384)))", HELD),
        (f"{NUMBER} (drop (call $contains_storage {KEY}))", HELD),
    ],
)
def test_an_endless_loop_of_host_calls_ends_soon_and_leaves_nothing(
    chain: EmbeddedChain,
    deploy: Deploy,
    raw_call: RawCall,
    alice: LocalAccount,
    body: str,
    reason: str,
) -> None:
    address = deploy(repeat(body, 0))
    before = chain.finalized_head()
    started = time.process_time()

    with pytest.raises(ContractTrappedError, match=reason):
        chain.call(raw_call(address), signer=alice)

    # About a second, and more on a busy machine.
    assert time.process_time() - started < 10
    assert chain.finalized_head() == before
    assert chain.cell_sizes(address) == {}
    assert chain.events(address, after=Cursor(block=0, index=-1)).events == ()
