"""
What an owner reads from the contract, at finalized blocks.

Nothing here needs a key. What a node answers is believed, within what one node can be asked:
`JobClient` says when that is enough.
"""

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace

from orchestrator.chain import Chain, Cursor
from orchestrator.chain.bundle import CONTRACT_VERSIONS, Bundle
from orchestrator.chain.paging import all_workers, next_place
from orchestrator.chain.processor import ContractEvent, JobProcessor
from orchestrator.errors import ChainMismatchError, InputError, UntrustedWorkerError
from orchestrator.models import (
    Attestation,
    Job,
    JobHead,
    JobId,
    JobStatus,
    Outcome,
    Parameters,
    Signature,
    Worker,
    WorkerId,
)

__all__ = ["ChainView", "JobHistory", "RecordedStatement"]

_PAGE = 50
_EVENT_PAGE = 1_000
_LAST_INDEX = (1 << 31) - 1
_MAX_JOB_ID = (1 << 128) - 1
_FINAL_EVENTS = {
    "JobProcessed": JobStatus.PROCESSED,
    "JobFailed": JobStatus.FAILED,
    "JobCancelled": JobStatus.CANCELLED,
    "JobExpired": JobStatus.EXPIRED,
}
_EVIDENCE_EVENTS = frozenset({"WorkerRegistered", "WorkerRenewed"})
_JOB_EVENTS = frozenset({"AttestationRecorded", "JobPurged", *_FINAL_EVENTS})


@dataclass(frozen=True, kw_only=True)
class RecordedStatement:
    """A statement as an event keeps it, also after the job is purged."""

    job_id: JobId
    worker: WorkerId
    outcome: Outcome
    result_hash: bytes
    units: int
    started_at: int
    finished_at: int
    issued_at: int
    signature: Signature


@dataclass(kw_only=True)
class JobHistory:
    """What events say about one job; `status` is the last that an event tells (times in ms)."""

    job_id: JobId
    owner: bytes
    payload_hash: bytes
    workers: tuple[WorkerId, ...]
    block: int
    created_at: int
    status: JobStatus = JobStatus.SUBMITTED
    purged: bool = False
    statements: list[RecordedStatement] = field(default_factory=list)


