"""What a registrar's rounds are told, and what they tell, as values."""

from dataclasses import dataclass
from enum import Enum

from orchestrator.chain.answers import shown
from orchestrator.metrics import RegistrarEvent
from orchestrator.models import Worker, WorkerId

__all__ = ["Outcome", "RenewalSettings", "Round", "WorkerReport", "report_on"]


class Outcome(Enum):
    """What a round did about a worker."""

    NOT_DUE = "not due"
    RENEWED = "renewed"
    REPLACED = "replaced by newer keys"
    WAITS = "failed before, and is tried again later"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class WorkerReport:
    """
    What a round did about one worker; `code` and `detail` say why it failed.

    `is_simulated` says that the evidence it is registered on proves no TEE; `None`: not known here.
    """

    worker: WorkerId
    endpoint: str
    valid_until: int
    outcome: Outcome
    code: str = ""
    detail: str = ""
    is_simulated: bool | None = None


@dataclass(frozen=True, kw_only=True)
class Round:
    """One look at all workers; `at` is its time (ms), `alarms` what else was told."""

    at: int
    workers: tuple[WorkerReport, ...]
    alarms: tuple[RegistrarEvent, ...] = ()

    @property
    def failed(self) -> tuple[WorkerReport, ...]:
        """The workers whose renewal has failed, now or before."""
        return tuple(one for one in self.workers if one.outcome in (Outcome.FAILED, Outcome.WAITS))


@dataclass(frozen=True, kw_only=True)
class RenewalSettings:
    """
    How it is done; times in ms.

    `workers` are looked at, all active ones when `None`. A failed renewal is tried again after
    `retry`, then after twice that, and so on up to `interval`. A worker's answers may take
    `answers` altogether, and `at_once` workers are talked to at the same time.
    """

    workers: frozenset[WorkerId] | None = None
    renew_before: int = 72 * 3_600_000
    interval: int = 3_600_000
    retry: int = 60_000
    answers: int = 60_000
    at_once: int = 16


def report_on(
    worker: Worker,
    outcome: Outcome,
    code: str = "",
    detail: str = "",
    *,
    is_simulated: bool | None = None,
) -> WorkerReport:
    """Return a report; words that a worker may have chosen are cut and made printable."""
    return WorkerReport(
        worker=worker.worker,
        endpoint=shown(worker.endpoint.decode("utf-8", "replace")),
        valid_until=worker.valid_until,
        outcome=outcome,
        code=code,
        detail=shown(detail),
        is_simulated=is_simulated,
    )
