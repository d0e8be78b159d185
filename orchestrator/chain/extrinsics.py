"""
Sends extrinsics so that each takes effect once, or is known to take none.

A node's word about an extrinsic ends with the connection and does not always come: what counts is
whether the bytes are in a finalized block. An extrinsic is valid for `ERA_BLOCKS` blocks and for
one nonce, so there is an end to the doubt:

1. in a finalized block: done;
2. its nonce used at the finalized head, and it is in none of the blocks since it was signed:
   another one took its place, and it takes no effect ever;
3. the finalized head beyond its era, and it is in none of those blocks: the same;
4. else it may be anywhere; the same bytes are sent again, which can't take effect twice.
"""

import contextlib
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from orchestrator.chain.heads import Header, Heads, parse_header
from orchestrator.chain.rpc import RpcConnection, RpcError, Subscription
from orchestrator.chain.runtime import ERA_BLOCKS, Call, Mortality, Runtime
from orchestrator.encoding import to_ss58
from orchestrator.errors import (
    ChainError,
    ChainMismatchError,
    ChainUnavailableError,
    InsufficientFundsError,
    TooHeavyError,
)
from orchestrator.models import Account

__all__ = ["Included", "Sender", "read_block"]

_ATTEMPTS = 8
# JSON-RPC error codes of the author methods (sc-rpc).
_INVALID, _BANNED, _ALREADY_IMPORTED, _TOO_LOW_PRIORITY, _DROPPED = 1010, 1012, 1013, 1014, 1016
_REFUSED_NOW = frozenset({_BANNED, _DROPPED})
# The node gave its word on an extrinsic that it will say no more about.
_ENDED = frozenset({"dropped", "invalid", "usurped", "finalityTimeout"})


@dataclass(frozen=True, kw_only=True)
class Included:
    """Where an extrinsic is: a finalized block, all its extrinsics, and which one it is."""

    header: Header
    extrinsics: tuple[bytes, ...]
    index: int


class _NeverIncludedError(Exception):
    """The extrinsic takes no effect ever; it may be signed and sent anew."""


