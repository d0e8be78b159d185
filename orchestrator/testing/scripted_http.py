"""A scripted worker as a real HTTP server."""

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from orchestrator.attestation.statement import statement_of
from orchestrator.errors import (
    BlobNotFoundError,
    WorkerProtocolError,
    WorkerRefusedError,
    WorkerUnavailableError,
)
from orchestrator.testing.workers import ScriptedWorker
from orchestrator.workers import JobKey
from orchestrator.workers.wire import dump_identity, dump_job, load_job_request

__all__ = ["scripted_app"]

JOB_PATH = "/v1/jobs/{genesis}/{contract}/{job_id:int}/{payload_hash}"


def scripted_app(worker: ScriptedWorker) -> Starlette:
    """Return an application that answers what *worker* does; it asks for no token."""

    async def get_identity(_: Request) -> Response:
        return Response(dump_identity(await worker.identity()))

    async def put_job(request: Request) -> Response:
        is_new = await worker.put_job(load_job_request(await request.body(), _key(request)))
        return Response(b"{}", 202 if is_new else 200)

    async def get_job(request: Request) -> Response:
        key = _key(request)
        wait = float(request.query_params.get("wait", "0"))
        job = await worker.get_job(key, wait_seconds=wait)
        if job.completion is None:
            return Response(dump_job(job))
        statement = statement_of(
            job.completion,
            genesis_hash=key.genesis,
            contract=key.contract,
            payload_hash=key.payload_hash,
            measurement=worker.measurement,
        )
        return Response(dump_job(job, statement))

    async def delete_job(request: Request) -> Response:
        await worker.delete_job(_key(request))
        return Response(b"{}")

    async def get_blob(request: Request) -> Response:
        digest = bytes.fromhex(request.path_params["digest"])
        return Response(await worker.get_blob(digest, max_bytes=1 << 30))

    return Starlette(
        routes=[
            Route("/v1/identity", get_identity, methods=["GET"]),
            Route(JOB_PATH, put_job, methods=["PUT"]),
            Route(JOB_PATH, get_job, methods=["GET"]),
            Route(JOB_PATH, delete_job, methods=["DELETE"]),
            Route("/v1/blobs/{digest}", get_blob, methods=["GET"]),
        ],
        exception_handlers={
            WorkerUnavailableError: _answer_busy,
            WorkerRefusedError: _answer_refused,
            WorkerProtocolError: _answer_garbage,
            BlobNotFoundError: _answer_missing,
        },
    )


def _key(request: Request) -> JobKey:
    path = request.path_params
    return JobKey(
        genesis=bytes.fromhex(path["genesis"]),
        contract=bytes.fromhex(path["contract"]),
        job_id=path["job_id"],
        payload_hash=bytes.fromhex(path["payload_hash"]),
    )


async def _answer_busy(_: Request, error: Exception) -> Response:
    is_busy = isinstance(error, WorkerUnavailableError) and error.retry_after_seconds is not None
    return Response(b"{}", 429 if is_busy else 503, {"retry-after": "1"} if is_busy else {})


async def _answer_refused(_: Request, error: Exception) -> Response:
    return Response(b"{}", error.status if isinstance(error, WorkerRefusedError) else 422)


async def _answer_garbage(_: Request, __: Exception) -> Response:
    return Response(b"garbage")


async def _answer_missing(_: Request, __: Exception) -> Response:
    return Response(b"{}", 404)
