"""The chain's file: what is no chain file is refused, and no failure leaves half a change."""

import os
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from orchestrator.chain import ContractCall, Cursor
from orchestrator.chain import file as file_module
from orchestrator.chain import machine as machine_module
from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.errors import ChainMismatchError, ChainUnavailableError, InputError
from orchestrator.testing.chain import LocalAccount

Deploy = Callable[..., bytes]
RawCall = Callable[..., ContractCall[bytes]]

# Writes 16 KiB under the key that is the input's first four bytes.
FILLER = """
  (call $read)
  (drop (call $set_storage (i32.const 1024) (i32.const 4) (i32.const 1024) (i32.const 16384)))
"""


# Reads a cell, writes it and emits an event.
REPORTER = """
  (i32.store (i32.const 4) (i32.const 8))
  (drop (call $get_storage (i32.const 0) (i32.const 4) (i32.const 8) (i32.const 4)))
  (drop (call $set_storage (i32.const 0) (i32.const 4) (i32.const 8) (i32.const 8)))
  (call $deposit_event (i32.const 0) (i32.const 0) (i32.const 8) (i32.const 8))
"""


def read_everything(
    chain: EmbeddedChain, address: bytes, call: ContractCall[bytes], account: LocalAccount
) -> None:
    chain.finalized_head()
    chain.now()
    chain.account(account.account_id)
    chain.events(address, after=Cursor(block=0, index=-1))
    chain.read(call)


