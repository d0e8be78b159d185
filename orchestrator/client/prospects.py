"""Whether anybody is left who could still finish a job."""

from collections.abc import Collection, Sequence

from orchestrator.chain import Chain
from orchestrator.chain.processor import JobProcessor
from orchestrator.models import AttestationStatus, JobId, JobStatus, WorkerId, WorkerStatus

__all__ = ["why_stuck"]

_REVOKED = "revoked"
_UNMARKABLE = frozenset({AttestationStatus.WORKER_REVOKED, AttestationStatus.MEASUREMENT_REVOKED})


def why_stuck(
    chain: Chain,
    processor: JobProcessor,
    job_id: JobId,
    *,
    status: JobStatus,
    workers: Sequence[WorkerId],
    failed: Collection[WorkerId] = (),
) -> str | None:
    """
    Why nobody can bring the job further as things are, `None` if somebody can or it is over.

    Revoking is final; workers that are suspended or expired may come back, so each is named.
    Does **not** tell whether a worker answers; only asking it would.

    Raises:
        ChainError: The chain can't be read.
    """
    if status is JobStatus.ATTESTED:
        worth = chain.read(processor.attestation_status(job_id))
        if worth in _UNMARKABLE:
            return f"its attestation can't be marked any more ({worth.value})"
        return None
    if status is not JobStatus.SUBMITTED:
        return None
    why: dict[WorkerId, str] = {}
    for worker in workers:
        if worker in failed:
            continue
        objection = _objection(chain, processor, worker)
        if objection is None:
            return None
        why[worker] = objection
    if not why:
        return None
    if set(why.values()) == {_REVOKED}:
        return "all of its workers" + (" that have not failed" if failed else "") + " are revoked"
    shown = ", ".join(f"worker {worker} is {objection}" for worker, objection in why.items())
    return f"none of its workers is trusted now ({shown})"


def _objection(chain: Chain, processor: JobProcessor, worker: WorkerId) -> str | None:
    """Why the contract would take no statement of the worker now."""
    found = chain.read(processor.get_worker(worker))
    if found is None:
        return "not registered"
    if found.status is WorkerStatus.REVOKED:
        return _REVOKED
    if found.status is WorkerStatus.SUSPENDED:
        return "suspended"
    if chain.now() > found.valid_until:
        return "expired"
    if not chain.read(processor.is_trusted(worker)):
        return "of a measurement that is allowed no more"
    return None
