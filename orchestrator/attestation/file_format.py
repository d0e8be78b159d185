"""
The JSON of an attestation file, version 1: `dump_attestation_file` and `load_attestation_file`.

Bytes are `0x` and lower-case hex, times and counts are numbers, the job id (128 bits) is a decimal
string. A file has exactly the keys of its version, each once; everything else is an
`EncodingError` that names the place.
"""

import json
from collections.abc import Callable
from enum import Enum
from typing import NoReturn, TypeVar

from orchestrator.attestation.file import AttestationFile, WorkerFacts
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

T = TypeVar("T")
E = TypeVar("E", bound=Enum)

FORMAT = "phala-jobs attestation"
VERSION = 1
MAX_FILE_LENGTH = 65_536

_OUTCOMES = {"Completed": Outcome.COMPLETED, "Failed": Outcome.FAILED}
_SCHEMES = {"sr25519": Scheme.SR25519, "ecdsa": Scheme.ECDSA}
_STATUSES = {status.value: status for status in JobStatus}
_MAX_WORKERS = 4
_MAX_NAME_SHOWN = 40


def dump_attestation_file(file: AttestationFile) -> str:
    """Return the file's text; equal files give equal text."""
    job, worker, completion = file.job, file.worker, file.completion
    proof = completion.attestation_proof
    document = {
        "format": FORMAT,
        "version": VERSION,
        "genesis_hash": _hex(file.genesis_hash),
        "contract": _hex(file.contract),
        "job": {
            "job_id": str(job.job_id),
            "owner": _hex(job.owner),
            "status": job.status.value,
            "created_at": job.created_at,
            "deadline": job.deadline,
            "payload_hash": _hex(job.payload_hash),
            "workers": list(job.workers),
            "processed_at": job.processed_at,
        },
        "worker": {
            "worker": worker.worker,
            "signing_key": _dump_key(worker.signing_key),
            "encryption_key": _hex(worker.encryption_key),
            "measurement": _hex(worker.measurement),
            "evidence_hash": _hex(worker.evidence_hash),
            "valid_until": worker.valid_until,
        },
        "statement": {
            "job_id": str(completion.job_id),
            "outcome": _name_of(_OUTCOMES, proof.outcome),
            "result_hash": _hex(completion.result_hash),
            "units": proof.units,
            "started_at": proof.started_at,
            "finished_at": proof.finished_at,
            "issued_at": proof.issued_at,
            "tee_worker_pubkey": _dump_key(completion.tee_worker_pubkey),
            "signature": {
                "scheme": _name_of(_SCHEMES, proof.signature.scheme),
                "data": _hex(proof.signature.data),
            },
        },
        "recorded_at": file.recorded_at,
    }
    return json.dumps(document, indent=2) + "\n"


def load_attestation_file(data: bytes | str) -> AttestationFile:
    """
    Return the attestation file in *data*.

    Does **not** verify anything: `verify_attestation_file` does.

    Raises:
        EncodingError: It is too long, not JSON, or not exactly of the format; the place is named.
    """
    root = _Object("", _parse(data))
    if root.take("format", _text) != FORMAT:
        raise EncodingError(f"format: must be {FORMAT!r}")
    version = root.take("version", _u64)
    if version != VERSION:
        raise EncodingError(f"version: {version}, this program reads {VERSION}")
    file = AttestationFile(
        genesis_hash=root.take("genesis_hash", _hash),
        contract=root.take("contract", _hash),
        job=_load_job(root.enter("job")),
        worker=_load_worker(root.enter("worker")),
        completion=_load_completion(root.enter("statement")),
        recorded_at=root.take("recorded_at", _u64),
    )
    root.finish()
    return file


