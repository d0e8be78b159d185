"""The demo as its own process: it holds, and leaves nothing behind, also when it is stopped."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

TIMEOUT_SECONDS = 120
LIMIT_SECONDS = 60


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Our own folder for temporary files, so that what is left behind is seen."""
    kept = {n: v for n, v in os.environ.items() if not n.startswith("PHALA_JOBS_")}
    root = Path(__file__).parents[2]
    return {**kept, "TMPDIR": str(tmp_path), "HOME": str(tmp_path), "PYTHONPATH": str(root)}


def _demo(environment: dict[str, str], *words: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "orchestrator", "demo", *words],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _processes_of(folder: Path) -> list[str]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            except OSError:
                continue
            if str(folder).encode() in words:
                found.append(words.decode(errors="replace")[:200])
    return found


def test_every_assertion_of_the_demo_holds(environment: dict[str, str], tmp_path: Path) -> None:
    process = _demo(environment, "--json", "--keep")
    stdout, stderr = process.communicate(timeout=TIMEOUT_SECONDS)

    assert process.returncode == 0, stderr
    summary = json.loads(stdout)
    assert summary["passed"] is True
    assert len(summary["assertions"]) == 19
    for verdict in summary["verdicts"]:
        assert [check["outcome"] for check in verdict["checks"]] == ["passed"] * 14
        assert verdict["accepted"] is verdict["simulated"] is True
    assert [verdict["worker"] for verdict in summary["verdicts"]] == [1, 2]
    assert summary["recorded_worker"] == 2
    assert summary["status"] == "Processed"
    assert summary["patients"] == 20
    assert summary["right"] >= 19
    assert summary["seconds"] < LIMIT_SECONDS
    assert summary["tee"] == "simulated: proves no TEE"
    assert _processes_of(tmp_path) == []
    (kept,) = tmp_path.glob("phala-jobs-demo-*")
    assert (kept / "attestation.json").is_file()
    assert (kept / "policy.toml").is_file()
    assert (kept / "receipt.json").is_file()


@pytest.mark.slow
def test_every_assertion_of_the_demo_holds_on_a_node(
    environment: dict[str, str], tmp_path: Path, node_program: Path
) -> None:
    environment["CONTRACTS_NODE"] = str(node_program)

    process = _demo(environment, "--chain", "node", "--json")
    stdout, stderr = process.communicate(timeout=2 * TIMEOUT_SECONDS)

    assert process.returncode == 0, stderr
    summary = json.loads(stdout)
    assert summary["passed"] is True
    assert len(summary["assertions"]) == 20
    assert summary["assertions"]["verify accepts the receipt offline, by a trusted block"] is True
    assert summary["status"] == "Processed"
    assert 0 < summary["operator_paid_planck"] < summary["owner_paid_planck"]
    assert summary["block"] == 9
    assert _processes_of(tmp_path) == []
    assert list(tmp_path.iterdir()) == []


def test_a_demo_on_a_node_says_when_there_is_none(environment: dict[str, str]) -> None:
    environment["CONTRACTS_NODE"] = "/nowhere/node"

    process = _demo(environment, "--chain", "node")
    _, stderr = process.communicate(timeout=TIMEOUT_SECONDS)

    assert process.returncode == 2
    assert "CONTRACTS_NODE: '/nowhere/node' is no program" in stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_demo_that_is_stopped_leaves_neither_processes_nor_files(
    environment: dict[str, str], tmp_path: Path, number: signal.Signals
) -> None:
    process = _demo(environment)
    try:
        _wait_for_children(tmp_path)
        process.send_signal(number)
        _, stderr = process.communicate(timeout=TIMEOUT_SECONDS)
    finally:
        process.kill()

    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert _processes_of(tmp_path) == []
    assert list(tmp_path.glob("phala-jobs-demo-*")) == []


def _wait_for_children(folder: Path) -> None:
    """Wait until the second worker writes its log: then the first one runs."""
    deadline = time.monotonic() + TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if list(folder.glob("phala-jobs-demo-*/worker-2.log")):
            return
        time.sleep(0.02)
    raise TimeoutError("no second worker")


def test_a_reader_that_goes_away_leaves_nothing_behind(
    environment: dict[str, str], tmp_path: Path
) -> None:
    process = _demo(environment)
    assert process.stdout is not None
    assert process.stdout.readline() == "\n"
    process.stdout.close()
    process.wait(timeout=TIMEOUT_SECONDS)
    assert process.stderr is not None
    stderr = process.stderr.read()
    process.stderr.close()

    assert process.returncode != 0
    assert "Traceback" not in stderr
    assert _processes_of(tmp_path) == []
    assert list(tmp_path.glob("phala-jobs-demo-*")) == []
