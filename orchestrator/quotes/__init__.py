"""
The `QuoteSource` port: where a worker gets quotes of the platform that it runs on.

A quote is a claim that others verify; nothing here judges it.
"""

from dataclasses import dataclass
from typing import Protocol

from orchestrator.evidence import Collateral

__all__ = ["PlatformEvidence", "QuoteSource"]


@dataclass(frozen=True, kw_only=True)
class PlatformEvidence:
    """A quote with what the platform gives beside it, where it does."""

    quote: bytes
    event_log: bytes | None = None
    compose: bytes | None = None
    collateral: Collateral | None = None


class QuoteSource(Protocol):
    """A platform; `name` is what the worker's identity says about it, `simulated` included."""

    @property
    def name(self) -> str: ...

    async def quote(self, report_data: bytes) -> PlatformEvidence:
        """
        Return a quote that carries these 64 bytes.

        Raises:
            QuoteUnavailableError: The platform gives none now.
        """
        ...

    async def close(self) -> None: ...
