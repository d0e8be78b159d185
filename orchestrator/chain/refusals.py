"""Errors of ours for what a chain, or a node, refuses by itself."""

from orchestrator.chain import ContractCall
from orchestrator.chain.answers import hex_text
from orchestrator.chain.dispatch_errors import DispatchFailure
from orchestrator.chain.link import RpcError
from orchestrator.errors import (
    ChainError,
    ChainMismatchError,
    ContractTrappedError,
    InputError,
    InsufficientFundsError,
    PrunedStateError,
)

__all__ = ["history_error", "refusal_of"]

# A dry run sets no limit of its own to the deposit: the limit is what the account has.
_NO_FUNDS = frozenset(
    {
        "BelowMinimum",
        "FundsUnavailable",
        "StorageDepositLimitExhausted",
        "StorageDepositNotEnoughFunds",
    }
)


def refusal_of(
    failure: DispatchFailure, call: ContractCall[object] | None
) -> ChainError | InputError:
    """Return the error of ours for what no code of the contract has decided."""
    label = "the code" if call is None else call.label
    if failure.name in _NO_FUNDS:
        return InsufficientFundsError(f"{label}: the account can't pay the storage deposit")
    if failure.pallet != "Contracts":
        return ChainError(f"{label}: the chain refused: {failure}")
    if failure.name == "ContractNotFound" and call is not None:
        address = hex_text(call.contract)
        return ChainMismatchError(f"{label}: there is no contract {address} on this chain")
    if failure.name == "DuplicateContract":
        return InputError("salt: the contract exists already")
    if failure.name in ("CodeRejected", "CodeTooLarge"):
        return InputError(f"the code is refused: {failure}")
    return ContractTrappedError(f"{label}: {failure}")


def history_error(error: RpcError) -> PrunedStateError | RpcError:
    """Return the error of ours for what a node can't tell of a block."""
    if "discarded" in error.text or "pruned" in error.text:
        return PrunedStateError(
            f"{error}; take a node that keeps old states (--state-pruning archive), or begin at"
            " a later block (--from-block)"
        )
    return error
