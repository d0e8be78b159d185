"""
TEE evidence: what a worker shows, and what decides about it.

Nothing here does I/O or reads a clock: bytes, policy and the time come as arguments. Intel's
signatures are checked by `dcap-qvl`; which of what Intel says is good enough is ours.

The verifier and the policy file are imported when they are first used: a worker, which only shows
evidence, does not load what judges it.
"""

import importlib
from typing import TYPE_CHECKING

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
    MAX_POLICY_BYTES,
    Attributes,
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

if TYPE_CHECKING:
    from orchestrator.evidence.binding_checks import (
        ExpectedBinding,
        IssuedChallenge,
        KeyStanding,
    )
    from orchestrator.evidence.intel_root import INTEL_ROOT
    from orchestrator.evidence.policy_changes import (
        PolicyChange,
        PolicyEffect,
        compare_policies,
        policy_warnings,
    )
    from orchestrator.evidence.policy_file import load_policy, load_root, policy_schema
    from orchestrator.evidence.policy_text import policy_from_evidence, starter_policy
    from orchestrator.evidence.quote import Quote, SgxReport, TdxReport, parse_quote
    from orchestrator.evidence.verifier import examine_evidence, verify_evidence

__all__ = [
    "INTEL_ROOT",
    "MAX_BUNDLE_BYTES",
    "MAX_POLICY_BYTES",
    "Attributes",
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
    "PolicyChange",
    "PolicyEffect",
    "Quote",
    "Root",
    "SgxMeasurements",
    "SgxReport",
    "TcbRules",
    "TdxMeasurements",
    "TdxReport",
    "Verdict",
    "VerifiedEvidence",
    "compare_policies",
    "dump_bundle",
    "dump_collateral_json",
    "evidence_hash",
    "examine_evidence",
    "load_bundle",
    "load_collateral_json",
    "load_policy",
    "load_root",
    "parse_quote",
    "policy_from_evidence",
    "policy_schema",
    "policy_warnings",
    "protocol_report_data",
    "starter_policy",
    "verify_evidence",
]

_HOMES = {
    "INTEL_ROOT": "intel_root",
    "ExpectedBinding": "binding_checks",
    "IssuedChallenge": "binding_checks",
    "KeyStanding": "binding_checks",
    "PolicyChange": "policy_changes",
    "PolicyEffect": "policy_changes",
    "Quote": "quote",
    "SgxReport": "quote",
    "TdxReport": "quote",
    "compare_policies": "policy_changes",
    "examine_evidence": "verifier",
    "load_policy": "policy_file",
    "load_root": "policy_file",
    "parse_quote": "quote",
    "policy_from_evidence": "policy_text",
    "policy_schema": "policy_file",
    "policy_warnings": "policy_changes",
    "starter_policy": "policy_text",
    "verify_evidence": "verifier",
}


def __getattr__(name: str) -> object:
    """Import a name when it is first asked for."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f"{__name__}.{home}"), name)
    globals()[name] = value
    return value
