"""Key pairs and accounts of polkadot-js: what they sign our contract accepts, here in process."""

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.processor import JobProcessor
from orchestrator.crypto.keys import AccountKey, verify_signature
from orchestrator.encoding import (
    blake2_256,
    encode_registration,
    encode_statement,
    statement_digest,
)
from orchestrator.errors import ContractError
from orchestrator.keystore import Keystore, ScryptParameters
from orchestrator.models import (
    AttestationProof,
    AttestationStatus,
    Completion,
    JobOptions,
    JobStatus,
    Outcome,
    PublicKey,
    Scheme,
    Signature,
    Statement,
    WorkerRegistration,
)
from orchestrator.testing.chain import FixedClock, LocalAccount, deploy_processor

ADMIN = LocalAccount.named("admin")
MEASUREMENT = blake2_256(b"measurement")
PAYLOAD = b"sealed"
DAY = 86_400_000
TYPES = {Scheme.SR25519: "sr25519", Scheme.ECDSA: "ecdsa"}
SIGNED_FIELDS = ("encryption_key", "measurement", "evidence_hash", "valid_until")
PHRASE = "bottom drive obey lake curtain smoke basket hold race lonely fit walk"
URIS = (
    PHRASE,
    f"{PHRASE}//hard",
    f"{PHRASE}/soft",
    f"{PHRASE}//1/2//three",
    f"{PHRASE}//hard///password",
    f"0x{'5a' * 32}//hard",
    "//Alice",
)


@dataclass(frozen=True, kw_only=True)
class Signed:
    """What polkadot-js made of a statement, and what ours should be."""

    statement: Statement
    public_key: PublicKey
    registration: WorkerRegistration
    possession: Signature
    answer: dict[str, str]

    def signature(self, name: str) -> Signature:
        return Signature(scheme=self.public_key.scheme, data=unhex(self.answer[name]))

    def completion(self, name: str = "signature") -> Completion:
        statement = self.statement
        proof = AttestationProof(
            outcome=statement.outcome,
            units=statement.units,
            started_at=statement.started_at,
            finished_at=statement.finished_at,
            issued_at=statement.issued_at,
            signature=self.signature(name),
        )
        return Completion(
            job_id=statement.job_id,
            result_hash=statement.result_hash,
            attestation_proof=proof,
            tee_worker_pubkey=self.public_key,
        )


