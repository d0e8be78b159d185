"""A mirror runs the same contract as another chain: same address, same genesis hash, same times."""

from collections.abc import Iterator

import pytest

from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.processor import JobProcessor
from orchestrator.errors import ContractError, InputError
from orchestrator.models import Parameters
from orchestrator.testing import LocalAccount, deploy_processor
from orchestrator.testing.mirror_chain import MirrorChain

ADMIN = LocalAccount.named("admin")
GENESIS = b"\7" * 32
ADDRESS = b"\5" * 32


@pytest.fixture
def mirror() -> Iterator[MirrorChain]:
    mirror = MirrorChain(GENESIS, time=1_000)
    yield mirror
    mirror.close()


def place(mirror: MirrorChain, parameters: Parameters | None = None) -> JobProcessor:
    bundle = load_bundle()
    processor = JobProcessor(ADDRESS, bundle)
    constructor = processor.new(mirror.genesis_hash, parameters or Parameters())
    deployment = mirror.place(ADDRESS, bundle.code, constructor, deployer=ADMIN.account_id)
    assert deployment.contract == ADDRESS
    assert deployment.code_hash == bundle.code_hash
    return processor


def test_the_contract_is_where_it_was_placed(mirror: MirrorChain) -> None:
    processor = place(mirror)

    assert mirror.genesis_hash == GENESIS
    assert mirror.read(processor.genesis_hash()) == GENESIS
    assert mirror.read(processor.admin()) == ADMIN.account_id


def test_its_calls_run_at_the_time_it_is_told(mirror: MirrorChain) -> None:
    processor = place(mirror)

    mirror.time = 5_000
    receipt = mirror.call(processor.propose_admin(bytes(32)), signer=ADMIN)

    assert receipt.block.timestamp == mirror.now() == 5_000


def test_its_time_does_not_go_back_behind_a_block(mirror: MirrorChain) -> None:
    place(mirror)

    mirror.time = 999

    assert mirror.now() == 1_000


def test_an_address_is_taken_once(mirror: MirrorChain) -> None:
    place(mirror)

    with pytest.raises(InputError, match="exists already"):
        place(mirror)


def test_a_refused_constructor_leaves_nothing(mirror: MirrorChain) -> None:
    with pytest.raises(ContractError, match="ParameterOutOfRange"):
        place(mirror, Parameters(rate_limit=0))

    assert mirror.code_hash(ADDRESS) is None


def test_its_cells_are_those_of_the_contract_at_another_address() -> None:
    other = EmbeddedChain(":memory:", clock=lambda: 1_000)
    elsewhere = deploy_processor(other, admin=ADMIN, roles={})
    mirror = MirrorChain(other.genesis_hash, time=1_000)

    place(mirror)

    cells = mirror.cells(ADDRESS)
    assert len(cells) == 1
    assert {key: len(value) for key, value in cells.items()} == other.cell_sizes(elsewhere.contract)
    assert mirror.cells(elsewhere.contract) == {}
    other.close()
    mirror.close()
