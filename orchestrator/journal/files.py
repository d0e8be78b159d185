"""The journal's files: private from the start, and one service's at a time."""

import fcntl
import os
from pathlib import Path

from orchestrator.errors import JournalError

__all__ = ["lock_beside", "open_private"]


def open_private(path: Path, flags: int) -> int:
    """
    Open or make a file that nobody else can read.

    Raises:
        JournalError: It can't be opened.
    """
    try:
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        os.fchmod(descriptor, 0o600)
    except OSError as error:
        raise JournalError(f"journal {path}: {error.strerror}") from error
    return descriptor


def lock_beside(path: Path) -> int:
    """
    Hold a file beside the journal; SQLite's own locks would end with any close of its file.

    Raises:
        JournalError: Somebody else holds it.
    """
    descriptor = open_private(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        raise JournalError(f"journal {path} is in use by another orchestrator") from error
    return descriptor
