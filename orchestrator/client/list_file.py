"""
One SQLite file of an owner, and the locks beside it.

The file is 0600 in a directory of 0700, commits are on the disk when they return, and SQLite's
errors are `InputError`s: no exception of the library leaves this module.
"""

import contextlib
import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.keystore.private_files import create_private_file, ensure_private_directory

__all__ = ["ListFile"]

_BUSY_TIMEOUT_SECONDS = 60.0


class ListFile:
    """
    *name*.sqlite3 in *directory*, made by *begin* when it is new.

    *begin* is called with the file open and nobody else opening it.
    """

    def __init__(self, directory: Path, name: str, begin: Callable[["ListFile"], None]) -> None:
        """
        Open the file.

        Raises:
            InputError: Other users may read it, or it can't be used.
            Error: Whatever *begin* raises; the file is closed then.
        """
        ensure_private_directory(directory)
        self.path = directory / f"{name}.sqlite3"
        self._lock_path = directory / f"{name}.lock"
        opening_lock = directory / "opening.lock"
        create_private_file(opening_lock)
        create_private_file(self._lock_path)
        # Beginning a file and switching it to WAL are not safe against each other by themselves.
        with _locked(opening_lock):
            # Made by us with mode 0600; SQLite gives its journal the mode of the file.
            create_private_file(self.path)
            with self._translated():
                self._database = sqlite3.connect(
                    self.path, timeout=_BUSY_TIMEOUT_SECONDS, isolation_level=None
                )
            self._database.row_factory = sqlite3.Row
            try:
                self.rows("PRAGMA journal_mode = WAL")
                # FULL: a commit has reached the disk before anything is sent.
                self.run("PRAGMA synchronous = FULL")
                begin(self)
            except BaseException:
                self._database.close()
                raise

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the file's own lock; the system frees it when a process dies."""
        with _locked(self._lock_path):
            yield

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are kept together, durably, or none of them."""
        self.run("BEGIN IMMEDIATE")
        try:
            yield
            self.run("COMMIT")
        except BaseException:
            # SQLite has rolled back by itself after some errors (a full disk is one).
            if self._database.in_transaction:
                self.run("ROLLBACK")
            raise

    def run(self, statement: str, values: Sequence[object] = ()) -> tuple[int, int]:
        """Execute a statement and return how many rows it changed, and the id of a new row."""
        with self._translated():
            cursor = self._database.execute(statement, values)
        return cursor.rowcount, cursor.lastrowid or 0

    def run_many(self, statement: str, values: Sequence[Sequence[object]]) -> None:
        """Execute a statement for each of *values*."""
        with self._translated():
            self._database.executemany(statement, values)

    def rows(self, statement: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        """Return all rows of a query."""
        with self._translated():
            return self._database.execute(statement, values).fetchall()

    def row(self, statement: str, values: Sequence[object] = ()) -> sqlite3.Row | None:
        """Return the first row of a query."""
        rows = self.rows(statement, values)
        return rows[0] if rows else None

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise InputError(f"job list {self.path}: not usable: {error}") from error


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"lock {path}: {error.strerror}") from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
