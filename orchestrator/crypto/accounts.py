"""
Accounts that sign transactions: Substrate's secret URIs for sr25519.

`PHRASE_OR_SEED /soft //hard ///password`, as subkey, polkadot-js and the node read it. The phrase
is a BIP-39 mnemonic of 12 to 24 English words or `0x` and 64 hex digits; left out, it is the
public development phrase, so that `//Alice` is the well-known test account.
"""

import hashlib
import re
import secrets

import bip39  # type: ignore[import-untyped]  # the binding has no stubs

from orchestrator.crypto import schnorrkel
from orchestrator.crypto.secret import Secret
from orchestrator.errors import InputError

# Known to everybody: accounts derived from it hold nothing but test money.
DEVELOPMENT_PHRASE = "bottom drive obey lake curtain smoke basket hold race lonely fit walk"

_URI = re.compile(r"(?P<phrase>[^/]*)(?P<path>(?://?[^/]+)*)(?:///(?P<password>.*))?", re.DOTALL)
_JUNCTION = re.compile(r"(//?)([^/]+)")
_SURROGATE = re.compile(r"[\ud800-\udfff]")
_HEX_SEED = re.compile(r"0x[0-9a-fA-F]{64}")
_CHAIN_CODE_LENGTH = 32
_MAX_PATH_NUMBER = (1 << 64) - 1
# SCALE's compact integers hold up to 63 in one byte and up to 2^14 - 1 in two.
_COMPACT_ONE_BYTE = 1 << 6
_COMPACT_TWO_BYTES = 1 << 14


def generate_mnemonic(words: int = 12) -> str:
    """
    Return a new random BIP-39 phrase of 12, 15, 18, 21 or 24 English words.

    Raises:
        InputError: There are no phrases of so many words.
    """
    try:
        return str(bip39.bip39_generate(words))
    except ValueError as error:
        raise InputError(f"words: {words}, must be 12, 15, 18, 21 or 24") from error


class AccountKey(Secret):
    """A chain account's sr25519 key; implements `Account`."""

    def __init__(self, pair: schnorrkel.Pair) -> None:
        self._pair = pair
        self.account_id: bytes = pair.public

    @classmethod
    def generate(cls) -> "AccountKey":
        """Return a new random account."""
        return cls.from_seed(secrets.token_bytes(schnorrkel.SEED_LENGTH))

    @classmethod
    def from_seed(cls, seed: bytes) -> "AccountKey":
        """Return the account of a 32-byte seed (a "mini secret")."""
        if len(seed) != schnorrkel.SEED_LENGTH:
            raise InputError(f"account seed: {len(seed)} bytes, must be {schnorrkel.SEED_LENGTH}")
        return cls(schnorrkel.pair_from_seed(bytes(seed)))

    @classmethod
    def from_bytes(cls, secret_key: bytes) -> "AccountKey":
        """Return the account whose `to_bytes` gave this 64-byte secret key."""
        if len(secret_key) != schnorrkel.SECRET_KEY_LENGTH:
            raise InputError(
                f"account secret key: {len(secret_key)} bytes, "
                f"must be {schnorrkel.SECRET_KEY_LENGTH}"
            )
        try:
            return cls(schnorrkel.pair_from_secret_key(bytes(secret_key)))
        except ValueError:
            # Not chained: the library's message must not get a chance to quote the key.
            raise InputError("account secret key: not an sr25519 secret key") from None

    @classmethod
    def from_uri(cls, uri: str) -> "AccountKey":
        """
        Return the account of a secret URI.

        Raises:
            InputError: The URI has no valid phrase or seed. The message never quotes it.
        """
        # Looked for, not caught: the error of encoding them would hold what it was given.
        if _SURROGATE.search(uri):
            raise InputError("account: not valid Unicode text")
        match = _URI.fullmatch(uri.strip())
        if not uri.strip() or match is None:
            raise InputError("account: neither a phrase nor a path such as //Alice")
        phrase = " ".join(match["phrase"].split())
        if _HEX_SEED.fullmatch(phrase):
            if match["password"] is not None:
                raise InputError("account: a password belongs to a phrase, not to a seed")
            seed = bytes.fromhex(phrase[2:])
        else:
            seed = _seed_of_phrase(phrase or DEVELOPMENT_PHRASE, match["password"] or "")
        pair = schnorrkel.pair_from_seed(seed)
        for separator, name in _JUNCTION.findall(match["path"]):
            pair = schnorrkel.derive(pair, _chain_code(name), hard=separator == "//")
        return cls(pair)

    def to_bytes(self) -> bytes:
        """Return the 64-byte secret key, to be stored."""
        return self._pair.secret

    def sign(self, message: bytes) -> bytes:
        """Return a signature over the raw *message*; another one each time."""
        return schnorrkel.sign(self._pair, message)

    def __repr__(self) -> str:
        return f"AccountKey(account_id={self.account_id.hex()})"


def _seed_of_phrase(phrase: str, password: str) -> bytes:
    try:
        return bytes(bip39.bip39_to_mini_secret(phrase, password))
    except ValueError:
        # Not chained: the library's message tells where in the secret phrase the mistake is.
        raise InputError(
            "account: the phrase is not a valid mnemonic (a word is not in the list, "
            "or the words are in the wrong order)"
        ) from None


def _chain_code(name: str) -> bytes:
    """Return the chain code of a junction, as `sp_core::crypto::DeriveJunction` makes it."""
    if name.isascii() and name.isdigit() and int(name) <= _MAX_PATH_NUMBER:
        return int(name).to_bytes(_CHAIN_CODE_LENGTH, "little")
    text = name.encode()
    encoded = _compact(len(text)) + text
    if len(encoded) > _CHAIN_CODE_LENGTH:
        return hashlib.blake2b(encoded, digest_size=_CHAIN_CODE_LENGTH).digest()
    return encoded.ljust(_CHAIN_CODE_LENGTH, b"\0")


def _compact(length: int) -> bytes:
    """Return SCALE's compact encoding of a length."""
    if length < _COMPACT_ONE_BYTE:
        return bytes([length << 2])
    if length < _COMPACT_TWO_BYTES:
        return (length << 2 | 1).to_bytes(2, "little")
    raise InputError(f"account: a path element of {length} bytes, at most 16383 are allowed")
