"""How a run is ended, and what it came to."""

from dataclasses import dataclass, field
from typing import Protocol

from orchestrator.metrics import EventKind, ServiceEvent

__all__ = ["RunSummary", "StopEvent"]

_REFUSALS = (EventKind.REFUSED, EventKind.ATTESTATION_REFUSED, EventKind.WORKER_REFUSED)


class StopEvent(Protocol):
    """Anything to wait for that says stop: an event of asyncio or of anyio."""

    async def wait(self) -> object: ...


@dataclass(kw_only=True)
class RunSummary:
    """
    What a run came to; `refusals` counts reasons, `open` what still needs something.

    `fees` is in planck.
    """

    counts: dict[EventKind, int] = field(default_factory=dict)
    refusals: dict[str, int] = field(default_factory=dict)
    open: int = 0
    fees: int = 0

    def add(self, event: ServiceEvent) -> None:
        """Count an event."""
        if event.kind is EventKind.FEE:
            self.fees += event.planck
            return
        self.counts[event.kind] = self.counts.get(event.kind, 0) + 1
        if event.kind in _REFUSALS:
            self.refusals[event.code] = self.refusals.get(event.code, 0) + 1
