"""
Deterministic CBOR (RFC 8949 section 4.2.1), the subset that protocol section 3.4 uses.

The rules that this module keeps:

* One value has one encoding and only that encoding is read: shortest heads, definite lengths,
  map keys in bytewise order of their encodings and each once, shortest floats, valid UTF-8.
  The reader checks this while it reads, so that what it accepts is what the writer writes, and a
  byte string is copied once, however long it is.
* Map keys are text. There are no tags, no `undefined` and no other simple values.
* At most `MAX_DEPTH` containers inside each other and at most `MAX_ITEMS` items in one document:
  a hostile document of 16 MiB can't become a gigabyte of objects.
* `None`, negative integers and floats exist only where the caller asks for them (`extended`).
"""

import math
import struct
from collections.abc import Mapping, Sequence

from orchestrator.errors import EncodingError

MAX_DEPTH = 16
MAX_ITEMS = 65_536

_U64_MAX = (1 << 64) - 1
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP, _TAG, _SIMPLE = range(8)
_FALSE, _TRUE, _NULL, _HALF, _SINGLE, _DOUBLE = 20, 21, 22, 25, 26, 27
# The additional information that announces an argument, and how long that argument is (3.1).
_ARGUMENT_LENGTHS = {24: 1, 25: 2, 26: 4, 27: 8}
_FLOAT_FORMATS = {_HALF: ">e", _SINGLE: ">f", _DOUBLE: ">d"}


def encode_head(major: int, argument: int) -> bytes:
    """Return the shortest head of this major type and argument."""
    if not 0 <= argument <= _U64_MAX:
        raise EncodingError(f"integer {argument} does not fit 64 bits")
    if argument < min(_ARGUMENT_LENGTHS):
        return bytes([major << 5 | argument])
    for info, length in _ARGUMENT_LENGTHS.items():
        if argument < 1 << 8 * length:
            return bytes([major << 5 | info]) + argument.to_bytes(length, "big")
    raise AssertionError  # pragma: no cover - the range was checked above


def encode_bytes_head(length: int) -> bytes:
    """Return what precedes the bytes of a byte string of this length."""
    return encode_head(_BYTES, length)


def encode_array_head(length: int) -> bytes:
    """Return what precedes the items of an array of this length."""
    return encode_head(_ARRAY, length)


def encode_cbor(value: object, *, extended: bool = False) -> bytes:
    """
    Return the one encoding of *value*.

    Values are maps with text keys, lists and tuples, bytes, text, unsigned integers
    and booleans; with *extended* also `None`, negative integers and finite floats.

    Raises:
        EncodingError: The value holds something else, or is too deep or too long.
    """
    writer = _Writer(extended=extended)
    writer.write(value, depth=0)
    return b"".join(writer.parts)


def decode_cbor(data: bytes, *, extended: bool = False) -> object:
    """
    Return the value whose one encoding is *data*: lists and dicts, no tuples.

    Raises:
        EncodingError: The bytes are not the encoding that `encode_cbor` gives of any value.
    """
    reader = CborReader(data, extended=extended)
    value = reader.read_value()
    reader.finish()
    return value


class _Writer:
    """Collects the parts of one document."""

    def __init__(self, *, extended: bool) -> None:
        self.parts: list[bytes] = []
        self._extended = extended
        self._items = 0

    def write(self, value: object, *, depth: int) -> None:
        self._items += 1
        if self._items > MAX_ITEMS:
            raise EncodingError(f"more than {MAX_ITEMS} items")
        # bool before int: True is an int.
        if isinstance(value, bool):
            self.parts.append(encode_head(_SIMPLE, _TRUE if value else _FALSE))
        elif isinstance(value, int) and value >= 0:
            self.parts.append(encode_head(_UNSIGNED, value))
        elif isinstance(value, bytes):
            self.parts += (encode_head(_BYTES, len(value)), value)
        elif isinstance(value, str):
            text = _utf8(value)
            self.parts += (encode_head(_TEXT, len(text)), text)
        elif isinstance(value, Mapping):
            self._write_map(value, depth=_deeper(depth))
        elif isinstance(value, (list, tuple)):
            self._write_array(value, depth=_deeper(depth))
        elif self._extended:
            self._write_extended(value)
        else:
            raise _unsupported(value)

    def _write_extended(self, value: object) -> None:
        if value is None:
            self.parts.append(encode_head(_SIMPLE, _NULL))
        elif isinstance(value, int):
            self.parts.append(encode_head(_NEGATIVE, -1 - value))
        elif isinstance(value, float) and math.isfinite(value):
            self.parts.append(_encode_float(value))
        else:
            raise _unsupported(value)

    def _write_array(self, value: Sequence[object], *, depth: int) -> None:
        self.parts.append(encode_head(_ARRAY, len(value)))
        for item in value:
            self.write(item, depth=depth)

    def _write_map(self, value: Mapping[object, object], *, depth: int) -> None:
        entries: dict[bytes, object] = {}
        for key, item in value.items():
            if not isinstance(key, str):
                raise EncodingError(f"a map key is {type(key).__name__}, only text is allowed")
            text = _utf8(key)
            entries[encode_head(_TEXT, len(text)) + text] = item
        self.parts.append(encode_head(_MAP, len(entries)))
        for encoded_key in sorted(entries):
            self._items += 1
            self.parts.append(encoded_key)
            self.write(entries[encoded_key], depth=depth)


