"""
Runs contract code: one instance per call, in wasmtime, with a limit on how long it may run.

Fuel limits the code itself, and `chain.host` what the host does for it, which costs no fuel.

Compiled code is kept per process, by code hash.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from threading import Lock
from typing import Literal

from wasmtime import (
    Caller,
    Config,
    Engine,
    Func,
    FuncType,
    Limits,
    Linker,
    Memory,
    MemoryType,
    Module,
    Store,
    Trap,
    TrapCode,
    ValType,
    WasmtimeError,
)

from orchestrator.chain.host import (
    HOST_FUNCTIONS,
    HOST_SIGNATURES,
    REVERT,
    Frame,
    HostFunction,
    Unwind,
)
from orchestrator.chain.wasm import check_code
from orchestrator.errors import (
    ChainMismatchError,
    ChainUnavailableError,
    ContractTrappedError,
    InputError,
)

__all__ = ["FUEL_LIMIT", "Call", "Machine", "Outcome", "check"]

# The dearest message of the contract (complete_jobs with ten items) burns about a thousandth of
# this; an endless loop ends after about a second.
FUEL_LIMIT = 1_000_000_000

_MAX_COMPILED = 16
_compiled: dict[bytes, "_Compiled"] = {}
_compiling = Lock()


@dataclass(frozen=True)
class _Compiled:
    module: Module
    memory: MemoryType


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a call is told: see `Frame` for the two functions."""

    label: str
    account: bytes
    caller: bytes
    timestamp: int
    input: bytes
    read_cell: Callable[[bytes], bytes | None]
    has_code: Callable[[bytes], bool]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a call that returned did; nothing is to be kept of it when it reverted."""

    reverted: bool
    output: bytes
    cells: dict[bytes, bytes | None]
    events: list[tuple[tuple[bytes, ...], bytes]]
    new_code: bytes | None


@cache
def _engine() -> Engine:
    config = Config()
    config.consume_fuel = True
    config.wasm_multi_value = False
    config.wasm_simd = False
    config.wasm_relaxed_simd = False
    config.wasm_tail_call = False
    config.wasm_multi_memory = False
    config.wasm_memory64 = False
    # `Frame.place` keeps the address of a memory while it grows.
    config.memory_may_move = False
    # Compiling takes some ten milliseconds: no reason to start threads in every process.
    config.parallel_compilation = False
    return Engine(config)


def check(code: bytes) -> None:
    """
    Refuse code that a contracts chain would refuse.

    Raises:
        InputError: The code is refused; the message says why.
    """
    check_code(code, HOST_SIGNATURES)
    try:
        Module.validate(_engine(), code)
    except WasmtimeError as error:
        message = f"code: {error}"
        raise InputError(message) from error


def _build(code_hash: bytes, code: bytes) -> _Compiled:
    if blake2b(code, digest_size=32).digest() != code_hash:
        message = f"the chain holds other code than that of hash 0x{code_hash.hex()}"
        raise ChainMismatchError(message)
    shape = check_code(code, HOST_SIGNATURES)
    memory = MemoryType(Limits(shape.memory_minimum, shape.memory_maximum))
    return _Compiled(Module(_engine(), code), memory)


def _compile(code_hash: bytes, load: Callable[[], bytes]) -> _Compiled:
    with _compiling:
        found = _compiled.get(code_hash)
        if found is None:
            found = _build(code_hash, load())
            if len(_compiled) >= _MAX_COMPILED:
                _compiled.pop(next(iter(_compiled)))
            _compiled[code_hash] = found
        return found


class Machine:
    """
    Runs one call at a time.

    The host's functions are defined once and find the running call's frame here; they must not
    hold a store (wasmtime would never free it).
    """

    def __init__(self) -> None:
        self._linker = Linker(_engine())
        self._linker.allow_shadowing = True
        self._frame: Frame | None = None
        for (module, name), function in HOST_FUNCTIONS.items():
            kind = FuncType(
                [ValType.i32()] * function.parameters, [ValType.i32()] * function.results
            )
            run = self._bind(function)
            self._linker.define_func(module, name, kind, run, access_caller=True)

    def run(
        self,
        entry: Literal["call", "deploy"],
        call: Call,
        *,
        code_hash: bytes,
        load: Callable[[], bytes],
    ) -> Outcome:
        """
        Run the code's *entry*; *load* gives the code when it is not compiled yet.

        Raises:
            ContractTrappedError: The code trapped, or ran or made the host work for too long.
            ChainMismatchError: The code that was loaded has another hash.
            ChainUnavailableError: There is no memory for the contract.
        """
        compiled = _compile(code_hash, load)
        store = Store(_engine())
        try:
            store.set_fuel(FUEL_LIMIT)
            memory = _memory(store, compiled.memory)
            self._linker.define(store, "env", "memory", memory)
            frame = Frame(
                account=call.account,
                caller=call.caller,
                timestamp=call.timestamp,
                input=call.input,
                read_cell=call.read_cell,
                has_code=call.has_code,
                memory=memory,
            )
            self._frame = frame
            self._enter(store, compiled.module, entry, frame, call.label)
        finally:
            self._frame = None
            store.close()
        return Outcome(
            reverted=bool(frame.flags & REVERT),
            output=frame.output,
            cells=frame.changes(),
            events=frame.events,
            new_code=frame.new_code,
        )

    def _enter(self, store: Store, module: Module, entry: str, frame: Frame, label: str) -> None:
        """
        Run the code until it returns, unwinds or traps.

        wasmtime-py keeps what a host function raised in a global that threads share, so an
        exception here may be another thread's. Only the frame says how this call ended.
        """
        reason = None
        try:
            run = self._linker.instantiate(store, module).exports(store)[entry]
            assert isinstance(run, Func)  # noqa: S101 - `check_code` saw that it is a function
            run(store)
        except (Unwind, Trap, WasmtimeError) as error:
            reason = _reason(error)
        if frame.failure is not None:
            raise frame.failure
        if frame.is_unwound:
            reason = frame.trap
        if reason is not None:
            message = f"{label} trapped: {reason}"
            raise ContractTrappedError(message)

    def _bind(self, function: HostFunction) -> Callable[..., int | None]:
        run, work = function.run, function.work

        def bound(caller: Caller, *arguments: int) -> int | None:
            frame = self._frame
            assert frame is not None  # noqa: S101 - `run` sets it around every entry
            try:
                frame.spend(work)
                return run(frame, caller, *arguments)
            except Unwind:
                frame.is_unwound = True
                raise
            except BaseException as error:
                frame.failure = error
                raise Unwind from error

        return bound


def _memory(store: Store, kind: MemoryType) -> Memory:
    try:
        return Memory(store, kind)
    except WasmtimeError as error:
        # An address space limit (RLIMIT_AS) below some GiB is one reason.
        message = f"no memory to run the contract in: {error}"
        raise ChainUnavailableError(message) from error


def _reason(error: Exception) -> str:
    code = error.trap_code if isinstance(error, Trap) else None
    if code is TrapCode.OUT_OF_FUEL:
        return f"OutOfGas: it ran for more than {FUEL_LIMIT} units of fuel"
    detail = code.name.lower().replace("_", " ") if code else "the code could not be run"
    return f"ContractTrapped: {detail}"
