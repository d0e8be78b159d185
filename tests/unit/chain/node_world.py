"""A node with a chain of its own that a test drives: blocks, accounts, a pool, and bad manners."""

import json
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.chain.answers import hex_text
from orchestrator.chain.heads import Header, parse_header
from orchestrator.chain.node import Node
from orchestrator.chain.runtime import Call, EventRecord, Mortality, Runtime, RuntimeVersion
from orchestrator.models import Account
from orchestrator.testing.scripted_node import Refusal, ScriptedNode, Subscribed

VERSION = RuntimeVersion(spec_name="scripted", spec_version=1, transaction_version=1)
VERSION_ANSWER = {"specName": "scripted", "specVersion": 1, "transactionVersion": 1}
OUTDATED = Refusal(1010, "Invalid Transaction", "Transaction is outdated")

Plan = Callable[[str], object]


class FakeRuntime(Runtime):
    """Extrinsics and events in JSON, so that a test can read and write them."""

    def __init__(self, version: RuntimeVersion = VERSION) -> None:
        self.version = version
        self.genesis_hash = header_of(GENESIS).hash
        self._signed = 0

    def sign(self, call: Call, *, signer: Account, nonce: int, mortality: Mortality) -> bytes:
        self._signed += 1  # no two signatures are the same
        return json.dumps(
            {
                "account": signer.account_id.hex(),
                "nonce": nonce,
                "birth": mortality.number,
                "call": dict(call.arguments),
                "version": self.version.spec_version,
                "signature": f"{id(self)}-{self._signed}",
            }
        ).encode()

    def storage_key(self, pallet: str, name: str, *keys: bytes) -> str:
        return hex_text(json.dumps([pallet, name, *(key.hex() for key in keys)]).encode())

    def decode_storage(self, pallet: str, name: str, data: bytes) -> object:
        return json.loads(data)

    def moment(self, extrinsics: Sequence[bytes]) -> int:
        return 1_000

    def events(self, data: bytes) -> list[EventRecord]:
        return [
            EventRecord(
                index=index,
                extrinsic=0,
                pallet=pallet,
                name=name,
                fields={key: as_bytes(value) for key, value in fields.items()},
                topics=(),
            )
            for index, (pallet, name, fields) in enumerate(json.loads(data.partition(b"\0")[0]))
        ]


def as_bytes(value: object) -> object:
    return bytes.fromhex(value) if isinstance(value, str) else value


def header_of(value: Mapping[str, object]) -> Header:
    return parse_header(value)


def header_json(number: int, parent: bytes, salt: int = 0) -> dict[str, object]:
    return {
        "number": hex(number),
        "parentHash": hex_text(parent),
        "stateRoot": hex_text(salt.to_bytes(32, "big")),
        "extrinsicsRoot": hex_text(bytes(32)),
        "digest": {"logs": ["0x00"]},
    }


GENESIS = header_json(0, bytes(32))


@dataclass
class _Block:
    header: dict[str, object]
    extrinsics: list[str]
    nonces: dict[str, int]
    events: object = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hash = hex_text(header_of(self.header).hash)