class _Object:
    """One JSON object, read key by key; what is left over is refused."""

    def __init__(self, path: str, value: object) -> None:
        if not isinstance(value, dict):
            raise EncodingError(f"{path or 'file'}: must be an object")
        self._path = path
        self._rest: dict[str, object] = dict(value)

    def take(self, key: str, read: Callable[[str, object], T]) -> T:
        path = self._path_of(key)
        if key not in self._rest:
            raise EncodingError(f"{path}: missing")
        return read(path, self._rest.pop(key))

    def enter(self, key: str) -> "_Object":
        return self.take(key, _Object)

    def finish(self) -> None:
        if self._rest:
            # The one name that the file's author chose: it must not fill a screen, nor drive one.
            name = ascii(min(self._rest))[1:-1]
            short = name if len(name) <= _MAX_NAME_SHOWN else name[:_MAX_NAME_SHOWN] + "..."
            raise EncodingError(f"{self._path_of(short)}: unknown")

    def _path_of(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key


def _load_job(fields: _Object) -> JobHead:
    job = JobHead(
        job_id=fields.take("job_id", _job_id),
        owner=fields.take("owner", _hash),
        status=fields.take("status", lambda path, value: _one_of(path, value, _STATUSES)),
        created_at=fields.take("created_at", _u64),
        deadline=fields.take("deadline", _u64),
        payload_hash=fields.take("payload_hash", _hash),
        workers=fields.take("workers", _workers),
        processed_at=fields.take(
            "processed_at", lambda path, value: None if value is None else _u64(path, value)
        ),
    )
    fields.finish()
    return job


def _load_worker(fields: _Object) -> WorkerFacts:
    worker = WorkerFacts(
        worker=fields.take("worker", _u32),
        signing_key=_load_key(fields.enter("signing_key")),
        encryption_key=fields.take("encryption_key", _hash),
        measurement=fields.take("measurement", _hash),
        evidence_hash=fields.take("evidence_hash", _hash),
        valid_until=fields.take("valid_until", _u64),
    )
    fields.finish()
    return worker


def _load_completion(fields: _Object) -> Completion:
    completion = Completion(
        job_id=fields.take("job_id", _job_id),
        result_hash=fields.take("result_hash", _hash),
        attestation_proof=AttestationProof(
            outcome=fields.take("outcome", lambda path, value: _one_of(path, value, _OUTCOMES)),
            units=fields.take("units", _u64),
            started_at=fields.take("started_at", _u64),
            finished_at=fields.take("finished_at", _u64),
            issued_at=fields.take("issued_at", _u64),
            signature=_load_signature(fields.enter("signature")),
        ),
        tee_worker_pubkey=_load_key(fields.enter("tee_worker_pubkey")),
    )
    fields.finish()
    return completion


def _load_key(fields: _Object) -> PublicKey:
    scheme = fields.take("scheme", lambda path, value: _one_of(path, value, _SCHEMES))
    key = fields.take("key", lambda path, value: _bytes(path, value, SIGNING_KEY_LENGTHS[scheme]))
    fields.finish()
    return PublicKey(scheme=scheme, key=key)


def _load_signature(fields: _Object) -> Signature:
    scheme = fields.take("scheme", lambda path, value: _one_of(path, value, _SCHEMES))
    data = fields.take("data", lambda path, value: _bytes(path, value, SIGNATURE_LENGTHS[scheme]))
    fields.finish()
    return Signature(scheme=scheme, data=data)


def _parse(data: bytes | str) -> object:
    if len(data) > MAX_FILE_LENGTH:
        raise EncodingError(f"file: {len(data)} long, at most {MAX_FILE_LENGTH}")
    try:
        text = data.decode() if isinstance(data, bytes) else data
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise EncodingError(f"file: not JSON ({error})") from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise EncodingError("file: a key is there twice in one object")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise EncodingError(f"file: {name} is not JSON")


def _text(path: str, value: object) -> str:
    if not isinstance(value, str):
        raise EncodingError(f"{path}: must be text")
    return value


def _hash(path: str, value: object) -> bytes:
    return _bytes(path, value, 32)


def _bytes(path: str, value: object, length: int) -> bytes:
    text = _text(path, value)
    digits = text[2:]
    if (
        not text.startswith("0x")
        or len(digits) != 2 * length
        or not set(digits) <= set("0123456789abcdef")
    ):
        raise EncodingError(f"{path}: must be 0x and {2 * length} lower-case hex digits")
    return bytes.fromhex(digits)


def _u64(path: str, value: object) -> int:
    return _integer(path, value, 64)


def _u32(path: str, value: object) -> int:
    return _integer(path, value, 32)


def _integer(path: str, value: object, bits: int) -> int:
    # A JSON `true` is a Python int.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise EncodingError(f"{path}: must be an integer of {bits} unsigned bits")
    return value


def _job_id(path: str, value: object) -> int:
    text = _text(path, value)
    if not (text.isascii() and text.isdigit()) or len(text) > 39 or text != str(int(text)):
        raise EncodingError(f"{path}: must be a decimal number as text")
    return _integer(path, int(text), 128)


def _workers(path: str, value: object) -> tuple[int, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= _MAX_WORKERS:
        raise EncodingError(f"{path}: must be a list of 1 to {_MAX_WORKERS}")
    return tuple(_u32(f"{path}[{place}]", item) for place, item in enumerate(value))


def _one_of(path: str, value: object, choices: dict[str, E]) -> E:
    if not isinstance(value, str) or value not in choices:
        raise EncodingError(f"{path}: must be one of {', '.join(choices)}")
    return choices[value]


def _name_of(choices: dict[str, E], value: E) -> str:
    return next(name for name, choice in choices.items() if choice is value)


def _dump_key(key: PublicKey) -> dict[str, str]:
    return {"scheme": _name_of(_SCHEMES, key.scheme), "key": _hex(key.key)}


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
