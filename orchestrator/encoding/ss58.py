"""
Addresses of accounts and contracts as text: SS58, and plain hex.

The format is that of the Substrate documentation ("SS58 address format"): base58 of a network
prefix of one or two bytes, the 32 bytes of the account, and two bytes of checksum.
"""

import hashlib

from orchestrator.errors import InputError

ACCOUNT_LENGTH = 32

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
_CHECKSUM_LENGTH = 2
_ONE_BYTE_PREFIXES = 64
_PREFIXES = 1 << 14
# The network numbers 46 and 47 are reserved by the format.
_RESERVED = (46, 47)
# A two-byte prefix gives 49 or 50 digits; anything much longer is not worth the arithmetic.
_MAX_TEXT = 100


def to_ss58(account_id: bytes, prefix: int = 42) -> str:
    """
    Return the SS58 address of an account; prefix 42 is the generic Substrate network.

    Raises:
        InputError: The id is not 32 bytes, or there is no such prefix.
    """
    if len(account_id) != ACCOUNT_LENGTH:
        raise InputError(f"account id: {len(account_id)} bytes, must be {ACCOUNT_LENGTH}")
    payload = _encode_prefix(prefix) + account_id
    return _to_base58(payload + _checksum(payload))


def from_ss58(text: str) -> bytes:
    """
    Return the account id of an address: SS58 of any network, or `0x` and 64 hex digits.

    Does **not** check that the address is of a particular network: the same key is the same
    account everywhere.

    Raises:
        InputError: The text is neither.
    """
    if text.startswith("0x"):
        try:
            account_id = bytes.fromhex(text[2:])
        except ValueError as error:
            raise InputError(f"address {text[:_MAX_TEXT]!r}: not hex") from error
        # `fromhex` skips spaces; the length of the text tells.
        if len(account_id) != ACCOUNT_LENGTH or len(text) != 2 + 2 * ACCOUNT_LENGTH:
            raise InputError(
                f"address {text[:_MAX_TEXT]!r}: must be {2 * ACCOUNT_LENGTH} hex digits"
            )
        return account_id
    data = _from_base58(text)
    prefix_length = 2 if data[:1] >= bytes([_ONE_BYTE_PREFIXES]) else 1
    if len(data) != prefix_length + ACCOUNT_LENGTH + _CHECKSUM_LENGTH:
        raise InputError(f"address {text!r}: {len(data)} bytes is not an account's address")
    payload, checksum = data[:-_CHECKSUM_LENGTH], data[-_CHECKSUM_LENGTH:]
    if _checksum(payload) != checksum:
        raise InputError(f"address {text!r}: the checksum is wrong, is there a typing mistake?")
    account_id = payload[prefix_length:]
    if to_ss58(account_id, _decode_prefix(payload[:prefix_length])) != text:
        raise InputError(f"address {text!r}: the network prefix is not in its shortest form")
    return account_id


def _encode_prefix(prefix: int) -> bytes:
    if not 0 <= prefix < _PREFIXES or prefix in _RESERVED:
        raise InputError(f"SS58 prefix: {prefix}, must be 0 to {_PREFIXES - 1} and not 46 or 47")
    if prefix < _ONE_BYTE_PREFIXES:
        return bytes([prefix])
    # The fourteen bits are laid out as 01aaaaaa bbcccccc: a = bits 2-7, b = 0-1, c = 8-13.
    return bytes([0x40 | (prefix & 0xFC) >> 2, prefix >> 8 | (prefix & 0x03) << 6])


def _decode_prefix(data: bytes) -> int:
    if len(data) == 1:
        return data[0]
    first, second = data
    return (first << 2 & 0xFC) | second >> 6 | (second & 0x3F) << 8


def _checksum(payload: bytes) -> bytes:
    return hashlib.blake2b(b"SS58PRE" + payload).digest()[:_CHECKSUM_LENGTH]


def _to_base58(data: bytes) -> str:
    number = int.from_bytes(data, "big")
    digits = ""
    while number:
        number, digit = divmod(number, 58)
        digits = _ALPHABET[digit] + digits
    zeros = len(data) - len(data.lstrip(b"\0"))
    return _ALPHABET[0] * zeros + digits


def _from_base58(text: str) -> bytes:
    if not text or len(text) > _MAX_TEXT or not set(text) <= set(_ALPHABET):
        raise InputError(f"address {text[:_MAX_TEXT]!r}: neither SS58 nor 0x and hex")
    number = 0
    for digit in text:
        number = number * 58 + _ALPHABET.index(digit)
    zeros = len(text) - len(text.lstrip(_ALPHABET[0]))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8, "big")
