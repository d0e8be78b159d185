"""The wheel holds the whole package and works far from the checkout."""

import os
import subprocess
import zipfile
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).resolve().parents[2]


class InstalledWheel(Protocol):
    @property
    def wheel(self) -> Path: ...

    @property
    def bin(self) -> Path: ...


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """The least that a command needs; a home of its own, so that no setting of ours helps."""
    home = tmp_path / "home"
    home.mkdir()
    return {"HOME": str(home), "PATH": os.defpath, "LANG": "C.UTF-8", "TMPDIR": str(tmp_path)}


def run(*command: str | Path, cwd: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(
    installed_wheel: InstalledWheel,
) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "orchestrator"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    package = {name for name in listed.stdout.splitlines() if (ROOT / name).exists()}

    with zipfile.ZipFile(installed_wheel.wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        information = {name.partition("/")[2] for name in archive.namelist()} - {""}

    assert names == package
    assert "licenses/LICENSE" in information
    assert {
        "orchestrator/py.typed",
        "orchestrator/contract/phala_job_processor.contract",
        "orchestrator/demo_data/tumor_classifier.onnx",
        "orchestrator/demo_data/patients.csv",
        "orchestrator/demo_data/diagnoses.csv",
    } <= names


def test_the_installed_package_is_the_one_that_runs(
    installed_wheel: InstalledWheel, tmp_path: Path, environment: dict[str, str]
) -> None:
    program = (
        "import orchestrator; from orchestrator.chain.bundle import load_bundle;"
        " print(orchestrator.__file__); print(len(load_bundle().code))"
    )

    outcome = run(installed_wheel.bin / "python", "-c", program, cwd=tmp_path, env=environment)

    assert outcome.returncode == 0, outcome.stderr
    place, size = outcome.stdout.split()
    assert Path(place).is_relative_to(installed_wheel.bin.parent)
    assert int(size) > 0


def test_the_installed_command_says_its_version(
    installed_wheel: InstalledWheel, tmp_path: Path, environment: dict[str, str]
) -> None:
    outcome = run(installed_wheel.bin / "phala-jobs", "--version", cwd=tmp_path, env=environment)

    assert outcome.returncode == 0, outcome.stderr
    assert "0.1.0" in outcome.stdout


@pytest.mark.slow
def test_the_demo_runs_from_the_installed_wheel(
    installed_wheel: InstalledWheel, tmp_path: Path, environment: dict[str, str]
) -> None:
    outcome = run(installed_wheel.bin / "phala-jobs", "demo", cwd=tmp_path, env=environment)

    assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    shown = outcome.stdout + outcome.stderr
    assert "simulated: proves no TEE" in shown
    assert "malignant" in shown
