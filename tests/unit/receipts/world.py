"""A chain with a worker on simulated evidence and a processed job: what a receipt is about."""

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.attestation import sign_statement
from orchestrator.chain import Chain
from orchestrator.chain.processor import JobProcessor
from orchestrator.crypto import AccountKey, EcdsaSigner, EncryptionKey
from orchestrator.encoding import blake2_256, registration_digest
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
from orchestrator.testing import deploy_processor

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
