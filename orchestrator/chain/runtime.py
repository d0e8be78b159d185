"""
A node's runtime of one version: its types, the form of its extrinsics, its events and errors.

substrate-interface reads the metadata and builds what is signed and sent; `runtime_types` decodes.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from substrateinterface import Keypair, SubstrateInterface

from orchestrator.chain.answers import hex_text, shown
from orchestrator.chain.contracts_api import ContractsApi
from orchestrator.chain.dispatch_errors import DispatchErrors, DispatchFailure
from orchestrator.chain.runtime_types import RuntimeTypes, compact, reading
from orchestrator.chain.scale import Codec, Variant, decode
from orchestrator.errors import ChainError, ChainMismatchError
from orchestrator.models import Account

__all__ = ["ERA_BLOCKS", "Call", "EventRecord", "Mortality", "Runtime", "RuntimeVersion"]

ERA_BLOCKS = 64
_EXTRINSIC_VERSION = 4
_SS58_FORMAT = 42  # addresses are not used here: any will do
_SIGNATURE_TYPE_SR25519 = 1
# What substrate-interface knows how to sign; another extension would make each signature wrong.
_SIGNED_EXTENSIONS = frozenset(
    {
        "ChargeAssetTxPayment",
        "ChargeTransactionPayment",
        "CheckEra",
        "CheckGenesis",
        "CheckMetadataHash",
        "CheckMortality",
        "CheckNonZeroSender",
        "CheckNonce",
        "CheckSpecVersion",
        "CheckTxVersion",
        "CheckWeight",
    }
)


@dataclass(frozen=True, kw_only=True)
class RuntimeVersion:
    """Which runtime it is; another one has other metadata."""

    spec_name: str
    spec_version: int
    transaction_version: int


@dataclass(frozen=True, kw_only=True)
class Mortality:
    """The block from which on an extrinsic is valid, for `ERA_BLOCKS` blocks."""

    number: int
    hash: bytes


@dataclass(frozen=True, kw_only=True)
class Call:
    """A call of a pallet, with arguments as substrate-interface takes them."""

    pallet: str
    function: str
    arguments: Mapping[str, object]


@dataclass(frozen=True, kw_only=True)
class EventRecord:
    """
    One event of a block.

    `extrinsic` is the index of the extrinsic it belongs to, if to one; `index` its own place in
    the block; `fields` a `dict`, or what an unnamed field holds.
    """

    index: int
    extrinsic: int | None
    pallet: str
    name: str
    fields: object
    topics: tuple[bytes, ...]


# The library is made for one thread: it notes in classes that all its objects share which of them
# is being used. So it is held for using any of them, and never while a node is waited for.
_LIBRARY = threading.Lock()


class _Library(SubstrateInterface):  # type: ignore[misc]  # substrate-interface has no types
    """substrate-interface with one runtime, and the answers it asks for at hand."""

    def __init__(self, answers: Callable[[str, Sequence[object]], object]) -> None:
        self._answers = answers
        self._is_loaded = False
        self.birth_hash = ""
        self.genesis_hash = ""
        # It connects nowhere: an HTTP transport opens nothing before its first request, and
        # there is none.
        super().__init__(
            url="http://offline.invalid", ss58_format=_SS58_FORMAT, use_remote_preset=False
        )
        super().init_runtime()
        self._is_loaded = True

    def init_runtime(self, block_hash: object = None, block_id: object = None) -> None:
        """Keep the runtime: whoever notices another version makes another object."""
        if not self._is_loaded:
            super().init_runtime(block_hash=block_hash, block_id=block_id)

    def rpc_request(
        self, method: str, params: Sequence[object], result_handler: object = None
    ) -> dict[str, object]:
        """Answer as the node would."""
        del result_handler
        return {"result": self._answers(method, params)}

    def get_block_hash(self, block_id: int | None = None) -> str:
        """Return the hash of the genesis or of the block that the era begins at."""
        return self.genesis_hash if block_id == 0 else self.birth_hash


class Runtime:
    """
    Everything that is known of a runtime; one instance for each version, for all threads.

    *request* asks the node, at construction only.

    Raises:
        ChainMismatchError: It has no pallet-contracts, or is built in a way not known here.
    """

    def __init__(
        self,
        version: RuntimeVersion,
        *,
        genesis_hash: bytes,
        block_hash: bytes,
        request: Callable[..., object],
    ) -> None:
        self.version = version
        self.genesis_hash = genesis_hash
        at = hex_text(block_hash)

        # What the library asks for to find the runtime of a block: of this one, not its parent's.
        versions = {
            "specVersion": version.spec_version,
            "transactionVersion": version.transaction_version,
        }
        known: dict[str, object] = {
            "system_chain": "",
            "rpc_methods": {"methods": []},
            "chain_getHead": at,
            "chain_getBlockHash": at,
            "chain_getHeader": {"parentHash": hex_text(bytes(32))},
            "chain_getRuntimeVersion": versions,
            "state_getRuntimeVersion": versions,
            "state_getMetadata": request("state_getMetadata", at),
        }

        def answer(method: str, params: Sequence[object]) -> object:
            return known[method] if method in known else request(method, *params)

        self._name = f"{version.spec_name} {version.spec_version}"
        try:
            with _LIBRARY:
                self._library = _Library(answer)
        except ChainError:
            raise
        except Exception as error:  # the library's many, some derived from nothing else
            raise ChainMismatchError(
                f"the metadata of {self._name} can't be read: {shown(repr(error))}"
            ) from error
        self._library.genesis_hash = hex_text(genesis_hash)
        with reading(f"metadata ({self._name})"):
            metadata = self._library.metadata[1][1]
            self._types = RuntimeTypes(metadata["types"].value["types"], {})
            self._pallets = {pallet["name"]: pallet for pallet in metadata["pallets"].value}
            self._check(
                metadata["extrinsic"]["version"].value,
                frozenset(self._library.metadata.get_signed_extensions()),
            )
            self._timestamp: int = self._pallets["Timestamp"]["index"]
            self._events = self._storage_codec("System", "Events")
            self._errors = DispatchErrors(self._types, self._pallets)
        self.contracts = ContractsApi(self._errors)

    def _check(self, extrinsic_version: object, extensions: frozenset[str]) -> None:
        if "Contracts" not in self._pallets:
            raise ChainMismatchError(
                f"{self._name} has no pallet-contracts: it runs no ink! 5 contracts"
            )
        unknown = sorted(extensions - _SIGNED_EXTENSIONS)
        if unknown:
            raise ChainMismatchError(
                f"{self._name} wants signed extensions not known here: {shown(unknown)}"
            )
        if extrinsic_version != _EXTRINSIC_VERSION:
            raise ChainMismatchError(
                f"{self._name} has extrinsics of version {extrinsic_version},"
                f" not {_EXTRINSIC_VERSION}"
            )

    # Extrinsics.

    def sign(self, call: Call, *, signer: Account, nonce: int, mortality: Mortality) -> bytes:
        """Return the signed extrinsic."""
        return self._extrinsic(call, signer.account_id, nonce, mortality, signer.sign)

    def unsigned_size_twin(self, call: Call, *, account_id: bytes, nonce: int) -> bytes:
        """Return an extrinsic of the same length with no valid signature, to ask for its fee."""
        mortality = Mortality(number=0, hash=self.genesis_hash)
        return self._extrinsic(call, account_id, nonce, mortality, lambda _: bytes(64))

    def _extrinsic(
        self,
        call: Call,
        account_id: bytes,
        nonce: int,
        mortality: Mortality,
        sign: Callable[[bytes], bytes],
    ) -> bytes:
        era = {"period": ERA_BLOCKS, "current": mortality.number}
        with _LIBRARY:
            library = self._library
            library.birth_hash = hex_text(mortality.hash)
            with reading(f"call {call.pallet}.{call.function}"):
                composed = library.compose_call(call.pallet, call.function, dict(call.arguments))
                payload = library.generate_signature_payload(composed, era=dict(era), nonce=nonce)
            signature = sign(bytes(payload.data))
            with reading("form of extrinsics"):
                extrinsic = library.create_signed_extrinsic(
                    composed,
                    Keypair(public_key=account_id, ss58_format=_SS58_FORMAT),
                    era=dict(era),
                    nonce=nonce,
                    signature=bytes([_SIGNATURE_TYPE_SR25519]) + signature,
                )
                return bytes(extrinsic.data.data)

    def batch(self, calls: Sequence[Call]) -> Call:
        """
        Return one call that makes all of *calls*, each of which may fail by itself.

        Raises:
            ChainMismatchError: The chain has no pallet for that.
        """
        if "Utility" not in self._pallets:
            raise ChainMismatchError(f"{self._name} has no pallet-utility: it takes no batches")
        with _LIBRARY, reading("batches"):
            composed = [
                self._library.compose_call(call.pallet, call.function, dict(call.arguments))
                for call in calls
            ]
        return Call(pallet="Utility", function="force_batch", arguments={"calls": composed})

    def moment(self, extrinsics: Sequence[bytes]) -> int:
        """Return the time (ms) that a block's own extrinsic has set."""
        with reading("blocks"):
            for extrinsic in extrinsics:
                _, start = compact.decode_from(extrinsic, 0)
                # Version 4, unsigned; the pallet; its call `set`, the only one.
                if extrinsic[start : start + 3] == bytes([_EXTRINSIC_VERSION, self._timestamp, 0]):
                    return cast("int", compact.decode_from(extrinsic, start + 3)[0])
        raise ChainMismatchError("a block has no timestamp")

    # State.

    def storage_key(self, pallet: str, name: str, *keys: bytes) -> str:
        """Return the key of a storage item, as `0x` text."""
        with _LIBRARY, reading(f"storage item {pallet}.{name}"):
            key = self._library.create_storage_key(pallet, name, [hex_text(key) for key in keys])
            return cast("str", key.to_hex())

    def decode_storage(self, pallet: str, name: str, data: bytes) -> object:
        """Return the value of a storage item."""
        with reading(f"storage item {pallet}.{name}"):
            return decode(self._storage_codec(pallet, name), data)

    def events(self, data: bytes) -> list[EventRecord]:
        """Return a block's events, in order; *data* is the storage item `System.Events`."""
        with reading("events"):
            records = cast("Sequence[Mapping[str, object]]", decode(self._events, data))
            return [_event_record(index, record) for index, record in enumerate(records)]

    def failure(self, error: object) -> DispatchFailure:
        """Return the name of a decoded `DispatchError`."""
        with reading("errors"):
            return self._errors.failure(error)

    def _storage_codec(self, pallet: str, name: str) -> Codec:
        for entry in self._pallets[pallet]["storage"]["entries"]:
            if entry["name"] == name:
                kind = entry["type"]
                return self._types.codec(kind["Plain"] if "Plain" in kind else kind["Map"]["value"])
        raise ChainMismatchError(f"the runtime has no storage item {pallet}.{name}")


def _event_record(index: int, record: Mapping[str, object]) -> EventRecord:
    phase, event = cast("Variant", record["phase"]), cast("Variant", record["event"])
    inner = event.value
    if not isinstance(inner, Variant):
        raise ChainMismatchError(f"an event of {event.name} has no name")
    return EventRecord(
        index=index,
        extrinsic=cast("int", phase.value) if phase.name == "ApplyExtrinsic" else None,
        pallet=event.name,
        name=inner.name,
        fields=inner.value,
        topics=cast("tuple[bytes, ...]", record["topics"]),
    )
