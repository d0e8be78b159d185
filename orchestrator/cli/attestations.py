"""Attestation files, from the chain and to the disk."""

from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.session import Session
from orchestrator.errors import InputError, RefusedError

if TYPE_CHECKING:
    from orchestrator.attestation import AttestationFile
    from orchestrator.models import JobId


def attestation_of(session: Session, job_id: "JobId") -> "AttestationFile":
    """
    What the chain has recorded about a job's result, as an attestation file; checks nothing.

    Raises:
        InputError: There is no such job (any more).
        RefusedError: It has no attestation.
    """
    from orchestrator.attestation import attestation_file_of
    from orchestrator.models import Completion

    chain, processor = session.chain, session.processor
    job = chain.read(processor.get_job(job_id))
    if job is None:
        raise InputError(f"job: there is no job {job_id} on this contract, or it was purged")
    attestation = chain.read(processor.get_attestation(job_id))
    if attestation is None:
        raise RefusedError("NotFound", f"job {job_id} is {job.status.value} without attestation")
    worker = chain.read(processor.get_worker(attestation.worker))
    if worker is None:
        raise RefusedError("WorkerNotFound", f"worker {attestation.worker}")
    return attestation_file_of(
        genesis_hash=chain.genesis_hash,
        contract=session.contract,
        job=job,
        worker=worker,
        completion=Completion(
            job_id=attestation.job_id,
            result_hash=attestation.result_hash,
            attestation_proof=attestation.attestation_proof,
            tee_worker_pubkey=attestation.tee_worker_pubkey,
        ),
        recorded_at=attestation.timestamp,
    )


def save_attestation_file(file: "AttestationFile", path: Path) -> None:
    """Write *file* to the new file *path*."""
    from orchestrator.attestation import dump_attestation_file
    from orchestrator.keystore.private_files import write_new_file

    write_new_file(path, dump_attestation_file(file).encode("utf-8"))
