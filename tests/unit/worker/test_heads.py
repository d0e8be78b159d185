"""A worker with a chain believes the chain: before it opens, and before it signs."""

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest

from orchestrator.attestation import JobView, verify_statement
from orchestrator.chain import Block, Chain, ContractCall
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.crypto import EcdsaSigner
from orchestrator.errors import (
    ChainUnavailableError,
    WorkerRefusedError,
    WorkerUnavailableError,
)
from orchestrator.models import Mode, Parameters
from orchestrator.testing import LocalAccount, register_test_worker
from orchestrator.worker import TokenScope
from orchestrator.worker.identity import load_or_make_keys
from orchestrator.workers import JobRequest, WorkerJobState
from tests.unit.worker.world import MEASUREMENT, ChainWorld, chain_worker, until

T = TypeVar("T")


class FlakyChain(EmbeddedChain):
    """
    The reads of one message fail while `failing` is its label, or of the head while it is "head".

    `behind` is by how much its blocks' time is behind the worker's.
    """

    def __init__(self, base: EmbeddedChain) -> None:
        self._base = base
        self.failing: str | None = None
        self.behind = 0
        self.reads: list[str] = []

    @property
    def genesis_hash(self) -> bytes:
        return self._base.genesis_hash

    def read(self, call: ContractCall[T]) -> T:
        self.reads.append(call.label)
        if call.label == self.failing:
            raise ChainUnavailableError
        return self._base.read(call)

    def finalized_head(self) -> Block:
        self.reads.append("head")
        if self.failing == "head":
            raise ChainUnavailableError
        head = self._base.finalized_head()
        return replace(head, timestamp=head.timestamp - self.behind)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[ChainWorld]:
    async with chain_worker(tmp_path / "worker") as made:
        yield made


async def assert_refused(world: ChainWorld, request: JobRequest, status: int, words: str) -> None:
    """Assert the refusal, and that nothing was executed or signed."""
    if status == 503:
        with pytest.raises(WorkerUnavailableError, match=f"503.*{words}") as busy:
            await world.client().put_job(request)
        assert busy.value.retry_after_seconds == 2
    else:
        with pytest.raises(WorkerRefusedError, match=words) as refused:
            await world.client().put_job(request)
        assert refused.value.status == status
    with pytest.raises(WorkerRefusedError, match="404"):
        await world.client().get_job(request.key)


async def test_the_contract_accepts_what_the_worker_signs(world: ChainWorld) -> None:
    request = world.submit(world.sealed(b"hello"))

    job = await world.finish(request)

    assert job.completion is not None
    world.chain.call(world.processor.record_attestation(job.completion), signer=world.account)
    assert world.chain.read(world.processor.verify_attestation(request.key.job_id))
    assert await world.output(job) == b"hello"


async def test_an_inline_payload_is_read_from_the_chain(world: ChainWorld) -> None:
    request = world.submit(world.sealed(b"hello"), send_envelope=False)

    assert await world.output(await world.finish(request)) == b"hello"


async def test_statements_say_the_registered_measurement_not_the_one_asked_for_last(
    world: ChainWorld,
) -> None:
    request = world.submit(world.sealed())
    await world.client(TokenScope.REGISTRATION).registration(
        genesis=world.chain.genesis_hash,
        contract=world.processor.contract,
        measurement=b"z" * 32,
        evidence_hash=bytes(32),
        valid_until=1,
    )

    job = await world.finish(request)

    assert job.completion is not None
    statement = verify_statement(
        job.completion,
        view=JobView(
            genesis_hash=world.chain.genesis_hash,
            contract=world.processor.contract,
            mode=Mode.RUNNING,
            parameters=Parameters(),
            job=world.chain.read(world.processor.get_job(request.key.job_id)),
            worker=world.chain.read(
                world.processor.worker_by_key(job.completion.tee_worker_pubkey)
            ),
            measurement_allowed=True,
        ),
        now=world.clock(),
    )
    assert statement.measurement == MEASUREMENT


@pytest.mark.parametrize("field", ["owner", "public_key", "recipients", "created_at", "deadline"])
async def test_a_head_unlike_the_chains_is_422(world: ChainWorld, field: str) -> None:
    request = world.submit(world.sealed())
    value = getattr(request.head, field)
    other: object = value + 1 if isinstance(value, int) else hashlib.sha256(b"other").digest()
    if field == "recipients":
        other = (*request.head.recipients, other)

    forged = replace(request, head=replace(request.head, **{field: other}))  # type: ignore[arg-type]  # the field's own type

    await assert_refused(world, forged, 422, f"head.{field}: the chain has another")


