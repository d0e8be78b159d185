"""The registrar's rounds: what is due is renewed, and what fails is an alarm and stops no other."""

import asyncio
import logging

import httpx
import pytest

from orchestrator.errors import ChainUnavailableError, InputError
from orchestrator.evidence import Collateral
from orchestrator.metrics import RegistrarEvent, RegistrarEventKind, RegistrarMetrics
from orchestrator.models import WorkerStatus
from orchestrator.registrar import (
    EvidenceArchive,
    Outcome,
    TrustWatch,
    alarms_of,
    registrar_app,
    rotate_keys,
)
from orchestrator.testing.flaky_chain import Fault, FlakyChain
from orchestrator.testing.workers import Behaviour
from tests.unit.registrar.rounds_world import Rounds, outcomes, two_workers
from tests.unit.registrar.world import ADMIN, DAY, HOUR, URL, World, lose_call


async def test_what_is_not_due_is_left_alone(world: World) -> None:
    await world.register()
    rounds, before = Rounds(world), world.head()
    world.clock.advance(4 * DAY - 1)

    made = await rounds.round()

    assert outcomes(made) == {1: Outcome.NOT_DUE}
    assert world.head() == before
    assert world.machine.quotes == 1


async def test_what_ends_within_the_time_is_renewed_once(world: World) -> None:
    worker = await world.register()
    rounds, before = Rounds(world), world.head()
    world.clock.advance(4 * DAY)

    first = await rounds.round()
    second = await rounds.round()

    assert outcomes(first) == {1: Outcome.RENEWED}
    assert outcomes(second) == {1: Outcome.NOT_DUE}
    assert world.head() == before + 1
    assert world.read(1).valid_until == worker.valid_until + 4 * DAY
    assert rounds.kinds() == [RegistrarEventKind.RENEWED]
    assert rounds.renewals.renewed == 1
    assert rounds.workers[URL].is_closed


async def test_one_that_has_ended_is_renewed_too(world: World) -> None:
    worker = await world.register()
    world.clock.now = worker.valid_until
    is_trusted = world.processor.is_trusted(1)
    trusted = [world.chain.read(is_trusted)]
    world.clock.advance(1)
    trusted.append(world.chain.read(is_trusted))

    made = await Rounds(world).round()

    assert outcomes(made) == {1: Outcome.RENEWED}
    assert [*trusted, world.chain.read(is_trusted)] == [True, False, True]


