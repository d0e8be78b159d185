"""
The small process that forks one child per job.

It is started with `exec`, so it never held a key, a file or an environment of the worker's; it
loads the tasks once and has a single thread. The protocol, over sequenced-packet sockets:

* On start it sends a catalogue: `{tasks: {name: {limits, requires}}, missing: [name], broken:
  {name: why}}`.
* A request `{task, folder, limits}` carries three descriptors: input, output, and a socket that
  is the job's own. When the child has ended, `{exit, signal, cpu_ms, ended}` comes back on it.
* Closing the job's socket at the other end stops the job; closing the control socket stops all.
"""

import contextlib
import gc
import json
import os
import resource
import selectors
import signal
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestrator.errors import ConfigError
from orchestrator.tasks import Limits, Task
from orchestrator.tasks.child import (
    PR_SET_CHILD_SUBREAPER,
    PR_SET_NO_NEW_PRIVS,
    run_and_exit,
    set_process_option,
)
from orchestrator.tasks.registry import has_requirements, load_requirements, load_task

__all__ = ["MAX_PACKET", "Zygote", "main"]

MAX_PACKET = 65_536
_PAGE = resource.getpagesize()


@dataclass(kw_only=True)
class _Running:
    """One child; `ended` says why it was killed, when it was."""

    pid: int
    pidfd: int
    report: socket.socket
    deadline: float
    ended: str | None = None


class Zygote:
    """Forks, watches and reaps; everything in one thread and one loop."""

    def __init__(self, control: socket.socket, tasks: Mapping[str, Task]) -> None:
        self._control = control
        self._tasks = tasks
        self._jobs: dict[int, _Running] = {}
        self._selector = selectors.DefaultSelector()
        self._is_open = True
        self._base_memory = 0

    def serve(self) -> None:
        """Answer requests until the control socket is closed; then kill what still runs."""
        self._base_memory = _data_bytes()
        self._selector.register(self._control, selectors.EVENT_READ, self._accept)
        while self._is_open:
            before = len(self._jobs)
            for key, _ in self._selector.select(self._patience()):
                key.data()
            self._kill_late()
            if len(self._jobs) <= before:
                self._kill_strays()
        for job in tuple(self._jobs.values()):
            self._kill(job, "cancel")
            self._finish(job)
        self._kill_strays()
        self._selector.close()

    def _patience(self) -> float | None:
        if not self._jobs:
            return None
        return max(0.0, min(job.deadline for job in self._jobs.values()) - time.monotonic())

    def _accept(self) -> None:
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._control, MAX_PACKET, 3)
        except OSError:
            packet, descriptors = b"", []
        if not packet:
            self._is_open = False
            return
        try:
            self._start(json.loads(packet), descriptors)
        finally:
            for descriptor in descriptors[:2]:
                os.close(descriptor)

    def _start(self, request: dict[str, object], descriptors: list[int]) -> None:
        report = socket.socket(fileno=descriptors[2])
        limits = Limits(**request["limits"])  # type: ignore[arg-type]  # made by the sandbox
        task = self._tasks.get(str(request["task"]))
        if task is None:
            # Its import worked in an earlier process of ours and did not in this one.
            _refuse(report, "the task could not be loaded")
            return
        try:
            pid = os.fork()
        except OSError as error:
            _refuse(report, f"fork: {error.strerror}")
            return
        if pid == 0:  # pragma: no cover - the child
            run_and_exit(
                task,
                folder=Path(str(request["folder"])),
                descriptors=(descriptors[0], descriptors[1]),
                limits=limits,
                base_memory=self._base_memory,
            )
        self._watch(pid, report, time.monotonic() + limits.time_seconds)

    def _watch(self, pid: int, report: socket.socket, deadline: float) -> None:
        pidfd = os.pidfd_open(pid)
        job = _Running(pid=pid, pidfd=pidfd, report=report, deadline=deadline)
        self._jobs[pid] = job
        self._selector.register(pidfd, selectors.EVENT_READ, _bind(self._finish, job))
        self._selector.register(report, selectors.EVENT_READ, _bind(self._hear, job))

    def _hear(self, job: _Running) -> None:
        # Nothing is ever said on a job's socket, so this is its end: the job is not wanted.
        if job.pid in self._jobs:
            self._selector.unregister(job.report)
            self._kill(job, "cancel")

    def _kill_late(self) -> None:
        now = time.monotonic()
        for job in self._jobs.values():
            if job.deadline <= now and job.ended is None:
                self._kill(job, "time")
                job.deadline = now + 3_600

    def _kill(self, job: _Running, ended: str) -> None:
        job.ended = job.ended or ended
        # The process may not have made its group yet, so it is killed by its own number too.
        for kill in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                kill(job.pid, signal.SIGKILL)

    def _finish(self, job: _Running) -> None:
        if self._jobs.pop(job.pid, None) is None:
            return
        # Until it is waited for, the number belongs to this process, and so does the group.
        os.waitid(os.P_PIDFD, job.pidfd, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(job.pid, signal.SIGKILL)
        _, status, usage = os.wait4(job.pid, 0)
        for watched in (job.pidfd, job.report):
            with contextlib.suppress(KeyError):
                self._selector.unregister(watched)
        os.close(job.pidfd)
        code = os.waitstatus_to_exitcode(status)
        _send(
            job.report,
            {
                "exit": max(code, 0),
                "signal": max(-code, 0),
                "cpu_ms": int((usage.ru_utime + usage.ru_stime) * 1_000),
                "ended": job.ended,
            },
        )
        job.report.close()

    def _kill_strays(self) -> None:
        """Kill processes that left their group: when their parent ends, they become ours."""
        for _ in range(100):
            strays = [pid for pid in _children() if pid not in self._jobs]
            if not strays:
                return
            for pid in strays:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, 0)


