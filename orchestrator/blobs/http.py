"""
Blobs of an orchestrator or a worker, read over HTTP.

No answer can fill the memory or go on for ever; redirects are not followed.
"""

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import TypeVar

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
T = TypeVar("T")
_NO_ANSWER = (httpx.HTTPError, httpx.InvalidURL, OSError, OverflowError, ValueError)


class HttpBlobStore:
    """
    The blobs under `/v1/blobs` of *url*, to read.

    `put` and `delete` are refused: who may write there does it through its own interface. Each
    call takes at most *timeout_seconds*, whatever the server does; a thread of the store's own
    sees to that, because no time limit of a blocking read covers a head that drips.

    Raises:
        ConfigError: The URL is not one.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 120.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = _check_url(url)
        self._timeout_seconds = timeout_seconds
        self._client = httpx.AsyncClient(
            headers={"accept-encoding": "identity", "user-agent": "phala-jobs"},
            timeout=httpx.Timeout(min(_SILENCE_SECONDS, timeout_seconds), connect=_CONNECT_SECONDS),
            follow_redirects=False,
            trust_env=False,
            transport=transport,
        )
        self._calls = _Calls()

    def put(self, data: bytes) -> bytes:
        """Refuse: this store is read-only."""
        raise BlobError(f"{self._url} is read-only, {len(data)} bytes were not stored")

    def get(self, digest: bytes, *, max_bytes: int) -> bytes:
        """Return the bytes that hash to *digest*, see `BlobStore.get`."""
        data = self._calls.run(self._get(digest, max_bytes))
        if blake2_256(data) != digest:
            raise DigestMismatchError(f"{self._url} answers {digest.hex()} with other bytes")
        return data

    def has(self, digest: bytes) -> bool:
        """
        Whether the server says that it has the blob.

        Raises:
            BlobUnavailableError: It can't be asked now.
        """
        status = self._calls.run(self._head(digest))
        if status not in (200, 404):
            raise BlobUnavailableError(f"{self._url} answered {status}")
        return status == 200

    def delete(self, digest: bytes) -> None:
        """Refuse: this store is read-only."""
        raise BlobError(f"{self._url} is read-only, {digest.hex()} stays")

    def close(self) -> None:
        """Close the connections."""
        self._calls.run(self._client.aclose())
        self._calls.close()

    async def _get(self, digest: bytes, max_bytes: int) -> bytes:
        async with self._in_time(), self._client.stream("GET", self._blob_url(digest)) as answer:
            if answer.status_code == 404:
                raise BlobNotFoundError(f"{self._url} has no blob {digest.hex()}")
            if answer.status_code != 200:
                raise BlobUnavailableError(f"{self._url} answered {answer.status_code}")
            return await self._read(answer, max_bytes)

    async def _head(self, digest: bytes) -> int:
        async with self._in_time():
            return (await self._client.head(self._blob_url(digest))).status_code

    @asynccontextmanager
    async def _in_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                yield
        except TimeoutError as error:
            late = f"{self._url}: not within {self._timeout_seconds:g} s"
            raise BlobUnavailableError(late) from error
        except _NO_ANSWER as error:
            raise BlobUnavailableError(
                f"{self._url}: {str(error) or type(error).__name__}"
            ) from error

    def _blob_url(self, digest: bytes) -> str:
        return f"{self._url}/v1/blobs/{digest.hex()}"

    async def _read(self, answer: httpx.Response, max_bytes: int) -> bytes:
        announced = answer.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > max_bytes:
            raise BlobTooLargeError(f"{self._url}: {announced} bytes, at most {max_bytes}")
        parts: list[bytes] = []
        length = 0
        async for part in answer.aiter_raw():
            length += len(part)
            if length > max_bytes:
                raise BlobTooLargeError(f"{self._url}: more than {max_bytes} bytes")
            parts.append(part)
        return b"".join(parts)


class _Calls:
    """An event loop in a thread of its own, begun by the first call; it ends with its owner."""

    def __init__(self) -> None:
        self._starting = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, call: Coroutine[None, None, T]) -> T:
        """Return what *call* returns; from any thread."""
        with self._starting:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                threading.Thread(target=_run_loop, args=[self._loop], daemon=True).start()
                self._stop = weakref.finalize(
                    self, self._loop.call_soon_threadsafe, self._loop.stop
                )
            future = asyncio.run_coroutine_threadsafe(call, self._loop)
        try:
            return future.result()
        finally:
            future.cancel()  # when the wait was interrupted; else it does nothing

    def close(self) -> None:
        """End the thread; a later call begins another."""
        with self._starting:
            if self._loop is not None:
                self._stop()
                self._loop = None


def _run_loop(loop: asyncio.AbstractEventLoop) -> None:
    loop.run_forever()
    loop.close()


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
