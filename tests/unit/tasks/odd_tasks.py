"""Tasks that go wrong in every way that a task can; run in the sandbox alone."""

import contextlib
import ctypes
import errno
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import TaskError
from orchestrator.tasks import Task, task

Parameters = Mapping[str, object]
_MIB = 1 << 20


@task(time_seconds=10, cpu_seconds=1)
def spin(data: bytes, parameters: Parameters) -> bytes:
    while True:
        pass


@task(time_seconds=20, cpu_seconds=1)
def spin_stubbornly(data: bytes, parameters: Parameters) -> bytes:
    signal.signal(signal.SIGXCPU, signal.SIG_IGN)
    while True:
        pass


@task(time_seconds=0.3)
def sleep(data: bytes, parameters: Parameters) -> bytes:
    time.sleep(600)
    return b""


@task(time_seconds=60)
def sleep_long(data: bytes, parameters: Parameters) -> bytes:
    time.sleep(600)
    return b""


@task(memory_bytes=64 * _MIB)
def grow(data: bytes, parameters: Parameters) -> bytes:
    kept = []
    while True:
        kept.append(bytearray(_MIB))


@task(output_bytes=1_000)
def talk(data: bytes, parameters: Parameters) -> bytes:
    return bytes(int(str(parameters["length"])))


@task(output_bytes=100_000)
def write_large_file(data: bytes, parameters: Parameters) -> bytes:
    Path("large").write_bytes(bytes(200_000))
    return b"written"


@task()
def segfault(data: bytes, parameters: Parameters) -> bytes:
    ctypes.string_at(0)
    return b""


@task()
def abort(data: bytes, parameters: Parameters) -> bytes:
    os.abort()


@task()
def leave(data: bytes, parameters: Parameters) -> bytes:
    os._exit(int(str(parameters["code"])))


@task()
def exit_politely(data: bytes, parameters: Parameters) -> bytes:
    sys.exit(3)


@task()
def kill_itself(data: bytes, parameters: Parameters) -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b""


@task()
def raise_value(data: bytes, parameters: Parameters) -> bytes:
    raise ValueError("not good")


@task()
def raise_surrogate(data: bytes, parameters: Parameters) -> bytes:
    raise ValueError(data.decode("utf-8", "surrogateescape"))


@task(output_bytes=1_000)
def write_frame(data: bytes, parameters: Parameters) -> bytes:
    """Write what the sandbox reads as the result, and end before it can be written properly."""
    os.write(4, data)
    os._exit(0)


@task()
def stop_the_forking_process(data: bytes, parameters: Parameters) -> bytes:
    os.kill(os.getppid(), signal.SIGSTOP)
    return data


@task(requires=("tests.unit.tasks.raises_on_import",))
def needs_what_can_not_be_imported(data: bytes, parameters: Parameters) -> bytes:
    return data


@task()
def raise_task_error(data: bytes, parameters: Parameters) -> bytes:
    raise TaskError(str(parameters.get("code", "BadInput")), "row 3")


@task()
def raise_os_error(data: bytes, parameters: Parameters) -> bytes:
    raise OSError(getattr(errno, str(parameters["errno"])), "as told")


@task()
def return_text(data: bytes, parameters: Parameters) -> bytes:
    return "text"  # type: ignore[return-value]  # that is what is wrong with it


@task(time_seconds=20)
def leave_children(data: bytes, parameters: Parameters) -> bytes:
    """Leave two processes behind, one in the group, one that ran from it."""
    subprocess.Popen(["/bin/sleep", "600"])
    pid = os.fork()
    if pid == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        os.execv("/bin/sleep", ["sleep", "601"])  # noqa: S606 - to be found by name
    os.waitpid(pid, 0)
    return b"left"


@task(time_seconds=1)
def fork_bomb(data: bytes, parameters: Parameters) -> bytes:
    """Fork for ever, twenty at a time, in sessions of their own."""
    while True:
        with contextlib.suppress(OSError):
            if os.fork() == 0:
                os.setsid()
            time.sleep(0.2)


@task()
def look_around(data: bytes, parameters: Parameters) -> bytes:
    """Say all that a task can see of where it comes from."""
    folder = "/proc/self/fd"
    descriptors = {}
    for name in os.listdir(folder):  # noqa: PTH208 - names are all that is wanted
        with contextlib.suppress(OSError):
            descriptors[name] = os.readlink(f"{folder}/{name}")  # noqa: PTH115 - not a real path
    initial = Path("/proc/self/environ").read_bytes().split(b"\0")
    return json.dumps(
        {
            "environment": dict(os.environ),
            "initial_environment": [entry.decode() for entry in initial if entry],
            "arguments": Path("/proc/self/cmdline").read_bytes().decode(),
            "descriptors": descriptors,
            "folder": str(Path.cwd()),
            "files": sorted(os.listdir()),  # noqa: PTH208 - names are all that is wanted
            "temporary": tempfile.gettempdir(),
            "core": list(__import__("resource").getrlimit(4)),
            "threads": threading.active_count(),
            "leader": os.getsid(0) == os.getpid(),
            "random": random.random(),
            "privileges": Path("/proc/self/status").read_text().count("NoNewPrivs:\t1"),
        }
    ).encode()


@task()
def write_file(data: bytes, parameters: Parameters) -> bytes:
    Path("note").write_bytes(data)
    return str(Path("note").absolute()).encode()


def plain(data: bytes, parameters: Parameters) -> bytes:
    return data[::-1]


@task(requires=("a_module_that_nobody_has",))
def needs_more(data: bytes, parameters: Parameters) -> bytes:
    return data


@task(requires=("wave",))
def needs_wave(data: bytes, parameters: Parameters) -> bytes:
    return str("wave" in sys.modules).encode()


no_task = 7
bare = Task(run=plain)


@task()
def misbehave(data: bytes, parameters: Parameters) -> bytes:
    Path("inside").write_bytes(data)
    Path(str(parameters["path"])).write_bytes(data)
    with socket.socket() as connection, contextlib.suppress(OSError):
        connection.connect(("127.0.0.1", 9))
    return data
