"""
The heads of a node's chain, as the node tells them: best, and finalized.

A node announces headers without their hashes, so the hash is computed here: that saves a request
for each read, which is made at the finalized head.
"""

import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b

from orchestrator.chain.rpc import RpcConnection, Subscription
from orchestrator.chain.runtime import compact
from orchestrator.chain.scale import encode
from orchestrator.errors import ChainMismatchError, ChainUnavailableError

__all__ = ["Header", "Heads", "parse_header"]

_FIRST_SECONDS = 10.0  # the node tells its heads at once when it is asked to


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
    if not isinstance(value, Mapping):
        raise ChainMismatchError("the node sent no header")
    try:
        number = int(value["number"], 16)
        parent, state, extrinsics = (
            _bytes(value[name]) for name in ("parentHash", "stateRoot", "extrinsicsRoot")
        )
        logs = [_bytes(log) for log in value["digest"]["logs"]]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ChainMismatchError("the node sent a header of unknown form") from error
    encoded = parent + encode(compact, number) + state + extrinsics
    encoded += encode(compact, len(logs)) + b"".join(logs)
    return Header(number=number, hash=blake2b(encoded, digest_size=32).digest(), parent=parent)


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


class _Latest(Subscription):
    """Keeps the last header that came; `end` makes it unknown."""

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
    Follows the heads over *rpc*; `subscribe` after each connecting.

    On one connection the finalized head never goes back.
    """

    def __init__(self, rpc: RpcConnection) -> None:
        self._rpc = rpc
        self._changed = threading.Condition()
        self._best = _Latest(self._changed)
        self._final = _Latest(self._changed)
        self._finalized: Header | None = None

    def subscribe(self) -> None:
        """Ask the node to tell its heads from now on."""
        # An unfinalized head tells nothing that outlives its connection.
        best, final = _Latest(self._changed), _Latest(self._changed)
        self._rpc.request_once("chain_subscribeNewHeads", into=best)
        self._rpc.request_once("chain_subscribeFinalizedHeads", into=final)
        with self._changed:
            self._best, self._final, self._finalized = best, final, None

    def check(self) -> None:
        """
        Make sure that hashes are computed as the node does.

        Raises:
            ChainMismatchError: The chain hashes its headers in another way.
        """
        told = self._rpc.request("chain_getFinalizedHead")
        header = parse_header(self._rpc.request("chain_getHeader", told))
        if told != "0x" + header.hash.hex():
            raise ChainMismatchError("the chain has headers of a form that is not known here")
        self.note_finalized(header)

    def note_finalized(self, header: Header) -> None:
        """Take a block that is known to be final."""
        with self._changed:
            if self._finalized is None or header.number > self._finalized.number:
                self._finalized = header

    @property
    def finalized(self) -> Header:
        """
        The finalized head.

        Raises:
            ChainUnavailableError: None is known yet.
        """
        with self._changed:
            self._changed.wait_for(
                lambda: self._final.header or self._finalized or self._final.is_ended,
                _FIRST_SECONDS,
            )
            told, noted = self._final.header, self._finalized
            if told is not None and (noted is None or told.number > noted.number):
                noted = self._finalized = told
            if noted is None:
                raise ChainUnavailableError("the node has not told its finalized head")
            return noted

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
