"""
The embedded chain's state: one SQLite file that several processes share.

Every change is one transaction under the file's write lock, so a process that is killed at any
moment leaves the file as it was before. Readers see one committed state and wait for nobody (WAL).
After a power cut the last transactions may be missing; the file is consistent (`synchronous` is
NORMAL: this is a development chain).

Whoever sent a chain file may have put anything into it. SQLite stores a text where a column says
BLOB, so the type and length of each value that is read are checked here; what it says is not.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestrator.chain.file import open_file, open_memory, translated
from orchestrator.errors import ChainError, ChainMismatchError

__all__ = ["Head", "State", "StorageStats"]

_HASH_BYTES = 32
_MAX_INTEGER = (1 << 63) - 1


@dataclass(frozen=True, kw_only=True)
class Head:
    """The last block, and by how much (ms) the chain's clock is ahead."""

    number: int
    hash: bytes
    timestamp: int
    clock_offset: int


@dataclass(frozen=True, kw_only=True)
class StorageStats:
    """A contract's storage as pallet-contracts counts it for deposits: cells, bytes of values."""

    items: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class StoredEvent:
    """One event of a contract, with its block."""

    block: int
    block_hash: bytes
    timestamp: int
    position: int
    topics: bytes
    data: bytes


class State:
    """
    One connection to a chain's file, or to a chain in memory (*path* is `None`).

    Raises:
        InputError: There is no such file and *create* is not set, or the path can't be used.
        ChainMismatchError: The file is no chain file, damaged, or of another version.
        ChainUnavailableError: The file can't be opened now.
    """

    def __init__(
        self, path: Path | None, *, create: bool, now: int, busy_timeout_seconds: float
    ) -> None:
        self._shown = ":memory:" if path is None else str(path)
        self._connection = (
            open_memory(now)
            if path is None
            else open_file(path, create=create, now=now, busy_timeout_seconds=busy_timeout_seconds)
        )
        try:
            with translated(self._shown):
                self.genesis_hash = self._read_genesis()
        except ChainError:
            self._connection.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Make all reads inside see one committed state."""
        with self._transaction("BEGIN"):
            yield

    @contextmanager
    def writing(self) -> Iterator[None]:
        """
        Make all that is inside one change: all of it is kept, or nothing when anything raises.

        Raises:
            ChainUnavailableError: Another process kept the lock, or the disk is full.
        """
        with self._transaction("BEGIN IMMEDIATE"):
            yield

    def head(self) -> Head:
        """Return the last block."""
        row = self._one("SELECT number, hash, timestamp, clock_offset FROM chain")
        if row is None:
            message = f"{self._shown}: a chain file without a head"
            raise ChainMismatchError(message)
        return Head(
            number=self._integer(row[0], "chain.number"),
            hash=self._bytes(row[1], "chain.hash", _HASH_BYTES),
            timestamp=self._integer(row[2], "chain.timestamp"),
            clock_offset=self._integer(row[3], "chain.clock_offset"),
        )

    def add_block(self, number: int, block_hash: bytes, timestamp: int) -> None:
        """Append a block, which becomes the head."""
        self._run("INSERT INTO block VALUES (?, ?, ?)", number, block_hash, timestamp)
        self._run(
            "UPDATE chain SET number = ?, hash = ?, timestamp = ?", number, block_hash, timestamp
        )

    def block_hash(self, number: int) -> bytes | None:
        """Return the hash of a block."""
        row = self._one("SELECT hash FROM block WHERE number = ?", number)
        return None if row is None else self._bytes(row[0], "block.hash", _HASH_BYTES)

    def set_clock_offset(self, offset: int) -> None:
        """Store by how much the chain's clock is ahead."""
        self._run("UPDATE chain SET clock_offset = ?", offset)

    def nonce(self, account: bytes) -> int:
        """Return an account's next nonce."""
        row = self._one("SELECT nonce FROM account WHERE id = ?", account)
        return 0 if row is None else self._integer(row[0], "account.nonce")

    def use_nonce(self, account: bytes) -> None:
        """Count one transaction of the account."""
        self._run(
            "INSERT INTO account VALUES (?, 1) ON CONFLICT (id) DO UPDATE SET nonce = nonce + 1",
            account,
        )

    def code(self, code_hash: bytes) -> bytes | None:
        """Return uploaded code."""
        row = self._one("SELECT wasm FROM code WHERE hash = ?", code_hash)
        return None if row is None else self._bytes(row[0], "code.wasm")

    def has_code(self, code_hash: bytes) -> bool:
        """Return whether code with this hash was uploaded."""
        return self._one("SELECT 1 FROM code WHERE hash = ?", code_hash) is not None

    def add_code(self, code_hash: bytes, code: bytes) -> None:
        """Keep uploaded code; the same code twice is kept once."""
        self._run("INSERT OR IGNORE INTO code VALUES (?, ?)", code_hash, code)

    def contract(self, address: bytes) -> tuple[int, bytes] | None:
        """Return a contract's number in this file and its code hash."""
        row = self._one("SELECT id, code_hash FROM contract WHERE address = ?", address)
        if row is None:
            return None
        code_hash = self._bytes(row[1], "contract.code_hash", _HASH_BYTES)
        return self._integer(row[0], "contract.id"), code_hash

    def add_contract(self, address: bytes, code_hash: bytes) -> int:
        """Add a contract and return its number in this file."""
        cursor = self._run(
            "INSERT INTO contract (address, code_hash) VALUES (?, ?)", address, code_hash
        )
        return cursor.lastrowid or 0

    def set_code_hash(self, contract: int, code_hash: bytes) -> None:
        """Let a contract run other code."""
        self._run("UPDATE contract SET code_hash = ? WHERE id = ?", code_hash, contract)

    def cell(self, contract: int, key: bytes) -> bytes | None:
        """Return a storage cell."""
        row = self._one("SELECT value FROM cell WHERE contract = ? AND key = ?", contract, key)
        return None if row is None else self._bytes(row[0], "cell.value")

    def set_cell(self, contract: int, key: bytes, value: bytes | None) -> None:
        """Write or (`None`) delete a storage cell."""
        if value is None:
            self._run("DELETE FROM cell WHERE contract = ? AND key = ?", contract, key)
        else:
            self._run(
                "INSERT INTO cell VALUES (?, ?, ?)"
                " ON CONFLICT (contract, key) DO UPDATE SET value = excluded.value",
                contract,
                key,
                value,
            )

    def cell_sizes(self, contract: int) -> dict[bytes, int]:
        """Return the length of every cell's value, by key."""
        rows = self._run("SELECT key, length(value) FROM cell WHERE contract = ?", contract)
        return {
            self._bytes(key, "cell.key"): self._integer(size, "cell.value") for key, size in rows
        }

    def add_event(
        self, contract: int, block: int, position: int, topics: bytes, data: bytes
    ) -> None:
        """Append an event of the block that is being made."""
        self._run(
            "INSERT INTO event VALUES (?, ?, ?, ?, ?)", contract, block, position, topics, data
        )

    def events(self, contract: int, after: tuple[int, int], limit: int) -> list[StoredEvent]:
        """Return a contract's events after a block and position, at most *limit*, in order."""
        rows = self._run(
            "SELECT event.block, block.hash, block.timestamp, event.position, event.topics,"
            " event.data FROM event JOIN block ON block.number = event.block"
            " WHERE event.contract = ? AND (event.block, event.position) > (?, ?)"
            " ORDER BY event.block, event.position LIMIT ?",
            contract,
            # No event is beyond the numbers that SQLite has.
            *(max(-1, min(place, _MAX_INTEGER)) for place in after),
            min(limit, _MAX_INTEGER),
        )
        return [
            StoredEvent(
                block=self._integer(row[0], "event.block"),
                block_hash=self._bytes(row[1], "block.hash", _HASH_BYTES),
                timestamp=self._integer(row[2], "block.timestamp"),
                position=self._integer(row[3], "event.position"),
                topics=self._topics(row[4]),
                data=self._bytes(row[5], "event.data"),
            )
            for row in rows
        ]

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        with translated(self._shown):
            self._connection.execute(begin)
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors (a full disk is one).
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _run(self, statement: str, *values: object) -> sqlite3.Cursor:
        try:
            return self._connection.execute(statement, values)
        except OverflowError as error:
            # One more than the largest number: only in a file that somebody else wrote.
            raise self._damaged(f"a number that is too large: {error}") from error

    def _one(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
        return row

    def _integer(self, value: object, column: str) -> int:
        if not isinstance(value, int) or value < 0:
            raise self._damaged(f"{column} is no whole number from 0 up")
        return value

    def _bytes(self, value: object, column: str, length: int | None = None) -> bytes:
        if not isinstance(value, bytes):
            raise self._damaged(f"{column} is no bytes")
        if length is not None and len(value) != length:
            raise self._damaged(f"{column} has {len(value)} bytes, not {length}")
        return value

    def _topics(self, value: object) -> bytes:
        topics = self._bytes(value, "event.topics")
        if len(topics) % _HASH_BYTES:
            raise self._damaged(f"event.topics has {len(topics)} bytes, no whole topics")
        return topics

    def _damaged(self, reason: str) -> ChainMismatchError:
        return ChainMismatchError(f"{self._shown}: the chain file is damaged: {reason}")

    def _read_genesis(self) -> bytes:
        row = self._one("SELECT genesis FROM chain")
        if row is None:
            message = f"{self._shown}: a chain file without a genesis hash"
            raise ChainMismatchError(message)
        return self._bytes(row[0], "chain.genesis", _HASH_BYTES)
