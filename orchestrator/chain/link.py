"""
One WebSocket connection to a node, from opening to losing it, for any number of threads.

A thread of the connection's own reads what comes. A connection that breaks, is silent for too
long or says what is no JSON-RPC is lost as a whole: everybody who waits on it is told.
"""

import contextlib
import itertools
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError

import websocket
from websocket._abnf import frame_buffer

from orchestrator.chain.answers import shown
from orchestrator.errors import ChainError, ChainUnavailableError

__all__ = ["Link", "Request", "RpcError", "Subscription"]

# Metadata is half a megabyte, the events of a full block a few.
_LARGEST_MESSAGE = 64 << 20
# What follows a transaction is a handful; more is no node.
_MOST_UNREAD = 1_000
_TEXT_OPCODES = (websocket.ABNF.OPCODE_TEXT, websocket.ABNF.OPCODE_CONT)
_LOST = object()

Request = tuple[str, Sequence[object]]


class RpcError(ChainError):
    """
    The node answered a request with an error.

    `code` is the JSON-RPC error code, `text` the message with its data.
    """

    def __init__(self, method: str, error: object) -> None:
        fields = error if isinstance(error, dict) else {"message": error}
        code, data = fields.get("code"), fields.get("data")
        self.code = code if isinstance(code, int) else 0
        self.text = shown(f"{fields.get('message')}: {data}" if data else fields.get("message"))
        super().__init__(f"the node refused {method}: {self.text} (code {self.code})")


class _BrokenNodeError(Exception):
    """What came is not what a node sends."""


class Subscription:
    """What the node sends after a request; `get` waits for the next of it."""

    def __init__(self) -> None:
        self._items: queue.Queue[object] = queue.Queue()

    def put(self, item: object) -> None:
        """Hand on what came; whatever it raises ends the connection."""
        if self._items.qsize() >= _MOST_UNREAD:
            raise _BrokenNodeError("it sends more than anybody can read")
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


class _BoundedFrames(frame_buffer):
    """The library's reader of frames, which would read one of any length."""

    def recv_length(self) -> None:
        super().recv_length()
        if self.length is not None and self.length > _LARGEST_MESSAGE:
            raise _BrokenNodeError(f"it sends a message of {self.length} bytes")


