"""Chains for the port's suite: how each adapter is opened, and which accounts may send on it."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import pytest
from wasmtime import wat2wasm

from orchestrator.chain import Chain, ContractCall
from orchestrator.chain.devnode import DevNode
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.substrate import SubstrateChain
from orchestrator.crypto.keys import AccountKey
from orchestrator.errors import ContractError
from orchestrator.models import Account
from orchestrator.testing.chain import LocalAccount


@dataclass(frozen=True, kw_only=True)
class Harness:
    """
    One adapter.

    `reopen` gives another handle on the same chain, where there can be one. The *admin* can pay for
    everything, the *stranger* never sent anything and has no money. A chain may have been used by
    other tests: `salt` makes a contract another one than theirs.
    """

    chain: Chain
    reopen: Callable[[], Chain] | None
    admin: Account
    stranger: Account
    has_money: bool
    close: Callable[[], None]
    salt: bytes = field(default_factory=lambda: os.urandom(8))


def embedded_in_memory(_folder: Path, _request: pytest.FixtureRequest) -> Harness:
    return _embedded(EmbeddedChain(":memory:"), None)


def embedded_in_a_file(folder: Path, _request: pytest.FixtureRequest) -> Harness:
    path = folder / "dev.chain"
    return _embedded(EmbeddedChain(path), lambda: EmbeddedChain(path, create=False))


def _embedded(chain: EmbeddedChain, reopen: Callable[[], Chain] | None) -> Harness:
    return Harness(
        chain=chain,
        reopen=reopen,
        admin=LocalAccount.named("admin"),
        stranger=LocalAccount.named("stranger"),
        has_money=False,
        close=chain.close,
    )


def node(_folder: Path, request: pytest.FixtureRequest) -> Harness:
    running: DevNode = request.getfixturevalue("node")
    # One connection for the module: it takes half a second to learn the node's types.
    chain: SubstrateChain = request.getfixturevalue("node_chain")
    return Harness(
        chain=chain,
        reopen=lambda: SubstrateChain(running.url),
        admin=AccountKey.from_uri("//Alice"),
        stranger=AccountKey.generate(),
        has_money=True,
        close=lambda: None,
    )


HARNESSES = [embedded_in_memory, embedded_in_a_file, node]

# Keeps its input in a cell, emits it, and then does what its first byte says, deployed or called:
# 1 revert with it, 2 trap, anything else return it.
_PROBE = """
(module
  (import "seal0" "input" (func $input (param i32 i32)))
  (import "seal0" "seal_return" (func $return (param i32 i32 i32)))
  (import "seal0" "deposit_event" (func $event (param i32 i32 i32 i32)))
  (import "seal2" "set_storage" (func $set (param i32 i32 i32 i32) (result i32)))
  (import "env" "memory" (memory 2 16))
  (func $run
    (i32.store (i32.const 1020) (i32.const 1024))
    (call $input (i32.const 1024) (i32.const 1020))
    (drop (call $set
      (i32.const 0) (i32.const 4) (i32.const 1024) (i32.load (i32.const 1020))))
    (call $event (i32.const 0) (i32.const 0) (i32.const 1024) (i32.load (i32.const 1020)))
    (if (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 2)) (then unreachable))
    (call $return
      (i32.eq (i32.load8_u (i32.const 1024)) (i32.const 1))
      (i32.const 1024) (i32.load (i32.const 1020))))
  (func (export "deploy") (call $run))
  (func (export "call") (call $run)))
"""
RETURN, REVERT, TRAP = b"\0", b"\1", b"\2"


@cache
def probe_code() -> bytes:
    """Return the code of a contract that returns, reverts or traps as it is told."""
    return bytes(wat2wasm(_PROBE))


def probe_call(contract: bytes, data: bytes) -> ContractCall[bytes]:
    """Return a call of that contract, whose value is what it returned."""

    def decode(returned: bytes) -> bytes:
        if returned.startswith(REVERT):
            raise ContractError("Refused")
        return returned

    return ContractCall(contract=contract, label="probe", data=data, decode=decode)


def probe_constructor(data: bytes) -> ContractCall[None]:
    """Return its constructor."""

    def decode(returned: bytes) -> None:
        probe_call(b"", b"").decode(returned)

    return ContractCall(contract=bytes(32), label="new", data=data, decode=decode)
