"""Find out why something does not work: `doctor`."""

import time
from typing import Annotated

import typer

from orchestrator.cli.access import LIMITS, READ
from orchestrator.cli.command import command
from orchestrator.cli.errors import ExitCode
from orchestrator.cli.examination import Examination
from orchestrator.cli.findings import Finding, Outcome
from orchestrator.cli.output import Document
from orchestrator.cli.session import Session
from orchestrator.cli.trust import EVIDENCE
from orchestrator.cli.values import parse_duration

DOCTOR = (
    *READ,
    *LIMITS,
    "account",
    "account_file",
    "keys",
    "keys_unencrypted",
    "trusted_nodes",
    "blob_sources",
    *EVIDENCE,
)


def doctor(
    session: Session,
    window: Annotated[
        str,
        typer.Option(metavar="DURATION", help="Registrations and collateral that end sooner fail."),
    ] = "72h",
    submits: Annotated[
        int, typer.Option(min=1, help="How many more jobs the account should be able to pay for.")
    ] = 10,
) -> None:
    """
    Check chain, contract, account, workers and their evidence: what is wrong and what to do.

    It sends nothing. The exit code is 0 when nothing failed, 1 when something did, 3 when something
    could not be told.
    """
    examination = Examination(
        session, window_ms=parse_duration("window", window), submits=submits, clock=_clock
    )
    with session.output.progress("Looking"):
        findings = examination.findings()
    _report(session, findings)
    outcomes = {finding.outcome for finding in findings}
    if Outcome.FAIL in outcomes:
        raise typer.Exit(ExitCode.REFUSED)
    if Outcome.UNKNOWN in outcomes:
        raise typer.Exit(ExitCode.UNKNOWN)


def _clock() -> int:
    return time.time_ns() // 1_000_000


def _report(session: Session, findings: list[Finding]) -> None:
    rows: list[Document] = [
        {
            "check": finding.check,
            "outcome": finding.outcome.value,
            "found": finding.found,
            "hint": finding.hint,
        }
        for finding in findings
    ]
    session.output.rows("checks", rows, columns=("check", "outcome", "found"))
    if session.output.as_json:
        return
    for finding in findings:
        if finding.hint:
            session.output.say(f"{finding.check}: {finding.hint}")


def declare(app: typer.Typer) -> None:
    """Add the command to *app*."""
    command(app, "doctor", settings=DOCTOR, panel="Start here")(doctor)