@contextmanager
def database(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def test_a_file_is_made_whole_and_keeps_its_chain(tmp_path: Path) -> None:
    path = tmp_path / "dev.chain"
    first = EmbeddedChain(path)
    second = EmbeddedChain(str(path), create=False)

    assert second.genesis_hash == first.genesis_hash
    assert path.stat().st_mode & 0o777 == 0o644
    first.close()
    second.close()
    assert [entry.name for entry in tmp_path.iterdir()] == ["dev.chain"]


def test_readers_make_no_file(tmp_path: Path) -> None:
    path = tmp_path / "none.chain"

    with pytest.raises(InputError, match=r"none\.chain: no such chain file"):
        EmbeddedChain(path, create=False)

    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file or directory"):
        EmbeddedChain(tmp_path / "none" / "dev.chain")


def test_a_link_to_nothing(tmp_path: Path) -> None:
    path = tmp_path / "dev.chain"
    path.symlink_to(tmp_path / "none.chain")

    with pytest.raises(InputError, match=r"dev\.chain: No such file"):
        EmbeddedChain(path)


def test_a_folder_instead_of_a_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a file"):
        EmbeddedChain(tmp_path)


def test_a_pipe_instead_of_a_file(tmp_path: Path) -> None:
    """Opening one would wait for somebody to write."""
    path = tmp_path / "dev.chain"
    os.mkfifo(path)

    with pytest.raises(InputError, match=r"dev\.chain: not a file"):
        EmbeddedChain(path)


def test_a_file_that_can_not_be_written(chain_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda _path, mode: not mode & os.W_OK)

    with pytest.raises(InputError, match=r"dev\.chain: .* can't be read and written"):
        EmbeddedChain(chain_path)


def test_a_file_whose_code_was_exchanged(
    chain_path: Path, deploy: Deploy, raw_call: RawCall, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine_module, "_compiled", {})
    chain = EmbeddedChain(chain_path)
    address = deploy(FILLER, on=chain)
    machine_module._compiled.clear()
    with database(chain_path) as connection:
        connection.execute("UPDATE code SET wasm = x'0061736d'")

    with pytest.raises(ChainMismatchError, match="holds other code than that of hash"):
        chain.read(raw_call(address))
    chain.close()


def test_who_comes_second_takes_the_file_of_the_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dev.chain"
    first = EmbeddedChain(path)
    # As if the file had not been there a moment ago.
    monkeypatch.setattr(Path, "exists", lambda _path: False)
    second = EmbeddedChain(path)

    assert second.genesis_hash == first.genesis_hash
    first.close()
    second.close()


def test_a_file_that_can_not_be_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_source: object, _target: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with pytest.raises(ChainUnavailableError, match="Operation not permitted"):
        EmbeddedChain(tmp_path / "dev.chain")

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{}", os.urandom(5_000), b"SQLite format 3\0"],
    ids=["0", "json", "random", "short"],
)
def test_a_file_that_is_no_database(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "dev.chain"
    path.write_bytes(content)

    with pytest.raises(ChainMismatchError, match=r"dev\.chain: not a chain file"):
        EmbeddedChain(path)

    assert path.read_bytes() == content


def test_a_database_of_another_program(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    with database(path) as connection:
        connection.execute("CREATE TABLE job (id INTEGER)")

    with pytest.raises(ChainMismatchError, match="a database of another program"):
        EmbeddedChain(path)


def test_a_file_of_another_version(chain_path: Path) -> None:
    with database(chain_path) as connection:
        connection.execute("PRAGMA user_version = 2")

    with pytest.raises(ChainMismatchError, match="chain file of version 2, not 1"):
        EmbeddedChain(chain_path)


@pytest.mark.parametrize("statement", ["DELETE FROM chain", "DROP TABLE chain"])
def test_a_file_without_a_genesis(chain_path: Path, statement: str) -> None:
    with database(chain_path) as connection:
        connection.execute(statement)

    with pytest.raises(ChainMismatchError, match=r"genesis|damaged"):
        EmbeddedChain(chain_path)


def test_a_file_that_loses_its_head(chain_path: Path) -> None:
    chain = EmbeddedChain(chain_path)
    with database(chain_path) as connection:
        connection.execute("DELETE FROM chain")

    with pytest.raises(ChainMismatchError, match="without a head"):
        chain.finalized_head()
    chain.close()


@pytest.mark.parametrize("missing", [1, 4_095, 4_096, 8_193])
def test_a_file_that_is_cut_off(chain_path: Path, missing: int) -> None:
    content = chain_path.read_bytes()[:-missing]
    chain_path.write_bytes(content)

    with pytest.raises(ChainMismatchError, match=f"cut off: {len(content)} bytes|is damaged"):
        EmbeddedChain(chain_path)

    assert chain_path.read_bytes() == content


@pytest.mark.parametrize("length", [4_096, 513, 101, 99])
def test_the_beginning_of_a_file(chain_path: Path, length: int) -> None:
    chain_path.write_bytes(chain_path.read_bytes()[:length])

    with pytest.raises(ChainMismatchError, match=r"is damaged|not a chain file"):
        EmbeddedChain(chain_path)


def test_pages_that_are_still_in_the_wal_are_not_missing(
    chain_path: Path, deploy: Deploy, raw_call: RawCall, alice: LocalAccount
) -> None:
    length = chain_path.stat().st_size
    chain = EmbeddedChain(chain_path)
    address = deploy(FILLER, on=chain)
    chain.call(raw_call(address, b"aaaa"), signer=alice)
    assert chain_path.stat().st_size == length

    other = EmbeddedChain(chain_path, create=False)

    assert other.storage_stats(address).items == 1
    other.close()
    chain.close()


def test_a_file_that_is_taken_away_while_it_is_opened(
    chain_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = file_module._check_version

    def check_and_remove(connection: sqlite3.Connection, path: Path) -> None:
        check(connection, path)
        path.unlink()

    monkeypatch.setattr(file_module, "_check_version", check_and_remove)

    with pytest.raises(ChainUnavailableError, match=r"dev\.chain: No such file"):
        EmbeddedChain(chain_path)


# A whole number, bytes and a text that is not UTF-8 are stored in any column.
NO_BYTES = ["7", "'text'", "CAST(x'ff' AS TEXT)"]
NO_INTEGER = ["'text'", "-1", "1e30", "x'00'"]


@pytest.mark.parametrize("value", [*NO_BYTES, "x'00'", "zeroblob(33)"])
def test_a_genesis_that_is_none(chain_path: Path, value: str) -> None:
    with database(chain_path) as connection:
        connection.execute(f"UPDATE chain SET genesis = {value}")  # noqa: S608 - our own list

    with pytest.raises(ChainMismatchError, match=r"dev\.chain: .* damaged: chain\.genesis"):
        EmbeddedChain(chain_path)


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *(("chain.hash", value) for value in [*NO_BYTES, "x'00'"]),
        *(("block.hash", value) for value in [*NO_BYTES, "x'00'"]),
        *(("contract.code_hash", value) for value in [*NO_BYTES, "x'00'"]),
        *(("cell.value", value) for value in NO_BYTES),
        *(("code.wasm", value) for value in NO_BYTES),
        *(("event.topics", value) for value in [*NO_BYTES, "zeroblob(31)"]),
        *(("event.data", value) for value in NO_BYTES),
        *(("chain.number", value) for value in NO_INTEGER),
        *(("chain.timestamp", value) for value in NO_INTEGER),
        *(("chain.clock_offset", value) for value in NO_INTEGER),
        *(("block.timestamp", value) for value in NO_INTEGER),
        *(("account.nonce", value) for value in NO_INTEGER),
        # What is compared with the block asked for is one, or is not found at all.
        *(("event.position", value) for value in ["'text'", "1e30", "x'00'"]),
    ],
)
def test_a_value_of_another_type_is_damage(
    chain_path: Path,
    deploy: Deploy,
    raw_call: RawCall,
    alice: LocalAccount,
    monkeypatch: pytest.MonkeyPatch,
    column: str,
    value: str,
) -> None:
    """Whoever sends a chain file may have put anything into it."""
    monkeypatch.setattr(machine_module, "_compiled", {})
    chain = EmbeddedChain(chain_path)
    address = deploy(REPORTER, on=chain)
    chain.call(raw_call(address), signer=alice)
    machine_module._compiled.clear()
    table, name = column.split(".")
    with database(chain_path) as connection:
        connection.execute(f"UPDATE {table} SET {name} = {value}")  # noqa: S608 - our own list

    with pytest.raises(ChainMismatchError, match=f"dev.chain: .* damaged: {column} "):
        read_everything(chain, address, raw_call(address), alice)
    chain.close()


def test_a_key_that_is_no_bytes_is_damage(
    chain_path: Path, deploy: Deploy, raw_call: RawCall, alice: LocalAccount
) -> None:
    chain = EmbeddedChain(chain_path)
    address = deploy(REPORTER, on=chain)
    chain.call(raw_call(address), signer=alice)
    with database(chain_path) as connection:
        connection.execute("UPDATE cell SET key = 'text'")

    with pytest.raises(ChainMismatchError, match=r"damaged: cell\.key is no bytes"):
        chain.cell_sizes(address)
    chain.close()


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE chain SET number = 9223372036854775807",
        # There is a block of the next number already.
        "INSERT INTO block SELECT 1, hash, timestamp FROM block",
    ],
)
def test_a_head_that_can_not_be_followed_is_damage(
    chain_path: Path, alice: LocalAccount, statement: str
) -> None:
    chain = EmbeddedChain(chain_path)
    with database(chain_path) as connection:
        connection.execute(statement)
    head = chain.finalized_head()

    with pytest.raises(ChainMismatchError, match="the chain file is damaged"):
        chain.upload(load_bundle().code, signer=alice)

    assert chain.finalized_head() == head
    chain.close()


