"""
A node and the embedded chain do the same, whatever is called.

What a node may do with gas and deposits is not compared: an embedded chain has neither.
"""

import contextlib
import os
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from orchestrator.chain import ContractCall, RawEvent, Receipt, pallet_calls
from orchestrator.chain.contracts_api import DryRun
from orchestrator.chain.devnode import DevNode
from orchestrator.chain.substrate import SubstrateChain
from orchestrator.errors import ChainMismatchError, ContractError
from tests.properties.chain_pair import DifferenceError
from tests.properties.chain_run import Run
from tests.properties.node_cells import NodeCells
from tests.properties.stand_in import StandIn

T = TypeVar("T")

CALLS = 2_000
SEEDS = 3
SEED_VARIABLE = "PHALA_JOBS_TEST_SEED"


@pytest.fixture(params=range(SEEDS), ids=lambda number: f"seed{number}")
def seed(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> int:
    """Another seed each time, unless the variable gives the first of them."""
    given = os.environ.get(SEED_VARIABLE)
    first = random.SystemRandom().getrandbits(32) if given is None else int(given)
    seed: int = first + request.param
    with capsys.disabled():  # shown by every run, also when it passes
        print(f"\ntwo chains: {SEED_VARIABLE}={seed}")
    return seed


def _generous(dry: DryRun) -> dict[str, object]:
    gas, deposit = dry.required, max(0, dry.deposit)
    return {
        "gas_limit": {"ref_time": 5 * gas.ref_time, "proof_size": 5 * gas.proof_size},
        "storage_deposit_limit": 2 * deposit + 10**12,
    }


@pytest.fixture
def node_chain(node: DevNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[SubstrateChain]:
    # Calls of a batch here depend on each other, against the port's rule, so one may cost more in
    # its block than its dry run said.
    monkeypatch.setattr(pallet_calls, "_limits", _generous)
    # A clock that is never ahead of the chain: no empty blocks in between.
    chain = SubstrateChain(node.url, clock=lambda: 0)
    yield chain
    chain.close()


@pytest.mark.slow
def test_random_calls_do_the_same_on_a_node(
    node: DevNode, node_chain: SubstrateChain, seed: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with NodeCells(node.url) as cells:
        run = Run(node_chain, cells, seed=seed, count=CALLS)

        run.go()

    with capsys.disabled():
        print(run.table())
    assert run.missing == []
    assert run.made.total() >= CALLS
    assert run.accepted.total() >= 0.3 * run.made.total()
    assert run.refused_in_blocks > 0


def test_random_calls_do_the_same_on_a_stand_in() -> None:
    chain = StandIn(random.Random(1))
    run = Run(chain, chain.cells_at, seed=1, count=300)

    run.go()

    assert run.accepted.total() >= 0.3 * run.made.total()


def on_receipts(change: Callable[[Receipt[Any]], object]) -> Callable[[list[Any]], list[Any]]:
    return lambda results: [change(r) if isinstance(r, Receipt) else r for r in results]


def on_last_event(change: Callable[[RawEvent], RawEvent]) -> Callable[[list[Any]], list[Any]]:
    return on_receipts(lambda r: replace(r, events=(*r.events[:-1], *map(change, r.events[-1:]))))


def other_value(receipt: Receipt[Any]) -> Receipt[Any]:
    is_number = isinstance(receipt.value, int) and not isinstance(receipt.value, bool)
    return replace(receipt, value=receipt.value + 1) if is_number else receipt


def other_refusals(results: list[Any]) -> list[Any]:
    return [ContractError("NoWorkers") if isinstance(r, ContractError) else r for r in results]


def other_cell(cells: dict[bytes, bytes]) -> dict[bytes, bytes]:
    key = max(cells, key=lambda key: len(cells[key]))
    return {**cells, key: cells[key][:-1] + b"\xaa"}


# What a node's method returns is changed; `Run` has to notice.
FLAWS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "event_data": ("batch", on_last_event(lambda event: replace(event, data=event.data + b"\0"))),
    "event_topics": (
        "batch",
        on_last_event(lambda event: replace(event, topics=(*event.topics[:-1], b"\1" * 32))),
    ),
    "no_event": ("batch", on_receipts(lambda r: replace(r, events=r.events[:-1]))),
    "value": ("batch", on_receipts(other_value)),
    "refused": ("batch", on_receipts(lambda _: ContractError("NotAdmin"))),
    "other_refusal": ("batch", other_refusals),
    "cell_value": ("cells_at", other_cell),
    "cell_missing": ("cells_at", lambda cells: dict(list(cells.items())[1:])),
    "cell_more": ("cells_at", lambda cells: {**cells, b"more": b""}),
    "code": ("code_hash", lambda _: bytes(32)),
    "history": ("events", lambda page: replace(page, events=page.events[:-1])),
}


@pytest.mark.parametrize("flaw", FLAWS)
def test_a_flaw_of_the_node_is_noticed(flaw: str) -> None:
    method, change = FLAWS[flaw]
    chain = StandIn(random.Random(1))
    sound = getattr(chain, method)
    setattr(chain, method, lambda *args, **named: change(sound(*args, **named)))

    with pytest.raises(DifferenceError, match="seed 1, call"):
        Run(chain, chain.cells_at, seed=1, count=100).go()


def test_another_view_is_noticed() -> None:
    chain = StandIn(random.Random(1))
    sound = chain.read

    def read(call: ContractCall[T]) -> T:
        return sound(replace(call, decode=lambda data: call.decode(data[:-1] + b"\xaa")))

    chain.read = read  # type: ignore[method-assign]  # the flaw

    with pytest.raises(DifferenceError, match="view"):
        Run(chain, chain.cells_at, seed=1, count=100).go()


def test_another_dry_run_is_noticed() -> None:
    chain = StandIn(random.Random(1))
    sound = chain.dry_run

    def dry_run(call: ContractCall[T], *, caller: bytes) -> T:
        # A value with another encoding of the same meaning is a difference, too.
        def decode(data: bytes) -> T:
            with contextlib.suppress(ContractError, ChainMismatchError):
                call.decode(data + b"\0")
            return call.decode(data)

        return sound(replace(call, decode=decode), caller=caller)

    chain.dry_run = dry_run  # type: ignore[method-assign]  # the flaw

    with pytest.raises(DifferenceError, match="bytes of the dry run"):
        Run(chain, chain.cells_at, seed=1, count=100).go()
