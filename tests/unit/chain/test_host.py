"""
The host functions behave as pallet-contracts 38: results, limits and traps.

Limits, return codes and traps were compared with substrate-contracts-node 0.42.
"""

from collections.abc import Callable
from hashlib import blake2b

import pytest
import sr25519
from coincurve import PrivateKey

from orchestrator.chain import ContractCall, Cursor
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.errors import ContractTrappedError
from orchestrator.testing.chain import FixedClock, LocalAccount

Execute = Callable[..., bytes]
Deploy = Callable[..., bytes]
RawCall = Callable[..., ContractCall[bytes]]

READ_AND = "(call $read)"
# The length of a buffer at address 0, then the buffer at 16.
ROOM = "(i32.store (i32.const 0) (i32.const {room}))"


def word(value: int) -> bytes:
    return value.to_bytes(4, "little")


def reply(expression: str) -> str:
    """Reply with one i32."""
    return (
        f"(i32.store (i32.const 8) {expression}) (call $reply (i32.const 8) (i32.const 4))"
        " unreachable"
    )


def test_input_is_what_the_caller_sent(execute: Execute) -> None:
    body = "(call $read) (call $reply (i32.const 1024) (i32.load (i32.const 1020)))"

    assert execute(body, b"\x00\xffabc") == b"\x00\xffabc"


def test_input_can_be_read_again(execute: Execute) -> None:
    body = "(call $read) (call $read) (call $reply (i32.const 1024) (i32.const 1))"

    assert execute(body, b"x") == b"x"


@pytest.mark.parametrize(("length", "is_refused"), [(16_384, False), (16_385, True)])
def test_input_longer_than_the_buffer_traps(
    execute: Execute, length: int, is_refused: bool
) -> None:
    body = "(call $read) (call $reply (i32.const 1020) (i32.const 4))"

    if is_refused:
        with pytest.raises(ContractTrappedError, match="OutputBufferTooSmall: 16385 bytes"):
            execute(body, bytes(length))
    else:
        assert execute(body, bytes(length)) == word(length)


@pytest.mark.parametrize(
    ("function", "size"), [("caller", 32), ("address", 32), ("now", 8), ("value_transferred", 16)]
)
def test_environment_values_need_room(execute: Execute, function: str, size: int) -> None:
    body = (
        ROOM.format(room=size)
        + f"(call ${function} (i32.const 16) (i32.const 0))"
        + f"(call $reply (i32.const 16) (i32.const {size}))"
    )

    assert len(execute(body)) == size
    with pytest.raises(ContractTrappedError, match="OutputBufferTooSmall"):
        execute(body.replace(f"(i32.const {size}))(call", f"(i32.const {size - 1}))(call"))


def test_environment_values(
    chain: EmbeddedChain,
    deploy: Deploy,
    raw_call: RawCall,
    clock: FixedClock,
    alice: LocalAccount,
) -> None:
    names = ("caller", "address", "now", "value_transferred")
    body = "".join(
        ROOM.format(room=32) + f"(call ${name} (i32.const {100 + 32 * i}) (i32.const 0))"
        for i, name in enumerate(names)
    )
    address = deploy(body + "(call $reply (i32.const 100) (i32.const 112))")

    value = chain.call(raw_call(address), signer=alice).value

    assert value[:32] == alice.account_id
    assert value[32:64] == address
    assert value[64:72] == clock.now.to_bytes(8, "little")
    assert value[96:112] == bytes(16)


def test_a_call_that_does_not_return_gives_no_bytes(execute: Execute) -> None:
    assert execute("") == b""


def test_unknown_return_flags_trap(execute: Execute) -> None:
    with pytest.raises(ContractTrappedError, match="InvalidCallFlags: 2"):
        execute("(call $seal_return (i32.const 2) (i32.const 0) (i32.const 0))")


@pytest.mark.parametrize(
    ("pointer", "length"),
    [(2 * 65_536, 1), (2 * 65_536 - 1, 2), (-1, 1), (0, -1), (-1, -1)],
)
def test_memory_out_of_bounds_traps(execute: Execute, pointer: int, length: int) -> None:
    with pytest.raises(ContractTrappedError, match="OutOfBounds"):
        execute(f"(call $reply (i32.const {pointer}) (i32.const {length}))")


def test_memory_that_grew_is_reached(execute: Execute) -> None:
    body = """
      (call $read)
      (drop (memory.grow (i32.const 3)))
      (i32.store (i32.const 300000) (i32.const 7))
      (call $reply (i32.const 300000) (i32.const 4))
    """

    assert execute(body) == word(7)


def test_memory_ends_at_sixteen_pages(execute: Execute) -> None:
    assert execute(reply("(memory.grow (i32.const 15))")) == word(0xFFFFFFFF)
    assert execute(reply("(memory.grow (i32.const 14))")) == word(2)


