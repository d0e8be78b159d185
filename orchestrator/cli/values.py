"""
How people write what the protocol holds: durations, bytes, accounts, parameters.

Each function says which field was wrong, what it may hold, and what it held.
"""

import dataclasses
import json
import re
import sys
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.errors import ConfigError, InputError
from orchestrator.models import Parameters, PublicKey, Scheme

if TYPE_CHECKING:
    from orchestrator.evidence import Policy

_UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
MAX_DURATION_DAYS = 3_650  # more than any rule allows, and few enough for every clock and counter
_DURATION = re.compile(r"(\d{1,15})(ms|s|m|h|d)")
_MS_PARAMETERS = {
    "min_ttl",
    "max_ttl",
    "rate_window",
    "max_attestation_age",
    "max_clock_skew",
    "max_registration",
    "mark_grace",
}
_BYTE_PARAMETERS = {"max_payload", "max_reference"}
_DAY = _UNITS_MS["d"]
PARAMETER_BOUNDS = {  # of protocol 2.4; the contract alone enforces them
    "max_payload": (256, 12_288),
    "max_reference": (1, 1 << 40),
    "min_ttl": (10_000, 30 * _DAY),
    "max_ttl": (10_000, 30 * _DAY),
    "rate_limit": (1, 1_000_000),
    "rate_window": (1_000, _DAY),
    "max_attestation_age": (1_000, _DAY),
    "max_clock_skew": (0, 600_000),
    "max_registration": (3_600_000, 365 * _DAY),
    "mark_grace": (60_000, 7 * _DAY),
}


def parse_duration(field: str, text: str) -> int:
    """Milliseconds from `90s`, `15m`, `2h`, `7d`, `500ms`."""
    match = _DURATION.fullmatch(text.strip())
    if match is None:
        raise InputError(f"{field}: {text!r} is no duration such as 90s, 15m, 2h or 7d")
    duration = int(match[1]) * _UNITS_MS[match[2]]
    if duration > MAX_DURATION_DAYS * _UNITS_MS["d"]:
        raise InputError(f"{field}: {text!r} is longer than {MAX_DURATION_DAYS}d")
    return duration


def shown_duration(ms: int) -> str:
    """Milliseconds in the largest unit that holds them whole: `1m`, `90s`, `1500ms`."""
    unit = next((u for u in ("d", "h", "m", "s") if ms and ms % _UNITS_MS[u] == 0), "ms")
    return f"{ms // _UNITS_MS[unit]}{unit}"


def shown_parameter(name: str, value: int) -> str:
    """A limit of the contract with its unit, such as `1m`, `8192 bytes` or `60`."""
    if name in _MS_PARAMETERS:
        return shown_duration(value)
    return f"{value} bytes" if name in _BYTE_PARAMETERS else str(value)


def shown_bounds(names: Iterable[str]) -> str:
    """Between what an admin may set these limits."""
    return ", ".join(
        f"{name} {shown_parameter(name, low)} to {shown_parameter(name, high)}"
        for name, (low, high) in PARAMETER_BOUNDS.items()
        if name in names
    )


def parse_time(field: str, text: str) -> int:
    """Milliseconds since the epoch, from themselves or from a date in UTC as ISO 8601 has it."""
    if text.isdecimal() and len(text) <= 15:
        return int(text)
    try:
        moment = datetime.fromisoformat(text)
        aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return round(aware.timestamp() * 1_000)
    except (ValueError, OverflowError):
        raise InputError(
            f"{field}: {text!r} is no time such as 2026-08-13T10:45:38Z, nor milliseconds"
        ) from None


def parse_bytes32(field: str, text: str) -> bytes:
    """32 bytes from 64 hex digits, with or without 0x."""
    try:
        data = bytes.fromhex(text.removeprefix("0x"))
    except ValueError:
        data = b""
    if len(data) != 32:
        raise InputError(f"{field}: {text!r} is not 64 hex digits (32 bytes)")
    return data


