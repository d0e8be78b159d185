"""
An owner's keys on this machine.

An *identity* is an account (sr25519) and an owner secret, the 32 random bytes that open every
result the owner was ever sent. Each identity is one file of mode 0600 in a directory of mode
0700. A backup is one such file under a passphrase, to be kept elsewhere; the owner secret can't
be had from the account's phrase, so a phrase alone is no backup.

No method logs, and no message or `repr` shows a phrase, a passphrase or a key.
"""

import base64
import binascii
import json
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestrator.crypto.accounts import generate_mnemonic
from orchestrator.crypto.keys import AccountKey, OwnerSecret
from orchestrator.encoding import from_ss58, to_ss58
from orchestrator.errors import InputError
from orchestrator.keystore.locked_box import DEFAULT_SCRYPT, ScryptParameters, lock, unlock
from orchestrator.keystore.polkadot_js import open_polkadot_js
from orchestrator.keystore.private_files import (
    ensure_private_directory,
    read_private_file,
    write_new_file,
)

__all__ = ["Identity", "IdentityInfo", "Keystore", "NewIdentity", "ScryptParameters"]

_KIND = "phala-jobs/identity"
_VERSION = 1
_MAX_FILE_BYTES = 64 << 10
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_ACCOUNT_LENGTH = 64
_SECRET_LENGTH = 32


@dataclass(frozen=True, kw_only=True)
class Identity:
    """An account and the owner secret that goes with it, ready for use."""

    name: str
    account: AccountKey
    secret: OwnerSecret


@dataclass(frozen=True, kw_only=True)
class IdentityInfo:
    """What is known of an identity without its passphrase."""

    name: str
    account_id: bytes
    is_encrypted: bool


class NewIdentity:
    """
    A new identity and the phrase of its account, which nobody can be shown again.

    The phrase restores the account in any wallet, but not the owner secret: only a
    backup does.
    """

    def __init__(self, info: IdentityInfo, mnemonic: str) -> None:
        self.info = info
        self.mnemonic = mnemonic

    def __repr__(self) -> str:
        return f"NewIdentity(info={self.info}, mnemonic=...)"


