"""
The task that applies an ONNX model of the worker's model folder to a table.

Input: CSV of finite numbers, one row per case, with or without one line of column names.
Parameters: `model` is the name of a file `NAME.onnx`; `model_hash`, when given, is the blake2-256
hash that the file must have (bytes, or 64 hex digits); `format` is `json` (default) or `csv`.
Output: every output of the model by its name, in the order of the rows.

This is the one module that imports onnxruntime, and only in the process that runs the task.
"""

import csv
import io
import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol, TypeAlias, cast

from orchestrator.encoding import blake2_256
from orchestrator.errors import TaskError
from orchestrator.tasks import task

__all__ = ["MODEL_FOLDER_VARIABLE", "onnx"]

MODEL_FOLDER_VARIABLE = "PHALA_JOBS_MODELS"

_MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
_MAX_MODEL_BYTES = 256 << 20
_MODELS_NAMED = 5
_ELEMENTS = {"tensor(float)": "float32", "tensor(double)": "float64"}
_KNOWN_PARAMETERS = frozenset({"model", "model_hash", "format"})

Outputs: TypeAlias = Mapping[str, Sequence[object]]


class _Argument(Protocol):
    """An input or output of a model, as onnxruntime describes it."""

    name: str
    type: str
    shape: list[int | str | None]


class _Session(Protocol):
    """What is used of onnxruntime's session."""

    def get_inputs(self) -> list[_Argument]: ...

    def get_outputs(self) -> list[_Argument]: ...

    def run(self, names: None, inputs: dict[str, object]) -> list[object]: ...


class _Array(Protocol):
    """What is used of numpy's array."""

    def tolist(self) -> object: ...


@task(
    time_seconds=60,
    cpu_seconds=60,
    memory_bytes=1 << 30,
    input_bytes=8 << 20,
    output_bytes=12 << 20,
    requires=("numpy", "onnxruntime"),
)
def onnx(data: bytes, parameters: Mapping[str, object]) -> bytes:
    """Apply the model to the rows of *data*."""
    unknown = sorted(set(parameters) - _KNOWN_PARAMETERS)
    if unknown:
        raise TaskError("BadParameters", f"unknown: {', '.join(unknown)[:200]}")
    written_as = parameters.get("format", "json")
    if written_as not in ("json", "csv"):
        raise TaskError("BadParameters", "format: must be json or csv")
    session = _load(_read_model(parameters))
    outputs = _apply(session, _read_table(data))
    return _write_json(outputs) if written_as == "json" else _write_csv(outputs)


def _read_model(parameters: Mapping[str, object]) -> bytes:
    name = parameters.get("model")
    # No dot and no slash: a name can't lead out of the folder.
    if not isinstance(name, str) or not _MODEL_NAME.fullmatch(name):
        said = "is needed" if name is None else f"must match {_MODEL_NAME.pattern}"
        raise TaskError("BadParameters", f"model: --parameter model=NAME {said}; {_models_here()}")
    wanted = _wanted_hash(parameters.get("model_hash"))
    folder = os.environ.get(MODEL_FOLDER_VARIABLE)
    if not folder:
        raise TaskError("UnknownModel", "this worker has no model folder")
    try:
        with (Path(folder) / f"{name}.onnx").open("rb") as file:
            model = file.read(_MAX_MODEL_BYTES + 1)
    except FileNotFoundError:
        raise TaskError(
            "UnknownModel", f"this worker has no model {name}; {_models_here()}"
        ) from None
    if len(model) > _MAX_MODEL_BYTES:
        raise TaskError("UnknownModel", f"{name} is larger than {_MAX_MODEL_BYTES} bytes")
    found = blake2_256(model)
    if wanted is not None and found != wanted:
        raise TaskError("ModelHashMismatch", f"{name} has the hash {found.hex()}")
    return model


def _models_here() -> str:
    """Say which models there are, as far as there is room for it."""
    folder = os.environ.get(MODEL_FOLDER_VARIABLE)
    found = sorted(Path(folder).glob("*.onnx")) if folder else []
    names = [path.stem for path in found if _MODEL_NAME.fullmatch(path.stem)]
    named = ", ".join(names[:_MODELS_NAMED]) + (", ..." if len(names) > _MODELS_NAMED else "")
    return f"models here: {named or 'none'}"


