"""What a real node proves is what it stores: each cell of a contract, and that others are not."""

import json
import os
import secrets
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.cells import ContractCells
from orchestrator.chain.devnode import DevNode
from orchestrator.chain.storage_keys import (
    NOW_KEY,
    StorageProof,
    child_root_key,
    contract_info_key,
    trie_id_of,
)
from orchestrator.chain.substrate import SubstrateChain
from orchestrator.encoding import blake2_256
from orchestrator.errors import (
    ChainMismatchError,
    EncodingError,
    InputError,
    JobStateError,
    VerificationError,
)
from orchestrator.models import JobStatus
from orchestrator.receipts.facts import read_facts
from orchestrator.receipts.state import ProvenContract
from tests.properties.node_cells import NodeCells

from .world import PAYLOAD, RESULT, ReceiptWorld, make_receipt_world

VECTOR = Path(__file__).parents[2] / "vectors" / "storage_proof.json"
MEASUREMENT = b"\x51" * 32
# Set it to write the vector anew, from the node at hand.
WRITE = "PHALA_JOBS_WRITE_STORAGE_PROOF"


@pytest.fixture(scope="module")
def chain(node: DevNode) -> Iterator[SubstrateChain]:
    chain = SubstrateChain(node.url)
    yield chain
    chain.close()


@pytest.fixture(scope="module")
def world(chain: SubstrateChain) -> ReceiptWorld:
    return make_receipt_world(chain, measurement=MEASUREMENT, salt=secrets.token_bytes(8))


@pytest.fixture(scope="module")
def cells() -> ContractCells:
    return ContractCells(load_bundle())


def keys_of(cells: ContractCells, job_id: int = 1) -> list[bytes]:
    return [
        cells.root,
        cells.job(job_id),
        cells.worker(1),
        cells.measurement(MEASUREMENT),
    ]


def test_every_cell_is_proven_as_the_node_stores_it(
    node: DevNode, chain: SubstrateChain, world: ReceiptWorld
) -> None:
    contract, head = world.processor.contract, chain.finalized_head()
    with NodeCells(node.url) as read:
        stored = read(contract, head)
    assert len(stored) >= 5

    state = ProvenContract(chain.prove(contract, list(stored)), contract)

    assert {key: state.cell(key) for key in stored} == stored
    state.require_all_used()
    assert (state.block_hash, state.block_number) == (head.hash, head.number)
    assert state.timestamp == head.timestamp
    assert state.code_hash == load_bundle().code_hash


def test_the_facts_are_those_that_the_contract_tells(
    chain: SubstrateChain, world: ReceiptWorld, cells: ContractCells
) -> None:
    contract, processor = world.processor.contract, world.processor
    state = ProvenContract(chain.prove(contract, keys_of(cells)), contract)

    facts = read_facts(state.cell, cells, contract=contract, job_id=1)

    job, told = chain.read(processor.get_job(1)), chain.read(processor.get_attestation(1))
    assert job is not None
    assert told is not None
    file = facts.attestation
    assert facts.worker == chain.read(processor.get_worker(1))
    assert not facts.is_measurement_revoked
    assert file.genesis_hash == chain.genesis_hash
    assert {name: getattr(job, name) for name in vars(file.job)} == vars(file.job)
    assert file.completion.attestation_proof == told.attestation_proof
    assert file.completion.tee_worker_pubkey == told.tee_worker_pubkey
    assert file.completion.result_hash == told.result_hash == blake2_256(RESULT)
    assert file.recorded_at == told.timestamp


def test_what_is_not_there_is_proven_not_to_be(
    chain: SubstrateChain, world: ReceiptWorld, cells: ContractCells
) -> None:
    contract = world.processor.contract
    missing = [cells.job(2), cells.worker(2), cells.measurement(bytes(32))]

    state = ProvenContract(chain.prove(contract, missing), contract)

    for key in missing:
        with pytest.raises(VerificationError, match="the contract has no cell 0x" + key.hex()):
            state.cell(key)
    state.require_all_used()


def test_an_older_block_is_proven_as_it_was(
    chain: SubstrateChain, world: ReceiptWorld, cells: ContractCells
) -> None:
    contract = world.processor.contract
    job_id = world.submit()
    submitted = chain.finalized_head().number
    world.record(job_id)

    def facts(number: int | None) -> Any:  # noqa: ANN401  # facts, or the error
        state = ProvenContract(
            chain.prove(contract, keys_of(cells, job_id), number=number), contract
        )
        return read_facts(state.cell, cells, contract=contract, job_id=job_id)

    assert facts(None).attestation.job.status is JobStatus.ATTESTED
    with pytest.raises(JobStateError, match="NotFound"):
        facts(submitted)
    with pytest.raises(VerificationError, match="the contract has no cell"):
        facts(submitted - 1)
    with pytest.raises(InputError, match="there is no finalized block"):
        facts(1_000_000_000)
    with pytest.raises(InputError, match="no contract at this address"):
        chain.prove(bytes(32), [cells.root])
    with pytest.raises(InputError, match="no contract at this address"):
        chain.prove(contract, [cells.root], number=0)


def test_keys_are_computed_as_the_runtime_s_metadata_says(chain: SubstrateChain) -> None:
    runtime = chain._node.runtime()
    contract = secrets.token_bytes(32)

    assert "0x" + NOW_KEY.hex() == runtime.storage_key("Timestamp", "Now")
    assert "0x" + contract_info_key(contract).hex() == runtime.storage_key(
        "Contracts", "ContractInfoOf", contract
    )


