"""What the package exports, and what a worker loads of it."""

import importlib
import subprocess
import sys

import pytest

import orchestrator.evidence as package


def test_exports_that_are_imported_late_are_those_of_their_modules() -> None:
    for name, home in package._HOMES.items():
        assert name in package.__all__
        module = importlib.import_module(f"orchestrator.evidence.{home}")
        assert getattr(package, name) is getattr(module, name)


def test_another_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        package.nothing  # noqa: B018  # asking for it is the test


def test_who_shows_evidence_does_not_load_what_judges_it() -> None:
    program = (
        "import sys, orchestrator.evidence, orchestrator.worker; "
        "print(sorted({'dcap_qvl', 'orchestrator.evidence.verifier'} & set(sys.modules)))"
    )

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"
