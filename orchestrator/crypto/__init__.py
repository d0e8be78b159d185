"""
Keys, signatures and envelopes (protocol sections 3.1 and 3.4).

Who may be trusted is not known here: `attestation` decides about statements, the contract about
workers. Nothing here reads a clock or does I/O; random bytes come from the operating system.
"""

from orchestrator.crypto.accounts import AccountKey, generate_mnemonic
from orchestrator.crypto.keys import (
    EcdsaSigner,
    EncryptionKey,
    OwnerSecret,
    Sr25519Signer,
    load_signer,
    verify_reply_key,
    verify_signature,
)
from orchestrator.crypto.sealing import (
    MAX_ENVELOPE,
    MAX_PLAINTEXT,
    JobHeader,
    OpenedJob,
    OpenedResult,
    ResultHeader,
    SealedJob,
    open_job,
    open_result,
    read_job_header,
    read_result_header,
    seal_job,
    seal_result,
    verify_job_header,
)

__all__ = [
    "MAX_ENVELOPE",
    "MAX_PLAINTEXT",
    "AccountKey",
    "EcdsaSigner",
    "EncryptionKey",
    "JobHeader",
    "OpenedJob",
    "OpenedResult",
    "OwnerSecret",
    "ResultHeader",
    "SealedJob",
    "Sr25519Signer",
    "generate_mnemonic",
    "load_signer",
    "open_job",
    "open_result",
    "read_job_header",
    "read_result_header",
    "seal_job",
    "seal_result",
    "verify_job_header",
    "verify_reply_key",
    "verify_signature",
]