async def test_a_payload_unlike_the_chains_is_422(world: ChainWorld) -> None:
    request = world.submit(world.sealed(b"one"))
    other = world.request(world.sealed(b"two"))
    forged = replace(other, key=replace(other.key, job_id=request.key.job_id), head=request.head)

    await assert_refused(world, forged, 422, "payload_hash: the chain has another")


@pytest.mark.parametrize("field", ["genesis", "contract"])
async def test_another_chain_or_contract_is_422(world: ChainWorld, field: str) -> None:
    request = world.submit(world.sealed())

    forged = replace(request, key=replace(request.key, **{field: bytes(32)}))  # type: ignore[arg-type]  # the field's own type

    await assert_refused(world, forged, 422, "not those that this worker works for")


async def test_registering_for_another_contract_is_422(world: ChainWorld) -> None:
    with pytest.raises(WorkerRefusedError, match="422"):
        await world.client(TokenScope.REGISTRATION).registration(
            genesis=world.chain.genesis_hash,
            contract=bytes(32),
            measurement=MEASUREMENT,
            evidence_hash=bytes(32),
            valid_until=1,
        )


async def test_a_job_that_is_not_there_yet_is_503(world: ChainWorld) -> None:
    request = world.submit(world.sealed())
    early = replace(request, key=replace(request.key, job_id=request.key.job_id + 1))

    await assert_refused(world, early, 503, "no finalized job 2 yet")


async def test_a_worker_that_is_not_registered_yet_is_503(tmp_path: Path) -> None:
    async with chain_worker(tmp_path, is_registered=False) as world:
        other = register_test_worker(
            world.chain,
            world.processor,
            EcdsaSigner.generate(),
            registrar=LocalAccount.named("admin"),
            measurement=MEASUREMENT,
        )
        request = world.submit(world.sealed(), workers=(other,))

        await assert_refused(world, request, 503, "not registered")


async def test_a_job_for_another_worker_is_422(world: ChainWorld) -> None:
    other = register_test_worker(
        world.chain,
        world.processor,
        EcdsaSigner.generate(),
        registrar=LocalAccount.named("admin"),
        measurement=MEASUREMENT,
    )
    request = world.submit(world.sealed(), workers=(other,))

    await assert_refused(world, request, 422, "not for this worker")


async def test_a_cancelled_job_is_409(world: ChainWorld) -> None:
    request = world.submit(world.sealed())
    world.chain.call(world.processor.cancel_job(request.key.job_id), signer=world.account)

    await assert_refused(world, request, 409, "Cancelled")


@pytest.mark.parametrize("label", ["get_job", "get_worker", "parameters"])
async def test_a_chain_that_can_not_be_read_is_503_and_nothing_is_signed(
    tmp_path: Path, label: str
) -> None:
    flaky: list[FlakyChain] = []

    def wrap(chain: EmbeddedChain) -> Chain:
        flaky.append(FlakyChain(chain))
        return flaky[0]

    async with chain_worker(tmp_path, wrap=wrap) as world:
        flaky[0].failing = label
        request = world.submit(world.sealed())

        await assert_refused(world, request, 503, "the chain can't be read")

        flaky[0].failing = None
        assert (await world.finish(request)).state is WorkerJobState.DONE


async def test_a_chain_that_does_not_say_whether_we_are_registered_is_503(tmp_path: Path) -> None:
    flaky: list[FlakyChain] = []

    def wrap(chain: EmbeddedChain) -> Chain:
        flaky.append(FlakyChain(chain))
        return flaky[0]

    async with chain_worker(tmp_path, wrap=wrap) as world:
        other = register_test_worker(
            world.chain,
            world.processor,
            EcdsaSigner.generate(),
            registrar=LocalAccount.named("admin"),
            measurement=MEASUREMENT,
        )
        request = world.submit(world.sealed(), workers=(other,))
        flaky[0].failing = "worker_by_key"
        before = load_or_make_keys(world.settings.folder, world.settings.scheme).pairs

        await assert_refused(world, request, 503, "the chain can't be read")
        with pytest.raises(WorkerUnavailableError, match="the chain can't be read"):
            await world.client(TokenScope.REGISTRATION).rotate(
                genesis=world.chain.genesis_hash, contract=world.processor.contract
            )

        after = load_or_make_keys(world.settings.folder, world.settings.scheme).pairs
        assert [pair.signing_key for pair in after] == [pair.signing_key for pair in before]


