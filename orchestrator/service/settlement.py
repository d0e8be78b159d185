"""
Records statements on the chain and marks jobs processed, several at once, and reads back.

Whatever a call answered, or did not, what counts is what is read back afterwards: a job that
somebody else has completed meanwhile is completed.

One transaction is on its way at a time. While it waits for finality results gather, and the next
transaction takes all of them, up to `batch_jobs`.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from orchestrator.errors import (
    ChainUnavailableError,
    ContractError,
    ContractTrappedError,
    InsufficientFundsError,
    RefusedError,
    SpendingLimitError,
)
from orchestrator.models import Completion, Job, JobStatus, Mode, Outcome
from orchestrator.service.parts import Parts
from orchestrator.service.steps import Step

__all__ = ["Settled", "Settlement"]

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
        group_size = min(settings.group_size, settings.batch_jobs)
        items = [await self._queue.get()]
        try:
            async with asyncio.timeout(settings.group_seconds):
                while items[-1] is not None and len(items) < group_size:
                    items.append(await self._queue.get())
        except TimeoutError:
            pass
        while items[-1] is not None and len(items) < settings.batch_jobs:
            try:
                items.append(self._queue.get_nowait())
            except asyncio.QueueEmpty:
                break
        self._is_stopped = items[-1] is None
        return items

    async def _settle_all(self, items: Sequence[_Item]) -> None:
        ledger = self._parts.ledger
        try:
            await ledger.calls.settle_doubt()
            if ledger.calls.has_doubted:
                items = await self._without_done(items)
            codes = await self._attempt(items) if items else []
            with self._parts.steps.at(Step.READ_BACK):
                statuses = await ledger.statuses([i.job.job_id for i in items])
        except (ChainUnavailableError, InsufficientFundsError, SpendingLimitError) as error:
            # Later all of them: a smaller transaction could not be sent or paid for either.
            kind, words = type(error), str(error)
            _fail_all(items, lambda: kind(words))
        except Exception as error:  # noqa: BLE001  # a trap, too heavy, or a fault: not all of them
            await self._settle_halves(items, error)
        else:
            for item, code in zip(items, codes, strict=True):
                _settle(item, statuses.get(item.job.job_id), code)

    async def _settle_halves(self, items: Sequence[_Item], error: Exception) -> None:
        """One item may spoil a transaction, or the node may find it too heavy."""
        if len(items) > 1:
            half = (len(items) + 1) // 2
            await self._settle_all(items[:half])
            await self._settle_all(items[half:])
        elif isinstance(error, ContractTrappedError):
            _fail_all(items, lambda: RefusedError(TRAPPED, str(error)))
        else:
            _fail_all(items, lambda: error)

    async def _without_done(self, items: Sequence[_Item]) -> list[_Item]:
        """Settle what is done already, as the chain has it now, and return the rest."""
        failed = [i.job.job_id for i in items if _outcome(i) is Outcome.FAILED]
        with self._parts.steps.at(Step.READ_BACK):
            statuses = await self._parts.ledger.statuses([item.job.job_id for item in items])
            jobs = await self._parts.ledger.jobs(failed)
        rest = []
        for item in items:
            status, job = statuses.get(item.job.job_id), jobs.get(item.job.job_id)
            if status is None or status.is_final or (job and _has_failure(job, item.completion)):
                _settle(item, status, "")
            else:
                rest.append(replace(item, job=replace(item.job, status=status)))
        return rest

    async def _attempt(self, items: Sequence[_Item]) -> list[str]:
        """Make the calls; one code per item, empty for those that were not refused."""
        rules = await self._parts.ledger.rules()
        if rules.mode is Mode.HALTED:
            return ["WrongMode"] * len(items)
        # For one that is recorded already, marking is a little cheaper; for one that is not,
        # recording and marking apart costs almost twice as much.
        is_to_be_marked = len(items) == 1 and items[0].job.status is JobStatus.ATTESTED
        if rules.is_operator and not is_to_be_marked:
            return await self._complete(items)
        return [await self._one_by_one(item, is_operator=rules.is_operator) for item in items]

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

    async def _one_by_one(self, item: _Item, *, is_operator: bool) -> str:
        """
        Record, and mark if we may: as operator or owner.

        A worker's failure is recorded and never marked.
        """
        parts = self._parts
        job_id = item.job.job_id
        try:
            if item.job.status is JobStatus.SUBMITTED:
                with parts.steps.at(Step.RECORD_ATTESTATION):
                    await parts.ledger.record_attestation(item.completion)
            may_mark = is_operator or item.job.owner == parts.ledger.account_id
            if may_mark and _outcome(item) is Outcome.COMPLETED:
                with parts.steps.at(Step.MARK_PROCESSED):
                    await parts.ledger.mark_processed(job_id)
        except ContractError as error:
            parts.ledger.forget_rules()  # our role or the mode may have changed
            return error.variant
        return ""


def _outcome(item: _Item) -> Outcome:
    return item.completion.attestation_proof.outcome


def _has_failure(job: Job, completion: Completion) -> bool:
    """Whether the job has this very failure on record."""
    return any(failure.result_hash == completion.result_hash for failure in job.failures)


def _settle(item: _Item, status: JobStatus | None, code: str) -> None:
    if not item.settled.done():  # whoever asked may have been cancelled
        item.settled.set_result(Settled(status=status, code=code))


def _fail_all(items: Sequence[_Item], error: Callable[[], Exception]) -> None:
    for item in items:
        if not item.settled.done():
            item.settled.set_exception(error())
