"""
Envelopes: jobs sealed to workers, results sealed to owners (protocol section 3.4).

An envelope has a header that everybody can read and nobody can change, one wrap of the content
key per recipient (HPKE), and a body (secretstream) under that key. The header commits to the
content key, so that two recipients can't be shown two plaintexts.

Whatever makes opening fail is one `OpenError` with one message and no cause: no oracle. What the
header says is authenticated once the envelope opened; whether it is the header of the job at
hand is another question, answered by `verify_job_header` and by `attestation.verify_result`.

The wraps of *other* recipients are not authenticated by opening: the hash of the whole envelope
(`payload_hash`, `result_hash`) does that, so compare it first.
"""

import hashlib
import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite

from orchestrator.crypto.headers import (
    MAX_RECIPIENTS,
    Frame,
    JobHeader,
    ResultHeader,
    decode_job_header,
    decode_result_header,
    encode_job_header,
    encode_result_header,
    join_frame,
    split_frame,
)
from orchestrator.crypto.keys import (
    NONCE_LENGTH,
    EncryptionKey,
    OwnerSecret,
    derive_key,
    verify_reply_key,
)
from orchestrator.crypto.stream import body_length, open_body, seal_body
from orchestrator.errors import EncodingError, InputError, OpenError
from orchestrator.models import JobId, PublicKey

__all__ = [
    "MAX_ENVELOPE",
    "MAX_PLAINTEXT",
    "JobHeader",
    "OpenedJob",
    "OpenedResult",
    "ResultHeader",
    "SealedJob",
    "open_job",
    "open_result",
    "read_job_header",
    "read_result_header",
    "seal_job",
    "seal_result",
    "verify_job_header",
]

MAX_PLAINTEXT = 16 * 1024 * 1024

_ENVELOPE_TAG = b"\xffphala-job-processor/envelope/v1"
_WRAP_TAG = b"\xffphala-job-processor/wrap/v1"
_CONTENT_KEY_LENGTH = 32
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
_MAX_BODY = body_length(MAX_PLAINTEXT)
# The longest header is 432 bytes and five wraps with their heads are 410; a test holds this.
MAX_ENVELOPE = _MAX_BODY + 1_024


@dataclass(frozen=True, kw_only=True)
class SealedJob:
    """A sealed job and its header; the header's nonce is all that an owner may want to note."""

    envelope: bytes
    header: JobHeader


@dataclass(frozen=True, kw_only=True)
class OpenedJob:
    """A job that opened: its header is authentic, and `plaintext` is what was sealed."""

    header: JobHeader
    plaintext: bytes

    def __repr__(self) -> str:
        return f"OpenedJob(header={self.header!r}, plaintext=<{len(self.plaintext)} bytes>)"


@dataclass(frozen=True, kw_only=True)
class OpenedResult:
    """A result that opened: its header is authentic, and `plaintext` is what was sealed."""

    header: ResultHeader
    plaintext: bytes

    def __repr__(self) -> str:
        return f"OpenedResult(header={self.header!r}, plaintext=<{len(self.plaintext)} bytes>)"


def seal_job(
    plaintext: bytes,
    *,
    genesis: bytes,
    contract: bytes,
    owner: bytes,
    secret: OwnerSecret,
    recipients: Sequence[bytes],
    owner_can_read: bool = True,
) -> SealedJob:
    """
    Seal a job to the encryption keys of its workers, in the owner's order of preference.

    With *owner_can_read* the reply key is the last recipient, so that owners can read
    their own history.

    Does **not** check that the recipients are trusted workers (protocol rule 1.5).

    Raises:
        InputError: The plaintext is too long, or a key can't be sealed to.
    """
    _check_plaintext(plaintext)
    for place, key in enumerate(recipients):
        _check_key(f"recipients[{place}]", key)
    if not 1 <= len(recipients) < MAX_RECIPIENTS:
        raise InputError(f"recipients: {len(recipients)}, must be 1 to {MAX_RECIPIENTS - 1}")
    content_key, nonce = _new_content_key()
    reply_key = secret.reply_key(nonce).public_key
    header = JobHeader(
        genesis=genesis,
        contract=contract,
        owner=owner,
        nonce=nonce,
        reply_key=reply_key,
        recipients=(*recipients, reply_key) if owner_can_read else tuple(recipients),
        commitment=_commitment(content_key, nonce),
    )
    try:
        header_bytes = encode_job_header(header)
    except EncodingError as error:
        raise InputError(str(error)) from error
    envelope = _seal(plaintext, header_bytes, header.recipients, content_key, nonce)
    return SealedJob(envelope=envelope, header=header)


