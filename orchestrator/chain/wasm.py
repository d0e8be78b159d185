"""
What pallet-contracts 38 checks of a contract's code before it is stored.

WebAssembly 1.0 with sign extension and nothing else: no floats (they are not deterministic), no
bulk memory, no several results, no SIMD, no tail calls. Imports are functions that the host has
and one memory of at most 16 pages; exports are exactly the functions `call` and `deploy`, which
take and return nothing. Whether the code is valid WebAssembly otherwise (types, stack) is the
engine's to check.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

from orchestrator.errors import InputError

__all__ = ["MAX_CODE_BYTES", "MAX_MEMORY_PAGES", "CodeShape", "HostSignature", "check_code"]

# pallet-contracts: `MaxCodeLen` of substrate-contracts-node 0.42, and `Limits` of schedule.rs.
MAX_CODE_BYTES = 256 * 1024
MAX_MEMORY_PAGES = 16

I32, I64 = 0x7F, 0x7E
_INTEGERS = (I32, I64)
_EMPTY_BLOCK = 0x40

_MAGIC = b"\0asm\1\0\0\0"
_CUSTOM, _TYPE, _IMPORT, _FUNCTION, _TABLE, _MEMORY, _GLOBAL, _EXPORT = range(8)
_START, _ELEMENT, _CODE, _DATA = 8, 9, 10, 11
_KIND_FUNCTION, _KIND_MEMORY = 0, 2
_FUNCTION_TYPE = 0x60
_FUNCTION_REFERENCE = 0x70
_MAX_SHIFT = 63

# How many LEB128 immediates follow each opcode of WebAssembly 1.0; absent ones are refused.
_IMMEDIATES: Mapping[int, int] = {
    **dict.fromkeys([0x00, 0x01, 0x05, 0x0B, 0x0F, 0x1A, 0x1B], 0),
    **dict.fromkeys([0x0C, 0x0D, 0x10], 1),
    0x11: 2,
    **dict.fromkeys(range(0x20, 0x25), 1),
    **dict.fromkeys([0x28, 0x29, *range(0x2C, 0x38), *range(0x3A, 0x3F)], 2),
    **dict.fromkeys([0x3F, 0x40, 0x41, 0x42], 1),
    **dict.fromkeys(range(0x45, 0x5B), 0),
    **dict.fromkeys(range(0x67, 0x8B), 0),
    **dict.fromkeys([0xA7, 0xAC, 0xAD], 0),
    **dict.fromkeys(range(0xC0, 0xC5), 0),
}
_BLOCKS = (0x02, 0x03, 0x04)
_BR_TABLE = 0x0E
_FLOATS = frozenset(
    [
        *(0x2A, 0x2B, 0x38, 0x39, 0x43, 0x44),
        *range(0x5B, 0x67),
        *range(0x8B, 0xA7),
        *range(0xA8, 0xAC),
        *range(0xAE, 0xC0),
    ]
)

HostSignature = tuple[tuple[int, ...], tuple[int, ...]]


@dataclass(frozen=True, kw_only=True)
class CodeShape:
    """What the code imports: host functions by module and name, and its memory's size in pages."""

    functions: tuple[tuple[str, str], ...]
    memory_minimum: int
    memory_maximum: int


@dataclass
class _Module:
    types: list[HostSignature] = field(default_factory=list)
    imports: list[tuple[str, str]] = field(default_factory=list)
    functions: list[int] = field(default_factory=list)
    memory: tuple[int, int] | None = None
    has_table: bool = False
    exports: dict[str, int] = field(default_factory=dict)


class _Reader:
    """Reads WebAssembly's binary format; running off the end is refused code."""

    def __init__(self, data: bytes, start: int, end: int) -> None:
        self.data = data
        self.at = start
        self.end = end

    def byte(self) -> int:
        if self.at >= self.end:
            refuse("a section or function ends too early")
        self.at += 1
        return self.data[self.at - 1]

    def number(self) -> int:
        """Read an unsigned LEB128 integer (the engine checks its width and form)."""
        value = shift = 0
        while True:
            byte = self.byte()
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value
            if shift > _MAX_SHIFT:
                refuse("an integer of more than 64 bits")

    def take(self) -> "_Reader":
        """Read a length and return a reader of that many bytes."""
        length = self.number()
        if self.at + length > self.end:
            refuse("a section or function is longer than the code")
        inner = _Reader(self.data, self.at, self.at + length)
        self.at += length
        return inner

    def text(self) -> str:
        inner = self.take()
        return self.data[inner.at : inner.end].decode("utf-8", "replace")


def refuse(reason: str) -> NoReturn:
    """Refuse the code."""
    message = f"code: {reason}"
    raise InputError(message)


def check_code(code: bytes, host: Mapping[tuple[str, str], HostSignature]) -> CodeShape:
    """
    Return what *code* imports once it is shown to be a contract that *host* can run.

    Raises:
        InputError: The code is refused; the message says why.
    """
    if len(code) > MAX_CODE_BYTES:
        refuse(f"{len(code)} bytes, more than {MAX_CODE_BYTES}")
    if not code.startswith(_MAGIC):
        refuse("not WebAssembly of version 1")
    module = _Module()
    reader = _Reader(code, len(_MAGIC), len(code))
    while reader.at < reader.end:
        section = reader.byte()
        _check_section(section, reader.take(), module)
    _check_imports(module, host)
    _check_exports(module)
    minimum, maximum = module.memory or (0, MAX_MEMORY_PAGES)
    return CodeShape(
        functions=tuple(module.imports), memory_minimum=minimum, memory_maximum=maximum
    )


