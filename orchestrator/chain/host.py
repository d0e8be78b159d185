"""
The host functions that the contract imports, with the results and traps of pallet-contracts 38.

`HOST_FUNCTIONS` is all there is: code that imports anything else is refused when it is uploaded.
A `Frame` is one call of one contract: what it is told, what it changed so far. Nothing a frame
holds reaches the chain's state before the call has ended well.

What the host does for a call is limited, as a node limits it by gas, in two ways of our own: by
`WORK_LIMIT` how long it works, by `HELD_LIMIT` how much it keeps. Units are no node's gas.
"""

import ctypes
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import NoReturn

import sr25519
from coincurve import PublicKey as Secp256k1PublicKey
from wasmtime import Caller, Memory

from orchestrator.chain.scale import read_compact
from orchestrator.chain.wasm import I32, HostSignature
from orchestrator.errors import EncodingError

__all__ = [
    "HELD_LIMIT",
    "HOST_FUNCTIONS",
    "HOST_SIGNATURES",
    "WORK_LIMIT",
    "Frame",
    "HostFunction",
    "Unwind",
]

# A unit of work is about a nanosecond. The dearest messages of the contract (a payload of 12 KiB,
# ten completions, a page of fifty) take under a hundredth of it; a call that does nothing but make
# the host work ends after about a second.
WORK_LIMIT = 1_000_000_000
# Bytes of cells read and written and of events; a parachain's block may prove 5 MiB of storage.
HELD_LIMIT = 8 * 1024 * 1024
# What Python needs for the smallest cell or event.
_HELD_EACH = 256

_CALL_WORK = 20_000
_SIGNATURE_WORK = 80_000
# Besides the one unit for each byte that is copied.
_BLAKE2_BYTE_WORK = 2
_SR25519_BYTE_WORK = 4

# pallet-contracts 38, schedule.rs `Limits` and the node's `MaxStorageKeyLen`.
MAX_PAYLOAD_BYTES = 16 * 1024
MAX_KEY_BYTES = 128
MAX_TOPICS = 4

_TOPIC_BYTES = 32
_HASH_BYTES = 32
_UINT32 = 0xFFFFFFFF
_LENGTH_BYTES = 4

# pallet-contracts-uapi: `ReturnErrorCode`, and the size that stands for "there was nothing".
SUCCESS = 0
KEY_NOT_FOUND = 3
CODE_NOT_FOUND = 7
ECDSA_RECOVERY_FAILED = 11
SR25519_VERIFY_FAILED = 12
SENTINEL = _UINT32

REVERT = 1


class Unwind(Exception):  # noqa: N818 - not an error: a return is one, too
    """Leaves the WebAssembly code; the frame holds why."""


@dataclass(kw_only=True)
class Frame:
    """
    One call of one contract.

    `read_cell` reads a storage cell as it was before the call, `has_code` says whether a code hash
    was uploaded. The call's outcome is `flags` and `output` when it returned, `trap` when the host
    stopped it, `failure` when the host itself failed.
    """

    account: bytes
    caller: bytes
    timestamp: int
    input: bytes
    read_cell: Callable[[bytes], bytes | None]
    has_code: Callable[[bytes], bool]
    memory: Memory
    base: int = 0
    size: int = 0
    work: int = 0
    held: int = 0
    cells: dict[bytes, bytes | None] = field(default_factory=dict)
    seen: dict[bytes, bytes | None] = field(default_factory=dict)
    events: list[tuple[tuple[bytes, ...], bytes]] = field(default_factory=list)
    new_code: bytes | None = None
    flags: int = 0
    output: bytes = b""
    trap: str | None = None
    is_unwound: bool = False
    failure: BaseException | None = None

    def stop(self, reason: str) -> NoReturn:
        """Trap, as the pallet does; *reason* is the pallet's word and what exceeded what."""
        self.trap = reason
        raise Unwind

    def spend(self, work: int) -> None:
        """Count work of the host."""
        self.work += work
        if self.work > WORK_LIMIT:
            self.stop(f"OutOfGas: it made the host do more than {WORK_LIMIT} units of work")

    def hold(self, size: int) -> None:
        """Count bytes that are kept until the call has ended."""
        self.held += size + _HELD_EACH
        if self.held > HELD_LIMIT:
            self.stop(f"OutOfGas: its cells and events are more than {HELD_LIMIT} bytes")

    def place(self, caller: Caller, pointer: int, length: int) -> int:
        """Return the address of bytes of the contract's memory, which never moves."""
        pointer &= _UINT32
        if pointer + length > self.size:
            self.size = self.memory.data_len(caller)
            self.base = ctypes.addressof(self.memory.data_ptr(caller).contents)
            if pointer + length > self.size:
                self.stop(f"OutOfBounds: {length} bytes at {pointer}")
        self.spend(length)
        return self.base + pointer

    def load(self, caller: Caller, pointer: int, length: int) -> bytes:
        """Return bytes of the contract's memory."""
        length &= _UINT32
        return ctypes.string_at(self.place(caller, pointer, length), length)

    def store(self, caller: Caller, pointer: int, data: bytes) -> None:
        """Write bytes to the contract's memory."""
        ctypes.memmove(self.place(caller, pointer, len(data)), data, len(data))

    def give(self, caller: Caller, out: int, out_length: int, data: bytes) -> None:
        """Write *data* to the buffer at *out*, whose room is read from and length written there."""
        room = int.from_bytes(self.load(caller, out_length, _LENGTH_BYTES), "little")
        if room < len(data):
            self.stop(f"OutputBufferTooSmall: {len(data)} bytes for a buffer of {room}")
        self.store(caller, out, data)
        self.store(caller, out_length, len(data).to_bytes(_LENGTH_BYTES, "little"))

    def cell(self, key: bytes) -> bytes | None:
        """Return a storage cell as this call sees it."""
        if key not in self.seen:
            value = self.read_cell(key)
            self.hold(len(key) + len(value or b""))
            self.seen[key] = value
        return self.cells[key] if key in self.cells else self.seen[key]

    def changes(self) -> dict[bytes, bytes | None]:
        """Return the cells that differ from what they were before the call."""
        return {key: value for key, value in self.cells.items() if self.seen[key] != value}

    def key(self, caller: Caller, pointer: int, length: int) -> bytes:
        """Return a storage key of the contract's memory."""
        if length & _UINT32 > MAX_KEY_BYTES:
            self.stop(f"DecodingFailed: a key of {length & _UINT32} bytes, limit {MAX_KEY_BYTES}")
        return self.load(caller, pointer, length)


