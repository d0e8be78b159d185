"""
Whatever goes wrong on the way, jobs end right.

Workers lie, the chain loses calls before or after it has made them, and the orchestrator dies at
any of its steps, any number of times. Once everybody behaves again, each job is processed exactly
once, with a result that the owner can fetch, or has failed at all of its workers.
"""

import asyncio
import tempfile
from contextlib import suppress
from pathlib import Path

from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from orchestrator.metrics import EventKind
from orchestrator.models import JobStatus, Outcome
from orchestrator.service import Moment, Step
from orchestrator.testing.flaky_chain import Fault, FlakyChain
from orchestrator.testing.workers import Behaviour
from tests.unit.service.world import World, make_world

# Not in the lists: what only ends with a lease, and what costs a worker our trust for good.
FIRST = sorted(
    set(Behaviour) - {Behaviour.NEVER, Behaviour.AT_ONCE, Behaviour.TWO_RESULTS},
    key=lambda behaviour: behaviour.name,
)
# A worker signs one outcome for ever, so one that signed nonsense can't make it good again.
SECOND = [
    behaviour
    for behaviour in FIRST
    if behaviour not in (Behaviour.BEFORE_JOB, Behaviour.EMPTY_RESULT)
]
LABELS = ["complete_jobs", "batch", "jobs_page", "get_job", "get_attestation", "events", "mode"]

jobs = st.lists(st.tuples(st.sampled_from(FIRST), st.sampled_from(SECOND)), min_size=1, max_size=5)
deaths = st.lists(
    st.tuples(st.sampled_from(Step), st.sampled_from(Moment), st.integers(0, 3)), max_size=4
)
faults = st.lists(
    st.tuples(st.sampled_from(LABELS), st.sampled_from(Fault), st.integers(0, 5)), max_size=6
)


class DeathError(BaseException):
    """The end of an orchestrator, in the middle of something."""


class Mortal:
    """A fail point that ends the orchestrator when a step is reached for the n-th time."""

    def __init__(self, step: Step, moment: Moment, skip: int) -> None:
        self._place = (step, moment)
        self._left = skip
        self.died = asyncio.Event()

    def __call__(self, step: Step, moment: Moment) -> None:
        if self.died.is_set():
            raise DeathError  # the dead do nothing more
        if (step, moment) == self._place:
            self._left -= 1
            if self._left < 0:
                self.died.set()
                raise DeathError


def flaky(world: World, schedule: list[tuple[str, Fault, int]]) -> FlakyChain:
    left = [list(entry) for entry in schedule]

    def fault(label: str) -> Fault | None:
        for entry in left:
            if entry[0] == label:
                assert isinstance(entry[2], int)
                entry[2] -= 1
                if entry[2] == -1:
                    chosen = entry[1]
                    assert isinstance(chosen, Fault)
                    is_effect = label in ("complete_jobs", "batch")
                    return chosen if is_effect or chosen is not Fault.TRAP else Fault.BEFORE
        return None

    return FlakyChain(world.served, fault)


async def run_until_death(world: World, death: tuple[Step, Moment, int]) -> None:
    mortal = Mortal(*death)
    running = asyncio.create_task(world.run(fail_point=mortal, seconds=1.5))
    dying = asyncio.create_task(mortal.died.wait())
    await asyncio.wait([running, dying], return_when=asyncio.FIRST_COMPLETED)
    dying.cancel()
    running.cancel()
    with suppress(asyncio.CancelledError, DeathError):
        await running


async def play(
    world: World,
    behaviours: list[tuple[Behaviour, Behaviour]],
    schedule: list[tuple[Step, Moment, int]],
    chain_faults: list[tuple[str, Fault, int]],
) -> None:
    workers = [world.add_worker(), world.add_worker()]
    ids = []
    for pair in behaviours:
        job_id = world.submit(*workers)
        ids.append(job_id)
        for scripted, behaviour in zip(world.scripted, pair, strict=True):
            scripted.behaviours[job_id] = behaviour
    world.wrapped = flaky(world, chain_faults)
    for death in schedule:
        await run_until_death(world, death)
    await world.run(seconds=1.5)

    world.wrapped.include()  # what was on its way all the time
    world.wrapped = None
    for scripted in world.scripted:
        scripted.make_honest()
    await world.run(seconds=20)
    check(world, ids, behaviours)


def check(world: World, ids: list[int], behaviours: list[tuple[Behaviour, Behaviour]]) -> None:
    processed = [event.fields["job_id"] for event in world.chain_events("JobProcessed")]
    assert len(processed) == len(set(processed)), "a job was processed twice"
    for job_id, pair in zip(ids, behaviours, strict=True):
        # One that failed at its second worker has no other left when its first signed nonsense.
        nonsense = (Behaviour.BEFORE_JOB, Behaviour.EMPTY_RESULT)
        if pair[0] in nonsense and pair[1] is Behaviour.FAILS:
            continue
        has_failed = pair == (Behaviour.FAILS, Behaviour.FAILS)
        expected = JobStatus.FAILED if has_failed else JobStatus.PROCESSED
        assert world.status(job_id) is expected, (job_id, pair, world.codes(job_id))
        assert world.record(job_id).state.value == expected.value.lower()
    completed = [
        fields for fields in world.chain_statements() if fields["outcome"] is Outcome.COMPLETED
    ]
    assert len({fields["job_id"] for fields in completed}) == len(completed)
    for fields in completed:
        assert isinstance(fields["result_hash"], bytes)
        assert world.blobs.has(fields["result_hash"]), "marked without a result to fetch"
    assert not world.heard(EventKind.CONFLICT)


@settings(max_examples=15, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(behaviours=jobs, schedule=deaths, chain_faults=faults)
def test_jobs_end_right_whatever_goes_wrong(
    behaviours: list[tuple[Behaviour, Behaviour]],
    schedule: list[tuple[Step, Moment, int]],
    chain_faults: list[tuple[str, Fault, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder, make_world(Path(folder)) as world:
        asyncio.run(play(world, behaviours, schedule, chain_faults))
