"""Running other people's clients: Node, and the packages that `make interop-packages` installs."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
# Set where the packages have to be there: then nothing of this folder is skipped for want of them.
REQUIRED_VARIABLE = "PHALA_JOBS_INTEROP_REQUIRED"
_TIMEOUT_SECONDS = 240

RunScript = Callable[..., str]


def _missing() -> str | None:
    if shutil.which("node") is None:
        return "node (of nodejs.org, not a chain's) is not on PATH"
    # npm writes this file last.
    if not (FOLDER / "node_modules" / ".package-lock.json").exists():
        return "the npm packages of tests/interop are not installed: `make interop-packages`"
    return None


@pytest.fixture(scope="session")
def run_script() -> RunScript:
    """Run a script of this folder; return what it printed, fail when it failed."""
    missing = _missing()
    if missing is not None:
        if os.environ.get(REQUIRED_VARIABLE):
            pytest.fail(missing)
        pytest.skip(missing)

    def run(script: str, *arguments: str, given: str = "") -> str:
        outcome = subprocess.run(
            ["node", str(FOLDER / script), *arguments],
            input=given,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_SECONDS,
            check=False,
        )
        assert outcome.returncode == 0, f"{script}:\n{outcome.stderr[-4000:]}"
        return outcome.stdout

    return run
