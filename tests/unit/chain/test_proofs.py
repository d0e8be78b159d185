"""Asking a node for proofs: whatever it answers is checked, and its refusals are told apart."""

from collections.abc import Callable, Iterator

import pytest

from orchestrator.chain.answers import hex_text
from orchestrator.chain.heads import encode_header
from orchestrator.chain.proofs import read_proof
from orchestrator.chain.rpc import RpcConnection
from orchestrator.chain.storage_keys import (
    NOW_KEY,
    StorageProof,
    cell_key,
    child_root_key,
    code_hash_of,
    contract_info_key,
)
from orchestrator.encoding import blake2_256
from orchestrator.errors import (
    ChainMismatchError,
    ChainUnavailableError,
    Error,
    InputError,
    PrunedStateError,
)
from orchestrator.testing.scripted_node import Refusal, ScriptedNode

CONTRACT, CELL = b"\x01" * 32, b"\x02" * 20
TRIE_ID, CODE = b"\x03" * 32, b"\x04" * 32
INFO = b"\x80" + TRIE_ID + CODE + bytes(40)
HEADER = {
    "number": "0x7",
    "parentHash": hex_text(b"\x05" * 32),
    "stateRoot": hex_text(b"\x06" * 32),
    "extrinsicsRoot": hex_text(b"\x07" * 32),
    "digest": {"logs": ["0x0642"]},
}
BLOCK = blake2_256(encode_header(HEADER))


@pytest.fixture
def node() -> Iterator[ScriptedNode]:
    answers = {
        "chain_getHeader": HEADER,
        "state_getStorage": hex_text(INFO),
        "state_getReadProof": {"at": hex_text(BLOCK), "proof": ["0xbb", "0xaa"]},
        "state_getChildReadProof": {"at": hex_text(BLOCK), "proof": ["0xaa", "0xcc"]},
    }
    with ScriptedNode(answers) as node:
        yield node


@pytest.fixture
def read(node: ScriptedNode) -> Iterator[Callable[[], StorageProof]]:
    rpc = RpcConnection(node.url, timeout_seconds=5)
    yield lambda: read_proof(rpc, CONTRACT, [CELL], BLOCK)
    rpc.close()


def test_nodes_of_both_proofs_are_put_together_in_order(
    node: ScriptedNode, read: Callable[[], StorageProof]
) -> None:
    proof = read()

    assert proof == StorageProof(header=encode_header(HEADER), nodes=(b"\xaa", b"\xbb", b"\xcc"))
    at, info = hex_text(BLOCK), hex_text(contract_info_key(CONTRACT))
    root = hex_text(child_root_key(TRIE_ID))
    assert sorted(node.requests) == [
        ("chain_getHeader", [at]),
        ("state_getChildReadProof", [root, [hex_text(cell_key(CELL))], at]),
        ("state_getReadProof", [[info, root, hex_text(NOW_KEY)], at]),
        ("state_getStorage", [info, at]),
    ]
    assert code_hash_of(INFO) == CODE


@pytest.mark.parametrize(
    ("method", "answer", "error", "words"),
    [
        ("state_getStorage", None, InputError, "there is no contract at this address"),
        ("state_getStorage", "0x03", ChainMismatchError, "record of the contract"),
        ("chain_getHeader", None, ChainMismatchError, "a header of unknown form"),
        ("chain_getHeader", HEADER | {"number": "0x8"}, ChainMismatchError, "another block"),
        ("state_getReadProof", None, ChainMismatchError, "a proof of unknown form"),
        ("state_getReadProof", {"proof": "0x"}, ChainMismatchError, "a proof of unknown form"),
        ("state_getReadProof", {"proof": ["aa"]}, ChainMismatchError, "a proof that is no hex"),
        (
            "state_getChildReadProof",
            {"proof": ["0xaa"] * 5_000},
            ChainMismatchError,
            "a proof of unknown form",
        ),
        (
            "state_getReadProof",
            Refusal(4003, "State already discarded for 0x00"),
            PrunedStateError,
            "--state-pruning archive",
        ),
        (
            "state_getChildReadProof",
            Refusal(-32601, "Method not found"),
            ChainUnavailableError,
            "the node gives no proof",
        ),
    ],
)
def test_what_a_node_does_not_say_or_says_wrongly_is_named(
    node: ScriptedNode,
    read: Callable[[], StorageProof],
    method: str,
    answer: object,
    error: type[Error],
    words: str,
) -> None:
    node.answers[method] = answer

    with pytest.raises(error, match=words):
        read()
