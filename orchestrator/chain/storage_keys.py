"""
Where a chain with pallet-contracts keeps what, by itself: the keys of its storage.

A runtime's metadata says the same and more, but whoever checks a proof of storage has none. These
are the keys that FRAME and pallet-contracts have used since there are ink! 4 contracts; a chain
that has others gives no proof of anything here.
"""

from dataclasses import dataclass
from hashlib import blake2b

import xxhash

from orchestrator.errors import ChainMismatchError

__all__ = [
    "NOW_KEY",
    "StorageProof",
    "cell_key",
    "child_root_key",
    "code_hash_of",
    "contract_info_key",
    "trie_id_of",
]

_HASH = 32
_CHILD_TRIES = b":child_storage:default:"


@dataclass(frozen=True, kw_only=True)
class StorageProof:
    """
    A block's header as SCALE has it (its blake2-256 is the block's hash), and nodes of its tries.

    Nothing of it is checked here; `orchestrator.receipts` does, with nothing but a block's hash.
    """

    header: bytes
    nodes: tuple[bytes, ...]


def _twox64(data: bytes, seed: int = 0) -> bytes:
    return xxhash.xxh64_digest(data, seed=seed)[::-1]


def _twox128(text: str) -> bytes:
    return _twox64(text.encode()) + _twox64(text.encode(), 1)


_CONTRACT_INFOS = _twox128("Contracts") + _twox128("ContractInfoOf")

NOW_KEY = _twox128("Timestamp") + _twox128("Now")
"""Where the time of the block is: `u64`, ms."""


def contract_info_key(contract: bytes) -> bytes:
    """Return where the pallet's record of a contract is (a map with the hasher `Twox64Concat`)."""
    return _CONTRACT_INFOS + _twox64(contract) + contract


def child_root_key(trie_id: bytes) -> bytes:
    """Return where the root of a contract's own trie is."""
    return _CHILD_TRIES + trie_id


def cell_key(key: bytes) -> bytes:
    """Return where, in the contract's own trie, the pallet keeps the cell that ink! calls *key*."""
    return blake2b(key, digest_size=16).digest() + key


def trie_id_of(info: bytes) -> bytes:
    """
    Return the name of a contract's own trie, which the pallet's record of it begins with.

    Raises:
        ChainMismatchError: The record has another form.
    """
    length = info[0] >> 2 if info and not info[0] & 3 else 0
    if not length or len(info) < 1 + length + _HASH:
        raise ChainMismatchError("the pallet's record of the contract has another form")
    return info[1 : 1 + length]


def code_hash_of(info: bytes) -> bytes:
    """Return the hash of a contract's code, which follows the trie's name; raises as that."""
    start = 1 + len(trie_id_of(info))
    return info[start : start + _HASH]
