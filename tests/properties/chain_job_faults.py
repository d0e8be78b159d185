"""Calls about jobs and statements that the contract refuses, for each reason that it can have."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from orchestrator.crypto.keys import AccountKey
from orchestrator.models import (
    Completion,
    JobId,
    JobOptions,
    JobStatus,
    Mode,
    Outcome,
    Role,
    Scheme,
    Signature,
    WorkerId,
    WorkerStatus,
)
from tests.properties.chain_calls import HOUR, MINUTE, SECOND, AnyCall, Recipe, by
from tests.properties.chain_model import KnownJob, KnownWorker
from tests.properties.chain_rule_calls import Calls

Recipes = Mapping[str, Sequence[Recipe]]


class JobFaults:
    """
    How to provoke each `Error` variant of the messages about jobs.

    Where the state does not allow it, a recipe may return the call that leads there.
    """

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.model = calls.model
        self.rng = calls.rng
        self.processor = calls.processor

    def recipes(self) -> Recipes:
        submit = self.processor.submit_confidential_job
        refer = self.processor.submit_job_reference
        limits = self.model.parameters
        ttls = [limits.min_ttl - 1, limits.max_ttl + 1]
        return {
            "JobNotFound": [
                self._of_no_job(name)
                for name in ("cancel_job", "expire_job", "purge_job", "mark_job_processed")
            ],
            "NotJobOwner": [
                self._of("cancel_job", lambda a, job: not _owns(a, job)),
                self._of("purge_job", lambda a, job: not _owns(a, job)),
                self._of("mark_job_processed", lambda a, job: not self._may_mark(a, job)),
            ],
            "WrongStatus": [
                self._of("cancel_job", lambda a, job: _owns(a, job) and job.status.is_final),
                self._of("purge_job", lambda a, job: _owns(a, job) and not job.status.is_final),
                self._of("mark_job_processed", lambda a, job: _owns(a, job) and _is_open(job)),
                self._of("expire_job", lambda _, job: not _is_open(job)),
            ],
            "DeadlineNotPassed": [
                self._of("expire_job", lambda _, job: _is_open(job) and not self._is_late(job))
            ],
            "EmptyPayload": [
                self._submitting(lambda options, key: submit(b"", key, options)),
                self._submitting(lambda options, key: refer(key, 0, b"", key, options)),
            ],
            "PayloadTooLarge": [
                self._submitting(lambda o, key: submit(bytes(limits.max_payload + 1), key, o))
            ],
            "ReferenceTooLarge": [
                self._submitting(lambda o, key: refer(key, limits.max_reference + 1, b"", key, o))
            ],
            "LocationTooLong": [
                self._submitting(lambda options, key: refer(key, 1, bytes(257), key, options))
            ],
            "InvalidKey": [self._submitting(lambda o, _: submit(b"sealed", bytes(32), o))],
            "TtlOutOfRange": [
                self._submitting(
                    lambda o, key: submit(b"sealed", key, replace(o, ttl=self.rng.choice(ttls)))
                )
            ],
            "NoWorkers": [self._naming(lambda _: ())],
            "TooManyWorkers": [self._naming(lambda _: range(1, 6))],
            "DuplicateWorker": [self._naming(lambda options: options.workers[:1] * 2)],
            "WorkerNotFound": [
                self._naming(lambda options: [*options.workers[:2], 10_000]),
                self._naming(lambda _: [0]),
            ],
            "WorkerNotTrusted": [self._naming(self._with_an_untrusted_one)],
            "RateLimited": [by(self.calls.anyone, self._rush), by(self.calls.admins, self._ration)],
            "AccountInUse": [by(self.calls.anyone, self._leave)],
        }

    def _submitting(self, make: Callable[[JobOptions, bytes], AnyCall]) -> Recipe:
        """Return a submit with something wrong; *make* gets sound options and a sound key."""

        def draw(_caller: AccountKey) -> AnyCall | None:
            options = self.calls.options()
            if options is None or self.model.mode is not Mode.RUNNING:
                return None
            return make(options, self.rng.randbytes(32))

        return by(self.calls.anyone, draw)

    def _naming(self, workers: Callable[[JobOptions], Sequence[WorkerId]]) -> Recipe:
        return self._submitting(
            lambda options, key: self.processor.submit_confidential_job(
                b"sealed", key, replace(options, workers=tuple(workers(options)))
            )
        )

    def _with_an_untrusted_one(self, options: JobOptions) -> Sequence[WorkerId]:
        known = self.model.workers.values()
        found = [w.worker for w in known if not self.model.is_trusted(w)]
        return [*options.workers[:1], *found[:1]]

    def _of(self, name: str, wanted: Callable[[AccountKey, KnownJob], bool]) -> Recipe:
        """Return the message *name* about a job that is not as the message wants it."""

        def draw(caller: AccountKey) -> AnyCall | None:
            found = [job.job_id for job in self.model.jobs.values() if wanted(caller, job)]
            message: Callable[[JobId], AnyCall] = getattr(self.processor, name)
            return message(self.rng.choice(found)) if found else None

        return by(self.calls.anyone, draw)

    def _of_no_job(self, name: str) -> Recipe:
        ids = [0, 2**128 - 1, *self.model.purged[-3:], max(self.model.jobs, default=0) + 1_000]
        message: Callable[[JobId], AnyCall] = getattr(self.processor, name)
        return by(self.calls.anyone, lambda _: message(self.rng.choice(ids)))

    def _may_mark(self, caller: AccountKey, job: KnownJob) -> bool:
        return _owns(caller, job) or (caller.account_id, Role.OPERATOR) in self.model.roles

    def _is_late(self, job: KnownJob) -> bool:
        return self.model.now > job.deadline

    def _rush(self, caller: AccountKey) -> AnyCall | None:
        if self.model.submits_left(caller.account_id) > 0 or self.model.mode is not Mode.RUNNING:
            return None
        return self.calls.submit(caller)

    def _ration(self, _caller: AccountKey) -> AnyCall | None:
        if any(self.model.submits_left(a.account_id) <= 0 for a in self.model.accounts):
            return None
        limits = replace(self.calls.parameters(), rate_limit=1, rate_window=MINUTE)
        return self.processor.set_parameters(limits)

    def _leave(self, caller: AccountKey) -> AnyCall | None:
        has_jobs = any(_owns(caller, job) for job in self.model.jobs.values())
        return self.processor.release_account() if has_jobs else None


class StatementFaults:
    """How to provoke each `Error` variant of the messages that take or judge statements."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.model = calls.model
        self.rng = calls.rng
        self.processor = calls.processor

    def recipes(self) -> Recipes:
        now, limits = self.model.now, self.model.parameters
        skew, old = limits.max_clock_skew, now - limits.max_attestation_age - SECOND
        return {
            "DeadlinePassed": [self._about(lambda job: _is_open(job) and now > job.deadline)],
            "AlreadyAttested": [
                self._about(lambda j: j.status in (JobStatus.ATTESTED, JobStatus.PROCESSED))
            ],
            "WorkerNotFound": [self._recording(signer=self.calls.stranger)],
            "WorkerNotEligible": [by(self.calls.anyone, self._by_an_outsider)],
            "WorkerNotTrusted": [self._about(lambda j: _is_open(j) and not self._is_trusted(j))],
            "AlreadyFailed": [by(self.calls.anyone, self._by_one_that_failed)],
            "EmptyResultHash": [self._recording(result_hash=bytes(32))],
            "StatementTimesInverted": [
                self._timed(lambda job: (now, job.created_at - 1, now)),
                self._timed(lambda job: (job.created_at, now + 1, now)),
            ],
            "StatementBeforeJob": [self._timed(lambda job: (job.created_at - skew - 1, now, now))],
            "StatementFromFuture": [
                self._timed(lambda job: (job.created_at, now, now + skew + HOUR)),
                self._timed(lambda job: (job.created_at, now, 2**64 - 1)),
            ],
            # Only where the skew reaches back further than the age.
            "StatementTooOld": [self._timed(lambda _: (old, old, old))],
            "BadSignature": [
                self._recording(change=lambda s: replace(s, data=bytes(len(s.data)))),
                self._recording(change=lambda s: replace(s, data=s.data[:-1] + b"\x1c")),
                self._recording(change=lambda s: replace(s, data=b"\1" + s.data[1:])),
            ],
            "KeyMismatch": [self._recording(change=_of_the_other_scheme)],
            "AttestationNotValid": [
                by(self.calls.anyone, self._mark_what_is_worth_nothing),
                by(lambda: self.calls.holders(Role.REGISTRAR), lambda _: self._take_its_worth()),
            ],
        }

    def _recording(self, **wrong: object) -> Recipe:
        """Return a statement with something wrong about an open job, by a worker of it."""
        return self._with_pair(
            lambda job, worker: self.calls.completion(job, worker, **wrong)  # type: ignore[arg-type]  # by name
        )

    def _timed(self, times: Callable[[KnownJob], tuple[int, int, int]]) -> Recipe:
        return self._with_pair(
            lambda job, worker: self.calls.completion(job, worker, times=times(job))
        )

    def _with_pair(self, make: Callable[[KnownJob, KnownWorker], Completion]) -> Recipe:
        def draw(_caller: AccountKey) -> AnyCall | None:
            pair = self.calls.open_pair()
            if pair is None or self.model.mode is Mode.HALTED:
                return None
            return self.processor.record_attestation(make(*pair))

        return by(self.calls.anyone, draw)

    def _about(self, wanted: Callable[[KnownJob], bool]) -> Recipe:
        """Return a statement that would be sound, were it not for the job or its workers."""

        def draw(_caller: AccountKey) -> AnyCall | None:
            found = [job for job in self.model.jobs.values() if wanted(job)]
            if not found or self.model.mode is Mode.HALTED:
                return None
            job = self.rng.choice(found)
            worker = self.model.workers[self.rng.choice(job.workers)]
            return self.processor.record_attestation(self.calls.completion(job, worker))

        return by(self.calls.anyone, draw)

    def _is_trusted(self, job: KnownJob) -> bool:
        return any(self.model.is_trusted(self.model.workers[worker]) for worker in job.workers)

    def _by_an_outsider(self, _caller: AccountKey) -> AnyCall | None:
        pair = self.calls.open_pair()
        if pair is None or self.model.mode is Mode.HALTED:
            return None
        job, _ = pair
        found = [w for w in self.model.workers.values() if w.worker not in job.workers]
        if not found:
            return None
        return self.processor.record_attestation(self.calls.completion(job, self.rng.choice(found)))

    def _by_one_that_failed(self, _caller: AccountKey) -> AnyCall | None:
        pairs = [
            (job, self.model.workers[worker])
            for job in self.model.jobs_in(JobStatus.SUBMITTED)
            if self.model.now <= job.deadline
            for worker in job.failed
            if self.model.is_trusted(self.model.workers[worker])
        ]
        if self.model.mode is Mode.HALTED:
            return None
        if not pairs:
            return self.calls.record(Outcome.FAILED)
        return self.processor.record_attestation(self.calls.completion(*self.rng.choice(pairs)))

    def _mark_what_is_worth_nothing(self, caller: AccountKey) -> AnyCall | None:
        found = [
            job.job_id
            for job in self.model.jobs_in(JobStatus.ATTESTED)
            if _owns(caller, job)
            and self.model.workers[job.attested_by or 0].status is not WorkerStatus.ACTIVE
        ]
        if not found or self.model.mode is Mode.HALTED:
            return None
        return self.processor.mark_job_processed(self.rng.choice(found))

    def _take_its_worth(self) -> AnyCall | None:
        attested = self.model.jobs_in(JobStatus.ATTESTED)
        workers = {job.attested_by for job in attested if job.attested_by is not None}
        return self.processor.suspend_worker(min(workers)) if workers else None


def _owns(caller: AccountKey, job: KnownJob) -> bool:
    return job.owner == caller.account_id


def _is_open(job: KnownJob) -> bool:
    return job.status is JobStatus.SUBMITTED


def _of_the_other_scheme(signature: Signature) -> Signature:
    if signature.scheme is Scheme.ECDSA:
        return Signature(scheme=Scheme.SR25519, data=bytes(64))
    return Signature(scheme=Scheme.ECDSA, data=bytes(65))
