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

import time
from collections.abc import Callable, Mapping, Sequence
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
from orchestrator.chain.answers import hex_bytes, hex_text
from orchestrator.chain.contracts_api import DryRun
from orchestrator.chain.dry_runs import DryRuns
from orchestrator.chain.extrinsics import Sender
from orchestrator.chain.node import Node
from orchestrator.chain.node_blocks import Blocks
from orchestrator.chain.outcomes import Outcome, instantiated, only_item, receipt_of
from orchestrator.chain.pallet_calls import (
    REMARK,
    call_of,
    deployment_of,
    limited_deposit,
    upload_of,
)
from orchestrator.chain.proofs import read_proof
from orchestrator.chain.refusals import refusal_of
from orchestrator.chain.runtime import Call
from orchestrator.chain.spending import SpendingLimits
from orchestrator.chain.storage_keys import StorageProof
from orchestrator.encoding import to_ss58
from orchestrator.errors import (
    ChainError,
    ChainMismatchError,
    ChainUnavailableError,
    ContractError,
    ContractTrappedError,
    InputError,
    InsufficientFundsError,
    TooHeavyError,
)
from orchestrator.models import Account

__all__ = ["SubstrateChain"]

T = TypeVar("T")

_NOBODY = bytes(32)
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
# The state has changed since the dry run so that its limits do not do.
_LIMITS_EXCEEDED = frozenset({"OutOfGas", "StorageDepositLimitExhausted"})

