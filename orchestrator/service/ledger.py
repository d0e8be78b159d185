"""
The chain as the service sees it: threads that talk to it, and what is known of the contract.

A `Chain` is used from one thread at a time, and a call takes as long as finality takes. So reads
and calls have a thread each, where there is a connection for each: what is read does not wait for
what is sent. Parameters, workers and measurements are read once and again when an event says that
they changed; the contract decides in the end, so that a moment's lag can only cost a refused call.
"""

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

from orchestrator.attestation.verifier import JobView
from orchestrator.chain import Block, Chain, Cursor, Receipt
from orchestrator.chain.processor import ContractEvent, JobProcessor
from orchestrator.errors import (
    ChainMismatchError,
    ChainUnavailableError,
    ContractError,
)
from orchestrator.metrics import ServiceEvent
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
from orchestrator.service.calls import Calls
from orchestrator.service.chain_line import ChainLine

__all__ = ["EventsRead", "Ledger", "Recorded"]

T = TypeVar("T")

EVENTS_PER_PAGE = 192
HEADS_PER_PAGE = 50  # protocol 1.8
# While the head stays the same there are no new events; that a node is gone, only asking tells.
QUIET_SECONDS = 1.0
_WORKER_EVENTS = frozenset(
    {"WorkerRenewed", "WorkerSuspended", "WorkerReinstated", "WorkerRevoked", "WorkerRegistered"}
)
_MEASUREMENT_EVENTS = frozenset({"MeasurementAllowed", "MeasurementRevoked"})
_RULE_EVENTS = frozenset({"ParametersChanged", "ModeChanged", "RoleGranted", "RoleRevoked"})
_FINAL_EVENTS = frozenset({"JobProcessed", "JobFailed", "JobCancelled", "JobExpired", "JobPurged"})


