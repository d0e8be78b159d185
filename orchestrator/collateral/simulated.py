"""Collateral of a simulator's folder: issued anew at each call. Simulated: proves no TEE."""

from pathlib import Path

from orchestrator.collateral.facts import platform_of, read_facts, serve
from orchestrator.errors import CollateralUnavailableError, InputError
from orchestrator.evidence import Collateral
from orchestrator.simulator import load_simulator

__all__ = ["SimulatedCollateral"]


class SimulatedCollateral:
    """Stands for a PCCS of the simulator in *folder*; *early* as a PCCS has it."""

    def __init__(self, folder: Path, *, early: bool = False) -> None:
        self._folder = folder
        self._early = early

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        kind = platform_of(quote)
        try:
            simulator = load_simulator(self._folder)
        except InputError as error:
            raise CollateralUnavailableError(str(error)) from error
        issued_at = now // 1_000 * 1_000  # what Intel writes has whole seconds
        made = simulator.collateral(now=issued_at, early=self._early)
        return serve(made, read_facts(made), kind, now=now, where=f"simulator {self._folder}")

    def close(self) -> None:
        """Nothing is open."""
