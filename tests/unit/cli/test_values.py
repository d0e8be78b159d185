"""What people write, and what is said when it can't be read."""

import io
import sys
from pathlib import Path

import pytest

from orchestrator.cli import values
from orchestrator.errors import InputError
from orchestrator.models import Parameters

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


@pytest.mark.parametrize(
    ("text", "ms"),
    [("500ms", 500), ("90s", 90_000), ("15m", 900_000), ("2h", 7_200_000), (" 7d ", 604_800_000)],
)
def test_durations_have_units(text: str, ms: int) -> None:
    assert values.parse_duration("ttl", text) == ms


@pytest.mark.parametrize("text", ["", "5", "h", "-1h", "1.5h", "1 h", "1w", "9" * 16 + "s"])
def test_anything_else_is_no_duration(text: str) -> None:
    with pytest.raises(InputError, match=r"ttl: .* is no duration"):
        values.parse_duration("ttl", text)


def test_a_duration_beyond_every_clock_is_refused_with_the_limit() -> None:
    assert values.parse_duration("ttl", "3650d") == 315_360_000_000
    with pytest.raises(InputError, match="ttl: '3651d' is longer than 3650d"):
        values.parse_duration("ttl", "3651d")


@pytest.mark.parametrize(
    "text",
    [
        "1786617938500",
        "2026-08-13T10:45:38.500Z",
        "2026-08-13 12:45:38.500+02:00",
        "2026-08-13T10:45:38.500",
    ],
)
def test_times_are_milliseconds_or_dates_in_utc(text: str) -> None:
    assert values.parse_time("at", text) == 1_786_617_938_500


@pytest.mark.parametrize("text", ["", "yesterday", "9" * 16, "2026-13-01", "-1", "10000-01-01"])
def test_anything_else_is_no_time(text: str) -> None:
    with pytest.raises(InputError, match=r"at: .* is no time"):
        values.parse_time("at", text)


@pytest.mark.parametrize("prefix", ["", "0x"])
def test_32_bytes_are_64_hex_digits(prefix: str) -> None:
    assert values.parse_bytes32("measurement", prefix + "ab" * 32) == b"\xab" * 32


@pytest.mark.parametrize("text", ["", "ab", "zz" * 32, "ab" * 33])
def test_other_lengths_and_letters_are_refused(text: str) -> None:
    with pytest.raises(InputError, match=r"measurement: .* is not 64 hex digits"):
        values.parse_bytes32("measurement", text)


def test_accounts_are_ss58_or_hex() -> None:
    account = values.parse_account("account", ALICE)

    assert values.parse_account("account", "0x" + account.hex()) == account


def test_a_mistyped_account_names_the_field_and_the_value() -> None:
    with pytest.raises(InputError, match=f"account: '{ALICE[:-1]}Z'"):
        values.parse_account("account", ALICE[:-1] + "Z")


def test_parameters_change_only_what_is_named() -> None:
    changed = values.parse_parameters(
        ["rate_limit=7", "max_ttl=2d", "mark_grace=60000"], Parameters(max_payload=999)
    )

    assert changed == Parameters(
        max_payload=999, rate_limit=7, max_ttl=172_800_000, mark_grace=60_000
    )


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("rate_limit", "must be NAME=VALUE"),
        ("nothing=1", "must be NAME=VALUE with NAME one of .*rate_limit"),
        ("rate_limit=-1", "rate_limit: '-1' is not a whole number"),
        ("rate_limit=" + "9" * 21, "is not a whole number"),
        ("max_ttl=soon", "max_ttl: 'soon' is no duration"),
    ],
)
def test_parameters_that_can_not_be_read_are_named(assignment: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        values.parse_parameters([assignment], Parameters())


def test_task_parameters_are_json_or_text() -> None:
    found = values.parse_task_parameters(["a=1", "b=true", "c=word", 'd="1"', "e=x=y"])

    assert found == {"a": 1, "b": True, "c": "word", "d": "1", "e": "x=y"}


def test_what_json_does_not_have_is_text() -> None:
    assert values.parse_task_parameters(["a=NaN", "b=-Infinity"]) == {"a": "NaN", "b": "-Infinity"}


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("[" * 20 + "]" * 20, "more than 16 levels"),
        ("[" * 3_000, "nested too deeply"),
        ("1e999", "float is not allowed here"),
        (str(1 << 70), "does not fit 64 bits"),
    ],
)
def test_a_task_parameter_that_can_not_be_sent_is_named(value: str, why: str) -> None:
    with pytest.raises(InputError, match=f"parameter b: .*{why}"):
        values.parse_task_parameters(["a=1", f"b={value}"])


@pytest.mark.parametrize("assignment", ["a", "=1"])
def test_task_parameters_without_a_name_are_refused(assignment: str) -> None:
    with pytest.raises(InputError, match="must be NAME=VALUE"):
        values.parse_task_parameters([assignment])


def test_input_is_read_whole_up_to_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"\x00\xff1234")

    assert values.read_input("input", path, max_bytes=6) == b"\x00\xff1234"


def test_input_of_one_byte_too_many_is_refused_with_the_limit(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(b"1234567")

    with pytest.raises(InputError, match="longer than the limit of 6 bytes"):
        values.read_input("input", path, max_bytes=6)


def test_empty_input_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.touch()

    with pytest.raises(InputError, match="empty; at least 1 byte"):
        values.read_input("input", path, max_bytes=6)


@pytest.mark.parametrize("name", ["nowhere", "."])
def test_input_that_can_not_be_read_is_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=f"input {tmp_path / name}: "):
        values.read_input("input", tmp_path / name, max_bytes=6)


def test_a_dash_is_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"abc")))

    assert values.read_input("input", Path("-"), max_bytes=6) == b"abc"
