"""Asking a node for what proves a contract's storage."""

from collections.abc import Sequence
from hashlib import blake2b

from orchestrator.chain.answers import at_key, hex_bytes, hex_text
from orchestrator.chain.heads import encode_header
from orchestrator.chain.refusals import history_error
from orchestrator.chain.rpc import RpcConnection, RpcError
from orchestrator.chain.storage_keys import (
    NOW_KEY,
    StorageProof,
    cell_key,
    child_root_key,
    contract_info_key,
    trie_id_of,
)
from orchestrator.errors import ChainMismatchError, ChainUnavailableError, InputError

__all__ = ["read_proof"]

_MOST_NODES = 4_096


def read_proof(
    rpc: RpcConnection, contract: bytes, cells: Sequence[bytes], block_hash: bytes
) -> StorageProof:
    """
    Return what proves the contract's record, *cells* and the time in a block's state.

    Raises:
        InputError: There is no such contract then.
        PrunedStateError: The node has no longer the state of that block.
        ChainUnavailableError: The node gives no proofs.
        ChainMismatchError: It sent something else.
    """
    at = hex_text(block_hash)
    info_key = hex_text(contract_info_key(contract))
    try:
        header, info = rpc.request_all(
            [("chain_getHeader", (at,)), ("state_getStorage", (info_key, at))]
        )
        if info is None:
            raise InputError("there is no contract at this address in that block")
        root_key = hex_text(child_root_key(trie_id_of(hex_bytes(info, "a storage item"))))
        proofs = rpc.request_all(
            [
                ("state_getReadProof", ([info_key, root_key, hex_text(NOW_KEY)], at)),
                (
                    "state_getChildReadProof",
                    (root_key, [hex_text(cell_key(cell)) for cell in cells], at),
                ),
            ]
        )
    except RpcError as error:
        found = history_error(error)
        if isinstance(found, RpcError):
            raise ChainUnavailableError(f"the node gives no proof: {error}") from error
        raise found from error
    encoded = encode_header(header)
    if blake2b(encoded, digest_size=32).digest() != block_hash:
        raise ChainMismatchError("the node sent the header of another block than was asked for")
    nodes = {node for proof in proofs for node in _nodes(proof)}
    return StorageProof(header=encoded, nodes=tuple(sorted(nodes)))


def _nodes(proof: object) -> list[bytes]:
    what = "a proof"
    nodes = at_key(proof, "proof", what)
    if not isinstance(nodes, list) or len(nodes) > _MOST_NODES:
        raise ChainMismatchError("the node sent a proof of unknown form")
    return [hex_bytes(node, what) for node in nodes]
