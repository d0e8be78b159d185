"""
What every `Chain` does, run on every adapter.

An adapter joins by a `Harness` in `HARNESSES`: how it is opened, and which accounts may send.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestrator.chain import Chain, Cursor, RawEvent
from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.processor import JobProcessor
from orchestrator.encoding import blake2_256
from orchestrator.errors import ChainMismatchError, ContractError, InputError
from orchestrator.models import Account, Mode, Parameters, Role
from orchestrator.testing.chain import LocalAccount, deploy_processor

START = Cursor(block=0, index=-1)


@dataclass(frozen=True, kw_only=True)
class Harness:
    """One adapter: `reopen` gives another handle on the same chain, where there can be one."""

    chain: Chain
    reopen: Callable[[], Chain] | None
    admin: Account
    stranger: Account


def embedded_in_memory(_folder: Path) -> Harness:
    return Harness(
        chain=EmbeddedChain(":memory:"),
        reopen=None,
        admin=LocalAccount.named("admin"),
        stranger=LocalAccount.named("stranger"),
    )


def embedded_in_a_file(folder: Path) -> Harness:
    path = folder / "dev.chain"
    return Harness(
        chain=EmbeddedChain(path),
        reopen=lambda: EmbeddedChain(path, create=False),
        admin=LocalAccount.named("admin"),
        stranger=LocalAccount.named("stranger"),
    )


HARNESSES = [embedded_in_memory, embedded_in_a_file]


@pytest.fixture(params=HARNESSES, ids=lambda harness: harness.__name__)
def harness(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Harness]:
    harness: Harness = request.param(tmp_path)
    yield harness
    harness.chain.close()


@pytest.fixture
def chain(harness: Harness) -> Chain:
    return harness.chain


@pytest.fixture
def processor(harness: Harness) -> JobProcessor:
    return deploy_processor(harness.chain, admin=harness.admin, roles={})


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
        chain.deploy(bundle.code, constructor, signer=harness.admin)

    assert caught.value.variant == "ParameterOutOfRange"


def test_the_same_contract_twice_needs_another_salt(chain: Chain, harness: Harness) -> None:
    first = deploy_processor(chain, admin=harness.admin, roles={})

    with pytest.raises(InputError, match="exists already"):
        deploy_processor(chain, admin=harness.admin, roles={})
    second = deploy_processor(chain, admin=harness.admin, roles={}, salt=b"2")

    assert first.contract != second.contract


def test_uploading_returns_the_hash_of_the_code(chain: Chain, harness: Harness) -> None:
    bundle = load_bundle()

    assert chain.upload(bundle.code, signer=harness.admin) == bundle.code_hash
    assert chain.upload(bundle.code, signer=harness.admin) == bundle.code_hash


def test_code_that_is_no_contract_is_refused(chain: Chain, harness: Harness) -> None:
    with pytest.raises(InputError):
        chain.upload(b"#!/bin/sh", signer=harness.admin)


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

    assert receipt.fee >= 0
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
    chain: Chain, processor: JobProcessor, registrar: Account
) -> None:
    for number in range(5):
        chain.call(processor.allow_measurement(measurement(number)), signer=registrar)
    expected = chain.events(processor.contract, after=START).events

    found: list[RawEvent] = []
    cursor = START
    while True:
        page = chain.events(processor.contract, after=cursor, limit=2)
        found += page.events
        assert page.next > cursor or not page.events
        cursor = page.next
        if not page.events:
            break

    assert tuple(found) == expected
    names = [processor.decode_event(event).name for event in found]
    assert names == ["RoleGranted", *["MeasurementAllowed"] * 5]
    assert [event.cursor for event in found] == sorted(event.cursor for event in found)


def test_the_cursor_goes_on_where_nothing_happened(
    chain: Chain, processor: JobProcessor, registrar: Account
) -> None:
    head = chain.finalized_head()
    page = chain.events(b"\5" * 32, after=START)
    assert page.events == ()
    assert page.next == Cursor(block=head.number, index=-1)

    chain.call(processor.allow_measurement(measurement(1)), signer=registrar)

    cursor = chain.events(processor.contract, after=START).next
    assert chain.events(processor.contract, after=cursor).events == ()
    assert chain.events(processor.contract, after=cursor).next == cursor
    receipt = chain.call(processor.allow_measurement(measurement(2)), signer=registrar)
    assert chain.events(processor.contract, after=cursor).events == receipt.events


@pytest.mark.parametrize("limit", [(1 << 63) - 1, 1 << 63, 1 << 200])
def test_a_limit_may_be_of_any_size(
    chain: Chain, processor: JobProcessor, registrar: Account, limit: int
) -> None:
    chain.call(processor.allow_measurement(measurement(1)), signer=registrar)

    page = chain.events(processor.contract, after=START, limit=limit)

    assert len(page.events) == 2


@pytest.mark.parametrize("huge", [1 << 63, 1 << 200])
def test_a_cursor_may_be_of_any_size(
    chain: Chain, processor: JobProcessor, registrar: Account, huge: int
) -> None:
    (event,) = chain.call(processor.allow_measurement(measurement(1)), signer=registrar).events
    before, block = Cursor(block=-huge, index=-huge), event.block.number

    assert chain.events(processor.contract, after=before).events[-1] == event
    assert chain.events(processor.contract, after=Cursor(block=block, index=-huge)).events == (
        event,
    )
    for after in (Cursor(block=block, index=huge), Cursor(block=huge, index=0)):
        assert chain.events(processor.contract, after=after).events == ()
        assert chain.events(processor.contract, after=after).next >= after


def test_a_limit_has_to_be_positive(chain: Chain) -> None:
    with pytest.raises(InputError, match="limit: 0"):
        chain.events(bytes(32), after=START, limit=0)


def test_time_goes_on(chain: Chain, processor: JobProcessor, registrar: Account) -> None:
    before = chain.now()
    receipt = chain.call(processor.allow_measurement(measurement(1)), signer=registrar)

    assert before <= receipt.block.timestamp <= chain.now()


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
    assert other.finalized_head() == chain.finalized_head()
    assert other.read(processor.has_measurement(measurement(1))) is True
    other.call(processor.allow_measurement(measurement(2)), signer=registrar)
    assert chain.read(processor.has_measurement(measurement(2))) is True
    other.close()
