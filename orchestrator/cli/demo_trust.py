"""
How the demo's workers get on the trusted list: simulated quotes, a policy, the registrar.

The verifier is the production one; what the quotes are of is a simulator in the demo's folder, and
proves no TEE.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from orchestrator.attestation import CheckOutcome
from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.cli.demo_pages import Pages, Summary, short
from orchestrator.cli.demo_stage import Stage, StartedWorker
from orchestrator.cli.values import shown_duration
from orchestrator.cli.verdicts import SIMULATED, verdict_document
from orchestrator.encoding import blake2_256
from orchestrator.evidence import (
    EvidenceCheck,
    EvidenceFinding,
    ExpectedBinding,
    Policy,
    Verdict,
    VerifiedEvidence,
    dump_bundle,
    examine_evidence,
    load_policy,
)
from orchestrator.evidence.policy_file import load_root
from orchestrator.evidence.policy_text import policy_from_evidence
from orchestrator.keystore.private_files import ensure_private_directory, write_new_file
from orchestrator.models import WorkerId
from orchestrator.registrar import ChainCalls, EvidenceArchive, Registrar
from orchestrator.workers.http import HttpWorkerClient

if TYPE_CHECKING:
    from orchestrator.chain import Receipt

POLICY_FILE = "policy.toml"
ROOT_NAME = "simulated"
SET_NAME = "demo worker"
_INTEL_ALONE = b"[roots]\nintel = true\n"


@dataclass(frozen=True, kw_only=True)
class RegisteredWorker:
    """A worker that the contract lists, under this number, on this evidence."""

    worker: WorkerId
    process: StartedWorker
    evidence: VerifiedEvidence
    verdict: Verdict


class Trust:
    """
    The strict policy that what *worker* shows meets, and a registrar that goes by it.

    In earnest somebody reviews what was measured before it is allowed.
    """

    def __init__(self, stage: Stage, worker: StartedWorker) -> None:
        self._stage = stage
        self._receipts: list[Receipt[object]] = []
        root = load_root(ROOT_NAME, (stage.simulator / "root.pem").read_text("ascii"))
        shown = asyncio.run(_ask_evidence(stage, worker))
        text = policy_from_evidence(shown, now=_clock(), name=SET_NAME, roots=[root])
        self.policy_file = text.encode("utf-8")
        self.policy: Policy = load_policy(self.policy_file)
        write_new_file(stage.folder / POLICY_FILE, self.policy_file)
        self.evidence_folder = ensure_private_directory(stage.folder / "evidence")
        self._registrar = Registrar(
            calls=ChainCalls(stage.chain, stage.registrar, on_receipt=self._receipts.append),
            processor=stage.processor,
            policy=self.policy,
            policy_file=self.policy_file,
            archive=EvidenceArchive(DirectoryBlobStore(self.evidence_folder), self.evidence_folder),
            collateral=None,
            clock=_clock,
        )
        self.measurement = self.policy.measurements[0].measurement
        stage.call(stage.processor.allow_measurement(self.measurement), stage.registrar)

    def register(self, worker: StartedWorker) -> RegisteredWorker:
        """
        Register a worker on its evidence.

        Raises: what `Registrar.examine` and `Registrar.admit` raise.
        """
        return asyncio.run(self._register(worker))

    async def _register(self, worker: StartedWorker) -> RegisteredWorker:
        client = HttpWorkerClient(worker.url, worker.registration_token)
        try:
            examined = await self._registrar.examine(client, url=worker.url)
            started = time.monotonic()
            admission = await self._registrar.admit(client, examined)
        finally:
            await client.close()
        for receipt in self._receipts:
            self._stage.note("register_worker", receipt, started)
        self._receipts.clear()
        return RegisteredWorker(
            worker=admission.worker.worker,
            process=worker,
            evidence=admission.evidence,
            verdict=examined.verdict,
        )

    def refusal_by_intel_alone(self, worker: RegisteredWorker) -> EvidenceFinding | None:
        """Why the same evidence is refused by the same policy with Intel's root, if it is."""
        bundle = worker.evidence.bundle
        verdict = examine_evidence(
            dump_bundle(bundle),
            policy=replace(self.policy, roots=load_policy(_INTEL_ALONE).roots),
            now=worker.evidence.verified_at,
            expected=ExpectedBinding(
                genesis_hash=self._stage.chain.genesis_hash,
                contract=self._stage.contract,
                signing_key=bundle.signing_key,
                encryption_key=bundle.encryption_key,
            ),
            challenge=None,
            standing=None,
        )
        return verdict.refused_by

    def registered_hash(self, worker: RegisteredWorker) -> bytes | None:
        """The hash of evidence that the contract has for a worker."""
        found = self._stage.chain.read(self._stage.processor.get_worker(worker.worker))
        return None if found is None else found.evidence_hash


