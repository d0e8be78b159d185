"""Serves until it is told to stop, and stops cleanly."""

import asyncio
import contextlib
import ipaddress
import signal
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import uvicorn
from starlette.types import ASGIApp

from orchestrator.http_server.connections import BoundedConnection, ConnectionRoom
from orchestrator.http_server.listening import BACKLOG, Listen, bind, load_certificate

__all__ = ["serve", "serve_until_signal", "stop_on_signal"]

_GRACE_SECONDS = 5
_KEEP_ALIVE_SECONDS = 75
_HANDSHAKE_SECONDS = 10.0


class _Server(uvicorn.Server):
    """
    uvicorn with connections of ours, and without its signal handlers.

    Those end the process by the signal that they caught.
    """

    def __init__(self, app: ASGIApp, listen: Listen, ready: Callable[[], None]) -> None:
        super().__init__(_config(app, listen))
        self._ssl = load_certificate(listen)
        self._room = ConnectionRoom(_is_proxy(listen.trusted_proxies))
        self._ready = ready

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        loop = asyncio.get_running_loop()
        self.servers = [
            await loop.create_server(
                lambda: BoundedConnection(self.config, self.server_state, self._room),
                sock=bound,
                backlog=BACKLOG,
                ssl=self._ssl,
                ssl_handshake_timeout=_HANDSHAKE_SECONDS if self._ssl else None,
            )
            for bound in sockets or []
        ]
        self.started = True
        self._ready()


def _is_proxy(trusted: tuple[str, ...]) -> Callable[[str], bool]:
    networks = [ipaddress.ip_network(proxy) for proxy in trusted]

    def is_proxy(host: str) -> bool:
        return bool(host) and any(ipaddress.ip_address(host) in network for network in networks)

    return is_proxy


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
        ConfigError: The certificate or its key can't be used.
    """
    with bind(listen) as bound:
        address = bound.getsockname()
        host = f"[{address[0]}]" if bound.family == socket.AF_INET6 else address[0]
        url = f"{'https' if listen.certificate else 'http'}://{host}:{address[1]}"
        server = _Server(app, listen, lambda: ready(url) if ready else None)
        async with _stopping(server, stop):
            await server.serve(sockets=[bound])


def _config(app: ASGIApp, listen: Listen) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=BoundedConnection,
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
    )


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
