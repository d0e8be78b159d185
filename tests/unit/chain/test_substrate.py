"""The contract on a real node: what is sent, when, how often, and what is named instead."""

import os
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from wasmtime import wat2wasm

from orchestrator.attestation.statement import sign_statement, statement_of
from orchestrator.chain import ContractCall, Cursor, Receipt, outcomes, pallet_calls
from orchestrator.chain.answers import hex_text
from orchestrator.chain.contracts_api import DryRun
from orchestrator.chain.devnode import DevNode
from orchestrator.chain.dispatch_errors import DispatchFailure
from orchestrator.chain.processor import JobProcessor
from orchestrator.chain.rpc import RpcConnection
from orchestrator.chain.runtime import ERA_BLOCKS, Mortality
from orchestrator.chain.spending import SpendingLimits
from orchestrator.chain.substrate import SubstrateChain
from orchestrator.crypto.keys import AccountKey, EncryptionKey, Sr25519Signer
from orchestrator.encoding import blake2_256, registration_digest
from orchestrator.errors import (
    ChainError,
    ChainMismatchError,
    ChainUnavailableError,
    ContractError,
    ContractTrappedError,
    InputError,
    InsufficientFundsError,
    PrunedStateError,
    SpendingLimitError,
    TooHeavyError,
)
from orchestrator.models import (
    AttestationProof,
    Completion,
    InlinePayload,
    JobId,
    JobOptions,
    Outcome,
    Parameters,
    Signature,
    WorkerId,
    WorkerRegistration,
)
from orchestrator.testing.chain import FixedClock, deploy_processor, register_test_worker
from orchestrator.testing.node_proxy import NodeProxy
from orchestrator.testing.scripted_node import Refusal, ScriptedNode, Subscribed
from tests.ports.chain_harness import (
    RETURN,
    REVERT,
    TRAP,
    probe_call,
    probe_code,
    probe_constructor,
)

ALICE = AccountKey.from_uri("//Alice")
BOB = AccountKey.from_uri("//Bob")
MEASUREMENT = b"\x0a" * 32
PAYLOAD = b"sealed " * 20
ALICE_ADDRESS = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY"
SUBMIT = "author_submitAndWatchExtrinsic"


@dataclass(kw_only=True)
class Stage:
    """A contract with one worker on the node, through a proxy that counts; Bob owns jobs."""

    chain: SubstrateChain
    clock: FixedClock
    proxy: NodeProxy
    processor: JobProcessor
    worker: WorkerId
    signer: Sr25519Signer

    def requests(self, work: Callable[[], object]) -> Counter[str]:
        """Return what is asked of the node for some work."""
        before = Counter(self.proxy.requests)
        work()
        return self.proxy.requests - before

    def sent(self, work: Callable[[], object]) -> int:
        """Return how many transactions are sent for some work."""
        return self.requests(work)[SUBMIT]

    def be_late(self) -> int:
        """Let the clock be a bit more than 10 s ahead of the last block; return its time."""
        last = self.chain.finalized_head().timestamp
        self.clock.now = last + 10_001
        return last

    def measure(self) -> ContractCall[None]:
        """Return a call that succeeds for Alice, holds a deposit and has one event."""
        return self.processor.allow_measurement(os.urandom(32))

    def submit(self, payload: bytes = PAYLOAD) -> JobId:
        options = JobOptions(workers=(self.worker,), ttl=60_000)
        call = self.processor.submit_confidential_job(payload, b"\1" * 32, options)
        return self.chain.call(call, signer=BOB).value

    def completion(self, job_id: JobId, *, later: int = 0) -> Completion:
        """Return the worker's word on a job, *later* ms after now."""
        now = self.chain.finalized_head().timestamp + later
        proof = AttestationProof(
            outcome=Outcome.COMPLETED,
            units=1,
            started_at=now,
            finished_at=now,
            issued_at=now,
            signature=Signature(scheme=self.signer.public_key.scheme, data=b""),
        )
        draft = Completion(
            job_id=job_id,
            result_hash=blake2_256(b"result"),
            attestation_proof=proof,
            tee_worker_pubkey=self.signer.public_key,
        )
        statement = statement_of(
            draft,
            genesis_hash=self.chain.genesis_hash,
            contract=self.processor.contract,
            payload_hash=blake2_256(PAYLOAD),
            measurement=MEASUREMENT,
        )
        signed = replace(proof, signature=sign_statement(statement, self.signer))
        return replace(draft, attestation_proof=signed)

    def registration(self, valid_until: int) -> ContractCall[WorkerId]:
        """Return the call that registers another worker until some time."""
        signer = Sr25519Signer.generate()
        registration = WorkerRegistration(
            signing_key=signer.public_key,
            encryption_key=EncryptionKey.generate().public_key,
            measurement=MEASUREMENT,
            evidence_hash=b"\1" * 32,
            endpoint=b"http://127.0.0.1:1",
            valid_until=valid_until,
        )
        digest = registration_digest(
            registration, genesis_hash=self.chain.genesis_hash, contract=self.processor.contract
        )
        return self.processor.register_worker(registration, signer.sign(digest))


@pytest.fixture(scope="module")
def whole_stage(node: DevNode) -> Iterator[Stage]:
    clock = FixedClock(now=0)
    with NodeProxy(node.rpc_port) as proxy:
        chain = SubstrateChain(proxy.url, clock=clock)
        processor = deploy_processor(
            chain, admin=ALICE, measurement=MEASUREMENT, salt=os.urandom(8)
        )
        signer = Sr25519Signer.generate()
        worker = register_test_worker(
            chain, processor, signer, registrar=ALICE, measurement=MEASUREMENT
        )
        yield Stage(
            chain=chain,
            clock=clock,
            proxy=proxy,
            processor=processor,
            worker=worker,
            signer=signer,
        )
        chain.close()


