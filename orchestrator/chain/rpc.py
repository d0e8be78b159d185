"""
JSON-RPC to a node over one WebSocket connection at a time, for any number of threads.

Every wait has a time-out. When the connection is lost the next request connects again; attempts
that follow each other closely are further and further apart.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import urlsplit

import websocket

from orchestrator.chain.answers import shown
from orchestrator.chain.link import Link, Request, RpcError, Subscription
from orchestrator.errors import ChainUnavailableError, ConfigError

__all__ = ["RpcConnection", "RpcError", "Subscription"]

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_SHORTEST_SECONDS = 0.1
_NO_CONNECTION = (OSError, ValueError, websocket.WebSocketException, ChainUnavailableError)


def _prepare_nothing(link: Link, deadline: float) -> None:
    del link, deadline


class RpcConnection:
    """
    Requests and subscriptions to the node at a `ws://` or `wss://` URL.

    *timeout_seconds* bounds each request, connecting again included; a connection that is silent
    for half of it is lost. *on_connect* prepares each new connection before anybody else uses it;
    `generation` counts them.

    Raises:
        ConfigError: The URL is of another form.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 20.0,
        on_connect: Callable[[Link, float], None] = _prepare_nothing,
    ) -> None:
        self.url = url
        self.name = _name(url)
        self._timeout = timeout_seconds
        self._on_connect = on_connect
        self._lock = threading.Lock()
        self._link: Link | None = None
        self._closed = threading.Event()
        self._pause = 0.0
        self._not_before = time.monotonic()
        self._failure = "no connection in time"
        self.generation = 0

    def open(self) -> None:
        """
        Connect now, in one attempt: whoever starts wants to hear of a wrong address at once.

        Raises:
            ChainUnavailableError: There is no connection.
        """
        self._connected(time.monotonic() + self._timeout, is_patient=False)

    def ensure_connected(self) -> None:
        """Connect again if the connection is lost; raises as `request`."""
        self._connected(time.monotonic() + self._timeout)

    def request(self, method: str, *params: object) -> object:
        """
        Return the node's answer; when the connection is lost meanwhile, of another connection.

        Raises:
            RpcError: The node answered with an error.
            ChainUnavailableError: It did not answer in time.
        """
        return self.request_all([(method, params)])[0]

    def request_all(self, requests: Sequence[Request]) -> list[object]:
        """Send all requests before waiting for the first answer; else as `request`."""
        deadline = time.monotonic() + self._timeout
        while True:
            link = self._connected(deadline)
            try:
                return link.request_all(requests, deadline=deadline)
            except ChainUnavailableError:
                if self._closed.is_set() or time.monotonic() >= deadline:
                    raise

    def request_once(
        self, method: str, *params: object, into: Subscription | None = None
    ) -> object:
        """
        As `request`, but never sent twice: after `ChainUnavailableError` it may have arrived.

        *into* gets what follows, when the request is a subscription.
        """
        deadline = time.monotonic() + self._timeout
        link = self._connected(deadline)
        return link.request_all([(method, params)], deadline=deadline, into=[into])[0]

    def unsubscribe(self, method: str, subscription: Subscription) -> None:
        """End a subscription that the node has not ended."""
        if self._link is not None:
            self._link.unsubscribe(method, subscription)

    def forget(self, subscription: Subscription) -> None:
        """Take note that the node has ended a subscription."""
        if self._link is not None:
            self._link.drop(subscription)

    def pause(self, seconds: float) -> None:
        """Wait, and not any longer once the connection is closed."""
        self._closed.wait(max(0.0, seconds))

    def close(self) -> None:
        """Close the connection for good."""
        self._closed.set()
        link = self._link
        if link is not None:
            link.close()

    def _connected(self, deadline: float, *, is_patient: bool = True) -> Link:
        link = self._link
        if link is not None and not link.is_lost:
            return link
        with self._turn(deadline):
            link = self._link  # another thread may have connected meanwhile
            if link is None or link.is_lost:
                link = self._connect(deadline, is_patient=is_patient)
                self._link = link
                self.generation += 1
            if self._closed.is_set():
                link.close()
                raise self._unreachable("the connection is closed")
            return link

    @contextlib.contextmanager
    def _turn(self, deadline: float) -> Iterator[None]:
        """Let one thread connect; the others wait for it."""
        if not self._lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
            raise self._unreachable("another thread is still trying")
        try:
            yield
        finally:
            self._lock.release()

    def _connect(self, deadline: float, *, is_patient: bool) -> Link:
        """Return a prepared connection, pausing between attempts, until the deadline."""
        while True:
            now = time.monotonic()
            if now > self._not_before + _LONGEST_PAUSE_SECONDS:
                self._pause = 0.0  # the last attempt is long ago
            self.pause(min(self._not_before, deadline) - now)
            if self._closed.is_set():
                raise self._unreachable("the connection is closed")
            if time.monotonic() >= deadline:
                raise self._unreachable(self._failure)
            self._pause = min(_LONGEST_PAUSE_SECONDS, self._pause * 2 or _FIRST_PAUSE_SECONDS)
            self._not_before = time.monotonic() + self._pause
            try:
                return self._attempt(deadline)
            except _NO_CONNECTION as error:
                self._failure = shown(error)
                if not is_patient:
                    raise self._unreachable(self._failure) from error

    def _attempt(self, deadline: float) -> Link:
        rest = max(_SHORTEST_SECONDS, deadline - time.monotonic())
        link = Link(self.url, name=self.name, open_seconds=rest, silent_seconds=self._timeout / 2)
        try:
            self._on_connect(link, deadline)
        except BaseException:
            link.close()
            raise
        return link

    def _unreachable(self, reason: str) -> ChainUnavailableError:
        return ChainUnavailableError(f"the node at {self.name} can't be reached: {reason}")


def _name(url: str) -> str:
    """Return scheme, host and port alone: the rest of a URL may be somebody's key."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not url.startswith(("ws://", "wss://")) or not host:
        raise ConfigError("chain: the URL is not of the form ws://HOST:PORT or wss://HOST")
    return f"{parts.scheme}://{host}" + (f":{port}" if port else "")
