"""Vectors of sealed jobs and results: what opens, and what must not although it nearly does."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import cbor2

from tests.vectors import reference
from tests.vectors.reference import Randomness

Document = dict[str, object]

ORIGIN = (
    "made by tests/vectors/envelopes.py with tests/vectors/reference.py (pyhpke, cbor2, libsodium)"
)
MAX_IN_FILE = 4_096
ZERO_POINT = bytes(32)


def _named(name: str, length: int = 32) -> bytes:
    return reference.blake2_256(b"phala-jobs test vectors: " + name.encode())[:length]


WORKERS = tuple(_named(f"worker {place} encryption secret") for place in range(4))
OWNER_SECRET = _named("owner secret")
PLAINTEXT = reference.dump({"task": "echo", "input": b"hello", "parameters": {}})
NONCE = _named("job nonce", 16)
REPLY_SECRET = reference.reply_secret(OWNER_SECRET, NONCE)
REPLY_KEY = reference.public_key(REPLY_SECRET)


def _randomness(name: str, *, nonce: bytes, recipients: int) -> Randomness:
    return Randomness(
        cek=_named(f"{name} cek"),
        nonce=nonce,
        stream_header=_named(f"{name} stream header", 24),
        ephemerals=tuple(_named(f"{name} ephemeral {place}") for place in range(recipients)),
    )


@dataclass(frozen=True, kw_only=True)
class Parts:
    """An envelope before it is put together, so that one part can be made wrong."""

    header: dict[str, object]
    recipients: tuple[bytes, ...]
    randomness: Randomness
    chunks: tuple[bytes, ...]
    tags: tuple[int, ...]
    header_bytes: bytes | None = None
    wraps: tuple[bytes, ...] | None = None
    after_body: bytes = b""
    after_envelope: bytes = b""
    edit_frame: Callable[[bytes, list[bytes], bytes], bytes] = field(
        default=lambda header, wraps, body: reference.dump([header, wraps, body])
    )

    def build(self) -> bytes:
        header = reference.dump(self.header) if self.header_bytes is None else self.header_bytes
        hashed = reference.header_hash(header)
        wraps = list(self.make_wraps(hashed) if self.wraps is None else self.wraps)
        body = reference.stream(
            list(self.chunks), list(self.tags), header_hash=hashed, randomness=self.randomness
        )
        return self.edit_frame(header, wraps, body + self.after_body) + self.after_envelope

    def make_wraps(self, hashed: bytes) -> tuple[bytes, ...]:
        return tuple(
            reference.wrap(self.randomness.cek, key, header_hash=hashed, ephemeral=ephemeral)
            for key, ephemeral in zip(self.recipients, self.randomness.ephemerals, strict=True)
        )


def _job_header(recipients: tuple[bytes, ...], randomness: Randomness) -> dict[str, object]:
    return {
        "v": 1,
        "kind": "job",
        "genesis": _named("genesis"),
        "contract": _named("contract"),
        "owner": _named("owner"),
        "nonce": randomness.nonce,
        "reply_key": REPLY_KEY,
        "recipients": list(recipients),
        "commitment": reference.commitment(randomness),
    }


def _result_header(randomness: Randomness) -> dict[str, object]:
    return {
        "v": 1,
        "kind": "result",
        "genesis": _named("genesis"),
        "contract": _named("contract"),
        "job_id": (1).to_bytes(16, "little"),
        "payload_hash": _named("payload"),
        "worker_key": reference.signing_key_bytes("ecdsa", b"\x02" + _named("worker key")),
        "nonce": randomness.nonce,
        "reply_nonce": NONCE,
        "commitment": reference.commitment(randomness),
    }


def job_parts(plaintext: bytes = PLAINTEXT, *, workers: int = 1, owner: bool = False) -> Parts:
    recipients = tuple(reference.public_key(secret) for secret in WORKERS[:workers])
    recipients += (REPLY_KEY,) if owner else ()
    randomness = _randomness("job", nonce=NONCE, recipients=len(recipients))
    return _parts(_job_header(recipients, randomness), recipients, randomness, plaintext)


def result_parts(plaintext: bytes) -> Parts:
    randomness = _randomness("result", nonce=_named("result nonce", 16), recipients=1)
    return _parts(_result_header(randomness), (REPLY_KEY,), randomness, plaintext)


def _parts(
    header: dict[str, object],
    recipients: tuple[bytes, ...],
    randomness: Randomness,
    plaintext: bytes,
) -> Parts:
    chunks = tuple(reference.split(reference.pad(plaintext)))
    tags = (0,) * (len(chunks) - 1) + (3,)
    return Parts(
        header=header, recipients=recipients, randomness=randomness, chunks=chunks, tags=tags
    )


def job_vectors(_path: Path) -> Document:
    long_plaintext = bytes(place * place % 251 for place in range(66_000))
    accepted = {
        "one_worker": (PLAINTEXT, job_parts()),
        "two_workers_and_owner": (PLAINTEXT, job_parts(workers=2, owner=True)),
        "four_workers_and_owner": (PLAINTEXT, job_parts(workers=4, owner=True)),
        "empty_plaintext": (b"", job_parts(b"")),
        "two_chunks": (long_plaintext, job_parts(long_plaintext)),
    }
    return {
        "origin": ORIGIN,
        "secrets": {
            "note": "test keys, known to everybody",
            "workers_hex": [secret.hex() for secret in WORKERS],
            "owner_secret_hex": OWNER_SECRET.hex(),
            "reply_secret_hex": REPLY_SECRET.hex(),
        },
        "cases": [_case(name, *case) for name, case in accepted.items()],
        "refused": _refused(job_parts(workers=2)),
    }


def result_vectors(_path: Path) -> Document:
    accepted = {
        "completed": reference.dump({"output": b"HELLO"}),
        "failed": reference.dump({"error": "TaskFailed", "message": "no such model"}),
        "failed_code_only": reference.dump({"error": "OpenError"}),
        "empty_output": reference.dump({"output": b""}),
    }
    return {
        "origin": ORIGIN,
        "secrets": {
            "note": "test keys, known to everybody",
            "owner_secret_hex": OWNER_SECRET.hex(),
            "reply_secret_hex": REPLY_SECRET.hex(),
        },
        "cases": [
            _case(name, plaintext, result_parts(plaintext)) for name, plaintext in accepted.items()
        ],
        "refused": _refused(result_parts(accepted["completed"])),
    }


def _case(name: str, plaintext: bytes, parts: Parts) -> Document:
    envelope = parts.build()
    document: Document = {
        "name": name,
        "header": {key: _json(value) for key, value in parts.header.items()},
        "randomness": {
            "cek_hex": parts.randomness.cek.hex(),
            "stream_header_hex": parts.randomness.stream_header.hex(),
            "ephemerals_hex": [secret.hex() for secret in parts.randomness.ephemerals],
        },
        "header_hex": reference.dump(parts.header).hex(),
        "plaintext_length": len(plaintext),
        "plaintext_blake2_256_hex": reference.blake2_256(plaintext).hex(),
        "envelope_length": len(envelope),
        "envelope_blake2_256_hex": reference.blake2_256(envelope).hex(),
    }
    # Long ones are told by their hash; `plaintext[i] = i * i mod 251`.
    if len(envelope) <= MAX_IN_FILE:
        document |= {"plaintext_hex": plaintext.hex(), "envelope_hex": envelope.hex()}
    return document


def _refused(parts: Parts) -> list[Document]:
    """Return the refused envelopes that are short enough for a file; tests make the others."""
    return [
        {"name": name, "envelope_hex": envelope.hex(), "error": "OpenError"}
        for name, envelope in refused_envelopes(parts).items()
        if len(envelope) <= MAX_IN_FILE
    ]


def _json(value: object) -> object:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_json(item) for item in value]
    return value


def refused_envelopes(parts: Parts) -> dict[str, bytes]:
    """Return envelopes that differ from a good one in one rule each."""
    return {
        **_refused_bodies(parts),
        **_refused_paddings(parts),
        **_refused_headers(parts),
        **_refused_wraps(parts),
        **_refused_frames(parts),
    }


def _refused_bodies(parts: Parts) -> dict[str, bytes]:
    (chunk,) = parts.chunks
    # Right in length and padding, so that the tags alone are wrong.
    two = replace(parts, chunks=tuple(reference.split(reference.pad(bytes(66_000)))))
    full = reference.pad(bytes(reference.CHUNK - 8))
    other = replace(parts.randomness, cek=_named("another cek"))
    wraps = parts.make_wraps(reference.header_hash(reference.dump(parts.header)))
    variants = {
        "final_missing": replace(parts, tags=(0,)),
        "tag_push": replace(parts, tags=(1,)),
        "tag_rekey": replace(parts, tags=(2,)),
        "final_twice": replace(two, tags=(3, 3)),
        "push_in_the_middle": replace(two, tags=(1, 3)),
        "rekey_in_the_middle": replace(two, tags=(2, 3)),
        "final_missing_after_two": replace(two, tags=(0, 0)),
        "empty_last_chunk": replace(parts, chunks=(full, b""), tags=(0, 3)),
        "short_first_chunk": replace(parts, chunks=(chunk[:100], chunk[100:]), tags=(0, 3)),
        "bytes_after_final": replace(parts, after_body=b"\0"),
        "chunk_after_final": replace(parts, after_body=bytes(18)),
        "no_chunk": replace(parts, chunks=(), tags=()),
        "body_under_another_key": replace(parts, randomness=other, wraps=wraps),
    }
    return {name: variant.build() for name, variant in variants.items()}


def _refused_paddings(parts: Parts) -> dict[str, bytes]:
    (padded,) = parts.chunks
    length = int.from_bytes(padded[:8], "little")
    content = padded[8 : 8 + length]
    variants = {
        "padding_first_byte": padded[: 8 + length] + b"\1" + padded[9 + length :],
        "padding_last_byte": padded[:-1] + b"\1",
        "padding_too_long": padded + bytes(256),
        "padding_too_short": padded[:-1],
        "no_padding": padded[: 8 + length],
        "length_beyond_the_end": (1 << 20).to_bytes(8, "little") + padded[8:],
        "length_of_everything": len(padded).to_bytes(8, "little") + padded[8:],
        "length_largest": b"\xff" * 8 + padded[8:],
        "length_big_endian": length.to_bytes(8, "big") + padded[8:],
        "shorter_than_a_length": content[:7],
    }
    return {name: replace(parts, chunks=(variant,)).build() for name, variant in variants.items()}


def _refused_headers(parts: Parts) -> dict[str, bytes]:
    header = parts.header
    is_job = header["kind"] == "job"
    commitment = header["commitment"]
    assert isinstance(commitment, bytes)
    changes: dict[str, dict[str, object]] = {
        "version_0": {"v": 0},
        "version_2": {"v": 2},
        "version_true": {"v": True},
        "version_text": {"v": "1"},
        "other_kind": {"kind": "result" if is_job else "job"},
        "kind_unknown": {"kind": "jobs"},
        "kind_bytes": {"kind": b"job"},
        "another_field": {"extra": 1},
        "commitment_of_another_key": {"commitment": _named("another commitment")},
        "commitment_zero": {"commitment": bytes(32)},
        "commitment_first_bit": {"commitment": bytes([commitment[0] ^ 1]) + commitment[1:]},
        "commitment_last_bit": {"commitment": commitment[:-1] + bytes([commitment[-1] ^ 1])},
    }
    if is_job:
        changes |= _wrong_recipients(parts)
    for name, value in header.items():
        if isinstance(value, bytes):
            changes[f"{name}_too_short"] = {name: value[:-1]}
            changes[f"{name}_too_long"] = {name: value + b"\0"}
            changes[f"{name}_text"] = {name: "x" * len(value)}
    variants = {
        name: replace(parts, header={**header, **change}) for name, change in changes.items()
    }
    for name in header:
        rest = {key: value for key, value in header.items() if key != name}
        variants[f"without_{name}"] = replace(parts, header=rest)
    encoded = reference.dump(header)
    repeated = bytes([encoded[0] + 1]) + encoded[1:4] + encoded[1:]
    variants |= {
        "header_key_repeated": replace(parts, header_bytes=repeated),
        "header_keys_out_of_order": replace(
            parts, header_bytes=cbor2.dumps(dict(reversed(_sorted_items(header))))
        ),
        "header_long_integer": replace(
            parts, header_bytes=encoded.replace(b"\x61v\x01", b"\x61v\x18\x01")
        ),
        "header_indefinite": replace(parts, header_bytes=b"\xbf" + encoded[1:] + b"\xff"),
        "header_tagged": replace(parts, header_bytes=b"\xc1" + encoded),
        "header_with_more_bytes": replace(parts, header_bytes=encoded + b"\0"),
        "header_is_a_list": replace(parts, header_bytes=reference.dump(list(header.values()))),
        "header_empty": replace(parts, header_bytes=b""),
    }
    return {name: variant.build() for name, variant in variants.items()}


def _wrong_recipients(parts: Parts) -> dict[str, dict[str, object]]:
    first, *rest = parts.recipients
    return {
        "recipients_none": {"recipients": []},
        "recipients_six": {"recipients": [first, *(bytes([place]) * 32 for place in range(5))]},
        "recipients_no_list": {"recipients": first},
        "recipient_repeated": {"recipients": [first, *[first for _ in rest]]},
        "recipient_short": {"recipients": [first, *(key[:31] for key in rest)]},
        "recipient_text": {"recipients": [first, *(key.hex()[:32] for key in rest)]},
    }


def _sorted_items(header: dict[str, object]) -> list[tuple[str, object]]:
    return sorted(header.items(), key=lambda item: (len(item[0]), item[0]))


def _refused_wraps(parts: Parts) -> dict[str, bytes]:
    hashed = reference.header_hash(reference.dump(parts.header))
    wraps = parts.make_wraps(hashed)
    key, ephemeral = parts.recipients[0], parts.randomness.ephemerals[0]
    cek, first = parts.randomness.cek, wraps[0]
    changed = {
        "low_order_sender": ZERO_POINT + first[32:],
        "sender_high_bit": first[:31] + bytes([first[31] ^ 0x80]) + first[32:],
        "wrap_of_another_header": reference.wrap(
            cek, key, header_hash=_named("another header"), ephemeral=ephemeral
        ),
        "wrap_of_another_recipient": reference.wrap(
            cek, reference.public_key(WORKERS[3]), header_hash=hashed, ephemeral=ephemeral
        ),
        "wrap_of_another_key": reference.wrap(
            _named("another cek"), key, header_hash=hashed, ephemeral=ephemeral
        ),
        "wrap_of_a_short_key": reference.wrap(
            cek[:31], key, header_hash=hashed, ephemeral=ephemeral
        ),
        "wrap_too_long": first + b"\0",
        "wrap_too_short": first[:-1],
        "wrap_empty": b"",
    }
    lists = {name: (wrong, *wraps[1:]) for name, wrong in changed.items()}
    lists |= {
        "no_wraps": (),
        "a_wrap_too_many": (*wraps, first),
        "six_wraps": (first,) * 6,
    }
    if len(wraps) > 1:
        lists |= {"wraps_reordered": (wraps[1], first, *wraps[2:]), "a_wrap_missing": wraps[:-1]}
    return {name: replace(parts, wraps=wrong).build() for name, wrong in lists.items()}


def _refused_frames(parts: Parts) -> dict[str, bytes]:
    def long_body_head(header: bytes, wraps: list[bytes], body: bytes) -> bytes:
        good = reference.dump([header, wraps, body])
        return good[: -len(body) - 3] + b"\x5a" + len(body).to_bytes(4, "big") + body

    def indefinite_body(header: bytes, wraps: list[bytes], body: bytes) -> bytes:
        good = reference.dump([header, wraps, body])
        return good[: -len(body) - 3] + b"\x5f" + reference.dump(body) + b"\xff"

    def body_too_long(header: bytes, wraps: list[bytes], body: bytes) -> bytes:
        good = reference.dump([header, wraps, body])
        return good[: -len(body) - 3] + b"\x59" + (len(body) + 1).to_bytes(2, "big") + body

    def four(header: bytes, wraps: list[bytes], body: bytes) -> bytes:
        return reference.dump([header, wraps, body, b""])

    def two(header: bytes, wraps: list[bytes], _body: bytes) -> bytes:
        return reference.dump([header, wraps])

    def text_body(header: bytes, wraps: list[bytes], body: bytes) -> bytes:
        return reference.dump([header, wraps, body.hex()])

    def as_map(header: bytes, wraps: list[bytes], body: bytes) -> bytes:
        return reference.dump({"header": header, "wraps": wraps, "body": body})

    def header_not_bytes(header: bytes, wraps: list[bytes], body: bytes) -> bytes:
        return reference.dump([list(header), wraps, body])

    def tagged(header: bytes, wraps: list[bytes], body: bytes) -> bytes:
        return b"\xd9\xd9\xf7" + reference.dump([header, wraps, body])

    editors = (
        long_body_head,
        indefinite_body,
        body_too_long,
        four,
        two,
        text_body,
        as_map,
        header_not_bytes,
        tagged,
    )
    good = parts.build()
    refused = {
        f"frame_{edit.__name__}": replace(parts, edit_frame=edit).build() for edit in editors
    }
    return refused | {
        "nothing": b"",
        "truncated_by_one": good[:-1],
        "truncated_half": good[: len(good) // 2],
        "one_byte_more": good + b"\0",
        "twice": good + good,
    }
