"""Signed bytes: exact layouts, every field checked, every field counts."""

import hashlib
from dataclasses import replace

import pytest

from orchestrator.encoding import (
    blake2_256,
    decode_signing_key,
    encode_binding,
    encode_registration,
    encode_signing_key,
    encode_statement,
    measurement_hash,
    registration_digest,
    report_data,
    statement_digest,
)
from orchestrator.errors import EncodingError
from orchestrator.models import Outcome, PublicKey, Scheme, Statement, WorkerRegistration

ECDSA_KEY = PublicKey(scheme=Scheme.ECDSA, key=b"\x02" + b"\x11" * 32)
SR25519_KEY = PublicKey(scheme=Scheme.SR25519, key=b"\x22" * 32)
STATEMENT = Statement(
    genesis_hash=b"\1" * 32,
    contract=b"\2" * 32,
    job_id=3,
    payload_hash=b"\4" * 32,
    outcome=Outcome.COMPLETED,
    result_hash=b"\5" * 32,
    units=6,
    measurement=b"\7" * 32,
    started_at=8,
    finished_at=9,
    issued_at=10,
)
REGISTRATION = WorkerRegistration(
    signing_key=ECDSA_KEY,
    encryption_key=b"\3" * 32,
    measurement=b"\4" * 32,
    evidence_hash=b"\5" * 32,
    endpoint=b"https://worker.example",
    valid_until=6,
)
REGISTERS = [b"\0" * 48, b"\1" * 48, b"\2" * 48, b"\3" * 48]


def test_blake2_256_is_the_chains_hash() -> None:
    # https://www.blake2.net, "b2sum -l 256" of nothing.
    assert blake2_256(b"").hex() == (
        "0e5751c026e543b2e8ab2eb06099daa1d1e5df47778f7787faab45cdf12fe3a8"
    )


def test_a_statement_is_248_bytes_in_the_order_of_the_protocol() -> None:
    encoded = encode_statement(STATEMENT)

    assert len(encoded) == 248
    assert encoded == (
        b"\xffphala-job-processor/job-attestation/v1"
        + b"\1" * 32
        + b"\2" * 32
        + b"\3"
        + bytes(15)
        + b"\4" * 32
        + b"\1"
        + b"\5" * 32
        + b"\6"
        + bytes(7)
        + b"\7" * 32
        + b"\x08"
        + bytes(7)
        + b"\x09"
        + bytes(7)
        + b"\x0a"
        + bytes(7)
    )
    assert statement_digest(STATEMENT) == blake2_256(encoded)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("genesis_hash", b"\0" * 31),
        ("contract", b"\0" * 33),
        ("payload_hash", b""),
        ("result_hash", b"\0" * 64),
        ("measurement", "0" * 32),
        ("job_id", -1),
        ("job_id", 1 << 128),
        ("job_id", "1"),
        ("units", 1 << 64),
        ("units", 1.0),
        ("units", True),
        ("started_at", -1),
        ("finished_at", 1 << 64),
        ("issued_at", None),
    ],
)
def test_a_field_that_does_not_fit_is_named(field: str, value: object) -> None:
    with pytest.raises(EncodingError, match=field):
        encode_statement(replace(STATEMENT, **{field: value}))  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize(
    "change",
    [
        {"genesis_hash": b"\x0f" * 32},
        {"contract": b"\x0f" * 32},
        {"job_id": 4},
        {"payload_hash": b"\x0f" * 32},
        {"outcome": Outcome.FAILED},
        {"result_hash": b"\x0f" * 32},
        {"units": 7},
        {"measurement": b"\x0f" * 32},
        {"started_at": 7},
        {"finished_at": 7},
        {"issued_at": 7},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_field_of_a_statement_changes_its_digest(change: dict[str, object]) -> None:
    changed = replace(STATEMENT, **change)  # type: ignore[arg-type]  # one field of its own type

    assert statement_digest(changed) != statement_digest(STATEMENT)


def test_signing_key_bytes_have_the_zero_of_sr25519_at_the_end() -> None:
    assert encode_signing_key(ECDSA_KEY) == b"\2\2" + b"\x11" * 32
    assert encode_signing_key(SR25519_KEY) == b"\1" + b"\x22" * 32 + b"\0"


@pytest.mark.parametrize("key", [ECDSA_KEY, SR25519_KEY])
def test_signing_keys_are_read_back(key: PublicKey) -> None:
    assert decode_signing_key(encode_signing_key(key)) == key


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "34 bytes"),
        (b"\1" + bytes(32), "34 bytes"),
        (b"\1" + bytes(34), "34 bytes"),
        (b"\0" + bytes(33), "unknown scheme 0"),
        (b"\3" + bytes(33), "unknown scheme 3"),
        (b"\1" + bytes(32) + b"\1", "must be zero"),
        (b"\2\4" + bytes(32), "begins with 2 or 3"),
        (b"\2\0" + bytes(32), "begins with 2 or 3"),
    ],
)
def test_other_signing_key_bytes_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(EncodingError, match=reason):
        decode_signing_key(data)


