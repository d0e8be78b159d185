import json
import stat
import threading
from pathlib import Path

import pytest

from orchestrator.errors import ConfigError
from orchestrator.models import Scheme
from orchestrator.worker.identity import KEYS_FILE, WorkerKeys, load_or_make_keys


@pytest.mark.parametrize("scheme", list(Scheme))
def test_keys_are_made_once_and_for_their_owner_alone(tmp_path: Path, scheme: Scheme) -> None:
    first = load_or_make_keys(tmp_path, scheme)
    again = load_or_make_keys(tmp_path, scheme)

    assert first.signing_key == again.signing_key
    assert first.signing_key.scheme is scheme
    assert first.encryption_key.public_key == again.encryption_key.public_key
    assert stat.S_IMODE((tmp_path / KEYS_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEYS_FILE]


def test_two_folders_have_different_keys(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()

    one = load_or_make_keys(tmp_path, Scheme.ECDSA)
    other = load_or_make_keys(tmp_path / "other", Scheme.ECDSA)

    assert one.signing_key != other.signing_key
    assert one.encryption_key.public_key != other.encryption_key.public_key


def test_no_representation_shows_a_secret(tmp_path: Path) -> None:
    keys = load_or_make_keys(tmp_path, Scheme.ECDSA)
    content = json.loads((tmp_path / KEYS_FILE).read_text())

    shown = f"{keys!r} {keys} {vars(keys)!r}"

    for name in ("signing_secret", "encryption_secret"):
        assert content[name] not in shown
        assert repr(bytes.fromhex(content[name]))[2:-1] not in shown


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    load_or_make_keys(tmp_path, Scheme.ECDSA)
    (tmp_path / KEYS_FILE).chmod(mode)

    with pytest.raises(ConfigError, match=f"mode {mode:04o}, must be 0600"):
        load_or_make_keys(tmp_path, Scheme.ECDSA)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    load_or_make_keys(tmp_path / "real", Scheme.ECDSA)
    (tmp_path / KEYS_FILE).symlink_to(tmp_path / "real" / KEYS_FILE)

    with pytest.raises(ConfigError, match=KEYS_FILE):
        load_or_make_keys(tmp_path, Scheme.ECDSA)


def test_another_scheme_does_not_replace_the_key(tmp_path: Path) -> None:
    load_or_make_keys(tmp_path, Scheme.ECDSA)
    before = (tmp_path / KEYS_FILE).read_bytes()

    with pytest.raises(ConfigError, match="scheme: sr25519"):
        load_or_make_keys(tmp_path, Scheme.SR25519)

    assert (tmp_path / KEYS_FILE).read_bytes() == before


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"scheme": 3},
        {"signing_secret": "00"},
        {"signing_secret": "00" * 32},
        {"signing_secret": "not hex"},
        {"signing_secret": None},
        {"encryption_secret": "00"},
    ],
)
def test_a_damaged_file_is_refused_without_showing_it(
    tmp_path: Path, change: dict[str, object]
) -> None:
    load_or_make_keys(tmp_path, Scheme.ECDSA)
    path = tmp_path / KEYS_FILE
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **change}))

    with pytest.raises(ConfigError) as caught:
        load_or_make_keys(tmp_path, Scheme.ECDSA)

    assert caught.value.__cause__ is None
    assert content["signing_secret"] not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff", b'{"version": 1}'])
def test_a_file_that_is_no_keys_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / KEYS_FILE
    path.write_bytes(content)
    path.chmod(0o600)

    with pytest.raises(ConfigError, match="damaged"):
        load_or_make_keys(tmp_path, Scheme.ECDSA)


def test_a_folder_that_is_not_there_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="No such file"):
        load_or_make_keys(tmp_path / "nowhere", Scheme.ECDSA)


def test_of_two_that_start_at_once_one_makes_the_keys(tmp_path: Path) -> None:
    made: list[WorkerKeys | ConfigError] = []

    def start() -> None:
        try:
            made.append(load_or_make_keys(tmp_path, Scheme.ECDSA))
        except ConfigError as error:
            made.append(error)

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    keys = load_or_make_keys(tmp_path, Scheme.ECDSA)
    assert {found.signing_key for found in made if isinstance(found, WorkerKeys)} == {
        keys.signing_key
    }
