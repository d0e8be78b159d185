"""An owner's keys at rest: nobody else reads them, nothing is overwritten, nothing is shown."""

import base64
import hashlib
import json
import logging
import os
from pathlib import Path

import pytest

from orchestrator.crypto import AccountKey, OwnerSecret
from orchestrator.errors import Error, InputError
from orchestrator.keystore import Keystore, NewIdentity, ScryptParameters

# Cheap on purpose: the cost of a guess is not what these tests are about.
QUICK = ScryptParameters(n=1 << 10)
PASSPHRASE = "correct horse battery"
MNEMONIC = "legal winner thank year wave sausage worth useful legal winner thank yellow"


@pytest.fixture
def keystore(tmp_path: Path) -> Keystore:
    return Keystore(tmp_path / "keys", scrypt=QUICK)


@pytest.fixture
def key_file(keystore: Keystore, tmp_path: Path) -> Path:
    keystore.new("owner", passphrase=PASSPHRASE)
    return tmp_path / "keys" / "owner.json"


def _folder(path: Path) -> dict[str, bytes]:
    return {str(file): file.read_bytes() for file in path.rglob("*") if file.is_file()}


def test_new_identity_loads_again(keystore: Keystore) -> None:
    new = keystore.new("owner", passphrase=PASSPHRASE)

    identity = keystore.load("owner", passphrase=PASSPHRASE)

    assert identity.account.account_id == new.info.account_id
    assert identity.account.to_bytes() == AccountKey.from_uri(new.mnemonic).to_bytes()
    assert keystore.identities() == [new.info]
    assert new.info.is_encrypted


def test_owner_secrets_are_random_and_not_from_the_account(keystore: Keystore) -> None:
    keystore.import_mnemonic("one", MNEMONIC, passphrase=PASSPHRASE)
    keystore.import_mnemonic("two", MNEMONIC, passphrase=PASSPHRASE)

    one = keystore.load("one", passphrase=PASSPHRASE)
    two = keystore.load("two", passphrase=PASSPHRASE)

    assert one.account.account_id == two.account.account_id
    assert one.secret.to_bytes() != two.secret.to_bytes()
    assert one.secret.to_bytes() not in one.account.to_bytes()


def test_directory_and_files_are_private(key_file: Path) -> None:
    assert key_file.parent.stat().st_mode & 0o777 == 0o700
    assert [path.name for path in key_file.parent.iterdir()] == ["owner.json"]
    assert key_file.stat().st_mode & 0o777 == 0o600