class Keystore:
    """
    Identities in one directory.

    Every method that stores takes a passphrase; an empty one is refused unless
    `allow_unencrypted` says that the files may lie in clear. Without it a file that lies in
    clear is refused too: whoever put it there need not know the passphrase.
    """

    def __init__(
        self,
        directory: Path,
        *,
        allow_unencrypted: bool = False,
        scrypt: ScryptParameters = DEFAULT_SCRYPT,
    ) -> None:
        """
        Open the keystore, made when it is not there.

        Raises:
            InputError: Other users may enter the directory, or it is a link.
        """
        self._directory = ensure_private_directory(directory)
        self._allow_unencrypted = allow_unencrypted
        self._scrypt = scrypt

    def identities(self) -> list[IdentityInfo]:
        """
        All identities by name; no passphrase is needed.

        Files that are not usable as one are not among them: see `unusable`.
        """
        return [found for _, found in self._listed() if isinstance(found, IdentityInfo)]

    def unusable(self) -> dict[str, str]:
        """The files `*.json` in the directory that are no usable identity: name → why not."""
        return {name: str(found) for name, found in self._listed() if isinstance(found, InputError)}

    def _listed(self) -> Iterator[tuple[str, IdentityInfo | InputError]]:
        for path in sorted(self._directory.glob("*.json")):
            try:
                yield path.name, self.info(path.stem)
            except InputError as error:
                yield path.name, error

    def info(self, name: str) -> IdentityInfo:
        """
        What is known of an identity without its passphrase.

        Raises:
            InputError: There is none of this name, or its file is not usable.
        """
        return _info(name, self._read(name))

    def new(self, name: str, *, passphrase: str) -> NewIdentity:
        """Make an identity; the returned phrase is to be shown to the user once."""
        mnemonic = generate_mnemonic()
        info = self._store(name, passphrase, lambda: AccountKey.from_uri(mnemonic))
        return NewIdentity(info, mnemonic)

    def import_mnemonic(self, name: str, mnemonic: str, *, passphrase: str) -> IdentityInfo:
        """
        Make an identity with the account of a phrase, perhaps with a path, and a new owner secret.

        Raises:
            InputError: It is not a valid phrase; development accounts are not accepted.
        """
        if not mnemonic.strip() or mnemonic.strip().startswith("/"):
            raise InputError("mnemonic: a path without a phrase is a public development account")
        return self._store(name, passphrase, lambda: AccountKey.from_uri(mnemonic))

    def import_development_account(
        self, name: str, uri: str, *, passphrase: str = ""
    ) -> IdentityInfo:
        """
        Make an identity with an account such as `//Alice`, whose key everybody knows.

        Raises:
            InputError: This keystore does not allow unencrypted files, or it is no such URI.
        """
        if not self._allow_unencrypted:
            raise InputError(
                f"account: {name} would be a public development account"
                "; set PHALA_JOBS_KEYS_UNENCRYPTED=true (development)"
            )
        if not uri.strip().startswith("/"):
            raise InputError("account: not a development account such as //Alice")
        return self._store(name, passphrase, lambda: AccountKey.from_uri(uri))

    def import_polkadot_js(
        self, name: str, data: bytes, *, export_passphrase: str, passphrase: str
    ) -> IdentityInfo:
        """
        Make an identity with the account of a polkadot-js export and a new owner secret.

        Raises:
            InputError: The export is not usable, or its passphrase is wrong.
        """
        return self._store(name, passphrase, lambda: open_polkadot_js(data, export_passphrase))

    def load(self, name: str, *, passphrase: str) -> Identity:
        """
        Return an identity, ready for use.

        Raises:
            InputError: There is none of this name, its file is not usable or may be
                read by others, or the passphrase is wrong; or the file lies in clear,
                which this keystore does not allow or a passphrase says that it should not.
        """
        contents = self._read(name)
        if not _info(name, contents).is_encrypted:
            if not self._allow_unencrypted:
                raise InputError(
                    f"key file of {name}: not encrypted, which is not allowed"
                    "; set PHALA_JOBS_KEYS_UNENCRYPTED=true (development)"
                )
            if passphrase:
                raise InputError(f"passphrase: given, and the key file of {name} is not encrypted")
        return _open(name, contents, passphrase)

    def backup(self, name: str, path: Path, *, passphrase: str, backup_passphrase: str) -> None:
        """
        Write the account and the owner secret to one file at *path*, under its own passphrase.

        Raises:
            InputError: As `load`; there is something at *path*; or the backup's passphrase
                is empty, which no setting allows.
        """
        identity = self.load(name, passphrase=passphrase)
        if not backup_passphrase:
            raise InputError("backup passphrase: empty, a backup is always encrypted")
        write_new_file(path, self._dump(identity, backup_passphrase))

    def restore(
        self, path: Path, *, backup_passphrase: str, passphrase: str, name: str | None = None
    ) -> IdentityInfo:
        """
        Take the identity in a backup into this keystore, under its own or another name.

        Raises:
            InputError: It is no backup, its passphrase is wrong, or the name is taken.
        """
        # A backup is encrypted and may come from a medium without modes or owners.
        contents = _parse(read_private_file(path, max_bytes=_MAX_FILE_BYTES, shared=True))
        if not _info("backup", contents).is_encrypted:
            raise InputError(f"file {path}: not encrypted, so not a backup")
        stored_name = contents.get("name")
        chosen = name or (stored_name if isinstance(stored_name, str) else "")
        self._require_new(chosen, passphrase, way_out="; give --name")
        identity = _open(chosen, contents, backup_passphrase)
        write_new_file(self._path(chosen), self._dump(identity, passphrase))
        return self.info(chosen)

    def _read(self, name: str) -> dict[str, object]:
        path = self._path(name)
        if not os.path.lexists(path):
            there = ", ".join(sorted(found.stem for found in self._directory.glob("*.json")))
            raise InputError(
                f"there is no identity {name!r} in {self._directory}"
                f" ({f'there are {there}' if there else 'there is none'});"
                f" phala-jobs keys new {name} makes one"
            )
        return _parse(read_private_file(path, max_bytes=_MAX_FILE_BYTES))

    def _store(self, name: str, passphrase: str, make: Callable[[], AccountKey]) -> IdentityInfo:
        self._require_new(name, passphrase)
        identity = Identity(name=name, account=make(), secret=OwnerSecret.generate())
        write_new_file(self._path(name), self._dump(identity, passphrase))
        return self.info(name)

    def _require_new(self, name: str, passphrase: str, *, way_out: str = "") -> None:
        if self._path(name).exists():
            raise InputError(
                f"name: there is an identity {name}, and nothing is overwritten{way_out}"
            )
        if not passphrase and not self._allow_unencrypted:
            raise InputError(
                "passphrase: empty, and unencrypted keys are not allowed"
                "; set PHALA_JOBS_KEYS_UNENCRYPTED=true (development)"
            )

    def _path(self, name: str) -> Path:
        if not _NAME.fullmatch(name):
            raise InputError(f"name: {name!r}, must be 1 to 64 of a-z, 0-9, '.', '_' and '-'")
        return self._directory / f"{name}.json"

    def _dump(self, identity: Identity, passphrase: str) -> bytes:
        secret = identity.account.to_bytes() + identity.secret.to_bytes()
        if passphrase:
            box = lock(secret, passphrase, scrypt=self._scrypt)
        else:
            box = {"kdf": None, "box": base64.b64encode(secret).decode()}
        contents = {
            "kind": _KIND,
            "version": _VERSION,
            "name": identity.name,
            "account": to_ss58(identity.account.account_id),
            "box": box,
        }
        return json.dumps(contents, indent=2).encode() + b"\n"


