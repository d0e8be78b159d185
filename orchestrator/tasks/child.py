"""
What happens in the process that runs one task.

`enter` is called right after the fork and shuts the process in; `execute` runs the task and turns
whatever happens into a frame: one byte that says what follows, then the output, or a code and a
message as JSON.
"""

import ctypes
import errno
import fcntl
import json
import os
import re
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

from orchestrator.encoding import decode_task_input
from orchestrator.errors import TaskError
from orchestrator.tasks import Limits, Task

__all__ = [
    "FAILURE_CODE",
    "FRAME_FAILURE",
    "FRAME_HOST",
    "FRAME_OUTPUT",
    "FRAME_ROOM",
    "PR_SET_CHILD_SUBREAPER",
    "PR_SET_NO_NEW_PRIVS",
    "execute",
    "run_and_exit",
    "set_process_option",
]

FRAME_OUTPUT = b"\x00"
FRAME_FAILURE = b"\x01"
FRAME_HOST = b"\x02"

# <linux/prctl.h>
PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

# Room for the frame's first byte, and for a failure's code and message.
FRAME_ROOM = 8_192
_MAX_MESSAGE = 1_000
_OPEN_FILES = 64
FAILURE_CODE = re.compile(r"[A-Za-z][A-Za-z0-9]{0,63}")
_INPUT, _OUTPUT = 3, 4
# Trouble of the machine, which never says anything about the task.
_HOST_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS, errno.ENFILE})

_libc = ctypes.CDLL(None, use_errno=True)


def set_process_option(option: int, value: int) -> None:
    """Call `prctl(2)`."""
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def execute(task: Task, read_plaintext: Callable[[], bytes]) -> bytes:
    """
    Run the task on the encoded task input that is read, and return a frame; never raises.

    The frame keeps to the task's output limit plus a fixed room.
    """
    try:
        task_input = decode_task_input(read_plaintext())
        output: object = task.run(task_input.input, task_input.parameters)
        if not isinstance(output, bytes):
            return _failure("TaskFailed", f"returned {type(output).__name__}, must be bytes")
        if len(output) > task.limits.output_bytes:
            limit = task.limits.output_bytes
            return _failure("OutputTooLarge", f"{len(output)} bytes, at most {limit}")
        return FRAME_OUTPUT + output
    except TaskError as error:
        if FAILURE_CODE.fullmatch(error.code):
            return _failure(error.code, error.detail)
        return _failure("TaskFailed", str(error))
    except MemoryError:
        return _failure("MemoryLimitExceeded", f"more than {task.limits.memory_bytes} bytes")
    except SystemExit as error:
        return _failure("TaskExited", f"exit code {error.code}")
    except OSError as error:
        return _os_trouble(error, task.limits)
    except BaseException as error:  # noqa: BLE001 - a task may raise whatever it likes
        return _failure("TaskFailed", f"{type(error).__name__}: {error}")


def _os_trouble(error: OSError, limits: Limits) -> bytes:
    if error.errno in _HOST_ERRNOS:
        return FRAME_HOST + json.dumps(["HostTrouble", os.strerror(error.errno or 0)]).encode()
    if error.errno == errno.EFBIG:
        return _failure("OutputTooLarge", f"a file of more than {limits.output_bytes} bytes")
    if error.errno == errno.ENOMEM:
        return _failure("MemoryLimitExceeded", f"more than {limits.memory_bytes} bytes")
    return _failure("TaskFailed", f"{type(error).__name__}: {error}")


def _failure(code: str, message: str) -> bytes:
    # What a task raises may say anything, also what has no UTF-8, such as a lone surrogate.
    text = message[:_MAX_MESSAGE].encode("utf-8", "replace").decode("utf-8")
    # Escaped, a thousand characters could be more than the room for them.
    return FRAME_FAILURE + json.dumps([code, text], ensure_ascii=False).encode()


def run_and_exit(  # pragma: no cover - runs after a fork, where nothing is measured
    task: Task, *, folder: Path, descriptors: tuple[int, int], limits: Limits, base_memory: int
) -> None:
    """Shut this freshly forked process in, run the task, write the frame, and end the process."""
    try:
        enter(folder, descriptors=descriptors, limits=limits, base_memory=base_memory)
    except BaseException:  # noqa: BLE001 - nothing may get back into the forking server's code
        # The host's trouble, not the task's: it must look like a kill, which nobody signs.
        os.kill(os.getpid(), signal.SIGKILL)
    try:
        _write_all(execute(Task(run=task.run, limits=limits), _read_input))
        os._exit(0)
    except BaseException:  # noqa: BLE001 - nothing may get back into the forking server's code
        os._exit(120)


def enter(
    folder: Path, *, descriptors: tuple[int, int], limits: Limits, base_memory: int
) -> None:  # pragma: no cover - runs after a fork, where nothing is measured
    """
    Shut the process in.

    1. It has a session and process group of its own, and dies with the process that forked it.
    2. It has two files open beside an empty standard input and output: its input and its output.
    3. Its folder is current, `HOME` and the place of temporary files.
    4. Memory, CPU time, file size and the number of open files are limited; it dumps no core.
    """
    os.setsid()
    set_process_option(PR_SET_PDEATHSIG, signal.SIGKILL)
    high = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 256) for descriptor in descriptors]
    os.dup2(high[0], _INPUT)
    os.dup2(high[1], _OUTPUT)
    os.closerange(_OUTPUT + 1, 65_536)
    os.chdir(folder)
    os.umask(0o077)
    os.environ["HOME"] = os.environ["TMPDIR"] = str(folder)
    largest_file = limits.output_bytes + FRAME_ROOM
    memory = base_memory + limits.memory_bytes
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    resource.setrlimit(resource.RLIMIT_NOFILE, (_OPEN_FILES, _OPEN_FILES))
    # The hard limit is a second later, for a task that ignores the first signal.
    resource.setrlimit(resource.RLIMIT_CPU, (limits.cpu_seconds, limits.cpu_seconds + 1))
    resource.setrlimit(resource.RLIMIT_DATA, (memory, memory))
    _new_randomness()


def _new_randomness() -> None:  # pragma: no cover - runs after a fork
    # The standard library reseeds itself after a fork, numpy's old generator does not.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        seed: Callable[[], None] = numpy_random.seed
        seed()


def _read_input() -> bytes:  # pragma: no cover - runs after a fork
    with os.fdopen(_INPUT, "rb") as file:
        file.seek(0)
        return file.read()


def _write_all(frame: bytes) -> None:  # pragma: no cover - runs after a fork
    rest = memoryview(frame)
    while rest:
        rest = rest[os.write(_OUTPUT, rest) :]
