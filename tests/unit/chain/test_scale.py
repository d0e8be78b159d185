"""SCALE values and types: round trips, and everything that is not the one valid form."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.chain.registry import Registry
from orchestrator.chain.scale import (
    BYTES,
    MAX_ITEMS,
    PRIMITIVES,
    Codec,
    Variant,
    byte_array,
    compact,
    decode,
    encode,
    enum,
    list_of,
    option,
    read_compact,
    struct,
    tuple_of,
)
from orchestrator.errors import ChainMismatchError, EncodingError, InputError

U8, U32, BOOL, STR = (PRIMITIVES[name] for name in ("u8", "u32", "bool", "str"))
UNIT = tuple_of([])
SHADE = enum([(0, "None", UNIT), (7, "Some", U8)])


@pytest.mark.parametrize(
    ("codec", "value", "data"),
    [
        (U8, 255, "ff"),
        (PRIMITIVES["u16"], 1, "0100"),
        (PRIMITIVES["u128"], 2**128 - 1, "ff" * 16),
        (PRIMITIVES["i8"], -128, "80"),
        (PRIMITIVES["i64"], -1, "ff" * 8),
        (BOOL, True, "01"),
        (STR, "é", "08c3a9"),
        (BYTES, b"0xab", "1030786162"),
        (byte_array(3), b"abc", "616263"),
        (list_of(U32, None), (1, 2), "080100000002000000"),
        (list_of(U8, 0), (), ""),
        (list_of(BOOL, 2), (True, False), "0100"),
        (UNIT, None, ""),
        (tuple_of([U8, BOOL]), (1, True), "0101"),
        (struct([("a", U8), ("b", BYTES)]), {"a": 1, "b": b""}, "0100"),
        (struct([]), {}, ""),
        (option(U8), None, "00"),
        (option(U8), 0, "0100"),
        (SHADE, Variant("None"), "00"),
        (SHADE, Variant("Some", 9), "0709"),
    ],
)
def test_known_bytes(codec: Codec, value: object, data: str) -> None:
    assert encode(codec, value).hex() == data
    assert decode(codec, bytes.fromhex(data)) == value


@pytest.mark.parametrize(
    ("codec", "value", "reason"),
    [
        (U8, 256, r"256 is not a u8 \(0..255\)"),
        (U8, -1, "-1 is not a u8"),
        (U8, True, "True is not a u8"),
        (U8, "1", "str is not a u8"),
        (PRIMITIVES["i8"], -129, r"-129 is not a i8 \(-128..127\)"),
        (BOOL, 1, "int is not a bool"),
        (STR, b"a", "bytes is not text"),
        (BYTES, "0xab", "str is not bytes"),
        (BYTES, bytearray(1), "bytearray is not bytes"),
        (byte_array(3), b"ab", "2 bytes given where 3 bytes are needed"),
        (byte_array(3), "abc", "str given where 3 bytes"),
        (list_of(U8, None), 5, "int is not a list"),
        (list_of(BOOL, 2), (True,), "tuple is not a list of 2"),
        (tuple_of([U8, U8]), (1,), "tuple given where 2 values"),
        (UNIT, 1, "int given where 0 values"),
        (struct([("a", U8)]), {"b": 1}, "dict given where the fields a are needed"),
        (struct([("a", U8), ("b", U8)]), {"b": 1, "a": 1}, "the fields a, b"),
        (struct([("a", U8)]), {"a": 300}, "a: 300 is not a u8"),
        (SHADE, Variant("Other"), "Other is not one of None, Some"),
        (SHADE, "None", "str is not one of"),
    ],
)
def test_what_is_not_a_value(codec: Codec, value: object, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        encode(codec, value)


@pytest.mark.parametrize(
    ("codec", "data", "reason"),
    [
        (U8, "", "ends at byte 0, 1 bytes too early"),
        (U8, "0000", "1 bytes are left over"),
        (BOOL, "02", "2 is not a bool"),
        (STR, "04ff", "not UTF-8"),
        (BYTES, "0801", "too early"),
        (BYTES, "", "too early"),
        (BYTES, "0100", "not in its shortest form"),
        (BYTES, "fd00", "not in its shortest form"),
        (BYTES, "02000100", "too early"),
        (BYTES, "fe000000", "not in its shortest form"),
        (BYTES, "0300000040", "2\\^30 or more"),
        (list_of(UNIT, None), "02000400", "65536 items"),
        (option(U8), "02", "2 is not the first byte of an option"),
        (SHADE, "01", "1 is not the index of one of None, Some"),
        (tuple_of([U8, U8]), "00", "too early"),
    ],
)
def test_bytes_that_are_not_the_one_valid_form(codec: Codec, data: str, reason: str) -> None:
    if "items" in reason:
        data = compact(MAX_ITEMS + 1).hex()
        reason = f"{MAX_ITEMS + 1} items"
    with pytest.raises(EncodingError, match=reason):
        decode(codec, bytes.fromhex(data))


@pytest.mark.parametrize("value", [0, 63, 64, 16_383, 16_384, (1 << 30) - 1])
def test_compact_integers_at_their_borders(value: int) -> None:
    data = compact(value)

    assert read_compact(data, 0) == (value, len(data))


def test_a_length_of_a_gibibyte_is_refused() -> None:
    with pytest.raises(InputError, match="1073741824 is above"):
        compact(1 << 30)


@given(st.binary(max_size=70_000))
def test_bytes_stay_bytes(data: bytes) -> None:
    assert decode(BYTES, encode(BYTES, data)) == data


@given(st.binary(max_size=64))
def test_what_decodes_encodes_to_the_same_bytes(data: bytes) -> None:
    codec = struct(
        [
            ("choice", SHADE),
            ("maybe", option(list_of(tuple_of([U8, BOOL]), None))),
            ("rest", BYTES),
            ("text", STR),
        ]
    )

    try:
        value = decode(codec, data)
    except EncodingError:
        return
    assert encode(codec, value) == data


def registry(*definitions: dict[str, Any], adapters: Any = None) -> Registry:  # noqa: ANN401 - a test's own
    types = [{"id": n, "type": definition} for n, definition in enumerate(definitions)]
    return Registry(types, adapters or {})


PRIMITIVE = {"def": {"primitive": "u8"}}


@pytest.mark.parametrize(
    ("definitions", "reason"),
    [
        ([{"def": {"compact": {"type": 0}}}], "is a compact, which is not used here"),
        ([{"def": {"primitive": "u256"}}], "is a primitive, which is not used here"),
        ([{"def": {"sequence": {"type": 0}}}], "is recursive"),
        ([{"def": {"sequence": {"type": 9}}}], "no type 9"),
        ([{"def": {"array": {"type": 1}}}, PRIMITIVE], "where a number belongs"),
        (
            [
                {"path": ["Option"], "params": [{"name": "T", "type": 1}], "def": {"variant": {}}},
                {"path": ["Option"], "params": [{"name": "T", "type": 2}], "def": {"variant": {}}},
                PRIMITIVE,
            ],
            "where a list belongs|option of an option",
        ),
    ],
)
def test_types_that_are_not_used_here(definitions: list[dict[str, Any]], reason: str) -> None:
    with pytest.raises(ChainMismatchError, match=reason):
        registry(*definitions).codec(0)


def test_an_option_of_an_option_is_refused() -> None:
    def of(inner: int) -> dict[str, Any]:
        return {
            "path": ["Option"],
            "params": [{"name": "T", "type": inner}],
            "def": {"variant": {"variants": []}},
        }

    with pytest.raises(ChainMismatchError, match="option of an option"):
        registry(of(1), of(2), PRIMITIVE).codec(0)


def test_structs_with_unnamed_fields() -> None:
    types = registry(
        {"def": {"composite": {"fields": [{"type": 2}]}}},
        {"def": {"composite": {"fields": [{"type": 2}, {"type": 2}]}}},
        PRIMITIVE,
        {"def": {"composite": {}}},
    )

    assert decode(types.codec(0), b"\5") == 5
    assert decode(types.codec(1), b"\5\6") == (5, 6)
    assert decode(types.codec(3), b"") is None


def test_a_name_that_two_different_types_have() -> None:
    one = {"path": ["a", "Thing"], "def": {"composite": {"fields": [{"name": "x", "type": 0}]}}}
    two = {"path": ["b", "Thing"], "def": {"composite": {"fields": [{"name": "y", "type": 0}]}}}

    with pytest.raises(ChainMismatchError, match="2 types named Thing"):
        registry(one, two).named("Thing")
    with pytest.raises(ChainMismatchError, match="0 types named Other"):
        registry(one, two).named("Other")