class Watched:
    """A worker on a chain whose blocks, and the time that nobody sets, are the test's."""

    def __init__(self, world: ChainWorld, chain: FlakyChain, patch: pytest.MonkeyPatch) -> None:
        self.world = world
        self.chain = chain
        self.seconds = 0.0
        patch.setattr(world.server._heads, "_monotonic", lambda: self.seconds)

    def make_block(self) -> None:
        self.world.chain.upload(self.world.processor.bundle.code, signer=self.world.account)


@pytest.fixture
async def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Watched]:
    flaky: list[FlakyChain] = []

    def wrap(chain: EmbeddedChain) -> Chain:
        flaky.append(FlakyChain(chain))
        return flaky[0]

    async with chain_worker(tmp_path, wrap=wrap) as world:
        yield Watched(world, flaky[0], monkeypatch)


class TestClock:
    """A clock that is ahead of the chain's blocks, or a chain that makes none."""

    @pytest.mark.parametrize("ahead", [60_000, 60_001])
    async def test_ahead_by_more_than_the_skew_is_503_and_starts_nothing(
        self, watched: Watched, ahead: int
    ) -> None:
        request = watched.world.submit(watched.world.sealed())
        watched.world.clock.advance(ahead)

        if ahead == 60_000:
            assert (await watched.world.finish(request)).state is WorkerJobState.DONE
        else:
            await assert_refused(watched.world, request, 503, "clock is 60001 ms ahead")

    async def test_stays_ahead_however_many_blocks_come(self, watched: Watched) -> None:
        request = watched.world.submit(watched.world.sealed())
        watched.world.clock.advance(60_001)
        watched.chain.behind = 60_001
        for _ in range(3):
            watched.make_block()
            watched.seconds += 100
            await assert_refused(watched.world, request, 503, "clock is 60001 ms ahead")

    async def test_a_new_block_proves_that_it_is_right(self, watched: Watched) -> None:
        request = watched.world.submit(watched.world.sealed())
        watched.world.clock.advance(3_600_000)
        await assert_refused(watched.world, request, 503, "whether the chain makes blocks")

        watched.make_block()

        assert (await watched.world.finish(request)).state is WorkerJobState.DONE

    async def test_a_chain_that_rests_says_nothing_about_it(self, watched: Watched) -> None:
        """Nobody made a block since the job: it must not wait for somebody to make one."""
        request = watched.world.submit(watched.world.sealed())
        watched.world.clock.advance(3_600_000)
        await assert_refused(watched.world, request, 503, "whether the chain makes blocks")
        watched.seconds += 19.9
        await assert_refused(watched.world, request, 503, "whether the chain makes blocks")

        watched.seconds += 0.1

        assert (await watched.world.finish(request)).state is WorkerJobState.DONE

    async def test_once_proven_it_is_right_until_it_is_set(self, watched: Watched) -> None:
        world = watched.world
        await world.finish(world.submit(world.sealed()))
        old = world.submit(world.sealed())
        world.clock.advance(3_600_000)
        watched.seconds += 3_600
        watched.chain.reads.clear()

        assert (await world.finish(old)).state is WorkerJobState.DONE
        assert "head" not in watched.chain.reads

        request = world.submit(world.sealed())
        world.clock.advance(61_001)  # set, and nothing else
        await assert_refused(world, request, 503, "clock is 61001 ms ahead")

    async def test_a_head_that_can_not_be_read_is_503(self, watched: Watched) -> None:
        request = watched.world.submit(watched.world.sealed())
        watched.world.clock.advance(60_001)
        watched.chain.failing = "head"

        await assert_refused(watched.world, request, 503, "the chain can't be read")


async def test_a_chain_that_does_not_answer_is_503_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent = threading.Event()

    class SilentChain(FlakyChain):
        def read(self, call: ContractCall[T]) -> T:
            silent.wait(10)
            return super().read(call)

    async with chain_worker(tmp_path, wrap=SilentChain) as world:
        request = world.submit(world.sealed())

        with monkeypatch.context() as patch:
            patch.setattr("orchestrator.worker.heads._READ_SECONDS", 0.05)
            await assert_refused(world, request, 503, "the chain can't be read")
            assert world.server._heads.clock_trouble() == "the chain can't be read now"

        silent.set()
        assert (await world.finish(request)).state is WorkerJobState.DONE


