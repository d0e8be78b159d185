"""Clocks that are wrong, workers that gain little or say much, nodes that lie: all is told."""

import asyncio
import logging
from dataclasses import replace
from typing import TypeVar, cast

import httpx
import pytest

from orchestrator.chain import Block, ContractCall
from orchestrator.errors import ChainMismatchError, WorkerRefusedError
from orchestrator.metrics import RegistrarMetrics
from orchestrator.models import Page, Worker
from orchestrator.registrar import Outcome, registrar_app
from orchestrator.registrar.registration import CLOCK_MARGIN_MS
from orchestrator.testing import FixedClock
from orchestrator.testing.workers import Behaviour
from tests.unit.registrar.rounds_world import SECOND_URL, Rounds, outcomes, two_workers
from tests.unit.registrar.world import ADMIN, DAY, HOUR, URL, World

T = TypeVar("T")

SKEW = 60_000
MINUTE = 60_000


def is_trusted(world: World, worker: int = 1) -> bool:
    return world.chain.read(world.processor.is_trusted(worker))


def set_longest(world: World, longest: int) -> None:
    limits = world.chain.read(world.processor.parameters())
    changed = replace(limits, max_registration=longest)
    world.chain.call(world.processor.set_parameters(changed), signer=ADMIN)


# Clocks.


async def test_a_clock_that_was_ahead_once_holds_no_renewal_up(world: World) -> None:
    await world.register()
    rounds = Rounds(world)
    rounds.ahead = 40 * DAY
    assert outcomes(await rounds.round()) == {1: Outcome.FAILED}
    rounds.ahead = 0
    world.clock.advance(4 * DAY)

    made = await rounds.round()

    assert outcomes(made) == {1: Outcome.RENEWED}
    assert rounds.renewals.failing == frozenset()


