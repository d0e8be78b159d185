"""Quotes of a simulated platform, for development and tests: they prove no TEE."""

import asyncio
from collections.abc import Callable
from pathlib import Path

from orchestrator.errors import InputError, QuoteUnavailableError
from orchestrator.quotes import PlatformEvidence
from orchestrator.simulator import load_simulator

__all__ = ["SimulatedQuoteSource"]


class SimulatedQuoteSource:
    """
    The simulator in *folder*, as it is at each quote: it may be updated in between.

    With each quote there is collateral of the time that *clock* (ms) tells.

    Raises:
        InputError: There is none.
    """

    name = "simulated TDX: proves no TEE"

    def __init__(self, folder: Path, *, clock: Callable[[], int]) -> None:
        load_simulator(folder)
        self._clock = clock
        self._folder = folder

    async def quote(self, report_data: bytes) -> PlatformEvidence:
        """See `QuoteSource.quote`; with the event log and the compose document of the guest."""
        try:
            return await asyncio.to_thread(self._quote, report_data)
        except InputError as error:
            raise QuoteUnavailableError(f"simulator: {error}") from error

    async def close(self) -> None:
        """Nothing is open."""

    def _quote(self, report_data: bytes) -> PlatformEvidence:
        simulator = load_simulator(self._folder)
        return PlatformEvidence(
            quote=simulator.quote(report_data),
            event_log=simulator.guest.event_log,
            compose=simulator.guest.compose,
            collateral=simulator.collateral(now=self._clock()),
        )
