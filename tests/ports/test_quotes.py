"""One suite for every `QuoteSource`."""

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path

import dcap_qvl
import pytest

from orchestrator.errors import InputError, QuoteUnavailableError
from orchestrator.evidence import dump_collateral_json
from orchestrator.quotes import QuoteSource
from orchestrator.quotes.dstack import DstackQuoteSource
from orchestrator.quotes.simulated import SimulatedQuoteSource
from orchestrator.simulator import Simulator, create_simulator
from orchestrator.testing import FixedClock
from tests.unit.quotes.guest_agent import GuestAgent


@dataclass
class Subject:
    """A source, the simulator behind it, and how to take it away."""

    source: QuoteSource
    simulator: Simulator
    take_away: Callable[[], object]


@pytest.fixture(params=["dstack", "simulated"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    source: QuoteSource
    if request.param == "dstack":
        agent = GuestAgent(Simulator.create())
        async with agent.serve() as socket:
            source = DstackQuoteSource(socket)
            yield Subject(source, agent.simulator, Path(socket).unlink)
            await source.close()
        return
    folder = tmp_path / "simulator"
    simulator = create_simulator(folder)
    source = SimulatedQuoteSource(folder, clock=FixedClock())
    yield Subject(source, simulator, lambda: folder.rename(tmp_path / "gone"))
    await source.close()


@pytest.mark.parametrize("data", [bytes(64), bytes(range(64)), b"\xff" * 64])
async def test_a_quote_carries_what_was_asked_for(subject: Subject, data: bytes) -> None:
    given = await subject.source.quote(data)

    assert dcap_qvl.parse_quote(given.quote).report.report_data == data


async def test_what_runs_comes_with_the_quote(subject: Subject) -> None:
    given = await subject.source.quote(bytes(64))

    assert given.event_log == subject.simulator.guest.event_log
    assert given.compose == subject.simulator.guest.compose


async def test_each_quote_is_for_its_question(subject: Subject) -> None:
    first = await subject.source.quote(b"1" * 64)
    second = await subject.source.quote(b"2" * 64)

    assert first.quote != second.quote


async def test_a_platform_that_is_gone_gives_no_quote(subject: Subject) -> None:
    subject.take_away()

    with pytest.raises(QuoteUnavailableError):
        await subject.source.quote(bytes(64))


async def test_a_source_says_what_it_is(subject: Subject) -> None:
    is_simulated = isinstance(subject.source, SimulatedQuoteSource)

    assert subject.source.name == ("simulated TDX: proves no TEE" if is_simulated else "dstack TDX")


async def test_a_simulated_quote_comes_with_collateral_of_its_time(tmp_path: Path) -> None:
    simulator = create_simulator(tmp_path / "simulator")
    clock = FixedClock()
    source = SimulatedQuoteSource(tmp_path / "simulator", clock=clock)

    given = await source.quote(bytes(64))

    assert given.collateral is not None
    collateral = dcap_qvl.QuoteCollateralV3.from_json(dump_collateral_json(given.collateral))
    report = dcap_qvl.verify_with_root_ca(
        given.quote, collateral, simulator.root_certificate, clock() // 1_000
    )
    assert report.status == "UpToDate"


def test_a_folder_without_a_simulator_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no simulator in it"):
        SimulatedQuoteSource(tmp_path, clock=FixedClock())
