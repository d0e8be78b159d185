"""
A proxy between a client and a node, on this machine, that does harm when it is told to.

It takes WebSocket connections apart into messages and knows of each message which request it is,
or belongs to. So harm can be done to a chosen message, whenever that comes.
"""

import contextlib
import json
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from types import TracebackType
from typing import BinaryIO, Self

__all__ = ["Armed", "Fault", "Kind", "Message", "NodeProxy", "answer_to", "notice_of", "request_of"]

_CONTROL = 0x8  # the bit that control frames have
_FIN = 0x80
_TEXT = 0x1
_CONNECT_SECONDS = 10.0
_JOIN_SECONDS = 20.0
_RESET = struct.pack("ii", 1, 0)


class Kind(Enum):
    """What a message is."""

    REQUEST = "from the client"
    ANSWER = "the node's, to a request"
    NOTICE = "the node's, about what a request subscribed to"


class Fault(Enum):
    """What is done to a message, and to its connection."""

    RESET = "the connection is reset instead"
    END = "the connection is closed instead"
    RESET_AFTER = "it passes, and the connection is reset"
    MUTE = "nothing reaches the client from it on, and the connection stays"
    DEAF = "nothing reaches the node from it on, and the connection stays"
    SILENT = "nothing passes from it on, and the connection stays"
    NONE = "it passes, and was seen"
    HOLD = "it waits, with all that follow it, until it is released"
    CORRUPT = "some of its bytes are changed"
    TWICE = "it passes twice"
    DROP = "it is swallowed"
    REFUSE = "the node does not get it, and the client gets an error"


@dataclass(frozen=True, kw_only=True)
class Message:
    """A JSON-RPC message; `method` and `request` (its text) are of the request it belongs to."""

    kind: Kind
    method: str
    request: str
    text: str


When = Callable[[Message], bool]


def request_of(method: str, *, containing: str = "") -> When:
    """Match requests of a method whose text contains something."""
    return lambda message: (
        message.kind is Kind.REQUEST and message.method == method and containing in message.text
    )


def answer_to(method: str, *, containing: str = "") -> When:
    """Match answers to requests of a method whose own text contains something."""
    return lambda message: (
        message.kind is Kind.ANSWER and message.method == method and containing in message.request
    )


def notice_of(method: str, *, containing: str = "", request: str = "") -> When:
    """Match notices that contain something, subscribed to by a request that contains something."""
    return lambda message: (
        message.kind is Kind.NOTICE
        and message.method == method
        and containing in message.text
        and request in message.request
    )


@dataclass(eq=False, kw_only=True)
class Armed:
    """
    A fault that waits for its message; `fired` says that it has met it.

    With *hold_seconds* a message that is held goes on by itself after that time.
    """

    fault: Fault
    when: When
    skip: int
    times: int
    hold_seconds: float
    error: tuple[int, str]
    fired: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    count: int = 0

    def release(self) -> None:
        """Let go of what is held."""
        self.released.set()


@dataclass(eq=False, kw_only=True)
class _Connection:
    """Both sockets of a connection, and what is known of its requests."""

    client: socket.socket
    node: socket.socket
    lock: threading.Lock = field(default_factory=threading.Lock)
    send_lock: threading.Lock = field(default_factory=threading.Lock)
    requests: dict[object, tuple[str, str]] = field(default_factory=dict)
    subscriptions: dict[object, tuple[str, str]] = field(default_factory=dict)
    is_mute: bool = False
    is_deaf: bool = False
    is_reset: bool = False

    def end(self, *, is_reset: bool = False) -> None:
        """End both sides; with *is_reset* the client sees a reset, the node gets what was sent."""
        if is_reset:
            self.is_reset = True
            with contextlib.suppress(OSError):
                self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        # Closing sends the reset, once both threads are awake; a FIN must not come before it.
        with contextlib.suppress(OSError):
            self.client.shutdown(socket.SHUT_RD if self.is_reset else socket.SHUT_RDWR)
        with contextlib.suppress(OSError):
            self.node.shutdown(socket.SHUT_RDWR)


@dataclass(frozen=True, kw_only=True)
class _Frames:
    """One message or one control frame: its raw bytes, where its payload starts, its text."""

    opcode: int
    raw: bytes
    payload_at: int
    payload: bytes


