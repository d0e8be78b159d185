"""
Attestation files: one recorded statement, with all that is needed to check it offline.

A file alone proves that a key signed that a job ended with a result. It does **not** prove that
the key is a registered worker's, unless the reader names the keys that are accepted, and says
nothing about today: only the chain knows whether the worker is still trusted, and whether the
job's facts in the file are those that the contract stores.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from enum import Enum

from orchestrator.attestation.statement import verify_completion_signature
from orchestrator.encoding import blake2_256
from orchestrator.errors import InvalidSignatureError
from orchestrator.models import (
    Completion,
    Job,
    JobHead,
    JobStatus,
    Outcome,
    PublicKey,
    Worker,
    WorkerId,
)

# The widest that any contract's `max_clock_skew` and `max_attestation_age` may be (protocol 2.4).
_MAX_CLOCK_SKEW = 600_000
_MAX_ATTESTATION_AGE = 86_400_000
_EMPTY_HASH = bytes(32)
# What a job can be once a result was recorded for it.
_STATUSES_WITH_RESULT = (JobStatus.ATTESTED, JobStatus.PROCESSED, JobStatus.CANCELLED)


@dataclass(frozen=True, kw_only=True)
class WorkerFacts:
    """What the contract had registered about the worker when the statement was recorded."""

    worker: WorkerId
    signing_key: PublicKey
    encryption_key: bytes
    measurement: bytes
    evidence_hash: bytes
    valid_until: int


@dataclass(frozen=True, kw_only=True)
class AttestationFile:
    """A recorded statement and its surroundings; `recorded_at` is the block time (ms)."""

    genesis_hash: bytes
    contract: bytes
    job: JobHead
    worker: WorkerFacts
    completion: Completion
    recorded_at: int


class CheckOutcome(Enum):
    """How a check ended."""

    PASSED = "passed"
    FAILED = "failed"
    NOT_CHECKED = "not checked"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One named check of an attestation file; `detail` is a sentence for people."""

    name: str
    outcome: CheckOutcome
    detail: str


def attestation_file_of(
    *,
    genesis_hash: bytes,
    contract: bytes,
    job: Job | JobHead,
    worker: Worker,
    completion: Completion,
    recorded_at: int,
) -> AttestationFile:
    """Return the file about a statement that is recorded on the chain; checks nothing."""
    return AttestationFile(
        genesis_hash=genesis_hash,
        contract=contract,
        job=JobHead(
            job_id=job.job_id,
            owner=job.owner,
            status=job.status,
            created_at=job.created_at,
            deadline=job.deadline,
            payload_hash=job.payload_hash,
            workers=job.workers,
            processed_at=job.processed_at,
        ),
        worker=WorkerFacts(
            worker=worker.worker,
            signing_key=worker.signing_key,
            encryption_key=worker.encryption_key,
            measurement=worker.measurement,
            evidence_hash=worker.evidence_hash,
            valid_until=worker.valid_until,
        ),
        completion=completion,
        recorded_at=recorded_at,
    )


def verify_attestation_file(
    file: AttestationFile,
    *,
    accepted_keys: Collection[PublicKey] | None = None,
    result: bytes | None = None,
    show_time: Callable[[int], str] = str,
) -> list[Check]:
    """
    Make every check that needs no chain, and return them all, the failed ones included.

    1. `job`: the statement is about the file's job, whose status fits the outcome, and which has
       a time of processing if it is processed and only then.
    2. `worker`: the statement's key is the file's worker's, it is one of the job's, and no worker
       is there twice.
    3. `result hash`: there is one.
    4. `times`: in order, and inside what any contract's limits would have let pass.
    5. `recorded in time`: before the job's deadline and the end of the worker's registration.
    6. `signature`: the worker's key signed the statement rebuilt from the file.
    7. `accepted key`: the key is one of *accepted_keys*; not checked when none are given.
    8. `result`: the bytes of *result* hash to the result hash; not checked when none are given.
    9. `facts on the chain`: never checked. Of the job and the worker, the statement covers id,
       payload hash, signing key and measurement alone; the rest is the word of who made the file.
    10. `trusted today`: never checked, only the chain knows.

    Details have times (ms) as *show_time* writes them.

    Does **not** raise for a failed check: the caller looks for `CheckOutcome.FAILED`.
    """
    return [
        _check_job(file, show_time),
        _check_worker(file),
        _check("result hash", file.completion.result_hash != _EMPTY_HASH, "is not empty"),
        _check_times(file, show_time),
        _check_recorded(file, show_time),
        _check_signature(file),
        _check_accepted_key(file, accepted_keys),
        _check_result(file, result),
        _not_checked(
            "facts on the chain",
            "only the chain knows whether owner, workers, status and times are as they are here",
        ),
        _not_checked("trusted today", "only the chain knows whether the worker is trusted now"),
    ]