# What a call that was sent came to; `None` for one that is to be tried again.
_Made = Receipt[T] | ContractError | None


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
        self._clock_ahead = 0
        self._spending = spending
        self._node = Node(url, timeout_seconds=timeout_seconds)
        self._blocks = Blocks(self._node)
        self._dry_runs = DryRuns(self._node)
        self._sender = Sender(self._node, finality_seconds=finality_seconds)
        try:
            self._node.open()
        except BaseException:
            self.close()
            raise

    @property
    def genesis_hash(self) -> bytes:
        """The chain's identity."""
        return self._node.genesis_hash

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
        dry = self._dry_runs.deployment(code, constructor, signer.account_id, salt)
        call = deployment_of(code, constructor, salt, dry)
        outcome = self._send(call, signer, deposit=limited_deposit(dry.deposit))
        item = only_item(outcome, constructor)
        return Deployment(
            contract=instantiated(item),
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
        dry = self._dry_runs.deployment(code, constructor, deployer, salt)
        call = deployment_of(code, constructor, salt, dry)
        return Estimate(value=None, cost=self._dry_runs.cost(call, dry, deployer))

    def upload(self, code: bytes, *, signer: Account) -> bytes:
        """
        Upload *code* and return its code hash.

        Raises:
            InputError: The code is refused.
            InsufficientFundsError: The account can't pay.
        """
        code_hash, deposit = self._dry_runs.upload(code, signer.account_id)
        call = upload_of(code, deposit)
        only_item(self._send(call, signer, deposit=limited_deposit(deposit)), None)
        return code_hash

    def code_hash(self, contract: bytes) -> bytes | None:
        """Return the hash of the code that *contract* runs."""
        info = self._stored("Contracts", "ContractInfoOf", contract)
        if info is None:
            return None
        code_hash = info.get("code_hash")
        if not isinstance(code_hash, bytes):
            raise ChainMismatchError("the runtime's contracts have no code hash")
        return code_hash

    # Calls.

    def dry_run(self, call: ContractCall[T], *, caller: bytes) -> T:
        """Return what the call would return on top of the best block, changing nothing."""
        return self._dry_runs.call(call, caller)[0]

    def estimate(self, call: ContractCall[T], *, caller: bytes) -> Estimate[T]:
        """Return what the call would return and cost on top of the best block."""
        value, dry = self._dry_runs.call(call, caller)
        return Estimate(value=value, cost=self._dry_runs.cost(call_of(call, dry), dry, caller))

    def read(self, call: ContractCall[T]) -> T:
        """Return what a read message returns at the finalized head."""
        for _ in range(_ATTEMPTS):
            generation = self._node.rpc.generation
            head = self._node.heads.finalized
            value, _ = self._dry_runs.call(call, _NOBODY, at=head.hash)
            if self._node.rpc.generation == generation:
                return value
            # The connection was made anew meanwhile, and the head may be an old one.
        raise ChainUnavailableError(f"{call.label}: the connection to the node does not last")

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

        One of several that traps in the block is refused by the name of the chain's error.

        Raises:
            ContractTrappedError: One would trap: none was sent. Or the only one trapped.
            ChainUnavailableError: Some may have taken effect.
            ChainError: as `call`; none has taken effect.
        """
        results: dict[int, Receipt[T] | ContractError] = {}
        for _ in range(_ATTEMPTS):
            try:
                self._attempt(calls, results, signer)
            except ChainError as error:
                if not any(isinstance(one, Receipt) for one in results.values()):
                    raise
                # Whoever gets another error than this one would send them all again.
                raise ChainUnavailableError(
                    f"some calls of a batch have taken effect; of the others: {error}"
                ) from error
            if len(results) == len(calls):
                return [results[at] for at in range(len(calls))]
        for at, call in enumerate(calls):
            if at not in results:
                words = f"{call.label}: needs more gas or deposit than its dry run each time"
                if len(calls) == 1:
                    raise ContractTrappedError(words)
                results[at] = ContractError("OutOfGas", words)
        return [results[at] for at in range(len(calls))]

    def _attempt(
        self,
        calls: Sequence[ContractCall[T]],
        results: dict[int, Receipt[T] | ContractError],
        signer: Account,
    ) -> None:
        """Make the calls that have no result yet, and add those that come of them."""
        rest = [at for at in range(len(calls)) if at not in results]
        sent: list[tuple[int, T, DryRun]] = []
        for at, found in zip(rest, self._foresee([calls[at] for at in rest], signer), strict=True):
            if isinstance(found, ContractError):
                results[at] = found
            else:
                sent.append((at, *found))
        if sent:
            made = self._make(calls, sent, signer)
            results.update((at, one) for at, one in made if one is not None)

    def _foresee(
        self, calls: Sequence[ContractCall[T]], signer: Account
    ) -> list[tuple[T, DryRun] | ContractError]:
        """Dry-run the calls, in a new block if the time of the last one may be why."""
        found = self._dry_runs.calls(calls, signer.account_id)
        doubtful = [
            (call, error)
            for call, one in zip(calls, found, strict=True)
            for error in ([one] if isinstance(one, ContractError) else call.refusals(one[0]))
            if error.variant in _TIME_DEPENDENT or error.variant in call.turned_by_time
        ]
        if not doubtful or not self._is_behind():
            return found
        if not any(self._depends_on_time(call, error) for call, error in doubtful):
            return found
        made = self._send(REMARK, signer)
        # What is left of the difference is the clock's own: one more block would not change it.
        self._clock_ahead = max(0, self._clock() - made.block.timestamp)
        return self._dry_runs.calls(calls, signer.account_id)

    def _depends_on_time(self, call: ContractCall[object], error: ContractError) -> bool:
        question = call.turned_by_time.get(error.variant)
        return question is None or self._dry_runs.call(question, _NOBODY)[0]

    def _make(
        self,
        calls: Sequence[ContractCall[T]],
        sent: Sequence[tuple[int, T, DryRun]],
        signer: Account,
    ) -> list[tuple[int, _Made[T]]]:
        """Send calls that were foreseen to succeed."""
        pallet_calls = [call_of(calls[at], dry) for at, _, dry in sent]
        call = pallet_calls[0] if len(sent) == 1 else self._node.runtime().batch(pallet_calls)
        deposit = sum(limited_deposit(dry.deposit) for _, _, dry in sent)
        outcome = self._send(call, signer, deposit=deposit, calls=len(sent))
        if len(outcome.items) != len(sent):
            # The transaction failed as a whole, which a batch does for want of weight alone.
            failure = outcome.items[-1].failure if outcome.items else None
            raise ChainError(f"the transaction failed in its block: {failure}")
        made: list[tuple[int, _Made[T]]] = []
        share, rest = divmod(outcome.fee, len(sent))
        for place, ((at, value, _), item) in enumerate(zip(sent, outcome.items, strict=True)):
            if item.failure is None:
                fee = share + (rest if place == 0 else 0)
                made.append((at, receipt_of(calls[at], value, item, outcome, fee)))
            elif item.failure.name in _LIMITS_EXCEEDED:
                made.append((at, None))
            elif item.failure.name == "ContractReverted":
                made.append((at, self._why(calls[at], signer, outcome.block)))
            elif len(calls) == 1:
                raise refusal_of(item.failure, calls[at])
            else:
                made.append((at, ContractError(item.failure.name, calls[at].label)))
        return made

    def _why(self, call: ContractCall[T], signer: Account, block: Block) -> ContractError:
        """Return why a call was refused in a block, which does not say it."""
        for at in (block.hash, None):
            try:
                self._dry_runs.call(call, signer.account_id, at)
            except ContractError as error:
                return error
            except ChainError:
                continue  # nobody knows then: others of the batch have their results
        return ContractError("Reverted", f"{call.label}: in its block, and it would not now")

    def _send(self, call: Call, signer: Account, *, deposit: int = 0, calls: int = 1) -> Outcome:
        """Send a call of *calls* calls that may hold *deposit* planck."""
        if self._spending is None:
            return self._outcome(call, signer)
        fee = self._dry_runs.fee(call, signer.account_id)
        cost = Cost(fee=fee, deposit=deposit, ref_time=0, proof_size=0)
        reservation = self._spending.reserve(cost, calls=calls)
        try:
            outcome = self._outcome(call, signer)
        except (InsufficientFundsError, TooHeavyError):
            reservation.settle(0, 0)
            raise  # after any other error it may have been sent: what was reserved is spent
        reservation.settle(outcome.fee, sum(max(0, item.deposit) for item in outcome.items))
        return outcome

    def _outcome(self, call: Call, signer: Account) -> Outcome:
        included = self._sender.send(call, signer=signer)
        try:
            return self._blocks.outcome(included, signer.account_id)
        except ChainError as error:
            raise ChainUnavailableError(
                f"what was sent is in block {included.header.number}, and what it came to is not"
                f" known: {error}"
            ) from error

    def _is_behind(self) -> bool:
        best = self._blocks.block(self._node.heads.best)
        late = self._clock() - best.timestamp
        # A clock that was put right is ahead no more: no block is from the future.
        self._clock_ahead = max(0, min(self._clock_ahead, late))
        return late - self._clock_ahead > _OLD_BLOCK_MS

    # Reading.

    def events(self, contract: bytes, *, after: Cursor, limit: int = 1_000) -> EventPage:
        """
        Return events of *contract* after the cursor; it looks through at most 1,024 blocks.

        Raises:
            PrunedStateError: The node has no longer the state of these blocks.
        """
        if limit < 1:
            raise InputError(f"limit: {limit} is not a positive number")
        return self._blocks.events(contract, self._node.heads.finalized, after=after, limit=limit)

    def finalized_head(self) -> Block:
        """Return the last finalized block."""
        return self._blocks.block(self._node.heads.finalized)

    def now(self) -> int:
        """Return this machine's time (ms), or the best block's where that is later."""
        return max(self._clock(), self._blocks.block(self._node.heads.best).timestamp)

    def account(self, account_id: bytes) -> AccountInfo:
        """Return an account's next nonce and its free balance, at the finalized head."""
        info = self._stored("System", "Account", account_id)
        if info is None:
            return AccountInfo(nonce=0, balance=0)
        nonce, data = info.get("nonce"), info.get("data")
        balance = data.get("free") if isinstance(data, dict) else None
        if not isinstance(nonce, int) or not isinstance(balance, int):
            raise ChainMismatchError("the runtime's accounts have no nonce or no balance")
        return AccountInfo(nonce=nonce, balance=balance)

    def wait_for_pending(
        self, account_id: bytes, *, timeout_seconds: float, signer: Account | None = None
    ) -> None:
        """
        Return once nothing that the account sent through this node is on its way any more.

        With *signer*, empty transactions use up nonces, until one brings nothing to light and
        what this process has doubts about can't take effect any more.

        Not seen: what only other nodes know of, and what another process sent that waits for two
        or more lost nonces. It takes no effect after 64 blocks.
        """
        deadline = time.monotonic() + timeout_seconds
        self._sender.wait_for_pending(account_id, timeout_seconds=timeout_seconds)
        while signer is not None:
            before = self._sender.start_anew(account_id)
            self._send(REMARK, signer)
            rest = max(0.0, deadline - time.monotonic())
            self._sender.wait_for_pending(account_id, timeout_seconds=rest)
            if self._sender.is_settled(account_id, before + 1):
                return
            if time.monotonic() >= deadline:
                raise ChainUnavailableError(
                    f"account {to_ss58(account_id)} is used all the time: nobody can tell what is"
                    " on its way"
                )

    def close(self) -> None:
        """Close the connection."""
        self._node.close()

    def _stored(self, pallet: str, name: str, key: bytes) -> Mapping[str, object] | None:
        """Return what the finalized head has of a storage item that is a struct."""
        runtime = self._node.runtime()
        at = hex_text(self._node.heads.finalized.hash)
        found = self._node.rpc.request(
            "state_getStorage", runtime.storage_key(pallet, name, key), at
        )
        if found is None:
            return None
        value = runtime.decode_storage(pallet, name, hex_bytes(found, "a storage item"))
        if not isinstance(value, dict):
            raise ChainMismatchError(f"the runtime's {pallet}.{name} has another form")
        return value

    def block_hash(self, number: int) -> bytes | None:
        """Return the hash of the finalized block of that number, `None` when there is none yet."""
        return self._blocks.hash_at(number)

    def prove(
        self, contract: bytes, cells: Sequence[bytes], *, number: int | None = None
    ) -> StorageProof:
        """
        Return what proves the contract's record and *cells* (of ink!, by key) in a block's state.

        The block is the finalized head, or the finalized one of that *number*.

        Raises:
            InputError: There is no such finalized block yet, or no such contract in it.
            PrunedStateError: The node has no longer the state of that block.
        """
        block_hash = self._node.heads.finalized.hash if number is None else self.block_hash(number)
        if block_hash is None:
            raise InputError(f"block: there is no finalized block {number} yet")
        return read_proof(self._node.rpc, contract, cells, block_hash)


def _code_hash(code: bytes) -> bytes:
    return blake2b(code, digest_size=32).digest()
