"""What a stranger without a token can make a server hold."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from orchestrator.http_server import Listen, connections, serve, serving
from orchestrator.http_server.peers import peer_of, plain_host

ASK = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"
SECONDS = 10
Set = Callable[[str, object], None]


@pytest.fixture
def limit(monkeypatch: pytest.MonkeyPatch) -> Set:
    def change(name: str, value: object) -> None:
        monkeypatch.setattr(connections, name, value)

    return change


class Place:
    """A running server: `/` answers, `/wait` until `go_on`, `/endless` for ever, `/body` reads."""

    def __init__(self) -> None:
        self.port = 0
        self.waiting = 0
        self.go_on = asyncio.Event()
        self.ended = asyncio.Event()

    async def hello(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(request.client.host if request.client else "")

    async def wait(self, _: Request) -> PlainTextResponse:
        self.waiting += 1
        await self.go_on.wait()
        return PlainTextResponse("waited")

    async def endless(self, _: Request) -> StreamingResponse:
        async def parts() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield b"x" * 65_536
                    await asyncio.sleep(0)
            finally:
                self.ended.set()

        return StreamingResponse(parts())

    async def body(self, request: Request) -> PlainTextResponse:
        return PlainTextResponse(str(len(await request.body())))

    @contextlib.asynccontextmanager
    async def serve(self, listen: Listen) -> AsyncIterator["Place"]:
        ways = [
            Route("/", self.hello),
            Route("/wait", self.wait),
            Route("/endless", self.endless),
            Route("/body", self.body, methods=["PUT"]),
        ]
        stop, urls = asyncio.Event(), asyncio.Queue[str]()
        app = Starlette(routes=ways)
        serving = asyncio.create_task(serve(app, listen, stop=stop, ready=urls.put_nowait))
        self.port = httpx.URL(await urls.get()).port or 0
        try:
            yield self
        finally:
            self.go_on.set()
            stop.set()
            await serving

    async def until_waiting(self, count: int) -> None:
        async with asyncio.timeout(SECONDS):
            while self.waiting < count:  # noqa: ASYNC110  # a count has no event
                await asyncio.sleep(0.01)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    async with Place().serve(Listen()) as running:
        yield running


class Stranger:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def head(self) -> bytes:
        async with asyncio.timeout(SECONDS):
            return await self.reader.readuntil(b"\r\n\r\n")

    async def asks(self, request: bytes = ASK) -> bytes:
        """Send one request and return what is answered."""
        self.send(request)
        head = await self.head()
        length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
        return await self.reader.readexactly(length)

    async def is_closed(self) -> bool:
        """Wait until the server has closed the connection; false when it answers."""
        async with asyncio.timeout(SECONDS):
            try:
                return await self.reader.read(1) == b""
            except ConnectionError:
                return True

    async def floods(self, data: bytes, times: int) -> None:
        """Send *data* so often, or until the server closes the connection, which it must."""
        with contextlib.suppress(ConnectionError):
            for _ in range(times):
                self.send(data)
                await self.writer.drain()
            async with asyncio.timeout(SECONDS):
                await self.reader.read()


@contextlib.asynccontextmanager
async def strangers(place: Place, *hosts: str) -> AsyncIterator[list[Stranger]]:
    made = []
    for host in hosts:
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", place.port, local_addr=(host, 0)
        )
        made.append(Stranger(reader, writer))
    try:
        yield made
    finally:
        for stranger in made:
            stranger.writer.transport.abort()


class TestRoom:
    """Connections per peer, and together."""

    async def test_a_peers_longest_idle_connection_gives_way_to_its_next(
        self, place: Place, limit: Set
    ) -> None:
        limit("_MAX_PER_PEER", 3)
        async with strangers(place, *["127.0.0.1"] * 3) as (first, second, third):
            await first.asks()
            await third.asks()
            async with strangers(place, "127.0.0.1", "127.0.0.2") as (fourth, other):
                assert await fourth.asks() == b"127.0.0.1"
                assert await other.asks() == b"127.0.0.2"
                assert await second.is_closed()
                assert await first.asks() == b"127.0.0.1"
                assert await third.asks() == b"127.0.0.1"

    async def test_the_peer_with_most_connections_gives_way_when_all_are_taken(
        self, place: Place, limit: Set
    ) -> None:
        limit("_MAX_CONNECTIONS", 4)
        async with strangers(place, "127.0.0.2", *["127.0.0.1"] * 3) as (small, *large):
            for one in (small, *large):
                await one.asks()
            async with strangers(place, "127.0.0.3") as (late,):
                assert await late.asks() == b"127.0.0.3"
                assert await large[0].is_closed()
                for one in (small, *large[1:]):
                    await one.asks()

    @pytest.mark.parametrize("name", ["_MAX_PER_PEER", "_MAX_CONNECTIONS"])
    async def test_a_request_being_answered_never_gives_way(
        self, place: Place, limit: Set, name: str
    ) -> None:
        limit(name, 2)
        async with strangers(place, *["127.0.0.1"] * 2) as busy:
            for one in busy:
                one.send(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
            await place.until_waiting(2)
            async with strangers(place, "127.0.0.1") as (late,):
                assert await late.is_closed()
            place.go_on.set()
            for one in busy:
                assert b"200 OK" in await one.head()

    async def test_nothing_is_kept_of_connections_that_ended(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        room = connections.ConnectionRoom(lambda _: False)
        monkeypatch.setattr(serving, "ConnectionRoom", lambda _: room)
        async with Place().serve(Listen()) as place:
            async with strangers(place, "127.0.0.1", "127.0.0.1", "127.0.0.2") as (one, *_):
                await one.asks()
                assert room._count == 3
            async with asyncio.timeout(SECONDS):
                while room._count:  # noqa: ASYNC110  # a count has no event
                    await asyncio.sleep(0.01)

        assert room._peers == {}

    async def test_a_trusted_proxy_has_as_many_as_there_are(self, limit: Set) -> None:
        limit("_MAX_PER_PEER", 1)
        async with (
            Place().serve(Listen(trusted_proxies=("127.0.0.0/30",))) as place,
            strangers(place, *["127.0.0.2"] * 3, *["127.0.0.9"] * 2) as (*proxied, old, new),
        ):
            for one in (*proxied, new):
                await one.asks()
            assert await old.is_closed()


class TestHeads:
    """How long heads are, and how long they take."""

    @pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nhost:"], ids=["nothing", "a part"])
    async def test_a_head_that_does_not_come_ends_the_connection(
        self, place: Place, limit: Set, sent: bytes
    ) -> None:
        limit("_HEAD_SECONDS", 0.2)
        async with strangers(place, "127.0.0.1") as (one,):
            one.send(sent)
            assert await one.is_closed()

    async def test_a_head_that_drips_ends_the_connection(self, place: Place, limit: Set) -> None:
        limit("_HEAD_SECONDS", 0.3)
        async with strangers(place, "127.0.0.1") as (one,):
            await one.asks()
            drips = asyncio.create_task(self._drip(one))
            assert await one.is_closed()
            drips.cancel()

    async def _drip(self, one: Stranger) -> None:
        one.send(b"GET / HTTP/1.1\r\nx: ")
        while True:
            one.send(b"a")
            await asyncio.sleep(0.02)

    async def test_a_connection_at_rest_and_a_slow_answer_are_left_alone(
        self, place: Place, limit: Set
    ) -> None:
        limit("_HEAD_SECONDS", 0.1)
        async with strangers(place, "127.0.0.1", "127.0.0.1") as (resting, slow):
            await resting.asks()
            slow.send(b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n")
            await place.until_waiting(1)
            await asyncio.sleep(0.4)
            place.go_on.set()
            assert b"200 OK" in await slow.head()
            assert await resting.asks() == b"127.0.0.1"

    @pytest.mark.parametrize(
        ("start", "more"),
        [
            (b"GET /", b"a"),
            (b"GET / HTTP/1.1\r\nx: ", b"a"),
            (b"GET / HTTP/1.1\r\n", b"a" * 1_021 + b": b\r\n"),
            (b"PUT /body HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nx: ", b"a"),
            (b"PUT /body HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1;x=", b"a"),
        ],
        ids=["url", "value", "fields", "trailer", "extension"],
    )
    async def test_what_is_no_body_is_never_endless(
        self, place: Place, limit: Set, start: bytes, more: bytes
    ) -> None:
        limit("_HEAD_SECONDS", 1_000)
        async with strangers(place, "127.0.0.1") as (one,):
            one.send(start)
            await one.floods(more * (16_384 // len(more)), 64)

    async def test_a_head_has_so_many_fields_and_bytes(self, place: Place) -> None:
        async def status(*fields: bytes) -> bytes:
            async with strangers(place, "127.0.0.1") as (one,):
                one.send(b"GET / HTTP/1.1\r\n" + b"\r\n".join(fields) + b"\r\n\r\n")
                return (await one.head())[9:12]

        assert await status(*[b"a: b"] * 100) == b"200"
        assert await status(*[b"a: b"] * 101) == b"400"
        assert await status(b"a: " + b"b" * 60_000) == b"200"
        assert await status(*[b"a: " + b"b" * 33_000] * 2) == b"400"

    async def test_trailers_are_fields_of_the_head(self, place: Place) -> None:
        async with strangers(place, "127.0.0.1") as (one,):
            one.send(b"PUT /body HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\n")
            one.send(b"a: b\r\n" * 100 + b"\r\n")
            assert b"400" in await one.head()

    async def test_a_large_body_is_no_head(self, place: Place) -> None:
        chunk = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
        async with strangers(place, "127.0.0.1") as (one,):
            whole = b"PUT /body HTTP/1.1\r\ncontent-length: 1048576\r\n\r\n" + b"x" * 1_048_576
            assert await one.asks(whole) == b"1048576"
            parts = b"PUT /body HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n" + chunk * 16
            assert await one.asks(parts + b"0\r\n\r\n") == b"1048576"

    async def test_few_requests_wait_for_an_answer(self, place: Place, limit: Set) -> None:
        limit("_MAX_PIPELINED", 2)
        wait = b"GET /wait HTTP/1.1\r\nhost: x\r\n\r\n"
        async with strangers(place, "127.0.0.1", "127.0.0.1") as (few, many):
            few.send(wait + ASK * 2)
            many.send(wait + ASK * 3)
            assert b"400" in await many.head()
            place.go_on.set()
            for _ in range(3):
                assert b"200 OK" in await few.head()


class TestAnswers:
    """Answers that nobody takes."""

    async def test_an_answer_that_is_not_taken_ends_with_its_connection(
        self, place: Place, limit: Set
    ) -> None:
        limit("_TAKE_SECONDS", 0.3)
        async with strangers(place, "127.0.0.1") as (one,):
            one.send(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
            async with asyncio.timeout(SECONDS):
                await place.ended.wait()

    async def test_a_connection_at_rest_ends_in_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(serving, "_KEEP_ALIVE_SECONDS", 0.2)
        async with Place().serve(Listen()) as place, strangers(place, "127.0.0.1") as (one,):
            await one.asks()
            assert await one.is_closed()

    async def test_an_answer_that_is_taken_may_last(self, place: Place, limit: Set) -> None:
        limit("_TAKE_SECONDS", 0.3)
        async with strangers(place, "127.0.0.1") as (one,):
            one.send(b"GET /endless HTTP/1.1\r\nhost: x\r\n\r\n")
            for _ in range(50):
                assert await one.reader.read(1 << 20)
                await asyncio.sleep(0.02)
            assert not place.ended.is_set()


class TestPeers:
    """Who somebody is."""

    @pytest.mark.parametrize(
        ("host", "peer"),
        [
            ("192.0.2.1", "192.0.2.1"),
            ("::ffff:192.0.2.1", "192.0.2.1"),
            ("::FFFF:192.0.2.1", "192.0.2.1"),
            ("2001:db8::1", "2001:db8::/64"),
            ("2001:db8::2", "2001:db8::/64"),
            ("fe80::1%eth0", "fe80::/64"),
            ("::ffff:nonsense", "::ffff:nonsense"),
            ("", ""),
        ],
    )
    def test_a_peer_is_an_address_or_a_network(self, host: str, peer: str) -> None:
        assert peer_of(host) == peer

    def test_an_ipv6_address_stays_what_it_is(self) -> None:
        assert plain_host("2001:db8::1") == "2001:db8::1"
        assert plain_host("::ffff:0:1:2") == "::ffff:0:1:2"

    @pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
    async def test_an_ipv4_client_of_both_families_is_itself(self) -> None:
        async with Place().serve(Listen(host="::")) as place:
            try:
                both = strangers(place, "127.0.0.2")
                async with both as (one,):
                    assert await one.asks() == b"127.0.0.2"
            except ConnectionRefusedError:
                pytest.skip("IPv6 sockets take no IPv4 here")
