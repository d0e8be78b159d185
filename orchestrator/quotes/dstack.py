"""
Quotes from dstack's guest agent, which answers in JSON over HTTP on a Unix socket.

The interface is the one that dstack calls v0: `POST /GetQuote` and `POST /Info`, served since 0.4
and frozen since 0.6. No environment variable leads elsewhere: whoever wants another socket, of
dstack's simulator too, has to say so.
"""

import asyncio
import json
from typing import Final

import aiohttp

from orchestrator.errors import QuoteUnavailableError
from orchestrator.evidence.bundle import MAX_COMPOSE_BYTES, MAX_EVENT_LOG_BYTES, MAX_QUOTE_BYTES
from orchestrator.quotes import PlatformEvidence

__all__ = ["DSTACK_SOCKET", "DstackQuoteSource"]

DSTACK_SOCKET: Final = "/var/run/dstack.sock"
# `Info` has the compose document and an event log, as JSON within JSON.
_MAX_ANSWER: Final = 4 << 20
_MAX_ERROR_WORDS: Final = 200
_CHUNK: Final = 65_536


class DstackQuoteSource:
    """
    The guest agent behind *socket*, a path; each question may take *timeout_seconds*.

    What it answers is checked for its form, and that the quote has the bytes that were asked for.
    """

    name = "dstack TDX"

    def __init__(self, socket: str = DSTACK_SOCKET, *, timeout_seconds: float = 20.0) -> None:
        self._socket = socket
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def quote(self, report_data: bytes) -> PlatformEvidence:
        """See `QuoteSource.quote`; with dstack's event log and the compose document."""
        answer = await self._ask("GetQuote", {"report_data": report_data.hex()})
        try:
            quote = bytes.fromhex(_text(answer, "quote"))
        except ValueError as error:
            raise self._unusable("GetQuote: quote: not hex") from error
        if not 0 < len(quote) <= MAX_QUOTE_BYTES:
            raise self._unusable(f"GetQuote: quote: {len(quote)} bytes, at most {MAX_QUOTE_BYTES}")
        if report_data not in quote:
            raise self._unusable("GetQuote: the quote is over other bytes than those asked for")
        event_log = self._document(answer, "event_log", MAX_EVENT_LOG_BYTES)
        info = await self._ask("Info", {})
        compose = self._document(self._tcb_info(info), "app_compose", MAX_COMPOSE_BYTES)
        return PlatformEvidence(quote=quote, event_log=event_log, compose=compose)

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _tcb_info(self, info: dict[str, object]) -> dict[str, object]:
        """Return what `Info` has in its field `tcb_info`, which is JSON in text."""
        text = _text(info, "tcb_info")
        if not text:
            return {}
        try:
            held = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise self._unusable("Info: tcb_info: not JSON") from error
        if not isinstance(held, dict):
            raise self._unusable("Info: tcb_info: must be an object")
        return held

    def _document(self, answer: dict[str, object], field: str, limit: int) -> bytes | None:
        """Return a document's own bytes, `None` when there is none."""
        try:
            data = _text(answer, field).encode()
        except UnicodeEncodeError as error:
            raise self._unusable(f"{field}: not text") from error
        if len(data) > limit:
            raise self._unusable(f"{field}: {len(data)} bytes, at most {limit}")
        return data or None

    async def _ask(self, method: str, question: dict[str, str]) -> dict[str, object]:
        try:
            async with asyncio.timeout(self._timeout_seconds):
                status, body = await self._exchange(method, question)
        except TimeoutError as error:
            why = f"{method}: no answer within {self._timeout_seconds:g} s"
            raise self._unusable(why) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise self._unusable(f"{method}: {str(error) or type(error).__name__}") from error
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise self._unusable(f"{method}: answered {status} with what is not JSON") from error
        if not isinstance(answer, dict):
            raise self._unusable(f"{method}: answered {status} with what is no object")
        if status != 200:
            said = "".join(filter(str.isprintable, str(answer.get("error", ""))))
            raise self._unusable(f"{method}: refused with {status}: {said[:_MAX_ERROR_WORDS]}")
        return answer

    async def _exchange(self, method: str, question: dict[str, str]) -> tuple[int, bytes]:
        if self._session is None:  # made here, because it belongs to the running event loop
            self._session = aiohttp.ClientSession(
                connector=aiohttp.UnixConnector(path=self._socket, force_close=True),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                timeout=aiohttp.ClientTimeout(total=None),
            )
        async with self._session.post(
            f"http://dstack/{method}", json=question, allow_redirects=False
        ) as answer:
            parts: list[bytes] = []
            length = 0
            async for part in answer.content.iter_chunked(_CHUNK):
                length += len(part)
                if length > _MAX_ANSWER:
                    raise self._unusable(f"{method}: the answer is longer than {_MAX_ANSWER} bytes")
                parts.append(part)
            return answer.status, b"".join(parts)

    def _unusable(self, why: str) -> QuoteUnavailableError:
        return QuoteUnavailableError(f"dstack guest agent at {self._socket}: {why}")


def _text(answer: dict[str, object], field: str) -> str:
    """Return a field that may be absent, as older guest agents leave some out."""
    value = answer.get(field, "")
    if not isinstance(value, str):
        raise QuoteUnavailableError(f"dstack guest agent: {field}: must be text")
    return value
