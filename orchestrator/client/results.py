"""
What an owner accepts as a job's result (protocol section 3.4), and what it says once opened.

Everything is checked before a byte is shown: `Results` collects what the chain recorded and
fetches the sealed bytes, `attestation.verify_result` judges, `crypto.open_result` opens.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from orchestrator.attestation import ExpectedResult, verify_result
from orchestrator.blobs import BlobStore
from orchestrator.client.blob_search import BlobSearch, WorkerBlobs
from orchestrator.client.chain_view import ChainView, JobHistory
from orchestrator.client.evidence import WorkerEvidence
from orchestrator.client.job_list import JobList
from orchestrator.crypto import MAX_ENVELOPE, OwnerSecret, open_result, read_job_header
from orchestrator.encoding import decode_failure, decode_output
from orchestrator.errors import (
    ConfigError,
    EncodingError,
    Error,
    JobStateError,
    OpenError,
    RefusedError,
    StatementMismatchError,
    UntrustedWorkerError,
)
from orchestrator.evidence import VerifiedEvidence
from orchestrator.models import (
    AttestationProof,
    Completion,
    InlinePayload,
    Job,
    JobId,
    JobStatus,
    Outcome,
    PublicKey,
    Statement,
    Worker,
    WorkerId,
    WorkerStatus,
)

__all__ = ["JobFailedError", "JobFailure", "Result", "Results"]

# An owner's clock may be wrong by an hour, as by a time zone; what it guards against are keys whose
# evidence ended before the job was submitted, and evidence is good for days.
_CLOCK_TOLERANCE_MS = 2 * 3_600_000
_NOT_OURS = (
    "the result is sealed to another owner secret than this identity's; the phrase restores only"
    " the account: phala-jobs keys restore BACKUP"
)


@dataclass(frozen=True, kw_only=True)
class Result:
    """
    A completed job's result, verified and opened.

    `completion` is the statement as recorded, with its signature; `statement` all that was
    signed; `envelope` the sealed bytes that hash to `completion.result_hash`; `evidence`, under a
    policy, what shows that the key that signed is one of a TEE that meets it.

    `is_submission_known` is false where the owner's list did not send the job (another machine, a
    rebuilt list): whom it was sealed to, and when it was submitted, is what the node says then, so
    one whose key was a good one at any time may have signed.

    `sealed_under` names the policy that the job was sealed under, where the list knows of one; with
    no `evidence` beside it the node's word stands in for that policy.
    """

    job_id: JobId
    output: bytes = field(repr=False)
    worker: Worker
    completion: Completion
    statement: Statement
    envelope: bytes = field(repr=False)
    evidence: VerifiedEvidence | None = field(default=None, repr=False)
    is_submission_known: bool
    sealed_under: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class JobFailure:
    """
    One worker's failure, signed by it.

    `code` and `message` are from the report, which only the owner can open; they are
    `None` when the report can't be had, and `trouble` says why.
    """

    worker: WorkerId
    completion: Completion
    code: str | None = field(repr=False)
    message: str | None = field(repr=False)
    trouble: str | None = None


class JobFailedError(RefusedError):
    """
    Every worker of the job failed it; `failures` are their opened reports.

    The message names the job alone: reports are confidential.
    """

    def __init__(self, job_id: JobId, failures: Sequence[JobFailure]) -> None:
        workers = ", ".join(str(failure.worker) for failure in failures)
        super().__init__("JobFailed", f"job {job_id} failed on workers {workers}")
        self.job_id = job_id
        self.failures = tuple(failures)


@dataclass(frozen=True, kw_only=True)
class _Record:
    """
    What the chain says about a job and its signed statements.

    Of a job that the own list sent, `workers` and `created_at` (ms) are what it wrote down before;
    `sealed_to` are the keys in the sealed bytes, and `None` where the list does not have these.
    """

    job_id: JobId
    status: JobStatus
    payload_hash: bytes
    workers: tuple[WorkerId, ...]
    created_at: int
    completed: tuple[WorkerId, Completion] | None
    failed: tuple[tuple[WorkerId, Completion], ...]
    job: Job | None = None
    sealed_to: tuple[bytes, ...] | None = None
    sealed_under: bytes | None = None


@dataclass(frozen=True, kw_only=True)
class _Opened:
    """What a worker sent, verified and opened."""

    worker: Worker
    evidence: VerifiedEvidence | None
    envelope: bytes
    statement: Statement
    plaintext: bytes = field(repr=False)


def _without_result(record: _Record) -> str:
    job, status = f"job {record.job_id}", record.status.value
    if record.status.is_final:
        return f"{job} is {status}: no result"
    return f"{job} is not done yet ({status}); ask again: phala-jobs status {record.job_id}"


class Results:
    """Fetches, verifies and opens what workers sent to one owner."""

    def __init__(  # noqa: PLR0913 - all by keyword, each of another kind
        self,
        view: ChainView,
        job_list: JobList,
        *,
        owner: bytes,
        secret: OwnerSecret,
        sources: Sequence[BlobStore],
        worker_blobs: WorkerBlobs | None,
        accepted_keys: Collection[PublicKey] | None,
        evidence: WorkerEvidence | None,
        trusted_node: bool,
        clock: Callable[[], int],
    ) -> None:
        self._view = view
        self._clock = clock
        self._list = job_list
        self._owner = owner
        self._secret = secret
        self._search = BlobSearch([*sources, None], worker_blobs)
        self._evidence = evidence
        self._trusted_node = trusted_node
        self._accepted_keys = None if accepted_keys is None else frozenset(accepted_keys)

    def result(self, job_id: JobId, *, accept_revoked: bool) -> Result:
        """
        Return the job's result; see `JobClient.result` for what is checked.

        Raises:
            ConfigError: It would be opened by nobody's word.
            JobFailedError: Every worker failed.
            JobStateError: There is no result, or not yet.
        """
        self._require_basis(job_id)
        record = self._record(job_id)
        if record.completed is None:
            if record.status is JobStatus.FAILED:
                raise JobFailedError(job_id, self._failures(record, accept_revoked=accept_revoked))
            raise JobStateError("WrongStatus", _without_result(record))
        opened = self._open(record, *record.completed, accept_revoked=accept_revoked)
        try:
            output = decode_output(opened.plaintext)
        except EncodingError as error:
            raise RefusedError("ResultUnreadable", "the content is not an output") from error
        return Result(
            job_id=job_id,
            output=output,
            worker=opened.worker,
            completion=record.completed[1],
            statement=opened.statement,
            envelope=opened.envelope,
            evidence=opened.evidence,
            is_submission_known=record.sealed_to is not None,
            sealed_under=record.sealed_under,
        )

    def failures(self, job_id: JobId, *, accept_revoked: bool) -> tuple[JobFailure, ...]:
        """The failures that were recorded of the job, also when another worker completed it."""
        self._require_basis(job_id)
        return self._failures(self._record(job_id), accept_revoked=accept_revoked)

    def _require_basis(self, job_id: JobId) -> None:
        """
        Refuse to open by nobody's word: a node that lies names a signing key of its own.

        Accepted keys say who signed, but not that it met the policy that the job was sealed under.

        Raises:
            ConfigError: There is no policy, and what there is instead is not enough for this job.
        """
        if self._evidence is not None or self._trusted_node:
            return
        listed = self._list.job(job_id)
        if listed is not None and listed.policy_hash is not None:
            raise ConfigError(
                f"policy: job {job_id} was sealed under policy 0x{listed.policy_hash.hex()}, and"
                " its result is opened under one: give --policy, or say that the node is trusted"
                " with results (--trusted-nodes)"
            )
        if self._accepted_keys is None:
            raise ConfigError(
                "trusted_node: without a policy workers' keys come from the node, so no result is"
                " opened unless --policy says what workers' evidence must be, the node is said to"
                " be trusted (--trusted-nodes), or workers' keys are named (--accepted-worker-keys)"
            )

    def _failures(self, record: _Record, *, accept_revoked: bool) -> tuple[JobFailure, ...]:
        return tuple(
            self._failure(record, worker, completion, accept_revoked=accept_revoked)
            for worker, completion in record.failed
        )

    def _failure(
        self, record: _Record, worker: WorkerId, completion: Completion, *, accept_revoked: bool
    ) -> JobFailure:
        code, message, trouble = None, None, None
        try:
            opened = self._open(record, worker, completion, accept_revoked=accept_revoked)
            code, message = decode_failure(opened.plaintext)
        except Error as error:
            # One report that can't be had does not hide the others.
            trouble = str(error)
        return JobFailure(
            worker=worker, completion=completion, code=code, message=message, trouble=trouble
        )

    def _open(
        self, record: _Record, worker_id: WorkerId, completion: Completion, *, accept_revoked: bool
    ) -> _Opened:
        worker = self._view.worker(worker_id)
        self._require_worker(record, worker, completion, accept_revoked=accept_revoked)
        self._require_times(record, completion.attestation_proof)
        evidence = None
        if self._evidence is not None:
            signed_at = completion.attestation_proof.issued_at
            evidence = self._evidence.verify_signer(worker, at=signed_at)
        envelope = self._search.get(
            completion.result_hash, worker=worker, what="result", max_bytes=MAX_ENVELOPE
        )
        statement = verify_result(
            envelope,
            expected=ExpectedResult(
                genesis_hash=self._view.chain.genesis_hash,
                contract=self._view.contract,
                payload_hash=record.payload_hash,
                completion=completion,
                measurement=worker.measurement,
                accepted_keys={worker.signing_key},
            ),
        )
        try:
            opened = open_result(envelope, secret=self._secret)
        except OpenError:
            if self._is_for_another_secret(record.job):
                raise OpenError(_NOT_OURS) from None
            raise
        return _Opened(
            worker=worker,
            evidence=evidence,
            envelope=envelope,
            statement=statement,
            plaintext=opened.plaintext,
        )

    def _is_for_another_secret(self, job: Job | None) -> bool:
        """Whether the job as the owner sealed it, where the chain has it, is of another secret."""
        if job is None or not isinstance(job.encrypted_payload, InlinePayload):
            return False
        try:
            nonce = read_job_header(job.encrypted_payload.data).nonce
        except OpenError:
            return False
        return self._secret.reply_key(nonce).public_key != job.public_key

    def _require_worker(
        self, record: _Record, worker: Worker, completion: Completion, *, accept_revoked: bool
    ) -> None:
        if worker.worker not in record.workers:
            raise UntrustedWorkerError(
                "WorkerNotEligible", f"job {record.job_id} is not for worker {worker.worker}"
            )
        if record.sealed_to is not None and worker.encryption_key not in record.sealed_to:
            raise UntrustedWorkerError(
                "KeyMismatch",
                f"job {record.job_id} was not sealed to what is said to be the key of worker"
                f" {worker.worker}",
            )
        if worker.signing_key != completion.tee_worker_pubkey:
            raise UntrustedWorkerError(
                "KeyMismatch", f"the statement is not by the key of worker {worker.worker}"
            )
        if self._accepted_keys is not None and worker.signing_key not in self._accepted_keys:
            raise UntrustedWorkerError(
                "WorkerNotAccepted", f"worker {worker.worker} is not one that this owner accepts"
            )
        if accept_revoked:
            return
        if worker.status is WorkerStatus.REVOKED:
            raise UntrustedWorkerError("WorkerRevoked", f"worker {worker.worker} was revoked")
        measurements = self._view.processor.has_measurement(worker.measurement)
        if not self._view.chain.read(measurements):
            raise UntrustedWorkerError(
                "MeasurementRevoked", f"the measurement of worker {worker.worker} was revoked"
            )

    def _require_times(self, record: _Record, proof: AttestationProof) -> None:
        """
        Refuse a statement from before its job, or from the future.

        A worker chooses the times that it signs, and its evidence is judged at one of them: whoever
        gets hold of a key later must not choose a day on which that evidence was still good.
        """
        job, signed = f"job {record.job_id}", min(proof.started_at, proof.issued_at)
        if signed < record.created_at - _CLOCK_TOLERANCE_MS:
            raise StatementMismatchError(
                "StatementBeforeJob",
                f"{job} was submitted at {record.created_at}, and the statement is of {signed}",
            )
        now = self._clock()
        if proof.issued_at > now + _CLOCK_TOLERANCE_MS:
            raise StatementMismatchError(
                "StatementFromFuture",
                f"{job}: the statement is of {proof.issued_at}, and it is {now} by this machine's"
                " clock; is the clock right?",
            )

    def _record(self, job_id: JobId) -> _Record:
        self._view.require_contract()
        job = self._view.job(job_id)
        record = self._record_of_history(job_id) if job is None else self._record_of_job(job)
        listed = self._list.job(job_id)
        if listed is not None and listed.payload_hash != record.payload_hash:
            raise StatementMismatchError(
                "PayloadMismatch", f"job {job_id} on the chain is not the one that was submitted"
            )
        envelope = None if listed is None else self._list.envelope(job_id)
        if listed is None or envelope is None:
            return record
        return replace(
            record,
            workers=listed.workers,
            created_at=listed.created_at,
            # The last one is the owner's own reply key.
            sealed_to=read_job_header(envelope).recipients[:-1],
            sealed_under=listed.policy_hash,
        )

    def _record_of_job(self, job: Job) -> _Record:
        self._require_owner(job.job_id, job.owner)
        completed = None
        attestation = self._view.attestation(job.job_id)
        if attestation is not None:
            completed = (
                attestation.worker,
                Completion(
                    job_id=attestation.job_id,
                    result_hash=attestation.result_hash,
                    attestation_proof=attestation.attestation_proof,
                    tee_worker_pubkey=attestation.tee_worker_pubkey,
                ),
            )
        # The contract keeps a failure's hash, its signature is in the event alone.
        failed = self._statements(job.job_id, Outcome.FAILED) if job.failures else ()
        return _Record(
            job_id=job.job_id,
            status=job.status,
            payload_hash=job.payload_hash,
            workers=job.workers,
            created_at=job.created_at,
            completed=completed,
            failed=failed,
            job=job,
        )

    def _record_of_history(self, job_id: JobId) -> _Record:
        history = self._history(job_id)
        self._require_owner(job_id, history.owner)
        completed = self._completions(history, Outcome.COMPLETED)
        return _Record(
            job_id=job_id,
            status=history.status,
            payload_hash=history.payload_hash,
            workers=history.workers,
            created_at=history.created_at,
            completed=completed[0] if completed else None,
            failed=self._completions(history, Outcome.FAILED),
        )

    def _statements(
        self, job_id: JobId, outcome: Outcome
    ) -> tuple[tuple[WorkerId, Completion], ...]:
        return self._completions(self._history(job_id), outcome)

    def _completions(
        self, history: JobHistory, outcome: Outcome
    ) -> tuple[tuple[WorkerId, Completion], ...]:
        return tuple(
            (
                recorded.worker,
                Completion(
                    job_id=recorded.job_id,
                    result_hash=recorded.result_hash,
                    attestation_proof=AttestationProof(
                        outcome=recorded.outcome,
                        units=recorded.units,
                        started_at=recorded.started_at,
                        finished_at=recorded.finished_at,
                        issued_at=recorded.issued_at,
                        signature=recorded.signature,
                    ),
                    tee_worker_pubkey=self._view.worker(recorded.worker).signing_key,
                ),
            )
            for recorded in history.statements
            if recorded.outcome is outcome
        )

    def _history(self, job_id: JobId) -> JobHistory:
        listed = self._list.job(job_id)
        return self._view.history(job_id, block=listed.block if listed else 0)

    def _require_owner(self, job_id: JobId, owner: bytes) -> None:
        if owner != self._owner:
            raise RefusedError("NotJobOwner", f"job {job_id} belongs to another account")
