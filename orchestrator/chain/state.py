"""
The embedded chain's state: one SQLite file that several processes share.

Every change is one transaction under the file's write lock, so a process that is killed at any
moment leaves the file as it was before. Readers see one committed state and wait for nobody (WAL).
After a power cut the last transactions may be missing; the file is consistent (`synchronous` is
NORMAL: this is a development chain).
"""

import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkstemp
from typing import Any
from urllib.parse import quote

from orchestrator.errors import (
    ChainError,
    ChainMismatchError,
    ChainUnavailableError,
    InputError,
)

__all__ = ["FORMAT_VERSION", "Head", "State", "StorageStats"]

# "phjc" in ASCII, in SQLite's header: no other program's database is taken for a chain.
APPLICATION_ID = 0x70686A63
FORMAT_VERSION = 1

_SCHEMA = """
CREATE TABLE chain (
    id INTEGER PRIMARY KEY CHECK (id = 1), genesis BLOB NOT NULL, number INTEGER NOT NULL,
    hash BLOB NOT NULL, timestamp INTEGER NOT NULL, clock_offset INTEGER NOT NULL
);
CREATE TABLE block (number INTEGER PRIMARY KEY, hash BLOB NOT NULL, timestamp INTEGER NOT NULL);
CREATE TABLE account (id BLOB PRIMARY KEY, nonce INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE code (hash BLOB PRIMARY KEY, wasm BLOB NOT NULL);
CREATE TABLE contract (
    id INTEGER PRIMARY KEY, address BLOB NOT NULL UNIQUE, code_hash BLOB NOT NULL
);
CREATE TABLE cell (
    contract INTEGER NOT NULL, key BLOB NOT NULL, value BLOB NOT NULL, UNIQUE (contract, key)
);
CREATE TABLE event (
    contract INTEGER NOT NULL, block INTEGER NOT NULL, position INTEGER NOT NULL,
    topics BLOB NOT NULL, data BLOB NOT NULL, UNIQUE (contract, block, position)
);
"""

