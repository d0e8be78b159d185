"""
Strict JSON: objects read key by key, each value checked, and the place named that is wrong.

Bytes are `0x` and lower-case hex, and integers have a width.
"""

import json
from collections.abc import Callable
from typing import NoReturn, TypeVar

from orchestrator.errors import EncodingError

__all__ = [
    "JsonObject",
    "hex_text",
    "load_json",
    "read_bytes",
    "read_hash",
    "read_integer",
    "read_text",
    "read_u32",
    "read_u64",
]

T = TypeVar("T")

_HASH = 32
_MAX_NAME_SHOWN = 40


class JsonObject:
    """
    One JSON object, read key by key; what is left over is refused.

    Raises:
        EncodingError: The value is no object; *path* is where it stands. So do all methods and
            readers here, of what they read.
    """

    def __init__(self, path: str, value: object) -> None:
        if not isinstance(value, dict):
            raise EncodingError(f"{path or 'file'}: must be an object")
        self._path = path
        self._rest: dict[str, object] = dict(value)

    def take(self, key: str, read: Callable[[str, object], T]) -> T:
        """Return what *read* makes of the path and the value of *key*."""
        path = self._path_of(key)
        if key not in self._rest:
            raise EncodingError(f"{path}: missing")
        return read(path, self._rest.pop(key))

    def enter(self, key: str) -> "JsonObject":
        """Return the object at *key*."""
        return self.take(key, JsonObject)

    def finish(self) -> None:
        """Refuse keys that nobody has asked for."""
        if self._rest:
            # The one name that the file's author chose: it must not fill a screen, nor drive one.
            name = ascii(min(self._rest))[1:-1]
            short = name if len(name) <= _MAX_NAME_SHOWN else name[:_MAX_NAME_SHOWN] + "..."
            raise EncodingError(f"{self._path_of(short)}: unknown")

    def _path_of(self, key: str) -> str:
        return f"{self._path}.{key}" if self._path else key


def load_json(data: bytes | str, *, limit: int) -> object:
    """
    Return the value of a JSON text in which no object has a key twice.

    Raises:
        EncodingError: It is longer than *limit*, or no such text.
    """
    if len(data) > limit:
        raise EncodingError(f"file: {len(data)} long, at most {limit}")
    try:
        text = data.decode() if isinstance(data, bytes) else data
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        raise EncodingError(f"file: not JSON ({error})") from error


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise EncodingError("file: a key is there twice in one object")
    return result


def _refuse_constant(name: str) -> NoReturn:
    raise EncodingError(f"file: {name} is not JSON")


def read_text(path: str, value: object) -> str:
    """Return text."""
    if not isinstance(value, str):
        raise EncodingError(f"{path}: must be text")
    return value


def read_hash(path: str, value: object) -> bytes:
    """Return the 32 bytes of a hash, a key or an account."""
    return read_bytes(path, value, _HASH)


def read_bytes(path: str, value: object, length: int | None = None) -> bytes:
    """Return bytes: so many, or any number."""
    text = read_text(path, value)
    digits = text[2:]
    is_hex = text.startswith("0x") and set(digits) <= set("0123456789abcdef")
    if not is_hex or len(digits) != (len(digits) & ~1 if length is None else 2 * length):
        number = "an even number of" if length is None else 2 * length
        raise EncodingError(f"{path}: must be 0x and {number} lower-case hex digits")
    return bytes.fromhex(digits)


def read_u64(path: str, value: object) -> int:
    """Return an integer of 64 bits."""
    return read_integer(path, value, 64)


def read_u32(path: str, value: object) -> int:
    """Return an integer of 32 bits."""
    return read_integer(path, value, 32)


def read_integer(path: str, value: object, bits: int) -> int:
    """Return an unsigned integer of so many bits."""
    # A JSON `true` is a Python int.
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << bits:
        raise EncodingError(f"{path}: must be an integer of {bits} unsigned bits")
    return value


def hex_text(data: bytes) -> str:
    """Return bytes as text."""
    return "0x" + data.hex()
