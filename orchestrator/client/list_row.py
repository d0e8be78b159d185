"""
One row of the client's own list, column by column, each checked to be what it should be.

SQLite keeps any kind of value in any column, and a file may be damaged or changed: what is not of
its column's kind is an `InputError` that names file, column and entry, before anything uses it.
"""

import json
import sqlite3
from pathlib import Path

from orchestrator.client.entries import Entry, EntryState, ListedJob, UnfinishedJob
from orchestrator.errors import InputError
from orchestrator.models import JobStatus, WorkerId

__all__ = ["ListRow", "number_bytes"]

_HASH_LENGTH = 32
_NUMBER_LENGTH = 16


def number_bytes(value: int) -> bytes:
    """
    Return a job id or counter as a column holds it.

    They are u128, SQLite's integers are not; big-endian bytes sort as numbers do.
    """
    return value.to_bytes(_NUMBER_LENGTH, "big")


class ListRow:
    """A row of the list in *path*; every method raises `InputError` where it is damaged."""

    def __init__(self, row: sqlite3.Row, path: Path) -> None:
        self._row = row
        self._path = path

    def entry(self) -> Entry:
        """The row as an entry that is not finished."""
        return Entry(
            entry=self.integer("entry"),
            state=self.state(),
            key=self.text_or_none("key"),
            fingerprint=self.data("fingerprint"),
            payload_hash=self.data("payload_hash", length=_HASH_LENGTH),
            envelope=self.data("envelope"),
            public_key=self.data("public_key", length=_HASH_LENGTH),
            workers=self.workers(),
            ttl=self.integer("ttl"),
            counter=self.number("counter"),
            block=self.integer("block"),
            created_at=self.integer("created_at"),
            session=self.text("session"),
            policy_hash=self.hash_or_none("policy_hash"),
        )

    def unfinished(self) -> UnfinishedJob:
        """The same without its bytes."""
        return UnfinishedJob(
            entry=self.integer("entry"),
            key=self.text_or_none("key"),
            payload_hash=self.data("payload_hash", length=_HASH_LENGTH),
            workers=self.workers(),
            created_at=self.integer("created_at"),
            perhaps_sent=self.state() is EntryState.SENDING,
        )

    def listed(self) -> ListedJob:
        """The row as a submitted job."""
        return ListedJob(
            job_id=self.number("job_id"),
            key=self.text_or_none("key"),
            payload_hash=self.data("payload_hash", length=_HASH_LENGTH),
            workers=self.workers(),
            status=self.status(),
            purged=bool(self.integer("purged")),
            block=self.integer("block"),
            created_at=self.integer("created_at"),
            policy_hash=self.hash_or_none("policy_hash"),
        )

    def state(self) -> EntryState:
        """The state."""
        try:
            return EntryState(self._row["state"])
        except ValueError as error:
            raise self._damaged("state", "no state") from error

    def status(self) -> JobStatus:
        """The job's last known status."""
        try:
            return JobStatus(self._row["status"])
        except ValueError as error:
            raise self._damaged("status", "no status of a job") from error

    def workers(self) -> tuple[WorkerId, ...]:
        """The workers, which stand there as a JSON list of numbers."""
        try:
            workers = json.loads(self.text("workers"))
        except (ValueError, RecursionError) as error:
            raise self._damaged("workers", "not JSON") from error
        if not isinstance(workers, list) or any(type(worker) is not int for worker in workers):
            raise self._damaged("workers", "not a list of numbers")
        return tuple(workers)

    def number(self, name: str) -> int:
        """A job id or counter."""
        return int.from_bytes(self.data(name, length=_NUMBER_LENGTH), "big")

    def number_or_none(self, name: str) -> int | None:
        """A job id or counter, or nothing."""
        return None if self._row[name] is None else self.number(name)

    def integer(self, name: str) -> int:
        """A number that is not negative."""
        value = self._row[name]
        if not isinstance(value, int) or value < 0:
            raise self._damaged(name, "not a number from 0 on")
        return value

    def data(self, name: str, *, length: int | None = None) -> bytes:
        """Bytes, of *length* if one is given."""
        value = self._row[name]
        if not isinstance(value, bytes):
            raise self._damaged(name, "not bytes")
        if length not in (None, len(value)):
            raise self._damaged(name, f"{len(value)} bytes, must be {length}")
        return value

    def data_or_none(self, name: str) -> bytes | None:
        """Bytes, or nothing."""
        return None if self._row[name] is None else self.data(name)

    def hash_or_none(self, name: str) -> bytes | None:
        """A hash, or nothing."""
        return None if self._row[name] is None else self.data(name, length=_HASH_LENGTH)

    def text(self, name: str) -> str:
        """Text."""
        value = self._row[name]
        if not isinstance(value, str):
            raise self._damaged(name, "not text")
        return value

    def text_or_none(self, name: str) -> str | None:
        """Text, or nothing."""
        return None if self._row[name] is None else self.text(name)

    def _damaged(self, name: str, why: str) -> InputError:
        columns = self._row.keys()
        place = f", entry {self._row['entry']!r}" if "entry" in columns else ""
        return InputError(f"job list {self._path}{place}: damaged, {name} is {why}")