@pytest.mark.parametrize("trouble", ["ahead", "unreadable"])
async def test_a_job_that_waited_is_not_run_by_a_clock_that_nobody_can_vouch_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    flaky: list[FlakyChain] = []
    looks = 0

    def wrap(chain: EmbeddedChain) -> Chain:
        flaky.append(FlakyChain(chain))
        return flaky[0]

    def monotonic() -> float:
        nonlocal looks
        looks += 1
        return 0.0

    async with chain_worker(tmp_path, wrap=wrap, developer_hold_seconds=600.0) as world:
        monkeypatch.setattr(world.server._heads, "_monotonic", monotonic)
        running, waiting = (world.submit(world.sealed()) for _ in range(2))
        for request in (running, waiting):
            await world.client().put_job(request)
        meters = world.server._execution._meters
        await until(lambda: looks == 3)  # at both requests, and before the first was run
        world.clock.advance(61_001)
        flaky[0].failing = "head" if trouble == "unreadable" else None

        await world.client().delete_job(running.key)
        await until(lambda: b"put_back_total 1.0" in meters.text(running=0, waiting=0))

        assert (await world.client().get_job(waiting.key)).state is WorkerJobState.QUEUED


async def test_outcomes_are_forgotten_by_the_time_of_blocks_not_by_the_clock(
    tmp_path: Path,
) -> None:
    flaky: list[FlakyChain] = []

    def wrap(chain: EmbeddedChain) -> Chain:
        flaky.append(FlakyChain(chain))
        return flaky[0]

    async with chain_worker(tmp_path, wrap=wrap, retention_ms=1_000) as world:
        request = world.submit(world.sealed())
        job = await world.finish(request)
        world.clock.now = request.head.deadline + 1_001
        world.server.prune()
        assert await world.output(job) == b"data"

        world.submit(world.sealed())  # makes a block
        flaky[0].failing = "head"
        with pytest.raises(ChainUnavailableError):
            world.server.prune()
        assert await world.output(job) == b"data"

        flaky[0].failing = None
        world.server.prune()
        with pytest.raises(WorkerRefusedError, match="404"):
            await world.client().get_job(request.key)


async def test_a_chain_that_can_not_be_read_does_not_end_the_forgetting(
    world: ChainWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = threading.Event()

    def prune() -> None:
        tried.set()
        raise ChainUnavailableError

    monkeypatch.setattr(world.server, "prune", prune)
    # Whatever ends the task in the background is raised at the end of this block.
    async with world.server._pruning():
        await until(tried.is_set)
        await asyncio.sleep(0.05)


async def test_what_never_changes_is_read_once(tmp_path: Path) -> None:
    flaky: list[FlakyChain] = []

    def wrap(chain: EmbeddedChain) -> Chain:
        flaky.append(FlakyChain(chain))
        return flaky[0]

    async with chain_worker(tmp_path, wrap=wrap) as world:
        await world.finish(world.submit(world.sealed()))
        flaky[0].reads.clear()
        world.clock.advance(59_999)
        await world.finish(world.submit(world.sealed()))
        assert flaky[0].reads == ["get_job"]

        world.clock.advance(1)
        await world.finish(world.submit(world.sealed()))
        assert flaky[0].reads == ["get_job", "get_job", "parameters"]


@pytest.mark.parametrize(
    "seal",
    [
        lambda world: world.sealed(contract=bytes(32)),
        lambda world: world.sealed(owner=bytes(32)),
    ],
    ids=["contract", "owner"],
)
async def test_a_header_unlike_the_chain_is_a_signed_failure_to_the_chains_key(
    world: ChainWorld, seal: Callable[[ChainWorld], object]
) -> None:
    """The envelope is the owner's own doing, so its failure is theirs, and can be recorded."""
    sealed = seal(world)
    request = world.submit(sealed)  # type: ignore[arg-type]  # the parameter says only object

    job = await world.finish(request)

    assert job.state is WorkerJobState.FAILED
    assert await world.failure(job) == ("OpenFailed", None)
    assert job.completion is not None
    world.chain.call(world.processor.record_attestation(job.completion), signer=world.account)


async def test_a_reply_key_on_the_chain_unlike_the_headers_is_a_signed_failure(
    world: ChainWorld,
) -> None:
    sealed = world.sealed()
    # The nonce of the header as parsed is in the result, so the owner can open it.
    on_chain = world.secret.reply_key(sealed.header.nonce).public_key
    other = replace(sealed, header=sealed.header)
    request = world.submit(other, public_key=world.secret.reply_key(b"?" * 16).public_key)
    assert request.head.public_key != on_chain

    job = await world.finish(request)

    assert job.state is WorkerJobState.FAILED


async def test_a_low_order_key_on_the_chain_is_422(world: ChainWorld) -> None:
    request = world.submit(world.sealed(), public_key=b"\x01" + bytes(31))

    await assert_refused(world, request, 422, "head.public_key")
