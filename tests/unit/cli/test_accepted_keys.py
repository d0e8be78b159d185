"""`--accepted-worker-keys`: whom jobs are sealed to, and whose results are taken."""

from pathlib import Path

import pytest

from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.errors import ChainUnavailableError
from orchestrator.models import Scheme

from .conftest import Run
from .world import World


@pytest.fixture
def owner(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """A world whose settings name an owner's identity."""
    monkeypatch.setenv("PHALA_JOBS_KEYS_UNENCRYPTED", "true")
    monkeypatch.setenv("PHALA_JOBS_ACCOUNT", "owner")
    made = run("keys", "new", "owner")
    assert made.exit_code == 0, made.stderr
    return world


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "input"
    path.write_bytes(b"secret input")
    return path


def _key(world: World, worker: int) -> str:
    public_key = world.workers[worker].signer.public_key
    assert public_key.scheme is Scheme.ECDSA
    return public_key.key.hex()


def _job_counter(world: World) -> int:
    with world.chain() as chain:
        return chain.read(world.processor.get_job_counter())


def test_jobs_are_sealed_to_accepted_workers_alone(run: Run, owner: World, data: Path) -> None:
    ran = run("submit", "echo", data, "--accepted-worker-keys", "0x" + _key(owner, 2))

    assert ran.exit_code == 0, ran.stderr
    assert run("status", 1, "--json").document["workers"] == [2]


def test_several_are_given_as_a_variable(run: Run, owner: World, data: Path) -> None:
    keys = f"{_key(owner, 1)},{_key(owner, 2)}"

    ran = run("submit", "echo", data, accepted_worker_keys=keys)

    assert ran.exit_code == 0, ran.stderr
    assert sorted(run("status", 1, "--json").document["workers"]) == [1, 2]


def test_another_worker_that_is_named_gets_no_job(run: Run, owner: World, data: Path) -> None:
    words = ("--worker", 1, "--accepted-worker-keys", _key(owner, 2))

    ran = run("submit", "echo", data, *words, "--json")

    assert ran.exit_code == 1
    assert ran.document["error"] == "WorkerNotAccepted"
    assert _job_counter(owner) == 0


def test_a_result_by_another_worker_is_refused(run: Run, owner: World, data: Path) -> None:
    run("submit", "echo", data, "--worker", 1, "--worker", 2)
    owner.attest(1, worker=1)

    refused = run("result", 1, "--accepted-worker-keys", _key(owner, 2), "--json")
    accepted = run("result", 1, "--accepted-worker-keys", _key(owner, 1))

    assert (refused.exit_code, refused.document["error"]) == (1, "WorkerNotAccepted")
    assert accepted.stdout_bytes == b"secret input"


def test_an_interrupted_submission_for_another_worker_is_given_up_and_told(
    run: Run, owner: World, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object, **__: object) -> None:
        raise ChainUnavailableError("gone")

    for worker in (1, 2):
        with monkeypatch.context() as patch:
            patch.setattr(EmbeddedChain, "call", unavailable)
            run("submit", "echo", data, "--worker", worker)

    ran = run("jobs", "--resume", "--accepted-worker-keys", _key(owner, 2), "--json")

    assert "a submission was given up: not sent: WorkerNotAccepted (worker 1 has" in ran.stderr
    assert [job["workers"] for job in ran.document["jobs"]] == [[2]]
    assert ran.document["unfinished"] == 0
    assert _job_counter(owner) == 1


@pytest.mark.parametrize("keys", ["0x1234", "no hex", "00" * 34])
def test_what_is_no_key_is_bad_usage(run: Run, owner: World, data: Path, keys: str) -> None:
    ran = run("submit", "echo", data, "--accepted-worker-keys", keys)

    assert ran.exit_code == 2
    assert f"accepted_worker_keys: {keys!r} is no signing key of 33 (ECDSA) or 32" in ran.stderr
    assert _job_counter(owner) == 0


def test_a_list_that_names_none_does_not_accept_all(
    run: Run, owner: World, data: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config.toml"
    config.write_text("accepted_worker_keys = []\n")

    for ran in (
        run("submit", "echo", data, "--config", config),
        run("submit", "echo", data, accepted_worker_keys=","),
    ):
        assert ran.exit_code == 2
        assert "is empty; without it more is allowed" in ran.stderr
    assert _job_counter(owner) == 0
