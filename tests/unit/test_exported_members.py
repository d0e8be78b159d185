"""What `import orchestrator` promises."""

import doctest
import importlib
import subprocess
import sys

import pytest

import orchestrator


def test_the_public_names_are_few_sorted_and_there() -> None:
    assert orchestrator.__all__ == sorted(orchestrator.__all__)
    assert len(orchestrator.__all__) == len(set(orchestrator.__all__)) <= 12
    assert set(orchestrator._HOMES) == set(orchestrator.__all__)
    for name in orchestrator.__all__:
        value = getattr(orchestrator, name)
        home = importlib.import_module(f"orchestrator.{orchestrator._HOMES[name]}")
        assert value is getattr(home, name)
        assert value.__doc__, name
        assert name in dir(orchestrator)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        orchestrator.nothing  # noqa: B018  # asking for it is the test


def test_importing_the_package_imports_nothing_else_of_it() -> None:
    program = (
        "import sys, orchestrator; "
        "print([name for name in sys.modules if name.startswith('orchestrator.')])"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_the_example_of_the_docstring_runs() -> None:
    found = doctest.testmod(orchestrator, optionflags=doctest.FAIL_FAST)

    assert found.attempted >= 14
    assert found.failed == 0
