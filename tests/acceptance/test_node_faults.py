"""
What the connection to the node, and the node itself, may do to a running system.

Whatever happens, each job is submitted once, recorded once, processed once, and nobody hangs. What
became of the jobs is counted on the chain. A fault that was not met fails the test.
"""

import itertools
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from orchestrator.crypto import AccountKey
from orchestrator.errors import InsufficientFundsError, TooHeavyError
from orchestrator.metrics import EventKind
from orchestrator.models import JobId
from orchestrator.testing.node_proxy import (
    Fault,
    Kind,
    Message,
    When,
    answer_to,
    notice_of,
    request_of,
)
from tests.acceptance.fault_report import Report
from tests.acceptance.fault_world import (
    ADMIN,
    LONG,
    PATIENCE_SECONDS,
    FaultWorld,
    Owner,
    Rival,
    make_world,
    until,
)

# The time-out is for a machine that does much else.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SUBMIT = "author_submitAndWatchExtrinsic"
EVENTS_KEY = "26aa394eea5630e07c48ae0c9558cef780d41e5e16056765bc8461851072c9d7"  # System.Events
EXTRINSIC = {
    "the call is sent": request_of(SUBMIT),
    "the call is answered": answer_to(SUBMIT),
    "it is in a block": notice_of(SUBMIT, containing='"inBlock"'),
    "it is final": notice_of(SUBMIT, containing='"finalized"'),
    "the block is read": answer_to("chain_getBlock"),
    "its events are read": answer_to("state_getStorage", containing=EVENTS_KEY),
}
WATCH = {
    "a head is told": notice_of("chain_subscribeFinalizedHeads"),
    "blocks are looked up": answer_to("chain_getBlockHash"),
    "events are read": answer_to("state_getStorage", containing=EVENTS_KEY),
    "a job is read": answer_to("state_call"),
}


# At the same time: slow ones, which only time tells, and quick ones.
LANES = (
    (Fault.MUTE, Fault.RESET),
    (Fault.DEAF, Fault.END),
    (Fault.SILENT, Fault.TWICE),
    (Fault.HOLD, Fault.CORRUPT),
    (Fault.DROP, Fault.RESET_AFTER),
)
MOST_JOBS = 40
HOLD_SECONDS = 3.0  # longer than a request may take


# Every fault of the connection at every moment.


def moments(world: FaultWorld) -> list[tuple[str, When, When, When]]:
    """What the owner, the watching orchestrator and the sending one are doing, three at a time."""
    read_back = world.processor.jobs_page(1, 1).data[:4].hex()
    owners = {**EXTRINSIC, "workers are looked up": answer_to("state_call")}
    senders = {**EXTRINSIC, "jobs are read back": answer_to("state_call", containing=read_back)}
    watches = itertools.cycle(WATCH.items())
    return [
        (f"{owner} / {watch} / {sender}", at_owner, at_watch, at_sender)
        for (owner, at_owner), (watch, at_watch), (sender, at_sender) in zip(
            owners.items(), watches, senders.items(), strict=False
        )
    ]


def run_lane(world: FaultWorld, faults: Sequence[Fault], report: Report) -> None:
    """An owner and its orchestrator, through all moments of some faults."""
    with (
        world.owner(world.account()) as owner,
        world.service(world.operator(), owner) as service,
    ):
        proxies = (owner.proxy, service.reading, service.sending)
        for fault in faults:
            for name, *whens in moments(world):
                armed = [
                    proxy.arm(fault, when, hold_seconds=HOLD_SECONDS)
                    for proxy, when in zip(proxies, whens, strict=True)
                ]
                jobs = submit_and_finish(world, owner)
                for one in armed:
                    assert one.fired.wait(PATIENCE_SECONDS), f"{fault.name}, {name}: not met"
                for proxy in proxies:
                    proxy.disarm()
                report.add(f"connection: {fault.value}", len(armed), world.tally(owner, jobs))


