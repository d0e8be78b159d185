"""
The worker's HTTP interface, protocol section 4.

Handlers check a request, ask `Heads` what is true, and hand over to `Execution`. The one that
signs is `_final`, and it signs only what the store gave back.
"""

import asyncio
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from orchestrator.attestation.statement import sign_statement
from orchestrator.blobs.server import blob_routes, parse_hash, read_body
from orchestrator.crypto.keys import verify_reply_key
from orchestrator.encoding import blake2_256
from orchestrator.errors import (
    BlobError,
    BlobUnavailableError,
    EncodingError,
    InputError,
)
from orchestrator.models import (
    AttestationProof,
    Completion,
    Outcome,
    Statement,
)
from orchestrator.tasks.sandbox import Sandbox
from orchestrator.worker.access import Access
from orchestrator.worker.enrolment import Enrolment
from orchestrator.worker.execution import Execution
from orchestrator.worker.heads import Heads, JobFacts
from orchestrator.worker.identity import KeyRing
from orchestrator.worker.meters import Meters
from orchestrator.worker.outcomes import OutcomeStore, StoredOutcome, WorkerBlobs
from orchestrator.worker.refusal import RefusalError
from orchestrator.worker.running import AcceptedJob, seal_trial
from orchestrator.worker.settings import WorkerSettings
from orchestrator.worker.tokens import TokenScope
from orchestrator.workers import (
    JobKey,
    JobRequest,
    WorkerIdentity,
    WorkerJob,
    WorkerJobState,
)
from orchestrator.workers.wire import (
    dump_identity,
    dump_job,
    dump_signature,
    load_job_request,
    load_registration_request,
    load_rotation_request,
)

__all__ = ["WorkerApp"]

