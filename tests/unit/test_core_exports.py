"""What the core packages export is sorted, exists, and reads neither clock nor files."""

import ast
from pathlib import Path
from types import ModuleType

import pytest

from orchestrator import attestation, crypto, encoding, evidence

PACKAGES = [attestation, crypto, encoding, evidence]
FORBIDDEN_CALLS = {"open", "print", "input"}


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_exports_are_sorted_and_exist(package: ModuleType) -> None:
    names = package.__all__

    assert names == sorted(set(names), key=lambda name: (not name.isupper(), *_case_key(name)))
    assert all(hasattr(package, name) for name in names)


def _case_key(name: str) -> tuple[bool, str]:
    """The order of ruff's RUF022: constants, then classes, then functions."""
    return (not name[0].isupper(), name)


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_the_core_calls_no_input_or_output(package: ModuleType) -> None:
    (folder,) = package.__path__
    sources = sorted(Path(folder).glob("*.py"))
    called = {
        f"{path.name}: {node.func.id}"
        for path in sources
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        if node.func.id in FORBIDDEN_CALLS
    }

    assert len(sources) > 1
    assert called == set()
