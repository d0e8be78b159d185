"""
The worker: opens jobs, executes them, and signs what came of it.

It runs inside a TEE, so all that it imports is part of what has to be trusted.
"""

from orchestrator.worker.server import WorkerServer
from orchestrator.worker.settings import WorkerSettings
from orchestrator.worker.tokens import TokenEntry, TokenList, TokenScope

__all__ = ["TokenEntry", "TokenList", "TokenScope", "WorkerServer", "WorkerSettings"]
