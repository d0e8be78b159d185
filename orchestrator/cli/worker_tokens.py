"""The workers' tokens that an orchestrator has, from a file that may change while it runs."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.tokens import read_tokens
from orchestrator.errors import InputError
from orchestrator.models import WorkerId

if TYPE_CHECKING:
    from orchestrator.models import Worker
    from orchestrator.workers import WorkerClient

_FIELD = "orchestrator.tokens"
_EXAMPLE = '1 = "token" or "https://worker.example.org" = "token"'
_LOG = logging.getLogger("orchestrator.cli")
_MAX_ID = 2**32 - 1
_ID_DIGITS = len(str(_MAX_ID))

_State = tuple[int, int, int, int]


class WorkerTokens:
    """
    Finds a worker's token: by its id, by its URL, or by another id that has the same URL.

    The last is for a worker that has made itself new keys, and with them has a new id. Which URL
    an id has is known of those that were asked for, and at the start from *endpoint_of* for those
    in the file. A file that has changed is read again when a token is asked for; while it can't be
    read, as it was.

    Raises:
        InputError: The file can't be read at the start, or is of another form.
    """

    def __init__(
        self, path: Path | None, *, endpoint_of: Callable[[WorkerId], bytes | None]
    ) -> None:
        self._path = path
        self._state: _State | None = None
        self._tokens: Mapping[str, str] = {}
        self._urls: dict[WorkerId, str] = {}
        if path is not None:
            self._state = _state(path)
            self._tokens = _read(path)
        for worker in _ids(self._tokens):
            endpoint = endpoint_of(worker)
            if endpoint is not None:
                self._urls[worker] = _url(endpoint)

    def token(self, worker: "Worker") -> str | None:
        """The worker's token, `None` when there is none."""
        self._read_again()
        url = self._urls[worker.worker] = _url(worker.endpoint)
        own = self._tokens.get(str(worker.worker), self._tokens.get(url))
        if own is not None or not url:
            return own
        same = [one for one in _ids(self._tokens) if self._urls.get(one) == url]
        return self._tokens[str(max(same))] if same else None

    def client(self, worker: "Worker") -> "WorkerClient":
        """The worker's client, with its token."""
        from orchestrator.workers.http import HttpWorkerClient

        return HttpWorkerClient(worker.endpoint.decode("utf-8", "replace"), self.token(worker))

    def _read_again(self) -> None:
        if self._path is None:
            return
        state = _state(self._path)
        if state == self._state:
            return
        # First: what is written after this is another state, and read the next time.
        self._state = state
        try:
            self._tokens = _read(self._path)
        except InputError as error:
            _LOG.warning("%s; the tokens stay what they were", error)
        else:
            _LOG.info("%s: read again, it has changed", _FIELD)


def _read(path: Path) -> Mapping[str, str]:
    """
    The tokens by worker id or URL.

    Raises:
        InputError: As `read_tokens`.
    """
    found = read_tokens(_FIELD, path, example=_EXAMPLE)
    if not all(_is_id(key) or key.startswith(("http://", "https://")) for key in found):
        raise InputError(f"{_FIELD} {path}: must be TOML with lines such as {_EXAMPLE}")
    return {key if _is_id(key) else key.rstrip("/"): token for key, token in found.items()}


def _is_id(key: str) -> bool:
    return key.isascii() and key.isdecimal() and len(key) <= _ID_DIGITS and key[0] != "0"


def _ids(tokens: Iterable[str]) -> list[WorkerId]:
    return [int(key) for key in tokens if _is_id(key) and int(key) <= _MAX_ID]


def _url(endpoint: bytes) -> str:
    return endpoint.decode("utf-8", "replace").rstrip("/")


def _state(path: Path) -> _State | None:
    """What tells that a file is another than before, `None` while it can't be told."""
    try:
        found = os.lstat(path)
    except OSError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