def is_accepted(checks: Collection[Check]) -> bool:
    """Whether no check failed; those that could not be made do not count."""
    return all(check.outcome is not CheckOutcome.FAILED for check in checks)


def _check_job(file: AttestationFile, show_time: Callable[[int], str]) -> Check:
    outcome, status = file.completion.attestation_proof.outcome, file.job.status
    processed_at = file.job.processed_at
    return _check(
        "job",
        (outcome is Outcome.FAILED or status in _STATUSES_WITH_RESULT)
        and (status is JobStatus.PROCESSED) is (processed_at is not None)
        and file.completion.job_id == file.job.job_id,
        f"job {file.job.job_id} is {status.value}"
        + ("" if processed_at is None else f", processed {show_time(processed_at)}")
        + f", the statement says {outcome.name.lower()} about job {file.completion.job_id}",
    )


def _check_worker(file: AttestationFile) -> Check:
    is_same = file.completion.tee_worker_pubkey == file.worker.signing_key
    return _check(
        "worker",
        is_same
        and file.worker.worker in file.job.workers
        and len(set(file.job.workers)) == len(file.job.workers),
        f"signed by {'' if is_same else 'another key than that of '}worker {file.worker.worker}, "
        f"the job is for {', '.join(map(str, file.job.workers))}",
    )


def _check_times(file: AttestationFile, show_time: Callable[[int], str]) -> Check:
    proof, processed_at = file.completion.attestation_proof, file.job.processed_at
    return _check(
        "times",
        proof.started_at <= proof.finished_at <= proof.issued_at
        and proof.started_at >= file.job.created_at - _MAX_CLOCK_SKEW
        and -_MAX_CLOCK_SKEW <= file.recorded_at - proof.issued_at <= _MAX_ATTESTATION_AGE
        and (processed_at is None or processed_at >= file.recorded_at),
        f"made {show_time(file.job.created_at)}, started {show_time(proof.started_at)}, "
        f"finished {show_time(proof.finished_at)}, issued {show_time(proof.issued_at)}, "
        f"recorded {show_time(file.recorded_at)}"
        + ("" if processed_at is None else f", processed {show_time(processed_at)}"),
    )


def _check_recorded(file: AttestationFile, show_time: Callable[[int], str]) -> Check:
    first, last = file.job.created_at, min(file.job.deadline, file.worker.valid_until)
    return _check(
        "recorded in time",
        first <= file.recorded_at <= last,
        f"recorded {show_time(file.recorded_at)}, "
        f"allowed from {show_time(first)} to {show_time(last)}",
    )


def _check_signature(file: AttestationFile) -> Check:
    key = file.completion.tee_worker_pubkey
    try:
        verify_completion_signature(
            file.completion,
            genesis_hash=file.genesis_hash,
            contract=file.contract,
            payload_hash=file.job.payload_hash,
            measurement=file.worker.measurement,
        )
    except InvalidSignatureError as error:
        return _check("signature", passed=False, detail=str(error))
    detail = f"{key.scheme.name.lower()} key {key.key.hex()} signed the statement"
    return _check("signature", passed=True, detail=detail)


def _check_accepted_key(
    file: AttestationFile, accepted_keys: Collection[PublicKey] | None
) -> Check:
    name = "accepted key"
    if accepted_keys is None:
        return _not_checked(name, "no keys were named: anybody can make a key and sign with it")
    is_named = file.completion.tee_worker_pubkey in accepted_keys
    return _check(name, is_named, f"{'one' if is_named else 'none'} of the keys that were named")


def _check_result(file: AttestationFile, result: bytes | None) -> Check:
    name = "result"
    if result is None:
        return _not_checked(name, "no result was given")
    digest = blake2_256(result)
    return _check(name, digest == file.completion.result_hash, f"hashes to {digest.hex()}")


def _check(name: str, passed: bool, detail: str) -> Check:  # noqa: FBT001 - private, reads as a row
    return Check(
        name=name, outcome=CheckOutcome.PASSED if passed else CheckOutcome.FAILED, detail=detail
    )


def _not_checked(name: str, detail: str) -> Check:
    return Check(name=name, outcome=CheckOutcome.NOT_CHECKED, detail=detail)
