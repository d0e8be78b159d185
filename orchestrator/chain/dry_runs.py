"""What calls would come to on a node, asked before anything is sent."""

from collections.abc import Sequence
from typing import TypeVar

from orchestrator.chain import ContractCall, Cost
from orchestrator.chain.answers import at_key, hex_bytes, hex_text
from orchestrator.chain.contracts_api import DryRun
from orchestrator.chain.dispatch_errors import DispatchFailure
from orchestrator.chain.link import RpcError
from orchestrator.chain.node import Node
from orchestrator.chain.refusals import history_error, refusal_of
from orchestrator.chain.runtime import Call
from orchestrator.errors import (
    ChainError,
    ChainMismatchError,
    ChainUnavailableError,
    ContractError,
    PrunedStateError,
)

__all__ = ["DryRuns"]

T = TypeVar("T")

_LONG_NONCE = (1 << 32) - 1


class DryRuns:
    """Asks *node* what calls would return and cost."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def call(
        self, call: ContractCall[T], caller: bytes, at: bytes | None = None
    ) -> tuple[T, DryRun]:
        """
        Return what a call would return and use, on top of the best block or of the one *at*.

        Raises:
            ContractError: The contract refuses.
            ContractTrappedError: It traps.
            InsufficientFundsError: The caller can't pay the deposit.
            ChainMismatchError: There is no such contract, or it is another one.
            PrunedStateError: The node has no longer the state of that block.
        """
        (answer,) = self._ask("ContractsApi_call", [self._arguments(call, caller)], at)
        return self._judged(call, answer)

    def calls(
        self, calls: Sequence[ContractCall[T]], caller: bytes
    ) -> list[tuple[T, DryRun] | ContractError]:
        """Return what each call would come to on top of the best block; else as `call`."""
        arguments = [self._arguments(call, caller) for call in calls]
        found: list[tuple[T, DryRun] | ContractError] = []
        for call, answer in zip(calls, self._ask("ContractsApi_call", arguments), strict=True):
            try:
                found.append(self._judged(call, answer))
            except ContractError as error:
                found.append(error)
        return found

    def deployment(
        self, code: bytes, constructor: ContractCall[None], deployer: bytes, salt: bytes
    ) -> DryRun:
        """Return what a deployment would use; raises as `call`, `InputError` for bad code."""
        api = self._node.runtime().contracts
        arguments = api.instantiate_arguments(deployer, code, constructor.data, salt)
        (answer,) = self._ask("ContractsApi_instantiate", [arguments])
        dry = api.decode_instantiate(answer)
        if dry.failure is not None:
            raise refusal_of(dry.failure, constructor)
        _value(constructor, dry)
        return dry

    def upload(self, code: bytes, uploader: bytes) -> tuple[bytes, int]:
        """Return the code hash of an upload and its deposit; raises `InputError` for bad code."""
        api = self._node.runtime().contracts
        (answer,) = self._ask("ContractsApi_upload_code", [api.upload_arguments(uploader, code)])
        found = api.decode_upload(answer)
        if isinstance(found, DispatchFailure):
            raise refusal_of(found, None)
        return found

    def cost(self, call: Call, dry: DryRun, account: bytes) -> Cost:
        """Return what a transaction costs the account at most."""
        return Cost(
            fee=self.fee(call, account),
            deposit=dry.deposit,
            ref_time=dry.consumed.ref_time,
            proof_size=dry.consumed.proof_size,
        )

    def fee(self, call: Call, account: bytes) -> int:
        """Return the most that the fee can be, in planck."""
        # A nonce of full length: the real one is not longer, and a byte costs next to nothing.
        runtime = self._node.runtime()
        twin = runtime.unsigned_size_twin(call, account_id=account, nonce=_LONG_NONCE)
        try:
            info = self._node.rpc.request("payment_queryInfo", hex_text(twin))
        except RpcError as error:
            raise ChainError(f"the node can't tell the fee: {error}") from error
        fee = at_key(info, "partialFee", "a fee")
        if not isinstance(fee, str) or not fee.isdecimal() or len(fee) > 40:
            raise ChainMismatchError("the node sent a fee of unknown form")
        return int(fee)

    def _arguments(self, call: ContractCall[T], caller: bytes) -> str:
        return self._node.runtime().contracts.call_arguments(caller, call.contract, call.data)

    def _ask(self, method: str, arguments: Sequence[str], at: bytes | None = None) -> list[bytes]:
        block = [] if at is None else [hex_text(at)]
        requests = [("state_call", (method, one, *block)) for one in arguments]
        try:
            answers = self._node.rpc.request_all(requests)
        except RpcError as error:
            found = history_error(error)
            if isinstance(found, PrunedStateError):
                raise found from error
            raise ChainUnavailableError(str(error)) from error
        return [hex_bytes(answer, "an answer") for answer in answers]

    def _judged(self, call: ContractCall[T], answer: bytes) -> tuple[T, DryRun]:
        dry = self._node.runtime().contracts.decode_call(answer)
        if dry.failure is not None:
            raise refusal_of(dry.failure, call)
        return _value(call, dry), dry


def _value(call: ContractCall[T], dry: DryRun) -> T:
    """Return the decoded value; what reverted must hold a refusal."""
    value = call.decode(dry.output)
    if dry.reverted:
        raise ChainMismatchError(f"{call.label}: the contract reverted and named no error")
    return value