def _size(value: bytes | None) -> int:
    return SENTINEL if value is None else len(value)


def _input(frame: Frame, caller: Caller, out: int, out_length: int) -> None:
    frame.give(caller, out, out_length, frame.input)


def _seal_return(frame: Frame, caller: Caller, flags: int, data: int, length: int) -> None:
    frame.output = frame.load(caller, data, length)
    frame.flags = flags & _UINT32
    if frame.flags > REVERT:
        frame.stop(f"InvalidCallFlags: {frame.flags}")
    raise Unwind


def _caller(frame: Frame, caller: Caller, out: int, out_length: int) -> None:
    frame.give(caller, out, out_length, frame.caller)


def _address(frame: Frame, caller: Caller, out: int, out_length: int) -> None:
    frame.give(caller, out, out_length, frame.account)


def _now(frame: Frame, caller: Caller, out: int, out_length: int) -> None:
    frame.give(caller, out, out_length, frame.timestamp.to_bytes(8, "little"))


def _value_transferred(frame: Frame, caller: Caller, out: int, out_length: int) -> None:
    frame.give(caller, out, out_length, bytes(16))


def _get_storage(
    frame: Frame, caller: Caller, key: int, key_length: int, out: int, out_length: int
) -> int:
    value = frame.cell(frame.key(caller, key, key_length))
    if value is None:
        return KEY_NOT_FOUND
    frame.give(caller, out, out_length, value)
    return SUCCESS


def _contains_storage(frame: Frame, caller: Caller, key: int, key_length: int) -> int:
    return _size(frame.cell(frame.key(caller, key, key_length)))


def _clear_storage(frame: Frame, caller: Caller, key: int, key_length: int) -> int:
    name = frame.key(caller, key, key_length)
    old = frame.cell(name)
    frame.hold(len(name))
    frame.cells[name] = None
    return _size(old)


def _set_storage(
    frame: Frame, caller: Caller, key: int, key_length: int, value: int, value_length: int
) -> int:
    if value_length & _UINT32 > MAX_PAYLOAD_BYTES:
        length = value_length & _UINT32
        frame.stop(f"ValueTooLarge: a value of {length} bytes, limit {MAX_PAYLOAD_BYTES}")
    name = frame.key(caller, key, key_length)
    old = frame.cell(name)
    new = frame.load(caller, value, value_length)
    frame.hold(len(name) + len(new))
    frame.cells[name] = new
    return _size(old)


def _deposit_event(
    frame: Frame, caller: Caller, topics: int, topics_length: int, data: int, data_length: int
) -> None:
    if data_length & _UINT32 > MAX_PAYLOAD_BYTES:
        length = data_length & _UINT32
        frame.stop(f"ValueTooLarge: an event of {length} bytes, limit {MAX_PAYLOAD_BYTES}")
    names = _topics(frame, frame.load(caller, topics, topics_length))
    if len(names) > MAX_TOPICS:
        frame.stop(f"TooManyTopics: {len(names)} topics, limit {MAX_TOPICS}")
    event = frame.load(caller, data, data_length)
    frame.hold(_TOPIC_BYTES * len(names) + len(event))
    frame.events.append((names, event))


