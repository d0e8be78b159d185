"""What `orchestrator run` serves."""

import asyncio

import httpx

from orchestrator.metrics import OrchestratorMetrics
from orchestrator.service import service_app
from tests.unit.service.world import World, until


def client_of(app: object) -> httpx.AsyncClient:
    transport = httpx.ASGITransport(app=app)  # type: ignore[arg-type]  # an application
    return httpx.AsyncClient(transport=transport, base_url="http://service")


async def test_results_liveness_and_numbers_are_served_while_it_runs(world: World) -> None:
    job_id = world.submit(world.add_worker())
    metrics = OrchestratorMetrics(version="1")
    stop = asyncio.Event()
    with world.journal() as journal:
        orchestrator = world.orchestrator(journal)
        app = service_app(orchestrator, blobs=world.blobs, metrics=metrics)
        async with client_of(app) as client:
            before = await client.get("/healthz")
            running = asyncio.create_task(orchestrator.run(stop))
            await until(lambda: bool(world.chain_done(job_id)))
            result_hash = world.chain_events("JobProcessed")[0].fields["result_hash"]
            assert isinstance(result_hash, bytes)
            result = await client.get(f"/v1/blobs/{result_hash.hex()}")
            head = await client.head(f"/v1/blobs/{result_hash.hex()}")
            alive = await client.get("/healthz")
            numbers = await client.get("/metrics")
            stop.set()
            await running

    assert before.status_code == 503
    assert result.content == world.blobs.get(result_hash, max_bytes=10_000)
    assert head.status_code == 200
    assert head.headers["content-length"] == str(len(result.content))
    assert (alive.status_code, alive.json()["alive"]) == (200, True)
    assert "phala_jobs_pending 0.0" in numbers.text
    assert "phala_jobs_attestation_expiry_timestamp_seconds 1.7" in numbers.text


async def test_unknown_results_and_other_methods_are_refused(world: World) -> None:
    with world.journal() as journal:
        app = service_app(
            world.orchestrator(journal), blobs=world.blobs, metrics=OrchestratorMetrics(version="1")
        )
        async with client_of(app) as client:
            missing = await client.get(f"/v1/blobs/{'0' * 64}")
            malformed = await client.get("/v1/blobs/..%2F..%2Fetc")
            put = await client.put(f"/v1/blobs/{'0' * 64}", content=b"x")
            numbers = await client.get("/metrics")

    assert missing.status_code == 404
    assert malformed.status_code in (404, 422)
    assert put.status_code == 405
    assert numbers.status_code == 200
