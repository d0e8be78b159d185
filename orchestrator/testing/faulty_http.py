"""Servers that do what no server should: slow, endless, huge, or not HTTP at all."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from enum import Enum

__all__ = ["FaultyHttpServer", "HttpFault"]


class HttpFault(Enum):
    """What a faulty server does with every request."""

    GARBAGE = "answers 200 with bytes that are no JSON"
    NOTHING = "closes the connection"
    SILENT = "never answers"
    SLOW = "answers a byte at a time"
    ERROR = "answers 500"
    REDIRECT = "points elsewhere"
    ENDLESS = "never stops answering"
    HUGE = "announces 10 GiB"
    NOT_HTTP = "does not speak HTTP"


_HEAD = b"HTTP/1.1 %s\r\ncontent-type: application/json\r\n"
_ANSWERS = {
    HttpFault.GARBAGE: _HEAD % b"200 OK" + b"content-length: 7\r\n\r\n\x00garbag",
    HttpFault.ERROR: _HEAD % b"500 Oops" + b"content-length: 2\r\n\r\n{}",
    HttpFault.REDIRECT: _HEAD % b"307 Go" + b"location: /elsewhere\r\ncontent-length: 0\r\n\r\n",
    HttpFault.HUGE: _HEAD % b"200 OK" + b"content-length: 10737418240\r\n\r\n",
    HttpFault.NOT_HTTP: b"\x16\x03\x01 hello\r\n\r\n",
}


class FaultyHttpServer:
    """A server on this machine that answers as its fault says; `requests` counts."""

    def __init__(self, fault: HttpFault) -> None:
        self.fault = fault
        self.requests = 0
        self._writers: set[asyncio.StreamWriter] = set()

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        """Serve on a free port while the context lasts; gives the URL."""
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.close()
            for writer in list(self._writers):
                writer.close()
            await server.wait_closed()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            await reader.readuntil(b"\r\n\r\n")
            self.requests += 1
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client has gone, which is what many tests are about
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault in _ANSWERS:
            writer.write(_ANSWERS[self.fault])
            await writer.drain()
            return
        if self.fault is HttpFault.NOTHING:
            return
        if self.fault is HttpFault.SILENT:
            await reader.read()  # until the client gives up
            return
        # Without a length, the body ends with the connection.
        writer.write(_HEAD % b"200 OK" + b"connection: close\r\n\r\n")
        while not reader.at_eof():
            await self._answer_part(writer)

    async def _answer_part(self, writer: asyncio.StreamWriter) -> None:
        if self.fault is HttpFault.ENDLESS:
            writer.write(b" " * 65_536)
        else:
            writer.write(b" ")
            await asyncio.sleep(0.05)
        await writer.drain()
