"""Any development node that is found makes blocks, finality and forks as the other tests expect."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from substrateinterface import Keypair, SubstrateInterface

from orchestrator.chain.devnode import DevNode

ALICE = Keypair.create_from_uri("//Alice")


@contextmanager
def _connected(node: DevNode) -> Iterator[SubstrateInterface]:
    chain = SubstrateInterface(url=node.url)
    try:
        yield chain
    finally:
        chain.close()


def _signed_remark(chain: SubstrateInterface) -> object:
    call = chain.compose_call("System", "remark", {"remark": b"hello"})
    return chain.create_signed_extrinsic(call, ALICE)


def _number(chain: SubstrateInterface, block_hash: str) -> int:
    number = chain.get_block_header(block_hash)["header"]["number"]
    assert isinstance(number, int)
    return number


@pytest.fixture
def own_program(node_program: Path) -> Path:
    """A node that has what the published `substrate-contracts-node` lacks."""
    told = subprocess.run([node_program, "--help"], capture_output=True, check=True, text=True)
    if "--manual-seal" not in told.stdout:
        pytest.skip(
            f"{node_program} has no --manual-seal and no --block-time; `make node` builds one"
        )
    return node_program


def test_the_runtime_is_the_one_that_the_documents_name(node: DevNode) -> None:
    with _connected(node) as chain:
        version = chain.rpc_request("state_getRuntimeVersion", [])["result"]
        pallets = {module["name"] for module in chain.get_metadata_modules()}

    assert (version["specName"], version["specVersion"]) == ("substrate-contracts-node", 100)
    assert pallets >= {"Balances", "Contracts", "Sudo", "Timestamp", "Utility"}


def test_each_transaction_gets_a_block_which_is_final_at_once(node: DevNode) -> None:
    with _connected(node) as chain:
        receipts = [
            chain.submit_extrinsic(_signed_remark(chain), wait_for_finalization=True)
            for _ in range(3)
        ]
        succeeded = [receipt.is_success for receipt in receipts]
        first, *others = [_number(chain, receipt.block_hash) for receipt in receipts]

    assert succeeded == [True] * 3
    assert others == [first + 1, first + 2]


def test_blocks_by_time_need_no_transaction(own_program: Path) -> None:
    flags = ("--block-time", "50", "--finalize-delay-sec", "0")
    with DevNode(own_program, flags=flags) as node, _connected(node) as chain:
        parents: list[tuple[int, int]] = []

        def until_two(new: dict[str, dict[str, int]], count: int, _id: str) -> bool | None:
            parents.append((new["header"]["number"], count))
            return True if count == 1 else None

        chain.subscribe_block_headers(until_two)
        empty = chain.get_block(block_number=parents[-1][0])["extrinsics"]
        receipt = chain.submit_extrinsic(_signed_remark(chain), wait_for_inclusion=True)
        with_remark = chain.get_block(receipt.block_hash)["extrinsics"]

    assert len(empty) == 1  # what sets the time
    assert len(with_remark) == 2


def test_blocks_by_hand_make_a_fork_and_the_final_branch_wins(own_program: Path) -> None:
    with DevNode(own_program, flags=("--manual-seal",)) as node, _connected(node) as chain:

        def call(method: str, *parameters: object) -> object:
            return chain.rpc_request(method, list(parameters))["result"]

        def new_block(parent: object) -> object:
            return chain.rpc_request("engine_createBlock", [True, False, parent])["result"]["hash"]

        genesis = call("chain_getBlockHash", 0)
        empty = new_block(genesis)
        chain.submit_extrinsic(_signed_remark(chain))
        assert call("chain_getBlockHash") == empty

        with_remark = new_block(genesis)
        assert chain.get_block_header(with_remark)["header"]["parentHash"] == genesis
        assert len(chain.get_block(with_remark)["extrinsics"]) == 2
        assert call("chain_getBlockHash") == empty

        above = new_block(with_remark)
        assert call("chain_getBlockHash") == above
        assert call("chain_getFinalizedHead") == genesis

        call("engine_finalizeBlock", with_remark)
        assert call("chain_getFinalizedHead") == with_remark

        call("engine_finalizeBlock", empty)
        assert call("chain_getFinalizedHead") == with_remark
        assert call("chain_getBlockHash", 1) == with_remark
