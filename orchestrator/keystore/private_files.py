"""
Files that only their owner may read.

Directories are 0700 and files 0600, both the property of the user who runs the program and
neither of them a symbolic link; anything else is refused before it is read. Writes are durable
and atomic, and never replace a file that is there.
"""

import contextlib
import os
import secrets
import stat
from pathlib import Path

from orchestrator.errors import InputError

__all__ = ["create_private_file", "ensure_private_directory", "read_private_file", "write_new_file"]


def ensure_private_directory(directory: Path) -> Path:
    """
    Return *directory*, made with mode 0700 when it is not there.

    Raises:
        InputError: It is a link or no directory, or other users may enter it.
    """
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            directory.mkdir(mode=0o700)
        found = os.lstat(directory)
    except OSError as error:
        raise InputError(f"directory {directory}: {error.strerror}") from error
    if not stat.S_ISDIR(found.st_mode):
        raise InputError(f"directory {directory}: not a directory (links are not followed)")
    _refuse_others(directory, found, wanted="0700")
    return directory


def create_private_file(path: Path) -> None:
    """
    Make *path* an empty file of mode 0600 when it is not there, and check it when it is.

    Raises:
        InputError: It is a link or no file, or other users may read it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        # An existing file is not opened: closing it would free the locks that SQLite holds on it.
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, flags, 0o600))
        found = os.lstat(path)
    except OSError as error:
        raise InputError(f"file {path}: {error.strerror}") from error
    _refuse_shared(path, found)


def read_private_file(path: Path, *, max_bytes: int, shared: bool = False) -> bytes:
    """
    Return what is in *path*.

    With *shared*, other users may read the file too: for files whose secrets are
    encrypted and that may come from a medium without modes.

    Raises:
        InputError: It can't be read, is a link, no file or longer than *max_bytes*,
            or other users may read it.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise InputError(f"file {path}: {error.strerror}") from error
    with os.fdopen(descriptor, "rb") as file:
        _refuse_shared(path, os.fstat(descriptor), shared=shared)
        data = file.read(max_bytes + 1)
    if len(data) > max_bytes:
        raise InputError(f"file {path}: longer than the limit of {max_bytes} bytes")
    return data


def write_new_file(path: Path, data: bytes) -> None:
    """
    Write *data* durably to a new file of mode 0600: all of it, or no file.

    Raises:
        InputError: There is something at *path*, or it can't be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.new")
    try:
        _write(temporary, data)
        try:
            # A link, unlike a rename, refuses to replace what another process put there.
            os.link(temporary, path)
        finally:
            temporary.unlink()
        _sync_directory(path.parent)
    except FileExistsError as error:
        raise InputError(f"file {path}: already there, and nothing is overwritten") from error
    except OSError as error:
        raise InputError(f"file {path}: {error.strerror}") from error


def _write(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    try:
        with os.fdopen(os.open(path, flags, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _refuse_shared(path: Path, found: os.stat_result, *, shared: bool = False) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise InputError(f"file {path}: not a regular file (links are not followed)")
    if not shared:
        _refuse_others(path, found, wanted="0600")


def _refuse_others(path: Path, found: os.stat_result, *, wanted: str) -> None:
    if found.st_uid != os.geteuid():
        raise InputError(f"{path}: belongs to user {found.st_uid}, not to user {os.geteuid()}")
    if found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        raise InputError(f"{path}: mode {mode:04o} lets other users in, {wanted} is needed")
