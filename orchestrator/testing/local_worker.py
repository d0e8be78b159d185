"""A worker without a server: opens, executes, seals and signs where the test runs."""

from collections.abc import Callable

from orchestrator.attestation import sign_statement
from orchestrator.blobs import BlobStore
from orchestrator.chain import Chain
from orchestrator.chain.processor import JobProcessor
from orchestrator.crypto import EncryptionKey, OpenedJob, open_job, seal_result
from orchestrator.encoding import (
    blake2_256,
    decode_task_input,
    encode_failure,
    encode_output,
)
from orchestrator.errors import InputError
from orchestrator.models import (
    Account,
    AttestationProof,
    Completion,
    InlinePayload,
    Job,
    JobId,
    Outcome,
    Signer,
    Statement,
    TaskInput,
    WorkerId,
)
from orchestrator.testing.chain import register_test_worker
from orchestrator.testing.evidence import EvidenceMaker

__all__ = ["LocalWorker"]


class LocalWorker:
    """
    A registered worker; its results go to *blobs*, its statements to whoever calls.

    It does none of the checks of a real worker: it is for tests of everybody else.
    """

    def __init__(
        self,
        chain: Chain,
        processor: JobProcessor,
        *,
        signer: Signer,
        registrar: Account,
        measurement: bytes,
        blobs: BlobStore,
        evidence: EvidenceMaker | None = None,
        endpoint: bytes | None = None,
        valid_for: int = 86_400_000,
    ) -> None:
        """With *evidence* it is registered on a bundle for its keys, which is in *blobs* then."""
        self._chain = chain
        self._processor = processor
        self._key = EncryptionKey.generate()
        self._measurement = measurement
        self.signer = signer
        self.blobs = blobs
        bundle = evidence(signer.public_key, self._key.public_key) if evidence else b""
        self.evidence_hash = blobs.put(bundle) if bundle else blake2_256(bundle)
        self.worker: WorkerId = register_test_worker(
            chain,
            processor,
            signer,
            registrar=registrar,
            measurement=measurement,
            encryption_key=self._key.public_key,
            evidence_hash=self.evidence_hash,
            endpoint=endpoint,
            valid_for=valid_for,
        )

    @property
    def encryption_key(self) -> bytes:
        """Its public encryption key."""
        return self._key.public_key

    def execute(self, job_id: JobId, run: Callable[[TaskInput], bytes]) -> Completion:
        """Open the job, run it, and return the signed statement about its sealed result."""
        _, opened = self._open(job_id)
        output = run(decode_task_input(opened.plaintext))
        return self.attest(job_id, Outcome.COMPLETED, encode_output(output))

    def fail(self, job_id: JobId, code: str, message: str | None = None) -> Completion:
        """Return the signed statement about a sealed failure report."""
        return self.attest(job_id, Outcome.FAILED, encode_failure(code, message))

    def attest(self, job_id: JobId, outcome: Outcome, plaintext: bytes) -> Completion:
        """Seal *plaintext* to the job's owner, put it into the store, sign the statement."""
        job, opened = self._open(job_id)
        envelope = seal_result(
            plaintext,
            genesis=self._chain.genesis_hash,
            contract=self._processor.contract,
            job_id=job_id,
            payload_hash=job.payload_hash,
            worker_key=self.signer.public_key,
            reply_nonce=opened.header.nonce,
            reply_key=opened.header.reply_key,
        )
        return self.sign(job, outcome, self.blobs.put(envelope))

    def sign(self, job: Job, outcome: Outcome, result_hash: bytes) -> Completion:
        """Return the signed statement that *result_hash* is how the job ended, just now."""
        now = self._chain.now()
        statement = Statement(
            genesis_hash=self._chain.genesis_hash,
            contract=self._processor.contract,
            job_id=job.job_id,
            payload_hash=job.payload_hash,
            outcome=outcome,
            result_hash=result_hash,
            units=1,
            measurement=self._measurement,
            started_at=now,
            finished_at=now,
            issued_at=now,
        )
        return Completion(
            job_id=job.job_id,
            result_hash=result_hash,
            attestation_proof=AttestationProof(
                outcome=outcome,
                units=statement.units,
                started_at=now,
                finished_at=now,
                issued_at=now,
                signature=sign_statement(statement, self.signer),
            ),
            tee_worker_pubkey=self.signer.public_key,
        )

    def _open(self, job_id: JobId) -> tuple[Job, OpenedJob]:
        job = self._chain.read(self._processor.get_job(job_id))
        if job is None or not isinstance(job.encrypted_payload, InlinePayload):
            raise InputError(f"job_id: there is no job {job_id} with its payload in the contract")
        return job, open_job(job.encrypted_payload.data, self._key)