@pytest.fixture
def stage(whole_stage: Stage) -> Iterator[Stage]:
    whole_stage.clock.now = 0
    whole_stage.chain._clock_ahead = 0  # what the clock of another test was
    yield whole_stage
    whole_stage.proxy.disarm()


@pytest.fixture(scope="module")
def probe(whole_stage: Stage) -> bytes:
    """The address of a contract that returns, reverts and traps as it is told."""
    return whole_stage.chain.deploy(
        probe_code(), probe_constructor(RETURN), signer=ALICE, salt=os.urandom(8)
    ).contract


def variant(work: Callable[[], object]) -> str:
    with pytest.raises(ContractError) as caught:
        work()
    return caught.value.variant


# Round trips.


def test_a_call_asks_twice_before_inclusion_and_twice_for_the_receipt(stage: Stage) -> None:
    """The library asks 39 times for the same (chain notes 8)."""
    stage.chain.call(stage.measure(), signer=ALICE)

    asked = stage.requests(lambda: stage.chain.call(stage.measure(), signer=ALICE))

    assert asked == {"state_call": 1, SUBMIT: 1, "chain_getBlock": 1, "state_getStorage": 1}


def test_a_batch_asks_as_often_but_for_a_dry_run_of_each(stage: Stage) -> None:
    calls = [stage.measure() for _ in range(5)]

    asked = stage.requests(lambda: stage.chain.batch(calls, signer=ALICE))

    assert asked == {"state_call": 5, SUBMIT: 1, "chain_getBlock": 1, "state_getStorage": 1}


def test_a_read_asks_once(stage: Stage) -> None:
    stage.chain.read(stage.processor.mode())

    assert stage.requests(lambda: stage.chain.read(stage.processor.mode())) == {"state_call": 1}


def test_a_refused_call_asks_once_and_sends_nothing(stage: Stage) -> None:
    """Trap B7: the library submits a call that is known to revert, and the fee is paid."""
    asked = stage.requests(lambda: variant(lambda: stage.chain.call(stage.measure(), signer=BOB)))

    assert asked == {"state_call": 1}


def test_a_spending_limit_asks_for_the_fee_too(stage: Stage, tmp_path: Path) -> None:
    spending = SpendingLimits(per_call=10**12, per_day=None, ledger_file=tmp_path / "ledger")
    chain = SubstrateChain(stage.proxy.url, clock=stage.clock, spending=spending)
    chain.call(stage.measure(), signer=ALICE)

    asked = stage.requests(lambda: chain.call(stage.measure(), signer=ALICE))

    assert asked["payment_queryInfo"] == 1
    assert sum(asked.values()) == 5
    chain.close()


# What comes back.


def test_events_of_one_kind_in_one_receipt_are_each_their_own(stage: Stage) -> None:
    """Traps B1 and B20: the library's overwrite each other, and its last field is out of reach."""
    wanted = [os.urandom(32), os.urandom(32)]

    receipts = stage.chain.batch(
        [stage.processor.allow_measurement(one) for one in wanted], signer=ALICE
    )

    events = [
        stage.processor.decode_event(event)
        for receipt in receipts
        if isinstance(receipt, Receipt)
        for event in receipt.events
    ]
    assert [event.fields for event in events] == [{"measurement": one} for one in wanted]


@pytest.mark.parametrize(
    "payload",
    [b"0xabcd", b"plain text", b"0x", "größer".encode(), bytes(range(256)), b"\xff\xfe"],
    ids=repr,
)
def test_bytes_come_back_as_they_were(stage: Stage, payload: bytes) -> None:
    """Trap B12: the library takes bytes that look like text for text, and 0x for hex."""
    job_id = stage.submit(payload)

    job = stage.chain.read(stage.processor.get_job(job_id))

    assert job is not None
    assert job.encrypted_payload == InlinePayload(data=payload)


def test_events_are_found_by_the_contracts_key(stage: Stage) -> None:
    """Trap B4: by another spelling of the address the library finds none, and says nothing."""
    start = Cursor(block=stage.chain.finalized_head().number, index=1 << 30)
    receipt = stage.chain.call(stage.measure(), signer=ALICE)

    page = stage.chain.events(stage.processor.contract, after=start)

    assert page.events == receipt.events
    assert page.next >= receipt.events[-1].cursor


def test_an_event_limit_must_be_positive(stage: Stage) -> None:
    with pytest.raises(InputError, match="limit"):
        stage.chain.events(stage.processor.contract, after=Cursor(block=0, index=0), limit=0)


def test_what_is_paid_is_what_the_account_loses(stage: Stage) -> None:
    before = stage.chain.account(ALICE.account_id)

    receipt = stage.chain.call(stage.measure(), signer=ALICE)

    after = stage.chain.account(ALICE.account_id)
    assert before.balance is not None
    assert after.balance == before.balance - receipt.fee - receipt.deposit
    assert after.nonce == before.nonce + 1
    assert receipt.deposit > 0


def test_what_is_freed_comes_back(stage: Stage) -> None:
    job_id = stage.submit()
    stage.chain.call(stage.processor.cancel_job(job_id), signer=BOB)
    before = stage.chain.account(BOB.account_id).balance

    receipt = stage.chain.call(stage.processor.purge_job(job_id), signer=BOB)

    assert before is not None
    assert stage.chain.account(BOB.account_id).balance == before - receipt.fee - receipt.deposit
    assert receipt.deposit < 0


