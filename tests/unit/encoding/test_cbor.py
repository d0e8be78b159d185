"""RFC 8949 section 4.2.1: one encoding of each value, and nothing else is read."""

import math

import cbor2
import pytest

from orchestrator.encoding import CborReader, decode_cbor, encode_cbor
from orchestrator.encoding.cbor import MAX_DEPTH, MAX_ITEMS, encode_head
from orchestrator.errors import EncodingError

# RFC 8949, appendix A, the rows that are of our subset.
RFC_8949: list[tuple[object, str]] = [
    (0, "00"),
    (1, "01"),
    (10, "0a"),
    (23, "17"),
    (24, "1818"),
    (25, "1819"),
    (100, "1864"),
    (1000, "1903e8"),
    (1000000, "1a000f4240"),
    (1000000000000, "1b000000e8d4a51000"),
    (18446744073709551615, "1bffffffffffffffff"),
    (False, "f4"),
    (True, "f5"),
    (b"", "40"),
    (b"\1\2\3\4", "4401020304"),
    ("", "60"),
    ("a", "6161"),
    ("IETF", "6449455446"),
    ('"\\', "62225c"),
    ("\u00fc", "62c3bc"),
    ("\u6c34", "63e6b0b4"),
    ("\U00010151", "64f0908591"),
    ([], "80"),
    ([1, 2, 3], "83010203"),
    ([1, [2, 3], [4, 5]], "8301820203820405"),
    (list(range(1, 26)), "98190102030405060708090a0b0c0d0e0f101112131415161718181819"),
    ({}, "a0"),
    ({"a": 1, "b": [2, 3]}, "a26161016162820203"),
    (["a", {"b": "c"}], "826161a161626163"),
    (
        {"a": "A", "b": "B", "c": "C", "d": "D", "e": "E"},
        "a56161614161626142616361436164614461656145",
    ),
]
RFC_8949_EXTENDED: list[tuple[object, str]] = [
    (-18446744073709551616, "3bffffffffffffffff"),
    (-1, "20"),
    (-10, "29"),
    (-100, "3863"),
    (-1000, "3903e7"),
    (0.0, "f90000"),
    (-0.0, "f98000"),
    (1.0, "f93c00"),
    (1.1, "fb3ff199999999999a"),
    (1.5, "f93e00"),
    (65504.0, "f97bff"),
    (100000.0, "fa47c35000"),
    (3.4028234663852886e38, "fa7f7fffff"),
    (1.0e300, "fb7e37e43c8800759c"),
    (5.960464477539063e-8, "f90001"),
    (0.00006103515625, "f90400"),
    (-4.0, "f9c400"),
    (-4.1, "fbc010666666666666"),
    (None, "f6"),
]


@pytest.mark.parametrize(("value", "encoded"), RFC_8949 + RFC_8949_EXTENDED)
def test_agrees_with_the_examples_of_the_rfc(value: object, encoded: str) -> None:
    data = encode_cbor(value, extended=True)

    assert data.hex() == encoded
    decoded = decode_cbor(data, extended=True)
    assert (type(decoded), decoded) == (type(value), value)


@pytest.mark.parametrize(("value", "encoded"), RFC_8949_EXTENDED)
def test_only_the_extended_form_has_negative_numbers_floats_and_null(
    value: object, encoded: str
) -> None:
    with pytest.raises(EncodingError, match="not allowed"):
        encode_cbor(value)
    with pytest.raises(EncodingError, match="not allowed"):
        decode_cbor(bytes.fromhex(encoded))


def test_keys_are_in_bytewise_order_of_their_encodings() -> None:
    encoded = encode_cbor({"aa": 1, "b": 2, "": 3, "\u00fc": 4})

    assert encoded.hex() == "a46003616202626161016" + "2c3bc04"


