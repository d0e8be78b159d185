"""What costs money says how much, asks where it is much, and keeps within limits."""

from pathlib import Path

import pytest

from orchestrator.cli import costs
from orchestrator.cli.costs import Paid
from orchestrator.config import PREFIX
from orchestrator.encoding import to_ss58
from orchestrator.errors import InsufficientFundsError

from .conftest import Run
from .priced import CALL, DEPLOYMENT, PAID, PricedChain
from .world import ADMIN, World

ALICE = to_ss58(ADMIN.account_id)


@pytest.fixture
def deploy(tmp_path: Path) -> tuple[object, ...]:
    account = tmp_path / "alice"
    account.touch(mode=0o600)
    account.write_text("//Alice")
    chain = f"local:{tmp_path / 'new.db'}"
    return ("contract", "deploy", "--chain", chain, "--account-file", account)


def test_deploying_for_money_needs_a_yes_where_nobody_can_be_asked(
    run: Run, priced: type[PricedChain], deploy: tuple[object, ...]
) -> None:
    ran = run(*deploy)

    assert ran.exit_code == 2
    assert "costs a fee of at most 3,000 planck and a deposit of 900,000 planck" in ran.stderr
    assert "the account has 1,000,000,000 planck" in ran.stderr
    assert "give --yes" in ran.stderr
    assert priced.sent == []


def test_a_yes_to_upgrades_is_none_to_deploying(
    run: Run, priced: type[PricedChain], deploy: tuple[object, ...]
) -> None:
    asked = run(*deploy, contract_upgrade_yes="true")

    assert asked.exit_code == 2
    assert "give --yes" in asked.stderr
    assert priced.sent == []
    assert run(*deploy, contract_deploy_yes="true").exit_code == 0


def test_deploying_with_a_yes_shows_what_it_cost(
    run: Run, priced: type[PricedChain], deploy: tuple[object, ...]
) -> None:
    ran = run(*deploy, "--yes", "--json")

    assert ran.exit_code == 0, ran.stderr
    assert (ran.document["fee"], ran.document["deposit"]) == (3_000, 900_000)
    assert ran.document["estimate"] == {
        "fee_at_most": DEPLOYMENT.fee,
        "deposit": DEPLOYMENT.deposit,
        "ref_time": DEPLOYMENT.ref_time,
        "proof_size": DEPLOYMENT.proof_size,
        "balance": 1_000_000_000,
    }
    assert "paid a fee of 3,000 planck; a deposit of 900,000 planck is held" in ran.stderr


@pytest.mark.parametrize(("answer", "code", "sent"), [("y", 0, ["deploy"]), ("n", 1, [])])
def test_at_a_terminal_it_asks(
    run: Run,
    priced: type[PricedChain],
    deploy: tuple[object, ...],
    monkeypatch: pytest.MonkeyPatch,
    answer: str,
    code: int,
    sent: list[str],
) -> None:
    monkeypatch.setattr(costs, "is_interactive", lambda: True)

    ran = run(*deploy, stdin=answer.encode() + b"\n")

    assert ran.exit_code == code
    assert "Go on?" in ran.stderr
    assert priced.sent == sent


def test_an_account_that_cannot_pay_is_refused_before_anything_is_sent(
    run: Run, priced: type[PricedChain], deploy: tuple[object, ...]
) -> None:
    priced.balance = DEPLOYMENT.fee + DEPLOYMENT.deposit - 1

    ran = run(*deploy, "--yes", "--json")

    assert (ran.exit_code, ran.document["error"]) == (1, "InsufficientFundsError")
    assert "has 902,999 planck, and up to 903,000 planck are needed" in ran.document["message"]
    assert priced.sent == []


def test_without_money_nothing_is_asked(run: Run, deploy: tuple[object, ...]) -> None:
    ran = run(*deploy, "--json")

    assert ran.exit_code == 0, ran.stderr
    assert ran.document["estimate"]["fee_at_most"] is None
    assert "paid" not in ran.stderr


