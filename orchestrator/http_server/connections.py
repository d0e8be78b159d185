"""
What strangers can make a server hold, bounded per connection and per peer.

uvicorn limits neither heads nor trailers, starts its timer only after the first answer, and waits
for ever until an answer is taken. `BoundedConnection` adds that and changes nothing else.
"""

import asyncio
from collections.abc import Callable

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from orchestrator.http_server.peers import peer_of, plain_host

__all__ = ["BoundedConnection", "ConnectionRoom"]

_MAX_CONNECTIONS = 800  # below 1,024, the usual limit of a process's open files
_MAX_PER_PEER = 200
_HEAD_SECONDS = 10.0
_TAKE_SECONDS = 30.0
_MAX_HEAD_BYTES = 65_536
_MAX_FIELDS = 100
_MAX_PIPELINED = 8


class ConnectionRoom:
    """
    The connections of one server, so many per peer and together.

    Where there is no room, the connection that was idle longest gives way: of that peer if it has
    its share, else of the peer that has most. Peers for which *is_proxy* says so have no share of
    their own, because many speak through them.
    """

    def __init__(self, is_proxy: Callable[[str], bool]) -> None:
        self._is_proxy = is_proxy
        self._peers: dict[str, dict[BoundedConnection, None]] = {}
        self._count = 0

    def enter(self, connection: "BoundedConnection") -> bool:
        """Count the connection, unless there is no room and nobody is idle."""
        own = self._peers.get(connection.peer, {})
        has_room = True
        if len(own) >= _MAX_PER_PEER and not self._is_proxy(connection.host):
            has_room = self._close_idle(own)
        elif self._count >= _MAX_CONNECTIONS:
            by_size = sorted(self._peers.values(), key=len, reverse=True)
            has_room = any(self._close_idle(held) for held in by_size)
        if has_room:
            self._peers.setdefault(connection.peer, {})[connection] = None
            self._count += 1
        return has_room

    def rest(self, connection: "BoundedConnection") -> None:
        """Note that the connection is idle from now on."""
        own = self._peers.get(connection.peer, {})
        if connection in own:
            del own[connection]
            own[connection] = None

    def leave(self, connection: "BoundedConnection") -> None:
        """Count the connection no longer; a second time does nothing."""
        own = self._peers.get(connection.peer, {})
        if connection in own:
            del own[connection]
            self._count -= 1
            if not own:
                del self._peers[connection.peer]

    def _close_idle(self, held: "dict[BoundedConnection, None]") -> bool:
        longest = next((connection for connection in held if connection.is_idle), None)
        if longest is None:
            return False
        self.leave(longest)
        longest.transport.abort()
        return True


class BoundedConnection(HttpToolsProtocol):
    """
    One connection, closed when any of these is not kept.

    1. A head, or a head with trailers, has at most 64 KiB (and what one read brings) and 100
       fields; so has whatever else is no body.
    2. A head is complete within 10 s of the connection, or of its first byte.
    3. At most 8 requests wait for the answer to one before them.
    4. What was answered is taken: a full buffer is emptied within 30 s.
    """

    def __init__(self, config: uvicorn.Config, state: ServerState, room: ConnectionRoom) -> None:
        super().__init__(config, state, {})
        self.host = ""
        self.peer = ""
        self._room = room
        self._loose_bytes = 0  # received since the last complete head or part of a body
        self._head_bytes = 0
        self._head_timer: asyncio.TimerHandle | None = None
        self._take_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """Whether no request is being answered."""
        if self.transport.is_closing():
            return True
        cycle: RequestResponseCycle | None = self.cycle  # none before the first request
        return cycle is None or cycle.response_complete

    def connection_made(  # type: ignore[override]  # as in uvicorn: it is always a transport
        self, transport: asyncio.Transport
    ) -> None:
        super().connection_made(transport)
        if self.client is not None:
            self.host = plain_host(self.client[0])
            self.client = (self.host, self.client[1])
        self.peer = peer_of(self.host)
        if self._room.enter(self):
            self._expect_head()
        else:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._room.leave(self)
        self._stop_head_timer()
        self._stop_take_timer()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._loose_bytes += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._loose_bytes > _MAX_HEAD_BYTES:  # 1.
            self.transport.abort()
        elif self.is_idle:
            self._expect_head()

    def on_message_begin(self) -> None:
        self._head_bytes = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._stop_head_timer()
        self._loose_bytes = 0
        if len(self.pipeline) >= _MAX_PIPELINED:  # 3.
            raise ValueError("too many requests at once")
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._loose_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._loose_bytes = 0
        super().on_message_complete()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.is_idle:
            self._room.rest(self)
        if self.transport.is_closing():
            self._expect_taken()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._expect_taken()

    def resume_writing(self) -> None:
        self._stop_take_timer()
        super().resume_writing()

    def timeout_keep_alive_handler(self) -> None:
        # Closing would wait until the rest is taken.
        self.transport.abort()

    def _count_head(self, length: int) -> None:
        # An error in one of the parser's callbacks is answered with 400.
        self._head_bytes += length
        if self._head_bytes > _MAX_HEAD_BYTES or len(self.headers) >= _MAX_FIELDS:  # 1.
            raise ValueError("head too long")

    def _expect_head(self) -> None:
        if self._head_timer is None:  # 2.
            self._head_timer = self.loop.call_later(_HEAD_SECONDS, self.transport.abort)

    def _stop_head_timer(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _expect_taken(self) -> None:
        if self._take_timer is None:  # 4.
            self._take_timer = self.loop.call_later(_TAKE_SECONDS, self.transport.abort)

    def _stop_take_timer(self) -> None:
        if self._take_timer is not None:
            self._take_timer.cancel()
            self._take_timer = None
