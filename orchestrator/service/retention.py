"""What is not kept for ever: the journal's rows about closed jobs, and their sealed results."""

import asyncio

from orchestrator.errors import BlobUnavailableError
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.service.admission import DAY
from orchestrator.service.parts import Parts
from orchestrator.service.steps import Step

__all__ = ["Retention"]


class Retention:
    """Forgets, once a day, what the settings say need not be kept any longer."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._day = -1
        self._deleted_before = 0

    async def apply(self) -> None:
        """
        Forget what is old enough, unless that was done today.

        The journal says which results there are, so it keeps its rows at least as long as them.

        Raises:
            JournalError: The journal can't be used.
        """
        now, settings = self._parts.ledger.now(), self._parts.settings
        if now // DAY == self._day:
            return
        self._day = now // DAY
        if settings.keep_results_days:
            await self._delete_results(before=now - settings.keep_results_days * DAY)
        keep_days = max(settings.keep_days, settings.keep_results_days)
        with self._parts.steps.at(Step.PRUNE_JOURNAL):
            self._parts.journal.prune(before=now - keep_days * DAY)

    async def _delete_results(self, *, before: int) -> None:
        parts = self._parts

        def delete(digests: list[bytes]) -> None:
            for digest in digests:
                parts.blobs.delete(digest)

        with parts.steps.at(Step.DELETE_RESULTS):
            digests = parts.journal.unneeded_results(since=self._deleted_before, before=before)
            try:
                await asyncio.to_thread(delete, digests)
            except BlobUnavailableError as error:  # tried again tomorrow
                code = type(error).__name__
                parts.emit(
                    ServiceEvent(kind=EventKind.BLOB_ERROR, code=code, detail=f"delete: {error}")
                )
                return
        self._deleted_before = before