@pytest.fixture
def owner(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The settings name an identity of //Alice that may submit."""
    monkeypatch.setenv(PREFIX + "KEYS_UNENCRYPTED", "true")
    monkeypatch.setenv(PREFIX + "ACCOUNT", "alice")
    ran = run("keys", "import", "alice", "--development", "//Alice")
    assert ran.exit_code == 0, ran.stderr
    return world


def test_a_submission_shows_its_cost_and_a_purge_what_comes_back(
    run: Run, priced: type[PricedChain], owner: World
) -> None:
    submitted = run("submit", "echo", "-", "--json", stdin=b"x")
    cancelled = run("cancel", 1, "--json")
    purged = run("purge", 1, "--json")

    assert submitted.document == {"job_id": 1, "fee": PAID, "deposit": CALL.deposit}
    assert (
        "a deposit of 50,000 planck is held; phala-jobs purge 1 and account release return it"
        in submitted.stderr
    )
    assert cancelled.document["fee"] == PAID
    assert purged.document == {
        "job_id": 1,
        "purged": True,
        "fee": PAID,
        "deposit": -CALL.deposit,
    }
    assert "a deposit of 50,000 planck came back" in purged.stderr


def test_a_submission_above_the_limit_is_kept_for_later(
    run: Run, priced: type[PricedChain], owner: World
) -> None:
    words = ("submit", "echo", "-", "--json")

    refused = run(*words, "--max-fee-per-call", 1, stdin=b"x")
    unfinished = run("jobs", "--json").document["unfinished"]
    again = run(*words, stdin=b"x")

    assert (refused.exit_code, refused.document["error"]) == (1, "SpendingLimitError")
    assert "jobs --resume, or the same command again, sends it" in refused.document["message"]
    assert (unfinished, again.document["job_id"]) == (1, 1)
    assert priced.sent == ["submit_confidential_job"]
    assert run("jobs", "--json").document["unfinished"] == 0


def test_a_submission_that_was_made_before_costs_nothing_again(
    run: Run, priced: type[PricedChain], owner: World
) -> None:
    run("submit", "echo", "-", "--key", "k", stdin=b"x")

    again = run("submit", "echo", "-", "--key", "k", "--json", stdin=b"x")

    assert again.document == {"job_id": 1, "fee": None, "deposit": None}
    assert "paid" not in again.stderr


def test_a_dry_run_says_the_cost_and_sends_nothing(
    run: Run, priced: type[PricedChain], owner: World
) -> None:
    ran = run("submit", "echo", "-", "--dry-run", "--json", stdin=b"x")

    assert ran.exit_code == 0, ran.stderr
    assert ran.document == {
        "dry_run": True,
        "fee_at_most": CALL.fee,
        "deposit": CALL.deposit,
        "ref_time": CALL.ref_time,
        "proof_size": CALL.proof_size,
        "balance": 1_000_000_000,
    }
    assert "Nothing was sent. It costs a fee of at most 1,000 planck" in ran.stderr
    assert priced.sent == []
    assert run("jobs", "--json").document == {"jobs": [], "unfinished": 0}


def test_a_dry_run_without_money_says_so(run: Run, owner: World) -> None:
    ran = run("submit", "echo", "-", "--dry-run", "--json", stdin=b"x")

    assert ran.exit_code == 0, ran.stderr
    assert ran.document["fee_at_most"] is None
    assert "costs nothing: this chain has no money" in ran.stderr


def test_a_dry_run_refuses_an_account_that_cannot_pay(
    run: Run, priced: type[PricedChain], owner: World
) -> None:
    priced.balance = CALL.fee + CALL.deposit - 1

    ran = run("submit", "echo", "-", "--dry-run", "--json", stdin=b"x")

    assert (ran.exit_code, ran.document["error"]) == (1, "InsufficientFundsError")


def test_a_fee_above_the_limit_is_refused_before_it_is_sent(
    run: Run, priced: type[PricedChain], world: World
) -> None:
    below = run("mode", "set", "Draining", "--max-fee-per-call", CALL.fee - 1, "--json")
    at = run("mode", "set", "Draining", "--max-fee-per-call", CALL.fee, "--json")

    assert (below.exit_code, below.document["error"]) == (1, "SpendingLimitError")
    assert at.exit_code == 0, at.stderr
    assert priced.sent == ["set_mode"]


def test_the_limit_per_day_holds_across_commands(
    run: Run, priced: type[PricedChain], world: World, home: Path
) -> None:
    limit = {"max_spend_per_day": str(CALL.fee + CALL.deposit)}

    first = run("mode", "set", "Draining", **limit)
    second = run("mode", "set", "Halted", "--json", **limit)

    assert first.exit_code == 0, first.stderr
    assert second.document["error"] == "SpendingLimitError"
    assert priced.sent == ["set_mode"]
    assert (home / ".phala-jobs" / "spending.json").exists()


def test_the_orchestrator_keeps_within_the_limit_too(
    run: Run, priced: type[PricedChain], world: World, as_operator: None, tmp_path: Path
) -> None:
    run("orchestrator", "once", "--owners", "any", "--folder", tmp_path / "o", "--json")
    with_limit = run(
        *("orchestrator", "once", "--owners", "any", "--folder", tmp_path / "o", "--json"),
        *("--max-spend-per-day", 0, "--spending-file", tmp_path / "s.json"),
    )

    # There is nothing to do; that the limits reach the chain is what `priced` was opened with.
    assert with_limit.exit_code == 0, with_limit.stderr
    assert priced.limits[-1] is not None
    assert priced.limits[-1].per_day == 0
    assert priced.limits[0] is None


@pytest.mark.parametrize("said", ["set_mode: the account can't pay", f"account {ALICE} can't pay"])
def test_a_refusal_for_want_of_money_says_whose_and_what_there_is(
    run: Run,
    priced: type[PricedChain],
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    said: str,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InsufficientFundsError(said)

    monkeypatch.setattr(priced, "batch", refuse)
    priced.balance = 7

    ran = run("mode", "set", "draining")

    assert ran.exit_code == 1
    assert ran.stderr.count(ALICE) == 1
    assert "has 7 planck" in ran.stderr


def test_a_sum_is_told_with_what_came_back() -> None:
    paid = Paid()
    assert paid.words() == ""
    assert paid.document() == {"fee": None, "deposit": None}

    paid.add_amounts(5, -7)

    assert paid.words() == "paid a fee of 5 planck; a deposit of 7 planck came back"