SET = "(call $set_storage (i32.const {key}) (i32.const {kl}) (i32.const {value}) (i32.const {vl}))"


def put(key: int, key_length: int, value_length: int, value: int = 4096) -> str:
    return SET.format(key=key, kl=key_length, value=value, vl=value_length)


def test_set_storage_says_how_long_the_old_value_was(execute: Execute) -> None:
    assert execute(reply(put(0, 4, 5))) == word(0xFFFFFFFF)
    assert execute(f"(drop {put(0, 4, 5)})" + reply(put(0, 4, 7))) == word(5)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("(call $contains_storage (i32.const 0) (i32.const 4))", 5),
        ("(call $contains_storage (i32.const 0) (i32.const 3))", 0xFFFFFFFF),
        ("(call $clear_storage (i32.const 0) (i32.const 4))", 5),
        ("(call $clear_storage (i32.const 0) (i32.const 3))", 0xFFFFFFFF),
        (
            "(call $get_storage (i32.const 0) (i32.const 3) (i32.const 64) (i32.const 32))",
            3,
        ),
    ],
)
def test_storage_answers(execute: Execute, expression: str, expected: int) -> None:
    assert execute(f"(drop {put(0, 4, 5)})" + reply(expression)) == word(expected)


def test_a_stored_value_comes_back(execute: Execute) -> None:
    body = f"""
      (drop {put(0, 4, 5)})
      (i32.store (i32.const 32) (i32.const 5))
      (drop (call $get_storage (i32.const 0) (i32.const 4) (i32.const 64) (i32.const 32)))
      (call $reply (i32.const 64) (i32.load (i32.const 32)))
    """

    assert execute(body, segments='(data (i32.const 4096) "value")') == b"value"
    with pytest.raises(ContractTrappedError, match=r"OutputBufferTooSmall: 5 bytes for .* of 4"):
        execute(body.replace("(i32.const 32) (i32.const 5)", "(i32.const 32) (i32.const 4)"))


def test_what_was_cleared_is_gone(execute: Execute) -> None:
    body = f"""
      (drop {put(0, 4, 5)})
      (drop (call $clear_storage (i32.const 0) (i32.const 4)))
    """

    answer = execute(body + reply("(call $contains_storage (i32.const 0) (i32.const 4))"))

    assert answer == word(0xFFFFFFFF)


def test_values_end_at_16_kib(execute: Execute) -> None:
    assert execute(reply(put(0, 4, 16_384))) == word(0xFFFFFFFF)
    with pytest.raises(ContractTrappedError, match="ValueTooLarge: a value of 16385 bytes"):
        execute(reply(put(0, 4, 16_385)))


@pytest.mark.parametrize(
    "expression",
    [
        put(0, 129, 1),
        "(call $contains_storage (i32.const 0) (i32.const 129))",
        "(call $clear_storage (i32.const 0) (i32.const 129))",
        "(call $get_storage (i32.const 0) (i32.const 129) (i32.const 0) (i32.const 0))",
    ],
)
def test_keys_end_at_128_bytes(execute: Execute, expression: str) -> None:
    assert execute(reply(expression.replace("129", "128")))
    with pytest.raises(ContractTrappedError, match="DecodingFailed: a key of 129 bytes"):
        execute(reply(expression))


def topics(count: int) -> str:
    """Write a list of *count* equal topics at address 0."""
    return f"(i32.store8 (i32.const 0) (i32.const {count * 4}))"


def deposit(count: int, data_length: int = 0, topics_length: int | None = None) -> str:
    length = 1 + 32 * count if topics_length is None else topics_length
    return (
        topics(count)
        + f"(call $deposit_event (i32.const 0) (i32.const {length}) (i32.const 4096)"
        + f" (i32.const {data_length}))"
    )


def test_four_topics_are_allowed_and_may_be_equal(
    chain: EmbeddedChain, deploy: Deploy, raw_call: RawCall, alice: LocalAccount
) -> None:
    address = deploy(deposit(4, 16_384))

    receipt = chain.call(raw_call(address), signer=alice)

    (event,) = receipt.events
    assert event.topics == (bytes(32),) * 4
    assert event.data == bytes(16_384)
    assert chain.events(address, after=Cursor(block=0, index=-1)).events == receipt.events


