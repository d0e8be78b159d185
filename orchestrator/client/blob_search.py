"""Bytes by their hash, from several stores and the worker that has them, none of them trusted."""

from collections.abc import Callable, Sequence

from orchestrator.blobs import BlobStore
from orchestrator.encoding import blake2_256
from orchestrator.errors import (
    BlobError,
    BlobNotFoundError,
    BlobUnavailableError,
    DigestMismatchError,
    InputError,
)
from orchestrator.models import Worker

__all__ = ["BlobSearch", "WorkerBlobs"]

WorkerBlobs = Callable[[Worker], BlobStore]


class BlobSearch:
    """Asks *stores* in order; `None` among them stands for the store of the worker itself."""

    def __init__(
        self, stores: Sequence[BlobStore | None], worker_blobs: WorkerBlobs | None
    ) -> None:
        self._stores = tuple(stores)
        self._worker_blobs = worker_blobs

    def get(self, digest: bytes, *, worker: Worker, what: str, max_bytes: int) -> bytes:
        """
        Return the bytes that hash to *digest*, which *what* names for people.

        Raises:
            BlobNotFoundError: No store has them.
            BlobUnavailableError: A store that may have them can't be reached now.
            BlobError: A store has too many bytes, or others, and no other has the right ones.
        """
        troubles: list[BlobError] = []
        for held in self._stores:
            try:
                store = self._store_of(worker) if held is None else held
                data = store.get(digest, max_bytes=max_bytes)
                if blake2_256(data) != digest:
                    raise DigestMismatchError(f"not the bytes that hash to {digest.hex()}")
                return data
            except BlobError as error:
                troubles.append(error)
        for trouble in troubles:
            # One that could not be asked may still have it.
            if isinstance(trouble, BlobUnavailableError):
                raise BlobUnavailableError(f"{what} {digest.hex()}: {trouble}") from trouble
        for trouble in troubles:
            if not isinstance(trouble, BlobNotFoundError):
                raise trouble
        raise BlobNotFoundError(f"{what} {digest.hex()}: {self._nowhere(worker)}")

    def _nowhere(self, worker: Worker) -> str:
        count = sum(store is not None for store in self._stores)
        if self._worker_blobs is not None:
            return f"neither in {count} blob sources nor at worker {worker.worker}"
        found = f"not in {count} blob sources" if count else "no blob source was given"
        return f"{found}, and workers are not asked (worker_blobs)"

    def _store_of(self, worker: Worker) -> BlobStore:
        if self._worker_blobs is None:
            raise BlobNotFoundError("workers are not asked")
        try:
            return self._worker_blobs(worker)
        except (InputError, UnicodeDecodeError) as error:
            # What is registered as the worker's address need not be one.
            raise BlobNotFoundError(f"worker {worker.worker}: {error}") from error
