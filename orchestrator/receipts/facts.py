"""What the contract's own storage says about a job, its statement and its worker."""

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.attestation import AttestationFile, attestation_file_of
from orchestrator.chain.cells import ContractCells
from orchestrator.errors import JobStateError
from orchestrator.models import Completion, JobId, Worker

__all__ = ["StoredFacts", "read_facts"]


@dataclass(frozen=True, kw_only=True)
class StoredFacts:
    """A job with its recorded statement, the worker that signed it, and its measurement."""

    attestation: AttestationFile
    worker: Worker
    is_measurement_revoked: bool


def read_facts(
    cell: Callable[[bytes], bytes], cells: ContractCells, *, contract: bytes, job_id: JobId
) -> StoredFacts:
    """
    Return what is stored about a job; *cell* returns the contract's cell of a key.

    Raises:
        EncodingError: A cell has another form.
        JobStateError: The job has no attestation: `NotFound`.
    """
    genesis_hash = cells.read_genesis(cell(cells.root))
    stored = cells.read_job(job_id, cell(cells.job(job_id)))
    recorded = stored.attestation
    if recorded is None:
        raise JobStateError("NotFound", f"job {job_id} has no attestation in this block")
    worker = cells.read_worker(cell(cells.worker(recorded.worker)))
    is_revoked = cells.read_is_revoked(cell(cells.measurement(worker.measurement)))
    return StoredFacts(
        attestation=attestation_file_of(
            genesis_hash=genesis_hash,
            contract=contract,
            job=stored.head,
            worker=worker,
            completion=Completion(
                job_id=job_id,
                result_hash=recorded.result_hash,
                attestation_proof=recorded.proof,
                tee_worker_pubkey=worker.signing_key,
            ),
            recorded_at=recorded.recorded_at,
        ),
        worker=worker,
        is_measurement_revoked=is_revoked,
    )
