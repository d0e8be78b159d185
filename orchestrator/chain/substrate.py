"""
A chain behind a node: substrate-contracts-node, or another with pallet-contracts.

Every call is dry-run first, so that what the contract refuses is not sent and not paid for. A
call is done when its block is final; reads and events are of finalized blocks.

* A dry run is judged at the last block's time. A development chain makes no blocks while nothing
  happens, so its last block may be old; when a refusal depends on the time and that block is more
  than ten seconds behind this machine's clock, an empty transaction makes a new block and the
  call is tried again.
* A node does not tell what a transaction returned. The value is what the dry run returned,
  settled by the contract's events in the block (`ContractCall.settle`).
"""

import threading
import time
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import TypeVar

from orchestrator.chain import (
    AccountInfo,
    Block,
    ContractCall,
    Cost,
    Cursor,
    Deployment,
    Estimate,
    EventPage,
    Receipt,
)
from orchestrator.chain.extrinsics import Sender
from orchestrator.chain.heads import Heads
from orchestrator.chain.node_blocks import Blocks, Item, Outcome, parse_version, text
from orchestrator.chain.rpc import RpcConnection, RpcError
from orchestrator.chain.runtime import Call, DispatchFailure, DryRun, Runtime, RuntimeVersion
from orchestrator.chain.spending import SpendingLimits
from orchestrator.errors import (
    ChainError,
    ChainMismatchError,
    ChainUnavailableError,
    ContractError,
    ContractTrappedError,
    InputError,
    InsufficientFundsError,
)
from orchestrator.models import Account

__all__ = ["SubstrateChain"]

T = TypeVar("T")

_ZERO = bytes(32)
# Refusals that another block's time may turn.
_TIME_DEPENDENT = frozenset(
    {
        "AccountInUse",
        "DeadlineNotPassed",
        "RateLimited",
        "StatementBeforeJob",
        "StatementFromFuture",
        "ValidityOutOfRange",
    }
)
_OLD_BLOCK_MS = 10_000
_ATTEMPTS = 3
_SILENCE_SECONDS = 5.0
_LONG_NONCE = (1 << 32) - 1
# What changes between the dry run and the block may cost a little more.
_GAS_MARGIN_PERCENT = 20
_DEPOSIT_MARGIN_PERCENT = 10
# The state has changed since the dry run so that its limits do not do.
_LIMITS_EXCEEDED = frozenset({"OutOfGas", "StorageDepositLimitExhausted"})
_NO_FUNDS = frozenset({"FundsUnavailable", "StorageDepositNotEnoughFunds", "BelowMinimum"})


def _wall_clock() -> int:
    return time.time_ns() // 1_000_000


