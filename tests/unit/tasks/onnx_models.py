"""
Small ONNX models, written byte by byte.

The field numbers are those of onnx.proto3 (ONNX 1.16); the package `onnx` is not needed.
"""

from collections.abc import Sequence

FLOAT, INT64, DOUBLE = 1, 7, 11


def _varint(value: int) -> bytes:
    parts = []
    while True:
        value, low = value >> 7, value & 127
        parts.append(low | (128 if value else 0))
        if not value:
            return bytes(parts)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _field(field: int, value: bytes | str) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def value(name: str, element: int, shape: Sequence[int | str]) -> bytes:
    """Return a ValueInfoProto."""
    dimensions = b"".join(
        _field(1, _number(1, size) if isinstance(size, int) else _field(2, size)) for size in shape
    )
    return _field(1, name) + _field(2, _field(1, _number(1, element) + _field(2, dimensions)))


def node(operator: str, inputs: Sequence[str], output: str) -> bytes:
    """Return a NodeProto."""
    return b"".join(_field(1, name) for name in inputs) + _field(2, output) + _field(4, operator)


def model(nodes: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes]) -> bytes:
    """Return a ModelProto of opset 13."""
    graph = (
        b"".join(_field(1, item) for item in nodes)
        + _field(2, "graph")
        + b"".join(_field(11, item) for item in inputs)
        + b"".join(_field(12, item) for item in outputs)
    )
    return _number(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _number(2, 13))


def unary(operator: str, *, element: int = FLOAT, width: int | str = 2) -> bytes:
    """Return a model that applies one operator to its table."""
    shape = ("N", width)
    return model(
        [node(operator, ["table"], "out")],
        [value("table", element, shape)],
        [value("out", element, shape)],
    )
