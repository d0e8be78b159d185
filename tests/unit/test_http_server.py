import asyncio
import os
import signal
import socket
import ssl
import subprocess
import threading
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from orchestrator.errors import ConfigError, InputError
from orchestrator.http_server import (
    Listen,
    PeerRateLimit,
    parse_listen,
    require_usable,
    serve,
    serve_until_signal,
    stop_on_signal,
)


async def hello(request: Request) -> PlainTextResponse:
    peer = request.client.host if request.client else ""
    return PlainTextResponse(f"{request.url.scheme} {peer}")


APP = Starlette(routes=[Route("/", hello)])


async def ask(listen: Listen, **options: object) -> str:
    """Serve, ask once, stop; return the answer."""
    stop, urls = asyncio.Event(), asyncio.Queue[str]()
    serving = asyncio.create_task(serve(APP, listen, stop=stop, ready=urls.put_nowait))
    url = await urls.get()
    try:
        async with httpx.AsyncClient(**options) as client:  # type: ignore[arg-type]  # httpx's own
            return (await client.get(url)).text
    finally:
        stop.set()
        await serving


async def test_it_serves_until_it_is_stopped() -> None:
    assert await ask(Listen()) == "http 127.0.0.1"


async def test_it_serves_without_anybody_waiting_for_it() -> None:
    stop = asyncio.Event()
    stop.set()

    await serve(APP, Listen(), stop=stop)


async def test_headers_of_proxies_are_believed_only_when_they_are_trusted() -> None:
    headers = {"x-forwarded-for": "203.0.113.5", "x-forwarded-proto": "https"}

    assert await ask(Listen(), headers=headers) == "http 127.0.0.1"
    trusting = Listen(trusted_proxies=("127.0.0.1",))
    assert await ask(trusting, headers=headers) == "https 203.0.113.5"
    other = Listen(trusted_proxies=("127.0.0.2",))
    assert await ask(other, headers=headers) == "http 127.0.0.1"


@pytest.fixture
def certificate(tmp_path: Path) -> Listen:
    """A place to listen with a certificate of its own."""
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 1"
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [*command.split(), *subject, "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )

    return Listen(certificate=certificate, private_key=key)


async def test_it_speaks_https_with_a_certificate(certificate: Listen) -> None:
    context = ssl.create_default_context(cafile=certificate.certificate)

    assert await ask(certificate, verify=context) == "https 127.0.0.1"


async def test_a_handshake_that_does_not_come_ends_the_connection(
    certificate: Listen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.http_server.serving._HANDSHAKE_SECONDS", 0.2)
    stop, urls = asyncio.Event(), asyncio.Queue[str]()
    serving = asyncio.create_task(serve(APP, certificate, stop=stop, ready=urls.put_nowait))
    url = httpx.URL(await urls.get())
    reader, writer = await asyncio.open_connection(url.host, url.port)

    async with asyncio.timeout(10):
        assert await reader.read() == b""

    writer.close()
    stop.set()
    await serving


async def test_a_certificate_that_is_none_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("no certificate")
    listen = Listen(certificate=tmp_path / "x", private_key=tmp_path / "x")

    with pytest.raises(ConfigError, match="certificate"):
        await serve(APP, listen, stop=asyncio.Event())
    with pytest.raises(ConfigError, match="certificate"):
        require_usable(listen)


def test_a_key_that_is_encrypted_is_refused_and_nobody_is_asked_for_its_password(
    tmp_path: Path,
) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    command = "openssl req -x509 -newkey rsa:2048 -days 1 -subj /CN=x -passout pass:secret"
    subprocess.run(
        [*command.split(), "-keyout", str(key), "-out", str(certificate)],
        check=True,
        capture_output=True,
    )

    with pytest.raises(ConfigError, match=r"certificate\.pem"):
        require_usable(Listen(certificate=certificate, private_key=key))


@pytest.mark.parametrize("proxy", ["*", "proxy.example", "10.0.0.1/8", ""])
def test_a_trusted_proxy_is_an_address_or_a_network(proxy: str) -> None:
    with pytest.raises(ConfigError, match="trusted_proxies"):
        Listen(trusted_proxies=("::1", "10.0.0.0/8", proxy))


async def test_a_port_in_use_is_bad_input() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = Listen(port=taken.getsockname()[1])
        with pytest.raises(InputError, match="is in use"):
            await serve(APP, listen, stop=asyncio.Event())
        with pytest.raises(InputError, match="is in use"):
            require_usable(listen)

    require_usable(listen)


def test_an_address_of_another_machine_is_bad_input(monkeypatch: pytest.MonkeyPatch) -> None:
    found = (socket.AF_INET, socket.SOCK_STREAM, 0, "", ("192.0.2.1", 0))
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *_, **__: [found])
        with pytest.raises(InputError, match="listen: elsewhere:0"):
            require_usable(Listen(host="elsewhere"))
    with pytest.raises(InputError, match="listen: no-such-host"):
        require_usable(Listen(host="no-such-host.invalid"))


def test_a_signal_ends_it_in_order() -> None:
    async def main() -> None:
        await serve_until_signal(
            APP, Listen(), ready=lambda _: os.kill(os.getpid(), signal.SIGTERM)
        )

    asyncio.run(main())

    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_thread_gets_no_signals() -> None:
    async def main() -> None:
        with stop_on_signal(asyncio.Event()):
            pass

    thread = threading.Thread(target=lambda: asyncio.run(main()))
    thread.start()
    thread.join()


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:8000", "127.0.0.1", 8000),
        ("localhost:0", "localhost", 0),
        ("[::1]:443", "::1", 443),
        ("0.0.0.0:65535", "0.0.0.0", 65_535),  # noqa: S104 - nothing listens
    ],
)
def test_a_place_to_listen_is_host_and_port(text: str, host: str, port: int) -> None:
    assert parse_listen(text) == Listen(host=host, port=port)


