import json
import stat
import threading
from pathlib import Path

import pytest

from orchestrator.crypto import EcdsaSigner, EncryptionKey
from orchestrator.errors import ConfigError, InputError
from orchestrator.models import Scheme
from orchestrator.worker.identity import KEYS_FILE, MAX_PAIRS, KeyRing, load_or_make_keys


@pytest.mark.parametrize("scheme", list(Scheme))
def test_keys_are_made_once_and_for_their_owner_alone(tmp_path: Path, scheme: Scheme) -> None:
    first = load_or_make_keys(tmp_path, scheme).newest
    again = load_or_make_keys(tmp_path, scheme).newest

    assert first.signing_key == again.signing_key
    assert first.signing_key.scheme is scheme
    assert first.encryption_key.public_key == again.encryption_key.public_key
    assert stat.S_IMODE((tmp_path / KEYS_FILE).stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == [KEYS_FILE]


def test_two_folders_have_different_keys(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()

    one = load_or_make_keys(tmp_path, Scheme.ECDSA).newest
    other = load_or_make_keys(tmp_path / "other", Scheme.ECDSA).newest

    assert one.signing_key != other.signing_key
    assert one.encryption_key.public_key != other.encryption_key.public_key


def test_no_representation_shows_a_secret(tmp_path: Path) -> None:
    keys = load_or_make_keys(tmp_path, Scheme.ECDSA).newest
    (content,) = json.loads((tmp_path / KEYS_FILE).read_text())["keys"]

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
        {"version": 3},
        {"version": 1},
        {"scheme": 3},
        {"keys": []},
        {"keys": {}},
        {"keys": None},
        {"keys": "twice"},
        {"keys": "five"},
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
    (pair,) = content["keys"]
    if change.keys() <= pair.keys():
        change = {"keys": [{**pair, **change}]}
    elif change == {"keys": "twice"}:
        change = {"keys": [pair, pair]}
    elif change == {"keys": "five"}:
        change = {"keys": [_pair() for _ in range(MAX_PAIRS + 1)]}
    path.write_text(json.dumps({**content, **change}))

    with pytest.raises(ConfigError) as caught:
        load_or_make_keys(tmp_path, Scheme.ECDSA)

    assert caught.value.__cause__ is None
    assert pair["signing_secret"] not in str(caught.value)


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
    made: list[KeyRing | ConfigError] = []

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

    keys = load_or_make_keys(tmp_path, Scheme.ECDSA).newest
    assert {found.newest.signing_key for found in made if isinstance(found, KeyRing)} == {
        keys.signing_key
    }


def test_a_file_of_version_1_is_read_and_written_anew(tmp_path: Path) -> None:
    path = tmp_path / KEYS_FILE
    old = _pair()
    path.write_text(json.dumps({"version": 1, "scheme": "ecdsa", **old}))
    path.chmod(0o600)

    keys = load_or_make_keys(tmp_path, Scheme.ECDSA)

    signer = EcdsaSigner.from_bytes(bytes.fromhex(old["signing_secret"]))
    assert [pair.signing_key for pair in keys.pairs] == [signer.public_key]
    assert json.loads(path.read_text())["version"] == 2
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [found.name for found in tmp_path.iterdir()] == [KEYS_FILE]
    again = load_or_make_keys(tmp_path, Scheme.ECDSA).newest
    assert again.encryption_key.to_bytes() == keys.newest.encryption_key.to_bytes()


@pytest.mark.parametrize("scheme", list(Scheme))
def test_rotated_keys_are_kept_newest_last(tmp_path: Path, scheme: Scheme) -> None:
    ring = load_or_make_keys(tmp_path, scheme)
    first = ring.newest

    second = ring.rotate()

    assert ring.pairs == (first, second)
    assert ring.newest is second
    assert ring.retired == (first,)
    assert ring.find(first.signing_key) is first
    kept = load_or_make_keys(tmp_path, scheme)
    assert [pair.signing_key for pair in kept.pairs] == [first.signing_key, second.signing_key]
    assert [pair.encryption_key.public_key for pair in kept.pairs] == [
        first.encryption_key.public_key,
        second.encryption_key.public_key,
    ]
    assert [found.name for found in tmp_path.iterdir()] == [KEYS_FILE]


def test_there_are_never_more_pairs_than_allowed(tmp_path: Path) -> None:
    ring = load_or_make_keys(tmp_path, Scheme.ECDSA)
    for _ in range(MAX_PAIRS - 1):
        ring.rotate()
    before, content = ring.pairs, (tmp_path / KEYS_FILE).read_bytes()

    with pytest.raises(InputError, match=f"{MAX_PAIRS} pairs are in use"):
        ring.rotate()
    assert ring.pairs == before
    assert (tmp_path / KEYS_FILE).read_bytes() == content

    ring.rotate(without=[before[1].signing_key])
    assert ring.pairs[:-1] == (before[0], *before[2:])


def test_the_newest_pair_is_never_forgotten(tmp_path: Path) -> None:
    ring = load_or_make_keys(tmp_path, Scheme.ECDSA)
    content = (tmp_path / KEYS_FILE).read_bytes()

    with pytest.raises(InputError, match="newest"):
        ring.rotate(without=[ring.newest.signing_key])

    assert (tmp_path / KEYS_FILE).read_bytes() == content


def test_keys_that_could_not_be_kept_are_not_used(tmp_path: Path) -> None:
    folder = tmp_path / "worker"
    folder.mkdir()
    ring = load_or_make_keys(folder, Scheme.ECDSA)
    before = ring.pairs
    folder.rename(tmp_path / "moved")

    with pytest.raises(ConfigError, match=KEYS_FILE):
        ring.rotate()

    assert ring.pairs == before


def _pair() -> dict[str, str]:
    return {
        "signing_secret": EcdsaSigner.generate().to_bytes().hex(),
        "encryption_secret": EncryptionKey.generate().to_bytes().hex(),
    }
