"""Waiting, cancelling, purging, listing and rebuilding."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.client import JobClient, RebuildProgress, Submission, WaitProgress
from orchestrator.crypto import AccountKey
from orchestrator.errors import (
    ChainMismatchError,
    ChainUnavailableError,
    ContractError,
    InputError,
    JobStateError,
    UntrustedWorkerError,
    WaitTimeoutError,
)
from orchestrator.models import JobStatus, TaskInput
from orchestrator.testing.owner_world import ADMIN, OWNER, SECRET, World


class TestWait:
    def test_until_processed(self, world: World, task: TaskInput) -> None:
        client = world.client()
        job_id = client.submit(task, workers=[1])
        seen: list[WaitProgress] = []

        def progress(step: WaitProgress) -> None:
            seen.append(step)
            if len(seen) == 3:
                world.record(world.workers[0].execute(job_id, lambda _: b""))
            if len(seen) == 5:
                world.chain.call(world.processor.mark_job_processed(job_id), signer=ADMIN)

        status = client.wait(job_id, timeout_seconds=60, progress=progress)

        assert status is JobStatus.PROCESSED
        assert [step.status for step in seen] == [JobStatus.SUBMITTED] * 3 + [
            JobStatus.ATTESTED
        ] * 2
        assert client.jobs(refresh=False)[0].status is JobStatus.PROCESSED

    def test_times_out_by_the_own_clock(self, world: World, task: TaskInput) -> None:
        client = world.client()
        job_id = client.submit(task)
        started = world.clock.now

        with pytest.raises(WaitTimeoutError, match=r"job 1 is still Submitted after 30 s"):
            client.wait(job_id, timeout_seconds=30)

        assert 30_000 <= world.clock.now - started <= 30_010
        assert max(world.slept) <= 2.0
        assert world.slept[0] == pytest.approx(0.05)

    def test_no_time_is_one_look(self, world: World, task: TaskInput) -> None:
        client = world.client()
        job_id = client.submit(task)

        with pytest.raises(WaitTimeoutError):
            client.wait(job_id, timeout_seconds=0)
        world.process(job_id, world.chain.read(world.processor.get_job(job_id)).workers[0] - 1)

        assert client.wait(job_id, timeout_seconds=0) is JobStatus.PROCESSED
        assert world.slept == []

    def test_chain_that_is_away_for_a_while(
        self, world: World, task: TaskInput, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = world.client()
        job_id = client.submit(task, workers=[1])
        world.process(job_id)
        head = world.chain.inside.finalized_head
        tries = iter(range(10))

        def away() -> object:
            if next(tries) < 3:
                raise ChainUnavailableError
            return head()

        monkeypatch.setattr(world.chain.inside, "finalized_head", away)
        seen: list[WaitProgress] = []

        assert client.wait(job_id, timeout_seconds=60, progress=seen.append) is JobStatus.PROCESSED
        assert [step.status for step in seen] == [None] * 3

    def test_chain_that_stays_away(
        self, world: World, task: TaskInput, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = world.client()
        job_id = client.submit(task)

        def away() -> object:
            raise ChainUnavailableError

        monkeypatch.setattr(world.chain.inside, "finalized_head", away)

        with pytest.raises(WaitTimeoutError, match="not known after 5 s") as error:
            client.wait(job_id, timeout_seconds=5)

        assert isinstance(error.value.__cause__, ChainUnavailableError)

    def test_deadline_passed(self, world: World, task: TaskInput) -> None:
        client = world.client()
        job_id = client.submit(task, ttl_ms=60_000)
        world.clock.advance(60_001)
        # A block of that time: the job can't be attested any more.
        world.chain.call(world.processor.suspend_worker(1), signer=ADMIN)

        with pytest.raises(JobStateError, match="expire and purge it") as refused:
            client.wait(job_id, timeout_seconds=60)

        assert refused.value.code == "DeadlinePassed"
        client.expire(job_id)
        assert client.wait(job_id, timeout_seconds=60) is JobStatus.EXPIRED

    @pytest.mark.parametrize(("late", "is_over"), [(60_000, False), (60_001, True)])
    def test_deadline_passes_on_a_chain_that_makes_no_blocks(
        self, world: World, task: TaskInput, late: int, is_over: bool
    ) -> None:
        """The last block stays before the deadline: our own clock counts, and finality has time."""
        client = world.client()
        job_id = client.submit(task, ttl_ms=60_000)
        world.clock.advance(60_000 + late)

        with pytest.raises(JobStateError if is_over else WaitTimeoutError):
            client.wait(job_id, timeout_seconds=0)

        assert world.chain.finalized_head().timestamp < world.clock.now - 60_000

    def test_at_its_last_millisecond_it_can_still_be_attested(
        self, world: World, task: TaskInput
    ) -> None:
        client = world.client()
        job_id = client.submit(task, ttl_ms=60_000)
        world.clock.advance(60_000)
        world.chain.call(world.processor.suspend_worker(1), signer=ADMIN)

        with pytest.raises(WaitTimeoutError):
            client.wait(job_id, timeout_seconds=0)

    @pytest.mark.parametrize("end", [JobStatus.CANCELLED, JobStatus.FAILED])
    def test_other_ends(self, world: World, task: TaskInput, end: JobStatus) -> None:
        client = world.client()
        job_id = client.submit(task, workers=[1])
        if end is JobStatus.CANCELLED:
            client.cancel(job_id)
        else:
            world.record(world.workers[0].fail(job_id, "TaskFailed"))

        assert client.wait(job_id, timeout_seconds=1) is end

    def test_purged_job(self, world: World, task: TaskInput) -> None:
        client = world.client()
        job_id = client.submit(task, workers=[1])
        world.process(job_id)
        client.purge(job_id)

        assert client.wait(job_id, timeout_seconds=1) is JobStatus.PROCESSED

    @pytest.mark.parametrize("job_id", [0, 2, -1])
    def test_unknown_job(self, world: World, task: TaskInput, job_id: int) -> None:
        client = world.client()
        client.submit(task)

        with pytest.raises(InputError, match="job_id"):
            client.wait(job_id, timeout_seconds=1)

    def test_job_of_another_account(self, world: World, task: TaskInput) -> None:
        bob = world.client(account=AccountKey.from_uri("//Bob"))
        job_id = world.client().submit(task)

        assert bob.status(job_id) is JobStatus.SUBMITTED
        assert bob.jobs() == []


class TestEnding:
    def test_cancel_twice_is_cancelled(self, world: World, task: TaskInput) -> None:
        client = world.client()
        job_id = client.submit(task)

        client.cancel(job_id)
        client.cancel(job_id)

        assert client.jobs(refresh=False)[0].status is JobStatus.CANCELLED

    @pytest.mark.parametrize("fault", ["before", "after"])
    def test_unknown_outcome_then_again(self, world: World, task: TaskInput, fault: str) -> None:
        client = world.client()
        job_id = client.submit(task)
        for action in (client.cancel, client.purge):
            world.chain.faults = [fault]
            with pytest.raises(ChainUnavailableError):
                action(job_id)
            action(job_id)

        (job,) = client.jobs()
        assert job.purged
        assert job.status is JobStatus.CANCELLED

    def test_processed_job_is_not_cancelled(self, world: World, task: TaskInput) -> None:
        client = world.client()
        job_id = client.submit(task, workers=[1])
        world.process(job_id)

        with pytest.raises(ContractError) as refused:
            client.cancel(job_id)

        assert refused.value.variant == "WrongStatus"
        assert "job 1 is Processed; only a Submitted one can be cancelled" in str(refused.value)
        assert client.status(job_id) is JobStatus.PROCESSED

    def test_others_do_not_cancel_or_purge(self, world: World, task: TaskInput) -> None:
        client = world.client()
        job_id = client.submit(task)
        bob = world.client(account=AccountKey.from_uri("//Bob"))

        with pytest.raises(ContractError, match="NotJobOwner"):
            bob.cancel(job_id)
        client.cancel(job_id)
        with pytest.raises(ContractError, match="NotJobOwner"):
            bob.purge(job_id)

        assert client.status(job_id) is JobStatus.CANCELLED

    def test_open_job_is_not_purged_or_expired(self, world: World, task: TaskInput) -> None:
        client = world.client()
        job_id = client.submit(task)

        with pytest.raises(ContractError, match="WrongStatus"):
            client.purge(job_id)
        with pytest.raises(ContractError, match="DeadlineNotPassed"):
            client.expire(job_id)

        assert not client.jobs()[0].purged

    def test_job_that_never_was(self, world: World) -> None:
        client = world.client()

        for action in (client.cancel, client.purge, client.expire):
            with pytest.raises(ContractError, match="JobNotFound"):
                action(7)


class TestJobs:
    def test_refresh_sees_what_happened(self, world: World, task: TaskInput) -> None:
        client = world.client()
        ids = client.submit_many([Submission(task=task, workers=(1,))] * 4)
        assert ids == [1, 2, 3, 4]
        world.process(1)
        elsewhere = world.client(state_dir=world.folder / "elsewhere")
        elsewhere.cancel(3)
        elsewhere.purge(3)

        before = [job.status for job in client.jobs(refresh=False)]
        after = client.jobs()

        assert before == [JobStatus.SUBMITTED] * 4
        assert [(job.status, job.purged) for job in after] == [
            (JobStatus.PROCESSED, False),
            (JobStatus.SUBMITTED, False),
            (JobStatus.CANCELLED, True),
            (JobStatus.SUBMITTED, False),
        ]

    def test_own_clock_is_the_default(self, world: World, task: TaskInput) -> None:
        """The machine's clock is long after the chain's of this test."""
        job_list = JobClient(
            chain=world.chain,
            contract=world.processor.contract,
            account=OWNER,
            secret=SECRET,
            state_dir=world.folder / "state",
            trusted_node=True,
        )

        with job_list as client, pytest.raises(UntrustedWorkerError, match="registered until"):
            client.submit(task, workers=[1])

    def test_neighbours_share_a_read_and_finished_ones_need_none(
        self, make: Callable[..., World], task: TaskInput
    ) -> None:
        world = make(rate_limit=1_000)
        client = world.client()
        client.submit_many([Submission(task=task, workers=(1,))] * 120)
        world.chain.reads.clear()

        assert len(client.jobs()) == 120
        assert world.chain.reads == ["jobs_page"] * 3

        for job_id in range(1, 121):
            client.cancel(job_id)
        world.chain.reads.clear()
        client.jobs()
        assert world.chain.reads == []


class TestRebuild:
    def test_restores_everything_but_keys(self, make: Callable[..., World]) -> None:
        world = make(rate_limit=1_000)
        client = world.client()
        bob = world.client(account=AccountKey.from_uri("//Bob"), state_dir=world.folder / "bob")
        task = TaskInput(task="echo", input=b"words")
        for number in range(30):
            client.submit(task, workers=[1], key=str(number))
            bob.submit(task, workers=[2])
        world.process(1)
        world.process(3)
        client.purge(3)
        client.cancel(5)
        client.purge(5)
        client.cancel(7)
        seen: list[RebuildProgress] = []
        laptop = world.client(state_dir=world.folder / "laptop")

        count = laptop.rebuild(progress=seen.append)

        assert count == 30
        old, new = client.jobs(), laptop.jobs(refresh=False)
        assert [(job.job_id, job.payload_hash, job.workers, job.block) for job in new] == [
            (job.job_id, job.payload_hash, job.workers, job.block) for job in old
        ]
        assert [(job.status, job.purged) for job in new] == [
            (job.status, job.purged) for job in old
        ]
        assert {job.key for job in new} == {None}
        assert len(seen) == 3
        assert [(step.examined, step.total) for step in seen] == [(50, 60), (60, 60), (60, 60)]
        assert seen[-1].found == 30
        assert laptop.result(3).output == b"WORDS"

    def test_twice_changes_nothing(self, world: World, task: TaskInput) -> None:
        client = world.client()
        client.submit(task, key="k")
        before = client.jobs()

        assert client.rebuild() == 1
        assert client.rebuild() == 1

        assert client.jobs() == before
        assert client.submit(task, key="k") == 1, "keys that are there stay"

    def test_finishes_what_was_perhaps_sent(self, world: World, task: TaskInput) -> None:
        client = world.client()
        world.chain.faults = ["after"]
        with pytest.raises(ChainUnavailableError):
            client.submit(task)

        assert client.rebuild() == 1
        assert client.unfinished() == []
        assert world.chain.sent == 1

    def test_empty_chain(self, world: World) -> None:
        assert world.client().rebuild() == 0

    @pytest.mark.parametrize("following", [1, 0])
    def test_node_that_does_not_advance(
        self, world: World, task: TaskInput, following: int
    ) -> None:
        client = world.client()
        client.submit(task)
        world.chain.answers["jobs_page"] = lambda page: replace(page, next=following)

        with pytest.raises(ChainMismatchError, match=f"jobs_page: .* go on at {following} after 1"):
            client.rebuild()

        assert world.chain.reads.count("jobs_page") == 1

    def test_many_events_take_several_pages(
        self, world: World, task: TaskInput, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("orchestrator.client.chain_view._EVENT_PAGE", 3)
        client = world.client()
        client.submit_many([Submission(task=task, workers=(1,))] * 20)
        for job_id in range(1, 21):
            client.cancel(job_id)
            client.purge(job_id)

        assert world.client(state_dir=world.folder / "laptop").rebuild() == 20
