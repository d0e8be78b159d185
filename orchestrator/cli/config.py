"""Show the settings: `config show|sample`."""

from pathlib import Path
from typing import Annotated

import typer

from orchestrator.cli.command import command
from orchestrator.cli.output import Document, printable, shown, to_json
from orchestrator.cli.session import Session
from orchestrator.config import declared_settings, key_path, sample_file, variable

app = typer.Typer(help="Where each setting came from, and a sample file.", no_args_is_help=True)


@command(app, "show", group="config")
def show(session: Session) -> None:
    """Print every setting, its value, and where the value was found."""
    rows: list[Document] = [
        {
            "setting": key_path(name),
            "value": to_json(getattr(session.settings, name)),
            "origin": str(session.loaded.origins[name]),
            "variable": variable(name),
        }
        for name in declared_settings()
    ]
    if session.output.as_json:
        session.output.rows("settings", rows)
    else:
        _show_narrow(session, rows)


def _show_narrow(session: Session, rows: list[Document]) -> None:
    """Print names in full at any width; what is not a default says where it is from."""
    from rich.markup import escape

    grid = session.output.grid()
    for row in rows:
        text = shown(str(row["setting"]), row["value"])
        if row["origin"] != "default":
            text += f"  ({row['origin']})"
        grid.add_row(str(row["setting"]), escape(printable(text)))
    session.output.console().print(grid)
    session.output.say("variables: PHALA_JOBS_ and the name, such as PHALA_JOBS_WORKER_SLOTS")


@command(app, "sample", group="config")
def sample(
    session: Session,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="A new file to write.")
    ] = None,
) -> None:
    """Print a settings file with every setting explained, or write it to a new file."""
    from orchestrator.keystore.private_files import write_new_file

    text = sample_file()
    if output is not None:
        write_new_file(output, text.encode("utf-8"))
        session.output.result({"written": str(output)})
    elif session.output.as_json:
        session.output.result({"sample": text})
    else:
        print(text, end="")  # noqa: T201  # the file itself is the result
