"""A chain with a worker on simulated evidence and a processed job: what a receipt is about."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestrator.attestation import AttestationFile, attestation_file_of, sign_statement
from orchestrator.chain import Chain, Cursor
from orchestrator.chain.bundle import load_bundle as load_contract
from orchestrator.chain.cells import ContractCells
from orchestrator.chain.processor import JobProcessor
from orchestrator.crypto import AccountKey, EcdsaSigner, EncryptionKey
from orchestrator.encoding import blake2_256, registration_digest
from orchestrator.evidence import dump_bundle, load_bundle
from orchestrator.models import (
    AttestationProof,
    Completion,
    JobId,
    JobOptions,
    Outcome,
    Statement,
    WorkerId,
    WorkerRegistration,
)
from orchestrator.receipts import ProvesStorage, Receipt, ReceiptEvent, prove_job
from orchestrator.simulator import Simulator
from orchestrator.testing import deploy_processor
from orchestrator.testing.evidence import simulated_bundle

ADMIN = AccountKey.from_uri("//Alice")
OWNER = AccountKey.from_uri("//Bob")
PAYLOAD = b"a sealed payload, " * 20
RESULT = b"a sealed result"
DAY = 86_400_000

EvidenceOf = Callable[[EcdsaSigner, EncryptionKey, JobProcessor], bytes]


def no_evidence(_signer: EcdsaSigner, _key: EncryptionKey, _processor: JobProcessor) -> bytes:
    return b"no evidence"


@dataclass(frozen=True, kw_only=True)
class ReceiptWorld:
    """The worker's evidence, and where the job is."""

    chain: Chain
    processor: JobProcessor
    signer: EcdsaSigner
    worker: WorkerId
    measurement: bytes
    evidence: bytes
    job_id: JobId

    def record(self, job_id: JobId, result: bytes = RESULT) -> None:
        """Record the worker's statement about a job."""
        job = self.chain.read(self.processor.get_job(job_id))
        assert job is not None
        now = self.chain.now()
        statement = Statement(
            genesis_hash=self.chain.genesis_hash,
            contract=self.processor.contract,
            job_id=job_id,
            payload_hash=job.payload_hash,
            outcome=Outcome.COMPLETED,
            result_hash=blake2_256(result),
            units=7,
            measurement=self.measurement,
            started_at=now,
            finished_at=now,
            issued_at=now,
        )
        completion = Completion(
            job_id=job_id,
            result_hash=statement.result_hash,
            attestation_proof=AttestationProof(
                outcome=statement.outcome,
                units=statement.units,
                started_at=now,
                finished_at=now,
                issued_at=now,
                signature=sign_statement(statement, self.signer),
            ),
            tee_worker_pubkey=self.signer.public_key,
        )
        self.chain.call(self.processor.record_attestation(completion), signer=ADMIN)

    def submit(self) -> JobId:
        """Submit a job to the worker; what is sealed is nobody's business here."""
        options = JobOptions(workers=(self.worker,), ttl=DAY)
        call = self.processor.submit_confidential_job(PAYLOAD, bytes(range(32)), options)
        return self.chain.call(call, signer=OWNER).value


def make_receipt_world(
    chain: Chain,
    *,
    measurement: bytes,
    evidence_of: EvidenceOf = no_evidence,
    salt: bytes = b"",
    endpoint: bytes = b"http://127.0.0.1:1",
) -> ReceiptWorld:
    """Deploy the contract, register a worker, and have it do a job that is marked processed."""
    processor = deploy_processor(chain, admin=ADMIN, measurement=measurement, salt=salt)
    signer, encryption_key = EcdsaSigner.generate(), EncryptionKey.generate()
    evidence = evidence_of(signer, encryption_key, processor)
    registration = WorkerRegistration(
        signing_key=signer.public_key,
        encryption_key=encryption_key.public_key,
        measurement=measurement,
        evidence_hash=blake2_256(evidence),
        endpoint=endpoint,
        valid_until=chain.now() + DAY,
    )
    digest = registration_digest(
        registration, genesis_hash=chain.genesis_hash, contract=processor.contract
    )
    call = processor.register_worker(registration, signer.sign(digest))
    worker = chain.call(call, signer=ADMIN).value
    world = ReceiptWorld(
        chain=chain,
        processor=processor,
        signer=signer,
        worker=worker,
        measurement=measurement,
        evidence=evidence,
        job_id=1,
    )
    job_id = world.submit()
    assert job_id == world.job_id
    world.record(job_id)
    chain.call(processor.mark_job_processed(job_id), signer=OWNER)
    return world


