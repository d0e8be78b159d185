"""The journal's file: opening it, and reading and writing it, a transaction at a time."""

import json
import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    create_engine,
    delete,
    event,
    func,
    select,
)
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.pool import StaticPool

from orchestrator.errors import JournalError
from orchestrator.journal.files import lock_beside, open_private
from orchestrator.journal.records import (
    JobRecord,
    JobState,
    PageChanges,
    Refusal,
    SeenStatement,
    Usage,
)
from orchestrator.journal.tables import (
    ADD_STATEMENT,
    COUNT_REFUSAL,
    DISTRUSTED,
    JOBS,
    META,
    METADATA,
    REFUSALS,
    STATEMENTS,
    UPSERT_JOB,
    USAGE,
)
from orchestrator.models import JobId, Outcome, WorkerId

__all__ = ["Journal"]

VERSION = 2
MAX_JOB_ID = (1 << 63) - 1  # what an integer of SQLite holds; a contract counts from 1
CLOSED = frozenset(state for state in JobState if state.is_closed)
OPEN = frozenset(set(JobState) - CLOSED - {JobState.DEFERRED})


class Journal:
    """
    The journal in the file *path*, made when there is none.

    Raises:
        JournalError: The file is not a journal, is damaged, is in use, can't be
            written, or belongs to another version, genesis or contract.
    """

    def __init__(self, path: Path, *, genesis_hash: bytes, contract: bytes) -> None:
        self._path = path
        self._lock = lock_beside(path)
        try:
            self._open(genesis_hash, contract)
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self, genesis_hash: bytes, contract: bytes) -> None:
        # Made by us first, so that nobody else can read it at any time. SQLite gives
        # its side files the same mode.
        os.close(open_private(self._path, os.O_RDWR | os.O_CREAT))
        self._engine = create_engine(
            "sqlite://",
            creator=lambda: sqlite3.connect(
                self._path, timeout=5, check_same_thread=False, isolation_level=None
            ),
            poolclass=StaticPool,
        )
        event.listen(self._engine, "connect", _configure)
        event.listen(self._engine, "begin", _begin)
        try:
            with self._transaction() as connection:
                self._check_identity(connection, genesis_hash, contract)
        except BaseException:
            self._engine.dispose()
            raise

    def _check_identity(self, connection: Connection, genesis: bytes, contract: bytes) -> None:
        version = connection.exec_driver_sql("PRAGMA user_version").scalar_one()
        tables = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one()
        if version == 0 and tables == 0:
            METADATA.create_all(connection)
            connection.execute(
                insert(META).values(
                    one=1,
                    version=VERSION,
                    genesis_hash=genesis,
                    contract=contract,
                    cursor_block=0,
                    cursor_index=-1,
                    cursor_hash=b"",
                )
            )
            connection.exec_driver_sql(f"PRAGMA user_version = {VERSION}")
            return
        if version != VERSION:
            raise JournalError(
                f"journal {self._path} has format version {version}, this program reads {VERSION};"
                " begin a new one in another folder"
            )
        row = connection.execute(select(META)).one()
        for name, found, expected in (
            ("genesis", row.genesis_hash, genesis),
            ("contract", row.contract, contract),
        ):
            if found != expected:
                raise JournalError(
                    f"journal {self._path} belongs to {name} 0x{found.hex()}, "
                    f"this orchestrator works for 0x{expected.hex()}"
                )

    def close(self) -> None:
        """Close the file; the journal is of no use afterwards."""
        self._engine.dispose()
        os.close(self._lock)

    @contextmanager
    def _transaction(self) -> Iterator[Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except SQLAlchemyError as error:
            reason = getattr(error, "orig", None) or error
            raise JournalError(f"journal {self._path} can't be used: {reason}") from error

    # What has been seen

    def cursor(self) -> tuple[int, int]:
        """The block and index up to which events have been seen."""
        with self._transaction() as connection:
            row = connection.execute(select(META.c.cursor_block, META.c.cursor_index)).one()
        return (row.cursor_block, row.cursor_index)

    def cursor_hash(self) -> bytes:
        """The hash of the cursor's block, empty where it is not known."""
        with self._transaction() as connection:
            return bytes(connection.execute(select(META.c.cursor_hash)).scalar_one())

    def write_page(self, changes: PageChanges) -> None:
        """Write what a page of events changes, and the cursor behind it, all or nothing."""
        with self._transaction() as connection:
            _upsert_records(connection, changes.records)
            for (day, owner), usage in changes.usage.items():
                row = {"day": day, "owner": owner, "jobs": usage.jobs, "bytes": usage.bytes}
                connection.execute(
                    insert(USAGE)
                    .values(row)
                    .on_conflict_do_update(index_elements=["day", "owner"], set_=row)
                )
            block, index = changes.cursor
            connection.execute(
                META.update().values(
                    cursor_block=block, cursor_index=index, cursor_hash=changes.cursor_hash
                )
            )

    def usage(self, day: int, owner: bytes) -> Usage:
        """What was admitted of *owner* on *day* (days since the epoch)."""
        with self._transaction() as connection:
            row = connection.execute(
                select(USAGE.c.jobs, USAGE.c.bytes).where(
                    USAGE.c.day == day, USAGE.c.owner == owner
                )
            ).one_or_none()
        return Usage() if row is None else Usage(jobs=row.jobs, bytes=row.bytes)

    # Jobs

    def save(self, records: Iterable[JobRecord]) -> None:
        """Write the rows as they are now."""
        with self._transaction() as connection:
            _upsert_records(connection, records)

    def record(self, job_id: JobId) -> JobRecord | None:
        """Return the job's row, `None` when the job was never seen."""
        found = self.records([job_id])
        return found[0] if found else None

    def records(self, job_ids: Sequence[JobId]) -> list[JobRecord]:
        """Return the rows of those of the jobs that were seen."""
        with self._transaction() as connection:
            rows = connection.execute(select(JOBS).where(JOBS.c.job_id.in_(job_ids))).all()
        return [_record(row) for row in rows]

    def open_records(self, *, after: JobId = 0, limit: int = 1_000) -> list[JobRecord]:
        """Return rows of jobs that still need something, by id."""
        return self._in_states(OPEN, after, limit)

    def deferred_records(self, *, after: JobId = 0, limit: int = 1_000) -> list[JobRecord]:
        """Return rows of jobs that wait for another day's allowance, by id."""
        return self._in_states({JobState.DEFERRED}, after, limit)

    def refused_records(
        self, code: str, *, after: JobId = 0, limit: int = 1_000
    ) -> list[JobRecord]:
        """Return rows of jobs that were refused for this reason, by id."""
        return self._in_states({JobState.REFUSED}, after, limit, JOBS.c.code == code)

    def _in_states(
        self,
        states: Iterable[JobState],
        after: JobId,
        limit: int,
        *also: ColumnElement[bool],
    ) -> list[JobRecord]:
        names = sorted(state.value for state in states)
        with self._transaction() as connection:
            rows = connection.execute(
                select(JOBS)
                .where(JOBS.c.state.in_(names), JOBS.c.job_id > after, *also)
                .order_by(JOBS.c.job_id)
                .limit(limit)
            ).all()
        return [_record(row) for row in rows]

    def counts(self) -> dict[JobState, int]:
        """How many jobs are in each state."""
        with self._transaction() as connection:
            rows = connection.execute(
                select(JOBS.c.state, func.count()).group_by(JOBS.c.state)
            ).all()
        return {JobState(state): count for state, count in rows}

    # Refusals

    def add_refusal(
        self, *, job_id: JobId, worker: WorkerId, code: str, detail: str, at: int
    ) -> None:
        """Write down that something was refused; the same again only counts."""
        row = {
            "job_id": _checked(job_id),
            "worker": worker,
            "code": code,
            "detail": detail[:500],
            "count": 1,
            "first_at": at,
            "last_at": at,
        }
        with self._transaction() as connection:
            connection.execute(COUNT_REFUSAL, row)

    def refusals(self, job_id: JobId) -> list[Refusal]:
        """Return what was refused about the job, in the order it happened first."""
        with self._transaction() as connection:
            rows = connection.execute(
                select(REFUSALS)
                .where(REFUSALS.c.job_id == job_id)
                .order_by(REFUSALS.c.first_at, REFUSALS.c.worker, REFUSALS.c.code)
            ).all()
        return [Refusal(**row._mapping) for row in rows]  # noqa: SLF001  # SQLAlchemy's public name

    # Statements and trust

    def remember_statement(self, statement: SeenStatement) -> SeenStatement:
        """
        Return the first statement seen of this worker about this job, *statement* if none.

        One about another payload is about another job.
        """
        row = {
            **vars(statement),
            "job_id": _checked(statement.job_id),
            "outcome": int(statement.outcome),
            # Times and units are u64, which an integer of SQLite can't hold.
            **{name: str(getattr(statement, name)) for name in _U64},
        }
        with self._transaction() as connection:
            added = connection.execute(ADD_STATEMENT, row)
            if added.rowcount == 1:
                return statement
            found = connection.execute(
                select(STATEMENTS).where(
                    STATEMENTS.c.job_id == statement.job_id,
                    STATEMENTS.c.worker == statement.worker,
                    STATEMENTS.c.payload_hash == statement.payload_hash,
                )
            ).one()
        return _seen(found)

    def statements(self, job_ids: Sequence[JobId]) -> list[SeenStatement]:
        """Return the statements first seen about these jobs."""
        with self._transaction() as connection:
            rows = connection.execute(
                select(STATEMENTS).where(STATEMENTS.c.job_id.in_(job_ids))
            ).all()
        return [_seen(row) for row in rows]

    def distrust(self, *, worker: WorkerId, code: str, evidence: object, at: int) -> bool:
        """Take a worker off the trusted list, until `trust`; whether it was still on it."""
        row = {"worker": worker, "code": code, "evidence": json.dumps(evidence), "at": at}
        row["suspended"] = 0
        with self._transaction() as connection:
            added = connection.execute(insert(DISTRUSTED).values(row).on_conflict_do_nothing())
        return added.rowcount == 1

    def trust(self, worker: WorkerId) -> bool:
        """Forget that a worker is no longer believed; whether it was so."""
        with self._transaction() as connection:
            removed = connection.execute(delete(DISTRUSTED).where(DISTRUSTED.c.worker == worker))
        return removed.rowcount == 1

    def distrusted(self) -> dict[WorkerId, str]:
        """Return the workers that are no longer believed, and why."""
        with self._transaction() as connection:
            rows = connection.execute(select(DISTRUSTED.c.worker, DISTRUSTED.c.code)).all()
        return {row.worker: row.code for row in rows}

    def unsuspended(self) -> list[WorkerId]:
        """Return the workers no longer believed that nobody has asked the chain to suspend."""
        with self._transaction() as connection:
            found = connection.execute(
                select(DISTRUSTED.c.worker).where(DISTRUSTED.c.suspended == 0)
            ).scalars()
            return list(found)

    def set_suspended(self, worker: WorkerId) -> None:
        """Write down that the worker needs no suspending any more."""
        with self._transaction() as connection:
            connection.execute(
                DISTRUSTED.update().where(DISTRUSTED.c.worker == worker).values(suspended=1)
            )

    def evidence(self, worker: WorkerId) -> object:
        """Return what the worker was taken off the list for, `None` if it was not."""
        with self._transaction() as connection:
            text = connection.execute(
                select(DISTRUSTED.c.evidence).where(DISTRUSTED.c.worker == worker)
            ).scalar_one_or_none()
        return None if text is None else json.loads(text)

    def unneeded_results(self, *, since: int, before: int) -> list[bytes]:
        """Return hashes of results of jobs closed from *since* to *before*, and of no others."""
        closed = JOBS.c.state.in_([state.value for state in CLOSED])
        is_of_job = STATEMENTS.c.job_id == JOBS.c.job_id
        needed = select(STATEMENTS.c.result_hash).where(
            is_of_job, ~and_(closed, JOBS.c.updated_at < before)
        )
        wanted = select(STATEMENTS.c.result_hash).where(
            is_of_job, closed, JOBS.c.updated_at >= since, JOBS.c.updated_at < before
        )
        with self._transaction() as connection:
            return list(connection.execute(wanted.except_(needed)).scalars())

    def prune(self, *, before: int) -> int:
        """Forget jobs closed before *before* (ms) and all about them; how many they were."""
        old = select(JOBS.c.job_id).where(
            JOBS.c.state.in_([state.value for state in CLOSED]), JOBS.c.updated_at < before
        )
        with self._transaction() as connection:
            for table in (REFUSALS, STATEMENTS):
                connection.execute(delete(table).where(table.c.job_id.in_(old)))
            removed = connection.execute(delete(JOBS).where(JOBS.c.job_id.in_(old)))
            connection.execute(delete(USAGE).where(USAGE.c.day < before // 86_400_000))
        return removed.rowcount


_U64 = ("units", "started_at", "finished_at", "issued_at")


def _configure(connection: sqlite3.Connection, _: object) -> None:
    for pragma in ("journal_mode = WAL", "synchronous = NORMAL", "secure_delete = ON"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: Connection) -> None:
    # The driver itself would not put the making of tables into the transaction.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _checked(job_id: JobId) -> JobId:
    if not 0 < job_id <= MAX_JOB_ID:
        raise JournalError(f"job id {job_id} is not one a journal can hold, 1 to {MAX_JOB_ID}")
    return job_id


def _upsert_records(connection: Connection, records: Iterable[JobRecord]) -> None:
    rows = [
        {
            **vars(record),
            "job_id": _checked(record.job_id),
            "state": record.state.value,
            "workers": _joined(record.workers),
            "dispatched": _joined(record.dispatched),
        }
        for record in records
    ]
    if rows:
        connection.execute(UPSERT_JOB, rows)


def _joined(workers: Iterable[WorkerId]) -> str:
    return ",".join(str(worker) for worker in workers)


def _split(text: str) -> tuple[WorkerId, ...]:
    return tuple(int(part) for part in text.split(",") if part)


def _record(row: Row[tuple[object, ...]]) -> JobRecord:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name
    values["state"] = JobState(values["state"])
    values["workers"] = _split(values["workers"])
    values["dispatched"] = _split(values["dispatched"])
    return JobRecord(**values)


def _seen(row: Row[tuple[object, ...]]) -> SeenStatement:
    values = dict(row._mapping)  # noqa: SLF001  # SQLAlchemy's public name
    values["outcome"] = Outcome(values["outcome"])
    values.update({name: int(values[name]) for name in _U64})
    return SeenStatement(**values)
