"""Many jobs at once: groups, the rate limit, refusals, and starting again."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from orchestrator.chain import ContractCall
from orchestrator.client import JobClient, Submission, SubmitProgress
from orchestrator.client.entries import Entry
from orchestrator.errors import (
    ChainUnavailableError,
    ContractError,
    ContractTrappedError,
    InputError,
)
from orchestrator.models import Account, TaskInput
from orchestrator.testing.owner_world import ADMIN, World


def _submissions(count: int) -> list[Submission]:
    return [
        Submission(task=TaskInput(task="echo", input=f"job {number}".encode()), workers=(1,))
        for number in range(count)
    ]


def test_jobs_are_sent_in_groups_and_come_back_in_order(world: World) -> None:
    client = world.client()
    steps: list[SubmitProgress] = []

    outcomes = client.submit_many(_submissions(40), progress=steps.append)

    assert outcomes == list(range(1, 41))
    assert [step.submitted for step in steps] == [16, 32, 40]
    assert {(step.total, step.refused, step.wait_seconds) for step in steps} == {(40, 0, 0.0)}
    first, last = client.jobs()[0], client.jobs()[-1]
    assert last.block == first.block + 2, "one block for each group"


def test_nothing_to_submit(world: World) -> None:
    assert world.client().submit_many([]) == []
    assert world.chain.sent == 0


def test_one_bad_submission_and_nothing_is_sent(world: World) -> None:
    client = world.client()
    large = Submission(task=TaskInput(task="echo", input=bytes(10_000)))

    with pytest.raises(InputError, match="max_payload"):
        client.submit_many([*_submissions(3), large])

    assert world.chain.sent == 0
    assert client.unfinished() == []


def test_one_key_twice_and_nothing_is_sent(world: World, task: TaskInput) -> None:
    client = world.client()

    with pytest.raises(InputError, match="two of the submissions have the same"):
        client.submit_many([Submission(task=task, key="k"), Submission(task=task, key="k")])

    assert world.chain.sent == 0
    assert client.unfinished() == []


def test_same_content_twice_is_two_jobs(world: World, task: TaskInput) -> None:
    assert world.client().submit_many([Submission(task=task)] * 2) == [1, 2]


class TestRateLimit:
    def test_waits_for_the_next_window_and_goes_on(self, make: Callable[..., World]) -> None:
        world = make(rate_limit=3, rate_window=60_000)
        client = world.client()
        steps: list[SubmitProgress] = []
        started = world.clock.now

        outcomes = client.submit_many(_submissions(8), progress=steps.append)

        assert outcomes == list(range(1, 9))
        assert world.chain.sent == 8, "nothing is sent that would be refused"
        assert 120_000 <= world.clock.now - started < 140_000, "two windows"
        waits = [step for step in steps if step.wait_seconds]
        assert {step.submitted for step in waits} == {3, 6}
        assert all(0 < step.wait_seconds <= 5 for step in waits)
        assert world.slept == [step.wait_seconds for step in waits]

    def test_window_that_others_used_up_meanwhile(self, make: Callable[..., World]) -> None:
        """The answer of the contract counts, whatever was read before."""
        world = make(rate_limit=3, rate_window=60_000)
        client = world.client()
        world.chain.answers["rate_limit_left"] = lambda left: max(left, 1)

        outcomes = client.submit_many(_submissions(5))

        assert outcomes == [1, 2, 3, 4, 5]
        assert world.job_count() == 5
        assert client.unfinished() == []

    def test_chain_that_makes_no_blocks_answers_with_old_time(
        self, make: Callable[..., World]
    ) -> None:
        """After a whole window by the own clock one job is tried, and time goes on."""
        world = make(rate_limit=2, rate_window=60_000)
        client = world.client()
        started = world.clock.now
        world.chain.answers["rate_limit_left"] = lambda left: left if world.job_count() != 2 else 0

        outcomes = client.submit_many(_submissions(4))

        assert outcomes == [1, 2, 3, 4]
        assert world.clock.now - started >= 65_000

    def test_a_chain_that_rests_is_not_asked_before_it_is_known_to(
        self, make: Callable[..., World]
    ) -> None:
        """However short the window: a block of ten seconds ago is what it would be judged by."""
        world = make(rate_limit=2, rate_window=2_000)
        client = world.client()
        started = world.clock.now
        world.chain.answers["rate_limit_left"] = lambda left: left if world.job_count() != 2 else 0

        assert client.submit_many(_submissions(3)) == [1, 2, 3]

        assert 11_000 <= world.clock.now - started < 12_000

    def test_long_windows_are_looked_at_now_and_then(self, make: Callable[..., World]) -> None:
        world = make(rate_limit=1, rate_window=180_000)

        world.client().submit_many(_submissions(2))

        assert set(world.slept) == {5.0}
        assert len(world.slept) == 37

    def test_killed_while_waiting_and_called_again(self, make: Callable[..., World]) -> None:
        world = make(rate_limit=3, rate_window=60_000)
        submissions = [
            Submission(task=submission.task, workers=(1,), key=str(number))
            for number, submission in enumerate(_submissions(7))
        ]
        client = world.client()

        def stop(step: SubmitProgress) -> None:
            if step.wait_seconds:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            client.submit_many(submissions, progress=stop)
        assert [job.perhaps_sent for job in client.unfinished()] == [False] * 4
        client.close()

        assert world.client().submit_many(submissions) == [1, 2, 3, 4, 5, 6, 7]
        assert world.job_count() == 7


def test_refused_jobs_do_not_stop_the_others(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    client = world.client()
    submissions = [
        Submission(task=submission.task, workers=(1 + number % 2,))
        for number, submission in enumerate(_submissions(4))
    ]
    steps: list[SubmitProgress] = []
    # The worker loses its trust after sealing and before sending.
    original = world.chain.inside.batch

    def suspend_first(calls: list[ContractCall[Any]], *, signer: Account) -> Any:  # noqa: ANN401 - as generic as the port
        original([world.processor.suspend_worker(2)], signer=ADMIN)
        return original(calls, signer=signer)

    monkeypatch.setattr(world.chain.inside, "batch", suspend_first)

    outcomes = client.submit_many(submissions, progress=steps.append)

    assert [outcomes[0], outcomes[2]] == [1, 2]
    assert [getattr(outcomes[place], "variant", None) for place in (1, 3)] == [
        "WorkerNotTrusted"
    ] * 2
    assert steps[-1].refused == 2
    assert client.unfinished() == []
    assert [job.job_id for job in client.jobs()] == [1, 2]


class TestTraps:
    """A trap undoes the transaction it is in, and with it the group."""

    @pytest.fixture
    def client(self, world: World, monkeypatch: pytest.MonkeyPatch) -> JobClient:
        """A client of a contract that traps on one input."""
        client = world.client()
        message = client._submitter._message

        def poisoned(entry: Entry) -> ContractCall[int]:
            call = message(entry)
            return replace(call, data=b"trap") if entry.key == "poison" else call

        def trapping(inner: Callable[..., Any]) -> Callable[..., Any]:
            def send(what: Any, *, signer: Account) -> Any:  # noqa: ANN401 - as generic as the port
                calls = what if isinstance(what, list) else [what]
                if any(call.data == b"trap" for call in calls):
                    raise ContractTrappedError("unreachable")
                return inner(what, signer=signer)

            return send

        inside = world.chain.inside
        monkeypatch.setattr(client._submitter, "_message", poisoned)
        monkeypatch.setattr(inside, "call", trapping(inside.call))
        monkeypatch.setattr(inside, "batch", trapping(inside.batch))
        return client

    def test_one_poisoned_submission_does_not_hold_up_the_others(
        self, world: World, client: JobClient
    ) -> None:
        submissions = _submissions(40)
        submissions[5] = replace(submissions[5], key="poison")
        steps: list[SubmitProgress] = []

        outcomes = client.submit_many(submissions, progress=steps.append)

        trapped = outcomes.pop(5)
        assert isinstance(trapped, ContractError)
        assert trapped.variant == "ContractTrapped"
        assert "unreachable" in str(trapped)
        assert outcomes == list(range(1, 40))
        assert world.job_count() == 39
        assert client.unfinished() == []
        assert [step.submitted for step in steps] == [
            0,
            *range(1, 6),
            *range(5, 16),
            31,
            39,
        ], "one by one after the trap, then in groups again"

    def test_resume_goes_past_it(self, world: World, client: JobClient) -> None:
        submissions = _submissions(4)
        submissions[0] = replace(submissions[0], key="poison")
        world.chain.faults = ["before"]
        with pytest.raises(ChainUnavailableError):
            client.submit_many(submissions)

        outcomes = client.resume()

        assert outcomes[1:] == [1, 2, 3]
        assert isinstance(outcomes[0], ContractError)
        assert client.resume() == []

    def test_the_chain_is_asked_before_one_is_sent_again(
        self, world: World, client: JobClient, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Whether an adapter keeps the calls before the one that trapped is not ours to know."""
        batch = world.chain.inside.batch

        def keep_some(calls: list[ContractCall[Any]], *, signer: Account) -> Any:  # noqa: ANN401 - as generic as the port
            if len(calls) > 1:
                batch(calls[:2], signer=signer)
                calls = calls[2:]
            return batch(calls, signer=signer)

        monkeypatch.setattr(world.chain.inside, "batch", keep_some)
        submissions = _submissions(4)
        submissions[3] = replace(submissions[3], key="poison")

        outcomes = client.submit_many(submissions)

        assert outcomes[:3] == [1, 2, 3]
        assert world.job_count() == 3