def test_deploying_costs_what_the_account_loses(stage: Stage) -> None:
    """Traps B9 and B10: the library never estimates a deployment, and can't read its dry run."""
    chain, salt = stage.chain, os.urandom(8)
    estimate = chain.estimate_deploy(
        probe_code(), probe_constructor(RETURN), deployer=ALICE.account_id, salt=salt
    )
    before = chain.account(ALICE.account_id).balance

    deployment = chain.deploy(probe_code(), probe_constructor(RETURN), signer=ALICE, salt=salt)

    assert before is not None
    assert estimate.cost is not None
    after = chain.account(ALICE.account_id).balance
    assert after == before - deployment.fee - deployment.deposit
    assert deployment.fee <= estimate.cost.fee
    assert deployment.deposit == estimate.cost.deposit
    assert chain.code_hash(deployment.contract) == deployment.code_hash


def test_who_carries_a_statement_pays_no_deposit(stage: Stage) -> None:
    jobs = [stage.submit(), stage.submit()]
    calls = [stage.processor.record_attestation(stage.completion(job)) for job in jobs]
    before = stage.chain.account(ALICE.account_id).balance

    receipts = stage.chain.batch(calls, signer=ALICE)

    paid = [(one.fee, one.deposit) for one in receipts if isinstance(one, Receipt)]
    assert [deposit for _, deposit in paid] == [0, 0]
    assert before is not None
    assert stage.chain.account(ALICE.account_id).balance == before - sum(fee for fee, _ in paid)


def test_an_estimate_is_the_most_that_is_paid(stage: Stage) -> None:
    call = stage.measure()
    estimate = stage.chain.estimate(call, caller=ALICE.account_id)

    receipt = stage.chain.call(call, signer=ALICE)

    assert estimate.cost is not None
    assert receipt.fee <= estimate.cost.fee
    assert receipt.deposit == estimate.cost.deposit


def test_limits_are_a_little_above_the_dry_run(stage: Stage) -> None:
    """Trap B8: the library sets the bare gas, and no limit to the deposit."""
    found = stage.chain._dry_runs.call(stage.measure(), ALICE.account_id)
    dry = found[1]

    arguments = pallet_calls.call_of(stage.measure(), dry).arguments

    assert arguments["gas_limit"] == {
        "ref_time": dry.required.ref_time * 120 // 100,
        "proof_size": dry.required.proof_size * 120 // 100,
    }
    assert arguments["storage_deposit_limit"] == dry.deposit * 110 // 100
    assert dry.required.proof_size > dry.consumed.proof_size


# Concurrency.


def test_threads_and_connections_of_one_account_lose_and_double_nothing(stage: Stage) -> None:
    """Traps B15 and B16: eight threads, two connections, ten calls each."""
    other = SubstrateChain(stage.proxy.url, clock=stage.clock)
    start = Cursor(block=stage.chain.finalized_head().number, index=1 << 30)
    wanted = [[os.urandom(32) for _ in range(10)] for _ in range(8)]

    def work(thread: int) -> None:
        chain = (stage.chain, other)[thread % 2]
        for one in wanted[thread]:
            chain.call(stage.processor.allow_measurement(one), signer=ALICE)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))

    other.close()
    page = stage.chain.events(stage.processor.contract, after=start)
    found = Counter(
        stage.processor.decode_event(event).fields["measurement"] for event in page.events
    )
    assert found == Counter(one for many in wanted for one in many)


# Time. A dry run is judged at the last block's time, which lies in the past on an idle chain.


def test_a_refusal_that_a_new_block_turns_is_turned(stage: Stage) -> None:
    last = stage.be_late()
    call = stage.registration(last + Parameters().max_registration + 1)

    assert stage.sent(lambda: stage.chain.call(call, signer=ALICE)) == 2  # a remark, and the call


def test_a_new_block_is_made_for_a_whole_batch(stage: Stage) -> None:
    last = stage.be_late()
    calls = [stage.registration(last + Parameters().max_registration + n) for n in (0, 1, 1)]

    def work() -> None:
        assert all(isinstance(one, Receipt) for one in stage.chain.batch(calls, signer=ALICE))

    assert stage.sent(work) == 2


def test_while_the_last_block_is_new_nothing_is_sent_for_its_time(stage: Stage) -> None:
    last = stage.be_late()
    stage.clock.now -= 1
    call = stage.registration(last + Parameters().max_registration + 1)

    assert stage.sent(lambda: variant(lambda: stage.chain.call(call, signer=ALICE))) == 0


def attested(stage: Stage) -> JobId:
    job_id = stage.submit()
    record = stage.processor.record_attestation(stage.completion(job_id))
    stage.chain.call(record, signer=ALICE)
    return job_id


def in_use(stage: Stage) -> ContractCall[None]:
    stage.submit()
    return stage.processor.release_account()


TIME_DEPENDENT: dict[str, Callable[[Stage], tuple[ContractCall[object], AccountKey]]] = {
    "AccountInUse": lambda stage: (in_use(stage), BOB),
    "DeadlineNotPassed": lambda stage: (stage.processor.expire_job(stage.submit()), BOB),
    "StatementBeforeJob": lambda stage: (
        stage.processor.record_attestation(stage.completion(stage.submit(), later=-1_000_000)),
        ALICE,
    ),
    "StatementFromFuture": lambda stage: (
        stage.processor.record_attestation(stage.completion(stage.submit(), later=1_000_000)),
        ALICE,
    ),
    "ValidityOutOfRange": lambda stage: (stage.registration(1 << 60), ALICE),
    "WrongStatus": lambda stage: (stage.processor.cancel_job(attested(stage)), BOB),
}


@pytest.mark.parametrize("name", TIME_DEPENDENT)
def test_a_refusal_that_stays_costs_one_empty_transaction(stage: Stage, name: str) -> None:
    call, account = TIME_DEPENDENT[name](stage)
    stage.be_late()

    def work() -> None:
        assert variant(lambda: stage.chain.call(call, signer=account)) == name

    assert stage.sent(work) == 1


