"""
A node's runtime of one version: its types, the form of its extrinsics, its events and errors.

substrate-interface reads the metadata and builds what is signed and sent. Types are decoded by
`chain.registry`: substrate-interface would take about half a millisecond for each event, and
turns byte vectors that look like text into text.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from typing import cast

from substrateinterface import Keypair, SubstrateInterface

from orchestrator.chain.registry import Registry
from orchestrator.chain.scale import (
    BYTES,
    PRIMITIVES,
    Codec,
    Variant,
    byte_array,
    decode,
    encode,
    enum,
    option,
    struct,
    take,
    tuple_of,
)
from orchestrator.errors import ChainMismatchError, EncodingError, InputError
from orchestrator.models import Account

__all__ = ["Call", "EventRecord", "Mortality", "Runtime", "RuntimeVersion", "Weight", "compact"]

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
class Weight:
    """What a call may use: `ref_time` in ps, `proof_size` in bytes."""

    ref_time: int
    proof_size: int


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


def _encode_compact(value: object, out: bytearray) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 536:
        raise InputError(f"{type(value).__name__} is not a compact integer")
    if value < 1 << 6:
        out.append(value << 2)
    elif value < 1 << 14:
        out += (value << 2 | 1).to_bytes(2, "little")
    elif value < 1 << 30:
        out += (value << 2 | 2).to_bytes(4, "little")
    else:
        raw = value.to_bytes((value.bit_length() + 7) // 8, "little")
        out.append((len(raw) - 4) << 2 | 3)
        out += raw


def _decode_compact(data: bytes, start: int) -> tuple[object, int]:
    first, end = take(data, start, 1)
    mode = first[0] & 3
    if mode == 3:
        raw, end = take(data, end, (first[0] >> 2) + 4)
        return int.from_bytes(raw, "little"), end
    raw, end = take(data, start, (1, 2, 4)[mode])
    return int.from_bytes(raw, "little") >> 2, end


compact = Codec(_encode_compact, _decode_compact)

_WEIGHT = struct([("ref_time", compact), ("proof_size", compact)])
_U128 = PRIMITIVES["u128"]
_ACCOUNT = byte_array(32)
# The runtime API's arguments, which V14 metadata does not describe (pallet-contracts 38).
_CALL_ARGUMENTS = tuple_of(
    [_ACCOUNT, _ACCOUNT, _U128, option(_WEIGHT), option(_U128), BYTES],
)
_CODE = enum([(0, "Upload", BYTES), (1, "Existing", byte_array(32))])
_INSTANTIATE_ARGUMENTS = tuple_of(
    [_ACCOUNT, _U128, option(_WEIGHT), option(_U128), _CODE, BYTES, BYTES],
)
_UPLOAD_ARGUMENTS = tuple_of([_ACCOUNT, BYTES, option(_U128), PRIMITIVES["u8"]])
_RETURNED = struct([("flags", PRIMITIVES["u32"]), ("data", BYTES)])
_INSTANTIATED = struct([("result", _RETURNED), ("account_id", _ACCOUNT)])
_UPLOADED = struct([("code_hash", byte_array(32)), ("deposit", _U128)])
_DEPOSIT = enum([(0, "Refund", _U128), (1, "Charge", _U128)])


class _RuntimeTypes(Registry):
    """A whole runtime's types: built when first used, so recursion is no obstacle."""

    def codec(self, type_id: int) -> Codec:
        known = self._codecs.get(type_id)
        if known is not None:
            return known
        built: list[Codec] = []

        def build() -> Codec:
            if not built:
                built.append(self._build(type_id))
            return built[0]

        codec = Codec(
            lambda value, out: build().encode_to(value, out),
            lambda data, start: build().decode_from(data, start),
        )
        self._codecs[type_id] = codec
        return codec

    def _build(self, type_id: int) -> Codec:
        kind, _ = self._definition(type_id)
        return compact if kind == "compact" else super()._build(type_id)


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
        self._lock = threading.Lock()
        at = "0x" + block_hash.hex()

        # What the library asks for to find the runtime of a block: of this one, not its parent's.
        known: dict[str, object] = {
            "system_chain": "",
            "rpc_methods": {"methods": []},
            "chain_getHead": at,
            "chain_getHeader": {"parentHash": "0x" + bytes(32).hex()},
            "state_getRuntimeVersion": {
                "specVersion": version.spec_version,
                "transactionVersion": version.transaction_version,
            },
        }

        def answer(method: str, params: Sequence[object]) -> object:
            return known[method] if method in known else request(method, *params)

        try:
            self._library = _Library(answer)
            metadata = self._library.metadata[1][1]
            self._types = _RuntimeTypes(metadata["types"].value["types"], {})
            self._pallets = {pallet["name"]: pallet for pallet in metadata["pallets"].value}
            self._extensions = frozenset(self._library.metadata.get_signed_extensions())
            extrinsic_version = metadata["extrinsic"]["version"]
        except (KeyError, NotImplementedError, ValueError, TypeError) as error:
            raise ChainMismatchError(
                f"the metadata of {version.spec_name} {version.spec_version} can't be read: {error}"
            ) from error
        self._library.genesis_hash = "0x" + genesis_hash.hex()
        self._check(extrinsic_version)
        self._events = self._storage_codec("System", "Events")
        self._dispatch_error = self._types.codec(self._types.id_of(("sp_runtime", "DispatchError")))
        self._outcome = struct(
            [
                ("gas_consumed", _WEIGHT),
                ("gas_required", _WEIGHT),
                ("deposit", _DEPOSIT),
                ("debug_message", BYTES),
            ]
        )

    def _check(self, extrinsic_version: object) -> None:
        name = f"{self.version.spec_name} {self.version.spec_version}"
        if "Contracts" not in self._pallets:
            raise ChainMismatchError(f"{name} has no pallet-contracts: it runs no ink! 5 contracts")
        unknown = sorted(self._extensions - _SIGNED_EXTENSIONS)
        if unknown:
            raise ChainMismatchError(f"{name} wants signed extensions not known here: {unknown}")
        if extrinsic_version != _EXTRINSIC_VERSION:
            raise ChainMismatchError(
                f"{name} has extrinsics of version {extrinsic_version}, not {_EXTRINSIC_VERSION}"
            )

    def has_pallet(self, name: str) -> bool:
        """Whether the runtime has a pallet."""
        return name in self._pallets

    def constant(self, pallet: str, name: str) -> object:
        """Return a constant of a pallet, decoded."""
        for constant in self._pallets[pallet]["constants"]:
            if constant["name"] == name:
                return decode(self._types.codec(constant["type"]), _raw(constant["value"]))
        raise ChainMismatchError(f"the runtime has no constant {pallet}.{name}")

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
        with self._lock:  # the library is made for one thread
            library = self._library
            library.birth_hash = "0x" + mortality.hash.hex()
            composed = library.compose_call(call.pallet, call.function, dict(call.arguments))
            payload = library.generate_signature_payload(composed, era=dict(era), nonce=nonce)
            signature = sign(bytes(payload.data))
            extrinsic = library.create_signed_extrinsic(
                composed,
                Keypair(public_key=account_id, ss58_format=_SS58_FORMAT),
                era=dict(era),
                nonce=nonce,
                signature=bytes([_SIGNATURE_TYPE_SR25519]) + signature,
            )
            return bytes(extrinsic.data.data)

    def batch(self, calls: Sequence[Call]) -> Call:
        """Return one call that makes all of *calls*, each of which may fail by itself."""
        with self._lock:
            composed = [
                self._library.compose_call(call.pallet, call.function, dict(call.arguments))
                for call in calls
            ]
        return Call(pallet="Utility", function="force_batch", arguments={"calls": composed})

    def moment(self, extrinsics: Sequence[bytes]) -> int:
        """Return the time (ms) that a block's own extrinsic has set."""
        pallet = self._pallets["Timestamp"]["index"]
        for extrinsic in extrinsics:
            _, start = compact.decode_from(extrinsic, 0)
            # Version 4, unsigned; the pallet; its call `set`, the only one.
            if extrinsic[start : start + 3] == bytes([_EXTRINSIC_VERSION, pallet, 0]):
                return cast("int", compact.decode_from(extrinsic, start + 3)[0])
        raise ChainMismatchError("a block has no timestamp")

    # State.

    def storage_key(self, pallet: str, name: str, *keys: bytes) -> str:
        """Return the key of a storage item, as `0x` text."""
        with self._lock:
            params = ["0x" + key.hex() for key in keys]
            key = self._library.create_storage_key(pallet, name, params)
            return cast("str", key.to_hex())

    def decode_storage(self, pallet: str, name: str, data: bytes) -> object:
        """Return the value of a storage item."""
        return decode(self._storage_codec(pallet, name), data)

    def events(self, data: bytes) -> list[EventRecord]:
        """Return a block's events, in order; *data* is the storage item `System.Events`."""
        records = cast("Sequence[Mapping[str, object]]", decode(self._events, data))
        return [_event_record(index, record) for index, record in enumerate(records)]

    def _storage_codec(self, pallet: str, name: str) -> Codec:
        for entry in self._pallets[pallet]["storage"]["entries"]:
            if entry["name"] == name:
                kind = entry["type"]
                return self._types.codec(kind["Plain"] if "Plain" in kind else kind["Map"]["value"])
        raise ChainMismatchError(f"the runtime has no storage item {pallet}.{name}")

    # The runtime's API for contracts.

    def call_arguments(self, caller: bytes, contract: bytes, data: bytes) -> str:
        """Return the arguments of `ContractsApi_call`: no value, no limits."""
        return "0x" + encode(_CALL_ARGUMENTS, (caller, contract, 0, None, None, data)).hex()

    def instantiate_arguments(self, deployer: bytes, code: bytes, data: bytes, salt: bytes) -> str:
        """Return the arguments of `ContractsApi_instantiate`: no value, no limits."""
        upload = Variant("Upload", code)
        arguments = (deployer, 0, None, None, upload, data, salt)
        return "0x" + encode(_INSTANTIATE_ARGUMENTS, arguments).hex()

    def upload_arguments(self, uploader: bytes, code: bytes) -> str:
        """Return the arguments of `ContractsApi_upload_code`: no limit, deterministic."""
        return "0x" + encode(_UPLOAD_ARGUMENTS, (uploader, code, None, 0)).hex()

    def decode_call(self, data: bytes) -> "DryRun":
        """Return what `ContractsApi_call` answered."""
        return self._decode_dry_run(data, _RETURNED)

    def decode_instantiate(self, data: bytes) -> "DryRun":
        """Return what `ContractsApi_instantiate` answered."""
        return self._decode_dry_run(data, _INSTANTIATED)

    def decode_upload(self, data: bytes) -> "tuple[bytes, int] | DispatchFailure":
        """Return code hash and deposit, or why an upload fails."""
        answer = decode(enum([(0, "Ok", _UPLOADED), (1, "Err", self._dispatch_error)]), data)
        result = cast("Variant", answer)
        if result.name == "Err":
            return self.failure(result.value)
        fields = cast("Mapping[str, object]", result.value)
        return cast("bytes", fields["code_hash"]), cast("int", fields["deposit"])

    def _decode_dry_run(self, data: bytes, returned: Codec) -> "DryRun":
        head, start = self._outcome.decode_from(data, 0)
        result, _ = enum([(0, "Ok", returned), (1, "Err", self._dispatch_error)]).decode_from(
            data, start
        )
        fields = cast("Mapping[str, object]", head)
        required = cast("Mapping[str, int]", fields["gas_required"])
        consumed = cast("Mapping[str, int]", fields["gas_consumed"])
        deposit = cast("Variant", fields["deposit"])
        planck = cast("int", deposit.value)
        answer = cast("Variant", result)
        account = None
        failure, flags, output = None, 0, b""
        if answer.name == "Err":
            failure = self.failure(answer.value)
        else:
            value = cast("Mapping[str, object]", answer.value)
            if "account_id" in value:
                account = cast("bytes", value["account_id"])
                value = cast("Mapping[str, object]", value["result"])
            flags, output = cast("int", value["flags"]), cast("bytes", value["data"])
        return DryRun(
            consumed=Weight(**consumed),
            required=Weight(**required),
            deposit=planck if deposit.name == "Charge" else -planck,
            failure=failure,
            reverted=bool(flags & 1),
            output=output,
            account=account,
        )

    # Errors.

    def failure(self, error: object) -> "DispatchFailure":
        """Return the name of a decoded `DispatchError`."""
        variant = cast("Variant", error)
        if variant.name != "Module":
            inner = variant.value
            name = inner.name if isinstance(inner, Variant) else ""
            return DispatchFailure(pallet=variant.name, name=name or variant.name)
        fields = cast("Mapping[str, object]", variant.value)
        index, code = cast("int", fields["index"]), cast("bytes", fields["error"])[0]
        for name, pallet in self._pallets.items():
            if pallet["index"] == index and pallet["error"] is not None:
                errors = self._types.variants(pallet["error"]["ty"])
                return DispatchFailure(pallet=name, name=errors.get(code, f"error {code}"))
        return DispatchFailure(pallet=f"pallet {index}", name=f"error {code}")


