"""The client's own list: durable, one owner's, refused when it is something else."""

import multiprocessing
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from orchestrator.chain import Block, Chain
from orchestrator.client.entries import EntryState, ListedJob, NewEntry
from orchestrator.client.job_list import JobList
from orchestrator.errors import ChainMismatchError, ChainUnavailableError, InputError
from orchestrator.keystore.private_files import create_private_file
from orchestrator.models import JobStatus

ORIGIN = {"genesis_hash": b"\1" * 32, "contract": b"\2" * 32, "owner": b"\3" * 32}


@pytest.fixture
def job_list(tmp_path: Path) -> Iterator[JobList]:
    job_list = JobList(tmp_path / "state", **ORIGIN)
    yield job_list
    job_list.close()


DEAD = "0" * 32


def _new(number: int, key: str | None = None, session: str = DEAD) -> NewEntry:
    return NewEntry(
        key=key,
        fingerprint=b"f" * 32,
        payload_hash=number.to_bytes(32, "big"),
        envelope=b"sealed bytes",
        public_key=b"k" * 32,
        workers=(2, 1),
        ttl=60_000,
        counter=7,
        block=3,
        created_at=1,
        session=session,
    )


def _listed(number: int, **changes: object) -> ListedJob:
    fields: dict[str, object] = {
        "job_id": number,
        "key": None,
        "payload_hash": number.to_bytes(32, "big"),
        "workers": (1,),
        "status": JobStatus.SUBMITTED,
        "purged": False,
        "block": 5,
        "created_at": 9,
    }
    return ListedJob(**{**fields, **changes})  # type: ignore[arg-type]  # each is of its type


class Run:
    """A run of a development chain, with as much of the port as the list asks."""

    def __init__(self, name: bytes, head: int = 5) -> None:
        self._name = name
        self._head = head

    def finalized_head(self) -> Block:
        return Block(number=self._head, hash=self._name * 32, timestamp=1)

    def block_hash(self, number: int) -> bytes | None:
        return self._name * 32 if number <= self._head else None


def _check(job_list: JobList, run: Run) -> None:
    job_list.check_chain(cast("Chain", run))


def test_list_of_another_run_of_the_chain_is_refused_with_what_to_do(
    job_list: JobList, tmp_path: Path
) -> None:
    _check(job_list, Run(b"a"))
    _check(job_list, Run(b"a", head=9))

    with closing(JobList(tmp_path / "state", **ORIGIN)) as again:
        with pytest.raises(ChainMismatchError, match=r"another run of a dev.*remove the list, or"):
            _check(again, Run(b"b", head=9))

        _check(again, Run(b"a"))


def test_chain_that_does_not_reach_the_lists_first_block_is_asked_again(job_list: JobList) -> None:
    _check(job_list, Run(b"a"))

    with pytest.raises(ChainUnavailableError, match=r"does not reach block 5.*node is behind"):
        _check(job_list, Run(b"a", head=4))


def test_job_id_that_another_entry_has_is_named_and_the_others_are_noted(
    job_list: JobList,
) -> None:
    first, second, third = (job_list.add(_new(number)) for number in (1, 2, 3))
    job_list.mark_submitted([(first.entry, 1, 5)])

    with pytest.raises(ChainMismatchError, match="as job 1 already: this is another run"):
        job_list.mark_submitted([(second.entry, 1, 6), (third.entry, 2, 6)])

    assert job_list.state_of(first.entry)[1] == 1
    assert job_list.state_of(second.entry)[1] is None
    assert job_list.state_of(third.entry)[1] == 2


def test_entries_come_back_as_they_went_in(job_list: JobList, tmp_path: Path) -> None:
    entry = job_list.add(_new(1, key="k"))
    job_list.close()

    again = JobList(tmp_path / "state", **ORIGIN)

    assert again.unfinished_entries() == ([entry], [])
    assert entry.state is EntryState.SEALED
    assert "sealed bytes" not in repr(entry)
    again.close()


def test_ids_beyond_64_bits_are_kept_and_sorted(job_list: JobList) -> None:
    ids = [1 << 127, 1, (1 << 64) + 1]

    job_list.restore([_listed(number) for number in ids])

    assert [job.job_id for job in job_list.jobs()] == sorted(ids)


