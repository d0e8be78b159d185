"""
One job from its envelope to its outcome: open, check, execute, seal.

What becomes an outcome is protocol section 4: a job fails by its owner's envelope or input, or by
its task. Trouble of the host is `TaskHostError`, never an outcome.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from orchestrator.crypto.sealing import (
    open_job,
    read_job_header,
    seal_result,
    verify_job_header,
)
from orchestrator.encoding import (
    blake2_256,
    decode_task_input,
    encode_failure,
    encode_output,
)
from orchestrator.errors import EncodingError, OpenError, TaskError, TaskHostError
from orchestrator.models import Outcome, PublicKey, TaskInput
from orchestrator.tasks.running import RunningTask
from orchestrator.tasks.sandbox import Sandbox
from orchestrator.worker.heads import JobFacts
from orchestrator.worker.identity import KeyRing, WorkerKeys
from orchestrator.worker.outcomes import StoredOutcome
from orchestrator.workers import JobKey

__all__ = ["AcceptedJob", "JobRunner", "seal_trial"]

_NO_NONCE = bytes(16)


@dataclass(kw_only=True)
class AcceptedJob:
    """A job whose head was checked, and the means to stop it."""

    key: JobKey
    facts: JobFacts
    envelope: bytes
    stopped: threading.Event = field(default_factory=threading.Event)
    is_dropped: bool = False
    task: RunningTask | None = None

    def __repr__(self) -> str:
        return f"AcceptedJob(job_id={self.key.job_id}, envelope=<{len(self.envelope)} bytes>)"

    def stop(self) -> None:
        """Stop it, whether it waits or runs; nothing will be signed."""
        self.stopped.set()
        if self.task is not None:
            self.task.stop()

    def drop(self) -> None:
        """Stop it for good: should it have just ended by itself, nobody wants its result."""
        self.is_dropped = True
        self.stop()


@dataclass(frozen=True, kw_only=True)
class _Reply:
    """Where a result goes: the reply key and the nonce of a job's header."""

    key: bytes
    nonce: bytes


@dataclass(frozen=True, kw_only=True)
class _Done:
    """How a job ended, before it is sealed."""

    outcome: Outcome
    plaintext: bytes
    reply: _Reply
    units: int = 0


class JobRunner:
    """
    Runs jobs; safe for several threads.

    *clock_trouble* says, in words, why times of the clock can't be signed now, if they can't.
    """

    def __init__(
        self,
        *,
        keys: KeyRing,
        sandbox: Sandbox,
        clock: Callable[[], int],
        clock_trouble: Callable[[], str | None] = lambda: None,
        hold_seconds: float = 0.0,
    ) -> None:
        self._keys = keys
        self._sandbox = sandbox
        self._clock = clock
        self._clock_trouble = clock_trouble
        self._hold_seconds = hold_seconds

    def run(self, job: AcceptedJob) -> tuple[StoredOutcome, bytes]:
        """
        Return the outcome and the sealed result, neither of them stored yet.

        The times in it are for ever, so they are not taken from a clock that is known to be wrong.

        Raises:
            TaskHostError: The job was stopped, or the host could not run it.
        """
        keys = self._keys.find(job.facts.signing_key)
        if keys is None:
            raise TaskHostError("the keys that the job was sealed to are gone")
        trouble = self._clock_trouble()
        if trouble is not None:
            raise TaskHostError(trouble)
        started_at, began = self._clock(), time.monotonic()
        if started_at < job.facts.head.created_at - job.facts.max_clock_skew:
            raise TaskHostError("the clock is before the job")
        if self._hold_seconds and job.stopped.wait(self._hold_seconds):
            raise TaskHostError("stopped")
        done = self._execute(job, keys)
        finished_at = max(self._clock(), started_at)
        # A machine that was suspended gets here too; the job runs again then.
        elapsed_ms = (time.monotonic() - began) * 1_000
        if finished_at - started_at > elapsed_ms + job.facts.max_clock_skew:
            raise TaskHostError("the clock jumped ahead while the job ran")
        key = job.key
        envelope = seal_result(
            done.plaintext,
            genesis=key.genesis,
            contract=key.contract,
            job_id=key.job_id,
            payload_hash=key.payload_hash,
            worker_key=keys.signing_key,
            reply_nonce=done.reply.nonce,
            reply_key=done.reply.key,
        )
        outcome = StoredOutcome(
            key=key,
            outcome=done.outcome,
            result_hash=blake2_256(envelope),
            result_length=len(envelope),
            units=done.units,
            measurement=job.facts.measurement,
            started_at=started_at,
            finished_at=finished_at,
            deadline=job.facts.head.deadline,
            signing_key=keys.signing_key,
        )
        return outcome, envelope

    def _execute(self, job: AcceptedJob, keys: WorkerKeys) -> _Done:
        head = job.facts.head
        try:
            opened = open_job(job.envelope, keys.encryption_key)
            verify_job_header(
                opened.header,
                genesis=job.key.genesis,
                contract=job.key.contract,
                owner=head.owner,
                reply_key=head.public_key,
                recipients=head.recipients,
            )
        except OpenError:
            # Only the code, to the key on the chain: this envelope says nothing that can be
            # believed, so there is no reply key of an authenticated header.
            reply = _Reply(key=head.public_key, nonce=_parsed_nonce(job.envelope))
            return _failed("OpenFailed", None, reply)
        reply = _Reply(key=opened.header.reply_key, nonce=opened.header.nonce)
        try:
            task_input = decode_task_input(opened.plaintext)
        except EncodingError as error:
            return _failed("BadTaskInput", str(error), reply)
        try:
            return self._run_task(job, task_input, opened.plaintext, reply)
        except TaskError as error:
            units = 0 if job.task is None else job.task.cpu_ms
            return _failed(error.code, error.detail, reply, units)

    def _run_task(
        self, job: AcceptedJob, task_input: TaskInput, plaintext: bytes, reply: _Reply
    ) -> _Done:
        limits = self._sandbox.tasks.get(task_input.task)
        if limits is not None and len(task_input.input) > limits.input_bytes:
            size = len(task_input.input)
            raise TaskError("InputTooLarge", f"{size} bytes, at most {limits.input_bytes}")
        job.task = self._sandbox.start(task_input.task, plaintext)
        if job.stopped.is_set():
            # The stop came before there was something to stop.
            job.task.stop()
        done = job.task.wait()
        return _Done(
            outcome=Outcome.COMPLETED,
            plaintext=encode_output(done.output),
            reply=reply,
            units=done.cpu_ms,
        )


def seal_trial(key: JobKey, reply_key: bytes, signing_key: PublicKey) -> None:
    """
    Seal nothing to *reply_key*, to know before executing that a result can be.

    Raises:
        InputError: It can't.
    """
    seal_result(
        b"",
        genesis=key.genesis,
        contract=key.contract,
        job_id=key.job_id,
        payload_hash=key.payload_hash,
        worker_key=signing_key,
        reply_nonce=_NO_NONCE,
        reply_key=reply_key,
    )


def _failed(code: str, message: str | None, reply: _Reply, units: int = 0) -> _Done:
    plaintext = encode_failure(code, message)
    return _Done(outcome=Outcome.FAILED, plaintext=plaintext, reply=reply, units=units)


def _parsed_nonce(envelope: bytes) -> bytes:
    try:
        return read_job_header(envelope).nonce
    except OpenError:
        return _NO_NONCE
