"""
The command `phala-jobs`: one module per noun, the only package that knows every adapter.

Printing and exit codes belong here alone. Modules import what they need inside the command that
needs it, so that `--help` takes a fraction of a second.
"""

from orchestrator.cli.app import app, main

__all__ = ["app", "main"]
