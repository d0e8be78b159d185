"""
The bytes that workers sign and that quotes bind (protocol sections 3.1 and 3.3).

Integers are little-endian and of fixed width, there are no separators, and each kind of message
begins with its own domain tag, so that no message of one kind is a message of another. The
contract builds the same bytes; `tests/vectors/` holds both to one list of cases.
"""

import hashlib
from collections.abc import Sequence

from orchestrator.encoding.cbor import encode_cbor
from orchestrator.encoding.fields import HASH_LENGTH, fixed, u64, u128
from orchestrator.errors import EncodingError
from orchestrator.models import Outcome, PublicKey, Scheme, Statement, WorkerRegistration

STATEMENT_LENGTH = 248
SIGNING_KEY_LENGTH = 34
SIGNING_KEY_LENGTHS = {Scheme.SR25519: 32, Scheme.ECDSA: 33}
SIGNATURE_LENGTHS = {Scheme.SR25519: 64, Scheme.ECDSA: 65}
# SEC 1, 2.3.3: the first byte of a compressed point is the parity of y.
_COMPRESSED_PREFIXES = (2, 3)

_STATEMENT_TAG = b"\xffphala-job-processor/job-attestation/v1"
_BINDING_TAG = b"\xffphala-job-processor/worker-binding/v1"
_MEASUREMENT_TAG = b"\xffphala-job-processor/measurement/v1"
_REGISTRATION_TAG = b"\xffphala-job-processor/worker-registration/v1"

# The lengths of byte strings in a measurement, `None` for an integer: TDX registers are SHA-384,
# a compose hash is SHA-256, a dstack app id is 20 bytes, SGX measurements are SHA-256.
_MEASUREMENT_FIELDS: dict[str, tuple[int | None, ...]] = {
    "tdx": (48, 48, 48, 48, 32, 20),
    "sgx": (32, 32, None, None),
}
# Whether all of the fields must be there (the first four of TDX), or may be null.
_REQUIRED_FIELDS = {"tdx": 4, "sgx": 0}


def blake2_256(data: bytes) -> bytes:
    """Return the 32-byte BLAKE2b hash of *data*, as the chain computes it."""
    return hashlib.blake2b(data, digest_size=HASH_LENGTH).digest()


def encode_statement(statement: Statement) -> bytes:
    """
    Return the 248 bytes whose hash a worker signs about one job.

    Raises:
        EncodingError: A field does not fit its width.
    """
    return b"".join(
        (
            _STATEMENT_TAG,
            fixed("genesis_hash", statement.genesis_hash),
            fixed("contract", statement.contract),
            u128("job_id", statement.job_id),
            fixed("payload_hash", statement.payload_hash),
            bytes([Outcome(statement.outcome)]),
            fixed("result_hash", statement.result_hash),
            u64("units", statement.units),
            fixed("measurement", statement.measurement),
            u64("started_at", statement.started_at),
            u64("finished_at", statement.finished_at),
            u64("issued_at", statement.issued_at),
        )
    )


def statement_digest(statement: Statement) -> bytes:
    """Return what a worker signs: the hash of `encode_statement`."""
    return blake2_256(encode_statement(statement))


def encode_signing_key(key: PublicKey) -> bytes:
    """
    Return the 34 signing key bytes: scheme, key, and for sr25519 one zero byte at the end.

    Raises:
        EncodingError: The key has not the length, or not the form, of its scheme.
    """
    data = fixed("signing key", key.key, SIGNING_KEY_LENGTHS[key.scheme])
    if key.scheme is Scheme.ECDSA and data[0] not in _COMPRESSED_PREFIXES:
        raise EncodingError(
            f"signing key: first byte {data[0]}, a compressed point begins with 2 or 3"
        )
    return (bytes([key.scheme]) + data).ljust(SIGNING_KEY_LENGTH, b"\0")


