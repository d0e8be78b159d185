"""
Receipts, version 1: one file about one job, and its one form.

::

    { format: "phala-jobs receipt", version: 1,
      attestation: an attestation file's object: chain, contract, job, worker, statement, signature,
      evidence: the evidence bundle, base64,
      policy: the policy file that the bundle names, as text,
      proof: null, or { header: SCALE, 0x…, nodes: [base64 …, in the order of their bytes] },
      events: [ { block, block_hash, index, topics: [0x…], data: 0x… } … ] }

The form is JSON as Python writes it with an indent of two, in ASCII, with these keys in this order
and a line feed at the end: a receipt is read only if writing it again gives the same bytes.
"""

import base64
import json
from dataclasses import dataclass

from orchestrator.attestation import AttestationFile, attestation_document, read_attestation
from orchestrator.attestation.json_fields import (
    JsonObject,
    hex_text,
    load_json,
    read_bytes,
    read_hash,
    read_text,
    read_u32,
    read_u64,
)
from orchestrator.chain.storage_keys import StorageProof
from orchestrator.errors import EncodingError
from orchestrator.evidence import MAX_BUNDLE_BYTES
from orchestrator.receipts.trie import MAX_NODES

__all__ = [
    "FORMAT",
    "MAX_RECEIPT_BYTES",
    "Receipt",
    "ReceiptEvent",
    "dump_receipt",
    "load_receipt",
    "require_same",
]

FORMAT = "phala-jobs receipt"
VERSION = 1
MAX_RECEIPT_BYTES = 4 << 20
MAX_EVENTS = 100
_MAX_TOPICS = 4


@dataclass(frozen=True, kw_only=True)
class ReceiptEvent:
    """One event of the contract as the chain has it; nothing in a receipt proves it."""

    block: int
    block_hash: bytes
    index: int
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """
    Everything that shows a stranger who computed what, on which evidence, for which job.

    `evidence` are the bytes of a bundle, `policy` those of the policy file that it names; without
    `proof` nothing shows that a chain ever recorded any of it.
    """

    attestation: AttestationFile
    evidence: bytes
    policy: bytes
    proof: StorageProof | None
    events: tuple[ReceiptEvent, ...]


def dump_receipt(receipt: Receipt) -> bytes:
    """
    Return the receipt's one form.

    Raises:
        EncodingError: A part is none that a receipt can hold.
    """
    try:
        policy = receipt.policy.decode()
    except UnicodeDecodeError as error:
        raise EncodingError("policy: not UTF-8") from error
    proof = receipt.proof
    document = {
        "format": FORMAT,
        "version": VERSION,
        "attestation": attestation_document(receipt.attestation),
        "evidence": _base64(receipt.evidence),
        "policy": policy,
        "proof": None
        if proof is None
        else {
            "header": hex_text(proof.header),
            "nodes": [_base64(node) for node in sorted(proof.nodes)],
        },
        "events": [
            {
                "block": event.block,
                "block_hash": hex_text(event.block_hash),
                "index": event.index,
                "topics": [hex_text(topic) for topic in event.topics],
                "data": hex_text(event.data),
            }
            for event in receipt.events
        ],
    }
    return (json.dumps(document, indent=2) + "\n").encode("ascii")


def load_receipt(data: bytes) -> Receipt:
    """
    Return the receipt whose one form *data* is.

    Does **not** verify anything: `examine_receipt` does.

    Raises:
        EncodingError: It is too long, not exactly of the format, or written differently.
    """
    root = JsonObject("", load_json(data, limit=MAX_RECEIPT_BYTES))
    if root.take("format", read_text) != FORMAT:
        raise EncodingError(f"format: must be {FORMAT!r}")
    version = root.take("version", read_u64)
    if version != VERSION:
        raise EncodingError(f"version: {version}, this program reads {VERSION}")
    receipt = Receipt(
        attestation=root.take("attestation", read_attestation),
        evidence=root.take("evidence", _read_base64),
        policy=root.take("policy", _read_policy),
        proof=root.take("proof", _read_proof),
        events=root.take("events", _read_events),
    )
    root.finish()
    require_same(data, dump_receipt(receipt))
    return receipt


def require_same(data: bytes, canonical: bytes) -> None:
    """
    Refuse bytes that are not the one form of what they say.

    Raises:
        EncodingError: They differ; the place is named.
    """
    if data != canonical:
        pairs = zip(data, canonical, strict=False)
        shorter = min(len(data), len(canonical))
        place = next((at for at, (a, b) in enumerate(pairs) if a != b), shorter)
        raise EncodingError(f"written differently from its one form, from byte {place} on")


def _read_policy(path: str, value: object) -> bytes:
    try:
        return read_text(path, value).encode()
    except UnicodeEncodeError as error:
        raise EncodingError(f"{path}: not text that a file can hold") from error


def _read_proof(path: str, value: object) -> StorageProof | None:
    if value is None:
        return None
    fields = JsonObject(path, value)
    proof = StorageProof(
        header=fields.take("header", read_bytes), nodes=fields.take("nodes", _read_nodes)
    )
    fields.finish()
    return proof


def _read_nodes(path: str, value: object) -> tuple[bytes, ...]:
    nodes = _list(path, value, MAX_NODES)
    return tuple(_read_base64(f"{path}[{at}]", node) for at, node in enumerate(nodes))


def _read_events(path: str, value: object) -> tuple[ReceiptEvent, ...]:
    return tuple(
        _read_event(f"{path}[{at}]", event)
        for at, event in enumerate(_list(path, value, MAX_EVENTS))
    )


def _read_event(path: str, value: object) -> ReceiptEvent:
    fields = JsonObject(path, value)
    event = ReceiptEvent(
        block=fields.take("block", read_u64),
        block_hash=fields.take("block_hash", read_hash),
        index=fields.take("index", read_u32),
        topics=fields.take(
            "topics",
            lambda place, topics: tuple(
                read_hash(f"{place}[{at}]", topic)
                for at, topic in enumerate(_list(place, topics, _MAX_TOPICS))
            ),
        ),
        data=fields.take("data", read_bytes),
    )
    fields.finish()
    return event


def _list(path: str, value: object, limit: int) -> list[object]:
    if not isinstance(value, list) or len(value) > limit:
        raise EncodingError(f"{path}: must be a list of at most {limit}")
    return value


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")


def _read_base64(path: str, value: object) -> bytes:
    text = read_text(path, value)
    if len(text) > 2 * MAX_BUNDLE_BYTES:
        raise EncodingError(f"{path}: {len(text)} long, at most {2 * MAX_BUNDLE_BYTES}")
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise EncodingError(f"{path}: must be base64") from error
