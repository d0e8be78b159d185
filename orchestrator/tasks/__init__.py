"""
What a worker can execute.

A task is a function from bytes and parameters to bytes, with limits::

    from orchestrator.tasks import task

    @task(time_seconds=5, memory_bytes=64 << 20)
    def shout(data: bytes, parameters: Mapping[str, object]) -> bytes:
        return data.upper()

It is offered under the name of its entry point in the group `phala_jobs.tasks`. It runs in a
process of its own (`tasks.sandbox`), in an empty folder, and may raise `TaskError(code, message)`
to say what is wrong with its input: that answer is signed and sealed like a result. Whatever else
it raises is the code `TaskFailed`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import TypeAlias

from orchestrator.errors import ConfigError

__all__ = ["ENTRY_POINT_GROUP", "Limits", "Run", "Task", "TaskOutput", "task"]

ENTRY_POINT_GROUP = "phala_jobs.tasks"

Run: TypeAlias = Callable[[bytes, Mapping[str, object]], bytes]

_MIB = 1 << 20
# The plaintext of an envelope is at most 16 MiB; the rest is room for its CBOR.
_MAX_PLAINTEXT = 16 * _MIB
_MAX_OUTPUT = _MAX_PLAINTEXT - 64


@dataclass(frozen=True, kw_only=True)
class Limits:
    """
    What one run may use; past any of them it is stopped, and the job has failed.

    `memory_bytes` is private memory beyond that of the bare interpreter with its preloaded
    modules. `output_bytes` bounds the output and every file that the task writes.
    """

    time_seconds: float = 60.0
    cpu_seconds: int = 60
    memory_bytes: int = 512 * _MIB
    input_bytes: int = _MAX_PLAINTEXT
    output_bytes: int = _MAX_OUTPUT

    def __post_init__(self) -> None:
        for limit in fields(self):
            value = getattr(self, limit.name)
            if value <= 0:
                raise ConfigError(f"{limit.name}: {value}, must be greater than 0")
        if self.output_bytes > _MAX_OUTPUT:
            raise ConfigError(f"output_bytes: {self.output_bytes}, must be at most {_MAX_OUTPUT}")


@dataclass(frozen=True, kw_only=True)
class Task:
    """
    A function and its limits.

    A worker offers the task only where all modules named in `requires` are installed, and loads
    them before its first run.
    """

    run: Run
    limits: Limits = field(default_factory=Limits)
    requires: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TaskOutput:
    """What a task returned, and the CPU time (ms) that it took."""

    output: bytes
    cpu_ms: int


def task(
    *,
    time_seconds: float = Limits.time_seconds,
    cpu_seconds: int = Limits.cpu_seconds,
    memory_bytes: int = Limits.memory_bytes,
    input_bytes: int = Limits.input_bytes,
    output_bytes: int = Limits.output_bytes,
    requires: tuple[str, ...] = (),
) -> Callable[[Run], Task]:
    """Make the decorated function a `Task` with these limits."""
    limits = Limits(
        time_seconds=time_seconds,
        cpu_seconds=cpu_seconds,
        memory_bytes=memory_bytes,
        input_bytes=input_bytes,
        output_bytes=output_bytes,
    )

    def decorate(run: Run) -> Task:
        return Task(run=run, limits=limits, requires=requires)

    return decorate
