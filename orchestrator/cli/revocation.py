"""Revoke a worker by its id or key, all of a measurement, or all of a machine: `workers revoke`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.access import SEND
from orchestrator.cli.admission import explained_refusal, open_archive, parse_platform
from orchestrator.cli.command import command
from orchestrator.cli.errors import ExitCode
from orchestrator.cli.output import Document, to_json
from orchestrator.cli.session import Session
from orchestrator.cli.trust import evidence_of
from orchestrator.cli.values import parse_bytes32, parse_public_key
from orchestrator.errors import (
    BlobError,
    BlobNotFoundError,
    ContractError,
    EncodingError,
    InputError,
    RefusedError,
)

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
            help="Every worker whose evidence is from the machine of this PPID or PIID.",
        ),
    ] = "",
    reason: Annotated[
        str, typer.Option(help="Why; required. Its blake2-256 hash goes into each worker's event.")
    ] = "",
) -> None:
    """
    Revoke for ever: one worker, a measurement, or all workers of a machine. Registrar only.

    What revoked workers have attested and nobody has marked yet is not marked any more; its owners
    can cancel it. With --platform it says which workers' evidence could not be read, and then the
    exit code is 3.
    """
    id_given = worker if worker is not None else worker_id
    chosen = [id_given is not None, bool(key), bool(measurement), bool(platform)]
    if sum(chosen) != 1 or (worker is not None and worker_id is not None):
        raise InputError("give exactly one of --worker, --key, --measurement and --platform")
    if not reason.strip() or len(reason.encode("utf-8")) > MAX_REASON_BYTES:
        raise InputError(f"reason: say why with --reason, in 1 to {MAX_REASON_BYTES} bytes")
    try:
        if measurement:
            _revoke_measurement(session, parse_bytes32("measurement", measurement), reason)
        elif platform:
            _revoke_platform(session, parse_platform(platform), reason)
        else:
            _revoke_one(session, id_given or _worker_of(session, key), reason)
    except ContractError as refusal:
        raise explained_refusal(session, refusal) from refusal


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


def _revoke_platform(session: Session, platform: bytes, reason: str) -> None:
    from orchestrator.encoding import blake2_256
    from orchestrator.evidence import load_bundle
    from orchestrator.registrar import platform_ids
    from orchestrator.registrar.forecast import NO_EVIDENCE

    archive, evidence = open_archive(session), evidence_of(session)
    matching: list[int] = []
    unreadable: list[Document] = []
    # Those whose evidence is here come first: waiting for workers must not delay any of them.
    for worker in sorted(_live(session), key=archive.holds, reverse=True):
        try:
            if worker.evidence_hash == NO_EVIDENCE:
                raise BlobNotFoundError("it was registered without evidence")
            is_from_there = platform in platform_ids(load_bundle(evidence(worker)))
        except (BlobError, EncodingError) as error:
            unreadable.append({"worker": worker.worker, "why": str(error)})
            session.output.say(f"worker {worker.worker}: its evidence can't be read: {error}")
            continue
        if is_from_there:
            _send(session, worker.worker, reason)
            matching.append(worker.worker)
    session.output.result(
        {
            "platform": to_json(platform),
            "revoked": matching,
            "unreadable": unreadable,
            "reason": to_json(blake2_256(reason.encode("utf-8"))),
        }
    )
    if unreadable:
        raise typer.Exit(ExitCode.UNKNOWN)


def _live(session: Session) -> "Sequence[Worker]":
    """The workers that are not revoked."""
    from orchestrator.models import WorkerStatus

    chain, processor = session.chain, session.processor
    found: list[Worker] = []
    start: int | None = 1
    while start is not None:
        page = chain.read(processor.workers_page(start, 50))
        found += [one for one in page.items if one.status is not WorkerStatus.REVOKED]
        start = page.next
    return found


def declare(app: typer.Typer) -> None:
    """Add the command to *app*."""
    command(app, "revoke", settings=(*SEND, "evidence"), group="workers")(revoke)
