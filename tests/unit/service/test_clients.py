"""The clients that are kept, and made anew for another token."""

from orchestrator.models import Worker
from orchestrator.service.clients import WorkerClients
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
