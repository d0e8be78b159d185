"""The steps of examining a receipt: what each came to, in a sentence."""

from dataclasses import dataclass

from orchestrator.attestation import CheckOutcome

__all__ = ["Step", "StepName"]


class StepName:
    """The steps' names, in their order; those of an attestation file's checks are its own."""

    FORM = "canonical form"
    ENVELOPE = "envelope signature"
    EXPECTED = "expected contract"
    TIME = "time of judging"
    RESULT = "result"
    BLOCK = "block"
    STORAGE = "storage proof"
    CONTRACT = "contract"
    JOB_ROW = "job's row"
    WORKER_ROW = "worker's row"
    ALLOWED = "measurement allowed"
    EVIDENCE = "evidence"
    POLICY = "policy"
    MEASUREMENT = "measurement"
    OWN_POLICY = "receipt's policy"
    EVENTS = "events"
    FINALITY = "finality"


@dataclass(frozen=True, kw_only=True)
class Step:
    """
    One step; `detail` is a sentence for people.

    A step that does not decide (`is_decisive`) tells something, and a receipt is none the worse
    when it was not taken.
    """

    name: str
    outcome: CheckOutcome
    detail: str
    is_decisive: bool = True

    @property
    def is_failed(self) -> bool:
        """Whether the receipt is refused for it."""
        return self.is_decisive and self.outcome is CheckOutcome.FAILED

    @property
    def is_missing(self) -> bool:
        """Whether something that matters was not checked."""
        return self.is_decisive and self.outcome is CheckOutcome.NOT_CHECKED
