"""A chain file with the contract, roles and two workers on it, and what workers would do."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from orchestrator.attestation import sign_statement
from orchestrator.chain import Chain
from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.processor import JobProcessor
from orchestrator.chain.url import open_chain
from orchestrator.crypto import (
    AccountKey,
    EcdsaSigner,
    EncryptionKey,
    open_job,
    seal_result,
)
from orchestrator.encoding import (
    blake2_256,
    decode_task_input,
    encode_failure,
    encode_output,
    to_ss58,
)
from orchestrator.models import (
    AttestationProof,
    Completion,
    InlinePayload,
    Outcome,
    Role,
    Signature,
    Statement,
)
from orchestrator.testing import deploy_processor, register_test_worker

MEASUREMENT = b"\x42" * 32
ADMIN = AccountKey.from_uri("//Alice")
OPERATOR = AccountKey.from_uri("//Bob")


@dataclass(frozen=True, kw_only=True)
class WorkerSecrets:
    """A worker's keys."""

    signer: EcdsaSigner
    encryption_key: EncryptionKey


@dataclass(frozen=True, kw_only=True)
class World:
    """The chain's file or a node's URL, the contract's address, and the workers' keys by id."""

    path: Path
    url: str = ""
    contract: bytes
    workers: dict[int, WorkerSecrets]
    blobs: dict[str, bytes]

    @property
    def settings(self) -> dict[str, str]:
        """The settings that name chain and contract."""
        return {"chain": self.url or f"local:{self.path}", "contract": to_ss58(self.contract)}

    @property
    def processor(self) -> JobProcessor:
        return JobProcessor(self.contract)

    @contextmanager
    def chain(self) -> Iterator[EmbeddedChain]:
        """The chain in the file, for a look or a call."""
        chain = EmbeddedChain(self.path, create=False)
        try:
            yield chain
        finally:
            chain.close()

    @contextmanager
    def any_chain(self) -> Iterator[Chain]:
        """The chain of the settings, for a look or a call."""
        chain = open_chain(self.settings["chain"])
        try:
            yield chain
        finally:
            chain.close()

    def attest(self, job_id: int, *, worker: int = 1) -> bytes:
        """Execute the job as an echo worker would, record and mark it; return the sealed result."""
        with self.any_chain() as chain:
            envelope, completion = self._executed(chain, job_id, worker)
            chain.call(self.processor.record_attestation(completion), signer=OPERATOR)
            chain.call(self.processor.mark_job_processed(job_id), signer=OPERATOR)
        self.blobs[completion.result_hash.hex()] = envelope
        return envelope

    def fail(self, job_id: int, *, worker: int, code: str, message: str) -> bytes:
        """Record that the worker failed the job; return the sealed report."""
        with self.any_chain() as chain:
            envelope, completion = self._executed(
                chain, job_id, worker, failure=encode_failure(code, message)
            )
            chain.call(self.processor.record_attestation(completion), signer=OPERATOR)
        self.blobs[completion.result_hash.hex()] = envelope
        return envelope

    def _executed(
        self, chain: Chain, job_id: int, worker: int, *, failure: bytes | None = None
    ) -> tuple[bytes, Completion]:
        job = chain.read(self.processor.get_job(job_id))
        assert job is not None
        assert isinstance(job.encrypted_payload, InlinePayload)
        secrets = self.workers[worker]
        opened = open_job(job.encrypted_payload.data, secrets.encryption_key)
        output = encode_output(decode_task_input(opened.plaintext).input)
        envelope = seal_result(
            output if failure is None else failure,
            genesis=chain.genesis_hash,
            contract=self.contract,
            job_id=job_id,
            payload_hash=job.payload_hash,
            worker_key=secrets.signer.public_key,
            reply_nonce=opened.header.nonce,
            reply_key=opened.header.reply_key,
        )
        row = chain.read(self.processor.get_worker(worker))
        assert row is not None
        now = chain.now()
        statement = Statement(
            genesis_hash=chain.genesis_hash,
            contract=self.contract,
            job_id=job_id,
            payload_hash=job.payload_hash,
            outcome=Outcome.COMPLETED if failure is None else Outcome.FAILED,
            result_hash=blake2_256(envelope),
            units=7,
            measurement=row.measurement,
            started_at=now,
            finished_at=now,
            issued_at=now,
        )
        return envelope, _completion(statement, sign_statement(statement, secrets.signer), secrets)


def _completion(statement: Statement, signature: Signature, secrets: WorkerSecrets) -> Completion:
    return Completion(
        job_id=statement.job_id,
        result_hash=statement.result_hash,
        attestation_proof=AttestationProof(
            outcome=statement.outcome,
            units=statement.units,
            started_at=statement.started_at,
            finished_at=statement.finished_at,
            issued_at=statement.issued_at,
            signature=signature,
        ),
        tee_worker_pubkey=secrets.signer.public_key,
    )


def write_other_build(path: Path, **changes: object) -> Path:
    """
    Write a bundle of the same contract whose code has another hash, and return its path.

    A custom section does not change what code does. *changes* replace parts of the metadata.
    """
    metadata = json.loads(json.dumps(dict(load_bundle().metadata)))
    code = bytes.fromhex(metadata["source"]["wasm"][2:]) + bytes([0, 6, 5]) + b"other"
    metadata["source"] |= {"wasm": "0x" + code.hex(), "hash": "0x" + blake2_256(code).hex()}
    path.write_text(json.dumps({**metadata, **changes}))
    return path


def make_world(path: Path, endpoint: str) -> World:
    """Deploy the contract on a new chain and register two workers."""
    chain = EmbeddedChain(path)
    world = World(path=path, contract=bytes(32), workers={}, blobs={})
    made = populate(world, chain, endpoint)
    chain.close()
    return made


def populate(world: World, chain: Chain, endpoint: str, *, salt: bytes = b"") -> World:
    """Deploy the contract on the world's chain, and register two workers."""
    processor = deploy_processor(
        chain,
        admin=ADMIN,
        measurement=MEASUREMENT,
        roles={Role.REGISTRAR: ADMIN, Role.OPERATOR: OPERATOR},
        salt=salt,
    )
    workers = {}
    for number in (1, 2):
        secrets = WorkerSecrets(
            signer=EcdsaSigner.generate(), encryption_key=EncryptionKey.generate()
        )
        worker = register_test_worker(
            chain,
            processor,
            secrets.signer,
            registrar=ADMIN,
            measurement=MEASUREMENT,
            encryption_key=secrets.encryption_key.public_key,
            endpoint=f"{endpoint}/{number}".encode(),
            valid_for=7 * 86_400_000,
        )
        workers[worker] = secrets
    return replace(world, contract=processor.contract, workers=workers)


@contextmanager
def blob_server(blobs: dict[str, bytes]) -> Iterator[str]:
    """Serve blobs under `/v1/blobs/{hash}`, and yield the server's URL."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            data = blobs.get(self.path.rpartition("/")[2])
            self.send_response(200 if data is not None else 404)
            self.send_header("content-length", str(len(data or b"")))
            self.end_headers()
            self.wfile.write(data or b"")

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
