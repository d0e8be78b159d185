"""Whatever is changed in an envelope, it does not open: zero accepted, counted."""

from dataclasses import fields, replace
from typing import TypeVar

import pytest

from orchestrator.crypto import (
    EcdsaSigner,
    EncryptionKey,
    JobHeader,
    OwnerSecret,
    ResultHeader,
    open_job,
    open_result,
    read_job_header,
    read_result_header,
    seal_job,
    seal_result,
)
from orchestrator.crypto.headers import (
    encode_job_header,
    encode_result_header,
    join_frame,
    split_frame,
)
from orchestrator.errors import OpenError
from tests.vectors.envelopes import (
    OWNER_SECRET,
    WORKERS,
    job_parts,
    refused_envelopes,
    result_parts,
)

H = TypeVar("H", JobHeader, ResultHeader)

KEYS = [EncryptionKey.from_bytes(bytes([place]) * 32) for place in (11, 12)]
SECRET = OwnerSecret.from_bytes(b"\x15" * 32)
WORKER_KEY = EcdsaSigner.from_bytes(b"\x16" * 32).public_key


def _seal(plaintext: bytes = b"attack at dawn", *, workers: int = 1) -> bytes:
    return seal_job(
        plaintext,
        genesis=b"\1" * 32,
        contract=b"\2" * 32,
        owner=b"\3" * 32,
        secret=SECRET,
        recipients=[key.public_key for key in KEYS[:workers]],
        owner_can_read=False,
    ).envelope


def _seal_result() -> bytes:
    nonce = b"\5" * 16
    return seal_result(
        b"they retreat",
        genesis=b"\1" * 32,
        contract=b"\2" * 32,
        job_id=7,
        payload_hash=b"\4" * 32,
        worker_key=WORKER_KEY,
        reply_nonce=nonce,
        reply_key=SECRET.reply_key(nonce).public_key,
    )


def _job_opens(envelope: bytes, key: EncryptionKey = KEYS[0]) -> bool:
    try:
        open_job(envelope, key)
    except OpenError:
        return False
    return True


def _result_opens(envelope: bytes, secret: OwnerSecret = SECRET) -> bool:
    try:
        open_result(envelope, secret=secret)
    except OpenError:
        return False
    return True