async def test_while_one_that_is_due_waits_each_look_tells_of_it(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    await world.register()
    rounds = Rounds(world)
    world.worker.behaviour = Behaviour.UNAVAILABLE
    world.clock.advance(5 * DAY)
    await rounds.round()
    caplog.clear()

    with caplog.at_level(logging.ERROR, "orchestrator.registrar"):
        made = await rounds.round()

    assert outcomes(made) == {1: Outcome.WAITS}
    assert rounds.codes() == ["WorkerUnavailableError"]
    (alarm,) = caplog.records
    assert "48.0 hours before its registration ends, still: " in alarm.getMessage()


async def test_what_is_due_by_the_chains_clock_is_due(world: World) -> None:
    await world.register()
    rounds = Rounds(world)
    rounds.ahead = -MINUTE
    world.clock.advance(4 * DAY)
    world.machine.clock = FixedClock(world.clock() - HOUR)

    made = await rounds.round()

    assert outcomes(made) == {1: Outcome.RENEWED}


@pytest.mark.parametrize(
    ("ahead", "codes"),
    [(-SKEW, []), (-SKEW - 1, ["OwnClockBehind"]), (SKEW + 1, [])],
)
async def test_a_clock_that_is_behind_the_chains_is_an_alarm(
    world: World, ahead: int, codes: list[str]
) -> None:
    await world.register()
    rounds = Rounds(world)
    rounds.ahead = ahead

    made = await rounds.round()

    assert [alarm.code for alarm in made.alarms] == codes
    assert rounds.codes() == codes


@pytest.mark.parametrize("ahead", [MINUTE // 2, DAY])
async def test_a_clock_that_is_ahead_registers_nobody_for_longer(world: World, ahead: int) -> None:
    registrar = world.registrar()
    registrar._clock = lambda: world.clock() + ahead
    longest = world.policy.maximum_registration

    admission = await registrar.admit(world.worker, await registrar.examine(world.worker, url=URL))

    assert admission.worker.valid_until == world.clock() + longest + min(ahead, SKEW)
    assert admission.too_long == 0


async def test_a_registration_that_is_too_long_by_the_blocks_time_is_told_of(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A node's `now` is never behind our clock; the block in which it was registered is."""
    await world.register()
    rounds = Rounds(world)
    world.clock.advance(5 * DAY)
    head = world.chain.finalized_head

    def earlier() -> Block:
        return replace(head(), timestamp=head().timestamp - DAY)

    monkeypatch.setattr(world.chain, "finalized_head", earlier)
    made = await rounds.round()

    assert outcomes(made) == {1: Outcome.RENEWED}
    assert [alarm.code for alarm in made.alarms] == ["OwnClockAhead"]


async def test_health_is_by_a_clock_that_nobody_sets(world: World) -> None:
    await world.register()
    rounds = Rounds(world)
    steady = rounds.steady = FixedClock()
    app = registrar_app(rounds.renewals, metrics=RegistrarMetrics(version="1"), interval=HOUR)
    transport = httpx.ASGITransport(app=app)
    await rounds.round()

    async with httpx.AsyncClient(transport=transport, base_url="http://registrar") as client:
        world.clock.now -= 10 * DAY
        set_back = await client.get("/healthz")
        steady.now -= 1
        impossible = await client.get("/healthz")

    assert [answer.status_code for answer in (set_back, impossible)] == [200, 503]
    assert set_back.json()["seconds_since_workers_were_looked_at"] == 0


# What a renewal gains.


async def test_a_worker_whose_collateral_ends_soon_costs_no_fee_at_each_look(world: World) -> None:
    world.machine.collateral_for = 60 * HOUR
    worker = await world.register()
    rounds, before = Rounds(world), world.head()

    for _ in range(48):
        world.clock.advance(HOUR)
        made = await rounds.round()

    assert world.head() == before
    assert world.read(1) == worker
    assert made.failed[0].code == "GainsTooLittle"
    assert is_trusted(world)


async def test_before_it_ends_it_is_renewed_for_the_little_that_there_is(world: World) -> None:
    world.machine.collateral_for = 60 * HOUR
    worker = await world.register()
    rounds, before = Rounds(world), world.head()

    while world.clock() < worker.valid_until:
        world.clock.advance(HOUR)
        made = await rounds.round()
        if made.workers[0].outcome is Outcome.RENEWED:
            break

    assert world.head() == before + 1
    assert is_trusted(world)
    assert world.clock() >= worker.valid_until - 2 * HOUR
    assert [alarm.code for alarm in made.alarms] == ["GainsTooLittle"]


@pytest.mark.parametrize(("more", "codes"), [(0, ["RenewBeforeTooLong"]), (1, [])])
async def test_a_contract_whose_registrations_are_too_short_is_told_of_at_the_start(
    world: World, more: int, codes: list[str]
) -> None:
    set_longest(world, 72 * HOUR + CLOCK_MARGIN_MS + more)

    made = await Rounds(world).round()

    assert [alarm.code for alarm in made.alarms] == codes


# What workers and nodes say.


async def test_what_a_worker_says_is_cut_and_printable_in_reports_and_alarms(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await world.register()
    rounds = Rounds(world)
    world.clock.advance(5 * DAY)

    async def rude() -> None:
        raise WorkerRefusedError(400, "\x1b[2J\n" + "x" * 5_000)

    monkeypatch.setattr(world.worker, "identity", rude)
    with caplog.at_level(logging.ERROR, "orchestrator.registrar"):
        made = await rounds.round()
        waits = await rounds.round()

    said = [made.failed[0].detail, waits.failed[0].detail, *(e.detail for e in rounds.events)]
    assert all(len(words) < 400 and words.isprintable() for words in said)
    assert all(len(one.getMessage()) < 600 for one in caplog.records)
    assert all(one.getMessage().isprintable() for one in caplog.records)


async def test_one_that_never_ends_its_answer_is_given_up_and_holds_nobody_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = await two_workers(world, answers=50)
    world.clock.advance(5 * DAY)
    other = rounds.workers[SECOND_URL]

    async def never(**_: object) -> bytes:
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(world.worker, "evidence", never)
    async with asyncio.timeout(30):
        made = await rounds.round()

    assert made.workers[0].outcome is Outcome.FAILED
    assert made.failed[0].code == "WorkerUnavailableError"
    assert "altogether" in made.failed[0].detail
    assert other.is_closed
    assert world.worker.is_closed


async def test_others_are_renewed_while_one_is_waited_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = await two_workers(world)
    world.clock.advance(5 * DAY)
    honest = world.worker.evidence

    async def slow(**asked: object) -> bytes:
        while rounds.renewals.renewed == 0:  # noqa: ASYNC110  # the other's renewal decides
            await asyncio.sleep(0.005)
        return await honest(**asked)  # type: ignore[arg-type]  # as asked

    monkeypatch.setattr(world.worker, "evidence", slow)
    async with asyncio.timeout(30):
        made = await rounds.round()

    assert outcomes(made) == {1: Outcome.RENEWED, 2: Outcome.RENEWED}


async def test_workers_at_one_url_are_asked_in_turn_and_the_first_to_end_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = await two_workers(world)
    world.clock.advance(5 * DAY)
    asked: list[int] = []

    async def renew(_client: object, worker: Worker, **_: object) -> None:
        asked.append(worker.worker)
        await asyncio.sleep(0)
        asked.append(-worker.worker)
        raise WorkerRefusedError(400, "no")

    monkeypatch.setattr(rounds.renewals._registrar, "renew", renew)
    first, second = world.read(1), world.read(2)
    workers = [
        replace(first, endpoint=second.endpoint, valid_until=first.valid_until + 1),
        second,
    ]

    async def listed() -> list[Worker]:
        return workers

    monkeypatch.setattr(rounds.renewals, "_read_workers", listed)
    monkeypatch.setattr("orchestrator.registrar.renewals.successors", lambda *_: [])
    await rounds.round()

    assert asked == [2, -2, 1, -1]


async def test_a_node_whose_pages_do_not_end_is_told_of(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.register()
    read = world.chain.read

    def lying(call: ContractCall[T]) -> T:
        answer = read(call)
        return cast("T", replace(answer, next=1)) if isinstance(answer, Page) else answer

    monkeypatch.setattr(world.chain, "read", lying)

    with pytest.raises(ChainMismatchError, match="workers_page"):
        await Rounds(world).round()