@pytest.mark.parametrize(
    "key",
    [
        PublicKey(scheme=Scheme.ECDSA, key=b"\2" * 32),
        PublicKey(scheme=Scheme.ECDSA, key=b"\4" * 33),
        PublicKey(scheme=Scheme.SR25519, key=b"\2" * 33),
    ],
)
def test_keys_of_another_form_have_no_bytes(key: PublicKey) -> None:
    with pytest.raises(EncodingError, match="signing key"):
        encode_signing_key(key)


def test_a_registration_does_not_bind_the_endpoint_and_binds_all_else() -> None:
    where = {"genesis_hash": b"\1" * 32, "contract": b"\2" * 32}
    digest = registration_digest(REGISTRATION, **where)
    changes: list[dict[str, object]] = [
        {"signing_key": SR25519_KEY},
        {"encryption_key": bytes(32)},
        {"measurement": bytes(32)},
        {"evidence_hash": bytes(32)},
        {"valid_until": 7},
    ]

    assert len(encode_registration(REGISTRATION, **where)) == 43 + 32 + 32 + 34 + 32 * 3 + 8
    assert registration_digest(replace(REGISTRATION, endpoint=b""), **where) == digest
    others = {
        registration_digest(replace(REGISTRATION, **change), **where)  # type: ignore[arg-type]  # one field
        for change in changes
    }
    others.add(registration_digest(REGISTRATION, **{**where, "genesis_hash": bytes(32)}))
    others.add(registration_digest(REGISTRATION, **{**where, "contract": bytes(32)}))
    assert len(others) == 7
    assert digest not in others


def test_a_binding_is_hashed_into_the_report_data() -> None:
    binding = encode_binding(
        genesis_hash=b"\1" * 32,
        contract=b"\2" * 32,
        signing_key=SR25519_KEY,
        encryption_key=b"\3" * 32,
        challenge=b"\4" * 32,
    )

    assert binding == (
        b"\xffphala-job-processor/worker-binding/v1"
        + b"\1" * 32
        + b"\2" * 32
        + b"\1"
        + b"\x22" * 32
        + b"\0"
        + b"\3" * 32
        + b"\4" * 32
    )
    assert report_data(binding) == hashlib.sha512(binding).digest()


@pytest.mark.parametrize(
    "fields",
    [
        ["tdx", *REGISTERS, b"\4" * 32, b"\5" * 20],
        ["tdx", *REGISTERS, None, None],
        ["sgx", b"\1" * 32, b"\2" * 32, 0, 1],
        ["sgx", b"\1" * 32, None, None, None],
    ],
)
def test_measurements_of_both_kinds_have_a_hash(fields: list[object]) -> None:
    assert len(measurement_hash(fields)) == 32


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ([], "must begin with"),
        (["sev", b""], "must begin with"),
        ([b"tdx", *REGISTERS, None, None], "must begin with"),
        ([["tdx"], *REGISTERS, None, None], "must begin with"),
        (["tdx", *REGISTERS, None], "6 entries, tdx has 7"),
        (["tdx", *REGISTERS, None, None, None], "8 entries, tdx has 7"),
        (["tdx", *REGISTERS[:3], None, None, None], r"measurement\[4\]: must not be null"),
        (["tdx", *REGISTERS[:3], b"\3" * 32, None, None], r"measurement\[4\]: 32 bytes"),
        (["tdx", *REGISTERS, "compose", None], r"measurement\[5\]: str"),
        (["sgx", b"\1" * 31, None, None, None], r"measurement\[1\]: 31 bytes"),
        (["sgx", None, None, -1, None], r"measurement\[3\]: -1"),
        (["sgx", None, None, True, None], r"measurement\[3\]: True"),
        (["sgx", None, None, None, b"\1"], r"measurement\[4\]"),
    ],
)
def test_other_lists_are_no_measurement(fields: list[object], reason: str) -> None:
    with pytest.raises(EncodingError, match=reason):
        measurement_hash(fields)
