"""The journal: what it refuses, what it keeps, and what it counts."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.errors import JournalError
from orchestrator.journal import (
    JobRecord,
    JobState,
    Journal,
    PageChanges,
    SeenStatement,
    Usage,
)
from orchestrator.models import Outcome

GENESIS = b"g" * 32
CONTRACT = b"c" * 32
OWNER = b"o" * 32


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = make(path)
    yield journal
    journal.close()


def make(path: Path, genesis_hash: bytes = GENESIS, contract: bytes = CONTRACT) -> Journal:
    return Journal(path, genesis_hash=genesis_hash, contract=contract)


def record(job_id: int, state: JobState = JobState.ADMITTED, at: int = 1_000) -> JobRecord:
    return JobRecord(
        job_id=job_id,
        owner=OWNER,
        payload_hash=b"p" * 32,
        workers=(3, 1),
        created_at=1,
        deadline=2_000,
        size=10,
        state=state,
        seen_at=at,
        updated_at=at,
    )


def statement(**changed: object) -> SeenStatement:
    made = SeenStatement(
        job_id=1,
        worker=2,
        payload_hash=b"p" * 32,
        outcome=Outcome.COMPLETED,
        result_hash=b"r" * 32,
        units=(1 << 64) - 1,
        started_at=1,
        finished_at=2,
        issued_at=3,
        signature=b"s" * 65,
    )
    return replace(made, **changed)  # type: ignore[arg-type]  # names of its fields


def test_file_and_its_side_files_are_private(path: Path) -> None:
    path.write_bytes(b"")
    path.chmod(0o644)

    journal = make(path)
    journal.save([record(1)])

    modes = [file.stat().st_mode & 0o777 for file in path.parent.iterdir()]
    journal.close()
    assert modes == [0o600] * 4


def test_journal_survives_being_closed(path: Path) -> None:
    journal = make(path)
    changes = PageChanges(cursor=(7, 3), records=[record(1)], usage={(20, OWNER): Usage(jobs=1)})
    journal.write_page(changes)
    journal.close()

    again = make(path)

    assert again.cursor() == (7, 3)
    assert again.record(1) == record(1)
    assert again.usage(20, OWNER) == Usage(jobs=1)
    again.close()


def test_hash_of_the_cursors_block_is_kept_with_the_cursor(path: Path) -> None:
    with closing(make(path)) as journal:
        assert journal.cursor_hash() == b""
        journal.write_page(PageChanges(cursor=(7, 3), cursor_hash=b"h" * 32))

    with closing(make(path)) as again:
        assert (again.cursor(), again.cursor_hash()) == ((7, 3), b"h" * 32)


def test_statement_about_another_payload_is_of_another_job(journal: Journal) -> None:
    first = statement(result_hash=b"1" * 32)
    other = statement(result_hash=b"2" * 32, payload_hash=b"q" * 32)
    journal.remember_statement(first)

    assert journal.remember_statement(other) == other
    assert not first.conflicts_with(other)
    assert first.conflicts_with(statement(result_hash=b"2" * 32))
    assert set(journal.statements([1])) == {first, other}


@pytest.mark.parametrize(
    ("genesis", "contract", "word"),
    [(b"x" * 32, CONTRACT, "genesis"), (GENESIS, b"x" * 32, "contract")],
)
def test_journal_of_another_chain_or_contract_is_refused(
    path: Path, genesis: bytes, contract: bytes, word: str
) -> None:
    make(path).close()
    before = path.read_bytes()

    with pytest.raises(JournalError, match=f"belongs to {word} 0x"):
        make(path, genesis, contract)

    assert path.read_bytes() == before


def test_journal_of_another_version_is_refused(path: Path) -> None:
    make(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 1")
    connection.close()

    with pytest.raises(JournalError, match="format version 1, this program reads 2; begin a new"):
        make(path)


def test_file_that_is_no_journal_is_refused(path: Path) -> None:
    path.write_bytes(b"something else entirely" * 1_000)

    with pytest.raises(JournalError, match="not a database"):
        make(path)

    assert path.read_bytes().startswith(b"something else")


def test_damaged_journal_is_refused(path: Path) -> None:
    journal = make(path)
    journal.save([record(number) for number in range(1, 400)])
    journal.close()
    path.write_bytes(path.read_bytes()[:8_192])

    with pytest.raises(JournalError, match="can't be used"), closing(make(path)) as damaged:
        damaged.open_records()


def test_journal_in_use_is_refused(path: Path, journal: Journal) -> None:
    with pytest.raises(JournalError, match="in use by another orchestrator"):
        make(path)

    assert journal.cursor() == (0, -1)


def test_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(JournalError, match="No such file"):
        make(tmp_path / "missing" / "journal.db")


def test_link_is_not_followed(path: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_bytes(b"")
    path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(JournalError, match="symbolic links"):
        make(path)


def test_full_disk_is_a_journal_error_and_changes_nothing(path: Path, journal: Journal) -> None:
    journal.save([record(1)])
    with journal._engine.connect() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")

    with pytest.raises(JournalError, match="full"):
        journal.save([record(number) for number in range(1, 2_000)])

    assert journal.record(2) is None


def test_page_is_written_whole_or_not_at_all(journal: Journal) -> None:
    too_large = record(1 << 63)

    with pytest.raises(JournalError, match="is not one a journal can hold"):
        journal.write_page(PageChanges(cursor=(9, 9), records=[record(1), too_large]))

    assert journal.cursor() == (0, -1)
    assert journal.record(1) is None


def test_row_is_replaced_by_its_newer_self(journal: Journal) -> None:
    journal.save([record(1)])
    newer = replace(record(1, JobState.DISPATCHED), dispatched=(3,), code="x", detail="y")

    journal.save([newer])

    assert journal.record(1) == newer
    assert journal.records([1, 2]) == [newer]


def test_rows_are_listed_by_state_in_pages(journal: Journal) -> None:
    states = list(JobState)
    journal.save([record(number, state) for number, state in enumerate(states, 1)])

    still_open = [r.state for r in journal.open_records()]

    assert still_open == [JobState.ADMITTED, JobState.DISPATCHED, JobState.ATTESTED]
    assert [r.state for r in journal.deferred_records()] == [JobState.DEFERRED]
    first = journal.open_records(limit=1)
    assert [r.state for r in journal.open_records(after=first[-1].job_id)] == still_open[1:]
    assert journal.counts() == dict.fromkeys(states, 1)
    assert [state for state in states if not state.is_closed] == [JobState.DEFERRED, *still_open]


def test_same_refusal_is_counted_not_repeated(journal: Journal) -> None:
    for at, detail in ((5, "first"), (9, "last")):
        journal.add_refusal(job_id=1, worker=2, code="BadSignature", detail=detail, at=at)
    journal.add_refusal(job_id=1, worker=3, code="BadSignature", detail="x" * 9_999, at=7)

    first, second = journal.refusals(1)

    assert (first.count, first.detail, first.first_at, first.last_at) == (2, "last", 5, 9)
    assert len(second.detail) == 500
    assert journal.refusals(2) == []


def test_first_statement_of_a_worker_about_a_job_is_kept(journal: Journal) -> None:
    first = statement()
    assert journal.remember_statement(first) == first

    again = journal.remember_statement(statement(result_hash=b"q" * 32))

    assert again == first
    assert journal.statements([1]) == [first]
    assert journal.remember_statement(statement(worker=3)).worker == 3


@pytest.mark.parametrize(
    "changed",
    [
        {"outcome": Outcome.FAILED},
        {"result_hash": b"q" * 32},
        {"units": 1},
        {"started_at": 0},
        {"finished_at": 3},
    ],
)
def test_statements_conflict_by_what_they_say(changed: dict[str, object]) -> None:
    assert statement().conflicts_with(statement(**changed))


@pytest.mark.parametrize("changed", [{"issued_at": 99}, {"signature": b"t" * 65}])
def test_time_of_signing_and_signature_are_no_conflict(changed: dict[str, object]) -> None:
    assert not statement().conflicts_with(statement(**changed))


def test_distrust_lasts_until_somebody_says_otherwise(journal: Journal) -> None:
    assert journal.distrust(worker=2, code="Conflict", evidence=[{"a": 1}], at=5)
    assert not journal.distrust(worker=2, code="Other", evidence=[], at=6)

    assert journal.distrusted() == {2: "Conflict"}
    assert journal.evidence(2) == [{"a": 1}]
    assert journal.evidence(3) is None
    assert journal.unsuspended() == [2]
    journal.set_suspended(2)
    assert journal.unsuspended() == []
    assert journal.trust(2)
    assert journal.distrusted() == {}
    assert not journal.trust(2)


def test_old_closed_jobs_are_forgotten_with_all_about_them(journal: Journal) -> None:
    day = 86_400_000
    journal.write_page(
        PageChanges(
            cursor=(1, 1),
            records=[
                record(1, JobState.PROCESSED, at=day),
                record(2, JobState.ADMITTED, at=day),
                record(3, JobState.PROCESSED, at=3 * day),
            ],
            usage={(1, OWNER): Usage(jobs=3), (2, OWNER): Usage(jobs=1)},
        )
    )
    journal.remember_statement(statement())
    journal.add_refusal(job_id=1, worker=2, code="x", detail="", at=1)

    removed = journal.prune(before=2 * day)

    assert removed == 1
    assert [r.job_id for r in journal.records([1, 2, 3])] == [2, 3]
    assert journal.statements([1]) == []
    assert journal.refusals(1) == []
    assert journal.usage(1, OWNER) == Usage()
    assert journal.usage(2, OWNER) == Usage(jobs=1)


def test_results_are_unneeded_when_all_their_jobs_are_closed_long_enough(journal: Journal) -> None:
    states = {
        1: (JobState.PROCESSED, 100),
        2: (JobState.PROCESSED, 200),
        3: (JobState.ADMITTED, 100),
        4: (JobState.FAILED, 150),
        5: (JobState.PROCESSED, 100),
        6: (JobState.DEFERRED, 100),
    }
    records = [record(job_id, state, at) for job_id, (state, at) in states.items()]
    journal.write_page(PageChanges(cursor=(1, 1), records=records))
    for job_id, letter in ((1, b"a"), (2, b"b"), (3, b"c"), (4, b"d"), (5, b"c"), (6, b"f")):
        journal.remember_statement(statement(job_id=job_id, result_hash=letter * 32))
    journal.remember_statement(statement(job_id=4, worker=9, result_hash=b"e" * 32))

    def letters(since: int, before: int) -> set[bytes]:
        found = journal.unneeded_results(since=since, before=before)
        return {digest[:1] for digest in found}

    assert letters(0, 200) == {b"a", b"d", b"e"}  # c is also that of an open job
    assert letters(0, 201) == {b"a", b"b", b"d", b"e"}
    assert letters(150, 201) == {b"b", b"d", b"e"}
    assert letters(0, 100) == set()
