"""
A worker's two keys: one that signs, one that jobs are sealed to.

They are made on the first start and kept in one file of mode 0600. The secrets are in that file
and in this process; they are in no message, log, argument or child process.
"""

import json
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from orchestrator.crypto.keys import EcdsaSigner, EncryptionKey, Sr25519Signer, load_signer
from orchestrator.errors import ConfigError, InputError
from orchestrator.models import PublicKey, Scheme, Signer

__all__ = ["KEYS_FILE", "WorkerKeys", "load_or_make_keys"]

KEYS_FILE = "worker-keys.json"
_VERSION = 1
_MAX_FILE_BYTES = 4_096


@dataclass(frozen=True, kw_only=True)
class WorkerKeys:
    """Both keys; the secrets show in no representation."""

    signer: Signer
    encryption_key: EncryptionKey

    @property
    def signing_key(self) -> PublicKey:
        """The key that statements are checked with."""
        return self.signer.public_key

    def __repr__(self) -> str:
        return f"WorkerKeys(signing_key={self.signing_key!r})"


def load_or_make_keys(folder: Path, scheme: Scheme) -> WorkerKeys:
    """
    Return the keys in *folder*; make and keep them durably if there are none yet.

    Raises:
        ConfigError: The file is readable by others, damaged, of another version, or its signing
            key is of another scheme.
    """
    path = folder / KEYS_FILE
    try:
        if not os.path.lexists(path):
            _make(path, scheme)
        return _load(path, scheme)
    except OSError as error:
        raise ConfigError(f"keys file {path}: {error.strerror or error}") from error


def _load(path: Path, scheme: Scheme) -> WorkerKeys:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    with os.fdopen(descriptor, "rb") as file:
        mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
        if mode & 0o077:
            raise ConfigError(f"keys file {path}: mode {mode:04o}, must be 0600")
        data = file.read(_MAX_FILE_BYTES)
    try:
        fields = json.loads(data)
        version, name = fields["version"], fields["scheme"]
        signing = bytes.fromhex(fields["signing_secret"])
        encryption = bytes.fromhex(fields["encryption_secret"])
    except (ValueError, KeyError, TypeError) as error:
        # The cause would show the file's content, so it is left out.
        del error
        raise ConfigError(f"keys file {path}: damaged") from None
    if version != _VERSION:
        raise ConfigError(f"keys file {path}: version {version!r}, this program reads {_VERSION}")
    if name != scheme.name.lower():
        wanted = scheme.name.lower()
        raise ConfigError(f"scheme: {wanted}, but keys file {path} has a key of another scheme")
    try:
        signer = load_signer(scheme, signing)
        return WorkerKeys(signer=signer, encryption_key=EncryptionKey.from_bytes(encryption))
    except InputError:
        raise ConfigError(f"keys file {path}: damaged") from None


def _make(path: Path, scheme: Scheme) -> None:
    signer = EcdsaSigner.generate() if scheme is Scheme.ECDSA else Sr25519Signer.generate()
    content = {
        "version": _VERSION,
        "scheme": scheme.name.lower(),
        "signing_secret": signer.to_bytes().hex(),
        "encryption_secret": EncryptionKey.generate().to_bytes().hex(),
    }
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(json.dumps(content).encode())
            file.flush()
            os.fsync(file.fileno())
        # A link fails where a rename would replace: keys are never overwritten.
        os.link(draft, path)
    finally:
        draft.unlink(missing_ok=True)
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
