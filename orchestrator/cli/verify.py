"""Check a finished job: offline from its receipt or attestation file, or against the chain."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.access import READ
from orchestrator.cli.attestations import attestation_of
from orchestrator.cli.command import command
from orchestrator.cli.errors import ExitCode
from orchestrator.cli.output import Document, JsonValue, shown_time, to_json
from orchestrator.cli.receipt_report import NOT_ALL, is_receipt, verify_receipt
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_bytes32, parse_public_key, parse_time, read_input
from orchestrator.errors import InputError

if TYPE_CHECKING:
    from orchestrator.attestation import AttestationFile, Check, CheckOutcome
    from orchestrator.models import PublicKey

MAX_FILE_BYTES = 8 << 20
MAX_RESULT_BYTES = 20 << 20
PURGED = "the contract no longer has this job, it was purged"
NO_KEY = "no key was named: give --accept-key (workers list shows them) or --against-chain"


def verify(
    session: Session,
    target: Annotated[
        str,
        typer.Argument(
            metavar="FILE|JOB", help="A receipt or attestation file, or the id of a job."
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
    trusted_block: Annotated[
        str | None,
        typer.Option(
            metavar="HASH",
            help="For a receipt: a block that you know to be final, from a source of your own.",
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="For a receipt: judge the evidence at this time, not as recorded."
        ),
    ] = None,
    receipts_policy: Annotated[
        bool,
        typer.Option(
            "--receipts-policy",
            help="For a receipt: let the registrar's policy, which is in it, decide.",
        ),
    ] = False,
) -> None:
    """
    Check that a worker signed a job's result: offline from a file, or against the chain.

    A receipt is checked offline, step by step: --contract names the contract that you expect,
    --policy your own policy for its evidence. Without the latter the policy is a stranger's, and
    without --trusted-block nothing shows that a chain has recorded it: the exit code is 3. The same
    for an attestation file without --accept-key or the chain, where anybody's key passes.
    """
    only = {
        "--trusted-block": trusted_block,
        "--at": at,
        "--receipts-policy": receipts_policy or None,
    }
    keys = None if not accept_key else [parse_public_key("accept_key", text) for text in accept_key]
    sealed = None if result is None else read_input("result", result, max_bytes=MAX_RESULT_BYTES)
    if target.isdecimal() and not Path(target).exists():
        _refuse_options(only, "a job on the chain has no")
        file = attestation_of(session, int(target))
        checks = _offline(file, [file.worker.signing_key] if keys is None else keys, sealed)
        if keys is None:
            listed = f"the key that the contract lists for worker {file.worker.worker}"
            checks = _detailed(checks, "accepted key", listed)
        compared = True
    else:
        data = read_input("file", Path(target), max_bytes=MAX_FILE_BYTES)
        if is_receipt(data):
            others = {"--accept-key": accept_key, "--against-chain": against_chain or None}
            _refuse_options(others, "a receipt takes no")
            verify_receipt(
                session,
                data,
                trusted_block=None
                if trusted_block is None
                else parse_bytes32("trusted_block", trusted_block),
                at=None if at is None else parse_time("at", at),
                result=sealed,
                takes_own_policy=receipts_policy,
            )
            return
        _refuse_options(only, "an attestation file takes no")
        file = _load(data)
        checks = _offline(file, keys, sealed)
        compared = against_chain
    _report(session, file, _with_chain(session, file, checks) if compared else checks, compared)


def declare(app: typer.Typer) -> None:
    """Add the command to *app*."""
    command(app, "verify", settings=(*READ, "policy"), panel="Anybody")(verify)


def _refuse_options(given: Mapping[str, object], words: str) -> None:
    """Say that an option would do nothing for what is verified."""
    for name, value in given.items():
        if value is not None:
            raise InputError(f"{words} {name}")


def _load(data: bytes) -> "AttestationFile":
    from orchestrator.attestation import load_attestation_file

    return load_attestation_file(data)


def _offline(
    file: "AttestationFile", keys: "Sequence[PublicKey] | None", sealed: bytes | None
) -> "list[Check]":
    """The checks that need no chain; a file that --result names wrongly is told what it takes."""
    from orchestrator.attestation import CheckOutcome, verify_attestation_file

    checks = verify_attestation_file(file, accepted_keys=keys, result=sealed, show_time=shown_time)
    if any(check.name == "result" and check.outcome is CheckOutcome.FAILED for check in checks):
        wrong = "is not the sealed result of this job; --result takes the file of result --sealed"
        return _detailed(checks, "result", wrong)
    return checks


def _detailed(checks: "Sequence[Check]", name: str, detail: str) -> "list[Check]":
    return [replace(check, detail=detail) if check.name == name else check for check in checks]


def _with_chain(
    session: Session, file: "AttestationFile", checks: "Sequence[Check]"
) -> "list[Check]":
    """*checks*, those that only a chain can answer answered by it."""
    answers = _ask_about_gone(session, file)
    if answers is None:
        answers = dict([_compare_facts(session, file), _ask_today(session, file)])
    return [
        replace(check, outcome=answers[check.name][0], detail=answers[check.name][1])
        if check.name in answers
        else check
        for check in checks
    ]


def _ask_about_gone(
    session: Session, file: "AttestationFile"
) -> "dict[str, tuple[CheckOutcome, str]] | None":
    """What can be said of a job that the contract does not have; `None` when it has it."""
    from orchestrator.attestation import CheckOutcome

    chain, processor, facts = session.chain, session.processor, "facts on the chain"
    if (file.genesis_hash, file.contract) != (chain.genesis_hash, session.contract):
        return {facts: (CheckOutcome.FAILED, "the file is of another chain or contract")}
    if chain.read(processor.get_job(file.job.job_id)) is not None:
        return None
    if file.job.job_id > chain.read(processor.get_job_counter()):
        return {facts: (CheckOutcome.FAILED, "the contract never had this job")}
    purged = (CheckOutcome.NOT_CHECKED, "the job was purged")
    return {facts: purged, "trusted today": purged}


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


def _report(
    session: Session,
    file: "AttestationFile",
    checks: "Sequence[Check]",
    compared: bool,
) -> None:
    """Print the checks; the command ends with 1 when one failed, with 3 when one is missing."""
    from orchestrator.attestation import CheckOutcome

    outcomes = {check.name: check.outcome for check in checks}
    is_on_chain = outcomes["facts on the chain"] is CheckOutcome.PASSED
    is_known = is_on_chain or outcomes["accepted key"] is CheckOutcome.PASSED
    failed = [check for check in checks if check.outcome is CheckOutcome.FAILED]
    refusal: tuple[str, str, ExitCode] | None = None
    if failed:
        reasons = "; ".join(f"{check.name}: {check.detail}" for check in failed)
        refusal = ("NotVerified", f"NotVerified: {reasons}", ExitCode.REFUSED)
    elif compared and not is_on_chain:
        refusal = ("JobPurged", f"{NOT_ALL}: {PURGED}", ExitCode.UNKNOWN)
    elif not is_known:
        refusal = ("KeyNotCompared", f"{NOT_ALL}: {NO_KEY}", ExitCode.UNKNOWN)
    _print_checks(session, file, checks, is_known=is_known, refusal=refusal)
    if not failed:
        unproven = "; not signed, so not proven offline: owner, times of the job, status"
        session.output.say(
            f"job {file.job.job_id}: worker {file.worker.worker} signed this result"
            + ("" if is_known else "; its key was not compared with any that you accept")
            + ("" if is_on_chain else unproven)
        )
    if refusal is not None:
        raise typer.Exit(refusal[2])


def _print_checks(
    session: Session,
    file: "AttestationFile",
    checks: "Sequence[Check]",
    *,
    is_known: bool,
    refusal: tuple[str, str, "ExitCode"] | None,
) -> None:
    """Print all checks, also those of a file that is refused."""
    rows: list[Document] = [
        {"check": check.name, "outcome": check.outcome.value, "detail": check.detail}
        for check in checks
    ]
    facts: dict[str, JsonValue] = {
        "verified": refusal is None,
        "key_accepted": is_known,
        "job_id": file.job.job_id,
        "worker": file.worker.worker,
        "signing_key": to_json(file.worker.signing_key.key),
    }
    if refusal is None or not session.output.as_json:
        session.output.rows("checks", rows, columns=None, **facts)
    if refusal is not None:
        said = session.output.error if refusal[2] is ExitCode.REFUSED else session.output.unknown
        said(refusal[0], refusal[1], checks=rows, **facts)
