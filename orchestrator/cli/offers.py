"""Which tasks workers have on offer, by their own word."""

import asyncio
from collections.abc import Mapping, Sequence

from orchestrator.errors import InputError, WorkerError
from orchestrator.models import Worker, WorkerId

ASK_SECONDS = 3.0


def offered_tasks(workers: Sequence[Worker]) -> Mapping[WorkerId, tuple[str, ...]]:
    """
    The tasks of those workers that say so in time, all asked at once.

    One that does not answer, or answers with keys of another worker, is left out. Nothing is
    proven by it: it is for telling a slip of the pen before it costs anything.
    """

    async def ask_all() -> list[tuple[str, ...] | None]:
        return await asyncio.gather(*(_ask(worker) for worker in workers))

    answers = zip(workers, asyncio.run(ask_all()), strict=True)
    return {worker.worker: tasks for worker, tasks in answers if tasks is not None}


async def _ask(worker: Worker) -> tuple[str, ...] | None:
    from orchestrator.workers.http import HttpWorkerClient

    try:
        client = HttpWorkerClient(
            worker.endpoint.decode("utf-8", "replace"), timeout_seconds=ASK_SECONDS
        )
    except InputError:
        return None
    try:
        identity = await client.identity()
    except WorkerError:
        return None
    finally:
        await client.close()
    return identity.tasks if identity.serves(worker.signing_key) else None
