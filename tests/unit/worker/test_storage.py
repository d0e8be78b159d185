"""The worker's database: one outcome per job, durable, and clear about what it is."""

import os
import resource
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.encoding import blake2_256, decode_signing_key, encode_signing_key
from orchestrator.errors import (
    BlobUnavailableError,
    ConfigError,
    DigestMismatchError,
)
from orchestrator.models import Outcome, PublicKey, Scheme
from orchestrator.testing import FixedClock
from orchestrator.worker.database import Database
from orchestrator.worker.outcomes import OutcomeStore, StoredOutcome, WorkerBlobs
from orchestrator.workers import JobKey

KEY = JobKey(genesis=b"g" * 32, contract=b"c" * 32, job_id=(1 << 128) - 1, payload_hash=b"p" * 32)
SIGNING_KEY = PublicKey(scheme=Scheme.ECDSA, key=b"\2" + b"k" * 32)
OTHER_KEY = PublicKey(scheme=Scheme.ECDSA, key=b"\2" + b"o" * 32)
FIRST_KEY = encode_signing_key(PublicKey(scheme=Scheme.ECDSA, key=b"\2" + b"f" * 32))
OUTCOME = StoredOutcome(
    key=KEY,
    outcome=Outcome.COMPLETED,
    result_hash=blake2_256(b"sealed"),
    result_length=6,
    units=3,
    measurement=b"m" * 32,
    started_at=1,
    finished_at=2,
    deadline=100,
    signing_key=SIGNING_KEY,
)


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    made = Database(tmp_path / "worker.db", FIRST_KEY)
    yield made
    made.close()


def test_an_outcome_is_there_after_the_file_is_opened_again(tmp_path: Path) -> None:
    first = Database(tmp_path / "worker.db", FIRST_KEY)
    assert OutcomeStore(first).add(OUTCOME, b"sealed") == OUTCOME
    first.close()

    again = Database(tmp_path / "worker.db", FIRST_KEY)

    assert OutcomeStore(again).find(KEY) == OUTCOME
    blobs = WorkerBlobs(again, max_bytes=1, clock_ms=FixedClock())
    assert blobs.get(OUTCOME.result_hash, max_bytes=6) == b"sealed"
    again.close()


def test_no_file_of_the_database_is_for_others(tmp_path: Path) -> None:
    path = tmp_path / "worker.db"
    for was_there in (False, True):
        if was_there:
            for name in ("worker.db", "worker.db-wal", "worker.db-shm"):
                (tmp_path / name).touch()
                (tmp_path / name).chmod(0o644)
        made = Database(path, FIRST_KEY)
        try:
            OutcomeStore(made).add(OUTCOME, b"sealed")
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
        finally:
            made.close()
        assert modes == dict.fromkeys(("worker.db", "worker.db-wal", "worker.db-shm"), 0o600)


@pytest.mark.parametrize(
    "changes",
    [
        {"outcome": Outcome.FAILED},
        {"result_hash": b"r" * 32},
        {"units": 4},
        {"started_at": 0},
        {"finished_at": 9},
        {"measurement": b"n" * 32},
    ],
)
def test_the_first_outcome_of_a_job_is_the_only_one(
    database: Database, changes: dict[str, object]
) -> None:
    store = OutcomeStore(database)
    store.add(OUTCOME, b"sealed")

    assert store.add(replace(OUTCOME, **changes), b"other") == OUTCOME  # type: ignore[arg-type]  # fields by name

    assert store.find(KEY) == OUTCOME
    assert WorkerBlobs(database, max_bytes=1, clock_ms=FixedClock()).has(OUTCOME.result_hash)


@pytest.mark.parametrize(
    "changes",
    [
        {"genesis": bytes(32)},
        {"contract": bytes(32)},
        {"job_id": 1},
        {"payload_hash": bytes(32)},
    ],
)
def test_every_part_of_the_key_makes_it_another_job(
    database: Database, changes: dict[str, object]
) -> None:
    store = OutcomeStore(database)
    store.add(OUTCOME, b"sealed")
    other = replace(KEY, **changes)  # type: ignore[arg-type]  # fields by name

    assert store.find(other) is None
    second = replace(OUTCOME, key=other, units=9)
    assert store.add(second, b"sealed") == second


def test_with_a_chain_old_outcomes_go(database: Database) -> None:
    store = OutcomeStore(database)
    store.add(OUTCOME, b"sealed")

    store.prune(deadline_before=100, uploaded_before=0, keep_outcomes=False)
    assert store.find(KEY) == OUTCOME
    store.prune(deadline_before=101, uploaded_before=0, keep_outcomes=False)

    assert store.find(KEY) is None