def test_a_clock_that_is_ahead_costs_one_empty_transaction_in_all(stage: Stage) -> None:
    call = stage.processor.expire_job(stage.submit())
    stage.clock.now = stage.chain.finalized_head().timestamp + 3_600_000

    def work() -> None:
        assert variant(lambda: stage.chain.call(call, signer=BOB)) == "DeadlineNotPassed"

    assert stage.sent(work) == 1
    assert stage.sent(work) == 0


def test_a_clock_that_was_put_right_counts_again(stage: Stage) -> None:
    call = stage.processor.expire_job(stage.submit())
    stage.clock.now = stage.chain.finalized_head().timestamp + 3_600_000

    def work() -> None:
        assert variant(lambda: stage.chain.call(call, signer=BOB)) == "DeadlineNotPassed"

    work()
    stage.clock.now = stage.chain.finalized_head().timestamp
    work()
    stage.be_late()

    assert stage.sent(work) == 1


def test_a_rate_limit_that_stays_costs_one_empty_transaction(stage: Stage) -> None:
    limited = deploy_processor(
        stage.chain,
        admin=ALICE,
        measurement=MEASUREMENT,
        parameters=Parameters(rate_limit=1),
        salt=os.urandom(8),
    )
    signer = Sr25519Signer.generate()
    worker = register_test_worker(
        stage.chain, limited, signer, registrar=ALICE, measurement=MEASUREMENT
    )
    options = JobOptions(workers=(worker,), ttl=60_000)
    call = limited.submit_confidential_job(PAYLOAD, b"\1" * 32, options)
    stage.chain.call(call, signer=BOB)
    stage.be_late()

    def work() -> None:
        assert variant(lambda: stage.chain.call(call, signer=BOB)) == "RateLimited"

    assert stage.sent(work) == 1


def test_a_part_that_a_new_block_turns_is_turned(stage: Stage) -> None:
    """`complete_jobs` refuses item by item: its value holds what the time has refused."""
    exact = deploy_processor(
        stage.chain,
        admin=ALICE,
        measurement=MEASUREMENT,
        parameters=Parameters(max_clock_skew=0),
        salt=os.urandom(8),
    )
    signer = Sr25519Signer.generate()
    worker = register_test_worker(
        stage.chain, exact, signer, registrar=ALICE, measurement=MEASUREMENT
    )
    there = replace(stage, processor=exact, worker=worker, signer=signer)
    call = exact.complete_jobs([there.completion(there.submit(), later=1)])
    stage.be_late()

    def work() -> None:
        assert stage.chain.call(call, signer=ALICE).value == [None]

    assert stage.sent(work) == 2


def test_a_refusal_that_no_time_turns_sends_nothing(stage: Stage) -> None:
    job_id = stage.submit()
    stage.chain.call(stage.processor.cancel_job(job_id), signer=BOB)
    stage.be_late()
    refused = {
        "MissingRole": (stage.measure(), BOB),
        "JobNotFound": (stage.processor.cancel_job(1 << 100), BOB),
        "NotJobOwner": (stage.processor.cancel_job(job_id), ALICE),
        "WrongStatus": (stage.processor.cancel_job(job_id), BOB),
    }

    for name, (call, account) in refused.items():

        def work(
            name: str = name,
            call: ContractCall[None] = call,
            account: AccountKey = account,
        ) -> None:
            assert variant(lambda: stage.chain.call(call, signer=account)) == name

        assert stage.sent(work) == 0, name


def test_what_only_looks_never_sends(stage: Stage) -> None:
    last = stage.be_late()
    call = stage.registration(last + Parameters().max_registration + 1)
    looks: list[Callable[[], object]] = [
        lambda: stage.chain.read(stage.processor.is_trusted(stage.worker)),
        lambda: variant(lambda: stage.chain.dry_run(call, caller=ALICE.account_id)),
        lambda: variant(lambda: stage.chain.estimate(call, caller=ALICE.account_id)),
        stage.chain.now,
    ]

    for look in looks:
        assert stage.sent(look) == 0
    assert stage.chain.dry_run(stage.measure(), caller=ALICE.account_id) is None
    assert stage.chain.finalized_head().timestamp == last
    assert stage.chain.now() == stage.clock.now


# Batches.


def test_an_item_that_an_earlier_one_makes_fail_has_its_error(stage: Stage) -> None:
    job_id = stage.submit()
    calls = [stage.processor.cancel_job(job_id), stage.processor.cancel_job(job_id)]
    before = stage.chain.account(BOB.account_id).balance

    first, second = stage.chain.batch(calls, signer=BOB)

    assert isinstance(first, Receipt)
    assert isinstance(second, ContractError)
    assert second.variant == "WrongStatus"
    assert before is not None
    # The share of the item that failed is paid too, and told to nobody.
    after = stage.chain.account(BOB.account_id).balance
    assert after is not None
    assert before - after - first.deposit in range(2 * first.fee - 1, 2 * first.fee + 1)


def test_the_parts_of_a_batchs_fee_and_deposit_add_up(stage: Stage) -> None:
    before = stage.chain.account(ALICE.account_id).balance

    receipts = stage.chain.batch([stage.measure() for _ in range(3)], signer=ALICE)

    paid = [one.fee + one.deposit for one in receipts if isinstance(one, Receipt)]
    assert before is not None
    assert len(paid) == 3
    assert stage.chain.account(ALICE.account_id).balance == before - sum(paid)


def test_a_batch_of_refused_calls_sends_nothing(stage: Stage) -> None:
    refused = [stage.measure(), stage.measure()]

    assert stage.sent(lambda: stage.chain.batch(refused, signer=BOB)) == 0
    assert stage.sent(lambda: stage.chain.batch([], signer=BOB)) == 0


def test_a_batch_with_one_that_traps_is_not_sent(stage: Stage, probe: bytes) -> None:
    calls = [probe_call(probe, RETURN), probe_call(probe, TRAP)]

    def work() -> None:
        with pytest.raises(ContractTrappedError, match="ContractTrapped"):
            stage.chain.batch(calls, signer=ALICE)

    assert stage.sent(work) == 0


