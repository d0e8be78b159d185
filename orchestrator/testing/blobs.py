"""Blobs in memory, and ways in which a store can fail."""

import threading

from orchestrator.encoding import blake2_256
from orchestrator.errors import (
    BlobNotFoundError,
    BlobTooLargeError,
    BlobUnavailableError,
    DigestMismatchError,
)

__all__ = ["MemoryBlobStore"]


class MemoryBlobStore:
    """
    A `BlobStore` that is gone with its process.

    While `is_available` is false every call fails; `damage` makes a blob's bytes others.
    """

    def __init__(self) -> None:
        self._blobs: dict[bytes, bytes] = {}
        self._lock = threading.Lock()
        self.is_available = True

    def put(self, data: bytes) -> bytes:
        self._check()
        digest = blake2_256(data)
        with self._lock:
            self._blobs[digest] = bytes(data)
        return digest

    def get(self, digest: bytes, *, max_bytes: int) -> bytes:
        self._check()
        with self._lock:
            data = self._blobs.get(digest)
        if data is None:
            raise BlobNotFoundError(f"no blob {digest.hex()}")
        if len(data) > max_bytes:
            raise BlobTooLargeError(f"blob {digest.hex()}: {len(data)} bytes, at most {max_bytes}")
        if blake2_256(data) != digest:
            raise DigestMismatchError(f"blob {digest.hex()} is damaged")
        return data

    def has(self, digest: bytes) -> bool:
        self._check()
        return digest in self._blobs

    def delete(self, digest: bytes) -> None:
        self._check()
        with self._lock:
            self._blobs.pop(digest, None)

    def damage(self, digest: bytes) -> None:
        """Change the bytes that are stored under *digest*."""
        with self._lock:
            self._blobs[digest] = self._blobs[digest] + b"!"

    def _check(self) -> None:
        if not self.is_available:
            raise BlobUnavailableError("the store was told to be out of reach")