def test_nothing_secret_is_on_disk_or_shown(
    keystore: Keystore, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    new = keystore.new("owner", passphrase=PASSPHRASE)
    identity = keystore.load("owner", passphrase=PASSPHRASE)
    with pytest.raises(InputError) as refused:
        keystore.load("owner", passphrase=PASSPHRASE + "!")
    stored = b"".join(_folder(tmp_path).values())
    shown = f"{new!r} {identity!r} {keystore!r} {refused.value} {caplog.text}"

    for secret in (
        identity.secret.to_bytes(),
        identity.account.to_bytes(),
        identity.account.to_bytes()[:32],
    ):
        for form in (secret, secret.hex().encode(), base64.b64encode(secret)):
            assert form not in stored
            assert form not in shown.encode()
    assert new.mnemonic not in shown
    assert new.mnemonic.encode() not in stored
    assert PASSPHRASE.encode() not in stored
    assert PASSPHRASE not in shown


def test_wrong_passphrase_is_one_clear_error(keystore: Keystore, key_file: Path) -> None:
    before = key_file.read_bytes()

    with pytest.raises(InputError, match=r"^passphrase: wrong, or the file is damaged$"):
        keystore.load("owner", passphrase="wrong")

    assert key_file.read_bytes() == before


def test_nothing_is_overwritten(keystore: Keystore, key_file: Path) -> None:
    before = key_file.read_bytes()

    with pytest.raises(InputError, match="there is an identity owner"):
        keystore.new("owner", passphrase=PASSPHRASE)
    with pytest.raises(InputError, match="there is an identity owner"):
        keystore.import_mnemonic("owner", MNEMONIC, passphrase=PASSPHRASE)

    assert key_file.read_bytes() == before
    assert len(list(key_file.parent.iterdir())) == 1


def test_empty_passphrase_is_refused(keystore: Keystore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="unencrypted keys are not allowed"):
        keystore.new("owner", passphrase="")

    assert _folder(tmp_path) == {}


def test_empty_passphrase_needs_the_explicit_setting(tmp_path: Path) -> None:
    keystore = Keystore(tmp_path / "keys", allow_unencrypted=True)

    new = keystore.new("owner", passphrase="")

    assert not new.info.is_encrypted
    loaded = keystore.load("owner", passphrase="")
    assert loaded.account.account_id == new.info.account_id
    assert (tmp_path / "keys" / "owner.json").stat().st_mode & 0o777 == 0o600


@pytest.fixture
def key_in_clear(tmp_path: Path) -> Path:
    Keystore(tmp_path / "keys", allow_unencrypted=True).new("owner", passphrase="")
    return tmp_path / "keys" / "owner.json"


@pytest.mark.parametrize("passphrase", ["", PASSPHRASE])
def test_key_in_clear_needs_the_explicit_setting(
    keystore: Keystore, key_in_clear: Path, tmp_path: Path, passphrase: str
) -> None:
    """Whoever puts one there need not know the passphrase of the one that was there."""
    for use in (
        lambda: keystore.load("owner", passphrase=passphrase),
        lambda: keystore.backup(
            "owner", tmp_path / "b", passphrase=passphrase, backup_passphrase="b"
        ),
    ):
        with pytest.raises(InputError, match=r"key file of owner: not encrypted, which is not al"):
            use()

    assert not (tmp_path / "b").exists()
    assert [info.is_encrypted for info in keystore.identities()] == [False], "it is listed as such"


def test_passphrase_for_a_key_in_clear_is_refused(key_in_clear: Path) -> None:
    keystore = Keystore(key_in_clear.parent, allow_unencrypted=True)

    with pytest.raises(InputError, match=r"^passphrase: given, and the key file of owner is not"):
        keystore.load("owner", passphrase=PASSPHRASE)

    assert keystore.load("owner", passphrase="").name == "owner"


def test_files_of_others_do_not_hide_the_identities(keystore: Keystore, key_file: Path) -> None:
    (key_file.parent / "package.json").write_text("{}")
    (key_file.parent / "package.json").chmod(0o600)
    (key_file.parent / "Other.json").symlink_to(key_file)

    assert [info.name for info in keystore.identities()] == ["owner"]
    unusable = keystore.unusable()
    assert list(unusable) == ["Other.json", "package.json"]
    assert "must be 1 to 64 of" in unusable["Other.json"]
    assert "not of the kind" in unusable["package.json"]


class TestScryptMemory:
    @pytest.mark.parametrize(
        "scrypt",
        [ScryptParameters(n=1 << 10, p=16), ScryptParameters(n=2, r=64), ScryptParameters(n=2)],
    )
    def test_is_what_openssl_needs(self, tmp_path: Path, scrypt: ScryptParameters) -> None:
        keystore = Keystore(tmp_path / "keys", scrypt=scrypt)
        keystore.new("owner", passphrase=PASSPHRASE)

        assert keystore.load("owner", passphrase=PASSPHRASE).name == "owner"

    def test_of_the_most_that_is_allowed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """1 GiB is asked for in a way that OpenSSL takes; the work itself is left out here."""
        asked: list[int] = []

        def quick(password: bytes, *, maxmem: int, n: int, r: int, p: int, **_: object) -> bytes:
            asked.append(maxmem)
            assert maxmem >= 128 * r * (n + p + 2)
            return bytes(32)

        monkeypatch.setattr(hashlib, "scrypt", quick)
        most = ScryptParameters(n=1 << 20, p=16)

        Keystore(tmp_path / "keys", scrypt=most).new("owner", passphrase=PASSPHRASE)

        assert asked == [asked[0]]
        assert asked[0] < 1 << 31

    @pytest.mark.parametrize(
        "scrypt", [ScryptParameters(n=1 << 21), ScryptParameters(n=2, r=1 << 20, p=16)]
    )
    def test_of_more_is_refused(self, tmp_path: Path, scrypt: ScryptParameters) -> None:
        with pytest.raises(InputError, match="is too much"):
            Keystore(tmp_path / "keys", scrypt=scrypt).new("owner", passphrase=PASSPHRASE)

        assert _folder(tmp_path) == {}


def test_composed_and_decomposed_letters_are_one_passphrase(keystore: Keystore) -> None:
    keystore.new("owner", passphrase="Schl\u00fcssel")

    assert keystore.load("owner", passphrase="Schlu\u0308ssel").name == "owner"


def test_mnemonic_with_a_path_is_that_account(keystore: Keystore) -> None:
    info = keystore.import_mnemonic("owner", f"{MNEMONIC}//jobs", passphrase=PASSPHRASE)

    assert info.account_id == AccountKey.from_uri(f"{MNEMONIC}//jobs").account_id


@pytest.mark.parametrize("mnemonic", ["", "//Alice", "legal winner thank", MNEMONIC + " year"])
def test_bad_mnemonic_is_refused_and_not_quoted(
    keystore: Keystore, tmp_path: Path, mnemonic: str
) -> None:
    with pytest.raises(InputError) as refused:
        keystore.import_mnemonic("owner", mnemonic, passphrase=PASSPHRASE)

    assert "winner" not in str(refused.value)
    assert _folder(tmp_path) == {}


def test_development_account_needs_the_explicit_setting(keystore: Keystore, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="public development account"):
        keystore.import_development_account("alice", "//Alice", passphrase=PASSPHRASE)
    assert _folder(tmp_path) == {}

    allowing = Keystore(tmp_path / "development", allow_unencrypted=True)
    info = allowing.import_development_account("alice", "//Alice")

    assert info.account_id == AccountKey.from_uri("//Alice").account_id
    with pytest.raises(InputError, match="not a development account"):
        allowing.import_development_account("other", MNEMONIC)


@pytest.mark.parametrize("name", ["", "../owner", "Owner", ".owner", "a" * 65, "a/b", "a\n"])
def test_bad_names_are_refused(keystore: Keystore, tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match=r"^name: "):
        keystore.new(name, passphrase=PASSPHRASE)

    assert _folder(tmp_path) == {}


def test_unknown_name_is_an_input_error(keystore: Keystore) -> None:
    with pytest.raises(InputError, match=r"there is no identity 'nobody' in .*there is none"):
        keystore.load("nobody", passphrase=PASSPHRASE)


class TestOtherUsers:
    @pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
    def test_key_file_that_others_may_read(
        self, keystore: Keystore, key_file: Path, mode: int
    ) -> None:
        key_file.chmod(mode)

        with pytest.raises(InputError, match=f"mode 0{mode:o} lets other users in"):
            keystore.load("owner", passphrase=PASSPHRASE)

    def test_directory_that_others_may_enter(self, tmp_path: Path) -> None:
        directory = tmp_path / "keys"
        directory.mkdir(mode=0o755)

        with pytest.raises(InputError, match="mode 0755 lets other users in"):
            Keystore(directory)

    def test_directory_that_is_a_link(self, tmp_path: Path) -> None:
        (tmp_path / "elsewhere").mkdir(mode=0o700)
        (tmp_path / "keys").symlink_to(tmp_path / "elsewhere")

        with pytest.raises(InputError, match="links are not followed"):
            Keystore(tmp_path / "keys")

    def test_key_file_that_is_a_link(self, keystore: Keystore, key_file: Path) -> None:
        key_file.rename(key_file.parent.parent / "moved.json")
        key_file.symlink_to(key_file.parent.parent / "moved.json")

        with pytest.raises(InputError, match="symbolic link"):
            keystore.load("owner", passphrase=PASSPHRASE)

    def test_key_file_that_is_a_fifo_does_not_hang(
        self, keystore: Keystore, key_file: Path
    ) -> None:
        key_file.unlink()
        os.mkfifo(key_file, 0o600)

        with pytest.raises(InputError, match="not a regular file"):
            keystore.load("owner", passphrase=PASSPHRASE)

    def test_key_file_of_another_user(
        self, keystore: Keystore, key_file: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        mine = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: mine + 1)

        with pytest.raises(InputError, match=f"belongs to user {mine}"):
            keystore.load("owner", passphrase=PASSPHRASE)


ALICE = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("version", 2, "version 2, known is 1"),
        ("kind", "other", "not of the kind"),
        ("account", None, "account or box is missing"),
        ("account", "5Alice", r"5Alice"),
        ("account", ALICE, "the key is not that of the account"),
        ("box", [], "account or box is missing"),
        ("box.kdf", "argon2", "not an scrypt box"),
        ("box.cipher", "rot13", "the cipher is not"),
        ("box.n", True, "n is not a positive number"),
        ("box.n", 3, "n=3, r=8, p=1 is not possible"),
        ("box.n", 1 << 30, "is too much"),
        ("box.p", 17, "is too much"),
        ("box.r", 0, "r is not a positive number"),
        ("box.salt", "*", "salt is not base64"),
        ("box.salt", 7, "salt is not base64"),
        ("box.box", "AAAA", "passphrase: wrong, or the file is damaged"),
    ],
)
def test_changed_key_files_are_refused(
    keystore: Keystore, key_file: Path, field: str, value: object, message: str
) -> None:
    contents = json.loads(key_file.read_bytes())
    target = contents["box"] if field.startswith("box.") else contents
    target[field.removeprefix("box.")] = value
    key_file.write_text(json.dumps(contents))

    with pytest.raises(InputError, match=message):
        keystore.load("owner", passphrase=PASSPHRASE)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "not JSON"),
        (b"\xff\x00", "not JSON"),
        (b"[" * 50_000, "not JSON"),
        (b"[]", "not of the kind"),
        (b" " * 70_000, "longer than the limit of 65536 bytes"),
    ],
)
def test_files_that_are_no_key_files_are_refused(
    keystore: Keystore, key_file: Path, data: bytes, message: str
) -> None:
    key_file.write_bytes(data)

    with pytest.raises(InputError, match=message):
        keystore.load("owner", passphrase=PASSPHRASE)


