"""Reads JSON of strangers field by field."""

import base64
import json
from collections.abc import Iterable, Mapping

from orchestrator.errors import EncodingError

__all__ = ["JsonObject", "parse_object", "read_base64"]

_MAX_NAMES = 1_000
_MAX_TEXT = 200


class JsonObject:
    """A JSON object that is read field by field; every refusal names the field."""

    def __init__(self, value: object, name: str, *, only: Iterable[str] | None = None) -> None:
        if not isinstance(value, dict):
            raise EncodingError(f"{name}: must be an object")
        self._value: Mapping[str, object] = value
        self._name = name
        unknown = set() if only is None else set(value) - set(only)
        if unknown:
            raise EncodingError(f"{name}: unknown field {min(unknown)[:64]!r}")

    def has(self, field: str) -> bool:
        return field in self._value

    def get(self, field: str) -> object:
        if field not in self._value:
            raise EncodingError(f"{self._name}.{field}: missing")
        return self._value[field]

    def nested(self, field: str, *, only: Iterable[str] | None = None) -> "JsonObject":
        return JsonObject(self.get(field), f"{self._name}.{field}", only=only)

    def text(self, field: str) -> str:
        value = self.get(field)
        if not isinstance(value, str) or len(value) > _MAX_TEXT or not value.isprintable():
            raise EncodingError(f"{self._name}.{field}: must be text, at most {_MAX_TEXT} long")
        return value

    def names(self, field: str) -> tuple[str, ...]:
        items = self.items(field, _MAX_NAMES)
        return tuple(
            JsonObject({"item": item}, f"{self._name}.{field}").text("item") for item in items
        )

    def items(self, field: str, limit: int) -> list[object]:
        value = self.get(field)
        if not isinstance(value, list) or len(value) > limit:
            raise EncodingError(f"{self._name}.{field}: must be a list of at most {limit}")
        return value

    def unsigned(self, field: str, bits: int = 64) -> int:
        value = self.get(field)
        # `bool` is an `int` to Python, not to JSON.
        if type(value) is not int or not 0 <= value < 1 << bits:
            raise EncodingError(f"{self._name}.{field}: must be a whole number below 2^{bits}")
        return value

    def bytes(self, field: str, length: int | None = 32) -> bytes:
        return read_base64(self.get(field), f"{self._name}.{field}", length)


def read_base64(value: object, name: str, length: int | None) -> bytes:
    """
    Return bytes of *length*, or of any, from base64.

    Raises:
        EncodingError: It is neither base64 nor of that length.
    """
    if not isinstance(value, str):
        raise EncodingError(f"{name}: must be base64")
    try:
        data = base64.b64decode(value, validate=True)
    except ValueError as error:
        raise EncodingError(f"{name}: must be base64") from error
    if length is not None and len(data) != length:
        raise EncodingError(f"{name}: {len(data)} bytes, must be {length}")
    return data


def parse_object(body: bytes, name: str, *, only: Iterable[str] | None = None) -> JsonObject:
    """
    Return the object that *body* holds.

    Raises:
        EncodingError: It is not one, or has a field that is not among *only*.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise EncodingError(f"{name}: not JSON") from error
    return JsonObject(value, name, only=only)
