"""The typed processor: every message is there, and models go through unchanged."""

import inspect
from dataclasses import replace

import pytest

from orchestrator.chain import Block, RawEvent
from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.interface import ADAPTERS, MESSAGES
from orchestrator.chain.processor import JobProcessor
from orchestrator.chain.scale import Variant
from orchestrator.errors import ChainMismatchError, InputError
from orchestrator.models import (
    InlinePayload,
    JobStatus,
    Mode,
    Outcome,
    Parameters,
    PublicKey,
    ReferencePayload,
    Role,
    Scheme,
    Signature,
)


@pytest.fixture
def processor() -> JobProcessor:
    return JobProcessor(b"\1" * 32)


def test_there_is_a_method_for_every_message(processor: JobProcessor) -> None:
    names = {name for name, _ in inspect.getmembers(processor, inspect.ismethod)}

    assert {name for name in names if not name.startswith("_")} == {
        *MESSAGES,
        "new",
        "decode_event",
    }


def test_calls_name_their_contract_and_message(processor: JobProcessor) -> None:
    call = processor.get_job(7)

    assert (call.contract, call.label) == (b"\1" * 32, "get_job")
    assert call.data.endswith((7).to_bytes(16, "little"))


def test_a_contract_address_has_32_bytes() -> None:
    with pytest.raises(InputError, match="contract: 31 bytes, not 32"):
        JobProcessor(bytes(31))


@pytest.mark.parametrize(
    ("name", "value", "plain"),
    [
        ("JobStatus", JobStatus.FAILED, Variant("Failed")),
        ("Mode", Mode.HALTED, Variant("Halted")),
        ("Role", Role.OPERATOR, Variant("Operator")),
        ("Outcome", Outcome.FAILED, Variant("Failed")),
        (
            "PublicKey",
            PublicKey(scheme=Scheme.ECDSA, key=b"\2" * 33),
            Variant("Ecdsa", b"\2" * 33),
        ),
        (
            "Signature",
            Signature(scheme=Scheme.SR25519, data=bytes(64)),
            Variant("Sr25519", bytes(64)),
        ),
        ("Payload", InlinePayload(data=b"0xab"), Variant("Inline", b"0xab")),
        (
            "Payload",
            ReferencePayload(length=5, location=b"x"),
            Variant("Reference", {"length": 5, "location": b"x"}),
        ),
        ("Error", Variant("Overflow"), Variant("Overflow")),
    ],
)
def test_models_and_their_plain_values(name: str, value: object, plain: object) -> None:
    assert ADAPTERS[name].to_plain(value) == plain
    assert ADAPTERS[name].from_plain(plain) == value


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("JobStatus", "Failed"),
        ("JobStatus", Mode.HALTED),
        ("Outcome", 1),
        ("PublicKey", b"\2" * 33),
        ("PublicKey", Signature(scheme=Scheme.ECDSA, data=bytes(65))),
        ("Payload", b"\2"),
        ("Parameters", {}),
    ],
)
def test_other_values_are_refused(name: str, value: object) -> None:
    with pytest.raises(InputError, match=f"{type(value).__name__} is not a"):
        ADAPTERS[name].to_plain(value)


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("JobStatus", "Failed"),
        ("PublicKey", Variant("Ecdsa", "text")),
        ("Payload", Variant("Inline", 5)),
        ("Payload", Variant("Reference", {"length": 1})),
    ],
)
def test_plain_values_of_another_shape_are_refused(name: str, plain: object) -> None:
    with pytest.raises(ChainMismatchError):
        ADAPTERS[name].from_plain(plain)


def test_a_key_of_the_wrong_length_names_the_field(processor: JobProcessor) -> None:
    key = PublicKey(scheme=Scheme.ECDSA, key=bytes(32))

    with pytest.raises(InputError, match="signing_key: 32 bytes given where 33 bytes"):
        processor.worker_by_key(key)


def test_a_parameter_out_of_its_width_names_the_field(processor: JobProcessor) -> None:
    parameters = replace(Parameters(), rate_limit=1 << 32)

    with pytest.raises(InputError, match="parameters: rate_limit: 4294967296 is not a u32"):
        processor.set_parameters(parameters)


def test_an_event_of_another_contract_is_refused(processor: JobProcessor) -> None:
    block = Block(number=1, hash=bytes(32), timestamp=1)
    raw = RawEvent(contract=b"\1" * 32, topics=(bytes(32),), data=b"", block=block, index=0)

    with pytest.raises(ChainMismatchError, match="no event of the contract"):
        processor.decode_event(raw)


def test_a_bundle_of_ones_own(processor: JobProcessor) -> None:
    other = JobProcessor(bytes(32), load_bundle())

    assert other.mode().data == processor.mode().data
