"""A scripted worker over HTTP says the same as behind the port."""

import httpx
import pytest

from orchestrator.errors import (
    BlobNotFoundError,
    WorkerProtocolError,
    WorkerRefusedError,
    WorkerUnavailableError,
)
from orchestrator.testing.scripted_http import scripted_app
from orchestrator.testing.workers import Behaviour, ScriptedWorker
from orchestrator.workers import JobKey, WorkerClient, WorkerJobState
from orchestrator.workers.http import HttpWorkerClient
from tests.unit.service.test_chain_first import attest
from tests.unit.service.world import World


@pytest.fixture(params=["port", "http"])
def client_of(request: pytest.FixtureRequest) -> object:
    def make(scripted: ScriptedWorker) -> WorkerClient:
        if request.param == "port":
            return scripted
        transport = httpx.ASGITransport(app=scripted_app(scripted))
        return HttpWorkerClient("http://worker", transport=transport)

    return make


def make_client(client_of: object, scripted: ScriptedWorker) -> WorkerClient:
    assert callable(client_of)
    client = client_of(scripted)
    assert isinstance(client, ScriptedWorker | HttpWorkerClient)
    return client


def key_of(world: World, job_id: int) -> JobKey:
    return JobKey(
        genesis=world.chain.genesis_hash,
        contract=world.processor.contract,
        job_id=job_id,
        payload_hash=world.job(job_id).payload_hash,
    )


async def test_statement_and_result_are_the_same(world: World, client_of: object) -> None:
    job_id = world.submit(world.add_worker())
    completion = await attest(world, job_id)
    client = make_client(client_of, world.scripted[0])

    answer = await client.get_job(key_of(world, job_id))

    assert answer.state is WorkerJobState.DONE
    assert answer.completion is not None
    assert answer.completion.result_hash == completion.result_hash
    assert await client.get_blob(completion.result_hash, max_bytes=10_000)
    identity = await client.identity()
    assert identity.signing_key == world.scripted[0].signer.public_key
    await client.delete_job(key_of(world, job_id))
    with pytest.raises(WorkerRefusedError):
        await client.get_job(key_of(world, job_id))
    await client.close()


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (Behaviour.LOSES_CONNECTION, WorkerUnavailableError),
        (Behaviour.GARBAGE, WorkerProtocolError),
    ],
)
async def test_faults_are_the_same(
    world: World, client_of: object, behaviour: Behaviour, error: type[Exception]
) -> None:
    job_id = world.submit(world.add_worker())
    await attest(world, job_id)
    world.scripted[0].behaviour = behaviour
    client = make_client(client_of, world.scripted[0])

    with pytest.raises(error):
        await client.get_job(key_of(world, job_id))
    with pytest.raises(BlobNotFoundError):
        await client.get_blob(bytes(32), max_bytes=10)
    await client.close()


async def test_running_job_has_no_statement(world: World, client_of: object) -> None:
    job_id = world.submit(world.add_worker())
    await attest(world, job_id)
    world.scripted[0].behaviour = Behaviour.AT_ONCE
    client = make_client(client_of, world.scripted[0])

    answer = await client.get_job(key_of(world, job_id))

    assert (answer.state, answer.completion) == (WorkerJobState.RUNNING, None)
    await client.close()


async def test_what_it_does_not_do_is_refused(world: World) -> None:
    world.add_worker()
    scripted = world.scripted[0]

    with pytest.raises(WorkerRefusedError):
        await scripted.put_blob(b"")
    with pytest.raises(WorkerRefusedError, match="has no evidence"):
        await scripted.evidence(genesis=bytes(32), contract=bytes(32), challenge=bytes(32))
    scripted.newest_is_registered = False
    with pytest.raises(WorkerRefusedError, match="not registered yet"):
        await scripted.rotate(genesis=bytes(32), contract=bytes(32))
