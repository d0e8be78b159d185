"""
The `CollateralSource` port: where a verifier gets what Intel says about a quote's platform.

Collateral proves itself by its signatures: a source is asked for availability, not for trust.
"""

from typing import Protocol

from orchestrator.evidence import Collateral

__all__ = ["CollateralSource"]


class CollateralSource(Protocol):
    """Gives collateral for quotes."""

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        """
        Return the newest collateral that there is for the quote's platform at *now* (ms).

        Raises:
            EncodingError: The quote can't be parsed.
            CollateralUnavailableError: There is none now.
        """
        ...

    def close(self) -> None: ...
