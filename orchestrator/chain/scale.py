"""
Codecs for SCALE: values to bytes and back, strictly.

How values look:

========================  ====================================================
SCALE                     Python
========================  ====================================================
integers                  `int`, inside the width
`[u8; N]`, `Vec<u8>`      `bytes`; never text, never hex
`Vec<T>`, `[T; N]`        `tuple` (encoding takes any list or tuple)
`()`                      `None`
`Option<T>`               `None` or the value
other enums               `Variant(name, value)`
structs                   `dict` by field name; a struct of one unnamed field is that field
========================  ====================================================

(`chain.registry` replaces the last two rows by classes of ours.)

Decoding is strict: every value has exactly one encoding that is accepted, and `decode` refuses
trailing bytes. (scalecodec, which substrate-interface brings, turns `Vec<u8>` that happens to be
UTF-8 into text and text that starts with `0x` into other bytes; sealed payloads do not survive it.)
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from orchestrator.errors import EncodingError, InputError

__all__ = [
    "BYTES",
    "PRIMITIVES",
    "Codec",
    "Variant",
    "byte_array",
    "compact",
    "decode",
    "encode",
    "enum",
    "list_of",
    "option",
    "read_compact",
    "struct",
    "tuple_of",
]

# Vec lengths are bounded by the bytes that are there; this bounds vectors of empty items.
MAX_ITEMS = 65_536

_INTEGERS = {
    f"{sign}{bits}": (bits // 8, sign == "i") for sign in "ui" for bits in (8, 16, 32, 64, 128)
}

Encoder = Callable[[object, bytearray], None]
Decoder = Callable[[bytes, int], tuple[object, int]]


@dataclass(frozen=True)
class Variant:
    """A value of an enum: the variant's name, and what it holds (`None` for nothing)."""

    name: str
    value: object = None


@dataclass(frozen=True)
class Codec:
    """How one type is encoded and decoded."""

    encode_to: Encoder
    decode_from: Decoder


def encode(codec: Codec, value: object) -> bytes:
    """Return the bytes of *value*; raises `InputError` when it is not a value of the type."""
    out = bytearray()
    codec.encode_to(value, out)
    return bytes(out)


def decode(codec: Codec, data: bytes) -> object:
    """Return the value of exactly *data*; raises `EncodingError` for anything else."""
    value, end = codec.decode_from(data, 0)
    if end != len(data):
        message = f"{len(data) - end} bytes are left over after the value"
        raise EncodingError(message)
    return value


def take(data: bytes, start: int, length: int) -> tuple[bytes, int]:
    """Return *length* bytes from *start*, and where they end."""
    end = start + length
    if end > len(data):
        message = f"the data ends at byte {len(data)}, {end - len(data)} bytes too early"
        raise EncodingError(message)
    return data[start:end], end


def compact(value: int) -> bytes:
    """Return the compact encoding of a length below 2^30."""
    if value < 1 << 6:
        return bytes([value << 2])
    if value < 1 << 14:
        return (value << 2 | 1).to_bytes(2, "little")
    if value < 1 << 30:
        return (value << 2 | 2).to_bytes(4, "little")
    message = f"length: {value} is above {(1 << 30) - 1}"
    raise InputError(message)


def read_compact(data: bytes, start: int) -> tuple[int, int]:
    """Return the compact integer at *start* (below 2^30, in its shortest form), and its end."""
    first, _ = take(data, start, 1)
    width = (1, 2, 4, 0)[first[0] & 3]
    if width == 0:
        message = "a compact integer is 2^30 or more"
        raise EncodingError(message)
    raw, end = take(data, start, width)
    value = int.from_bytes(raw, "little") >> 2
    if width != 1 and value < (1 << 6 if width == 2 else 1 << 14):
        message = "a compact integer is not in its shortest form"
        raise EncodingError(message)
    return value, end


def _integer(name: str) -> Codec:
    width, signed = _INTEGERS[name]
    low = -(1 << (8 * width - 1)) if signed else 0
    high = (1 << (8 * width - int(signed))) - 1

    def encode_to(value: object, out: bytearray) -> None:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            shown = value if isinstance(value, int) else type(value).__name__
            message = f"{shown} is not a {name} ({low}..{high})"
            raise InputError(message)
        out += value.to_bytes(width, "little", signed=signed)

    def decode_from(data: bytes, start: int) -> tuple[object, int]:
        raw, end = take(data, start, width)
        return int.from_bytes(raw, "little", signed=signed), end

    return Codec(encode_to, decode_from)


def _encode_bool(value: object, out: bytearray) -> None:
    if not isinstance(value, bool):
        message = f"{type(value).__name__} is not a bool"
        raise InputError(message)
    out.append(value)


def _decode_bool(data: bytes, start: int) -> tuple[object, int]:
    raw, end = take(data, start, 1)
    if raw[0] > 1:
        message = f"{raw[0]} is not a bool"
        raise EncodingError(message)
    return raw == b"\1", end


def _encode_str(value: object, out: bytearray) -> None:
    if not isinstance(value, str):
        message = f"{type(value).__name__} is not text"
        raise InputError(message)
    raw = value.encode()
    out += compact(len(raw)) + raw


def _decode_str(data: bytes, start: int) -> tuple[object, int]:
    length, start = read_compact(data, start)
    raw, end = take(data, start, length)
    try:
        return raw.decode(), end
    except UnicodeDecodeError as error:
        message = "text is not UTF-8"
        raise EncodingError(message) from error


