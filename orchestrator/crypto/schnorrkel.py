"""
sr25519 as the Substrate chains use it: the one module that knows the untyped binding.

Messages are raw bytes, the signing context is `substrate` (the binding knows no other).
"""

from typing import NamedTuple

import sr25519

SEED_LENGTH = 32
SECRET_KEY_LENGTH = 64
SIGNATURE_LENGTH = 64


class Pair(NamedTuple):
    """A public key and its 64-byte secret key (scalar and nonce seed)."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"Pair(public={self.public.hex()})"


def pair_from_seed(seed: bytes) -> Pair:
    """Return the pair of a 32-byte seed."""
    return Pair(*sr25519.pair_from_seed(seed))


def pair_from_secret_key(secret_key: bytes) -> Pair:
    """
    Return the pair of a 64-byte secret key.

    Raises:
        ValueError: The bytes are not a secret key.
    """
    return Pair(sr25519.public_from_secret_key(secret_key), secret_key)


def derive(pair: Pair, chain_code: bytes, *, hard: bool) -> Pair:
    """Return the child of *pair* that the junction with this chain code leads to."""
    function = sr25519.hard_derive_keypair if hard else sr25519.derive_keypair
    _, public, secret = function((chain_code, pair.public, pair.secret), b"")
    return Pair(public, secret)


def sign(pair: Pair, message: bytes) -> bytes:
    """Return a signature over the raw *message*; signatures are randomised."""
    return bytes(sr25519.sign((pair.public, pair.secret), message))


def is_valid(public_key: bytes, signature: bytes, message: bytes) -> bool:
    """Whether *signature* is that of *public_key* over the raw *message*."""
    try:
        return bool(sr25519.verify(signature, message, public_key))
    except ValueError:
        # The library raises for bytes that can't be a signature or a key.
        return False