class Link:
    """
    Connects to *url*, named *name* in messages, within *open_seconds*.

    A connection on which nothing comes for *silent_seconds*, although the node was asked for a
    sign of life, is lost; so is one that takes nothing for half that time.

    Raises:
        OSError, ValueError, websocket.WebSocketException: No connection was made.
    """

    def __init__(self, url: str, *, name: str, open_seconds: float, silent_seconds: float) -> None:
        self.name = name
        self.is_lost = False
        self._reason = ""
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._waiting: dict[int, tuple[Future[object], Subscription | None]] = {}
        self._subscriptions: dict[str | int, Subscription] = {}
        # Text is checked when it is decoded; the library would take a microsecond for each byte.
        self._socket = websocket.WebSocket(fire_cont_frame=True, skip_utf8_validation=True)
        self._socket.frame_buffer = _BoundedFrames(self._socket.frame_buffer.recv, True)  # noqa: FBT003  # the library's signature
        self._open(url, open_seconds)
        self._socket.settimeout(silent_seconds / 2)
        self._thread = threading.Thread(target=self._read, name="node", daemon=True)
        self._thread.start()

    def request_all(
        self,
        requests: Sequence[Request],
        *,
        deadline: float,
        into: Sequence[Subscription | None] | None = None,
    ) -> list[object]:
        """
        Send all requests before waiting for the first answer.

        *into* gets what follows each, where it is a subscription. *deadline* is of
        `time.monotonic`.

        Raises:
            RpcError: The node answered one with an error.
            ChainUnavailableError: The connection was lost, or an answer did not come in time.
        """
        followers = into or [None] * len(requests)
        sent = [
            (self._send(method, params, follower), method)
            for (method, params), follower in zip(requests, followers, strict=True)
        ]
        return [self._wait(future, method, deadline) for future, method in sent]

    def unsubscribe(self, method: str, subscription: Subscription) -> None:
        """End a subscription that has not ended; whether the node hears of it does not matter."""
        key = self.drop(subscription)
        if key is not None:
            with contextlib.suppress(ChainUnavailableError):
                self._send(method, [key], None)

    def drop(self, subscription: Subscription) -> str | int | None:
        """Take a subscription off the list, and return what the node calls it."""
        with self._lock:
            for key, found in self._subscriptions.items():
                if found is subscription:
                    del self._subscriptions[key]
                    return key
        return None

    def lose(self, reason: object) -> None:
        """Give the connection up and tell everybody who waits."""
        with self._lock:
            if self.is_lost:
                return
            self.is_lost = True
            self._reason = shown(reason)
            waiting, subscriptions = self._waiting, self._subscriptions
            self._waiting, self._subscriptions = {}, {}
        # Closing alone would not wake the thread that reads.
        open_socket = self._socket.sock
        if open_socket is not None:
            with contextlib.suppress(OSError):
                open_socket.shutdown(socket.SHUT_RDWR)
        for future, _ in waiting.values():
            future.set_exception(self._lost())
        for subscription in subscriptions.values():
            subscription.end()

    def close(self) -> None:
        """Give the connection up and wait until its thread has ended."""
        self.lose("it was closed")
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=5.0)

    # Opening.

    def _open(self, url: str, timeout_seconds: float) -> None:
        # The library bounds each read of the handshake, not all of them together.
        watchdog = threading.Timer(timeout_seconds, self._abort)
        watchdog.daemon = True
        watchdog.start()
        try:
            # A browser's check of origins is not for us, and no node sends its users elsewhere.
            self._socket.connect(  # type: ignore[no-untyped-call]  # untyped in the library
                url, timeout=timeout_seconds, suppress_origin=True, redirect_limit=0
            )
        finally:
            watchdog.cancel()

    def _abort(self) -> None:
        opening = self._socket.sock
        if opening is not None:
            with contextlib.suppress(OSError):
                opening.shutdown(socket.SHUT_RDWR)

    # Sending.

    def _send(
        self, method: str, params: Sequence[object], into: Subscription | None
    ) -> "Future[object]":
        future: Future[object] = Future()
        number = next(self._numbers)
        with self._lock:
            if self.is_lost:
                raise self._lost()
            self._waiting[number] = (future, into)
        request = {"jsonrpc": "2.0", "id": number, "method": method, "params": list(params)}
        try:
            self._socket.send(json.dumps(request))
        except (OSError, websocket.WebSocketException) as error:
            self.lose(error)
            raise self._lost() from error
        return future

    def _wait(self, future: "Future[object]", method: str, deadline: float) -> object:
        try:
            message = future.result(timeout=max(0.0, deadline - time.monotonic()))
        except FutureTimeoutError:
            # Half open, or the node is stuck: the next request gets another connection.
            self.lose(f"{method} was not answered in time")
            raise ChainUnavailableError(
                f"the node at {self.name} did not answer {method} in time"
            ) from None
        if not isinstance(message, dict) or "error" in message:
            raise RpcError(method, message.get("error") if isinstance(message, dict) else None)
        return message.get("result")

    def _lost(self) -> ChainUnavailableError:
        return ChainUnavailableError(
            f"the connection to the node at {self.name} was lost: {self._reason}"
        )

    # Reading, in the connection's own thread.

    def _read(self) -> None:
        try:
            for message in self._messages():
                self._take(json.loads(message))
            self.lose("the node closed it")
        except Exception as error:  # noqa: BLE001  # whatever came, nobody may wait for ever
            self.lose(f"{type(error).__name__}: {error}")
        finally:
            self._socket.shutdown()  # type: ignore[no-untyped-call]  # websocket-client's only one

    def _messages(self) -> Iterator[bytes]:
        """Yield what comes until the node closes the connection; raises when it is silent."""
        parts: list[bytes] = []
        size = 0
        is_asked = False
        while True:
            try:
                opcode, frame = self._socket.recv_data_frame(control_frame=True)
            except websocket.WebSocketTimeoutException:
                if is_asked:
                    raise
                self._socket.ping()
                is_asked = True
                continue
            is_asked = False
            if opcode == websocket.ABNF.OPCODE_CLOSE:
                return
            if opcode in _TEXT_OPCODES:
                parts.append(frame.data)
                size += len(frame.data)
                if size > _LARGEST_MESSAGE:
                    raise _BrokenNodeError("it sends a message without an end")
                if frame.fin:
                    yield b"".join(parts)
                    parts, size = [], 0

    def _take(self, message: object) -> None:
        if not isinstance(message, dict):
            raise _BrokenNodeError("it sends what is no JSON-RPC")
        if "method" not in message:
            self._answer(message)
            return
        params = message.get("params")
        key = params.get("subscription") if isinstance(params, dict) else None
        if isinstance(params, dict) and isinstance(key, str | int):
            with self._lock:
                subscription = self._subscriptions.get(key)
            if subscription is not None:
                subscription.put(params.get("result"))

    def _answer(self, message: dict[str, object]) -> None:
        number = message.get("id")
        if not isinstance(number, int):
            # A node that can't read a request answers so; which request it was nobody knows.
            raise _BrokenNodeError(f"it says {RpcError('a request', message.get('error'))}")
        with self._lock:
            found = self._waiting.pop(number, None)
            if found is None:
                return  # answered before
            future, subscription = found
            if subscription is not None and "error" not in message:
                # Before the reader goes on: what it is about may follow at once.
                key = message.get("result")
                if not isinstance(key, str | int):
                    self._waiting[number] = found
                    raise _BrokenNodeError("it gives a subscription no name")
                self._subscriptions[key] = subscription
        future.set_result(message)
