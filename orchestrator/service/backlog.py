"""
Which job is worked on next, and at which worker.

A job goes to the first of its workers that has room, in the owner's order. Owners take turns, a
worker that fails is left alone for a while, and a job that went wrong everywhere waits longer each
time: nothing here lets one job, owner or worker hold up the others. Times are those of the event
loop's clock, in seconds.
"""

import heapq
import random
from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import count
from operator import itemgetter
from typing import TypeAlias

from orchestrator.journal import JobRecord
from orchestrator.models import Job, JobId, WorkerId

__all__ = ["Backlog", "Backoff", "OpenJob", "Turn"]

FIRST_ROOM = 4  # jobs at a worker that has not said yet how many it executes at once
_CHAIN: WorkerId = 0  # what a job waits for that the chain is asked about; workers count from 1


@dataclass(frozen=True, kw_only=True)
class Backoff:
    """Waits that double up to a limit, each a random part longer or shorter."""

    first: float
    most: float

    def delay(self, failures: int) -> float:
        """How long to wait after so many failures in a row (1 is the first)."""
        wait = min(self.most, self.first * float(1 << min(failures - 1, 30)))
        return wait * random.uniform(0.75, 1.25)  # noqa: S311  # spreads retries, hides nothing


@dataclass(slots=True, eq=False, kw_only=True)
class OpenJob:
    """
    A job that still needs something.

    `job` is the job as last read from the chain, while it is worth keeping. `failed` are the
    workers whose failure is on the chain, `tried` those that were asked in this round.
    `attested_by` is set once an attestation was seen, `needs_review` when the chain has to be read
    before anything else. `is_resting` says that all that could be done now was done,
    `at_worker` in which worker's room the job is, `is_interruptible` that its turn may be ended
    at any moment, `is_kept` that its payload may stay in memory while it waits. `waits_for` are the
    workers in whose queues it is, `ticket` is its place there or which of its delays counts.
    `is_in_time` says that the contract, asked last, saw the deadline not passed.
    """

    record: JobRecord
    job: Job | None = None
    tried: set[WorkerId] = field(default_factory=set)
    failed: set[WorkerId] = field(default_factory=set)
    attested_by: WorkerId | None = None
    needs_review: bool = False
    is_in_time: bool = False
    stale_answers: int = 0
    rounds: int = 0
    is_resting: bool = False
    is_active: bool = False
    is_interruptible: bool = False
    was_interrupted: bool = False
    was_swept: bool = False
    is_kept: bool = False
    at_worker: WorkerId | None = None
    waits_for: tuple[WorkerId, ...] = ()
    ticket: int = 0

    @property
    def job_id(self) -> JobId:
        """The job's id."""
        return self.record.job_id

    def candidates(self) -> tuple[WorkerId, ...]:
        """The workers to ask next, in order; none means that the chain is asked."""
        if self.needs_review:
            return ()
        if self.attested_by is not None:
            return (self.attested_by,)
        return tuple(w for w in self.record.workers if w not in self.tried and w not in self.failed)


@dataclass(slots=True)
class _Lane:
    """One worker's room: jobs at it now, failures in a row, and until when it is left alone."""

    room: int
    active: int = 0
    failures: int = 0
    paused_until: float = 0.0


# The jobs of one owner that wait for one worker, by ticket: the oldest is first.
_Queue: TypeAlias = OrderedDict[int, OpenJob]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """A job whose turn it is, and the worker to ask; `None` when the chain is to be asked."""

    job: OpenJob
    worker: WorkerId | None


