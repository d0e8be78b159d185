"""A worker's life on a real node: registered, renewed, rotated, kept alive, revoked."""

import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.chain.devnode import DevNode
from orchestrator.chain.url import open_chain
from orchestrator.config import PREFIX
from orchestrator.registrar import Outcome

from .conftest import Run
from .tee_world import make_simulator, policy_text, serve_worker
from .world import World, populate

Write = Callable[[str, str], Path]


@pytest.fixture
def deployed(node: DevNode) -> Iterator[World]:
    """A contract of its own on the node, with two workers that have no evidence."""
    empty = World(path=Path("nowhere"), url=node.url, contract=bytes(32), workers={}, blobs={})
    chain = open_chain(node.url)
    yield populate(empty, chain, "http://127.0.0.1:1", salt=secrets.token_bytes(8))
    chain.close()


def test_a_worker_from_its_registration_to_its_end(
    run: Run,
    deployed: World,
    secret_file: Write,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    simulator = make_simulator(tmp_path / "simulator")
    policy = tmp_path / "policy.toml"
    policy.write_text(policy_text(simulator))
    for name, value in {
        **deployed.settings,
        "account_file": str(secret_file("alice", "//Alice")),
        "policy": str(policy),
        "registrar_workers": "3,4",
    }.items():
        monkeypatch.setenv(PREFIX + name.upper(), value)

    with serve_worker(deployed, tmp_path / "worker", tmp_path / "simulator") as worker:
        token = secret_file("tokens.toml", f'"{worker.url}" = "{worker.token}"\n')
        monkeypatch.setenv(PREFIX + "REGISTRAR_TOKENS", str(token))
        short = ("--valid-for", "2h", "--json")
        registered = run("workers", "register", worker.url, "--allow-measurement", "--yes", *short)
        renewed = run("workers", "renew", 3, "--valid-for", "3h", "--json")
        rotated = run("workers", "rotate", 3, *short)
        kept = run("registrar", "once", "--json")
        machine = simulator.platform.ppid.hex()
        revoked = run("workers", "revoke", "--platform", machine, "--reason", "end", "--json")

    assert registered.exit_code == 0, registered.stderr
    assert registered.document["worker"] == 3
    assert registered.document["fee"] > 0
    assert renewed.exit_code == 0, renewed.stderr
    assert renewed.document["valid_until"] > registered.document["valid_until"]
    assert rotated.exit_code == 0, rotated.stderr
    assert (rotated.document["worker"], rotated.document["replaces"]) == (4, 3)
    assert kept.exit_code == 0, kept.stderr
    assert {one["worker"]: one["outcome"] for one in kept.document["workers"]} == {
        3: Outcome.REPLACED.value,
        4: Outcome.RENEWED.value,
    }
    assert revoked.exit_code == 3  # the two without evidence could not be told
    assert revoked.document["revoked"] == [3, 4]
    listed = run("workers", "list", "--json").document["workers"]
    assert [one["status"] for one in listed] == ["Active", "Active", "Revoked", "Revoked"]
