"""
A JSON-RPC server over WebSocket, on this machine, that answers what a test says.

What no test says anything about is refused, or asked of a real node behind it.
"""

import contextlib
import itertools
import json
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from types import TracebackType
from typing import BinaryIO, Self

from orchestrator.chain.link import RpcError, Subscription
from orchestrator.chain.rpc import RpcConnection

__all__ = ["CUT", "SILENCE", "Refusal", "ScriptedNode", "Subscribed"]

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3
_TEXT, _CLOSE, _PING, _PONG = 0x1, 0x8, 0x9, 0xA
_UNKNOWN_METHOD = -32601

SILENCE = object()
CUT = object()


@dataclass(frozen=True)
class Refusal:
    """An answer that is an error."""

    code: int
    message: str
    data: object = None


@dataclass(frozen=True)
class Subscribed:
    """An answer that begins a subscription, and what follows at once."""

    items: Sequence[object] = ()


class ScriptedNode:
    """
    Listens on a free port until it is left.

    *answers* has a result for each method, or a function of the parameters that returns it:
    `Refusal`, `Subscribed`, `SILENCE` (no answer) and `CUT` (the connection ends) are results too.
    What is not in it is asked of the node at the URL *behind*. `requests` has all that came.
    New connections get `greeting` instead of a handshake where it is set, and nothing is read from
    them unless `reads`.
    """

    def __init__(self, answers: Mapping[str, object] | None = None, *, behind: str = "") -> None:
        self.answers: dict[str, object] = dict(answers or {})
        self.requests: list[tuple[str, list[object]]] = []
        self.connections = 0
        self.pings = 0
        self.greeting: bytes | None = None
        self.reads = True
        self._closing = threading.Event()
        self._behind = RpcConnection(behind) if behind else None
        self._keys = itertools.count(1)
        self._lock = threading.RLock()
        self._open: list[socket.socket] = []
        self._subscribers: dict[str, tuple[str, socket.socket]] = {}
        self._threads: list[threading.Thread] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self._port: int = self._server.getsockname()[1]
        self._start(self._accept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"ws://127.0.0.1:{self._port}"

    def count(self, method: str) -> int:
        """Return how often a method was asked for."""
        return sum(1 for asked, _ in self.requests if asked == method)

    def ask(self, method: str, *params: object) -> object:
        """Return what the node behind answers."""
        if self._behind is None:
            return Refusal(_UNKNOWN_METHOD, "Method not found")
        try:
            return self._behind.request(method, *params)
        except RpcError as error:
            return Refusal(error.code, error.text)

    def notify(self, method: str, item: object) -> None:
        """Send an item to whoever has subscribed by *method*."""
        with self._lock:
            for key, (by, client) in list(self._subscribers.items()):
                if by == method:
                    self._tell(client, key, item)

    def say(self, text: str | bytes, *, opcode: int = 0x80 | _TEXT) -> None:
        """Send a frame with any text to all clients."""
        with self._lock:
            for client in self._open:
                _send(client, text.encode() if isinstance(text, str) else text, opcode)

    def say_raw(self, data: bytes) -> None:
        """Send bytes that need be no frame to all clients."""
        with self._lock:
            for client in self._open:
                client.sendall(data)

    def cut(self) -> None:
        """End all connections."""
        with self._lock:
            for client in self._open:
                _end(client)

    def close(self) -> None:
        """End all connections and all threads."""
        self._closing.set()
        _end(self._server)
        self._server.close()
        self._threads[0].join(5)
        self.cut()
        if self._behind is not None:
            self._behind.close()
        for thread in self._threads:
            thread.join(5)

    # Connections.

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="scripted-node", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                with self._lock:
                    self._open.append(client)
                    self.connections += 1
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError), client.makefile("rb") as stream:
            accepted = _accepted(stream)
            if self.greeting is not None:
                client.sendall(self.greeting)
                self._closing.wait()
            client.sendall(accepted)
            if not self.reads:
                self._closing.wait()
            while True:
                opcode, payload = _read_frame(stream)
                if opcode == _PING:
                    self.pings += 1
                    with self._lock:
                        _send(client, payload, 0x80 | _PONG)
                elif opcode == _CLOSE:
                    break
                elif opcode == _TEXT:
                    self._handle(client, json.loads(payload))
        with self._lock:
            self._open.remove(client)
            client.close()

    def _handle(self, client: socket.socket, request: Mapping[str, object]) -> None:
        method, params = str(request["method"]), request["params"]
        assert isinstance(params, list)  # noqa: S101  # our own client sends nothing else
        with self._lock:
            self.requests.append((method, params))
        if method not in self.answers and ("subscribe" in method or "Watch" in method):
            self._hand_on(client, request["id"], method, params)
            return
        answer = self.answers[method] if method in self.answers else self.ask(method, *params)
        if callable(answer):
            answer = answer(*params)
        if answer is CUT:
            _end(client)
        elif isinstance(answer, Subscribed):
            key = f"scripted-{next(self._keys)}"
            with self._lock:
                self._subscribers[key] = (method, client)
                self._answer(client, request["id"], key)
                for item in answer.items:
                    self._tell(client, key, item)
        elif answer is not SILENCE:
            self._answer(client, request["id"], answer)

    def _hand_on(
        self, client: socket.socket, number: object, method: str, params: Sequence[object]
    ) -> None:
        """Subscribe at the node behind, and hand on what follows."""
        if self._behind is None:
            self._answer(client, number, Refusal(_UNKNOWN_METHOD, "Method not found"))
            return
        key = f"scripted-{next(self._keys)}"
        following = _HandedOn(lambda item: self._pass(client, key, item))
        try:
            self._behind.request_once(method, *params, into=following)
        except RpcError as error:
            self._answer(client, number, Refusal(error.code, error.text))
        else:
            self._answer(client, number, key)
            following.begin()

    def _pass(self, client: socket.socket, key: str, item: object) -> None:
        with self._lock:
            self._tell(client, key, item)

    def _answer(self, client: socket.socket, number: object, answer: object) -> None:
        message: dict[str, object] = {"jsonrpc": "2.0", "id": number, "result": answer}
        if isinstance(answer, Refusal):
            error: dict[str, object] = {"code": answer.code, "message": answer.message}
            if answer.data is not None:
                error["data"] = answer.data
            message = {"jsonrpc": "2.0", "id": number, "error": error}
        with self._lock:
            _send(client, json.dumps(message).encode())

    def _tell(self, client: socket.socket, key: str, item: object) -> None:
        message = {
            "jsonrpc": "2.0",
            "method": "told",
            "params": {"subscription": key, "result": item},
        }
        with contextlib.suppress(OSError):
            _send(client, json.dumps(message).encode())


