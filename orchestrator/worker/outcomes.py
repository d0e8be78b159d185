"""
What a worker has decided about jobs, once and for ever, and the bytes that belong to it.

An outcome is durable before it is known to anybody: only what `OutcomeStore.add` returned may be
signed. The first outcome of a job is the only one; adding another returns the first.
"""

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.encoding import blake2_256, decode_signing_key, encode_signing_key
from orchestrator.errors import (
    BlobNotFoundError,
    BlobTooLargeError,
    BlobUnavailableError,
    DigestMismatchError,
)
from orchestrator.models import Outcome, PublicKey
from orchestrator.worker.database import Database
from orchestrator.worker.identity import KeyRing
from orchestrator.workers import JobKey

__all__ = [
    "EVIDENCE_PER_KEY",
    "HELD_MS",
    "NEWCOMERS_PER_KEY",
    "OutcomeStore",
    "StoredOutcome",
    "WorkerBlobs",
]

# Without a chain, where nothing tells which is in force.
EVIDENCE_PER_KEY = 4
# With a chain: those that are not in force yet, or never get there.
NEWCOMERS_PER_KEY = 8
# So long a newcomer is not pushed off: a registrar sends it to the chain after it was put, and
# then it has to be finalized.
HELD_MS = 600_000
# With a chain: the one in force, and the one before it.
_IN_FORCE = 2
_FIELDS = (
    "outcome, result_hash, result_length, units, measurement, started_at, finished_at, deadline,"
    " signing_key"
)
_KEY = "genesis = ? AND contract = ? AND job_id = ? AND payload_hash = ?"


@dataclass(frozen=True, kw_only=True)
class StoredOutcome:
    """All of a statement but the time of signing, and the key that signs it each time."""

    key: JobKey
    outcome: Outcome
    result_hash: bytes
    result_length: int
    units: int
    measurement: bytes
    started_at: int
    finished_at: int
    deadline: int
    signing_key: PublicKey


class OutcomeStore:
    """Keeps outcomes, result envelopes, and the measurements of development workers."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, outcome: StoredOutcome, envelope: bytes) -> StoredOutcome:
        """
        Store the outcome durably if it is the first for its job; return the first.

        Raises:
            BlobUnavailableError: It could not be written, so nothing may be signed.
        """
        row = (
            *_key(outcome.key),
            int(outcome.outcome),
            outcome.result_hash,
            outcome.result_length,
            outcome.units,
            outcome.measurement,
            outcome.started_at,
            outcome.finished_at,
            outcome.deadline,
            envelope,
            encode_signing_key(outcome.signing_key),
        )

        def change(connection: sqlite3.Connection) -> StoredOutcome | None:
            marks = ", ".join("?" * len(row))
            connection.execute(f"INSERT OR IGNORE INTO outcomes VALUES ({marks})", row)  # noqa: S608 - marks only
            return _find(connection, outcome.key)

        stored = self._database.write(change)
        if stored is None:
            raise BlobUnavailableError("the outcome is not in the database after it was written")
        return stored

    def find(self, key: JobKey) -> StoredOutcome | None:
        """Return what was decided about the job, `None` when nothing was."""
        return self._database.read(lambda connection: _find(connection, key))

    def drop_bytes(self, key: JobKey) -> None:
        """Forget the job's payload and the result's envelope; the outcome stays."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute(f"UPDATE outcomes SET envelope = NULL WHERE {_KEY}", _key(key))  # noqa: S608 - constant
            connection.execute("DELETE FROM uploads WHERE hash = ?", (key.payload_hash,))

        self._database.write(change)

    def prune(self, *, deadline_before: int, uploaded_before: int, keep_outcomes: bool) -> None:
        """
        Forget outcomes whose deadline is long over, and payloads that nobody asked for.

        With *keep_outcomes* only their envelopes go. A worker without a chain needs that: nothing
        else tells it that a deadline in a request is not the job's.
        """

        def change(connection: sqlite3.Connection) -> None:
            old = "WHERE deadline < ?"
            forget = (
                "UPDATE outcomes SET envelope = NULL" if keep_outcomes else "DELETE FROM outcomes"
            )
            connection.execute(f"{forget} {old}", (deadline_before,))
            connection.execute("DELETE FROM uploads WHERE added_at < ?", (uploaded_before,))

        self._database.write(change)

    def set_measurement(
        self, genesis: bytes, contract: bytes, signing_key: PublicKey, measurement: bytes
    ) -> None:
        """Remember what a worker without a chain was asked to register *signing_key* with."""

        def change(connection: sqlite3.Connection) -> None:
            row = (genesis, contract, encode_signing_key(signing_key), measurement)
            connection.execute("INSERT OR REPLACE INTO measurements VALUES (?, ?, ?, ?)", row)

        self._database.write(change)

    def measurement(self, genesis: bytes, contract: bytes, signing_key: PublicKey) -> bytes | None:
        """Return the measurement that the key was registered with last for this contract."""

        def question(connection: sqlite3.Connection) -> bytes | None:
            text = (
                "SELECT measurement FROM measurements"
                " WHERE genesis = ? AND contract = ? AND signing_key = ?"
            )
            key = (genesis, contract, encode_signing_key(signing_key))
            row = connection.execute(text, key).fetchone()
            return row[0] if row else None

        return self._database.read(question)

    def has_measurement(self, signing_key: PublicKey) -> bool:
        """Whether the key was registered for any contract."""

        def question(connection: sqlite3.Connection) -> bool:
            text = "SELECT 1 FROM measurements WHERE signing_key = ?"
            row = connection.execute(text, (encode_signing_key(signing_key),)).fetchone()
            return row is not None

        return self._database.read(question)


