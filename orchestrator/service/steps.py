"""
Every step and effect of the service, in one enumeration.

The service may be killed before or after each of them, and ends with every job processed exactly
once all the same; a test is generated from this list. A fail point is a function given to the
constructor: there is no setting, option or variable that could put one into a running service.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from enum import Enum
from typing import Protocol

__all__ = ["FailPoint", "Moment", "Step", "Steps", "no_fail_point"]


class Step(Enum):
    """A step or an effect, in the order in which a job meets them."""

    WRITE_PAGE = "write the jobs of a page of events, and the cursor, to the journal"
    WRITE_READMITTED = "write to the journal that a deferred job is admitted"
    WRITE_DISPATCH = "write to the journal which worker gets the job"
    PUT_JOB = "hand the job to the worker"
    AWAIT_OUTCOME = "wait for the worker's signed outcome"
    WRITE_STATEMENT = "write the statement to the journal"
    FETCH_RESULT = "fetch the sealed result from the worker"
    STORE_RESULT = "store the sealed result"
    COMPLETE_JOBS = "record and mark on the chain, several at once"
    RECORD_ATTESTATION = "record one statement on the chain"
    MARK_PROCESSED = "mark one job processed on the chain"
    READ_BACK = "read back from the chain what became of the jobs"
    WRITE_ATTESTED = "write to the journal that the job waits for somebody else to mark it"
    EXPIRE_JOB = "expire a job on the chain"
    DELETE_AT_WORKER = "have a worker drop the job"
    WRITE_CLOSED = "write to the journal that nothing more is done about the job"
    WRITE_REFUSAL = "write a refusal to the journal"
    WRITE_DISTRUST = "write to the journal that a worker is no longer believed"
    SUSPEND_WORKER = "suspend a worker on the chain"
    WRITE_SUSPENDED = "write to the journal that the worker is suspended"
    DELETE_RESULTS = "delete stored results that need not be kept any longer"
    PRUNE_JOURNAL = "forget what the journal need not keep any longer"


class Moment(Enum):
    """When a fail point is reached."""

    BEFORE = "before"
    AFTER = "after"


class FailPoint(Protocol):
    """Called before each step, and after it when it did not raise."""

    def __call__(self, step: Step, moment: Moment) -> None: ...


def no_fail_point(step: Step, moment: Moment) -> None:
    """Do nothing."""


class Steps:
    """Tells the fail point where the service is."""

    def __init__(self, fail_point: FailPoint) -> None:
        self._fail_point = fail_point

    @contextmanager
    def at(self, step: Step) -> Iterator[None]:
        """Surround one step."""
        self._fail_point(step, Moment.BEFORE)
        yield
        self._fail_point(step, Moment.AFTER)