class _HandedOn(Subscription):
    """Hands on what comes, once it is told to begin: nothing may overtake the answer."""

    def __init__(self, take: Callable[[object], None]) -> None:
        super().__init__()
        self._take = take
        self._order = threading.Lock()
        self._early: list[object] | None = []

    def put(self, item: object) -> None:
        with self._order:
            if self._early is None:
                self._take(item)
            else:
                self._early.append(item)

    def begin(self) -> None:
        """Hand on what came, and from now on what comes."""
        with self._order:
            for item in self._early or ():
                self._take(item)
            self._early = None


# WebSocket, RFC 6455 sections 4.2 and 5.2.


def _accepted(stream: BinaryIO) -> bytes:
    key = b""
    while (line := stream.readline().strip()) != b"":
        name, _, value = line.partition(b":")
        if name.lower() == b"sec-websocket-key":
            key = value.strip()
    proof = b64encode(sha1(key + _GUID, usedforsecurity=False).digest())
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + proof + b"\r\n\r\n"
    )


def _read_frame(stream: BinaryIO) -> tuple[int, bytes]:
    head = _exactly(stream, 2)
    length = head[1] & 0x7F
    if length > 125:
        length = int.from_bytes(_exactly(stream, 2 if length == 126 else 8), "big")
    mask = _exactly(stream, 4)
    data = _exactly(stream, length)
    key = int.from_bytes((mask * (length // 4 + 1))[:length], "big")
    return head[0] & 0x0F, (int.from_bytes(data, "big") ^ key).to_bytes(length, "big")


def _exactly(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise EOFError
    return data


def _send(client: socket.socket, payload: bytes, opcode: int = 0x80 | _TEXT) -> None:
    length = len(payload)
    if length < 126:
        head = bytes([opcode, length])
    elif length < 1 << 16:
        head = bytes([opcode, 126]) + length.to_bytes(2, "big")
    else:
        head = bytes([opcode, 127]) + length.to_bytes(8, "big")
    client.sendall(head + payload)


def _end(one: socket.socket) -> None:
    with contextlib.suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