@pytest.mark.parametrize(
    ("encoded", "reason"),
    [
        ("", "ends early"),
        ("1817", "shortest"),
        ("1800", "shortest"),
        ("190018", "shortest"),
        ("1a0000ffff", "shortest"),
        ("1b00000000ffffffff", "shortest"),
        ("3800", "shortest"),
        ("580161", "shortest"),
        ("780161", "shortest"),
        ("980101", "shortest"),
        ("b801616101", "shortest"),
        ("18", "ends early"),
        ("1a0000", "ends early"),
        ("4401", "ends early"),
        ("6461", "ends early"),
        ("8201", "ends early"),
        ("a16161", "ends early"),
        ("5bffffffffffffffff", "ends early"),
        ("9bffffffffffffffff", "ends early"),
        ("0000", "follow"),
        ("5f4100ff", "additional information"),
        ("7f6161ff", "additional information"),
        ("9f01ff", "additional information"),
        ("bf616101ff", "additional information"),
        ("1c", "additional information"),
        ("ff", "additional information"),
        ("a2616101616102", "repeated"),
        ("a2616201616102", "out of order"),
        ("a26261610161620a", "out of order"),
        ("a10102", "major type"),
        ("a1416101", "major type"),
        ("c000", "major type 6"),
        ("c240", "major type 6"),
        ("d9d9f700", "major type 6"),
        ("f0", "not allowed"),
        ("f7", "not allowed"),
        ("f820", "not allowed"),
        ("f818", "not allowed"),
        ("fa3f800000", "not allowed"),
        ("fb3ff0000000000000", "not allowed"),
        ("f97e00", "not allowed"),
        ("f97c00", "not allowed"),
        ("f9fc00", "not allowed"),
        ("fa7f800000", "not allowed"),
        ("fb7ff8000000000000", "not allowed"),
        ("61ff", "UTF-8"),
        ("62c080", "UTF-8"),
        ("63eda080", "UTF-8"),
        ("a161ff01", "UTF-8"),
    ],
)
def test_refuses_what_is_not_the_one_encoding(encoded: str, reason: str) -> None:
    with pytest.raises(EncodingError, match=reason):
        decode_cbor(bytes.fromhex(encoded), extended=True)


@pytest.mark.parametrize(
    "value",
    [
        1 << 64,
        -(1 << 64) - 1,
        math.nan,
        math.inf,
        -math.inf,
        {1: 2},
        {b"a": 1},
        {None: 1},
        "\ud800",
        {"\ud800": 1},
        {1, 2},
        object(),
        1j,
        bytearray(b"a"),
    ],
)
def test_refuses_values_without_an_encoding(value: object) -> None:
    with pytest.raises(EncodingError):
        encode_cbor(value, extended=True)


def _nested(levels: int) -> object:
    value: object = []
    for level in range(levels - 1):
        value = [value] if level % 2 else {"a": value}
    return value


def test_sixteen_levels_are_the_limit_in_both_directions() -> None:
    deepest = _nested(MAX_DEPTH)

    assert decode_cbor(encode_cbor(deepest)) == deepest
    with pytest.raises(EncodingError, match="more than 16 levels"):
        encode_cbor(_nested(MAX_DEPTH + 1))
    with pytest.raises(EncodingError, match="more than 16 levels"):
        decode_cbor(cbor2.dumps(_nested(MAX_DEPTH + 1)))


@pytest.mark.parametrize("head", ["81", "a16161"])
def test_a_million_levels_are_refused_like_seventeen(head: str) -> None:
    with pytest.raises(EncodingError, match="more than 16 levels"):
        decode_cbor(bytes.fromhex(head) * 1_000_000)


@pytest.mark.parametrize("item", [0, {}, {"a": 0}], ids=["numbers", "maps", "entries"])
def test_a_document_can_not_become_millions_of_objects(item: object) -> None:
    value = [item] * MAX_ITEMS

    with pytest.raises(EncodingError, match="more than 65536 items"):
        encode_cbor(value)
    with pytest.raises(EncodingError, match="more than 65536 items"):
        decode_cbor(cbor2.dumps(value))


def test_the_most_items_are_read_back() -> None:
    value = [0] * (MAX_ITEMS - 1)

    assert decode_cbor(encode_cbor(value)) == value


def test_a_reader_walks_a_known_shape() -> None:
    data = encode_cbor([b"head", [b"one", b"two"], b"body"])
    reader = CborReader(data)

    assert reader.read_array() == 3
    assert reader.read_bytes() == b"head"
    assert reader.read_array() == 2
    assert [reader.read_bytes(), reader.read_bytes()] == [b"one", b"two"]
    view = reader.read_bytes_view()
    reader.finish()

    assert view.obj is data
    assert bytes(view) == b"body"


def test_a_reader_refuses_another_shape() -> None:
    with pytest.raises(EncodingError, match="major type 2 where 4 must be"):
        CborReader(b"\x40").read_array()
    with pytest.raises(EncodingError, match="major type 4 where 2 must be"):
        CborReader(b"\x80").read_bytes_view()


def test_a_head_holds_64_bits() -> None:
    with pytest.raises(EncodingError, match="64 bits"):
        encode_head(0, 1 << 64)
    with pytest.raises(EncodingError, match="64 bits"):
        encode_head(0, -1)
