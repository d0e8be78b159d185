"""The walk through the command line that the README points to, as a user would run it."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import orchestrator

ROOT = Path(__file__).resolve().parents[2]


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_one_job_by_hand(tmp_path: Path) -> None:
    programs, folder = tmp_path / "bin", tmp_path / "folder"
    programs.mkdir()
    folder.mkdir()
    command = programs / "phala-jobs"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m orchestrator "$@"\n')
    command.chmod(0o755)
    package = Path(orchestrator.__file__).parent.parent

    done = subprocess.run(
        [
            *("bash", ROOT / "examples" / "by_hand.sh", folder),
            *(str(_free_port()), str(_free_port())),
        ],
        env={
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(package),
            "HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "\nmy secret input\n" in done.stdout
    shown = done.stdout + done.stderr
    assert "job 1: worker 1 signed this result" in shown
    assert "worker 1 is simulated: proves no TEE" in shown
    assert "worker 1: evidence accepted: simulated: proves no TEE, root own" in shown
    assert "note: not everything could be checked: block" in shown
    assert (folder / "receipt-1.json").is_file()
    for path in folder.rglob("*"):
        if path.is_file() and path.name != "input.txt":
            assert b"my secret input" not in path.read_bytes(), path