def _topics(frame: Frame, raw: bytes) -> tuple[bytes, ...]:
    """Decode `Vec<Hash>`; like the pallet, take no bytes for no topics."""
    if not raw:
        return ()
    try:
        count, start = read_compact(raw, 0)
    except EncodingError:
        frame.stop("DecodingFailed: the topics are not a list")
    if start + count * _TOPIC_BYTES != len(raw):
        frame.stop(f"DecodingFailed: {count} topics in {len(raw)} bytes")
    return tuple(
        raw[start + i * _TOPIC_BYTES : start + (i + 1) * _TOPIC_BYTES] for i in range(count)
    )


def _hash_blake2_256(frame: Frame, caller: Caller, data: int, length: int, out: int) -> None:
    text = frame.load(caller, data, length)
    frame.spend(_BLAKE2_BYTE_WORK * len(text))
    frame.store(caller, out, blake2b(text, digest_size=_HASH_BYTES).digest())


def _ecdsa_recover(frame: Frame, caller: Caller, signature: int, digest: int, out: int) -> int:
    raw = frame.load(caller, signature, 65)
    message = frame.load(caller, digest, _HASH_BYTES)
    # sp_io takes Ethereum's recovery ids, too: 27 and 28 stand for 0 and 1.
    recovery_id = raw[64] - 27 if raw[64] > 26 else raw[64]
    try:
        key = Secp256k1PublicKey.from_signature_and_message(
            raw[:64] + bytes([recovery_id]), message, hasher=None
        )
    except ValueError:
        return ECDSA_RECOVERY_FAILED
    frame.store(caller, out, key.format(compressed=True))
    return SUCCESS


def _sr25519_verify(
    frame: Frame, caller: Caller, signature: int, key: int, length: int, message: int
) -> int:
    raw = frame.load(caller, signature, 64)
    public_key = frame.load(caller, key, 32)
    text = frame.load(caller, message, length)
    frame.spend(_SR25519_BYTE_WORK * len(text))
    return SUCCESS if _is_sr25519(raw, text, public_key) else SR25519_VERIFY_FAILED


def _is_sr25519(signature: bytes, message: bytes, public_key: bytes) -> bool:
    try:
        return bool(sr25519.verify(signature, message, public_key))
    except (ValueError, TypeError):
        # The binding raises for bytes that are no signature or no point.
        return False


def _set_code_hash(frame: Frame, caller: Caller, code_hash: int) -> int:
    wanted = frame.load(caller, code_hash, _HASH_BYTES)
    if not frame.has_code(wanted):
        return CODE_NOT_FOUND
    frame.new_code = wanted
    return SUCCESS


@dataclass(frozen=True)
class HostFunction:
    """A host function: how many `i32` it takes and returns, what it does, and what work that is."""

    parameters: int
    results: int
    run: Callable[..., int | None]
    work: int = _CALL_WORK

    @property
    def signature(self) -> HostSignature:
        """The function's type."""
        return (I32,) * self.parameters, (I32,) * self.results


HOST_FUNCTIONS: Mapping[tuple[str, str], HostFunction] = {
    ("seal0", "address"): HostFunction(2, 0, _address),
    ("seal0", "caller"): HostFunction(2, 0, _caller),
    ("seal0", "deposit_event"): HostFunction(4, 0, _deposit_event),
    ("seal0", "ecdsa_recover"): HostFunction(3, 1, _ecdsa_recover, _SIGNATURE_WORK),
    ("seal0", "hash_blake2_256"): HostFunction(3, 0, _hash_blake2_256),
    ("seal0", "input"): HostFunction(2, 0, _input),
    ("seal0", "now"): HostFunction(2, 0, _now),
    ("seal0", "seal_return"): HostFunction(3, 0, _seal_return),
    ("seal0", "set_code_hash"): HostFunction(1, 1, _set_code_hash),
    ("seal0", "sr25519_verify"): HostFunction(4, 1, _sr25519_verify, _SIGNATURE_WORK),
    ("seal0", "value_transferred"): HostFunction(2, 0, _value_transferred),
    ("seal1", "clear_storage"): HostFunction(2, 1, _clear_storage),
    ("seal1", "contains_storage"): HostFunction(2, 1, _contains_storage),
    ("seal1", "get_storage"): HostFunction(4, 1, _get_storage),
    ("seal2", "set_storage"): HostFunction(4, 1, _set_storage),
}
HOST_SIGNATURES: Mapping[tuple[str, str], HostSignature] = {
    name: function.signature for name, function in HOST_FUNCTIONS.items()
}
