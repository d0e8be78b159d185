"""
Records statements on the chain and marks jobs processed, several at once, and reads back.

Whatever a call answered, or did not, what counts is what is read back afterwards: a job that
somebody else has completed meanwhile is completed.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from orchestrator.errors import (
    ChainUnavailableError,
    ContractError,
    ContractTrappedError,
    RefusedError,
)
from orchestrator.models import Completion, Job, JobStatus, Mode, Outcome
from orchestrator.service.parts import Parts
from orchestrator.service.steps import Step

__all__ = ["Settled", "Settlement"]

GROUPS_AT_ONCE = 4
TRAPPED = "ContractTrapped"


@dataclass(frozen=True, kw_only=True)
class Settled:
    """
    What became of a job: its status as read back, `None` when it is purged.

    `code` is the contract's reason for refusing the statement, empty when it did not.
    """

    status: JobStatus | None
    code: str


@dataclass(frozen=True, kw_only=True)
class _Item:
    completion: Completion
    job: Job
    settled: "asyncio.Future[Settled]"


class Settlement:
    """Groups what comes in at about the same time into as few calls as possible."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._queue: asyncio.Queue[_Item | None] = asyncio.Queue()
        self._is_stopped = False
        self.pending = 0

    async def settle(self, completion: Completion, job: Job) -> Settled:
        """
        Record a statement, or mark the job that it was recorded for, and read back.

        Raises:
            ChainUnavailableError: Nothing is known about what happened.
            RefusedError: The contract trapped: `ContractTrapped`.
        """
        item = _Item(
            completion=completion, job=job, settled=asyncio.get_running_loop().create_future()
        )
        self.pending += 1
        self._queue.put_nowait(item)
        try:
            return await item.settled
        finally:
            self.pending -= 1

    def stop(self) -> None:
        """End `run` once everything that was handed in is settled."""
        self._queue.put_nowait(None)

    async def run(self) -> None:
        """Settle until stopped."""
        is_running = True
        while is_running:
            items = [item for item in await self._gather() if item is not None]
            is_running = not self._is_stopped
            if items:
                await self._settle_all(items)

    async def _gather(self) -> list[_Item | None]:
        """Take what is there once a group is full, or a short time after the first one came."""
        settings = self._parts.settings
        items = [await self._queue.get()]
        try:
            async with asyncio.timeout(settings.group_seconds):
                while items[-1] is not None and len(items) < settings.group_size:
                    items.append(await self._queue.get())
        except TimeoutError:
            pass
        while items[-1] is not None and len(items) < settings.group_size * GROUPS_AT_ONCE:
            try:
                items.append(self._queue.get_nowait())
            except asyncio.QueueEmpty:
                break
        self._is_stopped = items[-1] is None
        return items

    async def _settle_all(self, items: Sequence[_Item]) -> None:
        try:
            codes = await self._attempt(items)
            with self._parts.steps.at(Step.READ_BACK):
                statuses = await self._parts.ledger.statuses([i.job.job_id for i in items])
        except ChainUnavailableError as error:
            for item in items:
                _fail(item, ChainUnavailableError(str(error)))
        except Exception as error:  # noqa: BLE001  # a trap, or a fault: it must not stop others
            if len(items) > 1:
                for item in items:
                    await self._settle_all([item])
            elif isinstance(error, ContractTrappedError):
                _fail(items[0], RefusedError(TRAPPED, str(error)))
            else:
                _fail(items[0], error)
        else:
            for item, code in zip(items, codes, strict=True):
                if not item.settled.done():  # whoever asked may have been cancelled
                    status = statuses.get(item.job.job_id)
                    item.settled.set_result(Settled(status=status, code=code))

    async def _attempt(self, items: Sequence[_Item]) -> list[str]:
        """Make the calls; one code per item, empty for those that were not refused."""
        rules = await self._parts.ledger.rules()
        if rules.mode is Mode.HALTED:
            return ["WrongMode"] * len(items)
        if rules.is_operator:
            return await self._complete(items)
        return [await self._one_by_one(item) for item in items]

    async def _complete(self, items: Sequence[_Item]) -> list[str]:
        """Use `complete_jobs`, as many items in each as it takes."""
        ledger, size = self._parts.ledger, self._parts.settings.group_size
        groups = [list(items[i : i + size]) for i in range(0, len(items), size)]
        with self._parts.steps.at(Step.COMPLETE_JOBS):
            answers = await ledger.complete_jobs(
                [[item.completion for item in group] for group in groups]
            )
        codes: list[str] = []
        for group, answer in zip(groups, answers, strict=True):
            if isinstance(answer, ContractError):
                # The whole message was refused: our role or the mode has changed.
                ledger.forget_rules()
                codes += [answer.variant] * len(group)
            else:
                codes += [error.variant if error else "" for error in answer]
        return codes

    async def _one_by_one(self, item: _Item) -> str:
        """
        Record, and mark if we may: without the role only the owner marks.

        A worker's failure is recorded and never marked.
        """
        parts = self._parts
        job_id = item.job.job_id
        try:
            if item.job.status is JobStatus.SUBMITTED:
                with parts.steps.at(Step.RECORD_ATTESTATION):
                    await parts.ledger.record_attestation(item.completion)
            is_completed = item.completion.attestation_proof.outcome is Outcome.COMPLETED
            if is_completed and item.job.owner == parts.ledger.account_id:
                with parts.steps.at(Step.MARK_PROCESSED):
                    await parts.ledger.mark_processed(job_id)
        except ContractError as error:
            return error.variant
        return ""


def _fail(item: _Item, error: Exception) -> None:
    if not item.settled.done():
        item.settled.set_exception(error)
