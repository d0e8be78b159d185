"""Sealing and opening beside the primitives that they are made of."""

import secrets
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from nacl import bindings

from benchmarks.table import Table, number, per_second
from orchestrator.crypto import EncryptionKey, OwnerSecret, open_job, seal_job

SIZES = (("1 KiB", 1 << 10), ("8 KiB", 8 << 10), ("1 MiB", 1 << 20))
CHUNK = 65_536
_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)


def _secretstream_seal(plaintext: bytes, key: bytes) -> list[bytes]:
    state = bindings.crypto_secretstream_xchacha20poly1305_state()
    parts = [bindings.crypto_secretstream_xchacha20poly1305_init_push(state, key)]
    for start in range(0, len(plaintext), CHUNK):
        chunk = plaintext[start : start + CHUNK]
        parts.append(bindings.crypto_secretstream_xchacha20poly1305_push(state, chunk))
    return parts


def _secretstream_open(parts: list[bytes], key: bytes) -> None:
    state = bindings.crypto_secretstream_xchacha20poly1305_state()
    bindings.crypto_secretstream_xchacha20poly1305_init_pull(state, parts[0], key)
    for part in parts[1:]:
        bindings.crypto_secretstream_xchacha20poly1305_pull(state, part)


def _rates(size: int) -> dict[str, float]:
    plaintext = secrets.token_bytes(size)
    worker = EncryptionKey.generate()
    secret = OwnerSecret.generate()
    ids = {"genesis": bytes(32), "contract": bytes(32), "owner": bytes(32)}

    def seal() -> bytes:
        return seal_job(
            plaintext, **ids, secret=secret, recipients=[worker.public_key], owner_can_read=False
        ).envelope

    envelope = seal()
    private = X25519PrivateKey.generate()
    sealed_by_hpke = _SUITE.encrypt(plaintext, private.public_key(), info=b"bench")
    key = secrets.token_bytes(32)
    stream = _secretstream_seal(plaintext, key)
    actions: dict[str, Callable[[], object]] = {
        "seal": seal,
        "open": lambda: open_job(envelope, worker),
        "hpke seal": lambda: _SUITE.encrypt(plaintext, private.public_key(), info=b"bench"),
        "hpke open": lambda: _SUITE.decrypt(sealed_by_hpke, private, info=b"bench"),
        "stream seal": lambda: _secretstream_seal(plaintext, key),
        "stream open": lambda: _secretstream_open(stream, key),
    }
    return {name: per_second(action) for name, action in actions.items()}


def measure() -> Table:
    """Seal to one worker and open, per size; ratios are of times: ours divided by theirs."""
    rows = []
    for name, size in SIZES:
        rates = _rates(size)
        rows += [
            (
                f"{verb} {name}",
                number(rates[verb]),
                f"{rates[f'hpke {verb}'] / rates[verb]:.2f}",
                f"{rates[f'stream {verb}'] / rates[verb]:.2f}",
            )
            for verb in ("seal", "open")
        ]
    return Table(
        title="Sealing and opening, one worker",
        columns=("what", "per second", "time / plain HPKE", "time / plain secretstream"),
        rows=rows,
        note="A job has an HPKE wrap, a commitment and a secretstream body, padded. Secretstream "
        "alone has no public-key step, so small sizes cost many times of it.",
    )
