"""
A second implementation of protocol section 3, for tests only.

It was written from the protocol alone and shares no code with `orchestrator`: HPKE is `pyhpke`,
CBOR is `cbor2`, BLAKE2b and the secretstream are libsodium's own functions, HKDF is a few lines
over `hmac`, statements are `struct`. It takes every random value as an argument, so that vectors
can be made again; nothing in the product can do that.
"""

import hashlib
import hmac
import struct
from dataclasses import dataclass

import cbor2
import nacl.bindings as sodium
from nacl.bindings import crypto_secretstream_xchacha20poly1305_state as new_state
from pyhpke import AEADId, CipherSuite, KDFId, KEMId, KEMKeyPair

CHUNK = 65_536
SUITE = CipherSuite.new(KEMId.DHKEM_X25519_HKDF_SHA256, KDFId.HKDF_SHA256, AEADId.CHACHA20_POLY1305)


def blake2_256(data: bytes) -> bytes:
    return sodium.crypto_generichash_blake2b_salt_personal(data, 32)


def sha512(data: bytes) -> bytes:
    return sodium.crypto_hash_sha512(data)


def hkdf(ikm: bytes, *, salt: bytes, info: bytes) -> bytes:
    """RFC 5869 with SHA-256 and one block of output."""
    extracted = hmac.digest(salt, ikm, "sha256")
    return hmac.digest(extracted, info + b"\x01", "sha256")


def public_key(secret: bytes) -> bytes:
    return sodium.crypto_scalarmult_base(secret)


def reply_secret(owner_secret: bytes, nonce: bytes) -> bytes:
    return hkdf(owner_secret, salt=nonce, info=b"phala-job-processor/reply/v1")


def signing_key_bytes(scheme: str, key: bytes) -> bytes:
    return {"sr25519": b"\x01" + key + b"\x00", "ecdsa": b"\x02" + key}[scheme]


def statement_bytes(fields: dict[str, object]) -> bytes:
    job_id = int(str(fields["job_id"]))
    return struct.pack(
        "<39s32s32sQQ32sB32sQ32sQQQ",
        b"\xffphala-job-processor/job-attestation/v1",
        fields["genesis_hash"],
        fields["contract"],
        job_id & (1 << 64) - 1,
        job_id >> 64,
        fields["payload_hash"],
        {"Completed": 1, "Failed": 2}[str(fields["outcome"])],
        fields["result_hash"],
        fields["units"],
        fields["measurement"],
        fields["started_at"],
        fields["finished_at"],
        fields["issued_at"],
    )


def registration_bytes(fields: dict[str, object], signing_key: bytes) -> bytes:
    tag = b"\xffphala-job-processor/worker-registration/v1"
    return struct.pack(
        f"<{len(tag)}s32s32s34s32s32s32sQ",
        tag,
        fields["genesis_hash"],
        fields["contract"],
        signing_key,
        fields["encryption_key"],
        fields["measurement"],
        fields["evidence_hash"],
        fields["valid_until"],
    )


def binding_bytes(fields: dict[str, bytes], signing_key: bytes) -> bytes:
    tag = b"\xffphala-job-processor/worker-binding/v1"
    return struct.pack(
        f"<{len(tag)}s32s32s34s32s32s",
        tag,
        fields["genesis_hash"],
        fields["contract"],
        signing_key,
        fields["encryption_key"],
        fields["challenge"],
    )


def measurement_bytes(fields: list[object]) -> bytes:
    return b"\xffphala-job-processor/measurement/v1" + dump(fields)


def padded_length(length: int) -> int:
    total = 8 + length
    exponent = total.bit_length() - 1
    granularity = 1 << exponent - exponent.bit_length()
    return max(256, total + -total % granularity)


@dataclass(frozen=True, kw_only=True)
class Randomness:
    """All that is random in an envelope; `ephemerals` has one X25519 secret per recipient."""

    cek: bytes
    nonce: bytes
    stream_header: bytes
    ephemerals: tuple[bytes, ...]


def commitment(randomness: Randomness) -> bytes:
    return hkdf(randomness.cek, salt=randomness.nonce, info=b"commit")


def header_hash(header_bytes: bytes) -> bytes:
    return hashlib.sha256(b"\xffphala-job-processor/envelope/v1" + header_bytes).digest()


