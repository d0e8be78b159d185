"""
The heads of a node's chain, as the node tells them: best, and finalized.

A node announces headers without their hashes, so the hash is computed here: that saves a request
for each read, which is made at the finalized head.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from orchestrator.chain.answers import at_key, hash_of, hex_bytes, hex_text
from orchestrator.chain.link import Request, Subscription
from orchestrator.chain.rpc import RpcConnection
from orchestrator.chain.runtime_types import compact
from orchestrator.chain.scale import encode
from orchestrator.errors import ChainMismatchError, ChainUnavailableError

__all__ = ["Header", "Heads", "check_hashes", "encode_header", "parse_header"]

_FIRST_SECONDS = 10.0  # the node tells its heads at once when it is asked to
_MOST_LOGS = 64


@dataclass(frozen=True, kw_only=True)
class Header:
    """A block's number, its hash and its parent's."""

    number: int
    hash: bytes
    parent: bytes


def parse_header(value: object) -> Header:
    """
    Return the header that a node sent.

    The hash is blake2-256 of the SCALE encoding, as in every chain of 32-bit block numbers that
    has kept Substrate's defaults.

    Raises:
        ChainMismatchError: It is not a header.
    """
    encoded = encode_header(value)
    return Header(
        number=_number(at_key(value, "number", "a header")),
        hash=blake2b(encoded, digest_size=32).digest(),
        parent=encoded[:32],
    )


def encode_header(value: object) -> bytes:
    """Return the SCALE encoding of a header that a node sent; raises as `parse_header`."""
    what = "a header"
    number = _number(at_key(value, "number", what))
    parent, state, extrinsics = (
        hash_of(at_key(value, name, what), what)
        for name in ("parentHash", "stateRoot", "extrinsicsRoot")
    )
    logs = at_key(at_key(value, "digest", what), "logs", what)
    if not isinstance(logs, list) or len(logs) > _MOST_LOGS:
        raise ChainMismatchError("the node sent a header of unknown form")
    encoded = parent + encode(compact, number) + state + extrinsics + encode(compact, len(logs))
    return encoded + b"".join(hex_bytes(log, what) for log in logs)


def _number(text: object) -> int:
    raw = text[2:] if isinstance(text, str) and text.startswith("0x") else ""
    if not 0 < len(raw) <= 8 or not set(raw) <= set("0123456789abcdefABCDEF"):
        raise ChainMismatchError("the node sent a block number that is not of 32 bits")
    return int(raw, 16)


class _Latest(Subscription):
    """Keeps the last header that came, until the connection is lost."""

    def __init__(self, changed: threading.Condition) -> None:
        super().__init__()
        self._changed = changed
        self.header: Header | None = None
        self.is_ended = False

    def put(self, item: object) -> None:
        header = parse_header(item)
        with self._changed:
            self.header = header
            self._changed.notify_all()

    def end(self) -> None:
        with self._changed:
            self.is_ended = True
            self._changed.notify_all()


class Heads:
    """
    Follows the heads of a node, on one connection after the other.

    On one connection the finalized head never goes back. *ensure_connected* connects again when
    the connection is lost: heads of a lost one are of no use.
    """

    def __init__(self, ensure_connected: Callable[[], None]) -> None:
        self._ensure_connected = ensure_connected
        self._changed = threading.Condition()
        self._best = _Latest(self._changed)
        self._final = _Latest(self._changed)
        self._noted: Header | None = None

    def begin(self) -> list[tuple[Request, Subscription]]:
        """Forget the last connection's heads; return what to ask a new one for."""
        with self._changed:
            self._best, self._final = _Latest(self._changed), _Latest(self._changed)
            self._noted = None
            return [
                (("chain_subscribeNewHeads", ()), self._best),
                (("chain_subscribeFinalizedHeads", ()), self._final),
            ]

    def note_finalized(self, header: Header) -> None:
        """Take a block that is known to be final, whether it was told of yet or not."""
        with self._changed:
            if self._noted is None or header.number > self._noted.number:
                self._noted = header

    @property
    def finalized(self) -> Header:
        """
        The finalized head.

        Raises:
            ChainUnavailableError: The node does not tell it.
        """
        deadline = time.monotonic() + _FIRST_SECONDS
        while True:
            self._ensure_connected()
            with self._changed:
                self._changed.wait_for(
                    lambda: self._final.header or self._noted or self._final.is_ended,
                    max(0.0, deadline - time.monotonic()),
                )
                if self._final.header is not None:
                    self.note_finalized(self._final.header)
                if self._noted is not None:
                    return self._noted
            if time.monotonic() >= deadline:
                raise ChainUnavailableError("the node has not told its finalized head")

    @property
    def best(self) -> Header:
        """The best head as last told, or the finalized one when that is higher."""
        finalized = self.finalized
        with self._changed:
            told = self._best.header
        return told if told is not None and told.number > finalized.number else finalized

    def wait_beyond(self, number: int, timeout_seconds: float) -> bool:
        """Whether a block above *number* became final in time; the connection may be lost too."""
        deadline = time.monotonic() + timeout_seconds
        with self._changed:
            while self._final.header is None or self._final.header.number <= number:
                rest = deadline - time.monotonic()
                if rest <= 0 or self._final.is_ended:
                    return False
                self._changed.wait(rest)
        return True


def check_hashes(rpc: RpcConnection) -> None:
    """
    Make sure that hashes are computed here as the node does.

    Raises:
        ChainMismatchError: The chain hashes its headers in another way.
    """
    told = hash_of(rpc.request("chain_getFinalizedHead"), "a block's hash")
    header = parse_header(rpc.request("chain_getHeader", hex_text(told)))
    if told != header.hash:
        raise ChainMismatchError("the chain has headers of a form that is not known here")
