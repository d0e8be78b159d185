"""A contract with jobs and workers in every state, and statements about them, right and wrong."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from orchestrator.attestation.statement import sign_statement, statement_of
from orchestrator.attestation.verifier import JobView
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.processor import JobProcessor
from orchestrator.crypto.keys import load_signer
from orchestrator.encoding import blake2_256
from orchestrator.models import (
    AttestationProof,
    Completion,
    Job,
    JobId,
    JobOptions,
    JobStatus,
    Mode,
    Outcome,
    Parameters,
    PublicKey,
    Scheme,
    Signature,
    Signer,
    Statement,
    Worker,
    WorkerId,
)
from orchestrator.testing.chain import (
    FixedClock,
    LocalAccount,
    deploy_processor,
    register_test_worker,
)

HOUR = 3_600_000
DAY = 24 * HOUR
GOOD = blake2_256(b"good measurement")
REVOKED = blake2_256(b"revoked measurement")
SECP256K1_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141

# Rows of protocol 3.2 and the codes that they give.
ROWS = {
    1: ("WrongMode",),
    2: ("JobNotFound",),
    3: ("AlreadyAttested", "WrongStatus", "DeadlinePassed"),
    4: ("WorkerNotFound", "KeyMismatch"),
    5: ("WorkerNotEligible",),
    6: ("WorkerNotTrusted",),
    7: ("AlreadyFailed",),
    8: ("EmptyResultHash",),
    9: ("StatementTimesInverted",),
    10: ("StatementBeforeJob",),
    11: ("StatementFromFuture",),
    12: ("StatementTooOld",),
    13: ("BadSignature",),
}
# Rows that choose another worker for the job: a statement has only one.
WORKER_ROWS = (4, 5, 6, 7)


@dataclass
class Enrolled:
    """A registered worker, its key, and what becomes of it before any statement is made."""

    worker: WorkerId
    signer: Signer
    measurement: bytes
    fate: str


@dataclass
class Case:
    """One statement to be judged; `faults` are the rows that it is meant to fail."""

    mode: Mode
    job: Job
    worker: Enrolled
    now: int
    faults: set[int]
    job_id: JobId
    result_hash: bytes = b""
    outcome: Outcome = Outcome.COMPLETED
    units: int = 0
    started_at: int = 0
    finished_at: int = 0
    issued_at: int = 0
    change_statement: Callable[[Statement], Statement] = lambda statement: statement
    signer: Signer | None = None
    change_signature: Callable[[Signature], Signature] = lambda signature: signature
    completion: Completion | None = None


@dataclass
class World:
    """The prepared contract; `jobs` by status, `failed` the workers that failed an open job."""

    chain: EmbeddedChain
    clock: FixedClock
    processor: JobProcessor
    admin: LocalAccount
    rng: random.Random
    workers: list[Enrolled] = field(default_factory=list)
    jobs: dict[JobStatus, list[Job]] = field(default_factory=dict)
    unknown_jobs: list[JobId] = field(default_factory=list)
    strangers: list[Signer] = field(default_factory=list)
    start: int = 0
    views: dict[tuple[JobId, PublicKey], tuple[Job | None, Worker | None, bool]] = field(
        default_factory=dict
    )

    def view_of(self, worker: Enrolled) -> int:
        """Return until when a worker is registered."""
        found = self.chain.read(self.processor.get_worker(worker.worker))
        assert found is not None
        return found.valid_until

    def signer(self, scheme: Scheme) -> Signer:
        """Return a new signer of a scheme."""
        return load_signer(scheme, self.rng.randbytes(32))

    def view(self, completion: Completion, mode: Mode) -> JobView:
        """Return what the contract knows, read from the chain once per job and key."""
        key = (completion.job_id, completion.tee_worker_pubkey)
        if key not in self.views:
            read = self.chain.read
            job = read(self.processor.get_job(completion.job_id))
            worker = read(self.processor.worker_by_key(completion.tee_worker_pubkey))
            allowed = worker is not None and read(
                self.processor.has_measurement(worker.measurement)
            )
            self.views[key] = (job, worker, allowed)
        job, worker, allowed = self.views[key]
        return JobView(
            genesis_hash=self.chain.genesis_hash,
            contract=self.processor.contract,
            mode=mode,
            parameters=Parameters(),
            job=job,
            worker=worker,
            measurement_allowed=allowed,
        )

    def sign(self, case: Case) -> Completion:
        """Return the case's statement as a carrier would bring it."""
        signer = case.signer or case.worker.signer
        proof = AttestationProof(
            outcome=case.outcome,
            units=case.units,
            started_at=case.started_at,
            finished_at=case.finished_at,
            issued_at=case.issued_at,
            signature=Signature(scheme=signer.public_key.scheme, data=b""),
        )
        draft = Completion(
            job_id=case.job_id,
            result_hash=case.result_hash,
            attestation_proof=proof,
            tee_worker_pubkey=case.worker.signer.public_key,
        )
        statement = statement_of(
            draft,
            genesis_hash=self.chain.genesis_hash,
            contract=self.processor.contract,
            payload_hash=case.job.payload_hash,
            measurement=case.worker.measurement,
        )
        signature = sign_statement(case.change_statement(statement), signer)
        signed = replace(proof, signature=case.change_signature(signature))
        return replace(draft, attestation_proof=signed)


