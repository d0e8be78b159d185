"""
Workers that do what they are told, also when that is wrong.

`ScriptedWorker` stands behind the `WorkerClient` port and executes `echo`; its faults are those of
a worker that speaks the protocol and lies. `FaultyHttpServer`, in a module of its own, does not
even do that.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from enum import Enum

from orchestrator.attestation.statement import sign_statement
from orchestrator.crypto import EcdsaSigner, EncryptionKey, open_job, seal_result
from orchestrator.encoding import (
    blake2_256,
    decode_task_input,
    encode_failure,
    encode_output,
    registration_digest,
    report_data,
)
from orchestrator.errors import (
    BlobNotFoundError,
    BlobTooLargeError,
    WorkerProtocolError,
    WorkerRefusedError,
    WorkerUnavailableError,
)
from orchestrator.evidence import EvidenceBundle, dump_bundle
from orchestrator.models import (
    AttestationProof,
    Completion,
    JobId,
    Outcome,
    PublicKey,
    Signature,
    Signer,
    Statement,
    WorkerRegistration,
)
from orchestrator.quotes import QuoteSource
from orchestrator.workers import JobKey, JobRequest, WorkerIdentity, WorkerJob, WorkerJobState

__all__ = ["Behaviour", "ScriptedWorker"]

HOUR = 3_600_000
AGE = 30_000  # less than the default clock skew; too old where max_attestation_age is less


class Behaviour(Enum):
    """What a scripted worker does with a job."""

    HONEST = "executes it and signs"
    FAILS = "signs that the task failed"
    UNAVAILABLE = "does not answer"
    BUSY = "is full, try again in a moment"
    REFUSES = "refuses the job"
    GARBAGE = "answers with something that is not of the protocol"
    NEVER = "has it running for ever"
    AT_ONCE = "answers every poll at once, that it is running"
    LOSES_CONNECTION = "takes the job, and is gone when asked for it"
    BAD_SIGNATURE = "signs something else"
    OTHER_JOB = "hands out the right answer to another job"
    UNREGISTERED_KEY = "signs with a key that nobody registered"
    TOO_OLD = "hands out a statement half a minute old, each time"
    TOO_OLD_ONCE = "hands out a statement half a minute old, then a fresh one"
    FROM_FUTURE = "has a clock that is an hour ahead"
    BEFORE_JOB = "says that it started an hour before the job was made"
    EMPTY_RESULT = "signs a result hash of zeros"
    NO_RESULT = "signs, and does not have the result"
    OTHER_RESULT = "signs, and hands out other bytes"
    HUGE_RESULT = "says that the result has 10 GiB"
    TWO_RESULTS = "signs one result, too old to record, and then another"


class ScriptedWorker:
    """
    A worker behind the `WorkerClient` port that executes `echo`, or misbehaves.

    It signs one outcome per job, as real ones do, unless its behaviour says otherwise.
    *clock* gives ms. `behaviour` is for all jobs that `behaviours` does not name.

    With *quotes* it has evidence to show. It makes new keys whenever it is asked to, except while
    `newest_is_registered` is false.
    """

    def __init__(
        self,
        *,
        signer: Signer,
        measurement: bytes,
        clock: Callable[[], int],
        behaviour: Behaviour = Behaviour.HONEST,
        quotes: QuoteSource | None = None,
    ) -> None:
        self.signer = signer
        self.encryption_key = EncryptionKey.generate()
        self.behaviour = behaviour
        self.behaviours: dict[JobId, Behaviour] = {}
        self.puts: list[JobId] = []
        self.polls: list[JobId] = []
        self.deleted: list[JobId] = []
        self.is_closed = False
        self.measurement = measurement
        self.newest_is_registered = True
        self.quotes = quotes
        self.evidence_kept: dict[bytes, bytes] = {}
        self._retired: list[tuple[Signer, EncryptionKey]] = []
        self._clock = clock
        self._statements: dict[JobKey, Statement] = {}
        self._results: dict[bytes, bytes] = {}
        self._true_results: dict[bytes, bytes] = {}
        self._requests: dict[JobKey, JobRequest] = {}

    def _does(self, job_id: JobId) -> Behaviour:
        return self.behaviours.get(job_id, self.behaviour)

    async def identity(self) -> WorkerIdentity:
        return WorkerIdentity(
            signing_key=self.signer.public_key,
            encryption_key=self.encryption_key.public_key,
            version="scripted",
            tasks=("echo",),
            slots=1,
            queue=1,
            running=0,
            waiting=0,
            tee=None if self.quotes is None else self.quotes.name,
            development=("scripted",),
            retired_keys=tuple(signer.public_key for signer, _ in self._retired),
        )

    async def registration(
        self,
        *,
        genesis: bytes,
        contract: bytes,
        measurement: bytes,
        evidence_hash: bytes,
        valid_until: int,
        signing_key: PublicKey | None = None,
    ) -> Signature:
        signer, encryption_key = self._pair(signing_key)
        registration = WorkerRegistration(
            signing_key=signer.public_key,
            encryption_key=encryption_key.public_key,
            measurement=measurement,
            evidence_hash=evidence_hash,
            endpoint=b"",
            valid_until=valid_until,
        )
        return signer.sign(
            registration_digest(registration, genesis_hash=genesis, contract=contract)
        )

    async def evidence(
        self,
        *,
        genesis: bytes,
        contract: bytes,
        challenge: bytes,
        signing_key: PublicKey | None = None,
    ) -> bytes:
        if self.behaviour is Behaviour.UNAVAILABLE:
            raise WorkerUnavailableError("scripted")
        if self.quotes is None:
            raise WorkerRefusedError(501, "a scripted worker without quotes has no evidence")
        signer, encryption_key = self._pair(signing_key)
        bundle = EvidenceBundle(
            producer="scripted",
            genesis_hash=genesis,
            contract=contract,
            signing_key=signer.public_key,
            encryption_key=encryption_key.public_key,
            challenge=challenge,
            quote=b"",
        )
        given = await self.quotes.quote(report_data(bundle.binding()))
        return dump_bundle(
            replace(
                bundle,
                quote=given.quote,
                collateral=given.collateral,
                event_log=given.event_log,
                compose=given.compose,
            )
        )

    async def put_evidence(self, data: bytes) -> bytes:
        self.evidence_kept[blake2_256(data)] = data
        return blake2_256(data)

    async def rotate(self, *, genesis: bytes, contract: bytes) -> WorkerIdentity:
        del genesis, contract
        if not self.newest_is_registered:
            raise WorkerRefusedError(409, "the newest keys are not registered yet")
        self._retired.append((self.signer, self.encryption_key))
        self.signer, self.encryption_key = EcdsaSigner.generate(), EncryptionKey.generate()
        return await self.identity()

    def _pair(self, signing_key: PublicKey | None) -> tuple[Signer, EncryptionKey]:
        newest = (self.signer, self.encryption_key)
        for pair in (newest, *self._retired):
            if signing_key in (None, pair[0].public_key):
                return pair
        raise WorkerRefusedError(422, "signing_key: not one of this worker's")

    async def put_blob(self, data: bytes) -> bytes:
        del data
        raise WorkerRefusedError(501, "a scripted worker takes no blobs")

    async def get_blob(self, digest: bytes, *, max_bytes: int) -> bytes:
        data = self._results.get(digest) or self.evidence_kept.get(digest)
        if data is None:
            raise BlobNotFoundError
        if len(data) > max_bytes:
            raise BlobTooLargeError
        return data

    async def put_job(self, request: JobRequest) -> bool:
        job_id = request.key.job_id
        self.puts.append(job_id)
        match self._does(job_id):
            case Behaviour.UNAVAILABLE:
                raise WorkerUnavailableError("scripted")
            case Behaviour.BUSY:
                raise WorkerUnavailableError("scripted", retry_after_seconds=0.02)
            case Behaviour.REFUSES:
                raise WorkerRefusedError(422, "scripted")
        is_new = request.key not in self._requests
        self._requests[request.key] = request
        return is_new

    async def get_job(self, key: JobKey, *, wait_seconds: float = 0) -> WorkerJob:
        self.polls.append(key.job_id)
        request = self._requests.get(key)
        if request is None:
            raise WorkerRefusedError(404, "no such job")
        does = self._does(key.job_id)
        match does:
            case Behaviour.LOSES_CONNECTION:
                raise WorkerUnavailableError("connection lost")
            case Behaviour.GARBAGE:
                raise WorkerProtocolError("scripted")
            case Behaviour.NEVER:
                await asyncio.sleep(wait_seconds)
                return WorkerJob(state=WorkerJobState.RUNNING)
            case Behaviour.AT_ONCE:
                return WorkerJob(state=WorkerJobState.RUNNING)
        if key not in self._statements:
            self._statements[key] = self._execute(request, does)
        return self._answer(key, does)

    async def delete_job(self, key: JobKey) -> None:
        if self._does(key.job_id) is Behaviour.UNAVAILABLE:
            raise WorkerUnavailableError("scripted")
        self.deleted.append(key.job_id)
        self._requests.pop(key, None)

    async def close(self) -> None:
        self.is_closed = True

    def make_honest(self) -> None:
        """Behave from now on; what was signed stays signed, and failed jobs stay failed."""
        self.behaviour = Behaviour.HONEST
        for job_id, behaviour in self.behaviours.items():
            if behaviour is not Behaviour.FAILS:
                self.behaviours[job_id] = Behaviour.HONEST
        self._results.update(self._true_results)

    # Executing and signing.

    def _execute(self, request: JobRequest, does: Behaviour) -> Statement:
        assert request.envelope is not None  # noqa: S101  # the test gave it so
        signer, encryption_key = self._pair_for(request)
        opened = open_job(request.envelope, encryption_key)
        failed = does is Behaviour.FAILS
        if failed:
            plaintext = encode_failure("Scripted", None)
        else:
            plaintext = encode_output(decode_task_input(opened.plaintext).input)
        sealed = seal_result(
            plaintext,
            genesis=request.key.genesis,
            contract=request.key.contract,
            job_id=request.key.job_id,
            payload_hash=request.key.payload_hash,
            worker_key=signer.public_key,
            reply_nonce=opened.header.nonce,
            reply_key=opened.header.reply_key,
        )
        digest = bytes(32) if does is Behaviour.EMPTY_RESULT else blake2_256(sealed)
        self._true_results[digest] = sealed
        if does is not Behaviour.NO_RESULT:
            self._results[digest] = b"other" if does is Behaviour.OTHER_RESULT else sealed
        now = self._clock()
        started = now - {Behaviour.BEFORE_JOB: HOUR}.get(does, AGE if does in _AGED else 0)
        return Statement(
            genesis_hash=request.key.genesis,
            contract=request.key.contract,
            job_id=request.key.job_id,
            payload_hash=request.key.payload_hash,
            outcome=Outcome.FAILED if failed else Outcome.COMPLETED,
            result_hash=digest,
            units=7,
            measurement=self.measurement,
            started_at=started,
            finished_at=max(started, now - AGE) if does in _AGED else now,
            issued_at=now,
        )

    def _pair_for(self, request: JobRequest) -> tuple[Signer, EncryptionKey]:
        for signer, encryption_key in (*self._retired, (self.signer, self.encryption_key)):
            if encryption_key.public_key in request.head.recipients:
                return signer, encryption_key
        return self.signer, self.encryption_key

    def _answer(self, key: JobKey, does: Behaviour) -> WorkerJob:
        signer = self._pair_for(self._requests[key])[0]
        issued = {Behaviour.FROM_FUTURE: HOUR}.get(does, 0)
        statement = replace(self._statements[key], issued_at=self._clock() + issued)
        if does in _AGED:
            statement = replace(statement, issued_at=statement.finished_at)
        match does:
            case Behaviour.TOO_OLD_ONCE:
                self.behaviours[key.job_id] = Behaviour.HONEST
            case Behaviour.TWO_RESULTS:
                self.behaviours[key.job_id] = Behaviour.HONEST
                del self._statements[key]
            case Behaviour.OTHER_JOB:
                statement = replace(statement, job_id=key.job_id + 1)
            case Behaviour.UNREGISTERED_KEY:
                return self._signed(key, statement, EcdsaSigner.generate())
            case Behaviour.BAD_SIGNATURE:
                return self._signed(key, replace(statement, units=8), signer, units=7)
            case Behaviour.HUGE_RESULT:
                return replace(self._signed(key, statement, signer), result_length=10 << 30)
        return self._signed(key, statement, signer)

    def _signed(
        self, key: JobKey, statement: Statement, signer: Signer, units: int | None = None
    ) -> WorkerJob:
        completion = Completion(
            job_id=key.job_id,
            result_hash=statement.result_hash,
            attestation_proof=AttestationProof(
                outcome=statement.outcome,
                units=statement.units if units is None else units,
                started_at=statement.started_at,
                finished_at=statement.finished_at,
                issued_at=statement.issued_at,
                signature=sign_statement(statement, signer),
            ),
            tee_worker_pubkey=signer.public_key,
        )
        is_done = statement.outcome is Outcome.COMPLETED
        return WorkerJob(
            state=WorkerJobState.DONE if is_done else WorkerJobState.FAILED,
            completion=completion,
            result_length=len(self._results.get(statement.result_hash, b"")) or 1_000,
        )


_AGED = frozenset({Behaviour.TOO_OLD, Behaviour.TOO_OLD_ONCE, Behaviour.TWO_RESULTS})
