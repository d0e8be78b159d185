"""The product against the vector files; the Rust tests read the same statements."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestrator.crypto import (
    EcdsaSigner,
    EncryptionKey,
    OwnerSecret,
    Sr25519Signer,
    open_job,
    open_result,
    read_job_header,
    read_result_header,
    verify_signature,
)
from orchestrator.crypto.headers import encode_job_header, encode_result_header
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
from orchestrator.errors import InvalidSignatureError, OpenError
from orchestrator.models import (
    Outcome,
    PublicKey,
    Scheme,
    Signature,
    Statement,
    WorkerRegistration,
)
from tests.vectors import envelopes

FOLDER = Path(__file__).parents[1] / "vectors"
SCHEMES = {"ecdsa": Scheme.ECDSA, "sr25519": Scheme.SR25519}
OUTCOMES = {"Completed": Outcome.COMPLETED, "Failed": Outcome.FAILED}
Case = dict[str, Any]


def _load(name: str) -> Case:
    document: Case = json.loads((FOLDER / f"{name}.json").read_text())
    return document


def _cases(name: str, group: str) -> list[Any]:
    return [pytest.param(case, id=case["name"]) for case in _load(name)[group]]


def _signed(case: Case) -> tuple[PublicKey, Signature]:
    scheme = SCHEMES[case["scheme"]]
    return (
        PublicKey(scheme=scheme, key=bytes.fromhex(case["public_key_hex"])),
        Signature(scheme=scheme, data=bytes.fromhex(case["signature_hex"])),
    )


def _bytes(case: Case, *names: str) -> dict[str, bytes]:
    return {name: bytes.fromhex(case[f"{name}_hex"]) for name in names}


@pytest.mark.parametrize("case", _cases("statement", "cases"))
def test_statements(case: Case) -> None:
    fields = case["statement"]
    statement = Statement(
        job_id=int(fields["job_id"]),
        outcome=OUTCOMES[fields["outcome"]],
        units=fields["units"],
        started_at=fields["started_at"],
        finished_at=fields["finished_at"],
        issued_at=fields["issued_at"],
        **_bytes(fields, "genesis_hash", "contract", "payload_hash", "result_hash", "measurement"),
    )

    assert encode_statement(statement).hex() == case["encoded_hex"]
    assert statement_digest(statement).hex() == case["digest_hex"]
    assert {signed["scheme"] for signed in case["signatures"]} == set(SCHEMES)
    for signed in case["signatures"]:
        key, signature = _signed(signed)
        verify_signature(key, signature, statement_digest(statement))


@pytest.mark.parametrize("case", _cases("registration", "cases"))
def test_registrations(case: Case) -> None:
    fields = case["registration"]
    where = _bytes(fields, "genesis_hash", "contract")
    registration = WorkerRegistration(
        signing_key=decode_signing_key(bytes.fromhex(case["signing_key_hex"])),
        endpoint=b"",
        valid_until=fields["valid_until"],
        **_bytes(fields, "encryption_key", "measurement", "evidence_hash"),
    )

    assert encode_registration(registration, **where).hex() == case["encoded_hex"]
    assert registration_digest(registration, **where).hex() == case["digest_hex"]
    for signed in case["signatures"]:
        key, signature = _signed(signed)
        assert key == registration.signing_key
        verify_signature(key, signature, registration_digest(registration, **where))


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=f"{name}_{case['name']}")
        for name in ("statement", "registration")
        for case in _load(name)["refused"]
    ],
)
def test_refused_signatures(case: Case) -> None:
    key, signature = _signed(case)

    with pytest.raises(InvalidSignatureError) as caught:
        verify_signature(key, signature, bytes.fromhex(case["digest_hex"]))

    assert caught.value.code == case["error"]


def test_the_keys_of_the_files_are_those_of_their_secrets() -> None:
    for name in ("statement", "registration"):
        document = _load(name)
        secrets = document["secrets"]
        signers: list[EcdsaSigner | Sr25519Signer] = [
            EcdsaSigner.from_bytes(bytes.fromhex(secrets["ecdsa_hex"])),
            Sr25519Signer.from_bytes(bytes.fromhex(secrets["sr25519_seed_hex"])),
        ]
        keys = {signer.public_key for signer in signers}

        signed = [_signed(entry)[0] for case in document["cases"] for entry in case["signatures"]]
        assert set(signed) == keys


@pytest.mark.parametrize("case", _cases("binding", "cases"))
def test_bindings(case: Case) -> None:
    key = PublicKey(scheme=SCHEMES[case["scheme"]], key=bytes.fromhex(case["public_key_hex"]))
    binding = encode_binding(
        signing_key=key,
        **_bytes(case["binding"], "genesis_hash", "contract", "encryption_key", "challenge"),
    )

    assert encode_signing_key(key).hex() == case["signing_key_hex"]
    assert binding.hex() == case["encoded_hex"]
    assert report_data(binding).hex() == case["report_data_hex"]


@pytest.mark.parametrize("case", _cases("measurement", "cases"))
def test_measurements(case: Case) -> None:
    kind, *rest = case["fields"]
    fields = [bytes.fromhex(item) if isinstance(item, str) else item for item in rest]

    assert measurement_hash([kind, *fields]).hex() == case["measurement_hex"]


def _plaintext(case: Case) -> bytes:
    if "plaintext_hex" in case:
        return bytes.fromhex(case["plaintext_hex"])
    return bytes(place * place % 251 for place in range(case["plaintext_length"]))


def _envelope(case: Case, parts: envelopes.Parts) -> bytes:
    """Return the envelope: from the file, or made again when the file has only its hash."""
    envelope = bytes.fromhex(case["envelope_hex"]) if "envelope_hex" in case else parts.build()
    assert blake2_256(envelope).hex() == case["envelope_blake2_256_hex"]
    return envelope


@pytest.mark.parametrize("case", _cases("envelope", "cases"))
def test_sealed_jobs(case: Case) -> None:
    plaintext = _plaintext(case)
    workers = len(case["header"]["recipients"])
    has_owner = case["header"]["reply_key"] in case["header"]["recipients"]
    parts = envelopes.job_parts(plaintext, workers=workers - has_owner, owner=has_owner)
    envelope = _envelope(case, parts)
    secrets = [bytes.fromhex(secret) for secret in _load("envelope")["secrets"]["workers_hex"]]
    keys = [EncryptionKey.from_bytes(secret) for secret in secrets[: workers - has_owner]]
    if has_owner:
        owner_secret = bytes.fromhex(_load("envelope")["secrets"]["owner_secret_hex"])
        nonce = bytes.fromhex(case["header"]["nonce"])
        keys.append(OwnerSecret.from_bytes(owner_secret).reply_key(nonce))

    assert encode_job_header(read_job_header(envelope)).hex() == case["header_hex"]
    assert len(keys) == workers
    for key in keys:
        assert open_job(envelope, key).plaintext == plaintext


@pytest.mark.parametrize("case", _cases("result", "cases"))
def test_sealed_results(case: Case) -> None:
    plaintext = _plaintext(case)
    envelope = _envelope(case, envelopes.result_parts(plaintext))
    secret = OwnerSecret.from_bytes(bytes.fromhex(_load("result")["secrets"]["owner_secret_hex"]))

    assert encode_result_header(read_result_header(envelope)).hex() == case["header_hex"]
    assert open_result(envelope, secret=secret).plaintext == plaintext


@pytest.mark.parametrize("case", _cases("envelope", "refused"))
def test_refused_jobs(case: Case) -> None:
    secrets = _load("envelope")["secrets"]["workers_hex"]

    with pytest.raises(OpenError):
        open_job(
            bytes.fromhex(case["envelope_hex"]),
            EncryptionKey.from_bytes(bytes.fromhex(secrets[0])),
        )


@pytest.mark.parametrize("case", _cases("result", "refused"))
def test_refused_results(case: Case) -> None:
    secret = OwnerSecret.from_bytes(bytes.fromhex(_load("result")["secrets"]["owner_secret_hex"]))

    with pytest.raises(OpenError):
        open_result(bytes.fromhex(case["envelope_hex"]), secret=secret)


def test_the_files_are_what_the_generator_makes() -> None:
    finished = subprocess.run(
        [sys.executable, str(FOLDER / "generate.py"), "--check"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (finished.stdout, finished.returncode) == ("", 0)


def test_the_second_implementation_shares_nothing_with_the_product() -> None:
    for name in ("reference.py", "envelopes.py", "signatures.py", "generate.py"):
        source = (FOLDER / name).read_text()
        assert "import orchestrator" not in source
        assert "from orchestrator" not in source


def test_every_file_names_its_origin() -> None:
    names = {path.stem for path in FOLDER.glob("*.json")}
    readme = (FOLDER / "README.md").read_text()

    assert {"binding", "envelope", "measurement", "registration", "result", "statement"} <= names
    for name in names:
        assert _load(name)["origin"]
        assert f"`{name}.json`" in readme
