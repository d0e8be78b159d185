"""`keys`: secrets come from files, are never shown, and nothing is overwritten."""

import getpass
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from orchestrator.cli import keys, secrets
from orchestrator.crypto.accounts import generate_mnemonic
from orchestrator.errors import InputError

from .conftest import Run
from .world import World

Write = Callable[[str, str], Path]

ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


@pytest.fixture
def pass_file(secret_file: Write) -> Path:
    return secret_file("passphrase", "correct horse\n")


def test_a_new_key_is_listed_and_its_phrase_is_in_the_file_alone(
    run: Run, home: Path, pass_file: Path, tmp_path: Path
) -> None:
    phrase = tmp_path / "phrase"

    ran = run("keys", "new", "owner", "--passphrase-file", pass_file, "--phrase-file", phrase)

    assert ran.exit_code == 0, ran.stderr
    words = phrase.read_text().split()
    assert len(words) == 12
    assert phrase.stat().st_mode & 0o777 == 0o600
    assert " ".join(words) not in ran.stdout + ran.stderr
    assert "The phrase was not shown" not in ran.stderr
    listed = run("keys", "list", "--json").document["keys"]
    assert [(key["name"], key["encrypted"]) for key in listed] == [("owner", True)]


def test_the_phrase_is_shown_once_at_a_terminal(
    run: Run, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    class System:
        stderr = Terminal()

    monkeypatch.setattr(keys, "sys", System)

    ran = run("keys", "new", "owner", "--keys-unencrypted")

    assert "Write this phrase down" in ran.stderr
    assert "Write this phrase down" not in ran.stdout


def test_a_phrase_that_nobody_can_see_is_told_of(run: Run) -> None:
    ran = run("keys", "new", "owner", "--keys-unencrypted", "--json")

    assert ran.exit_code == 0, ran.stderr
    assert "The phrase was not shown: no terminal, and no --phrase-file" in ran.stderr
    assert ran.document["name"] == "owner"


def test_an_unknown_name_is_told_with_those_that_there_are(run: Run, home: Path) -> None:
    folder = home / ".phala-jobs" / "keys"
    none = run("keys", "backup", "ownr", "x", "--keys-unencrypted")
    for name in ("operator", "admin"):
        run("keys", "new", name, "--keys-unencrypted")

    ran = run("keys", "backup", "ownr", "x", "--keys-unencrypted")

    assert none.exit_code == ran.exit_code == 2
    assert f"there is no identity 'ownr' in {folder} (there is none);" in none.stderr
    assert ran.stderr == (
        f"error: there is no identity 'ownr' in {folder} (there are admin, operator);"
        " phala-jobs keys new ownr makes one\n"
    )


def test_the_help_shows_a_switch_without_a_value(run: Run) -> None:
    lines = run("keys", "new", "--help").stdout.splitlines()

    (line,) = [line for line in lines if "--keys-unencrypted" in line and "[env" not in line]
    assert "TEXT" not in line


def test_a_phrase_file_that_is_there_stops_everything(
    run: Run, home: Path, pass_file: Path, tmp_path: Path
) -> None:
    phrase = tmp_path / "phrase"
    phrase.write_text("mine")

    ran = run("keys", "new", "owner", "--passphrase-file", pass_file, "--phrase-file", phrase)

    assert ran.exit_code == 2
    assert phrase.read_text() == "mine"
    assert not (home / ".phala-jobs").exists()


def test_a_name_is_never_taken_twice(run: Run, pass_file: Path) -> None:
    run("keys", "new", "owner", "--passphrase-file", pass_file)

    ran = run("keys", "new", "owner", "--passphrase-file", pass_file, "--json")

    assert ran.exit_code == 2
    assert "nothing is overwritten" in ran.document["message"]


def test_a_file_that_is_no_key_is_told_and_hides_none(
    run: Run, home: Path, pass_file: Path
) -> None:
    run("keys", "new", "mine", passphrase_file=str(pass_file))
    foreign = home / ".phala-jobs" / "keys" / "foreign.json"
    foreign.touch(mode=0o600)
    foreign.write_text("{}")

    ran = run("keys", "list", "--json")

    assert [key["name"] for key in ran.document["keys"]] == ["mine"]
    assert "foreign.json is no usable identity: key file: not of the kind" in ran.stderr


def test_a_key_in_clear_is_not_used_unless_allowed(run: Run, world: World, tmp_path: Path) -> None:
    run("keys", "new", "mine", keys_unencrypted="true")
    data = tmp_path / "data"
    data.write_bytes(b"x")

    ran = run("submit", "echo", data, "--account", "mine")

    assert ran.exit_code == 2
    assert "key file of mine: not encrypted, which is not allowed" in ran.stderr
    assert run("submit", "echo", data, "--account", "mine", keys_unencrypted="true").exit_code == 0


def test_a_development_account_needs_to_be_allowed(run: Run) -> None:
    refused = run("keys", "import", "alice", "--development", "//Alice", "--json")
    allowed = run(
        "keys", "import", "alice", "--development", "//Alice", "--keys-unencrypted", "--json"
    )

    assert refused.exit_code == 2
    assert allowed.document == {"name": "alice", "account": ALICE, "encrypted": False}


def test_a_mnemonic_is_taken_from_a_file(run: Run, pass_file: Path, secret_file: Write) -> None:
    phrase = secret_file("phrase", generate_mnemonic() + "\n")

    ran = run(
        *("keys", "import", "mine", "--phrase-file", phrase, "--passphrase-file", pass_file),
        "--json",
    )

    assert ran.exit_code == 0, ran.stderr
    assert ran.document["encrypted"] is True


@pytest.mark.parametrize("more", [(), ("--development", "//Alice", "--phrase-file", "x")])
def test_an_import_has_exactly_one_source(run: Run, more: tuple[str, ...]) -> None:
    ran = run("keys", "import", "mine", *more)

    assert ran.exit_code == 2
    assert "exactly one of" in ran.stderr


def test_a_polkadot_js_file_needs_its_passphrase(run: Run, tmp_path: Path) -> None:
    ran = run("keys", "import", "mine", "--polkadot-js", tmp_path / "x.json")

    assert ran.exit_code == 2
    assert "export_passphrase_file: needed" in ran.stderr


def test_a_polkadot_js_file_that_is_none_is_refused(
    run: Run, home: Path, pass_file: Path, tmp_path: Path
) -> None:
    export = tmp_path / "x.json"
    export.write_bytes(b"\x00\x01")

    ran = run(
        *("keys", "import", "mine", "--polkadot-js", export),
        *("--export-passphrase-file", pass_file, "--passphrase-file", pass_file),
    )

    assert ran.exit_code == 2
    assert run("keys", "list", "--json").document == {"keys": []}


def test_a_refusal_of_keys_in_clear_names_the_way_out(
    run: Run, pass_file: Path, tmp_path: Path
) -> None:
    run("keys", "new", "mine", "--keys-unencrypted")
    encrypted = ("--passphrase-file", pass_file)

    stored = run("keys", "backup", "mine", tmp_path / "b", "--backup-passphrase-file", pass_file)
    development = run("keys", "import", "alice", "--development", "//Alice", *encrypted)

    assert stored.exit_code == development.exit_code == 2
    for ran in (stored, development):
        assert "; set PHALA_JOBS_KEYS_UNENCRYPTED=true (development)" in ran.stderr


def test_a_backup_restores_the_same_account(run: Run, pass_file: Path, tmp_path: Path) -> None:
    new = ("keys", "new", "owner", "--passphrase-file", pass_file, "--json")
    account = run(*new).document["account"]
    backup = tmp_path / "backup"

    made = run("keys", "backup", "owner", backup, "--passphrase-file", pass_file)
    taken = run("keys", "restore", backup, "--passphrase-file", pass_file)
    restored = run(
        *("keys", "restore", backup, "--name", "again", "--passphrase-file", pass_file, "--json"),
    )

    assert made.exit_code == 0, made.stderr
    assert taken.exit_code == 2
    assert taken.stderr.endswith("nothing is overwritten; give --name\n")
    assert restored.document == {"name": "again", "account": account, "encrypted": True}


def test_a_backup_may_have_a_passphrase_of_its_own(
    run: Run, pass_file: Path, secret_file: Write, tmp_path: Path
) -> None:
    run("keys", "new", "owner", "--keys-unencrypted")
    other, backup = secret_file("other", "battery staple"), tmp_path / "backup"
    backup_words = ("keys", "backup", "owner", backup, "--backup-passphrase-file", other)
    refused = run(*backup_words)
    run(*backup_words, "--keys-unencrypted")

    wrong = run(
        *("keys", "restore", backup, "--name", "again", "--passphrase-file", pass_file),
    )
    right = run(
        *("keys", "restore", backup, "--name", "again", "--passphrase-file", pass_file),
        *("--backup-passphrase-file", other),
    )

    assert "not encrypted, which is not allowed" in refused.stderr
    assert wrong.exit_code == 2
    assert right.exit_code == 0, right.stderr


def test_a_passphrase_may_come_from_a_descriptor(run: Run) -> None:
    read, write = os.pipe()
    os.write(write, b"correct horse\n")
    os.close(write)

    ran = run("keys", "new", "owner", "--passphrase-fd", str(read))
    os.close(read)

    assert ran.exit_code == 0, ran.stderr


def test_without_a_terminal_a_passphrase_has_to_be_given(run: Run) -> None:
    ran = run("keys", "new", "owner")

    assert ran.exit_code == 2
    assert "passphrase: give --passphrase-file or --passphrase-fd" in ran.stderr


def test_a_descriptor_that_is_not_open_is_named(run: Run) -> None:
    ran = run("keys", "new", "owner", "--passphrase-fd", "987")

    assert ran.exit_code == 2
    assert "passphrase_fd 987: Bad file descriptor" in ran.stderr


def test_a_passphrase_file_that_others_may_read_is_refused(run: Run, secret_file: Write) -> None:
    path = secret_file("loose", "secret words")
    path.chmod(0o644)

    ran = run("keys", "new", "owner", "--passphrase-file", path)

    assert ran.exit_code == 2
    assert "passphrase_file: " in ran.stderr
    assert "mode 0644" in ran.stderr
    assert "secret words" not in ran.stderr


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty"),
        (b"\n", "empty"),
        (b"\xff\xfe", "not text"),
        (b"a\nb", "more than one line"),
        (b"a" * (secrets.MAX_SECRET_BYTES + 1), "longer than the limit of 65536 bytes"),
    ],
)
def test_a_secret_file_that_is_not_one_line_of_text_is_refused(
    secret_file: Write, data: bytes, message: str
) -> None:
    path = secret_file("odd", "")
    path.write_bytes(data)

    with pytest.raises(InputError, match=message):
        secrets.read_secret_file("passphrase_file", path)


def test_an_endless_descriptor_is_cut_off() -> None:
    with Path("/dev/zero").open("rb") as endless, pytest.raises(InputError, match="longer than"):
        secrets.read_secret_descriptor("passphrase_fd", endless.fileno())


@pytest.mark.parametrize(
    ("typed", "message"),
    [(["a", "a"], None), (["a", "b"], "differ"), (["", ""], "empty")],
)
def test_a_new_passphrase_is_typed_twice_at_a_terminal(
    run: Run, monkeypatch: pytest.MonkeyPatch, typed: list[str], message: str | None
) -> None:
    class Terminal:
        def isatty(self) -> bool:
            return True

    class System:
        stdin = Terminal()
        stderr = sys.stderr

    answers = iter(typed)
    monkeypatch.setattr(secrets, "sys", System)
    monkeypatch.setattr(getpass, "getpass", lambda *_, **__: next(answers))

    ran = run("keys", "new", "owner")

    assert ran.exit_code == (0 if message is None else 2), ran.stderr
    assert message is None or message in ran.stderr
