"""
The JSON of an attestation file, version 1: `dump_attestation_file` and `load_attestation_file`.

Bytes are `0x` and lower-case hex, times and counts are numbers, the job id (128 bits) is a decimal
string. A file has exactly the keys of its version, each once; everything else is an
`EncodingError` that names the place.
"""

import json
from enum import Enum
from typing import TypeVar

from orchestrator.attestation.file import AttestationFile, WorkerFacts
from orchestrator.attestation.json_fields import (
    JsonObject,
    hex_text,
    load_json,
    read_bytes,
    read_hash,
    read_integer,
    read_text,
    read_u32,
    read_u64,
)
from orchestrator.encoding import SIGNATURE_LENGTHS, SIGNING_KEY_LENGTHS
from orchestrator.errors import EncodingError
from orchestrator.models import (
    AttestationProof,
    Completion,
    JobHead,
    JobStatus,
    Outcome,
    PublicKey,
    Scheme,
    Signature,
)

E = TypeVar("E", bound=Enum)

FORMAT = "phala-jobs attestation"
VERSION = 1
MAX_FILE_LENGTH = 65_536

_OUTCOMES = {"Completed": Outcome.COMPLETED, "Failed": Outcome.FAILED}
_SCHEMES = {"sr25519": Scheme.SR25519, "ecdsa": Scheme.ECDSA}
_STATUSES = {status.value: status for status in JobStatus}
_MAX_WORKERS = 4


def dump_attestation_file(file: AttestationFile) -> str:
    """Return the file's text; equal files give equal text."""
    return json.dumps(attestation_document(file), indent=2) + "\n"


def attestation_document(file: AttestationFile) -> dict[str, object]:
    """Return the file's JSON object."""
    job, worker, completion = file.job, file.worker, file.completion
    proof = completion.attestation_proof
    return {
        "format": FORMAT,
        "version": VERSION,
        "genesis_hash": hex_text(file.genesis_hash),
        "contract": hex_text(file.contract),
        "job": {
            "job_id": str(job.job_id),
            "owner": hex_text(job.owner),
            "status": job.status.value,
            "created_at": job.created_at,
            "deadline": job.deadline,
            "payload_hash": hex_text(job.payload_hash),
            "workers": list(job.workers),
            "processed_at": job.processed_at,
        },
        "worker": {
            "worker": worker.worker,
            "signing_key": _dump_key(worker.signing_key),
            "encryption_key": hex_text(worker.encryption_key),
            "measurement": hex_text(worker.measurement),
            "evidence_hash": hex_text(worker.evidence_hash),
            "valid_until": worker.valid_until,
        },
        "statement": {
            "job_id": str(completion.job_id),
            "outcome": _name_of(_OUTCOMES, proof.outcome),
            "result_hash": hex_text(completion.result_hash),
            "units": proof.units,
            "started_at": proof.started_at,
            "finished_at": proof.finished_at,
            "issued_at": proof.issued_at,
            "tee_worker_pubkey": _dump_key(completion.tee_worker_pubkey),
            "signature": {
                "scheme": _name_of(_SCHEMES, proof.signature.scheme),
                "data": hex_text(proof.signature.data),
            },
        },
        "recorded_at": file.recorded_at,
    }


def load_attestation_file(data: bytes | str) -> AttestationFile:
    """
    Return the attestation file in *data*.

    Does **not** verify anything: `verify_attestation_file` does.

    Raises:
        EncodingError: It is too long, not JSON, or not exactly of the format; the place is named.
    """
    return read_attestation("", load_json(data, limit=MAX_FILE_LENGTH))


def read_attestation(path: str, value: object) -> AttestationFile:
    """Return the attestation file in a JSON object that stands at *path*; raises as loading."""
    root = JsonObject(path, value)
    if root.take("format", read_text) != FORMAT:
        raise EncodingError(f"format: must be {FORMAT!r}")
    version = root.take("version", read_u64)
    if version != VERSION:
        raise EncodingError(f"version: {version}, this program reads {VERSION}")
    file = AttestationFile(
        genesis_hash=root.take("genesis_hash", read_hash),
        contract=root.take("contract", read_hash),
        job=_load_job(root.enter("job")),
        worker=_load_worker(root.enter("worker")),
        completion=_load_completion(root.enter("statement")),
        recorded_at=root.take("recorded_at", read_u64),
    )
    root.finish()
    return file