def write_policy(stage: Stage, worker: StartedWorker, pages: Pages) -> Trust:
    """Write the policy that this worker's evidence meets, allow its measurement, and show it."""
    pages.step("A policy says which evidence is good enough")
    trust = Trust(stage, worker)
    policy = trust.policy
    pages.facts(
        {
            "file": f"{POLICY_FILE}, hash {short(policy.policy_hash)}",
            "root": f"the simulator's, not Intel's; {SIMULATED}",
            "measurement set": f"{SET_NAME!r}: MRTD, RTMR0-2, compose hash, app id",
            "on the chain": f"measurement {short(trust.measurement)}, allowed now",
            "TCB": f"{', '.join(sorted(policy.tcb.statuses))}; evaluation"
            f" {policy.tcb.minimum_evaluation_number} or newer",
            "platform": f"{len(policy.platforms.allowed)} machine; no debug",
            "event log": f"{len(policy.required_events)} events required",
            "registered for": f"{shown_duration(policy.maximum_registration)} at most",
        }
    )
    pages.say("It is what the first worker's evidence meets and no more, as of:")
    pages.say(f"$ phala-jobs policy from-evidence BUNDLE --root {ROOT_NAME}=root.pem")
    pages.say("In earnest somebody reviews what was measured before it is allowed.")
    return trust


def register(
    trust: Trust, started: Sequence[StartedWorker], pages: Pages, summary: Summary
) -> list[RegisteredWorker]:
    """Register the workers, each on its own evidence, and show what the verifier says."""
    pages.step("The registrar verifies quotes, and registers")
    workers = [trust.register(one) for one in started]
    for number, one in enumerate(workers, start=1):
        is_whole = _passed(one.verdict) == len(EvidenceCheck)
        summary.check(f"all 14 checks of worker {number}'s evidence passed", is_whole)
        summary.verdicts.append({"worker": one.worker, **verdict_document(one.verdict)})
    summary.check(
        "the contract has the hash of the evidence that was verified",
        all(
            trust.registered_hash(one) == blake2_256(dump_bundle(one.evidence.bundle))
            for one in workers
        ),
    )
    refusal = trust.refusal_by_intel_alone(workers[0])
    summary.check(
        "with Intel's root alone E02 refuses the same evidence",
        refusal is not None and refusal.check is EvidenceCheck.SIGNATURES,
    )
    pages.say("Worker 1, its own challenge, the verifier that real quotes go through:")
    pages.verdict(workers[0].verdict)
    for one in workers:
        pages.say(
            f"Worker {one.worker}: {_passed(one.verdict)} of {len(EvidenceCheck)} passed;"
            f" registered, evidence {short(one.evidence.evidence_hash)}"
        )
    words = "accepted" if refusal is None else f"refused by {refusal.check.value}"
    pages.say(f"The same evidence, if the policy allows Intel's root alone: {words}.")
    return workers


def _passed(verdict: Verdict) -> int:
    return sum(finding.outcome is CheckOutcome.PASSED for finding in verdict.findings)


async def _ask_evidence(stage: Stage, worker: StartedWorker) -> bytes:
    client = HttpWorkerClient(worker.url, None)
    try:
        identity = await client.identity()
        return await client.evidence(
            genesis=stage.chain.genesis_hash,
            contract=stage.contract,
            challenge=secrets.token_bytes(32),
            signing_key=identity.signing_key,
        )
    finally:
        await client.close()


def _clock() -> int:
    return time.time_ns() // 1_000_000
