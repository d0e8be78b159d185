"""
The registrar: admits workers on verified evidence, renews them, and warns before that fails.

`registration` says in which steps; it needs `VerifiedEvidence`, which only the verifier makes.
"""

from orchestrator.registrar.admission import Admission, Examined, registration_of
from orchestrator.registrar.archive import EvidenceArchive, verdict_rows
from orchestrator.registrar.chain_calls import ChainCalls
from orchestrator.registrar.http import registrar_app
from orchestrator.registrar.platforms import platform_ids
from orchestrator.registrar.registration import Registrar
from orchestrator.registrar.renewals import Renewals
from orchestrator.registrar.rotation import rotate_keys, successors
from orchestrator.registrar.rounds import Outcome, RenewalSettings, Round, WorkerReport
from orchestrator.registrar.trust_watch import TrustWatch, alarms_of

__all__ = [
    "Admission",
    "ChainCalls",
    "EvidenceArchive",
    "Examined",
    "Outcome",
    "Registrar",
    "RenewalSettings",
    "Renewals",
    "Round",
    "TrustWatch",
    "WorkerReport",
    "alarms_of",
    "platform_ids",
    "registrar_app",
    "registration_of",
    "rotate_keys",
    "successors",
    "verdict_rows",
]
