"""
Who is at work on a list of jobs now.

A *session* is one run of submitting or resuming. It has a file beside the list, and holds the
file's lock until it ends; the system frees the lock when the process dies. So whoever finds an
unfinished entry can tell one that is being worked on from one that was left behind. (A child that
was forked during a session keeps it alive for as long as the child lives.)

Sessions begin under the list's own lock, and files of dead ones are removed there.
"""

import contextlib
import fcntl
import os
import re
import secrets
from pathlib import Path

from orchestrator.errors import InputError
from orchestrator.keystore.private_files import create_private_file

__all__ = ["Sessions"]

_FLAGS = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC
_SESSION = re.compile(r"[0-9a-f]{32}")


class Sessions:
    """The sessions of the list *name* in *directory*."""

    def __init__(self, directory: Path, name: str) -> None:
        self._directory = directory
        self._name = name
        self._held: dict[str, int] = {}

    def begin(self) -> str:
        """
        Begin a session and return its name; the caller holds the list's lock.

        Raises:
            InputError: Its file can't be made.
        """
        for path in self._directory.glob(f"{self._name}.*.session"):
            if not _is_locked(path):
                _remove(path)
        session = secrets.token_hex(16)
        path = self._path(session)
        create_private_file(path)
        descriptor = os.open(path, _FLAGS)
        self._held[session] = descriptor
        # Nobody else knows the name yet: there is nothing to wait for.
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return session

    def end(self, session: str) -> None:
        """End a session of this process; nothing happens when it has ended."""
        descriptor = self._held.pop(session, None)
        if descriptor is not None:
            _remove(self._path(session))
            os.close(descriptor)

    def is_alive(self, session: str) -> bool:
        """
        Whether somebody is at work in the session.

        Raises:
            InputError: It is no session's name, or its file can't be looked at.
        """
        if not _SESSION.fullmatch(session):
            raise InputError(f"job list {self._name}: damaged, {session!r} is no session")
        return _is_locked(self._path(session))

    def close(self) -> None:
        """End all sessions of this process."""
        for session in list(self._held):
            self.end(session)

    def _path(self, session: str) -> Path:
        return self._directory / f"{self._name}.{session}.session"


def _remove(path: Path) -> None:
    # A file that stays is only litter: what counts is its lock.
    with contextlib.suppress(OSError):
        path.unlink()


def _is_locked(path: Path) -> bool:
    try:
        descriptor = os.open(path, _FLAGS)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise InputError(f"session {path}: {error.strerror}") from error
    try:
        # Shared, so that two that look at the same time do not take each other for the session.
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
