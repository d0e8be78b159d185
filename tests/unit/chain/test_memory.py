"""Calls give back what they took."""

import gc
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.chain import ContractCall
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.testing.chain import LocalAccount

CALLS = 20_000
WRITER = """
  (call $read)
  (drop (call $set_storage (i32.const 0) (i32.const 4) (i32.const 1024) (i32.const 8)))
  (call $reply (i32.const 1024) (i32.const 8))
"""
LIMIT_BYTES_PER_CALL = 500


def resident() -> int:
    """Return the resident memory of this process in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    pytest.fail("no VmRSS in /proc/self/status")


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_twenty_thousand_calls_take_no_memory(
    chain_path: Path,
    deploy: Callable[..., bytes],
    raw_call: Callable[..., ContractCall[bytes]],
    alice: LocalAccount,
) -> None:
    """A host function that held the store would keep 10 KiB of every call."""
    chain = EmbeddedChain(chain_path)
    # Mostly calls that do next to nothing: what would be kept is the instance.
    idle = raw_call(deploy("(call $reply (i32.const 0) (i32.const 4))", on=chain))
    busy = raw_call(deploy(WRITER, on=chain), b"12345678")
    for _ in range(50):
        chain.batch([idle] * 10, signer=alice)
        chain.call(busy, signer=alice)
    gc.collect()
    before = resident()

    for _ in range(CALLS // 20):
        chain.batch([idle] * 18, signer=alice)
        chain.call(busy, signer=alice)
        chain.read(busy)
    gc.collect()

    grown = (resident() - before) / CALLS
    print(f"{grown:.0f} bytes a call")
    assert grown < LIMIT_BYTES_PER_CALL
    chain.close()
