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
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from orchestrator.chain.answers import at_key, hash_of, hex_bytes, hex_text
from orchestrator.chain.heads import Header, parse_header
from orchestrator.chain.link import RpcError, Subscription
from orchestrator.chain.node import Node
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
_SIGNED_ANEW = 4
_LONGEST_PAUSE_SECONDS = 5.0
# How often it is asked what nobody tells.
_POLL_SECONDS = 5.0
# JSON-RPC error codes of the author methods (sc-rpc).
_INVALID, _BANNED, _ALREADY_IMPORTED, _TOO_LOW_PRIORITY, _DROPPED = 1010, 1012, 1013, 1014, 1016
_REFUSED_NOW = frozenset({_BANNED, _DROPPED})
# The node gave its word on an extrinsic that it will say no more about.
_ENDED = frozenset({"dropped", "invalid", "usurped", "finalityTimeout"})


@dataclass(frozen=True, kw_only=True)
class Included:
    """
    Where an extrinsic is: a finalized block, all its extrinsics, and which one it is.

    `runtime` is the one that it was signed for, and so the one that made the block.
    """

    header: Header
    extrinsics: tuple[bytes, ...]
    index: int
    runtime: Runtime


class _NeverIncludedError(Exception):
    """The extrinsic takes no effect ever; it may be signed and sent anew."""


