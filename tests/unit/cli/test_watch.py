"""`watch`: jobs as they change, live or a line for each change."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.cli import watch as watching
from orchestrator.cli.output import Output
from orchestrator.errors import ChainUnavailableError

from .conftest import Run
from .world import World


class _EnoughError(Exception):
    """Ends a watch that would go on for ever."""


Script = Callable[..., None]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Script:
    """Do one thing between looks, each in turn, then end the watch."""

    def set_up(*acts: Callable[[], object]) -> None:
        left = list(acts)

        def sleep(_self: object, _seconds: float) -> None:
            if not left:
                raise _EnoughError
            left.pop(0)()

        monkeypatch.setattr(watching.Watching, "pause", sleep)

    return set_up


@pytest.fixture
def owner(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> World:
    """The settings name an identity of //Alice, who has submitted job 1."""
    monkeypatch.setenv("PHALA_JOBS_KEYS_UNENCRYPTED", "true")
    monkeypatch.setenv("PHALA_JOBS_ACCOUNT", "alice")
    monkeypatch.delenv("PHALA_JOBS_ACCOUNT_FILE")
    assert run("keys", "import", "alice", "--development", "//Alice").exit_code == 0
    submit(run)
    return world


def submit(run: Run) -> int:
    ran = run("submit", "echo", "-", "--json", stdin=b"x")
    assert ran.exit_code == 0, ran.stderr
    job_id: int = ran.document["job_id"]
    return job_id


def changes(stdout: str) -> list[tuple[int, str]]:
    """The changes, without the error that ended the watch."""
    rows = [json.loads(line) for line in stdout.splitlines() if line.startswith('{"job_id"')]
    return [(row["job_id"], row["status"]) for row in rows]


def test_named_jobs_are_watched_until_they_have_ended(
    run: Run, owner: World, script: Script
) -> None:
    submit(run)
    script(lambda: owner.attest(1), lambda: None, lambda: run("cancel", 2))

    ran = run("watch", 1, 2, "--json")

    assert ran.exit_code == 0, ran.stderr
    assert changes(ran.stdout) == [
        (1, "Submitted"),
        (2, "Submitted"),
        (1, "Processed"),
        (2, "Cancelled"),
    ]


def test_words_are_for_people(run: Run, owner: World) -> None:
    owner.attest(1)

    assert run("watch", 1).stdout == "job 1: Processed\n"


def test_a_job_whose_workers_are_all_revoked_is_shown_as_stuck_once(
    run: Run, owner: World, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_LOOKS_PER_WORKERS", 2)

    def revoke() -> None:
        for worker in (1, 2):
            run("workers", "revoke", "--worker", worker, "--reason", "lost")

    script(revoke, lambda: None, lambda: None, lambda: None, lambda: run("cancel", 1))

    ran = run("watch", 1)

    assert ran.stdout.splitlines() == [
        "job 1: Submitted",
        "job 1: Submitted; all of its workers are revoked: phala-jobs cancel 1",
        "job 1: Cancelled",
    ]


def test_a_job_that_is_purged_has_ended(run: Run, owner: World, script: Script) -> None:
    script(lambda: (run("cancel", 1), run("purge", 1)))

    while_watched = run("watch", 1, "--json")
    before = run("watch", 1, "--json")

    assert changes(while_watched.stdout) == [(1, "Submitted"), (1, "purged")]
    assert changes(before.stdout) == [(1, "purged")]


@pytest.mark.parametrize(("job", "message"), [(2, "there is no job 2"), (0, "0 is no job's id")])
def test_a_job_that_never_was_is_bad_input(run: Run, owner: World, job: int, message: str) -> None:
    ran = run("watch", job)

    assert ran.exit_code == 2
    assert message in ran.stderr


def test_without_a_job_one_s_own_are_watched_and_those_that_come(
    run: Run, owner: World, script: Script
) -> None:
    other = ("--account", "bob", "--json")
    run("keys", "import", "bob", "--development", "//Bob")
    run("submit", "echo", "-", *other, stdin=b"of another owner")
    script(lambda: submit(run), lambda: owner.attest(3), lambda: owner.attest(2))

    ran = run("watch", "--json")

    assert changes(ran.stdout) == [(1, "Submitted"), (3, "Submitted"), (3, "Processed")]


def test_everybody_s_jobs_are_watched_when_wanted(run: Run, owner: World, script: Script) -> None:
    run("keys", "import", "bob", "--development", "//Bob")
    script()

    ran = run("watch", "--all", "--json", "--account", "bob")
    own = run("watch", "--json", "--account", "bob")

    assert changes(ran.stdout) == [(1, "Submitted")]
    assert changes(own.stdout) == []


def test_the_last_jobs_are_shown_first(
    run: Run, owner: World, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watching, "_LAST", 2)
    submit(run)
    submit(run)
    script()

    assert [job for job, _ in changes(run("watch", "--json").stdout)] == [2, 3]


def test_a_chain_that_is_away_for_a_while_is_no_reason_to_stop(
    run: Run, owner: World, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    inside = EmbeddedChain.read
    is_away = False

    def read(self: EmbeddedChain, call: Any) -> Any:  # noqa: ANN401 - as generic as the port
        if is_away:
            raise ChainUnavailableError("the chain is away")
        return inside(self, call)

    def go(*, away: bool) -> None:
        nonlocal is_away
        is_away = away

    def come_back() -> None:
        go(away=False)
        owner.attest(1)

    monkeypatch.setattr(EmbeddedChain, "read", read)
    script(lambda: go(away=True), come_back)

    ran = run("watch", 1, "--json")

    assert ran.exit_code == 0, ran.stderr
    assert "the chain is away; trying again" in ran.stderr
    assert changes(ran.stdout) == [(1, "Submitted"), (1, "Processed")]


def test_a_terminal_gets_a_table(run: Run, owner: World, monkeypatch: pytest.MonkeyPatch) -> None:
    owner.attest(1)
    console = Console(force_terminal=True, width=120, record=True)
    monkeypatch.setattr(Output, "console", lambda _self, **_: console)

    ran = run("watch", 1)

    assert ran.exit_code == 0, ran.stderr
    text = console.export_text()
    assert "job id" in text
    assert "Processed" in text
