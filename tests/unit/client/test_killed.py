"""kill -9 at each step of submitting: afterwards each job is on the chain exactly once."""

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import orchestrator
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.testing.owner_world import World, make_world

SCRIPT = Path(__file__).with_name("killed_owner.py")


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("killed_owner", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


killed_owner = _load()


@pytest.fixture
def shared(tmp_path: Path) -> Iterator[World]:
    world = make_world(tmp_path, path=tmp_path / "chain")
    yield world
    world.close()


def _kill(world: World, step: str) -> None:
    command = [
        sys.executable,
        str(SCRIPT),
        str(world.folder / "chain"),
        world.processor.contract.hex(),
        str(world.folder / "state"),
        step,
    ]
    root = Path(orchestrator.__file__).parent.parent
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.run(
        command, check=False, timeout=120, capture_output=True, env=environment
    )
    assert process.returncode == -signal.SIGKILL, process.stderr.decode()


@pytest.mark.parametrize("step", list(killed_owner.STEPS))
def test_one_job(shared: World, step: str) -> None:
    steps = list(killed_owner.STEPS)
    was_written = steps.index(step) >= steps.index("in the list")
    was_called = steps.index(step) >= steps.index("called")

    _kill(shared, step)

    assert shared.job_count() == int(was_called)
    client = shared.client()
    assert len(client.unfinished()) == int(was_written and step != "noted as submitted")
    client.resume()
    assert client.unfinished() == []
    assert shared.job_count() == int(was_written)
    (submission,) = killed_owner.submissions(1)
    job_id = client.submit(submission.task, workers=submission.workers, key=submission.key)
    assert job_id == 1
    assert shared.job_count() == 1
    shared.process(job_id)
    assert client.result(job_id).output == b"INPUT 0"
    assert [job.job_id for job in client.jobs()] == [1]


@pytest.mark.parametrize("step", list(killed_owner.MANY_STEPS))
def test_many_jobs(shared: World, step: str) -> None:
    _kill(shared, step)
    client = shared.client()
    assert len(client.unfinished()) == 4

    outcomes = client.submit_many(killed_owner.submissions(killed_owner.GROUPS))

    assert outcomes == list(range(1, 21))
    assert shared.job_count() == 20
    assert client.unfinished() == []
    payloads = {
        shared.chain.read(shared.processor.get_job(job.job_id)).payload_hash
        for job in client.jobs()
    }
    assert len(payloads) == 20


def test_same_submission_without_a_key(shared: World) -> None:
    """What a user does after a crash, who never thought of keys."""
    client = shared.client()
    (submission,) = killed_owner.submissions(1)
    shared.chain.faults = ["after"]
    with pytest.raises(Exception, match="can't be reached"):
        client.submit(submission.task, workers=submission.workers)
    client.close()

    again = shared.client(chain=EmbeddedChain(shared.folder / "chain", clock=shared.clock))

    assert again.submit(submission.task, workers=submission.workers) == 1
    assert shared.job_count() == 1
    again._view.chain.close()
