"""What was sent and may still take effect is waited for before it is looked for and sent again."""

from collections.abc import Callable
from typing import Any

import pytest

from orchestrator.chain import ContractCall, Receipt
from orchestrator.client import JobClient, Submission
from orchestrator.errors import (
    ChainError,
    ChainUnavailableError,
    InsufficientFundsError,
    SpendingLimitError,
    TooHeavyError,
)
from orchestrator.models import Account, TaskInput
from orchestrator.testing.flaky_chain import Fault, FlakyChain
from orchestrator.testing.owner_world import OWNER, World


@pytest.fixture
def chain(world: World) -> FlakyChain:
    """A chain that has nothing to say about the first thing that is sent, until later."""
    left = iter([Fault.LATER])
    return FlakyChain(
        world.chain.inside,
        lambda label: next(left, None) if label in ("submit_confidential_job", "batch") else None,
    )


@pytest.fixture
def client(world: World, chain: FlakyChain) -> JobClient:
    return world.client(chain=chain)


def _send_into_the_unknown(client: JobClient, task: TaskInput) -> None:
    with pytest.raises(ChainUnavailableError, match="later"):
        client.submit(task)


def test_the_same_again_is_one_job(world: World, client: JobClient, task: TaskInput) -> None:
    _send_into_the_unknown(client, task)

    assert client.submit(task) == 1
    assert world.job_count() == 1
    assert client.unfinished() == []


