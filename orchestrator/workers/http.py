"""
A worker over HTTP.

Nothing that a worker answers can hold a client up or fill its memory: every answer has a largest
size and a latest time, redirects are not followed, compression is not asked for. A token is sent
over https alone, except to this machine, and is in no words about an answer that echoes it.
"""

import asyncio
import ipaddress
import re
from collections.abc import Mapping

import httpx

from orchestrator.encoding import blake2_256
from orchestrator.errors import (
    BlobNotFoundError,
    BlobTooLargeError,
    ConfigError,
    DigestMismatchError,
    EncodingError,
    WorkerProtocolError,
    WorkerRefusedError,
    WorkerUnavailableError,
)
from orchestrator.evidence import MAX_BUNDLE_BYTES
from orchestrator.models import PublicKey, Signature
from orchestrator.workers import JobKey, JobRequest, WorkerIdentity, WorkerJob
from orchestrator.workers.transport import AiohttpTransport
from orchestrator.workers.wire import (
    EvidenceRequest,
    RegistrationRequest,
    RotationRequest,
    dump_evidence_request,
    dump_job_request,
    dump_registration_request,
    dump_rotation_request,
    job_path,
    load_identity,
    load_job,
    load_signature,
)

__all__ = ["HttpWorkerClient"]

_MAX_ANSWER = 65_536
_MAX_ERROR_WORDS = 300
_MAX_RETRY_AFTER_SECONDS = 3_600.0
_CONNECT_SECONDS = 5.0
_MAX_PORT = 65_535
# What looks like a token that was sent, by whomever, to the end of its line.
_BEARER = re.compile(r"\bbearer\b[^\r\n]*", re.IGNORECASE)
_LEFT_OUT = "[left out]"


