import json
import secrets
import stat
import threading
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError, InputError
from orchestrator.worker.tokens import TOKENS_FILE, TokenList, TokenScope


def test_a_token_is_known_by_its_scope_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    tokens = TokenList(tmp_path)

    jobs = tokens.add("one", TokenScope.JOBS, now=5)
    registration = tokens.add("two", TokenScope.REGISTRATION, now=6)

    assert tokens.scope_of(jobs) is TokenScope.JOBS
    assert tokens.scope_of(registration) is TokenScope.REGISTRATION
    assert tokens.scope_of("other") is None
    assert tokens.scope_of("\udcff") is None
    content = (tmp_path / TOKENS_FILE).read_text()
    assert jobs not in content
    assert stat.S_IMODE((tmp_path / TOKENS_FILE).stat().st_mode) == 0o600
    assert [(entry.name, entry.scope, entry.created_at) for entry in tokens.entries()] == [
        ("one", "jobs", 5),
        ("two", "registration", 6),
    ]
    assert jobs not in repr(tokens.entries())


def test_another_process_adds_and_revokes(tmp_path: Path) -> None:
    ours, theirs = TokenList(tmp_path), TokenList(tmp_path)
    assert ours.scope_of("any") is None

    token = theirs.add("one", TokenScope.JOBS, now=1)
    assert ours.scope_of(token) is TokenScope.JOBS

    theirs.revoke("one")
    assert ours.scope_of(token) is None


def test_without_a_file_nobody_is_known(tmp_path: Path) -> None:
    tokens = TokenList(tmp_path)
    token = tokens.add("one", TokenScope.JOBS, now=1)

    (tmp_path / TOKENS_FILE).unlink()

    assert tokens.scope_of(token) is None
    assert tokens.entries() == ()


@pytest.mark.parametrize("name", ["", "a b", "-a", "x" * 65, "ä", "a\n", "one"])
def test_a_name_must_be_new_and_plain(tmp_path: Path, name: str) -> None:
    tokens = TokenList(tmp_path)
    tokens.add("one", TokenScope.JOBS, now=1)

    with pytest.raises(InputError, match="token name"):
        tokens.add(name, TokenScope.JOBS, now=1)

    assert len(tokens.entries()) == 1


def test_a_revoked_token_does_not_come_back_with_the_list_that_another_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = TokenList(tmp_path).add("old", TokenScope.JOBS, now=1)
    revoking = threading.Thread(target=TokenList(tmp_path).revoke, args=("old",))
    make_token = secrets.token_urlsafe

    def make_slowly(size: int) -> str:
        """Be between the reading and the writing of the list while the other one revokes."""
        revoking.start()
        revoking.join(0.3)
        return make_token(size)

    monkeypatch.setattr("secrets.token_urlsafe", make_slowly)
    new = TokenList(tmp_path).add("new", TokenScope.JOBS, now=2)
    revoking.join()

    tokens = TokenList(tmp_path)
    assert tokens.scope_of(old) is None
    assert tokens.scope_of(new) is TokenScope.JOBS


def test_a_folder_that_can_not_be_made_or_opened_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="tokens file"):
        TokenList(tmp_path / "file" / "worker").add("one", TokenScope.JOBS, now=1)

    tokens = TokenList(tmp_path / "worker")
    monkeypatch.setattr(tokens, "_make_folder", lambda: None)
    with pytest.raises(ConfigError, match="No such file"):
        tokens.add("one", TokenScope.JOBS, now=1)


def test_the_list_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.worker.tokens._MAX_TOKENS", 1)
    tokens = TokenList(tmp_path)
    tokens.add("one", TokenScope.JOBS, now=1)

    with pytest.raises(InputError, match="tokens: 1, at most 1"):
        tokens.add("two", TokenScope.JOBS, now=1)


def test_revoking_what_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'two': there is none"):
        TokenList(tmp_path).revoke("two")


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "{}",
        '{"version": 1}',
        '{"version": 2, "tokens": []}',
        '{"version": 1, "tokens": [{}]}',
        json.dumps(
            {"version": 1, "tokens": [{"name": "a", "scope": "all", "hash": "", "created_at": 1}]}
        ),
    ],
)
def test_a_damaged_list_is_an_error(tmp_path: Path, content: str) -> None:
    (tmp_path / TOKENS_FILE).write_text(content)

    with pytest.raises(ConfigError, match="tokens file"):
        TokenList(tmp_path).entries()


def test_a_list_that_can_not_be_read_or_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / TOKENS_FILE).mkdir()

    with pytest.raises(ConfigError, match="Is a directory"):
        TokenList(tmp_path).entries()
    with pytest.raises(ConfigError, match="Not a directory"):
        TokenList(tmp_path / "file").entries()
