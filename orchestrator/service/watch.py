"""
Follows the chain's events from the journal's cursor, and admits jobs.

Each page of events is one transaction of the journal: rows of new jobs, what their owners have
used today, and the cursor behind it. So a page is seen again after a crash, or not at all.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Protocol, cast

from orchestrator.chain import Cursor
from orchestrator.chain.processor import ContractEvent
from orchestrator.errors import ChainError
from orchestrator.journal import JobRecord, JobState, PageChanges, SeenStatement, Usage
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.models import Job, JobId, JobStatus, Outcome, Signature
from orchestrator.service.admission import (
    DAY,
    OWNER_NOT_ALLOWED,
    Admission,
    AdmissionPolicy,
    Refused,
    payload_size,
)
from orchestrator.service.backlog import OpenJob
from orchestrator.service.ledger import EVENTS_PER_PAGE, EventsRead, is_closing
from orchestrator.service.parts import Parts
from orchestrator.service.steps import Step
from orchestrator.service.trust import TrustedWorkers

__all__ = ["Watch"]

BLOCKS_UNWRITTEN = 100  # a cursor on quiet blocks is not worth a write for each
_CLOSED_AS = {
    JobStatus.PROCESSED: JobState.PROCESSED,
    JobStatus.FAILED: JobState.FAILED,
    JobStatus.CANCELLED: JobState.CANCELLED,
    JobStatus.EXPIRED: JobState.EXPIRED,
}
OWNERS_SHARE = 4  # the part of the jobs followed at once that may be one owner's
OPEN_JOBS = "OpenJobs"
_DECIDED = {
    Admission.REFUSED: (JobState.REFUSED, EventKind.REFUSED),
    Admission.DEFERRED: (JobState.DEFERRED, EventKind.DEFERRED),
}


class OnChanged(Protocol):
    """Hears that something was recorded about a job; `is_closed` when nothing more can be."""

    def __call__(self, job_id: JobId, *, is_closed: bool) -> None: ...


class Watch:
    """
    Reads events; hands new jobs to `on_admitted` and changed ones to `on_changed`.

    `open_of` says how many jobs of an owner are followed now. Those over its share are
    deferred until half of them are closed, so that other owners' jobs are read meanwhile.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        policy: AdmissionPolicy,
        trust: TrustedWorkers,
        on_admitted: Callable[[OpenJob], None],
        on_changed: OnChanged,
        open_of: Callable[[bytes], int],
    ) -> None:
        self._parts = parts
        self._policy = policy
        self._trust = trust
        self._on_admitted = on_admitted
        self._on_changed = on_changed
        self._open_of = open_of
        self._share = max(1, parts.settings.open_jobs // OWNERS_SHARE)
        self._deciding: Counter[bytes] = Counter()  # admitted, and not handed on yet
        self._crowded: set[bytes] = set()  # owners of whom jobs are over the share
        self._is_readmitting = False
        block, index = parts.journal.cursor()
        first = Cursor(block=parts.settings.from_block, index=-1)
        read = Cursor(block=block, index=index)
        self._cursor = max(read, first)
        self._cursor_hash = parts.journal.cursor_hash() if read >= first else b""
        self._written_block = block
        self._usage: dict[tuple[int, bytes], Usage] = {}
        self._readmitted_day = -1

    async def check_chain(self) -> None:
        """
        Make sure that the journal's cursor is of this very chain.

        Raises:
            ChainMismatchError: The chain has another block there.
        """
        block, block_hash = self._parts.journal.cursor()[0], self._parts.journal.cursor_hash()
        if block_hash:
            await self._parts.ledger.check_block(block, block_hash)

    async def read_page(self, *, room: int = EVENTS_PER_PAGE) -> EventsRead:
        """Read and handle the next page of at most *room* events."""
        page = await self._parts.ledger.events(
            self._cursor, limit=max(1, room), after_hash=self._cursor_hash
        )
        if page.events or page.cursor.block - self._written_block >= BLOCKS_UNWRITTEN:
            await self._compare_statements(page)
            self._admit(page)
            for event in page.events:
                self._tell_change(event)
        self._cursor, self._cursor_hash = page.cursor, page.cursor_hash
        return page

    def _tell_change(self, event: ContractEvent) -> None:
        if event.statement is not None or is_closing(event):
            self._on_changed(cast("int", event.fields["job_id"]), is_closed=is_closing(event))

    # Statements on the chain.

    async def _compare_statements(self, page: EventsRead) -> None:
        """What a worker has on the chain must be what it told us (protocol 5, check 5)."""
        recorded = [event.statement for event in page.events if event.statement is not None]
        if not recorded:
            return
        job_ids = sorted({cast("int", fields["job_id"]) for fields in recorded})
        # An event does not tell the payload. What we have a statement about, we have seen submitted
        # on the chain that has the cursor's block, so the payload is that of our row.
        rows = self._parts.journal.records(job_ids)
        payloads = {row.job_id: row.payload_hash for row in rows}
        known = self._parts.journal.statements(job_ids)
        first_seen = {(seen.job_id, seen.worker, seen.payload_hash): seen for seen in known}
        for fields in recorded:
            payload_hash = payloads.get(cast("int", fields["job_id"]))
            if payload_hash is None:
                continue
            seen = _recorded(fields, payload_hash)
            first = first_seen.get((seen.job_id, seen.worker, payload_hash))
            if first is not None and first.conflicts_with(seen):
                await self._trust.distrust(first, seen)

    # Admission.

    def _admit(self, page: EventsRead) -> None:
        """Decide about the page's jobs, and write all of it at once."""
        known = {record.job_id: record for record in self._parts.journal.records(sorted(page.jobs))}
        new = [
            self._decide(event, page.jobs[cast("int", event.fields["job_id"])])
            for event in page.events
            if event.name == "JobSubmitted" and event.fields["job_id"] not in known
        ]
        changes = PageChanges(
            cursor=(page.cursor.block, page.cursor.index),
            cursor_hash=page.cursor_hash,
            records=[record for record, _, _ in new],
            usage=self._usage,
        )
        with self._parts.steps.at(Step.WRITE_PAGE):
            self._parts.journal.write_page(changes)
        self._written_block = page.cursor.block
        self._usage.clear()
        self._deciding.clear()
        for record, job, event in new:
            self._tell(record, event)
            if record.state is JobState.ADMITTED:
                self._on_admitted(OpenJob(record=record, job=job, needs_review=_needs_review(job)))

    def _decide(
        self, event: ContractEvent, job: Job | None
    ) -> tuple[JobRecord, Job | None, ServiceEvent]:
        """Make the new job's row, and say what is to be told about it."""
        now = self._parts.ledger.now()
        fields = event.fields
        record = JobRecord(
            job_id=cast("int", fields["job_id"]),
            owner=cast("bytes", fields["owner"]),
            payload_hash=cast("bytes", fields["payload_hash"]),
            workers=tuple(cast("Sequence[int]", fields["workers"])),
            created_at=job.created_at if job else event.raw.block.timestamp,
            deadline=cast("int", fields["deadline"]),
            size=payload_size(job) if job else 0,
            state=JobState.ADMITTED,
            seen_at=now,
            updated_at=now,
        )
        if job is None:
            record = replace(record, state=JobState.PURGED)
            return record, None, _event(EventKind.PURGED, record)
        if job.status.is_final:
            # Somebody else's work, or ours before the journal was lost.
            record = replace(record, state=_CLOSED_AS[job.status])
            return record, None, _event(EventKind.SUBMITTED, record)
        record, kind = self._apply_policy(record, job)
        return record, job, _event(kind, record)

    def _apply_policy(self, record: JobRecord, job: Job) -> tuple[JobRecord, EventKind]:
        today = (self._parts.ledger.now() // DAY, record.owner)
        used = self._usage.get(today) or self._parts.journal.usage(*today)
        refused = self._policy.decide(job, used=used) or self._crowding(record.owner)
        if refused is None:
            self._deciding[record.owner] += 1
            self._usage[today] = Usage(jobs=used.jobs + 1, bytes=used.bytes + record.size)
            return replace(record, state=JobState.ADMITTED, code="", detail=""), EventKind.ADMITTED
        state, kind = _DECIDED[refused.decision]
        return replace(record, state=state, code=refused.code, detail=refused.detail), kind

    def _crowding(self, owner: bytes) -> Refused | None:
        if self._open_of(owner) + self._deciding[owner] < self._share:
            return None
        self._crowded.add(owner)
        return Refused(
            decision=Admission.DEFERRED,
            code=OPEN_JOBS,
            detail=f"{self._share} jobs of the owner are open, its share",
        )

    def _tell(self, record: JobRecord, event: ServiceEvent) -> None:
        if event.kind is not EventKind.SUBMITTED:
            self._parts.emit(_event(EventKind.SUBMITTED, record))
        self._parts.emit(event)

    async def readmit(self) -> None:
        """
        On a new day, and when an owner has room again, decide again about deferred jobs.

        At the start also about those refused because of an owner who is on the list now.
        """
        day = self._parts.ledger.now() // DAY
        is_new_day = day != self._readmitted_day
        freed = self._freed()
        if not is_new_day and not freed:
            return
        self._crowded -= freed
        self._is_readmitting = True
        try:
            if self._readmitted_day < 0:
                await self._readmit_owners()
            await self._readmit_all(None if is_new_day else freed)
        except ChainError:
            self._crowded |= freed
            raise
        finally:
            self._is_readmitting = False
        self._readmitted_day = day

    async def _readmit_all(self, owners: set[bytes] | None) -> None:
        """Decide again about all deferred jobs, or about those over the share of some owners."""
        after = 0
        while records := self._parts.journal.deferred_records(after=after, limit=100):
            after = records[-1].job_id
            for record in records:
                is_crowding = record.code == OPEN_JOBS
                if is_crowding and self._crowding(record.owner) is not None:
                    continue  # not worth asking the chain
                if owners is None or (is_crowding and record.owner in owners):
                    await self._readmit(record)

    async def _readmit_owners(self) -> None:
        """Another list of owners is another decision: nobody else may ever do those jobs."""
        after = 0
        while records := self._parts.journal.refused_records(
            OWNER_NOT_ALLOWED, after=after, limit=100
        ):
            after = records[-1].job_id
            for record in records:
                if self._policy.has_owner(record.owner):
                    await self._readmit(record)

    @property
    def is_readmitting(self) -> bool:
        """Whether deferred jobs are decided again now, or soon because an owner has room."""
        return self._is_readmitting or bool(self._freed())

    def _freed(self) -> set[bytes]:
        return {owner for owner in self._crowded if self._open_of(owner) <= self._share // 2}

    async def _readmit(self, record: JobRecord) -> None:
        job = await self._parts.ledger.job(record.job_id)
        now = self._parts.ledger.now()
        if job is None or job.status.is_final:
            state = _CLOSED_AS[job.status] if job else JobState.PURGED
            decided = replace(record, state=state, updated_at=now)
        else:
            decided, _ = self._apply_policy(replace(record, updated_at=now), job)
        with self._parts.steps.at(Step.WRITE_READMITTED):
            self._parts.journal.write_page(
                PageChanges(
                    cursor=(self._cursor.block, self._cursor.index),
                    cursor_hash=self._cursor_hash,
                    records=[decided],
                    usage=self._usage,
                )
            )
        self._usage.clear()
        self._deciding.clear()
        if decided.state is JobState.ADMITTED:
            self._parts.emit(_event(EventKind.ADMITTED, decided))
            self._on_admitted(OpenJob(record=decided, job=None, needs_review=True))


def _needs_review(job: Job | None) -> bool:
    """Whether there is more to find out about the job than that it waits for a worker."""
    return job is None or job.status is not JobStatus.SUBMITTED or bool(job.failures)


def _event(kind: EventKind, record: JobRecord) -> ServiceEvent:
    return ServiceEvent(kind=kind, job_id=record.job_id, code=record.code, detail=record.detail)


def _recorded(fields: Mapping[str, object], payload_hash: bytes) -> SeenStatement:
    """Return the statement of an event, which the contract has verified."""
    return SeenStatement(
        job_id=cast("int", fields["job_id"]),
        worker=cast("int", fields["worker"]),
        payload_hash=payload_hash,
        outcome=cast("Outcome", fields["outcome"]),
        result_hash=cast("bytes", fields["result_hash"]),
        units=cast("int", fields["units"]),
        started_at=cast("int", fields["started_at"]),
        finished_at=cast("int", fields["finished_at"]),
        issued_at=cast("int", fields["issued_at"]),
        signature=cast("Signature", fields["signature"]).data,
    )
