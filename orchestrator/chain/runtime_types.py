"""
A runtime's types by its metadata, and how what is decoded by them is kept in check.

Types are decoded by `chain.registry`: substrate-interface would take about half a millisecond for
each event, and turns byte vectors that look like text into text.
"""

import contextlib
from collections.abc import Iterator

from orchestrator.chain.answers import shown
from orchestrator.chain.registry import Registry
from orchestrator.chain.scale import Codec, take
from orchestrator.errors import ChainMismatchError, EncodingError, InputError

__all__ = ["RuntimeTypes", "compact", "reading"]

# What reading values raises when they, or the metadata that describes them, are not what they
# should be.
_UNREADABLE = (
    AttributeError,
    EncodingError,
    IndexError,
    KeyError,
    NotImplementedError,
    RecursionError,
    TypeError,
    ValueError,
)


@contextlib.contextmanager
def reading(what: str) -> Iterator[None]:
    """Name *what* in a `ChainMismatchError` when it can't be read."""
    try:
        yield
    except _UNREADABLE as error:
        raise ChainMismatchError(
            f"the chain's {what} can't be read: {shown(repr(error))}"
        ) from error


def _encode_compact(value: object, out: bytearray) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 536:
        raise InputError(f"{type(value).__name__} is not a compact integer")
    if value < 1 << 6:
        out.append(value << 2)
    elif value < 1 << 14:
        out += (value << 2 | 1).to_bytes(2, "little")
    elif value < 1 << 30:
        out += (value << 2 | 2).to_bytes(4, "little")
    else:
        raw = value.to_bytes((value.bit_length() + 7) // 8, "little")
        out.append((len(raw) - 4) << 2 | 3)
        out += raw


def _decode_compact(data: bytes, start: int) -> tuple[object, int]:
    first, end = take(data, start, 1)
    mode = first[0] & 3
    if mode == 3:
        raw, end = take(data, end, (first[0] >> 2) + 4)
        return int.from_bytes(raw, "little"), end
    raw, end = take(data, start, (1, 2, 4)[mode])
    return int.from_bytes(raw, "little") >> 2, end


compact = Codec(_encode_compact, _decode_compact)


class RuntimeTypes(Registry):
    """A whole runtime's types: built when first used, so recursion is no obstacle."""

    def codec(self, type_id: int) -> Codec:
        known = self._codecs.get(type_id)
        if known is not None:
            return known
        built: list[Codec] = []

        def build() -> Codec:
            if not built:
                built.append(self._build(type_id))
            return built[0]

        codec = Codec(
            lambda value, out: build().encode_to(value, out),
            lambda data, start: build().decode_from(data, start),
        )
        self._codecs[type_id] = codec
        return codec

    def _build(self, type_id: int) -> Codec:
        kind, _ = self._definition(type_id)
        return compact if kind == "compact" else super()._build(type_id)