class HttpWorkerClient:
    """
    The worker at *url*; see `WorkerClient`.

    *timeout_seconds* bounds each call as a whole, to which a long poll adds its wait. The answer
    to `get_blob` may take *blob_seconds*, one to `evidence` *evidence_seconds*.

    Raises:
        ConfigError: The URL is not one of a worker, or a token would be sent in the clear.
    """

    def __init__(
        self,
        url: str,
        token: str | None = None,
        *,
        timeout_seconds: float = 15.0,
        blob_seconds: float = 120.0,
        evidence_seconds: float = 60.0,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._url = _check_url(url, has_token=token is not None)
        self._token = token
        self._timeout_seconds = timeout_seconds
        self._blob_seconds = blob_seconds
        self._evidence_seconds = evidence_seconds
        headers = {"accept-encoding": "identity", "user-agent": "phala-jobs"}
        if token is not None:
            headers["authorization"] = f"Bearer {_check_token(token)}"
        self._client = httpx.AsyncClient(
            headers=headers,
            # The whole call has a time limit of its own, see `_exchange`.
            timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
            follow_redirects=False,
            trust_env=False,
            transport=transport or AiohttpTransport(connect_seconds=_CONNECT_SECONDS),
        )

    async def identity(self) -> WorkerIdentity:
        _, body = await self._ask("GET", "/v1/identity")
        try:
            return load_identity(body)
        except EncodingError as error:
            raise self._garbage(error) from error

    async def registration(
        self,
        *,
        genesis: bytes,
        contract: bytes,
        measurement: bytes,
        evidence_hash: bytes,
        valid_until: int,
        signing_key: PublicKey | None = None,
    ) -> Signature:
        request = RegistrationRequest(
            genesis=genesis,
            contract=contract,
            measurement=measurement,
            evidence_hash=evidence_hash,
            valid_until=valid_until,
            signing_key=signing_key,
        )
        _, body = await self._ask(
            "POST", "/v1/registration", content=dump_registration_request(request)
        )
        try:
            return load_signature(body)
        except EncodingError as error:
            raise self._garbage(error) from error

    async def evidence(
        self,
        *,
        genesis: bytes,
        contract: bytes,
        challenge: bytes,
        signing_key: PublicKey | None = None,
    ) -> bytes:
        request = EvidenceRequest(
            genesis=genesis, contract=contract, challenge=challenge, signing_key=signing_key
        )
        try:
            _, body = await self._ask(
                "POST",
                "/v1/evidence",
                content=dump_evidence_request(request),
                max_bytes=MAX_BUNDLE_BYTES,
                seconds=self._evidence_seconds,
            )
        except BlobTooLargeError as error:
            raise WorkerProtocolError(str(error)) from error
        self._check_has_no_token(body)
        return body

    async def put_evidence(self, data: bytes) -> bytes:
        # The token's scope says that it is not a payload.
        return await self.put_blob(data)

    async def rotate(self, *, genesis: bytes, contract: bytes) -> WorkerIdentity:
        request = RotationRequest(genesis=genesis, contract=contract)
        _, body = await self._ask("POST", "/v1/rotation", content=dump_rotation_request(request))
        try:
            return load_identity(body)
        except EncodingError as error:
            raise self._garbage(error) from error

    async def put_blob(self, data: bytes) -> bytes:
        digest = blake2_256(data)
        await self._ask(
            "PUT", f"/v1/blobs/{digest.hex()}", content=data, seconds=self._blob_seconds
        )
        return digest

    async def get_blob(self, digest: bytes, *, max_bytes: int) -> bytes:
        try:
            _, data = await self._ask(
                "GET",
                f"/v1/blobs/{digest.hex()}",
                max_bytes=max_bytes,
                seconds=self._blob_seconds,
            )
        except WorkerRefusedError as error:
            if error.status == 404:
                raise BlobNotFoundError(f"{self._url} has no blob {digest.hex()}") from error
            raise
        if blake2_256(data) != digest:
            raise DigestMismatchError(f"{self._url} answers {digest.hex()} with other bytes")
        return data

    async def put_job(self, request: JobRequest) -> bool:
        status, _ = await self._ask("PUT", job_path(request.key), content=dump_job_request(request))
        if status not in (200, 202):
            raise WorkerProtocolError(f"{self._url} answered {status} to a job")
        return status == 202

    async def get_job(self, key: JobKey, *, wait_seconds: float = 0) -> WorkerJob:
        path = job_path(key)
        if wait_seconds > 0:
            path += f"?wait={wait_seconds:.3f}"
        _, body = await self._ask("GET", path, seconds=self._timeout_seconds + wait_seconds)
        try:
            return load_job(body, key)
        except EncodingError as error:
            raise self._garbage(error) from error

    async def delete_job(self, key: JobKey) -> None:
        await self._ask("DELETE", job_path(key))

    async def close(self) -> None:
        await self._client.aclose()

    def _garbage(self, error: EncodingError) -> WorkerProtocolError:
        return WorkerProtocolError(f"{self._url}: {error}")

    async def _ask(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        max_bytes: int | None = None,
        seconds: float | None = None,
    ) -> tuple[int, bytes]:
        """Return status and body of a 2xx answer, in time and of bounded size."""
        limit = self._timeout_seconds if seconds is None else seconds
        try:
            async with asyncio.timeout(limit):
                status, body = await self._exchange(method, path, content, max_bytes)
        except TimeoutError as error:
            raise WorkerUnavailableError(f"{self._url}: no answer within {limit:g} s") from error
        except (httpx.HTTPError, httpx.InvalidURL, OSError, OverflowError, ValueError) as error:
            # The last two are what sockets and codecs say to addresses that pass for URLs.
            said = str(error) or type(error).__name__
            why = self._without_token(said)
            # A cause is shown with its effect, and its words are as they were.
            cause = error if why == said else None
            if isinstance(error, httpx.RemoteProtocolError) and "illegal" in why.lower():
                raise WorkerProtocolError(f"{self._url} does not speak HTTP: {why}") from cause
            raise WorkerUnavailableError(f"{self._url}: {why}") from cause
        if max_bytes is None:
            self._check_has_no_token(body)
        return status, body

    async def _exchange(
        self, method: str, path: str, content: bytes | None, max_bytes: int | None
    ) -> tuple[int, bytes]:
        async with self._client.stream(method, self._url + path, content=content) as answer:
            status = answer.status_code
            is_blob = max_bytes is not None and status == 200
            limit = max_bytes if is_blob and max_bytes is not None else _MAX_ANSWER
            body = await self._read(answer, limit, is_blob=is_blob)
            if 200 <= status < 300:
                return status, body
            raise self._refusal(status, answer.headers, body)

    async def _read(self, answer: httpx.Response, limit: int, *, is_blob: bool) -> bytes:
        error_type = BlobTooLargeError if is_blob else WorkerProtocolError
        too_long = f"{self._url}: the answer is longer than {limit} bytes"
        announced = answer.headers.get("content-length", "")
        if announced.isdigit() and int(announced) > limit:
            raise error_type(too_long)
        parts: list[bytes] = []
        length = 0
        async for part in answer.aiter_raw():
            length += len(part)
            if length > limit:
                raise error_type(too_long)
            parts.append(part)
        return b"".join(parts)

    def _refusal(
        self, status: int, headers: Mapping[str, str], body: bytes
    ) -> WorkerUnavailableError | WorkerRefusedError | WorkerProtocolError:
        if 300 <= status < 400:
            return WorkerProtocolError(f"{self._url} redirects ({status}), which is not followed")
        # Cut last: half a token would not be found.
        words = self._without_token(body.decode("utf-8", "replace"))[:_MAX_ERROR_WORDS]
        printable = "".join(letter if letter.isprintable() else " " for letter in words)
        if status == 429 or status >= 500:
            return WorkerUnavailableError(
                f"{self._url} answered {status}: {printable}",
                retry_after_seconds=_retry_after(headers.get("retry-after")),
            )
        return WorkerRefusedError(status, printable)

    def _without_token(self, words: str) -> str:
        """Return words of an answer without the token, and without what looks like one."""
        if self._token is not None:
            words = words.replace(self._token, _LEFT_OUT)
        return _BEARER.sub(f"Bearer {_LEFT_OUT}", words)

    def _check_has_no_token(self, body: bytes) -> None:
        """Refuse an answer whose words would carry the token to wherever they are shown."""
        if self._token is not None and self._token.encode() in body:
            raise WorkerProtocolError(f"{self._url}: the answer has the token in it")


def _retry_after(value: str | None) -> float | None:
    if value is None or not (value.isascii() and value.isdigit()) or len(value) > 9:
        return None
    return min(float(value), _MAX_RETRY_AFTER_SECONDS)


def _check_url(url: str, *, has_token: bool) -> str:
    try:
        parsed = httpx.URL(url)
        host = parsed.host
        # Sockets refuse what this refuses, and httpx lets it pass: labels empty or over 63 bytes.
        parsed.raw_host.decode("ascii").encode("idna")
    except (httpx.InvalidURL, TypeError, ValueError) as error:
        raise ConfigError(f"worker URL {url!r}: {error}") from error
    if parsed.scheme not in ("http", "https") or not host:
        raise ConfigError(f"worker URL {url!r}: must be http:// or https:// with a host")
    if parsed.port is not None and not 1 <= parsed.port <= _MAX_PORT:
        raise ConfigError(f"worker URL {url!r}: port {parsed.port}, must be 1 to {_MAX_PORT}")
    if parsed.userinfo or parsed.query or parsed.fragment:
        raise ConfigError(f"worker URL {url!r}: must have no user, query or fragment")
    if has_token and parsed.scheme != "https" and not _is_loopback(host):
        raise ConfigError(f"worker URL {url!r}: a token is sent over https alone")
    return str(parsed).rstrip("/")


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _check_token(token: str) -> str:
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise ConfigError("token: must be printable ASCII without spaces")
    return token
