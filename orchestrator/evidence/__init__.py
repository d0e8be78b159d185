"""
TEE evidence: what a worker shows, and what decides about it.

Nothing here does I/O or reads a clock: bytes, policy and the time come as arguments. Intel's
signatures are checked by `dcap-qvl`; which of what Intel says is good enough is ours.
"""

from orchestrator.evidence.bundle import (
    MAX_BUNDLE_BYTES,
    Collateral,
    EvidenceBundle,
    dump_bundle,
    dump_collateral_json,
    evidence_hash,
    load_bundle,
    load_collateral_json,
)
from orchestrator.evidence.policy import (
    MeasurementSet,
    Platforms,
    Policy,
    Root,
    SgxMeasurements,
    TcbRules,
    TdxMeasurements,
)
from orchestrator.evidence.report_data import protocol_report_data
from orchestrator.evidence.verdict import (
    EvidenceCheck,
    EvidenceError,
    EvidenceFinding,
    Verdict,
    VerifiedEvidence,
)
from orchestrator.evidence.verifier import (
    ExpectedBinding,
    IssuedChallenge,
    KeyStanding,
    examine_evidence,
    verify_evidence,
)

__all__ = [
    "MAX_BUNDLE_BYTES",
    "Collateral",
    "EvidenceBundle",
    "EvidenceCheck",
    "EvidenceError",
    "EvidenceFinding",
    "ExpectedBinding",
    "IssuedChallenge",
    "KeyStanding",
    "MeasurementSet",
    "Platforms",
    "Policy",
    "Root",
    "SgxMeasurements",
    "TcbRules",
    "TdxMeasurements",
    "Verdict",
    "VerifiedEvidence",
    "dump_bundle",
    "dump_collateral_json",
    "evidence_hash",
    "examine_evidence",
    "load_bundle",
    "load_collateral_json",
    "protocol_report_data",
    "verify_evidence",
]
