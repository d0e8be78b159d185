"""
Stand-ins for tests and development: a chain with the contract on it, accounts, a fixed clock.

Nothing here is for production, and nothing in production imports it.
"""

from orchestrator.testing.chain import (
    FixedClock,
    LocalAccount,
    deploy_processor,
    register_test_worker,
)

__all__ = ["FixedClock", "LocalAccount", "deploy_processor", "register_test_worker"]
