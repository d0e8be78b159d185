"""
`phala-jobs demo`: one confidential job from sealing to the opened result, on real input.

Everything is in a temporary folder: the chain, embedded or a development node of its own, two
workers and an orchestrator, which run as processes. The workers are registered by the production
verifier, on quotes of a simulated platform; the first one is killed while it runs the job. What
the demo claims it also checks: each claim is an assertion, and one that fails makes the exit code
1.
"""

import contextlib
import importlib.util
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from orchestrator.cli.command import command
from orchestrator.cli.errors import ExitCode
from orchestrator.cli.session import Session
from orchestrator.cli.verdicts import SIMULATED
from orchestrator.errors import ConfigError, Error

NEEDED = ("numpy", "onnxruntime")


class DemoChain(StrEnum):
    """Where the demo's contract runs."""

    EMBEDDED = "embedded"
    NODE = "node"


def demo(
    session: Session,
    chain: Annotated[
        DemoChain,
        typer.Option(
            "--chain",
            help="The embedded chain, or a development node: real blocks, fees and finality.",
        ),
    ] = DemoChain.EMBEDDED,
    keep: Annotated[
        bool, typer.Option("--keep", help="Keep the temporary folder and say where it is.")
    ] = False,
) -> None:
    """Watch one confidential job go through, on real patients; the TEE is simulated."""
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise ConfigError(f"the demo needs {' and '.join(missing)}: pip install 'phala-jobs[demo]'")
    from orchestrator.cli.demo_run import Run

    node = _node() if chain is DemoChain.NODE else None
    started = time.monotonic()
    try:
        with _ending_on_signals(), _folder(session, keep=keep) as folder:
            summary = Run(session.output, folder, node).play()
    except KeyboardInterrupt:
        rest = "the processes are ended" if keep else "everything is removed"
        session.output.say(f"interrupted; {rest}")
        raise
    failed = [name for name, passed in summary.assertions.items() if not passed]
    seconds = round(time.monotonic() - started, 1)
    if session.output.as_json:
        session.output.result({**summary.document(), "seconds": seconds})
    if failed:
        session.output.say("the demo failed: " + "; ".join(f"not so: {name}" for name in failed))
        raise typer.Exit(ExitCode.REFUSED)
    session.output.say(f"demo: {len(summary.assertions)} assertions hold, {seconds} s; {SIMULATED}")


def _node() -> Path:
    from orchestrator.chain.devnode import NODE_VARIABLE, find_node

    program = find_node()
    if program is None:
        raise ConfigError(
            f"no development node found: set {NODE_VARIABLE}, put contracts-devnode or"
            " substrate-contracts-node on PATH, or run `make node` in a checkout"
        )
    return program


def declare(app: typer.Typer) -> None:
    """Add the command to *app*."""
    command(app, "demo", panel="Start here")(demo)


@contextlib.contextmanager
def _folder(session: Session, *, keep: bool) -> Iterator[Path]:
    """A temporary folder, removed at the end unless it is to be kept."""
    folder = Path(tempfile.mkdtemp(prefix="phala-jobs-demo-"))
    try:
        yield folder
    finally:
        if keep:
            session.output.say(f"kept: {folder}")
        else:
            _remove(folder)


def _remove(folder: Path) -> None:
    """Remove the folder; a process that is just ending may still write into it."""
    for _ in range(3):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    raise Error(f"the temporary folder {folder} could not be removed")


@contextlib.contextmanager
def _ending_on_signals() -> Iterator[None]:
    """
    Let SIGTERM and SIGHUP end the demo as Ctrl-C does, so that its processes end too.

    SIGINT as well: a shell ignores it for what it starts in the background.
    """

    def interrupt(number: int, frame: FrameType | None) -> None:
        del number, frame
        raise KeyboardInterrupt

    try:
        before = {
            number: signal.signal(number, interrupt)
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
        }
    except ValueError:  # not the main thread: signals are somebody else's business
        yield
        return
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
