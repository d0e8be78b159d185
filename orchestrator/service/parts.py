"""What every part of the service works with: the ports, the settings, and how things are told."""

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestrator.blobs import BlobStore
from orchestrator.errors import BlobError, BlobUnavailableError, JournalError
from orchestrator.journal import JobRecord, JobState, Journal
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.models import JobId, WorkerId
from orchestrator.service.ledger import Ledger
from orchestrator.service.settings import OrchestratorSettings
from orchestrator.service.steps import Step, Steps

__all__ = ["Parts"]

_LOG = logging.getLogger("orchestrator.service")
_ALARMING = frozenset({EventKind.CONFLICT, EventKind.NO_FUNDS})
# What asking again alone does not mend: somebody has to do what the error says.
_ALARMING_CODES = frozenset({"ChainMismatchError", "PrunedStateError"})
_WORTH_A_WARNING = frozenset(
    {
        EventKind.REFUSED,
        EventKind.ATTESTATION_REFUSED,
        EventKind.BLOB_ERROR,
        EventKind.CHAIN_ERROR,
        EventKind.LOW_BALANCE,
        EventKind.WORKER_ERROR,
        EventKind.WORKER_REFUSED,
    }
)


class RecordWriter:
    """Writes rows of the journal that are handed in at about the same time as one transaction."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._waiting: list[tuple[JobRecord, asyncio.Future[None]]] = []

    async def save(self, record: JobRecord) -> None:
        """
        Return once the row is written.

        Raises:
            JournalError: It could not be.
        """
        loop = asyncio.get_running_loop()
        written: asyncio.Future[None] = loop.create_future()
        self._waiting.append((record, written))
        if len(self._waiting) == 1:
            loop.call_soon(self._write)
        await written

    def _write(self) -> None:
        waiting, self._waiting = self._waiting, []
        failure: JournalError | None = None
        try:
            self._journal.save([record for record, _ in waiting])
        except JournalError as error:
            failure = error
        for _, written in waiting:
            if written.done():
                continue  # whoever asked was cancelled
            if failure is None:
                written.set_result(None)
            else:
                written.set_exception(JournalError(str(failure)))


@dataclass(frozen=True, kw_only=True)
class Parts:
    """
    The service's ports and settings.

    `emit` hands an event to the log and to the hook; a hook that fails is logged and
    otherwise ignored, because telling must not stop the work.
    """

    ledger: Ledger
    journal: Journal
    blobs: BlobStore
    settings: OrchestratorSettings
    steps: Steps
    records: RecordWriter
    on_event: Callable[[ServiceEvent], None]

    def emit(self, event: ServiceEvent) -> None:
        """Tell that something happened."""
        level = logging.DEBUG
        if event.kind in _ALARMING or event.code in _ALARMING_CODES:
            level = logging.ERROR
        elif event.kind in _WORTH_A_WARNING:
            level = logging.WARNING
        if _LOG.isEnabledFor(level):
            _LOG.log(
                level,
                "%s job=%s worker=%s %s %s",
                event.kind.value,
                event.job_id,
                event.worker,
                event.code,
                event.detail,
            )
        try:
            self.on_event(event)
        except Exception:  # noqa: BLE001  # as promised
            _LOG.exception("the event hook failed")

    def write_refusal(
        self,
        kind: EventKind,
        *,
        job_id: JobId,
        worker: WorkerId | None,
        code: str,
        detail: str,
    ) -> None:
        """Write down and tell that something about a job was refused."""
        with self.steps.at(Step.WRITE_REFUSAL):
            self.journal.add_refusal(
                job_id=job_id,
                worker=worker or 0,
                code=code,
                detail=detail,
                at=self.ledger.now(),
            )
        self.emit(ServiceEvent(kind=kind, job_id=job_id, worker=worker, code=code, detail=detail))

    def moved(self, record: JobRecord, state: JobState, *, code: str = "") -> JobRecord:
        """Return the row in another state, as of now; it is not written."""
        return replace(record, state=state, code=code, detail="", updated_at=self.ledger.now())

    async def store_blob(self, data: bytes) -> None:
        """
        Keep sealed bytes durably.

        Raises:
            BlobUnavailableError: They could not be kept now (a full disk, for instance).
        """
        with self.steps.at(Step.STORE_RESULT):
            try:
                await asyncio.to_thread(self.blobs.put, data)
            except BlobUnavailableError:
                raise
            except (BlobError, OSError) as error:
                raise BlobUnavailableError(f"the result can't be kept: {error}") from error