@pytest.fixture(scope="module")
def instant(node_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultWorld]:
    """A block for each transaction, final at once."""
    with make_world(tmp_path_factory.mktemp("instant"), node_program) as (world, _):
        yield world


@pytest.fixture(scope="module")
def patient(node_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[FaultWorld]:
    """The same, with connections that no busy machine makes give up."""
    folder = tmp_path_factory.mktemp("patient")
    with make_world(folder, node_program, timeouts=LONG) as (world, _):
        yield world


def together(*lanes: Callable[[], None]) -> None:
    """Run all at the same time, and tell of every one that fails."""
    with ThreadPoolExecutor(max_workers=len(lanes)) as threads:
        ended = [threads.submit(lane).exception for lane in lanes]
        failures = [failure for failure in (exception() for exception in ended) if failure]
    if failures:
        raise BaseExceptionGroup("lanes failed", failures)


def test_jobs_survive_every_fault_of_the_connection_at_every_moment(
    instant: FaultWorld, report: Report
) -> None:
    together(*(partial(run_lane, instant, faults, report) for faults in LANES))


# A node that refuses, and clocks that differ.

REFUSALS = (
    (1010, "Invalid Transaction: Transaction is outdated"),
    (1010, "Invalid Transaction: Transaction has a bad signature"),
    (1012, "Transaction is temporarily banned"),
    (1014, "Priority is too low: (1 vs 1)"),
    (1016, "Immediately Dropped"),
)
EXHAUSTED = (1010, "Invalid Transaction: Transaction would exhaust the block limits")
MINUTES = 60_000
HOURS = 60 * MINUTES


def refused_words(world: FaultWorld, report: Report) -> None:
    """Each refusal of the node that is about the moment, at the owner and at the orchestrator."""
    with (
        world.owner(world.account()) as owner,
        world.service(world.operator(), owner) as service,
    ):
        for error in REFUSALS:
            armed = [
                proxy.arm(Fault.REFUSE, request_of(SUBMIT), error=error)
                for proxy in (owner.proxy, service.sending)
            ]
            jobs = submit_and_finish(world, owner)
            assert all(one.fired.is_set() for one in armed), error
            report.add("the node refuses: in its words", len(armed), world.tally(owner, jobs))


def exhausted_block(world: FaultWorld, report: Report) -> None:
    """What does not fit into a block is sent in parts; who can't do that is told."""
    with (
        world.owner(world.account()) as owner,
        world.service(world.operator(), owner) as service,
    ):
        armed = owner.proxy.arm(Fault.REFUSE, request_of(SUBMIT), error=EXHAUSTED)
        content = world.data()
        with pytest.raises(TooHeavyError):
            owner.submit(content)
        heavy = service.sending.arm(Fault.REFUSE, request_of(SUBMIT), error=EXHAUSTED)
        jobs = [owner.submit(content)]
        owner.finish(jobs[0], content)
        assert armed.fired.is_set()
        assert heavy.fired.is_set()
        report.add("the node refuses: block exhausted", 2, world.tally(owner, jobs))


def rival_of_the_accounts(world: FaultWorld, report: Report) -> None:
    """Another program uses the accounts of owner and orchestrator all the time."""
    at_owner, at_service = world.account(), world.operator()
    with (
        world.owner(at_owner) as owner,
        world.service(at_service, owner) as service,
        ThreadPoolExecutor() as threads,
    ):
        met = [
            proxy.arm(Fault.NONE, is_refusal, times=1_000_000)
            for proxy in (owner.proxy, service.sending)
        ]
        is_over = threading.Event()

        def use(account: AccountKey) -> int:
            # With pauses: who is slower than the rival each time would never have a turn.
            with Rival(world.node.url) as rival:
                return sum(rival.use_nonce(account) for _ in iter(lambda: is_over.wait(0.05), True))

        used = [threads.submit(use, account) for account in (at_owner, at_service)]
        try:
            jobs = [job for _ in range(2) for job in submit_and_finish(world, owner)]
        finally:
            is_over.set()
        assert all(one.result() > 0 for one in used)
        faults = sum(one.count for one in met)
        report.add("the node refuses: nonces used by another", faults, world.tally(owner, jobs))


def poor_accounts(world: FaultWorld, report: Report) -> None:
    """Neither owner nor orchestrator can pay: each says so, and goes on once it can."""
    with (
        world.owner(world.account(planck=0)) as owner,
        world.service(world.operator(planck=0), owner) as service,
    ):
        content = world.data()
        with pytest.raises(InsufficientFundsError):
            owner.submit(content)
        world.fund(owner.account)
        job_id = owner.submit(content)
        until(lambda: service.count(EventKind.NO_FUNDS) > 0, "nobody was told")
        assert service.count(EventKind.PROCESSED) == 0
        alarms = service.count(EventKind.NO_FUNDS)
        world.fund(service.account)
        owner.finish(job_id, content)
        report.add("the node refuses: payment too low", 1 + alarms, world.tally(owner, [job_id]))


def clocks(world: FaultWorld, report: Report, *, owner_ms: int, service_ms: int) -> None:
    """The clocks of owner and orchestrator are not the chain's."""
    with (
        world.owner(world.account(), ahead_ms=owner_ms) as owner,
        world.service(world.operator(), owner, ahead_ms=service_ms),
    ):
        jobs = submit_and_finish(world, owner)
        name = f"clocks: owner {owner_ms // MINUTES:+} min, orchestrator"
        report.add(f"{name} {service_ms // MINUTES:+} min", 2, world.tally(owner, jobs))


def two_orchestrators(world: FaultWorld, report: Report) -> None:
    """Both do everything for the same owner."""
    with (
        world.owner(world.account()) as owner,
        world.service(world.operator(), owner) as first,
        world.service(world.operator(), owner) as second,
    ):
        jobs: list[JobId] = []
        # One may have done a job before the other has seen it.
        while not (both := first.told(EventKind.DISPATCHED) & second.told(EventKind.DISPATCHED)):
            assert len(jobs) < MOST_JOBS, "the orchestrators were never at the same job"
            jobs += submit_and_finish(world, owner)
        for service in (first, second):
            service.wait_for(EventKind.PROCESSED, sorted(both))
        report.add("two orchestrators, two accounts", len(both), world.tally(owner, jobs))


def is_refusal(message: Message) -> bool:
    return message.kind is Kind.ANSWER and message.method == SUBMIT and '"error"' in message.text


def submit_and_finish(world: FaultWorld, owner: Owner) -> list[JobId]:
    """Two jobs, from the submission to the result."""
    contents = [world.data(), world.data()]
    jobs = [owner.submit(content) for content in contents]
    for job_id, content in zip(jobs, contents, strict=True):
        owner.finish(job_id, content)
    return jobs


def test_jobs_survive_refusals_and_rivals(patient: FaultWorld, report: Report) -> None:
    together(
        partial(refused_words, patient, report),
        partial(exhausted_block, patient, report),
        partial(rival_of_the_accounts, patient, report),
        partial(poor_accounts, patient, report),
    )


def test_jobs_survive_wrong_clocks_and_a_second_orchestrator(
    patient: FaultWorld, report: Report
) -> None:
    together(
        partial(two_orchestrators, patient, report),
        partial(clocks, patient, report, owner_ms=HOURS, service_ms=-HOURS),
        partial(clocks, patient, report, owner_ms=-HOURS, service_ms=5 * MINUTES),
    )


def test_a_batch_that_no_block_has_room_for_is_told_by_name(instant: FaultWorld) -> None:
    calls = [
        instant.processor.allow_measurement(number.to_bytes(32, "big")) for number in range(1_200)
    ]

    with pytest.raises(TooHeavyError):
        instant.direct.batch(calls, signer=ADMIN)

    assert not instant.direct.read(instant.processor.has_measurement((1).to_bytes(32, "big")))
