"""
A receipt in a DSSE envelope: signed by an account that says so, beside what the receipt shows.

The signature is sr25519 (context `substrate`) over the pre-authentication encoding of DSSE 1.0.2,
`keyid` is the account's SS58 address. Written in one form, as receipts are.
"""

import base64
import json
from dataclasses import dataclass

from orchestrator.attestation.json_fields import JsonObject, load_json, read_text
from orchestrator.crypto import schnorrkel
from orchestrator.encoding import from_ss58, to_ss58
from orchestrator.errors import EncodingError, InputError, InvalidSignatureError
from orchestrator.models import Account
from orchestrator.receipts.receipt import MAX_RECEIPT_BYTES, require_same

__all__ = [
    "MAX_ENVELOPE_BYTES",
    "PAYLOAD_TYPE",
    "DsseEnvelope",
    "dump_envelope",
    "load_envelope",
    "pre_authentication",
    "sign_envelope",
    "verify_envelope",
]

PAYLOAD_TYPE = "application/vnd.phala-jobs.receipt+json"
MAX_ENVELOPE_BYTES = 2 * MAX_RECEIPT_BYTES


@dataclass(frozen=True, kw_only=True)
class DsseEnvelope:
    """A receipt's bytes, and one account's signature over them."""

    payload: bytes
    account_id: bytes
    signature: bytes


def pre_authentication(payload: bytes) -> bytes:
    """Return what is signed: DSSE's encoding of the payload's type and the payload."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %b %d %b" % (len(kind), kind, len(payload), payload)


def sign_envelope(payload: bytes, account: Account) -> DsseEnvelope:
    """Return the envelope of a receipt's bytes, signed by *account*."""
    return DsseEnvelope(
        payload=payload,
        account_id=account.account_id,
        signature=account.sign(pre_authentication(payload)),
    )


def dump_envelope(envelope: DsseEnvelope) -> bytes:
    """Return the envelope's one form."""
    document = {
        "payloadType": PAYLOAD_TYPE,
        "payload": base64.b64encode(envelope.payload).decode("ascii"),
        "signatures": [
            {
                "keyid": to_ss58(envelope.account_id),
                "sig": base64.b64encode(envelope.signature).decode("ascii"),
            }
        ],
    }
    return (json.dumps(document, indent=2) + "\n").encode("ascii")


def load_envelope(data: bytes) -> DsseEnvelope:
    """
    Return the envelope whose one form *data* is.

    Raises:
        EncodingError: It is too long, not exactly of the format, or written differently.
    """
    root = JsonObject("", load_json(data, limit=MAX_ENVELOPE_BYTES))
    if root.take("payloadType", read_text) != PAYLOAD_TYPE:
        raise EncodingError(f"payloadType: must be {PAYLOAD_TYPE!r}")
    payload = root.take("payload", _read_base64)
    signatures = root.take("signatures", lambda _, value: value)
    root.finish()
    if not isinstance(signatures, list) or len(signatures) != 1:
        raise EncodingError("signatures: must be a list of one")
    fields = JsonObject("signatures[0]", signatures[0])
    envelope = DsseEnvelope(
        payload=payload,
        account_id=fields.take("keyid", _read_account),
        signature=fields.take("sig", _read_base64),
    )
    fields.finish()
    require_same(data, dump_envelope(envelope))
    return envelope


def verify_envelope(envelope: DsseEnvelope) -> None:
    """
    Check that the named account signed the payload.

    Does **not** say whose account that is.

    Raises:
        InvalidSignatureError: It did not: `BadSignature`.
    """
    signed = pre_authentication(envelope.payload)
    if not schnorrkel.is_valid(envelope.account_id, envelope.signature, signed):
        raise InvalidSignatureError("BadSignature", "not the account's signature over the payload")


def _read_account(path: str, value: object) -> bytes:
    try:
        return from_ss58(read_text(path, value))
    except InputError as error:
        raise EncodingError(f"{path}: must be an SS58 address") from error


def _read_base64(path: str, value: object) -> bytes:
    try:
        return base64.b64decode(read_text(path, value), validate=True)
    except ValueError as error:
        raise EncodingError(f"{path}: must be base64") from error
