"""What the built-in tasks do to the machine, as the kernel saw it."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.tasks.onnx import MODEL_FOLDER_VARIABLE
from orchestrator.tasks.registry import BUILT_IN_TASKS

ROOT = Path(__file__).parents[3]
DEMO = ROOT / "orchestrator" / "demo_data"
INPUTS: dict[str, tuple[Path, dict[str, object]]] = {
    "echo": (DEMO / "patients.csv", {}),
    "onnx": (DEMO / "patients.csv", {"model": "tumor_classifier"}),
}
CALLS = (
    "connect,sendto,sendmsg,socket,bind,listen,open,openat,openat2,creat,rename,renameat,renameat2,"
    "mkdir,mkdirat,link,linkat,symlink,symlinkat,unlink,unlinkat,truncate,chmod,fchmodat,mknod,mknodat"
)
_LINE = re.compile(r"(?P<pid>\d+) +(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>-?\d+)")
_WRITING = re.compile(r"O_(?:WRONLY|RDWR|CREAT|TRUNC|APPEND)")
_PATH = re.compile(r"(?:(?:AT_FDCWD|\d+)<(?P<base>[^>]*)>, )?\"(?P<path>[^\"]*)\"")


@dataclass
class Traced:
    """What the processes of one run did; refused calls are left out, attempts to connect not."""

    first: str = ""
    connects: list[str] = field(default_factory=list)
    sockets: list[str] = field(default_factory=list)
    written: list[tuple[str, str]] = field(default_factory=list)


def read_trace(text: str) -> Traced:
    traced = Traced()
    for line in text.splitlines():
        found = _LINE.match(line)
        if found is None:
            continue
        traced.first = traced.first or found["pid"]
        call, arguments = found["call"], found["arguments"]
        if call == "connect" or (call in ("sendto", "sendmsg") and "sa_family" in arguments):
            traced.connects.append(line)
        elif call in ("socket", "bind", "listen"):
            traced.sockets.append(line)
        elif call in ("sendto", "sendmsg") or int(found["result"]) < 0:
            continue
        elif not call.startswith("open") or _WRITING.search(arguments):
            for path in _PATH.finditer(arguments):
                traced.written.append(
                    (found["pid"], os.path.normpath(Path(path["base"] or "/") / path["path"]))
                )
    return traced


def trace(script: str, tmp_path: Path) -> Traced:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed, so what tasks do to the machine was NOT checked")
    home = tmp_path / "home"
    home.mkdir()
    (tmp_path / "temporary").mkdir()
    output = tmp_path / "trace"
    done = subprocess.run(
        [
            "strace",
            "-f",
            "-y",
            "-s",
            "300",
            "-e",
            f"trace={CALLS}",
            "-o",
            str(output),
            sys.executable,
            "-c",
            script,
        ],
        cwd=ROOT,
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "TMPDIR": str(tmp_path / "temporary"),
            "PYTHONDONTWRITEBYTECODE": "1",
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here, so what tasks do to the machine was NOT checked")
    assert done.returncode == 0, done.stderr
    traced = read_trace(output.read_text(errors="replace"))
    assert list(home.iterdir()) == []
    return traced


def script_for(task: str, data: Path, parameters: dict[str, object], *, references: str) -> str:
    return (
        "from pathlib import Path\n"
        "import orchestrator.tasks.sandbox as sandbox\n"
        f"sandbox.find_tasks = lambda: {references}\n"
        f"done = sandbox.run_local({task!r}, Path({str(data)!r}).read_bytes(), {parameters!r},\n"
        f"    environment={{{MODEL_FOLDER_VARIABLE!r}: {str(DEMO)!r}}})\n"
        "assert done.output\n"
    )


def outside(traced: Traced, temporary: Path) -> list[str]:
    """Return what was written where it must not be: children write in their job's folder alone."""
    jobs = re.compile(re.escape(str(temporary)) + r"/phala-jobs-[^/]+/jobs/job-[^/]+(/|$)")
    return [
        path
        for pid, path in traced.written
        if path != "/dev/null"
        and not (jobs.match(path) if pid != traced.first else path.startswith(str(temporary)))
    ]


@pytest.mark.parametrize("task", sorted(BUILT_IN_TASKS))
def test_a_built_in_task_connects_to_nobody_and_writes_in_its_folder_alone(
    task: str, tmp_path: Path
) -> None:
    data, parameters = INPUTS[task]

    traced = trace(
        script_for(task, data, parameters, references=repr(dict(BUILT_IN_TASKS))), tmp_path
    )

    assert traced.connects == []
    assert [line for line in traced.sockets if "AF_UNIX" not in line] == []
    assert outside(traced, tmp_path / "temporary") == []


def test_the_trace_shows_a_task_that_connects_and_writes(tmp_path: Path) -> None:
    """Without this, the test above could pass because it sees nothing."""
    references = repr({"bad": "tests.unit.tasks.odd_tasks:misbehave"})

    traced = trace(
        script_for(
            "bad", DEMO / "patients.csv", {"path": str(tmp_path / "x")}, references=references
        ),
        tmp_path,
    )

    assert any("AF_INET" in line for line in traced.connects)
    assert outside(traced, tmp_path / "temporary") == [str(tmp_path / "x")]
    assert [path for pid, path in traced.written if path.endswith("/inside")]
