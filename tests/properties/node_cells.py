"""A contract's storage cells as a node keeps them, read past the `Chain` port."""

import json
from hashlib import blake2b
from types import TracebackType
from typing import Self

from websocket import create_connection

from orchestrator.chain import Block

# twox128("Contracts") and twox128("ContractInfoOf"): where pallet-contracts lists its contracts.
_CONTRACT_INFOS = "0x4342193e496fab7ec59d615ed0dc5530060e99e5378e562537cf3bc983e17b91"
_CHILD_TRIE = b":child_storage:default:"
_PAGE = 1_000
# ink! has keys of several lengths; the pallet puts their blake2-128 before them.
_HASH_BYTES = 16


class NodeCells:
    """A connection to the node at *url*; calling it returns the cells at a block, by key."""

    def __init__(self, url: str) -> None:
        self._socket = create_connection(url, timeout=30)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close()

    def __call__(self, contract: bytes, block: Block) -> dict[bytes, bytes]:
        at = _hex(block.hash)
        trie = self._trie(contract, at)
        hashed: list[str] = []
        while True:
            last = hashed[-1] if hashed else None
            page = self._texts("childstate_getKeysPaged", trie, "0x", _PAGE, last, at)
            hashed += page
            if len(page) < _PAGE:
                break
        values = self._texts("childstate_getStorageEntries", trie, hashed, at)
        return {
            _key(bytes.fromhex(key[2:])): bytes.fromhex(value[2:])
            for key, value in zip(hashed, values, strict=True)
        }

    def _trie(self, contract: bytes, at: str) -> str:
        # The key ends with the account: that saves computing the hash before it.
        keys = self._texts("state_getKeysPaged", _CONTRACT_INFOS, _PAGE, None, at)
        (key,) = [key for key in keys if key.endswith(contract.hex())]
        found = self._ask("state_getStorage", key, at)
        assert isinstance(found, str)
        info = bytes.fromhex(found[2:])
        # `ContractInfo` begins with the trie's id: a short list of bytes.
        return _hex(_CHILD_TRIE + info[1 : 1 + (info[0] >> 2)])

    def _texts(self, method: str, *parameters: object) -> list[str]:
        answer = self._ask(method, *parameters)
        assert isinstance(answer, list)
        return answer

    def _ask(self, method: str, *parameters: object) -> object:
        request = {"id": 1, "jsonrpc": "2.0", "method": method, "params": parameters}
        self._socket.send(json.dumps(request))
        answer: dict[str, object] = json.loads(self._socket.recv())
        assert "result" in answer, answer
        return answer["result"]


def _key(hashed: bytes) -> bytes:
    key = hashed[_HASH_BYTES:]
    assert blake2b(key, digest_size=_HASH_BYTES).digest() == hashed[:_HASH_BYTES]
    return key


def _hex(data: bytes) -> str:
    return "0x" + data.hex()
