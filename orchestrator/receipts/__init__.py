"""
Receipts: one file that shows a stranger, offline, who computed what on which evidence.

Nothing here opens a file, asks a network or reads a clock.
"""

from orchestrator.receipts.dsse import (
    MAX_ENVELOPE_BYTES,
    PAYLOAD_TYPE,
    dump_envelope,
    sign_envelope,
)
from orchestrator.receipts.examination import ReceiptReport, examine_receipt
from orchestrator.receipts.making import ProvenJob, ProvesStorage, prove_job
from orchestrator.receipts.receipt import (
    FORMAT,
    MAX_RECEIPT_BYTES,
    Receipt,
    ReceiptEvent,
    dump_receipt,
    load_receipt,
)
from orchestrator.receipts.steps import Step, StepName

__all__ = [
    "FORMAT",
    "MAX_ENVELOPE_BYTES",
    "MAX_RECEIPT_BYTES",
    "PAYLOAD_TYPE",
    "ProvenJob",
    "ProvesStorage",
    "Receipt",
    "ReceiptEvent",
    "ReceiptReport",
    "Step",
    "StepName",
    "dump_envelope",
    "dump_receipt",
    "examine_receipt",
    "load_receipt",
    "prove_job",
    "sign_envelope",
]
