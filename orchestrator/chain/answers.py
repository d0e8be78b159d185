"""What a node answered, checked before it is used: a node may be broken, or lie."""

from collections.abc import Mapping

from orchestrator.errors import ChainMismatchError

__all__ = ["at_key", "hash_of", "hex_bytes", "hex_text", "shown"]

_LONGEST_SHOWN = 300


def hex_text(value: bytes) -> str:
    """Return the `0x` text of bytes."""
    return "0x" + value.hex()


def hex_bytes(value: object, what: str) -> bytes:
    """
    Return the bytes that `0x` text spells; *what* it should be goes into the error.

    Raises:
        ChainMismatchError: It is something else.
    """
    try:
        if isinstance(value, str) and value.startswith("0x"):
            return bytes.fromhex(value[2:])
    except ValueError:
        pass
    raise ChainMismatchError(f"the node sent {what} that is no hex text")


def hash_of(value: object, what: str) -> bytes:
    """Return the 32 bytes of a hash; raises as `hex_bytes`."""
    found = hex_bytes(value, what)
    if len(found) != 32:
        raise ChainMismatchError(f"the node sent {what} of {len(found)} bytes, not 32")
    return found


def at_key(value: object, key: str, what: str) -> object:
    """
    Return what an object holds at *key*.

    Raises:
        ChainMismatchError: It is no object, or has no such key.
    """
    if not isinstance(value, Mapping) or key not in value:
        raise ChainMismatchError(f"the node sent {what} of unknown form")
    return value[key]


def shown(text: object) -> str:
    """Return what a node or a library said, short enough and harmless to be shown."""
    printable = "".join(c if c.isprintable() else " " for c in str(text)[: _LONGEST_SHOWN + 1])
    return printable if len(printable) <= _LONGEST_SHOWN else printable[:_LONGEST_SHOWN] + " …"