class NodeProxy:
    """
    Listens on a free port of this machine and hands on to the node at *port* until it is left.

    `done` counts the harm that was done, `requests` the requests by method, `connections` the
    connections that a node answered.
    """

    def __init__(self, port: int) -> None:
        self.node_port = port
        self.done: Counter[Fault] = Counter()
        self.requests: Counter[str] = Counter()
        self.connections = 0
        self._armed: list[Armed] = []
        self._fired: list[Armed] = []
        self._lock = threading.Lock()
        self._open: set[_Connection] = set()
        self._threads: list[threading.Thread] = []
        self._is_closed = threading.Event()
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

    def arm(
        self,
        fault: Fault,
        when: When,
        *,
        skip: int = 0,
        times: int = 1,
        hold_seconds: float = 60.0,
        error: tuple[int, str] = (0, ""),
    ) -> Armed:
        """
        Do harm to the next messages that match, once *skip* of them have passed.

        *error* is the JSON-RPC code and the message of `Fault.REFUSE`.
        """
        armed = Armed(
            fault=fault, when=when, skip=skip, times=times, hold_seconds=hold_seconds, error=error
        )
        with self._lock:
            self._armed.append(armed)
        return armed

    def disarm(self) -> None:
        """Do no harm any more, and let go of what is held."""
        with self._lock:
            armed, self._armed, self._fired = [*self._armed, *self._fired], [], []
        for one in armed:
            one.release()

    def cut(self) -> None:
        """Reset all connections now."""
        with self._lock:
            connections = list(self._open)
        for connection in connections:
            connection.end(is_reset=True)

    def close(self) -> None:
        """End all connections and all threads."""
        self._is_closed.set()
        self.disarm()
        with contextlib.suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)
        self._server.close()
        self.cut()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)
            if thread.is_alive():
                raise RuntimeError("a thread of the proxy hangs")

    # Connections.

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, name="node-proxy", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._server.accept()
                self._start(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        try:
            node = socket.create_connection(("127.0.0.1", self.node_port), _CONNECT_SECONDS)
        except OSError:
            client.close()
            return
        for one in (client, node):
            one.settimeout(None)
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection = _Connection(client=client, node=node)
        with self._lock:
            self._open.add(connection)
            self.connections += 1
        answers = threading.Thread(
            target=self._pump, args=(connection, node, client), name="node-proxy", daemon=True
        )
        answers.start()
        self._pump(connection, client, node)
        answers.join()
        client.close()
        node.close()
        with self._lock:
            self._open.discard(connection)

    def _pump(self, connection: _Connection, source: socket.socket, sink: socket.socket) -> None:
        """Hand on everything that *source* says, until either side is closed."""
        is_from_client = source is connection.client
        with contextlib.suppress(OSError, EOFError, ValueError), source.makefile("rb") as stream:
            if self._is_closed.is_set():
                raise EOFError
            sink.sendall(_read_head(stream))
            while True:
                frames = _read_frames(stream)
                if frames.opcode & _CONTROL:
                    self._forward(connection, frames.raw, is_from_client=is_from_client)
                else:
                    self._treat(connection, frames, is_from_client=is_from_client)
        connection.end()

    def _forward(self, connection: _Connection, raw: bytes, *, is_from_client: bool) -> None:
        if connection.is_deaf if is_from_client else connection.is_mute:
            return
        if is_from_client:
            connection.node.sendall(raw)
        else:
            with connection.send_lock:
                connection.client.sendall(raw)

    # Messages.

    def _treat(self, connection: _Connection, frames: _Frames, *, is_from_client: bool) -> None:
        """Hand on a message, or do what was armed for it."""
        message = self._understand(connection, frames.payload, is_from_client=is_from_client)
        armed = None if message is None else self._find(message)
        fault = None if armed is None else armed.fault
        raw = frames.raw
        if armed is not None and fault is Fault.HOLD:
            armed.released.wait(armed.hold_seconds)
        elif armed is not None and fault is Fault.REFUSE:
            with connection.send_lock:
                connection.client.sendall(_refusal(frames.payload, armed.error))
            return
        elif fault in (Fault.RESET, Fault.END):
            connection.end(is_reset=fault is Fault.RESET)
            return
        elif fault is Fault.DROP:
            return
        elif fault is Fault.CORRUPT:
            raw = _damaged(frames)
        elif fault is Fault.TWICE:
            raw += raw
        connection.is_mute |= fault in (Fault.MUTE, Fault.SILENT)
        # The answer to a request must not be quicker than the reset.
        connection.is_mute |= fault is Fault.RESET_AFTER and is_from_client
        connection.is_deaf |= fault in (Fault.DEAF, Fault.SILENT)
        self._forward(connection, raw, is_from_client=is_from_client)
        if fault is Fault.RESET_AFTER:
            connection.end(is_reset=True)

    def _find(self, message: Message) -> Armed | None:
        """Return the first fault that is armed for the message, and count it."""
        with self._lock:
            for armed in self._armed:
                if not armed.when(message):
                    continue
                if armed.skip:
                    armed.skip -= 1
                    continue
                armed.count += 1
                if armed.count == armed.times:
                    self._armed.remove(armed)
                    self._fired.append(armed)
                self.done[armed.fault] += 1
                armed.fired.set()
                return armed
        return None

    def _understand(
        self, connection: _Connection, payload: bytes, *, is_from_client: bool
    ) -> Message | None:
        """Return what a message is; `None` when it is of no request that is known."""
        text = payload.decode()
        value = json.loads(text)
        with connection.lock:
            if is_from_client:
                method = str(value["method"])
                connection.requests[value["id"]] = (method, text)
                self.requests[method] += 1
                return Message(kind=Kind.REQUEST, method=method, request=text, text=text)
            if "id" in value:
                kind, found = Kind.ANSWER, connection.requests.pop(value["id"], None)
                result = value.get("result")
                if found is not None and isinstance(result, str | int):
                    # It may be the name of a subscription: what is none never comes again.
                    connection.subscriptions[result] = found
            else:
                kind = Kind.NOTICE
                found = connection.subscriptions.get(value["params"]["subscription"])
        if found is None:
            return None
        return Message(kind=kind, method=found[0], request=found[1], text=text)


# WebSocket, RFC 6455 section 5.2.


def _read_head(stream: BinaryIO) -> bytes:
    """Return the HTTP head that a connection begins with, in either direction."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += _exactly(stream, 1)
    return head


def _read_frames(stream: BinaryIO) -> _Frames:
    """Return the next control frame, or the next message with all its frames."""
    raw, payload, opcode, payload_at = b"", b"", None, 0
    while True:
        head = _exactly(stream, 2)
        length = head[1] & 0x7F
        extended = {126: 2, 127: 8}.get(length, 0)
        if extended:
            head += _exactly(stream, extended)
            length = int.from_bytes(head[-extended:], "big")
        mask = _exactly(stream, 4) if head[1] & 0x80 else b""
        data = _exactly(stream, length)
        frame = head + mask + data
        if opcode is None:
            opcode, payload_at = head[0] & 0x0F, len(head + mask)
        raw += frame
        payload += _unmasked(data, mask)
        if head[0] & _FIN:
            return _Frames(opcode=opcode, raw=raw, payload_at=payload_at, payload=payload)


def _exactly(stream: BinaryIO, length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise EOFError
    return data


def _unmasked(data: bytes, mask: bytes) -> bytes:
    if not mask:
        return data
    key = (mask * (len(data) // 4 + 1))[: len(data)]
    value = int.from_bytes(data, "big") ^ int.from_bytes(key, "big")
    return value.to_bytes(len(data), "big")


def _damaged(frames: _Frames) -> bytes:
    """Flip bits where the payload begins and in its middle: no JSON any more."""
    raw = bytearray(frames.raw)
    raw[frames.payload_at] ^= 0x80
    raw[(frames.payload_at + len(raw)) // 2] ^= 0x55
    return bytes(raw)


def _refusal(request: bytes, error: tuple[int, str]) -> bytes:
    code, words = error
    text = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": json.loads(request)["id"],
            "error": {"code": code, "message": words},
        }
    ).encode()
    head = bytes([_FIN | _TEXT])
    if len(text) < 126:
        return head + bytes([len(text)]) + text
    return head + bytes([126]) + len(text).to_bytes(2, "big") + text
