"""The embedded chain: transactions, time, limits, and that nothing is kept of what failed."""

import sys
from collections.abc import Callable
from pathlib import Path
from threading import Thread

import pytest
from wasmtime import WasmtimeError

from orchestrator.chain import ContractCall, Cursor
from orchestrator.chain import machine as machine_module
from orchestrator.chain.embedded import EmbeddedChain, contract_address
from orchestrator.errors import (
    ChainMismatchError,
    ChainUnavailableError,
    ContractError,
    ContractTrappedError,
    InputError,
)
from orchestrator.testing.chain import FixedClock, LocalAccount

Deploy = Callable[..., bytes]
Build = Callable[..., bytes]
RawCall = Callable[..., ContractCall[bytes]]
START = Cursor(block=0, index=-1)

# Writes cell "\0\0\0\0" and one event, then does what the first byte of the input says:
# 0 return, 1 revert, 2 trap.
WRITER = """
  (call $read)
  (drop (call $set_storage (i32.const 0) (i32.const 4) (i32.const 1024) (i32.const 8)))
  (call $deposit_event (i32.const 0) (i32.const 0) (i32.const 1024) (i32.const 1))
  (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 1))
    (then (call $fail (i32.const 1024) (i32.const 2))))
  (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 2)) (then unreachable))
  (call $reply (i32.const 1024) (i32.const 2))
"""
# Adds one to the 8 bytes of a cell and returns them.
COUNTER = """
  (i32.store (i32.const 4) (i32.const 8))
  (drop (call $get_storage (i32.const 0) (i32.const 4) (i32.const 8) (i32.const 4)))
  (i64.store (i32.const 8) (i64.add (i64.load (i32.const 8)) (i64.const 1)))
  (drop (call $set_storage (i32.const 0) (i32.const 4) (i32.const 8) (i32.const 8)))
  (call $reply (i32.const 8) (i32.const 8))
"""


def refusing(data: bytes) -> bytes:
    """Decode as a codec does: what starts with 1 is a refusal."""
    if data.startswith(b"\1"):
        variant = "Refused"
        raise ContractError(variant)
    return data


def writer_call(contract: bytes, data: bytes) -> ContractCall[bytes]:
    return ContractCall(contract=contract, label="write", data=data, decode=refusing)


def snapshot(chain: EmbeddedChain, contract: bytes, account: LocalAccount) -> object:
    return (
        chain.finalized_head(),
        chain.cell_sizes(contract),
        chain.events(contract, after=START).events,
        chain.account(account.account_id),
    )


def test_what_a_call_did_is_kept(chain: EmbeddedChain, deploy: Deploy, alice: LocalAccount) -> None:
    address = deploy(WRITER)

    receipt = chain.call(writer_call(address, b"\0x"), signer=alice)

    assert receipt.value == b"\0x"
    assert receipt.fee == 0
    assert receipt.events[0].data == b"\0"
    assert chain.cell_sizes(address) == {bytes(4): 8}
    assert chain.storage_stats(address).items == 1
    assert chain.storage_stats(address).bytes == 8
    assert chain.account(alice.account_id).balance is None


@pytest.mark.parametrize(
    ("data", "error"), [(b"\1x", ContractError), (b"\2x", ContractTrappedError)]
)
def test_nothing_is_kept_of_a_revert_or_trap(
    chain: EmbeddedChain,
    deploy: Deploy,
    alice: LocalAccount,
    data: bytes,
    error: type[Exception],
) -> None:
    address = deploy(WRITER)
    before = snapshot(chain, address, alice)

    with pytest.raises(error):
        chain.call(writer_call(address, data), signer=alice)

    assert snapshot(chain, address, alice) == before


def test_a_revert_that_names_no_error(
    chain: EmbeddedChain, deploy: Deploy, raw_call: RawCall, alice: LocalAccount
) -> None:
    address = deploy(WRITER)
    before = snapshot(chain, address, alice)

    with pytest.raises(ChainMismatchError, match="raw: the contract reverted and named no error"):
        chain.call(raw_call(address, b"\1x"), signer=alice)

    assert snapshot(chain, address, alice) == before