@dataclass(frozen=True, kw_only=True)
class EventsRead:
    """
    One page of events, the jobs that it submits as they are now, and the cursor behind it.

    A page may be empty and not the last: `is_last` says that it reaches the finalized head.
    `cursor_hash` is the hash of the cursor's block.
    """

    events: tuple[ContractEvent, ...]
    jobs: dict[JobId, Job | None]
    cursor: Cursor
    cursor_hash: bytes
    head: Block
    is_last: bool


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
    """
    Reads and calls one contract with one account; `start` first.

    *sender* is a connection of its own for calls; without it they share *chain*. For the rest see
    `Calls`.
    """

    def __init__(
        self,
        chain: Chain,
        processor: JobProcessor,
        account: Account,
        clock: Callable[[], int],
        *,
        sender: Chain | None = None,
        pending_seconds: float = 60.0,
        broke_seconds: float = 60.0,
        on_event: Callable[[ServiceEvent], None] = lambda _: None,
    ) -> None:
        self.genesis_hash = chain.genesis_hash
        self.contract = processor.contract
        self.account_id = account.account_id
        self._processor = processor
        self._account = account
        self._clock = clock
        self._ahead = 0
        self._reading = ChainLine(chain, "chain")
        self._sending = self._reading if sender is None else ChainLine(sender, "chain-sender")
        self.calls = Calls(
            self._sending,
            account,
            pending_seconds=pending_seconds,
            broke_seconds=broke_seconds,
            on_event=on_event,
        )
        self._workers: dict[WorkerId, Worker] = {}
        self._ids: dict[PublicKey, WorkerId] = {}
        self._measurements: dict[bytes, bool] = {}
        self._rules: Rules | None = None
        self._seen: tuple[Cursor, Block] | None = None
        self._asked_at = 0.0

    def close(self, *, seconds: float) -> None:
        """End the threads, in *seconds* at most each; the chains stay open."""
        self._reading.close(seconds=seconds)
        self._sending.close(seconds=seconds)

    async def read(self, work: Callable[[Chain], T]) -> T:
        """Run something that changes nothing, a few times if the chain can't be reached."""
        return await self._reading.repeated(work)

    # What the contract's rules are.

    async def start(self) -> None:
        """
        Read the rules, and wait for what is on its way from an earlier run.

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
        # Before anything is known of a job: an earlier run may have sent something just now.
        with contextlib.suppress(ChainUnavailableError):
            await self.calls.settle_doubt()

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
        """
        Return the later of our own time and the chain's (ms), without asking.

        A chain that makes no blocks stays at the time of its last one, and the next call sees a
        later time.
        """
        return self._clock() + self._ahead

    def _note_time(self, chain: Chain) -> None:
        self._ahead = max(0, chain.now() - self._clock())

    async def balance(self) -> int | None:
        """Return what our account has, in planck; `None` where there is no money."""
        account = await self.read(lambda chain: chain.account(self.account_id))
        return account.balance

    # Events.

    async def check_block(self, number: int, block_hash: bytes) -> None:
        """
        Make sure that the chain is the one that had this block; nothing is checked beyond its end.

        Raises:
            ChainMismatchError: It is another run of a development chain.
        """
        found = await self.read(lambda chain: chain.block_hash(number))
        if found is not None:
            _compare(number, block_hash, found)

    async def events(
        self, after: Cursor, limit: int = EVENTS_PER_PAGE, *, after_hash: bytes = b""
    ) -> EventsRead:
        """
        Read the next page of events, and forget what it says has changed.

        *after_hash* is the hash of the cursor's block, where it is known.

        Raises:
            ChainMismatchError: The chain has another block there.
        """
        page = await self.read(lambda chain: self._read_events(chain, after, after_hash, limit))
        for event in page.events:
            self._forget(event)
        return page

    def _read_events(
        self, chain: Chain, after: Cursor, after_hash: bytes, limit: int
    ) -> EventsRead:
        self._note_time(chain)
        head = chain.finalized_head()
        if head.number < after.block:
            # Otherwise a chain that began anew would look like one on which nothing happens.
            raise ChainUnavailableError(
                f"the chain's last block is {head.number}, and events were read up to block"
                f" {after.block}: the node is behind, or this is another run of a development chain"
                " (give another --folder), or --from-block is too high"
            )
        asked_ago = time.monotonic() - self._asked_at
        if self._seen == (after, head) and asked_ago < QUIET_SECONDS:
            return EventsRead(
                events=(), jobs={}, cursor=after, cursor_hash=after_hash, head=head, is_last=True
            )
        self._asked_at = time.monotonic()
        if after_hash:
            # Each time: a node may be replaced by one of another run while this one goes on.
            _compare(after.block, after_hash, chain.block_hash(after.block))
        page = chain.events(self.contract, after=after, limit=limit)
        if page.next <= after and after.block < head.number:
            raise ChainUnavailableError(f"the node shows no events beyond block {after.block}")
        events = tuple(self._processor.decode_event(raw) for raw in page.events)
        submitted = [
            cast("int", event.fields["job_id"]) for event in events if event.name == "JobSubmitted"
        ]
        jobs = {job_id: chain.read(self._processor.get_job(job_id)) for job_id in submitted}
        is_last = len(page.events) < limit and page.next.block >= head.number
        self._seen = (page.next, head) if is_last else None
        return EventsRead(
            events=events,
            jobs=jobs,
            cursor=page.next,
            cursor_hash=chain.block_hash(page.next.block) or b"",
            head=head,
            is_last=is_last,
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

    async def jobs(self, job_ids: Sequence[JobId]) -> dict[JobId, Job | None]:
        """Read jobs whole, where calls are sent, which knows of what it has just sent."""

        def work(chain: Chain) -> dict[JobId, Job | None]:
            return {job_id: chain.read(self._processor.get_job(job_id)) for job_id in job_ids}

        return await self._sending.repeated(work)

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
        """
        Read where the jobs stand, without their payloads; purged ones are left out.

        It is read where calls are sent, which knows of what it has just sent.
        """
        wanted = sorted(set(job_ids))

        def work(chain: Chain) -> dict[JobId, JobStatus]:
            found: dict[JobId, JobStatus] = {}
            for start, limit in _windows(wanted):
                page = chain.read(self._processor.jobs_page(start, limit))
                found.update({head.job_id: head.status for head in page.items})
            return found

        found = await self._sending.repeated(work)
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
        jobs = sum(len(group) for group in groups)

        def work(chain: Chain) -> tuple[list[list[ContractError | None] | ContractError], int]:
            answers: list[Receipt[list[ContractError | None]] | ContractError]
            if len(calls) > 1:
                answers = chain.batch(calls, signer=self._account)
            else:
                try:
                    answers = [chain.call(calls[0], signer=self._account)]
                except ContractError as error:
                    answers = [error]
            fee = sum(answer.fee for answer in answers if isinstance(answer, Receipt))
            return [one.value if isinstance(one, Receipt) else one for one in answers], fee

        return await self.calls.send(work, jobs=jobs)

    async def record_attestation(self, completion: Completion) -> None:
        """Record one statement."""
        await self.calls.make(self._processor.record_attestation(completion), jobs=1)

    async def mark_processed(self, job_id: JobId) -> None:
        """Mark one job processed."""
        await self.calls.make(self._processor.mark_job_processed(job_id), jobs=1)

    async def expire(self, job_id: JobId) -> None:
        """Close a job whose deadline has passed."""
        await self.calls.make(self._processor.expire_job(job_id))

    async def suspend(self, worker: WorkerId) -> None:
        """Suspend a worker."""
        await self.calls.make(self._processor.suspend_worker(worker))


def _compare(number: int, expected: bytes, found: bytes | None) -> None:
    if found is None:
        raise ChainUnavailableError(f"the node does not have block {number} any more")
    if found != expected:
        raise ChainMismatchError(
            f"block {number} is 0x{found.hex()}, and the journal has read 0x{expected.hex()}: this"
            " is another run of a development chain; remove the journal, or choose another"
            " folder (--folder)"
        )


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