@pytest.fixture
def too_little_gas(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let calls be sent with a tenth of the gas that they need, a number of times."""

    def set_times(times: int) -> None:
        left = iter(range(times))
        limits = pallet_calls._limits

        def lower(dry: DryRun) -> dict[str, object]:
            found = limits(dry)
            if next(left, None) is None:
                return found
            gas = {"ref_time": dry.required.ref_time // 10, "proof_size": dry.required.proof_size}
            return {**found, "gas_limit": gas}

        monkeypatch.setattr(pallet_calls, "_limits", lower)

    return set_times


def test_a_call_that_ran_out_of_gas_is_tried_again(
    stage: Stage, too_little_gas: Callable[[int], None]
) -> None:
    too_little_gas(1)

    def work() -> None:
        assert stage.chain.call(stage.measure(), signer=ALICE).events

    assert stage.sent(work) == 2


def test_an_item_that_ran_out_of_gas_is_tried_again(
    stage: Stage, too_little_gas: Callable[[int], None]
) -> None:
    too_little_gas(1)

    first, second = stage.chain.batch([stage.measure(), stage.measure()], signer=ALICE)

    assert isinstance(first, Receipt)
    assert isinstance(second, Receipt)
    assert first.block.number == second.block.number + 1  # the first one was tried again


def test_a_call_that_always_runs_out_of_gas_is_named(
    stage: Stage, too_little_gas: Callable[[int], None]
) -> None:
    too_little_gas(100)

    def work() -> None:
        with pytest.raises(ContractTrappedError, match="more gas or deposit than its dry run"):
            stage.chain.call(stage.measure(), signer=ALICE)

    assert stage.sent(work) == 3


def test_an_item_that_always_runs_out_of_gas_does_not_take_the_others_along(
    stage: Stage, too_little_gas: Callable[[int], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    too_little_gas(100)
    refused, other = stage.chain.batch([stage.measure(), stage.measure()], signer=ALICE)

    assert isinstance(refused, ContractError)
    assert isinstance(other, ContractError)
    assert refused.variant == "OutOfGas"


@pytest.mark.parametrize(
    "error", [InsufficientFundsError, SpendingLimitError, ContractTrappedError]
)
@pytest.mark.parametrize("in_block", [0, 1], ids=["none took effect", "one took effect"])
def test_an_error_is_a_doubt_once_a_part_of_the_batch_has_taken_effect(
    stage: Stage,
    too_little_gas: Callable[[int], None],
    monkeypatch: pytest.MonkeyPatch,
    error: type[ChainError],
    in_block: int,
) -> None:
    """Whoever is told that nothing was sent would send it all again."""
    too_little_gas(2 - in_block)
    calls, rounds = stage.chain._dry_runs.calls, iter([True])

    def poor(*arguments: Any) -> object:  # noqa: ANN401 - those of the real one
        if next(rounds, False):
            return calls(*arguments)
        raise error("no more")

    monkeypatch.setattr(stage.chain._dry_runs, "calls", poor)

    with pytest.raises(ChainUnavailableError if in_block else error, match="no more"):
        stage.chain.batch([stage.measure(), stage.measure()], signer=ALICE)


# What only the block decides, after a dry run that foresaw something else.


def ended(stage: Stage, *failures: DispatchFailure | None) -> outcomes.Outcome:
    """Return what a transaction came to whose items ended so."""
    items = tuple(outcomes.Item(events=(), deposit=0, failure=one, records=()) for one in failures)
    return outcomes.Outcome(block=stage.chain.finalized_head(), fee=7, items=items)


TRAPPED = DispatchFailure(pallet="Contracts", name="ContractTrapped")
REVERTED = DispatchFailure(pallet="Contracts", name="ContractReverted")


def test_a_call_that_traps_in_its_block_is_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.chain, "_send", lambda *_, **__: ended(stage, TRAPPED))

    with pytest.raises(ContractTrappedError, match=r"allow_measurement: .*ContractTrapped"):
        stage.chain.call(stage.measure(), signer=ALICE)


def test_an_item_that_traps_in_its_block_does_not_take_the_others_along(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The others have taken effect: an error for all of them would be a lie."""
    monkeypatch.setattr(stage.chain, "_send", lambda *_, **__: ended(stage, None, TRAPPED))

    first, second = stage.chain.batch([stage.measure(), stage.measure()], signer=ALICE)

    assert isinstance(first, Receipt)
    assert isinstance(second, ContractError)
    assert second.variant == "ContractTrapped"


def test_a_refusal_in_the_block_that_nobody_can_explain_is_one(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.chain, "_send", lambda *_, **__: ended(stage, REVERTED))

    assert variant(lambda: stage.chain.call(stage.measure(), signer=ALICE)) == "Reverted"


def test_a_refusal_in_the_block_is_one_though_the_node_can_not_say_why(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(*_: object) -> object:
        raise ChainUnavailableError("gone")

    monkeypatch.setattr(stage.chain, "_send", lambda *_, **__: ended(stage, REVERTED))
    monkeypatch.setattr(stage.chain._dry_runs, "call", gone)

    assert variant(lambda: stage.chain.call(stage.measure(), signer=ALICE)) == "Reverted"


def test_a_batch_that_failed_as_a_whole_is_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = DispatchFailure(pallet="Utility", name="TooManyCalls")
    monkeypatch.setattr(stage.chain, "_send", lambda *_, **__: ended(stage, failure))

    with pytest.raises(ChainError, match=r"failed in its block: Utility\.TooManyCalls"):
        stage.chain.batch([stage.measure(), stage.measure()], signer=ALICE)


def test_a_deployment_that_fails_in_its_block_is_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    salt = os.urandom(8)
    monkeypatch.setattr(stage.chain, "_send", lambda *_, **__: ended(stage, TRAPPED))
    with pytest.raises(ContractTrappedError, match="new: "):
        stage.chain.deploy(probe_code(), probe_constructor(RETURN), signer=ALICE, salt=salt)

    monkeypatch.setattr(stage.chain, "_send", lambda *_, **__: ended(stage, None))
    with pytest.raises(ChainMismatchError, match="told of no new contract"):
        stage.chain.deploy(probe_code(), probe_constructor(RETURN), signer=ALICE, salt=salt)


def test_other_refusals_of_the_chain_are_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    failure = DispatchFailure(pallet="BadOrigin", name="BadOrigin")
    monkeypatch.setattr(stage.chain, "_send", lambda *_, **__: ended(stage, failure))

    with pytest.raises(ChainError, match="the chain refused: BadOrigin"):
        stage.chain.call(stage.measure(), signer=ALICE)


# Errors that are named, before anything is sent where it can be known.


def test_an_address_of_no_contract_is_named(stage: Stage) -> None:
    nobody = JobProcessor(b"\5" * 32)

    def work() -> None:
        with pytest.raises(ChainMismatchError, match="there is no contract 0x0505"):
            stage.chain.read(nobody.mode())
        with pytest.raises(ChainMismatchError, match="there is no contract 0x0505"):
            stage.chain.call(nobody.cancel_job(1), signer=ALICE)

    assert stage.sent(work) == 0
    assert stage.chain.code_hash(nobody.contract) is None


def bare_contract(stage: Stage, call: str) -> bytes:
    """Return the address of a contract that does nothing but what the WebAssembly text says."""
    code = bytes(
        wat2wasm(
            '(module (import "env" "memory" (memory 2 16)) (func (export "deploy"))'
            f' (func (export "call") {call}))'
        )
    )
    constructor = ContractCall(contract=bytes(32), label="new", data=b"", decode=lambda _data: None)
    return stage.chain.deploy(code, constructor, signer=ALICE, salt=os.urandom(8)).contract


def test_an_address_of_another_contract_is_named(stage: Stage) -> None:
    other = JobProcessor(bare_contract(stage, ""))

    with pytest.raises(ChainMismatchError, match="mode answered with bytes"):
        stage.chain.read(other.mode())


def test_a_contract_that_reverts_with_nothing_known_is_named(stage: Stage, probe: bytes) -> None:
    """Trap B6: the library reads the revert flag as something else."""
    call = ContractCall(contract=probe, label="odd", data=REVERT, decode=bytes)

    with pytest.raises(ChainMismatchError, match="odd: the contract reverted and named no error"):
        stage.chain.read(call)


def test_a_trap_is_named_and_not_sent(stage: Stage, probe: bytes) -> None:
    """Trap B11: the library shows a number."""

    def work() -> None:
        with pytest.raises(ContractTrappedError, match=r"probe: Contracts\.ContractTrapped"):
            stage.chain.call(probe_call(probe, TRAP), signer=ALICE)

    assert stage.sent(work) == 0


def test_a_call_without_an_end_is_named(stage: Stage) -> None:
    endless = bare_contract(stage, "(loop (br 0))")

    with pytest.raises(ContractTrappedError, match="OutOfGas"):
        stage.chain.read(probe_call(endless, b""))


def test_an_account_without_funds_is_named(stage: Stage, probe: bytes) -> None:
    poor = AccountKey.generate()

    def deposit() -> None:
        with pytest.raises(InsufficientFundsError, match="probe: the account can't pay"):
            stage.chain.call(probe_call(probe, RETURN + os.urandom(64)), signer=poor)

    assert stage.sent(deposit) == 0
    data = RETURN + os.urandom(64)
    stage.chain.call(probe_call(probe, data), signer=ALICE)
    head = stage.chain.finalized_head()

    with pytest.raises(InsufficientFundsError, match="can't pay the fee; nothing was sent"):
        stage.chain.call(probe_call(probe, data), signer=poor)

    assert stage.chain.finalized_head() == head
    assert stage.chain.account(poor.account_id).balance == 0


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (b"#!/bin/sh", "CodeRejected"),
        (b"", "CodeRejected"),
        (b"\0asm\1\0\0\0" + b"\0\xa4\x93\x07" + b"\4name" + bytes(118_175), "Code"),
    ],
    ids=["no Wasm", "nothing", "too large"],
)
def test_code_that_is_refused_is_named(stage: Stage, code: bytes, words: str) -> None:
    def work() -> None:
        with pytest.raises(InputError, match=f"the code is refused: Contracts.{words}"):
            stage.chain.upload(code, signer=ALICE)
        with pytest.raises(InputError, match=f"the code is refused: Contracts.{words}"):
            stage.chain.deploy(code, probe_constructor(RETURN), signer=ALICE)

    assert stage.sent(work) == 0