def parse_public_key(field: str, text: str) -> PublicKey:
    """A signing key from hex: 33 bytes are ECDSA, 32 are sr25519."""
    schemes = {33: Scheme.ECDSA, 32: Scheme.SR25519}
    try:
        key = bytes.fromhex(text.removeprefix("0x"))
        return PublicKey(scheme=schemes[len(key)], key=key)
    except (ValueError, KeyError):
        raise InputError(
            f"{field}: {text!r} is no signing key of 33 (ECDSA) or 32 (sr25519) bytes in hex"
        ) from None


def parse_account(field: str, text: str) -> bytes:
    """An account id from SS58, or 0x and 64 hex digits."""
    from orchestrator.encoding import from_ss58

    try:
        return from_ss58(text)
    except InputError as error:
        raise InputError(f"{field}: {text!r}: {error}") from error


def parse_parameters(assignments: Iterable[str], base: Parameters) -> Parameters:
    """*base* with `name=value` applied; times are durations, others numbers."""
    known = {declared.name for declared in dataclasses.fields(Parameters)}
    changes: dict[str, int] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or name not in known:
            raise InputError(
                f"parameter {assignment!r}: must be NAME=VALUE with NAME one of "
                + ", ".join(sorted(known))
            )
        if name in _MS_PARAMETERS and not text.isdecimal():
            changes[name] = parse_duration(name, text)
        elif text.isdecimal() and len(text) <= 20:
            changes[name] = int(text)
        else:
            raise InputError(f"parameter {name}: {text!r} is not a whole number")
    return dataclasses.replace(base, **changes)


def parse_task_parameters(assignments: Iterable[str]) -> dict[str, object]:
    """
    A task's parameters from `name=value`; a value that is JSON is that, any other is text.

    Raises:
        InputError: One has no name, or holds what can't be sent; names it.
    """
    found: dict[str, object] = {}
    for assignment in assignments:
        name, separator, text = assignment.partition("=")
        if not separator or not name:
            raise InputError(f"parameter {assignment!r}: must be NAME=VALUE")
        try:
            found[name] = json.loads(text, parse_constant=_no_json)
        except ValueError:
            found[name] = text
        except RecursionError:
            raise InputError(f"parameter {name}: nested too deeply") from None
        _require_sendable(name, found[name])
    return found


def _no_json(constant: str) -> None:
    """Python reads NaN and Infinity as numbers; JSON has none such."""
    raise ValueError(constant)


def _require_sendable(name: str, value: object) -> None:
    """Say which parameter it is that can't be sent, which whoever encodes them all can't."""
    from orchestrator.encoding import encode_task_input
    from orchestrator.errors import EncodingError
    from orchestrator.models import TaskInput

    try:
        encode_task_input(TaskInput(task="echo", input=b"", parameters={name: value}))
    except EncodingError as error:
        raise InputError(f"parameter {name}: {error}") from error


def read_policy_file(path: Path) -> tuple["Policy", bytes]:
    """
    The policy in a file, and the file's bytes.

    Raises:
        InputError: The file can't be read.
        ConfigError: It is no policy; names the file.
    """
    from orchestrator.evidence import MAX_POLICY_BYTES
    from orchestrator.evidence.policy_file import load_policy

    data = read_input("policy", path, max_bytes=MAX_POLICY_BYTES)
    try:
        return load_policy(data), data
    except ConfigError as error:
        raise ConfigError(f"policy {path}: {str(error).removeprefix('policy: ')}") from error


def read_input(field: str, path: Path, *, max_bytes: int) -> bytes:
    """
    The bytes of a file, or of standard input for `-`; never more than *max_bytes*.

    Raises:
        InputError: It can't be read, is empty, or is longer; names the field, the
            limit and the value.
    """
    try:
        if str(path) == "-":
            data = sys.stdin.buffer.read(max_bytes + 1)
        else:
            with path.open("rb") as handle:
                data = handle.read(max_bytes + 1)
    except OSError as error:
        raise InputError(f"{field} {path}: {error.strerror or error}") from error
    if not data:
        raise InputError(f"{field} {path}: empty; at least 1 byte is needed")
    if len(data) > max_bytes:
        raise InputError(f"{field} {path}: longer than the limit of {max_bytes} bytes")
    return data