def _load_job(fields: JsonObject) -> JobHead:
    job = JobHead(
        job_id=fields.take("job_id", _job_id),
        owner=fields.take("owner", read_hash),
        status=fields.take("status", lambda path, value: _one_of(path, value, _STATUSES)),
        created_at=fields.take("created_at", read_u64),
        deadline=fields.take("deadline", read_u64),
        payload_hash=fields.take("payload_hash", read_hash),
        workers=fields.take("workers", _workers),
        processed_at=fields.take(
            "processed_at", lambda path, value: None if value is None else read_u64(path, value)
        ),
    )
    fields.finish()
    return job


def _load_worker(fields: JsonObject) -> WorkerFacts:
    worker = WorkerFacts(
        worker=fields.take("worker", read_u32),
        signing_key=_load_key(fields.enter("signing_key")),
        encryption_key=fields.take("encryption_key", read_hash),
        measurement=fields.take("measurement", read_hash),
        evidence_hash=fields.take("evidence_hash", read_hash),
        valid_until=fields.take("valid_until", read_u64),
    )
    fields.finish()
    return worker


def _load_completion(fields: JsonObject) -> Completion:
    completion = Completion(
        job_id=fields.take("job_id", _job_id),
        result_hash=fields.take("result_hash", read_hash),
        attestation_proof=AttestationProof(
            outcome=fields.take("outcome", lambda path, value: _one_of(path, value, _OUTCOMES)),
            units=fields.take("units", read_u64),
            started_at=fields.take("started_at", read_u64),
            finished_at=fields.take("finished_at", read_u64),
            issued_at=fields.take("issued_at", read_u64),
            signature=_load_signature(fields.enter("signature")),
        ),
        tee_worker_pubkey=_load_key(fields.enter("tee_worker_pubkey")),
    )
    fields.finish()
    return completion


def _load_key(fields: JsonObject) -> PublicKey:
    scheme = fields.take("scheme", lambda path, value: _one_of(path, value, _SCHEMES))
    key = fields.take(
        "key", lambda path, value: read_bytes(path, value, SIGNING_KEY_LENGTHS[scheme])
    )
    fields.finish()
    return PublicKey(scheme=scheme, key=key)


def _load_signature(fields: JsonObject) -> Signature:
    scheme = fields.take("scheme", lambda path, value: _one_of(path, value, _SCHEMES))
    data = fields.take(
        "data", lambda path, value: read_bytes(path, value, SIGNATURE_LENGTHS[scheme])
    )
    fields.finish()
    return Signature(scheme=scheme, data=data)


def _job_id(path: str, value: object) -> int:
    text = read_text(path, value)
    if not (text.isascii() and text.isdigit()) or len(text) > 39 or text != str(int(text)):
        raise EncodingError(f"{path}: must be a decimal number as text")
    return read_integer(path, int(text), 128)


def _workers(path: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MAX_WORKERS:
        raise EncodingError(f"{path}: must be a list of 1 to {_MAX_WORKERS}")
    return tuple(read_u32(f"{path}[{place}]", item) for place, item in enumerate(value))


def _one_of(path: str, value: object, choices: dict[str, E]) -> E:
    if not isinstance(value, str) or value not in choices:
        raise EncodingError(f"{path}: must be one of {', '.join(choices)}")
    return choices[value]


def _name_of(choices: dict[str, E], value: E) -> str:
    return next(name for name, choice in choices.items() if choice is value)


def _dump_key(key: PublicKey) -> dict[str, str]:
    return {"scheme": _name_of(_SCHEMES, key.scheme), "key": hex_text(key.key)}
