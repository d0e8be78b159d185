"""
What is done when it is a job's turn: from the chain first, from the journal second.

The checks before anything is recorded or marked are those of protocol section 5, in its order:

1. The job is finalized and admitted: only such jobs have turns.
2. `verify_statement`, or for a job that is attested already, the signature over what is recorded.
3. The worker is on our own list.
4. The sealed result hashes to its hash and is in our store.
5. The worker has not signed anything else about this job.

A refusal of a statement never ends a job. It is written down with its code, and the job goes to
the worker again (a statement that is only too old), to its next worker, or waits.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import cast

from orchestrator.attestation.verifier import verify_recorded_statement, verify_statement
from orchestrator.errors import (
    BlobUnavailableError,
    ChainError,
    ContractError,
    InputError,
    RefusedError,
    VerificationError,
    WorkerError,
    WorkerProtocolError,
    WorkerRefusedError,
    WorkerUnavailableError,
)
from orchestrator.journal import JobState, SeenStatement
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.models import (
    Attestation,
    AttestationStatus,
    Completion,
    Job,
    JobStatus,
    Outcome,
    Worker,
    WorkerId,
)
from orchestrator.service.backlog import OpenJob, Turn
from orchestrator.service.closing import Closing
from orchestrator.service.execution import Answer, Execution
from orchestrator.service.parts import Parts
from orchestrator.service.settlement import TRAPPED, Settled, Settlement
from orchestrator.service.steps import Step
from orchestrator.service.trust import CONFLICT, TrustedWorkers, seen_statement

__all__ = ["Next", "Result", "Turns"]


class Next(Enum):
    """What follows a job's turn."""

    CLOSED = "nothing more is done about the job"
    TURN = "the job waits for its next turn"
    NEXT_WORKER = "the job's next worker is asked, this one not before the next round"
    REVIEW = "the chain is read again, soon"
    WAIT = "the job waits, longer each time"


@dataclass(frozen=True, kw_only=True)
class Result:
    """
    What follows, and what it says about the worker.

    `pause_worker` leaves the worker alone for a while, `pause_seconds` for as long as it asked.
    """

    next: Next
    pause_worker: bool = False
    pause_seconds: float | None = None


_STALE = frozenset({"StatementTooOld", "StatementFromFuture"})
_READ_AGAIN = frozenset({"JobNotFound", "AlreadyAttested", "WrongStatus", "DeadlinePassed"})
_ABOUT_THE_TOKEN = frozenset({401, 403})
_NOT_THE_JOB = frozenset({"WrongMode", "MissingRole"})
_MARKABLE = frozenset({AttestationStatus.VALID, AttestationStatus.WORKER_EXPIRED})
# For ever: revoking is final. The contract lets the owner cancel such a job at once.
_UNMARKABLE = frozenset({AttestationStatus.WORKER_REVOKED, AttestationStatus.MEASUREMENT_REVOKED})


