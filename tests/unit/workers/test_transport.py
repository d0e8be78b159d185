"""Keep-alive connections: used again, never with somebody else's answer, bounded in memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import httpx
import pytest

from orchestrator.workers import transport as transport_module
from orchestrator.workers.transport import AiohttpTransport

MAX_HEAD = 65_536
MAX_BUFFERED = 262_144

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


class Server:
    """Answers each request on each connection as it is told."""

    def __init__(self, answer: Callable[[int], bytes]) -> None:
        self.connections = 0
        self.requests: list[bytes] = []
        self._answer = answer
        self._writers: list[asyncio.StreamWriter] = []
        self.hang_up_after: bool = False

    @contextlib.asynccontextmanager
    async def serve(self) -> AsyncIterator[str]:
        server = await asyncio.start_server(self._handle, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            self.close_connections()
            await server.wait_closed()

    def close_connections(self) -> None:
        for writer in self._writers:
            writer.close()

    async def _handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.append(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = 0
                for line in head.lower().split(b"\r\n"):
                    if line.startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                body = await reader.readexactly(length)
                self.requests.append(head + body)
                writer.write(self._answer(len(self.requests)))
                await writer.drain()
                if self.hang_up_after:
                    break
        writer.close()


def client() -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=AiohttpTransport(connect_seconds=2), timeout=10)


async def test_connection_is_used_again() -> None:
    server = Server(lambda _: OK)
    async with server.serve() as url, client() as asking:
        for _ in range(5):
            assert (await asking.get(url + "/a?b=c", headers={"x-y": "z"})).content == b"ok"

    assert server.connections == 1
    assert server.requests[0].startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert b"x-y: z\r\n" in server.requests[0].lower()


async def test_requests_at_once_have_connections_of_their_own() -> None:
    server = Server(lambda n: b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n%03d" % n)
    async with server.serve() as url, client() as asking:
        answers = await asyncio.gather(*(asking.get(url) for _ in range(8)))

    assert server.connections == 8
    assert len({answer.content for answer in answers}) == 8


async def test_body_is_sent_and_a_chunked_answer_read() -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    server = Server(lambda _: chunked)
    async with server.serve() as url, client() as asking:
        for _ in range(2):
            answer = await asking.put(url, content=b"payload")
            assert answer.content == b"abcde"

    assert server.requests[0].endswith(b"\r\n\r\npayload")
    assert server.connections == 1


async def test_answer_that_ends_with_its_connection_is_whole() -> None:
    server = Server(lambda _: b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nall of it")
    server.hang_up_after = True
    async with server.serve() as url, client() as asking:
        for _ in range(2):
            assert (await asking.get(url)).content == b"all of it"

    assert server.connections == 2


async def test_connection_the_server_wants_closed_is_not_used_again() -> None:
    closing = b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok"
    server = Server(lambda _: closing)
    async with server.serve() as url, client() as asking:
        for _ in range(2):
            await asking.get(url)

    assert server.connections == 2


async def test_connection_closed_while_idle_is_replaced() -> None:
    server = Server(lambda _: OK)
    async with server.serve() as url, client() as asking:
        await asking.get(url)
        server.close_connections()
        await asyncio.sleep(0.05)
        assert (await asking.get(url)).content == b"ok"

    assert server.connections == 2


async def test_connection_that_rested_too_long_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(transport_module, "_IDLE_SECONDS", 0.05)
    server = Server(lambda _: OK)
    async with server.serve() as url, client() as asking:
        await asking.get(url)
        await asyncio.sleep(0.2)
        await asking.get(url)

    assert server.connections == 2


async def test_second_answer_nobody_asked_for_is_never_taken() -> None:
    """A worker that sends two answers to one request must not answer the next with the second."""
    server = Server(lambda n: OK + b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil" * (n == 1))
    async with server.serve() as url, client() as asking:
        answers = [(await asking.get(url)).content for _ in range(3)]

    assert answers == [b"ok"] * 3
    assert server.connections == 2


@pytest.mark.parametrize(
    "answer",
    [
        b"garbage that is no HTTP\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nx y: z\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * (MAX_HEAD + 1),
    ],
)
async def test_answer_that_is_not_http_is_a_protocol_error(answer: bytes) -> None:
    server = Server(lambda _: answer)
    async with server.serve() as url, client() as asking:
        with pytest.raises(httpx.RemoteProtocolError, match="illegal"):
            await asking.get(url)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok"]
)
async def test_connection_that_breaks_off_is_a_read_error(answer: bytes) -> None:
    server = Server(lambda _: answer)
    server.hang_up_after = True
    async with server.serve() as url, client() as asking:
        with pytest.raises(httpx.ReadError):
            await asking.get(url)


async def test_nobody_listening_is_a_connect_error() -> None:
    server = Server(lambda _: OK)
    async with server.serve() as url:
        pass
    async with client() as asking:
        with pytest.raises(httpx.ConnectError):
            await asking.get(url)


@pytest.mark.parametrize("place", ["127.0.0.1:99999", "a..b", "a" * 64 + ".example"])
async def test_address_that_can_be_none_is_a_connect_error(place: str) -> None:
    async with client() as asking:
        with pytest.raises(httpx.ConnectError):
            await asking.get(f"http://{place}/")


async def test_host_is_looked_up_as_the_url_encodes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sockets encode by IDNA 2003, which makes another host of this one."""
    hosts: list[str] = []

    async def getaddrinfo(host: str, *_: object, **__: object) -> None:
        hosts.append(host)
        raise OSError

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", getaddrinfo)
    async with client() as asking:
        with pytest.raises(httpx.ConnectError):
            await asking.get("http://fa\u00df.example/")

    assert hosts == ["xn--fa-hia.example"]


