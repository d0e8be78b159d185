"""A node: the connection to it, what it tells of its heads, and its runtime as it is now."""

import threading
from collections.abc import Callable

from orchestrator.chain.answers import at_key, hash_of, hex_text
from orchestrator.chain.heads import Heads, check_hashes
from orchestrator.chain.link import Link, RpcError, Subscription
from orchestrator.chain.rpc import RpcConnection
from orchestrator.chain.runtime import Runtime, RuntimeVersion
from orchestrator.errors import ChainMismatchError, ChainUnavailableError

__all__ = ["Node", "parse_version"]


class Node:
    """
    The node at *url*; `open` connects.

    After a lost connection the same chain must answer, and another runtime is read anew.

    Raises:
        ConfigError: The URL is of another form.
    """

    def __init__(self, url: str, *, timeout_seconds: float) -> None:
        self.rpc = RpcConnection(url, timeout_seconds=timeout_seconds, on_connect=self._prepare)
        self.heads = Heads(self.rpc.ensure_connected)
        self._genesis: bytes | None = None
        self._lock = threading.Lock()
        self._building = threading.Lock()
        self._version: RuntimeVersion | None = None
        self._runtimes: dict[RuntimeVersion, Runtime] = {}

    def open(self) -> None:
        """
        Connect, and check what everything else stands on.

        Raises:
            ChainUnavailableError: The node can't be reached.
            ChainMismatchError: Its chain has no pallet-contracts, or is of a form not known here.
        """
        self.rpc.open()
        check_hashes(self.rpc)
        self.runtime()

    def close(self) -> None:
        """Close the connection."""
        self.rpc.close()

    @property
    def genesis_hash(self) -> bytes:
        """The chain's identity."""
        if self._genesis is None:
            raise ChainUnavailableError("the node has not told its genesis hash")
        return self._genesis

    def runtime(self) -> Runtime:
        """Return the runtime that the next block is made with."""
        with self._lock:
            told = self._version
            known = None if told is None else self._runtimes.get(told)
        if known is not None:
            return known
        head = self.heads.best
        asked = self.rpc.request("state_getRuntimeVersion", hex_text(head.hash))
        runtime = self.runtime_of(parse_version(asked), head.hash)
        with self._lock:
            # The node may have told of another one before it told of the head that has it.
            self._version = self._version or runtime.version
        return runtime

    def runtime_of(self, version: RuntimeVersion, block_hash: bytes) -> Runtime:
        """Return the runtime of a version, which the block at *block_hash* has in its state."""
        with self._building:
            known = self._runtimes.get(version)
            if known is None:
                known = Runtime(
                    version,
                    genesis_hash=self.genesis_hash,
                    block_hash=block_hash,
                    request=self.rpc.request,
                )
                self._runtimes[version] = known
            return known

    def note_version(self, version: RuntimeVersion | None) -> None:
        """Take note of what the node says about its runtime; `None` is to ask it."""
        with self._lock:
            self._version = version

    def _prepare(self, link: Link, deadline: float) -> None:
        self.note_version(None)
        (best, follow_best), (final, follow_final) = self.heads.begin()
        try:
            first, *_ = link.request_all(
                [("chain_getBlockHash", (0,)), best, final, ("state_subscribeRuntimeVersion", ())],
                deadline=deadline,
                into=[None, follow_best, follow_final, _Versions(self.note_version)],
            )
        except RpcError as error:
            raise ChainMismatchError(f"no Substrate node at {self.rpc.name}: {error}") from error
        genesis = hash_of(first, "a genesis hash")
        if self._genesis not in (None, genesis):
            raise ChainMismatchError(f"the node at {self.rpc.name} is on another chain now")
        self._genesis = genesis


class _Versions(Subscription):
    """Hands on each version that comes."""

    def __init__(self, note: Callable[[RuntimeVersion], None]) -> None:
        super().__init__()
        self._note = note

    def put(self, item: object) -> None:
        self._note(parse_version(item))


def parse_version(value: object) -> RuntimeVersion:
    """
    Return the runtime version that a node sent.

    Raises:
        ChainMismatchError: It is of another form.
    """
    what = "a runtime version"
    name, spec = at_key(value, "specName", what), at_key(value, "specVersion", what)
    transaction = at_key(value, "transactionVersion", what)
    if isinstance(name, str) and isinstance(spec, int) and isinstance(transaction, int):
        return RuntimeVersion(spec_name=name, spec_version=spec, transaction_version=transaction)
    raise ChainMismatchError("the node sent a runtime version of unknown form")
