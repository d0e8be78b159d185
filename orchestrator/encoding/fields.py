"""Fixed-width fields of signed bytes: each is checked, and named when it does not fit."""

from orchestrator.errors import EncodingError

HASH_LENGTH = 32
U64_MAX = (1 << 64) - 1
U128_MAX = (1 << 128) - 1


def fixed(name: str, value: object, length: int = HASH_LENGTH) -> bytes:
    """Return *value* if it is exactly *length* bytes long."""
    if not isinstance(value, bytes) or len(value) != length:
        found = f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__
        raise EncodingError(f"{name}: {found}, must be {length} bytes")
    return value


def u64(name: str, value: object) -> bytes:
    """Return *value* as 8 little-endian bytes."""
    return _unsigned(name, value, length=8)


def u128(name: str, value: object) -> bytes:
    """Return *value* as 16 little-endian bytes."""
    return _unsigned(name, value, length=16)


def _unsigned(name: str, value: object, *, length: int) -> bytes:
    # A bool is an int; one in a signed field is a mistake of the caller.
    if isinstance(value, bool) or not isinstance(value, int):
        raise EncodingError(f"{name}: {type(value).__name__}, must be an integer")
    try:
        return value.to_bytes(length, "little")
    except OverflowError as error:
        raise EncodingError(f"{name}: {value} does not fit {8 * length} unsigned bits") from error