def test_without_the_wait_it_would_be_two(
    world: World,
    client: JobClient,
    chain: FlakyChain,
    task: TaskInput,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """So that the test above can fail."""
    monkeypatch.setattr(chain, "wait_for_pending", lambda *_, **__: None)
    _send_into_the_unknown(client, task)

    client.submit(task)

    assert world.job_count() == 2


def test_what_took_effect_before_anybody_waited_is_found(
    world: World, client: JobClient, chain: FlakyChain, task: TaskInput
) -> None:
    _send_into_the_unknown(client, task)
    chain.include()

    assert client.resume() == [1]
    assert world.job_count() == 1


def test_what_was_dropped_is_sent_again(
    world: World, client: JobClient, chain: FlakyChain, task: TaskInput
) -> None:
    _send_into_the_unknown(client, task)
    chain.drop()

    assert client.resume() == [1]
    assert world.job_count() == 1


def test_nothing_is_sent_while_it_stays_on_its_way(
    world: World, client: JobClient, chain: FlakyChain, task: TaskInput
) -> None:
    _send_into_the_unknown(client, task)
    chain.is_stuck = True

    for again in (client.resume, lambda: client.submit(task)):
        with pytest.raises(ChainUnavailableError, match="still on its way"):
            again()

    assert chain.on_its_way == 1
    assert world.job_count() == 0
    assert len(client.unfinished()) == 1
    chain.is_stuck = False
    assert client.resume() == [1]
    assert world.job_count() == 1


def test_another_process_waits_too(
    world: World, client: JobClient, chain: FlakyChain, task: TaskInput
) -> None:
    _send_into_the_unknown(client, task)
    client.close()

    assert world.client(chain=chain).resume() == [1]
    assert world.job_count() == 1


def test_a_group_is_one_job_each(world: World, client: JobClient, task: TaskInput) -> None:
    submissions = [Submission(task=task, key=str(number)) for number in range(20)]
    with pytest.raises(ChainUnavailableError):
        client.submit_many(submissions)

    outcomes = client.submit_many(submissions)

    assert outcomes == list(range(1, 21))
    assert world.job_count() == 20


def test_who_has_nothing_in_doubt_does_not_wait(world: World, task: TaskInput) -> None:
    waits: list[str] = []

    def note(label: str) -> None:
        waits.extend([label] * (label == "wait_for_pending"))

    world.client(chain=FlakyChain(world.chain.inside, note)).submit(task)

    assert waits == []


@pytest.mark.parametrize("error", [InsufficientFundsError, SpendingLimitError])
def test_what_could_not_be_paid_was_not_sent(
    world: World, task: TaskInput, monkeypatch: pytest.MonkeyPatch, error: type[ChainError]
) -> None:
    client = world.client()
    with monkeypatch.context() as patch:
        patch.setattr(world.chain.inside, "call", _raiser(error))
        with pytest.raises(error):
            client.submit(task)
    (unfinished,) = client.unfinished()
    assert not unfinished.perhaps_sent

    assert client.resume() == [1]
    assert world.job_count() == 1


@pytest.mark.parametrize("error", [InsufficientFundsError, SpendingLimitError])
def test_what_several_came_to_is_asked_before_they_are_sent_again(
    world: World, task: TaskInput, monkeypatch: pytest.MonkeyPatch, error: type[ChainError]
) -> None:
    """Of several, some may have taken effect before the money was at an end."""
    client, batch = world.client(), world.chain.inside.batch

    def send_two(calls: list[ContractCall[Any]], *, signer: Account) -> object:
        batch(calls[:2], signer=signer)
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(world.chain.inside, "batch", send_two)
        with pytest.raises(error):
            client.submit_many([Submission(task=task)] * 4)

    assert client.resume() == [1, 2, 3, 4]
    assert world.job_count() == 4


@pytest.mark.parametrize("is_there", [True, False])
def test_the_fee_for_certainty_is_paid_only_before_something_is_sent_again(
    world: World,
    client: JobClient,
    chain: FlakyChain,
    task: TaskInput,
    monkeypatch: pytest.MonkeyPatch,
    is_there: bool,
) -> None:
    _send_into_the_unknown(client, task)
    if not is_there:
        chain.drop()
    wait, signers = world.chain.inside.wait_for_pending, []

    def noting(account_id: bytes, *, timeout_seconds: float, signer: Account | None) -> None:
        signers.append(signer and signer.account_id)
        wait(account_id, timeout_seconds=timeout_seconds, signer=signer)

    monkeypatch.setattr(world.chain.inside, "wait_for_pending", noting)

    assert client.resume() == [1]
    assert signers == ([None] if is_there else [None, OWNER.account_id])


def test_what_comes_to_light_only_then_is_not_sent_again(
    world: World,
    client: JobClient,
    chain: FlakyChain,
    task: TaskInput,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As in a pool where it waits for an earlier nonce that was lost."""
    _send_into_the_unknown(client, task)
    later, chain._later = chain._later, []

    def bring_to_light(*_: object, signer: Account | None, **__: object) -> None:
        while signer and later:
            later.pop()()

    monkeypatch.setattr(chain, "wait_for_pending", bring_to_light)

    assert client.resume() == [1]
    assert world.job_count() == 1


def test_what_is_known_to_be_absent_is_not_paid_for_twice(
    world: World, task: TaskInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group that is sent one by one was in doubt once."""
    monkeypatch.setattr(world.chain, "batch", _raiser(TooHeavyError))
    wait, signers = world.chain.inside.wait_for_pending, []

    def noting(account_id: bytes, *, timeout_seconds: float, signer: Account | None) -> None:
        signers.append(signer)
        wait(account_id, timeout_seconds=timeout_seconds, signer=signer)

    monkeypatch.setattr(world.chain.inside, "wait_for_pending", noting)

    assert world.client().submit_many([Submission(task=task)] * 3) == [1, 2, 3]
    assert len(signers) == 2


def test_a_group_that_no_block_has_room_for_is_sent_one_by_one(
    world: World, task: TaskInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.chain, "batch", _raiser(TooHeavyError))

    outcomes = world.client().submit_many([Submission(task=task)] * 5)

    assert outcomes == [1, 2, 3, 4, 5]
    assert world.job_count() == 5


def test_one_that_no_block_has_room_for_is_an_error(
    world: World, task: TaskInput, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.chain.inside, "call", _raiser(TooHeavyError))

    with pytest.raises(TooHeavyError):
        world.client().submit(task)


def _raiser(error: type[ChainError]) -> Callable[..., object]:
    def fail(*_: object, **__: object) -> object:
        raise error

    return fail


class TestCost:
    """What is sent is told with what it cost; an estimate sends nothing."""

    def test_of_every_call_that_was_made(self, make: Callable[..., World], task: TaskInput) -> None:
        world = make()
        receipts: list[Receipt[object]] = []
        client = world.client(on_receipt=receipts.append)

        jobs = client.submit_many([Submission(task=task)] * 2)
        client.cancel(1)
        client.purge(1)

        assert [receipt.value for receipt in receipts] == [*jobs, None, None]

    def test_of_what_would_be_submitted(
        self, world: World, task: TaskInput, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = world.client()
        asked: list[ContractCall[object]] = []
        estimate = world.chain.inside.estimate

        def noting(call: ContractCall[object], *, caller: bytes) -> object:
            asked.append(call)
            return estimate(call, caller=caller)

        monkeypatch.setattr(world.chain.inside, "estimate", noting)

        assert client.estimate(task, workers=[1]).value == 1

        assert [call.label for call in asked] == ["submit_confidential_job"]
        assert len(asked[0].data) > len(task.input)
        assert task.input not in asked[0].data
        assert world.job_count() == 0
        assert world.chain.sent == 0
        assert client.unfinished() == []