_JOB_ID = re.compile(r"0|[1-9][0-9]{0,38}")
_JSON = "application/json"
_MAX_WAIT_SECONDS = 60.0
_MAX_SMALL_BODY = 16_384
_HEAD_BYTES = 4_096
# Work of more bytes than this leaves the event loop.
_LARGE = 262_144

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class WorkerApp:
    """The handlers, over the parts that they need."""

    settings: WorkerSettings
    keys: KeyRing
    enrolment: Enrolment
    access: Access
    heads: Heads
    outcomes: OutcomeStore
    blobs: WorkerBlobs
    execution: Execution
    sandbox: Sandbox
    meters: Meters
    clock: Callable[[], int]
    on_signed: Callable[[], None]

    def routes(self) -> list[BaseRoute]:
        """Return all routes."""
        job = "/v1/jobs/{genesis}/{contract}/{job_id}/{payload_hash}"
        return [
            Route("/v1/identity", self._identity, methods=["GET"]),
            Route("/v1/evidence", self._evidence, methods=["POST"]),
            Route("/v1/registration", self._registration, methods=["POST"]),
            Route("/v1/rotation", self._rotation, methods=["POST"]),
            Route(job, self._put_job, methods=["PUT"]),
            Route(job, self._get_job, methods=["GET"]),
            Route(job, self._delete_job, methods=["DELETE"]),
            Route("/healthz", self._health, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            *blob_routes(
                self.blobs,
                max_bytes=self.settings.max_envelope_bytes,
                authorize_put=self._authorize_put,
            ),
        ]

    def build(self) -> Starlette:
        """Return the application, which answers every refusal as JSON."""
        return Starlette(
            routes=self.routes(),
            exception_handlers={
                RefusalError: self._refuse,
                EncodingError: self._refuse,
                BlobUnavailableError: self._refuse,
                HTTPException: self._refuse,
            },
        )

    async def _refuse(self, request: Request, error: Exception) -> Response:
        del request
        headers: dict[str, str] = {}
        message = str(error)
        if isinstance(error, RefusalError):
            status = error.status
            if error.retry_after_seconds is not None:
                headers["retry-after"] = str(error.retry_after_seconds)
        elif isinstance(error, HTTPException):
            status, message = error.status_code, error.detail
            headers.update(error.headers or {})
        elif isinstance(error, EncodingError):
            status = 422
        else:
            # What went wrong on this machine's disk is for its own log.
            status, message = 503, "the worker can't store or read now"
        if status == 401:
            headers["www-authenticate"] = "Bearer"
        self.meters.refused(status)
        return JSONResponse({"error": message}, status, headers)

    def _authorize_put(self, request: Request) -> Callable[[bytes], object]:
        """Payloads are put with one scope, evidence with the other."""
        scope = self.access.require(request, TokenScope.JOBS, TokenScope.REGISTRATION)
        return self.blobs.put if scope is TokenScope.JOBS else self.enrolment.keep_evidence

    async def _identity(self, request: Request) -> Response:
        del request
        return self._identify()

    def _identify(self) -> Response:
        newest = self.keys.newest
        identity = WorkerIdentity(
            signing_key=newest.signing_key,
            encryption_key=newest.encryption_key.public_key,
            version=self.settings.version,
            tasks=tuple(self.sandbox.tasks),
            slots=self.settings.slots,
            queue=self.settings.queue,
            running=self.execution.running,
            waiting=self.execution.waiting,
            tee=self.enrolment.tee,
            development=self.settings.development,
            retired_keys=tuple(pair.signing_key for pair in self.keys.retired),
        )
        return Response(dump_identity(identity), media_type=_JSON)

    async def _evidence(self, request: Request) -> Response:
        body = await read_body(request, max_bytes=_MAX_SMALL_BODY)
        is_known = self.access.is_known(request.scope)
        has_gone = asyncio.create_task(_hung_up(request))
        try:
            data = await self.enrolment.evidence(body, is_known=is_known, has_gone=has_gone)
        finally:
            has_gone.cancel()
        return Response(data, media_type="application/cbor")

    async def _registration(self, request: Request) -> Response:
        self.access.require(request, TokenScope.REGISTRATION)
        asked = load_registration_request(await read_body(request, max_bytes=_MAX_SMALL_BODY))
        signature = await self.enrolment.registration(asked)
        return Response(dump_signature(signature), media_type=_JSON)

    async def _rotation(self, request: Request) -> Response:
        self.access.require(request, TokenScope.REGISTRATION)
        asked = load_rotation_request(await read_body(request, max_bytes=_MAX_SMALL_BODY))
        await self.enrolment.rotate(asked)
        return self._identify()

    async def _put_job(self, request: Request) -> Response:
        """
        Accept a job.

        1. The token allows it, and the request is of the protocol.
        2. A job with an outcome, or in the queue with the same head, is accepted already; asked
           again at the end, because it may have been accepted and finished while this one waited.
        3. There is room, before anything costly is done.
        4. The envelope's bytes hash to the payload hash.
        5. The head is the chain's.
        6. The clock is not before the job, and its deadline has not passed.
        7. A result can be sealed to the reply key.
        """
        self.access.require(request, TokenScope.JOBS)  # 1.
        key = _parse_key(request)
        limit = self.settings.max_envelope_bytes
        body = await read_body(request, max_bytes=limit * 4 // 3 + _HEAD_BYTES)
        asked = await _maybe_in_thread(len(body), lambda: load_job_request(body, key))
        if asked.envelope is not None and len(asked.envelope) > limit:
            raise RefusalError(413, f"envelope: {len(asked.envelope)} bytes, at most {limit}")
        known = self._known(asked)  # 2.
        if known is not None:
            return known
        self.execution.check_room(len(asked.envelope or b""))  # 3.
        if asked.envelope is not None:
            await _check_hash(asked.envelope, key)  # 4.
        facts = await self.heads.facts(asked)  # 5.
        envelope = asked.envelope
        if envelope is None:
            envelope = await self._find_envelope(key, facts)
        self.heads.check_envelope(asked, envelope)
        self._check_times(facts)  # 6.
        self._check_reply_key(key, facts)  # 7.
        known = self._known(asked)  # 2. again, with nothing to wait for until it is accepted
        if known is not None:
            return known
        self.execution.accept(AcceptedJob(key=key, facts=facts, envelope=envelope))
        self.meters.accepted()
        state = dump_job(WorkerJob(state=WorkerJobState.QUEUED))
        return Response(state, 202, media_type=_JSON)

    def _known(self, asked: JobRequest) -> Response | None:
        waiting = self.execution.find(asked.key)
        if waiting is not None:
            job, state = waiting
            if job.is_dropped:
                # Its result would go with it.
                raise RefusalError(503, "the job is being stopped", retry_after_seconds=1)
            if job.facts.head != asked.head:
                raise RefusalError(422, "head: this job was accepted with another")
            return Response(dump_job(WorkerJob(state=state)), media_type=_JSON)
        stored = self.outcomes.find(asked.key)
        return None if stored is None else Response(self._final(stored), media_type=_JSON)

    async def _find_envelope(self, key: JobKey, facts: JobFacts) -> bytes:
        """Return the envelope that was put here as a blob, or is on the chain."""
        if facts.payload is not None:
            await _check_hash(facts.payload, key)
            return facts.payload
        limit = self.settings.max_envelope_bytes
        try:
            return await asyncio.to_thread(self.blobs.get, key.payload_hash, max_bytes=limit)
        except BlobUnavailableError:
            raise
        except BlobError as error:
            raise RefusalError(422, "envelope: not in the request, and no such blob") from error

    def _check_times(self, facts: JobFacts) -> None:
        now, head = self.clock(), facts.head
        if now < head.created_at - facts.max_clock_skew:
            raise RefusalError(503, "the worker's clock is before the job", retry_after_seconds=5)
        if now > head.deadline:
            raise RefusalError(409, "the job's deadline has passed")

    def _check_reply_key(self, key: JobKey, facts: JobFacts) -> None:
        try:
            verify_reply_key(facts.head.public_key)
            seal_trial(key, facts.head.public_key, facts.signing_key)
        except InputError as error:
            raise RefusalError(422, f"head.public_key: {error}") from error

    async def _get_job(self, request: Request) -> Response:
        key = _parse_key(request)
        seconds = _parse_wait(request)
        # Strangers get an answer at once, or they could use up all connections by waiting.
        if seconds and self.access.is_known(request.scope):
            await self.execution.wait(key, seconds)
        waiting = self.execution.find(key)
        if waiting is not None:
            return Response(dump_job(WorkerJob(state=waiting[1])), media_type=_JSON)
        stored = self.outcomes.find(key)
        if stored is None:
            raise RefusalError(404, "no such job")
        return Response(self._final(stored), media_type=_JSON)

    def _final(self, stored: StoredOutcome) -> bytes:
        """Sign a stored outcome with the key that it belongs to and the time of now."""
        key, pair = stored.key, self.keys.find(stored.signing_key)
        if pair is None:
            raise RefusalError(410, "the key that signed this job's outcome is gone")
        statement = Statement(
            genesis_hash=key.genesis,
            contract=key.contract,
            job_id=key.job_id,
            payload_hash=key.payload_hash,
            outcome=stored.outcome,
            result_hash=stored.result_hash,
            units=stored.units,
            measurement=stored.measurement,
            started_at=stored.started_at,
            finished_at=stored.finished_at,
            issued_at=max(self.clock(), stored.finished_at),
        )
        signature = sign_statement(statement, pair.signer)
        self.on_signed()
        completion = Completion(
            job_id=key.job_id,
            result_hash=stored.result_hash,
            attestation_proof=AttestationProof(
                outcome=stored.outcome,
                units=stored.units,
                started_at=stored.started_at,
                finished_at=stored.finished_at,
                issued_at=statement.issued_at,
                signature=signature,
            ),
            tee_worker_pubkey=pair.signing_key,
        )
        is_done = stored.outcome is Outcome.COMPLETED
        job = WorkerJob(
            state=WorkerJobState.DONE if is_done else WorkerJobState.FAILED,
            completion=completion,
            result_length=stored.result_length,
        )
        return dump_job(job, statement)

    async def _delete_job(self, request: Request) -> Response:
        self.access.require(request, TokenScope.JOBS)
        key = _parse_key(request)
        self.execution.drop(key)
        await asyncio.to_thread(self.outcomes.drop_bytes, key)
        return Response(status_code=204)

    async def _health(self, request: Request) -> Response:
        del request
        return JSONResponse({"status": "ok"})

    async def _metrics(self, request: Request) -> Response:
        del request
        running, waiting = self.execution.running, self.execution.waiting
        text = self.meters.text(running=running, waiting=waiting)
        return Response(text, media_type="text/plain; version=0.0.4; charset=utf-8")


def _parse_key(request: Request) -> JobKey:
    path = request.path_params
    if not _JOB_ID.fullmatch(path["job_id"]) or int(path["job_id"]) >= 1 << 128:
        raise RefusalError(422, "job_id: must be decimal, below 2^128")
    return JobKey(
        genesis=parse_hash(path["genesis"], "genesis"),
        contract=parse_hash(path["contract"], "contract"),
        job_id=int(path["job_id"]),
        payload_hash=parse_hash(path["payload_hash"], "payload_hash"),
    )


async def _hung_up(request: Request) -> None:
    """Return when the client has hung up; the body was read."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _parse_wait(request: Request) -> float:
    text = request.query_params.get("wait", "0")
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise RefusalError(422, "wait: must be a number of seconds")
    return min(seconds, _MAX_WAIT_SECONDS)


async def _check_hash(envelope: bytes, key: JobKey) -> None:
    digest = await _maybe_in_thread(len(envelope), lambda: blake2_256(envelope))
    if digest != key.payload_hash:
        raise RefusalError(422, "payload_hash: not that of the envelope")


async def _maybe_in_thread(size: int, work: Callable[[], T]) -> T:
    return work() if size < _LARGE else await asyncio.to_thread(work)
