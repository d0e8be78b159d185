"""`task run --local`: a task on a file, with no chain."""

import base64
from pathlib import Path

import pytest

from .conftest import Run


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "input"
    path.write_bytes(b"\x00\xffbytes")
    return path


def test_the_output_goes_to_stdout_as_it_is(run: Run, data: Path) -> None:
    ran = run("task", "run", "--local", "echo", data)

    assert ran.exit_code == 0, ran.stderr
    assert ran.stdout_bytes == b"\x00\xffbytes"


def test_with_json_binary_output_is_base64(run: Run, data: Path) -> None:
    document = run("task", "run", "--local", "echo", data, "--json").document

    assert base64.b64decode(document["output_base64"]) == b"\x00\xffbytes"
    assert document["output"] is None
    assert document["output_bytes"] == 7


def test_with_json_text_output_is_text_too(run: Run) -> None:
    document = run("task", "run", "--local", "echo", "-", "--json", stdin=b"words").document

    assert document["output"] == "words"


def test_output_is_written_to_a_new_file_alone(run: Run, data: Path, tmp_path: Path) -> None:
    output = tmp_path / "output"

    first = run("task", "run", "--local", "echo", data, "-o", output)
    output.write_text("mine")
    second = run("task", "run", "--local", "echo", data, "-o", output)

    assert first.exit_code == 0
    assert second.exit_code == 2
    assert output.read_text() == "mine"


def test_without_local_it_says_what_it_can_do(run: Run, data: Path) -> None:
    ran = run("task", "run", "echo", data)

    assert ran.exit_code == 2
    assert "--local" in ran.stderr


def test_an_unknown_task_is_refused(run: Run, data: Path) -> None:
    ran = run("task", "run", "--local", "nothing", data, "--json")

    assert ran.exit_code == 1
    assert ran.document["error"] == "UnknownTask"


def test_a_task_gets_its_parameters_and_models(run: Run, tmp_path: Path) -> None:
    ran = run(
        *("task", "run", "--local", "onnx", "-", "--parameter", "model=absent"),
        *("--models", tmp_path, "--json"),
        stdin=b"1,2\n",
    )

    assert ran.exit_code == 1
    assert ran.document["error"] == "UnknownModel"
    assert "no model absent" in ran.document["message"]
