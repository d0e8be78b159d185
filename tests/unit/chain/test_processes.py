"""Several processes on one chain file: serialised, nothing lost, nothing half done."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.chain import ContractCall, Cursor
from orchestrator.chain import file as file_module
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.errors import ChainMismatchError
from orchestrator.testing.chain import LocalAccount

Deploy = Callable[..., bytes]
RawCall = Callable[..., ContractCall[bytes]]

COUNTER = """
  (i32.store (i32.const 4) (i32.const 8))
  (drop (call $get_storage (i32.const 0) (i32.const 4) (i32.const 8) (i32.const 4)))
  (i64.store (i32.const 8) (i64.add (i64.load (i32.const 8)) (i64.const 1)))
  (drop (call $set_storage (i32.const 0) (i32.const 4) (i32.const 8) (i32.const 8)))
  (call $deposit_event (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 8))
  (call $reply (i32.const 8) (i32.const 8))
"""

_CHILD = """
import os, signal, sys
from pathlib import Path
from orchestrator.chain import ContractCall
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.testing.chain import LocalAccount

path, contract, name, times = sys.argv[1:]
account = LocalAccount.named(name)
call = ContractCall(contract=bytes.fromhex(contract), label="count", data=b"", decode=bytes)

class Dying(EmbeddedChain):
    def _before_commit(self):
        os.kill(os.getpid(), signal.SIGKILL)

if name == "dying":
    Dying(Path(path), create=False).call(call, signer=account)
elif name == "dying-inside":
    chain = EmbeddedChain(Path(path), create=False)
    chain._state.add_event = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    chain.call(call, signer=account)
elif name.startswith("reader"):
    chain = EmbeddedChain(Path(path), create=False)
    last = 0
    while last < int(times):
        now = int.from_bytes(chain.read(call), "little")
        assert now >= last, (now, last)
        last = now
else:
    chain = EmbeddedChain(Path(path), create=False)
    for _ in range(int(times)):
        chain.call(call, signer=account)
    chain.close()
"""


def start(path: Path, contract: bytes, name: str, times: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", _CHILD, str(path), contract.hex(), name, str(times)],
        stderr=subprocess.PIPE,
    )


def finish(process: subprocess.Popen[bytes]) -> tuple[int, str]:
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors.decode()


@pytest.fixture
def counter(chain_path: Path, deploy: Deploy) -> bytes:
    chain = EmbeddedChain(chain_path)
    address = deploy(COUNTER, on=chain)
    chain.close()
    return address


def value(path: Path, contract: bytes, raw_call: RawCall) -> int:
    """Return how often the contract was called."""
    chain = EmbeddedChain(path, create=False)
    count = int.from_bytes(chain.read(raw_call(contract)), "little") - 1
    chain.close()
    return count


@pytest.mark.parametrize("name", ["dying", "dying-inside"])
def test_a_process_killed_in_a_call_leaves_the_file_as_before(
    chain_path: Path, counter: bytes, raw_call: RawCall, alice: LocalAccount, name: str
) -> None:
    chain = EmbeddedChain(chain_path, create=False)
    chain.call(raw_call(counter), signer=alice)
    before = chain.finalized_head()

    code, _ = finish(start(chain_path, counter, name, 1))

    assert code == -signal.SIGKILL
    assert chain.finalized_head() == before
    assert value(chain_path, counter, raw_call) == 1
    assert chain.account(LocalAccount.named(name).account_id).nonce == 0
    assert len(chain.events(counter, after=Cursor(block=0, index=-1)).events) == 1
    # The lock died with the process.
    assert chain.call(raw_call(counter), signer=alice).block.number == before.number + 1
    chain.close()


def opened(path: Path) -> EmbeddedChain:
    return EmbeddedChain(path, create=False)


def opened_and_another_closed(path: Path) -> EmbeddedChain:
    EmbeddedChain(path, create=False).close()
    return opened(path)


def opened_and_another_refused(path: Path) -> EmbeddedChain:
    chain = opened(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_module, "FORMAT_VERSION", 2)
        with pytest.raises(ChainMismatchError, match="version 1, not 2"):
            EmbeddedChain(path)
    return chain


@pytest.mark.parametrize(
    "open_second", [opened, opened_and_another_closed, opened_and_another_refused]
)
def test_a_process_that_comes_and_goes_takes_nothing_from_two_instances_in_another(
    chain_path: Path,
    counter: bytes,
    raw_call: RawCall,
    alice: LocalAccount,
    open_second: Callable[[Path], EmbeddedChain],
) -> None:
    """SQLite's locks on a file end with any close of it in the process, not only with its own."""
    first = EmbeddedChain(chain_path, create=False)
    first.call(raw_call(counter), signer=alice)
    second = open_second(chain_path)

    for done in (2, 5):
        assert finish(start(chain_path, counter, "other", 1)) == (0, "")
        # A process that thinks it is the last one removes the WAL when it goes.
        assert chain_path.with_name(chain_path.name + "-wal").exists()
        for chain in (first, second):
            assert chain.finalized_head().number == done + 1
        for chain in (first, second):
            chain.call(raw_call(counter), signer=alice)

    first.close()
    assert finish(start(chain_path, counter, "other", 1)) == (0, "")
    assert second.finalized_head().number == 9
    second.close()
    assert value(chain_path, counter, raw_call) == 8


def test_a_chain_can_be_opened_while_others_write_and_write_back(
    chain_path: Path, counter: bytes, raw_call: RawCall
) -> None:
    times = 300
    writer = start(chain_path, counter, "writer", times)
    seen = [0]
    while seen[-1] < times:
        assert writer.poll() in (None, 0)
        seen.append(value(chain_path, counter, raw_call))

    assert finish(writer) == (0, "")
    assert seen == sorted(seen)


def test_two_processes_calling_at_once_lose_nothing(
    chain_path: Path, counter: bytes, raw_call: RawCall
) -> None:
    times = 200
    readers = [start(chain_path, counter, f"reader{n}", times) for n in range(2)]
    writers = [start(chain_path, counter, f"writer{n}", times) for n in range(2)]

    for process in writers + readers:
        assert finish(process) == (0, "")

    chain = EmbeddedChain(chain_path, create=False)
    events = chain.events(counter, after=Cursor(block=0, index=-1)).events
    assert value(chain_path, counter, raw_call) == 2 * times
    assert [int.from_bytes(event.data, "little") for event in events] == [*range(1, 2 * times + 1)]
    assert chain.finalized_head().number == 1 + 2 * times
    for name in ("writer0", "writer1"):
        assert chain.account(LocalAccount.named(name).account_id).nonce == times
    chain.close()
