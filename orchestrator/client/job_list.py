"""
The client's own list of jobs: what makes submitting idempotent.

One SQLite file per chain, contract and owner, in a directory of mode 0700, itself of mode 0600.
Sealed bytes, hashes and job ids are in it; plaintext, keys and the owner secret never are.

* What is about to be sent is in the list, durably, before it is sent.
* An entry is `sealed` (never sent), `sending` (perhaps sent: only the chain knows), `submitted`
  (it is this job), or `refused` (the contract did not take these bytes; they are never sent again).
* `sending_lock` keeps two processes of one owner from sending at the same time, so that an entry
  found unfinished under the lock really is one that somebody left behind.
"""

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from orchestrator.client.entries import Entry, EntryState, ListedJob, NewEntry, UnfinishedJob
from orchestrator.client.list_file import ListFile
from orchestrator.encoding import blake2_256
from orchestrator.errors import ChainMismatchError
from orchestrator.models import JobId, JobStatus

__all__ = ["JobList"]

_VERSION = 1
_SCHEMA = """
CREATE TABLE origin (genesis BLOB NOT NULL, contract BLOB NOT NULL, owner BLOB NOT NULL);
CREATE TABLE entries (
    entry INTEGER PRIMARY KEY,
    state TEXT NOT NULL,
    key TEXT UNIQUE,
    fingerprint BLOB,
    payload_hash BLOB NOT NULL,
    envelope BLOB,
    public_key BLOB,
    workers TEXT NOT NULL,
    ttl INTEGER,
    counter BLOB,
    block INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    deadline INTEGER,
    job_id BLOB UNIQUE,
    status TEXT,
    purged INTEGER NOT NULL DEFAULT 0,
    refusal TEXT
);
CREATE INDEX payloads ON entries (payload_hash);
CREATE INDEX unfinished ON entries (entry) WHERE state IN ('sealed', 'sending');
"""