class ChainView:
    """Reads one contract, by the *bundle* that it runs (the package's unless given)."""

    def __init__(
        self,
        chain: Chain,
        contract: bytes,
        bundle: Bundle | None = None,
        *,
        check_chain: Callable[[Chain], None] = lambda _: None,
    ) -> None:
        self._check_chain = check_chain
        self.chain = chain
        self.contract = contract
        self.processor = JobProcessor(contract, bundle)
        self._is_known = False

    def require_contract(self) -> None:
        """
        Refuse a contract that was not deployed for this chain, or that speaks another protocol.

        Raises:
            ChainMismatchError: There is no such contract, it was deployed with another
                chain's genesis hash, or its version is not known here.
            Error: What *check_chain* raises, that the caller has given.
        """
        if self._is_known:
            return
        if self.chain.code_hash(self.contract) is None:
            raise ChainMismatchError(f"contract: there is none at 0x{self.contract.hex()}")
        genesis_hash = self.chain.read(self.processor.genesis_hash())
        if genesis_hash != self.chain.genesis_hash:
            raise ChainMismatchError(
                f"contract: deployed for the chain 0x{genesis_hash.hex()},"
                f" this is 0x{self.chain.genesis_hash.hex()}"
            )
        version = self.chain.read(self.processor.version())
        if version not in CONTRACT_VERSIONS:
            raise ChainMismatchError(
                f"contract: version {version}, this program knows {CONTRACT_VERSIONS}"
            )
        self._check_chain(self.chain)
        self._is_known = True

    def parameters(self) -> Parameters:
        """The contract's limits now."""
        return self.chain.read(self.processor.parameters())

    def job_counter(self) -> int:
        """The id of the last job."""
        return self.chain.read(self.processor.get_job_counter())

    def job(self, job_id: JobId) -> Job | None:
        """
        The job, `None` when there never was one or it was purged.

        Raises:
            ChainMismatchError: The node answers with another job.
        """
        found = self.chain.read(self.processor.get_job(job_id))
        if found is not None:
            _require_same("job", job_id, found.job_id)
        return found

    def attestation(self, job_id: JobId) -> Attestation | None:
        """
        What was recorded of the job's completion, `None` when nothing was.

        Raises:
            ChainMismatchError: The node answers with another job's.
        """
        found = self.chain.read(self.processor.get_attestation(job_id))
        if found is not None:
            _require_same("attestation of job", job_id, found.job_id)
        return found

    def worker(self, worker: WorkerId) -> Worker:
        """
        The worker, trusted or not.

        Raises:
            UntrustedWorkerError: It is not registered.
            ChainMismatchError: The node answers with another worker.
        """
        found = self.chain.read(self.processor.get_worker(worker))
        if found is None:
            raise UntrustedWorkerError("WorkerNotFound", f"there is no worker {worker}")
        _require_same("worker", worker, found.worker)
        return found

    def trusted_worker(self, worker: WorkerId, *, now: int) -> Worker:
        """
        The worker, once the contract says that it is trusted, also at *now* (own clock, ms).

        A worker's keys never change, so that "trusted" in the second read is about
        the keys of the first one, at the finalized block of the second.

        Raises:
            UntrustedWorkerError: It is not registered or not trusted.
        """
        found = self.worker(worker)
        self._require_trust(found, now=now)
        return found

    def trusted_workers(self, *, now: int) -> list[Worker]:
        """All workers that are trusted now, by id."""
        trusted = []
        for worker in self.workers():
            try:
                self._require_trust(worker, now=now)
            except UntrustedWorkerError:
                continue
            trusted.append(worker)
        return trusted

    def workers(self) -> Iterator[Worker]:
        """All registered workers by id, trusted or not."""
        return all_workers(self.chain, self.processor)

    def _require_trust(self, worker: Worker, *, now: int) -> None:
        if not self.chain.read(self.processor.is_trusted(worker.worker)):
            raise UntrustedWorkerError("WorkerNotTrusted", f"worker {worker.worker} is not trusted")
        latest = max(now, self.chain.now())
        if latest > worker.valid_until:
            raise UntrustedWorkerError(
                "WorkerNotTrusted",
                f"worker {worker.worker} is registered until {worker.valid_until}, it is {latest}",
            )

    def evidence_hashes(self, worker: WorkerId) -> Iterator[bytes]:
        """What events say were the hashes of the worker's evidence, the last one first."""
        yield from reversed(self.evidence_by_worker().get(worker, []))

    def evidence_by_worker(self) -> dict[WorkerId, list[bytes]]:
        """What events say were the hashes of each worker's evidence, the first one first."""
        found: dict[WorkerId, list[bytes]] = {}
        for event in self._events(0):
            if event.name in _EVIDENCE_EVENTS:
                hashes = found.setdefault(_number(event, "worker"), [])
                hashes.append(_bytes(event, "evidence_hash"))
        return found

    def heads(self, job_ids: Collection[JobId]) -> dict[JobId, JobHead]:
        """The heads of those of *job_ids* that exist; neighbours share a read."""
        heads: dict[JobId, JobHead] = {}
        wanted = sorted(set(job_ids))
        for job_id in (*wanted[:1], *wanted[-1:]):
            if not 0 <= job_id <= _MAX_JOB_ID:
                raise InputError(f"job_id: {job_id} is not in 0..{_MAX_JOB_ID}")
        place = 0
        while place < len(wanted):
            first = wanted[place]
            last = place
            while last + 1 < len(wanted) and wanted[last + 1] < first + _PAGE:
                last += 1
            limit = wanted[last] - first + 1
            page = self.chain.read(self.processor.jobs_page(first, limit))
            heads.update((head.job_id, head) for head in page.items)
            place = last + 1
        return {job_id: heads[job_id] for job_id in wanted if job_id in heads}

    def all_heads(self, *, start: JobId = 1) -> Iterator[tuple[list[JobHead], int, int]]:
        """Pages of heads from *start* on, each with the last id looked at and the last there is."""
        place: int | None = start
        while place is not None:
            page = self.chain.read(self.processor.jobs_page(place, _PAGE))
            place = next_place("jobs_page", place, page.next)
            yield list(page.items), page.total if place is None else place - 1, page.total

    def find_payloads(
        self, owner: bytes, payload_hashes: Collection[bytes], *, counter: int, block: int
    ) -> dict[bytes, tuple[JobId, int]]:
        """
        Which payloads of *owner* became jobs after *counter*, as payload hash → (job, block).

        `jobs_page` answers first; for what it does not know any more, because it was
        purged, the events since *block* do.
        """
        missing = set(payload_hashes)
        found: dict[bytes, tuple[JobId, int]] = {}
        if self.job_counter() > counter:
            for heads, _, _ in self.all_heads(start=counter + 1):
                for head in heads:
                    if head.owner == owner and head.payload_hash in missing:
                        found[head.payload_hash] = (head.job_id, block)
                        missing.discard(head.payload_hash)
                if not missing:
                    return found
            for history in self.histories(owner=owner, block=block).values():
                if history.payload_hash in missing:
                    found[history.payload_hash] = (history.job_id, history.block)
        return found

    def history(self, job_id: JobId, *, block: int) -> JobHistory:
        """
        What the events since *block* say about a job.

        Raises:
            InputError: They do not know it.
        """
        history = self.histories(job_id=job_id, block=block).get(job_id)
        if history is None:
            raise InputError(
                f"job_id: there is no job {job_id} on this contract, or it was purged"
                " and this node keeps no events of it"
            )
        return history

    def histories(
        self, *, owner: bytes | None = None, job_id: JobId | None = None, block: int = 0
    ) -> dict[JobId, JobHistory]:
        """The histories, since *block*, of the jobs of *owner*, or of one job."""
        histories: dict[JobId, JobHistory] = {}
        for event in self._events(block):
            if event.name == "JobSubmitted":
                started = _submitted(event)
                if (owner is None or started.owner == owner) and job_id in (None, started.job_id):
                    histories[started.job_id] = started
            elif event.name in _JOB_EVENTS:
                history = histories.get(_number(event, "job_id"))
                if history is not None:
                    _note(history, event)
                    if history.purged and job_id is not None:
                        # Nothing comes after a purge.
                        return histories
        return histories

    def _events(self, block: int) -> Iterator[ContractEvent]:
        head = self.chain.finalized_head()
        cursor = Cursor(block=block - 1, index=_LAST_INDEX)
        while True:
            page = self.chain.events(self.contract, after=cursor, limit=_EVENT_PAGE)
            for raw in page.events:
                yield self.processor.decode_event(raw)
            is_full = len(page.events) == _EVENT_PAGE
            if page.next <= cursor or (not is_full and page.next.block >= head.number):
                return
            cursor = page.next


