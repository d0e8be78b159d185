"""A runtime by its metadata: what is signed for it, what is read by it, and what is refused."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from orchestrator.chain.answers import at_key, hash_of, hex_bytes, hex_text, shown
from orchestrator.chain.contracts_api import Weight
from orchestrator.chain.devnode import DevNode
from orchestrator.chain.dispatch_errors import DispatchFailure
from orchestrator.chain.node import parse_version
from orchestrator.chain.rpc import RpcConnection
from orchestrator.chain.runtime import Call, Mortality, Runtime, RuntimeVersion
from orchestrator.chain.runtime_types import compact, reading
from orchestrator.chain.scale import Variant, decode, encode
from orchestrator.crypto.keys import AccountKey
from orchestrator.errors import (
    ChainMismatchError,
    ChainUnavailableError,
    EncodingError,
    InputError,
)
from orchestrator.testing.chain import LocalAccount

ALICE = AccountKey.from_uri("//Alice")
REMARK = Call(pallet="System", function="remark", arguments={"remark": "0x68656c6c6f"})
BIRTH = Mortality(number=5, hash=b"\5" * 32)


@dataclass(kw_only=True)
class Source:
    """What a real node told of its runtime."""

    version: RuntimeVersion
    genesis: bytes
    metadata: bytes
    metadata_v15: bytes

    def build(self, metadata: object) -> Runtime:
        """Return the runtime that some metadata describes."""
        return Runtime(
            self.version,
            genesis_hash=self.genesis,
            block_hash=self.genesis,
            request=lambda method, *_: {"state_getMetadata": metadata}[method],
        )


@pytest.fixture(scope="module")
def source(node: DevNode) -> Iterator[Source]:
    rpc = RpcConnection(node.url)
    wrapped = rpc.request("state_call", "Metadata_metadata_at_version", "0x0f000000")
    optional = hex_bytes(wrapped, "metadata")
    _, start = compact.decode_from(optional, 1)
    yield Source(
        version=parse_version(rpc.request("state_getRuntimeVersion")),
        genesis=hash_of(rpc.request("chain_getBlockHash", 0), "a hash"),
        metadata=hex_bytes(rpc.request("state_getMetadata"), "metadata"),
        metadata_v15=optional[start:],
    )
    rpc.close()


@pytest.fixture(scope="module")
def runtime(source: Source) -> Runtime:
    return source.build(hex_text(source.metadata))


def replaced(metadata: bytes, old: bytes, new: bytes) -> str:
    assert old in metadata
    return hex_text(metadata.replace(old, new))


# What is not known here is named when the node is opened.


def test_a_chain_without_pallet_contracts_is_named(source: Source) -> None:
    renamed = replaced(source.metadata, b"\x24Contracts", b"\x24Kontracts")

    with pytest.raises(ChainMismatchError, match="has no pallet-contracts: it runs no ink! 5"):
        source.build(renamed)


def test_metadata_of_another_version_is_named(source: Source) -> None:
    """Trap B18: the library reads version 14 alone."""
    with pytest.raises(ChainMismatchError, match="the metadata of substrate-contracts-node 100"):
        source.build(hex_text(source.metadata_v15))


def test_extrinsics_of_another_version_are_named(source: Source) -> None:
    """Trap B18: the library makes version 4 alone."""
    at = source.metadata.rindex(b"\x48CheckNonZeroSender") - 2
    assert source.metadata[at] == 4
    changed = source.metadata[:at] + b"\5" + source.metadata[at + 1 :]

    with pytest.raises(ChainMismatchError, match="has extrinsics of version 5, not 4"):
        source.build(hex_text(changed))


def test_an_extension_that_would_change_what_is_signed_is_named(source: Source) -> None:
    changed = replaced(source.metadata, b"\x48CheckNonZeroSender", b"\x48CheckNonZeroSpells")

    with pytest.raises(ChainMismatchError, match=r"signed extensions .*CheckNonZeroSpells"):
        source.build(changed)


@pytest.mark.parametrize("metadata", [None, 5, "", "0x", "0x00", "nonsense", [], {}], ids=str)
def test_metadata_that_is_none_is_named(source: Source, metadata: object) -> None:
    with pytest.raises(ChainMismatchError, match="metadata"):
        source.build(metadata)


@pytest.mark.parametrize("length", [4, 5, 100, 50_000])
def test_metadata_that_ends_early_is_named(source: Source, length: int) -> None:
    with pytest.raises(ChainMismatchError, match="metadata"):
        source.build(hex_text(source.metadata[:length]))


@pytest.mark.parametrize("name", [b"\x18System", b"\x24Timestamp", b"\x18Events"])
def test_metadata_without_what_everything_needs_is_named(source: Source, name: bytes) -> None:
    with pytest.raises(ChainMismatchError):
        source.build(replaced(source.metadata, name, name[:-1] + b"?"))


def test_a_node_that_is_gone_is_no_other_chain(source: Source) -> None:
    def gone(*_: object) -> object:
        raise ChainUnavailableError("gone")

    with pytest.raises(ChainUnavailableError, match="gone"):
        Runtime(
            source.version, genesis_hash=source.genesis, block_hash=source.genesis, request=gone
        )


# Extrinsics.


def test_what_is_signed_has_its_nonce_and_its_era(runtime: Runtime) -> None:
    """Traps B17 and B19: mortal, by a key of sr25519; a signature is never made twice the same."""
    one = runtime.sign(REMARK, signer=ALICE, nonce=300, mortality=BIRTH)
    two = runtime.sign(REMARK, signer=ALICE, nonce=300, mortality=BIRTH)

    length, start = compact.decode_from(one, 0)
    assert length == len(one) - start
    assert one[start : start + 35] == b"\x84\x00" + ALICE.account_id + b"\x01"
    after_signature = start + 35 + 64
    # Period 64 and phase 5 (the era's two bytes), then the nonce.
    assert one[after_signature : after_signature + 4] == b"\x55\x00" + b"\xb1\x04"
    assert one != two


def test_the_twin_whose_fee_is_asked_is_as_long(runtime: Runtime) -> None:
    signed = runtime.sign(REMARK, signer=ALICE, nonce=1 << 30, mortality=BIRTH)

    twin = runtime.unsigned_size_twin(REMARK, account_id=ALICE.account_id, nonce=1 << 30)

    assert len(twin) == len(signed)


@pytest.mark.parametrize(
    "call",
    [
        Call(pallet="Nowhere", function="remark", arguments={}),
        Call(pallet="System", function="nothing", arguments={}),
        Call(pallet="System", function="remark", arguments={}),
        Call(pallet="Contracts", function="call", arguments={"dest": "0x00"}),
    ],
    ids=["no pallet", "no function", "no argument", "a wrong argument"],
)
def test_a_call_that_the_chain_does_not_have_is_named(runtime: Runtime, call: Call) -> None:
    with pytest.raises(ChainMismatchError, match=f"call {call.pallet}.{call.function}"):
        runtime.sign(call, signer=ALICE, nonce=0, mortality=BIRTH)


def test_an_account_without_a_key_says_so_itself(runtime: Runtime) -> None:
    with pytest.raises(InputError, match="has no key"):
        runtime.sign(REMARK, signer=LocalAccount.named("Alice"), nonce=0, mortality=BIRTH)


def test_a_chain_that_takes_no_batches_is_named(source: Source) -> None:
    plain = source.build(replaced(source.metadata, b"\x1cUtility", b"\x1cKeyless"))

    with pytest.raises(ChainMismatchError, match="has no pallet-utility: it takes no batches"):
        plain.batch([REMARK])


# Blocks and state.


def test_the_time_of_a_block_is_in_its_own_extrinsic(runtime: Runtime) -> None:
    inner = bytes([4, runtime._timestamp, 0]) + encode(compact, 1_700_000_000_000)
    moment = encode(compact, len(inner)) + inner

    assert runtime.moment([b"\x0c\x84\x00\x00", moment]) == 1_700_000_000_000


@pytest.mark.parametrize("extrinsics", [[], [b""], [b"\x0c\x84\x00\x00"], [b"\xff"]], ids=repr)
def test_a_block_without_a_time_is_named(runtime: Runtime, extrinsics: list[bytes]) -> None:
    with pytest.raises(ChainMismatchError, match=r"a block has no timestamp|blocks can't be read"):
        runtime.moment(extrinsics)


@pytest.mark.parametrize("data", [b"", b"\x04", b"\xff" * 100, b"\x04\x00", b"\x00\x00"])
def test_events_that_can_not_be_read_are_named(runtime: Runtime, data: bytes) -> None:
    with pytest.raises(ChainMismatchError, match="the chain's events can't be read"):
        runtime.events(data)


def test_events_without_names_are_named(runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    record = {"phase": Variant("Initialization"), "event": Variant("System"), "topics": ()}
    monkeypatch.setattr("orchestrator.chain.runtime.decode", lambda *_: [record])

    with pytest.raises(ChainMismatchError, match="an event of System has no name"):
        runtime.events(b"")


def test_no_events_are_none(runtime: Runtime) -> None:
    assert runtime.events(b"\0") == []


@pytest.mark.parametrize(
    ("pallet", "name"), [("Nowhere", "Account"), ("System", "Nothing"), ("Utility", "Any")]
)
def test_a_storage_item_that_the_chain_does_not_have_is_named(
    runtime: Runtime, pallet: str, name: str
) -> None:
    with pytest.raises(ChainMismatchError):
        runtime.storage_key(pallet, name)
    with pytest.raises(ChainMismatchError):
        runtime.decode_storage(pallet, name, b"")


# Errors.


def module_error(index: int, code: int) -> Variant:
    return Variant("Module", {"index": index, "error": bytes([code, 0, 0, 0])})


def test_a_pallets_error_has_its_name(runtime: Runtime) -> None:
    """Trap B11: the library shows two numbers."""
    contracts = runtime._pallets["Contracts"]["index"]

    known = runtime.failure(module_error(contracts, 0))

    assert (known.pallet, str(known)[:10]) == ("Contracts", "Contracts.")
    assert known.name[0].isupper()
    assert runtime.failure(module_error(contracts, 250)).name == "error 250"
    assert runtime.failure(module_error(251, 3)) == DispatchFailure(
        pallet="pallet 251", name="error 3"
    )


def test_errors_of_no_pallet_have_theirs(runtime: Runtime) -> None:
    token = runtime.failure(Variant("Token", Variant("FundsUnavailable")))

    assert (token.pallet, token.name) == ("Token", "FundsUnavailable")
    assert str(runtime.failure(Variant("BadOrigin"))) == "BadOrigin.BadOrigin"


@pytest.mark.parametrize("error", [None, 5, Variant("Module"), Variant("Module", {"index": 5})])
def test_an_error_that_can_not_be_read_is_named(runtime: Runtime, error: object) -> None:
    with pytest.raises(ChainMismatchError, match="errors can't be read"):
        runtime.failure(error)


# The API for contracts.


def answer_of(result: bytes) -> bytes:
    """Return a dry run's answer: 1 and 2 ps and bytes used, 3 and 4 needed, a deposit of 5."""
    weights = b"".join(encode(compact, n) for n in (1, 2, 3, 4))
    return weights + b"\1" + (5).to_bytes(16, "little") + b"\0" + result