def test_restoring_twice_changes_nothing(job_list: JobList) -> None:
    jobs = [_listed(number) for number in (1, 2)]
    job_list.restore(jobs)
    job_list.restore(jobs)

    assert job_list.jobs() == jobs


def test_restoring_finishes_an_entry_with_that_payload(job_list: JobList) -> None:
    """To whom it was sealed, and when, stays what was written down before it was sent."""
    job_list.add(_new(4, key="k"))

    job_list.restore([_listed(4)])

    (job,) = job_list.jobs()
    assert job.key == "k"
    assert (job.workers, job.created_at) == ((2, 1), 1)
    assert job_list.unfinished() == []
    assert job_list.envelope(4) == b"sealed bytes"
    assert job_list.envelope(5) is None


def test_restoring_another_payload_for_a_known_job_changes_nothing(job_list: JobList) -> None:
    job_list.restore([_listed(1)])

    with pytest.raises(ChainMismatchError, match="job 1: the list has another payload"):
        job_list.restore([_listed(2), _listed(1, payload_hash=b"x" * 32)])

    assert job_list.jobs() == [_listed(1)]


def test_one_payload_submitted_twice_is_two_jobs(job_list: JobList) -> None:
    job_list.restore([_listed(1), _listed(2, payload_hash=(1).to_bytes(32, "big"))])

    assert [job.job_id for job in job_list.jobs()] == [1, 2]


def test_commits_are_flushed_to_the_disk(job_list: JobList) -> None:
    """A power cut can't be tested here; that SQLite was told (2 is FULL) can."""
    assert [tuple(row) for row in job_list._file.rows("PRAGMA synchronous")] == [(2,)]


def test_looking_again_writes_nothing(job_list: JobList) -> None:
    job_list.restore([_listed(1)])
    job_list.update(1, status=JobStatus.PROCESSED)
    before = job_list._file._database.total_changes

    for _ in range(10):
        job_list.update(1, status=JobStatus.PROCESSED)

    assert job_list._file._database.total_changes == before


def test_a_purge_is_never_taken_back(job_list: JobList) -> None:
    job_list.restore([_listed(1)])
    job_list.update(1, purged=True)
    job_list.update(1, status=JobStatus.CANCELLED)

    assert job_list.job(1) == _listed(1, purged=True, status=JobStatus.CANCELLED)


def test_refused_bytes_are_dropped(job_list: JobList) -> None:
    entry = job_list.add(_new(1, key="k"))

    job_list.mark_refused(entry.entry, "WrongMode")

    assert job_list.state_of(entry.entry) == (EntryState.REFUSED, None, "WrongMode")
    assert job_list.unfinished() == []
    assert job_list.entry_by_key("k") == (None, None)


def test_other_versions_are_refused_and_left_alone(job_list: JobList, tmp_path: Path) -> None:
    path = job_list.path
    job_list.close()
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 1")
    database.close()

    with pytest.raises(ChainMismatchError, match="version 1, this program reads 4"):
        JobList(tmp_path / "state", **ORIGIN)


def test_a_list_from_before_policies_were_kept_is_read_and_goes_on(
    job_list: JobList, tmp_path: Path
) -> None:
    before = job_list.add(_new(1, key="k"))
    path = job_list.path
    job_list.close()
    with sqlite3.connect(path) as database:
        database.execute("ALTER TABLE entries DROP COLUMN policy_hash")
        database.execute("PRAGMA user_version = 3")
    database.close()

    with closing(JobList(tmp_path / "state", **ORIGIN)) as opened:
        ((read,), _) = opened.unfinished_entries()
        opened.mark_submitted([(read.entry, 1, 3)])
        after = opened.add(replace(_new(2), policy_hash=b"p" * 32))
        opened.mark_submitted([(after.entry, 2, 3)])
    with closing(JobList(tmp_path / "state", **ORIGIN)) as again:
        jobs = again.jobs()
        again.restore([_listed(2, payload_hash=after.payload_hash)])
        restored = again.job(2)

    assert read == before
    assert [job.policy_hash for job in jobs] == [None, b"p" * 32]
    assert restored is not None
    assert restored.policy_hash == b"p" * 32


