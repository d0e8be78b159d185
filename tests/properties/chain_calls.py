"""Calls about jobs, drawn at random so that the contract accepts them as far as a `Model` tells."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from orchestrator.attestation.statement import sign_statement, statement_of
from orchestrator.chain import ContractCall
from orchestrator.crypto.keys import AccountKey, load_signer
from orchestrator.models import (
    AttestationProof,
    Completion,
    JobOptions,
    JobStatus,
    Outcome,
    Role,
    Scheme,
    Signature,
    Signer,
    WorkerId,
    WorkerStatus,
)
from tests.properties.chain_model import KnownJob, KnownWorker, Model

AnyCall: TypeAlias = ContractCall[Any]

SECOND, MINUTE, HOUR = 1_000, 60_000, 3_600_000


@dataclass(frozen=True)
class Recipe:
    """How to draw one kind of call: who may send it, and its making (`None`: not in this state)."""

    weight: float
    who: Callable[[], Sequence[AccountKey]]
    make: Callable[[AccountKey], AnyCall | None]


def by(
    who: Callable[[], Sequence[AccountKey]], make: Callable[[AccountKey], AnyCall | None]
) -> Recipe:
    """Return a recipe that is as likely as any."""
    return Recipe(1, who, make)


class JobCalls:
    """
    Draws calls; the methods that return `None` sometimes find nothing to do.

    `called` counts by label what was sent.
    """

    def __init__(self, model: Model, rng: random.Random, codes: Sequence[bytes]) -> None:
        self.model = model
        self.rng = rng
        self.codes = codes
        self.called: Counter[str] = Counter()
        # A worker that nobody registers.
        self.stranger = load_signer(Scheme.ECDSA, rng.randbytes(32))
        self.processor = model.processor

    def job_recipes(self) -> list[Recipe]:
        """Return how jobs are submitted, finished and removed."""
        anyone, owners = self.anyone, self.submitters
        return [
            Recipe(14, owners, self.submit),
            Recipe(5, owners, self.submit_reference),
            Recipe(14, anyone, lambda _: self.record(Outcome.COMPLETED)),
            Recipe(6, anyone, lambda _: self.record(Outcome.FAILED)),
            Recipe(7, lambda: self.holders(Role.OPERATOR), lambda _: self.complete()),
            Recipe(8, anyone, self.mark),
            Recipe(4, anyone, self.cancel),
            Recipe(6, anyone, lambda _: self.expire()),
            Recipe(8, anyone, self.purge),
            Recipe(3, self.without_jobs, lambda _: self.processor.release_account()),
            Recipe(5, anyone, lambda _: self.look()),
        ]

    # Who.

    def anyone(self) -> Sequence[AccountKey]:
        return self.model.accounts

    def submitters(self) -> Sequence[AccountKey]:
        # The last two hardly ever submit, so that they have no jobs at times.
        few = self.rng.random() < 0.06
        accounts = self.model.accounts
        chosen = accounts[-2:] if few else accounts[:-2]
        return [a for a in chosen if self.model.submits_left(a.account_id) > 0]

    def without_jobs(self) -> Sequence[AccountKey]:
        busy = {job.owner for job in self.model.jobs.values()}
        window = self.model.parameters.rate_window
        return [
            account
            for account in self.model.accounts
            if account.account_id not in busy
            and self.model.now > self.model.windows.get(account.account_id, (0, 0))[0] + window
        ]

    def holders(self, role: Role) -> Sequence[AccountKey]:
        return [a for a in self.model.accounts if (a.account_id, role) in self.model.roles]

    def admins(self) -> Sequence[AccountKey]:
        return [a for a in self.model.accounts if a.account_id == self.model.admin]

    def proposed(self) -> Sequence[AccountKey]:
        return [a for a in self.model.accounts if a.account_id == self.model.proposed]

    # Jobs.

    def trusted(self) -> list[KnownWorker]:
        return [w for w in self.model.workers.values() if self.model.is_trusted(w)]

    def options(self, workers: Sequence[WorkerId] | None = None) -> JobOptions | None:
        if workers is None:
            trusted = [worker.worker for worker in self.trusted()]
            count = min(len(trusted), self.rng.choice([1, 1, 2, 2, 3, 4]))
            workers = self.rng.sample(trusted, count)
        limits = self.model.parameters
        ttl = self.rng.choice([limits.min_ttl, limits.min_ttl, limits.max_ttl, 3 * MINUTE])
        ttl = max(limits.min_ttl, min(ttl, limits.max_ttl))
        return JobOptions(workers=tuple(workers), ttl=ttl) if workers else None

    def submit(self, _caller: AccountKey, payload: bytes | None = None) -> AnyCall | None:
        options = self.options()
        if options is None:
            return None
        if payload is None:
            longest = self.model.parameters.max_payload
            payload = self.rng.randbytes(self.rng.choice([1, 40, 200, longest]))
        return self.processor.submit_confidential_job(payload, self.rng.randbytes(32), options)

    def submit_reference(self, _caller: AccountKey) -> AnyCall | None:
        options = self.options()
        if options is None:
            return None
        length = self.rng.choice([1, self.model.parameters.max_reference])
        location = self.rng.randbytes(self.rng.choice([0, 30, 256]))
        return self.processor.submit_job_reference(
            self.rng.randbytes(32), length, location, self.rng.randbytes(32), options
        )

    def open_pair(self) -> tuple[KnownJob, KnownWorker] | None:
        """Return an open job and a worker that may attest it."""
        pairs = [
            (job, worker)
            for job in self.model.jobs_in(JobStatus.SUBMITTED)
            if self.model.now <= job.deadline and not self.is_left_alone(job)
            for worker in map(self.model.workers.__getitem__, job.workers)
            if worker.worker not in job.failed and self.model.is_trusted(worker)
        ]
        return self.rng.choice(pairs) if pairs else None

    def is_left_alone(self, job: KnownJob) -> bool:
        """Return whether a job is one of those that nobody does in time."""
        return job.deadline - job.created_at <= 10 * SECOND and job.job_id % 3 > 0

    def completion(
        self,
        job: KnownJob,
        worker: KnownWorker,
        outcome: Outcome = Outcome.COMPLETED,
        *,
        signer: Signer | None = None,
        result_hash: bytes | None = None,
        times: tuple[int, int, int] | None = None,
        change: Callable[[Signature], Signature] = lambda signature: signature,
    ) -> Completion:
        """Return a statement that the contract records, but for what is asked to be otherwise."""
        signer = signer or worker.signer
        started, finished, issued = times or self._times(job)
        proof = AttestationProof(
            outcome=outcome,
            units=self.rng.choice([0, 1, 2**64 - 1]),
            started_at=started,
            finished_at=finished,
            issued_at=issued,
            signature=Signature(scheme=Scheme.ECDSA, data=b""),
        )
        draft = Completion(
            job_id=job.job_id,
            result_hash=self.rng.randbytes(32) if result_hash is None else result_hash,
            attestation_proof=proof,
            tee_worker_pubkey=signer.public_key,
        )
        statement = statement_of(
            draft,
            genesis_hash=self.model.genesis_hash,
            contract=self.processor.contract,
            payload_hash=job.payload_hash,
            measurement=worker.measurement,
        )
        signature = change(sign_statement(statement, signer))
        return replace(draft, attestation_proof=replace(proof, signature=signature))

    def _times(self, job: KnownJob) -> tuple[int, int, int]:
        oldest = max(job.created_at, self.model.now - self.model.parameters.max_attestation_age)
        # What is only just young enough may be too old when the block is made.
        issued = (
            self.model.now
            if self.rng.random() < 0.8
            else self.rng.randint(oldest, max(oldest, self.model.now))
        )
        started = self.rng.randint(job.created_at, max(job.created_at, issued))
        return started, self.rng.randint(started, max(started, issued)), max(started, issued)

    def record(self, outcome: Outcome) -> AnyCall | None:
        pair = self.open_pair()
        if pair is None:
            return None
        return self.processor.record_attestation(self.completion(*pair, outcome))

    def complete(self) -> AnyCall:
        items = [self._item() for _ in range(self.rng.choice([0, 1, 2, 2, 3, 5, 10]))]
        return self.processor.complete_jobs([item for item in items if item is not None])

    def _item(self) -> Completion | None:
        kind = self.rng.random()
        attested = self.model.jobs_in(JobStatus.ATTESTED)
        if kind < 0.2 and attested:
            job = self.rng.choice(attested)
            assert job.attested_by is not None
            worker = self.model.workers[job.attested_by]
            return self.completion(job, worker, result_hash=job.result_hash)
        if kind < 0.35 and self.model.jobs and self.model.workers:
            job = self.rng.choice(list(self.model.jobs.values()))
            return self.completion(job, self.rng.choice(list(self.model.workers.values())))
        pair = self.open_pair()
        outcome = Outcome.COMPLETED if kind < 0.9 else Outcome.FAILED
        return None if pair is None else self.completion(*pair, outcome)

    def mark(self, caller: AccountKey) -> AnyCall | None:
        is_operator = (caller.account_id, Role.OPERATOR) in self.model.roles
        return self._of_job(
            self.processor.mark_job_processed,
            [
                job
                for job in self.model.jobs_in(JobStatus.ATTESTED)
                if is_operator or job.owner == caller.account_id
            ],
        )

    def cancel(self, caller: AccountKey) -> AnyCall | None:
        return self._of_job(
            self.processor.cancel_job,
            [
                job
                for job in self.model.jobs_in(JobStatus.SUBMITTED, JobStatus.ATTESTED)
                if job.owner == caller.account_id
                and not self.is_left_alone(job)
                and self._may_cancel(job)
            ],
        )

    def _may_cancel(self, job: KnownJob) -> bool:
        if job.attested_by is None:
            return True
        worker = self.model.workers[job.attested_by]
        is_revoked = worker.status is WorkerStatus.REVOKED
        return is_revoked or worker.measurement in self.model.revoked

    def expire(self) -> AnyCall | None:
        overdue = [
            job for job in self.model.jobs_in(JobStatus.SUBMITTED) if self.model.now > job.deadline
        ]
        # One stays overdue: statements about it come too late.
        return self._of_job(self.processor.expire_job, overdue[1:])

    def purge(self, caller: AccountKey) -> AnyCall | None:
        return self._of_job(
            self.processor.purge_job,
            [
                job
                for job in self.model.jobs.values()
                if job.owner == caller.account_id and job.status.is_final
            ],
        )

    def _of_job(self, make: Callable[[int], AnyCall], jobs: Sequence[KnownJob]) -> AnyCall | None:
        return make(self.rng.choice(jobs).job_id) if jobs else None

    # Anything.

    def look(self) -> AnyCall:
        """Return a read message, which may be sent as a transaction like any other."""
        job = self.rng.choice([0, *self.model.jobs, *self.model.purged])
        worker = self.rng.randint(0, len(self.model.workers) + 1)
        account = self.rng.choice(self.model.accounts).account_id
        signers = list(self.model.signers)
        p = self.processor
        calls = [
            *(p.get_job(job), p.get_attestation(job), p.attestation_status(job)),
            *(p.verify_attestation(job), p.get_job_counter(), p.get_worker(worker)),
            *(p.worker_by_key(self.rng.choice(signers)), p.is_trusted(worker)),
            *(p.jobs_page(job, self.rng.randint(1, 10)), p.workers_page(worker, 5)),
            *(p.parameters(), p.mode(), p.admin(), p.genesis_hash(), p.version()),
            p.has_role(account, self.rng.choice(list(Role))),
            p.has_measurement(self.rng.choice(sorted(self.model.allowed) or [bytes(32)])),
            p.rate_limit_left(account),
        ]
        return self.rng.choice([call for call in calls if not self.called[call.label]] or calls)

    def odd(self) -> AnyCall:
        """Return a call that the contract does not understand, or that exceeds ink!'s buffer."""
        call = self.look()
        long = self.processor.submit_confidential_job(
            bytes(17_000), bytes(32), JobOptions(workers=(1,), ttl=MINUTE)
        )
        return self.rng.choice(
            [
                replace(call, data=bytes(4)),
                replace(call, data=call.data[:3]),
                replace(call, data=call.data + b"\0"),
                long,
            ]
        )
