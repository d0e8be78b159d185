"""
Proofs of Substrate's storage against a trie that the tests build by its definition.

The bytes of two small tries are those of the tests of `sp-trie` (Apache-2.0); what a real node
proves is in `test_node_proofs.py`.
"""

import random
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.errors import EncodingError, VerificationError
from orchestrator.receipts.trie import MAX_NODE_BYTES, MAX_NODES, StorageTrie

from .trie_builder import BuiltTrie, compact, digest

ENTRIES = {
    b"": b"at the root",
    b"\x13": b"short",
    b"\x13\x14": b"v" * 40,
    b"\x13\x14\x15": b"w" * 33,
    b"\x13\x24": b"x" * 32,
    b"\x48\x19": b"",
    b"\x48" * 40: b"far below",
    b"\x48" * 200: b"y" * 5_000,
}
ABSENT = (b"\x12", b"\x13\x15", b"\x13\x14\x15\x16", b"\x48", b"\x48" * 39, b"\xff" * 300)


def proof_of(trie: BuiltTrie, *keys: bytes) -> list[bytes]:
    """The nodes that decide about the keys."""
    whole = StorageTrie(list(trie.items.values()))
    for key in keys:
        whole.get(trie.root, key)
    return whole.used()


@pytest.mark.parametrize("layout", [0, 1])
def test_every_key_has_its_value_and_every_other_none(layout: int) -> None:
    trie = BuiltTrie.of(ENTRIES, layout)

    for key in (*ENTRIES, *ABSENT):
        proof = StorageTrie(proof_of(trie, key))
        assert proof.get(trie.root, key) == ENTRIES.get(key)
        proof.require_all_used()


@pytest.mark.parametrize(
    ("entries", "encoded"),
    [
        ({}, "00"),
        ({b"\xaa": b"\xbb"}, "42aa04bb"),
        ({b"\x48\x19": b"\xfe", b"\x13\x14": b"\xff"}, "8012001443031404ff1443081904fe"),
    ],
)
def test_the_bytes_of_known_tries_are_read(entries: dict[bytes, bytes], encoded: str) -> None:
    """The encodings are those of `codec_trie_*` in sp-trie's tests, the builder's too."""
    node = bytes.fromhex(encoded)
    assert BuiltTrie.of(entries).root_node == node

    proof = StorageTrie([node])

    for key in (*entries, b"\x48", b"\x48\x18", b"other"):
        assert proof.get(digest(node), key) == entries.get(key)


keys = st.lists(st.sampled_from([b"\x00", b"\x01", b"\x10", b"\xab"]), max_size=6).map(b"".join)


@given(
    st.dictionaries(keys, st.binary(max_size=80), max_size=12), keys, st.integers(0, 1), st.data()
)
def test_a_proof_says_what_the_trie_holds_and_nothing_else(
    entries: dict[bytes, bytes], key: bytes, layout: int, data: st.DataObject
) -> None:
    trie = BuiltTrie.of(entries, layout)
    nodes = proof_of(trie, key)
    proof = StorageTrie(nodes)
    assert proof.get(trie.root, key) == entries.get(key)

    place = data.draw(st.integers(0, len(nodes) - 1))
    changed = bytearray(nodes[place])
    at = data.draw(st.integers(0, len(changed) - 1)) if changed else 0
    changed[at : at + 1] = bytes([(changed[at] if changed else 0) ^ data.draw(st.integers(1, 255))])
    tampered = [*nodes[:place], bytes(changed), *nodes[place + 1 :]]
    with pytest.raises(VerificationError, match="no node has the hash"):
        StorageTrie(tampered).get(trie.root, key)


def test_each_missing_node_is_missed_and_each_needless_one_refused() -> None:
    trie = BuiltTrie.of(ENTRIES)
    key = b"\x48" * 200
    nodes = proof_of(trie, key)
    assert len(nodes) > 2

    for missing in range(len(nodes)):
        with pytest.raises(VerificationError, match=r"^StorageProof: no node has the hash 0x"):
            StorageTrie(nodes[:missing] + nodes[missing + 1 :]).get(trie.root, key)
    proof = StorageTrie([*nodes, b"needless"])
    assert proof.get(trie.root, key) == ENTRIES[key]
    with pytest.raises(VerificationError) as refused:
        proof.require_all_used()
    assert str(refused.value) == (
        f"StorageProof: 1 of {len(nodes) + 1} nodes prove nothing that is asked"
    )


