"""Times as Intel's documents write them, without a clock: UTC, to the second."""

import calendar
import re

from orchestrator.errors import EncodingError

__all__ = ["format_utc", "parse_utc"]

_UTC = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z", re.ASCII)
_DAY = 86_400


def parse_utc(text: object) -> int:
    """
    Return the seconds since the epoch of `2026-08-13T10:45:38Z`.

    Raises:
        EncodingError: The text is not of that form, or there is no such time.
    """
    found = _UTC.fullmatch(text) if isinstance(text, str) else None
    if found is None:
        raise EncodingError(f"time: {text!r:.40}, must be like 2026-08-13T10:45:38Z")
    try:
        seconds = calendar.timegm(tuple(map(int, found.groups())))
    except ValueError as error:
        raise EncodingError(f"time: there is no {text}") from error
    # `timegm` takes the 30th of February for the 2nd of March.
    if format_utc(seconds * 1000) != text:
        raise EncodingError(f"time: there is no {text}")
    return seconds


def format_utc(milliseconds: int) -> str:
    """Return `2026-08-13T10:45:38Z` for milliseconds since the epoch, `.500` if needed."""
    total, fraction = divmod(milliseconds, 1000)
    days, seconds = divmod(total, _DAY)
    # From days to a date in the proleptic Gregorian calendar, whose cycle is 146,097 days; a year
    # begins in March here, so that the leap day is its last.
    cycle, day_of_cycle = divmod(days + 719_468, 146_097)
    year_of_cycle = (
        day_of_cycle - day_of_cycle // 1_460 + day_of_cycle // 36_524 - day_of_cycle // 146_096
    ) // 365
    day_of_year = day_of_cycle - (365 * year_of_cycle + year_of_cycle // 4 - year_of_cycle // 100)
    shifted = (5 * day_of_year + 2) // 153
    day = day_of_year - (153 * shifted + 2) // 5 + 1
    month = shifted + 3 if shifted < 10 else shifted - 9
    year = year_of_cycle + 400 * cycle + (month <= 2)
    hour, rest = divmod(seconds, 3_600)
    part = f".{fraction:03}" if fraction else ""
    return f"{year:04}-{month:02}-{day:02}T{hour:02}:{rest // 60:02}:{rest % 60:02}{part}Z"
