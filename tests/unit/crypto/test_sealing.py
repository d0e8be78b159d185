"""Envelopes open for those they are sealed to, and for nothing else that was done to them."""

import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
from cryptography.hazmat.bindings._rust import openssl
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from orchestrator.crypto import (
    MAX_ENVELOPE,
    MAX_PLAINTEXT,
    EcdsaSigner,
    EncryptionKey,
    JobHeader,
    OwnerSecret,
    SealedJob,
    open_job,
    open_result,
    read_job_header,
    read_result_header,
    seal_job,
    seal_result,
    sealing,
    verify_job_header,
)
from orchestrator.crypto.headers import join_frame, split_frame
from orchestrator.crypto.stream import open_body
from orchestrator.encoding import encode_array_head, encode_bytes_head
from orchestrator.errors import Error, InputError, OpenError
from tests.vectors.envelopes import (
    OWNER_SECRET,
    WORKERS,
    job_parts,
    refused_envelopes,
    result_parts,
)

GENESIS, CONTRACT, OWNER = b"\1" * 32, b"\2" * 32, b"\3" * 32
PAYLOAD_HASH = b"\4" * 32
KEYS = [EncryptionKey.from_bytes(bytes([place]) * 32) for place in (11, 12, 13, 14)]
STRANGER = EncryptionKey.from_bytes(b"\x63" * 32)
SECRET = OwnerSecret.from_bytes(b"\x15" * 32)
WORKER_KEY = EcdsaSigner.from_bytes(b"\x16" * 32).public_key
LOW_ORDER_POINT = (1).to_bytes(32, "little")


def _seal(
    plaintext: bytes = b"attack at dawn", *, workers: int = 1, owner_can_read: bool = False
) -> SealedJob:
    return seal_job(
        plaintext,
        genesis=GENESIS,
        contract=CONTRACT,
        owner=OWNER,
        secret=SECRET,
        recipients=[key.public_key for key in KEYS[:workers]],
        owner_can_read=owner_can_read,
    )


def _seal_result(plaintext: bytes = b"they retreat", *, nonce: bytes = b"\5" * 16) -> bytes:
    return seal_result(
        plaintext,
        genesis=GENESIS,
        contract=CONTRACT,
        job_id=7,
        payload_hash=PAYLOAD_HASH,
        worker_key=WORKER_KEY,
        reply_nonce=nonce,
        reply_key=SECRET.reply_key(nonce).public_key,
    )


def _opens(envelope: bytes, key: EncryptionKey) -> bool:
    try:
        open_job(envelope, key)
    except OpenError:
        return False
    return True


# Who can open.


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("owner_can_read", [False, True])
def test_every_recipient_opens_and_nobody_else(workers: int, owner_can_read: bool) -> None:
    sealed = _seal(workers=workers, owner_can_read=owner_can_read)
    owner = SECRET.reply_key(sealed.header.nonce)
    readers = [*KEYS[:workers], *([owner] if owner_can_read else [])]
    others = [STRANGER, *KEYS[workers:], *([] if owner_can_read else [owner])]

    for key in readers:
        opened = open_job(sealed.envelope, key)
        assert opened.plaintext == b"attack at dawn"
        assert opened.header == sealed.header
    for key in others:
        with pytest.raises(OpenError):
            open_job(sealed.envelope, key)


def test_the_header_says_what_was_sealed() -> None:
    sealed = _seal(workers=2, owner_can_read=True)

    assert read_job_header(sealed.envelope) == sealed.header
    assert sealed.header == JobHeader(
        genesis=GENESIS,
        contract=CONTRACT,
        owner=OWNER,
        nonce=sealed.header.nonce,
        reply_key=SECRET.reply_key(sealed.header.nonce).public_key,
        recipients=(
            KEYS[0].public_key,
            KEYS[1].public_key,
            SECRET.reply_key(sealed.header.nonce).public_key,
        ),
        commitment=sealed.header.commitment,
    )


