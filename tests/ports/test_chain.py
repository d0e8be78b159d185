"""
What every `Chain` does, run on every adapter.

An adapter joins by a `Harness` in `chain_harness.HARNESSES`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.chain import Chain, Cursor, RawEvent, Receipt
from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.devnode import DevNode
from orchestrator.chain.processor import JobProcessor
from orchestrator.chain.substrate import SubstrateChain
from orchestrator.crypto.keys import EcdsaSigner
from orchestrator.encoding import blake2_256
from orchestrator.errors import (
    ChainMismatchError,
    ContractError,
    ContractTrappedError,
    InputError,
    InsufficientFundsError,
)
from orchestrator.models import Account, JobOptions, Mode, Parameters, Role
from orchestrator.testing.chain import deploy_processor, register_test_worker
from tests.ports.chain_harness import (
    HARNESSES,
    RETURN,
    REVERT,
    TRAP,
    Harness,
    probe_call,
    probe_code,
    probe_constructor,
)


@pytest.fixture(scope="module")
def node_chain(node: DevNode) -> Iterator[SubstrateChain]:
    chain = SubstrateChain(node.url)
    yield chain
    chain.close()


@pytest.fixture(params=HARNESSES, ids=lambda harness: harness.__name__)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    harness: Harness = request.param(tmp_path, request)
    yield harness
    harness.close()


@pytest.fixture
def chain(harness: Harness) -> Chain:
    return harness.chain


@pytest.fixture
def start(chain: Chain) -> Cursor:
    """Where the events of this test begin."""
    return Cursor(block=chain.finalized_head().number, index=-1)


@pytest.fixture
def processor(harness: Harness, start: Cursor) -> JobProcessor:
    return deploy_processor(harness.chain, admin=harness.admin, roles={}, salt=harness.salt)


def test_a_deployed_contract_runs_its_code(
    chain: Chain, harness: Harness, processor: JobProcessor
) -> None:
    bundle = load_bundle()

    assert chain.code_hash(processor.contract) == bundle.code_hash
    assert chain.read(processor.admin()) == harness.admin.account_id
    assert chain.read(processor.genesis_hash()) == chain.genesis_hash
    assert chain.read(processor.parameters()) == Parameters()


def test_there_is_no_code_where_there_is_no_contract(chain: Chain) -> None:
    assert chain.code_hash(b"\5" * 32) is None


def test_a_refused_constructor_leaves_no_contract(chain: Chain, harness: Harness) -> None:
    bundle = load_bundle()
    draft = JobProcessor(bytes(32), bundle)
    constructor = draft.new(chain.genesis_hash, Parameters(rate_limit=0))

    with pytest.raises(ContractError) as caught:
        chain.deploy(bundle.code, constructor, signer=harness.admin, salt=harness.salt)

    assert caught.value.variant == "ParameterOutOfRange"
    accepted = draft.new(chain.genesis_hash, Parameters())
    again = chain.deploy(bundle.code, accepted, signer=harness.admin, salt=harness.salt)
    assert chain.read(JobProcessor(again.contract).parameters()) == Parameters()


def test_the_same_contract_twice_needs_another_salt(chain: Chain, harness: Harness) -> None:
    salt = harness.salt
    first = deploy_processor(chain, admin=harness.admin, roles={}, salt=salt)

    with pytest.raises(InputError, match="exists already"):
        deploy_processor(chain, admin=harness.admin, roles={}, salt=salt)
    second = deploy_processor(chain, admin=harness.admin, roles={}, salt=salt + b"2")

    assert first.contract != second.contract


def test_uploading_returns_the_hash_of_the_code(chain: Chain, harness: Harness) -> None:
    bundle = load_bundle()

    assert chain.upload(bundle.code, signer=harness.admin) == bundle.code_hash
    assert chain.upload(bundle.code, signer=harness.admin) == bundle.code_hash


def test_code_that_is_no_contract_is_refused(chain: Chain, harness: Harness) -> None:
    with pytest.raises(InputError):
        chain.upload(b"#!/bin/sh", signer=harness.admin)


def all_events(chain: Chain, contract: bytes, after: Cursor) -> list[RawEvent]:
    """Return all events after a cursor; a page may be empty where nothing happened for long."""
    found: list[RawEvent] = []
    while (page := chain.events(contract, after=after)).next != after:
        found += page.events
        after = page.next
    return found


def comes(is_so: Callable[[], bool]) -> bool:
    """Whether another handle sees it soon: one on a node is told of a block a moment later."""
    return any(is_so() for _ in range(500))


@pytest.fixture
def registrar(chain: Chain, harness: Harness, processor: JobProcessor) -> Account:
    grant = processor.grant_role(harness.admin.account_id, Role.REGISTRAR)
    chain.call(grant, signer=harness.admin)
    return harness.admin


def measurement(number: int) -> bytes:
    return blake2_256(number.to_bytes(4, "little"))


def test_a_call_changes_state_and_tells(
    chain: Chain, processor: JobProcessor, registrar: Account
) -> None:
    before = chain.finalized_head()

    receipt = chain.call(processor.allow_measurement(measurement(1)), signer=registrar)

    assert before.number < receipt.block.number <= chain.finalized_head().number
    assert receipt.block.timestamp >= before.timestamp
    (event,) = receipt.events
    assert event.block == receipt.block
    decoded = processor.decode_event(event)
    assert (decoded.name, decoded.fields) == ("MeasurementAllowed", {"measurement": measurement(1)})
    assert chain.read(processor.has_measurement(measurement(1))) is True


def test_a_call_that_emits_nothing_and_returns_nothing(
    chain: Chain, processor: JobProcessor, registrar: Account
) -> None:
    chain.call(processor.allow_measurement(measurement(1)), signer=registrar)

    receipt = chain.call(processor.allow_measurement(measurement(1)), signer=registrar)

    assert receipt.events == ()


def test_a_refused_call_changes_nothing(
    chain: Chain, harness: Harness, processor: JobProcessor
) -> None:
    with pytest.raises(ContractError) as caught:
        chain.call(processor.allow_measurement(measurement(1)), signer=harness.stranger)

    assert caught.value.variant == "MissingRole"
    assert chain.read(processor.has_measurement(measurement(1))) is False


def test_a_dry_run_changes_nothing(
    chain: Chain, harness: Harness, processor: JobProcessor, registrar: Account
) -> None:
    head = chain.finalized_head()
    call = processor.allow_measurement(measurement(1))

    chain.dry_run(call, caller=registrar.account_id)
    with pytest.raises(ContractError, match="MissingRole"):
        chain.dry_run(call, caller=harness.stranger.account_id)

    assert chain.read(processor.has_measurement(measurement(1))) is False
    assert chain.finalized_head() == head


def test_a_message_that_the_chain_has_no_contract_for(chain: Chain, harness: Harness) -> None:
    nowhere = JobProcessor(b"\5" * 32)

    with pytest.raises(ChainMismatchError, match="no contract 0x0505"):
        chain.read(nowhere.mode())
    with pytest.raises(ChainMismatchError, match="no contract 0x0505"):
        chain.call(nowhere.set_mode(Mode.HALTED), signer=harness.admin)


def test_calls_of_a_batch_succeed_or_fail_by_themselves(
    chain: Chain, processor: JobProcessor, registrar: Account
) -> None:
    calls = [
        processor.allow_measurement(measurement(1)),
        processor.revoke_worker(99, bytes(32)),
        processor.allow_measurement(measurement(2)),
    ]

    first, second, third = chain.batch(calls, signer=registrar)

    assert isinstance(second, ContractError)
    assert second.variant == "WorkerNotFound"
    assert not isinstance(first, ContractError)
    assert not isinstance(third, ContractError)
    assert first.block == third.block
    assert third.events[0].index > first.events[0].index
    page = chain.events(processor.contract, after=first.events[0].cursor)
    assert page.events == third.events
    assert chain.read(processor.has_measurement(measurement(2))) is True


def test_a_batch_of_refused_calls(chain: Chain, harness: Harness, processor: JobProcessor) -> None:
    calls = [processor.allow_measurement(measurement(n)) for n in range(2)]

    results = chain.batch(calls, signer=harness.stranger)

    assert [result.variant for result in results if isinstance(result, ContractError)] == [
        "MissingRole"
    ] * 2


def test_an_empty_batch(chain: Chain, harness: Harness) -> None:
    assert chain.batch([], signer=harness.admin) == []


def test_events_come_page_by_page_each_once(
    chain: Chain, processor: JobProcessor, start: Cursor, registrar: Account
) -> None:
    for number in range(5):
        chain.call(processor.allow_measurement(measurement(number)), signer=registrar)
    expected = chain.events(processor.contract, after=start).events

    found: list[RawEvent] = []
    cursor = start
    while True:
        page = chain.events(processor.contract, after=cursor, limit=2)
        found += page.events
        assert page.next > cursor or not page.events
        if page.next == cursor:
            break
        cursor = page.next

    assert tuple(found) == expected
    names = [processor.decode_event(event).name for event in found]
    assert names == ["RoleGranted", *["MeasurementAllowed"] * 5]
    assert [event.cursor for event in found] == sorted(event.cursor for event in found)


def test_the_cursor_goes_on_where_nothing_happened(
    chain: Chain, processor: JobProcessor, start: Cursor, registrar: Account
) -> None:
    head = chain.finalized_head()
    page = chain.events(b"\5" * 32, after=start)
    assert page.events == ()
    assert page.next == Cursor(block=head.number, index=-1)

    chain.call(processor.allow_measurement(measurement(1)), signer=registrar)

    cursor = chain.events(processor.contract, after=start).next
    assert chain.events(processor.contract, after=cursor).events == ()
    assert chain.events(processor.contract, after=cursor).next == cursor
    receipt = chain.call(processor.allow_measurement(measurement(2)), signer=registrar)
    assert chain.events(processor.contract, after=cursor).events == receipt.events


@pytest.mark.parametrize("limit", [(1 << 63) - 1, 1 << 63, 1 << 200])
def test_a_limit_may_be_of_any_size(
    chain: Chain, processor: JobProcessor, start: Cursor, registrar: Account, limit: int
) -> None:
    chain.call(processor.allow_measurement(measurement(1)), signer=registrar)

    page = chain.events(processor.contract, after=start, limit=limit)

    assert len(page.events) == 2


@pytest.mark.parametrize("huge", [1 << 63, 1 << 200])
def test_a_cursor_may_be_of_any_size(
    chain: Chain, processor: JobProcessor, registrar: Account, huge: int
) -> None:
    (event,) = chain.call(processor.allow_measurement(measurement(1)), signer=registrar).events
    block = event.block.number

    assert all_events(chain, processor.contract, Cursor(block=-huge, index=-huge))[-1] == event
    assert chain.events(processor.contract, after=Cursor(block=block, index=-huge)).events == (
        event,
    )
    for after in (Cursor(block=block, index=huge), Cursor(block=huge, index=0)):
        assert chain.events(processor.contract, after=after).events == ()
        assert chain.events(processor.contract, after=after).next >= after


def test_a_limit_has_to_be_positive(chain: Chain, start: Cursor) -> None:
    with pytest.raises(InputError, match="limit: 0"):
        chain.events(bytes(32), after=start, limit=0)


def test_time_goes_on(chain: Chain, processor: JobProcessor, registrar: Account) -> None:
    before = chain.now()
    receipt = chain.call(processor.allow_measurement(measurement(1)), signer=registrar)

    assert before <= receipt.block.timestamp <= chain.now()


def test_a_finalized_block_is_found_by_its_number(
    chain: Chain, processor: JobProcessor, registrar: Account
) -> None:
    block = chain.call(processor.allow_measurement(measurement(1)), signer=registrar).block

    assert chain.block_hash(block.number) == block.hash
    assert chain.block_hash(block.number - 1) not in (None, block.hash)
    assert chain.block_hash(block.number + 1_000) is None


def test_nonces_count_what_an_account_sent(
    chain: Chain, harness: Harness, processor: JobProcessor, registrar: Account
) -> None:
    before = chain.account(registrar.account_id).nonce
    chain.call(processor.allow_measurement(measurement(1)), signer=registrar)

    assert chain.account(registrar.account_id).nonce == before + 1
    assert chain.account(harness.stranger.account_id).nonce == 0


def test_another_handle_sees_the_same_chain(
    chain: Chain, harness: Harness, processor: JobProcessor, registrar: Account
) -> None:
    if harness.reopen is None:
        pytest.skip("this chain has one handle")
    other = harness.reopen()

    chain.call(processor.allow_measurement(measurement(1)), signer=registrar)

    assert other.genesis_hash == chain.genesis_hash
    assert comes(lambda: other.read(processor.has_measurement(measurement(1))))
    assert other.finalized_head() == chain.finalized_head()
    other.call(processor.allow_measurement(measurement(2)), signer=registrar)
    assert comes(lambda: chain.read(processor.has_measurement(measurement(2))))
    assert chain.finalized_head() == other.finalized_head()
    other.close()


# What calls and deployments cost.


def test_an_estimate_says_what_the_call_returns_and_costs(
    chain: Chain, harness: Harness, processor: JobProcessor, registrar: Account
) -> None:
    call = processor.allow_measurement(measurement(1))
    head = chain.finalized_head()

    estimate = chain.estimate(call, caller=registrar.account_id)

    assert estimate.value is None
    assert chain.estimate(processor.version(), caller=registrar.account_id).value == 1
    assert chain.finalized_head() == head
    assert (estimate.cost is not None) is harness.has_money
    receipt = chain.call(call, signer=registrar)
    if estimate.cost is None:
        assert (receipt.fee, receipt.deposit) == (0, 0)
    else:
        assert 0 < receipt.fee <= estimate.cost.fee
        assert 0 < receipt.deposit == estimate.cost.deposit
        assert estimate.cost.ref_time > 0
        assert estimate.cost.proof_size > 0


def test_an_estimate_of_a_refused_call_is_refused(
    chain: Chain, harness: Harness, processor: JobProcessor
) -> None:
    call = processor.allow_measurement(measurement(1))

    with pytest.raises(ContractError, match="MissingRole"):
        chain.estimate(call, caller=harness.stranger.account_id)


def test_an_estimate_says_what_deploying_costs(chain: Chain, harness: Harness) -> None:
    bundle, admin, salt = load_bundle(), harness.admin, harness.salt
    constructor = JobProcessor(bytes(32)).new(chain.genesis_hash, Parameters())
    head, before = chain.finalized_head(), chain.account(admin.account_id).balance

    estimate = chain.estimate_deploy(bundle.code, constructor, deployer=admin.account_id, salt=salt)

    assert estimate.value is None
    assert chain.finalized_head() == head
    assert (estimate.cost is not None) is harness.has_money
    deployment = chain.deploy(bundle.code, constructor, signer=admin, salt=salt)
    after = chain.account(admin.account_id).balance
    if estimate.cost is None or before is None or after is None:
        assert (deployment.fee, deployment.deposit) == (0, 0)
    else:
        assert before - after == deployment.fee + deployment.deposit
        assert 0 < deployment.fee <= estimate.cost.fee
        assert 0 < deployment.deposit == estimate.cost.deposit
        assert estimate.cost.ref_time > 0
        assert estimate.cost.proof_size > 0
    with pytest.raises(InputError, match="exists already"):
        chain.estimate_deploy(bundle.code, constructor, deployer=admin.account_id, salt=salt)


def test_an_estimate_of_a_refused_deployment_is_refused(chain: Chain, harness: Harness) -> None:
    bundle = load_bundle()
    constructor = JobProcessor(bytes(32)).new(chain.genesis_hash, Parameters(rate_limit=0))

    with pytest.raises(ContractError, match="ParameterOutOfRange"):
        chain.estimate_deploy(
            bundle.code, constructor, deployer=harness.admin.account_id, salt=harness.salt
        )
    with pytest.raises(InputError):
        chain.estimate_deploy(
            b"#!/bin/sh", constructor, deployer=harness.admin.account_id, salt=harness.salt
        )


def test_fees_and_deposits_are_what_the_signer_paid(
    chain: Chain, harness: Harness, processor: JobProcessor, registrar: Account
) -> None:
    stranger, account = harness.stranger.account_id, registrar.account_id
    before = chain.account(account).balance

    given = chain.call(processor.grant_role(stranger, Role.GUARDIAN), signer=registrar)
    between = chain.account(account).balance
    revoke = processor.revoke_role(stranger, Role.GUARDIAN)
    foreseen = chain.estimate(revoke, caller=account).cost
    batch = chain.batch(
        [
            revoke,
            processor.grant_role(stranger, Role.OPERATOR),
            processor.grant_role(stranger, Role.REGISTRAR),
        ],
        signer=registrar,
    )

    receipts = [given, *(result for result in batch if isinstance(result, Receipt))]
    assert len(receipts) == 4
    after = chain.account(account).balance
    if before is None or between is None or after is None:
        assert not harness.has_money
        assert [(r.fee, r.deposit) for r in receipts] == [(0, 0)] * 4
    else:
        assert harness.has_money
        assert before - between == given.fee + given.deposit
        assert between - after == sum(r.fee + r.deposit for r in receipts[1:])
        deposits = [receipt.deposit for receipt in receipts]
        # What is freed comes back, but for what the chain's rounding keeps.
        assert 0 <= deposits[0] + deposits[1] <= 2
        assert foreseen is not None
        assert foreseen.deposit == deposits[1] < 0
        assert deposits[2] == deposits[3] == deposits[0] > 0
        assert all(receipt.fee > 0 for receipt in receipts)


def test_an_account_without_money(chain: Chain, harness: Harness, processor: JobProcessor) -> None:
    account = chain.account(harness.stranger.account_id)
    call = processor.release_account()

    assert account.balance == (0 if harness.has_money else None)
    if harness.has_money:
        with pytest.raises(InsufficientFundsError):
            chain.call(call, signer=harness.stranger)
        assert chain.account(harness.stranger.account_id) == account
    else:
        assert chain.call(call, signer=harness.stranger).value is None


def test_nothing_is_pending_after_a_call(
    chain: Chain, harness: Harness, processor: JobProcessor, registrar: Account
) -> None:
    chain.wait_for_pending(harness.stranger.account_id, timeout_seconds=0)
    chain.call(processor.allow_measurement(measurement(1)), signer=registrar)
    before = chain.account(registrar.account_id)

    chain.wait_for_pending(registrar.account_id, timeout_seconds=5)

    assert chain.account(registrar.account_id) == before


# Values that only the block decides.


def test_two_calls_of_a_batch_get_values_of_their_own(
    chain: Chain, processor: JobProcessor, registrar: Account
) -> None:
    chain.call(processor.allow_measurement(measurement(1)), signer=registrar)
    worker = register_test_worker(
        chain,
        processor,
        EcdsaSigner.generate(),
        registrar=registrar,
        measurement=measurement(1),
    )
    submit = processor.submit_confidential_job(
        b"sealed", b"\7" * 32, JobOptions(workers=(worker,), ttl=60_000)
    )

    results = chain.batch([submit, submit, submit], signer=registrar)

    receipts = [result for result in results if isinstance(result, Receipt)]
    assert [receipt.value for receipt in receipts] == [1, 2, 3]
    assert [processor.decode_event(r.events[0]).fields["job_id"] for r in receipts] == [1, 2, 3]
    assert chain.read(processor.get_job_counter()) == 3


def test_a_call_may_be_refused_for_what_came_before_it_in_the_batch(
    chain: Chain, harness: Harness, processor: JobProcessor
) -> None:
    calls = [processor.set_mode(Mode.DRAINING)] * 2

    first, second = chain.batch(calls, signer=harness.admin)

    assert isinstance(first, Receipt)
    assert isinstance(second, ContractError)
    assert second.variant == "WrongMode"
    assert chain.read(processor.mode()) is Mode.DRAINING


def test_code_is_replaced_by_code_that_was_uploaded(
    chain: Chain, harness: Harness, processor: JobProcessor
) -> None:
    code_hash = chain.upload(probe_code(), signer=harness.admin)
    chain.call(processor.set_mode(Mode.HALTED), signer=harness.admin)

    with pytest.raises(ContractError, match="SetCodeFailed"):
        chain.call(processor.set_code(blake2_256(harness.salt)), signer=harness.admin)
    chain.call(processor.set_code(code_hash), signer=harness.admin)

    assert chain.code_hash(processor.contract) == code_hash
    call = probe_call(processor.contract, RETURN + b"x")
    assert chain.dry_run(call, caller=harness.admin.account_id) == RETURN + b"x"


# A contract that returns, reverts and traps as it is told.


@pytest.fixture
def probe(chain: Chain, harness: Harness, start: Cursor) -> bytes:
    return chain.deploy(
        probe_code(), probe_constructor(RETURN), signer=harness.admin, salt=harness.salt
    ).contract


def test_what_a_constructor_emits_is_an_event_of_the_contract(
    chain: Chain, probe: bytes, start: Cursor
) -> None:
    (event,) = chain.events(probe, after=start).events

    assert (event.contract, event.topics, event.data) == (probe, (), RETURN)


def test_events_are_those_of_one_contract(
    chain: Chain, harness: Harness, probe: bytes, start: Cursor
) -> None:
    other = chain.deploy(
        probe_code(), probe_constructor(RETURN + b"2"), signer=harness.admin, salt=harness.salt
    ).contract

    results = chain.batch(
        [probe_call(probe, RETURN + b"a"), probe_call(other, RETURN + b"b")], signer=harness.admin
    )

    assert [event.data for event in chain.events(probe, after=start).events] == [
        RETURN,
        RETURN + b"a",
    ]
    assert [event.data for event in chain.events(other, after=start).events] == [
        RETURN + b"2",
        RETURN + b"b",
    ]
    receipts = [result for result in results if isinstance(result, Receipt)]
    assert [[event.data for event in r.events] for r in receipts] == [
        [RETURN + b"a"],
        [RETURN + b"b"],
    ]


@pytest.mark.parametrize(("data", "error"), [(TRAP, ContractTrappedError), (REVERT, ContractError)])
def test_nothing_is_kept_of_a_call_that_traps_or_reverts(
    chain: Chain,
    harness: Harness,
    probe: bytes,
    start: Cursor,
    data: bytes,
    error: type[Exception],
) -> None:
    call = probe_call(probe, data)
    before = chain.finalized_head(), chain.events(probe, after=start)

    with pytest.raises(error):
        chain.call(call, signer=harness.admin)
    with pytest.raises(error):
        chain.dry_run(call, caller=harness.admin.account_id)
    with pytest.raises(error):
        chain.estimate(call, caller=harness.admin.account_id)
    with pytest.raises(error):
        chain.read(call)

    assert (chain.finalized_head(), chain.events(probe, after=start)) == before


def test_a_trap_in_a_batch_undoes_all_of_it(
    chain: Chain, harness: Harness, probe: bytes, start: Cursor
) -> None:
    before = chain.finalized_head(), chain.events(probe, after=start)

    with pytest.raises(ContractTrappedError):
        chain.batch([probe_call(probe, RETURN), probe_call(probe, TRAP)], signer=harness.admin)

    assert (chain.finalized_head(), chain.events(probe, after=start)) == before


@pytest.mark.parametrize(("data", "error"), [(TRAP, ContractTrappedError), (REVERT, ContractError)])
def test_a_constructor_that_traps_or_reverts_leaves_no_contract(
    chain: Chain, harness: Harness, data: bytes, error: type[Exception]
) -> None:
    head = chain.finalized_head()
    admin, salt = harness.admin, harness.salt

    with pytest.raises(error):
        chain.deploy(probe_code(), probe_constructor(data), signer=admin, salt=salt)
    with pytest.raises(error):
        chain.estimate_deploy(
            probe_code(), probe_constructor(data), deployer=admin.account_id, salt=salt
        )

    assert chain.finalized_head() == head