async def test_tls_with_a_server_that_speaks_none_is_a_connect_error() -> None:
    server = Server(lambda _: OK)
    async with server.serve() as url, client() as asking:
        with pytest.raises((httpx.ConnectError, httpx.ConnectTimeout)):
            await asking.get(url.replace("http://", "https://"))


@pytest.mark.parametrize(
    ("start", "more"),
    [
        (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
        (b"HTTP/1.1 200 OK\r\nx: ", b"y"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n", b"x: y\r\n"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: ", b"y"),
    ],
    ids=["fields", "a field", "trailers", "a trailer"],
)
async def test_endless_fields_end_the_connection(start: bytes, more: bytes) -> None:
    sent, ended = 0, asyncio.Event()

    async def flood(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        with contextlib.suppress(OSError):
            writer.write(start)
            while True:
                writer.write(more * (65_536 // len(more)))
                await writer.drain()
                sent += 65_536
        ended.set()

    server = await asyncio.start_server(flood, "127.0.0.1", 0)
    async with server, client() as asking, asyncio.timeout(10):
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await asking.get(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}")
        await ended.wait()

    assert sent < 32 << 20  # what the sockets' buffers hold; it does not end by itself


async def test_body_is_read_no_faster_than_it_is_taken() -> None:
    size = 16 * MAX_BUFFERED
    body = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % size + bytes(size)
    server = Server(lambda _: body)
    async with server.serve() as url, client() as asking, asking.stream("GET", url) as answer:
        await asyncio.sleep(0.2)
        parts = [part async for part in answer.aiter_raw()]

    assert sum(map(len, parts)) == size
    assert max(map(len, parts)) < 4 * MAX_BUFFERED


async def test_answer_that_was_not_read_to_its_end_ends_the_connection() -> None:
    big = b"HTTP/1.1 200 OK\r\ncontent-length: 9000000\r\n\r\n" + bytes(100)
    server = Server(lambda n: big if n == 1 else OK)
    async with server.serve() as url, client() as asking:
        async with asking.stream("GET", url):
            pass
        assert (await asking.get(url)).content == b"ok"

    assert server.connections == 2


async def test_cancelled_request_leaves_no_connection_behind() -> None:
    server = Server(lambda n: b"" if n == 1 else OK)
    async with server.serve() as url, client() as asking:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await asking.get(url)
        assert (await asking.get(url)).content == b"ok"

    assert server.connections == 2
