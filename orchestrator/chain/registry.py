"""
Codecs for the types of ink! metadata (the `types` list: scale-info, portable form).

`adapters` replace, by the last segment of a type's path, the `dict` of a struct or the `Variant`
of an enum by classes of ours. An adapter checks the type's fields or variants once, when the
codec is built, not at each value: a contract with other types is refused before the first call.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from orchestrator.chain.scale import (
    BYTES,
    PRIMITIVES,
    Codec,
    byte_array,
    enum,
    list_of,
    option,
    struct,
    tuple_of,
)
from orchestrator.errors import ChainMismatchError

__all__ = [
    "Adapter",
    "Registry",
    "TypeShape",
    "bytes_at",
    "int_at",
    "object_at",
    "objects_at",
    "text_at",
]


@dataclass(frozen=True)
class TypeShape:
    """What an adapter is shown of a type: its name, and its fields or variants in order."""

    name: str
    fields: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()


class Adapter(Protocol):
    """Replaces a struct's `dict` or an enum's `Variant` by a class of ours."""

    def check(self, shape: TypeShape) -> None:
        """Raise `ChainMismatchError` unless the class has the same fields or variants in order."""
        ...

    def to_plain(self, value: object) -> object:
        """Return the `dict` or `Variant` of *value*, or raise `InputError`."""
        ...

    def from_plain(self, value: object) -> object:
        """Return the value of ours that a decoded `dict` or `Variant` stands for."""
        ...


def _adapted(codec: Codec, adapter: Adapter) -> Codec:
    def encode_to(value: object, out: bytearray) -> None:
        codec.encode_to(adapter.to_plain(value), out)

    def decode_from(data: bytes, start: int) -> tuple[object, int]:
        value, end = codec.decode_from(data, start)
        return adapter.from_plain(value), end

    return Codec(encode_to, decode_from)


class Registry:
    """
    Builds codecs from a metadata's types, each once.

    Recursive types are refused: no message of ours has one.

    Raises:
        ChainMismatchError: A type is malformed, of a kind that is not used here, or an adapter
            refuses it.
    """

    def __init__(self, types: Sequence[object], adapters: Mapping[str, Adapter]) -> None:
        self._types = {int_at(_map(entry), "id"): object_at(_map(entry), "type") for entry in types}
        self._adapters = adapters
        self._codecs: dict[int, Codec | None] = {}

    def codec(self, type_id: int) -> Codec:
        """Return the codec of a type."""
        if type_id not in self._codecs:
            self._codecs[type_id] = None
            self._codecs[type_id] = self._build(type_id)
        codec = self._codecs[type_id]
        if codec is None:
            message = f"type {type_id} of the metadata is recursive"
            raise ChainMismatchError(message)
        return codec

    def shape(self, type_id: int) -> TypeShape:
        """Return the name of a type and its fields or variants."""
        found = self._type(type_id)
        path = [str(segment) for segment in _list(found.get("path", []))]
        kind, body = self._definition(type_id)
        variants = objects_at(_map(body), "variants") if kind == "variant" else []
        fields = _fields(_map(body)) if kind == "composite" else []
        return TypeShape(
            path[-1] if path else "",
            tuple(str(field.get("name") or "") for field in fields),
            tuple(text_at(variant, "name") for variant in variants),
        )

    def named(self, name: str) -> TypeShape:
        """Return the shape of the one type whose path ends with *name*."""
        shapes = {
            self.shape(type_id)
            for type_id, found in self._types.items()
            if _list(found.get("path", []))[-1:] == [name]
        }
        if len(shapes) != 1:
            message = f"the metadata has {len(shapes)} types named {name}, not one"
            raise ChainMismatchError(message)
        return shapes.pop()

    def id_of(self, path: Sequence[str]) -> int:
        """Return the type with exactly this path."""
        for type_id, found in self._types.items():
            if _list(found.get("path", [])) == list(path):
                return type_id
        message = f"the metadata has no type {'::'.join(path)}"
        raise ChainMismatchError(message)

    def variants(self, type_id: int) -> dict[int, str]:
        """Return the names of an enum's variants by index."""
        _, body = self._definition(type_id)
        return {int_at(v, "index"): text_at(v, "name") for v in objects_at(_map(body), "variants")}

    def parameters(self, type_id: int) -> tuple[int, ...]:
        """Return the types of a generic type's parameters (of `Result<T, E>`: T and E)."""
        found = self._type(type_id)
        return tuple(int_at(_map(p), "type") for p in _list(found.get("params", [])))

    def _type(self, type_id: int) -> Mapping[str, object]:
        found = self._types.get(type_id)
        if found is None:
            message = f"the metadata has no type {type_id}"
            raise ChainMismatchError(message)
        return found

    def _definition(self, type_id: int) -> tuple[str, object]:
        definition = object_at(self._type(type_id), "def")
        if len(definition) != 1:
            message = f"type {type_id} of the metadata has {len(definition)} definitions"
            raise ChainMismatchError(message)
        return next(iter(definition.items()))

    def _build(self, type_id: int) -> Codec:
        kind, body = self._definition(type_id)
        if kind == "primitive" and body in PRIMITIVES:
            return PRIMITIVES[str(body)]
        if kind == "tuple":
            return tuple_of([self.codec(_as_int(item)) for item in _list(body)])
        if kind in ("sequence", "array"):
            return self._list(_map(body), fixed=kind == "array")
        if kind not in ("composite", "variant"):
            message = f"type {type_id} of the metadata is a {kind}, which is not used here"
            raise ChainMismatchError(message)
        shape = self.shape(type_id)
        if kind == "variant":
            codec = self._variant(type_id, shape)
        else:
            codec = self._fields(_fields(_map(body)))
        adapter = self._adapters.get(shape.name)
        if adapter is None:
            return codec
        adapter.check(shape)
        return _adapted(codec, adapter)

    def _list(self, body: Mapping[str, object], *, fixed: bool) -> Codec:
        item = int_at(body, "type")
        length = int_at(body, "len") if fixed else None
        if self._definition(item) == ("primitive", "u8"):
            return BYTES if length is None else byte_array(length)
        return list_of(self.codec(item), length)

    def _fields(self, fields: Sequence[Mapping[str, object]]) -> Codec:
        codecs = [self.codec(int_at(field, "type")) for field in fields]
        names = [field.get("name") for field in fields]
        if names and all(names):
            return struct([(str(n), c) for n, c in zip(names, codecs, strict=True)])
        return codecs[0] if len(codecs) == 1 else tuple_of(codecs)

    def _variant(self, type_id: int, shape: TypeShape) -> Codec:
        if shape.name == "Option":
            (inner,) = self.parameters(type_id)
            if self.shape(inner).name == "Option":
                message = f"type {type_id} of the metadata is an option of an option"
                raise ChainMismatchError(message)
            return option(self.codec(inner))
        return enum(
            [
                (int_at(v, "index"), text_at(v, "name"), self._fields(_fields(v)))
                for v in objects_at(_map(self._definition(type_id)[1]), "variants")
            ]
        )