def _flipped(data: bytes, bit: int) -> bytes:
    return b"".join(
        (data[: bit // 8], bytes([data[bit // 8] ^ 1 << bit % 8]), data[bit // 8 + 1 :])
    )


def test_no_flipped_bit_of_a_sealed_job_is_accepted() -> None:
    envelope = _seal()

    accepted = [bit for bit in range(8 * len(envelope)) if _job_opens(_flipped(envelope, bit))]

    print(f"{8 * len(envelope)} bits of a job flipped, {len(accepted)} accepted")
    assert accepted == []


def test_no_flipped_bit_of_a_result_is_accepted() -> None:
    envelope = _seal_result()

    accepted = [bit for bit in range(8 * len(envelope)) if _result_opens(_flipped(envelope, bit))]

    print(f"{8 * len(envelope)} bits of a result flipped, {len(accepted)} accepted")
    assert accepted == []


def test_a_flipped_bit_leaves_at_most_the_readers_whose_wraps_it_spared() -> None:
    """
    A reader does not authenticate the wraps of others; the payload hash does.

    So with two readers a flipped bit shuts out the reader whose wrap it is in, or both.
    """
    envelope = _seal(workers=2)
    wraps = split_frame(envelope).wraps
    starts = [envelope.index(wrap) for wrap in wraps]
    for bit in range(0, 8 * len(envelope), 7):
        flipped = _flipped(envelope, bit)
        opened = [_job_opens(flipped, key) for key in KEYS[:2]]
        expected = [
            any(start <= bit // 8 < start + 80 for start in starts if start != own)
            for own in starts
        ]
        assert opened == expected


@pytest.mark.parametrize("name", [field.name for field in fields(JobHeader)])
def test_no_changed_field_of_a_job_header_is_accepted(name: str) -> None:
    envelope = _seal(workers=2)
    header = read_job_header(envelope)
    changes: dict[str, object] = {"recipients": header.recipients[::-1]}
    changed = _with(header, name, changes.get(name))
    frame = split_frame(envelope)
    mutant = join_frame(encode_job_header(changed), frame.wraps, [bytes(frame.body)])

    assert changed != header
    assert [_job_opens(mutant, key) for key in KEYS] == [False, False]


@pytest.mark.parametrize("name", [field.name for field in fields(ResultHeader)])
def test_no_changed_field_of_a_result_header_is_accepted(name: str) -> None:
    envelope = _seal_result()
    header = read_result_header(envelope)
    other_key = EcdsaSigner.from_bytes(b"\x17" * 32).public_key
    changes: dict[str, object] = {"job_id": header.job_id + 1, "worker_key": other_key}
    changed = _with(header, name, changes.get(name))
    frame = split_frame(envelope)
    mutant = join_frame(encode_result_header(changed), frame.wraps, [bytes(frame.body)])

    assert changed != header
    assert not _result_opens(mutant)


def _with(header: H, name: str, value: object) -> H:
    """Return the header with one field changed: to *value*, or by one bit."""
    old = getattr(header, name)
    new = _flipped(old, 5) if value is None else value
    return replace(header, **{name: new})  # type: ignore[arg-type]  # of the type that was there


def test_truncated_and_extended_envelopes_do_not_open() -> None:
    envelope = _seal(bytes(70_000))

    for length in [*range(0, 700, 3), *range(65_000, len(envelope), 501), len(envelope) - 1]:
        assert not _job_opens(envelope[:length])
    for extra in (b"\0", b"\x40", envelope[-17:], envelope):
        assert not _job_opens(envelope + extra)


def test_parts_of_two_envelopes_are_not_interchangeable() -> None:
    one, two = split_frame(_seal(b"one")), split_frame(_seal(b"two"))
    accepted = []
    for mask in range(8):
        header, wraps, body = (two if mask >> bit & 1 else one for bit in range(3))
        envelope = join_frame(header.header, wraps.wraps, [bytes(body.body)])
        if _job_opens(envelope):
            accepted.append(mask)

    assert accepted == [0, 7]


def test_chunks_can_not_be_reordered_repeated_or_dropped() -> None:
    envelope = _seal(bytes(200_000))
    frame = split_frame(envelope)
    body = bytes(frame.body)
    chunks = [body[start : start + 65_553] for start in range(24, len(body), 65_553)]
    assert len(chunks) == 4

    def opens(*order: int) -> bool:
        changed = [body[:24], *(chunks[place] for place in order)]
        return _job_opens(join_frame(frame.header, frame.wraps, changed))

    assert opens(0, 1, 2, 3)
    for order in ((1, 0, 2, 3), (0, 2, 1, 3), (0, 1, 3), (1, 2, 3), (0, 1, 2), (0, 0, 1, 2, 3)):
        assert not opens(*order)
    assert not opens(0, 1, 2, 3, 3)
    assert not opens(3)


def test_bodies_of_one_and_two_full_chunks_open_as_long_as_the_tags_are_right() -> None:
    """What `refused_envelopes` breaks in them is broken in something that opens."""
    key = EncryptionKey.from_bytes(WORKERS[0])

    for length in (65_528, 66_000, 131_064):
        assert _job_opens(job_parts(bytes(length)).build(), key)


def test_jobs_that_break_one_rule_do_not_open() -> None:
    """Each is made by the second implementation; see `tests/vectors/envelopes.py`."""
    parts = job_parts(workers=2, owner=True)
    key = EncryptionKey.from_bytes(WORKERS[0])

    accepted = [name for name, data in refused_envelopes(parts).items() if _job_opens(data, key)]

    assert _job_opens(parts.build(), key)
    assert accepted == []


def test_results_that_break_one_rule_do_not_open() -> None:
    parts = result_parts(b"x")
    secret = OwnerSecret.from_bytes(OWNER_SECRET)

    accepted = [
        name for name, data in refused_envelopes(parts).items() if _result_opens(data, secret)
    ]

    assert _result_opens(parts.build(), secret)
    assert accepted == []
