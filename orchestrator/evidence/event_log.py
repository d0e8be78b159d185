"""
dstack's event log, replayed: what happened in a TD since it was started, as RTMR3 has it.

The log comes from the host and proves nothing; only its replay against the register does. So the
digests are computed here from what the entries say (digests in the log are compared, never used),
the event type is the one that dstack has, and a name may not hold the separator of the digest's
parts: one digest then stands for one name and one payload.
"""

import json
from dataclasses import dataclass
from hashlib import sha384
from typing import Final

from orchestrator.errors import EncodingError
from orchestrator.evidence.bundle import MAX_EVENT_LOG_BYTES

__all__ = ["MAX_EVENTS", "RuntimeEvent", "replay", "runtime_events"]

MAX_EVENTS: Final = 4_096
# dstack's `DSTACK_RUNTIME_EVENT_TYPE`.
RUNTIME_EVENT_TYPE: Final = 0x08000001
_RUNTIME_REGISTER: Final = 3
_MAX_NAME: Final = 200


@dataclass(frozen=True, kw_only=True)
class RuntimeEvent:
    """One event of RTMR3's log."""

    name: str
    payload: bytes

    @property
    def digest(self) -> bytes:
        """What the register is extended by: 48 bytes."""
        kind = RUNTIME_EVENT_TYPE.to_bytes(4, "little")
        return sha384(b":".join((kind, self.name.encode(), self.payload))).digest()


def runtime_events(log: bytes | None) -> tuple[RuntimeEvent, ...]:
    """
    Return RTMR3's events in a log as dstack's guest agent writes it; no log is an empty one.

    Entries of the other registers are passed over: those registers are measurements.

    Raises:
        EncodingError: It is no such log, too long, or an entry contradicts itself.
    """
    if log is None:
        return ()
    if len(log) > MAX_EVENT_LOG_BYTES:
        raise EncodingError(f"event log: {len(log)} bytes, at most {MAX_EVENT_LOG_BYTES}")
    try:
        entries = json.loads(log, object_pairs_hook=_without_repeats)
    except (ValueError, RecursionError) as error:
        raise EncodingError("event log: not JSON, or an entry says something twice") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise EncodingError("event log: must be a list of objects")
    if len(entries) > MAX_EVENTS:
        raise EncodingError(f"event log: {len(entries)} entries, at most {MAX_EVENTS}")
    return tuple(
        _event(entry, f"event log[{place}]")
        for place, entry in enumerate(entries)
        if _register(entry, f"event log[{place}]") == _RUNTIME_REGISTER
    )


def _without_repeats(pairs: list[tuple[str, object]]) -> dict[str, object]:
    # Of two values of one name, readers differ on which counts.
    entry = dict(pairs)
    if len(entry) != len(pairs):
        raise ValueError("a name twice")
    return entry


def replay(events: tuple[RuntimeEvent, ...]) -> bytes:
    """Return the register (48 bytes) after these events."""
    register = bytes(48)
    for event in events:
        register = sha384(register + event.digest).digest()
    return register


def _register(entry: dict[str, object], name: str) -> int:
    register = entry.get("imr")
    if isinstance(register, bool) or not isinstance(register, int):
        raise EncodingError(f"{name}: imr must be a number")
    return register


def _event(entry: dict[str, object], where: str) -> RuntimeEvent:
    name, kind = entry.get("event"), entry.get("event_type")
    if kind != RUNTIME_EVENT_TYPE or isinstance(kind, bool | float):
        raise EncodingError(f"{where}: event type {kind!r:.20}, must be {RUNTIME_EVENT_TYPE}")
    if not isinstance(name, str) or not 1 <= len(name) <= _MAX_NAME or not name.isprintable():
        raise EncodingError(f"{where}: its name must be text of 1 to {_MAX_NAME}")
    if ":" in name:
        raise EncodingError(f"{where}: a name must not hold a colon, it ends the name")
    event = RuntimeEvent(name=name, payload=_hex(entry.get("event_payload"), where))
    supplied = _hex(entry.get("digest", ""), where)
    if supplied and supplied != event.digest:
        raise EncodingError(f"{where}: the digest of {name!r} is not that of what the entry says")
    return event


def _hex(value: object, where: str) -> bytes:
    try:
        return bytes.fromhex(value) if isinstance(value, str) else _refuse(where)
    except ValueError as error:
        raise EncodingError(f"{where}: payload and digest must be hex") from error


def _refuse(where: str) -> bytes:
    raise EncodingError(f"{where}: payload and digest must be hex text")
