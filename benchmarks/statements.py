"""How fast statements are verified, beside the signature check alone."""

from benchmarks.table import Table, number, per_second
from orchestrator.attestation import JobView, sign_statement, verify_statement
from orchestrator.crypto import EcdsaSigner, EncryptionKey, Sr25519Signer, verify_signature
from orchestrator.encoding import blake2_256, statement_digest
from orchestrator.models import (
    AttestationProof,
    Completion,
    InlinePayload,
    Job,
    JobStatus,
    Mode,
    Outcome,
    Parameters,
    Signer,
    Statement,
    Worker,
    WorkerStatus,
)

NOW = 1_800_000_000_000
GENESIS = bytes([1]) * 32
CONTRACT = bytes([2]) * 32
MEASUREMENT = bytes([3]) * 32


def _case(signer: Signer) -> tuple[Completion, JobView, Statement]:
    payload = bytes(4_096)
    worker = Worker(
        worker=1,
        signing_key=signer.public_key,
        encryption_key=EncryptionKey.generate().public_key,
        measurement=MEASUREMENT,
        evidence_hash=bytes(32),
        endpoint=b"http://127.0.0.1",
        registered_at=NOW - 1_000,
        valid_until=NOW + 1_000_000,
        status=WorkerStatus.ACTIVE,
    )
    job = Job(
        job_id=1,
        owner=bytes([4]) * 32,
        encrypted_payload=InlinePayload(data=payload),
        public_key=bytes([5]) * 32,
        created_at=NOW - 500,
        processed=False,
        status=JobStatus.SUBMITTED,
        payload_hash=blake2_256(payload),
        deadline=NOW + 60_000,
        workers=(1,),
        failures=(),
        processed_at=None,
    )
    statement = Statement(
        genesis_hash=GENESIS,
        contract=CONTRACT,
        job_id=1,
        payload_hash=job.payload_hash,
        outcome=Outcome.COMPLETED,
        result_hash=bytes([6]) * 32,
        units=7,
        measurement=MEASUREMENT,
        started_at=NOW - 400,
        finished_at=NOW - 300,
        issued_at=NOW - 200,
    )
    proof = AttestationProof(
        outcome=statement.outcome,
        units=statement.units,
        started_at=statement.started_at,
        finished_at=statement.finished_at,
        issued_at=statement.issued_at,
        signature=sign_statement(statement, signer),
    )
    completion = Completion(
        job_id=1,
        result_hash=statement.result_hash,
        attestation_proof=proof,
        tee_worker_pubkey=signer.public_key,
    )
    view = JobView(
        genesis_hash=GENESIS,
        contract=CONTRACT,
        mode=Mode.RUNNING,
        parameters=Parameters(),
        job=job,
        worker=worker,
        measurement_allowed=True,
    )
    return completion, view, statement


def _row(name: str, signer: Signer) -> tuple[str, ...]:
    completion, view, statement = _case(signer)
    signature = completion.attestation_proof.signature
    digest = statement_digest(statement)
    whole = per_second(lambda: verify_statement(completion, view=view, now=NOW))
    alone = per_second(lambda: verify_signature(signer.public_key, signature, digest))
    return name, number(whole), f"{alone / whole:.2f}"


def measure() -> Table:
    """All thirteen rows of protocol 3.2 for one statement, per scheme."""
    signers: tuple[tuple[str, Signer], ...] = (
        ("ECDSA secp256k1", EcdsaSigner.generate()),
        ("sr25519", Sr25519Signer.generate()),
    )
    rows = [_row(name, signer) for name, signer in signers]
    return Table(
        title="Statement verifications",
        columns=("scheme", "per second", "time / the signature check alone"),
        rows=rows,
    )
