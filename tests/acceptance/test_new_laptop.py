"""New laptop, old results: one backup file and the chain are all that an owner needs."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.client import JobClient, JobFailedError
from orchestrator.errors import InputError, OpenError
from orchestrator.keystore import Identity, Keystore, ScryptParameters
from orchestrator.models import JobStatus, TaskInput
from orchestrator.testing.owner_world import World, make_world

QUICK = ScryptParameters(n=1 << 10)


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = make_world(tmp_path, path=tmp_path / "chain")
    yield world
    world.close()


def _client(world: World, identity: Identity, laptop: Path) -> JobClient:
    return world.client(account=identity.account, secret=identity.secret, state_dir=laptop / "jobs")


def _live_through(world: World, client: JobClient) -> None:
    """Job 1 is processed; 2 too, and purged; 3 failed and is purged; 4 is open; 5 cancelled."""
    for number in range(1, 6):
        client.submit(TaskInput(task="echo", input=f"result {number}".encode()), workers=[1, 2])
    world.process(1, 0)
    world.process(2, 1)
    client.purge(2)
    for worker in world.workers:
        world.record(worker.fail(3, "TaskFailed", "because of this"))
    client.purge(3)
    client.cancel(5)
    client.purge(5)


def test_backup_opens_old_results_on_a_new_laptop(world: World, tmp_path: Path) -> None:
    old, new, stick = tmp_path / "old", tmp_path / "new", tmp_path / "stick"
    stick.mkdir()
    keys = Keystore(old / "keys", scrypt=QUICK)
    keys.new("me", passphrase="of the old laptop")
    client = _client(world, keys.load("me", passphrase="of the old laptop"), old)
    _live_through(world, client)
    before = client.jobs()
    keys.backup(
        "me",
        stick / "backup.json",
        passphrase="of the old laptop",
        backup_passphrase="of the backup",
    )
    client.close()
    world.clients.clear()
    shutil.rmtree(old)

    keys = Keystore(new / "keys", scrypt=QUICK)
    with pytest.raises(InputError, match="passphrase: wrong"):
        keys.restore(stick / "backup.json", backup_passphrase="guessed", passphrase="p")
    keys.restore(
        stick / "backup.json",
        backup_passphrase="of the backup",
        passphrase="of the new laptop",
    )
    client = _client(world, keys.load("me", passphrase="of the new laptop"), new)
    assert client.jobs() == []
    count = client.rebuild()

    assert count == 5
    assert client.jobs() == before
    assert [(job.job_id, job.status, job.purged) for job in client.jobs()] == [
        (1, JobStatus.PROCESSED, False),
        (2, JobStatus.PROCESSED, True),
        (3, JobStatus.FAILED, True),
        (4, JobStatus.SUBMITTED, False),
        (5, JobStatus.CANCELLED, True),
    ]
    assert client.result(1).output == b"RESULT 1"
    assert client.result(2).output == b"RESULT 2"
    with pytest.raises(JobFailedError) as failed:
        client.result(3)
    assert [failure.message for failure in failed.value.failures] == ["because of this"] * 2
    world.process(4)
    assert client.wait(4, timeout_seconds=10) is JobStatus.PROCESSED
    assert client.result(4).output == b"RESULT 4"
    client.purge(4)
    assert client.result(4).output == b"RESULT 4"


def test_phrase_of_the_account_alone_opens_nothing(world: World, tmp_path: Path) -> None:
    """The owner secret is not made from the account: that is what the backup is for."""
    keys = Keystore(tmp_path / "old" / "keys", scrypt=QUICK)
    new = keys.new("me", passphrase="p")
    _live_through(world, _client(world, keys.load("me", passphrase="p"), tmp_path / "old"))
    laptop = Keystore(tmp_path / "new" / "keys", scrypt=QUICK)
    laptop.import_mnemonic("me", new.mnemonic, passphrase="p")
    client = _client(world, laptop.load("me", passphrase="p"), tmp_path / "new")

    assert client.rebuild() == 5
    for job_id in (1, 2):
        with pytest.raises(OpenError):
            client.result(job_id)