class JobList:
    """The list of one owner on one contract; see the module's docstring for its rules."""

    def __init__(
        self, directory: Path, *, genesis_hash: bytes, contract: bytes, owner: bytes
    ) -> None:
        """
        Open the list, or begin it.

        Raises:
            InputError: Other users may read it, or it is damaged.
            ChainMismatchError: The file is of another version or origin.
        """
        name = blake2_256(genesis_hash + contract + owner)[:16].hex()
        self._file = ListFile(
            directory, f"jobs-{name}", lambda file: _begin(file, genesis_hash, contract, owner)
        )

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._file.path

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    @contextlib.contextmanager
    def sending_lock(self) -> Iterator[None]:
        """Hold the lock under which entries are sent; the system frees it when a process dies."""
        with self._file.lock():
            yield

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """All writes inside are kept together, durably, or none of them."""
        with self._file.transaction():
            yield

    def add(self, new: NewEntry) -> Entry:
        """Write down what is sealed, in the state `SEALED`."""
        _, entry = self._file.run(
            "INSERT INTO entries (state, key, fingerprint, payload_hash, envelope, public_key,"
            " workers, ttl, counter, block, created_at) VALUES (?,?,?,?,?,?,?,?,?,?,?)",
            (
                EntryState.SEALED.value,
                new.key,
                new.fingerprint,
                new.payload_hash,
                new.envelope,
                new.public_key,
                json.dumps(new.workers),
                new.ttl,
                _id_bytes(new.counter),
                new.block,
                new.created_at,
            ),
        )
        return Entry(**vars(new), entry=entry, state=EntryState.SEALED)

    def unfinished_entries(self) -> list[Entry]:
        """Entries that were never sent, or perhaps were, oldest first."""
        rows = self._file.rows(
            "SELECT * FROM entries WHERE state IN ('sealed', 'sending') ORDER BY entry"
        )
        return [_entry(row) for row in rows]

    def unfinished(self) -> list[UnfinishedJob]:
        """The same, without their bytes."""
        rows = self._file.rows(
            "SELECT entry, key, payload_hash, workers, created_at, state FROM entries"
            " WHERE state IN ('sealed', 'sending') ORDER BY entry"
        )
        return [
            UnfinishedJob(
                entry=row["entry"],
                key=row["key"],
                payload_hash=row["payload_hash"],
                workers=tuple(json.loads(row["workers"])),
                created_at=row["created_at"],
                perhaps_sent=row["state"] == EntryState.SENDING.value,
            )
            for row in rows
        ]

    def entry_by_key(self, key: str) -> tuple[bytes | None, JobId | None]:
        """
        Fingerprint and job id of the entry with this key, both `None` when there is none.

        Refused entries give their key back.
        """
        row = self._file.row("SELECT fingerprint, job_id FROM entries WHERE key = ?", (key,))
        return (row["fingerprint"], _id_or_none(row["job_id"])) if row else (None, None)

    def state_of(self, entry: int) -> tuple[EntryState, JobId | None, str]:
        """The state an entry is in now, its job, and the refusal's variant (or nothing)."""
        (row,) = self._file.rows(
            "SELECT state, job_id, refusal FROM entries WHERE entry = ?", (entry,)
        )
        return EntryState(row["state"]), _id_or_none(row["job_id"]), row["refusal"] or ""

    def mark(self, entries: Iterable[int], state: EntryState) -> None:
        """Note that entries are about to be sent, or for certain were not."""
        with self.transaction():
            self._file.run_many(
                "UPDATE entries SET state = ? WHERE entry = ?",
                [(state.value, entry) for entry in entries],
            )

    def mark_refused(self, entry: int, refusal: str) -> None:
        """Note that the contract refused these bytes for good; they are dropped."""
        with self.transaction():
            self._file.run(
                "UPDATE entries SET state = 'refused', refusal = ?, key = NULL, envelope = NULL"
                " WHERE entry = ?",
                (refusal, entry),
            )

    def mark_submitted(self, jobs: Sequence[tuple[int, JobId, int]]) -> None:
        """Note entries' job ids and the blocks they are in, as (entry, job, block)."""
        with self.transaction():
            self._file.run_many(
                "UPDATE entries SET state = 'submitted', job_id = ?, block = ?, status = ?"
                " WHERE entry = ?",
                [
                    (_id_bytes(job_id), block, JobStatus.SUBMITTED.value, entry)
                    for entry, job_id, block in jobs
                ],
            )

    def restore(self, jobs: Iterable[ListedJob]) -> None:
        """
        Write down jobs that were found on the chain.

        An unfinished entry with the payload of one of them is that job.

        Raises:
            ChainMismatchError: The list has another payload for one of these ids.
        """
        with self.transaction():
            for job in jobs:
                job_id = _id_bytes(job.job_id)
                listed = self.job(job.job_id)
                if listed is None:
                    self._find_or_insert(job)
                elif listed.payload_hash != job.payload_hash:
                    raise ChainMismatchError(
                        f"job {job.job_id}: the list has another payload than the chain"
                    )
                self._file.run(
                    "UPDATE entries SET status = ?, purged = ?, block = MAX(block, ?),"
                    " created_at = ? WHERE job_id = ?",
                    (job.status.value, job.purged, job.block, job.created_at, job_id),
                )

    def _find_or_insert(self, job: ListedJob) -> None:
        job_id = _id_bytes(job.job_id)
        found, _ = self._file.run(
            "UPDATE entries SET state = 'submitted', job_id = ? WHERE payload_hash = ?"
            " AND state IN ('sealed', 'sending')",
            (job_id, job.payload_hash),
        )
        if not found:
            self._file.run(
                "INSERT INTO entries (state, payload_hash, workers, block, created_at, job_id,"
                " status) VALUES ('submitted', ?, ?, ?, ?, ?, ?)",
                (
                    job.payload_hash,
                    json.dumps(job.workers),
                    job.block,
                    job.created_at,
                    job_id,
                    job.status.value,
                ),
            )

    def update(
        self, job_id: JobId, *, status: JobStatus | None = None, purged: bool = False
    ) -> None:
        """Note what the chain says of a job now; a purge is never taken back."""
        self.update_many([(job_id, status, purged)])

    def update_many(self, seen: Iterable[tuple[JobId, JobStatus | None, bool]]) -> None:
        """The same for several, as (job, status, purged)."""
        with self.transaction():
            self._file.run_many(
                # Where nothing changes nothing is written, so that polling costs no flush.
                "UPDATE entries SET status = COALESCE(?1, status), purged = MAX(purged, ?2)"
                " WHERE job_id = ?3 AND (status IS NOT COALESCE(?1, status) OR purged < ?2)",
                [
                    (status.value if status else None, purged, _id_bytes(job_id))
                    for job_id, status, purged in seen
                ],
            )

    def jobs(self) -> list[ListedJob]:
        """All submitted jobs, oldest first."""
        rows = self._file.rows("SELECT * FROM entries WHERE state = 'submitted' ORDER BY job_id")
        return [_listed(row) for row in rows]

    def job(self, job_id: JobId) -> ListedJob | None:
        """The job with this id, when the list has it."""
        row = self._file.row("SELECT * FROM entries WHERE job_id = ?", (_id_bytes(job_id),))
        return _listed(row) if row else None

    def envelope(self, job_id: JobId) -> bytes | None:
        """The sealed payload, when this list sent it."""
        row = self._file.row("SELECT envelope FROM entries WHERE job_id = ?", (_id_bytes(job_id),))
        return row["envelope"] if row else None


