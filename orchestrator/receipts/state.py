"""What a block's header and a proof under it say about one contract."""

from hashlib import blake2b

from orchestrator.chain.runtime_types import compact
from orchestrator.chain.storage_keys import (
    NOW_KEY,
    StorageProof,
    cell_key,
    child_root_key,
    code_hash_of,
    contract_info_key,
    trie_id_of,
)
from orchestrator.errors import ChainMismatchError, EncodingError, VerificationError
from orchestrator.receipts.trie import StorageTrie

__all__ = ["ProvenContract"]

_HASH = 32


class ProvenContract:
    """
    The state of *contract* under the header of *proof*, read by nothing but the proof.

    It is the chain's state if the header is a block of that chain: whoever reads it must know
    `block_hash` to be one, and to be final.

    Raises:
        EncodingError: The header, or something in the state, has another form.
        VerificationError: The proof does not show the contract: `StorageProof`.
    """

    def __init__(self, proof: StorageProof, contract: bytes) -> None:
        self.block_hash = blake2b(proof.header, digest_size=_HASH).digest()
        self.block_number, state_root = _read_header(proof.header)
        self._trie = StorageTrie(proof.nodes)
        info = self._trie.get(state_root, contract_info_key(contract))
        if info is None:
            raise VerificationError("StorageProof", "no contract is at this address in this block")
        try:
            root_key, self.code_hash = child_root_key(trie_id_of(info)), code_hash_of(info)
        except ChainMismatchError as error:
            raise EncodingError(f"storage proof: {error}") from error
        self._root = self._trie.get(state_root, root_key)
        now = self._trie.get(state_root, NOW_KEY)
        if self._root is None or now is None:
            raise VerificationError("StorageProof", "the block has no storage of it, or no time")
        self.timestamp = int.from_bytes(now, "little")

    def cell(self, key: bytes) -> bytes:
        """
        Return the contract's cell that ink! calls *key*.

        Raises:
            EncodingError: A node on the way is none.
            VerificationError: The proof does not show it, or shows that there is none.
        """
        assert self._root is not None  # noqa: S101 - checked above
        found = self._trie.get(self._root, cell_key(key))
        if found is None:
            raise VerificationError("StorageProof", f"the contract has no cell 0x{key.hex()}")
        return found

    def require_all_used(self) -> None:
        """Refuse a proof that holds more than was asked of it; raises as `StorageTrie`."""
        self._trie.require_all_used()

    def used(self) -> tuple[bytes, ...]:
        """Return the nodes that decided about what was asked so far."""
        return tuple(self._trie.used())


def _read_header(header: bytes) -> tuple[int, bytes]:
    """Return number and state root: they follow the parent's hash."""
    number, start = compact.decode_from(header, _HASH)
    root = header[start : start + _HASH]
    if not isinstance(number, int) or len(root) != _HASH:
        raise EncodingError("header: ends early")
    return number, root