@dataclass(frozen=True, kw_only=True)
class DispatchFailure:
    """Why the runtime refused: `pallet` is `Contracts` or another, or the kind of error."""

    pallet: str
    name: str

    def __str__(self) -> str:
        return f"{self.pallet}.{self.name}"


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """
    What a call or an instantiation would come to.

    `deposit` (planck) is negative when storage is freed; `failure` is set when no code decided,
    else `output` is what it returned, having changed nothing if `reverted`.
    """

    consumed: Weight
    required: Weight
    deposit: int
    failure: DispatchFailure | None
    reverted: bool
    output: bytes
    account: bytes | None


def extrinsic_hash(extrinsic: bytes) -> bytes:
    """Return the name that a node gives an extrinsic."""
    return blake2b(extrinsic, digest_size=32).digest()


def _event_record(index: int, record: Mapping[str, object]) -> EventRecord:
    phase, event = cast("Variant", record["phase"]), cast("Variant", record["event"])
    inner = event.value
    if not isinstance(inner, Variant):
        raise EncodingError(f"an event of {event.name} has no name")
    return EventRecord(
        index=index,
        extrinsic=cast("int", phase.value) if phase.name == "ApplyExtrinsic" else None,
        pallet=event.name,
        name=inner.name,
        fields=inner.value,
        topics=cast("tuple[bytes, ...]", record["topics"]),
    )


def _raw(value: object) -> bytes:
    if isinstance(value, str) and value.startswith("0x"):
        return bytes.fromhex(value[2:])
    raise ChainMismatchError("the metadata holds a constant that is no hex text")
