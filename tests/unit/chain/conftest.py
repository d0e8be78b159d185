"""Small contracts in WebAssembly text, and chains to run them on."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from orchestrator.chain import ContractCall
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.host import HOST_FUNCTIONS
from orchestrator.testing.chain import FixedClock, LocalAccount

ALICE = LocalAccount.named("Alice")

_IMPORTS = "".join(
    f'(import "{module}" "{name}" (func ${name} (param{" i32" * function.parameters})'
    + (" (result i32)" if function.results else "")
    + "))\n"
    for (module, name), function in HOST_FUNCTIONS.items()
)
_PRELUDE = """
  (func $reply (param i32 i32)
    (call $seal_return (i32.const 0) (local.get 0) (local.get 1)) unreachable)
  (func $fail (param i32 i32)
    (call $seal_return (i32.const 1) (local.get 0) (local.get 1)) unreachable)
  (func $read
    (i32.store (i32.const 1020) (i32.const 16384))
    (call $input (i32.const 1024) (i32.const 1020)))
"""

BuildWasm = Callable[..., bytes]
RawCall = Callable[..., ContractCall[bytes]]


def _build(call: str, *, deploy: str = "", segments: str = "", rest: str = "") -> bytes:
    """
    Return the code of a contract that imports every host function.

    `$reply` returns bytes of the memory, `$fail` reverts with them, `$read` reads the input to
    address 1024 and leaves its length at 1020.
    """
    text = (
        f'(module {_IMPORTS} (import "env" "memory" (memory 2 16)) {_PRELUDE} {rest}'
        f' (func (export "deploy") {deploy}) (func (export "call") {call}) {segments})'
    )
    return bytes(wat2wasm(text))


@pytest.fixture
def build() -> BuildWasm:
    return _build


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def alice() -> LocalAccount:
    return ALICE


@pytest.fixture
def chain(clock: FixedClock) -> Iterator[EmbeddedChain]:
    chain = EmbeddedChain(":memory:", clock=clock)
    yield chain
    chain.close()


@pytest.fixture
def chain_path(tmp_path: Path, clock: FixedClock) -> Path:
    path = tmp_path / "dev.chain"
    EmbeddedChain(path, clock=clock).close()
    return path


@pytest.fixture
def raw_call() -> RawCall:
    """Return a call whose value is the returned bytes."""

    def make(contract: bytes, data: bytes = b"", label: str = "raw") -> ContractCall[bytes]:
        return ContractCall(contract=contract, label=label, data=data, decode=bytes)

    return make


@pytest.fixture
def deploy(chain: EmbeddedChain, build: BuildWasm) -> Callable[..., bytes]:
    """Deploy a contract given as for `build` and return its address."""

    def run(call: str, *, on: EmbeddedChain | None = None, **parts: str) -> bytes:
        constructor = ContractCall(
            contract=bytes(32), label="new", data=b"", decode=lambda _data: None
        )
        target = on or chain
        salt = target.finalized_head().number.to_bytes(8, "little")
        code = build(call, **parts)
        return target.deploy(code, constructor, signer=ALICE, salt=salt).contract

    return run


@pytest.fixture
def execute(
    chain: EmbeddedChain, deploy: Callable[..., bytes], raw_call: RawCall
) -> Callable[..., bytes]:
    """Deploy a contract, call it once and return what it returned."""

    def run(call: str, data: bytes = b"", **parts: str) -> bytes:
        address = deploy(call, **parts)
        return chain.call(raw_call(address, data), signer=ALICE).value

    return run
