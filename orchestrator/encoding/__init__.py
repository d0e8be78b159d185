"""
The one place where a value becomes canonical, signed or hashed bytes.

Nothing here knows a key, reads a clock or does I/O. Bytes that do not have their one valid form
are an `EncodingError`.
"""

from orchestrator.encoding.cbor import (
    CborReader,
    decode_cbor,
    encode_array_head,
    encode_bytes_head,
    encode_cbor,
)
from orchestrator.encoding.plaintext import (
    decode_failure,
    decode_output,
    decode_task_input,
    encode_failure,
    encode_output,
    encode_task_input,
)
from orchestrator.encoding.signed import (
    SIGNATURE_LENGTHS,
    SIGNING_KEY_LENGTHS,
    blake2_256,
    decode_signing_key,
    encode_binding,
    encode_registration,
    encode_signing_key,
    encode_statement,
    measurement_hash,
    registration_digest,
    report_data,
    statement_digest,
)
from orchestrator.encoding.ss58 import from_ss58, to_ss58

__all__ = [
    "SIGNATURE_LENGTHS",
    "SIGNING_KEY_LENGTHS",
    "CborReader",
    "blake2_256",
    "decode_cbor",
    "decode_failure",
    "decode_output",
    "decode_signing_key",
    "decode_task_input",
    "encode_array_head",
    "encode_binding",
    "encode_bytes_head",
    "encode_cbor",
    "encode_failure",
    "encode_output",
    "encode_registration",
    "encode_signing_key",
    "encode_statement",
    "encode_task_input",
    "from_ss58",
    "measurement_hash",
    "registration_digest",
    "report_data",
    "statement_digest",
    "to_ss58",
]
