"""
Who may hand jobs to a worker, and who may register it.

A token is 32 random bytes in text. The worker's list has only its hash, so reading the list gives
nobody a token. Because tokens are random, a plain hash is enough.
"""

import contextlib
import fcntl
import hmac
import json
import os
import re
import secrets
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import Enum
from pathlib import Path

from orchestrator.encoding import blake2_256
from orchestrator.errors import ConfigError, InputError

__all__ = ["TOKENS_FILE", "TokenEntry", "TokenList", "TokenScope"]

TOKENS_FILE = "tokens.json"
_VERSION = 1
_MAX_FILE_BYTES = 1 << 20
_MAX_TOKENS = 1_000
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


class TokenScope(Enum):
    """What a token allows."""

    JOBS = "jobs"
    REGISTRATION = "registration"


@dataclass(frozen=True, kw_only=True)
class TokenEntry:
    """One token, without the token; `created_at` in ms."""

    name: str
    scope: str
    hash: str
    created_at: int


class TokenList:
    """
    The list in *folder*; changes made by another process count from the next request on.

    Without a file nobody is allowed anything.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / TOKENS_FILE
        self._seen: tuple[int, int, int] | None = None
        self._entries: tuple[TokenEntry, ...] = ()

    def add(self, name: str, scope: TokenScope, *, now: int) -> str:
        """
        Make a token and return it; it can't be shown again.

        Raises:
            InputError: The name is taken or not one, or the list is full.
        """
        if not _NAME.fullmatch(name):
            raise InputError(f"token name {name[:80]!r}: must match {_NAME.pattern}")
        self._make_folder()
        with self._changing() as entries:
            if any(entry.name == name for entry in entries):
                raise InputError(f"token name {name!r}: there is one already")
            if len(entries) >= _MAX_TOKENS:
                raise InputError(f"tokens: {len(entries)}, at most {_MAX_TOKENS}")
            token = secrets.token_urlsafe(32)
            entry = TokenEntry(name=name, scope=scope.value, hash=_hash(token), created_at=now)
            self._write((*entries, entry))
        return token

    def revoke(self, name: str) -> None:
        """
        Forget a token; it stops counting at once.

        Raises:
            InputError: There is none of this name.
        """
        none = f"token name {name[:80]!r}: there is none"
        if not self.entries():
            raise InputError(none)
        with self._changing() as entries:
            left = tuple(entry for entry in entries if entry.name != name)
            if len(left) == len(entries):
                raise InputError(none)
            self._write(left)

    def entries(self) -> tuple[TokenEntry, ...]:
        """
        Return the list as it is now.

        Raises:
            ConfigError: The file can't be read; then no token counts.
        """
        try:
            found = self._path.stat()
        except FileNotFoundError:
            self._seen, self._entries = None, ()
            return ()
        except OSError as error:
            raise ConfigError(f"tokens file {self._path}: {error.strerror}") from error
        seen = (found.st_mtime_ns, found.st_size, found.st_ino)
        if seen != self._seen:
            self._entries = self._read()
            self._seen = seen
        return self._entries

    def scope_of(self, token: str) -> TokenScope | None:
        """Return what *token* allows, `None` when it is not in the list."""
        digest = _hash(token)
        found: TokenScope | None = None
        for entry in self.entries():
            if hmac.compare_digest(entry.hash, digest):
                found = TokenScope(entry.scope)
        return found

    def _make_folder(self) -> None:
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"tokens file {self._path}: {error.strerror}") from error

    @contextlib.contextmanager
    def _changing(self) -> Iterator[tuple[TokenEntry, ...]]:
        """
        Give the list to one process at a time, read anew.

        Otherwise a token that one process revokes comes back with the list that another writes.
        """
        try:
            descriptor = os.open(self._path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as error:
            raise ConfigError(f"tokens file {self._path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._seen = None
            yield self.entries()
        finally:
            # This lets go of the lock too.
            os.close(descriptor)

    def _read(self) -> tuple[TokenEntry, ...]:
        try:
            with self._path.open("rb") as file:
                content = json.loads(file.read(_MAX_FILE_BYTES))
            if content["version"] != _VERSION:
                raise ConfigError(f"tokens file {self._path}: not of version {_VERSION}")
            entries = tuple(TokenEntry(**entry) for entry in content["tokens"])
            for entry in entries:
                TokenScope(entry.scope)
        except OSError as error:
            raise ConfigError(f"tokens file {self._path}: {error.strerror}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ConfigError(f"tokens file {self._path}: damaged") from error
        return entries

    def _write(self, entries: tuple[TokenEntry, ...]) -> None:
        content = {"version": _VERSION, "tokens": [asdict(entry) for entry in entries]}
        draft = self._path.with_name(f".{self._path.name}.{secrets.token_hex(8)}")
        try:
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(json.dumps(content, indent=2).encode())
                file.flush()
                os.fsync(file.fileno())
            draft.replace(self._path)
        except OSError as error:
            raise ConfigError(f"tokens file {self._path}: {error.strerror}") from error
        self._seen = None


def _hash(token: str) -> str:
    return blake2_256(token.encode("utf-8", "surrogateescape")).hex()
