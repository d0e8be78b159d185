"""Check a finished job: offline from its attestation file, or against the chain."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.access import READ
from orchestrator.cli.attestations import attestation_of
from orchestrator.cli.command import command
from orchestrator.cli.output import Document, to_json
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_public_key, read_input
from orchestrator.errors import RefusedError

if TYPE_CHECKING:
    from orchestrator.attestation import AttestationFile, Check, CheckOutcome
    from orchestrator.models import PublicKey

MAX_FILE_BYTES = 1 << 20
MAX_RESULT_BYTES = 20 << 20


def verify(
    session: Session,
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE|JOB", help="An attestation file, or the id of a job on the chain."
        ),
    ],
    accept_key: Annotated[
        list[str] | None,
        typer.Option(metavar="HEX", help="A worker's signing key that you accept; repeatable."),
    ] = None,
    result: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The sealed result, to be compared too.")
    ] = None,
    against_chain: Annotated[
        bool,
        typer.Option("--against-chain", help="Compare an attestation file with the chain too."),
    ] = False,
) -> None:
    """
    Check that a worker signed a job's result: offline from a file, or against the chain.

    Without --accept-key or the chain, anybody's own key passes, and nothing is called verified.
    """
    keys = None if not accept_key else [parse_public_key("accept_key", text) for text in accept_key]
    sealed = None if result is None else read_input("result", result, max_bytes=MAX_RESULT_BYTES)
    if target.isdecimal() and not Path(target).exists():
        file = attestation_of(session, int(target))
        keys = [file.worker.signing_key] if keys is None else keys
        is_on_chain = True
    else:
        file = _load(Path(target))
        is_on_chain = against_chain
    _report(session, file, _checks(session, file, keys, sealed, is_on_chain=is_on_chain))


def declare(app: typer.Typer) -> None:
    """Add the command to *app*."""
    command(app, "verify", settings=READ, panel="Anybody")(verify)


def _load(path: Path) -> "AttestationFile":
    from orchestrator.attestation import load_attestation_file

    return load_attestation_file(read_input("file", path, max_bytes=MAX_FILE_BYTES))


def _checks(
    session: Session,
    file: "AttestationFile",
    keys: "Sequence[PublicKey] | None",
    sealed: bytes | None,
    *,
    is_on_chain: bool,
) -> "list[Check]":
    """The checks that need no chain, and with one those that do."""
    from orchestrator.attestation import verify_attestation_file

    checks = verify_attestation_file(file, accepted_keys=keys, result=sealed)
    if not is_on_chain:
        return checks
    answers = dict([_compare_facts(session, file), _ask_today(session, file)])
    return [
        replace(check, outcome=answers[check.name][0], detail=answers[check.name][1])
        if check.name in answers
        else check
        for check in checks
    ]


def _compare_facts(
    session: Session, file: "AttestationFile"
) -> "tuple[str, tuple[CheckOutcome, str]]":
    """Whether the chain has recorded the same about the same job; its status may have moved on."""
    from orchestrator.attestation import CheckOutcome

    recorded = attestation_of(session, file.job.job_id)
    same_worker = replace(
        recorded.worker,
        valid_until=file.worker.valid_until,
        evidence_hash=file.worker.evidence_hash,
    )  # both change when a worker is renewed
    same_job = replace(recorded.job, status=file.job.status, processed_at=file.job.processed_at)
    if file == replace(recorded, worker=same_worker, job=same_job):
        return "facts on the chain", (CheckOutcome.PASSED, "as the contract has recorded them")
    return "facts on the chain", (CheckOutcome.FAILED, "the contract has recorded others")


def _ask_today(session: Session, file: "AttestationFile") -> "tuple[str, tuple[CheckOutcome, str]]":
    """What the contract says of the attestation today."""
    from orchestrator.attestation import CheckOutcome
    from orchestrator.models import AttestationStatus

    status = session.chain.read(session.processor.attestation_status(file.job.job_id))
    is_valid = status is AttestationStatus.VALID
    outcome = CheckOutcome.PASSED if is_valid else CheckOutcome.FAILED
    return "trusted today", (outcome, f"the contract says {status.value}")


def _report(session: Session, file: "AttestationFile", checks: "Sequence[Check]") -> None:
    """Print the checks; refuse with the first that failed."""
    from orchestrator.attestation import CheckOutcome, is_accepted

    rows: list[Document] = [
        {"check": check.name, "outcome": check.outcome.value, "detail": check.detail}
        for check in checks
    ]
    failed = [check for check in checks if check.outcome is CheckOutcome.FAILED]
    is_known = _is_key_known(checks)
    if not (session.output.as_json and failed):
        session.output.rows(
            "checks",
            rows,
            verified=is_accepted(checks) and is_known,
            key_accepted=is_known,
            job_id=file.job.job_id,
            worker=file.worker.worker,
            signing_key=to_json(file.worker.signing_key.key),
        )
    if failed:
        raise RefusedError(
            "NotVerified", "; ".join(f"{check.name}: {check.detail}" for check in failed)
        )
    session.output.say(
        f"job {file.job.job_id}: worker {file.worker.worker} signed this result"
        + ("" if is_known else "; its key was not compared with any that you accept")
    )


def _is_key_known(checks: "Sequence[Check]") -> bool:
    """Whether the key that signed was named as accepted, or is the one that the chain recorded."""
    from orchestrator.attestation import CheckOutcome

    return any(
        check.name in ("accepted key", "facts on the chain")
        and check.outcome is CheckOutcome.PASSED
        for check in checks
    )
