"""
Whom an owner seals to: workers that the contract trusts, and that the owner accepts.

A recipient says by its type why it is one: `VerifiedRecipient` by rule 1.5 (a), its evidence was
verified here; `ListedRecipient` by (b), a node that the owner trusts lists it.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeAlias

from orchestrator.client.chain_view import ChainView
from orchestrator.client.evidence import WorkerEvidence
from orchestrator.crypto import verify_reply_key
from orchestrator.errors import ConfigError, InputError, UntrustedWorkerError
from orchestrator.evidence import VerifiedEvidence
from orchestrator.models import PublicKey, Worker, WorkerId

__all__ = ["ListedRecipient", "Recipient", "Recipients", "VerifiedRecipient"]


@dataclass(frozen=True, kw_only=True)
class ListedRecipient:
    """A worker with the key that a trusted node says it has."""

    worker: Worker

    @property
    def encryption_key(self) -> bytes:
        """The key to seal to: the listed one."""
        return self.worker.encryption_key

    @property
    def valid_until(self) -> int:
        """The last ms at which something may be sealed to it without asking again."""
        return self.worker.valid_until


@dataclass(frozen=True, kw_only=True)
class VerifiedRecipient:
    """A worker with the key that its evidence, verified against the owner's policy, binds."""

    worker: Worker
    evidence: VerifiedEvidence

    @property
    def encryption_key(self) -> bytes:
        """The key to seal to: the one in the evidence."""
        return self.evidence.bundle.encryption_key

    @property
    def valid_until(self) -> int:
        """The last ms at which something may be sealed to it without asking again."""
        return min(self.worker.valid_until, self.evidence.valid_until)


Recipient: TypeAlias = ListedRecipient | VerifiedRecipient


class Recipients:
    """
    Decides about workers, each time by what the chain says then.

    With *evidence* a worker is a recipient only if its evidence meets the owner's policy. Without,
    what the node says counts, and `require_basis` wants *trusted_node*. With *accepted_keys* only
    workers with one of these signing keys are recipients. That alone does **not** prove whose the
    encryption key is: which one belongs to a worker is then what the node says.
    """

    def __init__(
        self,
        view: ChainView,
        *,
        accepted_keys: Collection[PublicKey] | None,
        evidence: WorkerEvidence | None,
        trusted_node: bool,
        clock: Callable[[], int],
    ) -> None:
        self._view = view
        self._accepted_keys = None if accepted_keys is None else frozenset(accepted_keys)
        self._evidence = evidence
        self._trusted_node = trusted_node
        self._clock = clock

    def require_basis(self) -> None:
        """
        Refuse to seal by nobody's word.

        Raises:
            ConfigError: There is no policy, and the node is not trusted.
        """
        if self._evidence is None and not self._trusted_node:
            raise ConfigError(
                "trusted_node: without a policy workers' keys come from the node, so nothing is"
                " sealed unless the node is said to be trusted, or a policy says what workers'"
                " evidence must be"
            )

    @property
    def policy_hash(self) -> bytes | None:
        """What names the policy that recipients meet, `None` without one."""
        return None if self._evidence is None else self._evidence.policy_hash

    def now(self) -> int:
        """The later of the own clock and the chain's time (ms)."""
        return max(self._clock(), self._view.chain.now())

    def worker(self, worker: WorkerId) -> Recipient:
        """
        The worker, trusted at a finalized block and until now, and accepted.

        Raises:
            UntrustedWorkerError: It is one of these not.
            BlobError: Its evidence can't be had (now).
            CollateralUnavailableError: There is no collateral for its evidence now.
        """
        found = self._view.trusted_worker(worker, now=self._clock())
        if not self._is_accepted(found):
            raise UntrustedWorkerError(
                "WorkerNotAccepted", f"worker {worker} is not one that this owner accepts"
            )
        return self.recipient(found)

    def recipient(self, worker: Worker) -> Recipient:
        """
        A worker that is trusted and accepted, with why its key is believed.

        Raises: what `worker` raises about evidence.
        """
        if self._evidence is None:
            return ListedRecipient(worker=worker)
        evidence = self._evidence.verify_recipient(worker, now=self.now())
        return VerifiedRecipient(worker=worker, evidence=evidence)

    def candidates(self) -> list[Worker]:
        """
        All workers to choose from, by id; whether evidence meets the policy is not asked yet.

        They are trusted, accepted, and have a usable key: one that has none must not spoil the
        others' jobs. Of several with the same endpoint, which is one worker that has made itself
        new keys, only the newest is among them.
        """
        newest: dict[bytes | WorkerId, Worker] = {}
        for worker in self._view.trusted_workers(now=self._clock()):
            if self._is_accepted(worker) and _has_key(worker):
                # Those without an endpoint may be anywhere.
                newest[worker.endpoint or worker.worker] = worker
        return sorted(newest.values(), key=lambda worker: worker.worker)

    def _is_accepted(self, worker: Worker) -> bool:
        return self._accepted_keys is None or worker.signing_key in self._accepted_keys


def _has_key(worker: Worker) -> bool:
    try:
        verify_reply_key(worker.encryption_key)
    except InputError:
        return False
    return True
