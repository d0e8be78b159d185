"""The event log: what its replay gives, and what is no log."""

import json
from hashlib import sha384

import pytest

from orchestrator.errors import EncodingError
from orchestrator.evidence.bundle import MAX_EVENT_LOG_BYTES
from orchestrator.evidence.event_log import (
    MAX_EVENTS,
    RUNTIME_EVENT_TYPE,
    RuntimeEvent,
    replay,
    runtime_events,
)
from orchestrator.simulator import Guest


def entry(**changes: object) -> dict[str, object]:
    return {
        "imr": 3,
        "event_type": RUNTIME_EVENT_TYPE,
        "digest": "",
        "event": "app",
        "event_payload": "00ff",
        **changes,
    }


def log_of(*entries: dict[str, object]) -> bytes:
    return json.dumps(entries).encode()


def test_a_digest_is_dstacks_and_the_register_is_extended_by_it() -> None:
    digest = sha384(bytes.fromhex("01000008") + b":app:\0\xff").digest()

    events = runtime_events(log_of(entry(digest=digest.hex())))

    assert events == (RuntimeEvent(name="app", payload=b"\0\xff"),)
    assert events[0].digest == digest
    assert replay(events) == sha384(bytes(48) + digest).digest()
    assert replay(()) == bytes(48)


def test_the_simulators_log_replays_to_its_register() -> None:
    assert replay(runtime_events(Guest().event_log)) == Guest().rtmr3


def test_entries_of_other_registers_are_passed_over() -> None:
    boot = {"imr": 0, "event_type": 4, "digest": "zz", "event": ":", "event_payload": None}

    assert runtime_events(log_of(boot, entry())) == runtime_events(log_of(entry()))


@pytest.mark.parametrize(
    ("log", "words"),
    [
        (b"", "not JSON"),
        (b"\xff", "not JSON"),
        (b"{}", "must be a list of objects"),
        (b"[1]", "must be a list of objects"),
        (b"[" * MAX_EVENT_LOG_BYTES, "not JSON"),
        (b" " * (MAX_EVENT_LOG_BYTES + 1), "262145 bytes, at most 262144"),
        (b"[" + b"{}," * MAX_EVENTS + b"{}]", "4097 entries, at most 4096"),
        (b"[{}]", "imr must be a number"),
        (log_of(entry(imr="3")), "imr must be a number"),
        (log_of(entry(imr=True)), "imr must be a number"),
        (log_of(entry(event_type=4)), "event type 4, must be 134217729"),
        (log_of(entry(event_type=float(RUNTIME_EVENT_TYPE))), "event type"),
        (log_of(entry(event_type=None)), "event type None"),
        (log_of(entry(event="")), "its name must be text"),
        (log_of(entry(event=7)), "its name must be text"),
        (log_of(entry(event="x" * 201)), "its name must be text"),
        (log_of(entry(event="a\nb")), "its name must be text"),
        (log_of(entry(event="\ud800")), "its name must be text"),
        (log_of(entry(event="a:b")), "must not hold a colon"),
        (log_of(entry(event_payload="0")), "must be hex"),
        (log_of(entry(event_payload=7)), "must be hex"),
        (log_of(entry(digest="00" * 48)), "the digest of 'app' is not that of what"),
        (log_of(entry(), entry(digest=None)), r"log\[1\]: payload and digest"),
    ],
)
def test_what_is_no_log_is_refused(log: bytes, words: str) -> None:
    with pytest.raises(EncodingError, match=words):
        runtime_events(log)


def test_a_name_can_not_be_moved_into_the_payload() -> None:
    """Both spellings have one digest, so only one of them may be read."""
    one = RuntimeEvent(name="compose-hash", payload=b"x:y")
    other = RuntimeEvent(name="compose-hash:x", payload=b"y")

    assert one.digest == other.digest
    with pytest.raises(EncodingError, match="colon"):
        runtime_events(log_of(entry(event=other.name, event_payload=other.payload.hex())))
