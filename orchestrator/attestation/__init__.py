"""
Who signed what: statements, what makes them acceptable, and files to check them offline.

Nothing here knows the chain, a clock or a network: facts and the time come as arguments.
"""

from orchestrator.attestation.file import (
    AttestationFile,
    Check,
    CheckOutcome,
    WorkerFacts,
    attestation_file_of,
    is_accepted,
    verify_attestation_file,
)
from orchestrator.attestation.file_format import (
    attestation_document,
    dump_attestation_file,
    load_attestation_file,
    read_attestation,
)
from orchestrator.attestation.result import ExpectedResult, verify_result
from orchestrator.attestation.statement import (
    sign_statement,
    statement_of,
    verify_completion_signature,
)
from orchestrator.attestation.verifier import (
    JobView,
    verify_recorded_statement,
    verify_statement,
)

__all__ = [
    "AttestationFile",
    "Check",
    "CheckOutcome",
    "ExpectedResult",
    "JobView",
    "WorkerFacts",
    "attestation_document",
    "attestation_file_of",
    "dump_attestation_file",
    "is_accepted",
    "load_attestation_file",
    "read_attestation",
    "sign_statement",
    "statement_of",
    "verify_attestation_file",
    "verify_completion_signature",
    "verify_recorded_statement",
    "verify_result",
    "verify_statement",
]
