"""
The owner's side: `JobClient`, and `AsyncJobClient` for asyncio.

Seals tasks to trusted workers, submits each exactly once, waits, and shows a result only after
every check of "an owner accepts" (protocol section 3.4).
"""

from orchestrator.client.asynchronous import AsyncJobClient
from orchestrator.client.blob_search import WorkerBlobs
from orchestrator.client.entries import ListedJob, UnfinishedJob
from orchestrator.client.job_client import JobClient
from orchestrator.client.rebuild import RebuildProgress
from orchestrator.client.results import JobFailedError, JobFailure, Result
from orchestrator.client.sealer import DEFAULT_TTL_MS, Submission
from orchestrator.client.submitter import SubmitProgress
from orchestrator.client.watch import WaitProgress

__all__ = [
    "DEFAULT_TTL_MS",
    "AsyncJobClient",
    "JobClient",
    "JobFailedError",
    "JobFailure",
    "ListedJob",
    "RebuildProgress",
    "Result",
    "Submission",
    "SubmitProgress",
    "UnfinishedJob",
    "WaitProgress",
    "WorkerBlobs",
]