@pytest.mark.parametrize("box", ["*", None, base64.b64encode(bytes(95)).decode()])
def test_damaged_unencrypted_files_are_refused(tmp_path: Path, box: str | None) -> None:
    keystore = Keystore(tmp_path / "keys", allow_unencrypted=True)
    keystore.new("owner", passphrase="")
    key_file = tmp_path / "keys" / "owner.json"
    contents = json.loads(key_file.read_bytes())
    contents["box"]["box"] = box
    key_file.write_text(json.dumps(contents))

    with pytest.raises(InputError, match="key file"):
        keystore.load("owner", passphrase="")


@pytest.mark.parametrize("passphrase", ["\ud800", "wrong"])
def test_passphrase_that_is_no_text_is_refused(
    keystore: Keystore, key_file: Path, passphrase: str
) -> None:
    with pytest.raises(InputError, match=r"^passphrase: "):
        keystore.load("owner", passphrase=passphrase)


class TestBackup:
    BACKUP_PASSPHRASE = "another one, on paper"

    def test_restores_account_and_owner_secret_on_another_machine(
        self, keystore: Keystore, tmp_path: Path
    ) -> None:
        keystore.new("owner", passphrase=PASSPHRASE)
        backup = tmp_path / "owner.backup"
        keystore.backup(
            "owner", backup, passphrase=PASSPHRASE, backup_passphrase=self.BACKUP_PASSPHRASE
        )
        laptop = Keystore(tmp_path / "laptop", scrypt=QUICK)

        info = laptop.restore(
            backup, backup_passphrase=self.BACKUP_PASSPHRASE, passphrase="of the laptop"
        )

        before = keystore.load("owner", passphrase=PASSPHRASE)
        after = laptop.load("owner", passphrase="of the laptop")
        assert info == keystore.info("owner")
        assert after.account.to_bytes() == before.account.to_bytes()
        assert after.secret.to_bytes() == before.secret.to_bytes()
        assert backup.stat().st_mode & 0o777 == 0o600

    def test_backup_on_a_medium_without_modes_is_read(
        self, keystore: Keystore, tmp_path: Path
    ) -> None:
        keystore.new("owner", passphrase=PASSPHRASE)
        backup = tmp_path / "owner.backup"
        keystore.backup("owner", backup, passphrase=PASSPHRASE, backup_passphrase="b")
        backup.chmod(0o755)

        info = keystore.restore(backup, backup_passphrase="b", passphrase=PASSPHRASE, name="again")

        assert info.name == "again"

    def test_nothing_is_overwritten(self, keystore: Keystore, tmp_path: Path) -> None:
        keystore.new("owner", passphrase=PASSPHRASE)
        backup = tmp_path / "owner.backup"
        backup.write_bytes(b"holiday pictures")

        with pytest.raises(InputError, match="already there"):
            keystore.backup("owner", backup, passphrase=PASSPHRASE, backup_passphrase="b")

        assert backup.read_bytes() == b"holiday pictures"
        assert sorted(path.name for path in tmp_path.iterdir()) == ["keys", "owner.backup"]

    def test_into_a_folder_that_is_not_there(self, keystore: Keystore, tmp_path: Path) -> None:
        keystore.new("owner", passphrase=PASSPHRASE)

        with pytest.raises(InputError, match="No such file"):
            keystore.backup(
                "owner", tmp_path / "usb" / "b", passphrase=PASSPHRASE, backup_passphrase="b"
            )

    def test_is_never_unencrypted(self, tmp_path: Path) -> None:
        keystore = Keystore(tmp_path / "keys", allow_unencrypted=True, scrypt=QUICK)
        keystore.new("owner", passphrase="")

        with pytest.raises(InputError, match="always encrypted"):
            keystore.backup("owner", tmp_path / "b", passphrase="", backup_passphrase="")
        with pytest.raises(InputError, match="not a backup"):
            keystore.restore(
                tmp_path / "keys" / "owner.json",
                backup_passphrase="",
                passphrase="",
                name="other",
            )

        assert not (tmp_path / "b").exists()
        assert [info.name for info in keystore.identities()] == ["owner"]

    def test_wrong_passphrase_or_taken_name_stores_nothing(
        self, keystore: Keystore, key_file: Path, tmp_path: Path
    ) -> None:
        backup = tmp_path / "owner.backup"
        keystore.backup("owner", backup, passphrase=PASSPHRASE, backup_passphrase="b")
        before = _folder(tmp_path)

        for name, backup_passphrase in (("other", "wrong"), (None, "b")):
            with pytest.raises(InputError):
                keystore.restore(
                    backup,
                    backup_passphrase=backup_passphrase,
                    passphrase=PASSPHRASE,
                    name=name,
                )

        assert _folder(tmp_path) == before


def test_full_disk_leaves_nothing_behind(
    keystore: Keystore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_space(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)

    with pytest.raises(InputError, match="No space left on device"):
        keystore.new("owner", passphrase=PASSPHRASE)

    assert _folder(tmp_path) == {}


def test_two_processes_that_make_one_name_do_not_overwrite(
    keystore: Keystore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one passes the first look, and is refused when it writes."""
    keystore.new("owner", passphrase=PASSPHRASE)
    before = _folder(tmp_path)
    monkeypatch.setattr(Path, "exists", lambda _: False)

    with pytest.raises(InputError, match="already there"):
        keystore.new("owner", passphrase=PASSPHRASE)

    assert _folder(tmp_path) == before


def test_directory_in_an_impossible_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")

    with pytest.raises(InputError):
        Keystore(tmp_path / "file" / "keys")


def test_errors_are_ours(keystore: Keystore) -> None:
    with pytest.raises(Error):
        keystore.info("nobody")
    assert "..." in repr(NewIdentity(keystore.new("a", passphrase="p").info, MNEMONIC))
    assert OwnerSecret.generate().to_bytes().hex() not in repr(OwnerSecret.generate())