class SubstrateChain:
    """
    The chain behind the node at *url* (`ws://…` or `wss://…`); threads may share an instance.

    *finality_seconds* is how long a call may take until it is final; *timeout_seconds* bounds each
    request to the node. What is sent keeps within *spending*: `SpendingLimitError` else.

    Raises:
        ConfigError: The URL is of another form.
        ChainUnavailableError: The node can't be reached.
        ChainMismatchError: Its chain has no pallet-contracts, or is of a form not known here.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Callable[[], int] = _wall_clock,
        timeout_seconds: float = 20.0,
        finality_seconds: float = 120.0,
        spending: SpendingLimits | None = None,
    ) -> None:
        self._clock = clock
        self._spending = spending
        self._lock = threading.Lock()
        self._runtimes: dict[RuntimeVersion, Runtime] = {}
        self._version: RuntimeVersion | None = None
        self._genesis: bytes | None = None
        self._rpc = RpcConnection(url, timeout_seconds=timeout_seconds, on_connect=self._connected)
        self._heads = Heads(self._rpc)
        self._blocks = Blocks(self._rpc, runtime=self._runtime, runtime_of=self._runtime_of)
        self._sender = Sender(
            self._rpc,
            self._heads,
            runtime=self._runtime,
            forget_runtime=self._forget_runtime,
            finality_seconds=finality_seconds,
            silence_seconds=min(_SILENCE_SECONDS, timeout_seconds / 4),
        )
        try:
            self._heads.check()
            self._runtime()
        except BaseException:
            self.close()
            raise

    def _connected(self) -> None:
        genesis = _hash(self._rpc.request_once("chain_getBlockHash", 0))
        if self._genesis not in (None, genesis):
            self.close()
            raise ChainMismatchError(f"the node at {self._rpc.url} is on another chain now")
        self._genesis = genesis
        self._forget_runtime()
        self._heads.subscribe()

    @property
    def genesis_hash(self) -> bytes:
        """The chain's identity."""
        if self._genesis is None:
            raise ChainUnavailableError("the node has not told its genesis hash")
        return self._genesis

    # The runtime.

    def _runtime(self) -> Runtime:
        with self._lock:
            version = self._version
            known = None if version is None else self._runtimes.get(version)
        if known is not None:
            return known
        head = self._heads.finalized
        version = parse_version(self._rpc.request("state_getRuntimeVersion"))
        runtime = self._runtime_of(version, head.hash)
        with self._lock:
            self._version = version
        return runtime

    def _runtime_of(self, version: RuntimeVersion, block_hash: bytes) -> Runtime:
        with self._lock:
            known = self._runtimes.get(version)
        if known is None:
            known = Runtime(
                version,
                genesis_hash=self.genesis_hash,
                block_hash=block_hash,
                request=self._rpc.request,
            )
            with self._lock:
                self._runtimes[version] = known
        return known

    def _forget_runtime(self) -> None:
        with self._lock:
            self._version = None

    # Putting code on the chain.

    def deploy(
        self, code: bytes, constructor: ContractCall[None], *, signer: Account, salt: bytes = b""
    ) -> Deployment:
        """
        Upload *code* and instantiate it.

        Raises:
            InputError: The code is refused, or the address is taken (use another salt).
            ContractError: The constructor refused.
            ContractTrappedError: The constructor trapped.
            InsufficientFundsError: The account can't pay.
        """
        dry = self._dry_deploy(code, constructor, signer.account_id, salt)
        call = self._deploy_call(code, constructor, salt, dry)
        outcome = self._send(call, signer, deposit=max(0, dry.deposit))
        (item,) = outcome.items
        if item.failure is not None:
            raise self._refusal(item.failure, constructor)
        return Deployment(
            contract=_instantiated(item),
            code_hash=_code_hash(code),
            block=outcome.block,
            fee=outcome.fee,
            deposit=item.deposit,
        )

    def estimate_deploy(
        self, code: bytes, constructor: ContractCall[None], *, deployer: bytes, salt: bytes = b""
    ) -> Estimate[None]:
        """
        Return what `deploy` would cost now.

        Raises: as `deploy`.
        """
        dry = self._dry_deploy(code, constructor, deployer, salt)
        call = self._deploy_call(code, constructor, salt, dry)
        return Estimate(value=None, cost=self._cost(call, dry, deployer))

    def upload(self, code: bytes, *, signer: Account) -> bytes:
        """
        Upload *code* and return its code hash.

        Raises:
            InputError: The code is refused.
            InsufficientFundsError: The account can't pay.
        """
        runtime = self._runtime()
        arguments = runtime.upload_arguments(signer.account_id, code)
        found = runtime.decode_upload(self._state_call("ContractsApi_upload_code", arguments))
        if isinstance(found, DispatchFailure):
            raise self._refusal(found, None)
        code_hash, deposit = found
        call = Call(
            pallet="Contracts",
            function="upload_code",
            arguments={
                "code": _lossless(code),
                "storage_deposit_limit": _with_margin(deposit, _DEPOSIT_MARGIN_PERCENT),
                "determinism": "Enforced",
            },
        )
        (item,) = self._send(call, signer, deposit=deposit).items
        if item.failure is not None:
            raise self._refusal(item.failure, None)
        return code_hash

    def _dry_deploy(
        self, code: bytes, constructor: ContractCall[None], deployer: bytes, salt: bytes
    ) -> DryRun:
        runtime = self._runtime()
        arguments = runtime.instantiate_arguments(deployer, code, constructor.data, salt)
        raw = self._state_call("ContractsApi_instantiate", arguments)
        dry = runtime.decode_instantiate(raw)
        if dry.failure is not None:
            raise self._refusal(dry.failure, constructor)
        _value(constructor, dry)
        return dry

    def _deploy_call(
        self, code: bytes, constructor: ContractCall[None], salt: bytes, dry: DryRun
    ) -> Call:
        return Call(
            pallet="Contracts",
            function="instantiate_with_code",
            arguments={
                "value": 0,
                **_limits(dry),
                "code": _lossless(code),
                "data": _lossless(constructor.data),
                "salt": _lossless(salt),
            },
        )

    def code_hash(self, contract: bytes) -> bytes | None:
        """Return the hash of the code that *contract* runs."""
        runtime = self._runtime()
        found = self._storage("Contracts", "ContractInfoOf", contract)
        if found is None:
            return None
        info = runtime.decode_storage("Contracts", "ContractInfoOf", found)
        code_hash = info.get("code_hash") if isinstance(info, dict) else None
        if not isinstance(code_hash, bytes):
            raise ChainMismatchError("the runtime's contracts have no code hash")
        return code_hash

    # Calls.

    def dry_run(self, call: ContractCall[T], *, caller: bytes) -> T:
        """Return what the call would return on top of the best block, changing nothing."""
        return _value(call, self._dry_call(call, caller))

    def estimate(self, call: ContractCall[T], *, caller: bytes) -> Estimate[T]:
        """Return what the call would return and cost on top of the best block."""
        dry = self._dry_call(call, caller)
        value = _value(call, dry)
        return Estimate(value=value, cost=self._cost(_contract_call(call, dry), dry, caller))

    def read(self, call: ContractCall[T]) -> T:
        """Return what a read message returns at the finalized head."""
        return _value(call, self._dry_call(call, _ZERO, at=self._heads.finalized.hash))

    def call(self, call: ContractCall[T], *, signer: Account) -> Receipt[T]:
        """
        Make the call in a block, once it would not be refused.

        Raises:
            ContractError: The contract refused; nothing changed.
            ContractTrappedError: It trapped; nothing changed.
            InsufficientFundsError: The account can't pay.
            ChainUnavailableError: What was sent may still take effect: `wait_for_pending`.
        """
        result = self.batch([call], signer=signer)[0]
        if isinstance(result, ContractError):
            raise result
        return result

    def batch(
        self, calls: Sequence[ContractCall[T]], *, signer: Account
    ) -> list[Receipt[T] | ContractError]:
        """
        Make the calls in one transaction; each is refused by itself, before or in the block.

        Raises: as `call`.
        """
        results: list[Receipt[T] | ContractError | None] = [None] * len(calls)
        open_calls = list(range(len(calls)))
        for _ in range(_ATTEMPTS):
            foreseen = self._foresee([calls[at] for at in open_calls], signer)
            sent: list[tuple[int, T, DryRun]] = []
            for at, found in zip(open_calls, foreseen, strict=True):
                if isinstance(found, ContractError):
                    results[at] = found
                else:
                    sent.append((at, *found))
            open_calls = []
            if sent:
                for at, result in self._make(calls, sent, signer):
                    results[at] = result
                    if result is None:
                        open_calls.append(at)
            if not open_calls:
                return [result for result in results if result is not None]
        raise ContractTrappedError(
            f"{calls[open_calls[0]].label}: needs more gas or deposit than its dry run each time"
        )

    def _foresee(
        self, calls: Sequence[ContractCall[T]], signer: Account
    ) -> list[tuple[T, DryRun] | ContractError]:
        """Dry-run the calls, in a new block if the time of the last one may be why."""
        found = self._dry_run_all(calls, signer.account_id)
        refusals = [
            (call, one)
            for call, one in zip(calls, found, strict=True)
            if isinstance(one, ContractError)
        ]
        if any(_depends_on_time(call, error) for call, error in refusals) and self._is_behind():
            self._send(Call(pallet="System", function="remark", arguments={"remark": "0x"}), signer)
            found = self._dry_run_all(calls, signer.account_id)
        return found

    def _dry_run_all(
        self, calls: Sequence[ContractCall[T]], caller: bytes
    ) -> list[tuple[T, DryRun] | ContractError]:
        runtime = self._runtime()
        answers = self._rpc.request_all(
            [
                (
                    "state_call",
                    (
                        "ContractsApi_call",
                        runtime.call_arguments(caller, call.contract, call.data),
                    ),
                )
                for call in calls
            ]
        )
        found: list[tuple[T, DryRun] | ContractError] = []
        for call, answer in zip(calls, answers, strict=True):
            dry = self._checked(call, runtime.decode_call(_bytes(answer)))
            try:
                found.append((_value(call, dry), dry))
            except ContractError as error:
                found.append(error)
        return found

    def _make(
        self,
        calls: Sequence[ContractCall[T]],
        sent: Sequence[tuple[int, T, DryRun]],
        signer: Account,
    ) -> list[tuple[int, Receipt[T] | ContractError | None]]:
        """Send calls that were foreseen to succeed; `None` is for those to be tried again."""
        pallet_calls = [_contract_call(calls[at], dry) for at, _, dry in sent]
        call = pallet_calls[0] if len(sent) == 1 else self._runtime().batch(pallet_calls)
        deposit = sum(max(0, dry.deposit) for _, _, dry in sent)
        outcome = self._send(call, signer, deposit=deposit, calls=len(sent))
        if len(outcome.items) != len(sent):
            # The transaction failed as a whole, which a batch does for want of weight alone.
            failure = outcome.items[-1].failure if outcome.items else None
            raise ChainError(f"the transaction failed in its block: {failure}")
        results: list[tuple[int, Receipt[T] | ContractError | None]] = []
        share, rest = divmod(outcome.fee, len(sent))
        for place, ((at, value, _), item) in enumerate(zip(sent, outcome.items, strict=True)):
            fee = share + (rest if place == 0 else 0)
            results.append((at, self._receipt(calls[at], value, item, outcome, fee, signer)))
        return results

    def _receipt(
        self,
        call: ContractCall[T],
        foreseen: T,
        item: Item,
        outcome: Outcome,
        fee: int,
        signer: Account,
    ) -> Receipt[T] | ContractError | None:
        if item.failure is None:
            own = tuple(event for event in item.events if event.contract == call.contract)
            return Receipt(
                value=call.settle(foreseen, own),
                events=item.events,
                block=outcome.block,
                fee=fee,
                deposit=item.deposit,
            )
        if item.failure.name in _LIMITS_EXCEEDED:
            return None
        if item.failure.name != "ContractReverted":
            raise self._refusal(item.failure, call)
        # The block does not say why: ask what the contract would say now, and before.
        for at in (outcome.block.hash, None):
            try:
                _value(call, self._dry_call(call, signer.account_id, at=at))
            except ContractError as error:
                return error
        return ContractError("Reverted", f"{call.label}: in its block, and it would not now")

    def _send(self, call: Call, signer: Account, *, deposit: int = 0, calls: int = 1) -> Outcome:
        """Send a call of *calls* calls that may hold *deposit* planck."""
        if self._spending is None:
            return self._outcome(call, signer)
        fee = self._fee(call, signer.account_id)
        cost = Cost(fee=fee, deposit=deposit, ref_time=0, proof_size=0)
        reservation = self._spending.reserve(cost, calls=calls)
        try:
            outcome = self._outcome(call, signer)
        except ChainUnavailableError:
            raise  # it may have been sent: what was reserved counts as spent
        except ChainError:
            reservation.settle(0, 0)
            raise
        reservation.settle(outcome.fee, sum(max(0, item.deposit) for item in outcome.items))
        return outcome

    def _outcome(self, call: Call, signer: Account) -> Outcome:
        included = self._sender.send(call, signer=signer)
        return self._blocks.outcome(included, signer.account_id)

    def _dry_call(self, call: ContractCall[T], caller: bytes, at: bytes | None = None) -> DryRun:
        runtime = self._runtime()
        arguments = runtime.call_arguments(caller, call.contract, call.data)
        return self._checked(
            call, runtime.decode_call(self._state_call("ContractsApi_call", arguments, at))
        )

    def _checked(self, call: ContractCall[T], dry: DryRun) -> DryRun:
        if dry.failure is not None:
            raise self._refusal(dry.failure, call)
        return dry

    def _cost(self, call: Call, dry: DryRun, account: bytes) -> Cost:
        return Cost(
            fee=self._fee(call, account),
            deposit=dry.deposit,
            ref_time=dry.consumed.ref_time,
            proof_size=dry.consumed.proof_size,
        )

    def _fee(self, call: Call, account: bytes) -> int:
        """Return the most that the fee can be, in planck."""
        # A nonce of full length: the real one is not longer, and a byte costs next to nothing.
        twin = self._runtime().unsigned_size_twin(call, account_id=account, nonce=_LONG_NONCE)
        try:
            info = self._rpc.request("payment_queryInfo", text(twin))
        except RpcError as error:
            raise ChainError(f"the node can't tell the fee: {error}") from error
        fee = info.get("partialFee") if isinstance(info, dict) else None
        if not isinstance(fee, str):
            raise ChainMismatchError("the node told a fee of unknown form")
        return int(fee, 0)

    def _is_behind(self) -> bool:
        best = self._blocks.block(self._heads.best)
        return self._clock() - best.timestamp > _OLD_BLOCK_MS

    # Reading.

    def events(self, contract: bytes, *, after: Cursor, limit: int = 1_000) -> EventPage:
        """Return events of *contract* after the cursor; it looks through at most 1,024 blocks."""
        if limit < 1:
            raise InputError(f"limit: {limit} is not a positive number")
        return self._blocks.events(contract, self._heads.finalized, after=after, limit=limit)

    def finalized_head(self) -> Block:
        """Return the last finalized block."""
        return self._blocks.block(self._heads.finalized)

    def now(self) -> int:
        """Return this machine's time (ms), or the best block's where that is later."""
        return max(self._clock(), self._blocks.block(self._heads.best).timestamp)

    def account(self, account_id: bytes) -> AccountInfo:
        """Return an account's next nonce and its free balance, at the finalized head."""
        found = self._storage("System", "Account", account_id)
        if found is None:
            return AccountInfo(nonce=0, balance=0)
        info = self._runtime().decode_storage("System", "Account", found)
        if not isinstance(info, dict) or not isinstance(info.get("data"), dict):
            raise ChainMismatchError("the runtime's accounts have no balance")
        return AccountInfo(nonce=info["nonce"], balance=info["data"]["free"])

    def wait_for_pending(self, account_id: bytes, *, timeout_seconds: float) -> None:
        """
        Return once nothing that the account sent through this node is on its way any more.

        What only other nodes know of is not seen here; it takes no effect after 64 blocks.
        """
        self._sender.wait_for_pending(account_id, timeout_seconds=timeout_seconds)

    def close(self) -> None:
        """Close the connection."""
        self._rpc.close()

    def _storage(self, pallet: str, name: str, key: bytes) -> bytes | None:
        at = text(self._heads.finalized.hash)
        found = self._rpc.request(
            "state_getStorage", self._runtime().storage_key(pallet, name, key), at
        )
        return None if found is None else _bytes(found)

    def _state_call(self, method: str, arguments: str, at: bytes | None = None) -> bytes:
        block = [] if at is None else [text(at)]
        try:
            return _bytes(self._rpc.request("state_call", method, arguments, *block))
        except RpcError as error:
            raise ChainUnavailableError(str(error)) from error

    @staticmethod
    def _refusal(failure: DispatchFailure, call: ContractCall[T] | None) -> ChainError | InputError:
        """Return the error of ours for what no code of the contract has decided."""
        label = "the code" if call is None else call.label
        if failure.name in _NO_FUNDS:
            return InsufficientFundsError(f"{label}: the account can't pay the storage deposit")
        if failure.pallet != "Contracts":
            return ChainError(f"{label}: the chain refused: {failure}")
        if failure.name == "ContractNotFound" and call is not None:
            return ChainMismatchError(
                f"{label}: there is no contract {text(call.contract)} on this chain"
            )
        if failure.name == "DuplicateContract":
            return InputError("salt: the contract exists already")
        if failure.name in ("CodeRejected", "CodeTooLarge"):
            return InputError(f"the code is refused: {failure}")
        return ContractTrappedError(f"{label}: {failure}")


