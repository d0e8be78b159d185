"""
A TEE platform of our own: quotes of Intel's format, under a root that proves nothing.

Development, the demo and the tests run the production verifier on what this issues. Under Intel's
root all of it is refused, and every certificate's name says that it is simulated. Time is
always an argument; only `folder` touches files.
"""

from orchestrator.simulator.authority import Authority
from orchestrator.simulator.folder import (
    create_simulator,
    load_simulator,
    store_recovery,
    store_update,
)
from orchestrator.simulator.guest import Guest, RuntimeEvent
from orchestrator.simulator.platform import Platform, Simulator
from orchestrator.simulator.tcb import Svns, TcbLevel, TcbRelease

__all__ = [
    "Authority",
    "Guest",
    "Platform",
    "RuntimeEvent",
    "Simulator",
    "Svns",
    "TcbLevel",
    "TcbRelease",
    "create_simulator",
    "load_simulator",
    "store_recovery",
    "store_update",
]
