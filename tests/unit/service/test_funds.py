"""What calls cost, what is left, and an account that can't pay."""

import asyncio
import logging
from dataclasses import replace

import httpx
import pytest

from orchestrator.errors import ChainError, InsufficientFundsError, SpendingLimitError
from orchestrator.metrics import EventKind, OrchestratorMetrics
from orchestrator.models import JobStatus
from orchestrator.service import service_app
from tests.unit.service.chains import PricedChain
from tests.unit.service.world import QUICK, World, until


async def test_fees_are_counted(world: World) -> None:
    worker = world.add_worker()
    for _ in range(3):
        world.submit(worker)
    world.wrapped = PricedChain(world.served, balance=10**12, fee=700)

    summary = await world.run(settings=replace(QUICK, group_seconds=1.0, group_size=3))

    assert summary.fees == 700
    (event,) = world.heard(EventKind.FEE)
    assert (event.planck, event.jobs) == (700, 3)
    assert EventKind.FEE not in summary.counts


async def test_without_money_nothing_is_said_about_it(world: World) -> None:
    world.submit(world.add_worker())

    summary = await world.run()

    assert summary.fees == 0
    assert not world.heard(EventKind.FEE)
    assert not world.heard(EventKind.LOW_BALANCE)


@pytest.mark.parametrize(("balance", "is_low"), [(30_100, True), (30_101, False)])
async def test_a_balance_for_too_few_jobs_is_told_once(
    world: World, monkeypatch: pytest.MonkeyPatch, balance: int, is_low: bool
) -> None:
    """After one job at a fee of 100: enough for 300 jobs is low, where 300 are wanted."""
    monkeypatch.setattr("orchestrator.service.funds.CHECK_SECONDS", 0.0)
    world.submit(world.add_worker())
    world.wrapped = PricedChain(world.served, balance=balance, fee=100)

    stop = asyncio.Event()
    with world.journal() as journal:
        orchestrator = world.orchestrator(journal, settings=replace(QUICK, low_balance_jobs=300))
        running = asyncio.create_task(orchestrator.run(stop))
        await until(lambda: bool(world.heard(EventKind.PROCESSED)))
        reads = PricedChain.account
        seen = 0

        def account(self: PricedChain, account_id: bytes) -> object:
            nonlocal seen
            seen += 1
            return reads(self, account_id)

        monkeypatch.setattr(PricedChain, "account", account)
        await until(lambda: seen >= 3)
        stop.set()
        await running

    assert len(world.heard(EventKind.LOW_BALANCE)) == is_low
    assert orchestrator.balance == balance - 100


async def test_an_empty_account_is_told_before_anything_is_sent(world: World) -> None:
    world.wrapped = PricedChain(world.served, balance=0)

    await world.run()

    (event,) = world.heard(EventKind.LOW_BALANCE)
    assert "has 0 planck" in event.detail


@pytest.mark.parametrize("error", [InsufficientFundsError("1010"), SpendingLimitError("limit")])
async def test_what_can_not_be_paid_is_an_alarm_and_tried_again(
    world: World, caplog: pytest.LogCaptureFixture, error: ChainError
) -> None:
    worker = world.add_worker()
    jobs = [world.submit(worker) for _ in range(3)]
    chain = PricedChain(world.served, balance=10**12)
    chain.refusal = error
    world.wrapped = chain

    with caplog.at_level(logging.ERROR):
        summary = await world.run(settings=replace(QUICK, group_seconds=1.0, group_size=3))

    assert summary.open == 3
    assert type(error).__name__ in {event.code for event in world.heard(EventKind.NO_FUNDS)}
    assert "no_funds" in caplog.text
    assert world.codes(jobs[0]) == set(), "says nothing about the job"

    chain.refusal = None
    await world.run()
    assert {world.status(job) for job in jobs} == {JobStatus.PROCESSED}


async def test_who_could_not_pay_is_not_asked_again_at_once(world: World) -> None:
    """Neither does the alarm go off for each job."""
    worker = world.add_worker()
    for _ in range(5):
        world.submit(worker)
    chain = PricedChain(world.served, balance=10**12)
    chain.refusal = InsufficientFundsError("1010")
    world.wrapped = chain

    summary = await world.run(
        settings=replace(QUICK, retry_max_seconds=30.0, group_size=1, batch_jobs=1)
    )

    assert summary.open == 5
    assert len(world.heard(EventKind.NO_FUNDS)) == 1
    assert chain.refused == 1


async def test_balance_and_fees_are_among_the_numbers(world: World) -> None:
    metrics = OrchestratorMetrics(version="1")
    world.submit(world.add_worker())
    world.wrapped = PricedChain(world.served, balance=5_000, fee=7)
    with world.journal() as journal:
        orchestrator = world.orchestrator(journal)
        await orchestrator.run_once(10)
    for event in world.events:
        metrics.observe(event)

    transport = httpx.ASGITransport(
        app=service_app(orchestrator, blobs=world.blobs, metrics=metrics)
    )
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        text = (await client.get("/metrics")).text

    assert "phala_jobs_fees_planck_total 7.0" in text
    assert "phala_jobs_balance_planck 5000.0" in text
