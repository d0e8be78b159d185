"""Revoke a worker by its id or key, all of a measurement, or all of a machine: `workers revoke`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.access import SEND
from orchestrator.cli.admission import explained_refusal, parse_platform
from orchestrator.cli.command import command
from orchestrator.cli.costs import is_interactive
from orchestrator.cli.machines import revoke_platform
from orchestrator.cli.output import to_json
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_bytes32, parse_public_key
from orchestrator.errors import ContractError, InputError, RefusedError

if TYPE_CHECKING:
    from orchestrator.models import Worker

MAX_REASON_BYTES = 1_000


def revoke(
    session: Session,
    worker_id: Annotated[
        int | None,
        typer.Argument(metavar="[WORKER]", min=1, max=2**32 - 1, help="The same as --worker."),
    ] = None,
    worker: Annotated[
        int | None, typer.Option(metavar="ID", min=1, max=2**32 - 1, help="The worker of this id.")
    ] = None,
    key: Annotated[str, typer.Option(metavar="HEX", help="The worker with this signing key.")] = "",
    measurement: Annotated[
        str,
        typer.Option(
            metavar="HEX", help="The measurement, 64 hex digits, and with it all its workers."
        ),
    ] = "",
    platform: Annotated[
        str,
        typer.Option(
            metavar="HEX",
            help="Every worker with evidence from the machine of this PPID or PIID, also earlier.",
        ),
    ] = "",
    reason: Annotated[
        str, typer.Option(help="Why; required. Its blake2-256 hash goes into each worker's event.")
    ] = "",
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask; nobody is asked without a terminal.")
    ] = False,
) -> None:
    """
    Revoke for ever: one worker, a measurement, or all workers of a machine. Registrar only.

    At a terminal it asks first; elsewhere it does not, because an emergency has no time for it.
    What revoked workers have attested and nobody has marked yet is not marked any more; its owners
    can cancel it. With --platform it says who was revoked, who could not be, and whose evidence
    could not be read; the exit code is 3 when there is any of the last, else 1 when somebody could
    not be revoked.
    """
    id_given = worker if worker is not None else worker_id
    chosen = [id_given is not None, bool(key), bool(measurement), bool(platform)]
    if sum(chosen) != 1 or (worker is not None and worker_id is not None):
        raise InputError("give exactly one of --worker, --key, --measurement and --platform")
    if not reason.strip() or len(reason.encode("utf-8")) > MAX_REASON_BYTES:
        raise InputError(f"reason: say why with --reason, in 1 to {MAX_REASON_BYTES} bytes")
    if not yes and is_interactive():
        _confirm(measurement, platform, key or str(id_given))
    try:
        if measurement:
            _revoke_measurement(session, parse_bytes32("measurement", measurement), reason)
        elif platform:
            revoke_platform(session, parse_platform(platform), reason, _live(session))
        else:
            _revoke_one(session, id_given or _worker_of(session, key), reason)
    except ContractError as refusal:
        raise explained_refusal(session, refusal) from refusal


def _confirm(measurement: str, platform: str, worker: str) -> None:
    whom = f"worker {worker}"
    if measurement:
        whom = f"measurement {measurement} and all its workers"
    elif platform:
        whom = f"all workers of machine {platform}"
    if not typer.confirm(f"Revoke {whom} for ever?", err=True):
        raise RefusedError("NotConfirmed", "nothing was sent")


def _worker_of(session: Session, text: str) -> int:
    key = parse_public_key("key", text)
    found = session.chain.read(session.processor.worker_by_key(key))
    if found is None:
        raise RefusedError("WorkerNotFound", f"no worker has registered key {text}")
    return found.worker


def _revoke_one(session: Session, worker: int, reason: str) -> None:
    hashed = _send(session, worker, reason)
    session.output.result({"worker": worker, "status": "Revoked", "reason": to_json(hashed)})


def _send(session: Session, worker: int, reason: str) -> bytes:
    from orchestrator.encoding import blake2_256

    hashed = blake2_256(reason.encode("utf-8"))
    session.send(session.processor.revoke_worker(worker, hashed), f"Revoking worker {worker}")
    return hashed


def _revoke_measurement(session: Session, measurement: bytes, reason: str) -> None:
    """One transaction makes all its workers untrusted; the contract writes no reason for it."""
    affected = [one.worker for one in _live(session) if one.measurement == measurement]
    session.send(session.processor.revoke_measurement(measurement), "Revoking the measurement")
    session.output.say("the contract keeps no reason with a measurement: note it elsewhere")
    session.output.result(
        {
            "measurement": to_json(measurement),
            "allowed": False,
            "workers": affected,
            "reason": reason,
        }
    )


def _live(session: Session) -> "Sequence[Worker]":
    """The workers that are not revoked."""
    from orchestrator.chain.paging import all_workers
    from orchestrator.models import WorkerStatus

    everyone = all_workers(session.chain, session.processor)
    return [one for one in everyone if one.status is not WorkerStatus.REVOKED]


def declare(app: typer.Typer) -> None:
    """Add the command to *app*."""
    command(app, "revoke", settings=(*SEND, "evidence"), group="workers")(revoke)
