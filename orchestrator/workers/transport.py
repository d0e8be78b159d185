"""
HTTP/1.1 to one worker: aiohttp behind httpx's transport interface.

An orchestrator asks its workers a few hundred times a second, and the connection pool that httpx
brings spends more on each request than all our own checks together (5 ms of CPU per job, measured);
aiohttp's does not. Redirects, proxies, cookies and decompression are off; the parser keeps heads
within its own limits, and bodies come no faster than they are taken.
"""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import aiohttp
import httpx

__all__ = ["AiohttpTransport"]

# Less than any server's own limit, so that a connection is not used as it ends.
_IDLE_SECONDS = 30.0
_CHUNK = 65_536


class AiohttpTransport(httpx.AsyncBaseTransport):
    """
    Connections that are kept and used again, each for one request at a time.

    Does **not** limit how many there are, nor how long a whole request takes: who asks does.
    """

    def __init__(self, *, connect_seconds: float = 5.0) -> None:
        self._timeout = aiohttp.ClientTimeout(total=None, sock_connect=connect_seconds)
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._session is None:  # made here, because it belongs to the running event loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=self._timeout,
                auto_decompress=False,
                trust_env=False,
            )
        with _in_httpx_words():
            answer = await self._session.request(
                request.method,
                str(request.url),
                headers=request.headers.multi_items(),
                data=await request.aread() or None,
                allow_redirects=False,
            )
        return httpx.Response(answer.status, headers=answer.raw_headers, stream=_Body(answer))

    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()
            # Aborted connections are closed by the event loop's next turn.
            await asyncio.sleep(0)


class _Body(httpx.AsyncByteStream):
    """The body as it comes; closing it frees the connection."""

    def __init__(self, answer: aiohttp.ClientResponse) -> None:
        self._answer = answer

    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _in_httpx_words():
            async for part in self._answer.content.iter_chunked(_CHUNK):
                yield part

    async def aclose(self) -> None:
        if not self._answer.content.is_eof():
            self._answer.close()  # unread bytes must not become the next answer
        self._answer.release()


@contextmanager
def _in_httpx_words() -> Iterator[None]:
    """Raise httpx's errors for aiohttp's: what is no HTTP, what broke off, what was not reached."""
    try:
        yield
    except (aiohttp.ClientResponseError, aiohttp.http_exceptions.HttpProcessingError) as error:
        raise httpx.RemoteProtocolError(f"illegal answer: {error}") from error
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout(str(error)) from error
    except (aiohttp.ClientConnectorError, aiohttp.InvalidURL, OverflowError, ValueError) as error:
        # An address that can't be one is refused by sockets and codecs in words of their own.
        raise httpx.ConnectError(str(error) or type(error).__name__) from error
    except (aiohttp.ClientError, OSError) as error:
        raise httpx.ReadError(str(error) or type(error).__name__) from error
