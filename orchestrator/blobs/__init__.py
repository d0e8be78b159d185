"""
The `BlobStore` port: sealed bytes by their hash.

A blob's name is the blake2-256 hash of its bytes. `get` checks it, whatever the store says.
Stores hold sealed bytes only; they need not be trusted with anything but keeping them.
"""

from typing import BinaryIO, Protocol, runtime_checkable

__all__ = ["BlobStore", "OpenableBlobStore"]


class BlobStore(Protocol):
    """Keeps blobs; every adapter is safe for several threads and processes."""

    def put(self, data: bytes) -> bytes:
        """Store *data* durably and return its hash; storing the same bytes twice is one blob."""
        ...

    def get(self, digest: bytes, *, max_bytes: int) -> bytes:
        """
        Return the bytes that hash to *digest*.

        Raises:
            BlobNotFoundError: There is no such blob here.
            BlobTooLargeError: It is longer than *max_bytes*; no more than that was read.
            DigestMismatchError: The store holds other bytes under this name.
            BlobUnavailableError: The store can't be reached now.
        """
        ...

    def has(self, digest: bytes) -> bool: ...

    def delete(self, digest: bytes) -> None:
        """Forget the blob; not an error when there is none."""
        ...


@runtime_checkable
class OpenableBlobStore(BlobStore, Protocol):
    """A store whose blobs can be read part by part, so that nobody need hold a whole one."""

    def open(self, digest: bytes, *, max_bytes: int) -> BinaryIO:
        """
        Return a file of the bytes that hash to *digest*, checked, at its beginning.

        Raises: what `get` raises.
        """
        ...
