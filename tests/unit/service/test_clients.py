"""The clients that are kept, and made anew for another token."""

import functools

import pytest

from orchestrator.models import JobStatus, Worker
from orchestrator.service import Orchestrator
from orchestrator.service.clients import WorkerClients
from orchestrator.workers import WorkerClient
from tests.unit.service import world as world_module
from tests.unit.service.world import World


class _Client:
    """Knows whether it was closed."""

    def __init__(self) -> None:
        self.is_closed = False

    async def close(self) -> None:
        self.is_closed = True


async def test_a_client_is_made_anew_for_another_token_and_the_old_one_closed_at_the_end(
    world: World,
) -> None:
    worker = world.chain.read(world.processor.get_worker(world.add_worker()))
    assert worker is not None
    tokens, made = ["one"], list[_Client]()

    def make(_worker: Worker) -> _Client:
        made.append(_Client())
        return made[-1]

    clients = WorkerClients(make, lambda _: tokens[-1])  # type: ignore[arg-type]  # closes alone

    first, again = clients.of(worker), clients.of(worker)
    tokens.append("two")
    second = clients.of(worker)

    assert first is again
    assert first is not second
    assert second is clients.of(worker)
    assert len(made) == 2
    assert not made[0].is_closed  # a job may be using it
    await clients.close()
    assert all(client.is_closed for client in made)


async def test_an_orchestrator_asks_for_the_token_each_time_it_talks_to_a_worker(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, made = list[int](), list[int]()
    inside = world.client

    def token(worker: Worker) -> str:
        asked.append(worker.worker)
        return f"token {len(asked)}"

    def client(worker: Worker) -> WorkerClient:
        made.append(worker.worker)
        return inside(worker)

    with_tokens = functools.partial(Orchestrator, worker_tokens=token)
    monkeypatch.setattr(world_module, "Orchestrator", with_tokens)
    monkeypatch.setattr(world, "client", client)
    worker = world.add_worker()
    job_id = world.submit(worker)

    await world.run()

    assert world.status(job_id) is JobStatus.PROCESSED
    assert len(made) > 1  # to hand over, and to fetch
    assert made == asked == [worker] * len(made)
