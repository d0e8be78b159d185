"""What holds for every test: which bundle is under test, and that nothing leaves this machine."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from orchestrator.chain import bundle as bundle_module
from orchestrator.chain.devnode import DevNode, find_node

# `make contract-check` sets this where it could not make the canonical build.
BUNDLE_VARIABLE = "PHALA_JOBS_BUNDLE"

_NO_NODE = "no node"
_HOW = "set CONTRACTS_NODE, put contracts-devnode on PATH, or `make node`"
_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "", None})  # noqa: S104 - nothing is bound here


@pytest.fixture(scope="session", autouse=True)
def bundle_under_test() -> Iterator[None]:
    """Let `load_bundle()` return the build that the variable names instead of the shipped one."""
    path = os.environ.get(BUNDLE_VARIABLE)
    if path is None:
        yield
        return
    other = bundle_module.load_bundle(Path(path))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundle_module, "_packaged", lambda: other)
        yield


@pytest.fixture(scope="session")
def node_program() -> Path:
    """The program of a development node; tests that want one are skipped where there is none."""
    program = find_node()
    if program is None:
        pytest.skip(f"{_NO_NODE}: {_HOW}")
    return program


@pytest.fixture(scope="session")
def node(node_program: Path) -> Iterator[DevNode]:
    """
    One node for all tests that do not stop it: a block for each transaction, final at once.

    It keeps the states of all blocks: what is in an old block can still be asked.
    """
    with DevNode(node_program) as running:
        yield running


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Count and name the tests that were skipped for want of a node."""
    skipped = [
        report.nodeid
        for report in terminalreporter.stats.get("skipped", [])
        if _NO_NODE in str(report.longrepr)
    ]
    if skipped:
        terminalreporter.section(f"{len(skipped)} tests skipped for want of a node: {_HOW}")
        for nodeid in skipped:
            terminalreporter.line(nodeid)


def _refuse_the_network(event: str, arguments: tuple[object, ...]) -> None:
    if event == "socket.getaddrinfo":
        host = arguments[0]
    elif event in {"socket.connect", "socket.sendto"}:
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None
    else:
        return
    if isinstance(host, bytes):
        host = host.decode()
    if host not in _LOOPBACK and not str(host).endswith(".invalid"):
        message = f"a test wanted to reach {host!r}; tests stay on this machine"
        raise RuntimeError(message)


sys.addaudithook(_refuse_the_network)
