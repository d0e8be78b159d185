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
from orchestrator.evidence.verdict import (
    EvidenceCheck,
    EvidenceError,
    EvidenceFinding,
    Verdict,
    VerifiedEvidence,
)

__all__ = [
    "MAX_BUNDLE_BYTES",
    "Collateral",
    "EvidenceBundle",
    "EvidenceCheck",
    "EvidenceError",
    "EvidenceFinding",
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
    "load_bundle",
    "load_collateral_json",
]
