"""The onnx task: any model of the folder, every fault of the input said by its code."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.encoding import blake2_256
from orchestrator.errors import TaskError
from orchestrator.tasks import Limits
from orchestrator.tasks import onnx as module
from orchestrator.tasks.onnx import MODEL_FOLDER_VARIABLE, Outputs, onnx
from orchestrator.tasks.sandbox import run_local
from tests.unit.tasks import onnx_models

DEMO = Path(__file__).parents[3] / "orchestrator" / "demo_data"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(MODEL_FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv("ORT_DISABLE_TELEMETRY", "1")
    (tmp_path / "negate.onnx").write_bytes(onnx_models.unary("Neg"))
    return tmp_path


def refused(data: bytes, **parameters: object) -> str:
    with pytest.raises(TaskError) as caught:
        onnx.run(data, parameters)
    return str(caught.value)


def test_every_output_comes_back_by_name_in_the_order_of_rows(folder: Path) -> None:
    answer = onnx.run(b"1,2\n-3.5,4e2\n", {"model": "negate"})

    assert json.loads(answer) == {"rows": 2, "outputs": {"out": [[-1, -2], [3.5, -400]]}}


@pytest.mark.parametrize(
    "data",
    [b"a,b\n1,2\n", b"\xef\xbb\xbfa,b\r\n1,2\r\n", b'"a","b"\n"1"," 2"\n', b"1,2", b"\n1,2\n\n"],
)
def test_a_line_of_names_is_optional(folder: Path, data: bytes) -> None:
    assert json.loads(onnx.run(data, {"model": "negate"}))["outputs"] == {"out": [[-1, -2]]}


def test_csv_has_a_column_for_every_number(folder: Path) -> None:
    answer = onnx.run(b"1,2\n3,4\n", {"model": "negate", "format": "csv"})

    assert answer == b"out_0,out_1\n-1.0,-2.0\n-3.0,-4.0\n"


def test_a_model_of_doubles_is_given_doubles(folder: Path) -> None:
    (folder / "double.onnx").write_bytes(onnx_models.unary("Neg", element=onnx_models.DOUBLE))

    answer = json.loads(onnx.run(b"0.1,1e300", {"model": "double"}))

    assert answer["outputs"]["out"] == [[-0.1, -1e300]]


def test_what_is_not_a_number_is_null(folder: Path) -> None:
    (folder / "log.onnx").write_bytes(onnx_models.unary("Log"))

    assert json.loads(onnx.run(b"-1,1", {"model": "log"}))["outputs"]["out"] == [[None, 0.0]]


def test_maps_of_classes_are_kept_as_maps() -> None:
    outputs: Outputs = {"label": ["a", "b"], "p": [{"a": 0.5, 1: float("nan")}, {"a": 1.0, 1: 0.0}]}

    assert module._plain([{"a": 0.5}]) == [{"a": 0.5}]
    assert json.loads(module._write_json(outputs))["outputs"]["p"][0] == {"a": 0.5, "1": None}
    assert module._write_csv(outputs).splitlines()[:2] == [b"label,p_a,p_1", b"a,0.5,nan"]


@pytest.mark.parametrize("as_bytes", [True, False])
def test_the_models_hash_is_checked(folder: Path, as_bytes: bool) -> None:
    digest = blake2_256((folder / "negate.onnx").read_bytes())
    other = bytes([digest[0] ^ 1]) + digest[1:]

    def given(value: bytes) -> object:
        return value if as_bytes else value.hex()

    assert onnx.run(b"1,2", {"model": "negate", "model_hash": given(digest)})
    assert refused(b"1,2", model="negate", model_hash=given(other)).startswith("ModelHashMismatch")


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({}, "BadParameters: model"),
        ({"model": "../negate"}, "BadParameters: model"),
        ({"model": "negate.onnx"}, "BadParameters: model"),
        ({"model": "/etc/passwd"}, "BadParameters: model"),
        ({"model": ""}, "BadParameters: model"),
        ({"model": 3}, "BadParameters: model"),
        ({"model": "negate\n"}, "BadParameters: model"),
        ({"model": "other"}, "UnknownModel: this worker has no model other"),
        ({"model": "negate", "model_hash": "00"}, "BadParameters: model_hash"),
        ({"model": "negate", "model_hash": "no hex"}, "BadParameters: model_hash"),
        ({"model": "negate", "model_hash": b"short"}, "BadParameters: model_hash"),
        ({"model": "negate", "format": "xml"}, "BadParameters: format"),
        ({"model": "negate", "colour": "red"}, "BadParameters: unknown: colour"),
    ],
)
def test_bad_parameters_are_named(folder: Path, parameters: dict[str, object], words: str) -> None:
    assert words in refused(b"1,2", **parameters)


def test_without_a_model_the_option_and_the_models_are_named(folder: Path) -> None:
    for name in ("b", "c", "d", "e", "f", "not a name"):
        (folder / f"{name}.onnx").touch()

    assert refused(b"1,2") == (
        "BadParameters: model: --parameter model=NAME is needed; models here: b, c, d, e, f, ..."
    )
    assert refused(b"1,2", model="other").endswith("; models here: b, c, d, e, f, ...")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "BadInput: no rows"),
        (b"\n\n", "BadInput: no rows"),
        (b"a,b", "row 1, column 1: not a finite number"),
        (b"1,2,3", "rows have 3 values, the model takes 2"),
        (b"1,2\n3", "row 2 has 1 values, row 1 has 2"),
        (b"a,b,c\n1,2", "3 names for 2 columns"),
        (b"a,b\n1,x", "row 1, column 2: not a finite number"),
        (b"1,nan", "row 1, column 2: not a finite number"),
        (b"1,inf", "row 1, column 2: not a finite number"),
        (b"1,\xff", "not CSV"),
        (b'1,"2', "not CSV"),
        (b"1,2\n" + b"x" * 200_000, "not CSV"),
    ],
)
def test_bad_input_is_named(folder: Path, data: bytes, words: str) -> None:
    message = refused(data, model="negate")

    assert message.startswith("BadInput")
    assert words in message


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: b"this is no model", "does not load"),
        (lambda: onnx_models.unary("NoSuchOperator"), "does not load"),
        (lambda: onnx_models.unary("Neg", element=onnx_models.INT64), "one table of floats"),
        (
            lambda: onnx_models.model(
                [onnx_models.node("Add", ["a", "b"], "out")],
                [onnx_models.value(name, onnx_models.FLOAT, ("N", 2)) for name in "ab"],
                [onnx_models.value("out", onnx_models.FLOAT, ("N", 2))],
            ),
            "one table of floats",
        ),
        (
            lambda: onnx_models.model(
                [onnx_models.node("ReduceSum", ["table"], "out")],
                [onnx_models.value("table", onnx_models.FLOAT, ("N", 2))],
                [onnx_models.value("out", onnx_models.FLOAT, (1, 1))],
            ),
            "output out has not one value per row",
        ),
    ],
    ids=["no_model", "no_operator", "whole_numbers", "two_inputs", "one_number"],
)
def test_a_model_that_can_not_be_used_is_named(
    folder: Path, make: Callable[[], bytes], words: str
) -> None:
    (folder / "odd.onnx").write_bytes(make())

    message = refused(b"1,2\n3,4", model="odd")

    assert message.startswith("UnsupportedModel")
    assert words in message


def test_a_model_that_fails_on_the_table_is_the_inputs_fault(folder: Path) -> None:
    product = onnx_models.model(
        [onnx_models.node("MatMul", ["table", "table"], "out")],
        [onnx_models.value("table", onnx_models.FLOAT, ("N", 2))],
        [onnx_models.value("out", onnx_models.FLOAT, ("N", 2))],
    )
    (folder / "product.onnx").write_bytes(product)

    assert refused(b"1,2\n3,4\n5,6", model="product").startswith("ModelFailed")


def test_a_model_above_the_limit_is_not_loaded(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.tasks.onnx._MAX_MODEL_BYTES", 10)

    assert "larger than 10 bytes" in refused(b"1,2", model="negate")


def test_without_a_model_folder_there_are_no_models(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(MODEL_FOLDER_VARIABLE)

    assert "no model folder" in refused(b"1,2", model="negate")
    assert refused(b"1,2").endswith("; models here: none")


def test_memory_that_the_library_can_not_get_is_a_memory_error() -> None:
    with pytest.raises(MemoryError):
        module._raise_if_memory(RuntimeError("std::bad_alloc"))
    module._raise_if_memory(RuntimeError("something else"))


def test_the_demos_model_answers_for_every_patient() -> None:
    patients = (DEMO / "patients.csv").read_bytes()

    done = run_local(
        "onnx",
        patients,
        {"model": "tumor_classifier"},
        environment={MODEL_FOLDER_VARIABLE: str(DEMO)},
    )

    answer = json.loads(done.output)
    assert answer["rows"] == len(patients.splitlines()) - 1
    assert {len(values) for values in answer["outputs"].values()} == {answer["rows"]}
    assert set(answer["outputs"]["label"]) == {0, 1}


TABLE = b"1.25,2.5\n" * 300_000


@pytest.mark.parametrize(
    ("name", "limits", "data", "code"),
    [
        ("onnx", Limits(time_seconds=0.3), TABLE, "TimeLimitExceeded"),
        ("onnx", Limits(cpu_seconds=1), TABLE * 3, "CpuLimitExceeded"),
        ("onnx", Limits(memory_bytes=16 << 20), TABLE, "MemoryLimitExceeded"),
        ("onnx", Limits(output_bytes=100), TABLE[:900], "OutputTooLarge"),
        ("onnx", Limits(input_bytes=100), TABLE[:900], "InputTooLarge"),
        ("echo", Limits(time_seconds=1e-9), b"x", "TimeLimitExceeded"),
        ("echo", Limits(memory_bytes=1 << 20), bytes(8 << 20), "MemoryLimitExceeded"),
        ("echo", Limits(output_bytes=10), b"eleven here", "OutputTooLarge"),
        ("echo", Limits(input_bytes=10), b"eleven here", "InputTooLarge"),
    ],
    ids=lambda value: value if value in ("onnx", "echo") or str(value).isalpha() else "",
)
def test_every_task_ends_at_every_limit(
    folder: Path, name: str, limits: Limits, data: bytes, code: str
) -> None:
    """But echo at its CPU limit: it can't be made to use a whole second."""
    parameters = {"model": "negate"} if name == "onnx" else {}

    with pytest.raises(TaskError) as caught:
        run_local(
            name,
            data,
            parameters,
            limits=limits,
            environment={MODEL_FOLDER_VARIABLE: str(folder)},
        )

    assert caught.value.code == code
