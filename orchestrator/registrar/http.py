"""
What `registrar run` serves: liveness, and numbers.

No token is needed: neither names a key or an address. Whoever runs the application limits the rate.
"""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from orchestrator.metrics import CONTENT_TYPE_LATEST, RegistrarMetrics
from orchestrator.registrar.renewals import Renewals

__all__ = ["registrar_app"]

MISSED_ROUNDS = 2


def registrar_app(renewals: Renewals, *, metrics: RegistrarMetrics, interval: int) -> Starlette:
    """Return the application; *interval* (ms) is how often the workers are looked at."""

    async def healthz(_: Request) -> Response:
        age = renewals.since_last_round
        is_alive = age is not None and 0 <= age <= MISSED_ROUNDS * interval
        body = {
            "alive": is_alive,
            "seconds_since_workers_were_looked_at": None if age is None else age / 1_000,
            "renewals_failing": len(renewals.failing),
        }
        return JSONResponse(body, 200 if is_alive else 503)

    async def numbers(_: Request) -> Response:
        return Response(metrics.render(), media_type=CONTENT_TYPE_LATEST)

    return Starlette(routes=[Route("/healthz", healthz), Route("/metrics", numbers)])
