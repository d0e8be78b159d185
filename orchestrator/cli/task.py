"""Try a task without any chain: `task run --local NAME INPUT`."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.command import command
from orchestrator.cli.output import to_json
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_task_parameters, read_input
from orchestrator.errors import InputError

app = typer.Typer(help="Tasks, as a worker runs them.", no_args_is_help=True)

MAX_INPUT_BYTES = 16 << 20


@command(app, "run", settings=("worker_models",), group="task")
def run(
    session: Session,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The task, such as echo.")],
    data: Annotated[Path, typer.Argument(metavar="INPUT", help="A file, or - for stdin.")],
    local: Annotated[
        bool, typer.Option("--local", help="Run it here, sealed for and sent to nobody.")
    ] = False,
    parameter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be repeated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="A new file to write.")
    ] = None,
) -> None:
    """Run a task on a file here, in the sandbox that a worker uses; no chain, no sealing."""
    from orchestrator.cli.results import show_output

    if not local:
        raise InputError("local: task run knows only --local; use submit to send a job to workers")
    content = read_input("input", data, max_bytes=MAX_INPUT_BYTES)
    with session.output.progress(f"Running {name}"):
        done = run_task(session, name, content, parse_task_parameters(parameter or ()))
    show_output(session, done[0], output, {"task": name, "cpu_ms": to_json(done[1])})


def run_task(
    session: Session, name: str, data: bytes, parameters: dict[str, object]
) -> tuple[bytes, int]:
    """The task's output, and the CPU time (ms) that it took."""
    from orchestrator.tasks.sandbox import run_local

    done = run_local(name, data, parameters, environment=task_environment(session))
    return done.output, done.cpu_ms


def task_environment(session: Session) -> dict[str, str]:
    """The variables that tasks get from the settings."""
    from orchestrator.tasks.onnx import MODEL_FOLDER_VARIABLE

    models = session.settings.worker_models
    return {} if models is None else {MODEL_FOLDER_VARIABLE: str(models.absolute())}
