"""What `verify` says about a receipt: every step, and what all of them come to."""

from typing import TYPE_CHECKING

import typer

from orchestrator.cli.errors import ExitCode
from orchestrator.cli.output import Document, JsonValue, shown_time, to_json
from orchestrator.cli.session import Session
from orchestrator.cli.verdicts import SIMULATED, evidence_document
from orchestrator.config import OriginKind
from orchestrator.errors import InputError

if TYPE_CHECKING:
    from orchestrator.receipts import ReceiptReport

# Two of each kind, so that a file with one of them damaged is still examined as what it was.
_MARKS = (
    b'"phala-jobs receipt"',
    b'"attestation": {',
    b'"payloadType"',
    b"vnd.phala-jobs.receipt",
)
_BEGINNING = 4_096
NOT_ALL = "not everything could be checked"


def is_receipt(data: bytes) -> bool:
    """Whether a file begins as a receipt, or as an envelope that may hold one."""
    return any(mark in data[:_BEGINNING] for mark in _MARKS)


def verify_receipt(
    session: Session,
    data: bytes,
    *,
    trusted_block: bytes | None,
    at: int | None,
    result: bytes | None,
    takes_own_policy: bool,
) -> None:
    """
    Take every step and print it; ends with 1 when one failed, with 3 when one is missing.

    Raises:
        InputError: A policy is named, and the receipt's is to decide.
    """
    from orchestrator.chain.cells import ContractCells
    from orchestrator.receipts import examine_receipt

    if takes_own_policy and session.loaded.origins["policy"].kind is OriginKind.OPTION:
        raise InputError("--policy names your policy, --receipts-policy takes another: give one")
    policy = None if takes_own_policy else session.policy
    report = examine_receipt(
        data,
        cells=ContractCells(session.bundle),
        trusted_block=trusted_block,
        now=at,
        policy=policy,
        takes_own_policy=takes_own_policy,
        contract=session.contract if session.settings.contract is not None else None,
        result=result,
        show_time=shown_time,
    )
    whose = "receipt" if takes_own_policy else None if policy is None else "reader"
    _print(session, report, whose_policy=whose)


def _print(session: Session, report: "ReceiptReport", *, whose_policy: str | None) -> None:
    rows: list[Document] = [
        {"step": step.name, "outcome": step.outcome.value, "detail": step.detail}
        for step in report.steps
    ]
    is_verified = not report.failed and not report.missing
    facts = {"verified": is_verified, "policy": whose_policy, **_facts(report)}
    if is_verified or not session.output.as_json:
        session.output.rows("steps", rows, columns=None, **facts)
    is_simulated = report.verified is not None and report.verified.is_simulated
    simulated = f"; {SIMULATED}" if is_simulated else ""
    if report.failed:
        reasons = "; ".join(f"{step.name}: {step.detail}" for step in report.failed)
        words = f"NotVerified: {reasons}{simulated}"
        session.output.error("NotVerified", words, steps=rows, **facts)
        raise typer.Exit(ExitCode.REFUSED)
    if report.missing:
        names = ", ".join(step.name for step in report.missing)
        words = f"{NOT_ALL}: {names}{simulated}"
        session.output.unknown("NotChecked", words, steps=rows, **facts)
        raise typer.Exit(ExitCode.UNKNOWN)
    session.output.say(_words(report, whose_policy))


def _facts(report: "ReceiptReport") -> dict[str, JsonValue]:
    """What the receipt is about, for JSON."""
    if report.receipt is None:
        return {}
    from orchestrator.encoding import to_ss58

    file, verified = report.receipt.attestation, report.verified
    return {
        "job_id": file.job.job_id,
        "contract": to_ss58(file.contract),
        "genesis_hash": to_json(file.genesis_hash),
        "worker": file.worker.worker,
        "result_hash": to_json(file.completion.result_hash),
        "recorded_at": file.recorded_at,
        "evidence": None if verified is None else evidence_document(verified),
    }


def _words(report: "ReceiptReport", whose_policy: str | None) -> str:
    """What a receipt with nothing failed and nothing missing shows."""
    from orchestrator.encoding import to_ss58

    assert report.receipt is not None  # noqa: S101 - a step would have failed
    assert report.verified is not None  # noqa: S101 - the same
    file = report.receipt.attestation
    whose = "your" if whose_policy == "reader" else "the registrar's"
    said = (
        f"job {file.job.job_id}: worker {file.worker.worker} signed this result, which contract"
        f" {to_ss58(file.contract)} recorded at {shown_time(file.recorded_at)}; its keys are bound"
        f" to what {whose} policy allows, as of {shown_time(report.verified.verified_at)}; that the"
        " block is final is your word"
    )
    return f"{SIMULATED}; {said}" if report.verified.is_simulated else said