def read_job_header(envelope: bytes) -> JobHeader:
    """
    Return the header of a sealed job, parsed.

    Does **not** authenticate it: only opening does.

    Raises:
        OpenError: The bytes are not a sealed job.
    """
    parsed = _parse_job(envelope)
    if parsed is None:
        raise OpenError
    return parsed[1]


def open_job(envelope: bytes, key: EncryptionKey) -> OpenedJob:
    """
    Open a sealed job with one of its recipients' keys.

    1. The envelope and its header are of the one format, kind `job`, with a wrap per recipient.
    2. The key is one of the recipients.
    3. Its wrap opens, bound to the header and to the key.
    4. The content key is the one that the header commits to, before any of the body is opened.
    5. The body opens to its end, bound to the header, and its padding is right.

    Does **not** check that the header is the one of the job at hand: `verify_job_header` does.

    Raises:
        OpenError: The envelope did not open. Never says why.
    """
    parsed = _parse_job(envelope)  # 1.
    if parsed is None:
        raise OpenError
    frame, header = parsed
    if key.public_key not in header.recipients:  # 2.
        raise OpenError
    wrap = frame.wraps[header.recipients.index(key.public_key)]
    plaintext = _open(frame, wrap, key, nonce=header.nonce, commitment=header.commitment)  # 3. - 5.
    if plaintext is None:
        raise OpenError
    return OpenedJob(header=header, plaintext=plaintext)


def verify_job_header(
    header: JobHeader,
    *,
    genesis: bytes,
    contract: bytes,
    owner: bytes,
    reply_key: bytes,
    recipients: Sequence[bytes],
) -> None:
    """
    Return if an opened job is the one that the chain's head describes.

    1. Chain, contract, owner and reply key are those of the head.
    2. The recipients are the encryption keys of the job's workers in order, optionally followed
       by the reply key, so that there is no other reader.

    Does **not** check that the envelope hashes to the job's payload hash.

    Raises:
        OpenError: It is not. Never says why.
    """
    expected = replace(header, genesis=genesis, contract=contract, owner=owner, reply_key=reply_key)
    if header != expected:  # 1.
        raise OpenError
    readers = tuple(recipients)
    if header.recipients not in (readers, (*readers, reply_key)):  # 2.
        raise OpenError


def seal_result(
    plaintext: bytes,
    *,
    genesis: bytes,
    contract: bytes,
    job_id: JobId,
    payload_hash: bytes,
    worker_key: PublicKey,
    reply_nonce: bytes,
    reply_key: bytes,
) -> bytes:
    """
    Seal a result to a job's reply key and return the envelope.

    *reply_key* must come from the opened job's header, never from a request.

    Raises:
        InputError: The plaintext is too long, or the reply key can't be sealed to.
    """
    _check_plaintext(plaintext)
    _check_key("reply_key", reply_key)
    content_key, nonce = _new_content_key()
    header = ResultHeader(
        genesis=genesis,
        contract=contract,
        job_id=job_id,
        payload_hash=payload_hash,
        worker_key=worker_key,
        nonce=nonce,
        reply_nonce=reply_nonce,
        commitment=_commitment(content_key, nonce),
    )
    try:
        header_bytes = encode_result_header(header)
    except EncodingError as error:
        raise InputError(str(error)) from error
    return _seal(plaintext, header_bytes, (reply_key,), content_key, nonce)


