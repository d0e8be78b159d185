"""
The chain as the service sees it: one thread that talks to it, and what is known of the contract.

A `Chain` is used from one thread at a time, and its calls take as long as finality takes, so all
of it runs in a thread of its own. Parameters, workers and measurements are read once and again
when an event says that they changed; the contract decides in the end, so that a moment's lag can
only cost a refused call.
"""

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, cast

import stamina

from orchestrator.attestation.verifier import JobView
from orchestrator.chain import Block, Chain, ContractCall, Cursor, Receipt
from orchestrator.chain.processor import ContractEvent, JobProcessor
from orchestrator.errors import ChainMismatchError, ChainUnavailableError, ContractError
from orchestrator.models import (
    Account,
    Attestation,
    AttestationStatus,
    Completion,
    Job,
    JobId,
    JobStatus,
    Mode,
    Parameters,
    PublicKey,
    Role,
    Worker,
    WorkerId,
)

__all__ = ["EventsRead", "Ledger", "Recorded"]

T = TypeVar("T")

EVENTS_PER_PAGE = 192
HEADS_PER_PAGE = 50  # protocol 1.8
_WORKER_EVENTS = frozenset(
    {"WorkerRenewed", "WorkerSuspended", "WorkerReinstated", "WorkerRevoked", "WorkerRegistered"}
)
_MEASUREMENT_EVENTS = frozenset({"MeasurementAllowed", "MeasurementRevoked"})
_RULE_EVENTS = frozenset({"ParametersChanged", "ModeChanged", "RoleGranted", "RoleRevoked"})
_FINAL_EVENTS = frozenset({"JobProcessed", "JobFailed", "JobCancelled", "JobExpired", "JobPurged"})


@dataclass(frozen=True, kw_only=True)
class EventsRead:
    """One page of events, the jobs that it submits as they are now, and the cursor behind it."""

    events: tuple[ContractEvent, ...]
    jobs: dict[JobId, Job | None]
    cursor: Cursor
    head: Block
    is_full: bool


@dataclass(frozen=True, kw_only=True)
class Recorded:
    """An attestation on the chain, and what it is worth today."""

    attestation: Attestation
    status: AttestationStatus


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The contract's rules of today, and what our account may do."""

    mode: Mode
    parameters: Parameters
    is_operator: bool
    is_guardian: bool


