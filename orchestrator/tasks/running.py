"""One run of a task, as the process that asked for it sees it."""

import json
import os
import shutil
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.errors import TaskError, TaskHostError
from orchestrator.tasks import Limits, TaskOutput
from orchestrator.tasks.child import (
    FAILURE_CODE,
    FRAME_FAILURE,
    FRAME_HOST,
    FRAME_OUTPUT,
    FRAME_ROOM,
)

__all__ = ["MemoryFile", "RunningTask"]

_MAX_REPORT = 4_096
# How long the forking process may take beyond a task's time limit before it is given up.
_GRACE_SECONDS = 30.0
# Signals that a program brings upon itself. Others, SIGKILL above all, may be the host's doing.
_CRASHES = frozenset(
    {
        signal.SIGABRT,
        signal.SIGALRM,
        signal.SIGBUS,
        signal.SIGFPE,
        signal.SIGILL,
        signal.SIGPIPE,
        signal.SIGSEGV,
        signal.SIGSYS,
        signal.SIGTRAP,
    }
)


class MemoryFile:
    """A file that never touches a disk; it carries input and output, which are plaintext."""

    def __init__(self, data: bytes = b"") -> None:
        self.descriptor = os.memfd_create("phala-jobs")
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]

    def read(self, max_bytes: int) -> bytes:
        """Return its bytes from the start, at most *max_bytes*."""
        size = min(os.fstat(self.descriptor).st_size, max_bytes)
        return os.pread(self.descriptor, size, 0)

    def close(self) -> None:
        """Forget the bytes."""
        os.close(self.descriptor)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class RunningTask:
    """
    A started task.

    `wait` must be called, once, from any thread; `stop` may be called from another. *give_up* is
    called when the process that forked it does not answer.
    """

    def __init__(
        self,
        report: socket.socket,
        output: MemoryFile,
        folder: Path,
        limits: Limits,
        *,
        give_up: Callable[[], None],
    ) -> None:
        self._report = report
        self._output = output
        self._folder = folder
        self._limits = limits
        self._give_up = give_up
        self.cpu_ms = 0
        """The CPU time (ms) that it took, once it has ended."""

    def stop(self) -> None:
        """Kill it; `wait` then raises `TaskHostError`, unless it ended just before."""
        try:
            self._report.shutdown(socket.SHUT_WR)
        except OSError:
            # It has ended, and `wait` has closed the socket.
            return

    def wait(self) -> TaskOutput:
        """
        Return the output once the process has ended, and remove its folder.

        Raises:
            TaskError: The task failed by itself or exceeded its own limit.
            TaskHostError: It was stopped, or the host could not run it to its end.
        """
        try:
            self._report.settimeout(self._limits.time_seconds + _GRACE_SECONDS)
            try:
                packet = self._report.recv(_MAX_REPORT)
            except TimeoutError as error:
                self._give_up()
                raise TaskHostError("the forking process does not answer") from error
            except OSError as error:
                raise TaskHostError(f"the forking process: {error.strerror}") from error
            if not packet:
                raise TaskHostError("the forking process ended")
            return self._judge(json.loads(packet))
        finally:
            self._report.close()
            self._output.close()
            shutil.rmtree(self._folder, ignore_errors=True)

    def _judge(self, report: dict[str, object]) -> TaskOutput:
        ended = report["ended"]
        self.cpu_ms = int(str(report.get("cpu_ms", 0)))
        if ended == "time":
            raise TaskError("TimeLimitExceeded", f"more than {self._limits.time_seconds:g} s")
        if ended is not None:
            raise TaskHostError(f"stopped: {report.get('why', ended)}")
        code, number = int(str(report["exit"])), int(str(report["signal"]))
        if number:
            raise self._judge_signal(number)
        frame = self._output.read(self._limits.output_bytes + FRAME_ROOM)
        if code or not frame:
            raise TaskError("TaskCrashed", f"exit code {code}, without a result")
        if frame[:1] == FRAME_OUTPUT:
            if len(frame) - 1 > self._limits.output_bytes:
                # Only a task that wrote the frame itself gets here.
                raise TaskError("OutputTooLarge", f"at most {self._limits.output_bytes} bytes")
            return TaskOutput(output=frame[1:], cpu_ms=self.cpu_ms)
        name, message = _parse_failure(frame)
        if frame[:1] == FRAME_FAILURE:
            raise TaskError(name, message)
        raise TaskHostError(f"{name}: {message}")

    def _judge_signal(self, number: int) -> TaskError | TaskHostError:
        limit = self._limits.cpu_seconds
        if number == signal.SIGXCPU or (number == signal.SIGKILL and self.cpu_ms >= limit * 1_000):
            return TaskError("CpuLimitExceeded", f"more than {limit} s of CPU time")
        if number == signal.SIGXFSZ:
            limit_bytes = self._limits.output_bytes
            return TaskError("OutputTooLarge", f"a file of more than {limit_bytes} bytes")
        if number in _CRASHES:
            return TaskError("TaskCrashed", signal.Signals(number).name)
        # Out of memory as the kernel sees it, or an operator: not the task's own doing.
        return TaskHostError(f"killed by signal {number}")


def _parse_failure(frame: bytes) -> tuple[str, str]:
    """
    Return the code and the message of a frame without an output.

    Raises:
        TaskError: It is none: the task wrote it itself, into the file meant for its output.
    """
    try:
        name, message = json.loads(frame[1:])
        if frame[:1] in {FRAME_FAILURE, FRAME_HOST} and len(frame) <= FRAME_ROOM:
            message.encode("utf-8")
            if FAILURE_CODE.fullmatch(name):
                return name, message
    except (ValueError, TypeError, AttributeError, RecursionError):
        # The cause would show what the task wrote.
        raise TaskError("TaskCrashed", "a malformed result") from None
    raise TaskError("TaskCrashed", "a malformed result")