def test_each_call_of_a_batch_has_its_own_overlay(
    chain: EmbeddedChain, deploy: Deploy, alice: LocalAccount
) -> None:
    address = deploy(WRITER)
    calls = [writer_call(address, data) for data in (b"\0a", b"\1bbbbbbbbb", b"\0c")]

    first, second, third = chain.batch(calls, signer=alice)

    assert isinstance(second, ContractError)
    assert not isinstance(first, ContractError)
    assert not isinstance(third, ContractError)
    assert [first.value, third.value] == [b"\0a", b"\0c"]
    assert [event.data for event in chain.events(address, after=START).events] == [b"\0", b"\0"]


def test_a_trap_in_a_batch_undoes_all_of_it(
    chain: EmbeddedChain, deploy: Deploy, alice: LocalAccount
) -> None:
    address = deploy(WRITER)
    before = snapshot(chain, address, alice)

    with pytest.raises(ContractTrappedError):
        chain.batch([writer_call(address, data) for data in (b"\0a", b"\2b")], signer=alice)

    assert snapshot(chain, address, alice) == before


def test_a_batch_of_refused_calls_makes_no_block(
    chain: EmbeddedChain, deploy: Deploy, alice: LocalAccount
) -> None:
    address = deploy(WRITER)
    before = snapshot(chain, address, alice)

    chain.batch([writer_call(address, b"\1")] * 2, signer=alice)

    assert snapshot(chain, address, alice) == before


def test_calls_of_a_batch_see_what_came_before(
    chain: EmbeddedChain, deploy: Deploy, raw_call: RawCall, alice: LocalAccount
) -> None:
    address = deploy(COUNTER)

    results = chain.batch([raw_call(address)] * 3, signer=alice)

    values = [
        int.from_bytes(r.value, "little") for r in results if not isinstance(r, ContractError)
    ]
    assert values == [1, 2, 3]
    assert chain.account(alice.account_id).nonce == 2


def test_a_cell_that_is_written_with_the_same_bytes_is_kept(
    chain: EmbeddedChain, deploy: Deploy, alice: LocalAccount
) -> None:
    address = deploy(WRITER)
    for _ in range(2):
        chain.call(writer_call(address, b"\0x"), signer=alice)

    assert chain.cell_sizes(address) == {bytes(4): 8}


def test_a_cleared_cell_is_gone(
    chain: EmbeddedChain, deploy: Deploy, raw_call: RawCall, alice: LocalAccount
) -> None:
    address = deploy(
        "(call $read) (if (i32.load8_u (i32.const 1024))"
        " (then (drop (call $set_storage"
        " (i32.const 0) (i32.const 4) (i32.const 0) (i32.const 5))))"
        " (else (drop (call $clear_storage (i32.const 0) (i32.const 4)))))"
    )
    chain.call(raw_call(address, b"\1"), signer=alice)
    assert chain.storage_stats(address).items == 1

    chain.call(raw_call(address, b"\0"), signer=alice)

    assert chain.storage_stats(address).items == 0


def test_a_constructor_that_refuses_leaves_nothing(
    chain: EmbeddedChain, build: Build, alice: LocalAccount
) -> None:
    head = chain.finalized_head()
    code = build("", deploy=WRITER)

    def decode(data: bytes) -> None:
        refusing(data)

    constructor = ContractCall(contract=bytes(32), label="new", data=b"\1", decode=decode)

    with pytest.raises(ContractError):
        chain.deploy(code, constructor, signer=alice)

    assert chain.finalized_head() == head
    assert chain.account(alice.account_id).nonce == 0


def test_an_endless_call_runs_out_of_fuel(
    chain: EmbeddedChain,
    deploy: Deploy,
    raw_call: RawCall,
    alice: LocalAccount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(machine_module, "FUEL_LIMIT", 1_000_000)
    address = deploy("(loop $again (br $again))")

    with pytest.raises(ContractTrappedError, match="OutOfGas: it ran for more than 1000000"):
        chain.call(raw_call(address), signer=alice)


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ("unreachable", "ContractTrapped: unreachable"),
        ("(drop (i32.div_u (i32.const 1) (i32.const 0)))", "integer division by zero"),
        ("(drop (i32.load (i32.const 2000000)))", "memory out of bounds"),
        ("(call $deep)", "stack overflow"),
    ],
)
def test_traps_are_named(
    chain: EmbeddedChain,
    deploy: Deploy,
    raw_call: RawCall,
    alice: LocalAccount,
    call: str,
    reason: str,
) -> None:
    address = deploy(call, rest="(func $deep (call $deep))")

    with pytest.raises(ContractTrappedError, match=f"raw trapped: .*{reason}"):
        chain.call(raw_call(address), signer=alice)