@dataclass
class _Sequence:
    """The nonces of one account, for all connections of this process to one node."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    next: int = 0
    doubts: int = 0  # how often `next` had to be read anew
    # What was given up: by its nonce, the last block that it may be in.
    given_up: dict[int, int] = field(default_factory=dict)


_sequences: dict[tuple[str, bytes, bytes], _Sequence] = {}


@dataclass(frozen=True, kw_only=True)
class _Signed:
    """An extrinsic as it was sent."""

    data: bytes
    account: bytes
    nonce: int
    birth: int
    runtime: Runtime


class Sender:
    """Signs, sends, and follows extrinsics to finality, for at most *finality_seconds* each."""

    def __init__(self, node: Node, *, finality_seconds: float) -> None:
        self._node = node
        self._rpc = node.rpc
        self._heads = node.heads
        self._finality_seconds = finality_seconds
        self._seeded: dict[bytes, tuple[int, int]] = {}

    def send(self, call: Call, *, signer: Account) -> Included:
        """
        Return where the extrinsic is, once it is final.

        Raises:
            InsufficientFundsError: The account can't pay; nothing was sent.
            TooHeavyError: It does not fit into a block; nothing was sent.
            ChainUnavailableError: Nothing is known; what was sent may still take effect.
            ChainError: The node refuses it; nothing was sent.
        """
        deadline = time.monotonic() + self._finality_seconds
        for _ in range(_ATTEMPTS):
            signed, watch = self._submit(call, signer, deadline)
            try:
                return self._follow(signed, watch, deadline)
            except _NeverIncludedError:
                # Another one used the nonce, or the era is over.
                self._forget_nonce(signer.account_id)
            except ChainUnavailableError:
                # If it never arrived, those after it wait for its nonce.
                sequence = self._forget_nonce(signer.account_id)
                sequence.given_up[signed.nonce] = signed.birth + ERA_BLOCKS
                raise
        raise ChainUnavailableError(
            f"account {to_ss58(signer.account_id)}: others keep using its nonces; nothing was sent"
        )

    def wait_for_pending(self, account_id: bytes, *, timeout_seconds: float) -> None:
        """Return once every nonce that the account has used is in a finalized block."""
        deadline = time.monotonic() + timeout_seconds
        used = self._next_nonce(account_id)
        while True:
            head = self._heads.finalized
            if self.nonce_at(account_id, head.hash) >= used:
                return
            rest = deadline - time.monotonic()
            if rest <= 0:
                raise ChainUnavailableError(
                    f"account {to_ss58(account_id)} has transactions on their way for more than"
                    f" {timeout_seconds:g} s"
                )
            self._heads.wait_beyond(head.number, min(rest, _POLL_SECONDS))
            # Fewer when a pool has dropped some; what was sent since then is not waited for.
            used = min(used, self._next_nonce(account_id))

    def start_anew(self, account_id: bytes) -> int:
        """Let the next transaction take the first nonce that is free; return the finalized one."""
        self._forget_nonce(account_id)
        return self.nonce_at(account_id, self._heads.finalized.hash)

    def is_settled(self, account_id: bytes, nonce: int) -> bool:
        """
        Say whether *nonce* is the finalized one, and nothing that was given up may yet be included.

        That may be while neither its nonce is used nor its era over.
        """
        head = self._heads.finalized
        now = self.nonce_at(account_id, head.hash)
        given_up = self._sequence(account_id).given_up
        for used, last in list(given_up.items()):
            if used < now or last < head.number:
                given_up.pop(used, None)
        return not given_up and now == nonce

    def nonce_at(self, account_id: bytes, block_hash: bytes) -> int:
        """Return the account's nonce after a block."""
        runtime = self._node.runtime()
        key = runtime.storage_key("System", "Account", account_id)
        found = self._rpc.request("state_getStorage", key, hex_text(block_hash))
        if found is None:
            return 0
        value = runtime.decode_storage("System", "Account", hex_bytes(found, "an account"))
        nonce = value.get("nonce") if isinstance(value, Mapping) else None
        if not isinstance(nonce, int):
            raise ChainMismatchError("the runtime's accounts have no nonce")
        return nonce

    # Sending.

    def _submit(self, call: Call, signer: Account, deadline: float) -> tuple[_Signed, Subscription]:
        """Return the extrinsic that the node took, or may have taken."""
        account = signer.account_id
        sequence = self._sequence(account)
        refusal: RpcError | None = None
        for attempt in range(_ATTEMPTS):
            with _held(sequence, account, deadline):
                signed = self._sign(call, signer, sequence)
                watch, refusal = self._offer(signed)
                if refusal is not None and self._is_used(signed):
                    # By others, or by this one all the same: `_follow` finds out.
                    self._forget_nonce(account)
                    watch.end()
                    return signed, watch
                if refusal is None:
                    sequence.next = signed.nonce + 1
                    return signed, watch
            self._forget_nonce(account)
            self._judge(refusal, account, attempt)
            # A nonce or a runtime is read anew at once; a pool takes its time.
            wants_time = refusal.code in _REFUSED_NOW or (attempt and _is_badly_signed(refusal))
            if wants_time and not self._has_paused(deadline, attempt):
                break
        raise ChainUnavailableError(
            f"account {to_ss58(account)}: nothing was sent: {refusal}"
        ) from refusal

    def _offer(self, signed: _Signed) -> tuple[Subscription, RpcError | None]:
        """Return what follows, and why the node's pool does not have it."""
        watch = Subscription()
        try:
            self._rpc.request_once(
                "author_submitAndWatchExtrinsic", hex_text(signed.data), into=watch
            )
        except RpcError as error:
            if error.code != _ALREADY_IMPORTED:
                return watch, error
            watch.end()
        except ChainUnavailableError:
            watch.end()  # it may have arrived: `_follow` finds out
        return watch, None

    def _sign(self, call: Call, signer: Account, sequence: _Sequence) -> _Signed:
        account = signer.account_id
        # A node that was restarted may have lost what its pool had.
        state = (self._rpc.generation, sequence.doubts)
        if self._seeded.get(account) != state:
            sequence.next = self._next_nonce(account)
            self._seeded[account] = state
        best, final = self._heads.best, self._heads.finalized
        # A block that is final can't be taken back, one that is too old makes the era short.
        last = final if best.number - final.number <= ERA_BLOCKS // 4 else best
        # Its parent: a node tells of a block before its pool has taken note of it, and a pool at
        # an earlier block than the era's first counts the era before, and finds the signature bad.
        birth = Mortality(number=last.number, hash=last.hash)
        if last.number > 0:
            birth = Mortality(number=last.number - 1, hash=last.parent)
        runtime = self._node.runtime()
        return _Signed(
            data=runtime.sign(call, signer=signer, nonce=sequence.next, mortality=birth),
            account=account,
            nonce=sequence.next,
            birth=birth.number,
            runtime=runtime,
        )

    def _judge(self, error: RpcError, account: bytes, attempt: int) -> None:
        """Return when another attempt makes sense; nothing was taken."""
        if error.code == _TOO_LOW_PRIORITY or error.code in _REFUSED_NOW:
            return
        text = error.text if error.code == _INVALID else ""
        if "outdated" in text:
            return
        if _is_badly_signed(error) and attempt < _SIGNED_ANEW:
            # The runtime has changed, or the block that the era begins at is gone.
            self._node.note_version(None)
            return
        if "exhaust" in text:
            raise TooHeavyError(f"nothing was sent: {error}") from error
        if "pay some fees" in text:
            raise InsufficientFundsError(
                f"account {to_ss58(account)} can't pay the fee; nothing was sent"
            ) from error
        raise ChainError(f"nothing was sent: {error}") from error

    def _has_paused(self, deadline: float, attempt: int) -> bool:
        """Pause before another attempt, if there is time for one."""
        seconds = min(_LONGEST_PAUSE_SECONDS, 0.25 * 2**attempt)
        if attempt == _ATTEMPTS - 1 or time.monotonic() + seconds > deadline:
            return False
        self._rpc.pause(seconds)
        return True

    def _next_nonce(self, account: bytes) -> int:
        found = self._rpc.request("system_accountNextIndex", to_ss58(account))
        if not isinstance(found, int) or not 0 <= found < 1 << 32:
            raise ChainMismatchError("the node sent a nonce that is not of 32 bits")
        return found

    def _sequence(self, account: bytes) -> _Sequence:
        # Chains of one genesis may differ: each development node has its own.
        key = (self._rpc.url, self._node.genesis_hash, account)
        return _sequences.setdefault(key, _Sequence())

    def _forget_nonce(self, account: bytes) -> _Sequence:
        sequence = self._sequence(account)
        sequence.doubts += 1
        return sequence

    def _is_used(self, signed: _Signed) -> bool:
        """Say whether the node has a transaction of that nonce, as far as it can be asked."""
        try:
            return self._next_nonce(signed.account) > signed.nonce
        except ChainUnavailableError:
            return True

    # Following.

    def _follow(self, signed: _Signed, watch: Subscription, deadline: float) -> Included:
        with contextlib.suppress(ChainError):
            block_hash = self._watch(watch, deadline)
            if block_hash is not None:
                found = self._included(signed, block_hash)
                if found is not None:
                    self._heads.note_finalized(found.header)
                    return found
        return self._resolve(signed, deadline)

    def _watch(self, watch: Subscription, deadline: float) -> bytes | None:
        """Return the finalized block as the node tells it, `None` when it tells something else."""
        while (rest := deadline - time.monotonic()) > 0:
            status = watch.get(rest)
            names = set(status) if isinstance(status, Mapping) else {str(status)}
            if "finalized" in names:
                self._rpc.forget(watch)
                return hash_of(at_key(status, "finalized", "a status"), "a block's hash")
            if _ENDED & names:
                self._rpc.forget(watch)
                return None
        self._rpc.unsubscribe("author_unwatchExtrinsic", watch)
        return None

    def _resolve(self, signed: _Signed, deadline: float) -> Included:
        """Find out what became of an extrinsic; the rules are numbered in the module's text."""
        seen = signed.birth
        reason = ""
        while True:
            try:
                head = self._heads.finalized
                # No later block can hold it, however high the node says that its chain is.
                for number in range(seen + 1, min(head.number, signed.birth + ERA_BLOCKS) + 1):
                    found = self._included(signed, self._hash_at(number))
                    if found is not None:
                        return found  # 1.
                    seen = number
                if self.nonce_at(signed.account, head.hash) > signed.nonce:
                    raise _NeverIncludedError  # 2.
                if head.number > signed.birth + ERA_BLOCKS:
                    raise _NeverIncludedError  # 3.
                self._rpc.request("author_submitExtrinsic", hex_text(signed.data))  # 4.
            except ChainError as error:
                reason = f" ({error})"  # nothing that a node says or does not say ends the doubt
            if time.monotonic() >= deadline:
                raise ChainUnavailableError(
                    f"nothing is known of transaction {signed.nonce} of account"
                    f" {to_ss58(signed.account)}; it may take effect until block"
                    f" {signed.birth + ERA_BLOCKS}{reason}"
                )
            self._wait_for_more(seen, deadline)

    def _wait_for_more(self, seen: int, deadline: float) -> None:
        """Wait for the next finalized block, or a moment when nobody would tell of one."""
        begun = time.monotonic()
        rest = deadline - begun
        if not self._heads.wait_beyond(seen, min(rest, 1.0)):
            self._rpc.pause(min(rest, 0.25) - (time.monotonic() - begun))

    def _hash_at(self, number: int) -> bytes:
        return hash_of(self._rpc.request("chain_getBlockHash", number), "a block's hash")

    def _included(self, signed: _Signed, block_hash: bytes) -> Included | None:
        header, extrinsics = read_block(self._rpc.request("chain_getBlock", hex_text(block_hash)))
        if header.hash != block_hash:
            raise ChainMismatchError("the node sent another block than was asked for")
        if signed.data not in extrinsics:
            return None
        return Included(
            header=header,
            extrinsics=extrinsics,
            index=extrinsics.index(signed.data),
            runtime=signed.runtime,
        )


