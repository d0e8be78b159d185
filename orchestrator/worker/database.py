"""
The worker's one database file.

Writes go through one thread, which commits together what has come in together, and flushes to disk
before it says that anything is written.
"""

import contextlib
import os
import queue
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TypeAlias, TypeVar

from orchestrator.errors import BlobUnavailableError, ConfigError

__all__ = ["Database"]

T = TypeVar("T")

_VERSION = 2
# "phjw": tells the file from any other SQLite file.
_APPLICATION_ID = 0x70686A77
_MAX_BATCH = 64
_BUSY_SECONDS = 10.0
_MEASUREMENTS = """
CREATE TABLE measurements (
    genesis BLOB NOT NULL, contract BLOB NOT NULL, signing_key BLOB NOT NULL,
    measurement BLOB NOT NULL,
    PRIMARY KEY (genesis, contract, signing_key)
) WITHOUT ROWID
"""
_EVIDENCE = """
CREATE TABLE evidence (
    hash BLOB PRIMARY KEY, signing_key BLOB NOT NULL, number INTEGER NOT NULL,
    added_at INTEGER NOT NULL, in_force INTEGER NOT NULL, data BLOB NOT NULL
) WITHOUT ROWID
"""
_SCHEMA = f"""
CREATE TABLE outcomes (
    genesis BLOB NOT NULL, contract BLOB NOT NULL, job_id TEXT NOT NULL, payload_hash BLOB NOT NULL,
    outcome INTEGER NOT NULL, result_hash BLOB NOT NULL, result_length INTEGER NOT NULL,
    units INTEGER NOT NULL, measurement BLOB NOT NULL, started_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL, deadline INTEGER NOT NULL, envelope BLOB,
    signing_key BLOB NOT NULL,
    PRIMARY KEY (genesis, contract, job_id, payload_hash)
) WITHOUT ROWID;
CREATE INDEX outcomes_by_result ON outcomes (result_hash);
CREATE INDEX outcomes_by_deadline ON outcomes (deadline);
CREATE TABLE uploads (
    hash BLOB PRIMARY KEY, added_at INTEGER NOT NULL, length INTEGER NOT NULL, data BLOB NOT NULL
);
{_MEASUREMENTS};
{_EVIDENCE};
"""
# Version 1 knew one pair of keys, and no evidence. A column that is added needs a default.
_FROM_VERSION_1 = f"""
ALTER TABLE outcomes ADD COLUMN signing_key BLOB NOT NULL DEFAULT x'';
UPDATE outcomes SET signing_key = :key;
ALTER TABLE measurements RENAME TO old_measurements;
{_MEASUREMENTS};
INSERT INTO measurements SELECT genesis, contract, :key, measurement FROM old_measurements;
DROP TABLE old_measurements;
{_EVIDENCE}
"""  # noqa: S608 - constants

_Write: TypeAlias = tuple[Callable[[sqlite3.Connection], object], "Future[object]"]


