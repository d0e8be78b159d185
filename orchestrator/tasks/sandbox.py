"""
Runs tasks in children of a clean process that forks (`tasks.zygote`), one child per job.

What a task can't do: outlive its job, take the worker down, use more than its limits, see the
worker's memory, files or environment through what it inherits. What is **not** prevented here: a
task has the worker's user and network, so a task that is installed must be trusted with those.
"""

import contextlib
import logging
import shutil
import socket
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path

from orchestrator.encoding import encode_task_input
from orchestrator.errors import ConfigError, TaskError, TaskHostError
from orchestrator.models import TaskInput
from orchestrator.tasks import Limits, TaskOutput
from orchestrator.tasks.forking import ForkingProcess
from orchestrator.tasks.registry import find_tasks
from orchestrator.tasks.running import MemoryFile, RunningTask

__all__ = ["Sandbox", "run_local"]

_log = logging.getLogger(__name__)


class Sandbox:
    """
    Offers tasks and runs them; safe for several threads.

    Tasks that require large modules get a forking process of their own at their first run, so
    that the others fork from a small one; a task whose modules can't be loaded then is no longer
    offered, and is in `broken` like those that could not be loaded at the start. *environment*
    is added to the few variables that a task sees. The folder is emptied.
    """

    def __init__(
        self,
        references: Mapping[str, str] | None = None,
        *,
        folder: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        if not sys.platform.startswith("linux"):
            raise ConfigError(f"tasks run on Linux alone, this is {sys.platform}")
        self._references = find_tasks() if references is None else dict(references)
        # Children have a current folder of their own, where a relative path means another place.
        self._folder = folder.absolute()
        self._environment = dict(environment or {})
        self._lock = threading.Lock()
        _empty(folder)
        self._light = self._fork_from(self._references, preload=False)
        self._heavy: dict[str, ForkingProcess] = {}
        catalogue = self._light.catalogue
        self._tasks = {
            name: Limits(**entry["limits"])  # type: ignore[arg-type]  # the zygote dumped a Limits
            for name, entry in catalogue["tasks"].items()
        }
        self._large = frozenset(
            name for name, entry in catalogue["tasks"].items() if entry["requires"]
        )
        self.missing: tuple[str, ...] = tuple(catalogue["missing"])
        self.broken: dict[str, str] = catalogue["broken"]

    @property
    def tasks(self) -> Mapping[str, Limits]:
        """The tasks on offer, and the limits of each."""
        return self._tasks

    @property
    def pids(self) -> tuple[int, ...]:
        """The processes that fork the children."""
        return (self._light.pid, *(process.pid for process in self._heavy.values()))

    def start(self, name: str, plaintext: bytes, *, limits: Limits | None = None) -> RunningTask:
        """
        Start the task on an encoded task input, whose own name and size are not looked at.

        Raises:
            TaskError: There is no such task here.
            TaskHostError: The host can't load it, or can't run it now.
        """
        if name in self.broken:
            raise TaskHostError(f"task {name} can't be loaded: {self.broken[name]}")
        if name not in self._tasks:
            raise TaskError("UnknownTask", f"{name[:64]!r} is not on offer")
        chosen = limits or self._tasks[name]
        try:
            job = Path(tempfile.mkdtemp(prefix="job-", dir=self._folder))
        except OSError as error:
            raise TaskHostError(f"no folder for a job: {error.strerror}") from error
        try:
            return self._request(name, plaintext, job, chosen)
        except BaseException:
            shutil.rmtree(job, ignore_errors=True)
            raise

    def run(self, task_input: TaskInput, *, limits: Limits | None = None) -> TaskOutput:
        """
        Run the task and return its output.

        Raises:
            TaskError: It failed by itself or exceeded a limit.
            TaskHostError: The host could not run it; says nothing about the task.
        """
        limit = (limits or self._tasks.get(task_input.task) or Limits()).input_bytes
        if len(task_input.input) > limit:
            raise TaskError("InputTooLarge", f"{len(task_input.input)} bytes, at most {limit}")
        return self.start(task_input.task, encode_task_input(task_input), limits=limits).wait()

    def close(self) -> None:
        """Kill what still runs."""
        with self._lock:
            processes = [self._light, *self._heavy.values()]
        for process in processes:
            process.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _fork_from(self, references: Mapping[str, str], *, preload: bool) -> ForkingProcess:
        return ForkingProcess(references, environment=self._environment, preload=preload)

    def _process_for(self, name: str) -> ForkingProcess:
        if name not in self._large:
            return self._light
        with self._lock:
            if name not in self._heavy:
                only = {name: self._references[name]}
                self._heavy[name] = self._fork_from(only, preload=True)
            process = self._heavy[name]
            if name in process.catalogue["tasks"]:
                return process
            del self._heavy[name]
            self._withdraw(name, process.catalogue["broken"].get(name, "a package is missing"))
        process.close()
        raise TaskHostError(f"task {name} can't be loaded: {self.broken[name]}")

    def _withdraw(self, name: str, why: str) -> None:
        # New dictionaries, because other threads may be going through the old ones.
        self._tasks = {other: limits for other, limits in self._tasks.items() if other != name}
        self.broken = {**self.broken, name: why}
        _log.warning("task %s is no longer offered: %s", name, why)

    def _request(self, name: str, plaintext: bytes, job: Path, limits: Limits) -> RunningTask:
        with contextlib.ExitStack() as on_failure, contextlib.ExitStack() as always:
            try:
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
                on_failure.callback(ours.close)
                always.enter_context(theirs)
                given = always.enter_context(MemoryFile(plaintext))
                output = on_failure.enter_context(MemoryFile())
            except OSError as error:
                raise TaskHostError(f"no files for a job: {error.strerror}") from error
            request = {"task": name, "folder": str(job), "limits": asdict(limits)}
            descriptors = [given.descriptor, output.descriptor, theirs.fileno()]
            process = self._process_for(name)
            pid = process.send(request, descriptors)
            on_failure.pop_all()
        return RunningTask(ours, output, job, limits, give_up=lambda: process.give_up(pid))


def run_local(
    name: str,
    data: bytes,
    parameters: Mapping[str, object] | None = None,
    *,
    limits: Limits | None = None,
    environment: Mapping[str, str] | None = None,
) -> TaskOutput:
    """
    Run one task here, as a worker would, with no chain and no sealing.

    Raises:
        TaskError: There is no such task, it failed by itself or it exceeded a limit.
        TaskHostError: The host could not run it.
        ConfigError: The task can't be loaded.
    """
    references = find_tasks()
    if name not in references:
        raise TaskError("UnknownTask", f"{name[:64]!r}, there are {', '.join(references)}")
    with tempfile.TemporaryDirectory(prefix="phala-jobs-") as folder:
        sandbox = Sandbox(
            {name: references[name]}, folder=Path(folder) / "jobs", environment=environment
        )
        try:
            if name in sandbox.broken:
                raise ConfigError(sandbox.broken[name])
            if name in sandbox.missing:
                raise ConfigError(f"task {name}: a package that it needs is not installed")
            task_input = TaskInput(task=name, input=data, parameters=dict(parameters or {}))
            return sandbox.run(task_input, limits=limits)
        finally:
            sandbox.close()


def _empty(folder: Path) -> None:
    """Make the folder, with nothing in it: what a killed worker left behind goes."""
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}") from error
