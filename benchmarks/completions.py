"""A worker's signed word on a job, for benchmarks that have no worker."""

from orchestrator.attestation import sign_statement
from orchestrator.chain import Chain
from orchestrator.encoding import blake2_256
from orchestrator.models import (
    AttestationProof,
    Completion,
    JobId,
    Outcome,
    Signer,
    Statement,
)

__all__ = ["MEASUREMENT", "completed"]

MEASUREMENT = bytes([3]) * 32


def completed(
    chain: Chain, contract: bytes, job_id: JobId, payload: bytes, signer: Signer
) -> Completion:
    """What the worker with *signer* says about a job that it completed now."""
    now = chain.now()
    statement = Statement(
        genesis_hash=chain.genesis_hash,
        contract=contract,
        job_id=job_id,
        payload_hash=blake2_256(payload),
        outcome=Outcome.COMPLETED,
        result_hash=blake2_256(job_id.to_bytes(16, "little")),
        units=1,
        measurement=MEASUREMENT,
        started_at=now,
        finished_at=now,
        issued_at=now,
    )
    proof = AttestationProof(
        outcome=statement.outcome,
        units=statement.units,
        started_at=now,
        finished_at=now,
        issued_at=now,
        signature=sign_statement(statement, signer),
    )
    return Completion(
        job_id=job_id,
        result_hash=statement.result_hash,
        attestation_proof=proof,
        tee_worker_pubkey=signer.public_key,
    )