async def test_a_failure_is_an_alarm_and_keeps_nobody_else_from_being_renewed(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    rounds = await two_workers(world)
    world.worker.behaviour = Behaviour.UNAVAILABLE
    world.clock.advance(5 * DAY)
    before = world.read(1)

    with caplog.at_level(logging.INFO, "orchestrator.registrar"):
        made = await rounds.round()

    assert outcomes(made) == {1: Outcome.FAILED, 2: Outcome.RENEWED}
    assert [one.worker for one in made.failed] == [1]
    assert made.failed[0].code == "WorkerUnavailableError"
    assert world.read(1) == before
    assert rounds.kinds() == [RegistrarEventKind.RENEWAL_FAILED, RegistrarEventKind.RENEWED]
    assert rounds.renewals.failing == {1}
    (alarm,) = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert "ALARM: worker 1 could not be renewed, 48.0 hours before" in alarm.getMessage()


async def test_a_check_that_refuses_is_the_alarms_reason(world: World) -> None:
    await world.register()
    rounds = Rounds(world)
    world.clock.advance(5 * DAY)
    world.change_simulator(lambda simulator: simulator.with_status("OutOfDate"))

    made = await rounds.round()

    assert made.failed[0].code == "E05"
    assert [event.code for event in rounds.events] == ["E05"]


async def test_a_bug_that_an_answer_sets_off_keeps_nobody_else_from_being_renewed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = await two_workers(world)
    world.clock.advance(5 * DAY)

    async def bug() -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(world.worker, "identity", bug)
    made = await rounds.round()

    assert outcomes(made) == {1: Outcome.FAILED, 2: Outcome.RENEWED}
    assert made.failed[0].code == "ZeroDivisionError"


async def test_a_failure_is_tried_again_ever_slower_and_forgotten_once_it_works(
    world: World,
) -> None:
    await world.register()
    rounds = Rounds(world, retry=60_000, interval=150_000)
    world.worker.behaviour = Behaviour.UNAVAILABLE
    world.clock.advance(5 * DAY)
    tried = []

    for _ in range(10):
        made = await rounds.round()
        tried.append(outcomes(made)[1])
        world.clock.advance(30_000)
    assert [at for at, outcome in enumerate(tried) if outcome is Outcome.FAILED] == [0, 2, 6]
    assert set(tried) == {Outcome.FAILED, Outcome.WAITS}
    kinds = rounds.kinds()
    assert kinds.count(RegistrarEventKind.RENEWAL_FAILED) == 3
    assert kinds.count(RegistrarEventKind.ALARM) == 7

    world.worker.behaviour = Behaviour.HONEST
    world.clock.advance(150_000)
    assert outcomes(await rounds.round()) == {1: Outcome.RENEWED}
    assert rounds.renewals.failing == frozenset()


async def test_one_that_waits_still_counts_as_failed(world: World) -> None:
    await world.register()
    rounds = Rounds(world)
    world.worker.behaviour = Behaviour.UNAVAILABLE
    world.clock.advance(5 * DAY)
    await rounds.round()

    made = await rounds.round()

    assert outcomes(made) == {1: Outcome.WAITS}
    assert made.failed[0].code == "WorkerUnavailableError"


async def test_a_worker_that_is_revoked_is_no_trouble_any_more(world: World) -> None:
    await world.register()
    rounds = Rounds(world)
    world.worker.behaviour = Behaviour.UNAVAILABLE
    world.clock.advance(5 * DAY)
    await rounds.round()
    world.chain.call(world.processor.revoke_worker(1, bytes(32)), signer=ADMIN)

    made = await rounds.round()

    assert made.workers == ()
    assert rounds.renewals.failing == frozenset()


async def test_only_the_named_workers_are_looked_at(world: World) -> None:
    rounds = await two_workers(world, workers=frozenset({2}))
    world.clock.advance(5 * DAY)
    before = world.read(1)

    made = await rounds.round()

    assert outcomes(made) == {2: Outcome.RENEWED}
    assert world.read(1) == before


async def test_a_named_worker_that_is_none_is_told_of(world: World) -> None:
    await two_workers(world)
    world.chain.call(world.processor.revoke_worker(1, bytes(32)), signer=ADMIN)
    rounds = Rounds(world, workers=frozenset({1, 2, 99}))

    made = await rounds.round()

    assert outcomes(made) == {2: Outcome.NOT_DUE}
    assert [(one.worker, one.code) for one in made.alarms] == [
        (1, "WorkerNotFound"),
        (99, "WorkerNotFound"),
    ]
    assert rounds.events == list(made.alarms)


@pytest.mark.parametrize(
    ("named", "expected"), [(None, {}), (frozenset({1}), {1: Outcome.RENEWED})]
)
async def test_a_suspended_worker_is_renewed_where_it_is_named(
    world: World, named: frozenset[int] | None, expected: dict[int, Outcome]
) -> None:
    await world.register()
    world.chain.call(world.processor.suspend_worker(1), signer=ADMIN)
    rounds = Rounds(world, workers=named)
    world.clock.advance(5 * DAY)

    made = await rounds.round()

    assert outcomes(made) == expected
    assert world.read(1).status is WorkerStatus.SUSPENDED


async def test_more_workers_than_a_page_are_all_looked_at(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    rounds = await two_workers(world)
    monkeypatch.setattr("orchestrator.chain.paging._PAGE", 1)

    made = await rounds.round()

    assert outcomes(made) == {1: Outcome.NOT_DUE, 2: Outcome.NOT_DUE}


# Rotation.


async def test_rotated_away_keys_are_left_to_end(world: World) -> None:
    old = await world.register()
    await rotate_keys(world.registrar(), world.worker, old)
    await world.register()
    rounds, before = Rounds(world), world.head()
    world.clock.advance(5 * DAY)

    made = await rounds.round()

    assert outcomes(made) == {1: Outcome.REPLACED, 2: Outcome.RENEWED}
    assert world.read(1) == old
    assert world.head() == before + 1
    assert RegistrarEventKind.RENEWAL_FAILED not in rounds.kinds()
    assert [worker.worker for worker in rounds.forecast_of] == [2]


async def test_keys_whose_successor_was_not_registered_yet_are_renewed(world: World) -> None:
    old = await world.register()
    await rotate_keys(world.registrar(), world.worker, old)
    world.clock.advance(5 * DAY)

    made = await Rounds(world).round()

    assert outcomes(made) == {1: Outcome.RENEWED}
    assert world.read(1).signing_key == old.signing_key


# The forecast.


async def test_what_will_fail_is_told_in_each_round(world: World) -> None:
    await world.register()
    rounds = Rounds(world)
    ahead = RegistrarEvent(
        kind=RegistrarEventKind.ALARM, worker=1, code="TcbRecoveryAhead", detail="soon"
    )
    rounds.forecast = [ahead]

    made = await rounds.round()

    assert made.alarms == (ahead,)
    assert rounds.events == [ahead]


async def test_a_forecast_is_of_the_workers_as_they_are_after_the_round(world: World) -> None:
    await world.register()
    rounds = Rounds(world)
    world.clock.advance(5 * DAY)

    await rounds.round()

    assert rounds.forecast_of == [world.read(1)]


@pytest.mark.parametrize("error", [InputError("nothing to look into"), ZeroDivisionError()])
async def test_that_there_is_no_forecast_is_an_alarm_and_no_end(
    world: World, error: Exception
) -> None:
    await world.register()
    rounds = Rounds(world)
    world.clock.advance(5 * DAY)
    rounds.forecast_error = error

    made = await rounds.round()

    assert outcomes(made) == {1: Outcome.RENEWED}
    assert [event.code for event in rounds.events if event.kind is RegistrarEventKind.ALARM] == [
        type(error).__name__
    ]


async def test_a_tcb_recovery_is_told_of_a_day_before_it_refuses_anybody(world: World) -> None:
    await world.register()
    now = world.clock()
    world.change_simulator(
        lambda simulator: simulator.tcb_recovery(now=now, effective_at=now + 2 * DAY)
    )
    watch = TrustWatch(
        policy=world.policy,
        genesis_hash=world.chain.genesis_hash,
        contract=world.processor.contract,
        evidence=lambda worker: world.blobs.get(worker.evidence_hash, max_bytes=1 << 20),
        collateral=None,
        early=_Early(world),
    )
    rounds = Rounds(world, renew_before=6 * DAY + 23 * HOUR)
    rounds.renewals._forecast = lambda workers: alarms_of(watch.look(workers, now=world.clock()))
    told_at = refused_at = None

    while refused_at is None:
        world.clock.advance(HOUR)
        made = await rounds.round()
        if made.alarms and told_at is None:
            told_at = world.clock()
        if made.failed:
            refused_at = world.clock()

    assert {event.code for event in rounds.events if event.worker == 1} >= {"TcbRecoveryAhead"}
    assert made.failed[0].code == "E05"
    assert told_at is not None
    assert refused_at - told_at >= DAY


class _Early:
    """What is published and not yet in effect."""

    def __init__(self, world: World) -> None:
        self._world = world

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        del quote
        return self._world.machine.simulator.collateral(now=now, early=True)

    def close(self) -> None:
        """Nothing is open."""


# Running.


async def test_it_runs_until_it_is_stopped(world: World) -> None:
    await world.register()
    rounds, stop = Rounds(world), asyncio.Event()
    world.clock.advance(5 * DAY)

    async with asyncio.timeout(10):
        running = asyncio.create_task(rounds.renewals.run(stop))
        while rounds.renewals.since_last_round is None:  # noqa: ASYNC110  # it decides when
            await asyncio.sleep(0.005)
        stop.set()
        await running

    assert rounds.renewals.renewed == 1


async def test_a_stop_gives_up_what_waits_for_a_worker(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.register()
    rounds, stop = Rounds(world), asyncio.Event()
    world.clock.advance(5 * DAY)
    before = world.head()

    async def never(**_: object) -> bytes:
        stop.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(world.worker, "evidence", never)
    async with asyncio.timeout(10):
        await rounds.renewals.run(stop)

    assert world.head() == before
    assert world.worker.is_closed


async def test_a_stop_waits_for_a_call_that_is_on_its_way(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await world.register()
    rounds, stop = Rounds(world), asyncio.Event()
    world.clock.advance(5 * DAY)
    loop, call = asyncio.get_running_loop(), world.chain.call

    def call_and_stop(*words: object, **named: object) -> object:
        loop.call_soon_threadsafe(stop.set)
        return call(*words, **named)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(world.chain, "call", call_and_stop)
    async with asyncio.timeout(10):
        await rounds.renewals.run(stop)

    assert world.read(1).valid_until > worker.valid_until


async def test_a_chain_that_is_away_is_an_alarm_and_is_asked_again(world: World) -> None:
    await world.register()
    away = [True, True]
    world.wrapped = FlakyChain(
        world.chain,
        lambda asked: Fault.BEFORE if asked == "workers_page" and away and away.pop() else None,
    )
    rounds, stop = Rounds(world, retry=1, interval=2), asyncio.Event()

    async with asyncio.timeout(10):
        running = asyncio.create_task(rounds.renewals.run(stop))
        while rounds.renewals.since_last_round is None:  # noqa: ASYNC110  # it decides when
            await asyncio.sleep(0.005)
        stop.set()
        await running

    assert [event.code for event in rounds.events] == ["ChainUnavailableError"] * 2


async def test_what_an_earlier_run_sent_is_waited_for_and_not_sent_again(world: World) -> None:
    worker = await world.register()
    world.clock.advance(5 * DAY)
    flaky = FlakyChain(world.chain, lose_call("renew_worker", [Fault.LATER, None]))
    flaky.is_stuck = True
    world.wrapped = flaky
    with pytest.raises(ChainUnavailableError):
        await world.registrar().renew(world.worker, worker)
    flaky.is_stuck = False
    before = world.head()
    rounds = Rounds(world)

    await rounds.renewals.settle()
    made = await rounds.round()

    assert outcomes(made) == {1: Outcome.NOT_DUE}
    assert world.head() == before + 1


# Served.


async def test_health_and_numbers_are_served(world: World) -> None:
    await world.register()
    rounds = Rounds(world)
    metrics = RegistrarMetrics(version="1")
    app = registrar_app(rounds.renewals, metrics=metrics, interval=HOUR)
    transport = httpx.ASGITransport(app=app)

    async with httpx.AsyncClient(transport=transport, base_url="http://registrar") as client:
        before = await client.get("/healthz")
        await rounds.round()
        world.clock.advance(2 * HOUR)
        alive = await client.get("/healthz")
        world.clock.advance(1)
        missed = await client.get("/healthz")
        numbers = await client.get("/metrics")

    assert [answer.status_code for answer in (before, alive, missed)] == [503, 200, 503]
    assert alive.json() == {
        "alive": True,
        "seconds_since_workers_were_looked_at": 7_200.0,
        "renewals_failing": 0,
    }
    assert "phala_jobs_renewals_total" in numbers.text


# Being killed.


class KilledError(BaseException):
    """Ends everything, as a kill does: no code of ours catches it."""


STEPS = ("identity", "evidence", "registration", "keep", "put_evidence", "write_record")


def kill_at(world: World, patch: pytest.MonkeyPatch, step: str, *, after: bool) -> None:
    """End the process before or after a step, once."""
    targets = {"keep": EvidenceArchive, "write_record": EvidenceArchive, "call": world.chain}
    target = targets.get(step, world.worker)
    honest = getattr(target, step)

    def work(*words: object, **named: object) -> object:
        if after:
            honest(*words, **named)
        raise KilledError

    async def ask(*words: object, **named: object) -> object:
        if after:
            await honest(*words, **named)
        raise KilledError

    patch.setattr(target, step, ask if target is world.worker else work)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", [*STEPS, "call"])
async def test_a_renewal_that_was_killed_at_any_step_is_done_once(
    world: World, step: str, after: bool
) -> None:
    worker = await world.register()
    world.clock.advance(5 * DAY)
    before = world.head()
    with pytest.MonkeyPatch.context() as patch:
        kill_at(world, patch, step, after=after)
        with pytest.raises(KilledError):
            await Rounds(world).round()

    rounds = Rounds(world)
    await rounds.renewals.settle()
    made = await rounds.round()

    is_done_already = (step, after) == ("call", True) or step == "write_record"
    assert outcomes(made) == {1: Outcome.NOT_DUE if is_done_already else Outcome.RENEWED}
    assert world.head() == before + 1
    found = world.read(1)
    assert found.valid_until == worker.valid_until + 5 * DAY
    assert world.blobs.has(found.evidence_hash)
    assert found.evidence_hash in world.worker.evidence_kept
