"""The tree that `errors` draws is the tree of its classes."""

import inspect

from orchestrator import errors
from orchestrator.client import JobFailedError
from orchestrator.evidence import EvidenceError

INDENT = 4


def _drawn() -> dict[str, str | None]:
    """The parent of each name in the drawing."""
    parents: dict[str, str | None] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").split("::")[1].split("All live here")[0].splitlines():
        name = line.strip("│├└─ ").split(" ")[0]
        if not name.endswith("Error"):
            continue
        depth = (line.index(name) - INDENT) // INDENT
        del path[depth:]
        parents[name] = path[-1] if path else None
        path.append(name)
    return parents


def test_the_drawing_has_every_error_below_its_parent() -> None:
    classes = [
        held
        for held in vars(errors).values()
        if inspect.isclass(held) and issubclass(held, errors.Error)
    ]
    expected: dict[str, str | None] = {
        error.__name__: error.__bases__[0].__name__
        for error in [*classes, JobFailedError, EvidenceError]
    }

    assert _drawn() == {**expected, "Error": None}