class Ledger:
    """Reads and calls one contract with one account; `start` first."""

    def __init__(
        self, chain: Chain, processor: JobProcessor, account: Account, clock: Callable[[], int]
    ) -> None:
        self.genesis_hash = chain.genesis_hash
        self.contract = processor.contract
        self.account_id = account.account_id
        self._chain = chain
        self._processor = processor
        self._account = account
        self._clock = clock
        self._clock_offset = 0
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="chain")
        self._workers: dict[WorkerId, Worker] = {}
        self._ids: dict[PublicKey, WorkerId] = {}
        self._measurements: dict[bytes, bool] = {}
        self._rules: Rules | None = None

    def close(self) -> None:
        """End the thread once it has finished what it does; the chain stays open."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    async def _once(self, work: Callable[[Chain], T]) -> T:
        future = self._thread.submit(work, self._chain)
        try:
            return await asyncio.shield(asyncio.wrap_future(future))
        except asyncio.CancelledError:
            future.cancel()  # no effect once it runs; it is then finished, its answer dropped
            raise

    async def read(self, work: Callable[[Chain], T]) -> T:
        """Run something that changes nothing, a few times if the chain can't be reached."""
        try:
            return await self._once(work)
        except ChainUnavailableError:
            async for attempt in stamina.retry_context(
                on=ChainUnavailableError, attempts=3, wait_initial=0.2, wait_max=2.0
            ):
                with attempt:
                    return await self._once(work)
            raise

    async def call(self, call: ContractCall[T]) -> T:
        """Make one call and return its value once it is finalized; it is not repeated."""
        receipt = await self._once(lambda chain: chain.call(call, signer=self._account))
        return receipt.value

    # What the contract's rules are.

    async def start(self) -> None:
        """
        Read the rules.

        Raises:
            ChainMismatchError: There is no such contract, or it was deployed with
                another genesis.
        """
        processor = self._processor

        def work(chain: Chain) -> bytes | None:
            if chain.code_hash(processor.contract) is None:
                return None
            return chain.read(processor.genesis_hash())

        genesis = await self.read(work)
        if genesis is None:
            raise ChainMismatchError(f"there is no contract 0x{self.contract.hex()} on this chain")
        if genesis != self.genesis_hash:
            raise ChainMismatchError(
                f"contract 0x{self.contract.hex()} was deployed for genesis 0x{genesis.hex()}, "
                f"this chain's is 0x{self.genesis_hash.hex()}"
            )
        await self.rules()

    async def rules(self) -> Rules:
        """Return the rules as last read."""
        if self._rules is None:
            processor, account = self._processor, self._account.account_id

            def work(chain: Chain) -> Rules:
                self._note_time(chain)
                return Rules(
                    mode=chain.read(processor.mode()),
                    parameters=chain.read(processor.parameters()),
                    is_operator=chain.read(processor.has_role(account, Role.OPERATOR)),
                    is_guardian=chain.read(processor.has_role(account, Role.GUARDIAN)),
                )

            self._rules = await self.read(work)
        return self._rules

    def forget_rules(self) -> None:
        """Read the rules again before they are next needed."""
        self._rules = None

    def now(self) -> int:
        """Return the chain's time (ms) as far as it is known without asking."""
        return self._clock() + self._clock_offset

    def _note_time(self, chain: Chain) -> None:
        self._clock_offset = chain.now() - self._clock()

    # Events.

    async def events(self, after: Cursor, limit: int = EVENTS_PER_PAGE) -> EventsRead:
        """Read the next page of events, and forget what it says has changed."""
        page = await self.read(lambda chain: self._read_events(chain, after, limit))
        for event in page.events:
            self._forget(event)
        return page

    def _read_events(self, chain: Chain, after: Cursor, limit: int) -> EventsRead:
        self._note_time(chain)
        head = chain.finalized_head()
        page = chain.events(self.contract, after=after, limit=limit)
        events = tuple(self._processor.decode_event(raw) for raw in page.events)
        submitted = [
            cast("int", event.fields["job_id"]) for event in events if event.name == "JobSubmitted"
        ]
        jobs = {job_id: chain.read(self._processor.get_job(job_id)) for job_id in submitted}
        return EventsRead(
            events=events,
            jobs=jobs,
            cursor=page.next,
            head=head,
            is_full=len(page.events) >= limit,
        )

    def _forget(self, event: ContractEvent) -> None:
        if event.name in _WORKER_EVENTS:
            self._workers.pop(cast("int", event.fields["worker"]), None)
        elif event.name in _MEASUREMENT_EVENTS:
            self._measurements.clear()
        elif event.name in _RULE_EVENTS:
            self._rules = None

    # Jobs.

    async def job(self, job_id: JobId) -> Job | None:
        """Read a job with its payload."""
        return await self.read(lambda chain: chain.read(self._processor.get_job(job_id)))

    async def recorded(self, job_id: JobId) -> Recorded | None:
        """Read a job's attestation and what it is worth."""

        def work(chain: Chain) -> Recorded | None:
            found = chain.read(self._processor.get_attestation(job_id))
            if found is None:
                return None
            status = chain.read(self._processor.attestation_status(job_id))
            return Recorded(attestation=found, status=status)

        return await self.read(work)

    async def statuses(self, job_ids: Sequence[JobId]) -> dict[JobId, JobStatus]:
        """Read where the jobs stand, without their payloads; purged ones are left out."""
        wanted = sorted(set(job_ids))

        def work(chain: Chain) -> dict[JobId, JobStatus]:
            found: dict[JobId, JobStatus] = {}
            for start, limit in _windows(wanted):
                page = chain.read(self._processor.jobs_page(start, limit))
                found.update({head.job_id: head.status for head in page.items})
            return found

        found = await self.read(work)
        return {job_id: found[job_id] for job_id in wanted if job_id in found}

    # Workers.

    async def worker(self, worker: WorkerId) -> Worker | None:
        """Return a worker as last read."""
        if worker not in self._workers:
            found = await self.read(lambda chain: chain.read(self._processor.get_worker(worker)))
            if found is None:
                return None
            self._remember(found)
        return self._workers[worker]

    async def worker_by_key(self, key: PublicKey) -> Worker | None:
        """Return the worker that has registered *key*, `None` when nobody has."""
        known = self._ids.get(key)
        if known is not None:
            return await self.worker(known)
        found = await self.read(lambda chain: chain.read(self._processor.worker_by_key(key)))
        if found is not None:
            self._remember(found)
        return found

    def _remember(self, worker: Worker) -> None:
        self._workers[worker.worker] = worker
        self._ids[worker.signing_key] = worker.worker

    def known_workers(self) -> list[Worker]:
        """Return the workers that have been read so far."""
        return list(self._workers.values())

    async def has_measurement(self, measurement: bytes) -> bool:
        """Whether the measurement is allowed, as last read."""
        if measurement not in self._measurements:
            call = self._processor.has_measurement(measurement)
            self._measurements[measurement] = await self.read(lambda chain: chain.read(call))
        return self._measurements[measurement]

    async def view(self, job: Job, completion: Completion) -> JobView:
        """Return all that `verify_statement` compares a statement with."""
        rules = await self.rules()
        worker = await self.worker_by_key(completion.tee_worker_pubkey)
        return JobView(
            genesis_hash=self.genesis_hash,
            contract=self.contract,
            mode=rules.mode,
            parameters=rules.parameters,
            job=job,
            worker=worker,
            measurement_allowed=worker is not None
            and await self.has_measurement(worker.measurement),
        )

    # Calls that change something; each is made once, and its effect read back by the caller.

    async def complete_jobs(
        self, groups: Sequence[Sequence[Completion]]
    ) -> list[list[ContractError | None] | ContractError]:
        """Record and mark; one answer per group, a `ContractError` when the whole was refused."""
        calls = [self._processor.complete_jobs(group) for group in groups]

        def work(chain: Chain) -> list[list[ContractError | None] | ContractError]:
            if len(calls) > 1:
                answers = chain.batch(calls, signer=self._account)
                return [one.value if isinstance(one, Receipt) else one for one in answers]
            try:
                return [chain.call(calls[0], signer=self._account).value]
            except ContractError as error:
                return [error]

        return await self._once(work)

    async def record_attestation(self, completion: Completion) -> None:
        """Record one statement."""
        await self.call(self._processor.record_attestation(completion))

    async def mark_processed(self, job_id: JobId) -> None:
        """Mark one job processed."""
        await self.call(self._processor.mark_job_processed(job_id))

    async def expire(self, job_id: JobId) -> None:
        """Close a job whose deadline has passed."""
        await self.call(self._processor.expire_job(job_id))

    async def suspend(self, worker: WorkerId) -> None:
        """Suspend a worker."""
        await self.call(self._processor.suspend_worker(worker))


def is_closing(event: ContractEvent) -> bool:
    """Whether the event says that nothing more can be done about a job."""
    return event.name in _FINAL_EVENTS


def _windows(job_ids: Sequence[JobId]) -> list[tuple[JobId, int]]:
    """Cover sorted ids with as few pages as possible: where each starts, and its length."""
    windows: list[tuple[JobId, int]] = []
    for job_id in job_ids:
        if windows and job_id < windows[-1][0] + HEADS_PER_PAGE:
            start = windows[-1][0]
            windows[-1] = (start, job_id - start + 1)
        else:
            windows.append((job_id, 1))
    return windows
