"""
Sealing by protocol rule 1.5 (b).

Workers' keys are read as trusted, at a finalized block, from a node that the owner said is trusted.
"""

import secrets
from dataclasses import dataclass

from orchestrator.client.chain_view import ChainView
from orchestrator.client.recipients import Recipients
from orchestrator.crypto import OwnerSecret, SealedJob, seal_job, verify_reply_key
from orchestrator.encoding import encode_task_input
from orchestrator.errors import ConfigError, EncodingError, InputError, UntrustedWorkerError
from orchestrator.models import Parameters, TaskInput, Worker, WorkerId

__all__ = ["DEFAULT_TTL_MS", "Sealer", "Submission", "plaintext_of"]

DEFAULT_TTL_MS = 3_600_000
_MAX_WORKERS = 4
_DEFAULT_WORKERS = 2


@dataclass(frozen=True, kw_only=True)
class Submission:
    """
    A job to submit.

    `workers` are those it is sealed to, in order of preference; without them, up to two
    trusted ones are chosen at random. With a `key` of the caller's, the same submission
    made again, today or after a crash, is the same job.
    """

    task: TaskInput
    workers: tuple[WorkerId, ...] | None = None
    ttl_ms: int = DEFAULT_TTL_MS
    key: str | None = None


def plaintext_of(task: TaskInput) -> bytes:
    """
    Return what is sealed of a task.

    Raises:
        InputError: A parameter is of a kind that has no encoding, or they are nested too deep.
    """
    try:
        return encode_task_input(task)
    except EncodingError as error:
        raise InputError(f"task: {error}") from error


class Sealer:
    """Seals tasks to trusted workers; remembers what it read for the length of its own life."""

    def __init__(
        self,
        view: ChainView,
        recipients: Recipients,
        *,
        owner: bytes,
        secret: OwnerSecret,
        trusted_node: bool,
    ) -> None:
        self._view = view
        self._recipients = recipients
        self._owner = owner
        self._secret = secret
        self._trusted_node = trusted_node
        self._parameters: Parameters | None = None
        self._workers: dict[WorkerId, Worker] = {}
        self._pool: list[Worker] | None = None

    def seal(self, submission: Submission) -> tuple[SealedJob, tuple[WorkerId, ...]]:
        """
        Return the task, sealed, and the workers it is sealed to.

        1. The node was said to be trusted.
        2. The contract belongs to this chain and its version is known.
        3. The time to live is inside the contract's limits.
        4. One to four different workers, each trusted at a finalized block and until now, and
           accepted by the owner.
        5. Their keys are usable.
        6. The sealed bytes are not longer than the contract takes.

        Raises:
            ConfigError: 1.
            ChainMismatchError: 2.
            InputError: 3, 5 or 6, or the number of workers in 4.
            UntrustedWorkerError: 4.
        """
        if not self._trusted_node:
            raise ConfigError(
                "trusted_node: workers' keys come from the node, so nothing is sealed unless"
                " the node is said to be trusted"
            )
        self._view.require_contract()
        parameters = self._limits()
        if not parameters.min_ttl <= submission.ttl_ms <= parameters.max_ttl:
            raise InputError(
                f"ttl: {submission.ttl_ms} ms, the contract takes {parameters.min_ttl}"
                f" to {parameters.max_ttl} ms"
            )
        workers = self._choose(submission.workers)
        for worker in workers:
            _require_usable_key(worker)
        sealed = seal_job(
            plaintext_of(submission.task),
            genesis=self._view.chain.genesis_hash,
            contract=self._view.contract,
            owner=self._owner,
            secret=self._secret,
            recipients=[worker.encryption_key for worker in workers],
        )
        excess = len(sealed.envelope) - parameters.max_payload
        if excess > 0:
            fitting = len(submission.task.input) - excess
            raise InputError(
                f"payload: {len(sealed.envelope)} bytes when sealed, the contract's max_payload"
                f" is {parameters.max_payload}; larger payloads by reference come later"
                + (f"; about {fitting} bytes of input fit" if fitting > 0 else "")
            )
        return sealed, tuple(worker.worker for worker in workers)

    def _limits(self) -> Parameters:
        if self._parameters is None:
            self._parameters = self._view.parameters()
        return self._parameters

    def _choose(self, wanted: tuple[WorkerId, ...] | None) -> list[Worker]:
        if wanted is None:
            if self._pool is None:
                self._pool = self._recipients.pool()
            if not self._pool:
                raise UntrustedWorkerError("WorkerNotTrusted", self._why_none())
            count = min(_DEFAULT_WORKERS, len(self._pool))
            return secrets.SystemRandom().sample(self._pool, count)
        if not 1 <= len(wanted) <= _MAX_WORKERS:
            raise InputError(f"workers: {len(wanted)} given, 1 to {_MAX_WORKERS} are possible")
        if len(set(wanted)) != len(wanted):
            raise InputError(f"workers: {list(wanted)} names one twice")
        return [self._trusted(worker) for worker in wanted]

    def _why_none(self) -> str:
        registered = sum(1 for _ in self._view.workers())
        if not registered:
            return "no worker is registered"
        return (
            f"{registered} registered, and no worker is trusted now, accepted by this owner, and"
            " has a usable key: phala-jobs workers list"
        )

    def _trusted(self, worker: WorkerId) -> Worker:
        if worker not in self._workers:
            self._workers[worker] = self._recipients.worker(worker)
        return self._workers[worker]


def _require_usable_key(worker: Worker) -> None:
    try:
        verify_reply_key(worker.encryption_key)
    except InputError as error:
        raise InputError(f"worker {worker.worker}: its encryption key: {error}") from error