def test_a_constructor_that_refuses_is_named(stage: Stage) -> None:
    def work() -> None:
        with pytest.raises(ContractError, match="Refused"):
            stage.chain.deploy(probe_code(), probe_constructor(REVERT), signer=ALICE)
        with pytest.raises(ContractTrappedError, match="new: "):
            stage.chain.deploy(probe_code(), probe_constructor(TRAP), signer=ALICE)

    assert stage.sent(work) == 0


def test_a_call_too_heavy_for_a_block_is_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pallet_calls, "_GAS_MARGIN_PERCENT", 10_000_000)
    head = stage.chain.finalized_head()

    with pytest.raises(TooHeavyError, match="nothing was sent"):
        stage.chain.call(stage.measure(), signer=ALICE)

    assert stage.chain.finalized_head() == head


def test_a_spending_limit_stops_before_anything_is_sent(stage: Stage, tmp_path: Path) -> None:
    spending = SpendingLimits(per_call=1, per_day=None, ledger_file=tmp_path / "ledger")
    chain = SubstrateChain(stage.proxy.url, clock=stage.clock, spending=spending)

    def work() -> None:
        with pytest.raises(SpendingLimitError):
            chain.call(stage.measure(), signer=ALICE)

    assert stage.sent(work) == 0
    chain.close()


