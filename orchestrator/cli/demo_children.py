"""
Processes of our own program that the demo starts, watches, and always ends.

Each is in a session of its own, so that Ctrl-C reaches the demo alone, which then ends them. Should
the demo be killed, which it can't notice, Linux ends them.
"""

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import orchestrator
from orchestrator.config import PREFIX
from orchestrator.errors import Error

START_SECONDS = 30.0
STOP_SECONDS = 5.0
_MAX_READY_BYTES = 65_536
_LOG_LINES = 15
_PR_SET_PDEATHSIG = 1  # of linux/prctl.h; what is set lasts beyond execve
_END_WITH_PARENT = f"""
import ctypes, os, sys
ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGTERM)})
if os.getppid() == int(sys.argv[1]):  # else it has ended before the signal was asked for
    os.execv(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True, kw_only=True)
class Child:
    """A running process; `ready` is the JSON document that it printed when it was."""

    name: str
    process: subprocess.Popen[bytes]
    ready: dict[str, object]
    log: Path

    def text(self, name: str) -> str:
        """A field of `ready`."""
        return str(self.ready[name])


class Children:
    """The processes; leaving it ends those that still run."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def start(self, name: str, words: Sequence[str | Path]) -> Child:
        """
        Start `phala-jobs` with *words*, which make it print one JSON document once it is ready.

        Raises:
            Error: It ended, or is not ready in time; its last words are in the message.
        """
        log = self._folder / f"{name.replace(' ', '-')}.log"
        with log.open("wb") as errors:
            process = subprocess.Popen(
                _ending_with_us(command_line(words)),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=environment(self._folder),
                start_new_session=True,
            )
        self._started.append(process)
        try:
            ready = _read_document(process)
        except (TimeoutError, EOFError) as error:
            last = log.read_text("utf-8", "replace").strip().splitlines()[-_LOG_LINES:]
            raise Error(f"the {name} did not start ({error}): " + " | ".join(last)) from error
        return Child(name=name, process=process, ready=ready, log=log)

    def kill(self, child: Child) -> None:
        """End it as a power cut would, together with what it started."""
        _signal(child.process, signal.SIGKILL)
        child.process.wait()

    def close(self) -> None:
        """Ask all to end, and kill those that do not within a few seconds."""
        running = [process for process in self._started if process.poll() is None]
        for process in running:
            _signal(process, signal.SIGTERM)
        deadline = time.monotonic() + STOP_SECONDS
        for process in running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, deadline - time.monotonic()))
        for process in self._started:
            # Also for one that has ended: what it started may still be there.
            _signal(process, signal.SIGKILL)
            process.wait()
            if process.stdout is not None:
                process.stdout.close()
        self._started.clear()


def command_line(words: Sequence[str | Path]) -> list[str]:
    """Our own program, by the interpreter that runs now."""
    return [sys.executable, "-m", "orchestrator", *map(str, words)]


def _ending_with_us(words: list[str]) -> list[str]:
    """The same command, which gets SIGTERM when this process ends, however that comes."""
    if sys.platform != "linux":
        return words
    return [sys.executable, "-ISc", _END_WITH_PARENT, str(os.getpid()), *words]


def environment(home: Path) -> dict[str, str]:
    """The environment without our settings, with *home* as its home folder."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    package = Path(orchestrator.__file__).parent.parent
    paths = [str(package), *filter(None, [kept.get("PYTHONPATH")])]
    return {**kept, "HOME": str(home), "PYTHONPATH": os.pathsep.join(paths)}


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to the process and all that it started, if they are there."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, number)


def _read_document(process: subprocess.Popen[bytes]) -> dict[str, object]:
    """The JSON document that the process prints first."""
    stdout = process.stdout
    if stdout is None:
        raise EOFError("no output")
    deadline = time.monotonic() + START_SECONDS
    data = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stdout, selectors.EVENT_READ)
        while len(data) < _MAX_READY_BYTES:
            if not selector.select(deadline - time.monotonic()):
                raise TimeoutError(f"not ready after {START_SECONDS:.0f} s")
            part = os.read(stdout.fileno(), 4_096)
            if not part:
                raise EOFError(f"exit code {process.wait()}")
            data += part
            with contextlib.suppress(ValueError):
                document = json.loads(data)
                if isinstance(document, dict):
                    return document
    raise EOFError("no JSON document")