def test_a_result_opens_with_the_owner_secret_alone() -> None:
    envelope = _seal_result()

    opened = open_result(envelope, secret=SECRET)

    assert opened.plaintext == b"they retreat"
    assert opened.header == read_result_header(envelope)
    assert (opened.header.job_id, opened.header.payload_hash) == (7, PAYLOAD_HASH)
    assert opened.header.worker_key == WORKER_KEY
    with pytest.raises(OpenError):
        open_result(envelope, secret=OwnerSecret.generate())


def test_nothing_repeats_when_the_same_is_sealed_twice() -> None:
    first, second = _seal(), _seal()

    assert first.header.nonce != second.header.nonce
    assert first.header.commitment != second.header.commitment
    assert first.header.reply_key != second.header.reply_key
    assert split_frame(first.envelope).wraps != split_frame(second.envelope).wraps
    assert bytes(split_frame(first.envelope).body) != bytes(split_frame(second.envelope).body)


def test_a_job_is_no_result_and_a_result_no_job() -> None:
    job, result = _seal().envelope, _seal_result()

    for read in (
        lambda: read_result_header(job),
        lambda: open_result(job, secret=SECRET),
        lambda: read_job_header(result),
        lambda: open_job(result, KEYS[0]),
    ):
        with pytest.raises(OpenError):
            read()


def test_an_opened_plaintext_is_not_shown() -> None:
    assert "dawn" not in repr(open_job(_seal().envelope, KEYS[0]))
    assert "retreat" not in repr(open_result(_seal_result(), secret=SECRET))


# Sizes.


@pytest.mark.parametrize(
    "length",
    [
        *(0, 1, 247, 248, 249, 256, 65_527, 65_528, 65_529, 65_535, 65_536, 65_537),
        *(131_063, 131_064, 131_065, 1_048_576),
    ],
)
def test_lengths_around_every_boundary_come_back(length: int) -> None:
    plaintext = bytes(place * 31 % 256 for place in range(length))

    assert open_job(_seal(plaintext).envelope, KEYS[0]).plaintext == plaintext
    assert open_result(_seal_result(plaintext), secret=SECRET).plaintext == plaintext


def test_sixteen_mebibytes_are_sealed_and_opened_in_a_few_copies() -> None:
    plaintext = bytes(MAX_PLAINTEXT)

    tracemalloc.start()
    sealed = _seal(plaintext, workers=4, owner_can_read=True)
    _, sealing_peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    tracemalloc.start()
    opened = open_job(sealed.envelope, KEYS[3])
    _, opening_peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert opened.plaintext == plaintext
    assert len(sealed.envelope) <= MAX_ENVELOPE
    assert sealing_peak < 2.2 * MAX_PLAINTEXT
    assert opening_peak < 2.2 * MAX_PLAINTEXT


def test_a_byte_more_than_sixteen_mebibytes_is_refused_with_the_limit() -> None:
    plaintext = bytes(MAX_PLAINTEXT + 1)

    with pytest.raises(InputError, match="plaintext: 16777217 bytes, at most 16777216"):
        _seal(plaintext)
    with pytest.raises(InputError, match="plaintext: 16777217 bytes"):
        _seal_result(plaintext)


def test_a_longer_body_than_can_be_sealed_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    envelope = _seal(bytes(1_000)).envelope

    monkeypatch.setattr(sealing, "_MAX_BODY", len(split_frame(envelope).body) - 1)

    with pytest.raises(OpenError):
        open_job(envelope, KEYS[0])


def test_lengths_of_one_class_can_not_be_told_apart() -> None:
    assert len({len(_seal(bytes(length)).envelope) for length in range(249)}) == 1


