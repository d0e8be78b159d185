"""A blob store for tests of what a client fetches."""

from orchestrator.errors import BlobError

__all__ = ["Shelf"]


class Shelf:
    """A blob store that answers with what it was given, right or wrong; a client only ever gets."""

    def __init__(self, answer: bytes | BlobError) -> None:
        self.answer = answer
        self.asked = 0

    def get(self, digest: bytes, *, max_bytes: int) -> bytes:
        self.asked += 1
        if isinstance(self.answer, BlobError):
            raise self.answer
        return self.answer

    def put(self, data: bytes) -> bytes:
        raise AssertionError("a client only gets")

    def has(self, digest: bytes) -> bool:
        raise AssertionError("a client only gets")

    def delete(self, digest: bytes) -> None:
        raise AssertionError("a client only gets")