def test_an_event_without_topics(execute: Execute) -> None:
    execute(deposit(0, topics_length=0))
    execute(deposit(0, topics_length=1))


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (deposit(5), "TooManyTopics: 5 topics, limit 4"),
        (deposit(0, 16_385), "ValueTooLarge: an event of 16385 bytes"),
        (deposit(0, topics_length=9), "DecodingFailed: 0 topics in 9 bytes"),
        (deposit(2, topics_length=33), "DecodingFailed: 2 topics in 33 bytes"),
        (
            deposit(0, topics_length=9).replace("(i32.const 0))(call", "(i32.const 3))(call"),
            "DecodingFailed: the topics are not a list",
        ),
    ],
)
def test_events_that_the_pallet_refuses_trap(execute: Execute, body: str, reason: str) -> None:
    with pytest.raises(ContractTrappedError, match=reason):
        execute(body)


def test_blake2_256(execute: Execute) -> None:
    body = """
      (call $read)
      (call $hash_blake2_256 (i32.const 1024) (i32.load (i32.const 1020)) (i32.const 64))
      (call $reply (i32.const 64) (i32.const 32))
    """

    assert execute(body, b"abc") == blake2b(b"abc", digest_size=32).digest()


RECOVER = """
  (call $read)
  (i32.store (i32.const 60)
    (call $ecdsa_recover (i32.const 1024) (i32.const 1089) (i32.const 64)))
  (call $reply (i32.const 60) (i32.const 37))
"""
_ORDER = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141


@pytest.mark.parametrize("offset", [0, 27])
def test_ecdsa_recover_gives_the_compressed_key(execute: Execute, offset: int) -> None:
    key = PrivateKey(b"\x07" * 32)
    digest = b"\x05" * 32
    signature = key.sign_recoverable(digest, hasher=None)

    answer = execute(RECOVER, signature[:64] + bytes([signature[64] + offset]) + digest)

    assert answer == word(0) + key.public_key.format(compressed=True)


@pytest.mark.parametrize(
    "signature",
    [
        bytes(65),
        b"\xff" * 64 + b"\0",
        b"\1" * 64 + b"\4",
        b"\1" * 64 + b"\x1f",
        _ORDER.to_bytes(32, "big") + b"\1" * 32 + b"\0",
    ],
)
def test_ecdsa_recover_of_no_signature(execute: Execute, signature: bytes) -> None:
    assert execute(RECOVER, signature + bytes(32)) == word(11) + bytes(33)


def test_ecdsa_recover_accepts_the_twin(execute: Execute) -> None:
    """The chain does; the contract has to refuse it before (protocol 3.1)."""
    key = PrivateKey(b"\x07" * 32)
    digest = b"\x05" * 32
    signature = key.sign_recoverable(digest, hasher=None)
    twin = (_ORDER - int.from_bytes(signature[32:64], "big")).to_bytes(32, "big")

    answer = execute(RECOVER, signature[:32] + twin + bytes([signature[64] ^ 1]) + digest)

    assert answer == word(0) + key.public_key.format(compressed=True)


VERIFY = """
  (call $read)
  (i32.store (i32.const 60)
    (call $sr25519_verify (i32.const 1024) (i32.const 1088)
      (i32.sub (i32.load (i32.const 1020)) (i32.const 96)) (i32.const 1120)))
  (call $reply (i32.const 60) (i32.const 4))
"""


def test_sr25519_verify(execute: Execute) -> None:
    public, secret = sr25519.pair_from_seed(b"\x09" * 32)
    signature = sr25519.sign((public, secret), b"message")

    assert execute(VERIFY, signature + public + b"message") == word(0)
    assert execute(VERIFY, signature + public + b"massage") == word(12)
    assert execute(VERIFY, bytes(64) + public + b"message") == word(12)
    assert execute(VERIFY, signature + b"\xff" * 32 + b"message") == word(12)


def test_sr25519_verify_does_not_unwrap_bytes(execute: Execute) -> None:
    public, secret = sr25519.pair_from_seed(b"\x09" * 32)
    signature = sr25519.sign((public, secret), b"<Bytes>message</Bytes>")

    assert execute(VERIFY, signature + public + b"message") == word(12)


SET_CODE = """
  (call $read)
  (i32.store (i32.const 60) (call $set_code_hash (i32.const 1024)))
  (call $reply (i32.const 60) (i32.const 4))
"""


def test_set_code_hash_needs_uploaded_code(
    chain: EmbeddedChain,
    deploy: Deploy,
    raw_call: RawCall,
    build: Callable[..., bytes],
    alice: LocalAccount,
) -> None:
    address = deploy(SET_CODE)
    before = chain.code_hash(address)

    assert chain.call(raw_call(address, b"\x01" * 32), signer=alice).value == word(7)
    assert chain.code_hash(address) == before

    other = chain.upload(build(reply("(i32.const 42)")), signer=alice)
    assert chain.call(raw_call(address, other), signer=alice).value == word(0)
    assert chain.code_hash(address) == other
    assert chain.call(raw_call(address), signer=alice).value == word(42)
