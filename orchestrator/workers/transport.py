"""
HTTP/1.1 to one worker, as a transport of httpx.

An orchestrator asks its workers a few hundred times a second, and the connection pool that httpx
brings spends more on each request than all our own checks together. This one keeps a list of idle
connections and parses with llhttp, strictly: what is not one whole answer to one request closes
the connection.

* Redirects, proxies, cookies, compression and `HEAD` are not here.
* At most `MAX_HEAD` bytes of an answer's head are read, and no body faster than it is taken.
"""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator

import httptools
import httpx

__all__ = ["KeepAliveTransport"]

MAX_HEAD = 65_536
MAX_BUFFERED = 262_144
MAX_IDLE = 64
IDLE_SECONDS = 30.0  # less than any server's own limit, so that a connection is not used as it ends
_NOT_HTTP = "illegal answer"  # the word by which our client tells a fault from a lost connection


class KeepAliveTransport(httpx.AsyncBaseTransport):
    """
    Connections that are kept and used again, each for one request at a time.

    Does **not** limit how many there are, nor how long a whole request takes: who asks does.
    """

    def __init__(self, *, connect_seconds: float = 5.0) -> None:
        self._connect_seconds = connect_seconds
        self._idle: dict[tuple[str, str, int], list[_Connection]] = {}
        self._tls: ssl.SSLContext | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        place = _place(request.url)
        connection = self._take(place) or await self._connect(place)
        try:
            connection.send(await _whole(request))
            await connection.headed.wait()
            connection.raise_if_broken()
        except BaseException:
            connection.close()
            raise
        return httpx.Response(
            connection.status,
            headers=connection.headers,
            stream=_Body(self, place, connection),
        )

    async def aclose(self) -> None:
        for connections in self._idle.values():
            for connection in connections:
                connection.close()
        self._idle.clear()

    def _take(self, place: tuple[str, str, int]) -> "_Connection | None":
        connections = self._idle.get(place, [])
        while connections:
            connection = connections.pop()
            if connection.is_usable(time.monotonic()):
                return connection
            connection.close()
        return None

    async def _connect(self, place: tuple[str, str, int]) -> "_Connection":
        scheme, host, port = place
        if scheme == "https" and self._tls is None:
            self._tls = httpx.create_ssl_context()
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._connect_seconds):
                _, connection = await loop.create_connection(
                    _Connection, host, port, ssl=self._tls if scheme == "https" else None
                )
        except TimeoutError as error:
            raise httpx.ConnectTimeout(
                f"no connection within {self._connect_seconds:g} s"
            ) from error
        except (OSError, OverflowError, ValueError) as error:
            # An address that can't be one is refused by sockets and codecs in words of their own.
            raise httpx.ConnectError(str(error) or type(error).__name__) from error
        return connection

    def keep(self, place: tuple[str, str, int], connection: "_Connection") -> None:
        """Use the connection again if its answer was whole and it may be."""
        connections = self._idle.setdefault(place, [])
        if connection.rest(time.monotonic()) and len(connections) < MAX_IDLE:
            connections.append(connection)
        else:
            connection.close()


