"""
Blobs in a directory, one file each, named by hash.

Files are written beside their place, flushed to disk and renamed, so that a name never shows
half a blob, also after a power cut. Several processes can share a directory.
"""

import contextlib
import hashlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from orchestrator.encoding import blake2_256
from orchestrator.errors import (
    BlobNotFoundError,
    BlobTooLargeError,
    BlobUnavailableError,
    DigestMismatchError,
    InputError,
)

__all__ = ["DirectoryBlobStore"]

_DIGEST_BYTES = 32
_CHUNK = 1 << 18


class DirectoryBlobStore:
    """
    Keeps blobs under *path*, in folders by the first byte of their hash.

    `durable=False` leaves out the flush to disk: for blobs that somebody else can send again.
    """

    def __init__(self, path: Path, *, durable: bool = True) -> None:
        self._path = path
        self._durable = durable
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BlobUnavailableError(_trouble(path, error)) from error

    def put(self, data: bytes) -> bytes:
        """Store *data* and return its hash; once this returns, the blob survives a power cut."""
        digest = blake2_256(data)
        place = self._place(digest)
        try:
            if not self._holds(place, data):
                self._write(place, data)
        except OSError as error:
            raise BlobUnavailableError(_trouble(place, error)) from error
        return digest

    def get(self, digest: bytes, *, max_bytes: int) -> bytes:
        """Return the bytes that hash to *digest*, see `BlobStore.get`."""
        place = self._place(digest)
        with self._trouble_at(place, digest), place.open("rb") as file:
            data = file.read(max_bytes + 1)
        if len(data) > max_bytes:
            raise BlobTooLargeError(f"blob {digest.hex()} is longer than {max_bytes} bytes")
        if blake2_256(data) != digest:
            raise DigestMismatchError(f"{place} does not hold the bytes of its name")
        return data

    def open(self, digest: bytes, *, max_bytes: int) -> BinaryIO:
        """
        Return a file of the bytes that hash to *digest*, see `OpenableBlobStore.open`.

        The file stays what was checked: blobs are replaced by renaming, never written to.
        """
        place = self._place(digest)
        with self._trouble_at(place, digest), contextlib.ExitStack() as on_failure:
            file = on_failure.enter_context(place.open("rb"))
            if os.fstat(file.fileno()).st_size > max_bytes:
                raise BlobTooLargeError(f"blob {digest.hex()} is longer than {max_bytes} bytes")
            if _hash(file) != digest:
                raise DigestMismatchError(f"{place} does not hold the bytes of its name")
            file.seek(0)
            on_failure.pop_all()
        return file

    def has(self, digest: bytes) -> bool:
        """Whether there is a file for *digest*; its bytes are checked by `get` alone."""
        return self._place(digest).is_file()

    def delete(self, digest: bytes) -> None:
        """Forget the blob; not an error when there is none."""
        place = self._place(digest)
        try:
            place.unlink(missing_ok=True)
        except OSError as error:
            raise BlobUnavailableError(_trouble(place, error)) from error

    @contextlib.contextmanager
    def _trouble_at(self, place: Path, digest: bytes) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise BlobNotFoundError(f"no blob {digest.hex()} in {self._path}") from None
        except OSError as error:
            raise BlobUnavailableError(_trouble(place, error)) from error

    def _place(self, digest: bytes) -> Path:
        if len(digest) != _DIGEST_BYTES:
            raise InputError(f"digest: {len(digest)} bytes, must be {_DIGEST_BYTES}")
        name = digest.hex()
        return self._path / name[:2] / name

    def _holds(self, place: Path, data: bytes) -> bool:
        # A damaged file is replaced, so its length and bytes are compared, not its name alone.
        try:
            return place.stat().st_size == len(data) and place.read_bytes() == data
        except FileNotFoundError:
            return False

    def _write(self, place: Path, data: bytes) -> None:
        folder = place.parent
        is_new_folder = not folder.is_dir()
        folder.mkdir(mode=0o700, exist_ok=True)
        draft = folder / f".{place.name}.{secrets.token_hex(8)}"
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                if self._durable:
                    os.fsync(file.fileno())
            draft.replace(place)
        except OSError:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
            raise
        if self._durable:
            _flush_folder(folder)
            if is_new_folder:
                _flush_folder(self._path)


def _hash(file: BinaryIO) -> bytes:
    """`blake2_256` of a file, a part at a time."""
    state = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    while part := file.read(_CHUNK):
        state.update(part)
    return state.digest()


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _trouble(place: Path, error: OSError) -> str:
    return f"{place}: {error.strerror or error}"