def test_list_of_another_origin_is_refused(job_list: JobList, tmp_path: Path) -> None:
    """Somebody renamed a file."""
    path = job_list.path
    job_list.close()
    other = JobList(tmp_path / "other", **{**ORIGIN, "owner": b"\4" * 32})
    wanted = tmp_path / "state" / other.path.name
    other.close()
    path.rename(wanted)

    with pytest.raises(ChainMismatchError, match="another chain, contract or owner"):
        JobList(tmp_path / "state", **{**ORIGIN, "owner": b"\4" * 32})


@pytest.mark.parametrize("data", [b"not a database, but long enough to be read" * 100])
def test_damaged_files_are_refused_and_left_alone(
    job_list: JobList, tmp_path: Path, data: bytes
) -> None:
    path = job_list.path
    job_list.close()
    path.write_bytes(data)

    with pytest.raises(InputError, match="not usable"):
        JobList(tmp_path / "state", **ORIGIN)

    assert path.read_bytes() == data


def test_list_that_others_may_read_is_refused(job_list: JobList, tmp_path: Path) -> None:
    job_list.path.chmod(0o644)

    with pytest.raises(InputError, match="mode 0644 lets other users in"):
        JobList(tmp_path / "state", **ORIGIN)


def test_list_that_is_a_link_is_refused(job_list: JobList, tmp_path: Path) -> None:
    path = job_list.path
    job_list.close()
    path.rename(tmp_path / "moved")
    path.symlink_to(tmp_path / "moved")

    with pytest.raises(InputError, match="links are not followed"):
        JobList(tmp_path / "state", **ORIGIN)


def _add_under_lock(directory: str, first: int) -> None:
    job_list = JobList(Path(directory), **ORIGIN)
    for number in range(first, first + 20):
        with job_list.sending_lock():
            seen = len(job_list.unfinished())
            job_list.add(_new(number))
            assert len(job_list.unfinished()) == seen + 1, "nobody else under the lock"
    job_list.close()


