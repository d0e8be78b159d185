"""
A node that dies at the worst moment, one that takes a block back, and one where nothing happens.

The node makes blocks when the test says so, and its pool has room for one transaction. Each job is
submitted once, recorded once and processed once in the end, and nothing is told before it is final.
"""

from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from orchestrator.crypto import EcdsaSigner
from orchestrator.metrics import EventKind
from orchestrator.models import JobId, JobStatus
from orchestrator.testing.chain import register_test_worker
from orchestrator.testing.node_proxy import (
    Armed,
    Fault,
    Kind,
    Message,
    NodeProxy,
    answer_to,
    notice_of,
    request_of,
)
from tests.acceptance.fault_report import Report
from tests.acceptance.fault_world import (
    ADMIN,
    ARCHIVE,
    MEASUREMENT,
    PATIENCE_SECONDS,
    FaultWorld,
    Owner,
    Sealer,
    Service,
    make_world,
    until,
    wall_clock,
)

# The time-out is for a machine that does much else.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SHORT_TTL_MS = 10_000  # the contract's least
OLD_MS = 11_000  # more than the age at which a block's time is not believed any more
SUBMIT = "author_submitAndWatchExtrinsic"
SUBMIT_AGAIN = "author_submitExtrinsic"
MANUAL = ("--manual-seal", "--pool-limit", "1", *ARCHIVE)


@dataclass(frozen=True, kw_only=True)
class Manual:
    """A node with `--manual-seal` and room for one transaction, an owner and an orchestrator."""

    world: FaultWorld
    sealer: Sealer
    owner: Owner
    service: Service
    complete: str

    def hold_completion(self) -> Armed:
        """Keep the next `complete_jobs` from the node."""
        when = request_of(SUBMIT, containing=self.complete)
        return self.service.sending.arm(Fault.HOLD, when)

    def status(self, job_id: JobId) -> JobStatus:
        job = self.world.direct.read(self.world.processor.get_job(job_id))
        assert job is not None
        return job.status

    def job_count(self) -> int:
        return self.world.direct.read(self.world.processor.get_job_counter())


@pytest.fixture(scope="module")
def manual(node_program: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Manual]:
    folder = tmp_path_factory.mktemp("manual")
    with (
        make_world(folder, node_program, flags=MANUAL, sealer=Sealer) as (world, sealer),
        world.owner(world.account()) as owner,
        world.service(world.operator(), owner) as service,
    ):
        assert sealer is not None
        yield Manual(
            world=world,
            sealer=sealer,
            owner=owner,
            service=service,
            complete=world.processor.complete_jobs([]).data[:4].hex(),
        )


def begin_in_the_pool(manual: Manual) -> tuple[bytes, "Future[JobId]"]:
    """A submission that the node has, and that is in no block."""
    manual.sealer.off()
    answered = manual.owner.proxy.arm(Fault.NONE, answer_to(SUBMIT))
    content = manual.world.data()
    submitting = manual.owner.begin_submit(content)
    assert answered.fired.wait(PATIENCE_SECONDS)
    assert manual.sealer.pending() == 1
    return content, submitting


def complete_in_the_pool(manual: Manual) -> tuple[bytes, JobId]:
    """A job whose completion the node has, and that is in no block."""
    held = manual.hold_completion()
    content = manual.world.data()
    job_id = manual.owner.submit(content)
    assert held.fired.wait(PATIENCE_SECONDS)
    manual.sealer.off()
    answered = manual.service.sending.arm(Fault.NONE, answer_to(SUBMIT))
    held.release()
    assert answered.fired.wait(PATIENCE_SECONDS)
    assert manual.sealer.pending() == 1
    return content, job_id


def in_a_block(manual: Manual, proxy: NodeProxy) -> tuple[str, str]:
    """Make a block of it that is not final, and return its parent and it once that was told."""
    told = proxy.arm(Fault.NONE, notice_of(SUBMIT, containing='"inBlock"'))
    parent = manual.sealer.best()
    block = manual.sealer.seal()
    assert told.fired.wait(PATIENCE_SECONDS)
    return parent, block


def die_and_live(manual: Manual) -> None:
    """Kill the node, start it again, and let it make blocks."""
    manual.world.node.kill()
    manual.world.node.start()
    manual.sealer.on()


def fork(manual: Manual, parent: str, lost: str) -> None:
    """Make a branch on *parent* that is longer than the block that is *lost* by it."""
    other = manual.sealer.seal(parent=parent)
    longer = manual.sealer.seal(parent=other)
    assert manual.sealer.best() == longer
    manual.sealer.finalize(longer)
    # What is final has no block in common with the lost one.
    assert lost not in (other, longer)


def sent(proxy: NodeProxy) -> int:
    return proxy.requests[SUBMIT] + proxy.requests[SUBMIT_AGAIN]