@dataclass
class _Sequence:
    """The nonces of one account, for all connections of this process."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    next: int | None = None


_sequences: dict[tuple[bytes, bytes], _Sequence] = defaultdict(_Sequence)


@dataclass(frozen=True, kw_only=True)
class _Signed:
    """An extrinsic as it was sent."""

    data: bytes
    account: bytes
    nonce: int
    birth: int

    @property
    def hex(self) -> str:
        return "0x" + self.data.hex()


class Sender:
    """
    Signs, sends, and follows extrinsics to finality over *rpc*.

    *runtime* gives the current one; *forget_runtime* lets it be read anew. A node that says
    nothing for *silence_seconds* is asked whether it is still there.
    """

    def __init__(
        self,
        rpc: RpcConnection,
        heads: Heads,
        *,
        runtime: Callable[[], Runtime],
        forget_runtime: Callable[[], None],
        finality_seconds: float,
        silence_seconds: float = 5.0,
    ) -> None:
        self._rpc = rpc
        self._heads = heads
        self._runtime = runtime
        self._forget_runtime = forget_runtime
        self._finality_seconds = finality_seconds
        self._silence_seconds = silence_seconds
        self._seeded: dict[bytes, int] = {}

    def send(self, call: Call, *, signer: Account) -> Included:
        """
        Return where the extrinsic is, once it is final.

        Raises:
            InsufficientFundsError: The account can't pay; nothing was sent.
            TooHeavyError: It does not fit into a block; nothing was sent.
            ChainUnavailableError: Nothing is known; what was sent may still take effect.
        """
        deadline = time.monotonic() + self._finality_seconds
        for _ in range(_ATTEMPTS):
            signed, watch = self._submit(call, signer, deadline)
            try:
                return self._follow(signed, watch, deadline)
            except _NeverIncludedError:
                # Another one used the nonce, or the era is over.
                self._forget_nonce(signer.account_id)
        raise ChainUnavailableError(
            f"account {to_ss58(signer.account_id)}: others keep using its nonces"
        )

    def wait_for_pending(self, account_id: bytes, *, timeout_seconds: float) -> None:
        """Return once every nonce that the account has used is in a finalized block."""
        deadline = time.monotonic() + timeout_seconds
        while True:
            head = self._heads.finalized
            used = self._next_nonce(account_id)
            if self.nonce_at(account_id, head.hash) >= used:
                return
            rest = deadline - time.monotonic()
            if rest <= 0:
                raise ChainUnavailableError(
                    f"account {to_ss58(account_id)} has transactions on their way for more than"
                    f" {timeout_seconds:g} s"
                )
            self._heads.wait_beyond(head.number, min(rest, self._silence_seconds))

    def nonce_at(self, account_id: bytes, block_hash: bytes) -> int:
        """Return the account's nonce after a block."""
        runtime = self._runtime()
        key = runtime.storage_key("System", "Account", account_id)
        found = self._rpc.request("state_getStorage", key, "0x" + block_hash.hex())
        if found is None:
            return 0
        value = runtime.decode_storage("System", "Account", bytes.fromhex(str(found)[2:]))
        nonce = value["nonce"] if isinstance(value, Mapping) else None
        if not isinstance(nonce, int):
            raise ChainMismatchError("the runtime's accounts have no nonce")
        return nonce

    # Sending.

    def _submit(self, call: Call, signer: Account, deadline: float) -> tuple[_Signed, Subscription]:
        """Return the extrinsic that the node took, or may have taken."""
        account = signer.account_id
        sequence = _sequences[self._runtime().genesis_hash, account]
        for attempt in range(_ATTEMPTS):
            with sequence.lock:
                signed = self._sign(call, signer, sequence)
                watch = Subscription()
                try:
                    self._rpc.request_once("author_submitAndWatchExtrinsic", signed.hex, into=watch)
                except RpcError as error:
                    # The node's pool does not have it, or has had it before.
                    if error.code != _ALREADY_IMPORTED:
                        self._refused(error, account, sequence, attempt)
                        if error.code in _REFUSED_NOW and not self._has_time(deadline, attempt):
                            raise ChainUnavailableError(f"nothing was sent: {error}") from error
                        continue
                    watch.end()
                except ChainUnavailableError:
                    watch.end()  # it may have arrived: `_follow` finds out
                sequence.next = signed.nonce + 1
                return signed, watch
        raise ChainUnavailableError(
            f"account {to_ss58(account)}: the node refused {_ATTEMPTS} attempts; nothing was sent"
        )

    def _sign(self, call: Call, signer: Account, sequence: _Sequence) -> _Signed:
        account = signer.account_id
        # A node that was restarted may have lost what its pool had.
        if sequence.next is None or self._seeded.get(account) != self._rpc.generation:
            sequence.next = self._next_nonce(account)
            self._seeded[account] = self._rpc.generation
        best, final = self._heads.best, self._heads.finalized
        # A block that is final can't be taken back, one that is too old makes the era short.
        birth = final if best.number - final.number <= ERA_BLOCKS // 4 else best
        data = self._runtime().sign(
            call,
            signer=signer,
            nonce=sequence.next,
            mortality=Mortality(number=birth.number, hash=birth.hash),
        )
        return _Signed(data=data, account=account, nonce=sequence.next, birth=birth.number)

    def _refused(self, error: RpcError, account: bytes, sequence: _Sequence, attempt: int) -> None:
        """Return when another attempt makes sense; nothing was taken."""
        sequence.next = None
        if error.code == _TOO_LOW_PRIORITY or error.code in _REFUSED_NOW:
            return
        if error.code != _INVALID:
            raise ChainError(f"nothing was sent: {error}") from error
        if "outdated" in error.text:
            return
        if "bad signature" in error.text and attempt < 2:
            # The runtime has changed, or the block that the era begins at is gone.
            self._forget_runtime()
            return
        if "exhaust" in error.text:
            raise TooHeavyError(f"nothing was sent: {error}") from error
        if "pay some fees" in error.text:
            raise InsufficientFundsError(
                f"account {to_ss58(account)} can't pay the fee; nothing was sent"
            ) from error
        raise ChainError(f"nothing was sent: {error}") from error

    @staticmethod
    def _has_time(deadline: float, attempt: int) -> bool:
        """Pause before another attempt, if there is time for one."""
        pause = min(5.0, 0.25 * 2**attempt)
        if attempt == _ATTEMPTS - 1 or time.monotonic() + pause > deadline:
            return False
        time.sleep(pause)
        return True

    def _next_nonce(self, account: bytes) -> int:
        found = self._rpc.request("system_accountNextIndex", to_ss58(account))
        if not isinstance(found, int):
            raise ChainMismatchError("the node sent a nonce that is no number")
        return found

    def _forget_nonce(self, account: bytes) -> None:
        sequence = _sequences[self._runtime().genesis_hash, account]
        with sequence.lock:
            sequence.next = None

    # Following.

    def _follow(self, signed: _Signed, watch: Subscription, deadline: float) -> Included:
        try:
            block_hash = self._watch(watch, deadline)
        except ChainUnavailableError:
            block_hash = None
        finally:
            self._rpc.unsubscribe("author_unwatchExtrinsic", watch)
        if block_hash is not None:
            with contextlib.suppress(ChainUnavailableError, RpcError):
                found = self._included(signed, block_hash)
                if found is not None:
                    self._heads.note_finalized(found.header)
                    return found
        return self._resolve(signed, deadline)

    def _watch(self, watch: Subscription, deadline: float) -> str | None:
        """Return the finalized block as the node tells it, `None` when it tells something else."""
        while True:
            rest = deadline - time.monotonic()
            status = watch.get(max(0.0, min(rest, self._silence_seconds)))
            if isinstance(status, Mapping):
                if "finalized" in status:
                    return str(status["finalized"])
                if _ENDED & status.keys():
                    return None
            elif status in _ENDED or rest <= 0:
                return None
            elif status is None:
                # Silent: a node that is gone does not answer this either.
                self._rpc.request("system_health", timeout_seconds=self._silence_seconds)

    def _resolve(self, signed: _Signed, deadline: float) -> Included:
        """Find out what became of an extrinsic; the rules are numbered in the module's text."""
        seen = signed.birth
        while True:
            with contextlib.suppress(ChainUnavailableError, RpcError):
                head = self._heads.finalized
                for number in range(seen + 1, head.number + 1):
                    block_hash = self._rpc.request("chain_getBlockHash", number)
                    found = self._included(signed, str(block_hash))
                    if found is not None:
                        return found  # 1.
                    seen = number
                if self.nonce_at(signed.account, head.hash) > signed.nonce:
                    raise _NeverIncludedError  # 2.
                if head.number > signed.birth + ERA_BLOCKS:
                    raise _NeverIncludedError  # 3.
                self._rpc.request("author_submitExtrinsic", signed.hex)  # 4.
            if time.monotonic() >= deadline:
                raise ChainUnavailableError(
                    f"nothing is known of transaction {signed.nonce} of account"
                    f" {to_ss58(signed.account)}; it may take effect until block"
                    f" {signed.birth + ERA_BLOCKS}"
                )
            self._pause(seen, deadline)

    def _pause(self, seen: int, deadline: float) -> None:
        """Wait for the next finalized block, or a moment when nobody would tell of one."""
        begun = time.monotonic()
        rest = deadline - begun
        if not self._heads.wait_beyond(seen, min(rest, 1.0)):
            time.sleep(max(0.0, min(rest, 0.25) - (time.monotonic() - begun)))

    def _included(self, signed: _Signed, block_hash: str) -> Included | None:
        header, extrinsics = read_block(self._rpc.request("chain_getBlock", block_hash))
        if signed.data not in extrinsics:
            return None
        return Included(header=header, extrinsics=extrinsics, index=extrinsics.index(signed.data))


def read_block(value: object) -> tuple[Header, tuple[bytes, ...]]:
    """
    Return a block's header and its extrinsics, as they are encoded.

    Raises:
        ChainUnavailableError: The node does not have the block.
        ChainMismatchError: It is not a block.
    """
    if value is None:
        raise ChainUnavailableError("the node does not have the block that it told of")
    try:
        block = value["block"] if isinstance(value, Mapping) else {}
        extrinsics: Sequence[str] = block["extrinsics"]
        header = parse_header(block["header"])
        return header, tuple(bytes.fromhex(extrinsic[2:]) for extrinsic in extrinsics)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ChainMismatchError("the node sent a block of unknown form") from error