def test_two_processes_begin_and_use_one_list(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [
        context.Process(target=_add_under_lock, args=(str(tmp_path / "state"), first))
        for first in (100, 200, 300)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)

    assert [process.exitcode for process in processes] == [0, 0, 0]
    job_list = JobList(tmp_path / "state", **ORIGIN)
    assert len(job_list.unfinished()) == 60
    job_list.close()


def test_full_disk_is_an_input_error_and_changes_nothing(job_list: JobList) -> None:
    job_list.restore([_listed(1)])
    job_list._file.rows("PRAGMA max_page_count = 1")

    with pytest.raises(InputError, match="database or disk is full"):
        job_list.restore([_listed(number) for number in range(2, 2_000)])

    assert job_list.jobs() == [_listed(1)]


def test_use_by_another_thread_is_an_input_error(job_list: JobList) -> None:
    with ThreadPoolExecutor(1) as executor, pytest.raises(InputError, match="thread"):
        executor.submit(job_list.jobs).result()


def test_lock_that_was_removed_is_an_input_error(job_list: JobList) -> None:
    job_list.path.with_suffix(".lock").unlink()

    with pytest.raises(InputError, match="No such file"), job_list.sending_lock():
        pytest.fail("locked")


def test_entries_are_held_as_long_as_their_session_lives(job_list: JobList, tmp_path: Path) -> None:
    other = JobList(tmp_path / "state", **ORIGIN)
    left_behind = job_list.add(_new(1))
    with job_list.session() as session:
        held = job_list.add(_new(2, session=session))

        for view in (job_list, other):
            assert view.unfinished_entries() == ([left_behind], [held])
            assert [job.entry for job in view.unfinished()] == [left_behind.entry]

    assert other.unfinished_entries() == ([left_behind, held], [])
    assert [job.entry for job in other.unfinished()] == [left_behind.entry, held.entry]
    with other.session() as session:
        (claimed,) = other.claim([held], session)
        assert claimed.session == session
        assert job_list.unfinished_entries() == ([left_behind], [claimed])
    other.close()


def test_closing_the_list_ends_its_sessions(job_list: JobList, tmp_path: Path) -> None:
    """Also where somebody keeps a generator that is inside of one."""
    with job_list.session() as session:
        entry = job_list.add(_new(1, session=session))
        job_list.close()

        again = JobList(tmp_path / "state", **ORIGIN)
        assert again.unfinished_entries() == ([entry], [])
        again.close()


def _change(job_list: JobList, change: str) -> None:
    with sqlite3.connect(job_list.path) as database:
        database.execute(change)
    database.close()


def _set(job_list: JobList, change: str) -> None:
    _change(job_list, f"UPDATE entries SET {change}")  # noqa: S608 - what the test changes


COLUMNS = [
    ("key", "X'07'", "not text"),
    ("fingerprint", "'text'", "not bytes"),
    ("fingerprint", "NULL", "not bytes"),
    ("payload_hash", "X'00'", "1 bytes, must be 32"),
    ("envelope", "NULL", "not bytes"),
    ("public_key", "7", "not bytes"),
    ("workers", "'{'", "not JSON"),
    ("workers", "X'00'", "not text"),
    ("workers", "'[1, true]'", "not a list of numbers"),
    ("workers", "'{\"1\": 2}'", "not a list of numbers"),
    ("workers", "'" + "[" * 50_000 + "'", "not JSON"),
    ("ttl", "-1", "not a number from 0 on"),
    ("counter", "NULL", "not bytes"),
    ("counter", "X'00'", "1 bytes, must be 16"),
    ("block", "'text'", "not a number from 0 on"),
    ("created_at", "1.5", "not a number from 0 on"),
    ("session", "NULL", "not text"),
    ("session", "'../../x'", "is no session"),
]


@pytest.mark.parametrize(("column", "value", "why"), COLUMNS)
def test_damaged_entries_are_named(job_list: JobList, column: str, value: str, why: str) -> None:
    job_list.add(_new(1, key="k"))
    _set(job_list, f"{column} = {value}")

    with pytest.raises(InputError, match=f"damaged, .*{why}") as refused:
        job_list.unfinished_entries()

    assert column in str(refused.value)


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [
        ("status", "'bogus'", "no status of a job"),
        ("status", "NULL", "no status of a job"),
        ("job_id", "'text'", "not bytes"),
        ("job_id", "X'00'", "1 bytes, must be 16"),
        ("purged", "'no'", "not a number from 0 on"),
        ("workers", "'5'", "not a list of numbers"),
    ],
)
def test_damaged_jobs_are_named(job_list: JobList, column: str, value: str, why: str) -> None:
    job_list.restore([_listed(1)])
    _set(job_list, f"{column} = {value}")

    with pytest.raises(InputError, match=f"entry 1: damaged, {column} is {why}"):
        job_list.jobs()


@pytest.mark.parametrize("change", ["fingerprint = 'text'", "job_id = 'text'"])
def test_damaged_keys_are_named(job_list: JobList, change: str) -> None:
    job_list.add(_new(1, key="k"))
    _set(job_list, change)

    with pytest.raises(InputError, match=r"entry 1: damaged, .* is not bytes"):
        job_list.entry_by_key("k")


def test_damaged_state_is_named(job_list: JobList) -> None:
    job_list.add(_new(1))
    _set(job_list, "state = 'lost'")

    with pytest.raises(InputError, match="entry 1: damaged, state is no state"):
        job_list.state_of(1)


def test_entry_that_was_removed_is_named(job_list: JobList) -> None:
    job_list.add(_new(1))
    _change(job_list, "DELETE FROM entries")

    with pytest.raises(InputError, match="entry 1 was removed"):
        job_list.state_of(1)


@pytest.mark.parametrize(
    ("change", "count"),
    [("DELETE FROM origin", 0), ("INSERT INTO origin SELECT * FROM origin", 2)],
)
def test_list_has_one_origin(job_list: JobList, tmp_path: Path, change: str, count: int) -> None:
    job_list.close()
    _change(job_list, change)

    with pytest.raises(InputError, match=f"damaged, {count} origins, must be 1"):
        JobList(tmp_path / "state", **ORIGIN)


def test_name_that_no_file_system_takes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="File name too long"):
        create_private_file(tmp_path / ("x" * 300))
