"""
Runs an ASGI application: one socket, limits per peer, a clean end.

Nothing here knows what is served. What strangers can make a server hold is bounded: connections,
heads of requests and trailers, answers that nobody takes.
"""

from orchestrator.http_server.listening import Listen, parse_listen, require_usable
from orchestrator.http_server.peers import PeerRateLimit
from orchestrator.http_server.serving import serve, serve_until_signal, stop_on_signal

__all__ = [
    "Listen",
    "PeerRateLimit",
    "parse_listen",
    "require_usable",
    "serve",
    "serve_until_signal",
    "stop_on_signal",
]
