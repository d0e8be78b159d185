"""
The format of an envelope: two kinds of header, and the frame around them (protocol 3.4).

Everything here is parsing and writing; nothing is authenticated. Bytes that are not of the format
are an `EncodingError`, which `sealing` turns into its one `OpenError`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.encoding import (
    CborReader,
    decode_cbor,
    decode_signing_key,
    encode_array_head,
    encode_bytes_head,
    encode_cbor,
    encode_signing_key,
)
from orchestrator.errors import EncodingError
from orchestrator.models import JobId, PublicKey

VERSION = 1
# Four workers (protocol 2.1), and the owner.
MAX_RECIPIENTS = 5
WRAP_LENGTH = 80

_JOB_ID_LENGTH = 16
_HEADER_LENGTHS = {
    "genesis": 32,
    "contract": 32,
    "owner": 32,
    "nonce": 16,
    "reply_key": 32,
    "commitment": 32,
    "job_id": _JOB_ID_LENGTH,
    "payload_hash": 32,
    "worker_key": 34,
    "reply_nonce": 16,
}
_JOB_FIELDS = ("genesis", "contract", "owner", "nonce", "reply_key", "commitment")
_RESULT_FIELDS = (
    "genesis",
    "contract",
    "job_id",
    "payload_hash",
    "worker_key",
    "nonce",
    "reply_nonce",
    "commitment",
)


@dataclass(frozen=True, kw_only=True)
class JobHeader:
    """The part of a sealed job that everybody can read."""

    genesis: bytes
    contract: bytes
    owner: bytes
    nonce: bytes
    reply_key: bytes
    recipients: tuple[bytes, ...]
    commitment: bytes


@dataclass(frozen=True, kw_only=True)
class ResultHeader:
    """The part of a sealed result that everybody can read."""

    genesis: bytes
    contract: bytes
    job_id: JobId
    payload_hash: bytes
    worker_key: PublicKey
    nonce: bytes
    reply_nonce: bytes
    commitment: bytes


@dataclass(frozen=True, kw_only=True)
class Frame:
    """An envelope taken apart: its header's bytes, its wraps, and a view of its body."""

    header: bytes
    wraps: tuple[bytes, ...]
    body: memoryview


def encode_job_header(header: JobHeader) -> bytes:
    """
    Return the header's bytes.

    Raises:
        EncodingError: A field has the wrong length, or there are too many or equal recipients.
    """
    fields: dict[str, object] = {name: getattr(header, name) for name in _JOB_FIELDS}
    fields |= {"v": VERSION, "kind": "job", "recipients": list(header.recipients)}
    _check_fields(fields, kind="job", names=_JOB_FIELDS, others={"recipients"})
    _check_recipients(fields["recipients"])
    return encode_cbor(fields)


def encode_result_header(header: ResultHeader) -> bytes:
    """
    Return the header's bytes.

    Raises:
        EncodingError: A field has the wrong length.
    """
    fields: dict[str, object] = {name: getattr(header, name) for name in _RESULT_FIELDS}
    try:
        fields["job_id"] = header.job_id.to_bytes(_JOB_ID_LENGTH, "little")
    except OverflowError as error:
        raise EncodingError(f"job_id: {header.job_id} does not fit 128 unsigned bits") from error
    fields |= {"v": VERSION, "kind": "result", "worker_key": encode_signing_key(header.worker_key)}
    _check_fields(fields, kind="result", names=_RESULT_FIELDS, others=set())
    return encode_cbor(fields)


def decode_job_header(data: bytes) -> JobHeader:
    """
    Return the job header that *data* encodes.

    Raises:
        EncodingError: The bytes are not a job header of version 1.
    """
    fields = _decode(data, kind="job", names=_JOB_FIELDS, others={"recipients"})
    recipients = _check_recipients(fields["recipients"])
    values: dict[str, bytes] = {name: _bytes(name, fields[name]) for name in _JOB_FIELDS}
    return JobHeader(recipients=recipients, **values)


def decode_result_header(data: bytes) -> ResultHeader:
    """
    Return the result header that *data* encodes.

    Raises:
        EncodingError: The bytes are not a result header of version 1.
    """
    fields = _decode(data, kind="result", names=_RESULT_FIELDS, others=set())
    values: dict[str, bytes] = {name: _bytes(name, fields[name]) for name in _RESULT_FIELDS}
    job_id = int.from_bytes(values.pop("job_id"), "little")
    worker_key = decode_signing_key(values.pop("worker_key"))
    return ResultHeader(job_id=job_id, worker_key=worker_key, **values)


def join_frame(header: bytes, wraps: Sequence[bytes], body: Sequence[bytes]) -> bytes:
    """Return the envelope; *body* comes in pieces so that it is copied once."""
    parts = [encode_array_head(3), encode_bytes_head(len(header)), header]
    parts.append(encode_array_head(len(wraps)))
    for wrap in wraps:
        parts += (encode_bytes_head(len(wrap)), wrap)
    parts.append(encode_bytes_head(sum(map(len, body))))
    parts += body
    return b"".join(parts)


def split_frame(envelope: bytes) -> Frame:
    """
    Take an envelope apart; the body is not copied.

    Raises:
        EncodingError: The bytes are not `[header bytes, [wrap…], body]` and nothing else.
    """
    reader = CborReader(envelope)
    if reader.read_array() != 3:
        raise EncodingError("the envelope is not an array of three")
    header = reader.read_bytes()
    count = reader.read_array()
    if not 1 <= count <= MAX_RECIPIENTS:
        raise EncodingError(f"wraps: {count}, must be 1 to {MAX_RECIPIENTS}")
    wraps = tuple(reader.read_bytes() for _ in range(count))
    if any(len(wrap) != WRAP_LENGTH for wrap in wraps):
        raise EncodingError(f"a wrap is not {WRAP_LENGTH} bytes long")
    body = reader.read_bytes_view()
    reader.finish()
    return Frame(header=header, wraps=wraps, body=body)


def _decode(data: bytes, *, kind: str, names: Sequence[str], others: set[str]) -> dict[str, object]:
    fields = decode_cbor(data)
    if not isinstance(fields, dict):
        raise EncodingError("the header is not a map")
    _check_fields(fields, kind=kind, names=names, others=others)
    return fields


def _check_fields(
    fields: dict[str, object], *, kind: str, names: Sequence[str], others: set[str]
) -> None:
    if fields.keys() != {"v", "kind", *names, *others}:
        raise EncodingError(f"the header has not the fields of a {kind} header")
    # `True == 1`, so the type is part of the check.
    if type(fields["v"]) is not int or fields["v"] != VERSION:
        raise EncodingError(f"v: must be {VERSION}")
    if fields["kind"] != kind:
        raise EncodingError(f"kind: must be {kind}")
    for name in names:
        _bytes(name, fields[name])


def _bytes(name: str, value: object) -> bytes:
    length = _HEADER_LENGTHS[name]
    if not isinstance(value, bytes) or len(value) != length:
        raise EncodingError(f"{name}: must be {length} bytes")
    return value


def _check_recipients(value: object) -> tuple[bytes, ...]:
    if not isinstance(value, list) or not 1 <= len(value) <= MAX_RECIPIENTS:
        raise EncodingError(f"recipients: must be 1 to {MAX_RECIPIENTS}")
    if not all(isinstance(key, bytes) and len(key) == 32 for key in value):
        raise EncodingError("recipients: a key is not 32 bytes")
    if len(set(value)) != len(value):
        raise EncodingError("recipients: a key is there twice")
    return tuple(value)
