"""Who asks, and how often they may."""

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["PeerRateLimit", "peer_of", "plain_host"]

_MAX_PEERS = 10_000


def plain_host(host: str) -> str:
    """Return the IPv4 address that a socket for both families writes as `::ffff:192.0.2.1`."""
    if not host.lower().startswith("::ffff:"):
        return host
    try:
        mapped = ipaddress.IPv6Address(host).ipv4_mapped
    except ValueError:
        return host
    return host if mapped is None else str(mapped)


def peer_of(host: str) -> str:
    """Return what counts as one peer: an IPv4 address, or an IPv6 network of 64 bits."""
    plain = plain_host(host)
    if ":" not in plain:
        return plain
    try:
        return str(ipaddress.ip_network((int(ipaddress.IPv6Address(plain)), 64), strict=False))
    except ValueError:
        return plain


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
            client = scope.get("client")
            wait = self._take(peer_of(str(client[0])) if client else "")
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
