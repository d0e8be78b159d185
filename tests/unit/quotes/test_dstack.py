"""What a guest agent can answer, and what it is believed of it."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
from aiohttp import web

from orchestrator.errors import QuoteUnavailableError
from orchestrator.quotes.dstack import DSTACK_SOCKET, DstackQuoteSource
from orchestrator.simulator import Simulator
from tests.unit.quotes.guest_agent import GuestAgent

REPORT_DATA = bytes(range(64))
SIMULATOR = Simulator.create()


@pytest.fixture
async def agent() -> GuestAgent:
    return GuestAgent(SIMULATOR)


@pytest.fixture
async def source(agent: GuestAgent) -> AsyncIterator[DstackQuoteSource]:
    async with agent.serve() as socket:
        made = DstackQuoteSource(socket)
        yield made
        await made.close()


async def test_it_asks_for_the_quote_and_for_what_runs(
    agent: GuestAgent, source: DstackQuoteSource
) -> None:
    given = await source.quote(REPORT_DATA)

    assert agent.questions == [("GetQuote", {"report_data": REPORT_DATA.hex()}), ("Info", {})]
    assert REPORT_DATA in given.quote
    assert given.event_log == SIMULATOR.guest.event_log
    assert given.compose == SIMULATOR.guest.compose
    assert given.collateral is None


def test_no_variable_leads_to_a_simulator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DSTACK_SIMULATOR_ENDPOINT", "/elsewhere.sock")

    assert DstackQuoteSource()._socket == DSTACK_SOCKET == "/var/run/dstack.sock"


@pytest.mark.parametrize("tcb_info", ["", "{}", '{"app_compose": ""}'])
async def test_a_guest_agent_that_does_not_say_what_runs_has_no_compose_document(
    agent: GuestAgent, source: DstackQuoteSource, tcb_info: str
) -> None:
    agent.faults["Info"] = _answers({**agent.info(), "tcb_info": tcb_info})

    assert (await source.quote(REPORT_DATA)).compose is None


async def test_a_quote_without_an_event_log_has_none(
    agent: GuestAgent, source: DstackQuoteSource
) -> None:
    agent.faults["GetQuote"] = _answers({"quote": agent.quote(REPORT_DATA.hex())["quote"]})

    assert (await source.quote(REPORT_DATA)).event_log is None


def _answers(
    document: object, status: int = 200
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.json_response(document, status=status)

    return answer


def _bytes(body: bytes) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=body)

    return answer


def _quote(**changes: object) -> dict[str, object]:
    return {**GuestAgent(SIMULATOR).quote(REPORT_DATA.hex()), **changes}


def _info(tcb_info: object) -> dict[str, object]:
    return {**GuestAgent(SIMULATOR).info(), "tcb_info": tcb_info}


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "no object"),
        ("quote", "no object"),
        (_quote(quote="not hex"), "quote: not hex"),
        (_quote(quote=7), "quote: must be text"),
        (_quote(quote=""), "quote: 0 bytes"),
        (_quote(quote="00" * 16_385), "quote: 16385 bytes, at most 16384"),
        (GuestAgent(SIMULATOR).quote("ff" * 64), "over other bytes"),
        (_quote(event_log=[]), "event_log: must be text"),
        (_quote(event_log="x" * 262_145), "event_log: 262145 bytes, at most 262144"),
        (_quote(event_log="\ud800"), "event_log: not text"),
    ],
)
async def test_what_is_no_quote_is_refused(
    agent: GuestAgent, source: DstackQuoteSource, document: object, words: str
) -> None:
    agent.faults["GetQuote"] = _answers(document)

    with pytest.raises(QuoteUnavailableError, match=words):
        await source.quote(REPORT_DATA)


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "no object"),
        (_info([]), "tcb_info: must be text"),
        (_info("{"), "tcb_info: not JSON"),
        (_info("[" * 100_000), "tcb_info: not JSON"),
        (_info("[]"), "tcb_info: must be an object"),
        (_info('{"app_compose": {}}'), "app_compose: must be text"),
        (
            _info(json.dumps({"app_compose": "x" * 262_145})),
            "app_compose: 262145 bytes, at most 262144",
        ),
    ],
)
async def test_what_is_no_info_is_refused(
    agent: GuestAgent, source: DstackQuoteSource, document: object, words: str
) -> None:
    agent.faults["Info"] = _answers(document)

    with pytest.raises(QuoteUnavailableError, match=words):
        await source.quote(REPORT_DATA)


@pytest.mark.parametrize("method", ["GetQuote", "Info"])
async def test_an_error_is_told_in_the_agents_words_and_no_longer_ones(
    agent: GuestAgent, source: DstackQuoteSource, method: str
) -> None:
    agent.faults[method] = _answers({"error": "no\x1b[31m TDX here" + "!" * 1_000}, status=400)

    with pytest.raises(QuoteUnavailableError, match=r"refused with 400: no\[31m TDX here!+$") as it:
        await source.quote(REPORT_DATA)

    assert len(str(it.value)) < 400


@pytest.mark.parametrize("body", [b"", b"\xff", b"<html>", b"[" * 100_000])
async def test_what_is_no_json_is_refused(
    agent: GuestAgent, source: DstackQuoteSource, body: bytes
) -> None:
    agent.faults["GetQuote"] = _bytes(body)

    with pytest.raises(QuoteUnavailableError, match="not JSON"):
        await source.quote(REPORT_DATA)


async def test_no_more_is_read_than_an_answer_may_have(
    agent: GuestAgent, source: DstackQuoteSource
) -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        answer = web.StreamResponse()
        await answer.prepare(request)
        while True:
            await answer.write(b" " * 65_536)
            sent += 65_536

    agent.faults["GetQuote"] = endless

    with pytest.raises(QuoteUnavailableError, match="longer than 4194304 bytes"):
        await source.quote(REPORT_DATA)

    assert sent < 16 << 20


async def test_an_agent_that_does_not_answer_is_waited_for_no_longer_than_told(
    agent: GuestAgent,
) -> None:
    async def silent(_: web.Request) -> web.Response:
        await asyncio.Event().wait()
        raise AssertionError

    agent.faults["GetQuote"] = silent
    async with agent.serve() as socket:
        source = DstackQuoteSource(socket, timeout_seconds=0.05)

        with pytest.raises(QuoteUnavailableError, match=r"GetQuote: no answer within 0\.05 s"):
            await source.quote(REPORT_DATA)

        await source.close()


async def test_a_redirect_is_not_followed(agent: GuestAgent, source: DstackQuoteSource) -> None:
    async def redirect(_: web.Request) -> web.Response:
        return web.json_response({}, status=307, headers={"location": "http://dstack/Info"})

    agent.faults["GetQuote"] = redirect

    with pytest.raises(QuoteUnavailableError, match="refused with 307"):
        await source.quote(REPORT_DATA)

    assert [method for method, _ in agent.questions] == ["GetQuote"]


async def test_a_connection_that_breaks_off_is_no_quote(
    agent: GuestAgent, source: DstackQuoteSource
) -> None:
    async def gone(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        return web.Response()

    agent.faults["GetQuote"] = gone

    with pytest.raises(QuoteUnavailableError, match="GetQuote"):
        await source.quote(REPORT_DATA)


async def test_something_else_on_the_socket_is_no_guest_agent(tmp_path: Path) -> None:
    async def speak(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.example.org\r\n\r\n")
        writer.close()

    server = await asyncio.start_unix_server(speak, tmp_path / "s")
    source = DstackQuoteSource(str(tmp_path / "s"))
    with pytest.raises(QuoteUnavailableError, match="GetQuote"):
        await source.quote(REPORT_DATA)
    await source.close()
    server.close()


async def test_no_socket_is_said_by_its_path(tmp_path: Path) -> None:
    source = DstackQuoteSource(str(tmp_path / "none.sock"))

    with pytest.raises(QuoteUnavailableError, match=r"none\.sock"):
        await source.quote(REPORT_DATA)

    await source.close()
