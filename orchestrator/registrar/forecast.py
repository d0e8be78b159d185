"""A forecast of trust, as values: what is known of a worker, and what will fail for it."""

from dataclasses import dataclass
from enum import Enum
from typing import Final

from orchestrator.encoding import blake2_256
from orchestrator.evidence import Collateral
from orchestrator.models import Worker, WorkerStatus

__all__ = [
    "NO_EVIDENCE",
    "Failure",
    "KnownWorker",
    "TrustForecast",
    "TrustLevel",
    "WorkerForecast",
]

NO_EVIDENCE: Final = blake2_256(b"")
"""The evidence hash of a worker that was registered on its own word."""


class TrustLevel(Enum):
    """
    How a worker's trust stands, from good to bad; `UNKNOWN` is what could not be told.

    `SUSPENDED` is one that nobody trusts now, and that is fine but for that.
    """

    FINE = "fine"
    SUSPENDED = "suspended"
    WARNING = "warning"
    UNKNOWN = "unknown"
    FAILS = "fails"


@dataclass(frozen=True, kw_only=True)
class KnownWorker:
    """
    A worker of the contract and what could be found out about it.

    `bundle` are the bytes whose hash is on the chain, `newest` is the newest collateral for its
    platform, `early` what is published and not yet in effect. What is `None` is not to be had;
    `trouble` says why.
    """

    worker: Worker
    bundle: bytes | None
    newest: Collateral | None
    early: Collateral | None = None
    is_measurement_revoked: bool = False
    trouble: str = ""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """
    Something that fails, or will.

    `code` is a check's (`E05`), or `RegistrationEnds`, `CollateralEnds`, `TcbRecoveryAhead`,
    `NoEvidence`, `MeasurementNotInPolicy`. `at` (ms) is when it begins, `None` when that day is not
    known.
    """

    code: str
    at: int | None
    detail: str
    hint: str = ""

    def is_due(self, *, by: int) -> bool:
        """Whether it has begun at *by* (ms)."""
        return self.at is not None and self.at <= by


@dataclass(frozen=True, kw_only=True)
class WorkerForecast:
    """
    What is to come for one worker; times in ms.

    `failures` are in the order of their times, those without one last. `evaluation_number` is that
    of the collateral that it was registered on, `newest_evaluation_number` the newest known for its
    platform. `tcb_status` is by the newest collateral, `None` where another check than those of
    the TCB refuses. `is_simulated` says that this collateral, or where there is none that of its
    own evidence, ends in no root of Intel's: it proves no TEE. `None` is not known.
    `unknown` says why something could not be told, `has_evidence` whether there was any to look at.
    """

    worker: Worker
    level: TrustLevel
    failures: tuple[Failure, ...] = ()
    collateral_ends_at: int | None = None
    tcb_status: str | None = None
    evaluation_number: int | None = None
    newest_evaluation_number: int | None = None
    is_simulated: bool | None = None
    has_evidence: bool = True
    unknown: str = ""

    @property
    def is_watched(self) -> bool:
        """Whether it can be trusted again at all: a revoked worker never is."""
        return self.worker.status is not WorkerStatus.REVOKED

    @property
    def next_failure(self) -> Failure | None:
        """What fails first."""
        return next(iter(self.failures), None)


@dataclass(frozen=True, kw_only=True)
class TrustForecast:
    """All workers at one time; what fails up to *until* (ms) counts as failing."""

    at: int
    until: int
    workers: tuple[WorkerForecast, ...]

    @property
    def level(self) -> TrustLevel:
        """The worst of all."""
        order = list(TrustLevel)
        return max((one.level for one in self.watched), key=order.index, default=TrustLevel.FINE)

    @property
    def is_simulated(self) -> bool | None:
        """Whether any is simulated; `None` when that could not be told of one and of no other."""
        known = {one.is_simulated for one in self.watched}
        return True if True in known else None if None in known else False

    @property
    def watched(self) -> tuple[WorkerForecast, ...]:
        """All but the revoked ones."""
        return tuple(one for one in self.workers if one.is_watched)

    @property
    def collateral_ends_at(self) -> int | None:
        """When the first of the newest collateral ends."""
        ends = (one.collateral_ends_at for one in self.watched)
        return min((end for end in ends if end is not None), default=None)

    @property
    def evaluation_number(self) -> int | None:
        """The lowest TCB evaluation number in use."""
        numbers = (one.evaluation_number for one in self.watched)
        return min((number for number in numbers if number is not None), default=None)

    @property
    def newest_evaluation_number(self) -> int | None:
        """The newest known."""
        numbers = (one.newest_evaluation_number for one in self.watched)
        return max((number for number in numbers if number is not None), default=None)
