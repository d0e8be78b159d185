"""
The embedded chain's file: how it is made, and what is refused before anything is read of it.

An existing file is opened by SQLite alone, here as everywhere in a process that has the chain
open. POSIX takes away all locks that a process holds on a file when the process closes any
descriptor of it, those of its SQLite connections too. Another process then takes itself for the
only one, writes the WAL back and removes it, and what is committed here afterwards is lost.
"""

import os
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from tempfile import mkstemp
from urllib.parse import quote

from orchestrator.errors import (
    ChainError,
    ChainMismatchError,
    ChainUnavailableError,
    InputError,
)

__all__ = ["FORMAT_VERSION", "open_file", "open_memory", "translated"]

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

_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (
    sqlite3.SQLITE_CORRUPT,
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
)


def open_memory(now: int) -> sqlite3.Connection:
    """Make a chain in memory."""
    connection = _connect(":memory:", 0)
    _initialize(connection, now)
    return connection


def open_file(
    path: Path, *, create: bool, now: int, busy_timeout_seconds: float
) -> sqlite3.Connection:
    """
    Open a chain's file, and make it when it is not there and *create* is set.

    Raises:
        InputError: There is no such file and *create* is not set, or the path can't be used.
        ChainMismatchError: The file is no chain file, cut off, or of another version.
        ChainUnavailableError: The file can't be opened now.
    """
    if not path.exists():
        _create(path, now, may_create=create)
    _check_path(path)
    with translated(str(path)):
        connection = _connect(_uri(path), busy_timeout_seconds)
        try:
            _check_version(connection, path)
            _check_length(connection, path)
        except BaseException:
            connection.close()
            raise
    return connection


@contextmanager
def translated(shown: str) -> Iterator[None]:
    """Turn errors of SQLite inside into ours; *shown* is the file's name."""
    try:
        yield
    except sqlite3.Error as error:
        raise _translate(error, shown) from error


def _connect(uri: str, busy_timeout_seconds: float) -> sqlite3.Connection:
    connection = sqlite3.connect(
        uri,
        uri=True,
        timeout=busy_timeout_seconds,
        isolation_level=None,
        check_same_thread=False,
        cached_statements=64,
    )
    # No column of ours holds text: what does is refused, whether it is UTF-8 or not.
    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    try:
        connection.execute("PRAGMA synchronous = NORMAL")
    except sqlite3.Error:
        connection.close()
        raise
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
    log = path.with_name(f"{path.name}-wal")
    if log.exists():
        # SQLite would take it for the new file's own and bring the old chain back.
        message = f"{path}: is gone, but {log.name} of the old chain is still there; remove it too"
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


def _check_path(path: Path) -> None:
    """Refuse what is no file to read and write, without opening it."""
    try:
        found = path.stat()
    except OSError as error:
        message = f"{path}: {error.strerror}"
        raise InputError(message) from error
    if not stat.S_ISREG(found.st_mode):
        message = f"{path}: not a file"
        raise InputError(message)
    if not os.access(path, os.R_OK | os.W_OK):
        message = f"{path}: the chain file can't be read and written"
        raise InputError(message)
    if found.st_size == 0:
        # SQLite would take it for a new database.
        message = f"{path}: not a chain file"
        raise ChainMismatchError(message)


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if application != APPLICATION_ID:
        message = f"{path}: a database of another program, not a chain file"
        raise ChainMismatchError(message)
    if version != FORMAT_VERSION:
        message = f"{path}: chain file of version {version}, not {FORMAT_VERSION}"
        raise ChainMismatchError(message)


def _check_length(connection: sqlite3.Connection, path: Path) -> None:
    """
    Refuse a file that ends inside its last page; SQLite sees when whole pages are missing.

    While there is a WAL, missing pages may be in there, and the length says nothing.
    """
    # No other process shortens the WAL or writes to the file itself while we read.
    connection.execute("BEGIN")
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    found = path.resolve()
    try:
        length = found.stat().st_size
    except OSError as error:
        # Somebody takes the file away this moment.
        message = f"{path}: {error.strerror}"
        raise ChainUnavailableError(message) from error
    wal = found.with_name(found.name + "-wal")
    has_frames = wal.exists() and wal.stat().st_size > 0
    connection.execute("COMMIT")
    if length < pages * page_bytes and not has_frames:
        message = f"{path}: the chain file is cut off: {length} bytes, {pages} pages expected"
        raise ChainMismatchError(message)


def _translate(error: sqlite3.Error, shown: str) -> ChainError:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _BUSY:
        return ChainUnavailableError(f"{shown}: another process keeps the chain file locked")
    if code == sqlite3.SQLITE_FULL:
        return ChainUnavailableError(f"{shown}: the disk is full; nothing was written")
    if code == sqlite3.SQLITE_NOTADB:
        return ChainMismatchError(f"{shown}: not a chain file")
    if code in _DAMAGED:
        return ChainMismatchError(f"{shown}: the chain file is damaged: {error}")
    return ChainUnavailableError(f"{shown}: {error}")
