"""Envelopes of every size, sealed by one implementation and opened by the other."""

import random
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from orchestrator.crypto import (
    MAX_PLAINTEXT,
    EcdsaSigner,
    EncryptionKey,
    OwnerSecret,
    open_job,
    open_result,
    seal_job,
    seal_result,
)
from orchestrator.crypto.padding import padded_length
from orchestrator.errors import OpenError
from tests.vectors import reference
from tests.vectors.envelopes import OWNER_SECRET, WORKERS, job_parts, result_parts

KEYS = [EncryptionKey.from_bytes(secret) for secret in WORKERS]
SECRET = OwnerSecret.from_bytes(OWNER_SECRET)
WORKER_KEY = EcdsaSigner.from_bytes(b"\x16" * 32).public_key
CHUNK = 65_536
# Up to four chunks, and the places where the last chunk becomes full or a new one begins.
LENGTHS = (
    st.integers(0, 600)
    | st.integers(0, 4 * CHUNK)
    | st.sampled_from([chunks * CHUNK - 8 + off for chunks in (1, 2, 3) for off in (-1, 0, 1)])
)


def _plaintext(length: int) -> bytes:
    return random.Random(length).randbytes(length)


def _seal(plaintext: bytes, workers: int, *, owner_can_read: bool) -> bytes:
    return seal_job(
        plaintext,
        genesis=b"\1" * 32,
        contract=b"\2" * 32,
        owner=b"\3" * 32,
        secret=SECRET,
        recipients=[key.public_key for key in KEYS[:workers]],
        owner_can_read=owner_can_read,
    ).envelope


def _seal_result(plaintext: bytes, nonce: bytes) -> bytes:
    return seal_result(
        plaintext,
        genesis=b"\1" * 32,
        contract=b"\2" * 32,
        job_id=(1 << 127) + 5,
        payload_hash=b"\4" * 32,
        worker_key=WORKER_KEY,
        reply_nonce=nonce,
        reply_key=SECRET.reply_key(nonce).public_key,
    )


@given(LENGTHS, st.integers(1, 4), st.booleans())
@example(0, 1, False)
@settings(max_examples=40, deadline=None)
def test_jobs_open_for_every_reader_with_both_implementations(
    length: int, workers: int, owner_can_read: bool
) -> None:
    plaintext = _plaintext(length)

    envelope = _seal(plaintext, workers, owner_can_read=owner_can_read)

    for key, secret in zip(KEYS[:workers], WORKERS, strict=False):
        assert open_job(envelope, key).plaintext == plaintext
        header, opened = reference.open_envelope(envelope, secret)
        assert opened == plaintext
        assert header["recipients"] == [
            *(reader.public_key for reader in KEYS[:workers]),
            *([header["reply_key"]] if owner_can_read else []),
        ]


@given(LENGTHS, st.integers(1, 4), st.booleans())
@settings(max_examples=40, deadline=None)
def test_jobs_of_the_second_implementation_open_with_ours(
    length: int, workers: int, owner: bool
) -> None:
    plaintext = _plaintext(length)

    envelope = job_parts(plaintext, workers=workers, owner=owner).build()

    for key in KEYS[:workers]:
        assert open_job(envelope, key).plaintext == plaintext


@given(LENGTHS, st.binary(min_size=16, max_size=16))
@settings(max_examples=40, deadline=None)
def test_results_open_both_ways(length: int, nonce: bytes) -> None:
    plaintext = _plaintext(length)

    ours = _seal_result(plaintext, nonce)
    theirs = result_parts(plaintext).build()

    assert open_result(ours, secret=SECRET).plaintext == plaintext
    assert open_result(theirs, secret=SECRET).plaintext == plaintext
    header, opened = reference.open_envelope(ours, reference.reply_secret(OWNER_SECRET, nonce))
    assert opened == plaintext
    assert header["job_id"] == ((1 << 127) + 5).to_bytes(16, "little")


@pytest.mark.parametrize(
    "length", [1_048_576, 5_000_000, MAX_PLAINTEXT - CHUNK, MAX_PLAINTEXT - 1, MAX_PLAINTEXT]
)
def test_large_plaintexts_come_back(length: int) -> None:
    plaintext = _plaintext(length)

    envelope = _seal(plaintext, 1, owner_can_read=True)

    assert open_job(envelope, KEYS[0]).plaintext == plaintext


def test_a_large_job_opens_with_the_second_implementation_too() -> None:
    plaintext = _plaintext(3_000_000)

    assert reference.open_envelope(_seal(plaintext, 1, owner_can_read=False), WORKERS[0])[1] == (
        plaintext
    )


@given(st.integers(0, MAX_PLAINTEXT))
@settings(max_examples=300)
def test_both_pad_to_the_same_length(length: int) -> None:
    assert padded_length(length) == reference.padded_length(length)


@given(st.binary(max_size=400), st.integers(1, 7))
@settings(max_examples=100, deadline=None)
def test_a_padding_that_is_not_zero_does_not_open(content: bytes, bit: int) -> None:
    """Any bit of any padding byte; the envelope is made anew, so that nothing else is wrong."""
    parts = job_parts(content)
    (padded,) = parts.chunks
    place = 8 + len(content) + bit * 37 % max(1, len(padded) - 8 - len(content))
    if place >= len(padded):
        return
    wrong = padded[:place] + bytes([1 << bit]) + padded[place + 1 :]

    with pytest.raises(OpenError):
        open_job(replace(parts, chunks=(wrong,)).build(), KEYS[0])
