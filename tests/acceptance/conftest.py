"""An installed wheel: what a user gets, in an environment that knows nothing of the checkout."""

import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.acceptance.fault_report import Report

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class InstalledWheel:
    """`wheel` is the built file, `bin` the folder of commands of the environment it is in."""

    wheel: Path
    bin: Path


def _run(*command: str | Path, cwd: Path = ROOT) -> None:
    subprocess.run([str(part) for part in command], cwd=cwd, check=True, capture_output=True)


@pytest.fixture
def report(capsys: pytest.CaptureFixture[str]) -> Iterator[Report]:
    """A table of fault scenarios, shown at the end also when all is well."""
    report = Report(capsys)
    yield report
    report.show()


@pytest.fixture(scope="session")
def installed_wheel(tmp_path_factory: pytest.TempPathFactory) -> InstalledWheel:
    """
    Build the wheel and install it, without the network, into an environment of its own.

    The dependencies are those of the environment that runs the tests. They are reached through a
    path file, which does not follow path files in turn: the checkout stays out of reach.
    """
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder)
    (wheel,) = folder.glob("*.whl")
    environment = folder / "venv"
    venv.create(environment, with_pip=False, symlinks=True)
    (site_packages,) = environment.glob("lib/python3*/site-packages")
    dependencies = sysconfig.get_paths()["purelib"]
    (site_packages / "dependencies.pth").write_text(f"{dependencies}\n", encoding="utf-8")
    install = ("install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check")
    python = environment / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", python, *install, wheel, cwd=folder)
    return InstalledWheel(wheel=wheel, bin=environment / "bin")
