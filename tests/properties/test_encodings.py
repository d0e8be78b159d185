"""Encodings under hypothesis: one value, one encoding, and the same one as other libraries."""

import cbor2
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.encoding import (
    decode_cbor,
    decode_signing_key,
    decode_task_input,
    encode_cbor,
    encode_signing_key,
    encode_statement,
    encode_task_input,
    from_ss58,
    to_ss58,
)
from orchestrator.errors import EncodingError, InputError
from orchestrator.models import Outcome, Statement, TaskInput
from tests.vectors import reference

U64 = st.integers(0, (1 << 64) - 1)
HASHES = st.binary(min_size=32, max_size=32)
TEXT = st.text(max_size=40)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
SCALARS = (
    st.booleans()
    | st.none()
    | st.integers(-(1 << 64), (1 << 64) - 1)
    | FLOATS
    | FLOATS.map(lambda value: float(round(value % 1000)))
    | st.binary(max_size=300)
    | TEXT
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(TEXT, inner, max_size=5),
    max_leaves=20,
)
STATEMENTS = st.builds(
    Statement,
    genesis_hash=HASHES,
    contract=HASHES,
    job_id=st.integers(0, (1 << 128) - 1),
    payload_hash=HASHES,
    outcome=st.sampled_from(Outcome),
    result_hash=HASHES,
    units=U64,
    measurement=HASHES,
    started_at=U64,
    finished_at=U64,
    issued_at=U64,
)


def _same(left: object, right: object) -> bool:
    """Equality that tells 1 from 1.0 and True, and 0.0 from -0.0."""
    return (
        repr(left) == repr(right)
        or (
            isinstance(left, dict)
            and isinstance(right, dict)
            and left.keys() == right.keys()
            and all(_same(left[key], right[key]) for key in left)
        )
        or (
            isinstance(left, list)
            and isinstance(right, list)
            and len(left) == len(right)
            and all(map(_same, left, right))
        )
    )


@given(VALUES)
@settings(max_examples=250, deadline=None)
def test_values_are_read_back_and_written_as_by_cbor2(value: object) -> None:
    try:
        encoded = encode_cbor(value, extended=True)
    except EncodingError as error:
        if "levels" not in str(error):
            raise
        return

    assert encoded == cbor2.dumps(value, canonical=True)
    assert _same(decode_cbor(encoded, extended=True), value)


@given(st.binary(max_size=60))
@example(bytes.fromhex("a2616101616102"))
@settings(max_examples=1_000, deadline=None)
def test_whatever_is_read_is_written_as_the_same_bytes(data: bytes) -> None:
    """The rule of protocol 3.4: re-encode what was decoded and require equality."""
    try:
        value = decode_cbor(data, extended=True)
    except EncodingError:
        return

    assert encode_cbor(value, extended=True) == data


@given(VALUES, st.data())
@settings(max_examples=250, deadline=None)
def test_a_changed_byte_never_becomes_another_encoding_of_a_value(
    value: object, data: st.DataObject
) -> None:
    try:
        encoded = bytearray(encode_cbor(value, extended=True))
    except EncodingError:
        return
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] ^= data.draw(st.integers(1, 255))
    try:
        changed = decode_cbor(bytes(encoded), extended=True)
    except EncodingError:
        return

    assert not _same(changed, value)
    assert encode_cbor(changed, extended=True) == bytes(encoded)


@given(TEXT, st.binary(max_size=2_000), st.dictionaries(TEXT, SCALARS, max_size=5))
@settings(deadline=None)
def test_task_inputs_are_read_back(
    task: str, content: bytes, parameters: dict[str, object]
) -> None:
    task_input = TaskInput(task=task, input=content, parameters=parameters)

    assert decode_task_input(encode_task_input(task_input)) == task_input


@given(STATEMENTS)
def test_statements_are_the_bytes_of_the_second_implementation(statement: Statement) -> None:
    encoded = encode_statement(statement)

    fields = {**vars(statement), "outcome": statement.outcome.name.capitalize()}
    assert encoded == reference.statement_bytes(fields)
    assert len(encoded) == 248


@given(STATEMENTS, STATEMENTS)
def test_different_statements_have_different_bytes(left: Statement, right: Statement) -> None:
    assert (encode_statement(left) == encode_statement(right)) == (left == right)


@given(st.binary(min_size=34, max_size=34) | st.binary(max_size=40))
@settings(max_examples=300)
def test_signing_keys_have_one_encoding(data: bytes) -> None:
    try:
        key = decode_signing_key(data)
    except EncodingError:
        return

    assert encode_signing_key(key) == data


@given(HASHES, st.integers(0, 16_383).filter(lambda prefix: prefix not in (46, 47)))
def test_addresses_are_read_back(account: bytes, prefix: int) -> None:
    assert from_ss58(to_ss58(account, prefix)) == account


@given(st.text(alphabet="123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz", max_size=60))
def test_no_text_but_an_address_is_an_address(text: str) -> None:
    try:
        account = from_ss58(text)
    except InputError:
        return

    assert len(account) == 32