class _Body(httpx.AsyncByteStream):
    """The body as it comes; closing it frees the connection."""

    def __init__(
        self, owner: KeepAliveTransport, place: tuple[str, str, int], connection: "_Connection"
    ) -> None:
        self._owner = owner
        self._place = place
        self._connection: _Connection | None = connection

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._connection is not None:
            async for part in self._connection.parts():
                yield part

    async def aclose(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            self._owner.keep(self._place, connection)


class _Connection(asyncio.Protocol):
    """One connection and the answer that is coming in on it."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpResponseParser(self)
        self._error: httpx.TransportError | None = None
        self._is_asked = False
        self._is_open = False
        self._rested_at = 0.0
        self._begin()

    def _begin(self) -> None:
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.headed = asyncio.Event()
        self._more = asyncio.Event()
        self._head_bytes = 0
        self._parts: list[bytes] = []
        self._buffered = 0
        self._is_whole = False
        self._has_end = False
        self._may_stay = False

    # What the transport asks.

    def send(self, data: bytes) -> None:
        """Begin a request."""
        self._begin()
        self._is_asked = True
        if self._transport is None or self._transport.is_closing():
            self._fail(httpx.ReadError("the connection was closed"))
            return
        self._transport.write(data)

    def is_usable(self, now: float) -> bool:
        """Whether another request may be sent."""
        return (
            self._is_open
            and self._transport is not None
            and not self._transport.is_closing()
            and now - self._rested_at < IDLE_SECONDS
        )

    def rest(self, now: float) -> bool:
        """End a request; whether its answer was whole and the connection stays."""
        self._is_asked = False
        self._rested_at = now
        return self._may_stay and self._is_open and self._error is None

    def close(self) -> None:
        """Close at once."""
        if self._transport is not None:
            self._transport.abort()

    def raise_if_broken(self) -> None:
        """Raise what went wrong, if anything did."""
        if self._error is not None:
            raise self._error

    async def parts(self) -> AsyncIterator[bytes]:
        """Yield the body's parts until it is whole."""
        while True:
            if self._parts:
                data = b"".join(self._parts)
                self._parts.clear()
                self._buffered = 0
                if self._transport is not None:
                    self._transport.resume_reading()
                yield data
            elif self._is_whole:
                return
            else:
                self.raise_if_broken()
                self._more.clear()
                await self._more.wait()

    def _fail(self, error: httpx.TransportError) -> None:
        if self._error is None:
            self._error = error
        self.headed.set()
        self._more.set()

    # What the event loop tells.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if isinstance(transport, asyncio.Transport):
            self._transport = transport
            self._is_open = True

    def data_received(self, data: bytes) -> None:
        if not self._is_asked or self._is_whole:
            # Nobody asked: whatever it is, it must not become the next request's answer.
            self._is_open = False
            self.close()
            return
        if not self.headed.is_set():
            self._head_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(httpx.RemoteProtocolError(f"{_NOT_HTTP}: {error}"))
            self.close()
        except httptools.HttpParserUpgrade:
            self._fail(httpx.RemoteProtocolError(f"{_NOT_HTTP}: an upgrade"))
            self.close()
        if not self.headed.is_set() and self._head_bytes > MAX_HEAD:
            self._fail(httpx.RemoteProtocolError(f"{_NOT_HTTP}: a head over {MAX_HEAD} bytes"))
            self.close()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_open = False
        if self.headed.is_set() and not self._has_end and exc is None and self._error is None:
            self._is_whole = True  # a body without a length ends with its connection
            self._more.set()
        elif not self._is_whole:
            why = str(exc) if exc else "the worker closed the connection before it had answered"
            self._fail(httpx.ReadError(why))

    # What the parser tells.

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name, value))
        if name.lower() in (b"content-length", b"transfer-encoding"):
            self._has_end = True

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        if self.status < 200:
            raise httptools.HttpParserError(f"status {self.status}")
        self._has_end = self._has_end or self.status in (204, 304)
        self.headed.set()

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)
        self._buffered += len(body)
        if self._buffered > MAX_BUFFERED and self._transport is not None:
            self._transport.pause_reading()
        self._more.set()

    def on_message_begin(self) -> None:
        if self._is_whole:
            raise httptools.HttpParserError("a second answer")

    def on_message_complete(self) -> None:
        self._is_whole = True
        self._may_stay = self._parser.should_keep_alive()
        self._more.set()


def _place(url: httpx.URL) -> tuple[str, str, int]:
    # In ASCII as httpx encoded it: `url.host` is decoded, and sockets would encode it otherwise.
    host = url.raw_host.decode("ascii")
    return (url.scheme, host, url.port or (443 if url.scheme == "https" else 80))


async def _whole(request: httpx.Request) -> bytes:
    """The request as bytes; httpx has checked its target and headers for line breaks."""
    parts = [request.method.encode("ascii"), b" ", request.url.raw_path, b" HTTP/1.1\r\n"]
    for name, value in request.headers.raw:
        parts += [name, b": ", value, b"\r\n"]
    parts.append(b"\r\n")
    if isinstance(request.stream, httpx.AsyncByteStream):
        parts += [part async for part in request.stream]
    return b"".join(parts)
