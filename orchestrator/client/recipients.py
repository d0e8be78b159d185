"""Whom an owner seals to: workers that the contract trusts, and that the owner accepts."""

from collections.abc import Callable, Collection

from orchestrator.client.chain_view import ChainView
from orchestrator.crypto import verify_reply_key
from orchestrator.errors import InputError, UntrustedWorkerError
from orchestrator.models import PublicKey, Worker, WorkerId

__all__ = ["Recipients"]


class Recipients:
    """
    Decides about workers, each time by what the chain says then.

    With *accepted_keys* only workers with one of these signing keys are recipients. That does
    **not** prove whose the encryption key is: which one belongs to a worker is what the
    node says.
    """

    def __init__(
        self,
        view: ChainView,
        *,
        accepted_keys: Collection[PublicKey] | None,
        clock: Callable[[], int],
    ) -> None:
        self._view = view
        self._accepted_keys = None if accepted_keys is None else frozenset(accepted_keys)
        self._clock = clock

    def worker(self, worker: WorkerId) -> Worker:
        """
        The worker, trusted at a finalized block and until now, and accepted.

        Raises:
            UntrustedWorkerError: It is one of these not.
        """
        found = self._view.trusted_worker(worker, now=self._clock())
        if not self._is_accepted(found):
            raise UntrustedWorkerError(
                "WorkerNotAccepted", f"worker {worker} is not one that this owner accepts"
            )
        return found

    def pool(self) -> list[Worker]:
        """
        All such workers that a payload can be sealed to, by id.

        One whose encryption key is not usable must not spoil the others' jobs.
        """
        trusted = self._view.trusted_workers(now=self._clock())
        return [worker for worker in trusted if self._is_accepted(worker) and _has_key(worker)]

    def _is_accepted(self, worker: Worker) -> bool:
        return self._accepted_keys is None or worker.signing_key in self._accepted_keys


def _has_key(worker: Worker) -> bool:
    try:
        verify_reply_key(worker.encryption_key)
    except InputError:
        return False
    return True