def unhex(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def as_json(value: object) -> object:
    """Return a field as the scripts take it: integers as text, they may not fit JavaScript's."""
    if isinstance(value, bytes):
        return f"0x{value.hex()}"
    if isinstance(value, Outcome):
        return value.name.capitalize()
    return str(value)


@dataclass(frozen=True, kw_only=True)
class World:
    """A chain with the contract, an operator of everything, and what a worker signed for it."""

    chain: EmbeddedChain
    processor: JobProcessor
    admin: LocalAccount
    signed: Signed


@pytest.fixture(scope="module", params=list(Scheme), ids=lambda scheme: TYPES[scheme])
def prepared(
    request: pytest.FixtureRequest,
    run_script: Callable[..., str],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Path, Signed]:
    """A chain file, closed, and what was signed for the contract on it."""
    path = tmp_path_factory.mktemp("chain") / "dev.chain"
    chain = EmbeddedChain(path, clock=FixedClock())
    processor = deploy_processor(chain, admin=ADMIN, measurement=MEASUREMENT)
    signed = signed_for(chain, processor, request.param, run_script)
    chain.close()
    return path, signed


@pytest.fixture
def world(prepared: tuple[Path, Signed], tmp_path: Path) -> Iterator[World]:
    path, signed = prepared
    chain = EmbeddedChain(shutil.copy(path, tmp_path), clock=FixedClock(), create=False)
    processor = JobProcessor(signed.statement.contract)
    yield World(chain=chain, processor=processor, admin=ADMIN, signed=signed)
    chain.close()


def signed_for(
    chain: EmbeddedChain, processor: JobProcessor, scheme: Scheme, run_script: Callable[..., str]
) -> Signed:
    """Have a key of polkadot-js sign a registration, and a statement about the first job."""
    statement = Statement(
        genesis_hash=chain.genesis_hash,
        contract=processor.contract,
        job_id=1,
        payload_hash=blake2_256(PAYLOAD),
        outcome=Outcome.COMPLETED,
        result_hash=blake2_256(b"result"),
        units=2**64 - 1,
        measurement=MEASUREMENT,
        started_at=chain.now(),
        finished_at=chain.now() + 1,
        issued_at=chain.now() + 2,
    )
    draft = WorkerRegistration(
        signing_key=PublicKey(scheme=scheme, key=b""),
        encryption_key=blake2_256(b"encryption key"),
        measurement=MEASUREMENT,
        evidence_hash=blake2_256(b"evidence"),
        endpoint=b"http://127.0.0.1:1",
        valid_until=chain.now() + DAY,
    )
    domain = {"genesis_hash": chain.genesis_hash, "contract": processor.contract}
    given = {
        "type": TYPES[scheme],
        "seed": as_json(blake2_256(b"seed")),
        "domain": {name: as_json(value) for name, value in domain.items()},
        "registration": {name: as_json(getattr(draft, name)) for name in SIGNED_FIELDS},
        "statement": {name: as_json(value) for name, value in vars(statement).items()},
    }
    answer: dict[str, str] = json.loads(run_script("sign.mjs", given=json.dumps(given)))
    public_key = PublicKey(scheme=scheme, key=unhex(answer["public_key"]))
    return Signed(
        statement=statement,
        public_key=public_key,
        registration=replace(draft, signing_key=public_key),
        possession=Signature(scheme=scheme, data=unhex(answer["possession"])),
        answer=answer,
    )


@pytest.fixture
def with_job(world: World) -> World:
    """The worker is registered, by its own possession signature, and has a job."""
    chain, processor, signed = world.chain, world.processor, world.signed
    register = processor.register_worker(signed.registration, signed.possession)
    worker = chain.call(register, signer=world.admin).value
    options = JobOptions(workers=(worker,), ttl=3_600_000)
    submit = processor.submit_confidential_job(PAYLOAD, b"\1" * 32, options)
    assert chain.call(submit, signer=world.admin).value == signed.statement.job_id
    return world


def test_exactly_the_bytes_of_the_protocol_are_signed(world: World) -> None:
    signed = world.signed

    assert unhex(signed.answer["statement"]) == encode_statement(signed.statement)
    assert unhex(signed.answer["registration"]) == encode_registration(
        signed.registration,
        genesis_hash=world.chain.genesis_hash,
        contract=world.processor.contract,
    )
    # Our own check knows the digest alone: neither a wrapping nor a second hash passes it.
    digest = statement_digest(signed.statement)
    verify_signature(signed.public_key, signed.signature("signature"), digest)


def test_the_contract_accepts_the_statement(with_job: World) -> None:
    chain, processor, signed = with_job.chain, with_job.processor, with_job.signed

    chain.call(processor.record_attestation(signed.completion()), signer=with_job.admin)

    assert chain.read(processor.attestation_status(1)) is AttestationStatus.VALID
    attestation = chain.read(processor.get_attestation(1))
    assert attestation is not None
    assert attestation.attestation_proof.signature == signed.signature("signature")


@pytest.mark.parametrize("made", ["wrapped", "hashed_again"])
def test_the_contract_refuses_what_wallets_make_of_it(with_job: World, made: str) -> None:
    chain, processor, signed = with_job.chain, with_job.processor, with_job.signed

    with pytest.raises(ContractError) as caught:
        chain.call(processor.record_attestation(signed.completion(made)), signer=with_job.admin)

    assert caught.value.variant == "BadSignature"
    job = chain.read(processor.get_job(1))
    assert job is not None
    assert job.status is JobStatus.SUBMITTED


def test_the_contract_refuses_the_possession_of_another_key(world: World) -> None:
    chain, processor, signed = world.chain, world.processor, world.signed
    other = replace(signed.registration, evidence_hash=blake2_256(b"other evidence"))

    with pytest.raises(ContractError) as caught:
        chain.call(processor.register_worker(other, signed.possession), signer=world.admin)

    assert caught.value.variant == "BadSignature"
    assert chain.read(processor.get_worker(1)) is None


@pytest.fixture(scope="module")
def accounts(run_script: Callable[..., str]) -> dict[str, object]:
    """Accounts as polkadot-js has them; the first one as its JSON file, too."""
    given = {"uris": URIS, "passphrase": "swordfish"}
    answer: dict[str, object] = json.loads(run_script("accounts.mjs", given=json.dumps(given)))
    return answer


def test_a_phrase_is_the_same_account_in_both(accounts: dict[str, object]) -> None:
    ours = [f"0x{AccountKey.from_uri(uri).account_id.hex()}" for uri in URIS]

    assert accounts["accounts"] == ours


def test_the_keystore_takes_an_account_file(accounts: dict[str, object], tmp_path: Path) -> None:
    keystore = Keystore(tmp_path / "keys", scrypt=ScryptParameters(n=1 << 10))

    info = keystore.import_polkadot_js(
        "owner",
        json.dumps(accounts["exported"]).encode(),
        export_passphrase="swordfish",
        passphrase="new",
    )

    assert info.account_id == AccountKey.from_uri(PHRASE).account_id
    loaded = keystore.load("owner", passphrase="new").account
    # The key itself came over, not only its name: what it signs verifies.
    key = PublicKey(scheme=Scheme.SR25519, key=info.account_id)
    message = blake2_256(b"message")
    signature = Signature(scheme=Scheme.SR25519, data=loaded.sign(message))
    verify_signature(key, signature, message)