def _wanted_hash(value: object) -> bytes | None:
    if value is None:
        return None
    try:
        digest = value if isinstance(value, bytes) else bytes.fromhex(str(value))
    except ValueError:
        digest = b""
    if len(digest) != 32:
        raise TaskError("BadParameters", "model_hash: must be 32 bytes or 64 hex digits")
    return digest


def _load(model: bytes) -> _Session:
    import onnxruntime  # noqa: PLC0415 - an optional package, imported only where tasks run

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    try:
        session: _Session = onnxruntime.InferenceSession(
            model, sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # the library's errors have no public base
        _raise_if_memory(error)
        raise TaskError("UnsupportedModel", f"it does not load: {error}") from error
    return session


def _apply(session: _Session, rows: list[list[float]]) -> Outputs:
    import numpy as np  # noqa: PLC0415 - an optional package, imported only where tasks run

    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in _ELEMENTS or len(inputs[0].shape) != 2:
        raise TaskError("UnsupportedModel", "it must take one table of floats")
    width = inputs[0].shape[1]
    if isinstance(width, int) and width != len(rows[0]):
        raise TaskError("BadInput", f"rows have {len(rows[0])} values, the model takes {width}")
    table = np.asarray(rows, dtype=_ELEMENTS[inputs[0].type])
    try:
        found = session.run(None, {inputs[0].name: table})
    except Exception as error:  # the library's errors have no public base
        _raise_if_memory(error)
        raise TaskError("ModelFailed", str(error)) from error
    names = [output.name for output in session.get_outputs()]
    outputs = {name: _plain(value) for name, value in zip(names, found, strict=True)}
    for name, values in outputs.items():
        if len(values) != len(rows):
            raise TaskError("UnsupportedModel", f"output {name} has not one value per row")
    return outputs


def _raise_if_memory(error: Exception) -> None:
    if "bad_alloc" in str(error) or "Failed to allocate memory" in str(error):
        raise MemoryError from error


def _plain(value: object) -> Sequence[object]:
    """Return lists, numbers and text for an array, or for a list of maps (ZipMap)."""
    if isinstance(value, list):
        return value
    listed = cast("_Array", value).tolist()
    return listed if isinstance(listed, list) else [listed]


def _read_table(data: bytes) -> list[list[float]]:
    try:
        text = data.decode("utf-8-sig")
        lines = [line for line in csv.reader(io.StringIO(text), strict=True) if line]
    except (UnicodeDecodeError, csv.Error) as error:
        raise TaskError("BadInput", f"not CSV: {error}") from error
    if len(lines) > 1 and not any(_is_number(cell) for cell in lines[0]):
        names = lines.pop(0)
        if len(names) != len(lines[0]):
            raise TaskError("BadInput", f"{len(names)} names for {len(lines[0])} columns")
    if not lines:
        raise TaskError("BadInput", "no rows")
    return [_read_row(number, line, len(lines[0])) for number, line in enumerate(lines, 1)]


def _read_row(number: int, cells: list[str], width: int) -> list[float]:
    if len(cells) != width:
        raise TaskError("BadInput", f"row {number} has {len(cells)} values, row 1 has {width}")
    row: list[float] = []
    for column, cell in enumerate(cells, 1):
        if not _is_number(cell):
            raise TaskError("BadInput", f"row {number}, column {column}: not a finite number")
        row.append(float(cell))
    return row


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False


def _write_json(outputs: Outputs) -> bytes:
    rows = len(next(iter(outputs.values()), ()))
    return json.dumps({"rows": rows, "outputs": _finite(outputs)}, allow_nan=False).encode()


def _finite(value: object) -> object:
    """Return *value* as JSON can say it: what is not finite becomes null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _finite(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_finite(item) for item in value]
    return value


def _write_csv(outputs: Outputs) -> bytes:
    rows: list[dict[str, object]] = []
    for values in zip(*outputs.values(), strict=True):
        row: dict[str, object] = {}
        for name, value in zip(outputs, values, strict=True):
            row.update(_columns(name, value))
        rows.append(row)
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _columns(name: str, value: object) -> dict[str, object]:
    if isinstance(value, Mapping):
        return {f"{name}_{key}": item for key, item in value.items()}
    if isinstance(value, list):
        nested: dict[str, object] = {}
        for index, item in enumerate(value):
            nested.update(_columns(f"{name}_{index}", item))
        return nested
    return {name: value}
