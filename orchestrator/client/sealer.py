"""
Sealing by protocol rule 1.5.

With a policy (a): to keys out of evidence that was verified here. Without (b): to keys read as
trusted, at a finalized block, from a node that the owner said is trusted. `recipients` decides.
"""

import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.client.chain_view import ChainView
from orchestrator.client.recipients import Recipient, Recipients
from orchestrator.crypto import OwnerSecret, SealedJob, seal_job, verify_reply_key
from orchestrator.encoding import encode_task_input
from orchestrator.errors import (
    BlobError,
    BlobUnavailableError,
    CollateralUnavailableError,
    EncodingError,
    Error,
    InputError,
    UntrustedWorkerError,
)
from orchestrator.models import Parameters, TaskInput, Worker, WorkerId

__all__ = ["DEFAULT_TTL_MS", "OfferedTasks", "Sealer", "Submission", "plaintext_of"]

DEFAULT_TTL_MS = 3_600_000
_MAX_WORKERS = 4
_DEFAULT_WORKERS = 2
_MAX_SHOWN = 20

OfferedTasks: TypeAlias = Callable[[Sequence[Worker]], Mapping[WorkerId, tuple[str, ...]]]


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
    """
    Seals tasks to trusted workers; remembers what it read for the length of its own life.

    That a worker is trusted is remembered up to the last ms of its registration and evidence.
    *offered_tasks* asks workers what they have on offer, and leaves out those that do not say.
    """

    def __init__(
        self,
        view: ChainView,
        recipients: Recipients,
        *,
        owner: bytes,
        secret: OwnerSecret,
        offered_tasks: OfferedTasks | None = None,
    ) -> None:
        self._view = view
        self._recipients = recipients
        self._owner = owner
        self._secret = secret
        self._parameters: Parameters | None = None
        self._known: dict[WorkerId, Recipient] = {}
        self._unusable: dict[WorkerId, Error] = {}
        self._candidates: list[Worker] | None = None
        self._offered_tasks = offered_tasks
        self._offers: dict[WorkerId, tuple[str, ...] | None] = {}

    def seal(self, submission: Submission) -> tuple[SealedJob, tuple[WorkerId, ...]]:
        """
        Return the task, sealed, and the workers it is sealed to.

        1. There is a policy, or the node was said to be trusted.
        2. The contract belongs to this chain and its version is known.
        3. The time to live is inside the contract's limits.
        4. One to four different workers, each trusted at a finalized block and until now, accepted
           by the owner, and under a policy with evidence that meets it.
        5. Their keys are usable.
        6. One of them offers the task, or one does not say what it offers, or nobody is asked.
        7. No registration, and no evidence, has run out by the later of own and chain's time.
        8. The sealed bytes are not longer than the contract takes.

        Raises:
            ConfigError: 1.
            ChainMismatchError: 2.
            InputError: 3, 5, 6 or 8, or the number of workers in 4.
            UntrustedWorkerError: 4 or 7.
            BlobError: A worker's evidence can't be had (now).
            CollateralUnavailableError: There is no collateral for a worker's evidence now.
        """
        self._recipients.require_basis()
        self._view.require_contract()
        parameters = self._limits()
        if not parameters.min_ttl <= submission.ttl_ms <= parameters.max_ttl:
            raise InputError(
                f"ttl: {submission.ttl_ms} ms, the contract takes {parameters.min_ttl}"
                f" to {parameters.max_ttl} ms"
            )
        recipients = self._choose(submission.workers)
        for recipient in recipients:
            _require_usable_key(recipient)
        self._require_offer(submission.task.task, [found.worker for found in recipients])
        _require_time(recipients, self._recipients.now())
        sealed = self._seal_to(recipients, plaintext_of(submission.task))
        excess = len(sealed.envelope) - parameters.max_payload
        if excess > 0:
            fitting = len(submission.task.input) - excess
            raise InputError(
                f"payload: {len(sealed.envelope)} bytes when sealed, the contract's max_payload"
                f" is {parameters.max_payload}; larger payloads by reference come later"
                + (f"; about {fitting} bytes of input fit" if fitting > 0 else "")
            )
        return sealed, tuple(recipient.worker.worker for recipient in recipients)

    def _seal_to(self, recipients: Sequence[Recipient], plaintext: bytes) -> SealedJob:
        """The one place where a client seals: it takes recipients, never bare keys."""
        return seal_job(
            plaintext,
            genesis=self._view.chain.genesis_hash,
            contract=self._view.contract,
            owner=self._owner,
            secret=self._secret,
            recipients=[recipient.encryption_key for recipient in recipients],
        )

    def _require_offer(self, task: str, workers: Sequence[Worker]) -> None:
        if self._offered_tasks is None:
            return
        new = [worker for worker in workers if worker.worker not in self._offers]
        if new:
            answers = self._offered_tasks(new)
            self._offers.update({one.worker: answers.get(one.worker) for one in new})
        offers: set[str] = set()
        for worker in workers:
            tasks = self._offers[worker.worker]
            if tasks is None or task in tasks:
                return
            offers.update(tasks)
        names = ", ".join(str(worker.worker) for worker in workers)
        shown = ", ".join(sorted(offers)[:_MAX_SHOWN]) or "nothing"
        more = ", ..." if len(offers) > _MAX_SHOWN else ""
        raise InputError(
            f"task: {task!r} is not on offer; worker {names} offers {shown}{more}"
            " (--any-task submits it all the same)"
        )

    def _limits(self) -> Parameters:
        if self._parameters is None:
            self._parameters = self._view.parameters()
        return self._parameters

    def _choose(self, wanted: tuple[WorkerId, ...] | None) -> list[Recipient]:
        if wanted is None:
            return self._choose_any()
        if not 1 <= len(wanted) <= _MAX_WORKERS:
            raise InputError(f"workers: {len(wanted)} given, 1 to {_MAX_WORKERS} are possible")
        if len(set(wanted)) != len(wanted):
            raise InputError(f"workers: {list(wanted)} names one twice")
        now = self._recipients.now()
        return [self._trusted(worker, now=now) for worker in wanted]

    def _choose_any(self) -> list[Recipient]:
        """Up to two at random; one whose evidence is refused, or can't be had, is skipped."""
        if self._candidates is None:
            self._candidates = self._recipients.candidates()
        now = self._recipients.now()
        chosen: list[Recipient] = []
        for worker in secrets.SystemRandom().sample(self._candidates, len(self._candidates)):
            if len(chosen) == _DEFAULT_WORKERS:
                break
            if worker.worker in self._unusable:
                continue
            try:
                if worker.worker not in self._known:
                    self._known[worker.worker] = self._recipients.recipient(worker)
                chosen.append(self._trusted(worker.worker, now=now))
            except (UntrustedWorkerError, BlobError, CollateralUnavailableError) as error:
                self._unusable[worker.worker] = error
        if not chosen:
            raise self._why_none()
        return chosen

    def _why_none(self) -> Error:
        """The reason of each worker; when one is only out of reach, nothing is refused for good."""
        if self._unusable:
            reasons = "; ".join(f"{self._unusable[worker]}" for worker in sorted(self._unusable))
            message = f"no worker to seal to: {reasons}"
            for error in self._unusable.values():
                if not isinstance(error, UntrustedWorkerError):
                    return BlobUnavailableError(message)
            return UntrustedWorkerError("WorkerNotTrusted", message)
        registered = sum(1 for _ in self._view.workers())
        if not registered:
            return UntrustedWorkerError("WorkerNotTrusted", "no worker is registered")
        return UntrustedWorkerError(
            "WorkerNotTrusted",
            f"{registered} registered, and no worker is trusted now, accepted by this owner, and"
            " has a usable key: phala-jobs workers list",
        )

    def _trusted(self, worker: WorkerId, *, now: int) -> Recipient:
        known = self._known.get(worker)
        if known is None or now > known.valid_until:
            # It may have been renewed since, which the chain knows.
            self._known[worker] = self._recipients.worker(worker)
        return self._known[worker]


def _require_usable_key(recipient: Recipient) -> None:
    try:
        verify_reply_key(recipient.encryption_key)
    except InputError as error:
        raise InputError(
            f"worker {recipient.worker.worker}: its encryption key: {error}"
        ) from error


def _require_time(recipients: Sequence[Recipient], now: int) -> None:
    """Refuse what ran out while others' evidence was fetched."""
    for recipient in recipients:
        if now > recipient.valid_until:
            raise UntrustedWorkerError(
                "WorkerNotTrusted",
                f"worker {recipient.worker.worker}: its registration or evidence ended at"
                f" {recipient.valid_until}, it is {now}",
            )
