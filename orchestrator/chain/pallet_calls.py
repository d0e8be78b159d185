"""Transactions to pallet-contracts, with limits a little above what their dry run used."""

from orchestrator.chain import ContractCall
from orchestrator.chain.answers import hex_text
from orchestrator.chain.contracts_api import DryRun
from orchestrator.chain.runtime import Call

__all__ = ["REMARK", "call_of", "deployment_of", "limited_deposit", "upload_of"]

# What changes between the dry run and the block may cost a little more.
_GAS_MARGIN_PERCENT = 20
_DEPOSIT_MARGIN_PERCENT = 10

# Does nothing; a development chain makes a block for it.
REMARK = Call(pallet="System", function="remark", arguments={"remark": "0x"})


def call_of(call: ContractCall[object], dry: DryRun) -> Call:
    """Return the transaction that makes a call."""
    arguments = {
        "dest": hex_text(call.contract),
        "value": 0,
        **_limits(dry),
        "data": hex_text(call.data),
    }
    return Call(pallet="Contracts", function="call", arguments=arguments)


def deployment_of(code: bytes, constructor: ContractCall[None], salt: bytes, dry: DryRun) -> Call:
    """Return the transaction that uploads code and instantiates it."""
    arguments = {
        "value": 0,
        **_limits(dry),
        "code": hex_text(code),
        "data": hex_text(constructor.data),
        "salt": hex_text(salt),
    }
    return Call(pallet="Contracts", function="instantiate_with_code", arguments=arguments)


def upload_of(code: bytes, deposit: int) -> Call:
    """Return the transaction that uploads code."""
    arguments: dict[str, object] = {
        "code": hex_text(code),
        "storage_deposit_limit": limited_deposit(deposit),
        "determinism": "Enforced",
    }
    return Call(pallet="Contracts", function="upload_code", arguments=arguments)


def limited_deposit(deposit: int) -> int:
    """Return the most that a deposit may be (planck) when the dry run had *deposit*."""
    return _with_margin(max(0, deposit), _DEPOSIT_MARGIN_PERCENT)


def _limits(dry: DryRun) -> dict[str, object]:
    return {
        "gas_limit": {
            "ref_time": _with_margin(dry.required.ref_time, _GAS_MARGIN_PERCENT),
            "proof_size": _with_margin(dry.required.proof_size, _GAS_MARGIN_PERCENT),
        },
        "storage_deposit_limit": limited_deposit(dry.deposit),
    }


def _with_margin(amount: int, percent: int) -> int:
    return amount + amount * percent // 100
