"""The whole command, put together from its nouns."""

from typing import Annotated

import typer

from orchestrator.cli import (
    access,
    chain,
    config,
    contract,
    demo,
    doctor,
    evidence,
    jobs,
    keys,
    measurements,
    orchestrator,
    policy,
    receipts,
    registrar,
    simulator,
    task,
    trust,
    verify,
    watch,
    worker,
    workers,
)
from orchestrator.cli.versions import PROTOCOL_VERSION, program_version

app = typer.Typer(
    name="phala-jobs",
    help="Confidential jobs on TEE workers, verified by the contract itself.",
    no_args_is_help=True,
    epilog="Exit codes: 0 done, 1 refused, 2 bad usage or input, 3 could not tell, 130 Ctrl-C.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(given: bool) -> None:
    """Print the versions of program, protocol and contract, and end."""
    if not given:
        return
    from orchestrator.chain.bundle import load_bundle
    from orchestrator.cli.errors import error_message, exit_code
    from orchestrator.errors import Error

    try:
        bundle = load_bundle()
    except Error as error:
        typer.echo(f"error: {error_message(error)}", err=True)
        raise typer.Exit(exit_code(error)) from None
    typer.echo(f"phala-jobs {program_version()}")
    typer.echo(f"protocol {PROTOCOL_VERSION}")
    typer.echo(f"contract {bundle.version} (code 0x{bundle.code_hash.hex()})")
    raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the versions."
        ),
    ] = False,
) -> None:
    """Confidential jobs on TEE workers, verified by the contract itself."""


for _module in (demo, jobs, watch, receipts, verify, doctor):
    _module.declare(app)

for _name, _nouns in (
    ("chain", chain.app),
    ("contract", contract.app),
    ("roles", access.roles),
    ("mode", access.mode),
    ("parameters", access.parameters),
    ("admin", access.admin),
    ("account", access.account),
    ("workers", workers.app),
    ("measurements", measurements.app),
    ("worker", worker.app),
    ("orchestrator", orchestrator.app),
    ("registrar", registrar.app),
    ("keys", keys.app),
    ("task", task.app),
    ("trust", trust.app),
    ("policy", policy.app),
    ("evidence", evidence.app),
    ("config", config.app),
):
    app.add_typer(_nouns, name=_name)
app.add_typer(simulator.app, name="simulator", rich_help_panel="Development")


def main() -> None:
    """Run the command line."""
    app(prog_name="phala-jobs")
