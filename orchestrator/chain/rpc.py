"""
JSON-RPC over one WebSocket connection to a node, for any number of threads.

A thread of the connection's own reads what comes, so that requests and subscriptions of several
threads share it. Every wait has a time-out. A connection that is lost, silent for too long, or
says what is no JSON-RPC is closed, everybody who waits on it is told, and the next request
connects again, after a pause that grows while connecting fails.
"""

import contextlib
import itertools
import json
import queue
import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from socket import SO_SNDTIMEO, SOL_SOCKET

import websocket

from orchestrator.errors import ChainError, ChainUnavailableError, ConfigError

__all__ = ["RpcConnection", "RpcError", "Subscription"]

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_SEND_SECONDS = 20
_LOST = object()


class RpcError(ChainError):
    """
    The node answered a request with an error.

    `code` is the JSON-RPC error code, `text` the message with its data.
    """

    def __init__(self, method: str, code: int, text: str) -> None:
        super().__init__(f"the node refused {method}: {text} (code {code})")
        self.code = code
        self.text = text


class Subscription:
    """What the node sends after a request; `get` waits for the next of it."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[object] = queue.SimpleQueue()

    def put(self, item: object) -> None:
        """Hand on what came."""
        self._items.put(item)

    def end(self) -> None:
        """Tell who waits that the connection is lost."""
        self._items.put(_LOST)

    def get(self, timeout_seconds: float) -> object:
        """
        Return the next item, `None` when nothing comes in time.

        Raises:
            ChainUnavailableError: The connection is lost.
        """
        try:
            item = self._items.get(timeout=timeout_seconds)
        except queue.Empty:
            return None
        if item is _LOST:
            self.end()
            raise ChainUnavailableError("the connection to the node was lost")
        return item


class _Link:
    """One connection from opening to losing it."""

    def __init__(self, url: str, timeout_seconds: float) -> None:
        # A node that reads no more must not keep whoever sends for ever.
        send_timeout = (SOL_SOCKET, SO_SNDTIMEO, struct.pack("ll", _SEND_SECONDS, 0))
        self._socket = websocket.create_connection(
            url, timeout=timeout_seconds, enable_multithread=True, sockopt=(send_timeout,)
        )
        self._send_lock = threading.Lock()
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[Future[object], Subscription | None]] = {}
        self._subscriptions: dict[object, Subscription] = {}
        self._early: dict[object, list[object]] = {}
        self.is_lost = False
        # The reader waits for as long as it takes: who asked has a time-out of its own.
        self._socket.settimeout(None)
        self._thread = threading.Thread(target=self._read, name="node", daemon=True)
        self._thread.start()

    def send(
        self, number: int, method: str, params: Sequence[object], into: Subscription | None
    ) -> "Future[object]":
        """Send a request and return what will be its answer."""
        future: Future[object] = Future()
        with self._lock:
            if self.is_lost:
                raise ChainUnavailableError("the connection to the node was lost")
            self._waiting[number] = (future, into)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}
        try:
            with self._send_lock:
                self._socket.send(json.dumps(request))
        except (OSError, websocket.WebSocketException) as error:
            self.lose()
            raise ChainUnavailableError(f"the connection to the node was lost: {error}") from error
        return future

    def forget(self, number: int) -> None:
        """Stop waiting for an answer."""
        with self._lock:
            self._waiting.pop(number, None)

    def drop(self, subscription: Subscription) -> object | None:
        """Take a subscription off the list, and return what the node calls it."""
        with self._lock:
            for key, found in list(self._subscriptions.items()):
                if found is subscription:
                    del self._subscriptions[key]
                    return key
        return None

    def lose(self) -> None:
        """Close the connection and tell everybody who waits."""
        with self._lock:
            self.is_lost = True
            waiting, subscriptions = self._waiting, self._subscriptions
            self._waiting, self._subscriptions = {}, {}
        with contextlib.suppress(OSError, websocket.WebSocketException):
            self._socket.shutdown()  # type: ignore[no-untyped-call]  # websocket-client's only one
        for future, _ in waiting.values():
            future.set_exception(ChainUnavailableError("the connection to the node was lost"))
        for subscription in subscriptions.values():
            subscription.end()

    def _read(self) -> None:
        # Whatever is wrong with what comes, the connection can't be trusted any more.
        with contextlib.suppress(OSError, ValueError, websocket.WebSocketException):
            while message := self._socket.recv():
                self._take(json.loads(message))
        self.lose()

    def _take(self, message: object) -> None:
        if not isinstance(message, dict):
            raise TypeError if message is None else ValueError
        if "id" in message:
            self._answer(message)
        elif isinstance(message.get("params"), dict):
            key, item = message["params"].get("subscription"), message["params"].get("result")
            with self._lock:
                subscription = self._subscriptions.get(key)
            if subscription is not None:
                subscription.put(item)

    def _answer(self, message: dict[str, object]) -> None:
        with self._lock:
            number = message["id"]
            found = self._waiting.pop(number, None) if isinstance(number, int) else None
            if found is None:
                return  # given up, or answered before
            future, subscription = found
            if subscription is not None and "error" not in message:
                # Before the reader goes on: what it is about may follow at once.
                self._subscriptions[message.get("result")] = subscription
        future.set_result(message)


class RpcConnection:
    """
    Requests and subscriptions to the node at a `ws://` or `wss://` URL.

    *timeout_seconds* bounds each request, connecting again included. *on_connect* is called
    after every connecting, to subscribe again; `generation` counts them.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_seconds: float = 20.0,
        on_connect: Callable[[], None] = lambda: None,
    ) -> None:
        if not url.startswith(("ws://", "wss://")) or url[-2:] == "//":
            raise ConfigError(f"chain: {url!r} is not of the form ws://HOST:PORT or wss://HOST")
        self.url = url
        self._timeout = timeout_seconds
        self._on_connect = on_connect
        self._lock = threading.RLock()
        self._link: _Link | None = None
        self._is_closed = False
        self._pause = 0.0
        self._not_before = 0.0
        self._numbers = itertools.count(1)
        self.generation = 0

    def request(self, method: str, *params: object, timeout_seconds: float | None = None) -> object:
        """
        Return the node's answer; a lost connection is made anew and the request sent again.

        Raises:
            RpcError: The node answered with an error.
            ChainUnavailableError: It did not answer in time.
        """
        return self.request_all([(method, params)], timeout_seconds=timeout_seconds)[0]

    def request_all(
        self,
        requests: Sequence[tuple[str, Sequence[object]]],
        *,
        timeout_seconds: float | None = None,
    ) -> list[object]:
        """Send all requests before waiting for the first answer; else as `request`."""
        deadline = time.monotonic() + (timeout_seconds or self._timeout)
        while True:
            try:
                return self._request_all(requests, deadline)
            except ChainUnavailableError:
                if self._is_closed or time.monotonic() >= deadline:
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
        return self._send(link, method, params, deadline, into)

    def subscribe(self, method: str, *params: object) -> Subscription:
        """Return a subscription; it ends with the connection."""
        subscription = Subscription()
        self.request_once(method, *params, into=subscription)
        return subscription

    def unsubscribe(self, method: str, subscription: Subscription) -> None:
        """End a subscription; whether the node hears of it does not matter."""
        link = self._link
        key = None if link is None else link.drop(subscription)
        if link is not None and key is not None:
            with contextlib.suppress(ChainUnavailableError):
                number = next(self._numbers)
                link.send(number, method, [key], None)
                link.forget(number)

    def lose(self) -> None:
        """Give the connection up, because it is of no use any more."""
        if self._link is not None:
            self._link.lose()

    def close(self) -> None:
        """Close the connection for good."""
        self._is_closed = True
        self.lose()

    def _request_all(
        self, requests: Sequence[tuple[str, Sequence[object]]], deadline: float
    ) -> list[object]:
        link = self._connected(deadline)
        sent = []
        for method, params in requests:
            number = next(self._numbers)
            sent.append((number, method, link.send(number, method, params, None)))
        return [
            self._wait(link, number, method, future, deadline) for number, method, future in sent
        ]

    def _send(
        self,
        link: _Link,
        method: str,
        params: Sequence[object],
        deadline: float,
        into: Subscription | None,
    ) -> object:
        number = next(self._numbers)
        future = link.send(number, method, params, into)
        return self._wait(link, number, method, future, deadline)

    def _wait(
        self, link: _Link, number: int, method: str, future: "Future[object]", deadline: float
    ) -> object:
        try:
            message = future.result(timeout=max(0.0, deadline - time.monotonic()))
        except FutureTimeoutError:
            # Half open, or the node is stuck: the next request gets another connection.
            link.forget(number)
            link.lose()
            raise ChainUnavailableError(
                f"the node at {self.url} did not answer {method} within {self._timeout:g} s"
            ) from None
        if not isinstance(message, dict):  # unreachable: the reader checked it
            raise ChainUnavailableError("the node's answer is not an object")
        if "error" in message:
            raise _error(method, message["error"])
        return message.get("result")

    def _connected(self, deadline: float) -> _Link:
        with self._lock:
            if self._is_closed:
                raise ChainUnavailableError("the connection to the node is closed")
            if self._link is not None and not self._link.is_lost:
                return self._link
            link = self._connect(deadline)
            self._link = link
            self.generation += 1
        self._on_connect()
        return link

    def _connect(self, deadline: float) -> _Link:
        """Connect, pausing between attempts, until the deadline."""
        while True:
            rest = deadline - time.monotonic()
            pause = max(0.0, self._not_before - time.monotonic())
            if rest <= pause:
                time.sleep(max(0.0, rest))
                raise ChainUnavailableError(f"the node at {self.url} can't be reached")
            time.sleep(pause)
            try:
                link = _Link(self.url, max(0.1, deadline - time.monotonic()))
            except (OSError, ValueError, websocket.WebSocketException) as error:
                self._pause = min(_LONGEST_PAUSE_SECONDS, self._pause * 2 or _FIRST_PAUSE_SECONDS)
                self._not_before = time.monotonic() + self._pause
                if time.monotonic() + self._pause >= deadline:
                    raise ChainUnavailableError(
                        f"the node at {self.url} can't be reached: {error}"
                    ) from error
            else:
                self._pause = 0.0
                return link


def _error(method: str, error: object) -> RpcError:
    if not isinstance(error, dict):
        return RpcError(method, 0, str(error))
    code, data = error.get("code"), error.get("data")
    text = str(error.get("message", "")) + (f": {data}" if data else "")
    return RpcError(method, code if isinstance(code, int) else 0, text)
