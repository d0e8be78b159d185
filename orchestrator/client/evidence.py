"""
Workers' TEE evidence, verified by the owner against the owner's own policy (protocol rule 1.5 a).

What registrar, orchestrator and node say is not needed for confidentiality then: the keys come out
of evidence whose hash the chain names and whose signatures end in a root of the policy. What a node
can still do is to hide a worker, its renewal or its revocation.
"""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from orchestrator.attestation import CheckOutcome
from orchestrator.blobs import BlobStore
from orchestrator.client.blob_search import BlobSearch, WorkerBlobs
from orchestrator.client.chain_view import ChainView
from orchestrator.collateral import CollateralSource
from orchestrator.encoding import blake2_256
from orchestrator.errors import (
    BlobError,
    CollateralUnavailableError,
    EncodingError,
    UntrustedWorkerError,
)
from orchestrator.evidence import (
    MAX_BUNDLE_BYTES,
    EvidenceCheck,
    ExpectedBinding,
    KeyStanding,
    Policy,
    Verdict,
    VerifiedEvidence,
    dump_bundle,
    examine_evidence,
    load_bundle,
)
from orchestrator.models import Worker

__all__ = ["WorkerEvidence"]

# What a worker that was registered on its own word has in place of its evidence's hash.
_NO_EVIDENCE = blake2_256(b"")


