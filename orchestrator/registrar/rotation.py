"""
Key rotation: new keys for a worker's new jobs, while its old ones serve the jobs sealed to them.

The contract knows one pair of keys per worker id, so new keys are a new worker at the same URL. The
old registration is left to end by itself.
"""

from collections.abc import Iterable

from orchestrator.errors import RefusedError
from orchestrator.models import Worker, WorkerStatus
from orchestrator.registrar.registration import Registrar
from orchestrator.workers import WorkerClient, WorkerIdentity

__all__ = ["rotate_keys", "successors"]


async def rotate_keys(registrar: Registrar, client: WorkerClient, worker: Worker) -> WorkerIdentity:
    """
    Let *worker* make new keys, and return its identity with them; they are to be registered next.

    Where it has keys already that nobody has registered, as after a rotation that was interrupted,
    it is not asked for more.

    Raises:
        RefusedError: At the worker's URL another worker answers.
        WorkerError: The worker did not answer as it should.
        ChainError: The chain could not be asked.
    """
    identity = await client.identity()
    url = worker.endpoint.decode("utf-8", "replace")
    if not identity.serves(worker.signing_key):
        raise RefusedError(
            "AnotherWorkerAnswers",
            f"at {url} a worker answers that does not have the keys of worker {worker.worker}:"
            f" phala-jobs workers register {url} registers it on its own",
        )
    holder = await registrar.worker_of(identity.signing_key)
    if holder is None:
        return identity
    if holder.worker != worker.worker:
        raise RefusedError(
            "AnotherWorkerAnswers",
            f"at {url} worker {holder.worker} answers, not worker {worker.worker}: rotate that one",
        )
    return await client.rotate(
        genesis=registrar.calls.genesis_hash, contract=registrar.processor.contract
    )


def successors(worker: Worker, workers: Iterable[Worker]) -> list[Worker]:
    """Return the active workers that were registered later at the same URL."""
    return [
        other
        for other in workers
        if other.worker > worker.worker
        and other.endpoint == worker.endpoint
        and other.status is WorkerStatus.ACTIVE
    ]
