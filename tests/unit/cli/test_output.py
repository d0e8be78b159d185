"""What is printed where."""

import contextlib
import io
import json
import sys
from enum import Enum

import pytest

from orchestrator.cli.output import Document, Output, printable, shown, to_json
from orchestrator.models import Mode, PublicKey, Scheme


class _Numbered(Enum):
    ONE = 1


def test_models_become_json() -> None:
    key = PublicKey(scheme=Scheme.ECDSA, key=b"\x01\x02")

    assert to_json(key) == {"scheme": "Ecdsa", "key": "0x0102"}
    assert to_json({"a": (Mode.HALTED, None, 1.5)}) == {"a": ["Halted", None, 1.5]}
    assert to_json(_Numbered.ONE) == 1


def test_what_json_has_no_form_for_is_text() -> None:
    assert to_json(1j) == "1j"
    assert to_json(PublicKey) == str(PublicKey)


@pytest.mark.parametrize(
    ("name", "value", "text"),
    [
        ("x", None, "-"),
        ("x", True, "yes"),
        ("x", False, "no"),
        ("x", 7, "7"),
        ("created_at", 0, "1970-01-01 00:00:00 UTC"),
        ("deadline", 1_767_225_600_000, "2026-01-01 00:00:00 UTC"),
        ("valid_until", 2**64 - 1, f"{2**64 - 1} ms"),
        ("x", "word", "word"),
        ("x", {"a": 1, "b": None}, "a 1, b -"),
        ("x", {}, "-"),
        ("x", [1, 2], "1, 2"),
        ("x", [], "-"),
    ],
)
def test_values_are_shown_for_people(name: str, value: object, text: str) -> None:
    assert shown(name, value) == text  # type: ignore[arg-type]  # each is a JSON value


def test_a_control_character_does_not_reach_the_terminal() -> None:
    assert printable("a\x1b[2Jb\nc\td") == "a\ufffd[2Jb\nc\td"


def test_json_is_plain_ascii_whatever_others_wrote() -> None:
    written = io.BytesIO()
    text = "\ud800 \x9b2J \u202e \u00fc"

    stdout = io.TextIOWrapper(written, "ascii", write_through=True)
    with contextlib.redirect_stdout(stdout):
        Output(as_json=True).error("Code", text)

    assert json.loads(written.getvalue().decode("ascii"))["message"] == text
    assert b"\\u009b2J" in written.getvalue()


def test_a_result_is_one_json_document(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=True).result({"a": 1, "b": "ü"})

    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": 1, "b": "ü"}
    assert captured.err == ""


def test_a_result_is_a_line_per_field(capsys: pytest.CaptureFixture[str]) -> None:
    Output(as_json=False).result({"job_id": 1, "note": "[bold]no markup[/bold]"})

    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == ["job id  1", "note    [bold]no markup[/bold]"]


def test_rows_are_a_table_or_a_list(capsys: pytest.CaptureFixture[str]) -> None:
    rows: list[Document] = [{"id": 1, "hash": "0x" + "ab" * 32}]

    Output(as_json=False).rows("jobs", rows)
    text = capsys.readouterr().out
    Output(as_json=True).rows("jobs", rows, total=1)
    document = json.loads(capsys.readouterr().out)

    assert "0x" + "ab" * 32 in text
    assert document == {"jobs": rows, "total": 1}


def test_no_rows_are_said_in_words_and_are_an_empty_list(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Output(as_json=False).rows("jobs", [])
    words = capsys.readouterr()
    Output(as_json=True).rows("jobs", [])

    assert (words.out, words.err) == ("", "no jobs\n")
    assert json.loads(capsys.readouterr().out) == {"jobs": []}


def test_an_error_is_on_stderr_and_a_document_only_with_json(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Output(as_json=False).error("Code", "words")
    text = capsys.readouterr()
    Output(as_json=True).error("Code", "words")
    both = capsys.readouterr()

    assert (text.out, text.err) == ("", "error: words\n")
    assert json.loads(both.out) == {"error": "Code", "message": "words"}
    assert both.err == "error: words\n"


def test_progress_without_a_terminal_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with Output(as_json=False).progress("Waiting"):
        pass

    captured = capsys.readouterr()
    assert (captured.out, captured.err) == ("", "Waiting ...\n")


def test_progress_on_a_terminal_is_a_spinner_on_stderr(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")

    with Output(as_json=False).progress("Waiting"):
        pass

    assert "Waiting" in terminal.getvalue()