class Turns:
    """Takes turns; `Result` says what follows, exceptions are for what must stop the service."""

    def __init__(
        self,
        parts: Parts,
        *,
        trust: TrustedWorkers,
        execution: Execution,
        settlement: Settlement,
        closing: Closing,
        leave: Callable[[OpenJob], None],
    ) -> None:
        self._parts = parts
        self._trust = trust
        self._execution = execution
        self._settlement = settlement
        self._closing = closing
        self._leave = leave

    async def take(self, turn: Turn) -> Result:
        """
        Do what can be done for the job now.

        Raises:
            JournalError: Nothing can be written down any more.
        """
        try:
            if turn.worker is None:
                return await self._review(turn.job)
            if turn.job.attested_by is not None:
                return await self._collect(turn.job, turn.worker)
            return await self._execute(turn.job, turn.worker)
        except RefusedError as error:
            return self._after_refusal(turn, error.code, str(error))
        except ChainError as error:
            self._tell(EventKind.CHAIN_ERROR, turn, error)
            return Result(next=Next.WAIT)
        except BlobUnavailableError as error:
            self._tell(EventKind.BLOB_ERROR, turn, error)
            return Result(next=Next.WAIT)
        except WorkerError as error:
            return self._after_worker_error(turn, error)
        except InputError as error:
            self._refuse(turn, "NoClient", str(error))
            return Result(next=_another(turn))

    # The chain.

    async def _review(self, open_job: OpenJob) -> Result:
        """Find out from the chain where the job stands."""
        job = await self._parts.ledger.job(open_job.job_id)
        open_job.needs_review = open_job.is_in_time = False
        open_job.job = job
        if job is None or job.status.is_final:
            return await self._close(open_job, None if job is None else job.status)
        open_job.failed = {failure.worker for failure in job.failures}
        if job.status is JobStatus.ATTESTED:
            recorded = await self._parts.ledger.recorded(job.job_id)
            open_job.attested_by = recorded.attestation.worker if recorded else None
            return Result(next=Next.TURN if recorded else Next.WAIT)
        if self._parts.ledger.now() > job.deadline:
            return await self._expire(open_job)
        return Result(next=Next.TURN)

    async def _expire(self, open_job: OpenJob) -> Result:
        if not self._parts.settings.expire_jobs:
            return Result(next=Next.WAIT)
        try:
            await self._closing.expire(open_job.job_id)
        except ContractError as error:
            # It may just have been attested, or our clock is ahead: the contract's time counts.
            self._tell(EventKind.CHAIN_ERROR, Turn(job=open_job, worker=None), error)
            open_job.is_in_time = error.variant == "DeadlineNotPassed"
            return Result(next=Next.TURN if open_job.is_in_time else Next.WAIT)
        return await self._close(open_job, JobStatus.EXPIRED)

    async def _close(
        self, open_job: OpenJob, status: JobStatus | None, *, done_by: WorkerId | None = None
    ) -> Result:
        is_closed = await self._closing.close(open_job, status, done_by=done_by)
        return Result(next=Next.CLOSED if is_closed else Next.WAIT)

    # A job that waits for an attestation.

    async def _execute(self, open_job: OpenJob, worker_id: WorkerId) -> Result:
        job = open_job.job or await self._parts.ledger.job(open_job.job_id)
        if job is None or job.status is not JobStatus.SUBMITTED:
            return Result(next=Next.REVIEW)
        if self._parts.ledger.now() > job.deadline and not open_job.is_in_time:
            open_job.needs_review = True
            return Result(next=Next.TURN)
        open_job.job = job
        worker = await self._worker(worker_id)
        objection = self._trust.objection(worker) or await self._trust.chain_objection(worker)
        if objection is not None:
            raise RefusedError(*objection)
        if open_job.needs_review:  # told so while we were reading
            return Result(next=Next.TURN)
        open_job.is_interruptible = True
        try:
            answer = await self._execution.execute(open_job, job, worker)
        finally:
            open_job.is_interruptible = False
        await self._check(answer, job, worker, is_in_time=open_job.is_in_time)
        self._leave(open_job)
        settled = await self._settlement.settle(answer.completion, job)
        return await self._after_settling(open_job, answer.completion, worker_id, settled)

    async def _check(self, answer: Answer, job: Job, asked: Worker, *, is_in_time: bool) -> None:
        """Checks 2 to 5 of the module's list."""
        parts, completion = self._parts, answer.completion
        now = parts.ledger.now()
        if is_in_time:
            # Our clock is known to be ahead, nobody knows by how much: the contract judges the age.
            now = min(now, completion.attestation_proof.issued_at)
        view = await parts.ledger.view(job, completion)
        # 2.
        try:
            verify_statement(completion, view=view, now=now)
        except VerificationError:
            await self._remember_if_signed(completion, job, view.worker)
            raise
        worker = cast("Worker", view.worker)  # or row 4 would have refused
        seen = seen_statement(completion, worker.worker, payload_hash=job.payload_hash)
        first = self._trust.remember(seen)
        await self._check_kept(completion, worker, (first, seen), asked, answer.result_length)

    async def _check_kept(
        self,
        completion: Completion,
        worker: Worker,
        statements: tuple[SeenStatement, SeenStatement],
        asked: Worker,
        length: int | None,
    ) -> None:
        # 3.
        objection = self._trust.objection(worker)
        if objection is not None:
            raise RefusedError(*objection)
        # 4.
        digest = completion.result_hash
        if length is not None or not self._parts.blobs.has(digest):
            data = await self._execution.fetch(asked, digest, length=length)
            await self._parts.store_blob(data)
        # 5.
        await self._check_conflict(*statements)

    async def _check_conflict(self, first: SeenStatement, second: SeenStatement) -> None:
        if first.conflicts_with(second):
            await self._trust.distrust(first, second)
            raise RefusedError(CONFLICT, f"worker {second.worker} signed something else before")

    async def _remember_if_signed(
        self, completion: Completion, job: Job, worker: Worker | None
    ) -> None:
        """A statement that is refused for another reason is evidence too, if it is signed."""
        if worker is None:
            return
        try:
            self._verify_recorded(completion, job, worker)
        except VerificationError:
            return
        seen = seen_statement(completion, worker.worker, payload_hash=job.payload_hash)
        await self._check_conflict(self._trust.remember(seen), seen)

    def _verify_recorded(self, completion: Completion, job: Job, worker: Worker) -> None:
        verify_recorded_statement(
            completion,
            genesis_hash=self._parts.ledger.genesis_hash,
            contract=self._parts.ledger.contract,
            payload_hash=job.payload_hash,
            worker=worker,
        )

    async def _after_settling(
        self, open_job: OpenJob, completion: Completion, worker: WorkerId, settled: Settled
    ) -> Result:
        status = settled.status
        if status is None or status.is_final:
            # Whose outcome is on the chain is not known when it was refused.
            return await self._close(open_job, status, done_by=None if settled.code else worker)
        open_job.job = None  # as it was read, it is history
        if settled.code:
            raise RefusedError(settled.code, "by the contract")
        if status is JobStatus.SUBMITTED and completion.attestation_proof.outcome is Outcome.FAILED:
            open_job.failed.add(worker)
            return Result(next=Next.TURN)
        # Recorded, and not ours to mark.
        open_job.record = self._parts.moved(open_job.record, JobState.ATTESTED)
        with self._parts.steps.at(Step.WRITE_ATTESTED):
            await self._parts.records.save(open_job.record)
        return Result(next=Next.WAIT)

    # A job that is attested.

    async def _collect(self, open_job: OpenJob, worker_id: WorkerId) -> Result:
        recorded = await self._parts.ledger.recorded(open_job.job_id)
        job = open_job.job or await self._parts.ledger.job(open_job.job_id)
        if recorded is None or job is None or job.status is not JobStatus.ATTESTED:
            open_job.attested_by = None
            return Result(next=Next.REVIEW)
        open_job.job = job
        worker = await self._worker(worker_id)
        completion = completion_of(recorded.attestation)
        self._verify_recorded(completion, job, worker)  # 2.
        seen = seen_statement(completion, worker_id, payload_hash=job.payload_hash)
        first = self._trust.remember(seen)
        await self._check_kept(completion, worker, (first, seen), worker, None)  # 3 to 5.
        if recorded.status not in _MARKABLE:
            why = recorded.status.value
            if recorded.status in _UNMARKABLE:
                why += ": it can't be marked any more, and its owner can cancel it"
            raise RefusedError("AttestationNotValid", why)
        self._leave(open_job)
        settled = await self._settlement.settle(completion, job)
        return await self._after_settling(open_job, completion, worker_id, settled)

    async def _worker(self, worker_id: WorkerId) -> Worker:
        worker = await self._parts.ledger.worker(worker_id)
        if worker is None:
            raise RefusedError("WorkerNotFound", f"there is no worker {worker_id}")
        return worker

    # What went wrong.

    def _after_refusal(self, turn: Turn, code: str, detail: str) -> Result:
        open_job = turn.job
        self._refuse(turn, code, detail)
        if code in _NOT_THE_JOB or code == TRAPPED:
            return Result(next=Next.WAIT)
        if code == "DeadlinePassed" and open_job.is_in_time:
            return Result(next=Next.WAIT)
        if code in _READ_AGAIN:
            open_job.job = None
            return Result(next=Next.REVIEW)
        if code in _STALE and open_job.attested_by is None:
            open_job.stale_answers += 1
            if open_job.stale_answers < self._parts.settings.stale_answers:
                return Result(next=Next.TURN)
            open_job.stale_answers = 0
        return Result(next=_another(turn))

    def _after_worker_error(self, turn: Turn, error: WorkerError) -> Result:
        if isinstance(error, WorkerRefusedError):
            detail = str(error)
            if error.status in _ABOUT_THE_TOKEN:
                detail += (
                    f"; add a line for worker {turn.worker} or its URL to the --tokens file, or"
                    " mend the one that is there: it is read again without a restart"
                )
            self._refuse(turn, "WorkerRefused", detail, EventKind.WORKER_REFUSED)
            return Result(next=_another(turn))
        self._tell(EventKind.WORKER_ERROR, turn, error)
        if isinstance(error, WorkerUnavailableError):
            busy_for = error.retry_after_seconds
            if busy_for is not None and turn.job.attested_by is None:
                return Result(next=Next.TURN, pause_worker=True, pause_seconds=busy_for)
            return Result(next=_another(turn), pause_worker=True, pause_seconds=busy_for)
        self._refuse(turn, "WorkerProtocol", str(error))
        return Result(next=_another(turn), pause_worker=isinstance(error, WorkerProtocolError))

    def _refuse(
        self,
        turn: Turn,
        code: str,
        detail: str,
        kind: EventKind = EventKind.ATTESTATION_REFUSED,
    ) -> None:
        self._parts.write_refusal(
            kind,
            job_id=turn.job.job_id,
            worker=turn.worker,
            code=code,
            detail=detail,
        )

    def _tell(self, kind: EventKind, turn: Turn, error: Exception) -> None:
        code = error.variant if isinstance(error, ContractError) else type(error).__name__
        self._parts.emit(
            ServiceEvent(
                kind=kind,
                job_id=turn.job.job_id,
                worker=turn.worker,
                code=code,
                detail=str(error),
            )
        )


def completion_of(attestation: Attestation) -> Completion:
    """What was recorded, as it was handed in."""
    return Completion(
        job_id=attestation.job_id,
        result_hash=attestation.result_hash,
        attestation_proof=attestation.attestation_proof,
        tee_worker_pubkey=attestation.tee_worker_pubkey,
    )


def _another(turn: Turn) -> Next:
    """An attested job has only the worker that attested it."""
    return Next.NEXT_WORKER if turn.job.attested_by is None else Next.WAIT
