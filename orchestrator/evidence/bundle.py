"""
The evidence bundle: what a worker shows to get on the trusted list, as one content-addressed file.

A bundle is a claim. Its form is checked here, its content by `verify_evidence`. It is canonical
CBOR, so equal bundles are equal bytes, and its hash stands on the chain (protocol 3.3)::

    { v: 1, producer, genesis, contract, signing_key (34 signing key bytes), encryption_key,
      challenge, quote, collateral: {…} or null, event_log: bytes or null, compose: bytes or null,
      policy_hash: bytes or null }

A worker leaves `policy_hash` open, and `collateral` where it has none; a registrar completes both.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields

from orchestrator.encoding import (
    blake2_256,
    decode_cbor,
    decode_signing_key,
    encode_binding,
    encode_cbor,
    encode_signing_key,
)
from orchestrator.errors import EncodingError
from orchestrator.models import PublicKey

__all__ = [
    "MAX_BUNDLE_BYTES",
    "MAX_COMPOSE_BYTES",
    "MAX_EVENT_LOG_BYTES",
    "MAX_QUOTE_BYTES",
    "Collateral",
    "EvidenceBundle",
    "dump_bundle",
    "dump_collateral_json",
    "evidence_hash",
    "load_bundle",
    "load_collateral_json",
]

VERSION = 1
MAX_QUOTE_BYTES = 16_384
MAX_EVENT_LOG_BYTES = 262_144
MAX_COMPOSE_BYTES = 262_144
# Intel's is about 24 KiB: certificate chains, two revocation lists, two signed JSON documents.
MAX_COLLATERAL_BYTES = 262_144
MAX_BUNDLE_BYTES = 1 << 20
_MAX_PRODUCER = 100
_FIELDS = frozenset(
    {
        "v",
        "producer",
        "genesis",
        "contract",
        "signing_key",
        "encryption_key",
        "challenge",
        "quote",
        "collateral",
        "event_log",
        "compose",
        "policy_hash",
    }
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Collateral:
    """
    What Intel signs about a platform's TCB, as a PCCS hands it out.

    Chains are PEM; `tcb_info` and `qe_identity` are the JSON texts exactly as signed.
    """

    pck_crl_issuer_chain: str
    root_ca_crl: bytes
    pck_crl: bytes
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: bytes
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: bytes
    pck_certificate_chain: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class EvidenceBundle:
    """
    One worker's evidence for one contract; `event_log` and `compose` are the platform's own bytes.

    `policy_hash` names the policy that a registrar verified it against.
    """

    producer: str
    genesis_hash: bytes
    contract: bytes
    signing_key: PublicKey
    encryption_key: bytes
    challenge: bytes
    quote: bytes
    collateral: Collateral | None = None
    event_log: bytes | None = None
    compose: bytes | None = None
    policy_hash: bytes | None = None

    def binding(self) -> bytes:
        """Return the bytes whose SHA-512 the quote must carry (protocol 3.3)."""
        return encode_binding(
            genesis_hash=self.genesis_hash,
            contract=self.contract,
            signing_key=self.signing_key,
            encryption_key=self.encryption_key,
            challenge=self.challenge,
        )


def dump_bundle(bundle: EvidenceBundle) -> bytes:
    """
    Return the bundle's one encoding.

    Raises:
        EncodingError: A field has not its length, or is longer than its limit.
    """
    collateral = bundle.collateral
    document = {
        "v": VERSION,
        "producer": bundle.producer,
        "genesis": bundle.genesis_hash,
        "contract": bundle.contract,
        "signing_key": encode_signing_key(bundle.signing_key),
        "encryption_key": bundle.encryption_key,
        "challenge": bundle.challenge,
        "quote": bundle.quote,
        "collateral": None if collateral is None else _collateral_map(collateral),
        "event_log": bundle.event_log,
        "compose": bundle.compose,
        "policy_hash": bundle.policy_hash,
    }
    data = encode_cbor(document, extended=True)
    load_bundle(data)  # what can't be read must not be written
    return data


def load_bundle(data: bytes) -> EvidenceBundle:
    """
    Return the bundle that *data* is the one encoding of.

    Does **not** verify anything: `verify_evidence` does.

    Raises:
        EncodingError: It is longer than a bundle may be, or not exactly of the format; names the
            field.
    """
    if len(data) > MAX_BUNDLE_BYTES:
        raise EncodingError(f"evidence bundle: {len(data)} bytes, at most {MAX_BUNDLE_BYTES}")
    document = decode_cbor(data, extended=True)
    if not isinstance(document, dict) or set(document) != _FIELDS:
        raise EncodingError(f"evidence bundle: must be a map of {', '.join(sorted(_FIELDS))}")
    if document["v"] != VERSION or isinstance(document["v"], bool):
        raise EncodingError(f"evidence bundle: version {document['v']!r}, this reads {VERSION}")
    producer = document["producer"]
    if not isinstance(producer, str) or len(producer) > _MAX_PRODUCER or not producer.isprintable():
        raise EncodingError(f"producer: must be text, at most {_MAX_PRODUCER} long")
    collateral = document["collateral"]
    return EvidenceBundle(
        producer=producer,
        genesis_hash=_bytes(document, "genesis", 32),
        contract=_bytes(document, "contract", 32),
        signing_key=decode_signing_key(_bytes(document, "signing_key", 34)),
        encryption_key=_bytes(document, "encryption_key", 32),
        challenge=_bytes(document, "challenge", 32),
        quote=_up_to(document, "quote", MAX_QUOTE_BYTES),
        collateral=None if collateral is None else _load_collateral(collateral),
        event_log=_optional(document, "event_log", MAX_EVENT_LOG_BYTES),
        compose=_optional(document, "compose", MAX_COMPOSE_BYTES),
        policy_hash=None
        if document["policy_hash"] is None
        else _bytes(document, "policy_hash", 32),
    )


def evidence_hash(bundle: EvidenceBundle) -> bytes:
    """Return what stands for the bundle on the chain: the hash of `dump_bundle`."""
    return blake2_256(dump_bundle(bundle))


def load_collateral_json(data: bytes | str) -> Collateral:
    """
    Return the collateral in the JSON that PCCS clients write (bytes are hex).

    Raises:
        EncodingError: It is too long, not JSON, or a field is missing or of another form.
    """
    if len(data) > 2 * MAX_COLLATERAL_BYTES:
        raise EncodingError(f"collateral: {len(data)} long, at most {2 * MAX_COLLATERAL_BYTES}")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise EncodingError("collateral: not JSON") from error
    if not isinstance(document, dict):
        raise EncodingError("collateral: must be an object")
    try:
        values: dict[str, object] = {
            name: bytes.fromhex(value) if kind is bytes and isinstance(value, str) else value
            for name, kind in _COLLATERAL_KINDS.items()
            if (value := document.get(name)) is not None
        }
    except ValueError as error:
        raise EncodingError("collateral: a signature or list is not hex") from error
    return _load_collateral({"pck_certificate_chain": None, **values})


def dump_collateral_json(collateral: Collateral) -> str:
    """Return the collateral as the JSON that PCCS clients read."""
    values = {
        name: value.hex() if isinstance(value, bytes) else value
        for name, value in _collateral_map(collateral).items()
        if value is not None
    }
    return json.dumps(values)


_COLLATERAL_KINDS: Mapping[str, type] = {
    field.name: bytes if field.type is bytes else str for field in fields(Collateral)
}


def _collateral_map(collateral: Collateral) -> dict[str, object]:
    return {name: getattr(collateral, name) for name in _COLLATERAL_KINDS}


def _load_collateral(value: object) -> Collateral:
    if not isinstance(value, dict) or set(value) != set(_COLLATERAL_KINDS):
        raise EncodingError(f"collateral: must be a map of {', '.join(_COLLATERAL_KINDS)}")
    length = 0
    for name, kind in _COLLATERAL_KINDS.items():
        held = value[name]
        if held is None and name == "pck_certificate_chain":
            continue
        if not isinstance(held, bytes | str) or type(held) is not kind:
            raise EncodingError(f"collateral.{name}: must be {kind.__name__}")
        length += len(held)
    if length > MAX_COLLATERAL_BYTES:
        raise EncodingError(f"collateral: {length} bytes, at most {MAX_COLLATERAL_BYTES}")
    return Collateral(**value)


def _bytes(document: Mapping[str, object], name: str, length: int) -> bytes:
    value = document[name]
    if not isinstance(value, bytes) or len(value) != length:
        raise EncodingError(f"{name}: must be {length} bytes")
    return value


def _up_to(document: Mapping[str, object], name: str, limit: int) -> bytes:
    value = document[name]
    if not isinstance(value, bytes) or len(value) > limit:
        raise EncodingError(f"{name}: must be bytes, at most {limit}")
    return value


def _optional(document: Mapping[str, object], name: str, limit: int) -> bytes | None:
    return None if document[name] is None else _up_to(document, name, limit)
