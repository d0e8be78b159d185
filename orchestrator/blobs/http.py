"""
Blobs of an orchestrator or a worker, read over HTTP.

No answer can fill the memory or go on for ever; redirects are not followed.
"""

import time

import httpx

from orchestrator.encoding import blake2_256
from orchestrator.errors import (
    BlobError,
    BlobNotFoundError,
    BlobTooLargeError,
    BlobUnavailableError,
    ConfigError,
    DigestMismatchError,
)

__all__ = ["HttpBlobStore"]

_CONNECT_SECONDS = 5.0
_SILENCE_SECONDS = 15.0
_MAX_PORT = 65_535
# The last two are what sockets and codecs say to addresses that pass for URLs.
_NO_ANSWER = (httpx.HTTPError, httpx.InvalidURL, OSError, OverflowError, ValueError)


class HttpBlobStore:
    """
    The blobs under `/v1/blobs` of *url*, to read.

    `put` and `delete` are refused: who may write there does it through its own interface.

    Raises:
        ConfigError: The URL is not one.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 120.0,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._url = _check_url(url)
        self._timeout_seconds = timeout_seconds
        self._client = httpx.Client(
            headers={"accept-encoding": "identity", "user-agent": "phala-jobs"},
            timeout=httpx.Timeout(min(_SILENCE_SECONDS, timeout_seconds), connect=_CONNECT_SECONDS),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )

    def put(self, data: bytes) -> bytes:
        """Refuse: this store is read-only."""
        raise BlobError(f"{self._url} is read-only, {len(data)} bytes were not stored")

    def get(self, digest: bytes, *, max_bytes: int) -> bytes:
        """Return the bytes that hash to *digest*, see `BlobStore.get`."""
        try:
            with self._client.stream("GET", self._blob_url(digest)) as answer:
                if answer.status_code == 404:
                    raise BlobNotFoundError(f"{self._url} has no blob {digest.hex()}")
                if answer.status_code != 200:
                    raise BlobUnavailableError(f"{self._url} answered {answer.status_code}")
                data = self._read(answer, max_bytes)
        except _NO_ANSWER as error:
            raise BlobUnavailableError(
                f"{self._url}: {str(error) or type(error).__name__}"
            ) from error
        if blake2_256(data) != digest:
            raise DigestMismatchError(f"{self._url} answers {digest.hex()} with other bytes")
        return data

    def has(self, digest: bytes) -> bool:
        """
        Whether the server says that it has the blob.

        Raises:
            BlobUnavailableError: It can't be asked now.
        """
        try:
            status = self._client.head(self._blob_url(digest)).status_code
        except _NO_ANSWER as error:
            raise BlobUnavailableError(
                f"{self._url}: {str(error) or type(error).__name__}"
            ) from error
        if status not in (200, 404):
            raise BlobUnavailableError(f"{self._url} answered {status}")
        return status == 200

    def delete(self, digest: bytes) -> None:
        """Refuse: this store is read-only."""
        raise BlobError(f"{self._url} is read-only, {digest.hex()} stays")

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def _blob_url(self, digest: bytes) -> str:
        return f"{self._url}/v1/blobs/{digest.hex()}"

    def _read(self, answer: httpx.Response, max_bytes: int) -> bytes:
        latest = time.monotonic() + self._timeout_seconds
        announced = answer.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > max_bytes:
            raise BlobTooLargeError(f"{self._url}: {announced} bytes, at most {max_bytes}")
        parts: list[bytes] = []
        length = 0
        for part in answer.iter_raw():
            length += len(part)
            if length > max_bytes:
                raise BlobTooLargeError(f"{self._url}: more than {max_bytes} bytes")
            if time.monotonic() > latest:
                raise BlobUnavailableError(f"{self._url}: not within {self._timeout_seconds:g} s")
            parts.append(part)
        return b"".join(parts)


def _check_url(url: str) -> str:
    try:
        parsed = httpx.URL(url)
        host = parsed.host
        # Sockets refuse what this refuses, and httpx lets it pass: labels empty or over 63 bytes.
        parsed.raw_host.decode("ascii").encode("idna")
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise ConfigError(f"blob URL {url!r}: {error}") from error
    if parsed.scheme not in ("http", "https") or not host:
        raise ConfigError(f"blob URL {url!r}: must be http:// or https:// with a host")
    if parsed.port is not None and not 1 <= parsed.port <= _MAX_PORT:
        raise ConfigError(f"blob URL {url!r}: port {parsed.port}, must be 1 to {_MAX_PORT}")
    return str(parsed).rstrip("/")