def _shown(proof: StorageProof, world: ReceiptWorld) -> dict[str, Any]:
    return {
        "origin": "state_getReadProof and state_getChildReadProof of contracts-devnode"
        " (substrate-contracts-node 100, pallet-contracts 38, state version 1), written by"
        f" tests/unit/receipts/test_node_proofs.py with {WRITE} set",
        "code_hash_hex": load_bundle().code_hash.hex(),
        "genesis_hash_hex": world.chain.genesis_hash.hex(),
        "contract_hex": world.processor.contract.hex(),
        "signing_key_hex": world.signer.public_key.key.hex(),
        "measurement_hex": world.measurement.hex(),
        "payload_hash_hex": blake2_256(PAYLOAD).hex(),
        "result_hash_hex": blake2_256(RESULT).hex(),
        "header_hex": proof.header.hex(),
        "block_hash_hex": blake2_256(proof.header).hex(),
        "nodes_hex": [node.hex() for node in proof.nodes],
    }


@pytest.mark.skipif(WRITE not in os.environ, reason=f"{WRITE} is not set: the vector stays")
def test_write_the_vector(chain: SubstrateChain, cells: ContractCells, tmp_path: Path) -> None:
    world = make_receipt_world(chain, measurement=MEASUREMENT, salt=secrets.token_bytes(8))
    keys = [*keys_of(cells), cells.job(2)]
    asked = chain.prove(world.processor.contract, keys)
    state = ProvenContract(asked, world.processor.contract)
    for key in keys[:-1]:
        state.cell(key)
    with pytest.raises(VerificationError):
        state.cell(keys[-1])
    proof = replace(asked, nodes=state.used())

    VECTOR.write_text(json.dumps(_shown(proof, world), indent=2) + "\n")


@pytest.fixture
def vector() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(VECTOR.read_text())
    return document


def _proof(vector: dict[str, Any]) -> StorageProof:
    return StorageProof(
        header=bytes.fromhex(vector["header_hex"]),
        nodes=tuple(bytes.fromhex(node) for node in vector["nodes_hex"]),
    )


def test_the_committed_proof_of_a_node_is_read(vector: dict[str, Any]) -> None:
    """Read with the layout of the bundle of today: the storage's version has to be the same."""
    contract, cells = bytes.fromhex(vector["contract_hex"]), ContractCells(load_bundle())

    state = ProvenContract(_proof(vector), contract)
    facts = read_facts(state.cell, cells, contract=contract, job_id=1)
    with pytest.raises(VerificationError, match="the contract has no cell"):
        state.cell(cells.job(2))

    state.require_all_used()
    file = facts.attestation
    assert state.block_hash.hex() == vector["block_hash_hex"]
    assert state.code_hash.hex() == vector["code_hash_hex"]
    assert file.genesis_hash.hex() == vector["genesis_hash_hex"]
    assert file.worker.signing_key.key.hex() == vector["signing_key_hex"]
    assert file.worker.measurement.hex() == vector["measurement_hex"]
    assert file.job.payload_hash.hex() == vector["payload_hash_hex"]
    assert file.completion.result_hash.hex() == vector["result_hash_hex"]
    assert file.job.status is JobStatus.PROCESSED


def _read_whole(proof: StorageProof, contract: bytes, cells: ContractCells) -> None:
    """Ask everything that the committed proof proves."""
    state = ProvenContract(proof, contract)
    read_facts(state.cell, cells, contract=contract, job_id=1)
    with pytest.raises(VerificationError, match="the contract has no cell"):
        state.cell(cells.job(2))
    state.require_all_used()


def test_each_changed_byte_of_the_committed_proof_is_refused(vector: dict[str, Any]) -> None:
    """Of the nodes here: a header shows nothing by itself, its hash is what one trusts."""
    contract, cells = bytes.fromhex(vector["contract_hex"]), ContractCells(load_bundle())
    whole = _proof(vector)
    changes = 0
    for place, node in enumerate(whole.nodes):
        for at in range(len(node)):
            changed = node[:at] + bytes([node[at] ^ 1 << at % 8]) + node[at + 1 :]
            proof = replace(whole, nodes=(*whole.nodes[:place], changed, *whole.nodes[place + 1 :]))
            with pytest.raises((EncodingError, VerificationError)):
                _read_whole(proof, contract, cells)
            changes += 1
    assert changes == sum(map(len, whole.nodes)) > 1_000


@pytest.mark.parametrize(
    ("header", "words"),
    [(b"", "ends? .*early"), (bytes(32), "too early"), (bytes(33), "header: ends early")],
)
def test_what_is_no_header_is_an_encoding_error(header: bytes, words: str) -> None:
    with pytest.raises(EncodingError, match=words):
        ProvenContract(StorageProof(header=header, nodes=()), bytes(32))


@pytest.mark.parametrize("info", [b"", b"\0", b"\x01\x02", b"\x0cabc" + bytes(31)])
def test_what_is_no_record_of_a_contract_is_refused(info: bytes) -> None:
    with pytest.raises(ChainMismatchError, match="has another form"):
        trie_id_of(info)


def test_the_name_of_a_trie_is_what_the_record_begins_with() -> None:
    info = b"\x0cabc" + bytes(32) + b"more"

    assert trie_id_of(info) == b"abc"
    assert child_root_key(b"abc") == b":child_storage:default:abc"
