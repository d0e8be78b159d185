"""Which machine a worker's evidence is from, to revoke the workers of a machine."""

import dcap_qvl

from orchestrator.errors import EncodingError
from orchestrator.evidence import EvidenceBundle

__all__ = ["platform_ids"]


def platform_ids(bundle: EvidenceBundle) -> frozenset[bytes]:
    """
    Return the PPID and the PIID (16 bytes each) in the quote's certificate, where it has them.

    The quote is **not** verified: it is for evidence that a registrar verified before it was
    registered, and whose hash is on the chain.

    Raises:
        EncodingError: The quote can't be parsed.
    """
    try:
        extension = dcap_qvl.parse_quote(bundle.quote).pck_extension()
        found = (extension.ppid, extension.platform_instance_id)
    except ValueError as error:
        raise EncodingError(f"quote: its platform can't be read: {error}") from error
    return frozenset(bytes(one) for one in found if one)