def _require_same(what: str, asked: int, found: int) -> None:
    """What is about another id must not pass for what was asked for."""
    if found != asked:
        raise ChainMismatchError(f"{what} {asked}: the node answers with that of {found}")


def _submitted(event: ContractEvent) -> JobHistory:
    workers = event.fields["workers"]
    return JobHistory(
        job_id=_number(event, "job_id"),
        owner=_bytes(event, "owner"),
        payload_hash=_bytes(event, "payload_hash"),
        workers=tuple(workers) if isinstance(workers, list | tuple) else (),
        block=event.raw.block.number,
        created_at=event.raw.block.timestamp,
    )


def _note(history: JobHistory, event: ContractEvent) -> None:
    fields = event.statement
    if fields is not None:
        statement = _recorded(replace(event, fields=fields))
        history.statements.append(statement)
        if statement.outcome is Outcome.COMPLETED:
            history.status = JobStatus.ATTESTED
    if event.name == "JobPurged":
        history.purged = True
    elif event.name in _FINAL_EVENTS:
        history.status = _FINAL_EVENTS[event.name]


def _recorded(event: ContractEvent) -> RecordedStatement:
    outcome, signature = event.fields["outcome"], event.fields["signature"]
    if not isinstance(outcome, Outcome) or not isinstance(signature, Signature):
        raise ChainMismatchError(f"event {event.name}: not of this contract's version")
    return RecordedStatement(
        job_id=_number(event, "job_id"),
        worker=_number(event, "worker"),
        outcome=outcome,
        result_hash=_bytes(event, "result_hash"),
        units=_number(event, "units"),
        started_at=_number(event, "started_at"),
        finished_at=_number(event, "finished_at"),
        issued_at=_number(event, "issued_at"),
        signature=signature,
    )


def _number(event: ContractEvent, name: str) -> int:
    value = event.fields.get(name)
    if not isinstance(value, int):
        raise ChainMismatchError(f"event {event.name}: field {name} is not a number")
    return value


def _bytes(event: ContractEvent, name: str) -> bytes:
    value = event.fields.get(name)
    if not isinstance(value, bytes):
        raise ChainMismatchError(f"event {event.name}: field {name} is not bytes")
    return value