def test_the_measurement_asked_for_last_is_kept_for_each_key(database: Database) -> None:
    store = OutcomeStore(database)
    assert store.measurement(b"g", b"c", SIGNING_KEY) is None

    store.set_measurement(b"g", b"c", SIGNING_KEY, b"one")
    store.set_measurement(b"g", b"c", SIGNING_KEY, b"two")
    store.set_measurement(b"g", b"d", SIGNING_KEY, b"three")
    store.set_measurement(b"g", b"c", OTHER_KEY, b"four")

    assert store.measurement(b"g", b"c", SIGNING_KEY) == b"two"
    assert store.measurement(b"g", b"c", OTHER_KEY) == b"four"


def test_many_threads_write_and_each_gets_its_own_answer(database: Database) -> None:
    store = OutcomeStore(database)
    answers: dict[int, StoredOutcome] = {}

    def write(number: int) -> None:
        key = replace(KEY, job_id=number % 20)
        answers[number] = store.add(replace(OUTCOME, key=key, units=number), b"sealed")

    threads = [threading.Thread(target=write, args=(number,)) for number in range(100)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    for number, answer in answers.items():
        assert answer == store.find(replace(KEY, job_id=number % 20))
        assert answer.units % 20 == number % 20


def test_a_change_that_fails_is_undone_alone(database: Database) -> None:
    started = threading.Event()
    go_on = threading.Event()

    def hold(_: sqlite3.Connection) -> None:
        started.set()
        assert go_on.wait(10)

    def fail(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO uploads VALUES (x'01', 1, 1, x'01')")
        raise RuntimeError("as told")

    def succeed(connection: sqlite3.Connection) -> str:
        connection.execute("INSERT INTO uploads VALUES (x'02', 1, 1, x'02')")
        return "done"

    results: list[object] = []

    def try_write(change: object) -> None:
        try:
            results.append(database.write(change))  # type: ignore[arg-type]  # either of the two
        except RuntimeError as error:
            results.append(str(error))

    threads = [threading.Thread(target=try_write, args=(change,)) for change in (hold,)]
    threads[0].start()
    assert started.wait(10)
    # These two come in while the first is being written, so they are committed together.
    for change in (fail, succeed):
        threads.append(threading.Thread(target=try_write, args=(change,)))
        threads[-1].start()
    go_on.set()
    for thread in threads:
        thread.join()

    assert sorted(map(str, results)) == ["None", "as told", "done"]
    blobs = WorkerBlobs(database, max_bytes=1, clock_ms=FixedClock())
    assert not blobs.has(b"\1")
    assert blobs.has(b"\2")


def test_a_write_that_can_not_be_made_is_no_write(tmp_path: Path) -> None:
    """The limit stands for a full disk: the commit itself fails."""
    script = f"""
import resource, signal
from pathlib import Path
from orchestrator.errors import BlobUnavailableError
from orchestrator.worker.database import Database
from orchestrator.worker.outcomes import OutcomeStore
from tests.unit.worker.test_storage import FIRST_KEY, OUTCOME, KEY
database = Database(Path({str(tmp_path)!r}) / "worker.db", FIRST_KEY)
store = OutcomeStore(database)
size = sum(path.stat().st_size for path in Path({str(tmp_path)!r}).iterdir())
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (size + 20_000, resource.RLIM_INFINITY))
try:
    store.add(OUTCOME, bytes(1 << 20))
except BlobUnavailableError as error:
    print("refused", "worker.db" in str(error))
print(store.find(KEY))
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
print(store.add(OUTCOME, b"sealed") == OUTCOME)
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "PYTHONPATH": "."},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.stdout.split("\n")[:3] == ["refused True", "None", "True"], done.stderr
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] == resource.RLIM_INFINITY


def test_a_write_after_the_end_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    """A thread that forgets what is old may still be at it when the worker stops."""
    database = Database(tmp_path / "worker.db", FIRST_KEY)
    database.close()
    answers: list[str] = []

    def write() -> None:
        with pytest.raises(BlobUnavailableError, match="closed"):
            database.write(lambda connection: connection.execute("DELETE FROM evidence"))
        answers.append("refused")

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    thread.join(10)

    assert answers == ["refused"]


def test_an_outcome_that_is_not_there_after_writing_is_not_signed(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.worker.outcomes._find", lambda *_: None)

    with pytest.raises(BlobUnavailableError):
        OutcomeStore(database).add(OUTCOME, b"sealed")


def test_a_commit_that_fails_fails_all_that_were_in_it(database: Database) -> None:
    def break_it(connection: sqlite3.Connection) -> None:
        # Ends the transaction under the one who wanted to commit it.
        connection.execute("COMMIT")

    with pytest.raises(BlobUnavailableError):
        database.write(break_it)

    assert database.write(lambda _: "goes on") == "goes on"


def test_reading_a_table_that_is_gone_is_a_store_out_of_reach(database: Database) -> None:
    with pytest.raises(BlobUnavailableError, match=r"worker\.db"):
        database.read(lambda connection: connection.execute("SELECT 1 FROM nothing"))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (
            lambda path: path.write_bytes(b"not a database, but longer than a header " * 100),
            "not a",
        ),
        (lambda path: _execute(path, "CREATE TABLE other (x)"), "not the database of a worker"),
        (lambda path: _execute(path, "PRAGMA application_id = 7"), "not the database of a worker"),
    ],
    ids=["no_database", "other_tables", "other_program"],
)
def test_a_file_of_something_else_is_refused_and_left_alone(
    tmp_path: Path, make: object, words: str
) -> None:
    path = tmp_path / "worker.db"
    make(path)  # type: ignore[operator]  # a function of a path

    with pytest.raises(ConfigError, match=words):
        Database(path, FIRST_KEY)


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "worker.db"
    Database(path, FIRST_KEY).close()
    _execute(path, "PRAGMA user_version = 3")

    with pytest.raises(ConfigError, match="version 3, not 2"):
        Database(path, FIRST_KEY)


_VERSION_1 = """
CREATE TABLE outcomes (
    genesis BLOB NOT NULL, contract BLOB NOT NULL, job_id TEXT NOT NULL, payload_hash BLOB NOT NULL,
    outcome INTEGER NOT NULL, result_hash BLOB NOT NULL, result_length INTEGER NOT NULL,
    units INTEGER NOT NULL, measurement BLOB NOT NULL, started_at INTEGER NOT NULL,
    finished_at INTEGER NOT NULL, deadline INTEGER NOT NULL, envelope BLOB,
    PRIMARY KEY (genesis, contract, job_id, payload_hash)
) WITHOUT ROWID;
CREATE INDEX outcomes_by_result ON outcomes (result_hash);
CREATE INDEX outcomes_by_deadline ON outcomes (deadline);
CREATE TABLE uploads (
    hash BLOB PRIMARY KEY, added_at INTEGER NOT NULL, length INTEGER NOT NULL, data BLOB NOT NULL
);
CREATE TABLE measurements (
    genesis BLOB NOT NULL, contract BLOB NOT NULL, measurement BLOB NOT NULL,
    PRIMARY KEY (genesis, contract)
) WITHOUT ROWID;
PRAGMA application_id = 0x70686A77;
PRAGMA user_version = 1;
"""


def test_a_file_of_version_1_keeps_what_it_holds(tmp_path: Path) -> None:
    """All that it holds was signed with the only key that its worker had."""
    path = tmp_path / "worker.db"
    connection = sqlite3.connect(path)
    connection.executescript(_VERSION_1)
    row = (KEY.genesis, KEY.contract, str(KEY.job_id), KEY.payload_hash, 1)
    values = (OUTCOME.result_hash, 6, 3, b"m" * 32, 1, 2, 100, b"sealed")
    marks = ", ".join("?" * 13)
    connection.execute(f"INSERT INTO outcomes VALUES ({marks})", (*row, *values))  # noqa: S608 - marks only
    connection.execute("INSERT INTO uploads VALUES (?, 1, 3, ?)", (blake2_256(b"put"), b"put"))
    connection.execute("INSERT INTO measurements VALUES (?, ?, ?)", (b"g", b"c", b"measured"))
    connection.commit()
    connection.close()
    first = decode_signing_key(FIRST_KEY)

    for _ in range(2):  # the second time it is of this version
        database = Database(path, FIRST_KEY)
        store = OutcomeStore(database)
        blobs = WorkerBlobs(database, max_bytes=100, clock_ms=FixedClock())
        assert store.find(KEY) == replace(OUTCOME, signing_key=first)
        assert store.add(replace(OUTCOME, units=9), b"other") == store.find(KEY)
        assert blobs.get(OUTCOME.result_hash, max_bytes=6) == b"sealed"
        assert blobs.get(blake2_256(b"put"), max_bytes=3) == b"put"
        assert store.measurement(b"g", b"c", first) == b"measured"
        assert store.measurement(b"g", b"c", OTHER_KEY) is None
        database.close()


def test_a_file_of_version_1_that_can_not_be_changed_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "worker.db"
    connection = sqlite3.connect(path)
    connection.executescript(_VERSION_1)
    connection.execute("CREATE TABLE evidence (in_the_way)")  # so that the last step fails
    connection.close()

    with pytest.raises(ConfigError, match="already exists"):
        Database(path, FIRST_KEY)

    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    columns = [row[1] for row in connection.execute("PRAGMA table_info(outcomes)")]
    connection.close()
    assert "signing_key" not in columns


def test_damaged_bytes_are_never_given_out(database: Database) -> None:
    blobs = WorkerBlobs(database, max_bytes=100, clock_ms=FixedClock())
    digest = blobs.put(b"bytes")
    database.write(lambda connection: connection.execute("UPDATE uploads SET data = x'00'"))

    with pytest.raises(DigestMismatchError):
        blobs.get(digest, max_bytes=100)


def _execute(path: Path, text: str) -> None:
    connection = sqlite3.connect(path)
    connection.execute(text)
    connection.commit()
    connection.close()
