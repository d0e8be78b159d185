"""Bundles: ours loads; another contract's, a damaged or an unknown one does not."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chain import bundle as bundle_module
from orchestrator.chain.bundle import MAX_BUNDLE_BYTES, load_bundle
from orchestrator.chain.host import HOST_FUNCTIONS
from orchestrator.chain.interface import CONTRACT_ERRORS, MESSAGES
from orchestrator.chain.wasm import check_code
from orchestrator.encoding import blake2_256
from orchestrator.errors import ChainMismatchError, InputError
from orchestrator.models import AttestationStatus, JobStatus, Mode, Outcome, Role, WorkerStatus

Change = Callable[[dict[str, Any]], None]


@pytest.fixture
def changed(tmp_path: Path) -> Callable[[Change], Path]:
    """Write the bundle with one change and return its path."""

    def write(change: Change) -> Path:
        metadata = copy.deepcopy(dict(load_bundle().metadata))
        change(metadata)
        path = tmp_path / "changed.contract"
        path.write_text(json.dumps(metadata))
        return path

    return write


def test_the_package_brings_its_bundle_and_reads_it_once() -> None:
    bundle = load_bundle()

    assert bundle is load_bundle()
    assert bundle.name == "phala_job_processor"
    assert bundle.version
    assert bundle.code.startswith(b"\0asm")
    assert bundle.code_hash == blake2_256(bundle.code)


def test_a_bundle_by_path(changed: Callable[[Change], Path]) -> None:
    assert load_bundle(changed(lambda _: None)).code == load_bundle().code


def test_the_contract_imports_exactly_the_host_functions_that_there_are() -> None:
    signatures = {name: function.signature for name, function in HOST_FUNCTIONS.items()}

    shape = check_code(load_bundle().code, signatures)

    assert set(shape.functions) == set(HOST_FUNCTIONS)


def test_errors_are_mirrored_in_order() -> None:
    """SCALE encodes variants by index: an order of our own would be another error."""
    assert load_bundle().ink.shape("Error").variants == CONTRACT_ERRORS


@pytest.mark.parametrize(
    "model", [AttestationStatus, JobStatus, Mode, Role, WorkerStatus], ids=lambda m: m.__name__
)
def test_enums_are_mirrored_in_order(model: type[JobStatus]) -> None:
    variants = load_bundle().ink.shape(model.__name__).variants

    assert variants == tuple(member.value for member in model)


def test_outcomes_are_mirrored_in_order() -> None:
    variants = load_bundle().ink.shape("Outcome").variants

    assert variants == tuple(member.name.capitalize() for member in Outcome)


def test_every_message_of_the_contract_is_known() -> None:
    assert set(load_bundle().ink.messages) == set(MESSAGES)


def flip_wasm(metadata: dict[str, Any]) -> None:
    metadata["source"]["wasm"] = metadata["source"]["wasm"][:-2] + "7f"


def rename_argument(metadata: dict[str, Any]) -> None:
    (message,) = [m for m in metadata["spec"]["messages"] if m["label"] == "get_job"]
    message["args"][0]["label"] = "number"


def swap_variants(name: str) -> Change:
    def change(metadata: dict[str, Any]) -> None:
        for entry in metadata["types"]:
            if entry["type"].get("path", [])[-1:] == [name]:
                variants = entry["type"]["def"]["variant"]["variants"]
                variants[0]["name"], variants[1]["name"] = variants[1]["name"], variants[0]["name"]

    return change


def rename_field(name: str) -> Change:
    def change(metadata: dict[str, Any]) -> None:
        for entry in metadata["types"]:
            if entry["type"].get("path", [])[-1:] == [name]:
                entry["type"]["def"]["composite"]["fields"][0]["name"] = "other"

    return change


def set_value(*path: str, value: object) -> Change:
    def change(metadata: dict[str, Any]) -> None:
        for key in path[:-1]:
            metadata = metadata[key]
        metadata[path[-1]] = value

    return change


def without(section: str, label: str) -> Change:
    def change(metadata: dict[str, Any]) -> None:
        found = [item for item in metadata["spec"][section] if item["label"] != label]
        metadata["spec"][section] = found

    return change


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (set_value("contract", "name", value="flipper"), "of the contract flipper, not phala"),
        (set_value("contract", value=None), "where an object belongs"),
        (set_value("source", "wasm", value=None), "the text 'wasm' belongs"),
        (set_value("source", "wasm", value="0x0"), "'wasm' is not 0x and hex digits"),
        (set_value("source", "hash", value="0x" + "00" * 32), "not to the bundle's 0000"),
        (flip_wasm, "the code hashes to"),
        (set_value("version", value=6), "of version 6, not 5"),
        (without("messages", "complete_jobs"), "complete_jobs: no such message"),
        (without("constructors", "new"), "no constructor new"),
        (rename_argument, r"get_job: \(number\) in the metadata, \(job_id\) expected"),
        (swap_variants("Error"), "the contract's Error has MissingRole, NotAdmin"),
        (swap_variants("JobStatus"), "the contract's JobStatus has Attested, Submitted"),
        (swap_variants("Outcome"), "the contract's Outcome has Failed, Completed"),
        (swap_variants("PublicKey"), "the contract's PublicKey has Ecdsa, Sr25519"),
        (swap_variants("Signature"), "the contract's Signature has Ecdsa, Sr25519"),
        (swap_variants("Payload"), "the contract's Payload has Reference, Inline"),
        (rename_field("ConfidentialJob"), "the contract's ConfidentialJob has other, owner"),
        (rename_field("Parameters"), "the contract's Parameters has other"),
    ],
)
def test_a_bundle_that_is_not_ours_is_refused(
    changed: Callable[[Change], Path], change: Change, reason: str
) -> None:
    path = changed(change)

    with pytest.raises(ChainMismatchError, match=reason) as caught:
        load_bundle(path)

    assert str(path) in str(caught.value)


def test_a_bundle_with_other_errors_under_another_name(
    changed: Callable[[Change], Path],
) -> None:
    """The list is compared even when no message would show it."""

    def drop_error(metadata: dict[str, Any]) -> None:
        for entry in metadata["types"]:
            if entry["type"].get("path", [])[-1:] == ["Error"]:
                entry["type"]["def"]["variant"]["variants"].pop()

    with pytest.raises(ChainMismatchError, match="the contract's Error"):
        load_bundle(changed(drop_error))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "it is not JSON"),
        (b"\x00asm", "it is not JSON"),
        (b"\xff\xfe", "it is not JSON"),
        (b"[" * 100_000, "it is not JSON"),
        (b"[]", "it holds no JSON object"),
        (b" " * (MAX_BUNDLE_BYTES + 1), "more than 4194304 bytes"),
    ],
    ids=["empty", "wasm", "binary", "nested", "list", "oversize"],
)
def test_a_file_that_is_no_bundle(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "some.contract"
    path.write_bytes(content)

    with pytest.raises(InputError, match=reason):
        load_bundle(path)


def test_a_truncated_bundle(tmp_path: Path) -> None:
    path = tmp_path / "some.contract"
    path.write_text(json.dumps(dict(load_bundle().metadata))[:-100])

    with pytest.raises(InputError, match="it is not JSON"):
        load_bundle(path)


def test_a_file_that_can_not_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.contract: No such file"):
        load_bundle(tmp_path / "none.contract")
    with pytest.raises(InputError, match="Is a directory"):
        load_bundle(tmp_path)


def test_the_check_of_errors_does_not_rest_on_adapters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bundle_module, "CONTRACT_ERRORS", CONTRACT_ERRORS[:-1])

    with pytest.raises(ChainMismatchError, match="errors are not those of this version"):
        bundle_module._checked(load_bundle().metadata)
