"""
The JSON of protocol section 4, for both ends: what a worker writes, a client reads, and back.

Readers are strict about what they use: types, lengths and ranges. In a request an unknown field is
refused, because it asks for something that would not be done; in an answer it is skipped.
"""

import base64
import json
from dataclasses import dataclass

from orchestrator.errors import EncodingError
from orchestrator.models import (
    AttestationProof,
    Completion,
    Outcome,
    PublicKey,
    Scheme,
    Signature,
    Statement,
)
from orchestrator.workers import (
    JobKey,
    JobRequest,
    RequestHead,
    WorkerIdentity,
    WorkerJob,
    WorkerJobState,
)
from orchestrator.workers.json_object import JsonObject, parse_object, read_base64

__all__ = [
    "EvidenceRequest",
    "RegistrationRequest",
    "RotationRequest",
    "dump_evidence_request",
    "dump_identity",
    "dump_job",
    "dump_job_request",
    "dump_registration_request",
    "dump_rotation_request",
    "dump_signature",
    "job_path",
    "load_evidence_request",
    "load_identity",
    "load_job",
    "load_job_request",
    "load_registration_request",
    "load_rotation_request",
    "load_signature",
]

_KEY_BYTES = {Scheme.SR25519: 32, Scheme.ECDSA: 33}
_SIGNATURE_BYTES = {Scheme.SR25519: 64, Scheme.ECDSA: 65}
_MAX_RECIPIENTS = 4
_MAX_RETIRED = 16


@dataclass(frozen=True, kw_only=True)
class RegistrationRequest:
    """What a registrar asks a worker to sign; with its newest key when `signing_key` is `None`."""

    genesis: bytes
    contract: bytes
    measurement: bytes
    evidence_hash: bytes
    valid_until: int
    signing_key: PublicKey | None = None


@dataclass(frozen=True, kw_only=True)
class EvidenceRequest:
    """What evidence has to be bound to; to the newest keys when `signing_key` is `None`."""

    genesis: bytes
    contract: bytes
    challenge: bytes
    signing_key: PublicKey | None = None