def _encode_bytes(value: object, out: bytearray) -> None:
    if not isinstance(value, bytes):
        message = f"{type(value).__name__} is not bytes"
        raise InputError(message)
    out += compact(len(value)) + value


def _decode_bytes(data: bytes, start: int) -> tuple[object, int]:
    length, start = read_compact(data, start)
    return take(data, start, length)


def byte_array(length: int) -> Codec:
    """Return the codec of `[u8; length]`."""

    def encode_to(value: object, out: bytearray) -> None:
        if not isinstance(value, bytes) or len(value) != length:
            found = f"{len(value)} bytes" if isinstance(value, bytes) else type(value).__name__
            message = f"{found} given where {length} bytes are needed"
            raise InputError(message)
        out += value

    def decode_from(data: bytes, start: int) -> tuple[object, int]:
        return take(data, start, length)

    return Codec(encode_to, decode_from)


def list_of(codec: Codec, length: int | None) -> Codec:
    """Return the codec of `Vec<T>` (*length* is `None`) or `[T; length]`."""

    def encode_to(value: object, out: bytearray) -> None:
        if not isinstance(value, list | tuple) or length not in (None, len(value)):
            message = f"{type(value).__name__} is not a list" + (f" of {length}" if length else "")
            raise InputError(message)
        if length is None:
            out += compact(len(value))
        for item in value:
            codec.encode_to(item, out)

    def decode_from(data: bytes, start: int) -> tuple[object, int]:
        count, at = read_compact(data, start) if length is None else (length, start)
        if count > MAX_ITEMS:
            message = f"a list has {count} items, more than {MAX_ITEMS}"
            raise EncodingError(message)
        items = []
        for _ in range(count):
            item, at = codec.decode_from(data, at)
            items.append(item)
        return tuple(items), at

    return Codec(encode_to, decode_from)


def struct(fields: Sequence[tuple[str, Codec]]) -> Codec:
    """Return the codec of a struct with named fields; a value has exactly these, in this order."""
    names = tuple(name for name, _ in fields)

    def encode_to(value: object, out: bytearray) -> None:
        if not isinstance(value, dict) or tuple(value) != names:
            message = f"{type(value).__name__} given where the fields {', '.join(names)} are needed"
            raise InputError(message)
        for name, codec in fields:
            try:
                codec.encode_to(value[name], out)
            except InputError as error:
                message = f"{name}: {error}"
                raise InputError(message) from error

    def decode_from(data: bytes, start: int) -> tuple[object, int]:
        value = {}
        for name, codec in fields:
            value[name], start = codec.decode_from(data, start)
        return value, start

    return Codec(encode_to, decode_from)


def tuple_of(codecs: Sequence[Codec]) -> Codec:
    """Return the codec of a tuple, or of a struct with unnamed fields."""

    def encode_to(value: object, out: bytearray) -> None:
        if not codecs and value is None:
            return
        if not isinstance(value, list | tuple) or len(value) != len(codecs):
            message = f"{type(value).__name__} given where {len(codecs)} values are needed"
            raise InputError(message)
        for item, codec in zip(value, codecs, strict=True):
            codec.encode_to(item, out)

    def decode_from(data: bytes, start: int) -> tuple[object, int]:
        items = []
        for codec in codecs:
            item, start = codec.decode_from(data, start)
            items.append(item)
        return (tuple(items) if items else None), start

    return Codec(encode_to, decode_from)


def option(codec: Codec) -> Codec:
    """Return the codec of `Option<T>`."""

    def encode_to(value: object, out: bytearray) -> None:
        out.append(value is not None)
        if value is not None:
            codec.encode_to(value, out)

    def decode_from(data: bytes, start: int) -> tuple[object, int]:
        raw, start = take(data, start, 1)
        if raw[0] > 1:
            message = f"{raw[0]} is not the first byte of an option"
            raise EncodingError(message)
        return codec.decode_from(data, start) if raw[0] else (None, start)

    return Codec(encode_to, decode_from)


def enum(variants: Sequence[tuple[int, str, Codec]]) -> Codec:
    """Return the codec of an enum, given each variant's index, name and content."""
    by_name = {name: (index, codec) for index, name, codec in variants}
    by_index = {index: (name, codec) for index, name, codec in variants}

    def encode_to(value: object, out: bytearray) -> None:
        if not isinstance(value, Variant) or value.name not in by_name:
            shown = value.name if isinstance(value, Variant) else type(value).__name__
            message = f"{shown} is not one of {', '.join(by_name)}"
            raise InputError(message)
        index, codec = by_name[value.name]
        out.append(index)
        codec.encode_to(value.value, out)

    def decode_from(data: bytes, start: int) -> tuple[object, int]:
        raw, start = take(data, start, 1)
        if raw[0] not in by_index:
            message = f"{raw[0]} is not the index of one of {', '.join(by_name)}"
            raise EncodingError(message)
        name, codec = by_index[raw[0]]
        value, end = codec.decode_from(data, start)
        return Variant(name, value), end

    return Codec(encode_to, decode_from)


PRIMITIVES = {
    **{name: _integer(name) for name in _INTEGERS},
    "bool": Codec(_encode_bool, _decode_bool),
    "str": Codec(_encode_str, _decode_str),
}
BYTES = Codec(_encode_bytes, _decode_bytes)