def test_one_set_of_nodes_proves_keys_of_two_tries() -> None:
    child = BuiltTrie.of({b"cell": b"c" * 50})
    main = BuiltTrie.of({b"child root": child.root, b"other": b"o" * 50})
    proof = StorageTrie(proof_of(main, b"child root") + proof_of(child, b"cell"))

    root = proof.get(main.root, b"child root")

    assert root == child.root
    assert proof.get(root, b"cell") == b"c" * 50
    proof.require_all_used()


LEAF = b"\x42\xaa"


@pytest.mark.parametrize(
    ("node", "words"),
    [
        (b"", "a node ends early"),
        (b"\x01", "0x01 is the header of no node"),
        (b"\x08", "0x08 is the header of no node"),
        (b"\x42\xaa", "a node ends early"),
        (b"\x42\xaa\x08\xbb", "a node ends early"),
        (b"\x42\xaa\x04\xbb\x00", "bytes follow a node"),
        (b"\x41\x1a\x04\xbb", "a partial key is not filled up with zero"),
        (LEAF + b"\x05\x00\xbb", "a length is not in its shortest form"),
        (LEAF + b"\x06\x00\x00\x00\xbb", "a length is not in its shortest form"),
        (LEAF + b"\x03\x00\x00\x00\x40", "a length is 2^30 or more"),
        (b"\x22\xaa" + b"h" * 31, "a node ends early"),
        (b"\x80\x00\x00", "a branch has no children"),
        (b"\x80\x01\x00\x00", "a child of 0 bytes"),
        (b"\x80\x01\x00" + compact(33) + b"h" * 33, "a child of 33 bytes"),
        (b"\x7f" + b"\xff" * 8, "a partial key of more than 1024 nibbles"),
        (b"\0\0", "0x00 is the header of no node"),
    ],
)
def test_what_is_no_node_is_an_encoding_error(node: bytes, words: str) -> None:
    with pytest.raises(EncodingError) as error:
        StorageTrie([node]).get(digest(node), b"\xaa")

    assert str(error.value) == f"storage proof: {words}"


def test_what_is_too_much_is_refused_before_it_is_read() -> None:
    with pytest.raises(EncodingError, match="2049 nodes, at most 2048"):
        StorageTrie([bytes([n // 256, n % 256]) for n in range(MAX_NODES + 1)])
    with pytest.raises(EncodingError, match="a node of 65537 bytes, at most 65536"):
        StorageTrie([bytes(MAX_NODE_BYTES + 1)])
    with pytest.raises(EncodingError, match="a node is there twice"):
        StorageTrie([b"a", b"b", b"a"])


def test_the_deepest_chain_of_nodes_takes_no_stack_and_little_memory() -> None:
    """Each branch has one child, which is the only thing below it: one node for each nibble."""
    node = b"\x40" + compact(5) + b"value"
    nodes = [node]
    for _ in range(MAX_NODES - 2):
        held = node if len(node) < 32 else digest(node)
        node = b"\x80\x01\x00" + compact(len(held)) + held
        nodes.append(node)
    depth = len(nodes) - 1

    tracemalloc.start()
    proof = StorageTrie(nodes)
    found = proof.get(digest(node), bytes(depth // 2))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (depth, found) == (MAX_NODES - 2, b"value")
    assert peak < 4 << 20


def test_random_bytes_never_raise_anything_else() -> None:
    source = random.Random(5)
    for _ in range(20_000):
        node = source.randbytes(source.randrange(60))
        try:
            found = StorageTrie([node]).get(digest(node), source.randbytes(3))
        except (EncodingError, VerificationError):
            continue
        assert found is None or found in node
