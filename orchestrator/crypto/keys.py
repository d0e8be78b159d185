"""
Keys: what each can do, and nothing that shows a secret.

Signatures follow protocol section 3.1 to the letter, in the order of the contract. sr25519 is
that of the Substrate chains: over raw bytes, signing context `substrate`, never the `<Bytes>`
wrapping of browser wallets. No key of this module can be pickled, and none shows a secret in its
`repr`.
"""

import secrets
from typing import ClassVar

import coincurve
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from orchestrator.crypto import schnorrkel
from orchestrator.crypto.accounts import AccountKey
from orchestrator.crypto.secret import Secret
from orchestrator.encoding import SIGNATURE_LENGTHS, SIGNING_KEY_LENGTHS
from orchestrator.errors import InputError, InvalidSignatureError
from orchestrator.models import PublicKey, Scheme, Signature, Signer

__all__ = [
    "AccountKey",
    "EcdsaSigner",
    "EncryptionKey",
    "OwnerSecret",
    "Sr25519Signer",
    "derive_key",
    "load_signer",
    "verify_reply_key",
    "verify_signature",
]

SECRET_LENGTH = 32
DIGEST_LENGTH = 32
NONCE_LENGTH = 16

# The order of secp256k1's group (SEC 2, 2.4.1).
_ORDER = 0xFFFFFFFF_FFFFFFFF_FFFFFFFF_FFFFFFFE_BAAEDCE6_AF48A03B_BFD25E8C_D0364141
_MAX_RECOVERY_ID = 3

# Curve25519's field, and the u coordinates of all its points and its twist's points of small
# order (https://cr.yp.to/ecdh.html#validate): a shared secret with one of them is zero.
_FIELD = (1 << 255) - 19
_LOW_ORDER_POINTS = frozenset(
    (
        0,
        1,
        _FIELD - 1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
    )
)


def derive_key(secret: bytes, *, salt: bytes, info: bytes) -> bytes:
    """Return HKDF-SHA256 of *secret*, 32 bytes."""
    return HKDF(algorithm=SHA256(), length=SECRET_LENGTH, salt=salt, info=info).derive(secret)


class EncryptionKey(Secret):
    """An X25519 key that opens what is sealed to it."""

    def __init__(self, key: X25519PrivateKey) -> None:
        self._key = key
        self.public_key: bytes = key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls) -> "EncryptionKey":
        """Return a new random key."""
        return cls(X25519PrivateKey.generate())

    @classmethod
    def from_bytes(cls, secret: bytes) -> "EncryptionKey":
        """Return the key with this secret of 32 bytes."""
        _check_secret("encryption key", secret)
        return cls(X25519PrivateKey.from_private_bytes(secret))

    @property
    def private_key(self) -> X25519PrivateKey:
        """The key as the library `cryptography` has it."""
        return self._key

    def to_bytes(self) -> bytes:
        """Return the secret, to be stored."""
        return self._key.private_bytes_raw()

    def __repr__(self) -> str:
        return f"EncryptionKey(public_key={self.public_key.hex()})"


class OwnerSecret(Secret):
    """
    The one secret of an owner: it opens every result that the owner was ever sent.

    Each job has its own reply key, derived from this secret and the job's nonce, so
    that nothing needs to be kept per job.
    """

    _INFO: ClassVar[bytes] = b"phala-job-processor/reply/v1"

    def __init__(self, secret: bytes) -> None:
        _check_secret("owner secret", secret)
        self._secret = bytes(secret)

    @classmethod
    def generate(cls) -> "OwnerSecret":
        """Return a new random secret."""
        return cls(secrets.token_bytes(SECRET_LENGTH))

    @classmethod
    def from_bytes(cls, secret: bytes) -> "OwnerSecret":
        """Return the owner secret that `to_bytes` gave."""
        return cls(secret)

    def to_bytes(self) -> bytes:
        """Return the secret, to be stored."""
        return self._secret

    def reply_key(self, nonce: bytes) -> EncryptionKey:
        """Return the key that the result of the job with this header nonce is sealed to."""
        if len(nonce) != NONCE_LENGTH:
            raise InputError(f"nonce: {len(nonce)} bytes, must be {NONCE_LENGTH}")
        return EncryptionKey.from_bytes(derive_key(self._secret, salt=nonce, info=self._INFO))

    def __repr__(self) -> str:
        return "OwnerSecret(...)"


class EcdsaSigner(Secret):
    """A worker's secp256k1 key; implements `Signer`."""

    def __init__(self, secret: bytes) -> None:
        _check_secret("ECDSA secret", secret)
        if not 0 < int.from_bytes(secret, "big") < _ORDER:
            raise InputError("ECDSA secret: not a number from 1 to the order of secp256k1")
        self._key = coincurve.PrivateKey(secret)
        self.public_key = PublicKey(scheme=Scheme.ECDSA, key=self._key.public_key.format())

    @classmethod
    def generate(cls) -> "EcdsaSigner":
        """Return a signer with a new random key."""
        return cls(coincurve.PrivateKey().secret)

    @classmethod
    def from_bytes(cls, secret: bytes) -> "EcdsaSigner":
        """Return the signer with this secret of 32 bytes."""
        return cls(secret)

    def to_bytes(self) -> bytes:
        """Return the secret, to be stored."""
        return self._key.secret

    def sign(self, digest: bytes) -> Signature:
        """Return `r ‖ s ‖ v` over a 32-byte digest, with the low `s`, deterministic (RFC 6979)."""
        _check_digest(digest)
        data = self._key.sign_recoverable(digest, hasher=None)
        return Signature(scheme=Scheme.ECDSA, data=data)

    def __repr__(self) -> str:
        return f"EcdsaSigner(public_key={self.public_key.key.hex()})"


