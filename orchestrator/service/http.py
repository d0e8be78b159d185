"""
What `orchestrator run` serves: sealed results by hash, liveness, and numbers.

No token is needed: results are sealed, and the numbers name no job, key or address. Whoever runs
the application limits the rate.
"""

import asyncio

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchestrator.blobs import BlobStore
from orchestrator.blobs.server import blob_routes
from orchestrator.metrics import CONTENT_TYPE_LATEST, OrchestratorMetrics
from orchestrator.service.orchestrator import Orchestrator

__all__ = ["service_app"]

ALIVE_SECONDS = 60.0


def service_app(
    orchestrator: Orchestrator,
    *,
    blobs: BlobStore,
    metrics: OrchestratorMetrics,
    max_blob_bytes: int = 64 << 20,
) -> Starlette:
    """Return the application; it reads from *orchestrator* and changes nothing."""

    async def healthz(_: Request) -> Response:
        read_at = orchestrator.last_read_at
        age = None if read_at is None else asyncio.get_running_loop().time() - read_at
        is_alive = age is not None and age < ALIVE_SECONDS
        body = {
            "alive": is_alive,
            "seconds_since_chain_was_read": None if age is None else round(age, 3),
            "open_jobs": orchestrator.open_jobs,
        }
        return JSONResponse(body, 200 if is_alive else 503)

    async def numbers(_: Request) -> Response:
        metrics.set_pending(orchestrator.open_jobs)
        metrics.set_finalized_block(orchestrator.head_number)
        if orchestrator.balance is not None:
            metrics.set_balance(orchestrator.balance)
        expiry = orchestrator.attestation_expiry()
        if expiry is not None:
            metrics.set_attestation_expiry(expiry)
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(
        routes=[
            *blob_routes(blobs, max_bytes=max_blob_bytes),
            Route("/healthz", healthz),
            Route("/metrics", numbers),
        ]
    )
