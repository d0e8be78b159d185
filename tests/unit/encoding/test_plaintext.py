"""What jobs and results say once they are opened."""

import pytest

from orchestrator.encoding import (
    decode_failure,
    decode_output,
    decode_task_input,
    encode_cbor,
    encode_failure,
    encode_output,
    encode_task_input,
)
from orchestrator.errors import EncodingError
from orchestrator.models import TaskInput


def test_a_task_input_is_read_back_with_its_parameters() -> None:
    task_input = TaskInput(
        task="onnx",
        input=b"\0\1",
        parameters={"model": "tumor", "scale": -0.5, "rows": -3, "nested": [{"a": None}]},
    )

    assert decode_task_input(encode_task_input(task_input)) == task_input


def test_an_output_and_a_failure_are_read_back() -> None:
    assert decode_output(encode_output(b"\0" * 100_000)) == b"\0" * 100_000
    assert decode_failure(encode_failure("TaskFailed", "no model")) == ("TaskFailed", "no model")
    assert decode_failure(encode_failure("TaskFailed", "")) == ("TaskFailed", "")
    assert decode_failure(encode_failure("OpenError")) == ("OpenError", None)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ([], "not a map"),
        ({}, "exactly the keys"),
        ({"task": "a", "input": b""}, "exactly the keys"),
        ({"task": "a", "input": b"", "parameters": {}, "more": 1}, "exactly the keys"),
        ({"task": b"a", "input": b"", "parameters": {}}, "task: must be text"),
        ({"task": "a", "input": "", "parameters": {}}, "input: must be bytes"),
        ({"task": "a", "input": b"", "parameters": []}, "parameters: must be a map"),
    ],
)
def test_other_task_inputs_are_refused(value: object, reason: str) -> None:
    with pytest.raises(EncodingError, match=reason):
        decode_task_input(encode_cbor(value))


@pytest.mark.parametrize("levels", [14, 15])
def test_parameters_are_nested_fourteen_levels_at_most(levels: int) -> None:
    """The plaintext and `parameters` themselves are the first two of sixteen."""
    value: object = 0
    for _ in range(levels):
        value = [value]
    task_input = TaskInput(task="a", input=b"", parameters={"a": value})

    if levels == 14:
        assert decode_task_input(encode_task_input(task_input)) == task_input
    else:
        with pytest.raises(EncodingError, match="more than 16 levels"):
            encode_task_input(task_input)


@pytest.mark.parametrize(
    "value",
    [
        {"output": "text"},
        {"output": None},
        {"output": b"", "error": "x"},
        {"error": "x"},
        {},
        1,
    ],
)
def test_other_outputs_are_refused(value: object) -> None:
    with pytest.raises(EncodingError):
        decode_output(encode_cbor(value, extended=True))


@pytest.mark.parametrize(
    "value",
    [
        {"error": b"x"},
        {"error": 1, "message": "x"},
        {"error": "x", "message": b"x"},
        {"error": "x", "message": None},
        {"message": "x"},
        {"error": "x", "output": b""},
    ],
)
def test_other_failures_are_refused(value: object) -> None:
    with pytest.raises(EncodingError):
        decode_failure(encode_cbor(value, extended=True))
