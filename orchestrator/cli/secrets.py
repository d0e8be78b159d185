"""
Secrets for a command: from a file, a descriptor, or typed at a terminal.

Never from an option's value or a variable: other processes can read those.
"""

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.config import OriginKind
from orchestrator.errors import ConfigError, InputError

if TYPE_CHECKING:
    from orchestrator.cli.session import Session
    from orchestrator.keystore import Identity, Keystore
    from orchestrator.models import Account

MAX_SECRET_BYTES = 65_536  # a polkadot-js file is about 1 KiB


def read_secret_file(field: str, path: Path) -> str:
    """
    The text of a file that only its owner may read, without the line end.

    Raises:
        InputError: It can't be read, others may read it, or it is empty, too long or
            not text; never shows what it holds.
    """
    from orchestrator.keystore.private_files import read_private_file

    try:
        data = read_private_file(path, max_bytes=MAX_SECRET_BYTES)
    except InputError as error:
        raise InputError(f"{field}: {error}") from error
    return _text(f"{field} {path}", data)


def read_secret_descriptor(field: str, descriptor: int) -> str:
    """The text that comes from an open descriptor, up to its end, without the line end."""
    data = b""
    try:
        while len(data) <= MAX_SECRET_BYTES:
            part = os.read(descriptor, MAX_SECRET_BYTES + 1 - len(data))
            if not part:
                break
            data += part
    except OSError as error:
        raise InputError(f"{field} {descriptor}: {error.strerror}") from error
    return _text(f"{field} {descriptor}", data)


def _text(place: str, data: bytes) -> str:
    if len(data) > MAX_SECRET_BYTES:
        raise InputError(f"{place}: longer than the limit of {MAX_SECRET_BYTES} bytes")
    try:
        text = data.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError(f"{place}: not text") from None  # its message would quote the secret
    if not text:
        raise InputError(f"{place}: empty")
    if not text.isprintable():
        raise InputError(f"{place}: more than one line, or control characters")
    return text


def passphrase(session: "Session", *, confirm: bool = False) -> str:
    """
    The passphrase of the keys: from its file, its descriptor, or asked for at a terminal.

    Raises:
        InputError: There is none of these, or what was typed twice differs.
    """
    settings = session.settings
    if settings.passphrase_file is not None:
        return read_secret_file("passphrase_file", settings.passphrase_file)
    if settings.passphrase_fd is not None:
        return read_secret_descriptor("passphrase_fd", settings.passphrase_fd)
    if not sys.stdin.isatty():
        raise InputError(
            "passphrase: give --passphrase-file or --passphrase-fd, or type it at a terminal"
        )
    import getpass

    typed = getpass.getpass("Passphrase: ", stream=sys.stderr)
    if confirm and typed != getpass.getpass("The same again: ", stream=sys.stderr):
        raise InputError("passphrase: the two differ")
    if not typed:
        raise InputError("passphrase: empty")
    return typed


def load_account(session: "Session") -> "Account":
    """
    The account that signs: from `account_file`, or by name from the folder of keys.

    Raises:
        InputError: There is none, it can't be read or opened, or it is not clear which is meant.
    """
    from orchestrator.crypto.keys import AccountKey

    path = _account_file(session)
    if path is None:
        return load_identity(session).account
    text = read_secret_file("account_file", path)
    try:
        if text.startswith("0x"):
            return AccountKey.from_seed(bytes.fromhex(text[2:]))
        return AccountKey.from_uri(text)
    except (InputError, ValueError):
        raise InputError(
            f"account_file {path}: neither a mnemonic, nor a derivation such as //Alice, nor a"
            " seed of 0x and 64 hex digits"
        ) from None  # the cause's message may quote the secret


def find_account_id(session: "Session") -> bytes | None:
    """The id of the account that would sign, without any passphrase; `None` when none is named."""
    if _account_file(session) is not None:
        return load_account(session).account_id
    name = session.settings.account
    if name is None:
        return None
    return open_keystore(session).info(name).account_id


def _account_file(session: "Session") -> Path | None:
    """
    The file with the account that signs; `None` where the account is named, or there is none.

    A variable left over from before must not sign what an option gives to another account: of
    `account` and `account_file` the one from the stronger level counts.

    Raises:
        ConfigError: Both come from the same level.
    """
    settings, origins = session.settings, session.loaded.origins
    if settings.account is None or settings.account_file is None:
        return settings.account_file
    named, in_file = origins["account"], origins["account_file"]
    if named.kind is in_file.kind:
        raise ConfigError(
            f"account ({named}) and account_file ({in_file}) both say which account signs: leave"
            " one out"
        )
    strongest_first = list(OriginKind)
    is_named = strongest_first.index(named.kind) < strongest_first.index(in_file.kind)
    return None if is_named else settings.account_file


def open_keystore(session: "Session") -> "Keystore":
    """The folder of keys, made when it is not there."""
    from orchestrator.keystore import Keystore

    settings = session.settings
    return Keystore(settings.keys, allow_unencrypted=settings.keys_unencrypted)


def new_passphrase(session: "Session") -> str:
    """The passphrase for a key that is about to be stored; empty where that is allowed."""
    settings = session.settings
    is_given = settings.passphrase_file is not None or settings.passphrase_fd is not None
    if settings.keys_unencrypted and not is_given:
        return ""
    return passphrase(session, confirm=True)


def load_identity(session: "Session") -> "Identity":
    """
    The identity that is named by the setting `account`, from the folder of keys.

    Raises:
        InputError: None is named, there is no such one, or the passphrase is wrong.
    """
    name = session.required("account")
    keystore = open_keystore(session)
    is_encrypted = keystore.info(name).is_encrypted
    return keystore.load(name, passphrase=passphrase(session) if is_encrypted else "")
