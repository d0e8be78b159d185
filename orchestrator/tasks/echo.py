"""The task that gives its input back: for trying things out, and for measuring the rest."""

from collections.abc import Mapping

from orchestrator.tasks import task

__all__ = ["echo"]


@task(time_seconds=10, cpu_seconds=5, memory_bytes=128 << 20)
def echo(data: bytes, parameters: Mapping[str, object]) -> bytes:
    """Return *data*; the parameters are not looked at."""
    del parameters
    return data
