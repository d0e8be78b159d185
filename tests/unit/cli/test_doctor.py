"""`doctor`: each thing that can be wrong is found, alone, with what to do and the exit code."""

import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chain import Block, url
from orchestrator.chain import bundle as bundles
from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.cli import examination
from orchestrator.errors import (
    ChainMismatchError,
    ChainUnavailableError,
    ContractError,
    InsufficientFundsError,
)

from .conftest import Ran, Run
from .priced import CALL, PricedChain
from .world import OPERATOR, World

ALL = {
    "node",
    "clock",
    "head",
    "contract",
    "code hash",
    "genesis hash",
    "version",
    "mode",
    "workers",
    "registrations",
    "policy",
    "evidence",
    "collateral",
    "trust",
    "account",
    "limits",
    "money",
    "roles",
    "spending limits",
    "trusted node",
    "workers' endpoints",
    "orchestrators",
}
AT_CONTRACT = {
    "mode",
    "workers",
    "registrations",
    "evidence",
    "collateral",
    "trust",
    "limits",
    "roles",
    "workers' endpoints",
}


def examined(run: Run, *words: object, **environment: str) -> tuple[Ran, dict[str, Any]]:
    ran = run("doctor", "--json", *words, **environment)
    return ran, {finding["check"]: finding for finding in ran.document["checks"]}


def not_ok(findings: dict[str, Any]) -> dict[str, str]:
    return {
        name: finding["outcome"] for name, finding in findings.items() if finding["outcome"] != "ok"
    }


@pytest.fixture(autouse=True)
def endpoints(monkeypatch: pytest.MonkeyPatch) -> dict[int, str]:
    """What is wrong with each worker's endpoint: nothing, until told otherwise."""
    troubles: dict[int, str] = {}

    async def ask(worker: Any) -> str:  # noqa: ANN401 - a worker
        return troubles.get(worker.worker, "")

    monkeypatch.setattr(examination, "_ask_worker", ask)
    return troubles


def test_where_all_is_well_nothing_is_told_and_nothing_sent(run: Run, world: World) -> None:
    with world.chain() as chain:
        before = chain.finalized_head()

    ran, findings = examined(run)

    assert ran.exit_code == 0, ran.stdout
    assert set(findings) == ALL
    assert not_ok(findings) == {}
    assert findings["workers"]["found"] == "2 registered, 2 trusted now"
    assert findings["roles"]["found"] == "admin, Registrar"
    assert findings["limits"]["found"].startswith("a job of 8192 bytes would be taken; 60 more")
    with world.chain() as chain:
        assert chain.finalized_head() == before


def test_the_table_names_each_check_and_the_hints_follow(run: Run, world: World) -> None:
    run("mode", "set", "Draining")

    ran = run("doctor")

    assert all(name in ran.stdout for name in ALL)
    assert "mode: the admin: phala-jobs mode set running" in ran.stderr


