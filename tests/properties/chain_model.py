"""
What is known of a contract from its own events: enough to draw calls that it mostly accepts.

It decides nothing. Where it is wrong, a call is refused that was meant to be accepted.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestrator.chain.processor import ContractEvent, JobProcessor
from orchestrator.crypto.keys import AccountKey
from orchestrator.models import (
    JobId,
    JobStatus,
    Mode,
    Outcome,
    Parameters,
    PublicKey,
    Role,
    Signer,
    WorkerId,
    WorkerStatus,
)

_JOB_ENDS = {
    "JobProcessed": JobStatus.PROCESSED,
    "JobFailed": JobStatus.FAILED,
    "JobCancelled": JobStatus.CANCELLED,
    "JobExpired": JobStatus.EXPIRED,
}
_WORKER_TURNS = {
    "WorkerSuspended": WorkerStatus.SUSPENDED,
    "WorkerReinstated": WorkerStatus.ACTIVE,
    "WorkerRevoked": WorkerStatus.REVOKED,
}


@dataclass
class KnownJob:
    """A job that was submitted and not purged; `failed` are the workers that failed it."""

    job_id: JobId
    owner: bytes
    workers: tuple[WorkerId, ...]
    created_at: int
    deadline: int
    payload_hash: bytes
    status: JobStatus = JobStatus.SUBMITTED
    attested_by: WorkerId | None = None
    result_hash: bytes = b""
    failed: set[WorkerId] = field(default_factory=set)


@dataclass
class KnownWorker:
    """A registered worker and the key that it signs with."""

    worker: WorkerId
    signer: Signer
    encryption_key: bytes
    measurement: bytes
    valid_until: int
    status: WorkerStatus = WorkerStatus.ACTIVE


class Model:
    """The contract as its events tell; `now` is the time (ms) of the last block."""

    def __init__(
        self,
        processor: JobProcessor,
        genesis_hash: bytes,
        accounts: Sequence[AccountKey],
        parameters: Parameters,
    ) -> None:
        self.processor = processor
        self.genesis_hash = genesis_hash
        self.accounts = list(accounts)
        self.now = 0
        self.admin = accounts[0].account_id
        self.proposed: bytes | None = None
        self.parameters = parameters
        self.mode = Mode.RUNNING
        self.roles: set[tuple[bytes, Role]] = set()
        self.jobs: dict[JobId, KnownJob] = {}
        self.purged: list[JobId] = []
        self.workers: dict[WorkerId, KnownWorker] = {}
        self.signers: dict[PublicKey, Signer] = {}
        self.allowed: set[bytes] = set()
        self.revoked: set[bytes] = set()
        self.windows: dict[bytes, tuple[int, int]] = {}

    def account(self, account_id: bytes) -> AccountKey | None:
        """Return the account with this id, if it is one of ours."""
        return next((a for a in self.accounts if a.account_id == account_id), None)

    def jobs_in(self, *statuses: JobStatus) -> list[KnownJob]:
        """Return the jobs in one of these statuses."""
        return [job for job in self.jobs.values() if job.status in statuses]

    def is_trusted(self, worker: KnownWorker) -> bool:
        """Return whether a worker is trusted now."""
        return (
            worker.status is WorkerStatus.ACTIVE
            and worker.measurement in self.allowed
            and self.now <= worker.valid_until
        )

    def submits_left(self, account: bytes) -> int:
        """Return how many jobs an account may still submit in its window."""
        start, used = self.windows.get(account, (0, 0))
        over = self.now > start + self.parameters.rate_window
        return self.parameters.rate_limit - (0 if over else used)

    def learn(self, event: ContractEvent) -> None:
        """Take in one event."""
        # The metadata gives the fields their types.
        fields: Mapping[str, Any] = event.fields
        if event.statement is not None:
            self._recorded(event.statement)
        if event.name in _JOB_ENDS:
            self.jobs[fields["job_id"]].status = _JOB_ENDS[event.name]
        elif event.name in _WORKER_TURNS:
            self.workers[fields["worker"]].status = _WORKER_TURNS[event.name]
        elif event.name in _LESSONS:
            _LESSONS[event.name](self, fields, event.raw.block.timestamp)

    def _submitted(self, fields: Mapping[str, Any], time: int) -> None:
        job = KnownJob(
            job_id=fields["job_id"],
            owner=fields["owner"],
            workers=tuple(fields["workers"]),
            created_at=time,
            deadline=fields["deadline"],
            payload_hash=fields["payload_hash"],
        )
        self.jobs[job.job_id] = job
        start, used = self.windows.get(job.owner, (0, 0))
        is_over = time > start + self.parameters.rate_window
        self.windows[job.owner] = (time, 1) if is_over else (start, used + 1)

    def _recorded(self, fields: Mapping[str, Any]) -> None:
        job = self.jobs[fields["job_id"]]
        if fields["outcome"] is Outcome.COMPLETED:
            job.status = JobStatus.ATTESTED
            job.attested_by, job.result_hash = fields["worker"], fields["result_hash"]
        else:
            job.failed.add(fields["worker"])

    def _purged(self, fields: Mapping[str, Any], _time: int) -> None:
        self.purged.append(self.jobs.pop(fields["job_id"]).job_id)

    def _registered(self, fields: Mapping[str, Any], _time: int) -> None:
        self.workers[fields["worker"]] = KnownWorker(
            worker=fields["worker"],
            signer=self.signers[fields["signing_key"]],
            encryption_key=fields["encryption_key"],
            measurement=fields["measurement"],
            valid_until=fields["valid_until"],
        )

    def _renewed(self, fields: Mapping[str, Any], _time: int) -> None:
        self.workers[fields["worker"]].valid_until = fields["valid_until"]

    def _allowed(self, fields: Mapping[str, Any], _time: int) -> None:
        self.allowed.add(fields["measurement"])

    def _disallowed(self, fields: Mapping[str, Any], _time: int) -> None:
        self.allowed.discard(fields["measurement"])
        self.revoked.add(fields["measurement"])

    def _granted(self, fields: Mapping[str, Any], _time: int) -> None:
        self.roles.add((fields["account"], fields["role"]))

    def _taken(self, fields: Mapping[str, Any], _time: int) -> None:
        self.roles.discard((fields["account"], fields["role"]))

    def _proposed(self, fields: Mapping[str, Any], _time: int) -> None:
        self.proposed = fields["proposed"]

    def _succeeded(self, fields: Mapping[str, Any], _time: int) -> None:
        self.admin, self.proposed = fields["admin"], None

    def _limited(self, fields: Mapping[str, Any], _time: int) -> None:
        self.parameters = fields["parameters"]

    def _switched(self, fields: Mapping[str, Any], _time: int) -> None:
        self.mode = fields["mode"]


_LESSONS: Mapping[str, Callable[[Model, Mapping[str, Any], int], None]] = {
    "JobSubmitted": Model._submitted,
    "JobPurged": Model._purged,
    "WorkerRegistered": Model._registered,
    "WorkerRenewed": Model._renewed,
    "MeasurementAllowed": Model._allowed,
    "MeasurementRevoked": Model._disallowed,
    "RoleGranted": Model._granted,
    "RoleRevoked": Model._taken,
    "AdminProposed": Model._proposed,
    "AdminChanged": Model._succeeded,
    "ParametersChanged": Model._limited,
    "ModeChanged": Model._switched,
}
