"""
Runs an ASGI application: one socket, a limit per peer, a clean end.

Nothing here knows what is served.
"""

import asyncio
import contextlib
import errno
import ipaddress
import math
import signal
import socket
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from orchestrator.errors import ConfigError, InputError

__all__ = [
    "Listen",
    "PeerRateLimit",
    "parse_listen",
    "require_free",
    "serve",
    "serve_until_signal",
    "stop_on_signal",
]

_GRACE_SECONDS = 5
_KEEP_ALIVE_SECONDS = 75
_MAX_CONNECTIONS = 1_000
_MAX_PEERS = 10_000
_BACKLOG = 512


@dataclass(frozen=True, kw_only=True)
class Listen:
    """
    Where to listen; port 0 takes a free one.

    With a certificate and its key it speaks https. *trusted_proxies* are addresses whose
    `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    """

    host: str = "127.0.0.1"
    port: int = 0
    certificate: Path | None = None
    private_key: Path | None = None
    trusted_proxies: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65_535:
            raise ConfigError(f"port: {self.port}, must be 0 to 65535")
        if (self.certificate is None) != (self.private_key is None):
            raise ConfigError("certificate and private_key: one needs the other")


def parse_listen(text: str) -> Listen:
    """
    Return the place that `HOST:PORT` or `[IPv6]:PORT` names.

    Raises:
        ConfigError: It is neither.
    """
    host, colon, port = text.rpartition(":")
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if not colon or not bare or not (port.isascii() and port.isdigit()) or len(port) > 5:
        raise ConfigError(f"listen: {text!r}, must be HOST:PORT")
    return Listen(host=bare, port=int(port))


def require_free(listen: Listen) -> None:
    """
    Refuse an address that can't be listened on, before anything else is begun.

    Raises:
        InputError: The port is in use, or the address is not one of this machine.
    """
    _bind(listen).close()


class PeerRateLimit:
    """
    Lets each peer through *per_second* times a second, *burst* times at once; else 429.

    A peer is an IPv4 address or an IPv6 network of 64 bits. Requests for which *is_exempt* says
    so are not counted. Memory is bounded: the peers that were quiet longest are forgotten.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        per_second: float,
        burst: int,
        is_exempt: Callable[[Scope], bool] = lambda _: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._per_second = per_second
        self._burst = burst
        self._is_exempt = is_exempt
        self._clock = clock
        self._peers: OrderedDict[str, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._is_exempt(scope):
            wait = self._take(_peer(scope))
            if wait > 0:
                headers = {"retry-after": str(math.ceil(wait))}
                answer = JSONResponse({"error": "too many requests"}, 429, headers)
                await answer(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _take(self, peer: str) -> float:
        """Count one request, or return how long (s) the peer has to wait."""
        now = self._clock()
        left, since = self._peers.pop(peer, (float(self._burst), now))
        left = min(float(self._burst), left + (now - since) * self._per_second)
        is_allowed = left >= 1
        self._peers[peer] = (left - 1 if is_allowed else left, now)
        if len(self._peers) > _MAX_PEERS:
            self._peers.popitem(last=False)
        return 0.0 if is_allowed else (1 - left) / self._per_second


def _peer(scope: Scope) -> str:
    client = scope.get("client")
    host = str(client[0]) if client else ""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return host
    if address.version == 4:
        return host
    return str(ipaddress.ip_network((int(address), 64), strict=False))


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers, which end the process by the signal they caught."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        if not self.should_exit:
            self._ready()


async def serve(
    app: ASGIApp,
    listen: Listen,
    *,
    stop: asyncio.Event,
    ready: Callable[[str], None] | None = None,
) -> None:
    """
    Serve until *stop* is set, then let what is being answered end.

    *ready* gets the URL once connections are accepted.

    Raises:
        InputError: The port is in use, or the address is not one of this machine.
    """
    with _bind(listen) as bound:
        address = bound.getsockname()
        host = f"[{address[0]}]" if bound.family == socket.AF_INET6 else address[0]
        url = f"{'https' if listen.certificate else 'http'}://{host}:{address[1]}"
        server = _Server(_config(app, listen), lambda: ready(url) if ready else None)
        async with _stopping(server, stop):
            await server.serve(sockets=[bound])


def _config(app: ASGIApp, listen: Listen) -> uvicorn.Config:
    config = uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=bool(listen.trusted_proxies),
        forwarded_allow_ips=list(listen.trusted_proxies),
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_GRACE_SECONDS,
        limit_concurrency=_MAX_CONNECTIONS,
        ssl_certfile=listen.certificate,
        ssl_keyfile=listen.private_key,
    )
    try:
        config.load()
    except (OSError, ValueError) as error:
        raise ConfigError(f"certificate {listen.certificate}: {error}") from error
    return config


@contextlib.asynccontextmanager
async def _stopping(server: uvicorn.Server, stop: asyncio.Event) -> AsyncIterator[None]:
    async def watch() -> None:
        await stop.wait()
        server.should_exit = True

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


def _bind(listen: Listen) -> socket.socket:
    where = f"{listen.host}:{listen.port}"
    try:
        found = socket.getaddrinfo(listen.host, listen.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        bound = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InputError(f"listen: {where}: {error.strerror or error}") from error
    try:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        bound.bind(address)
        bound.listen(_BACKLOG)
        bound.settimeout(0)
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"listen: port {listen.port} of {listen.host} is in use") from error
        raise InputError(f"listen: {where}: {error.strerror or error}") from error
    return bound


@contextlib.contextmanager
def stop_on_signal(stop: asyncio.Event) -> Iterator[None]:
    """Set *stop* on SIGINT and SIGTERM; in a thread that gets no signals, do nothing."""
    loop = asyncio.get_running_loop()
    numbers = (signal.SIGINT, signal.SIGTERM)
    try:
        for number in numbers:
            loop.add_signal_handler(number, stop.set)
    except (ValueError, RuntimeError):
        yield
        return
    try:
        yield
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def serve_until_signal(
    app: ASGIApp, listen: Listen, *, ready: Callable[[str], None] | None = None
) -> None:
    """Serve until SIGINT or SIGTERM; see `serve`."""
    stop = asyncio.Event()
    with stop_on_signal(stop):
        await serve(app, listen, stop=stop, ready=ready)