@pytest.mark.parametrize("fault", ["before", "after"])
def test_unknown_outcome_of_a_group(world: World, fault: str) -> None:
    """The first group is on the chain, of the second nobody knows, the third was never sent."""
    client = world.client()
    world.chain.faults = ["", fault]
    submissions = _submissions(40)
    with pytest.raises(ChainUnavailableError):
        client.submit_many(submissions)
    unfinished = client.unfinished()
    assert [job.perhaps_sent for job in unfinished] == [True] * 16 + [False] * 8

    outcomes = client.resume()

    assert outcomes == list(range(17, 41))
    assert world.job_count() == 40
    assert world.chain.sent == 40
    assert [job.payload_hash for job in client.jobs()[16:]] == [
        job.payload_hash for job in unfinished
    ]


def test_unfinished_ones_of_the_same_content_are_each_finished_once(
    world: World, task: TaskInput
) -> None:
    client = world.client()
    world.chain.faults = ["after"]
    with pytest.raises(ChainUnavailableError):
        client.submit_many([Submission(task=task)] * 2)

    assert sorted(client.submit_many([Submission(task=task)] * 3)) == [1, 2, 3]  # type: ignore[type-var]  # all are ids
    assert world.job_count() == 3


def test_resume_reports_refusals(world: World, task: TaskInput) -> None:
    client = world.client()
    world.chain.faults = ["before"]
    with pytest.raises(ChainUnavailableError):
        client.submit(task, workers=[1])
    world.chain.inside.call(world.processor.revoke_worker(1, bytes(32)), signer=ADMIN)

    (outcome,) = client.resume()

    assert isinstance(outcome, ContractError)
    assert outcome.variant == "WorkerNotTrusted"
    assert client.unfinished() == []


def test_thousands_of_jobs_cost_the_same_each(make: Callable[..., World]) -> None:
    """The list does one lookup per job: the number of rows it visits does not grow."""
    world = make(rate_limit=100_000)
    client = world.client()
    database = client._list._file._database
    costs = []
    for _ in range(2):
        client.submit_many(_submissions(400))
        steps = 0

        def count() -> int:
            nonlocal steps
            steps += 1
            return 0

        database.set_progress_handler(count, 100)
        client.submit(TaskInput(task="echo", input=b"one more"))
        database.set_progress_handler(None, 0)
        costs.append(steps)

    assert costs[1] <= costs[0] + 5
