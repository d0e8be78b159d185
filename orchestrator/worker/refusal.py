"""How a worker says no to a request."""

from orchestrator.errors import Error

__all__ = ["RefusalError"]


class RefusalError(Error):
    """A request is refused, and nothing is signed; `status` is that of HTTP."""

    def __init__(
        self, status: int, message: str, *, retry_after_seconds: int | None = None
    ) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after_seconds = retry_after_seconds
