"""How a function becomes a command: options, variables, errors, exit codes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from orchestrator import config, errors
from orchestrator.cli import app
from orchestrator.cli.command import OPTION_VARIABLES, command
from orchestrator.cli.output import to_json
from orchestrator.cli.session import Session

from .conftest import Run
from .world import World


def _all_options() -> Iterator[tuple[str, object]]:
    """Every option of every command, by the command's words."""
    pending = [("", typer.main.get_command(app))]
    while pending:
        words, found = pending.pop()
        for name, inner in getattr(found, "commands", {}).items():
            pending.append((f"{words} {name}".strip(), inner))
        if not hasattr(found, "commands"):
            yield from ((words, parameter) for parameter in found.params)


@pytest.fixture
def small() -> typer.Typer:
    """An app of one command that does what the test asks for."""
    small = typer.Typer()

    @command(small, "do", settings=("chain", "blob_sources", "keys_unencrypted"), group="small")
    def do(
        session: Session,
        what: str,
        often: Annotated[int, typer.Option(help="How often.")] = 1,
    ) -> None:
        """
        Do something.

        Raises:
            Error: always, nearly.
        """
        if what == "settings":
            settings = session.settings
            session.output.result(
                {
                    "chain": settings.chain,
                    "blob_sources": to_json(settings.blob_sources),
                    "keys_unencrypted": settings.keys_unencrypted,
                    "often": often,
                    "origin": str(session.loaded.origins["chain"]),
                }
            )
        elif what == "interrupt":
            raise KeyboardInterrupt
        elif what == "exit":
            raise typer.Exit(7)
        elif what == "pipe":
            raise BrokenPipeError(32, "Broken pipe")
        elif what == "bug":
            raise ZeroDivisionError
        else:
            raise getattr(errors, what)("what is wrong")

    @command(small, "other", group="small")
    def other(session: Session) -> None:
        """Do nothing."""

    assert (do, other) is not None
    return small


