"""The same client for asyncio: everything blocking happens in one thread of its own."""

import asyncio
import contextlib
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Self, TypeVar

from orchestrator.chain import Estimate
from orchestrator.client.entries import ListedJob, UnfinishedJob
from orchestrator.client.job_client import JobClient
from orchestrator.client.rebuild import RebuildProgress
from orchestrator.client.results import JobFailure, Result
from orchestrator.client.sealer import DEFAULT_TTL_MS, Submission
from orchestrator.client.submitter import SubmitProgress
from orchestrator.client.watch import WaitProgress
from orchestrator.crypto import SealedJob
from orchestrator.errors import ContractError, InputError
from orchestrator.models import JobId, JobStatus, TaskInput, WorkerId

__all__ = ["AsyncJobClient"]

T = TypeVar("T")
P = TypeVar("P", SubmitProgress, WaitProgress)

ClientFactory = Callable[[], contextlib.AbstractContextManager[JobClient]]


class AsyncJobClient:
    """
    `JobClient` for asyncio; its methods do the same.

    *open_client* is called in the client's own thread and returns a context manager: a
    `JobClient`, or a function with `contextlib.contextmanager` that opens a chain first and
    closes it afterwards. Waiting does not occupy the thread, so that many waits, and calls
    beside them, share it. Progress callbacks run in the event loop.
    """

    def __init__(self, open_client: ClientFactory) -> None:
        self._open_client = open_client
        self._executor = ThreadPoolExecutor(max_workers=1, thread_name_prefix="job-client")
        self._stack = contextlib.ExitStack()
        self._client: JobClient | None = None

    async def __aenter__(self) -> Self:
        try:
            self._client = await self._run(lambda: self._stack.enter_context(self._open_client()))
        except BaseException:
            self._executor.shutdown()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Finish what is running, close the client in its thread, and end the thread."""
        try:
            if self._client is not None:
                self._client = None
                await self._run(self._stack.close)
        finally:
            self._executor.shutdown()

    async def seal(
        self,
        task: TaskInput,
        *,
        workers: Sequence[WorkerId] | None = None,
        ttl_ms: int = DEFAULT_TTL_MS,
    ) -> SealedJob:
        """See `JobClient.seal`."""
        return await self._call(lambda client: client.seal(task, workers=workers, ttl_ms=ttl_ms))

    async def estimate(
        self,
        task: TaskInput,
        *,
        workers: Sequence[WorkerId] | None = None,
        ttl_ms: int = DEFAULT_TTL_MS,
    ) -> Estimate[JobId]:
        """See `JobClient.estimate`."""
        return await self._call(
            lambda client: client.estimate(task, workers=workers, ttl_ms=ttl_ms)
        )

    async def submit(
        self,
        task: TaskInput,
        *,
        workers: Sequence[WorkerId] | None = None,
        ttl_ms: int = DEFAULT_TTL_MS,
        key: str | None = None,
    ) -> JobId:
        """See `JobClient.submit`."""
        return await self._call(
            lambda client: client.submit(task, workers=workers, ttl_ms=ttl_ms, key=key)
        )

    async def submit_many(
        self,
        submissions: Sequence[Submission],
        *,
        progress: Callable[[SubmitProgress], None] | None = None,
    ) -> list[JobId | ContractError]:
        """See `JobClient.submit_many`."""
        steps = await self._call(lambda client: client.submit_steps(submissions))
        return await self._drive(steps, progress)

    async def resume(
        self, *, progress: Callable[[SubmitProgress], None] | None = None
    ) -> list[JobId | ContractError]:
        """See `JobClient.resume`."""
        return await self._drive(await self._call(JobClient.resume_steps), progress)

    async def wait(
        self,
        job_id: JobId,
        *,
        timeout_seconds: float,
        progress: Callable[[WaitProgress], None] | None = None,
    ) -> JobStatus:
        """See `JobClient.wait`."""
        steps = await self._call(
            lambda client: client.wait_steps(job_id, timeout_seconds=timeout_seconds)
        )
        return await self._drive(steps, progress)

    async def status(self, job_id: JobId) -> JobStatus:
        """See `JobClient.status`."""
        return await self._call(lambda client: client.status(job_id))

    async def result(self, job_id: JobId, *, accept_revoked_worker: bool = False) -> Result:
        """See `JobClient.result`."""
        return await self._call(
            lambda client: client.result(job_id, accept_revoked_worker=accept_revoked_worker)
        )

    async def failures(
        self, job_id: JobId, *, accept_revoked_worker: bool = False
    ) -> tuple[JobFailure, ...]:
        """See `JobClient.failures`."""
        return await self._call(
            lambda client: client.failures(job_id, accept_revoked_worker=accept_revoked_worker)
        )

    async def cancel(self, job_id: JobId) -> None:
        """See `JobClient.cancel`."""
        await self._call(lambda client: client.cancel(job_id))

    async def expire(self, job_id: JobId) -> None:
        """See `JobClient.expire`."""
        await self._call(lambda client: client.expire(job_id))

    async def purge(self, job_id: JobId) -> None:
        """See `JobClient.purge`."""
        await self._call(lambda client: client.purge(job_id))

    async def jobs(self, *, refresh: bool = True) -> list[ListedJob]:
        """See `JobClient.jobs`."""
        return await self._call(lambda client: client.jobs(refresh=refresh))

    async def unfinished(self) -> list[UnfinishedJob]:
        """See `JobClient.unfinished`."""
        return await self._call(JobClient.unfinished)

    async def rebuild(self, *, progress: Callable[[RebuildProgress], None] | None = None) -> int:
        """See `JobClient.rebuild`."""
        loop = asyncio.get_running_loop()

        def forward(step: RebuildProgress) -> None:
            if progress:
                loop.call_soon_threadsafe(progress, step)

        return await self._call(lambda client: client.rebuild(progress=forward))

    async def _drive(self, steps: Generator[P, None, T], progress: Callable[[P], None] | None) -> T:
        try:
            while True:
                step, value = await self._run(lambda: _advance(steps))
                if step is None:
                    return value[0]
                if progress:
                    progress(step)
                await asyncio.sleep(step.wait_seconds)
        finally:
            # After a step that may still run, and before whatever is called next. Without the
            # thread the client is closed, and what it was at work on is left behind already.
            with contextlib.suppress(RuntimeError):
                self._executor.submit(steps.close)

    async def _call(self, use: Callable[[JobClient], T]) -> T:
        client = self._client
        if client is None:
            raise InputError("client: not open, use `async with`")
        return await self._run(lambda: use(client))

    async def _run(self, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)


def _advance(steps: Generator[P, None, T]) -> tuple[P | None, tuple[T, ...]]:
    """Return the next step, or none and the value that the steps ended with."""
    try:
        return next(steps), ()
    except StopIteration as end:
        return None, (end.value,)