# What can't be sealed.


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"recipients": []}, "recipients: 0, must be 1 to 4"),
        ({"recipients": [bytes([9 + place]) * 32 for place in range(5)]}, "recipients: 5"),
        ({"recipients": [b"\x09" * 32, b"\x09" * 32]}, "recipients: a key is there twice"),
        ({"recipients": [b"\x09" * 32, b"\x09" * 31]}, r"recipients\[1\]: .* 31 bytes"),
        ({"recipients": [b"\x09" * 32, bytes(32)]}, r"recipients\[1\]: .* small order"),
        ({"recipients": [b"\xff" * 32]}, r"recipients\[0\]: .* canonical"),
        ({"genesis": b"\1" * 31}, "genesis: must be 32 bytes"),
        ({"contract": b"\1" * 33}, "contract: must be 32 bytes"),
        ({"owner": b""}, "owner: must be 32 bytes"),
    ],
)
def test_bad_input_to_a_job_is_named(change: dict[str, object], reason: str) -> None:
    arguments: dict[str, object] = {
        "genesis": GENESIS,
        "contract": CONTRACT,
        "owner": OWNER,
        "secret": SECRET,
        "recipients": [KEYS[0].public_key],
    }

    with pytest.raises(InputError, match=reason):
        seal_job(b"", **{**arguments, **change})  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"reply_key": bytes(32)}, "reply_key: .* small order"),
        ({"reply_key": LOW_ORDER_POINT}, "reply_key: .* small order"),
        ({"reply_key": b"\x09" * 33}, "reply_key: .* 33 bytes"),
        ({"genesis": b""}, "genesis: must be 32 bytes"),
        ({"payload_hash": b"\1" * 31}, "payload_hash: must be 32 bytes"),
        ({"reply_nonce": b"\1" * 15}, "reply_nonce: must be 16 bytes"),
        ({"job_id": 1 << 128}, "job_id: .* does not fit 128"),
        ({"job_id": -1}, "job_id: -1 does not fit 128"),
        ({"worker_key": replace(WORKER_KEY, key=b"\2" * 32)}, "signing key: 32 bytes"),
    ],
)
def test_bad_input_to_a_result_is_named(change: dict[str, object], reason: str) -> None:
    arguments: dict[str, object] = {
        "genesis": GENESIS,
        "contract": CONTRACT,
        "job_id": 7,
        "payload_hash": PAYLOAD_HASH,
        "worker_key": WORKER_KEY,
        "reply_nonce": b"\5" * 16,
        "reply_key": KEYS[0].public_key,
    }

    with pytest.raises(InputError, match=reason):
        seal_result(b"", **{**arguments, **change})  # type: ignore[arg-type]  # wrong on purpose


# The commitment.