# A node that lies, with a real one behind it.


@dataclass(kw_only=True)
class Liar:
    """A chain over a node that answers what the test says, and else the truth."""

    node: ScriptedNode
    chain: SubstrateChain


@pytest.fixture(scope="module")
def whole_liar(node: DevNode) -> Iterator[Liar]:
    with ScriptedNode(behind=node.url) as between:
        chain = SubstrateChain(between.url, clock=FixedClock(now=0), finality_seconds=20)
        yield Liar(node=between, chain=chain)
        chain.close()


@pytest.fixture
def liar(whole_liar: Liar) -> Iterator[Liar]:
    yield whole_liar
    whole_liar.node.answers.clear()


NONSENSE: list[object] = [None, 5, "", "0x", "0x0", "0x00", "0x" + "ff" * 100, [], {}]


@pytest.mark.parametrize("answer", NONSENSE, ids=str)
def test_nonsense_about_a_call_is_named(liar: Liar, stage: Stage, answer: object) -> None:
    liar.node.answers["state_call"] = answer
    call = stage.measure()
    ask: list[Callable[[], object]] = [
        lambda: liar.chain.read(stage.processor.mode()),
        lambda: liar.chain.call(call, signer=ALICE),
        lambda: liar.chain.upload(probe_code(), signer=ALICE),
        lambda: liar.chain.deploy(probe_code(), probe_constructor(RETURN), signer=ALICE),
    ]

    for one in ask:
        with pytest.raises(ChainMismatchError):
            one()
    assert liar.node.count(SUBMIT) == 0


@pytest.mark.parametrize("answer", NONSENSE[1:], ids=str)
def test_nonsense_about_the_state_is_named(liar: Liar, stage: Stage, answer: object) -> None:
    liar.node.answers["state_getStorage"] = answer

    with pytest.raises(ChainMismatchError):
        liar.chain.account(ALICE.account_id)
    with pytest.raises(ChainMismatchError):
        liar.chain.code_hash(stage.processor.contract)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        {},
        {"partialFee": 5},
        {"partialFee": "-1"},
        {"partialFee": "9" * 50},
        {"partialFee": ""},
    ],
    ids=str,
)
def test_nonsense_about_a_fee_is_named(liar: Liar, stage: Stage, answer: object) -> None:
    liar.node.answers["payment_queryInfo"] = answer

    with pytest.raises(ChainMismatchError, match="a fee"):
        liar.chain.estimate(stage.measure(), caller=ALICE.account_id)


@pytest.mark.parametrize(
    ("method", "refusal", "error", "words"),
    [
        ("payment_queryInfo", Refusal(1, "no"), ChainError, "can't tell the fee"),
        ("state_call", Refusal(1, "no"), ChainUnavailableError, "no"),
        (
            "state_call",
            Refusal(4003, "UnknownBlock: State already discarded for 0x1"),
            PrunedStateError,
            "archive",
        ),
    ],
    ids=["fee", "call", "pruned"],
)
def test_what_a_node_can_not_tell_is_named(
    liar: Liar,
    stage: Stage,
    method: str,
    refusal: Refusal,
    error: type[ChainError],
    words: str,
) -> None:
    liar.node.answers[method] = refusal

    with pytest.raises(error, match=words):
        liar.chain.estimate(stage.measure(), caller=ALICE.account_id)


def test_what_was_sent_and_can_not_be_read_is_not_called_refused(
    liar: Liar, stage: Stage, tmp_path: Path
) -> None:
    """Whoever gets another error than this one would send it again."""
    spending = SpendingLimits(per_call=None, per_day=10**15, ledger_file=tmp_path / "ledger")
    chain = SubstrateChain(liar.node.url, clock=FixedClock(now=0), spending=spending)
    measurement = os.urandom(32)
    liar.node.answers["state_getStorage"] = Refusal(1, "no events today")

    with pytest.raises(ChainUnavailableError, match=r"is in block .*no events today"):
        chain.call(stage.processor.allow_measurement(measurement), signer=ALICE)

    liar.node.answers.clear()
    assert stage.chain.read(stage.processor.has_measurement(measurement))
    assert spending.spent_today() > 0
    chain.close()


@pytest.mark.parametrize(
    ("words", "error", "is_spent"),
    [
        ("Inability to pay some fees", InsufficientFundsError, False),
        ("Transaction would exhaust the block limits", TooHeavyError, False),
        ("Custom error: 7", ChainError, True),
    ],
)
def test_only_what_was_not_sent_for_certain_is_not_spent(
    liar: Liar,
    stage: Stage,
    tmp_path: Path,
    words: str,
    error: type[ChainError],
    is_spent: bool,
) -> None:
    spending = SpendingLimits(per_call=None, per_day=10**15, ledger_file=tmp_path / "ledger")
    chain = SubstrateChain(liar.node.url, clock=FixedClock(now=0), spending=spending)
    liar.node.answers[SUBMIT] = Refusal(1010, "Invalid Transaction", words)

    with pytest.raises(error):
        chain.call(stage.measure(), signer=ALICE)

    assert (spending.spent_today() > 0) is is_spent
    chain.close()


def test_a_connection_that_is_made_anew_at_each_read_is_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    dry_run, rpc = stage.chain._dry_runs.call, stage.chain._node.rpc
    monkeypatch.setattr(rpc, "generation", rpc.generation)  # as it was, afterwards

    def losing(*arguments: Any, **named: Any) -> object:  # noqa: ANN401 - those of the real one
        rpc.generation += 1
        return dry_run(*arguments, **named)

    monkeypatch.setattr(stage.chain._dry_runs, "call", losing)

    with pytest.raises(ChainUnavailableError, match="does not last"):
        stage.chain.read(stage.processor.mode())


