"""
What a registrar keeps of each registration: the evidence, the policy, and what came of the checks.

Bundles and policy files are blobs, named by the hash that stands on the chain or in the bundle.
The record beside them is for people; nothing is decided by it.
"""

import json
import os
import secrets
from pathlib import Path

from orchestrator.blobs import BlobStore
from orchestrator.chain.answers import shown
from orchestrator.encoding import blake2_256
from orchestrator.errors import BlobUnavailableError, InputError
from orchestrator.evidence import Verdict
from orchestrator.models import Worker, WorkerId

__all__ = ["EvidenceArchive", "verdict_rows"]

RECORDS = "records"


class EvidenceArchive:
    """
    Keeps evidence in *blobs*, and a JSON record of each registration under *folder*.

    Raises:
        BlobUnavailableError: The folder can't be made.
    """

    def __init__(self, blobs: BlobStore, folder: Path) -> None:
        self._blobs = blobs
        self._records = folder / RECORDS
        try:
            self._records.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise BlobUnavailableError(f"{self._records}: {error.strerror or error}") from error

    def keep(self, bundle: bytes, policy_file: bytes) -> None:
        """
        Store a bundle and the policy that it met; once this returns, both survive a power cut.

        Raises:
            BlobUnavailableError: They can't be written.
        """
        self._blobs.put(policy_file)
        self._blobs.put(bundle)

    def discard(self, bundle: bytes) -> None:
        """
        Remove a bundle that was kept and is not registered, so that failures leave nothing behind.

        Raises:
            BlobUnavailableError: It can't be removed.
        """
        self._blobs.delete(blake2_256(bundle))

    def write_record(
        self, verdict: Verdict, *, url: str, valid_until: int, worker: WorkerId
    ) -> None:
        """
        Write what came of the checks of evidence that the chain has registered.

        Raises:
            InputError: The verdict refuses.
            BlobUnavailableError: It can't be written.
        """
        evidence = verdict.evidence
        if evidence is None:
            raise InputError("verdict: refused evidence has no registration")
        record = {
            "worker": worker,
            "url": shown(url),
            "evidence_hash": evidence.evidence_hash.hex(),
            "policy_hash": evidence.policy_hash.hex(),
            "measurement": evidence.measurement.hex(),
            "measurement_set": evidence.measurement_set,
            "root": evidence.root,
            "is_simulated": evidence.is_simulated,
            "verified_at": evidence.verified_at,
            "valid_until": valid_until,
            "checks": verdict_rows(verdict),
        }
        place = self._records / f"{evidence.evidence_hash.hex()}.json"
        try:
            _replace(place, json.dumps(record, indent=2).encode())
        except OSError as error:
            raise BlobUnavailableError(f"{place}: {error.strerror or error}") from error

    def is_simulated(self, worker: Worker) -> bool | None:
        """Say what the record of the worker's evidence says; `None` where there is no record."""
        place = self._records / f"{worker.evidence_hash.hex()}.json"
        try:
            found = json.loads(place.read_bytes())["is_simulated"]
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return found if isinstance(found, bool) else None

    def holds(self, worker: Worker) -> bool:
        """Whether the evidence is here that *worker* was last registered or renewed on."""
        return self._blobs.has(worker.evidence_hash)


def verdict_rows(verdict: Verdict) -> list[dict[str, str]]:
    """Every check of a verdict in its order: code, what it is, outcome, words, and what to do."""
    return [
        {
            "code": finding.check.value,
            "check": finding.check.title,
            "outcome": finding.outcome.value,
            "detail": shown(finding.detail),
            "hint": finding.hint,
        }
        for finding in verdict.findings
    ]


def _replace(place: Path, data: bytes) -> None:
    """Write a file whole or not at all, over one that may be there."""
    draft = place.with_name(f".{place.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(place)
    except OSError:
        draft.unlink(missing_ok=True)
        raise