def test_jobs_survive_a_node_that_dies(manual: Manual, report: Report) -> None:
    world, owner, service = manual.world, manual.owner, manual.service

    content, submitting = begin_in_the_pool(manual)
    before = sent(owner.proxy)
    die_and_live(manual)
    job_id = submitting.result(2 * PATIENCE_SECONDS)
    owner.finish(job_id, content)
    assert sent(owner.proxy) > before, "the pool was lost, and nothing was sent again"
    report.add("node killed: submission in the pool", 1, world.tally(owner, [job_id]))

    content, submitting = begin_in_the_pool(manual)
    in_a_block(manual, owner.proxy)
    die_and_live(manual)
    job_id = submitting.result(2 * PATIENCE_SECONDS)
    owner.finish(job_id, content)
    report.add("node killed: submission in a block, not final", 1, world.tally(owner, [job_id]))

    content, job_id = complete_in_the_pool(manual)
    before = sent(service.sending)
    die_and_live(manual)
    owner.finish(job_id, content)
    assert sent(service.sending) > before, "the pool was lost, and nothing was sent again"
    report.add("node killed: completion in the pool", 1, world.tally(owner, [job_id]))

    content, job_id = complete_in_the_pool(manual)
    in_a_block(manual, service.sending)
    die_and_live(manual)
    owner.finish(job_id, content)
    report.add("node killed: completion in a block, not final", 1, world.tally(owner, [job_id]))


def test_jobs_survive_a_block_that_is_taken_back(manual: Manual, report: Report) -> None:
    world, owner, service = manual.world, manual.owner, manual.service

    content, submitting = begin_in_the_pool(manual)
    jobs, admitted = manual.job_count(), service.count(EventKind.ADMITTED)
    parent, lost = in_a_block(manual, owner.proxy)
    assert manual.job_count() == jobs
    assert not submitting.done(), "an owner was told of a job before it was final"
    assert service.count(EventKind.ADMITTED) == admitted, "a job was admitted before it was final"
    fork(manual, parent, lost)
    manual.sealer.on()
    job_id = submitting.result(2 * PATIENCE_SECONDS)
    owner.finish(job_id, content)
    report.add("block taken back: submission", 1, world.tally(owner, [job_id]))

    service.wait_for(EventKind.PROCESSED, [job_id])
    processed = service.count(EventKind.PROCESSED)
    content, job_id = complete_in_the_pool(manual)
    parent, lost = in_a_block(manual, service.sending)
    assert manual.status(job_id) is JobStatus.SUBMITTED
    assert service.count(EventKind.PROCESSED) == processed, "a job was processed before it was"
    fork(manual, parent, lost)
    manual.sealer.on()
    owner.finish(job_id, content)
    report.add("block taken back: completion", 1, world.tally(owner, [job_id]))


def test_jobs_survive_a_full_pool(manual: Manual, report: Report) -> None:
    """Two owners, and room for one transaction: the pool throws one out for the other."""
    world = manual.world
    with (
        world.owner(world.account()) as second,
        world.owner(world.account()) as third,
        world.service(world.operator(), second, third),
    ):
        owners = (second, third)
        thrown_out = [owner.proxy.arm(Fault.NONE, has_no_place, times=1_000) for owner in owners]
        contents = [world.data() for _ in owners]
        manual.sealer.off()
        begun = [
            owner.begin_submit(content) for owner, content in zip(owners, contents, strict=True)
        ]
        until(lambda: any(one.fired.is_set() for one in thrown_out), "nobody was thrown out")
        manual.sealer.on()
        jobs = [submitting.result(2 * PATIENCE_SECONDS) for submitting in begun]
        for owner, job_id, content in zip(owners, jobs, contents, strict=True):
            owner.finish(job_id, content)
        for owner, job_id in zip(owners, jobs, strict=True):
            faults = sum(one.count for one in thrown_out)
            report.add("pool full", faults, world.tally(owner, [job_id]))


def has_no_place(message: Message) -> bool:
    is_refused = message.kind is Kind.ANSWER and '"code":1016' in message.text
    is_dropped = message.kind is Kind.NOTICE and '"dropped"' in message.text
    return message.method == SUBMIT and (is_refused or is_dropped)


def test_a_chain_where_nothing_happens_stops_no_job(manual: Manual, report: Report) -> None:
    """
    The last block is old: what a call would meet in the next one is not what a dry run meets.

    A job expires though no block says that its time is over; and a statement that is later than
    the last block by more than the contract allows is recorded.
    """
    world = manual.world
    away = register_test_worker(
        world.direct,
        world.processor,
        EcdsaSigner.generate(),
        registrar=ADMIN,
        measurement=MEASUREMENT,
    )
    # On one machine a second is enough, and makes an old block's time count.
    parameters = world.direct.read(world.processor.parameters())
    strict = world.processor.set_parameters(replace(parameters, max_clock_skew=1_000))
    world.direct.call(strict, signer=ADMIN)
    operator = world.operator()
    with world.owner(world.account()) as owner:
        expiring = owner.submit(world.data(), workers=[away], ttl_ms=SHORT_TTL_MS)
        content = world.data()
        job_id = owner.submit(content, workers=[world.worker])
        last = world.direct.finalized_head()
        until(lambda: wall_clock() - last.timestamp > OLD_MS, "the time stands still")
        assert world.direct.finalized_head() == last, "something happened on the chain"

        with world.service(operator, owner) as service:
            owner.finish(job_id, content)
            service.wait_for(EventKind.EXPIRED, [expiring])

        assert manual.status(expiring) is JobStatus.EXPIRED
        report.add("nothing happens for a while", 1, world.tally(owner, [job_id]))