class Sr25519Signer(Secret):
    """A worker's sr25519 key; implements `Signer`."""

    def __init__(self, seed: bytes) -> None:
        _check_secret("sr25519 seed", seed)
        self._seed = bytes(seed)
        self._pair = schnorrkel.pair_from_seed(self._seed)
        self.public_key = PublicKey(scheme=Scheme.SR25519, key=self._pair.public)

    @classmethod
    def generate(cls) -> "Sr25519Signer":
        """Return a signer with a new random key."""
        return cls(secrets.token_bytes(SECRET_LENGTH))

    @classmethod
    def from_bytes(cls, seed: bytes) -> "Sr25519Signer":
        """Return the signer with this seed of 32 bytes."""
        return cls(seed)

    def to_bytes(self) -> bytes:
        """Return the seed, to be stored."""
        return self._seed

    def sign(self, digest: bytes) -> Signature:
        """Return a signature over the 32 digest bytes; another one each time."""
        _check_digest(digest)
        return Signature(scheme=Scheme.SR25519, data=schnorrkel.sign(self._pair, digest))

    def __repr__(self) -> str:
        return f"Sr25519Signer(public_key={self.public_key.key.hex()})"


def load_signer(scheme: Scheme, secret: bytes) -> Signer:
    """
    Return the signer whose `to_bytes` gave *secret*.

    Raises:
        InputError: The secret is not one of this scheme.
    """
    return EcdsaSigner(secret) if scheme is Scheme.ECDSA else Sr25519Signer(secret)


def verify_signature(public_key: PublicKey, signature: Signature, digest: bytes) -> None:
    """
    Return if *signature* is the one of *public_key* over *digest* (protocol section 3.1).

    1. Key and signature are of one scheme and have its lengths; the digest is 32 bytes.
    2. ECDSA: `v` is in 0..=3, then 1 <= r < n, then 1 <= s <= n/2, before anything is recovered:
       the contract does the same, so that no signature is valid for one and not for the other.
    3. ECDSA: the recovered key is the compressed key. sr25519: the library's raw `verify`.

    Does **not** check whose key it is, or what the digest is of.

    Raises:
        InvalidSignatureError: `BadSignature`, whatever the reason.
    """
    # 1.
    scheme = public_key.scheme
    if (
        signature.scheme is not scheme
        or len(public_key.key) != SIGNING_KEY_LENGTHS[scheme]
        or len(signature.data) != SIGNATURE_LENGTHS[scheme]
        or len(digest) != DIGEST_LENGTH
    ):
        raise InvalidSignatureError("BadSignature")
    # 2. and 3.
    is_valid = (
        _is_ecdsa_valid(public_key.key, signature.data, digest)
        if scheme is Scheme.ECDSA
        else schnorrkel.is_valid(public_key.key, signature.data, digest)
    )
    if not is_valid:
        raise InvalidSignatureError("BadSignature")


def _is_ecdsa_valid(key: bytes, signature: bytes, digest: bytes) -> bool:
    v = signature[64]
    r = int.from_bytes(signature[:32], "big")
    s = int.from_bytes(signature[32:64], "big")
    if v > _MAX_RECOVERY_ID or not 1 <= r < _ORDER or not 1 <= s <= _ORDER // 2:
        return False
    try:
        recovered = coincurve.PublicKey.from_signature_and_message(signature, digest, hasher=None)
    except ValueError:
        return False
    return recovered.format() == key


def verify_reply_key(key: bytes) -> None:
    """
    Return if results can be sealed to this X25519 public key.

    Refused are points of small order (anybody could open what is sealed to them) and
    encodings that no key has: the owner's own would differ, and HPKE would not open.

    Raises:
        InputError: Nothing may be sealed to the key.
    """
    if len(key) != SECRET_LENGTH:
        raise InputError(f"X25519 key: {len(key)} bytes, must be {SECRET_LENGTH}")
    coordinate = int.from_bytes(key, "little")
    if coordinate >= _FIELD:
        raise InputError(f"X25519 key {key.hex()}: not the canonical encoding of a point")
    if coordinate in _LOW_ORDER_POINTS:
        raise InputError(f"X25519 key {key.hex()}: a point of small order, it would hide nothing")


def _check_secret(name: str, secret: bytes) -> None:
    if len(secret) != SECRET_LENGTH:
        raise InputError(f"{name}: {len(secret)} bytes, must be {SECRET_LENGTH}")


def _check_digest(digest: bytes) -> None:
    if len(digest) != DIGEST_LENGTH:
        raise InputError(f"digest: {len(digest)} bytes, must be {DIGEST_LENGTH}")