def pad(plaintext: bytes) -> bytes:
    padding = bytes(padded_length(len(plaintext)) - 8 - len(plaintext))
    return struct.pack("<Q", len(plaintext)) + plaintext + padding


def split(padded: bytes) -> list[bytes]:
    return [padded[start : start + CHUNK] for start in range(0, len(padded), CHUNK)]


def seal(
    plaintext: bytes,
    header: dict[str, object],
    *,
    recipients: list[bytes],
    randomness: Randomness,
) -> bytes:
    """Seal under a complete header; whether it makes sense is the caller's business."""
    header_bytes = dump(header)
    hashed = header_hash(header_bytes)
    wraps = [
        wrap(randomness.cek, key, header_hash=hashed, ephemeral=ephemeral)
        for key, ephemeral in zip(recipients, randomness.ephemerals, strict=True)
    ]
    chunks = split(pad(plaintext))
    tags = [0] * (len(chunks) - 1) + [3]
    body = stream(chunks, tags, header_hash=hashed, randomness=randomness)
    return dump([header_bytes, wraps, body])


def dump(value: object) -> bytes:
    """
    Return canonical CBOR.

    `canonical` of cbor2 sorts keys by length first; for text keys that is the bytewise order of
    their encodings, because these begin with the length.
    """
    return bytes(cbor2.dumps(value, canonical=True))


def wrap(cek: bytes, recipient: bytes, *, header_hash: bytes, ephemeral: bytes) -> bytes:
    pair = KEMKeyPair(
        SUITE.kem.deserialize_private_key(ephemeral),
        SUITE.kem.deserialize_public_key(public_key(ephemeral)),
    )
    info = b"\xffphala-job-processor/wrap/v1" + header_hash + recipient
    enc, context = SUITE.create_sender_context(
        SUITE.kem.deserialize_public_key(recipient), info, eks=pair
    )
    return enc + context.seal(cek)


def stream(
    chunks: list[bytes], tags: list[int], *, header_hash: bytes, randomness: Randomness
) -> bytes:
    """
    Make a secretstream with a header that is given.

    libsodium draws the header inside `init_push`; the state that `init_pull` makes of a header
    is the one that `init_push` returned with it, so that pushing goes on from there.
    """
    state = new_state()
    key = hkdf(randomness.cek, salt=randomness.nonce, info=b"body")
    sodium.crypto_secretstream_xchacha20poly1305_init_pull(state, randomness.stream_header, key)
    return randomness.stream_header + b"".join(
        sodium.crypto_secretstream_xchacha20poly1305_push(state, chunk, header_hash, tag)
        for chunk, tag in zip(chunks, tags, strict=True)
    )


def open_envelope(envelope: bytes, secret: bytes) -> tuple[dict[str, object], bytes]:
    """Open with a recipient's X25519 secret; any exception means that it did not open."""
    header_bytes, wraps, body = cbor2.loads(envelope)
    header = cbor2.loads(header_bytes)
    hashed = header_hash(header_bytes)
    mine = public_key(secret)
    place = header["recipients"].index(mine) if header["kind"] == "job" else 0
    info = b"\xffphala-job-processor/wrap/v1" + hashed + mine
    context = SUITE.create_recipient_context(
        wraps[place][:32], SUITE.kem.deserialize_private_key(secret), info
    )
    cek = context.open(wraps[place][32:])
    if hkdf(cek, salt=header["nonce"], info=b"commit") != header["commitment"]:
        raise ValueError("commitment")
    state = new_state()
    key = hkdf(cek, salt=header["nonce"], info=b"body")
    sodium.crypto_secretstream_xchacha20poly1305_init_pull(state, body[:24], key)
    padded, tag = b"", 0
    for start in range(24, len(body), CHUNK + 17):
        if tag != 0:
            raise ValueError("tag")
        sealed = body[start : start + CHUNK + 17]
        chunk, tag = sodium.crypto_secretstream_xchacha20poly1305_pull(state, sealed, hashed)
        padded += chunk
    (length,) = struct.unpack("<Q", padded[:8])
    if tag != 3 or len(padded) != padded_length(length) or any(padded[8 + length :]):
        raise ValueError("padding")
    return header, padded[8 : 8 + length]