def _bind(handle: Callable[[_Running], None], job: _Running) -> Callable[[], None]:
    return lambda: handle(job)


def _children() -> list[int]:
    try:
        text = Path(f"/proc/self/task/{os.getpid()}/children").read_text("ascii")
    except OSError:
        return []
    return [int(pid) for pid in text.split()]


def _data_bytes() -> int:
    # proc(5): the sixth number is data and stack, in pages.
    return int(Path("/proc/self/statm").read_text("ascii").split()[5]) * _PAGE


def _send(report: socket.socket, message: dict[str, object]) -> None:
    with contextlib.suppress(OSError):
        report.send(json.dumps(message).encode())


def _refuse(report: socket.socket, why: str) -> None:
    _send(report, {"ended": "trouble", "why": why})
    report.close()


def load_all(
    references: Mapping[str, str], *, preload: bool
) -> tuple[dict[str, Task], dict[str, object]]:
    """Load what can be loaded, and say in a catalogue what that was and why the rest was not."""
    tasks: dict[str, Task] = {}
    missing: list[str] = []
    broken: dict[str, str] = {}
    for name, reference in references.items():
        try:
            task = load_task(reference)
            if not has_requirements(task):
                missing.append(name)
                continue
            if preload:
                load_requirements(task)
        except ConfigError as error:
            broken[name] = str(error)
        except Exception as error:  # noqa: BLE001 - importing runs a stranger's code
            broken[name] = f"{type(error).__name__}: {error}"
        else:
            tasks[name] = task
    entries = {
        name: {"limits": asdict(task.limits), "requires": task.requires}
        for name, task in tasks.items()
    }
    return tasks, {"tasks": entries, "missing": missing, "broken": broken}


def main(  # pragma: no cover - a process of its own, where nothing is measured
    control: int,
    references: Mapping[str, str],
    preload: bool,  # noqa: FBT001 - from JSON
) -> None:
    """Be the zygote on this socket, until its other end is closed."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    set_process_option(PR_SET_NO_NEW_PRIVS, 1)
    set_process_option(PR_SET_CHILD_SUBREAPER, 1)
    connection = socket.socket(fileno=control)
    tasks, catalogue = load_all(references, preload=preload)
    connection.send(json.dumps(catalogue).encode())
    gc.collect()
    # Objects of the zygote stay out of the children's collections, so pages stay shared.
    gc.freeze()
    Zygote(connection, tasks).serve()