def _fields(body: Mapping[str, object]) -> list[Mapping[str, object]]:
    """Return the fields of a struct or variant; the metadata leaves an empty list out."""
    return objects_at(body, "fields") if "fields" in body else []


def _map(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict):
        message = f"the metadata has {type(value).__name__} where an object belongs"
        raise ChainMismatchError(message)
    return value


def _list(value: object) -> Sequence[object]:
    if not isinstance(value, list):
        message = f"the metadata has {type(value).__name__} where a list belongs"
        raise ChainMismatchError(message)
    return value


def _as_int(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        message = f"the metadata has {type(value).__name__} where a number belongs"
        raise ChainMismatchError(message)
    return value


def object_at(value: Mapping[str, object], key: str) -> Mapping[str, object]:
    """Return the object at *key* of a metadata object."""
    return _map(value.get(key))


def objects_at(value: Mapping[str, object], key: str) -> list[Mapping[str, object]]:
    """Return the list of objects at *key* of a metadata object."""
    return [_map(item) for item in _list(value.get(key))]


def int_at(value: Mapping[str, object], key: str) -> int:
    """Return the number at *key* of a metadata object."""
    return _as_int(value.get(key))


def text_at(value: Mapping[str, object], key: str) -> str:
    """Return the text at *key* of a metadata object."""
    found = value.get(key)
    if not isinstance(found, str):
        message = f"the metadata has {type(found).__name__} where the text {key!r} belongs"
        raise ChainMismatchError(message)
    return found


def bytes_at(value: Mapping[str, object], key: str) -> bytes:
    """Return the bytes that the `0x` text at *key* of a metadata object spells."""
    text = text_at(value, key)
    try:
        if text.startswith("0x"):
            return bytes.fromhex(text[2:])
    except ValueError:
        pass
    message = f"the metadata's {key!r} is not 0x and hex digits"
    raise ChainMismatchError(message)
