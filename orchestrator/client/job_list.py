"""
The client's own list of jobs: what makes submitting idempotent.

One SQLite file per chain, contract and owner, in a directory of mode 0700, itself of mode 0600.
Sealed bytes, hashes and job ids are in it; plaintext, keys and the owner secret never are.

* What is about to be sent is in the list, durably, before it is sent.
* An entry is `sealed` (never sent), `sending` (perhaps sent: only the chain knows), `submitted`
  (it is this job), or `refused` (the contract did not take these bytes; they are never sent again).
* `sending_lock` keeps two processes of one owner from sending at the same time. It is not held
  while a submission waits for its next group: an entry found unfinished under the lock may be one
  that another process goes on with.
* So each unfinished entry has one holder, the session (`sessions`) that wrote it down or claimed
  it. Only entries whose holder is dead are left behind, and only those may be claimed.
"""

import contextlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from orchestrator.chain import Chain
from orchestrator.client.entries import Entry, EntryState, ListedJob, NewEntry, UnfinishedJob
from orchestrator.client.list_file import ListFile
from orchestrator.client.list_row import ListRow, number_bytes
from orchestrator.client.sessions import Sessions
from orchestrator.encoding import blake2_256
from orchestrator.errors import ChainMismatchError, ChainUnavailableError, InputError
from orchestrator.models import JobId, JobStatus

__all__ = ["JobList"]

_VERSION = 4
# Lists of this version lack one column, which they get when they are opened.
_WITHOUT_POLICY = 3
_SCHEMA = """
CREATE TABLE origin (genesis BLOB NOT NULL, contract BLOB NOT NULL, owner BLOB NOT NULL);
CREATE TABLE anchor (number INTEGER NOT NULL, hash BLOB NOT NULL);
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
    refusal TEXT,
    session TEXT,
    policy_hash BLOB
);
CREATE INDEX payloads ON entries (payload_hash);
CREATE INDEX unfinished ON entries (entry) WHERE state IN ('sealed', 'sending');
"""