def policy_text(simulator: Simulator, **tcb: object) -> str:
    """A policy file that evidence of *simulator* meets while its TCB is up to date."""
    found = simulator.guest.measurements()
    lines = [
        f"roots.other.simulated = '''\n{simulator.root_pem}'''",
        "[tcb]",
        *(
            f"{name} = {json.dumps(value)}"
            for name, value in ({"statuses": ["UpToDate"]} | tcb).items()
        ),
        "[[tdx]]",
        'name = "simulated"',
        *(
            f'{name} = "{getattr(found, name).hex()}"'
            for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2", "compose_hash", "app_id")
        ),
    ]
    return "\n".join(lines) + "\n"


def evidence_from(simulator: Simulator, chain: Chain, policy: bytes) -> EvidenceOf:
    """What makes a worker's bundle, complete and by a registrar's policy."""

    def evidence_of(
        signer: EcdsaSigner, encryption_key: EncryptionKey, processor: JobProcessor
    ) -> bytes:
        made = simulated_bundle(
            simulator,
            genesis_hash=chain.genesis_hash,
            contract=processor.contract,
            signing_key=signer.public_key,
            encryption_key=encryption_key.public_key,
            collateral=simulator.collateral(now=chain.now() - DAY),
        )
        return dump_bundle(replace(load_bundle(made), policy_hash=blake2_256(policy)))

    return evidence_of


def known_attestation(world: ReceiptWorld) -> AttestationFile:
    """The job's attestation as the chain tells it."""
    chain, processor = world.chain, world.processor
    job, told = chain.read(processor.get_job(1)), chain.read(processor.get_attestation(1))
    worker = chain.read(processor.get_worker(world.worker))
    assert job is not None
    assert told is not None
    assert worker is not None
    return attestation_file_of(
        genesis_hash=chain.genesis_hash,
        contract=processor.contract,
        job=job,
        worker=worker,
        completion=Completion(
            job_id=1,
            result_hash=told.result_hash,
            attestation_proof=told.attestation_proof,
            tee_worker_pubkey=told.tee_worker_pubkey,
        ),
        recorded_at=told.timestamp,
    )


def events_of(world: ReceiptWorld) -> tuple[ReceiptEvent, ...]:
    """The job's events."""
    page = world.chain.events(world.processor.contract, after=Cursor(block=0, index=-1))
    return tuple(
        ReceiptEvent(
            block=raw.block.number,
            block_hash=raw.block.hash,
            index=raw.index,
            topics=raw.topics,
            data=raw.data,
        )
        for raw in page.events
        if world.processor.decode_event(raw).fields.get("job_id") == 1
    )


def proven_receipt(world: ReceiptWorld, policy: bytes) -> tuple[Receipt, bytes]:
    """A receipt of a chain that proves its storage, and the hash of the block that it is of."""
    assert isinstance(world.chain, ProvesStorage)
    proven = prove_job(world.chain, ContractCells(load_contract()), known_attestation(world))
    receipt = Receipt(
        attestation=proven.facts.attestation,
        evidence=world.evidence,
        policy=policy,
        proof=proven.proof,
        events=events_of(world),
    )
    return receipt, proven.block_hash