class Database:
    """
    Opens *path*, or makes it; a file of version 1 is brought to this one's.

    What a file of version 1 holds was signed with *first_key*, the only one that its worker had
    (34 bytes).

    Raises:
        ConfigError: The file is not a worker's, is of another version, or can't be opened.
    """

    def __init__(self, path: Path, first_key: bytes) -> None:
        self._path = path
        self._first_key = first_key
        _make_private(path)
        try:
            self._writer = self._connect()
            self._prepare()
            self._reader = self._connect()
        except sqlite3.Error as error:
            raise ConfigError(f"worker database {path}: {error}") from error
        self._reading = threading.Lock()
        self._closing = threading.Lock()
        self._is_closed = False
        self._queue: queue.SimpleQueue[_Write | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="worker-database", daemon=True)
        self._thread.start()

    def write(self, change: Callable[[sqlite3.Connection], T]) -> T:
        """
        Make the change; once this returns, it survives a power cut.

        Raises:
            BlobUnavailableError: It could not be written, or this is closed; nothing changed.
        """
        future: Future[object] = Future()
        with self._closing:
            if self._is_closed:  # nobody would ever answer
                raise BlobUnavailableError(f"worker database {self._path}: closed")
            self._queue.put((change, future))
        try:
            return future.result()  # type: ignore[return-value]  # the queue carries many types
        except sqlite3.Error as error:
            raise BlobUnavailableError(f"worker database {self._path}: {error}") from error

    def read(self, question: Callable[[sqlite3.Connection], T]) -> T:
        """
        Ask about what is written.

        Raises:
            BlobUnavailableError: It can't be read now.
        """
        try:
            with self._reading:
                return question(self._reader)
        except sqlite3.Error as error:
            raise BlobUnavailableError(f"worker database {self._path}: {error}") from error

    def close(self) -> None:
        """Write what is waiting, and close."""
        with self._closing:
            self._is_closed = True
            self._queue.put(None)
        self._thread.join()
        self._reader.close()
        self._writer.close()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, isolation_level=None, check_same_thread=False, timeout=_BUSY_SECONDS
        )
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _prepare(self) -> None:
        with _transaction(self._writer):
            (application,) = self._writer.execute("PRAGMA application_id").fetchone()
            (version,) = self._writer.execute("PRAGMA user_version").fetchone()
            (tables,) = self._writer.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if not tables and not application:
                for statement in _SCHEMA.split(";"):
                    self._writer.execute(statement)
                self._writer.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                self._writer.execute(f"PRAGMA user_version = {_VERSION}")
            elif application != _APPLICATION_ID:
                raise ConfigError(f"worker database {self._path}: not the database of a worker")
            elif version == 1:
                for statement in _FROM_VERSION_1.split(";"):
                    values = {"key": self._first_key} if ":key" in statement else {}
                    self._writer.execute(statement, values)
                self._writer.execute(f"PRAGMA user_version = {_VERSION}")
            elif version != _VERSION:
                raise ConfigError(
                    f"worker database {self._path}: version {version}, not {_VERSION}"
                )
        _flush_folder(self._path.parent)

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch = [self._queue.get()]
            while len(batch) < _MAX_BATCH and batch[-1] is not None:
                try:
                    batch.append(self._queue.get_nowait())
                except queue.Empty:
                    break
            is_open = batch[-1] is not None
            writes = [item for item in batch if item is not None]
            if writes:
                self._commit(writes)

    def _commit(self, writes: list[_Write]) -> None:
        """Commit all changes at once; one that fails is undone alone."""
        answers: list[tuple[Future[object], object]] = []
        try:
            with _transaction(self._writer):
                for change, future in writes:
                    try:
                        with _savepoint(self._writer):
                            answer = change(self._writer)
                    except Exception as error:  # noqa: BLE001 - whoever asked gets it
                        future.set_exception(error)
                    else:
                        answers.append((future, answer))
        except sqlite3.Error as error:
            for _, future in writes:
                if not future.done():
                    future.set_exception(error)
            return
        for future, answer in answers:
            future.set_result(answer)


@contextlib.contextmanager
def _transaction(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _savepoint(connection: sqlite3.Connection) -> Iterator[None]:
    connection.execute("SAVEPOINT one")
    try:
        yield
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            connection.execute("ROLLBACK TO one")
            connection.execute("RELEASE one")
        raise
    connection.execute("RELEASE one")


def _make_private(path: Path) -> None:
    """Make the file before SQLite does, which gives the files beside it the same mode."""
    try:
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        for suffix in ("", "-wal", "-shm"):
            # A worker that was killed leaves the last two behind.
            with contextlib.suppress(FileNotFoundError):
                path.with_name(path.name + suffix).chmod(0o600)
    except OSError as error:
        raise ConfigError(f"worker database {path}: {error.strerror}") from error


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
