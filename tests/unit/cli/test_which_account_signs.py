"""Of a named account and an account file, the one from the stronger level signs."""

from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.encoding import to_ss58

from .conftest import Run
from .world import ADMIN, OPERATOR, World

ALICE, BOB = to_ss58(ADMIN.account_id), to_ss58(OPERATOR.account_id)
Write = Callable[[str, str], Path]


@pytest.fixture
def bob(run: Run, world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an identity of //Bob; the environment still has the file of //Alice."""
    monkeypatch.setenv("PHALA_JOBS_KEYS_UNENCRYPTED", "true")
    assert run("keys", "import", "bob", "--development", "//Bob").exit_code == 0
    return "bob"


def _settings_file(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "settings.toml"
    path.write_text(text)
    return path


def test_a_named_account_wins_over_a_file_of_the_environment(run: Run, bob: str) -> None:
    ran = run("mode", "set", "draining", "--account", bob, "--json")

    assert (ran.exit_code, ran.document["error"]) == (1, "MissingRole")
    assert run("mode", "show", "--json").document["mode"] == "Running"


def test_looking_takes_the_same_account_as_signing(run: Run, bob: str) -> None:
    assert BOB in run("doctor", "--account", bob).stdout
    assert ALICE in run("doctor").stdout


def test_an_account_file_wins_over_a_name_of_the_environment(
    run: Run, bob: str, secret_file: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PHALA_JOBS_ACCOUNT_FILE")
    monkeypatch.setenv("PHALA_JOBS_ACCOUNT", bob)

    ran = run("mode", "set", "draining", "--account-file", secret_file("alice", "//Alice"))

    assert ran.exit_code == 0, ran.stderr


def test_the_environment_wins_over_the_settings_file(
    run: Run, bob: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = _settings_file(tmp_path, 'account = "bob"\n')

    assert run("mode", "set", "draining", "--config", named).exit_code == 0

    file = _settings_file(tmp_path, f'account_file = "{tmp_path / "account"}"\n')
    monkeypatch.delenv("PHALA_JOBS_ACCOUNT_FILE")

    assert run("mode", "set", "halted", "--config", file, account=bob).exit_code == 1


@pytest.mark.parametrize("level", ["option", "environment", "file"])
def test_both_from_one_level_are_refused_and_nothing_is_sent(
    run: Run, bob: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, level: str
) -> None:
    words: tuple[object, ...] = ()
    path = tmp_path / "account"
    if level == "option":
        words = ("--account", bob, "--account-file", path)
    elif level == "environment":
        monkeypatch.setenv("PHALA_JOBS_ACCOUNT", bob)
    else:
        monkeypatch.delenv("PHALA_JOBS_ACCOUNT_FILE")
        both = f'account = "{bob}"\naccount_file = "{path}"\n'
        words = ("--config", _settings_file(tmp_path, both))

    ran = run("mode", "set", "draining", *words)

    assert ran.exit_code == 2
    assert "both say which account signs" in ran.stderr
    assert level in ran.stderr
    assert run("mode", "show", "--json").document["mode"] == "Running"