def _parse(data: bytes) -> dict[str, object]:
    try:
        contents = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InputError("key file: not JSON") from error
    if not isinstance(contents, dict) or contents.get("kind") != _KIND:
        raise InputError(f"key file: not of the kind {_KIND}")
    if contents.get("version") != _VERSION:
        raise InputError(f"key file: version {contents.get('version')!r}, known is {_VERSION}")
    return contents


def _info(name: str, contents: dict[str, object]) -> IdentityInfo:
    account, box = contents.get("account"), contents.get("box")
    if not isinstance(account, str) or not isinstance(box, dict):
        raise InputError("key file: account or box is missing")
    return IdentityInfo(
        name=name, account_id=from_ss58(account), is_encrypted=box.get("kdf") is not None
    )


def _open(name: str, contents: dict[str, object], passphrase: str) -> Identity:
    info = _info(name, contents)
    box = contents["box"]
    secret = unlock(box, passphrase) if info.is_encrypted else _unlocked(box)
    if len(secret) != _ACCOUNT_LENGTH + _SECRET_LENGTH:
        raise InputError(f"key file of {name}: the content has another length")
    account = AccountKey.from_bytes(secret[:_ACCOUNT_LENGTH])
    # The account stands in clear beside the box, which does not authenticate it.
    if account.account_id != info.account_id:
        raise InputError(f"key file of {name}: the key is not that of the account it names")
    owner_secret = OwnerSecret.from_bytes(secret[_ACCOUNT_LENGTH:])
    return Identity(name=name, account=account, secret=owner_secret)


def _unlocked(box: object) -> bytes:
    text = box.get("box") if isinstance(box, dict) else None
    try:
        return base64.b64decode(text if isinstance(text, str) else "-", validate=True)
    except (binascii.Error, ValueError):
        # Not chained: the library's error holds what it was given.
        raise InputError("key file: the content is not base64") from None
