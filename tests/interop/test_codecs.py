"""Our codec against two others, in both directions, on vectors made from the bundle in this run."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chain.bundle import Bundle, load_bundle
from orchestrator.chain.ink import InkContract
from orchestrator.chain.scale import Variant, decode, encode
from tests.interop.vectors import Case, Values, cases

SEED = 5
# Enough for each of the contract's errors, at two errors in each round's many results.
ROUNDS = 24


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return load_bundle()


@pytest.fixture(scope="module")
def values(bundle: Bundle) -> Values:
    return Values(dict(bundle.metadata), SEED)


@pytest.fixture(scope="module")
def vectors(bundle: Bundle, values: Values) -> list[Case]:
    plain = InkContract(bundle.metadata)
    return list(cases(dict(bundle.metadata), plain, values, ROUNDS))


@pytest.fixture(scope="module")
def ours(vectors: Sequence[Case]) -> list[bytes]:
    """The vectors in our encoding."""
    return [case.prefix + encode(case.codec, case.value) for case in vectors]


@pytest.fixture(scope="module")
def given(
    bundle: Bundle,
    vectors: Sequence[Case],
    ours: Sequence[bytes],
    tmp_path_factory: pytest.TempPathFactory,
) -> str:
    """What the scripts read; the bundle is the one under test, whichever file it is from."""
    path = tmp_path_factory.mktemp("bundle") / "metadata.contract"
    path.write_text(json.dumps(bundle.metadata))
    described = [
        {"kind": case.kind, "label": case.label, "value": case.json, "bytes": f"0x{data.hex()}"}
        for case, data in zip(vectors, ours, strict=True)
    ]
    return json.dumps({"bundle": str(path), "cases": described})


@pytest.fixture(scope="module")
def ink_contracts(run_script: Callable[..., str], given: str) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = json.loads(run_script("ink_contracts.mjs", given=given))
    return answer


@pytest.fixture(scope="module")
def abi(run_script: Callable[..., str], given: str) -> list[dict[str, Any]]:
    answer: list[dict[str, Any]] = json.loads(run_script("abi.mjs", given=given))
    return answer


def named(case: Case, place: int) -> str:
    return f"case {place} of seed {SEED}: {case.kind} {case.label}: {case.json}"


def test_vectors_are_of_everything(bundle: Bundle, vectors: Sequence[Case], values: Values) -> None:
    spec: Any = bundle.metadata["spec"]
    wanted = {(kind, item["label"]) for kind in ("call", "result") for item in spec["messages"]}
    for kind in ("construction", "constructed"):
        wanted |= {(kind, item["label"]) for item in spec["constructors"]}
    wanted |= {("event", item["label"]) for item in spec["events"]}

    assert {(case.kind, case.label) for case in vectors} == wanted
    for type_id, used in values.used.items():
        assert set(used) == set(values.variants(type_id)), f"variants of type {type_id}"


def test_ink_contracts_encodes_what_we_encode(
    vectors: Sequence[Case], ours: Sequence[bytes], ink_contracts: Sequence[dict[str, Any]]
) -> None:
    for place, (case, data, theirs) in enumerate(zip(vectors, ours, ink_contracts, strict=True)):
        assert theirs["encoded"] == f"0x{data.hex()}", named(case, place)


def test_ink_contracts_decodes_what_we_encode(
    vectors: Sequence[Case], ink_contracts: Sequence[dict[str, Any]]
) -> None:
    for place, (case, theirs) in enumerate(zip(vectors, ink_contracts, strict=True)):
        assert theirs["decoded"] == case.json, named(case, place)


def test_we_decode_what_ink_contracts_encodes(
    vectors: Sequence[Case], ink_contracts: Sequence[dict[str, Any]]
) -> None:
    for place, (case, theirs) in enumerate(zip(vectors, ink_contracts, strict=True)):
        data = bytes.fromhex(theirs["encoded"][2:])
        assert data.startswith(case.prefix), named(case, place)

        value = decode(case.codec, data.removeprefix(case.prefix))

        assert value == case.value, named(case, place)
        assert case.prefix + encode(case.codec, value) == data, named(case, place)


def test_our_models_hold_what_ink_contracts_encodes(
    bundle: Bundle, vectors: Sequence[Case], ink_contracts: Sequence[dict[str, Any]]
) -> None:
    """The codec as the package uses it, with our classes: from their bytes and back."""
    ink = bundle.ink
    events = {event.label: event.codec for event in ink.events.values()}
    codecs = {
        "call": {label: spec.codec for label, spec in ink.messages.items()},
        "result": {label: spec.result for label, spec in ink.messages.items()},
        "construction": {label: spec.codec for label, spec in ink.constructors.items()},
        "constructed": {label: spec.result for label, spec in ink.constructors.items()},
        "event": events,
    }
    for place, (case, theirs) in enumerate(zip(vectors, ink_contracts, strict=True)):
        data = bytes.fromhex(theirs["encoded"][2:]).removeprefix(case.prefix)
        codec = codecs[case.kind][case.label]

        assert encode(codec, decode(codec, data)) == data, named(case, place)


def test_polkadot_js_decodes_and_encodes_the_same(
    vectors: Sequence[Case], ours: Sequence[bytes], abi: Sequence[dict[str, Any]]
) -> None:
    for place, (case, data, theirs) in enumerate(zip(vectors, ours, abi, strict=True)):
        assert theirs["encoded"] == f"0x{data.hex()}", named(case, place)


def test_polkadot_js_decodes_every_error(
    bundle: Bundle, vectors: Sequence[Case], abi: Sequence[dict[str, Any]]
) -> None:
    """By name, from encoded bytes: also the errors that no node can be brought to return."""
    seen = set()
    for place, (case, theirs) in enumerate(zip(vectors, abi, strict=True)):
        refusal = refusal_of(case)
        if refusal is not None:
            assert theirs["variants"] == ["Ok", "Err", refusal], named(case, place)
            seen.add(refusal)

    assert seen == set(bundle.ink.shape("Error").variants)


def refusal_of(case: Case) -> str | None:
    """The contract's error that a returned value is, if it is one."""
    outer = case.value
    if case.kind not in ("result", "constructed") or not isinstance(outer, Variant):
        return None
    inner = outer.value
    if outer.name != "Ok" or not isinstance(inner, Variant) or inner.name != "Err":
        return None
    assert isinstance(inner.value, Variant)
    return inner.value.name


def test_the_lock_file_pins_contents_and_names_no_registry() -> None:
    lock = json.loads(Path(__file__).with_name("package-lock.json").read_text())
    packages = {path: entry for path, entry in lock["packages"].items() if path}

    assert packages
    for path, entry in packages.items():
        assert entry["integrity"].startswith("sha512-"), path
        assert "resolved" not in entry, path
