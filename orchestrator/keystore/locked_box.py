"""
A secret under a passphrase, as JSON (version 1).

scrypt (RFC 7914) makes the key, XSalsa20-Poly1305 (libsodium's secretbox) seals the secret. The
parameters of scrypt are written beside the salt, so that stronger ones can be chosen later. What
stands in clear beside the box is not authenticated by it.
"""

import base64
import binascii
import hashlib
import unicodedata
from dataclasses import dataclass

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox
from nacl.utils import random as random_bytes

from orchestrator.errors import InputError

__all__ = ["DEFAULT_SCRYPT", "ScryptParameters", "lock", "unlock"]

_SALT_LENGTH = 32
# 1 GiB for n = 2^20 and r = 8, and a little for what p and OpenSSL add to it.
_MAX_MEMORY = (1 << 30) + (1 << 20)


@dataclass(frozen=True, kw_only=True)
class ScryptParameters:
    """The work of one guess of a passphrase: a little over 128 · n · r bytes of memory, p times."""

    n: int
    r: int = 8
    p: int = 1


# 128 MiB and about half a second for a guess: first in OWASP's password storage cheat sheet.
DEFAULT_SCRYPT = ScryptParameters(n=1 << 17)


def lock(secret: bytes, passphrase: str, *, scrypt: ScryptParameters) -> dict[str, object]:
    """Return a box, ready for JSON, that opens with *passphrase* alone."""
    salt = random_bytes(_SALT_LENGTH)
    box = SecretBox(_key(passphrase, salt, scrypt)).encrypt(secret)
    return {
        "kdf": "scrypt",
        "n": scrypt.n,
        "r": scrypt.r,
        "p": scrypt.p,
        "salt": base64.b64encode(salt).decode(),
        "cipher": "xsalsa20-poly1305",
        "box": base64.b64encode(bytes(box)).decode(),
    }


def unlock(box: object, passphrase: str) -> bytes:
    """
    Return the secret in *box*.

    Raises:
        InputError: The box is not one of `lock`, or the passphrase is wrong; a damaged
            box can't be told from a wrong passphrase.
    """
    if not isinstance(box, dict) or box.get("kdf") != "scrypt":
        raise InputError("box: not an scrypt box of version 1")
    if box.get("cipher") != "xsalsa20-poly1305":
        raise InputError("box: the cipher is not xsalsa20-poly1305")
    scrypt = ScryptParameters(n=_number(box, "n"), r=_number(box, "r"), p=_number(box, "p"))
    key = _key(passphrase, _base64(box, "salt"), scrypt)
    try:
        return bytes(SecretBox(key).decrypt(_base64(box, "box")))
    except (CryptoError, ValueError) as error:
        raise InputError("passphrase: wrong, or the file is damaged") from error


def _key(passphrase: str, salt: bytes, scrypt: ScryptParameters) -> bytes:
    # What OpenSSL's scrypt counts before it begins (RFC 7914: B, then V, X and T); it takes
    # no limit of 2^31 or more.
    memory = 128 * scrypt.r * (scrypt.n + scrypt.p + 2)
    # A file may come from elsewhere: it must not be able to ask for all memory or for hours.
    if memory > _MAX_MEMORY or scrypt.p > 16:
        raise InputError(f"box: scrypt with n={scrypt.n}, r={scrypt.r}, p={scrypt.p} is too much")
    try:
        # Keyboards differ in how they compose letters; the same words are the same passphrase.
        password = unicodedata.normalize("NFKC", passphrase).encode()
    except UnicodeEncodeError as error:
        raise InputError("passphrase: not valid Unicode text") from error
    try:
        return hashlib.scrypt(
            password,
            salt=salt,
            n=scrypt.n,
            r=scrypt.r,
            p=scrypt.p,
            maxmem=memory,
            dklen=SecretBox.KEY_SIZE,
        )
    except ValueError as error:
        raise InputError(
            f"box: scrypt with n={scrypt.n}, r={scrypt.r}, p={scrypt.p} is not possible"
        ) from error


def _number(box: dict[str, object], name: str) -> int:
    value = box.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value < 1 << 31:
        raise InputError(f"box: {name} is not a positive number")
    return value


def _base64(box: dict[str, object], name: str) -> bytes:
    value = box.get(name)
    try:
        return base64.b64decode(value if isinstance(value, str) else "-", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError(f"box: {name} is not base64") from error
