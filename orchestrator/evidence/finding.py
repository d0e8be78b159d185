"""How a check of the verifier ends: a sentence, and what to do where it failed."""

from collections.abc import Callable

from orchestrator.attestation import CheckOutcome
from orchestrator.evidence.verdict import EvidenceCheck, EvidenceFinding

__all__ = ["CheckFailedError", "failed", "not_checked", "passed", "run"]


class CheckFailedError(Exception):
    """A check failed: what was found, and what to do. Never leaves the verifier."""

    def __init__(self, detail: str, hint: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.hint = hint


def passed(check: EvidenceCheck, detail: str) -> EvidenceFinding:
    """Return a finding of a check that passed."""
    return EvidenceFinding(check=check, outcome=CheckOutcome.PASSED, detail=detail)


def failed(check: EvidenceCheck, detail: str, hint: str = "") -> EvidenceFinding:
    """Return a finding of a check that failed."""
    return EvidenceFinding(check=check, outcome=CheckOutcome.FAILED, detail=detail, hint=hint)


def not_checked(check: EvidenceCheck, detail: str) -> EvidenceFinding:
    """Return a finding of a check that could not be made; it refuses nothing."""
    return EvidenceFinding(check=check, outcome=CheckOutcome.NOT_CHECKED, detail=detail)


def run(check: EvidenceCheck, ask: Callable[[], str]) -> EvidenceFinding:
    """Return the finding of *ask*, whose answer is the sentence of a check that passed."""
    try:
        return passed(check, ask())
    except CheckFailedError as error:
        return failed(check, error.detail, error.hint)
    except Exception as error:  # noqa: BLE001 - whatever goes wrong in a check refuses
        return failed(check, f"the check itself failed: {type(error).__name__}")
