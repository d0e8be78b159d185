"""A simulated TEE platform: `simulator init|show|collateral|recover-tcb|update`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.command import command
from orchestrator.cli.output import Document
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_duration

if TYPE_CHECKING:
    from orchestrator.simulator import Simulator

app = typer.Typer(
    help="A simulated TEE platform for development: its quotes prove no TEE.",
    no_args_is_help=True,
)

FolderArgument = Annotated[
    Path, typer.Argument(metavar="FOLDER", help="The simulator's folder, private to its owner.")
]


def _now() -> int:
    import time

    return time.time_ns() // 1_000_000


def _document(simulator: "Simulator", now: int) -> Document:
    guest = simulator.guest
    newest = simulator.releases[-1]
    return {
        "simulated": "proves no TEE",
        "ppid": "0x" + simulator.platform.ppid.hex(),
        "piid": "0x" + simulator.platform.piid.hex(),
        "fmspc": "0x" + simulator.platform.fmspc.hex(),
        "mrtd": "0x" + guest.mrtd.hex(),
        "rtmr0": "0x" + guest.rtmr0.hex(),
        "rtmr1": "0x" + guest.rtmr1.hex(),
        "rtmr2": "0x" + guest.rtmr2.hex(),
        "compose_hash": "0x" + guest.compose_hash.hex(),
        "app_id": "0x" + guest.app_id.hex(),
        "measurement": "0x" + guest.measurements().measurement.hex(),
        "evaluation_number": simulator.release_at(now).evaluation_number,
        "newest_evaluation_number": newest.evaluation_number,
        "newest_effective_at": newest.effective_at or None,
        "root_certificate": simulator.root_pem,
    }


@command(app, "init", group="simulator")
def init(
    session: Session,
    folder: FolderArgument,
    compose: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Compose document of the application to measure."),
    ] = None,
) -> None:
    """Make a simulator with keys of its own: a vendor, a machine, a TD."""
    from orchestrator.cli.values import read_input
    from orchestrator.evidence.bundle import MAX_COMPOSE_BYTES
    from orchestrator.simulator import Guest, create_simulator

    guest = Guest()
    if compose is not None:
        guest = Guest(compose=read_input("compose", compose, max_bytes=MAX_COMPOSE_BYTES))
    made = create_simulator(folder, guest=guest)
    session.output.say("Simulated: nothing that it signs proves a TEE.")
    session.output.result(_document(made, _now()))


@command(app, "show", group="simulator")
def show(session: Session, folder: FolderArgument) -> None:
    """Print what a policy needs: root certificate, machine, measurements."""
    from orchestrator.simulator import load_simulator

    session.output.result(_document(load_simulator(folder), _now()))


@command(app, "collateral", group="simulator")
def collateral(
    session: Session,
    folder: FolderArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="A new file to write.")
    ] = None,
    valid_for: Annotated[
        str, typer.Option(metavar="DURATION", help="How long it is valid.")
    ] = "30d",
    early: Annotated[
        bool, typer.Option("--early", help="By the newest TCB evaluation, in effect or not.")
    ] = False,
) -> None:
    """Issue collateral from now on, as the JSON that PCCS clients write."""
    from orchestrator.evidence import dump_collateral_json
    from orchestrator.keystore.private_files import write_new_file
    from orchestrator.simulator import load_simulator

    made = load_simulator(folder).collateral(
        now=_now(), valid_for=parse_duration("valid_for", valid_for), early=early
    )
    text = dump_collateral_json(made)
    if output is None:
        print(text)  # noqa: T201  # the JSON itself is the result
        return
    write_new_file(output, text.encode("utf-8") + b"\n")
    session.output.result({"simulated": "proves no TEE", "written": str(output)})


@command(app, "recover-tcb", group="simulator")
def recover_tcb(
    session: Session,
    folder: FolderArgument,
    effective_in: Annotated[
        str,
        typer.Option(metavar="DURATION", help="How long collateral goes on as before."),
    ] = "0s",
    advisory: Annotated[
        list[str] | None,
        typer.Option(metavar="ID", help="What the machine is open to; may be repeated."),
    ] = None,
) -> None:
    """Inject a TCB recovery: a new evaluation number, and a version the machine lacks."""
    from orchestrator.simulator import store_recovery

    now = _now()
    after = store_recovery(
        folder,
        now=now,
        effective_at=now + parse_duration("effective_in", effective_in),
        advisories=tuple(advisory or ("SIMULATED-SA-00001",)),
    )
    session.output.result(_document(after, now))


@command(app, "update", group="simulator")
def update(session: Session, folder: FolderArgument) -> None:
    """Bring the machine up to the newest TCB, as after a recovery."""
    from orchestrator.simulator import store_update

    session.output.result(_document(store_update(folder), _now()))
