"""Starts, restarts and talks to the process that forks the children (`tasks.zygote`)."""

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from orchestrator.errors import TaskHostError
from orchestrator.tasks.zygote import MAX_PACKET

__all__ = ["Catalogue", "ForkingProcess"]

_START_SECONDS = 60.0
_STOP_SECONDS = 10.0
# It only reads and forks, so a request that it does not take for so long is not taken at all.
_SEND_SECONDS = 10.0
_PROGRAM = (
    "import json, sys; control, path, references, preload = json.loads(sys.argv[1]); "
    "sys.path[:] = path; from orchestrator.tasks.zygote import main; "
    "main(control, references, preload)"
)
_ENVIRONMENT: Mapping[str, str] = {
    "PATH": os.defpath,
    "LANG": "C.UTF-8",
    "HOME": "/nonexistent",
    # onnxruntime writes a device id and carries a telemetry address otherwise.
    "ORT_DISABLE_TELEMETRY": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}


class CatalogueEntry(TypedDict):
    """A task that could be loaded."""

    limits: dict[str, float]
    requires: list[str]


class Catalogue(TypedDict):
    """What the forking process could load, and why not the rest."""

    tasks: dict[str, CatalogueEntry]
    missing: list[str]
    broken: dict[str, str]


class ForkingProcess:
    """
    One forking process; when it ends, the next request starts another.

    With *preload* the modules that the tasks require are loaded before the first fork. It begins
    with `exec`, so nothing of this process gets into it but the arguments given here.
    """

    def __init__(
        self, references: Mapping[str, str], *, environment: Mapping[str, str], preload: bool
    ) -> None:
        self._references = dict(references)
        self._environment = {**_ENVIRONMENT, **environment}
        self._preload = preload
        self._lock = threading.Lock()
        self._is_closed = False
        self._process, self._control, self.catalogue = self._start()

    @property
    def pid(self) -> int:
        """The number of the process that runs now."""
        return self._process.pid

    def send(self, request: Mapping[str, object], descriptors: Sequence[int]) -> int:
        """
        Ask for a child; return the number of the process that was asked.

        Raises:
            TaskHostError: It was closed, or it does not start.
        """
        packet = json.dumps(request).encode()
        with self._lock:
            if self._is_closed:
                raise TaskHostError("the worker is shutting down")
            try:
                socket.send_fds(self._control, [packet], descriptors)
            except OSError as error:
                # It ended or hangs, by no fault of this job: one new one is tried.
                if isinstance(error, TimeoutError):
                    self._process.kill()
                self._stop()
                self._process, self._control, self.catalogue = self._start()
                try:
                    socket.send_fds(self._control, [packet], descriptors)
                except OSError as again:
                    raise TaskHostError(f"the forking process: {again.strerror}") from again
            return self._process.pid

    def give_up(self, pid: int) -> None:
        """
        Kill the process *pid*, with all its children, if it is the one that forks now.

        It did not answer: a task may have stopped it. The next request starts another.
        """
        with self._lock:
            if not self._is_closed and self._process.pid == pid:
                self._process.kill()
                self._process.wait()

    def close(self) -> None:
        """End it; it kills what still runs."""
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._stop()

    def _start(self) -> tuple[subprocess.Popen[bytes], socket.socket, Catalogue]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            path = [str(Path(entry).absolute()) for entry in sys.path]
            arguments = json.dumps([theirs.fileno(), path, self._references, self._preload])
            process = subprocess.Popen(
                [sys.executable, "-I", "-B", "-W", "ignore", "-c", _PROGRAM, arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                env=self._environment,
                cwd="/",
                # A Ctrl-C at the terminal is for the worker, which then ends this in order.
                start_new_session=True,
            )
        ours.settimeout(_START_SECONDS)
        try:
            catalogue: Catalogue = json.loads(ours.recv(MAX_PACKET))
        except (OSError, ValueError) as error:
            process.kill()
            process.wait()
            ours.close()
            raise TaskHostError("the process that loads the tasks ended or hung") from error
        ours.settimeout(_SEND_SECONDS)
        return process, ours, catalogue

    def _stop(self) -> None:
        self._control.close()
        try:
            self._process.wait(timeout=_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
