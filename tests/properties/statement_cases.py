"""Statements about a `World`, drawn at random: valid ones, and ones with one or several faults."""

import random
from dataclasses import fields, replace
from typing import Any

from orchestrator.models import (
    Job,
    JobStatus,
    Mode,
    Outcome,
    Parameters,
    Scheme,
    Signature,
    Signer,
    Statement,
)
from tests.properties.statement_world import (
    HOUR,
    ROWS,
    SECP256K1_ORDER,
    WORKER_ROWS,
    Case,
    Enrolled,
    World,
)

LIMITS = Parameters()
SKEW, AGE = LIMITS.max_clock_skew, LIMITS.max_attestation_age


class CaseMaker:
    """Draws cases from a world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng: random.Random = world.rng
        self.pairs: dict[str, list[tuple[Job, Enrolled]]] = {
            "valid": [], "outsider": [], "untrusted": [], "failed": [], "neither": [],
        }  # fmt: skip
        for job in world.jobs[JobStatus.SUBMITTED]:
            for worker in world.workers:
                self.pairs[_kind(job, worker)].append((job, worker))

    def valid(self) -> Case:
        """Return a statement that the contract records."""
        case = self._case(set())
        return self._signed(case)

    def faulty(self, rows: set[int]) -> Case:
        """Return a statement that fails the given rows of protocol 3.2, and no others."""
        case = self._case(rows)
        for row in sorted(rows):
            getattr(self, f"_fail_{row}")(case)
        return self._signed(case)

    def rows(self) -> set[int]:
        """Draw which rows to fail: mostly one."""
        first = self.rng.choice(list(ROWS))
        if self.rng.random() < 0.75:
            return {first}
        rows = {first} | set(self.rng.sample(list(ROWS), self.rng.randint(1, 4)))
        workers = [row for row in rows if row in WORKER_ROWS]
        # A statement has one worker, and a stranger's key has no other fault of a worker.
        rows -= set(workers[1:])
        # Nothing is too old and from the future.
        return rows - {12} if 11 in rows else rows

    def _signed(self, case: Case) -> Case:
        case.completion = self.world.sign(case)
        return case

    def _case(self, rows: set[int]) -> Case:
        kind = {5: "outsider", 6: "untrusted", 7: "failed"}
        (name,) = [kind[row] for row in rows if row in kind] or ["valid"]
        job, worker = self.rng.choice(self.pairs[name])
        if 3 in rows and self.rng.random() < 0.6:
            status = self.rng.choice([s for s in JobStatus if s is not JobStatus.SUBMITTED])
            job = self.rng.choice(self.world.jobs[status])
        case = Case(
            mode=self.rng.choice([Mode.RUNNING, Mode.DRAINING]),
            job=job,
            worker=worker,
            now=self._now(job, worker, rows),
            faults=rows,
            job_id=job.job_id,
            result_hash=self.rng.randbytes(32),
            outcome=self.rng.choice(list(Outcome)),
            units=self.rng.choice([0, 1, 2**64 - 1, self.rng.getrandbits(64)]),
        )
        self._times(case)
        return case

    def _now(self, job: Job, worker: Enrolled, rows: set[int]) -> int:
        """Return a time at which job and worker are good, sometimes the last such."""
        latest = job.deadline
        if worker.fate == "short":
            registered = self.world.view_of(worker)
            if 6 in rows:
                # Expired: not a moment before it is.
                return max(registered + self.rng.choice([1, HOUR]), self.world.start)
            latest = min(latest, registered)
        earliest = self.world.start
        if 12 in rows:
            # Old enough that a statement about this job can be too old.
            earliest = max(earliest, job.created_at + AGE)
        latest = max(latest, earliest)
        return self.rng.choice([latest, self.rng.randint(earliest, latest)])

    def _times(self, case: Case) -> None:
        first = max(case.job.created_at - SKEW, 0)
        oldest = max(case.now - AGE, first)
        newest = case.now + SKEW
        draw = self.rng.randint
        case.issued_at = self.rng.choice([oldest, newest, case.now, draw(oldest, newest)])
        case.started_at = self.rng.choice([first, draw(first, case.issued_at)])
        case.finished_at = self.rng.choice([case.issued_at, draw(case.started_at, case.issued_at)])

    def _fail_1(self, case: Case) -> None:
        case.mode = Mode.HALTED

    def _fail_2(self, case: Case) -> None:
        case.job_id = self.rng.choice(self.world.unknown_jobs)

    def _fail_3(self, case: Case) -> None:
        if case.job.status is not JobStatus.SUBMITTED:
            return
        late = case.job.deadline + self.rng.choice([1, 1000, HOUR]) - case.now
        case.now += late
        case.started_at += late
        case.finished_at += late
        case.issued_at += late

    def _fail_4(self, case: Case) -> None:
        scheme = case.worker.signer.public_key.scheme
        if self.rng.random() < 0.5:
            stranger = self._other_signer(scheme)
            case.worker = replace(case.worker, signer=stranger)
        else:
            other = Scheme.ECDSA if scheme is Scheme.SR25519 else Scheme.SR25519
            case.signer = self._other_signer(other)

    def _fail_5(self, case: Case) -> None:
        """The worker was chosen so."""

    def _fail_6(self, case: Case) -> None:
        """The worker was chosen so."""

    def _fail_7(self, case: Case) -> None:
        """The worker was chosen so."""

    def _fail_8(self, case: Case) -> None:
        case.result_hash = bytes(32)

    def _fail_9(self, case: Case) -> None:
        if self.rng.random() < 0.5:
            case.finished_at = case.issued_at + self.rng.choice([1, 2**40])
        else:
            case.started_at = case.finished_at + self.rng.choice([1, 2**40])

    def _fail_10(self, case: Case) -> None:
        case.started_at = case.job.created_at - SKEW - self.rng.choice([1, 1000, HOUR])
        if 9 in case.faults:
            case.finished_at = case.started_at - 1

    def _fail_11(self, case: Case) -> None:
        case.issued_at = case.now + SKEW + self.rng.choice([1, HOUR, 2**62])
        if 9 in case.faults:
            case.finished_at = case.issued_at + 1

    def _fail_12(self, case: Case) -> None:
        too_old = case.now - AGE - 1
        case.issued_at = self.rng.choice([too_old, self.rng.randint(too_old - 1000, too_old)])
        if 10 not in case.faults:
            case.issued_at = max(case.issued_at, case.job.created_at - SKEW)
            case.started_at = min(case.started_at, case.issued_at)
            case.started_at = max(case.started_at, case.job.created_at - SKEW)
        case.finished_at = (
            case.issued_at + 1 if 9 in case.faults else max(case.started_at, case.issued_at - 5)
        )

    def _fail_13(self, case: Case) -> None:
        kind = self.rng.randrange(4)
        if kind == 0:
            case.change_statement = self._another_statement
        elif kind == 1 and case.signer is None:
            case.signer = self._other_signer(case.worker.signer.public_key.scheme)
        elif kind == 2:
            case.change_signature = self._twin_or_flip
        else:
            case.change_signature = self._malformed

    def _other_signer(self, scheme: Scheme) -> Signer:
        return self.rng.choice([s for s in self.world.strangers if s.public_key.scheme is scheme])

    def _another_statement(self, statement: Statement) -> Statement:
        name = self.rng.choice([field.name for field in fields(Statement)])
        value = getattr(statement, name)
        changed: dict[str, Any] = {name: value}
        if isinstance(value, Outcome):
            changed[name] = Outcome(3 - value)
        elif isinstance(value, bytes):
            changed[name] = bytes([value[0] ^ 1]) + value[1:]
        else:
            changed[name] = value ^ 1
        return replace(statement, **changed)

    def _twin_or_flip(self, signature: Signature) -> Signature:
        data = bytearray(signature.data)
        if signature.scheme is Scheme.ECDSA and self.rng.random() < 0.5:
            s = SECP256K1_ORDER - int.from_bytes(data[32:64], "big")
            return replace(
                signature, data=bytes(data[:32]) + s.to_bytes(32, "big") + bytes([data[64] ^ 1])
            )
        # Of an sr25519 signature every bit counts, of `v` the bits of 0 to 3 do.
        bit = self.rng.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << (bit % 8)
        return replace(signature, data=bytes(data))

    def _malformed(self, signature: Signature) -> Signature:
        size = len(signature.data)
        if signature.scheme is Scheme.SR25519:
            unmarked = bytes([signature.data[63] & 0x7F])
            return replace(
                signature,
                data=self.rng.choice([bytes(size), b"\xff" * size, signature.data[:63] + unmarked]),
            )
        r, s, v = signature.data[:32], signature.data[32:64], signature.data[64:]
        order = SECP256K1_ORDER.to_bytes(32, "big")
        data = self.rng.choice(
            [
                *(r + s + bytes([v[0] + n]) for n in (4, 27, 31, 252)),
                bytes(32) + s + v,
                r + bytes(32) + v,
                order + s + v,
                r + order + v,
                b"\xff" * 64 + v,
                bytes(65),
            ]
        )
        return replace(signature, data=data)


def _kind(job: Job, worker: Enrolled) -> str:
    if worker.worker not in job.workers:
        return "outsider" if worker.fate in ("good", "short", "outsider") else "neither"
    if worker.fate not in ("good", "short"):
        return "untrusted"
    if any(failure.worker == worker.worker for failure in job.failures):
        return "failed"
    return "valid"