def test_a_revert_is_one(runtime: Runtime) -> None:
    """Trap B6: the library reads the flag as another's."""
    returned = b"\0" + (1).to_bytes(4, "little") + b"\x08ab"

    dry = runtime.contracts.decode_call(answer_of(returned) + b"events, which nobody asked for")

    assert dry.reverted
    assert dry.output == b"ab"
    assert dry.deposit == 5
    assert (dry.consumed, dry.required) == (
        Weight(ref_time=1, proof_size=2),
        Weight(ref_time=3, proof_size=4),
    )


def test_gas_that_no_block_has_is_named(runtime: Runtime) -> None:
    """A node that lies: the library would put any number into a transaction."""
    weights = b"".join(encode(compact, n) for n in (1, 2, 1 << 63, 4))
    answer = weights + answer_of(b"\0" + bytes(4) + b"\0")[4:]

    with pytest.raises(ChainMismatchError, match="more than any block has"):
        runtime.contracts.decode_call(answer)


def test_a_refund_is_a_negative_deposit(runtime: Runtime) -> None:
    answer = bytearray(answer_of(b"\0" + bytes(4) + b"\0"))
    answer[4] = 0

    assert runtime.contracts.decode_call(bytes(answer)).deposit == -5


def test_a_deployment_is_read(runtime: Runtime) -> None:
    """Trap B10: the library can't read one."""
    returned = b"\0" + bytes(4) + b"\x08ab" + b"\7" * 32

    assert runtime.contracts.decode_instantiate(answer_of(returned)).output == b"ab"


