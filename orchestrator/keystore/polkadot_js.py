"""
Accounts that polkadot-js (the apps, the extension, `Keyring.toJson`) exported as JSON, version 3.

The layout is that of `@polkadot/keyring` and `@polkadot/util-crypto`: scrypt parameters and
salt, a nonce, and a secretbox with a PKCS #8 header, the 64-byte secret key, a divider and the
public key. Only sr25519 accounts can sign here.
"""

import base64
import binascii
import hashlib
import json

from nacl.exceptions import CryptoError
from nacl.secret import SecretBox

from orchestrator.crypto.keys import AccountKey
from orchestrator.encoding import from_ss58
from orchestrator.errors import InputError

__all__ = ["open_polkadot_js"]

_VERSION = "3"
_ENCODING = ["scrypt", "xsalsa20-poly1305"]
_SALT_LENGTH = 32
_SCRYPT_LENGTH = _SALT_LENGTH + 3 * 4
# @polkadot/util-crypto, scrypt/defaults: these three and no others are accepted there.
_ALLOWED_SCRYPT = {
    (1 << n, p, r)
    for n, p, r in ((13, 10, 8), (14, 5, 8), (15, 3, 8), (15, 1, 8), (16, 2, 8), (17, 1, 8))
}
_PKCS8_HEADER = bytes([48, 83, 2, 1, 1, 48, 5, 6, 3, 43, 101, 112, 4, 34, 4, 32])
_PKCS8_DIVIDER = bytes([161, 35, 3, 33, 0])
_KEY_LENGTH = 64
_PUBLIC_LENGTH = 32


def open_polkadot_js(data: bytes, passphrase: str) -> AccountKey:
    """
    Return the account of an export, once its key is shown to be that of its address.

    Raises:
        InputError: It is no export of version 3 of an sr25519 account, or the
            passphrase is wrong.
    """
    export = _parse(data)
    encoding = export.get("encoding")
    if not isinstance(encoding, dict) or encoding.get("version") != _VERSION:
        raise InputError("polkadot-js account: the encoding's version is not 3")
    if encoding.get("type") != _ENCODING:
        raise InputError("polkadot-js account: not encrypted with scrypt and xsalsa20-poly1305")
    if encoding.get("content") != ["pkcs8", "sr25519"]:
        raise InputError("polkadot-js account: not an sr25519 account")
    secret_key, public_key = _parse_pkcs8(_decrypt(_encoded(export), passphrase))
    account = AccountKey.from_bytes(_to_schnorrkel(secret_key))
    if account.account_id != public_key or account.account_id != _address(export):
        raise InputError("polkadot-js account: the key is not that of the address")
    return account


def _parse(data: bytes) -> dict[str, object]:
    try:
        export = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError("polkadot-js account: not JSON") from error
    if not isinstance(export, dict):
        raise InputError("polkadot-js account: not a JSON object")
    return export


def _encoded(export: dict[str, object]) -> bytes:
    text = export.get("encoded")
    try:
        encoded = base64.b64decode(text if isinstance(text, str) else "-", validate=True)
    except (binascii.Error, ValueError) as error:
        raise InputError("polkadot-js account: encoded is not base64") from error
    if len(encoded) < _SCRYPT_LENGTH + SecretBox.NONCE_SIZE:
        raise InputError("polkadot-js account: encoded is too short")
    return encoded


def _decrypt(encoded: bytes, passphrase: str) -> bytes:
    salt = encoded[:_SALT_LENGTH]
    n, p, r = (
        int.from_bytes(encoded[start : start + 4], "little")
        for start in range(_SALT_LENGTH, _SCRYPT_LENGTH, 4)
    )
    if (n, p, r) not in _ALLOWED_SCRYPT:
        raise InputError(f"polkadot-js account: scrypt with n={n}, p={p}, r={r} is not allowed")
    try:
        password = passphrase.encode()
    except UnicodeEncodeError as error:
        raise InputError("passphrase: not valid Unicode text") from error
    key = hashlib.scrypt(
        password, salt=salt, n=n, r=r, p=p, maxmem=256 * n * r + (1 << 20), dklen=32
    )
    box = encoded[_SCRYPT_LENGTH:]
    nonce, sealed = box[: SecretBox.NONCE_SIZE], box[SecretBox.NONCE_SIZE :]
    try:
        return bytes(SecretBox(key).decrypt(sealed, nonce))
    except (CryptoError, ValueError) as error:
        raise InputError("passphrase: wrong, or the export is damaged") from error


def _parse_pkcs8(data: bytes) -> tuple[bytes, bytes]:
    key_end = len(_PKCS8_HEADER) + _KEY_LENGTH
    divider_end = key_end + len(_PKCS8_DIVIDER)
    if (
        len(data) != divider_end + _PUBLIC_LENGTH
        or data[: len(_PKCS8_HEADER)] != _PKCS8_HEADER
        or data[key_end:divider_end] != _PKCS8_DIVIDER
    ):
        raise InputError("polkadot-js account: the content is not PKCS #8 as polkadot-js writes it")
    return data[len(_PKCS8_HEADER) : key_end], data[divider_end:]


def _to_schnorrkel(secret_key: bytes) -> bytes:
    # polkadot-js keeps the scalar multiplied by Curve25519's cofactor 8 (schnorrkel's
    # `to_ed25519_bytes`); AccountKey takes schnorrkel's own form.
    scalar = int.from_bytes(secret_key[:32], "little") >> 3
    return scalar.to_bytes(32, "little") + secret_key[32:]


def _address(export: dict[str, object]) -> bytes:
    address = export.get("address")
    if not isinstance(address, str):
        raise InputError("polkadot-js account: there is no address")
    return from_ss58(address)
