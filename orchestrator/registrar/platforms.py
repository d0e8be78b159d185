"""Which machine a worker's evidence is from, to revoke the workers of a machine."""

import json
from collections.abc import Mapping
from pathlib import Path

from orchestrator.errors import EncodingError
from orchestrator.evidence import EvidenceBundle
from orchestrator.evidence.qvl import Refusal, read_pck
from orchestrator.models import WorkerId
from orchestrator.registrar.archive import RECORDS

__all__ = ["platform_ids", "recorded_evidence"]


def platform_ids(bundle: EvidenceBundle) -> frozenset[bytes]:
    """
    Return the PPID and the PIID (16 bytes each) in the quote's certificate, where it has them.

    The quote is **not** verified: it is for evidence that a registrar verified before it was
    registered, and whose hash is on the chain.

    Raises:
        EncodingError: The quote or its certificate can't be read, or it names no machine.
    """
    pck = read_pck(bundle.quote)
    if isinstance(pck, Refusal):
        raise EncodingError(f"quote: its platform can't be read: {pck.message}")
    found = frozenset(one for one in (pck.ppid, pck.piid) if one)
    if not found:
        raise EncodingError("quote: its certificate names no machine")
    return found


def recorded_evidence(folder: Path) -> Mapping[WorkerId, frozenset[bytes]]:
    """
    Return the hashes of the evidence that a registrar's records in *folder* say of each worker.

    Records are for people, so one that can't be read is left out; without any there are none.
    """
    found: dict[WorkerId, set[bytes]] = {}
    for place in (folder / RECORDS).glob("*.json"):
        try:
            worker = json.loads(place.read_bytes())["worker"]
            digest = bytes.fromhex(place.stem)
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            continue
        if type(worker) is int and len(digest) == 32:
            found.setdefault(worker, set()).add(digest)
    return {worker: frozenset(hashes) for worker, hashes in found.items()}
