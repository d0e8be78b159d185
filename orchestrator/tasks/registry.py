"""
Which tasks there are: the built-in ones, and those that installed packages announce.

A reference is `module:attribute`. Collecting references imports nothing of the tasks; loading one
does, and happens only in the process that forks the children.
"""

import importlib
import importlib.util
from collections.abc import Mapping

from orchestrator.errors import ConfigError
from orchestrator.tasks import ENTRY_POINT_GROUP, Task

__all__ = ["BUILT_IN_TASKS", "find_tasks", "has_requirements", "load_requirements", "load_task"]

BUILT_IN_TASKS: Mapping[str, str] = {
    "echo": "orchestrator.tasks.echo:echo",
    "onnx": "orchestrator.tasks.onnx:onnx",
}


def find_tasks() -> dict[str, str]:
    """
    Return the reference of every task by its name.

    Raises:
        ConfigError: Two packages announce different tasks under one name.
    """
    # A large import, of no use to the small process that children are forked from.
    from importlib.metadata import entry_points  # noqa: PLC0415

    references = dict(BUILT_IN_TASKS)
    for entry in entry_points(group=ENTRY_POINT_GROUP):
        if references.setdefault(entry.name, entry.value) != entry.value:
            raise ConfigError(
                f"task {entry.name}: announced as {references[entry.name]} and as {entry.value}"
            )
    return dict(sorted(references.items()))


def load_task(reference: str) -> Task:
    """
    Import the task.

    Raises:
        ConfigError: The reference does not name a task.
    """
    module_name, _, attribute = reference.partition(":")
    try:
        found = getattr(importlib.import_module(module_name), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(f"task {reference}: {error}") from error
    if isinstance(found, Task):
        return found
    if not callable(found):
        raise ConfigError(f"task {reference}: neither a Task nor a function")
    return Task(run=found)


def has_requirements(task: Task) -> bool:
    """Whether all modules that the task requires are installed."""
    return all(importlib.util.find_spec(name) is not None for name in task.requires)


def load_requirements(task: Task) -> None:
    """Import the modules that the task requires."""
    for name in task.requires:
        importlib.import_module(name)
