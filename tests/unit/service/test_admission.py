"""Which jobs are admitted, refused or put off, and what is written about it."""

from dataclasses import replace

import pytest

from orchestrator.encoding import to_ss58
from orchestrator.errors import ChainUnavailableError, ConfigError
from orchestrator.journal import JobState
from orchestrator.metrics import EventKind
from orchestrator.models import InlinePayload, Job, JobOptions, JobStatus
from orchestrator.service import AdmissionPolicy, OrchestratorSettings
from orchestrator.service.ledger import Ledger
from orchestrator.service.watch import Watch
from tests.unit.service.world import ANYBODY, OTHER_OWNER, OWNER, QUICK, World

DAY = 86_400_000


async def test_default_policy_admits_nobody(world: World) -> None:
    job_id = world.submit(world.add_worker())

    summary = await world.run(policy=AdmissionPolicy())

    record = world.record(job_id)
    assert (record.state, record.code) == (JobState.REFUSED, "OwnerNotAllowed")
    assert record.detail == f"owner {to_ss58(OWNER.account_id)} is not on the list"
    assert world.status(job_id) is JobStatus.SUBMITTED
    assert world.scripted[0].puts == []
    assert summary.refusals == {"OwnerNotAllowed": 1}


async def test_listed_owner_is_admitted_and_another_is_not(world: World) -> None:
    worker = world.add_worker()
    ours, theirs = world.submit(worker), world.submit(worker, owner=OTHER_OWNER)

    await world.run(policy=AdmissionPolicy(owners=frozenset({OWNER.account_id})))

    assert world.status(ours) is JobStatus.PROCESSED
    assert world.status(theirs) is JobStatus.SUBMITTED


async def test_an_owner_who_comes_on_the_list_is_admitted_at_the_next_start(world: World) -> None:
    worker = world.add_worker()
    ours, theirs = world.submit(worker), world.submit(worker, owner=OTHER_OWNER)
    await world.run(policy=AdmissionPolicy())

    await world.run(policy=AdmissionPolicy(owners=frozenset({OWNER.account_id})))

    assert world.status(ours) is JobStatus.PROCESSED
    assert world.status(theirs) is JobStatus.SUBMITTED
    record = world.record(theirs)
    assert (record.state, record.code) == (JobState.REFUSED, "OwnerNotAllowed")


async def test_other_refusals_stay_as_they_are_at_the_next_start(world: World) -> None:
    job_id = world.submit(world.add_worker(), data=bytes(3_000))
    await world.run(policy=replace(ANYBODY, bytes_per_day=100))

    await world.run()

    assert world.record(job_id).code == "PayloadOverDailyBytes"
    assert world.status(job_id) is JobStatus.SUBMITTED


async def test_payload_by_reference_is_refused_naming_its_length(world: World) -> None:
    worker = world.add_worker()
    call = world.processor.submit_job_reference(
        b"h" * 32, 99_999, b"", b"\x09" + bytes(31), JobOptions(workers=(worker,), ttl=600_000)
    )
    job_id = world.chain.call(call, signer=OWNER).value

    await world.run()

    record = world.record(job_id)
    assert (record.state, record.code) == (JobState.REFUSED, "PayloadByReference")
    assert "99999 bytes" in record.detail


@pytest.mark.parametrize(
    "low_order",
    [
        bytes([1]) + bytes(31),
        bytes.fromhex("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"),
        bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    ],
)
async def test_key_of_low_order_is_refused(world: World, low_order: bytes) -> None:
    job_id = world.submit(world.add_worker(), public_key=low_order)

    await world.run()

    record = world.record(job_id)
    assert (record.state, record.code) == (JobState.REFUSED, "InvalidKey")
    assert "public_key" in record.detail
    assert world.scripted[0].puts == []


async def test_jobs_over_a_day_wait_for_the_next_day(world: World) -> None:
    worker = world.add_worker()
    jobs = [world.submit(worker, ttl=3 * DAY) for _ in range(3)]
    policy = replace(ANYBODY, jobs_per_day=2)

    await world.run(policy=policy)

    assert [world.status(job) for job in jobs].count(JobStatus.PROCESSED) == 2
    record = world.record(jobs[2])
    assert (record.state, record.code) == (JobState.DEFERRED, "DailyJobs")
    assert len(world.heard(EventKind.DEFERRED)) == 1
    await world.run(policy=policy)
    assert world.record(jobs[2]).state is JobState.DEFERRED, "restarting makes no new day"
    world.advance_time(DAY)
    world.add_worker()  # nothing to do with it: makes the workers' registrations last
    await world.run(policy=policy)
    assert world.record(jobs[2]).code == ""


