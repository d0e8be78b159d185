"""Code that a contracts chain would refuse is refused when it is uploaded."""

from collections.abc import Callable

import pytest
from wasmtime import wat2wasm

from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.host import HOST_SIGNATURES
from orchestrator.chain.machine import check
from orchestrator.chain.wasm import MAX_CODE_BYTES, check_code
from orchestrator.errors import InputError

MEMORY = '(import "env" "memory" (memory 2 16))'
CALL = '(func (export "call"))'
DEPLOY = '(func (export "deploy"))'


def module(*parts: str) -> bytes:
    return bytes(wat2wasm(f"(module {' '.join(parts)})"))


def body(instructions: str) -> bytes:
    return module(MEMORY, f'(func (export "call") {instructions})', DEPLOY)


def test_our_contract_is_accepted() -> None:
    check(load_bundle().code)


def test_what_the_code_imports() -> None:
    code = module('(import "seal0" "now" (func (param i32 i32)))', MEMORY, CALL, DEPLOY)

    shape = check_code(code, HOST_SIGNATURES)

    assert shape.functions == (("seal0", "now"),)
    assert (shape.memory_minimum, shape.memory_maximum) == (2, 16)


@pytest.mark.parametrize(
    "code",
    [
        module(CALL, DEPLOY),
        module('(import "env" "memory" (memory 1))', CALL, DEPLOY),
        module(MEMORY, CALL, DEPLOY, "(table 1 4 funcref)", "(elem (i32.const 0) 0)"),
        module(MEMORY, CALL, DEPLOY, "(table 1 funcref)"),
        module(MEMORY, CALL, DEPLOY, '(data (i32.const 0) "x")'),
        module(MEMORY, CALL, DEPLOY, "(global (mut i32) (i32.const 5))"),
        module(MEMORY, CALL, DEPLOY, "(global i64 (i64.const -5))"),
        body("(local i64 i32) (block (result i32) (loop (br 0)) i32.const 1) drop"),
        body("(block (block (br_table 0 1 0 (i32.const 1))))"),
        body("(drop (i32.extend8_s (i32.const 1)))"),
        body("(drop (i32.wrap_i64 (i64.extend_i32_u (i32.const 1))))"),
        body("(if (i32.const 1) (then return))"),
        body("(drop (memory.grow (i32.const 0)))"),
        body("(drop (select (i32.const 0) (i32.const 0) (i32.load8_s (i32.const 0))))"),
        body("(drop (i64.const -9223372036854775808))"),
    ],
)
def test_webassembly_1_is_accepted(code: bytes) -> None:
    check(code)


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (b"", "not WebAssembly of version 1"),
        (b"\0asm\2\0\0\0", "not WebAssembly of version 1"),
        (bytes(MAX_CODE_BYTES + 1), "262145 bytes, more than 262144"),
        (module(MEMORY, CALL), "it does not export deploy"),
        (module(MEMORY, DEPLOY), "it does not export call"),
        (
            module(MEMORY, CALL, DEPLOY, '(func (export "extra"))'),
            "it exports extra; only the functions call and deploy",
        ),
        (
            module(MEMORY, DEPLOY, '(global (export "call") i32 (i32.const 0))'),
            "it exports call; only the functions",
        ),
        (
            module(MEMORY, DEPLOY, '(func (export "call") (param i32))'),
            "its export call is not a function of its own without arguments",
        ),
        (
            module(MEMORY, DEPLOY, '(func (export "call") (result i32) i32.const 0)'),
            "its export call is not a function of its own without arguments",
        ),
        (
            module(
                '(import "seal0" "now" (func $now (param i32 i32)))',
                MEMORY,
                DEPLOY,
                '(export "call" (func $now))',
            ),
            "its export call is not a function of its own",
        ),
        (
            module('(import "seal0" "transfer" (func))', MEMORY, CALL, DEPLOY),
            "it imports seal0.transfer, a host function that this chain does not have",
        ),
        (
            module('(import "seal0" "now" (func))', MEMORY, CALL, DEPLOY),
            "it imports seal0.now with another type than the host's",
        ),
        (
            module('(import "env" "table" (table 1 funcref))', MEMORY, CALL, DEPLOY),
            "it imports env.table, which is neither a function nor the memory",
        ),
        (
            module('(import "env" "g" (global i32))', MEMORY, CALL, DEPLOY),
            "it imports env.g, which is neither",
        ),
        (
            module('(import "env" "mem" (memory 1))', CALL, DEPLOY),
            "it imports env.mem, which is neither",
        ),
        (module(MEMORY, MEMORY, CALL, DEPLOY), "it imports env.memory, which is neither"),
        (
            module('(import "env" "memory" (memory 1 17))', CALL, DEPLOY),
            "a memory of 1 to 17 pages; at most 16",
        ),
        (
            module('(import "env" "memory" (memory 17))', CALL, DEPLOY),
            "a memory of 17 to 16 pages",
        ),
        (
            module('(import "env" "memory" (memory i64 1 2))', CALL, DEPLOY),
            "a memory of 1 to 2 pages",
        ),
        (module("(memory 1)", CALL, DEPLOY), "a memory of its own"),
        (module(MEMORY, CALL, DEPLOY, "(start 0)"), "a start function"),
        (module(MEMORY, CALL, DEPLOY, "(table 1 externref)"), "a table that is not the one"),
        (
            module(MEMORY, CALL, DEPLOY, "(table 1 funcref) (table 1 funcref)"),
            "a table that is not the one",
        ),
        (
            module(MEMORY, CALL, DEPLOY, "(global f32 (f32.const 0))"),
            "floats are not deterministic",
        ),
        (
            module(MEMORY, CALL, DEPLOY, "(global i32 (i32.add (i32.const 0) (i32.const 1)))"),
            "a global that is not initialised by one integer",
        ),
        (
            module(MEMORY, CALL, DEPLOY, "(global i32 (f32.const 0))"),
            "a global that is not initialised by one integer",
        ),
        (
            module(MEMORY, CALL, DEPLOY, "(global funcref (ref.null func))"),
            "a value type 0x70",
        ),
        (module(MEMORY, CALL, DEPLOY, "(tag)"), "a section of kind 13"),
        (
            module(MEMORY, CALL, DEPLOY, "(func (result i32 i32) i32.const 0 i32.const 0)"),
            "a function with more than one result",
        ),
        (module(MEMORY, CALL, DEPLOY, "(type (struct))"), "a type that is not of a function"),
        (module(MEMORY, CALL, DEPLOY, "(func (param f64))"), "floats are not deterministic"),
        (body("(local f32)"), "floats are not deterministic"),
        (body("(drop (f64.const 1))"), "floats are not deterministic"),
        (body("(drop (i32.reinterpret_f32 (f32.const 1)))"), "floats are not deterministic"),
        (body("(drop (f32.load (i32.const 1)))"), "floats are not deterministic"),
        (body("(block (result f32) unreachable) drop"), "a block with a result that is a float"),
        (
            body("(i32.const 1) (block (param i32) drop)"),
            "a block with a result that is a float, or with several results",
        ),
        (
            body("(memory.fill (i32.const 0) (i32.const 0) (i32.const 0))"),
            "an instruction 0xfc, which is not of WebAssembly 1.0",
        ),
        (body("(drop (i8x16.splat (i32.const 0)))"), "an instruction 0xfd"),
        (body("(return_call 0)"), "an instruction 0x12"),
        (body("(drop (ref.is_null (ref.func 0)))"), "an instruction 0xd2"),
    ],
)
def test_other_code_is_refused(code: bytes, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        check(code)


def test_code_that_ends_too_early_is_refused() -> None:
    code = load_bundle().code

    for end in (9, 10, 20, 200, len(code) // 2, len(code) - 1):
        with pytest.raises(InputError):
            check(code[:end])


def test_an_endless_integer_is_refused() -> None:
    with pytest.raises(InputError, match="an integer of more than 64 bits"):
        check(b"\0asm\1\0\0\0\1" + b"\x80" * 100_000)


def test_a_section_longer_than_the_code_is_refused() -> None:
    with pytest.raises(InputError, match="longer than the code"):
        check(b"\0asm\1\0\0\0\1\x7f")


def test_code_that_is_not_valid_is_refused() -> None:
    """The stack is the engine's to check."""
    code = body("(drop (i32.const 1))").replace(b"\x41\x01\x1a", b"\x01\x01\x1a")

    with pytest.raises(InputError, match="code: "):
        check(code)


def test_any_single_byte_changed_is_accepted_or_refused_cleanly(
    build: Callable[..., bytes],
) -> None:
    code = build("(call $read) (call $reply (i32.const 1024) (i32.load (i32.const 1020)))")

    outcomes = set()
    for at in range(len(code)):
        try:
            check(code[:at] + bytes([code[at] ^ 0x15]) + code[at + 1 :])
        except InputError:
            outcomes.add("refused")
        else:
            outcomes.add("accepted")

    assert outcomes == {"refused", "accepted"}
