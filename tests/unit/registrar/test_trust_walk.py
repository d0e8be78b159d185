"""
Days of simulated hours with a TCB recovery in them: the alarm comes a day before any refusal.

A registrar's rules walk along: each worker is renewed 72 hours before its registration ends, on new
evidence, by the verifier and the contract.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from orchestrator.client import JobClient
from orchestrator.crypto import AccountKey, OwnerSecret
from orchestrator.errors import UntrustedWorkerError
from orchestrator.evidence import EvidenceError
from orchestrator.models import TaskInput
from orchestrator.registrar.trust_watch import alarms_of
from tests.unit.registrar.trust_world import DAY, HOUR, TrustWorld

pytestmark = pytest.mark.slow
RENEW_BEFORE = 72 * HOUR
OWNER = AccountKey.from_uri("//Alice")
TASK = TaskInput(task="echo", input=b"secret")


@dataclass
class Walk:
    """When what happened first; ms."""

    alarms: dict[str, int] = field(default_factory=dict)
    refusals: set[str] = field(default_factory=set)
    renewal_refused_at: int | None = None
    not_trusted_at: int | None = None
    renewals: int = 0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TrustWorld]:
    made = TrustWorld(tmp_path)
    yield made
    made.close()


@pytest.fixture
def client(world: TrustWorld, tmp_path: Path) -> Iterator[JobClient]:
    with JobClient(
        chain=world.chain,
        contract=world.processor.contract,
        account=OWNER,
        secret=OwnerSecret.from_bytes(bytes(range(32))),
        state_dir=tmp_path / "owner",
        trusted_node=True,
        clock=world.clock,
    ) as made:
        yield made


def walk(world: TrustWorld, hours: int, *, with_early: bool = False) -> Walk:
    """Hour by hour: look, renew what is due, note what fails first; end with a worker's trust."""
    seen = Walk()
    for _ in range(hours):
        world.clock.advance(HOUR)
        now = world.clock()
        for alarm in alarms_of(world.look(with_early=with_early)):
            seen.alarms.setdefault(alarm.code, now)
        for local in world.local:
            worker = world.worker(local.worker)
            if worker.valid_until - now <= RENEW_BEFORE:
                try:
                    world.renew(local)
                except EvidenceError as refusal:
                    seen.refusals.add(refusal.code)
                    seen.renewal_refused_at = seen.renewal_refused_at or now
                else:
                    seen.renewals += 1
            if not world.chain.read(world.processor.is_trusted(local.worker)):
                seen.not_trusted_at = now
        if seen.not_trusted_at is not None:
            break
    return seen


def add_workers(world: TrustWorld) -> None:
    """Three workers whose registrations end a day and a half apart."""
    for days in (4.0, 5.5, 7.0):
        world.add_worker(valid_for=int(days * DAY))


def test_without_a_recovery_days_pass_without_an_alarm(world: TrustWorld) -> None:
    add_workers(world)

    seen = walk(world, 10 * 24)

    assert (seen.alarms, seen.renewal_refused_at, seen.not_trusted_at) == ({}, None, None)
    assert seen.renewals >= 3 * 2


@pytest.mark.parametrize("hours_before", [1, 23, 90])
def test_a_recovery_that_is_in_effect_at_once_is_told_a_day_before_anybody_is_refused(
    world: TrustWorld, hours_before: int
) -> None:
    """Unannounced, even in the hour that a renewal is due (23): three days are left then."""
    add_workers(world)
    before = walk(world, hours_before)
    assert before.alarms == {}
    injected_at = world.clock()
    world.simulator = world.simulator.tcb_recovery(now=injected_at)

    seen = walk(world, 8 * 24)

    assert seen.not_trusted_at is not None
    assert seen.alarms["E05"] == injected_at + HOUR
    assert seen.not_trusted_at - seen.alarms["E05"] >= 24 * HOUR
    assert seen.renewal_refused_at is not None
    assert seen.renewal_refused_at >= seen.alarms["E05"]
    assert (seen.refusals, seen.renewals) == ({"E05"}, 0)


def test_a_recovery_that_is_announced_is_told_before_any_renewal_is_refused(
    world: TrustWorld,
) -> None:
    """Owners who verify for themselves refuse as soon as it is in effect: this warns before."""
    add_workers(world)
    announced_at = world.clock()
    in_effect_at = announced_at + 2 * DAY
    world.simulator = world.simulator.tcb_recovery(now=announced_at, effective_at=in_effect_at)

    seen = walk(world, 10 * 24, with_early=True)

    assert seen.alarms["TcbRecoveryAhead"] == announced_at + HOUR
    assert seen.renewal_refused_at is not None
    assert seen.not_trusted_at is not None
    assert seen.renewal_refused_at >= in_effect_at
    assert seen.renewal_refused_at - seen.alarms["TcbRecoveryAhead"] >= 24 * HOUR
    assert seen.alarms["E05"] >= in_effect_at
    assert seen.not_trusted_at - seen.alarms["E05"] >= 24 * HOUR


def test_a_machine_that_is_updated_in_time_is_renewed_and_the_alarms_end(
    world: TrustWorld,
) -> None:
    add_workers(world)
    world.simulator = world.simulator.tcb_recovery(now=world.clock())
    first = walk(world, 24)
    assert "E05" in first.alarms

    world.simulator = world.simulator.updated()
    for local in world.local:
        world.renew(local)
    seen = walk(world, 9 * 24)

    assert (seen.alarms, seen.renewal_refused_at, seen.not_trusted_at) == ({}, None, None)
    assert world.look().evaluation_number == world.look().newest_evaluation_number == 21


def test_nothing_is_sealed_to_a_worker_from_the_millisecond_after_its_last(
    world: TrustWorld, client: JobClient
) -> None:
    """After a refused renewal nobody's key is used one ms too long; the chain is of one mind."""
    world.add_worker(valid_for=2 * DAY)
    world.simulator = world.simulator.tcb_recovery(now=world.clock())
    with pytest.raises(EvidenceError, match="E05"):
        world.renew(world.local[0])
    worker = world.worker(1)

    world.clock.now = worker.valid_until
    sealed = client.seal(TASK, workers=[1])
    assert sealed.envelope
    assert world.chain.read(world.processor.is_trusted(1))

    world.clock.now = worker.valid_until + 1
    jobs = world.chain.read(world.processor.get_job_counter())
    with pytest.raises(UntrustedWorkerError):
        client.seal(TASK, workers=[1])
    with pytest.raises(UntrustedWorkerError):
        client.submit(TASK, workers=[1])
    with pytest.raises(UntrustedWorkerError):
        client.submit(TASK)
    assert world.chain.read(world.processor.get_job_counter()) == jobs
    assert not world.chain.read(world.processor.is_trusted(1))
