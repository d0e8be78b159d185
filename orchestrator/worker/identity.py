"""
A worker's keys: pairs of one key that signs and one that jobs are sealed to, the newest last.

The first pair is made on the first start. They are kept in one file of mode 0600. The secrets are
in that file and in this process; they are in no message, log, argument or child process.
"""

import json
import os
import secrets
import stat
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from orchestrator.crypto.keys import EcdsaSigner, EncryptionKey, Sr25519Signer, load_signer
from orchestrator.errors import ConfigError, InputError
from orchestrator.models import PublicKey, Scheme, Signer

__all__ = [
    "KEYS_FILE",
    "MAX_PAIRS",
    "KeyRing",
    "WorkerKeys",
    "load_or_make_keys",
    "remove_drafts",
]

KEYS_FILE = "worker-keys.json"
# The newest, and those that jobs may still be sealed to.
MAX_PAIRS = 4
_VERSION = 2
_MAX_FILE_BYTES = 4_096


@dataclass(frozen=True, kw_only=True)
class WorkerKeys:
    """One pair; the secrets show in no representation."""

    signer: Signer
    encryption_key: EncryptionKey

    @property
    def signing_key(self) -> PublicKey:
        """The key that statements are checked with."""
        return self.signer.public_key

    def __repr__(self) -> str:
        return f"WorkerKeys(signing_key={self.signing_key!r})"


class KeyRing:
    """
    All pairs of one worker, of one scheme.

    `pairs` is replaced as a whole when it changes, so any thread may read it.
    """

    def __init__(self, path: Path, scheme: Scheme, pairs: tuple[WorkerKeys, ...]) -> None:
        self._path = path
        self._scheme = scheme
        self.pairs = pairs

    @property
    def newest(self) -> WorkerKeys:
        """The pair that is registered next, and that new jobs should be sealed to."""
        return self.pairs[-1]

    @property
    def retired(self) -> tuple[WorkerKeys, ...]:
        """The pairs before the newest: jobs sealed to them still run."""
        return self.pairs[:-1]

    def find(self, signing_key: PublicKey) -> WorkerKeys | None:
        """Return the pair with this signing key."""
        return next((pair for pair in self.pairs if pair.signing_key == signing_key), None)

    def rotate(self, *, without: Iterable[PublicKey] = ()) -> WorkerKeys:
        """
        Make a new pair, forget those of *without*, and keep that durably; return the new pair.

        Raises:
            InputError: There would be more than `MAX_PAIRS`, or *without* names the newest.
            ConfigError: The file can't be written; the pairs in use stay.
        """
        gone = set(without)
        left = tuple(pair for pair in self.pairs if pair.signing_key not in gone)
        if self.newest not in left:
            raise InputError("the newest keys can't be forgotten")
        if len(left) >= MAX_PAIRS:
            raise InputError(f"keys: {len(left)} pairs are in use, at most {MAX_PAIRS}")
        pairs = (*left, _make_pair(self._scheme))
        try:
            _replace(self._path, self._scheme, pairs)
        except OSError as error:
            raise ConfigError(f"keys file {self._path}: {error.strerror or error}") from error
        self.pairs = pairs
        return self.newest


def load_or_make_keys(folder: Path, scheme: Scheme) -> KeyRing:
    """
    Return the keys in *folder*; make and keep a pair durably if there are none yet.

    A file of version 1, which holds one pair, is written anew as version 2.

    Raises:
        ConfigError: The file is readable by others, damaged, of another version, or its signing
            keys are of another scheme.
    """
    path = folder / KEYS_FILE
    try:
        if not os.path.lexists(path):
            _make(path, scheme)
        return _load(path, scheme)
    except OSError as error:
        raise ConfigError(f"keys file {path}: {error.strerror or error}") from error


def remove_drafts(folder: Path) -> None:
    """
    Remove what a process that was killed left of writing its keys: it holds secrets.

    For whoever has the folder to itself, or a file that is being written goes too.

    Raises:
        ConfigError: One can't be removed.
    """
    path = folder / KEYS_FILE
    try:
        drafts = list(folder.glob(f".{KEYS_FILE}.*"))
        for draft in drafts:
            draft.unlink()
        if drafts:
            _flush_folder(folder)
    except OSError as error:
        raise ConfigError(f"drafts of keys file {path}: {error.strerror or error}") from error


def _load(path: Path, scheme: Scheme) -> KeyRing:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise ConfigError(f"keys file {path}: mode {mode:04o}, must be 0600")
        data = file.read(_MAX_FILE_BYTES)
    try:
        fields = json.loads(data)
        version, name = fields["version"], fields["scheme"]
        held = [fields] if version == 1 else fields["keys"] if version == _VERSION else []
        raw = [
            (bytes.fromhex(pair["signing_secret"]), bytes.fromhex(pair["encryption_secret"]))
            for pair in held
        ]
    except (ValueError, KeyError, TypeError) as error:
        # The cause would show the file's content, so it is left out.
        del error
        raise ConfigError(f"keys file {path}: damaged") from None
    if version not in (1, _VERSION):
        raise ConfigError(f"keys file {path}: version {version!r}, this program reads {_VERSION}")
    if name != scheme.name.lower():
        wanted = scheme.name.lower()
        raise ConfigError(f"scheme: {wanted}, but keys file {path} has a key of another scheme")
    try:
        pairs = tuple(
            WorkerKeys(
                signer=load_signer(scheme, signing),
                encryption_key=EncryptionKey.from_bytes(encryption),
            )
            for signing, encryption in raw
        )
    except InputError:
        raise ConfigError(f"keys file {path}: damaged") from None
    if not 0 < len(pairs) <= MAX_PAIRS or len({pair.signing_key for pair in pairs}) < len(pairs):
        raise ConfigError(f"keys file {path}: damaged")
    if version == 1:
        _replace(path, scheme, pairs)
    return KeyRing(path, scheme, pairs)


def _make_pair(scheme: Scheme) -> WorkerKeys:
    signer = EcdsaSigner.generate() if scheme is Scheme.ECDSA else Sr25519Signer.generate()
    return WorkerKeys(signer=signer, encryption_key=EncryptionKey.generate())


def _make(path: Path, scheme: Scheme) -> None:
    draft = _draft(path, scheme, (_make_pair(scheme),))
    try:
        # A link fails where a rename would replace: keys are never overwritten.
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    _flush_folder(path.parent)


def _replace(path: Path, scheme: Scheme, pairs: tuple[WorkerKeys, ...]) -> None:
    draft = _draft(path, scheme, pairs)
    try:
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
    _flush_folder(path.parent)


def _draft(path: Path, scheme: Scheme, pairs: tuple[WorkerKeys, ...]) -> Path:
    """Write the pairs durably to a file beside *path*."""
    content = {
        "version": _VERSION,
        "scheme": scheme.name.lower(),
        "keys": [
            {
                # Every signer that this module makes or reads is one of these two.
                "signing_secret": cast("EcdsaSigner | Sr25519Signer", pair.signer).to_bytes().hex(),
                "encryption_secret": pair.encryption_key.to_bytes().hex(),
            }
            for pair in pairs
        ],
    }
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(content).encode())
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
    return draft


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
