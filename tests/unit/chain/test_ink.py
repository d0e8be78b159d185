"""The ink! codec: equal to scalecodec where that is right, strict everywhere."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.ink import InkContract
from orchestrator.chain.scale import Variant
from orchestrator.errors import ChainMismatchError, ContractError, InputError
from tests.vectors.generate_ink_codec import document

VECTORS = json.loads(
    (Path(__file__).parents[2] / "vectors" / "ink_codec.json").read_text(encoding="utf-8")
)


@pytest.fixture(scope="module")
def ink() -> InkContract:
    """The contract's codec without our classes."""
    return InkContract(load_bundle().metadata)


def ours(value: Any) -> object:  # noqa: ANN401 - JSON
    """Return a tagged value of the vectors as the codec has it."""
    if isinstance(value, list):
        return tuple(ours(item) for item in value)
    if not isinstance(value, dict):
        return value
    if "unit" in value:
        return None
    if "bytes" in value:
        return bytes.fromhex(value["bytes"])
    if "fields" in value:
        return {name: ours(item) for name, item in value["fields"].items()}
    return Variant(value["variant"], ours(value["value"]))


def test_the_vectors_are_what_scalecodec_says_today() -> None:
    assert json.loads(json.dumps(document())) == VECTORS


@pytest.mark.parametrize("case", VECTORS["messages"], ids=lambda case: str(case["name"]))
def test_messages_are_encoded_as_by_scalecodec(ink: InkContract, case: dict[str, Any]) -> None:
    arguments = {name: ours(value) for name, value in case["arguments"].items()}

    assert ink.encode_message(case["label"], **arguments).hex() == case["data"]


@pytest.mark.parametrize("case", VECTORS["results"], ids=lambda case: str(case["name"]))
def test_results_are_decoded_as_by_scalecodec(ink: InkContract, case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["data"])
    outer = ours(case["value"])
    assert isinstance(outer, Variant)
    inner = outer.value
    is_refusable = ink.messages[case["label"]].refusable

    if outer.name == "Err":
        with pytest.raises(ChainMismatchError, match=r"did not understand .*: Could"):
            ink.decode_result(case["label"], data)
    elif is_refusable and isinstance(inner, Variant) and inner.name == "Err":
        assert isinstance(inner.value, Variant)
        with pytest.raises(ContractError) as caught:
            ink.decode_result(case["label"], data)
        assert caught.value.variant == inner.value.name
    else:
        expected = inner.value if is_refusable and isinstance(inner, Variant) else inner
        assert ink.decode_result(case["label"], data) == expected


@pytest.mark.parametrize("case", VECTORS["results"], ids=lambda case: str(case["name"]))
def test_every_other_length_of_a_result_is_refused(ink: InkContract, case: dict[str, Any]) -> None:
    data = bytes.fromhex(case["data"])

    for wrong in [data + b"\0", *(data[:end] for end in range(len(data)))]:
        with pytest.raises(ChainMismatchError, match="not of its result type"):
            ink.decode_result(case["label"], wrong)


@pytest.mark.parametrize("case", VECTORS["events"], ids=lambda case: str(case["label"]))
def test_events_are_known_by_their_first_topic(ink: InkContract, case: dict[str, Any]) -> None:
    """Traps B2 and B3: the library looks at every topic, and fails on an event it does not know."""
    topic, data = bytes.fromhex(case["topic"]), bytes.fromhex(case["data"])
    fields = {name: ours(value) for name, value in case["fields"].items()}

    # Another event's signature in a later topic changes nothing.
    others = tuple(ink.events)

    assert ink.decode_event((topic, *others), data) == (case["label"], fields)
    with pytest.raises(ChainMismatchError, match="not of its type"):
        ink.decode_event((topic,), data + b"\0")
    with pytest.raises(ChainMismatchError, match="no event of the contract has"):
        ink.decode_event((bytes(32), topic), data)
    with pytest.raises(ChainMismatchError, match="topic none"):
        ink.decode_event((), data)


def test_constructor_results(ink: InkContract) -> None:
    ink.decode_construction("new", b"\0\0")
    index = ink.shape("Error").variants.index("ParameterOutOfRange")
    with pytest.raises(ContractError, match="ParameterOutOfRange"):
        ink.decode_construction("new", bytes([0, 1, index]))
    with pytest.raises(ChainMismatchError):
        ink.decode_construction("new", b"")


def test_unknown_messages_and_constructors(ink: InkContract) -> None:
    with pytest.raises(ChainMismatchError, match="no message fly_to_the_moon"):
        ink.encode_message("fly_to_the_moon")
    with pytest.raises(ChainMismatchError, match="no message fly_to_the_moon"):
        ink.decode_result("fly_to_the_moon", b"")
    with pytest.raises(ChainMismatchError, match="no constructor old"):
        ink.encode_constructor("old")


def test_arguments_are_checked_by_name_and_type(ink: InkContract) -> None:
    with pytest.raises(InputError, match="get_job: takes job_id, not id"):
        ink.encode_message("get_job", id=1)
    with pytest.raises(InputError, match=r"get_job: job_id: -1 is not a u128"):
        ink.encode_message("get_job", job_id=-1)
    with pytest.raises(
        InputError, match="allow_measurement: measurement: 31 bytes given where 32 bytes"
    ):
        ink.encode_message("allow_measurement", measurement=bytes(31))


def metadata() -> dict[str, Any]:
    return copy.deepcopy(dict(load_bundle().metadata))


def test_text_for_the_version_is_as_good_as_a_number() -> None:
    changed = metadata()
    changed["version"] = "5"

    InkContract(changed)


@pytest.mark.parametrize("version", [4, 6, None, "V3", [5]])
def test_other_metadata_versions_are_refused(version: object) -> None:
    changed = metadata()
    changed["version"] = version

    with pytest.raises(ChainMismatchError, match="version"):
        InkContract(changed)


def set_at(value: Any, path: tuple[str | int, ...], new: object) -> None:  # noqa: ANN401 - JSON
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = new


@pytest.mark.parametrize(
    ("path", "new"),
    [
        (("types",), None),
        (("types",), [1]),
        (("types", 0), {"id": "0", "type": {}}),
        (("types", 0, "type"), {}),
        (("types", 0, "type", "def"), {"a": 1, "b": 2}),
        (("spec",), []),
        (("spec", "messages"), {}),
        (("spec", "messages", 0, "label"), 7),
        (("spec", "messages", 0, "selector"), "0xzz"),
        (("spec", "messages", 0, "selector"), "9bae9d5e"),
        (("spec", "messages", 0, "args", 0, "type", "type"), 10_000),
        (("spec", "messages", 0, "args", 0, "type", "type"), True),
        (("spec", "events", 0, "signature_topic"), None),
        (("spec", "messages", 0, "returnType", "type"), 0),
    ],
)
def test_malformed_metadata_is_refused(path: tuple[str | int, ...], new: object) -> None:
    changed = metadata()
    set_at(changed, path, new)

    with pytest.raises(ChainMismatchError):
        InkContract(changed)


def test_two_events_of_one_signature_are_refused() -> None:
    changed = metadata()
    changed["spec"]["events"][1]["signature_topic"] = changed["spec"]["events"][0][
        "signature_topic"
    ]

    with pytest.raises(ChainMismatchError, match="one signature topic"):
        InkContract(changed)
