"""The journal's tables, format version 2, and the statements that are made over and over."""

from sqlalchemy import Column, Integer, LargeBinary, MetaData, String, Table
from sqlalchemy.dialects.sqlite import insert

METADATA = MetaData()
META = Table(
    "meta",
    METADATA,
    Column("one", Integer, primary_key=True),
    Column("version", Integer, nullable=False),
    Column("genesis_hash", LargeBinary, nullable=False),
    Column("contract", LargeBinary, nullable=False),
    Column("cursor_block", Integer, nullable=False),
    Column("cursor_index", Integer, nullable=False),
    Column("cursor_hash", LargeBinary, nullable=False),
)
JOBS = Table(
    "jobs",
    METADATA,
    Column("job_id", Integer, primary_key=True),
    Column("owner", LargeBinary, nullable=False),
    Column("payload_hash", LargeBinary, nullable=False),
    Column("workers", String, nullable=False),
    Column("created_at", Integer, nullable=False),
    Column("deadline", Integer, nullable=False),
    Column("size", Integer, nullable=False),
    Column("state", String, nullable=False, index=True),
    Column("code", String, nullable=False),
    Column("detail", String, nullable=False),
    Column("dispatched", String, nullable=False),
    Column("seen_at", Integer, nullable=False),
    Column("updated_at", Integer, nullable=False),
)
REFUSALS = Table(
    "refusals",
    METADATA,
    Column("job_id", Integer, primary_key=True),
    Column("worker", Integer, primary_key=True),
    Column("code", String, primary_key=True),
    Column("detail", String, nullable=False),
    Column("count", Integer, nullable=False),
    Column("first_at", Integer, nullable=False),
    Column("last_at", Integer, nullable=False),
)
STATEMENTS = Table(
    "statements",
    METADATA,
    Column("job_id", Integer, primary_key=True),
    Column("worker", Integer, primary_key=True),
    Column("payload_hash", LargeBinary, primary_key=True),
    Column("outcome", Integer, nullable=False),
    Column("result_hash", LargeBinary, nullable=False),
    Column("units", String, nullable=False),
    Column("started_at", String, nullable=False),
    Column("finished_at", String, nullable=False),
    Column("issued_at", String, nullable=False),
    Column("signature", LargeBinary, nullable=False),
)
DISTRUSTED = Table(
    "distrusted",
    METADATA,
    Column("worker", Integer, primary_key=True),
    Column("code", String, nullable=False),
    Column("evidence", String, nullable=False),
    Column("at", Integer, nullable=False),
    Column("suspended", Integer, nullable=False),
)
USAGE = Table(
    "usage",
    METADATA,
    Column("day", Integer, primary_key=True),
    Column("owner", LargeBinary, primary_key=True),
    Column("jobs", Integer, nullable=False),
    Column("bytes", Integer, nullable=False),
)

INSERT_JOB = insert(JOBS)
UPSERT_JOB = INSERT_JOB.on_conflict_do_update(
    index_elements=["job_id"],
    set_={column.name: column for column in INSERT_JOB.excluded if column.name != "job_id"},
)
ADD_STATEMENT = insert(STATEMENTS).on_conflict_do_nothing()
ADD_REFUSAL = insert(REFUSALS)
COUNT_REFUSAL = ADD_REFUSAL.on_conflict_do_update(
    index_elements=["job_id", "worker", "code"],
    set_={
        "detail": ADD_REFUSAL.excluded.detail,
        "count": REFUSALS.c.count + 1,
        "last_at": ADD_REFUSAL.excluded.last_at,
    },
)
