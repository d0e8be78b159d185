"""How a verdict on TEE evidence is shown: one table and one document for all commands."""

from typing import TYPE_CHECKING

from orchestrator.cli.output import Document, JsonValue, Output, shown_time, to_json

if TYPE_CHECKING:
    from orchestrator.evidence import Verdict, VerifiedEvidence

SIMULATED = "simulated: proves no TEE"
NO_SOURCE = "judged by the collateral in the worker's evidence"
COLUMNS = ("code", "check", "outcome", "detail")


def verdict_document(verdict: "Verdict") -> dict[str, JsonValue]:
    """
    A verdict as JSON has it.

    `accepted`, `refused_by` (a code or null), `checks` (all fourteen, in order), and `evidence`:
    what was verified, null when a check failed. `simulated` is null when that was not found out.
    """
    refused = verdict.refused_by
    evidence = verdict.evidence
    return {
        "accepted": evidence is not None,
        "refused_by": None if refused is None else refused.check.value,
        "simulated": None if evidence is None else evidence.is_simulated,
        "evidence": None if evidence is None else evidence_document(evidence),
        "checks": _rows(verdict),
    }


def evidence_document(evidence: "VerifiedEvidence") -> dict[str, JsonValue]:
    """What was verified, as JSON has it: hashes, platform, TCB, times; none of the long bytes."""
    return {
        "tee": SIMULATED if evidence.is_simulated else evidence.tee,
        "root": evidence.root,
        "simulated": evidence.is_simulated,
        "measurement_set": evidence.measurement_set,
        "measurement": to_json(evidence.measurement),
        "tcb_status": evidence.tcb_status,
        "advisories": list(evidence.advisories),
        "evaluation_number": evidence.evaluation_number,
        "fmspc": to_json(evidence.fmspc),
        "ppid": to_json(evidence.ppid),
        "piid": to_json(evidence.piid),
        "signing_key": to_json(evidence.bundle.signing_key.key),
        "encryption_key": to_json(evidence.bundle.encryption_key),
        "evidence_hash": to_json(evidence.evidence_hash),
        "policy_hash": to_json(evidence.policy_hash),
        "verified_at": evidence.verified_at,
        "valid_until": evidence.valid_until,
        "collateral_valid_until": evidence.collateral_expires_at,
    }


def no_source_words(ends: int | None) -> str:
    """What it means that no source of collateral is set; *ends* (ms) is when the first ends."""
    until = "" if ends is None else f", valid until {shown_time(ends)}"
    return f"{NO_SOURCE}{until}; a TCB recovery since is not noticed: --collateral names a source"


def show_verdict(output: Output, verdict: "Verdict", *, stderr: bool = False) -> None:
    """
    Print the table of all checks, for people; nothing with `--json`, whose one document has it.

    With *stderr* it is beside a result that stdout is for.
    """
    if output.as_json:
        return
    output.console(stderr=stderr).print(output.table(_rows(verdict), COLUMNS))
    refused = verdict.refused_by
    if refused is not None and refused.hint:
        output.say(f"{refused.check.value}: {refused.hint}")
    output.say(verdict_words(verdict))


def verdict_words(verdict: "Verdict") -> str:
    """A verdict in one line; whoever reads of simulated evidence reads that it proves nothing."""
    refused = verdict.refused_by
    if refused is not None:
        return f"evidence refused: {refused.check.value} {refused.check.title}: {refused.detail}"
    evidence = verdict.evidence
    if evidence is None:
        return "evidence not verified"
    return f"evidence accepted: {evidence_words(evidence)}"


def evidence_words(evidence: "VerifiedEvidence") -> str:
    """What was verified, in one line."""
    advisories = f", {', '.join(evidence.advisories)}" if evidence.advisories else ""
    return (
        f"{SIMULATED if evidence.is_simulated else evidence.tee}, root {evidence.root},"
        f" measurement set {evidence.measurement_set}, TCB {evidence.tcb_status}{advisories},"
        f" until {shown_time(evidence.valid_until)}"
    )


def _rows(verdict: "Verdict") -> list[Document]:
    """The checks, one row each."""
    return [
        {
            "code": finding.check.value,
            "check": finding.check.title,
            "outcome": finding.outcome.value,
            "detail": finding.detail,
            "hint": finding.hint or None,
        }
        for finding in verdict.findings
    ]
