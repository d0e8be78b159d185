"""
Blobs over HTTP: `GET` and `HEAD /v1/blobs/{hash}`, and `PUT` where there is somebody to allow it.

Blobs are sealed, so reading needs no token; who mounts these routes limits the rate.
"""

import asyncio
import re
from collections.abc import Callable

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from orchestrator.blobs import BlobStore
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
    store: BlobStore, *, max_bytes: int, authorize_put: Callable[[Request], None] | None = None
) -> list[BaseRoute]:
    """
    Return the routes; `PUT` is there only with *authorize_put*, which raises to refuse.

    Bytes that do not hash to their name are never stored, and never sent.
    """

    async def get(request: Request) -> Response:
        digest = parse_hash(request.path_params["hash"], "hash")
        try:
            data = await asyncio.to_thread(store.get, digest, max_bytes=max_bytes)
        except (BlobNotFoundError, BlobTooLargeError):
            return JSONResponse({"error": "no such blob"}, 404)
        except DigestMismatchError:
            return JSONResponse({"error": "the stored bytes are damaged"}, 404)
        except BlobUnavailableError:
            return JSONResponse({"error": "the blob store is not available"}, 503)
        # For HEAD the server drops the body and keeps its length.
        return Response(data, media_type=_BINARY, headers=_HEADERS)

    async def put(request: Request) -> Response:
        if authorize_put is None:
            return JSONResponse({"error": "blobs are read-only here"}, 405)
        authorize_put(request)
        digest = parse_hash(request.path_params["hash"], "hash")
        data = await read_body(request, max_bytes=max_bytes)
        if blake2_256(data) != digest:
            return JSONResponse({"error": "hash: the bytes do not hash to their name"}, 422)
        try:
            await asyncio.to_thread(store.put, data)
        except BlobUnavailableError:
            return JSONResponse({"error": "the blob store is not available or full"}, 503)
        return Response(status_code=201)

    path = "/v1/blobs/{hash}"
    routes: list[BaseRoute] = [Route(path, get, methods=["GET"])]
    if authorize_put is not None:
        routes.append(Route(path, put, methods=["PUT"]))
    return routes