@pytest.mark.parametrize("data", [b"", b"\0", answer_of(b"\2"), answer_of(b"\0"), answer_of(b"")])
def test_an_answer_that_can_not_be_read_is_named(runtime: Runtime, data: bytes) -> None:
    decoders: list[Callable[[bytes], object]] = [
        runtime.contracts.decode_call,
        runtime.contracts.decode_instantiate,
        runtime.contracts.decode_upload,
    ]

    for decoder in decoders:
        with pytest.raises(ChainMismatchError, match="can't be read"):
            decoder(data)


# Numbers, and what is shown.


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (0, "00"),
        (63, "fc"),
        (64, "0101"),
        (16_383, "fdff"),
        (16_384, "02000100"),
        ((1 << 30) - 1, "feffffff"),
        (1 << 30, "0300000040"),
        ((1 << 536) - 1, "ff" + "ff" * 67),
    ],
)
def test_compact_integers_of_any_length(value: int, data: str) -> None:
    assert encode(compact, value).hex() == data
    assert decode(compact, bytes.fromhex(data)) == value


@pytest.mark.parametrize("value", [-1, 1 << 536, True, "1", None, 1.0])
def test_what_is_no_compact_integer_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="is not a compact integer"):
        encode(compact, value)


def test_a_compact_integer_that_ends_early_is_refused() -> None:
    with pytest.raises(EncodingError, match="ends at byte"):
        decode(compact, b"\x03\x00")


def test_whatever_reading_raises_is_named_once() -> None:
    for error in (KeyError("x" * 10_000), RecursionError(), TypeError("\x1b")):
        with pytest.raises(ChainMismatchError) as caught, reading("test"):
            raise error
        assert len(str(caught.value)) < 400
        assert "\x1b" not in str(caught.value)


def test_what_a_node_answers_is_checked() -> None:
    assert hex_bytes("0x0a", "x") == b"\n"
    assert at_key({"a": None}, "a", "x") is None
    assert shown("a\nb" + "c" * 400) == "a b" + "c" * 297 + " …"
    with pytest.raises(ChainMismatchError, match="the node sent a hash of 1 bytes, not 32"):
        hash_of("0x0a", "a hash")
    with pytest.raises(ChainMismatchError, match="the node sent a thing of unknown form"):
        at_key(json.loads("[]"), "a", "a thing")