@dataclass(frozen=True, kw_only=True)
class RotationRequest:
    """The contract at which the newest keys must be registered before there are newer ones."""

    genesis: bytes
    contract: bytes


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _dump(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def job_path(key: JobKey) -> str:
    """Return the path of a job at its worker."""
    where = f"{key.genesis.hex()}/{key.contract.hex()}/{key.job_id}/{key.payload_hash.hex()}"
    return f"/v1/jobs/{where}"


def dump_job_request(request: JobRequest) -> bytes:
    """Return the body that hands a job over; its key is in the path."""
    head = request.head
    body: dict[str, object] = {
        "head": {
            "owner": _text(head.owner),
            "public_key": _text(head.public_key),
            "recipients": [_text(key) for key in head.recipients],
            "created_at": head.created_at,
            "deadline": head.deadline,
        }
    }
    if request.envelope is not None:
        body["envelope"] = _text(request.envelope)
    return _dump(body)


def load_job_request(body: bytes, key: JobKey) -> JobRequest:
    """
    Return the job in a request's body.

    Raises:
        EncodingError: The body is not of the protocol; names the field.
    """
    whole = parse_object(body, "body", only=("head", "envelope"))
    fields = ("owner", "public_key", "recipients", "created_at", "deadline")
    head = whole.nested("head", only=fields)
    recipients = head.items("recipients", _MAX_RECIPIENTS)
    if not recipients:
        raise EncodingError("body.head.recipients: must not be empty")
    return JobRequest(
        key=key,
        head=RequestHead(
            owner=head.bytes("owner"),
            public_key=head.bytes("public_key"),
            recipients=tuple(read_base64(item, "body.head.recipients", 32) for item in recipients),
            created_at=head.unsigned("created_at"),
            deadline=head.unsigned("deadline"),
        ),
        envelope=whole.bytes("envelope", None) if whole.has("envelope") else None,
    )


def dump_job(job: WorkerJob, statement: Statement | None = None) -> bytes:
    """Return a job's state; a final one with its statement, which the completion signs."""
    if job.completion is None or statement is None:
        return _dump({"state": job.state.value})
    return _dump(
        {
            "state": job.state.value,
            "statement": _statement(statement),
            "signing_key": _public_key(job.completion.tee_worker_pubkey),
            "signature": _signature(job.completion.attestation_proof.signature),
            "result_length": job.result_length,
        }
    )


def load_job(body: bytes, key: JobKey) -> WorkerJob:
    """
    Return a job's state from an answer.

    1. A final state has a statement, a key, a signature and a length.
    2. The statement is about *key*, and its outcome agrees with the state.

    Does **not** check the signature.

    Raises:
        EncodingError: The answer is not of the protocol; names the field.
    """
    whole = parse_object(body, "answer")
    try:
        state = WorkerJobState(whole.text("state"))
    except ValueError as error:
        raise EncodingError("answer.state: unknown") from error
    if not state.is_final:
        return WorkerJob(state=state)
    said = whole.nested("statement")  # 1.
    about = JobKey(
        genesis=said.bytes("genesis"),
        contract=said.bytes("contract"),
        job_id=_job_id(said.text("job_id")),
        payload_hash=said.bytes("payload_hash"),
    )
    if about != key:  # 2.
        raise EncodingError("answer.statement: about another job")
    outcome = Outcome.COMPLETED if state is WorkerJobState.DONE else Outcome.FAILED
    if said.text("outcome") != outcome.name.lower():
        raise EncodingError("answer.statement.outcome: not that of the state")
    completion = Completion(
        job_id=key.job_id,
        result_hash=said.bytes("result_hash"),
        attestation_proof=AttestationProof(
            outcome=outcome,
            units=said.unsigned("units"),
            started_at=said.unsigned("started_at"),
            finished_at=said.unsigned("finished_at"),
            issued_at=said.unsigned("issued_at"),
            signature=_load_signature(whole.nested("signature")),
        ),
        tee_worker_pubkey=_load_public_key(whole.nested("signing_key")),
    )
    length = whole.unsigned("result_length")
    return WorkerJob(state=state, completion=completion, result_length=length)


def _statement(statement: Statement) -> dict[str, object]:
    return {
        "genesis": _text(statement.genesis_hash),
        "contract": _text(statement.contract),
        "job_id": str(statement.job_id),
        "payload_hash": _text(statement.payload_hash),
        "outcome": statement.outcome.name.lower(),
        "result_hash": _text(statement.result_hash),
        "units": statement.units,
        "measurement": _text(statement.measurement),
        "started_at": statement.started_at,
        "finished_at": statement.finished_at,
        "issued_at": statement.issued_at,
    }


def _job_id(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 39 or str(int(text)) != text:
        raise EncodingError("answer.statement.job_id: must be decimal")
    return int(text)


def dump_identity(identity: WorkerIdentity) -> bytes:
    """Return what a worker says about itself."""
    return _dump(
        {
            "signing_key": _public_key(identity.signing_key),
            "encryption_key": _text(identity.encryption_key),
            "version": identity.version,
            "tasks": list(identity.tasks),
            "capacity": {"slots": identity.slots, "queue": identity.queue},
            "load": {"running": identity.running, "waiting": identity.waiting},
            "tee": identity.tee,
            "development": list(identity.development),
            "retired_keys": [_public_key(key) for key in identity.retired_keys],
        }
    )


def load_identity(body: bytes) -> WorkerIdentity:
    """
    Return what a worker says about itself.

    Raises:
        EncodingError: The answer is not of the protocol; names the field.
    """
    whole = parse_object(body, "answer")
    capacity, load = whole.nested("capacity"), whole.nested("load")
    # Workers of before rotation say nothing of it.
    retired = whole.items("retired_keys", _MAX_RETIRED) if whole.has("retired_keys") else []
    return WorkerIdentity(
        signing_key=_load_public_key(whole.nested("signing_key")),
        encryption_key=whole.bytes("encryption_key"),
        version=whole.text("version"),
        tasks=whole.names("tasks"),
        slots=capacity.unsigned("slots", 32),
        queue=capacity.unsigned("queue", 32),
        running=load.unsigned("running", 32),
        waiting=load.unsigned("waiting", 32),
        tee=None if whole.get("tee") is None else whole.text("tee"),
        development=whole.names("development"),
        retired_keys=tuple(
            _load_public_key(JsonObject(key, "answer.retired_keys")) for key in retired
        ),
    )


def dump_registration_request(request: RegistrationRequest) -> bytes:
    """Return the body that asks for a possession signature."""
    return _dump(
        {
            "genesis": _text(request.genesis),
            "contract": _text(request.contract),
            "measurement": _text(request.measurement),
            "evidence_hash": _text(request.evidence_hash),
            "valid_until": request.valid_until,
            **_named(request.signing_key),
        }
    )


def load_registration_request(body: bytes) -> RegistrationRequest:
    """
    Return what a registrar asks for.

    Raises:
        EncodingError: The body is not of the protocol; names the field.
    """
    fields = ("genesis", "contract", "measurement", "evidence_hash", "valid_until", "signing_key")
    whole = parse_object(body, "body", only=fields)
    return RegistrationRequest(
        genesis=whole.bytes("genesis"),
        contract=whole.bytes("contract"),
        measurement=whole.bytes("measurement"),
        evidence_hash=whole.bytes("evidence_hash"),
        valid_until=whole.unsigned("valid_until"),
        signing_key=_load_named(whole),
    )


def dump_evidence_request(request: EvidenceRequest) -> bytes:
    """Return the body that asks for evidence."""
    return _dump(
        {
            "genesis": _text(request.genesis),
            "contract": _text(request.contract),
            "challenge": _text(request.challenge),
            **_named(request.signing_key),
        }
    )


def load_evidence_request(body: bytes) -> EvidenceRequest:
    """
    Return what evidence is asked for.

    Raises:
        EncodingError: The body is not of the protocol; names the field.
    """
    whole = parse_object(body, "body", only=("genesis", "contract", "challenge", "signing_key"))
    return EvidenceRequest(
        genesis=whole.bytes("genesis"),
        contract=whole.bytes("contract"),
        challenge=whole.bytes("challenge"),
        signing_key=_load_named(whole),
    )


def dump_rotation_request(request: RotationRequest) -> bytes:
    """Return the body that asks for new keys."""
    return _dump({"genesis": _text(request.genesis), "contract": _text(request.contract)})


def load_rotation_request(body: bytes) -> RotationRequest:
    """
    Return at which contract new keys are asked for.

    Raises:
        EncodingError: The body is not of the protocol; names the field.
    """
    whole = parse_object(body, "body", only=("genesis", "contract"))
    return RotationRequest(genesis=whole.bytes("genesis"), contract=whole.bytes("contract"))


def dump_signature(signature: Signature) -> bytes:
    """Return the answer that holds a signature."""
    return _dump({"signature": _signature(signature)})


def load_signature(body: bytes) -> Signature:
    """
    Return the signature in an answer, unverified.

    Raises:
        EncodingError: The answer is not of the protocol; names the field.
    """
    return _load_signature(parse_object(body, "answer").nested("signature"))


def _signature(signature: Signature) -> dict[str, object]:
    return {"scheme": signature.scheme.name.lower(), "data": _text(signature.data)}


def _load_signature(value: JsonObject) -> Signature:
    scheme = _load_scheme(value)
    return Signature(scheme=scheme, data=value.bytes("data", _SIGNATURE_BYTES[scheme]))


def _public_key(key: PublicKey) -> dict[str, object]:
    return {"scheme": key.scheme.name.lower(), "key": _text(key.key)}


def _load_public_key(value: JsonObject) -> PublicKey:
    scheme = _load_scheme(value)
    return PublicKey(scheme=scheme, key=value.bytes("key", _KEY_BYTES[scheme]))


def _named(key: PublicKey | None) -> dict[str, object]:
    return {} if key is None else {"signing_key": _public_key(key)}


def _load_named(whole: JsonObject) -> PublicKey | None:
    if not whole.has("signing_key"):
        return None
    return _load_public_key(whole.nested("signing_key", only=("scheme", "key")))


def _load_scheme(value: JsonObject) -> Scheme:
    name = value.text("scheme")
    for scheme in Scheme:
        if name == scheme.name.lower():
            return scheme
    raise EncodingError(f"scheme: {name[:32]!r}, must be ecdsa or sr25519")
