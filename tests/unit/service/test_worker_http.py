"""Workers whose servers are broken in every way, over real HTTP, beside one that works."""

from dataclasses import replace

import pytest

from orchestrator.models import JobStatus, Worker
from orchestrator.testing.faulty_http import FaultyHttpServer, HttpFault
from orchestrator.workers import WorkerClient
from orchestrator.workers.http import HttpWorkerClient
from tests.unit.service.world import QUICK, World

PROTOCOL = {HttpFault.GARBAGE, HttpFault.REDIRECT, HttpFault.ENDLESS, HttpFault.HUGE}


@pytest.mark.parametrize("fault", HttpFault)
async def test_broken_server_costs_a_moment_and_no_job(
    world: World, monkeypatch: pytest.MonkeyPatch, fault: HttpFault
) -> None:
    broken, good = world.add_worker(), world.add_worker()
    jobs = [world.submit(broken, good) for _ in range(3)]
    server = FaultyHttpServer(fault)
    async with server.serve() as url:

        def client(worker: Worker) -> WorkerClient:
            if worker.worker == broken:
                return HttpWorkerClient(url, timeout_seconds=0.5)
            return world.workers[worker.worker]

        monkeypatch.setattr(world, "client", client)
        await world.run(settings=replace(QUICK, answer_seconds=0.5))

    assert {world.status(job) for job in jobs} == {JobStatus.PROCESSED}
    assert {said["worker"] for said in world.chain_statements()} == {good}
    assert server.requests >= 1
    codes = set().union(*(world.codes(job) for job in jobs))
    assert codes <= {"WorkerProtocol"}
    assert ("WorkerProtocol" in codes) >= (fault in PROTOCOL)


async def test_worker_at_another_ones_address_gets_no_job(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, good = world.add_worker(), world.add_worker()
    job_id = world.submit(moved, good)

    monkeypatch.setattr(world, "client", lambda _: world.workers[good])
    await world.run()

    assert world.codes(job_id) == {"WorkerProtocol"}
    assert world.status(job_id) is JobStatus.PROCESSED
    assert world.record(job_id).dispatched == (good,)
