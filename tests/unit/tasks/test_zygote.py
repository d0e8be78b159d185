"""The forking process, here in a thread; as a process it is tested in test_sandbox."""

import contextlib
import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from orchestrator.encoding import encode_task_input
from orchestrator.models import TaskInput
from orchestrator.tasks import Limits, zygote
from orchestrator.tasks.forking import ForkingProcess
from orchestrator.tasks.running import MemoryFile
from orchestrator.tasks.zygote import Zygote, load_all

# Python 3.12 warns when a process with threads forks; the real one has no threads.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

Control = tuple[socket.socket, threading.Thread]


@pytest.fixture
def references() -> dict[str, str]:
    names = ("sleep", "sleep_long", "leave_children", "needs_more", "needs_wave", "no_task")
    return {
        "echo": "orchestrator.tasks.echo:echo",
        "absent": "no_such_module:run",
        **{name: f"tests.unit.tasks.odd_tasks:{name}" for name in names},
    }


@pytest.fixture
def control(references: dict[str, str]) -> Iterator[Control]:
    tasks, _ = load_all(references, preload=False)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    thread = threading.Thread(target=Zygote(theirs, tasks).serve)
    thread.start()
    with ours, theirs:
        yield ours, thread
        ours.close()
        thread.join(10)
    assert not thread.is_alive()


@contextlib.contextmanager
def started(control: Control, folder: Path, name: str, **limits: float) -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    plaintext = encode_task_input(TaskInput(task=name, input=b"data"))
    request = {
        "task": name,
        "folder": str(folder),
        "limits": {**asdict(Limits()), **limits},
    }
    ours.settimeout(20)
    with ours, theirs, MemoryFile(plaintext) as given, MemoryFile() as output:
        descriptors = [given.descriptor, output.descriptor, theirs.fileno()]
        socket.send_fds(control[0], [json.dumps(request).encode()], descriptors)
        theirs.close()
        yield ours


def report(job: socket.socket) -> dict[str, object]:
    answer: dict[str, object] = json.loads(job.recv(4_096))
    return answer


def test_the_report_says_how_the_child_ended(control: Control, tmp_path: Path) -> None:
    with started(control, tmp_path, "echo") as job:
        ended = report(job)

    assert (ended["exit"], ended["signal"], ended["ended"]) == (0, 0, None)


def test_a_child_is_killed_when_its_time_is_over(control: Control, tmp_path: Path) -> None:
    with started(control, tmp_path, "sleep_long", time_seconds=0.05) as job:
        ended = report(job)

    assert (ended["signal"], ended["ended"]) == (9, "time")


def test_closing_a_jobs_socket_kills_its_child(control: Control, tmp_path: Path) -> None:
    with started(control, tmp_path, "sleep_long") as job:
        job.shutdown(socket.SHUT_WR)
        ended = report(job)

    assert (ended["signal"], ended["ended"]) == (9, "cancel")


def test_closing_the_control_socket_kills_all(control: Control, tmp_path: Path) -> None:
    with (
        started(control, tmp_path, "sleep_long") as one,
        started(control, tmp_path, "sleep_long") as two,
        started(control, tmp_path, "echo") as three,
    ):
        report(three)
        control[0].close()
        assert report(one)["ended"] == "cancel"
        assert report(two)["ended"] == "cancel"


def test_a_host_that_can_not_fork_says_so(
    control: Control, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fork() -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(os, "fork", fork)

    with started(control, tmp_path, "echo") as job:
        ended = report(job)

    assert ended == {"ended": "trouble", "why": "fork: Resource temporarily unavailable"}


def test_a_task_that_is_not_loaded_is_the_hosts_trouble_and_the_next_one_runs(
    control: Control, tmp_path: Path
) -> None:
    with started(control, tmp_path, "unloaded") as job:
        assert report(job) == {"ended": "trouble", "why": "the task could not be loaded"}
    with started(control, tmp_path, "echo") as job:
        assert report(job)["exit"] == 0


def test_loading_tells_missing_from_broken(references: dict[str, str]) -> None:
    references["raises"] = "tests.unit.tasks.raises_on_import:run"

    tasks, catalogue = load_all(references, preload=True)

    assert set(tasks) == {"echo", "sleep", "sleep_long", "leave_children", "needs_wave"}
    assert catalogue["missing"] == ["needs_more"]
    assert set(catalogue["broken"]) == {"absent", "no_task", "raises"}  # type: ignore[call-overload]  # a dictionary
    assert "ZeroDivisionError" in str(catalogue["broken"])


def test_without_a_list_of_children_there_are_no_strays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getpid", lambda: 0)

    assert zygote._children() == []


def test_a_forking_process_that_hangs_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ignores_its_end.py").write_text(
        "import os, threading, time\n"
        "def run(data, parameters): return data\n"
        "def hold():\n"
        "    while True: time.sleep(1)\n"
        "threading.Thread(target=hold).start()\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("orchestrator.tasks.forking._STOP_SECONDS", 0.1)
    process = ForkingProcess({"odd": "ignores_its_end:run"}, environment={}, preload=False)

    process.close()

    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)


def test_a_forking_process_that_takes_no_requests_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.tasks.forking._SEND_SECONDS", 0.1)
    process = ForkingProcess(
        {"echo": "orchestrator.tasks.echo:echo"}, environment={}, preload=False
    )
    stopped = process.pid
    os.kill(stopped, signal.SIGSTOP)
    process._control.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    request = {"task": "echo", "folder": str(tmp_path), "limits": asdict(Limits())}

    def send_until_replaced() -> None:
        with MemoryFile() as file:
            theirs = file.descriptor, file.descriptor, file.descriptor
            while process.send(request, theirs) == stopped:
                pass

    sending = threading.Thread(target=send_until_replaced, daemon=True)
    sending.start()
    sending.join(20)
    assert process.pid != stopped
    process.close()


def test_only_the_process_that_was_asked_is_given_up() -> None:
    process = ForkingProcess(
        {"echo": "orchestrator.tasks.echo:echo"}, environment={}, preload=False
    )
    process.give_up(process.pid + 1)
    os.kill(process.pid, 0)

    process.give_up(process.pid)

    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    process.close()
    process.give_up(process.pid)