_SIZE_AT = 28
_HEADER_BYTES = 100
_CHECKPOINT_SECONDS = 2.0


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
        if path is None:
            self._connection = _connect(":memory:", busy_timeout_seconds)
            _initialize(self._connection, now)
        else:
            if not path.exists():
                _create(path, now, may_create=create)
            _check_file(path)
            with self._translated():
                self._connection = _connect(_uri(path), busy_timeout_seconds)
        try:
            with self._translated():
                self._check_version()
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
        return Head(number=row[0], hash=row[1], timestamp=row[2], clock_offset=row[3])

    def add_block(self, number: int, block_hash: bytes, timestamp: int) -> None:
        """Append a block, which becomes the head."""
        self._run("INSERT INTO block VALUES (?, ?, ?)", number, block_hash, timestamp)
        self._run(
            "UPDATE chain SET number = ?, hash = ?, timestamp = ?", number, block_hash, timestamp
        )

    def set_clock_offset(self, offset: int) -> None:
        """Store by how much the chain's clock is ahead."""
        self._run("UPDATE chain SET clock_offset = ?", offset)

    def nonce(self, account: bytes) -> int:
        """Return an account's next nonce."""
        row = self._one("SELECT nonce FROM account WHERE id = ?", account)
        return 0 if row is None else int(row[0])

    def use_nonce(self, account: bytes) -> None:
        """Count one transaction of the account."""
        self._run(
            "INSERT INTO account VALUES (?, 1) ON CONFLICT (id) DO UPDATE SET nonce = nonce + 1",
            account,
        )

    def code(self, code_hash: bytes) -> bytes | None:
        """Return uploaded code."""
        row = self._one("SELECT wasm FROM code WHERE hash = ?", code_hash)
        return None if row is None else bytes(row[0])

    def has_code(self, code_hash: bytes) -> bool:
        """Return whether code with this hash was uploaded."""
        return self._one("SELECT 1 FROM code WHERE hash = ?", code_hash) is not None

    def add_code(self, code_hash: bytes, code: bytes) -> None:
        """Keep uploaded code; the same code twice is kept once."""
        self._run("INSERT OR IGNORE INTO code VALUES (?, ?)", code_hash, code)

    def contract(self, address: bytes) -> tuple[int, bytes] | None:
        """Return a contract's number in this file and its code hash."""
        row = self._one("SELECT id, code_hash FROM contract WHERE address = ?", address)
        return None if row is None else (row[0], row[1])

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
        return None if row is None else bytes(row[0])

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
        return dict(rows.fetchall())

    def add_event(
        self, contract: int, block: int, position: int, topics: bytes, data: bytes
    ) -> None:
        """Append an event of the block that is being made."""
        self._run(
            "INSERT INTO event VALUES (?, ?, ?, ?, ?)", contract, block, position, topics, data
        )

    def events(self, contract: int, after: tuple[int, int], limit: int) -> list[StoredEvent]:
        """Return a contract's events after a block and position, in order."""
        rows = self._run(
            "SELECT event.block, block.hash, block.timestamp, event.position, event.topics,"
            " event.data FROM event JOIN block ON block.number = event.block"
            " WHERE event.contract = ? AND (event.block, event.position) > (?, ?)"
            " ORDER BY event.block, event.position LIMIT ?",
            contract,
            *after,
            limit,
        )
        return [
            StoredEvent(
                block=row[0],
                block_hash=row[1],
                timestamp=row[2],
                position=row[3],
                topics=row[4],
                data=row[5],
            )
            for row in rows
        ]

    @contextmanager
    def _transaction(self, begin: str) -> Iterator[None]:
        with self._translated():
            self._connection.execute(begin)
            try:
                yield
                self._connection.execute("COMMIT")
            except BaseException:
                # SQLite has rolled back by itself after some errors (a full disk is one).
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise _translate(error, self._shown) from error

    def _run(self, statement: str, *values: object) -> sqlite3.Cursor:
        return self._connection.execute(statement, values)

    def _one(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        row: tuple[Any, ...] | None = self._connection.execute(statement, values).fetchone()
        return row

    def _check_version(self) -> None:
        (application,) = self._one("PRAGMA application_id") or (0,)
        (version,) = self._one("PRAGMA user_version") or (0,)
        if application != APPLICATION_ID:
            message = f"{self._shown}: a database of another program, not a chain file"
            raise ChainMismatchError(message)
        if version != FORMAT_VERSION:
            message = f"{self._shown}: chain file of version {version}, not {FORMAT_VERSION}"
            raise ChainMismatchError(message)

    def _read_genesis(self) -> bytes:
        row = self._connection.execute("SELECT genesis FROM chain").fetchone()
        if row is None:
            message = f"{self._shown}: a chain file without a genesis hash"
            raise ChainMismatchError(message)
        return bytes(row[0])


def _connect(uri: str, busy_timeout_seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri,
        uri=True,
        timeout=busy_timeout_seconds,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=64,
    )
    connection.execute("PRAGMA synchronous = NORMAL")
    return connection


def _uri(path: Path) -> str:
    # `rw`: never make a file here; `_create` does that, whole or not at all.
    return f"file:{quote(str(path.absolute()))}?mode=rw"


def _initialize(connection: sqlite3.Connection, now: int) -> None:
    genesis = os.urandom(32)
    connection.executescript("BEGIN;" + _SCHEMA)
    connection.execute("INSERT INTO block VALUES (0, ?, ?)", (genesis, now))
    connection.execute("INSERT INTO chain VALUES (1, ?, 0, ?, ?, 0)", (genesis, genesis, now))
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    connection.execute(f"PRAGMA user_version = {FORMAT_VERSION}")
    connection.execute("COMMIT")


def _create(path: Path, now: int, *, may_create: bool) -> None:
    """Make a new chain file, whole or not at all; another process may be first, and wins."""
    if not may_create:
        message = f"{path}: no such chain file"
        raise InputError(message)
    try:
        handle, name = mkstemp(prefix=f".{path.name}.", dir=path.parent)
    except OSError as error:
        message = f"{path}: {error.strerror}"
        raise InputError(message) from error
    new = Path(name)
    try:
        os.close(handle)
        with closing(_connect(_uri(new), 1)) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            _initialize(connection, now)
        new.chmod(0o644)
        with suppress(FileExistsError):
            os.link(new, path)
    except (sqlite3.Error, OSError) as error:
        message = f"{path}: {error}"
        raise ChainUnavailableError(message) from error
    finally:
        for suffix in ("", "-wal", "-shm"):
            Path(name + suffix).unlink(missing_ok=True)


def _check_file(path: Path) -> None:
    """Refuse a file that is no database or shorter than its header says."""
    if not os.access(path, os.W_OK):
        message = f"{path}: the chain file can't be written to"
        raise InputError(message)
    deadline = time.monotonic() + _CHECKPOINT_SECONDS
    while True:
        try:
            with path.open("rb") as file:
                header = file.read(_HEADER_BYTES)
                length = os.fstat(file.fileno()).st_size
        except OSError as error:
            message = f"{path}: {error.strerror}"
            raise InputError(message) from error
        if len(header) < _HEADER_BYTES or not header.startswith(b"SQLite format 3\0"):
            message = f"{path}: not a chain file"
            raise ChainMismatchError(message)
        page = int.from_bytes(header[16:18], "big")
        pages = int.from_bytes(header[_SIZE_AT : _SIZE_AT + 4], "big")
        if length >= pages * (65_536 if page == 1 else page):
            return
        if time.monotonic() > deadline:
            message = f"{path}: the chain file is cut off: {length} bytes, {pages} pages expected"
            raise ChainMismatchError(message)
        # Another process may be writing its changes back this moment.
        time.sleep(0.01)


def _translate(error: sqlite3.Error, shown: str) -> ChainError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return ChainUnavailableError(f"{shown}: another process keeps the chain file locked")
    if code == sqlite3.SQLITE_FULL:
        return ChainUnavailableError(f"{shown}: the disk is full; nothing was written")
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
        return ChainMismatchError(f"{shown}: the chain file is damaged: {error}")
    return ChainUnavailableError(f"{shown}: {error}")