_ANOTHER_RUN = (
    "this is another run of a development chain; remove the list, or choose another folder for it"
)


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
        self._sessions = Sessions(directory, f"jobs-{name}")

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self._file.path

    def close(self) -> None:
        """Close the file and end the sessions that were begun here."""
        self._sessions.close()
        self._file.close()

    def check_chain(self, chain: Chain) -> None:
        """
        Make sure that this is the chain on which the list was first used.

        Runs of a development chain have the same genesis, and job ids begin anew on each. So the
        first use writes down the finalized head, and each later one looks for that block.

        Raises:
            ChainMismatchError: The chain has another block there.
            ChainUnavailableError: The chain does not reach that block.
        """
        if self._file.row("SELECT number FROM anchor") is None:
            head = chain.finalized_head()
            self._file.run(
                "INSERT INTO anchor SELECT ?, ? WHERE NOT EXISTS (SELECT 1 FROM anchor)",
                (head.number, head.hash),
            )
        row = ListRow(self._file.rows("SELECT number, hash FROM anchor")[0], self.path)
        number, expected = row.integer("number"), row.data("hash")
        found = chain.block_hash(number)
        if found is None:
            raise ChainUnavailableError(
                f"the chain does not reach block {number}, from which on the job list {self.path}"
                f" is: the node is behind, or {_ANOTHER_RUN}"
            )
        if found != expected:
            raise ChainMismatchError(
                f"job list {self.path}: block {number} is another one: {_ANOTHER_RUN}"
            )

    @contextlib.contextmanager
    def session(self) -> Iterator[str]:
        """Be the holder of entries: they are nobody else's to claim until this is left."""
        with self.sending_lock():
            session = self._sessions.begin()
        try:
            yield session
        finally:
            self._sessions.end(session)

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
            " workers, ttl, counter, block, created_at, session, policy_hash)"
            " VALUES (?,?,?,?,?,?,?,?,?,?,?,?,?)",
            (
                EntryState.SEALED.value,
                new.key,
                new.fingerprint,
                new.payload_hash,
                new.envelope,
                new.public_key,
                json.dumps(new.workers),
                new.ttl,
                number_bytes(new.counter),
                new.block,
                new.created_at,
                new.session,
                new.policy_hash,
            ),
        )
        return Entry(**vars(new), entry=entry, state=EntryState.SEALED)

    def unfinished_entries(self) -> tuple[list[Entry], list[Entry]]:
        """Entries that were never sent, or perhaps were, oldest first: left behind, and held."""
        rows = self._rows("SELECT * FROM entries WHERE state IN ('sealed', 'sending')")
        alive = self._alive(rows)
        entries = [row.entry() for row in rows]
        return (
            [entry for entry in entries if entry.session not in alive],
            [entry for entry in entries if entry.session in alive],
        )

    def unfinished(self) -> list[UnfinishedJob]:
        """Those that were left behind, without their bytes."""
        rows = self._rows(
            "SELECT entry, key, payload_hash, workers, created_at, state, session FROM entries"
            " WHERE state IN ('sealed', 'sending')"
        )
        alive = self._alive(rows)
        return [row.unfinished() for row in rows if row.text("session") not in alive]

    def _rows(self, selection: str) -> list[ListRow]:
        rows = self._file.rows(f"{selection} ORDER BY entry")
        return [ListRow(row, self.path) for row in rows]

    def _alive(self, rows: Iterable[ListRow]) -> set[str]:
        sessions = {row.text("session") for row in rows}
        return {session for session in sessions if self._sessions.is_alive(session)}

    def claim(self, entries: Iterable[Entry], session: str) -> list[Entry]:
        """Make *session* the holder of entries that were left behind, and return them so."""
        claimed = [replace(entry, session=session) for entry in entries]
        self._file.run_many(
            "UPDATE entries SET session = ? WHERE entry = ?",
            [(session, entry.entry) for entry in claimed],
        )
        return claimed

    def entry_by_key(self, key: str) -> tuple[bytes | None, JobId | None]:
        """
        Fingerprint and job id of the entry with this key, both `None` when there is none.

        Refused entries give their key back.
        """
        row = self._row("SELECT entry, fingerprint, job_id FROM entries WHERE key = ?", key)
        if row is None:
            return None, None
        return row.data_or_none("fingerprint"), row.number_or_none("job_id")

    def state_of(self, entry: int) -> tuple[EntryState, JobId | None, str]:
        """The state an entry is in now, its job, and the refusal's variant (or nothing)."""
        row = self._row("SELECT entry, state, job_id, refusal FROM entries WHERE entry = ?", entry)
        if row is None:
            raise InputError(f"job list {self.path}: entry {entry} was removed")
        return row.state(), row.number_or_none("job_id"), row.text_or_none("refusal") or ""

    def _row(self, query: str, value: object) -> ListRow | None:
        row = self._file.row(query, (value,))
        return None if row is None else ListRow(row, self.path)

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
        """
        Note entries' job ids and the blocks they are in, as (entry, job, block).

        Raises:
            ChainMismatchError: The list has another entry for one of these ids; the others
                are noted.
        """
        taken = []
        with self.transaction():
            for entry, job_id, _ in jobs:
                row = self._row("SELECT entry FROM entries WHERE job_id = ?", number_bytes(job_id))
                if row is not None and row.integer("entry") != entry:
                    taken.append(job_id)
            self._file.run_many(
                "UPDATE entries SET state = 'submitted', job_id = ?, block = ?, status = ?"
                " WHERE entry = ?",
                [
                    (number_bytes(job_id), block, JobStatus.SUBMITTED.value, entry)
                    for entry, job_id, block in jobs
                    if job_id not in taken
                ],
            )
        if taken:
            raise ChainMismatchError(
                f"job list {self.path}: has another submission as job {taken[0]} already:"
                f" {_ANOTHER_RUN}"
            )

    def restore(self, jobs: Iterable[ListedJob]) -> None:
        """
        Write down jobs that were found on the chain.

        An unfinished entry with the payload of one of them is that job. Of what was submitted from
        here, workers and time stay as they were written down then.

        Raises:
            ChainMismatchError: The list has another payload for one of these ids.
        """
        with self.transaction():
            for job in jobs:
                job_id = number_bytes(job.job_id)
                listed = self.job(job.job_id)
                if listed is None:
                    self._find_or_insert(job)
                elif listed.payload_hash != job.payload_hash:
                    raise ChainMismatchError(
                        f"job {job.job_id}: the list has another payload than the chain"
                    )
                self._file.run(
                    "UPDATE entries SET status = ?, purged = ?, block = MAX(block, ?),"
                    " created_at = IIF(envelope IS NULL, ?, created_at) WHERE job_id = ?",
                    (job.status.value, job.purged, job.block, job.created_at, job_id),
                )

    def _find_or_insert(self, job: ListedJob) -> None:
        job_id = number_bytes(job.job_id)
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
                    (status.value if status else None, purged, number_bytes(job_id))
                    for job_id, status, purged in seen
                ],
            )

    def jobs(self) -> list[ListedJob]:
        """All submitted jobs, oldest first."""
        rows = self._file.rows("SELECT * FROM entries WHERE state = 'submitted' ORDER BY job_id")
        return [ListRow(row, self.path).listed() for row in rows]

    def job(self, job_id: JobId) -> ListedJob | None:
        """The job with this id, when the list has it."""
        row = self._row("SELECT * FROM entries WHERE job_id = ?", number_bytes(job_id))
        return None if row is None else row.listed()

    def envelope(self, job_id: JobId) -> bytes | None:
        """The sealed payload, when this list sent it."""
        row = self._row(
            "SELECT entry, envelope FROM entries WHERE job_id = ?", number_bytes(job_id)
        )
        return None if row is None else row.data_or_none("envelope")


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
        elif version == _WITHOUT_POLICY:
            file.run("ALTER TABLE entries ADD COLUMN policy_hash BLOB")
            file.run(f"PRAGMA user_version = {_VERSION}")
        elif version != _VERSION:
            raise ChainMismatchError(
                f"job list {file.path}: version {version}, this program reads {_VERSION}"
            )
    found = [tuple(row) for row in file.rows("SELECT genesis, contract, owner FROM origin")]
    if len(found) != 1:
        raise InputError(f"job list {file.path}: damaged, {len(found)} origins, must be 1")
    if found != [origin]:
        raise ChainMismatchError(
            f"job list {file.path}: belongs to another chain, contract or owner"
        )
