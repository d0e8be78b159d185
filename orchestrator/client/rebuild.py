"""Restores the client's own list of jobs from the chain."""

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.client.chain_view import ChainView, JobHistory
from orchestrator.client.entries import ListedJob
from orchestrator.client.job_list import JobList

__all__ = ["RebuildProgress", "rebuild"]


@dataclass(frozen=True, kw_only=True)
class RebuildProgress:
    """How many of all jobs `rebuild` has looked at, and how many are this owner's."""

    examined: int
    total: int
    found: int


def rebuild(
    view: ChainView,
    job_list: JobList,
    *,
    owner: bytes,
    progress: Callable[[RebuildProgress], None] | None,
) -> int:
    """Write all jobs of *owner* into the list and return how many there are."""
    found, total = 0, 0
    for heads, examined, total in view.all_heads():
        own = [head for head in heads if head.owner == owner]
        job_list.restore(
            ListedJob(
                job_id=head.job_id,
                key=None,
                payload_hash=head.payload_hash,
                workers=head.workers,
                status=head.status,
                purged=False,
                block=0,
                created_at=head.created_at,
            )
            for head in own
        )
        found += len(own)
        if progress:
            progress(RebuildProgress(examined=examined, total=total, found=found))
    # The events know the purged ones too, and the blocks of all.
    job_list.restore(_listed(history) for history in view.histories(owner=owner).values())
    jobs = job_list.jobs()
    if progress:
        progress(RebuildProgress(examined=total, total=total, found=len(jobs)))
    return len(jobs)


def _listed(history: JobHistory) -> ListedJob:
    return ListedJob(
        job_id=history.job_id,
        key=None,
        payload_hash=history.payload_hash,
        workers=history.workers,
        status=history.status,
        purged=history.purged,
        block=history.block,
        created_at=history.created_at,
    )