def read_result_header(envelope: bytes) -> ResultHeader:
    """
    Return the header of a sealed result, parsed.

    Does **not** authenticate it: only opening does.

    Raises:
        OpenError: The bytes are not a sealed result.
    """
    parsed = _parse_result(envelope)
    if parsed is None:
        raise OpenError
    return parsed[1]


def open_result(envelope: bytes, *, secret: OwnerSecret) -> OpenedResult:
    """
    Open a sealed result; the header's `reply_nonce` says which of the owner's keys it is for.

    The checks are those of `open_job`, with kind `result` and exactly one wrap.

    Does **not** check who made it: call `attestation.verify_result` first.

    Raises:
        OpenError: The envelope did not open. Never says why.
    """
    parsed = _parse_result(envelope)
    if parsed is None:
        raise OpenError
    frame, header = parsed
    key = secret.reply_key(header.reply_nonce)
    plaintext = _open(frame, frame.wraps[0], key, nonce=header.nonce, commitment=header.commitment)
    if plaintext is None:
        raise OpenError
    return OpenedResult(header=header, plaintext=plaintext)


def _parse_job(envelope: bytes) -> tuple[Frame, JobHeader] | None:
    try:
        frame = split_frame(envelope)
        header = decode_job_header(frame.header)
    except EncodingError:
        return None
    return (frame, header) if len(frame.wraps) == len(header.recipients) else None


def _parse_result(envelope: bytes) -> tuple[Frame, ResultHeader] | None:
    try:
        frame = split_frame(envelope)
        header = decode_result_header(frame.header)
    except EncodingError:
        return None
    return (frame, header) if len(frame.wraps) == 1 else None


def _seal(
    plaintext: bytes,
    header: bytes,
    recipients: Sequence[bytes],
    content_key: bytes,
    nonce: bytes,
) -> bytes:
    header_hash = _header_hash(header)
    wraps = [
        _SUITE.encrypt(
            content_key, X25519PublicKey.from_public_bytes(key), _wrap_info(header_hash, key)
        )
        for key in recipients
    ]
    body = seal_body(plaintext, key=_body_key(content_key, nonce), associated=header_hash)
    return join_frame(header, wraps, body)


def _open(
    frame: Frame, wrap: bytes, key: EncryptionKey, *, nonce: bytes, commitment: bytes
) -> bytes | None:
    """Return the plaintext, `None` when anything is wrong: the caller's error then has no cause."""
    if len(frame.body) > _MAX_BODY:
        return None
    header_hash = _header_hash(frame.header)
    try:
        content_key = _SUITE.decrypt(wrap, key.private_key, _wrap_info(header_hash, key.public_key))
    except (InvalidTag, ValueError):
        # ValueError: the sender's key is a point of small order.
        return None
    if not hmac.compare_digest(_commitment(content_key, nonce), commitment):
        return None
    try:
        return open_body(frame.body, key=_body_key(content_key, nonce), associated=header_hash)
    except EncodingError:
        return None


def _new_content_key() -> tuple[bytes, bytes]:
    return secrets.token_bytes(_CONTENT_KEY_LENGTH), secrets.token_bytes(NONCE_LENGTH)


def _commitment(content_key: bytes, nonce: bytes) -> bytes:
    return derive_key(content_key, salt=nonce, info=b"commit")


def _body_key(content_key: bytes, nonce: bytes) -> bytes:
    return derive_key(content_key, salt=nonce, info=b"body")


def _header_hash(header: bytes) -> bytes:
    return hashlib.sha256(_ENVELOPE_TAG + header).digest()


def _wrap_info(header_hash: bytes, recipient: bytes) -> bytes:
    return _WRAP_TAG + header_hash + recipient


def _check_plaintext(plaintext: bytes) -> None:
    if len(plaintext) > MAX_PLAINTEXT:
        raise InputError(f"plaintext: {len(plaintext)} bytes, at most {MAX_PLAINTEXT} are sealed")


def _check_key(name: str, key: bytes) -> None:
    try:
        verify_reply_key(key)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error