class World:
    """
    The chain behind `node`; what is submitted is in a final block at once.

    `plans` says, for each submission in turn, what happens instead.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.blocks = [_Block(GENESIS, [], {})]
        self.by_hash = {self.blocks[0].hash: self.blocks[0]}
        self.pool: list[str] = []
        self.plans: list[Plan] = []
        self.resent: Plan = self.include_or_refuse
        self.submitted: list[dict[str, object]] = []
        self.version: object = VERSION_ANSWER
        self.node = ScriptedNode(
            {
                "author_submitAndWatchExtrinsic": self._submit,
                "author_submitExtrinsic": self._resend,
                "author_unwatchExtrinsic": True,
                "chain_getBlock": self._block,
                "chain_getBlockHash": self._hash,
                "chain_getFinalizedHead": lambda: self.head_hash,
                "chain_getHeader": lambda one: self._find(one).header,
                "chain_subscribeFinalizedHeads": lambda: Subscribed([self.blocks[-1].header]),
                "chain_subscribeNewHeads": lambda: Subscribed([self.blocks[-1].header]),
                "state_getRuntimeVersion": lambda *_: self.version,
                "state_getStorage": self._storage,
                "state_subscribeRuntimeVersion": lambda: Subscribed([self.version]),
                "system_accountNextIndex": self._next_index,
            }
        )

    @property
    def head_hash(self) -> str:
        return self.blocks[-1].hash

    def include(self, *extrinsics: str, events: object = ()) -> str:
        """Make a final block and return its hash."""
        with self.lock:
            last = self.blocks[-1]
            nonces = dict(last.nonces)
            for one in extrinsics:
                account = str(read(one)["account"])
                nonces[account] = nonces.get(account, 0) + 1
            header = header_json(len(self.blocks), bytes.fromhex(last.hash[2:]))
            self.blocks.append(_Block(header, list(extrinsics), nonces, events))
            self.by_hash[self.head_hash] = self.blocks[-1]
            self.node.notify("chain_subscribeNewHeads", header)
            self.node.notify("chain_subscribeFinalizedHeads", header)
            return self.head_hash

    def is_in(self, extrinsic: str) -> bool:
        return any(extrinsic in block.extrinsics for block in self.blocks)

    def include_or_refuse(self, extrinsic: str) -> object:
        """What a node does with an extrinsic that comes again."""
        with self.lock:
            if self._state_nonce(str(read(extrinsic)["account"])) != read(extrinsic)["nonce"]:
                return OUTDATED
            self.include(extrinsic)
            return hex_text(bytes(32))

    def calls(self) -> list[object]:
        """Return the calls in the chain, in order."""
        return [read(one)["call"] for block in self.blocks for one in block.extrinsics]

    def _submit(self, extrinsic: str) -> object:
        with self.lock:
            self.submitted.append(read(extrinsic))
            if self.plans:
                return self.plans.pop(0)(extrinsic)
            if self._state_nonce(str(read(extrinsic)["account"])) != read(extrinsic)["nonce"]:
                return OUTDATED
            block = self.include(extrinsic)
            return Subscribed(["ready", {"inBlock": block}, {"finalized": block}])

    def _resend(self, extrinsic: str) -> object:
        return self.resent(extrinsic)

    def _state_nonce(self, account: str) -> int:
        return self.blocks[-1].nonces.get(account, 0)

    def _next_index(self, address: str) -> object:
        accounts = set(self.blocks[-1].nonces) | {str(read(one)["account"]) for one in self.pool}
        account = next(iter(accounts), "")
        with self.lock:
            return self._state_nonce(account) + len(self.pool)

    def _find(self, block_hash: str) -> _Block:
        return self.by_hash[block_hash]

    def _block(self, block_hash: str) -> object:
        block = self._find(block_hash)
        return {"block": {"header": block.header, "extrinsics": block.extrinsics}}

    def _hash(self, number: object) -> object:
        if isinstance(number, list):
            return [self._hash(one) for one in number]
        if not isinstance(number, int) or number >= len(self.blocks):
            return None
        return self.blocks[number].hash

    def _storage(self, key: str, block_hash: str) -> object:
        block = self._find(block_hash)
        pallet, name, *keys = json.loads(bytes.fromhex(key[2:]))
        if (pallet, name) == ("System", "Account"):
            if keys[0] not in block.nonces:
                return None
            return hex_text(json.dumps({"nonce": block.nonces[keys[0]]}).encode())
        if (pallet, name) == ("System", "Events"):
            # SCALE has a contract's bytes as they are; JSON does not.
            contracts = re.findall(r'"contract": "([0-9a-f]{64})"', json.dumps(block.events))
            told = json.dumps(block.events).encode() + b"\0" + bytes.fromhex("".join(contracts))
            return hex_text(told)
        return hex_text((1_000).to_bytes(8, "little"))


class FakeNode(Node):
    """The node of a world, with the runtime that the world says it has."""

    def __init__(self, world: World, *, timeout_seconds: float = 5.0) -> None:
        super().__init__(world.node.url, timeout_seconds=timeout_seconds)
        self.fakes: dict[int, FakeRuntime] = {}
        self.read_anew = 0

    def runtime(self) -> Runtime:
        with self._lock:
            version = self._version or VERSION
        return self.runtime_of(version, b"")

    def runtime_of(self, version: RuntimeVersion, block_hash: bytes) -> Runtime:
        return self.fakes.setdefault(version.spec_version, FakeRuntime(version))

    def note_version(self, version: RuntimeVersion | None) -> None:
        self.read_anew += version is None
        super().note_version(version)


def read(extrinsic: str) -> dict[str, object]:
    value = json.loads(bytes.fromhex(extrinsic[2:]))
    assert isinstance(value, dict)
    return value
