"""The command line on a real node: what costs money, an upgrade with live jobs, bad input."""

import json
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.devnode import DevNode
from orchestrator.chain.processor import JobProcessor
from orchestrator.chain.url import open_chain
from orchestrator.config import PREFIX
from orchestrator.encoding import to_ss58
from orchestrator.models import Mode, Parameters

from .conftest import Run
from .world import ADMIN, World, blob_server, populate, write_other_build


@pytest.fixture(scope="module")
def deployed(node: DevNode, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A contract with two workers on the node."""
    blobs: dict[str, bytes] = {}
    with blob_server(blobs) as url:
        empty = World(
            path=Path("nowhere"), url=node.url, contract=bytes(32), workers={}, blobs=blobs
        )
        chain = open_chain(node.url)
        yield populate(empty, chain, url, salt=secrets.token_bytes(8))
        chain.close()


@pytest.fixture
def owner(run: Run, deployed: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The settings name the node, the contract and an identity of //Alice."""
    for name, value in {
        **deployed.settings,
        "trusted_nodes": deployed.url,
        "keys_unencrypted": "true",
        "account": "alice",
    }.items():
        monkeypatch.setenv(PREFIX + name.upper(), value)
    assert run("keys", "import", "alice", "--development", "//Alice").exit_code == 0
    return deployed


def test_deploying_shows_its_cost_asks_and_pays_no_more(run: Run, owner: World) -> None:
    words = ("contract", "deploy", "--salt", secrets.token_hex(8))

    asked = run(*words)
    deployed = run(*words, "--yes", "--json")

    assert asked.exit_code == 2
    assert "costs a fee of at most" in asked.stderr
    assert deployed.exit_code == 0, deployed.stderr
    document = deployed.document
    assert 0 < document["fee"] <= document["estimate"]["fee_at_most"]
    assert 0 < document["deposit"] <= document["estimate"]["deposit"]
    assert "admin" in run("doctor", "--json", "--contract", document["contract"]).stdout


def test_a_job_costs_what_was_foreseen_and_its_deposit_comes_back(run: Run, owner: World) -> None:
    foreseen = run("submit", "echo", "-", "--dry-run", "--json", stdin=b"x").document
    submitted = run("submit", "echo", "-", "--json", stdin=b"x").document
    job = submitted["job_id"]
    run("cancel", job)
    purged = run("purge", job, "--json").document

    assert 0 < submitted["fee"] <= foreseen["fee_at_most"]
    assert 0 < submitted["deposit"] <= foreseen["deposit"]
    assert purged["deposit"] < 0 < purged["fee"]


def test_spending_limits_hold_before_anything_is_sent(run: Run, owner: World) -> None:
    with owner.any_chain() as chain:
        before = chain.account(ADMIN.account_id)

    per_call = run("submit", "echo", "-", "--json", "--max-fee-per-call", 1, stdin=b"limit")
    per_day = run("submit", "echo", "-", "--json", "--max-spend-per-day", 1, stdin=b"limit")

    assert [ran.document["error"] for ran in (per_call, per_day)] == ["SpendingLimitError"] * 2
    assert [ran.exit_code for ran in (per_call, per_day)] == [1, 1]
    with owner.any_chain() as chain:
        assert chain.account(ADMIN.account_id) == before


def test_live_jobs_go_on_across_an_upgrade(run: Run, owner: World, tmp_path: Path) -> None:
    build = write_other_build(tmp_path / "other.contract")
    jobs = [run("submit", "echo", "-", "--json", stdin=b"%d" % n).document for n in range(2)]
    first, second = (job["job_id"] for job in jobs)
    owner.attest(first)

    upgraded = run("contract", "upgrade", "--bundle", build, "--yes", "--json")

    assert upgraded.exit_code == 0, upgraded.stderr
    document = upgraded.document
    assert document["upgraded"]
    assert document["mode"] == "Running"
    assert document["upload_cost"] > 0 < document["fee"]
    owner.attest(second)
    assert run("result", first, "--bundle", build).stdout_bytes == b"0"
    assert run("result", second, "--bundle", build).stdout_bytes == b"1"
    assert run("contract", "info").exit_code == 1
    back = run("contract", "upgrade", "--yes", "--json")
    assert back.document["code_hash"] == document["code_hash_before"]
    with owner.any_chain() as chain:
        assert chain.read(owner.processor.mode()) is Mode.RUNNING


def test_doctor_finds_the_money_and_the_limits(run: Run, owner: World) -> None:
    ran = run("doctor", "--json")

    findings = {finding["check"]: finding for finding in ran.document["checks"]}
    assert "answers, has pallet-contracts" in findings["node"]["found"]
    assert findings["limits"]["outcome"] == "ok", findings["limits"]
    assert findings["money"]["outcome"] == "ok"
    assert "of the largest jobs (fee " in findings["money"]["found"]


def test_events_are_those_of_this_contract(run: Run, owner: World) -> None:
    ran = run("chain", "events", "--json")

    names = [json.loads(line)["event"] for line in ran.stdout.splitlines()]
    assert names[:5] == [
        "RoleGranted",
        "RoleGranted",
        "MeasurementAllowed",
        "WorkerRegistered",
        "WorkerRegistered",
    ]


def test_jobs_are_watched(run: Run, owner: World) -> None:
    job = run("submit", "echo", "-", "--json", stdin=b"x").document["job_id"]
    run("cancel", job)

    ran = run("watch", job, "--json")

    assert (ran.exit_code, json.loads(ran.stdout)["status"]) == (0, "Cancelled")


# Bad input.


def test_an_account_without_money_is_named_and_nothing_is_sent(
    run: Run, owner: World, secret_file: Callable[[str, str], Path]
) -> None:
    poor = ("--account-file", secret_file("poor", "//Nobody"), "--json")

    deployed = run("contract", "deploy", "--yes", *poor)
    cancelled = run("account", "release", *poor)
    examined = run("doctor", *poor)

    for ran in (deployed, cancelled):
        assert (ran.exit_code, ran.document["error"]) == (1, "InsufficientFundsError"), ran.stderr
    outcomes = {one["check"]: one["outcome"] for one in examined.document["checks"]}
    assert outcomes["money"] == "fail"


def test_an_address_without_our_contract_is_refused(run: Run, owner: World) -> None:
    ran = run("contract", "info", "--contract", to_ss58(ADMIN.account_id), "--json")

    assert (ran.exit_code, ran.document["error"]) == (1, "ChainMismatchError")
    assert "there is no contract at this address" in ran.document["message"]


@pytest.mark.parametrize(
    ("chain", "code", "error"),
    [
        ("ws://127.0.0.1:1", 3, "ChainUnavailableError"),
        ("ws://nowhere.invalid:9944", 3, "ChainUnavailableError"),
        ("http://127.0.0.1:9944", 2, "ConfigError"),
        ("ws://", 2, "ConfigError"),
        ("ws://127.0.0.1:999999", 2, "ConfigError"),
    ],
)
def test_a_wrong_url_is_told_by_name(
    run: Run, owner: World, chain: str, code: int, error: str
) -> None:
    ran = run("contract", "info", "--chain", chain, "--json")

    assert (ran.exit_code, ran.document["error"]) == (code, error), ran.stderr


def test_a_contract_deployed_for_another_genesis_is_refused(
    run: Run, owner: World, deployed: World
) -> None:
    bundle = load_bundle()
    with owner.any_chain() as chain:
        constructor = JobProcessor(bytes(32)).new(b"\x07" * 32, Parameters())
        other = chain.deploy(bundle.code, constructor, signer=ADMIN, salt=secrets.token_bytes(8))

    submitted = run(
        *("submit", "echo", "-", "--json", "--contract", to_ss58(other.contract)), stdin=b"x"
    )

    assert (submitted.exit_code, submitted.document["error"]) == (1, "ChainMismatchError")
    assert "was deployed for genesis 0x0707" in submitted.document["message"]
