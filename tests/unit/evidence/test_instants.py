"""Times of Intel's documents."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import EncodingError
from orchestrator.evidence.instants import format_utc, parse_utc


@given(st.integers(min_value=0, max_value=253_402_300_799))
def test_a_time_is_written_as_datetime_writes_it_and_read_back(seconds: int) -> None:
    expected = datetime.fromtimestamp(seconds, tz=UTC).strftime("%Y-%m-%dT%H:%M:%SZ").rjust(20, "0")

    assert format_utc(seconds * 1000) == expected
    assert parse_utc(expected) == seconds


def test_parts_of_a_second_are_shown() -> None:
    assert format_utc(1_786_622_400_001) == "2026-08-13T12:00:00.001Z"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-08-13",
        "2026-08-13T10:45:38",
        "2026-08-13T10:45:38+00:00",
        "2026-13-13T10:45:38Z",
        "2026-02-30T10:45:38Z",
        "2026-08-13T24:00:00Z",
        "2026-08-13T10:60:00Z",
        "2026-08-13T10:45:60Z",
        "٢٠٢٦-08-13T10:45:38Z",
        None,
        1_786_622_400,
    ],
)
def test_what_is_no_time_is_refused(text: object) -> None:
    with pytest.raises(EncodingError, match="time"):
        parse_utc(text)