class Backlog:
    """
    All jobs that wait, for a worker or for a time.

    Owners take turns, whichever workers their jobs name. *places* is how many jobs may be at
    workers together: each worker has an equal share of them, so that slow ones take no other's.
    """

    def __init__(self, *, backoff: Backoff, places: int) -> None:
        self._backoff = backoff
        self._places = places
        self._lanes: dict[WorkerId, _Lane] = {}
        self._owners: OrderedDict[bytes, dict[WorkerId, _Queue]] = OrderedDict()
        self._delayed: list[tuple[float, int, OpenJob]] = []
        self._tickets = count(1)
        self.at_workers = 0

    def put(self, job: OpenJob, *, now: float) -> None:
        """Let the job wait for its next worker, or for the next round when all were asked."""
        workers = job.candidates()
        if not workers and not job.needs_review:
            job.rounds += 1
            job.tried.clear()
            job.needs_review = True
            self.delay(job, now + self._backoff.delay(job.rounds))
            return
        self._remove(job)
        job.is_resting = False
        job.ticket = next(self._tickets)
        job.waits_for = workers or (_CHAIN,)
        queues = self._owners.setdefault(job.record.owner, {})
        for worker in job.waits_for:
            queues.setdefault(worker, OrderedDict())[job.ticket] = job

    def delay(self, job: OpenJob, until: float, *, is_resting: bool = True) -> None:
        """Let the job wait until a time."""
        self._remove(job)
        job.is_resting = is_resting
        job.ticket = next(self._tickets)
        heapq.heappush(self._delayed, (until, job.ticket, job))

    def pop(self, *, now: float) -> Turn | None:
        """Take the job whose turn it is, if there is one that a worker has room for."""
        while self._delayed and self._delayed[0][0] <= now:
            _, ticket, job = heapq.heappop(self._delayed)
            if ticket == job.ticket:
                self.put(job, now=now)
        for owner, queues in self._owners.items():
            first = min(
                (
                    next(iter(queue.items()))
                    for worker, queue in queues.items()
                    if self._has_room(worker, now)
                ),
                key=itemgetter(0),
                default=None,
            )
            if first is not None:
                _, job = first
                worker = next(worker for worker in job.waits_for if self._has_room(worker, now))
                self._owners.move_to_end(owner)
                self._remove(job)
                return Turn(job=job, worker=None if worker == _CHAIN else worker)
        return None

    def _has_room(self, worker: WorkerId, now: float) -> bool:
        lane = self._lanes.get(worker)
        if lane is None:  # the chain, or a worker that nothing was sent to yet
            return True
        share = max(1, self._places // len(self._lanes))
        return lane.active < min(lane.room, share) and lane.paused_until <= now

    def _remove(self, job: OpenJob) -> None:
        """Take the job out of all queues that it is in; what is delayed is told by its ticket."""
        queues = self._owners.get(job.record.owner, {})
        for worker in job.waits_for:
            del queues[worker][job.ticket]
            if not queues[worker]:
                del queues[worker]
        if job.waits_for and not queues:
            del self._owners[job.record.owner]
        job.waits_for = ()
        job.ticket = 0

    def next_wake(self, *, now: float) -> float | None:
        """When `pop` may have something that it has not now, as far as time alone can tell."""
        times = [self._delayed[0][0]] if self._delayed else []
        waited_for = {worker for queues in self._owners.values() for worker in queues}
        times += [
            lane.paused_until
            for worker, lane in self._lanes.items()
            if worker in waited_for and lane.paused_until > now
        ]
        return min(times, default=None)

    # Workers.

    def enter(self, job: OpenJob, worker: WorkerId) -> None:
        """Put the job into the worker's room."""
        self._lane(worker).active += 1
        self.at_workers += 1
        job.at_worker = worker

    def leave(self, job: OpenJob) -> None:
        """Take the job out of the worker's room that it is in, if it is in any."""
        if job.at_worker is not None:
            self._lanes[job.at_worker].active -= 1
            self.at_workers -= 1
            job.at_worker = None

    def _lane(self, worker: WorkerId) -> _Lane:
        return self._lanes.setdefault(worker, _Lane(room=FIRST_ROOM))

    def set_room(self, worker: WorkerId, jobs: int) -> None:
        """Say how many jobs may be at the worker at once."""
        self._lane(worker).room = max(1, jobs)

    def succeeded(self, worker: WorkerId) -> None:
        """Believe that the worker works."""
        self._lanes[worker].failures = 0

    def pause(self, worker: WorkerId, *, now: float, seconds: float | None = None) -> None:
        """Leave the worker alone, as long as it asked for or longer after each failure."""
        lane = self._lane(worker)
        if seconds is None:
            if lane.paused_until > now:
                return  # other jobs saw the same failure: it is one
            lane.failures += 1
            seconds = self._backoff.delay(lane.failures)
        lane.paused_until = max(lane.paused_until, now + min(seconds, self._backoff.most))