def test_a_transaction_with_other_events_than_calls_is_named(
    liar: Liar, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    liar.node.answers["state_getStorage"] = "0x00"  # no events at all

    with pytest.raises(ChainError, match="the transaction failed in its block: None"):
        liar.chain.call(stage.measure(), signer=ALICE)
    with pytest.raises(ChainMismatchError, match="does not tell what the transaction came to"):
        liar.chain.upload(probe_code(), signer=ALICE)


def test_a_runtime_that_changed_is_read_anew_without_a_restart(node: DevNode, stage: Stage) -> None:
    """Trap B13: signed for another version the node refuses it, and it is signed anew."""
    with ScriptedNode(behind=node.url) as between:
        true = between.ask("state_getRuntimeVersion")
        assert isinstance(true, dict)
        other = {**true, "specVersion": true["specVersion"] + 1}

        def version(*_at: object) -> object:
            return true if between.count(SUBMIT) else other

        between.answers["state_getRuntimeVersion"] = version
        between.answers["state_subscribeRuntimeVersion"] = lambda: Subscribed([version()])
        chain = SubstrateChain(between.url, clock=FixedClock(now=0))
        before = chain.account(ALICE.account_id).nonce

        assert chain.call(stage.measure(), signer=ALICE).events

        assert between.count(SUBMIT) == 2
        assert chain.account(ALICE.account_id).nonce == before + 1
        # Told of a version that no block has yet, it goes on with the one that the head has.
        between.notify("state_subscribeRuntimeVersion", other)
        assert chain.call(stage.measure(), signer=ALICE).events
        chain.close()


def test_a_read_over_a_connection_that_is_lost_meanwhile_is_of_the_new_head(
    liar: Liar, stage: Stage
) -> None:
    cut = iter([True])
    asked: list[object] = []

    def answer(*params: object) -> object:
        asked.append(params[2])
        if next(cut, False):
            liar.node.cut()
        return liar.node.ask("state_call", *params)

    liar.node.answers["state_call"] = answer

    liar.chain.read(stage.processor.mode())

    assert len(asked) == 3  # cut, repeated over the new connection, and at the new head


def test_a_chain_that_can_not_be_opened_leaves_no_connection(node: DevNode) -> None:
    with ScriptedNode(behind=node.url) as between:
        between.answers["state_getMetadata"] = "0x00"

        with pytest.raises(ChainMismatchError, match="metadata"):
            SubstrateChain(between.url)

        between.close()
    assert not [one for one in threading.enumerate() if one.name == "node" and not one.daemon]


# Waiting for what is on its way.


@pytest.mark.parametrize("lost", [1, 2])
def test_what_waits_for_a_lost_nonce_is_brought_to_light(stage: Stage, lost: int) -> None:
    """The node does not tell of it, and it takes effect as soon as the nonce is used."""
    chain, account = stage.chain, BOB.account_id
    nonce = chain.account(account).nonce
    head = chain._node.heads.finalized
    data = chain._node.runtime().sign(
        pallet_calls.REMARK,
        signer=BOB,
        nonce=nonce + lost,
        mortality=Mortality(number=head.number, hash=head.hash),
    )
    chain._node.rpc.request("author_submitExtrinsic", hex_text(data))
    if lost > 1:  # what this process gave up itself
        chain._sender._sequence(account).given_up[nonce + lost] = head.number + ERA_BLOCKS

    chain.wait_for_pending(account, timeout_seconds=5)
    assert chain.account(account).nonce == nonce
    chain.wait_for_pending(account, timeout_seconds=60, signer=BOB)

    # Each lost one is used up, and one more shows that nothing follows.
    assert chain.account(account).nonce == nonce + lost + 2


def test_an_account_that_is_used_all_the_time_is_named(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.chain._sender, "is_settled", lambda *_: False)

    def wait() -> None:
        with pytest.raises(ChainUnavailableError, match="is used all the time"):
            stage.chain.wait_for_pending(BOB.account_id, timeout_seconds=0, signer=BOB)

    assert stage.sent(wait) == 1


@pytest.fixture
def own_program(node_program: Path) -> Path:
    """A node that has what the published `substrate-contracts-node` lacks."""
    told = subprocess.run([node_program, "--help"], capture_output=True, check=True, text=True)
    if "--manual-seal" not in told.stdout:
        pytest.skip(f"{node_program} has no --manual-seal; `make node` builds one that has")
    return node_program


@pytest.mark.slow
def test_waits_for_what_is_on_its_way(own_program: Path) -> None:
    with DevNode(own_program, flags=("--manual-seal",)) as sealed:
        chain = SubstrateChain(sealed.url, clock=FixedClock(now=0))
        engine = RpcConnection(sealed.url)
        with ThreadPoolExecutor(1) as pool:
            deploying = pool.submit(
                chain.deploy, probe_code(), probe_constructor(RETURN), signer=ALICE
            )
            while engine.request("system_accountNextIndex", ALICE_ADDRESS) == 0:
                engine.pause(0.01)
            with pytest.raises(ChainUnavailableError, match="on their way for more than"):
                chain.wait_for_pending(ALICE.account_id, timeout_seconds=0.05)

            made = engine.request("engine_createBlock", False, False)  # empty, final
            assert isinstance(made, dict)
            with pytest.raises(ChainUnavailableError, match="on their way for more than"):
                chain.wait_for_pending(ALICE.account_id, timeout_seconds=0.05)

            engine.request("engine_finalizeBlock", made["hash"])
            chain.wait_for_pending(ALICE.account_id, timeout_seconds=30)
            assert deploying.result(30).block.number == 1
        chain.close()
        engine.close()
