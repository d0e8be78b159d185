"""What a quote's 64 bytes of report data must be. The layout is a parameter of the verifier."""

from orchestrator.encoding import report_data
from orchestrator.evidence.bundle import EvidenceBundle

__all__ = ["protocol_report_data"]


def protocol_report_data(bundle: EvidenceBundle) -> bytes:
    """Return the layout of protocol 3.3: SHA-512 of the binding of keys, contract and challenge."""
    return report_data(bundle.binding())
