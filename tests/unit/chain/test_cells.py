"""The contract's cells: the embedded chain's own are read as the contract tells them."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from orchestrator.attestation import sign_statement
from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.cells import ContractCells
from orchestrator.chain.processor import JobProcessor
from orchestrator.crypto import EcdsaSigner, Sr25519Signer
from orchestrator.encoding import blake2_256
from orchestrator.errors import EncodingError
from orchestrator.models import (
    AttestationProof,
    Completion,
    JobHead,
    JobOptions,
    JobStatus,
    Outcome,
    Signer,
    Statement,
)
from orchestrator.testing import LocalAccount, deploy_processor, register_test_worker
from orchestrator.testing.mirror_chain import MirrorChain

ADMIN = LocalAccount.named("admin")
MEASUREMENT = b"\x31" * 32
DAY = 86_400_000


@dataclass
class CellWorld:
    """Workers of both schemes, and their jobs."""

    chain: MirrorChain
    processor: JobProcessor
    signers: list[Signer]

    def submit(self) -> int:
        options = JobOptions(workers=tuple(range(1, len(self.signers) + 1)), ttl=DAY)
        call = self.processor.submit_confidential_job(b"payload", bytes(range(32)), options)
        return self.chain.call(call, signer=ADMIN).value

    def record(self, job_id: int, worker: int, outcome: Outcome = Outcome.COMPLETED) -> None:
        signer, now = self.signers[worker - 1], self.chain.now()
        statement = Statement(
            genesis_hash=self.chain.genesis_hash,
            contract=self.processor.contract,
            job_id=job_id,
            payload_hash=blake2_256(b"payload"),
            outcome=outcome,
            result_hash=b"\x52" * 32,
            units=9,
            measurement=MEASUREMENT,
            started_at=now - 3,
            finished_at=now - 2,
            issued_at=now - 1,
        )
        proof = AttestationProof(
            outcome=outcome,
            units=9,
            started_at=now - 3,
            finished_at=now - 2,
            issued_at=now - 1,
            signature=sign_statement(statement, signer),
        )
        completion = Completion(
            job_id=job_id,
            result_hash=statement.result_hash,
            attestation_proof=proof,
            tee_worker_pubkey=signer.public_key,
        )
        self.chain.call(self.processor.record_attestation(completion), signer=ADMIN)

    def cell(self, key: bytes) -> bytes:
        return self.chain.cells(self.processor.contract)[key]


@pytest.fixture(scope="module")
def cells() -> ContractCells:
    return ContractCells(load_bundle())


@pytest.fixture
def world() -> Iterator[CellWorld]:
    chain = MirrorChain(b"\x67" * 32, time=1_767_225_600_000)
    processor = deploy_processor(chain, admin=ADMIN, measurement=MEASUREMENT)
    signers: list[Signer] = [EcdsaSigner.generate(), Sr25519Signer.generate()]
    for signer in signers:
        register_test_worker(chain, processor, signer, registrar=ADMIN, measurement=MEASUREMENT)
    yield CellWorld(chain, processor, signers)
    chain.close()


@pytest.mark.parametrize("worker", [1, 2])
def test_a_row_says_what_the_contract_says(
    world: CellWorld, cells: ContractCells, worker: int
) -> None:
    job_id = world.submit()
    world.record(job_id, 3 - worker, Outcome.FAILED)
    world.record(job_id, worker)

    stored = cells.read_job(job_id, world.cell(cells.job(job_id)))

    job = world.chain.read(world.processor.get_job(job_id))
    told = world.chain.read(world.processor.get_attestation(job_id))
    assert job is not None
    assert told is not None
    assert stored.head == JobHead(**{name: getattr(job, name) for name in vars(stored.head)})
    assert stored.attestation is not None
    assert stored.attestation.worker == told.worker == worker
    assert stored.attestation.proof == told.attestation_proof
    assert stored.attestation.result_hash == told.result_hash
    assert stored.attestation.recorded_at == told.timestamp
    world.chain.call(world.processor.mark_job_processed(job_id), signer=ADMIN)
    processed = cells.read_job(job_id, world.cell(cells.job(job_id))).head
    assert processed.status is JobStatus.PROCESSED
    assert processed.processed_at == told.timestamp


def test_a_row_without_attestation_has_none(world: CellWorld, cells: ContractCells) -> None:
    job_id = world.submit()
    assert cells.read_job(job_id, world.cell(cells.job(job_id))).attestation is None

    for worker in (1, 2):
        world.record(job_id, worker, Outcome.FAILED)

    stored = cells.read_job(job_id, world.cell(cells.job(job_id)))
    assert stored.head.status is JobStatus.FAILED
    assert stored.attestation is None


def test_workers_measurements_and_the_genesis_are_read(
    world: CellWorld, cells: ContractCells
) -> None:
    measurement = cells.measurement(MEASUREMENT)

    for worker in (1, 2):
        told = world.chain.read(world.processor.get_worker(worker))
        assert cells.read_worker(world.cell(cells.worker(worker))) == told
    assert cells.read_genesis(world.cell(cells.root)) == world.chain.genesis_hash
    assert not cells.read_is_revoked(world.cell(measurement))
    world.chain.call(world.processor.revoke_measurement(MEASUREMENT), signer=ADMIN)
    assert cells.read_is_revoked(world.cell(measurement))


def test_what_is_no_cell_of_its_kind_is_an_encoding_error(
    world: CellWorld, cells: ContractCells
) -> None:
    job_id = world.submit()
    world.record(job_id, 1)
    row = world.cell(cells.job(job_id))
    head = 2  # of the length, which a row begins with
    last = head + 131 + 2 * 4 + 49

    def changed(at: int, value: int) -> bytes:
        return row[:at] + bytes([value]) + row[at + 1 :]

    for cell in (
        b"",
        b"\x08ab",
        b"\x04a",
        row[:-1],
        row + b"\0",
        changed(head + 48, 9),  # status
        changed(head + 130, 0),  # number of workers
        changed(head + 130, 5),
        changed(last, 2),  # the worker's position
        changed(last + 1, 3),  # the scheme
    ):
        with pytest.raises(EncodingError):
            cells.read_job(job_id, cell)
    for cell in (b"", b"\x02"):
        with pytest.raises(EncodingError):
            cells.read_is_revoked(cell)
    with pytest.raises(EncodingError):
        cells.read_worker(world.cell(cells.worker(1)) + b"\0")
    for cell in (b"\1\0\0\0", b"\2\0\0\0" + bytes(32)):
        with pytest.raises(EncodingError, match="the contract's storage is of version"):
            cells.read_genesis(cell)