class WorkerEvidence:
    """
    Finds and verifies the evidence that the chain names for workers.

    Bundles come from *kept*, where they stay once found, then from the worker, then from
    *sources*. *collateral* has the newest that Intel says; without it, what the bundle holds
    counts. *on_verdict* is told of every verdict for sealing, also of those that refuse.
    """

    def __init__(
        self,
        view: ChainView,
        *,
        policy: Policy,
        kept: BlobStore | None,
        sources: Sequence[BlobStore],
        worker_blobs: WorkerBlobs | None,
        collateral: CollateralSource | None,
        on_verdict: Callable[[Worker, Verdict], None],
        clock: Callable[[], int],
    ) -> None:
        self._view = view
        self._policy = policy
        self._kept = kept
        self._search = BlobSearch([kept, None, *sources], worker_blobs)
        self._collateral = collateral
        self._on_verdict = on_verdict
        self._clock = clock
        self._bundles: dict[bytes, bytes] = {}

    @property
    def policy_hash(self) -> bytes:
        """What names the policy."""
        return self._policy.policy_hash

    def verify_recipient(self, worker: Worker, *, now: int) -> VerifiedEvidence:
        """
        Return the worker's evidence, verified at *now* (ms), with what the chain says of its keys.

        Raises:
            UntrustedWorkerError: It was refused; the code is the check's, `NoEvidence` where
                there is none.
            BlobError: It can't be had (now).
            CollateralUnavailableError: There is no collateral for it now.
        """
        measurement = self._view.processor.has_measurement(worker.measurement)
        standing = KeyStanding(
            worker=worker,
            renews=worker.worker,
            is_measurement_revoked=not self._view.chain.read(measurement),
        )
        data = self._with_newest_collateral(self._bundle(worker, worker.evidence_hash), now=now)
        verdict = self._examine(worker, data, now=now, standing=standing)
        self._on_verdict(worker, verdict)
        return _accepted(worker, verdict)

    def verify_signer(self, worker: Worker, *, at: int) -> VerifiedEvidence:
        """
        Return evidence that the worker's signing key was a good one at *at* (ms), or is one now.

        *at* is a time that the signer has chosen: the caller has compared it with what it knows.

        1. What the chain names today, at that time; evidence runs out, and what was signed before
           stays signed.
        2. The same now: it may have been renewed since, and a key does not leave the TEE that it
           was made in.
        3. What the chain named earlier, at that time.

        The newest collateral judges, where there is a source of it, as it does for sealing; at a
        time before it was issued the bundle's own does.

        Whether the key was revoked is another question, answered by the chain alone.

        Raises: those of `verify_recipient`: what can't be had first, else the first refusal.
        """
        refusal: UntrustedWorkerError | None = None
        trouble: BlobError | CollateralUnavailableError | None = None
        for digest, then in self._attempts(worker, at):
            try:
                data = self._bundle(worker, digest)
                return _accepted(worker, self._examine_signer(worker, data, at=then))
            except UntrustedWorkerError as error:
                refusal = refusal or error
            except (BlobError, CollateralUnavailableError) as error:
                trouble = trouble or error
        # What can't be had might have been accepted.
        raise trouble or refusal or _no_evidence(worker)

    def _attempts(self, worker: Worker, at: int) -> Iterator[tuple[bytes, int]]:
        yield worker.evidence_hash, at
        yield worker.evidence_hash, self._clock()
        for digest in self._view.evidence_hashes(worker.worker):
            if digest != worker.evidence_hash:
                yield digest, at

    def _examine_signer(self, worker: Worker, data: bytes, *, at: int) -> Verdict:
        now = self._clock()
        newest = self._with_newest_collateral(data, now=now)
        verdict = self._examine(worker, newest, now=at, standing=None)
        if newest == data or not _is_outside(verdict):
            return verdict
        if _is_outside(self._examine(worker, newest, now=now, standing=None)):
            return verdict  # it is of no use at all: nothing older takes its place
        return self._examine(worker, data, now=at, standing=None)

    def _examine(
        self, worker: Worker, data: bytes, *, now: int, standing: KeyStanding | None
    ) -> Verdict:
        return examine_evidence(
            data,
            policy=self._policy,
            now=now,
            expected=ExpectedBinding(
                genesis_hash=self._view.chain.genesis_hash,
                contract=self._view.contract,
                signing_key=worker.signing_key,
                encryption_key=worker.encryption_key,
                measurement=worker.measurement,
            ),
            challenge=None,
            standing=standing,
        )

    def _bundle(self, worker: Worker, digest: bytes) -> bytes:
        if digest == _NO_EVIDENCE:
            raise _no_evidence(worker)
        if digest not in self._bundles:
            data = self._search.get(
                digest,
                worker=worker,
                what=f"evidence of worker {worker.worker}",
                max_bytes=MAX_BUNDLE_BYTES,
            )
            if self._kept is not None:
                # A folder that can't be written to is no reason not to believe what was read.
                with contextlib.suppress(BlobError):
                    self._kept.put(data)
            self._bundles[digest] = data
        return self._bundles[digest]

    def _with_newest_collateral(self, data: bytes, *, now: int) -> bytes:
        if self._collateral is None:
            return data
        try:
            bundle = load_bundle(data)
            newest = self._collateral.collateral(bundle.quote, now=now)
        except EncodingError:
            return data  # which check it fails, the verdict says
        return dump_bundle(replace(bundle, collateral=newest))


def _no_evidence(worker: Worker) -> UntrustedWorkerError:
    return UntrustedWorkerError(
        "NoEvidence", f"worker {worker.worker} was registered on its own word, without evidence"
    )


def _is_outside(verdict: Verdict) -> bool:
    """Whether the collateral is not valid at the time that was asked about."""
    outcomes = {finding.check: finding.outcome for finding in verdict.findings}
    return outcomes[EvidenceCheck.COLLATERAL] is CheckOutcome.FAILED


def _accepted(worker: Worker, verdict: Verdict) -> VerifiedEvidence:
    if verdict.evidence is not None:
        return verdict.evidence
    refused = verdict.refused_by
    if refused is None:
        raise _no_evidence(worker)
    hint = f"; {refused.hint}" if refused.hint else ""
    raise UntrustedWorkerError(
        refused.check.value,
        f"the evidence of worker {worker.worker} does not meet the policy"
        f" ({refused.check.title}): {refused.detail}{hint}",
    )