class WorkerBlobs:
    """
    The results in the store, payloads that were put here, and evidence; a `BlobStore`.

    Payloads may take *max_bytes* together. They need not outlive the worker's process: whoever put
    them here can do it again.
    """

    def __init__(self, database: Database, *, max_bytes: int, clock_ms: Callable[[], int]) -> None:
        self._database = database
        self._max_bytes = max_bytes
        self._clock_ms = clock_ms

    def put(self, data: bytes) -> bytes:
        """
        Store a payload and return its hash.

        Raises:
            BlobUnavailableError: There is no room.
        """
        digest = blake2_256(data)
        row = (digest, self._clock_ms(), len(data), data)

        def change(connection: sqlite3.Connection) -> bool:
            text = "SELECT coalesce(sum(length), 0) FROM uploads WHERE hash != ?"
            (used,) = connection.execute(text, (digest,)).fetchone()
            if used + len(data) > self._max_bytes:
                return False
            connection.execute("INSERT OR REPLACE INTO uploads VALUES (?, ?, ?, ?)", row)
            return True

        if not self._database.write(change):
            raise BlobUnavailableError(f"payloads take more than {self._max_bytes} bytes together")
        return digest

    def put_evidence(self, data: bytes, signing_key: PublicKey) -> bytes:
        """
        Keep a bundle of the pair with *signing_key* durably, and return its hash.

        For a worker without a chain: of each pair the newest `EVIDENCE_PER_KEY` are kept, without
        an end in time.

        Raises:
            BlobUnavailableError: It could not be written.
        """
        digest, key = blake2_256(data), encode_signing_key(signing_key)
        now = self._clock_ms()

        def change(connection: sqlite3.Connection) -> None:
            _add_evidence(connection, digest, key, now, data)
            _cut_newcomers(connection, key, EVIDENCE_PER_KEY)

        self._database.write(change)
        return digest

    def put_newcomer(
        self, data: bytes, signing_key: PublicKey, *, in_force: bytes | None
    ) -> bytes | None:
        """
        Keep a bundle of the pair with *signing_key* durably, and return its hash.

        For a worker with a chain, which has the bundle *in_force* (its hash) now. What was in
        force last and before that is kept without an end in time, and of all others the newest
        `NEWCOMERS_PER_KEY`. None of these goes before it was here for `HELD_MS`: if there is no
        room because of that, nothing changes but what is known to be in force, and the answer is
        `None`.

        Raises:
            BlobUnavailableError: It could not be written.
        """
        digest, key = blake2_256(data), encode_signing_key(signing_key)
        now = self._clock_ms()

        def change(connection: sqlite3.Connection) -> bytes | None:
            _mark_in_force(connection, key, in_force)
            is_kept = "SELECT 1 FROM evidence WHERE hash = ? AND in_force > 0"
            if connection.execute(is_kept, (digest,)).fetchone():
                return digest
            (held,) = connection.execute(
                "SELECT count(*) FROM evidence WHERE signing_key = ? AND hash != ?"
                " AND in_force = 0 AND added_at > ? AND added_at <= ?",
                (key, digest, now - HELD_MS, now),
            ).fetchone()
            if held >= NEWCOMERS_PER_KEY:
                return None
            _add_evidence(connection, digest, key, now, data)
            _cut_newcomers(connection, key, NEWCOMERS_PER_KEY)
            return digest

        return self._database.write(change)

    def drop_evidence(self, keys: KeyRing) -> None:
        """Forget the bundles of pairs that are not among *keys* any more."""

        def change(connection: sqlite3.Connection) -> None:
            # Read here: a bundle of keys that are made meanwhile is written after this.
            kept = [encode_signing_key(pair.signing_key) for pair in keys.pairs]
            marks = ", ".join("?" * len(kept))
            text = f"DELETE FROM evidence WHERE signing_key NOT IN ({marks})"  # noqa: S608 - marks only
            connection.execute(text, kept)

        self._database.write(change)

    def get(self, digest: bytes, *, max_bytes: int) -> bytes:
        """Return the bytes that hash to *digest*, see `BlobStore.get`."""

        def question(connection: sqlite3.Connection) -> tuple[int, bytes] | None:
            result = "SELECT result_length, envelope FROM outcomes WHERE result_hash = ?"
            upload = "SELECT length, data FROM uploads WHERE hash = ?"
            evidence = "SELECT length(data), data FROM evidence WHERE hash = ?"
            for text in (f"{result} AND envelope IS NOT NULL", upload, evidence):
                row = connection.execute(text, (digest,)).fetchone()
                if row:
                    return row[0], row[1] if row[0] <= max_bytes else b""
            return None

        row = self._database.read(question)
        if row is None:
            raise BlobNotFoundError(f"no blob {digest.hex()}")
        length, data = row
        if length > max_bytes:
            raise BlobTooLargeError(f"blob {digest.hex()}: {length} bytes, at most {max_bytes}")
        if blake2_256(data) != digest:
            raise DigestMismatchError(f"blob {digest.hex()}: the stored bytes are damaged")
        return data

    def has(self, digest: bytes) -> bool:
        """Whether there is such a blob."""

        def question(connection: sqlite3.Connection) -> bool:
            text = (
                "SELECT 1 FROM outcomes WHERE result_hash = ? AND envelope IS NOT NULL"
                " UNION SELECT 1 FROM uploads WHERE hash = ?"
                " UNION SELECT 1 FROM evidence WHERE hash = ?"
            )
            return connection.execute(text, (digest, digest, digest)).fetchone() is not None

        return self._database.read(question)

    def delete(self, digest: bytes) -> None:
        """Forget a payload; results go with their jobs, and evidence stays."""

        def change(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM uploads WHERE hash = ?", (digest,))

        self._database.write(change)


def _add_evidence(
    connection: sqlite3.Connection, digest: bytes, key: bytes, now: int, data: bytes
) -> None:
    """Add a bundle as the newest, or make one that is there the newest."""
    connection.execute(
        "INSERT INTO evidence SELECT ?, ?, 1 + coalesce(max(number), 0), ?, 0, ? FROM evidence"
        " WHERE true ON CONFLICT (hash) DO UPDATE"
        " SET number = excluded.number, added_at = excluded.added_at",
        (digest, key, now, data),
    )


def _mark_in_force(connection: sqlite3.Connection, key: bytes, digest: bytes | None) -> None:
    """Remember that *digest* is in force now; what was before the last one is a newcomer again."""
    connection.execute(
        "UPDATE evidence SET in_force ="
        " 1 + (SELECT max(in_force) FROM evidence WHERE signing_key = ?)"
        " WHERE hash = ? AND signing_key = ?",
        (key, digest, key),
    )
    connection.execute(
        "UPDATE evidence SET in_force = 0 WHERE signing_key = ? AND hash NOT IN (SELECT hash"
        " FROM evidence WHERE signing_key = ? ORDER BY in_force DESC LIMIT ?)",
        (key, key, _IN_FORCE),
    )


def _cut_newcomers(connection: sqlite3.Connection, key: bytes, limit: int) -> None:
    """Forget all but the newest *limit* of those that were never known to be in force."""
    connection.execute(
        "DELETE FROM evidence WHERE signing_key = ? AND in_force = 0 AND hash NOT IN (SELECT hash"
        " FROM evidence WHERE signing_key = ? AND in_force = 0 ORDER BY number DESC LIMIT ?)",
        (key, key, limit),
    )


def _key(key: JobKey) -> tuple[bytes, bytes, str, bytes]:
    # An id has up to 128 bits, SQLite's integers have 64, so it is kept as text.
    return key.genesis, key.contract, str(key.job_id), key.payload_hash


def _find(connection: sqlite3.Connection, key: JobKey) -> StoredOutcome | None:
    text = f"SELECT {_FIELDS} FROM outcomes WHERE {_KEY}"  # noqa: S608 - constants
    row = connection.execute(text, _key(key)).fetchone()
    if row is None:
        return None
    outcome, result_hash, length, units, measurement, started_at, finished_at, deadline, by = row
    return StoredOutcome(
        key=key,
        outcome=Outcome(outcome),
        result_hash=result_hash,
        result_length=length,
        units=units,
        measurement=measurement,
        started_at=started_at,
        finished_at=finished_at,
        deadline=deadline,
        signing_key=decode_signing_key(by),
    )
