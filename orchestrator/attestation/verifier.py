"""
Decides whether a worker's statement would be recorded (protocol section 3.2).

The contract decides the same from its own storage. The two are held together by tests: the same
order, the same codes. Nothing here knows a chain, a clock or a network.
"""

from dataclasses import dataclass

from orchestrator.attestation.statement import verify_completion_signature
from orchestrator.errors import (
    InvalidSignatureError,
    JobStateError,
    StaleEvidenceError,
    StatementMismatchError,
    UntrustedWorkerError,
)
from orchestrator.models import (
    Completion,
    Job,
    JobStatus,
    Mode,
    Parameters,
    Statement,
    Worker,
    WorkerStatus,
)

_U64_MAX = (1 << 64) - 1
_EMPTY_HASH = bytes(32)
_ALREADY_ATTESTED = (JobStatus.ATTESTED, JobStatus.PROCESSED)


@dataclass(frozen=True, kw_only=True)
class JobView:
    """
    What the contract knows about one job, read at one finalized block.

    `job` is the job with the completion's id, `worker` the worker that is registered under its
    `tee_worker_pubkey`; `None` when there is none. `measurement_allowed` is about that worker's.
    """

    genesis_hash: bytes
    contract: bytes
    mode: Mode
    parameters: Parameters
    job: Job | None
    worker: Worker | None
    measurement_allowed: bool


def verify_statement(completion: Completion, *, view: JobView, now: int) -> Statement:
    """
    Return the statement in *completion* if the contract would record it at *now* (ms).

    1. The contract takes attestations: `WrongMode`.
    2. The job exists: `JobNotFound`.
    3. It waits for one: `AlreadyAttested`, `WrongStatus`, `DeadlinePassed`.
    4. The key is a registered worker's, the signature is of its scheme: `WorkerNotFound`,
       `KeyMismatch`.
    5. The worker is one of the job's: `WorkerNotEligible`.
    6. It is trusted at *now*: `WorkerNotTrusted`.
    7. It has not failed this job before: `AlreadyFailed`.
    8. There is a result: `EmptyResultHash`.
    9. The times are in order: `StatementTimesInverted`.
    10. It did not start before the job: `StatementBeforeJob`.
    11. The statement is not from the future: `StatementFromFuture`.
    12. Nor too old: `StatementTooOld`.
    13. The signature covers the statement rebuilt from *view*: `BadSignature`.

    Does **not** check that the result exists or hashes to its hash, nor that the worker is on
    anybody's own list (protocol section 5, steps 3 to 5).

    Raises:
        VerificationError: A check failed. `code` says which, the subclass what follows.
    """
    job = _open_job(completion, view=view, now=now)  # 1. to 3.
    worker = _eligible_worker(completion, job=job, view=view, now=now)  # 4. to 7.
    _check_times(completion, job=job, parameters=view.parameters, now=now)  # 8. to 12.
    return verify_completion_signature(  # 13.
        completion,
        genesis_hash=view.genesis_hash,
        contract=view.contract,
        payload_hash=job.payload_hash,
        measurement=worker.measurement,
    )


def verify_recorded_statement(
    completion: Completion,
    *,
    genesis_hash: bytes,
    contract: bytes,
    payload_hash: bytes,
    worker: Worker,
) -> Statement:
    """
    Return the statement in an attestation or failure that is on the chain already.

    1. The key is *worker*'s: `WorkerNotFound`.
    2. The signature is of its scheme, and covers the statement rebuilt from the arguments:
       `KeyMismatch`, `BadSignature`.

    Does **not** check trust or age: the contract did when it recorded it, and tells about today.

    Raises:
        VerificationError: A check failed.
    """
    # 1.
    if completion.tee_worker_pubkey != worker.signing_key:
        raise UntrustedWorkerError("WorkerNotFound", f"not the key of worker {worker.worker}")
    # 2.
    return verify_completion_signature(
        completion,
        genesis_hash=genesis_hash,
        contract=contract,
        payload_hash=payload_hash,
        measurement=worker.measurement,
    )


def _open_job(completion: Completion, *, view: JobView, now: int) -> Job:
    # 1.
    if view.mode not in (Mode.RUNNING, Mode.DRAINING):
        raise JobStateError("WrongMode", f"the contract is {view.mode.value}")
    # 2.
    job = view.job
    if job is None or job.job_id != completion.job_id:
        raise JobStateError("JobNotFound", f"job {completion.job_id}")
    # 3.
    if job.status in _ALREADY_ATTESTED:
        raise JobStateError("AlreadyAttested", f"job {job.job_id}")
    if job.status is not JobStatus.SUBMITTED:
        raise JobStateError("WrongStatus", f"job {job.job_id} is {job.status.value}")
    if now > job.deadline:
        raise JobStateError("DeadlinePassed", f"deadline {job.deadline}, now {now}")
    return job


def _eligible_worker(completion: Completion, *, job: Job, view: JobView, now: int) -> Worker:
    # 4.
    key = completion.tee_worker_pubkey
    worker = view.worker
    if worker is None or worker.signing_key != key:
        raise UntrustedWorkerError("WorkerNotFound", f"no worker has the key {key.key.hex()}")
    if completion.attestation_proof.signature.scheme is not key.scheme:
        raise InvalidSignatureError("KeyMismatch", "the signature is of another scheme")
    # 5.
    if worker.worker not in job.workers:
        raise UntrustedWorkerError("WorkerNotEligible", f"worker {worker.worker}")
    # 6.
    if (
        worker.status is not WorkerStatus.ACTIVE
        or now > worker.valid_until
        or not view.measurement_allowed
    ):
        raise UntrustedWorkerError(
            "WorkerNotTrusted",
            f"worker {worker.worker} is {worker.status.value}, valid until {worker.valid_until}, "
            f"measurement {'allowed' if view.measurement_allowed else 'not allowed'}, now {now}",
        )
    # 7.
    if any(failure.worker == worker.worker for failure in job.failures):
        raise UntrustedWorkerError("AlreadyFailed", f"worker {worker.worker}")
    return worker


def _check_times(completion: Completion, *, job: Job, parameters: Parameters, now: int) -> None:
    proof = completion.attestation_proof
    skew = parameters.max_clock_skew
    # 8.
    if completion.result_hash == _EMPTY_HASH:
        raise StatementMismatchError("EmptyResultHash")
    # 9.
    if not proof.started_at <= proof.finished_at <= proof.issued_at:
        raise StatementMismatchError(
            "StatementTimesInverted",
            f"started {proof.started_at}, finished {proof.finished_at}, issued {proof.issued_at}",
        )
    # 10.
    if proof.started_at < _saturating_sub(job.created_at, skew):
        raise StatementMismatchError(
            "StatementBeforeJob",
            f"started {proof.started_at}, job made {job.created_at}, skew {skew}",
        )
    # 11.
    if proof.issued_at > _saturating_add(now, skew):
        raise StaleEvidenceError(
            "StatementFromFuture", f"issued {proof.issued_at}, now {now}, skew {skew}"
        )
    # 12.
    if _saturating_sub(now, proof.issued_at) > parameters.max_attestation_age:
        raise StaleEvidenceError(
            "StatementTooOld",
            f"issued {proof.issued_at}, now {now}, at most {parameters.max_attestation_age} ms",
        )


def _saturating_add(left: int, right: int) -> int:
    return min(left + right, _U64_MAX)


def _saturating_sub(left: int, right: int) -> int:
    return max(left - right, 0)