def build_world(rng: random.Random) -> World:
    """Return a contract with jobs and workers in every state that row 1 to 7 can see."""
    clock = FixedClock()
    chain = EmbeddedChain(":memory:", clock=clock)
    admin = LocalAccount.named("admin")
    processor = deploy_processor(
        chain, admin=admin, parameters=Parameters(rate_limit=1_000_000), measurement=GOOD
    )
    chain.call(processor.allow_measurement(REVOKED), signer=admin)
    world = World(chain=chain, clock=clock, processor=processor, admin=admin, rng=rng)
    for scheme in Scheme:
        world.strangers += [world.signer(scheme) for _ in range(4)]
        for fate in ("good", "good", "good", "short", "suspended", "revoked", "unmeasured"):
            _enroll(world, scheme, fate)
        _enroll(world, scheme, "outsider")
    _finish_some_jobs(world)
    _open_jobs(world)
    _apply_fates(world)
    chain.call(processor.set_parameters(Parameters()), signer=admin)
    for status, jobs in world.jobs.items():
        world.jobs[status] = [_job(world, job.job_id) for job in jobs]
    world.start = chain.now()
    return world


def _enroll(world: World, scheme: Scheme, fate: str) -> None:
    signer = world.signer(scheme)
    measurement = REVOKED if fate == "unmeasured" else GOOD
    worker = register_test_worker(
        world.chain,
        world.processor,
        signer,
        registrar=world.admin,
        measurement=measurement,
        valid_for=4 * HOUR if fate == "short" else 30 * DAY,
    )
    world.workers.append(Enrolled(worker=worker, signer=signer, measurement=measurement, fate=fate))


def _job(world: World, job_id: JobId) -> Job:
    job = world.chain.read(world.processor.get_job(job_id))
    assert job is not None
    return job


def _submit(world: World, workers: list[Enrolled], ttl: int) -> Job:
    payload = world.rng.randbytes(world.rng.randint(1, 64))
    options = JobOptions(workers=tuple(w.worker for w in workers), ttl=ttl)
    call = world.processor.submit_confidential_job(payload, b"\7" * 32, options)
    job_id = world.chain.call(call, signer=world.admin).value
    world.clock.advance(world.rng.randint(0, 5))
    return _job(world, job_id)


def _record(world: World, job: Job, worker: Enrolled, outcome: Outcome) -> None:
    now = world.clock.now
    case = Case(
        mode=Mode.RUNNING, job=job, worker=worker, now=now, faults=set(), job_id=job.job_id,
        result_hash=world.rng.randbytes(32), outcome=outcome,
        started_at=now, finished_at=now, issued_at=now,
    )  # fmt: skip
    call = world.processor.record_attestation(world.sign(case))
    world.chain.call(call, signer=world.admin)


def _finish_some_jobs(world: World) -> None:
    good = [worker for worker in world.workers if worker.fate == "good"]
    chain, processor, admin = world.chain, world.processor, world.admin
    for status in JobStatus:
        world.jobs[status] = []
        if status is JobStatus.SUBMITTED:
            continue
        for _ in range(4):
            workers = world.rng.sample(good, 2)
            job = _submit(world, workers, 60_000 if status is JobStatus.EXPIRED else DAY)
            if status in (JobStatus.ATTESTED, JobStatus.PROCESSED):
                _record(world, job, workers[0], Outcome.COMPLETED)
            if status is JobStatus.PROCESSED:
                chain.call(processor.mark_job_processed(job.job_id), signer=admin)
            if status is JobStatus.FAILED:
                for worker in workers:
                    _record(world, job, worker, Outcome.FAILED)
            if status is JobStatus.CANCELLED:
                chain.call(processor.cancel_job(job.job_id), signer=admin)
            world.jobs[status].append(job)
    purged = _submit(world, good[:1], DAY)
    chain.call(processor.cancel_job(purged.job_id), signer=admin)
    chain.call(processor.purge_job(purged.job_id), signer=admin)
    world.unknown_jobs = [0, purged.job_id, 1_000_000, 2**128 - 1]
    world.clock.advance(60_001)
    for job in world.jobs[JobStatus.EXPIRED]:
        chain.call(processor.expire_job(job.job_id), signer=admin)


def _open_jobs(world: World) -> None:
    good = [worker for worker in world.workers if worker.fate == "good"]
    rest = [worker for worker in world.workers if worker.fate not in ("good", "outsider")]
    for number in range(60):
        chosen = [*world.rng.sample(good, 2), *world.rng.sample(rest, world.rng.randint(0, 2))]
        failed = chosen[0]
        world.rng.shuffle(chosen)
        job = _submit(world, chosen, world.rng.choice([2 * HOUR, DAY, 7 * DAY]))
        if number % 3 == 0:
            _record(world, job, failed, Outcome.FAILED)
        world.jobs[JobStatus.SUBMITTED].append(job)


def _apply_fates(world: World) -> None:
    for worker in world.workers:
        if worker.fate == "suspended":
            call = world.processor.suspend_worker(worker.worker)
        elif worker.fate == "revoked":
            call = world.processor.revoke_worker(worker.worker, b"\1" * 32)
        else:
            continue
        world.chain.call(call, signer=world.admin)
    world.chain.call(world.processor.revoke_measurement(REVOKED), signer=world.admin)
