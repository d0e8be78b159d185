"""A Substrate trie built whole, by its definition: a second implementation for the tests alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b


def digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=32).digest()


def compact(value: int) -> bytes:
    if value < 64:
        return bytes([value << 2])
    return (value << 2 | 1).to_bytes(2, "little") if value < 1 << 14 else _wide(value)


def _wide(value: int) -> bytes:
    return (value << 2 | 2).to_bytes(4, "little")


@dataclass
class BuiltTrie:
    """A root, and everything that is found by its hash. `layout` 1 hashes values over 32 bytes."""

    layout: int = 1
    items: dict[bytes, bytes] = field(default_factory=dict)
    root: bytes = b""
    root_node: bytes = b""

    @classmethod
    def of(cls, entries: Mapping[bytes, bytes], layout: int = 1) -> "BuiltTrie":
        trie = cls(layout)
        texts = {key.hex(): value for key, value in entries.items()}
        trie.root_node = trie._node(texts) if texts else b"\0"
        trie.root = trie._keep(trie.root_node)
        return trie

    def _keep(self, data: bytes) -> bytes:
        self.items[digest(data)] = data
        return digest(data)

    def _node(self, entries: Mapping[str, bytes]) -> bytes:
        first, *rest = sorted(entries)
        shared = first
        for key in rest:
            while not key.startswith(shared):
                shared = shared[:-1]
        below = {key[len(shared) :]: value for key, value in entries.items()}
        own = below.pop("", None)
        is_hashed = own is not None and self.layout == 1 and len(own) > 32
        value = b""
        if own is not None:
            value = self._keep(own) if is_hashed else compact(len(own)) + own
        if not below:
            return self._head("001" if is_hashed else "01", shared) + value
        kind = "10" if own is None else "0001" if is_hashed else "11"
        children, bits = b"", 0
        for nibble in range(16):
            under = {k[1:]: v for k, v in below.items() if k[0] == f"{nibble:x}"}
            if under:
                bits |= 1 << nibble
                child = self._node(under)
                held = child if len(child) < 32 else self._keep(child)
                children += compact(len(held)) + held
        return self._head(kind, shared) + bits.to_bytes(2, "little") + value + children

    @staticmethod
    def _head(kind: str, shared: str) -> bytes:
        width = 8 - len(kind)
        most = (1 << width) - 1
        count = len(shared)
        head = bytes([int(kind, 2) << width | min(count, most)])
        if count >= most:
            more = count - most
            head += b"\xff" * (more // 255) + bytes([more % 255])
        return head + bytes.fromhex("0" * (count % 2) + shared)
