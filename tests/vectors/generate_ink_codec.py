"""
Makes `ink_codec.json`: `python tests/vectors/generate_ink_codec.py [--check]`.

The bytes are scalecodec's (the codec of substrate-interface), by the metadata of the bundle that
ships with the package; nothing of `orchestrator.chain.scale` takes part. Byte vectors are given to
scalecodec as `bytes`, so that it does not take them for text.
"""

import argparse
import json
import sys
from importlib.metadata import version
from pathlib import Path

from scalecodec.base import RuntimeConfigurationObject, ScaleBytes
from scalecodec.type_registry import load_type_registry_preset

FOLDER = Path(__file__).parent
FILE = FOLDER / "ink_codec.json"
BUNDLE = FOLDER.parents[1] / "orchestrator" / "contract" / "phala_job_processor.contract"

ORIGIN = "made by tests/vectors/generate_ink_codec.py with scalecodec {}"
HASH_BYTES = 32

Tagged = object
Document = dict[str, object]


def octets(data: bytes) -> dict[str, Tagged]:
    """Tag bytes."""
    return {"bytes": data.hex()}


def variant(name: str, value: Tagged = None) -> dict[str, Tagged]:
    """Tag a value of an enum."""
    return {"variant": name, "value": value}


def fields(**values: Tagged) -> dict[str, Tagged]:
    """Tag a struct."""
    return {"fields": values}


UNIT = {"unit": True}
H = [octets(bytes([n]) * 32) for n in range(8)]
KEY = variant("Ecdsa", octets(b"\2" + b"\x11" * 32))
PROOF = fields(
    outcome=variant("Failed"),
    units=2**64 - 1,
    started_at=1,
    finished_at=2,
    issued_at=3,
    signature=variant("Ecdsa", octets(bytes(range(65)))),
)
SR_PROOF = fields(
    outcome=variant("Completed"),
    units=0,
    started_at=1_767_225_600_000,
    finished_at=1_767_225_600_001,
    issued_at=1_767_225_600_002,
    signature=variant("Sr25519", octets(bytes(range(64)))),
)
PARAMETERS = fields(
    max_payload=8192,
    max_reference=1 << 40,
    min_ttl=60_000,
    max_ttl=604_800_000,
    rate_limit=1_000_000,
    rate_window=3_600_000,
    max_attestation_age=600_000,
    max_clock_skew=60_000,
    max_registration=2_592_000_000,
    mark_grace=3_600_000,
)
WORKER = fields(
    worker=7,
    signing_key=variant("Sr25519", H[1]),
    encryption_key=H[2],
    measurement=H[3],
    evidence_hash=H[4],
    endpoint=octets(b"https://worker.example:8443/"),
    registered_at=5,
    valid_until=6,
    status=variant("Suspended"),
)


def completion(proof: Tagged, key: Tagged) -> Tagged:
    """Return a completion."""
    return fields(
        job_id=2**128 - 1, result_hash=H[5], attestation_proof=proof, tee_worker_pubkey=key
    )


def payload_call(data: bytes) -> dict[str, Tagged]:
    """Return the arguments of a submit."""
    return {
        "encrypted_payload": octets(data),
        "public_key": H[1],
        "options": fields(workers=[1, 2**32 - 1], ttl=60_000),
    }


MESSAGES: list[tuple[str, str, dict[str, Tagged]]] = [
    ("payload_of_binary", "submit_confidential_job", payload_call(bytes(range(256)))),
    ("payload_that_is_utf8", "submit_confidential_job", payload_call("héllo".encode())),
    ("payload_that_spells_hex", "submit_confidential_job", payload_call(b"0xabcd")),
    ("payload_of_one_byte", "submit_confidential_job", payload_call(b"\0")),
    ("payload_of_63_bytes", "submit_confidential_job", payload_call(b"a" * 63)),
    ("payload_of_64_bytes", "submit_confidential_job", payload_call(b"a" * 64)),
    (
        "reference",
        "submit_job_reference",
        {
            "payload_hash": H[1],
            "length": 2**40,
            "location": octets(b"https://blobs.example/"),
            "public_key": H[2],
            "options": fields(workers=[3], ttl=1),
        },
    ),
    (
        "failed_by_ecdsa",
        "record_attestation",
        {
            "job_id": 1,
            "result_hash": H[3],
            "attestation_proof": PROOF,
            "tee_worker_pubkey": KEY,
        },
    ),
    (
        "completions_of_both_schemes",
        "complete_jobs",
        {
            "completions": [
                completion(PROOF, KEY),
                completion(SR_PROOF, variant("Sr25519", H[6])),
            ]
        },
    ),
    ("no_completions", "complete_jobs", {"completions": []}),
    ("no_arguments", "get_job_counter", {}),
    ("parameters", "set_parameters", {"parameters": PARAMETERS}),
    ("role", "grant_role", {"account": H[7], "role": variant("Guardian")}),
    ("mode", "set_mode", {"mode": variant("Halted")}),
]

