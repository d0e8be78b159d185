"""
A development node as a child process: where its program is, starting it, ending it.

The node is a real one (pallet-contracts, blocks, fees, finality) with a chain of its own. Its
genesis is the same each time, so two runs have the same genesis hash.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from orchestrator.errors import ChainUnavailableError, InputError

__all__ = ["NODE_VARIABLE", "DevNode", "find_node"]

NODE_VARIABLE = "CONTRACTS_NODE"
_NAMES = ("substrate-contracts-node", "contracts-devnode")
# Where `make node` puts its build: only a checkout has it.
_BUILT = Path(__file__).parents[2] / "devnode" / "target" / "release" / "contracts-devnode"
_ADDRESS = re.compile(r"Running JSON-RPC server: addr=127\.0\.0\.1:(\d+)")
# By default a node forgets states after 256 blocks, which here is after 256 transactions: an
# orchestrator that was away for longer could not read their events.
_PRUNING = "--state-pruning"
_LOG_END = 2_000


def find_node(environment: Mapping[str, str] = os.environ) -> Path | None:
    """
    Return the program of a development node, `None` when there is none.

    `CONTRACTS_NODE` first, then `substrate-contracts-node` or `contracts-devnode` on PATH, then
    what `make node` built.

    Raises:
        InputError: `CONTRACTS_NODE` names no program.
    """
    named = environment.get(NODE_VARIABLE)
    if named:
        if shutil.which(named) is None:
            raise InputError(f"{NODE_VARIABLE}: {named!r} is no program")
        return Path(named)
    for name in _NAMES:
        found = shutil.which(name, path=environment.get("PATH"))
        if found:
            return Path(found)
    return _BUILT if shutil.which(_BUILT) else None


class DevNode:
    """
    A development node that runs until it is left.

    With *base_path* the chain is kept there and `start` goes on with it, else it is temporary.
    *rpc_port* 0 takes a free one; a restarted node keeps its port. Blocks are final at once
    unless *flags* say otherwise.

    Raises:
        ChainUnavailableError: It did not start, then the message ends with what it last said;
            or it listens at another port than *rpc_port*.
    """

    def __init__(
        self,
        program: Path,
        *,
        base_path: Path | None = None,
        rpc_port: int = 0,
        flags: Sequence[str] = ("--finalize-delay-sec", "0"),
        start_seconds: float = 90.0,
    ) -> None:
        self.program = program
        self.rpc_port = rpc_port
        self._folder = tempfile.TemporaryDirectory(prefix="phala-jobs-node-")
        self._base_path = base_path or Path(self._folder.name, "chain")
        self._flags = flags
        self._start_seconds = start_seconds
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.start()
        except BaseException:  # Ctrl-C as well: nobody else would end the process
            self.kill()  # one that is still starting takes long to end by itself
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where the node listens, for `open_chain`."""
        return f"ws://127.0.0.1:{self.rpc_port}"

    @property
    def log_path(self) -> Path:
        """The file with what the node says."""
        return Path(self._folder.name, "log")

    @property
    def process(self) -> "subprocess.Popen[bytes]":
        """The running process."""
        if self._process is None:
            raise InputError("the node is not running")
        return self._process

    def start(self) -> None:
        """Start the node, again after `stop` or `kill`, and wait until it answers."""
        command = [
            *(str(self.program), "--dev", "--base-path", str(self._base_path)),
            *("--rpc-port", str(self.rpc_port), "--port", "0"),
            *("--no-prometheus", "--no-telemetry", "--no-mdns"),
            *self._flags,
            *(() if _PRUNING in self._flags else (_PRUNING, "archive")),
        ]
        with self.log_path.open("wb") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for whoever runs the node
            )
        deadline = time.monotonic() + self._start_seconds
        while (found := _ADDRESS.search(self._said())) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                said = self._said()[-_LOG_END:]
                raise ChainUnavailableError(f"{self.program} did not start; it said:\n{said}")
            time.sleep(0.05)
        listening = int(found.group(1))
        if self.rpc_port not in (0, listening):
            # Nobody who was told the port would find this node, but perhaps another one there.
            raise ChainUnavailableError(
                f"port {self.rpc_port} is taken: {self.program} listens at port {listening}"
                " instead; choose another, or 0 for a free one"
            )
        self.rpc_port = listening

    def stop(self) -> None:
        """End the node, and let it end in order."""
        # Not SIGINT: what a shell has started in the background ignores that.
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End the node as a power cut does."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """End the node for good."""
        self.stop()
        self._folder.cleanup()

    def _end(self, number: int) -> None:
        if self._process is None:
            return
        self._process.send_signal(number)
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    def _said(self) -> str:
        return self.log_path.read_text(encoding="utf-8", errors="replace")
