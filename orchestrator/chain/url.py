"""Chains by URL: `local:PATH` is the embedded chain in a file, `ws://HOST:PORT` a node."""

from pathlib import Path

from orchestrator.chain import Chain
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.spending import SpendingLimits
from orchestrator.errors import ConfigError

__all__ = ["open_chain"]


def open_chain(url: str, *, create: bool = False, spending: SpendingLimits | None = None) -> Chain:
    """
    Return the chain that *url* names; a file is made only when *create* is set.

    What is sent keeps within *spending*; on an embedded chain nothing costs anything.

    Raises:
        ConfigError: The URL is of no known form.
        InputError: There is no such file, or the path can't be used.
        ChainMismatchError: The file is no chain file, damaged, or of another version.
        ChainUnavailableError: The chain can't be reached now.
    """
    scheme, _, rest = url.partition(":")
    if scheme in ("ws", "wss"):
        # Imported here: its libraries take half a second, which an embedded chain does not need.
        from orchestrator.chain.substrate import SubstrateChain  # noqa: PLC0415

        return SubstrateChain(url, spending=spending)
    if scheme != "local":
        # Not shown: a part of it may be somebody's key.
        message = "chain: the URL is not of the form local:PATH, ws://HOST:PORT or wss://HOST"
        raise ConfigError(message)
    if not rest or rest == ":memory:":
        message = f"chain: {url!r} names no file"
        raise ConfigError(message)
    return EmbeddedChain(Path(rest), create=create)