RESULTS: list[tuple[str, str, Tagged]] = [
    ("job_id", "submit_confidential_job", variant("Ok", variant("Ok", 2**128 - 1))),
    ("refused", "submit_confidential_job", variant("Ok", variant("Err", variant("RateLimited")))),
    ("last_error", "submit_confidential_job", variant("Ok", variant("Err", variant("Overflow")))),
    ("not_understood", "get_job", variant("Err", variant("CouldNotReadInput"))),
    ("no_job", "get_job", variant("Ok", None)),
    (
        "job",
        "get_job",
        variant(
            "Ok",
            fields(
                job_id=9,
                owner=H[1],
                encrypted_payload=variant("Inline", octets(b"0xabcd")),
                public_key=H[2],
                created_at=1,
                processed=True,
                status=variant("Processed"),
                payload_hash=H[3],
                deadline=2,
                workers=[4, 5],
                failures=[fields(worker=4, result_hash=H[4], units=6, timestamp=7)],
                processed_at=8,
            ),
        ),
    ),
    ("worker", "get_worker", variant("Ok", WORKER)),
    (
        "items",
        "complete_jobs",
        variant(
            "Ok", variant("Ok", [variant("Ok", UNIT), variant("Err", variant("BadSignature"))])
        ),
    ),
    (
        "page",
        "workers_page",
        variant("Ok", variant("Ok", fields(items=[WORKER], next=8, total=12))),
    ),
    ("status", "attestation_status", variant("Ok", variant("WorkerExpired"))),
    ("bool", "is_trusted", variant("Ok", True)),
]

EVENTS: list[tuple[str, dict[str, Tagged]]] = [
    (
        "JobSubmitted",
        {"job_id": 1, "owner": H[1], "payload_hash": H[2], "workers": [1, 2], "deadline": 3},
    ),
    (
        "JobProcessed",
        {
            "job_id": 1,
            "owner": H[1],
            "result_hash": H[2],
            "statement": fields(
                worker=4,
                units=5,
                started_at=6,
                finished_at=7,
                issued_at=8,
                signature=variant("Sr25519", octets(bytes(range(64)))),
            ),
        },
    ),
    ("ModeChanged", {"mode": variant("Draining")}),
]


def plain(value: Tagged) -> object:
    """Return a tagged value as scalecodec takes it."""
    if isinstance(value, list):
        return [plain(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "unit" in value:
        return ()
    if "bytes" in value:
        data = bytes.fromhex(value["bytes"])
        # An account has to be text; every account and hash here has 32 bytes, no `Vec<u8>` has.
        return f"0x{data.hex()}" if len(data) == HASH_BYTES else data
    if "fields" in value:
        return {name: plain(item) for name, item in value["fields"].items()}
    return {value["variant"]: plain(value["value"])}


class Reference:
    """Encodes by the metadata's types with scalecodec."""

    def __init__(self, metadata: dict[str, dict[str, list[dict[str, object]]]]) -> None:
        self.spec = metadata["spec"]
        self._config = RuntimeConfigurationObject(ss58_format=42)
        self._config.update_type_registry(load_type_registry_preset("core"))
        registry = self._config.create_scale_object("PortableRegistry")
        registry.encode({"types": metadata["types"]})
        self._config.update_from_scale_info_types(registry["types"], prefix="ink")

    def item(self, section: str, label: str) -> dict[str, object]:
        """Return a message or event of the metadata."""
        (found,) = [item for item in self.spec[section] if item["label"] == label]
        return found

    def encode(self, type_id: int, value: object) -> bytes:
        """Return the bytes of *value*."""
        encoded: ScaleBytes = self._config.create_scale_object(f"ink::{type_id}").encode(value)
        return bytes(encoded.data)


def _type(item: object, key: str) -> int:
    assert isinstance(item, dict)
    return int(item[key]["type"])


def document() -> Document:
    """Return what the file holds."""
    reference = Reference(json.loads(BUNDLE.read_text()))
    messages, results, events = [], [], []
    for name, label, arguments in MESSAGES:
        spec = reference.item("messages", label)
        data = bytes.fromhex(str(spec["selector"])[2:])
        assert isinstance(spec["args"], list)
        for argument in spec["args"]:
            value = plain(arguments[argument["label"]])
            data += reference.encode(_type(argument, "type"), value)
        messages.append({"name": name, "label": label, "arguments": arguments, "data": data.hex()})
    for name, label, value in RESULTS:
        returns = _type(reference.item("messages", label), "returnType")
        data = reference.encode(returns, plain(value))
        results.append({"name": name, "label": label, "value": value, "data": data.hex()})
    for label, values in EVENTS:
        spec = reference.item("events", label)
        assert isinstance(spec["args"], list)
        data = b"".join(
            reference.encode(_type(argument, "type"), plain(values[argument["label"]]))
            for argument in spec["args"]
        )
        topic = str(spec["signature_topic"])[2:]
        events.append({"label": label, "topic": topic, "fields": values, "data": data.hex()})
    return {
        "origin": ORIGIN.format(version("scalecodec")),
        "messages": messages,
        "results": results,
        "events": events,
    }


def main() -> int:
    """Write the file, or compare it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--check", action="store_true")
    text = json.dumps(document(), indent=1) + "\n"
    if not parser.parse_args().check:
        FILE.write_text(text)
        return 0
    return int(FILE.read_text() != text)


if __name__ == "__main__":
    sys.exit(main())
