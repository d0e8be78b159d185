"""@polkadot/api-contract against the contract on a node, by the scripts beside this file."""

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from orchestrator.chain.bundle import Bundle, load_bundle
from orchestrator.chain.devnode import DevNode
from orchestrator.chain.ink import InkContract
from orchestrator.chain.registry import Registry
from orchestrator.chain.scale import encode
from orchestrator.encoding import blake2_256

ROOT = Path(__file__).resolve().parents[2]

# The errors that a node can't be brought to return, and why. polkadot-js decodes them, as it does
# all the others, from encoded bytes: test_codecs.py.
UNREACHABLE = {"Overflow": "a counter of 32 bits or more would have to be used up first"}


@dataclass(frozen=True, kw_only=True)
class Deployed:
    """The contract on a node, deployed by polkadot-js."""

    bundle: Bundle
    path: str
    url: str
    address: str


@pytest.fixture(scope="module")
def deployed(
    run_script: Callable[..., str], node: DevNode, tmp_path_factory: pytest.TempPathFactory
) -> Deployed:
    bundle = load_bundle()
    path = tmp_path_factory.mktemp("bundle") / "processor.contract"
    path.write_text(json.dumps(bundle.metadata))
    address = run_script("deploy.mjs", str(path), node.url).strip()
    return Deployed(bundle=bundle, path=str(path), url=node.url, address=address)


@pytest.fixture(scope="module")
def report(deployed: Deployed, run_script: Callable[..., str]) -> dict[str, Any]:
    """What `whole_job.mjs` reports: it fails by itself where the contract does not do its part."""
    printed = run_script("whole_job.mjs", deployed.path, deployed.url, deployed.address)
    found: dict[str, Any] = json.loads(printed)
    return found


def test_every_message_was_called(deployed: Deployed, report: dict[str, Any]) -> None:
    assert set(report["messages"]) == set(deployed.bundle.ink.messages)


def test_every_event_was_emitted(deployed: Deployed, report: dict[str, Any]) -> None:
    emitted = {event["name"] for event in report["events"]}

    assert emitted == {event.label for event in deployed.bundle.ink.events.values()}


def test_events_are_decoded_as_we_decode_them(deployed: Deployed, report: dict[str, Any]) -> None:
    metadata: Any = deployed.bundle.metadata
    ink = InkContract(metadata)
    registry = Registry(metadata["types"], {})
    codecs = {
        event["label"]: {arg["label"]: registry.codec(arg["type"]["type"]) for arg in event["args"]}
        for event in metadata["spec"]["events"]
    }
    for event in report["events"]:
        topics = tuple(bytes.fromhex(topic[2:]) for topic in event["topics"])

        name, fields = ink.decode_event(topics, bytes.fromhex(event["data"][2:]))

        assert name == event["name"]
        ours = {label: encode(codecs[name][label], value) for label, value in fields.items()}
        assert {label: f"0x{data.hex()}" for label, data in ours.items()} == event["fields"], name


def test_every_error_was_a_real_refusal_or_is_listed(
    deployed: Deployed, report: dict[str, Any]
) -> None:
    errors = set(deployed.bundle.ink.shape("Error").variants)

    assert set(report["refused"]) == errors - set(UNREACHABLE)


def test_the_example_submits_a_job_and_reads_it_back(
    deployed: Deployed, report: dict[str, Any], run_script: Callable[..., str]
) -> None:
    payload, public_key = b"\xde\xad", b"\x11" * 32
    given = (deployed.path, deployed.url, deployed.address, str(report["worker"]))

    printed = run_script("example.mjs", *given, f"0x{payload.hex()}", f"0x{public_key.hex()}")

    job = json.loads(printed)
    assert job["encryptedPayload"] == {"inline": f"0x{payload.hex()}"}
    assert job["payloadHash"] == f"0x{blake2_256(payload).hex()}"
    assert job["publicKey"] == f"0x{public_key.hex()}"
    assert (job["status"], job["workers"]) == ("Submitted", [report["worker"]])


def test_the_document_shows_the_example_as_it_runs() -> None:
    document = (ROOT / "docs" / "interop.md").read_text()
    blocks = re.findall(r"^```js\n(.*?)^```$", document, re.MULTILINE | re.DOTALL)

    assert blocks == [(ROOT / "tests" / "interop" / "example.mjs").read_text()]
