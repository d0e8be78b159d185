"""
Proofs of Substrate's storage: what a state root says about a key, by some nodes of its trie.

The trie has base 16 and no extension nodes; nodes, and values longer than 32 bytes, are found by
their blake2-256 (`sp-trie`, layouts 0 and 1; which one a node was written in stands in its header).
A child trie has its own root, which the main trie holds. Nodes are found by their hash alone, so
their order means nothing, and one set of nodes may prove keys of several tries.

A node is a header, a partial key, and::

    leaf    value
    branch  children u16 (a bit each), value if the header says so, children in order
    header  two to four bits for the kind, the rest is the number of nibbles of the partial key; all
            ones go on in the next bytes, up to one that is not 255
    value   compact length and bytes, or the hash of the bytes where the header says so
    child   compact length and a node shorter than 32 bytes, or 32 and its hash

Nothing here recurses: a walk reads one node for each nibble of the key at most.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple

from orchestrator.encoding import blake2_256
from orchestrator.errors import EncodingError, VerificationError

__all__ = ["MAX_NODES", "MAX_NODE_BYTES", "StorageTrie"]

MAX_NODES = 2_048
# A value is one of the things that are found by hash; a contract's longest is 16 KiB, a runtime's
# code is never asked for.
MAX_NODE_BYTES = 65_536
_MAX_PARTIAL = 1_024
_HASH = 32
_ARITY = 16

_EMPTY_TRIE = b"\0"


class _Kind(NamedTuple):
    """The nodes whose header begins with `bits`; `width` bits are left for their nibbles."""

    bits: str
    is_branch: bool
    has_value: bool
    is_hashed: bool

    @property
    def width(self) -> int:
        return 8 - len(self.bits)


_KINDS = (
    _Kind("01", is_branch=False, has_value=True, is_hashed=False),
    _Kind("10", is_branch=True, has_value=False, is_hashed=False),
    _Kind("11", is_branch=True, has_value=True, is_hashed=False),
    _Kind("001", is_branch=False, has_value=True, is_hashed=True),
    _Kind("0001", is_branch=True, has_value=True, is_hashed=True),
)


class StorageTrie:
    """
    The *nodes* of a proof (and its hashed values), looked up by their hashes.

    Raises:
        EncodingError: There are too many, one is too long, or one is there twice.
    """

    def __init__(self, nodes: Collection[bytes]) -> None:
        if len(nodes) > MAX_NODES:
            raise EncodingError(f"storage proof: {len(nodes)} nodes, at most {MAX_NODES}")
        longest = max(map(len, nodes), default=0)
        if longest > MAX_NODE_BYTES:
            raise EncodingError(f"storage proof: a node of {longest} bytes, at most 65536")
        self._nodes = {blake2_256(node): node for node in nodes}
        if len(self._nodes) != len(nodes):
            raise EncodingError("storage proof: a node is there twice")
        self._used: set[bytes] = set()

    def get(self, root: bytes, key: bytes) -> bytes | None:
        """
        Return what the trie of *root* holds at *key*; `None` is proven too: there is nothing.

        Raises:
            VerificationError: A node that decides about the key is missing: `StorageProof`.
            EncodingError: A node on the way is none.
        """
        path = key.hex()
        node, at = self._by_hash(root), 0
        while True:
            if node == _EMPTY_TRIE:
                return None
            found = _read_node(node)
            end = at + len(found.partial)
            if path[at:end] != found.partial:
                return None
            if end == len(path):
                return self._value(found)
            child = found.children[int(path[end], _ARITY)] if found.children else b""
            if not child:
                return None
            node, at = self._by_hash(child) if len(child) == _HASH else child, end + 1

    def used(self) -> list[bytes]:
        """Return the nodes that decided about what was looked up, in the order of their bytes."""
        return sorted(self._nodes[digest] for digest in self._used)

    def require_all_used(self) -> None:
        """
        Refuse a proof with nodes that prove nothing of what was looked up.

        Raises:
            VerificationError: There is one: `StorageProof`.
        """
        unused = len(self._nodes) - len(self._used)
        if unused:
            raise VerificationError(
                "StorageProof", f"{unused} of {len(self._nodes)} nodes prove nothing that is asked"
            )

    def _value(self, node: "_Node") -> bytes | None:
        if node.value is None or not node.is_hashed:
            return node.value
        return self._by_hash(node.value)

    def _by_hash(self, digest: bytes) -> bytes:
        found = self._nodes.get(digest)
        if found is None:
            raise VerificationError("StorageProof", f"no node has the hash 0x{digest.hex()}")
        self._used.add(digest)
        return found


@dataclass(frozen=True)
class _Node:
    """
    One node; `partial` has a hex digit for each nibble.

    `children` are hashes, nodes, or nothing, and a leaf has none at all.
    """

    partial: str
    value: bytes | None
    is_hashed: bool
    children: tuple[bytes, ...]


def _read_node(data: bytes) -> _Node:
    reader = _Reader(data)
    first = reader.take(1)[0]
    kind = next((kind for kind in _KINDS if f"{first:08b}".startswith(kind.bits)), None)
    if kind is None:
        raise EncodingError(f"storage proof: {first:#04x} is the header of no node")
    partial = reader.partial(first, kind.width)
    children_bits = int.from_bytes(reader.take(2), "little") if kind.is_branch else 0
    if kind.is_branch and not children_bits:
        raise EncodingError("storage proof: a branch has no children")
    value = None
    if kind.has_value:
        value = reader.take(_HASH if kind.is_hashed else reader.compact())
    children = tuple(
        reader.child() if children_bits >> place & 1 else b"" for place in range(_ARITY)
    )
    reader.finish()
    return _Node(partial, value, kind.is_hashed, children if kind.is_branch else ())


class _Reader:
    """Reads one node from its beginning to its end."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def take(self, length: int) -> bytes:
        start, self._at = self._at, self._at + length
        if self._at > len(self._data):
            raise EncodingError("storage proof: a node ends early")
        return self._data[start : self._at]

    def partial(self, first: int, width: int) -> str:
        """The nibbles of the partial key, whose number begins in the header's last bits."""
        most = (1 << width) - 1
        count = first & most
        if count == most:
            more = 255
            while more == 255 and count <= _MAX_PARTIAL:
                more = self.take(1)[0]
                count += more
        if count > _MAX_PARTIAL:
            raise EncodingError(f"storage proof: a partial key of more than {_MAX_PARTIAL} nibbles")
        nibbles = self.take((count + 1) // 2).hex()
        if count % 2 and nibbles[0] != "0":
            raise EncodingError("storage proof: a partial key is not filled up with zero")
        return nibbles[count % 2 :]

    def compact(self) -> int:
        """A compact length below 2^30, in its shortest form."""
        first = self.take(1)[0]
        width = (1, 2, 4, 0)[first & 3]
        if not width:
            raise EncodingError("storage proof: a length is 2^30 or more")
        value = int.from_bytes(bytes([first]) + self.take(width - 1), "little") >> 2
        if width > 1 and value < (1 << 6 if width == 2 else 1 << 14):
            raise EncodingError("storage proof: a length is not in its shortest form")
        return value

    def child(self) -> bytes:
        """The hash of a child, or the child itself, which is shorter."""
        length = self.compact()
        if not 0 < length <= _HASH:
            raise EncodingError(f"storage proof: a child of {length} bytes")
        return self.take(length)

    def finish(self) -> None:
        if self._at != len(self._data):
            raise EncodingError("storage proof: bytes follow a node")
