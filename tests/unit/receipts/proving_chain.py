"""An embedded chain that proves its storage, as a node does, by tries that the tests build."""

from collections.abc import Sequence

from orchestrator.chain.storage_keys import (
    NOW_KEY,
    StorageProof,
    cell_key,
    child_root_key,
    contract_info_key,
)
from orchestrator.receipts.trie import StorageTrie
from orchestrator.testing.mirror_chain import MirrorChain

from .trie_builder import BuiltTrie, compact, digest

START = 1_767_225_600_000
TRIE_ID = b"\x77" * 32


class ProvingChain(MirrorChain):
    """A chain in memory whose time goes on by a second with each look at it."""

    def __init__(self) -> None:
        super().__init__(b"\x67" * 32, time=START)
        self.changes: dict[bytes, bytes] = {}
        self.record: bytes | None = None
        self.has_time = True
        self.code: bytes | None = None

    def prove(
        self, contract: bytes, cells: Sequence[bytes], *, number: int | None = None
    ) -> StorageProof:
        """Prove what is stored now; the attributes are what it lies about."""
        head = self.finalized_head()
        stored = self.cells(contract) | self.changes
        child = BuiltTrie.of({cell_key(key): value for key, value in stored.items()})
        code_hash = self.code or self.code_hash(contract)
        assert code_hash is not None
        keys = [contract_info_key(contract), child_root_key(TRIE_ID), NOW_KEY]
        now = head.timestamp.to_bytes(8, "little")
        record = self.record or compact(len(TRIE_ID)) + TRIE_ID + code_hash + bytes(40)
        entries = dict(zip(keys, [record, child.root, now], strict=True))
        if not self.has_time:
            del entries[NOW_KEY]
        others = {digest(bytes([n])): bytes([n]) * n for n in range(200)}
        main = BuiltTrie.of(others | entries)
        trie = StorageTrie([*{*main.items.values(), *child.items.values()}])
        for key in keys:
            trie.get(main.root, key)
        for cell in cells:
            trie.get(child.root, cell_key(cell))
        wide = (number or head.number) << 2 | 2
        header = bytes(32) + wide.to_bytes(4, "little") + main.root + bytes(32) + b"\0"
        return StorageProof(header=header, nodes=tuple(trie.used()))