@pytest.mark.parametrize("text", ["", "8000", ":8000", "host:", "host:x", "h:65536", "h:-1", "h:٣"])
def test_what_is_no_place_to_listen_is_a_wrong_setting(text: str) -> None:
    with pytest.raises(ConfigError, match=r"listen|port"):
        parse_listen(text)


def test_a_certificate_needs_its_key() -> None:
    with pytest.raises(ConfigError, match="one needs the other"):
        Listen(certificate=Path("x"))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


async def statuses(limit: PeerRateLimit, *peers: str | None) -> list[int]:
    found: list[int] = []

    async def receive() -> dict[str, object]:
        return {"type": "http.request"}

    async def send(message: object) -> None:
        if isinstance(message, dict) and message["type"] == "http.response.start":
            found.append(message["status"])

    for peer in peers:
        scope: Scope = {
            "type": "http",
            "method": "GET",
            "path": "/",
            "headers": [],
            "query_string": b"",
            "client": None if peer is None else (peer, 1),
        }
        await limit(scope, receive, send)
    return found


async def ok(scope: Scope, receive: Receive, send: Send) -> None:
    await PlainTextResponse("ok")(scope, receive, send)


async def test_each_peer_has_a_burst_and_a_rate() -> None:
    clock = Clock()
    limit = PeerRateLimit(ok, per_second=2, burst=3, clock=clock)

    assert await statuses(limit, *["a"] * 4, "b", None) == [200, 200, 200, 429, 200, 200]
    clock.now += 0.49
    assert await statuses(limit, "a") == [429]
    clock.now += 0.02
    assert await statuses(limit, "a", "a") == [200, 429]
    clock.now += 1_000
    assert await statuses(limit, *["a"] * 4) == [200, 200, 200, 429]


async def test_an_ipv6_network_is_one_peer() -> None:
    limit = PeerRateLimit(ok, per_second=1, burst=1, clock=Clock())

    found = await statuses(limit, "2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "192.0.2.1")

    assert found == [200, 429, 200, 200]


async def test_an_ipv4_address_written_as_ipv6_is_a_peer_of_its_own() -> None:
    limit = PeerRateLimit(ok, per_second=1, burst=1, clock=Clock())

    found = await statuses(limit, "::ffff:192.0.2.1", "::ffff:192.0.2.2", "192.0.2.1")

    assert found == [200, 200, 429]


async def test_who_is_exempt_is_not_counted() -> None:
    limit = PeerRateLimit(ok, per_second=1, burst=1, is_exempt=lambda _: True, clock=Clock())

    assert await statuses(limit, *["a"] * 5) == [200] * 5


async def test_the_memory_for_peers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.http_server.peers._MAX_PEERS", 2)
    limit = PeerRateLimit(ok, per_second=1, burst=1, clock=Clock())

    assert await statuses(limit, "a", "b", "a", "c", "a", "b") == [200, 200, 429, 200, 429, 200]
    assert len(limit._peers) == 2