def _contract_call(call: ContractCall[T], dry: DryRun) -> Call:
    return Call(
        pallet="Contracts",
        function="call",
        arguments={
            "dest": text(call.contract),
            "value": 0,
            **_limits(dry),
            "data": _lossless(call.data),
        },
    )


def _limits(dry: DryRun) -> dict[str, object]:
    return {
        "gas_limit": {
            "ref_time": _with_margin(dry.required.ref_time, _GAS_MARGIN_PERCENT),
            "proof_size": _with_margin(dry.required.proof_size, _GAS_MARGIN_PERCENT),
        },
        "storage_deposit_limit": _with_margin(max(0, dry.deposit), _DEPOSIT_MARGIN_PERCENT),
    }


def _with_margin(amount: int, percent: int) -> int:
    return amount + amount * percent // 100


def _lossless(data: bytes) -> str:
    """Return bytes as substrate-interface takes them and never for text."""
    return text(data)


def _depends_on_time(call: ContractCall[T], error: ContractError) -> bool:
    # A job that is attested may be cancelled once it has waited long enough.
    return error.variant in _TIME_DEPENDENT or (call.label, error.variant) == (
        "cancel_job",
        "WrongStatus",
    )


def _value(call: ContractCall[T], dry: DryRun) -> T:
    """Return the decoded value; what reverted must hold a refusal."""
    value = call.decode(dry.output)
    if dry.reverted:
        raise ChainMismatchError(f"{call.label}: the contract reverted and named no error")
    return value


def _instantiated(item: Item) -> bytes:
    for record in item.records:
        if (record.pallet, record.name) == ("Contracts", "Instantiated"):
            contract = record.fields["contract"] if isinstance(record.fields, dict) else None
            if isinstance(contract, bytes):
                return contract
    raise ChainMismatchError("the chain told of no new contract")


def _code_hash(code: bytes) -> bytes:
    return blake2b(code, digest_size=32).digest()


def _hash(value: object) -> bytes:
    found = _bytes(value)
    if len(found) != 32:
        raise ChainMismatchError("the node sent a hash that is not 32 bytes")
    return found


def _bytes(value: object) -> bytes:
    try:
        if isinstance(value, str) and value.startswith("0x"):
            return bytes.fromhex(value[2:])
    except ValueError:
        pass
    raise ChainMismatchError("the node sent something else than hex text")