class CborReader:
    """
    Reads one document from its beginning to its end.

    `read_array` and `read_bytes` let a caller walk a known shape without building it;
    `read_value` builds whatever is next. Nothing after the document is allowed: call `finish`.
    """

    def __init__(self, data: bytes, *, extended: bool = False) -> None:
        self._data = data
        self._extended = extended
        self._offset = 0
        self._items = 0

    def read_array(self) -> int:
        """Enter an array and return its length."""
        return self._read_length(_ARRAY)

    def read_bytes(self) -> bytes:
        """Return the byte string that is next."""
        return self._take(self._read_length(_BYTES))

    def read_bytes_view(self) -> memoryview:
        """Return the byte string that is next without copying it."""
        length = self._read_length(_BYTES)
        start = self._offset
        self._skip(length)
        return memoryview(self._data)[start : start + length]

    def finish(self) -> None:
        """Refuse bytes that follow the document."""
        if self._offset != len(self._data):
            raise EncodingError(f"{len(self._data) - self._offset} bytes follow the document")

    def read_value(self, *, depth: int = 0) -> object:
        """Return the value that is next."""
        self._count_item()
        major, info, argument = self._read_head()
        match major:
            case 0:
                return argument
            case 1 if self._extended:
                return -1 - argument
            case 2:
                return self._take(argument)
            case 3:
                return self._take_text(argument)
            case 4:
                depth = _deeper(depth)
                return [self.read_value(depth=depth) for _ in range(argument)]
            case 5:
                return self._read_map(argument, depth=_deeper(depth))
            case 7:
                return self._read_simple(info, argument)
        raise EncodingError(f"major type {major} is not allowed here")

    def _read_map(self, length: int, *, depth: int) -> dict[str, object]:
        result: dict[str, object] = {}
        last = b""
        for _ in range(length):
            self._count_item()
            start = self._offset
            key = self._take_text(self._read_length(_TEXT))
            encoded_key = self._data[start : self._offset]
            if encoded_key <= last:
                raise EncodingError("the keys of a map are repeated or out of order")
            last = encoded_key
            result[key] = self.read_value(depth=depth)
        return result

    def _read_simple(self, info: int, argument: int) -> object:
        if info in (_FALSE, _TRUE):
            return info == _TRUE
        if self._extended and info == _NULL:
            return None
        if self._extended and info in _FLOAT_FORMATS:
            raw = argument.to_bytes(_ARGUMENT_LENGTHS[info], "big")
            (value,) = struct.unpack(_FLOAT_FORMATS[info], raw)
            if math.isfinite(value) and _encode_float(value)[1:] == raw:
                return float(value)
        raise EncodingError(f"simple value or float {info} is not allowed here")

    def _read_length(self, expected: int) -> int:
        major, _, argument = self._read_head()
        if major != expected:
            raise EncodingError(f"major type {major} where {expected} must be")
        return argument

    def _read_head(self) -> tuple[int, int, int]:
        """Return major type, additional information and argument of a shortest head."""
        initial = self._take(1)[0]
        major, info = initial >> 5, initial & 0x1F
        if info < min(_ARGUMENT_LENGTHS):
            return major, info, info
        length = _ARGUMENT_LENGTHS.get(info)
        if length is None:
            raise EncodingError(
                f"additional information {info} (an indefinite length or a reserved value)"
            )
        argument = int.from_bytes(self._take(length), "big")
        # The argument of major type 7 is the bits of a float; its own rule is in `_read_simple`.
        if major != _SIMPLE and len(encode_head(major, argument)) != 1 + length:
            raise EncodingError(f"the integer {argument} is not in its shortest form")
        return major, info, argument

    def _take_text(self, length: int) -> str:
        try:
            return self._take(length).decode()
        except UnicodeDecodeError as error:
            raise EncodingError("a text string is not UTF-8") from error

    def _take(self, length: int) -> bytes:
        start = self._offset
        self._skip(length)
        return self._data[start : self._offset]

    def _skip(self, length: int) -> None:
        if length > len(self._data) - self._offset:
            raise EncodingError(
                f"the document ends early: {length} bytes expected at offset {self._offset}"
            )
        self._offset += length

    def _count_item(self) -> None:
        self._items += 1
        if self._items > MAX_ITEMS:
            raise EncodingError(f"more than {MAX_ITEMS} items")


def _deeper(depth: int) -> int:
    if depth >= MAX_DEPTH:
        raise EncodingError(f"more than {MAX_DEPTH} levels")
    return depth + 1


def _utf8(value: str) -> bytes:
    try:
        return value.encode()
    except UnicodeEncodeError as error:
        raise EncodingError("a text string holds a lone surrogate") from error


def _encode_float(value: float) -> bytes:
    for info, form in _FLOAT_FORMATS.items():
        try:
            raw = struct.pack(form, value)
        except OverflowError:
            continue
        if struct.unpack(form, raw)[0] == value:
            return bytes([_SIMPLE << 5 | info]) + raw
    raise AssertionError  # pragma: no cover - every float is a double


def _unsupported(value: object) -> EncodingError:
    kind = "a negative integer" if isinstance(value, int) else type(value).__name__
    return EncodingError(f"{kind} is not allowed here")