def open_instead(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def open_chain(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(url, "open_chain", open_chain)


def test_a_node_that_does_not_answer_is_not_known(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_instead(monkeypatch, ChainUnavailableError("the node can't be reached"))

    ran, findings = examined(run)

    assert ran.exit_code == 3
    assert findings["node"]["outcome"] == "unknown"
    assert "phala-jobs chain run" in findings["node"]["hint"]
    assert findings["mode"]["found"] == "not judged, because of: node"
    assert findings["account"]["outcome"] == "ok"


def test_a_chain_that_runs_no_contracts_fails(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_instead(monkeypatch, ChainMismatchError("has no pallet-contracts"))

    ran, findings = examined(run)

    assert ran.exit_code == 1
    assert findings["node"]["outcome"] == "fail"
    assert "has no pallet-contracts" in findings["node"]["found"]


def test_a_url_that_is_none_fails(run: Run, world: World) -> None:
    ran, findings = examined(run, "--chain", "http://127.0.0.1:1")

    assert ran.exit_code == 1
    assert findings["node"]["outcome"] == "fail"


@pytest.fixture
def head(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Put the last block's time so many ms before the clock, on what looks like a node."""

    def put(age: int) -> None:
        monkeypatch.setattr(examination, "OLD_HEAD_MS", 60_000)
        moment = examination_clock()

        def finalized_head(self: EmbeddedChain) -> Block:
            return Block(number=7, hash=bytes(32), timestamp=moment - age)

        monkeypatch.setattr(EmbeddedChain, "finalized_head", finalized_head)
        monkeypatch.setattr("orchestrator.cli.doctor._clock", lambda: moment)

    return put


def examination_clock() -> int:
    return 1_800_000_000_000


def as_node(world: World, monkeypatch: pytest.MonkeyPatch) -> tuple[str, ...]:
    """Open the world's chain for a node's URL, which is trusted."""

    def open_chain(*_: object, **__: object) -> EmbeddedChain:
        return EmbeddedChain(world.path, create=False)

    monkeypatch.setattr(url, "open_chain", open_chain)
    return ("--chain", "ws://node", "--trusted-nodes", "ws://node")


@pytest.mark.parametrize(("age", "outcome"), [(60_000, "ok"), (60_001, "warn")])
def test_a_node_whose_head_is_old_is_told_of(
    run: Run,
    world: World,
    head: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    age: int,
    outcome: str,
) -> None:
    head(age)

    ran, findings = examined(run, *as_node(world, monkeypatch))

    assert ran.exit_code == 0
    assert findings["head"]["outcome"] == outcome
    assert ("idle development chain" in findings["head"]["hint"]) == (outcome == "warn")


def test_an_idle_embedded_chain_is_no_fault(
    run: Run, world: World, head: Callable[[int], None]
) -> None:
    head(3_600_000)

    assert examined(run)[1]["head"]["outcome"] == "ok"


@pytest.mark.parametrize(("ahead", "outcome"), [(60_000, "ok"), (60_001, "fail")])
def test_a_chain_that_is_ahead_of_our_clock_fails(
    run: Run, world: World, head: Callable[[int], None], ahead: int, outcome: str
) -> None:
    head(-ahead)

    ran, findings = examined(run)

    assert findings["clock"]["outcome"] == outcome
    assert ran.exit_code == (1 if outcome == "fail" else 0)


def test_an_address_without_a_contract_fails_and_the_rest_is_not_judged(
    run: Run, world: World
) -> None:
    ran, findings = examined(run, "--contract", "0x" + "11" * 32)

    assert ran.exit_code == 1
    assert not_ok(findings) == {
        "contract": "fail",
        **dict.fromkeys({"code hash", "genesis hash", "version"} | AT_CONTRACT, "unknown"),
    }


def test_other_code_fails(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    other = replace(load_bundle(), code_hash=b"\x01" * 32)
    monkeypatch.setattr(bundles, "load_bundle", lambda _path: other)

    ran, findings = examined(run)

    assert ran.exit_code == 1
    assert findings["code hash"]["outcome"] == "fail"
    assert "0x0101" in findings["code hash"]["found"]
    assert "--bundle" in findings["code hash"]["hint"]


@pytest.fixture
def answer(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, object], None]:
    """Let reads of a message answer something else."""

    def answer(label: str, value: object) -> None:
        inside = EmbeddedChain.read

        def read(self: EmbeddedChain, call: Any) -> Any:  # noqa: ANN401 - as generic as the port
            return value if call.label == label else inside(self, call)

        monkeypatch.setattr(EmbeddedChain, "read", read)

    return answer


@pytest.mark.parametrize(
    ("label", "value", "check", "found"),
    [
        ("genesis_hash", b"\x07" * 32, "genesis hash", "deployed for 0x0707"),
        ("version", 2, "version", "of version 2, and this program knows 1"),
    ],
)
def test_a_contract_of_another_chain_or_version_fails(
    run: Run,
    world: World,
    answer: Callable[[str, object], None],
    label: str,
    value: object,
    check: str,
    found: str,
) -> None:
    answer(label, value)

    ran, findings = examined(run)

    assert ran.exit_code == 1
    assert findings[check]["outcome"] == "fail"
    assert found in findings[check]["found"]
    failed = {name for name, outcome in not_ok(findings).items() if outcome == "fail"}
    assert failed == {check}


@pytest.mark.parametrize("mode", ["Draining", "Halted"])
def test_a_contract_that_takes_no_jobs_is_told_of(run: Run, world: World, mode: str) -> None:
    run("mode", "set", mode)

    ran, findings = examined(run)

    assert ran.exit_code == 0
    assert not_ok(findings) == {"mode": "warn", "limits": "warn"}
    assert findings["mode"]["found"].startswith(f"{mode}: no job is taken")


def test_without_a_trusted_worker_it_fails(run: Run, world: World) -> None:
    for worker in (1, 2):
        run("workers", "suspend", worker)

    ran, findings = examined(run)

    assert ran.exit_code == 1
    assert findings["workers"]["outcome"] == "fail"
    assert findings["workers"]["found"] == "2 registered, 0 trusted now"


def test_registrations_that_end_inside_the_window_fail(run: Run, world: World) -> None:
    ran, findings = examined(run)
    longer, of_longer = examined(run, "--window", "30d")

    assert (ran.exit_code, findings["registrations"]["outcome"]) == (0, "ok")
    assert (longer.exit_code, not_ok(of_longer)) == (1, {"registrations": "fail"})
    assert "worker 1 on " in of_longer["registrations"]["found"]


def test_without_an_account_what_is_about_it_is_not_judged(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PHALA_JOBS_ACCOUNT_FILE")

    ran, findings = examined(run)

    assert ran.exit_code == 1
    assert not_ok(findings) == {
        "account": "fail",
        "limits": "unknown",
        "money": "unknown",
        "roles": "unknown",
    }


def test_an_encrypted_identity_needs_no_passphrase_here(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    passphrase = tmp_path / "passphrase"
    passphrase.touch(mode=0o600)
    passphrase.write_text("secret")
    words = ("--development", "//Bob", "--keys-unencrypted", "--passphrase-file", passphrase)
    made = run("keys", "import", "bob", *words)
    assert made.exit_code == 0, made.stderr
    monkeypatch.delenv("PHALA_JOBS_ACCOUNT_FILE")

    _, findings = examined(run, account="bob")

    assert findings["roles"]["found"] == "Operator"


def test_a_stranger_is_told_that_it_has_no_role(
    run: Run, world: World, secret_file: Callable[[str, str], Path]
) -> None:
    _, findings = examined(run, "--account-file", secret_file("charlie", "//Charlie"))

    assert findings["roles"]["found"].startswith("none: enough to submit jobs")
    assert OPERATOR.account_id.hex() not in findings["account"]["found"]


EACH = CALL.fee + CALL.deposit


@pytest.mark.parametrize(
    ("balance", "outcome", "code"),
    [
        (10 * EACH, "ok", 0),
        (10 * EACH - 1, "warn", 0),
        (EACH, "warn", 0),
        (EACH - 1, "fail", 1),
        (0, "fail", 1),
    ],
)
def test_the_account_s_money_is_counted_in_jobs(
    run: Run,
    world: World,
    priced: type[PricedChain],
    balance: int,
    outcome: str,
    code: int,
) -> None:
    priced.balance = balance

    ran, findings = examined(run)

    assert (ran.exit_code, findings["money"]["outcome"]) == (code, outcome)
    assert set(not_ok(findings)) <= {"money"}


def test_how_many_jobs_are_wanted_can_be_said(
    run: Run, world: World, priced: type[PricedChain]
) -> None:
    priced.balance = 2 * EACH

    assert examined(run, "--submits", 2)[1]["money"]["outcome"] == "ok"
    assert examined(run, "--submits", 3)[1]["money"]["outcome"] == "warn"


def estimate_instead(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def estimate(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(EmbeddedChain, "estimate", estimate)


@pytest.mark.parametrize(
    ("error", "outcome", "hint"),
    [
        (ContractError("RateLimited"), "warn", "rate window: wait"),
        (InsufficientFundsError(), "unknown", "send it money"),
        (ChainUnavailableError(), "unknown", ""),
        (ChainMismatchError(), "fail", ""),
    ],
)
def test_a_largest_job_that_is_not_taken_is_told_of(
    run: Run,
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    outcome: str,
    hint: str,
) -> None:
    estimate_instead(monkeypatch, error)

    ran, findings = examined(run)

    assert not_ok(findings) == {"limits": outcome}
    assert hint in findings["limits"]["hint"]
    assert ran.exit_code == {"warn": 0, "unknown": 3, "fail": 1}[outcome]


def test_spending_limits_are_shown_and_a_damaged_file_fails(
    run: Run, world: World, tmp_path: Path
) -> None:
    file = tmp_path / "spending.json"
    limits = ("--max-fee-per-call", 5, "--max-spend-per-day", 7, "--spending-file", file)

    _, fine = examined(run, *limits)
    _, spent = examined(run, "--max-spend-per-day", 0, "--spending-file", file)
    file.write_text("?")
    ran, damaged = examined(run, *limits)

    assert fine["spending limits"]["found"] == (
        "fee of a call at most 5 planck; 0 planck of 7 planck spent today"
    )
    assert spent["spending limits"]["outcome"] == "warn"
    assert (ran.exit_code, not_ok(damaged)) == (1, {"spending limits": "fail"})


def test_a_node_that_is_not_trusted_is_told_of(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    words = as_node(world, monkeypatch)[:2]

    _, findings = examined(run, *words)

    assert findings["trusted node"]["outcome"] == "warn"
    assert "--trusted-nodes ws://node" in findings["trusted node"]["hint"]

    policy = tmp_path / "policy.toml"
    policy.write_text("version = 1\n")
    _, findings = examined(run, *words, "--policy", policy)

    assert findings["trusted node"]["outcome"] == "ok"
    assert "not needed" in findings["trusted node"]["found"]


def test_a_worker_that_does_not_answer_is_told_of(
    run: Run, world: World, endpoints: dict[int, str]
) -> None:
    endpoints[2] = "no answer"

    ran, findings = examined(run)

    assert (ran.exit_code, not_ok(findings)) == (0, {"workers' endpoints": "warn"})
    assert findings["workers' endpoints"]["found"] == "worker 2: no answer"


@pytest.fixture
def web() -> Iterator[str]:
    """A web server that has nothing."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.send_response(404)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_an_orchestrator_that_does_not_answer_is_told_of(run: Run, world: World, web: str) -> None:
    _, answering = examined(run, "--blob-sources", web)
    ran, silent = examined(run, "--blob-sources", "http://127.0.0.1:1")

    assert answering["orchestrators"]["found"] == "all 1 answer"
    assert (ran.exit_code, not_ok(silent)) == (0, {"orchestrators": "warn"})


def test_a_failure_weighs_more_than_what_could_not_be_told(
    run: Run, world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    open_instead(monkeypatch, ChainUnavailableError())
    (tmp_path / "spending.json").write_text("?")

    ran, findings = examined(
        run, "--max-spend-per-day", 1, "--spending-file", tmp_path / "spending.json"
    )

    assert findings["node"]["outcome"] == "unknown"
    assert ran.exit_code == 1