def _invoke(small: typer.Typer, *words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(small, list(words))
    return result.exit_code, result.stdout, result.stderr


def test_every_option_of_every_command_has_a_variable_that_its_help_shows(run: Run) -> None:
    options = [
        (words, option)
        for words, option in _all_options()
        if getattr(option, "param_type_name", "") == "option" and "--help" not in option.opts  # type: ignore[attr-defined]  # typer's own class
    ]

    assert len(options) > 150
    for words, option in options:
        variable = option.envvar  # type: ignore[attr-defined]  # typer's own class
        assert variable.startswith(config.PREFIX), (words, option)
        assert option.show_envvar, (words, option)  # type: ignore[attr-defined]  # the same
        known = {config.variable(name) for name in config.declared_settings()}
        assert variable in known | OPTION_VARIABLES
    for words in ("demo", "submit", "workers register", "worker token add", "orchestrator run"):
        shown = run(*words.split(), "--help")
        assert "PHALA_JOBS_JSON" in shown.stdout, words
        assert "Raises" not in shown.stdout, words


def test_no_two_commands_share_the_variable_of_an_option() -> None:
    """What is approved for one command must not be approved for another."""
    settings = {config.variable(name) for name in config.declared_settings()}
    common = {config.variable(name) for name in ("config", "json", "debug")}

    for words, option in _all_options():
        if not getattr(option, "envvar", None) or option.envvar in settings | common:  # type: ignore[attr-defined]  # typer's own class
            continue
        named = config.variable(f"{words} {option.name}".replace(" ", "_").replace("-", "_"))  # type: ignore[attr-defined]  # the same
        assert option.envvar == named, words  # type: ignore[attr-defined]  # the same


def test_help_names_every_noun_and_verb(run: Run) -> None:
    shown = run("--help").stdout

    assert "Exit codes: 0 done, 1 refused, 2 bad usage or input" in shown
    for word in (
        *("demo", "contract", "roles", "mode", "parameters", "admin", "account", "workers"),
        *("measurements", "worker", "orchestrator", "submit", "jobs", "status", "result"),
        *("verify", "cancel", "expire", "purge", "keys", "task", "config"),
    ):
        assert f"│ {word} " in shown, word


def test_a_job_beyond_all_numbers_is_refused_and_the_help_shows_no_39_digits(
    run: Run, world: World
) -> None:
    shown = run("status", "--help").stdout
    ran = run("status", 2**128)

    assert "[x>=1]" in shown
    assert ran.exit_code == 2
    assert f"job_id: {2**128} is not a u128" in ran.stderr


def test_help_of_a_setting_says_its_default_and_how_to_give_several(run: Run) -> None:
    shown = " ".join(run("orchestrator", "run", "--help").stdout.replace("│", " ").split())

    assert "Default: 127.0.0.1:9400 " in shown
    assert "Default: ~/.phala-jobs/keys " in shown
    assert shown.count("Comma-separated, may be repeated.") == 3
    assert "Default: ()" not in shown
    assert "Default: None" not in shown


def test_settings_come_from_options_and_variables(
    small: typer.Typer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHALA_JOBS_SMALL_DO_OFTEN", "3")
    monkeypatch.setenv("PHALA_JOBS_CHAIN", "from-environment")
    words = (
        "do",
        "settings",
        "--blob-sources",
        "a,b",
        "--blob-sources",
        "c",
        "--keys-unencrypted",
        "--json",
    )

    code, stdout, stderr = _invoke(small, *words)

    assert (code, stderr) == (0, "")
    assert json.loads(stdout) == {
        "chain": "from-environment",
        "blob_sources": ["a", "b", "c"],
        "keys_unencrypted": True,
        "often": 3,
        "origin": "environment PHALA_JOBS_CHAIN",
    }


def test_the_default_file_is_read_when_it_is_there(small: typer.Typer, home: Path) -> None:
    (home / ".phala-jobs").mkdir()
    (home / ".phala-jobs" / "config.toml").write_text('chain = "x"\n')

    code, stdout, _ = _invoke(small, "do", "settings", "--json")

    assert code == 0
    assert json.loads(stdout)["origin"].startswith(f"file {home}")


def test_a_named_file_that_is_not_there_is_bad_usage(small: typer.Typer, home: Path) -> None:
    code, stdout, stderr = _invoke(small, "do", "settings", "--config", str(home / "no.toml"))

    assert (code, stdout) == (2, "")
    assert stderr == f"error: --config {home / 'no.toml'}: there is no such file\n"


def test_an_unknown_variable_is_bad_usage(
    small: typer.Typer, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHALA_JOBS_SMALL_DO_OFTN", "3")

    code, _, stderr = _invoke(small, "do", "settings")

    assert code == 2
    assert "PHALA_JOBS_SMALL_DO_OFTN" in stderr
    assert "did you mean PHALA_JOBS_SMALL_DO_OFTEN" in stderr


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("InputError", 2),
        ("RefusedError", 1),
        ("ContractError", 1),
        ("ChainUnavailableError", 3),
        ("WaitTimeoutError", 3),
    ],
)
def test_an_expected_error_is_one_line_and_a_code(
    small: typer.Typer, home: Path, what: str, code: int
) -> None:
    ended, stdout, stderr = _invoke(small, "do", what)

    assert (ended, stdout) == (code, "")
    assert stderr.startswith("error: ")
    assert "what is wrong" in stderr
    assert stderr.count("\n") == 1


def test_with_json_an_error_is_a_document(small: typer.Typer, home: Path) -> None:
    code, stdout, _ = _invoke(small, "do", "InputError", "--json")

    assert code == 2
    assert json.loads(stdout) == {"error": "InputError", "message": "what is wrong"}


def test_debug_shows_where_an_error_came_from(small: typer.Typer, home: Path) -> None:
    code, _, stderr = _invoke(small, "do", "InputError", "--debug")

    assert code == 2
    assert "Traceback" in stderr
    assert "error: what is wrong" in stderr


def test_a_bug_is_called_one_and_nothing_is_known(small: typer.Typer, home: Path) -> None:
    code, _, stderr = _invoke(small, "do", "bug")

    assert code == 3
    assert "bug" in stderr
    assert "Traceback" not in stderr


def test_ctrl_c_ends_with_130(small: typer.Typer, home: Path) -> None:
    code, stdout, stderr = _invoke(small, "do", "interrupt")

    assert code == 130
    assert "Traceback" not in stdout + stderr


def test_a_command_may_choose_its_exit_code(small: typer.Typer, home: Path) -> None:
    assert _invoke(small, "do", "exit")[0] == 7


def test_a_reader_that_has_gone_is_no_error_message(small: typer.Typer, home: Path) -> None:
    code, _, stderr = _invoke(small, "do", "pipe")

    assert (code, stderr) == (1, "")


def test_a_mistyped_option_is_bad_usage(run: Run) -> None:
    ran = run("config", "show", "--jsn")

    assert (ran.exit_code, ran.stdout) == (2, "")
    assert "--json" in ran.stderr