def decode_signing_key(data: bytes) -> PublicKey:
    """
    Return the key that `encode_signing_key` writes as *data*.

    Does **not** check that the key is a point of its curve; verifying a signature does.

    Raises:
        EncodingError: The bytes are not the encoding of any key.
    """
    fixed("signing key bytes", data, SIGNING_KEY_LENGTH)
    try:
        scheme = Scheme(data[0])
    except ValueError as error:
        raise EncodingError(f"signing key bytes: unknown scheme {data[0]}") from error
    key = PublicKey(scheme=scheme, key=data[1 : 1 + SIGNING_KEY_LENGTHS[scheme]])
    if encode_signing_key(key) != data:
        raise EncodingError("signing key bytes: the byte after an sr25519 key must be zero")
    return key


def encode_binding(
    *,
    genesis_hash: bytes,
    contract: bytes,
    signing_key: PublicKey,
    encryption_key: bytes,
    challenge: bytes,
) -> bytes:
    """
    Return the bytes that tie a worker's two keys to one chain, contract and challenge.

    Raises:
        EncodingError: A field does not fit its width.
    """
    return b"".join(
        (
            _BINDING_TAG,
            fixed("genesis_hash", genesis_hash),
            fixed("contract", contract),
            encode_signing_key(signing_key),
            fixed("encryption_key", encryption_key),
            fixed("challenge", challenge),
        )
    )


def report_data(binding: bytes) -> bytes:
    """Return the 64 bytes that a TEE quote carries for *binding*."""
    return hashlib.sha512(binding).digest()


def encode_registration(
    registration: WorkerRegistration, *, genesis_hash: bytes, contract: bytes
) -> bytes:
    """
    Return the bytes whose hash a worker signs to prove that it has its signing key.

    The endpoint is not among them: the registrar may change it.

    Raises:
        EncodingError: A field does not fit its width.
    """
    return b"".join(
        (
            _REGISTRATION_TAG,
            fixed("genesis_hash", genesis_hash),
            fixed("contract", contract),
            encode_signing_key(registration.signing_key),
            fixed("encryption_key", registration.encryption_key),
            fixed("measurement", registration.measurement),
            fixed("evidence_hash", registration.evidence_hash),
            u64("valid_until", registration.valid_until),
        )
    )


def registration_digest(
    registration: WorkerRegistration, *, genesis_hash: bytes, contract: bytes
) -> bytes:
    """Return what a worker signs as proof of possession: the hash of `encode_registration`."""
    return blake2_256(
        encode_registration(registration, genesis_hash=genesis_hash, contract=contract)
    )


def measurement_hash(fields: Sequence[object]) -> bytes:
    """
    Return the 32 bytes that stand for a set of TEE measurements on the chain.

    *fields* is `["tdx", mrtd, rtmr0, rtmr1, rtmr2, compose_hash or None, app_id or None]` or
    `["sgx", mrenclave or None, mrsigner or None, isv_prod_id or None, isv_svn or None]`.

    Raises:
        EncodingError: The list is of neither shape.
    """
    kind = fields[0] if fields else None
    if not isinstance(kind, str) or kind not in _MEASUREMENT_FIELDS:
        raise EncodingError(f"measurement: must begin with one of {sorted(_MEASUREMENT_FIELDS)}")
    lengths = _MEASUREMENT_FIELDS[kind]
    if len(fields) != 1 + len(lengths):
        raise EncodingError(f"measurement: {len(fields)} entries, {kind} has {1 + len(lengths)}")
    for place, (value, length) in enumerate(zip(fields[1:], lengths, strict=True), start=1):
        _check_measurement_field(f"measurement[{place}]", value, length)
        if value is None and place <= _REQUIRED_FIELDS[kind]:
            raise EncodingError(f"measurement[{place}]: must not be null for {kind}")
    return blake2_256(_MEASUREMENT_TAG + encode_cbor(list(fields), extended=True))


def _check_measurement_field(name: str, value: object, length: int | None) -> None:
    if value is None:
        return
    if length is not None:
        if not isinstance(value, bytes):
            raise EncodingError(f"{name}: {type(value).__name__}, must be {length} bytes")
        fixed(name, value, length)
    elif isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise EncodingError(f"{name}: {value!r}, must be an unsigned integer")
