"""
A runtime's API for contracts: what it is asked, and what it answers.

V14 metadata does not describe runtime APIs: this is pallet-contracts 38.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

from orchestrator.chain.answers import hex_text
from orchestrator.chain.dispatch_errors import DispatchErrors, DispatchFailure
from orchestrator.chain.runtime_types import compact, reading
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
    tuple_of,
)

__all__ = ["ContractsApi", "DryRun", "Weight"]

_WEIGHT = struct([("ref_time", compact), ("proof_size", compact)])
_U128 = PRIMITIVES["u128"]
_ACCOUNT = byte_array(32)
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
_MOST_GAS = 1 << 62  # with a margin it still is a u64
_OUTCOME = struct(
    [
        ("gas_consumed", _WEIGHT),
        ("gas_required", _WEIGHT),
        ("deposit", _DEPOSIT),
        ("debug_message", BYTES),
    ]
)


@dataclass(frozen=True, kw_only=True)
class Weight:
    """What a call may use: `ref_time` in ps, `proof_size` in bytes."""

    ref_time: int
    proof_size: int


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


class ContractsApi:
    """Arguments and answers of `ContractsApi_call`, `_instantiate` and `_upload_code`."""

    def __init__(self, errors: DispatchErrors) -> None:
        self._errors = errors

    def call_arguments(self, caller: bytes, contract: bytes, data: bytes) -> str:
        """Return the arguments of `ContractsApi_call`: no value, no limits."""
        return hex_text(encode(_CALL_ARGUMENTS, (caller, contract, 0, None, None, data)))

    def instantiate_arguments(self, deployer: bytes, code: bytes, data: bytes, salt: bytes) -> str:
        """Return the arguments of `ContractsApi_instantiate`: no value, no limits."""
        upload = Variant("Upload", code)
        arguments = (deployer, 0, None, None, upload, data, salt)
        return hex_text(encode(_INSTANTIATE_ARGUMENTS, arguments))

    def upload_arguments(self, uploader: bytes, code: bytes) -> str:
        """Return the arguments of `ContractsApi_upload_code`: no limit, deterministic."""
        return hex_text(encode(_UPLOAD_ARGUMENTS, (uploader, code, None, 0)))

    def decode_call(self, data: bytes) -> DryRun:
        """Return what `ContractsApi_call` answered."""
        return self._decode_dry_run(data, _RETURNED)

    def decode_instantiate(self, data: bytes) -> DryRun:
        """Return what `ContractsApi_instantiate` answered."""
        return self._decode_dry_run(data, _INSTANTIATED)

    def decode_upload(self, data: bytes) -> tuple[bytes, int] | DispatchFailure:
        """Return code hash and deposit, or why an upload fails."""
        with reading("answer about an upload"):
            codec = enum([(0, "Ok", _UPLOADED), (1, "Err", self._errors.codec)])
            result = cast("Variant", decode(codec, data))
            if result.name == "Err":
                return self._errors.failure(result.value)
            fields = cast("Mapping[str, object]", result.value)
            return cast("bytes", fields["code_hash"]), cast("int", fields["deposit"])

    def _decode_dry_run(self, data: bytes, returned: Codec) -> DryRun:
        with reading("answer about a call"):
            head, start = _OUTCOME.decode_from(data, 0)
            # What follows the result are events, which nobody asked for.
            codec = enum([(0, "Ok", returned), (1, "Err", self._errors.codec)])
            result, _ = codec.decode_from(data, start)
            return self._dry_run(cast("Mapping[str, object]", head), cast("Variant", result))

    def _dry_run(self, head: Mapping[str, object], answer: Variant) -> DryRun:
        consumed = Weight(**cast("Mapping[str, int]", head["gas_consumed"]))
        required = Weight(**cast("Mapping[str, int]", head["gas_required"]))
        if max(required.ref_time, required.proof_size) > _MOST_GAS:
            raise ValueError("it would need more than any block has")
        deposit = cast("Variant", head["deposit"])
        planck = cast("int", deposit.value)
        account = failure = None
        flags, output = 0, b""
        if answer.name == "Err":
            failure = self._errors.failure(answer.value)
        else:
            value = cast("Mapping[str, object]", answer.value)
            if "account_id" in value:
                account = cast("bytes", value["account_id"])
                value = cast("Mapping[str, object]", value["result"])
            flags, output = cast("int", value["flags"]), cast("bytes", value["data"])
        return DryRun(
            consumed=consumed,
            required=required,
            deposit=planck if deposit.name == "Charge" else -planck,
            failure=failure,
            reverted=bool(flags & 1),
            output=output,
            account=account,
        )