@contextlib.contextmanager
def _held(sequence: _Sequence, account: bytes, deadline: float) -> Iterator[None]:
    """Let one thread sign and send for an account."""
    if not sequence.lock.acquire(timeout=max(0.0, deadline - time.monotonic())):
        raise ChainUnavailableError(
            f"account {to_ss58(account)}: nothing was sent: others are being sent for too long"
        )
    try:
        yield
    finally:
        sequence.lock.release()


def _is_badly_signed(error: RpcError) -> bool:
    words = ("bad signature", "ancient birth")
    return error.code == _INVALID and any(word in error.text for word in words)


def read_block(value: object) -> tuple[Header, tuple[bytes, ...]]:
    """
    Return a block's header and its extrinsics, as they are encoded.

    Raises:
        ChainUnavailableError: The node does not have the block.
        ChainMismatchError: It is not a block.
    """
    if value is None:
        raise ChainUnavailableError("the node does not have the block that it told of")
    what = "a block"
    block = at_key(value, "block", what)
    extrinsics = at_key(block, "extrinsics", what)
    if not isinstance(extrinsics, list):
        raise ChainMismatchError("the node sent a block of unknown form")
    header = parse_header(at_key(block, "header", what))
    return header, tuple(hex_bytes(one, "an extrinsic") for one in extrinsics)
