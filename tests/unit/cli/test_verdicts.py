"""How a verdict is shown: the same table and document for all commands."""

import json

import pytest

from orchestrator.attestation import CheckOutcome
from orchestrator.cli.output import Output
from orchestrator.cli.verdicts import show_verdict, verdict_document, verdict_words
from orchestrator.evidence import EvidenceCheck, EvidenceFinding, Verdict


def _refused() -> Verdict:
    """A verdict in which the challenge was not checked and the TCB status failed."""
    outcomes = {
        EvidenceCheck.TCB_STATUS: CheckOutcome.FAILED,
        EvidenceCheck.CHALLENGE: CheckOutcome.NOT_CHECKED,
    }
    return Verdict(
        findings=tuple(
            EvidenceFinding(
                check=check,
                outcome=outcomes.get(check, CheckOutcome.PASSED),
                detail=f"about {check.title}",
                hint="update the platform" if check is EvidenceCheck.TCB_STATUS else "",
            )
            for check in EvidenceCheck
        ),
        evidence=None,
    )


def test_all_checks_are_shown_with_their_codes(capsys: pytest.CaptureFixture[str]) -> None:
    show_verdict(Output(as_json=False), _refused())

    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == [check.value for check in EvidenceCheck]
    assert "failed" in next(line for line in lines if line.startswith("E05"))
    assert "not checked" in next(line for line in lines if line.startswith("E13"))
    assert "E05: update the platform" in shown.err
    assert "evidence refused: E05 TCB status: about TCB status" in shown.err


def test_beside_a_result_the_table_is_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    show_verdict(Output(as_json=False), _refused(), stderr=True)

    shown = capsys.readouterr()
    assert shown.out == ""
    assert "E14" in shown.err


def test_json_is_left_to_the_one_document(capsys: pytest.CaptureFixture[str]) -> None:
    show_verdict(Output(as_json=True), _refused())

    assert capsys.readouterr() == ("", "")
    document = json.loads(json.dumps(verdict_document(_refused())))
    assert document["accepted"] is False
    assert document["refused_by"] == "E05"
    assert document["evidence"] is None
    assert [row["code"] for row in document["checks"]] == [check.value for check in EvidenceCheck]
    assert document["checks"][4] == {
        "code": "E05",
        "check": "TCB status",
        "outcome": "failed",
        "detail": "about TCB status",
        "hint": "update the platform",
    }


def test_a_verdict_in_one_line_names_the_check_that_refused() -> None:
    assert verdict_words(_refused()).startswith("evidence refused: E05 TCB status")
