"""What a check of `doctor` found."""

from dataclasses import dataclass
from enum import Enum


class Outcome(Enum):
    """What a check found."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"
    UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check found, and what to do about it."""

    check: str
    outcome: Outcome
    found: str
    hint: str = ""


def finding(check: str, outcome: Outcome, found: str, hint: str = "") -> Finding:
    """Return a finding, its parts by their places."""
    return Finding(check=check, outcome=outcome, found=found, hint=hint)
