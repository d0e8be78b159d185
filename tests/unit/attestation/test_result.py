"""What an owner accepts (protocol 3.4): each check alone, both curves, both outcomes."""

from dataclasses import replace

import pytest

from orchestrator.attestation import ExpectedResult, verify_result
from orchestrator.crypto import EcdsaSigner, OwnerSecret, Sr25519Signer, open_result, seal_result
from orchestrator.encoding import blake2_256
from orchestrator.errors import RefusedError
from orchestrator.models import Outcome
from tests.unit.attestation.scenario import (
    CONTRACT,
    GENESIS,
    JOB,
    SIGNERS,
    STRANGER,
    UNSIGNED,
    Scenario,
    valid_scenario,
)

SECRET = OwnerSecret.from_bytes(b"\x21" * 32)
NONCE = b"\x22" * 16
each_signer = pytest.mark.parametrize("signer", SIGNERS, ids=["ecdsa", "sr25519"])
Signer = EcdsaSigner | Sr25519Signer


def _sealed(signer: Signer, **changes: object) -> bytes:
    arguments: dict[str, object] = {
        "genesis": GENESIS,
        "contract": CONTRACT,
        "job_id": JOB.job_id,
        "payload_hash": JOB.payload_hash,
        "worker_key": signer.public_key,
        "reply_nonce": NONCE,
        "reply_key": SECRET.reply_key(NONCE).public_key,
    }
    return seal_result(b"result", **{**arguments, **changes})  # type: ignore[arg-type]  # typed above


def _scenario(signer: Signer, envelope: bytes) -> Scenario:
    return replace(valid_scenario(signer), result_hash=blake2_256(envelope))


def _expected(scenario: Scenario) -> ExpectedResult:
    return ExpectedResult(
        genesis_hash=GENESIS,
        contract=CONTRACT,
        payload_hash=JOB.payload_hash,
        completion=scenario.completion,
        measurement=scenario.worker.measurement,
        accepted_keys={scenario.signer.public_key},
    )


def _code(envelope: bytes, expected: ExpectedResult) -> str:
    with pytest.raises(RefusedError) as caught:
        verify_result(envelope, expected=expected)
    return caught.value.code


@each_signer
@pytest.mark.parametrize("outcome", Outcome)
def test_the_result_that_the_worker_signed_is_accepted(signer: Signer, outcome: Outcome) -> None:
    envelope = _sealed(signer)
    scenario = replace(_scenario(signer, envelope), outcome=outcome)

    statement = verify_result(envelope, expected=_expected(scenario))

    assert statement == scenario.statement
    assert open_result(envelope, secret=SECRET).plaintext == b"result"


@each_signer
def test_other_bytes_are_refused(signer: Signer) -> None:
    envelope, other = _sealed(signer), _sealed(signer)
    expected = _expected(_scenario(signer, envelope))

    assert _code(other, expected) == "ResultHashMismatch"
    assert _code(envelope + b"\0", expected) == "ResultHashMismatch"
    assert _code(b"", expected) == "ResultHashMismatch"


@each_signer
@pytest.mark.parametrize("keys", [set(), {STRANGER}, [STRANGER]], ids=["none", "other", "list"])
def test_a_worker_that_the_owner_does_not_accept_is_refused(signer: Signer, keys: object) -> None:
    envelope = _sealed(signer)
    expected = replace(_expected(_scenario(signer, envelope)), accepted_keys=keys)  # type: ignore[arg-type]  # collections

    assert _code(envelope, expected) == "WorkerNotAccepted"


@each_signer
def test_a_signature_of_another_scheme_is_refused(signer: Signer) -> None:
    envelope = _sealed(signer)
    other = next(scheme for scheme in UNSIGNED if scheme is not signer.public_key.scheme)
    scenario = replace(_scenario(signer, envelope), edit_signature=lambda _: UNSIGNED[other])

    assert _code(envelope, _expected(scenario)) == "KeyMismatch"


@each_signer
@pytest.mark.parametrize(
    "change",
    [
        {"signed": {"units": 6}},
        {"signed": {"outcome": Outcome.FAILED}},
        {"signed": {"result_hash": b"\1" * 32}},
        {"signed": {"genesis_hash": b"\1" * 31 + b"\0"}},
        {"signed": {"payload_hash": b"\1" * 32}},
        {"signed": {"measurement": b"\1" * 32}},
    ],
    ids=lambda change: next(iter(change["signed"])),
)
def test_a_signature_over_something_else_is_refused(
    signer: Signer, change: dict[str, dict[str, object]]
) -> None:
    envelope = _sealed(signer)
    scenario = replace(_scenario(signer, envelope), signed=change["signed"])

    assert _code(envelope, _expected(scenario)) == "BadSignature"


@each_signer
@pytest.mark.parametrize("envelope", [b"", b"garbage", b"\x83\x40\x80\x40"])
def test_signed_garbage_is_refused(signer: Signer, envelope: bytes) -> None:
    assert _code(envelope, _expected(_scenario(signer, envelope))) == "ResultUnreadable"


@each_signer
@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("GenesisMismatch", {"genesis": b"\x77" * 32}),
        ("ContractMismatch", {"contract": b"\x77" * 32}),
        ("JobMismatch", {"job_id": JOB.job_id + 1}),
        ("PayloadMismatch", {"payload_hash": b"\x77" * 32}),
        ("WorkerMismatch", {"worker_key": STRANGER}),
    ],
)
def test_a_signed_result_for_something_else_is_refused(
    signer: Signer, code: str, change: dict[str, object]
) -> None:
    envelope = _sealed(signer, **change)

    assert _code(envelope, _expected(_scenario(signer, envelope))) == code