def _begin(file: ListFile, genesis_hash: bytes, contract: bytes, owner: bytes) -> None:
    origin = (genesis_hash, contract, owner)
    with file.transaction():
        ((version,),) = file.rows("PRAGMA user_version")
        ((tables,),) = file.rows("SELECT count(*) FROM sqlite_master")
        if version == 0 and tables == 0:
            for statement in filter(str.strip, _SCHEMA.split(";")):
                file.run(statement)
            file.run("INSERT INTO origin VALUES (?, ?, ?)", origin)
            file.run(f"PRAGMA user_version = {_VERSION}")
        elif version != _VERSION:
            raise ChainMismatchError(
                f"job list {file.path}: version {version}, this program reads {_VERSION}"
            )
    (found,) = file.rows("SELECT genesis, contract, owner FROM origin")
    if tuple(found) != origin:
        raise ChainMismatchError(
            f"job list {file.path}: belongs to another chain, contract or owner"
        )


def _id_bytes(value: int) -> bytes:
    # Job ids are u128, SQLite's integers are not; big-endian bytes sort as numbers do.
    return value.to_bytes(16, "big")


def _id_or_none(data: bytes | None) -> int | None:
    return None if data is None else int.from_bytes(data, "big")


def _entry(row: sqlite3.Row) -> Entry:
    return Entry(
        entry=row["entry"],
        state=EntryState(row["state"]),
        key=row["key"],
        fingerprint=row["fingerprint"],
        payload_hash=row["payload_hash"],
        envelope=row["envelope"],
        public_key=row["public_key"],
        workers=tuple(json.loads(row["workers"])),
        ttl=row["ttl"],
        counter=int.from_bytes(row["counter"], "big"),
        block=row["block"],
        created_at=row["created_at"],
    )


def _listed(row: sqlite3.Row) -> ListedJob:
    return ListedJob(
        job_id=int.from_bytes(row["job_id"], "big"),
        key=row["key"],
        payload_hash=row["payload_hash"],
        workers=tuple(json.loads(row["workers"])),
        status=JobStatus(row["status"]),
        purged=bool(row["purged"]),
        block=row["block"],
        created_at=row["created_at"],
    )