def test_a_data_segment_outside_of_the_memory_traps(
    chain: EmbeddedChain, build: Build, alice: LocalAccount
) -> None:
    code = build("", segments='(data (i32.const 131072) "x")')
    constructor = ContractCall(contract=bytes(32), label="new", data=b"", decode=lambda _: None)

    with pytest.raises(ContractTrappedError, match="new trapped: ContractTrapped"):
        chain.deploy(code, constructor, signer=alice)


def test_a_failure_of_the_host_is_not_the_contracts(
    chain: EmbeddedChain,
    deploy: Deploy,
    raw_call: RawCall,
    alice: LocalAccount,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    address = deploy(COUNTER)

    def interrupted(_contract: int, _key: bytes) -> bytes:
        raise KeyboardInterrupt

    monkeypatch.setattr(chain._state, "cell", interrupted)
    with pytest.raises(KeyboardInterrupt):
        chain.call(raw_call(address), signer=alice)
    monkeypatch.undo()

    assert chain.call(raw_call(address), signer=alice).value == (1).to_bytes(8, "little")


def test_time_is_the_clocks_and_never_goes_back(
    chain: EmbeddedChain, deploy: Deploy, alice: LocalAccount, clock: FixedClock
) -> None:
    address = deploy(WRITER)
    clock.advance(5)
    assert chain.now() == clock.now
    first = chain.call(writer_call(address, b"\0"), signer=alice).block
    assert first.timestamp == clock.now

    clock.now -= 1_000_000

    assert chain.now() == first.timestamp
    second = chain.call(writer_call(address, b"\0"), signer=alice).block
    assert second.timestamp == first.timestamp
    assert (second.number, second.hash != first.hash) == (first.number + 1, True)


def test_time_can_be_put_ahead_for_everybody(chain_path: Path, clock: FixedClock) -> None:
    first, second = (EmbeddedChain(chain_path, clock=clock) for _ in range(2))

    first.advance_time(1_000)
    second.advance_time(1)

    assert first.now() == second.now() == clock.now + 1_001
    assert first.finalized_head().number == 0
    first.close()
    second.close()


@pytest.mark.parametrize("milliseconds", [-1, 1 << 63])
def test_time_is_put_ahead_within_limits(chain: EmbeddedChain, milliseconds: int) -> None:
    before = chain.now()

    with pytest.raises(InputError, match="milliseconds: "):
        chain.advance_time(milliseconds)

    assert chain.now() == before


def test_time_put_ahead_to_the_end_stays_there(
    chain: EmbeddedChain, deploy: Deploy, alice: LocalAccount, clock: FixedClock
) -> None:
    address = deploy(WRITER)
    chain.advance_time((1 << 63) - 1 - clock.now)
    clock.advance(1)

    block = chain.call(writer_call(address, b"\0"), signer=alice).block

    assert block.timestamp == chain.now() == (1 << 63) - 1


def test_reads_see_the_time_of_now(
    chain: EmbeddedChain, deploy: Deploy, raw_call: RawCall, clock: FixedClock
) -> None:
    address = deploy(
        "(i32.store (i32.const 0) (i32.const 8)) (call $now (i32.const 8) (i32.const 0))"
        "(call $reply (i32.const 8) (i32.const 8))"
    )
    clock.advance(77)

    assert chain.read(raw_call(address)) == clock.now.to_bytes(8, "little")


def test_the_caller_of_a_read_is_nobody(
    chain: EmbeddedChain, deploy: Deploy, raw_call: RawCall
) -> None:
    address = deploy(
        "(i32.store (i32.const 0) (i32.const 32)) (call $caller (i32.const 8) (i32.const 0))"
        "(call $reply (i32.const 8) (i32.const 32))"
    )

    assert chain.read(raw_call(address)) == bytes(32)
    assert chain.dry_run(raw_call(address), caller=b"\7" * 32) == b"\7" * 32


@pytest.mark.parametrize(
    ("data", "salt", "expected"),
    [
        ("", "", "30dbadab79fa98db96ed1799d000690ddf0e094100f6739077bf389387fa2d27"),
        (
            "0102",
            "73616c74" * 20,
            "8cd2a538bf313cee14818f7623c675d3fbc7447d0635e0d3da46649f03fcd807",
        ),
    ],
)
def test_addresses_are_those_of_a_node(data: str, salt: str, expected: str) -> None:
    """Where substrate-contracts-node 0.42 put these contracts, deployed by its Alice."""
    alice = "d43593c715fdd31c61141abd04a99fd6822c8558854ccde39a5684e7a56da27d"
    code_hash = "4318bf9add830725edf0ff3c5f064a3aee455cb015ac560be9739deae4f700c7"

    address = contract_address(*map(bytes.fromhex, (alice, code_hash, data, salt)))

    assert address.hex() == expected


def test_a_contract_is_where_its_address_says(
    chain: EmbeddedChain, build: Build, alice: LocalAccount
) -> None:
    constructor = ContractCall(
        contract=bytes(32), label="new", data=b"\1\2", decode=lambda _data: None
    )

    deployment = chain.deploy(build(""), constructor, signer=alice, salt=b"salt")

    assert deployment.contract == contract_address(
        alice.account_id, deployment.code_hash, b"\1\2", b"salt"
    )
    assert deployment.fee == 0
    assert chain.code_hash(deployment.contract) == deployment.code_hash
    assert chain.finalized_head() == deployment.block


def test_there_is_nothing_where_there_is_no_contract(chain: EmbeddedChain) -> None:
    assert chain.storage_stats(bytes(32)).items == 0
    assert chain.events(bytes(32), after=START).events == ()


def test_a_cursor_from_the_future_stays(chain: EmbeddedChain) -> None:
    cursor = Cursor(block=1_000, index=5)

    assert chain.events(bytes(32), after=cursor).next == cursor


def test_chains_differ() -> None:
    chains = [EmbeddedChain(":memory:") for _ in range(2)]

    assert chains[0].genesis_hash != chains[1].genesis_hash
    assert chains[0].finalized_head().hash == chains[0].genesis_hash
    assert chains[0].now() > 1_700_000_000_000
    for chain in chains:
        chain.close()


def test_compiled_code_is_kept_for_some_contracts_only(
    chain: EmbeddedChain, deploy: Deploy, raw_call: RawCall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "_compiled", {})
    monkeypatch.setattr(machine_module, "_MAX_COMPILED", 2)
    addresses = [
        deploy(
            f"(i32.store8 (i32.const 0) (i32.const {n})) (call $reply (i32.const 0) (i32.const 1))"
        )
        for n in range(4)
    ]

    values = [chain.read(raw_call(address)) for address in addresses]

    assert values == [b"\0", b"\1", b"\2", b"\3"]
    assert len(machine_module._compiled) == 2


def test_no_memory_for_a_contract_is_not_the_contracts_fault(
    chain: EmbeddedChain, deploy: Deploy, raw_call: RawCall, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = deploy(COUNTER)

    def refused(_store: object, _kind: object) -> None:
        raise WasmtimeError("mmap failed")

    monkeypatch.setattr(machine_module, "Memory", refused)
    with pytest.raises(ChainUnavailableError, match="no memory to run the contract in"):
        chain.read(raw_call(address))


def test_chains_in_several_threads_do_not_mix_up_their_outcomes(build: Build) -> None:
    """wasmtime-py keeps the last exception of a host function in one place for all threads."""
    failures: list[str] = []

    def work(data: bytes) -> None:
        chain = EmbeddedChain(":memory:")
        alice = LocalAccount.named("Alice")
        constructor = ContractCall(contract=bytes(32), label="new", data=b"", decode=lambda _: None)
        address = chain.deploy(build(WRITER), constructor, signer=alice).contract
        expected = {0: data, 1: "ContractError", 2: "ContractTrappedError"}[data[0]]
        for _ in range(150):
            try:
                got: object = chain.dry_run(writer_call(address, data), caller=bytes(32))
            except (ContractError, ContractTrappedError) as error:
                got = type(error).__name__
            if got != expected:
                failures.append(f"{got!r} instead of {expected!r}")
        chain.close()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [Thread(target=work, args=(data,)) for data in (b"\0a", b"\1b", b"\2c", b"\0d")]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)

    assert failures == []
