"""The client's own list: durable, one owner's, refused when it is something else."""

import multiprocessing
import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.client.entries import EntryState, ListedJob, NewEntry
from orchestrator.client.job_list import JobList
from orchestrator.errors import ChainMismatchError, InputError
from orchestrator.keystore.private_files import create_private_file
from orchestrator.models import JobStatus

ORIGIN = {"genesis_hash": b"\1" * 32, "contract": b"\2" * 32, "owner": b"\3" * 32}


@pytest.fixture
def job_list(tmp_path: Path) -> Iterator[JobList]:
    job_list = JobList(tmp_path / "state", **ORIGIN)
    yield job_list
    job_list.close()


def _new(number: int, key: str | None = None) -> NewEntry:
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


def test_entries_come_back_as_they_went_in(job_list: JobList, tmp_path: Path) -> None:
    entry = job_list.add(_new(1, key="k"))
    job_list.close()

    again = JobList(tmp_path / "state", **ORIGIN)

    assert again.unfinished_entries() == [entry]
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
    job_list.add(_new(4, key="k"))

    job_list.restore([_listed(4)])

    (job,) = job_list.jobs()
    assert job.key == "k"
    assert job.workers == (2, 1)
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
        database.execute("PRAGMA user_version = 2")
    database.close()

    with pytest.raises(ChainMismatchError, match="version 2, this program reads 1"):
        JobList(tmp_path / "state", **ORIGIN)


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
            seen = len(job_list.unfinished_entries())
            job_list.add(_new(number))
            assert len(job_list.unfinished_entries()) == seen + 1, "nobody else under the lock"
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


def test_name_that_no_file_system_takes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="File name too long"):
        create_private_file(tmp_path / ("x" * 300))
