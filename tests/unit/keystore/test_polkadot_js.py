"""Accounts exported by polkadot-js, written here by substrate-interface as a second party."""

import base64
import json
from pathlib import Path

import pytest
from substrateinterface import Keypair

from orchestrator.crypto import AccountKey
from orchestrator.errors import InputError
from orchestrator.keystore import Keystore, ScryptParameters
from orchestrator.keystore.polkadot_js import open_polkadot_js

MNEMONIC = "legal winner thank year wave sausage worth useful legal winner thank yellow"
PASSPHRASE = "pässword"


def _export(uri: str = MNEMONIC) -> dict[str, object]:
    pair = Keypair.create_from_uri(uri)
    export: dict[str, object] = pair.export_to_encrypted_json(PASSPHRASE, name="test")
    return export


def _encoding(export: dict[str, object]) -> dict[str, object]:
    encoding = export["encoding"]
    assert isinstance(encoding, dict)
    return encoding


@pytest.fixture(scope="module")
def export() -> dict[str, object]:
    return _export()


@pytest.mark.parametrize("uri", [MNEMONIC, f"{MNEMONIC}//hard/soft", "//Alice"])
def test_export_is_the_account(uri: str) -> None:
    account = open_polkadot_js(json.dumps(_export(uri)).encode(), PASSPHRASE)

    assert account.account_id == AccountKey.from_uri(uri).account_id
    signature = account.sign(b"message")
    assert Keypair.create_from_uri(uri).verify(b"message", signature)


def test_keystore_takes_an_export(tmp_path: Path, export: dict[str, object]) -> None:
    keystore = Keystore(tmp_path / "keys", scrypt=ScryptParameters(n=1 << 10))

    info = keystore.import_polkadot_js(
        "owner", json.dumps(export).encode(), export_passphrase=PASSPHRASE, passphrase="new"
    )

    assert info.account_id == AccountKey.from_uri(MNEMONIC).account_id
    assert keystore.load("owner", passphrase="new").account.account_id == info.account_id


def test_wrong_passphrase_stores_nothing(tmp_path: Path, export: dict[str, object]) -> None:
    keystore = Keystore(tmp_path / "keys")

    with pytest.raises(InputError, match="passphrase: wrong, or the export is damaged"):
        keystore.import_polkadot_js(
            "owner", json.dumps(export).encode(), export_passphrase="wrong", passphrase="new"
        )

    assert keystore.identities() == []


def test_ed25519_account_is_refused(export: dict[str, object]) -> None:
    encoding = {**_encoding(export), "content": ["pkcs8", "ed25519"]}

    with pytest.raises(InputError, match="not an sr25519 account"):
        open_polkadot_js(json.dumps({**export, "encoding": encoding}).encode(), PASSPHRASE)


def test_address_of_another_key_is_refused(export: dict[str, object]) -> None:
    changed = {**export, "address": _export("//Bob")["address"]}

    with pytest.raises(InputError, match="the key is not that of the address"):
        open_polkadot_js(json.dumps(changed).encode(), PASSPHRASE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"encoding": None}, "version is not 3"),
        ({"encoding": {"version": "2"}}, "version is not 3"),
        ({"encoding": {"version": "3", "type": ["none"]}}, "not encrypted with scrypt"),
        ({"encoded": "*"}, "encoded is not base64"),
        ({"encoded": None}, "encoded is not base64"),
        ({"encoded": "AAAA"}, "encoded is too short"),
        ({"address": None}, "there is no address"),
        (
            {"encoded": base64.b64encode(bytes(32) + b"\xff" * 12 + bytes(100)).decode()},
            "is not allowed",
        ),
    ],
)
def test_changed_exports_are_refused(
    export: dict[str, object], change: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        open_polkadot_js(json.dumps({**export, **change}).encode(), PASSPHRASE)


@pytest.mark.parametrize("data", [b"", b"\xff", b"[]", b"7"])
def test_other_files_are_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"not JSON|not a JSON object"):
        open_polkadot_js(data, PASSPHRASE)


def test_passphrase_that_is_no_text_is_refused(export: dict[str, object]) -> None:
    with pytest.raises(InputError, match="not valid Unicode"):
        open_polkadot_js(json.dumps(export).encode(), "\ud800")


def test_content_that_is_no_key_is_refused(
    export: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nacl.secret.SecretBox.decrypt", lambda *_: bytes(117))

    with pytest.raises(InputError, match="not PKCS #8"):
        open_polkadot_js(json.dumps(export).encode(), PASSPHRASE)