async def test_one_owners_day_is_not_anothers(world: World) -> None:
    worker = world.add_worker()
    jobs = [world.submit(worker), world.submit(worker, owner=OTHER_OWNER)]

    await world.run(policy=replace(ANYBODY, jobs_per_day=1))

    assert {world.status(job) for job in jobs} == {JobStatus.PROCESSED}


async def test_bytes_over_a_day_wait_and_too_many_bytes_are_refused(world: World) -> None:
    worker = world.add_worker()
    small, second, large = (
        world.submit(worker),
        world.submit(worker),
        world.submit(worker, data=bytes(3_000)),
    )
    size = world.job(small).encrypted_payload
    assert isinstance(size, InlinePayload)

    await world.run(policy=replace(ANYBODY, bytes_per_day=len(size.data) + 10))

    assert world.status(small) is JobStatus.PROCESSED
    assert world.record(second).code == "DailyBytes"
    assert world.record(large).code == "PayloadOverDailyBytes"
    assert world.record(large).state is JobState.REFUSED


async def test_deferred_job_that_is_gone_is_closed(world: World) -> None:
    worker = world.add_worker()
    jobs = [world.submit(worker) for _ in range(3)]
    policy = replace(ANYBODY, jobs_per_day=1)
    await world.run(policy=policy)
    for job_id in jobs[1:]:
        world.chain.call(world.processor.cancel_job(job_id), signer=OWNER)
    world.chain.call(world.processor.purge_job(jobs[2]), signer=OWNER)

    await world.run(policy=policy)

    assert world.record(jobs[1]).state is JobState.CANCELLED
    assert world.record(jobs[2]).state is JobState.PURGED


async def test_events_are_read_page_by_page_and_no_further_than_there_is_room(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = world.add_worker()
    jobs = [world.submit(worker) for _ in range(30)]
    rooms: list[int] = []
    read_page = Watch.read_page

    async def noting(watch: Watch, *, room: int = 1) -> object:
        rooms.append(room)
        return await read_page(watch, room=room)

    monkeypatch.setattr(Watch, "read_page", noting)
    await world.run(settings=replace(QUICK, open_jobs=4))

    assert {world.status(job) for job in jobs} == {JobStatus.PROCESSED}
    assert max(rooms) == 4


async def test_jobs_over_an_owners_share_come_also_when_the_chain_was_away(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = world.add_worker()
    jobs = [world.submit(worker) for _ in range(3)]
    read, away = Ledger.job, iter([True])

    async def job(ledger: Ledger, job_id: int) -> Job | None:
        if next(away, False):
            raise ChainUnavailableError("away")
        return await read(ledger, job_id)

    monkeypatch.setattr(Ledger, "job", job)
    await world.run(settings=replace(QUICK, open_jobs=4))

    assert [event.detail for event in world.heard(EventKind.CHAIN_ERROR)] == ["away"]
    assert {world.status(job_id) for job_id in jobs} == {JobStatus.PROCESSED}


@pytest.mark.parametrize("name", ["jobs_per_day", "bytes_per_day"])
def test_policy_without_any_allowance_is_a_mistake(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, not 0"):
        AdmissionPolicy(**{name: 0})  # type: ignore[arg-type]  # one of its numbers


def test_results_can_be_kept_for_ever_and_not_less() -> None:
    assert OrchestratorSettings(keep_results_days=0).keep_results_days == 0
    with pytest.raises(ConfigError, match="keep_results_days must be greater than -1, not -1"):
        OrchestratorSettings(keep_results_days=-1)


def test_events_can_be_read_from_the_first_block_and_from_none_before() -> None:
    assert OrchestratorSettings(from_block=0).from_block == 0
    with pytest.raises(ConfigError, match="from_block must be greater than -1, not -1"):
        OrchestratorSettings(from_block=-1)


@pytest.mark.parametrize("name", ["poll_seconds", "lease_seconds", "concurrency", "batch_jobs"])
def test_settings_must_be_positive(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} must be greater than 0, not 0"):
        OrchestratorSettings(**{name: 0})  # type: ignore[arg-type]  # one of its numbers


def test_group_is_no_larger_than_the_contract_takes() -> None:
    with pytest.raises(ConfigError, match="group_size is at most 10, not 11"):
        OrchestratorSettings(group_size=11)
