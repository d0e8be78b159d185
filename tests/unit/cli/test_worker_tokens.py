"""The file of `orchestrator --tokens`: by id or URL, and read again when it has changed."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.cli.worker_tokens import WorkerTokens
from orchestrator.errors import InputError
from orchestrator.models import PublicKey, Scheme, Worker, WorkerStatus

URL = "https://worker.example.org"
WORKER = Worker(
    worker=3,
    signing_key=PublicKey(scheme=Scheme.ECDSA, key=b"\x02" * 33),
    encryption_key=b"\x01" * 32,
    measurement=b"\x42" * 32,
    evidence_hash=b"\x43" * 32,
    endpoint=URL.encode(),
    status=WorkerStatus.ACTIVE,
    registered_at=1,
    valid_until=2,
)
ROTATED = replace(WORKER, worker=4)
ELSEWHERE = replace(WORKER, worker=5, endpoint=b"https://other.example.org")
NOWHERE = replace(WORKER, worker=6, endpoint=b"")

Put = Callable[[str], Path]


@pytest.fixture
def put(tmp_path: Path) -> Put:
    """Write the file, as an editor does: another file in its place."""
    path = tmp_path / "tokens.toml"

    def write(text: str) -> Path:
        draft = tmp_path / "draft"
        draft.write_text(text)
        draft.chmod(0o600)
        draft.replace(path)
        return path

    return write


def nobody(_worker: int) -> None:
    """No worker is on the chain."""


def known(worker: int) -> bytes | None:
    return {3: b"https://worker.example.org/", 5: ELSEWHERE.endpoint, 6: b""}.get(worker)


def test_no_file_has_no_token() -> None:
    assert WorkerTokens(None, endpoint_of=nobody).token(WORKER) is None


@pytest.mark.parametrize("key", ["3", f'"{URL}"', f'"{URL}/"'])
def test_by_id_or_url(put: Put, key: str) -> None:
    tokens = WorkerTokens(put(f'{key} = "t"'), endpoint_of=nobody)

    assert tokens.token(WORKER) == "t"
    assert tokens.token(ELSEWHERE) is None


def test_an_id_s_own_line_is_before_that_of_its_url(put: Put) -> None:
    tokens = WorkerTokens(put(f'"{URL}" = "by url"\n3 = "by id"'), endpoint_of=nobody)

    assert tokens.token(WORKER) == "by id"
    assert tokens.token(ROTATED) == "by url"


def test_a_new_id_has_the_token_of_the_old_one_that_was_asked(put: Put) -> None:
    tokens = WorkerTokens(put('3 = "t"'), endpoint_of=nobody)

    assert tokens.token(ROTATED) is None
    assert tokens.token(WORKER) == "t"
    assert tokens.token(ROTATED) == "t"
    assert tokens.token(ELSEWHERE) is None


def test_a_new_id_has_the_token_of_the_old_one_that_the_chain_knows(put: Put) -> None:
    tokens = WorkerTokens(put('3 = "t"\n5 = "other"\n6 = "nowhere"'), endpoint_of=known)

    assert tokens.token(ROTATED) == "t"
    assert tokens.token(replace(ELSEWHERE, worker=7)) == "other"
    # Without an endpoint they may be anywhere.
    assert tokens.token(replace(NOWHERE, worker=8)) is None


def test_of_several_old_ids_the_newest_counts(put: Put) -> None:
    tokens = WorkerTokens(put('10 = "new"\n9 = "old"'), endpoint_of=lambda _: URL.encode())

    assert tokens.token(WORKER) == "new"


def test_a_changed_file_is_read_again(put: Put) -> None:
    tokens = WorkerTokens(put('3 = "one"'), endpoint_of=nobody)
    assert tokens.token(WORKER) == "one"

    put('3 = "two"')
    assert tokens.token(WORKER) == "two"

    put('9 = "two"')
    assert tokens.token(WORKER) is None


def test_an_unchanged_file_is_not_read_again(put: Put, caplog: pytest.LogCaptureFixture) -> None:
    tokens = WorkerTokens(put('3 = "one"'), endpoint_of=nobody)
    caplog.set_level("INFO")

    tokens.token(WORKER)
    tokens.token(WORKER)

    assert not caplog.records


@pytest.mark.parametrize("text", ['3 = "secr', "3 = 4", 'three = "secret"', "\udcff"])
def test_while_it_is_half_written_the_tokens_stay(
    tmp_path: Path, put: Put, caplog: pytest.LogCaptureFixture, text: str
) -> None:
    tokens = WorkerTokens(put('3 = "one"'), endpoint_of=nobody)
    (tmp_path / "tokens.toml").write_bytes(text.encode("utf-8", "surrogateescape"))

    assert [tokens.token(WORKER), tokens.token(WORKER)] == ["one", "one"]

    (record,) = caplog.records  # told once
    assert "the tokens stay what they were" in record.message
    assert "secr" not in record.message

    put('3 = "two"')
    assert tokens.token(WORKER) == "two"


def test_while_it_is_gone_or_open_to_others_the_tokens_stay(
    put: Put, caplog: pytest.LogCaptureFixture
) -> None:
    path = put('3 = "one"')
    tokens = WorkerTokens(path, endpoint_of=nobody)

    path.unlink()
    assert tokens.token(WORKER) == "one"

    path.write_text('3 = "two"')
    path.chmod(0o644)
    assert tokens.token(WORKER) == "one"
    assert len(caplog.records) == 2

    path.chmod(0o600)
    assert tokens.token(WORKER) == "two"


def test_a_file_that_can_t_be_read_at_the_start_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        WorkerTokens(tmp_path / "none", endpoint_of=nobody)


@pytest.mark.parametrize("key", ["0", "03", "worker", '""', '"worker.example.org"', "99999999999"])
def test_a_line_for_nobody_is_refused(put: Put, key: str) -> None:
    with pytest.raises(InputError, match="must be TOML with lines such as"):
        WorkerTokens(put(f'{key} = "t"'), endpoint_of=nobody)