def _check_section(section: int, reader: _Reader, module: _Module) -> None:
    if section in _FORBIDDEN:
        refuse(_FORBIDDEN[section])
    if section in _UNCHECKED:
        return
    check = _ITEMS.get(section)
    if check is None:
        refuse(f"a section of kind {section}, which is not of WebAssembly 1.0")
    for _ in range(reader.number()):
        check(reader, module)


def _type(reader: _Reader, module: _Module) -> None:
    if reader.byte() != _FUNCTION_TYPE:
        refuse("a type that is not of a function")
    parameters = tuple(_value_type(reader) for _ in range(reader.number()))
    results = tuple(_value_type(reader) for _ in range(reader.number()))
    if len(results) > 1:
        refuse("a function with more than one result")
    module.types.append((parameters, results))


def _function(reader: _Reader, module: _Module) -> None:
    module.functions.append(reader.number())


def _table(reader: _Reader, module: _Module) -> None:
    if module.has_table or reader.byte() != _FUNCTION_REFERENCE:
        refuse("a table that is not the one of functions")
    module.has_table = True
    limits = reader.byte()
    for _ in range(1 + (limits & 1)):
        reader.number()


def _global(reader: _Reader, _module: _Module) -> None:
    _value_type(reader)
    reader.byte()
    _constant(reader)


def _value_type(reader: _Reader) -> int:
    found = reader.byte()
    if found in (0x7C, 0x7D):
        refuse("floats are not deterministic and not allowed")
    if found not in _INTEGERS:
        refuse(f"a value type 0x{found:02x}, which is not of WebAssembly 1.0")
    return found


def _import(reader: _Reader, module: _Module) -> None:
    where, name, kind = reader.text(), reader.text(), reader.byte()
    if kind == _KIND_FUNCTION:
        module.imports.append((where, name))
        module.functions.append(reader.number())
    elif kind == _KIND_MEMORY and (where, name) == ("env", "memory") and module.memory is None:
        limits = reader.byte()
        minimum = reader.number()
        maximum = reader.number() if limits & 1 else MAX_MEMORY_PAGES
        if limits > 1 or maximum > MAX_MEMORY_PAGES or minimum > maximum:
            refuse(f"a memory of {minimum} to {maximum} pages; at most {MAX_MEMORY_PAGES}")
        module.memory = (minimum, maximum)
    else:
        refuse(f"it imports {where}.{name}, which is neither a function nor the memory")


def _export(reader: _Reader, module: _Module) -> None:
    name, kind, index = reader.text(), reader.byte(), reader.number()
    if kind != _KIND_FUNCTION or name not in ("call", "deploy"):
        refuse(f"it exports {name}; only the functions call and deploy may be exported")
    module.exports[name] = index


def _check_imports(module: _Module, host: Mapping[tuple[str, str], HostSignature]) -> None:
    for (where, name), kind in zip(module.imports, module.functions, strict=False):
        expected = host.get((where, name))
        if expected is None:
            refuse(f"it imports {where}.{name}, a host function that this chain does not have")
        elif kind >= len(module.types) or module.types[kind] != expected:
            refuse(f"it imports {where}.{name} with another type than the host's")


def _check_exports(module: _Module) -> None:
    for name in ("call", "deploy"):
        index = module.exports.get(name)
        if index is None:
            refuse(f"it does not export {name}")
        elif (
            not len(module.imports) <= index < len(module.functions)
            or module.functions[index] >= len(module.types)
            or module.types[module.functions[index]] != ((), ())
        ):
            refuse(f"its export {name} is not a function of its own without arguments and results")


def _constant(reader: _Reader) -> None:
    """Check an initialiser: one constant or `global.get`, then `end`."""
    if reader.byte() not in (0x41, 0x42, 0x23):
        refuse("a global that is not initialised by one integer")
    reader.number()
    if reader.byte() != 0x0B:
        refuse("a global that is not initialised by one integer")


def _body(code: _Reader, _module: _Module) -> None:
    reader = code.take()
    for _ in range(reader.number()):
        reader.number()
        _value_type(reader)
    while reader.at < reader.end:
        opcode = reader.byte()
        immediates = _IMMEDIATES.get(opcode)
        if immediates is not None:
            for _ in range(immediates):
                reader.number()
        elif opcode in _BLOCKS:
            if reader.byte() not in (_EMPTY_BLOCK, *_INTEGERS):
                refuse("a block with a result that is a float, or with several results")
        elif opcode == _BR_TABLE:
            for _ in range(reader.number() + 1):
                reader.number()
        elif opcode in _FLOATS:
            refuse("floats are not deterministic and not allowed")
        else:
            refuse(f"an instruction 0x{opcode:02x}, which is not of WebAssembly 1.0")


_FORBIDDEN: Mapping[int, str] = {
    _MEMORY: "a memory of its own; it has to be imported as env.memory",
    _START: "a start function",
}
_UNCHECKED = (_CUSTOM, _ELEMENT, _DATA)
_ITEMS: Mapping[int, Callable[[_Reader, _Module], None]] = {
    _TYPE: _type,
    _IMPORT: _import,
    _FUNCTION: _function,
    _TABLE: _table,
    _GLOBAL: _global,
    _EXPORT: _export,
    _CODE: _body,
}
