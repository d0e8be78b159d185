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
    What the chain has recorded about a job's result, as an attestation file.

    Checks nothing but that the answers are about that job.

    Raises:
        InputError: There is no such job (any more).
        RefusedError: It has no attestation.
        ChainMismatchError: The node answers with another job's.
    """
    from orchestrator.attestation import attestation_file_of
    from orchestrator.client.chain_view import ChainView
    from orchestrator.models import Completion

    view = ChainView(session.chain, session.processor.contract, session.bundle)
    job = view.job(job_id)
    if job is None:
        raise InputError(f"job: there is no job {job_id} on this contract, or it was purged")
    attestation = view.attestation(job_id)
    if attestation is None:
        raise RefusedError("NotFound", f"job {job_id} is {job.status.value} without attestation")
    return attestation_file_of(
        genesis_hash=session.chain.genesis_hash,
        contract=session.contract,
        job=job,
        worker=view.worker(attestation.worker),
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
