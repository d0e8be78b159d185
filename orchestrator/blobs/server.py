"""
Blobs over HTTP: `GET` and `HEAD /v1/blobs/{hash}`, and `PUT` where there is somebody to allow it.

Blobs are sealed, so reading needs no token; who mounts these routes limits the rate.
"""

import asyncio
import io
import re
from collections.abc import AsyncIterator, Callable
from typing import BinaryIO

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route
from starlette.types import Receive, Scope, Send

from orchestrator.blobs import BlobStore, OpenableBlobStore
from orchestrator.encoding import blake2_256
from orchestrator.errors import (
    BlobNotFoundError,
    BlobTooLargeError,
    BlobUnavailableError,
    DigestMismatchError,
)

__all__ = ["blob_routes", "parse_hash", "read_body"]

_HASH = re.compile(r"[0-9a-f]{64}")
_BODY_SECONDS = 120.0
# A blob never changes, so whoever keeps a copy may keep it.
_HEADERS = {
    "cache-control": "public, max-age=31536000, immutable",
    "x-content-type-options": "nosniff",
}
_BINARY = "application/octet-stream"
_CHUNK = 65_536
# Opening reads and hashes a whole blob in a thread; strangers must not keep all threads busy.
_OPENING_AT_ONCE = 2
# Blobs above a chunk that are being sent: each takes a file, or its whole length of memory.
_SENDING_AT_ONCE = 256
_SENDING_WHOLE_AT_ONCE = 32


def parse_hash(text: str, name: str) -> bytes:
    """
    Return 32 bytes from a path.

    Raises:
        HTTPException: 422, it is not 64 lower-case hex digits.
    """
    if not _HASH.fullmatch(text):
        raise HTTPException(422, f"{name}: must be 64 lower-case hex digits")
    return bytes.fromhex(text)


async def read_body(request: Request, *, max_bytes: int, seconds: float = _BODY_SECONDS) -> bytes:
    """
    Return a request's body; no more than *max_bytes* of it is ever held.

    Raises:
        HTTPException: 413, it is longer; 408, it takes longer than *seconds*; 400, it broke off.
    """
    too_long = HTTPException(413, f"body: longer than {max_bytes} bytes")
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_bytes:
        raise too_long
    parts: list[bytes] = []
    length = 0
    try:
        async with asyncio.timeout(seconds):
            async for part in request.stream():
                length += len(part)
                if length > max_bytes:
                    raise too_long
                parts.append(part)
    except TimeoutError as error:
        raise HTTPException(408, f"body: not here within {seconds:g} s") from error
    except ClientDisconnect as error:
        raise HTTPException(400, "body: it broke off") from error
    return b"".join(parts)


def blob_routes(
    store: BlobStore,
    *,
    max_bytes: int,
    authorize_put: Callable[[Request], Callable[[bytes], object]] | None = None,
) -> list[BaseRoute]:
    """
    Return the routes; `PUT` is there only with *authorize_put*.

    It raises to refuse, and returns what stores the bytes.

    Bytes that do not hash to their name are never stored, and never sent.
    """

    async def put(request: Request) -> Response:
        if authorize_put is None:
            return JSONResponse({"error": "blobs are read-only here"}, 405)
        keep = authorize_put(request)
        digest = parse_hash(request.path_params["hash"], "hash")
        data = await read_body(request, max_bytes=max_bytes)
        if blake2_256(data) != digest:
            return JSONResponse({"error": "hash: the bytes do not hash to their name"}, 422)
        try:
            await asyncio.to_thread(keep, data)
        except BlobUnavailableError:
            return JSONResponse({"error": "the blob store is not available or full"}, 503)
        return Response(status_code=201)

    path = "/v1/blobs/{hash}"
    routes: list[BaseRoute] = [Route(path, _Reading(store, max_bytes).get, methods=["GET"])]
    if authorize_put is not None:
        routes.append(Route(path, put, methods=["PUT"]))
    return routes


class _Reading:
    """Answers who reads; what is sent at once is limited, as is what it takes of memory."""

    def __init__(self, store: BlobStore, max_bytes: int) -> None:
        is_openable = isinstance(store, OpenableBlobStore)
        self._store = store
        self._max_bytes = max_bytes
        self._opening = asyncio.Semaphore(_OPENING_AT_ONCE)
        self._sending = asyncio.Semaphore(
            _SENDING_AT_ONCE if is_openable else _SENDING_WHOLE_AT_ONCE
        )

    async def get(self, request: Request) -> Response:
        digest = parse_hash(request.path_params["hash"], "hash")
        try:
            async with self._opening:
                found = await asyncio.to_thread(_open, self._store, digest, self._max_bytes)
        except (BlobNotFoundError, BlobTooLargeError):
            return JSONResponse({"error": "no such blob"}, 404)
        except DigestMismatchError:
            return JSONResponse({"error": "the stored bytes are damaged"}, 404)
        except BlobUnavailableError:
            return JSONResponse({"error": "the blob store is not available"}, 503)
        if isinstance(found, bytes):
            # For HEAD the server drops the body and keeps its length.
            return Response(found, media_type=_BINARY, headers=_HEADERS)
        if self._sending.locked():
            found.close()
            retry = {"retry-after": "1"}
            return JSONResponse({"error": "too many blobs are being sent"}, 503, retry)
        return _BlobResponse(found, self._sending)


def _open(store: BlobStore, digest: bytes, max_bytes: int) -> bytes | BinaryIO:
    """Return the checked blob: its bytes when they are one chunk, else a file."""
    if not isinstance(store, OpenableBlobStore):
        data = store.get(digest, max_bytes=max_bytes)
        return data if len(data) <= _CHUNK else io.BytesIO(data)
    file = store.open(digest, max_bytes=max_bytes)
    try:
        if _length(file) > _CHUNK:
            return file
        with file:
            return file.read()
    except OSError as error:
        file.close()
        raise BlobUnavailableError(str(error)) from error


def _length(file: BinaryIO) -> int:
    length = file.seek(0, io.SEEK_END)
    file.seek(0)
    return length


class _BlobResponse(StreamingResponse):
    """Sends *file* as fast as it is taken, and closes it; takes part in *sending* meanwhile."""

    def __init__(self, file: BinaryIO, sending: asyncio.Semaphore) -> None:
        headers = {**_HEADERS, "content-length": str(_length(file))}
        super().__init__(self._parts(), media_type=_BINARY, headers=headers)
        self._file = file
        self._sending = sending

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._file:
            if scope["method"] == "HEAD":
                await Response(headers=self.headers)(scope, receive, send)
                return
            async with self._sending:
                await super().__call__(scope, receive, send)

    async def _parts(self) -> AsyncIterator[bytes]:
        while part := await asyncio.to_thread(self._file.read, _CHUNK):
            yield part