def test_two_recipients_can_not_be_given_two_content_keys(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The second wrap holds another key: it is refused before any chunk is opened."""
    parts = job_parts(workers=2)
    good = split_frame(parts.build())
    other = replace(parts, randomness=replace(parts.randomness, cek=b"\x42" * 32))
    other_wraps = split_frame(replace(other, header=parts.header).build()).wraps
    envelope = join_frame(good.header, (good.wraps[0], other_wraps[1]), [bytes(good.body)])
    opened_bodies = []

    def counted(body: memoryview, *, key: bytes, associated: bytes) -> bytes:
        opened_bodies.append(key)
        return open_body(body, key=key, associated=associated)

    monkeypatch.setattr(sealing, "open_body", counted)

    assert _opens(envelope, EncryptionKey.from_bytes(WORKERS[0]))
    assert len(opened_bodies) == 1
    assert not _opens(envelope, EncryptionKey.from_bytes(WORKERS[1]))
    assert len(opened_bodies) == 1


# No oracle.


def test_every_failure_to_open_looks_the_same() -> None:
    """One message, no cause, no context: nothing tells a wrong key from a wrong byte."""
    job, result = job_parts(workers=2), result_parts(b"x")
    key, secret = EncryptionKey.from_bytes(WORKERS[0]), OwnerSecret.from_bytes(OWNER_SECRET)
    attempts: list[Callable[[], object]] = [
        lambda: open_job(job.build(), STRANGER),
        lambda: open_result(result.build(), secret=SECRET),
        lambda: read_job_header(b""),
        lambda: read_result_header(b""),
    ]
    attempts += [partial(open_job, data, key) for data in refused_envelopes(job).values()]
    attempts += [
        partial(open_result, data, secret=secret) for data in refused_envelopes(result).values()
    ]
    seen = set()
    for attempt in attempts:
        with pytest.raises(Error) as caught:
            attempt()
        error = caught.value
        seen.add((type(error), str(error), error.args, error.__cause__, error.__context__))

    assert seen == {(OpenError, str(OpenError()), OpenError().args, None, None)}


# The worker's rule.


def _head(header: JobHeader, **changes: object) -> Callable[[], None]:
    arguments: dict[str, object] = {
        "genesis": GENESIS,
        "contract": CONTRACT,
        "owner": OWNER,
        "reply_key": header.reply_key,
        "recipients": [key.public_key for key in KEYS[:2]],
    }
    return lambda: verify_job_header(header, **{**arguments, **changes})  # type: ignore[arg-type]  # typed above


@pytest.mark.parametrize("owner_can_read", [False, True])
def test_the_header_of_the_job_at_hand_is_accepted(owner_can_read: bool) -> None:
    header = _seal(workers=2, owner_can_read=owner_can_read).header

    _head(header)()


@pytest.mark.parametrize("field", ["genesis", "contract", "owner", "reply_key"])
def test_a_payload_for_another_place_is_refused(field: str) -> None:
    """Another chain, contract, owner or reply key: it opens, and must not be executed."""
    sealed = _seal(workers=2, owner_can_read=True)
    header = open_job(sealed.envelope, KEYS[0]).header

    with pytest.raises(OpenError):
        _head(header, **{field: b"\x77" * 32})()


@pytest.mark.parametrize(
    "recipients",
    [
        [],
        [KEYS[0].public_key],
        [KEYS[1].public_key, KEYS[0].public_key],
        [key.public_key for key in KEYS[:3]],
        [KEYS[0].public_key, KEYS[2].public_key],
    ],
    ids=["none", "fewer", "reordered", "more", "other"],
)
@pytest.mark.parametrize("owner_can_read", [False, True])
def test_other_readers_than_the_jobs_workers_are_refused(
    recipients: list[bytes], owner_can_read: bool
) -> None:
    header = _seal(workers=2, owner_can_read=owner_can_read).header

    with pytest.raises(OpenError):
        _head(header, recipients=recipients)()


def test_an_extra_reader_is_refused_unless_it_is_the_reply_key() -> None:
    header = _seal(workers=2, owner_can_read=True).header
    spied = replace(header, recipients=(*header.recipients[:2], STRANGER.public_key))
    owner_first = replace(header, recipients=(header.reply_key, *header.recipients[:2]))
    both = replace(header, recipients=(*header.recipients, STRANGER.public_key))

    for wrong in (spied, owner_first, both):
        with pytest.raises(OpenError):
            _head(wrong)()


# HPKE itself.


def test_the_suite_agrees_with_rfc_9180() -> None:
    """
    RFC 9180, appendix A.2.1.1, sequence number 0.

    Its vectors have additional data, which our wraps leave empty; the library takes it in a
    function that is not public.
    """
    sender = bytes.fromhex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a")
    secret = bytes.fromhex("8057991eef8f1f1af18f4a9491d16a1ce333f695d4db8e38da75975c4478e0fb")
    ciphertext = bytes.fromhex(
        "1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28"
    )

    plaintext = openssl.hpke._decrypt_with_aad(
        sealing._SUITE,
        sender + ciphertext,
        X25519PrivateKey.from_private_bytes(secret),
        bytes.fromhex("4f6465206f6e2061204772656369616e2055726e"),
        b"Count-0",
    )

    assert plaintext == b"Beauty is truth, truth beauty"


def test_an_envelope_is_written_in_the_shortest_form() -> None:
    envelope = _seal(bytes(70_000)).envelope
    frame = split_frame(envelope)

    assert envelope == b"".join(
        [
            encode_array_head(3),
            encode_bytes_head(len(frame.header)),
            frame.header,
            encode_array_head(1),
            encode_bytes_head(80),
            frame.wraps[0],
            encode_bytes_head(len(frame.body)),
            frame.body,
        ]
    )
