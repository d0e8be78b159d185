"""What was not tested for want of a node is counted and named at the end of a run."""

from types import SimpleNamespace

import pytest

_REASON = "Skipped: no node: set CONTRACTS_NODE, put contracts-devnode on PATH, or `make node`"


class Terminal:
    """Keeps what is written to it."""

    def __init__(self, skipped: list[SimpleNamespace]) -> None:
        self.stats = {"skipped": skipped} if skipped else {}
        self.said: list[str] = []

    def section(self, title: str) -> None:
        self.said.append(title)

    def line(self, text: str) -> None:
        self.said.append(text)


def summarized(request: pytest.FixtureRequest, reasons: dict[str, str]) -> list[str]:
    """Return what the hook of `tests/conftest.py` says of tests skipped for these reasons."""
    here = request.config.rootpath / "tests" / "conftest.py"
    plugins = request.config.pluginmanager.get_plugins()
    (conftest,) = [p for p in plugins if getattr(p, "__file__", None) == str(here)]
    skipped = [
        SimpleNamespace(nodeid=name, longrepr=(name, 1, reason)) for name, reason in reasons.items()
    ]
    terminal = Terminal(skipped)
    conftest.pytest_terminal_summary(terminal)
    return terminal.said


def test_skips_for_want_of_a_node_are_counted_and_named(request: pytest.FixtureRequest) -> None:
    said = summarized(
        request, {"a": _REASON, "b": "Skipped: this chain has one handle", "c": _REASON}
    )

    assert said[0].startswith("2 tests skipped for want of a node")
    assert said[1:] == ["a", "c"]


def test_nothing_is_said_where_nothing_was_skipped_for_it(request: pytest.FixtureRequest) -> None:
    assert summarized(request, {"b": "Skipped: this chain has one handle"}) == []
    assert summarized(request, {}) == []