def test_a_corrupt_file(
    chain_path: Path, deploy: Deploy, raw_call: RawCall, alice: LocalAccount
) -> None:
    chain = EmbeddedChain(chain_path)
    address = deploy(FILLER, on=chain)
    for n in range(8):
        chain.call(raw_call(address, bytes([n] * 4)), signer=alice)
    chain.close()
    content = bytearray(chain_path.read_bytes())
    content[4_096:] = os.urandom(len(content) - 4_096)
    chain_path.write_bytes(content)

    with pytest.raises(ChainMismatchError, match="damaged"):
        EmbeddedChain(chain_path)


def test_a_locked_file_is_unavailable(
    chain_path: Path, deploy: Deploy, raw_call: RawCall, alice: LocalAccount
) -> None:
    chain = EmbeddedChain(chain_path, busy_timeout_seconds=0.05)
    address = deploy(FILLER, on=chain)
    with database(chain_path) as other:
        other.execute("BEGIN IMMEDIATE")

        with pytest.raises(ChainUnavailableError, match="keeps the chain file locked"):
            chain.call(raw_call(address, b"aaaa"), signer=alice)
        # Reading goes on meanwhile.
        assert chain.read(raw_call(address, b"aaaa")) == b""
        assert chain.finalized_head().number == 1

        other.execute("ROLLBACK")
    chain.call(raw_call(address, b"aaaa"), signer=alice)
    assert chain.finalized_head().number == 2
    chain.close()


def fill(
    chain: EmbeddedChain, raw_call: RawCall, address: bytes, account: LocalAccount, reason: str
) -> int:
    """Write until there is no room, and return how many calls were kept."""
    for kept in range(100):
        try:
            chain.call(raw_call(address, bytes([kept] * 4)), signer=account)
        except ChainUnavailableError as error:
            if reason not in str(error):
                raise
            return kept
    pytest.fail("there was room for everything")


def test_a_full_disk_leaves_nothing_half_written(
    chain_path: Path, deploy: Deploy, raw_call: RawCall, alice: LocalAccount
) -> None:
    chain = EmbeddedChain(chain_path)
    address = deploy(FILLER, on=chain)
    chain._state._connection.execute("PRAGMA max_page_count = 60")
    kept = fill(chain, raw_call, address, alice, "the disk is full; nothing was written")

    assert 0 < kept < 99
    assert chain.finalized_head().number == 1 + kept
    assert chain.storage_stats(address).items == kept
    chain._state._connection.execute("PRAGMA max_page_count = 100000")
    chain.call(raw_call(address, b"zzzz"), signer=alice)
    assert chain.storage_stats(address).items == kept + 1
    chain.close()


def test_a_file_that_may_not_grow_is_unavailable(
    chain_path: Path, deploy: Deploy, raw_call: RawCall, alice: LocalAccount
) -> None:
    """The operating system refuses the write: an I/O error, not SQLite's own limit."""
    chain = EmbeddedChain(chain_path)
    address = deploy(FILLER, on=chain)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        done = fill(chain, raw_call, address, alice, "")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert 0 < done < 99
    assert chain.storage_stats(address).items == done
    chain.close()
    again = EmbeddedChain(chain_path, create=False)
    assert again.storage_stats(address).items == done
    again.close()


def test_a_closed_chain_says_so(chain_path: Path) -> None:
    chain = EmbeddedChain(chain_path)
    chain.close()

    with pytest.raises(ChainUnavailableError):
        chain.finalized_head()


def test_a_log_left_behind_by_a_removed_file_is_not_taken_for_the_new_chains(
    tmp_path: Path,
) -> None:
    log = tmp_path / "chain.db-wal"
    log.write_bytes(b"old")

    with pytest.raises(InputError, match="remove it too"):
        EmbeddedChain(tmp_path / "chain.db")

    assert [path.name for path in tmp_path.iterdir()] == ["chain.db-wal"]
    assert log.read_bytes() == b"old"
