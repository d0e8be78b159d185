"""
The compiled contract on the embedded chain: what ink!'s own test engine can not show.

It has no revert, no limits on buffers, no `set_code_hash` and no count of what is stored.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import pytest

from orchestrator.attestation.statement import sign_statement, statement_of
from orchestrator.chain import ContractCall, Cursor, Receipt
from orchestrator.chain import host as host_module
from orchestrator.chain import machine as machine_module
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.machine import Call as MachineCall
from orchestrator.chain.machine import Machine
from orchestrator.chain.machine import Outcome as MachineOutcome
from orchestrator.chain.processor import JobProcessor
from orchestrator.crypto.keys import EcdsaSigner, Sr25519Signer
from orchestrator.encoding import blake2_256, registration_digest
from orchestrator.errors import ContractError, ContractTrappedError
from orchestrator.models import (
    AttestationProof,
    AttestationStatus,
    Completion,
    JobId,
    JobOptions,
    JobStatus,
    Mode,
    Outcome,
    Parameters,
    ReferencePayload,
    Role,
    Signature,
    Signer,
    WorkerId,
    WorkerRegistration,
    WorkerStatus,
)
from orchestrator.testing.chain import (
    FixedClock,
    LocalAccount,
    deploy_processor,
    register_test_worker,
)

START = Cursor(block=0, index=-1)
MEASUREMENT = b"\x0a" * 32
ADMIN = LocalAccount.named("admin")
OWNER = LocalAccount.named("owner")
PAYLOAD = b"sealed " * 100


@dataclass
class Stage:
    """A contract with four workers."""

    chain: EmbeddedChain
    clock: FixedClock
    processor: JobProcessor
    signers: dict[WorkerId, Signer]

    def submit(self, workers: int = 4, *, payload: bytes = PAYLOAD) -> JobId:
        options = JobOptions(workers=tuple(range(1, workers + 1)), ttl=60_000)
        call = self.processor.submit_confidential_job(payload, b"\1" * 32, options)
        return self.chain.call(call, signer=OWNER).value

    def completion(
        self, job_id: JobId, worker: WorkerId, outcome: Outcome, *, payload: bytes = PAYLOAD
    ) -> Completion:
        signer = self.signers[worker]
        proof = AttestationProof(
            outcome=outcome,
            units=2**64 - 1,
            started_at=self.clock.now,
            finished_at=self.clock.now,
            issued_at=self.clock.now,
            signature=Signature(scheme=signer.public_key.scheme, data=b""),
        )
        draft = Completion(
            job_id=job_id,
            result_hash=blake2_256(b"result"),
            attestation_proof=proof,
            tee_worker_pubkey=signer.public_key,
        )
        statement = statement_of(
            draft,
            genesis_hash=self.chain.genesis_hash,
            contract=self.processor.contract,
            payload_hash=blake2_256(payload),
            measurement=MEASUREMENT,
        )
        signed = replace(proof, signature=sign_statement(statement, signer))
        return replace(draft, attestation_proof=signed)

    def record(self, job_id: JobId, worker: WorkerId, outcome: Outcome) -> Receipt[None]:
        call = self.processor.record_attestation(self.completion(job_id, worker, outcome))
        return self.chain.call(call, signer=ADMIN)

    def cells(self) -> dict[bytes, int]:
        return self.chain.cell_sizes(self.processor.contract)

    def job_cells(self, job_id: JobId) -> dict[bytes, int]:
        """Return the cells whose key is the job's number."""
        suffix = job_id.to_bytes(16, "little")
        return {key: size for key, size in self.cells().items() if key[4:] == suffix}


@pytest.fixture
def stage(clock: FixedClock, chain: EmbeddedChain) -> Stage:
    processor = deploy_processor(chain, admin=ADMIN, measurement=MEASUREMENT)
    signers: dict[WorkerId, Signer] = {}
    for number in range(4):
        signer: Signer = Sr25519Signer.generate() if number % 2 else EcdsaSigner.generate()
        worker = register_test_worker(
            chain, processor, signer, registrar=ADMIN, measurement=MEASUREMENT
        )
        signers[worker] = signer
    return Stage(chain=chain, clock=clock, processor=processor, signers=signers)


def refused(stage: Stage, call: ContractCall[None], account: LocalAccount) -> str:
    """Return the error of a call that has to be refused, and that it changed nothing."""
    before = (stage.chain.finalized_head(), stage.cells())
    with pytest.raises(ContractError) as caught:
        stage.chain.call(call, signer=account)
    assert (stage.chain.finalized_head(), stage.cells()) == before
    return caught.value.variant


# Upgrade.


def other_code(stage: Stage) -> bytes:
    """Return the contract's code with a custom section appended: another hash, the same code."""
    return stage.processor.bundle.code + b"\0\x05\x04note"


def test_new_code_takes_over_address_and_state(stage: Stage) -> None:
    job_id = stage.submit()
    stage.chain.call(stage.processor.set_mode(Mode.HALTED), signer=ADMIN)
    code = other_code(stage)
    code_hash = stage.chain.upload(code, signer=ADMIN)

    receipt = stage.chain.call(stage.processor.set_code(code_hash), signer=ADMIN)

    (event,) = receipt.events
    decoded = stage.processor.decode_event(event)
    assert (decoded.name, decoded.fields) == ("CodeChanged", {"code_hash": code_hash})
    assert stage.chain.code_hash(stage.processor.contract) == code_hash == blake2_256(code)
    job = stage.chain.read(stage.processor.get_job(job_id))
    assert job is not None
    assert job.status is JobStatus.SUBMITTED
    stage.chain.call(stage.processor.set_mode(Mode.RUNNING), signer=ADMIN)
    stage.record(job_id, 1, Outcome.COMPLETED)


def test_code_that_was_not_uploaded_is_set_code_failed(stage: Stage) -> None:
    stage.chain.call(stage.processor.set_mode(Mode.HALTED), signer=ADMIN)
    before = stage.chain.code_hash(stage.processor.contract)

    assert refused(stage, stage.processor.set_code(b"\1" * 32), ADMIN) == "SetCodeFailed"

    assert stage.chain.code_hash(stage.processor.contract) == before


def test_code_is_changed_by_the_admin_of_a_halted_contract(stage: Stage) -> None:
    code_hash = stage.chain.upload(other_code(stage), signer=ADMIN)
    call = stage.processor.set_code(code_hash)

    assert refused(stage, call, ADMIN) == "WrongMode"
    stage.chain.call(stage.processor.set_mode(Mode.HALTED), signer=ADMIN)
    assert refused(stage, call, OWNER) == "NotAdmin"


# Revert and traps.


def test_a_refused_message_drops_what_it_wrote(stage: Stage) -> None:
    """An item of `complete_jobs` fails alone; a refused message as a whole leaves no trace."""
    job_id = stage.submit()
    good = stage.completion(job_id, 1, Outcome.COMPLETED)
    stolen = replace(good, job_id=job_id + 1)

    receipt = stage.chain.call(stage.processor.complete_jobs([stolen, good]), signer=ADMIN)

    first, second = receipt.value
    assert first is not None
    assert first.variant == "JobNotFound"
    assert second is None
    too_many = stage.processor.complete_jobs([good] * 11)
    with pytest.raises(ContractError, match="TooManyItems"):
        stage.chain.call(too_many, signer=ADMIN)


def test_input_beyond_the_buffer_traps_and_changes_nothing(stage: Stage) -> None:
    call = stage.processor.submit_confidential_job(
        bytes(16_384), b"\1" * 32, JobOptions(workers=(1,), ttl=60_000)
    )
    before = (stage.chain.finalized_head(), stage.cells())

    with pytest.raises(ContractTrappedError, match="OutputBufferTooSmall"):
        stage.chain.call(call, signer=OWNER)

    assert (stage.chain.finalized_head(), stage.cells()) == before


@pytest.fixture
def hundredth(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave a hundredth of all limits on what a call may take."""
    monkeypatch.setattr(host_module, "WORK_LIMIT", host_module.WORK_LIMIT // 100)
    monkeypatch.setattr(host_module, "HELD_LIMIT", host_module.HELD_LIMIT // 100)
    monkeypatch.setattr(machine_module, "FUEL_LIMIT", machine_module.FUEL_LIMIT // 100)


@pytest.mark.usefixtures("hundredth")
def test_the_largest_payload_of_all_fits(stage: Stage) -> None:
    """12,288 bytes, the upper bound of `max_payload`, to four workers, and back."""
    stage.chain.call(stage.processor.set_parameters(Parameters(max_payload=12_288)), signer=ADMIN)
    payload = bytes(range(256)) * 48
    options = JobOptions(workers=(1, 2, 3, 4), ttl=60_000)
    submit = stage.processor.submit_confidential_job

    job_id = stage.chain.call(submit(payload, b"\1" * 32, options), signer=OWNER).value

    job = stage.chain.read(stage.processor.get_job(job_id))
    assert job is not None
    assert job.payload_hash == blake2_256(payload)
    too_long = submit(payload + b"\0", b"\1" * 32, options)
    with pytest.raises(ContractError, match="PayloadTooLarge"):
        stage.chain.call(too_long, signer=OWNER)


@pytest.mark.usefixtures("hundredth")
def test_the_longest_page_fits(stage: Stage) -> None:
    for _ in range(50):
        stage.submit()

    page = stage.chain.read(stage.processor.jobs_page(1, 50))

    assert [head.job_id for head in page.items] == list(range(1, 51))
    assert (page.next, page.total) == (None, 50)


def test_the_longest_page_of_the_largest_payloads_fits(stage: Stage) -> None:
    """A job's cell holds its payload: a page reads them all, and ink! frees no memory."""
    stage.chain.call(stage.processor.set_parameters(Parameters(max_payload=12_288)), signer=ADMIN)
    for _ in range(50):
        stage.submit(payload=bytes(12_288))

    page = stage.chain.read(stage.processor.jobs_page(1, 50))

    assert [head.job_id for head in page.items] == list(range(1, 51))


def test_ten_completions_of_the_largest_payloads_fit(stage: Stage) -> None:
    stage.chain.call(stage.processor.set_parameters(Parameters(max_payload=12_288)), signer=ADMIN)
    payload = bytes(12_288)
    jobs = [stage.submit(payload=payload) for _ in range(10)]
    completions = [stage.completion(job, 1, Outcome.COMPLETED, payload=payload) for job in jobs]

    receipt = stage.chain.call(stage.processor.complete_jobs(completions), signer=ADMIN)

    assert receipt.value == [None] * 10


@pytest.mark.usefixtures("hundredth")
def test_ten_completions_of_four_workers_fit(stage: Stage) -> None:
    jobs = [stage.submit() for _ in range(10)]
    completions = [stage.completion(job_id, 1 + job_id % 4, Outcome.COMPLETED) for job_id in jobs]

    receipt = stage.chain.call(stage.processor.complete_jobs(completions), signer=ADMIN)

    assert receipt.value == [None] * 10
    names = [stage.processor.decode_event(event).name for event in receipt.events]
    assert names == ["JobProcessed"] * 10


# Storage.


def test_a_jobs_cells_keep_their_length_after_every_message(stage: Stage) -> None:
    job_id = stage.submit()
    expected = stage.job_cells(job_id)
    assert len(expected) == 1

    def check() -> None:
        assert stage.job_cells(job_id) == expected

    for worker in (1, 2, 3):
        stage.record(job_id, worker, Outcome.FAILED)
        check()
    stage.record(job_id, 4, Outcome.COMPLETED)
    check()
    stage.chain.call(stage.processor.mark_job_processed(job_id), signer=OWNER)
    check()


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
@pytest.mark.parametrize("ending", ["failed", "cancelled", "expired", "completed"])
def test_a_job_that_ends_in_any_way_keeps_its_length(
    stage: Stage, workers: int, ending: str
) -> None:
    job_id = stage.submit(workers)
    expected = stage.job_cells(job_id)
    call, chain = stage.processor, stage.chain

    if ending == "failed":
        for worker in range(1, workers + 1):
            stage.record(job_id, worker, Outcome.FAILED)
            assert stage.job_cells(job_id) == expected
    elif ending == "cancelled":
        chain.call(call.cancel_job(job_id), signer=OWNER)
    elif ending == "expired":
        stage.clock.advance(60_001)
        chain.call(call.expire_job(job_id), signer=ADMIN)
    else:
        done = stage.completion(job_id, 1, Outcome.COMPLETED)
        assert chain.call(call.complete_jobs([done]), signer=ADMIN).value == [None]

    job = chain.read(call.get_job(job_id))
    assert job is not None
    assert job.status.is_final
    assert stage.job_cells(job_id) == expected


def test_nothing_is_left_of_a_purged_job_and_a_released_account(stage: Stage) -> None:
    """The row goes with the job, the account's cell when it is released."""
    before = stage.cells()
    job_id = stage.submit()
    assert len(stage.cells()) == len(before) + 2
    stage.chain.call(stage.processor.cancel_job(job_id), signer=OWNER)

    stage.chain.call(stage.processor.purge_job(job_id), signer=OWNER)

    assert stage.job_cells(job_id) == {}
    left = set(stage.cells()) - set(before)
    assert len(left) == 1
    assert OWNER.account_id in left.pop()
    assert stage.chain.read(stage.processor.get_job(job_id)) is None
    assert refused(stage, stage.processor.release_account(), OWNER) == "AccountInUse"
    stage.clock.advance(Parameters().rate_window + 1)
    stage.chain.call(stage.processor.release_account(), signer=OWNER)
    assert stage.cells() == before
    # Events are the history.
    events = stage.chain.events(stage.processor.contract, after=START).events
    names = [stage.processor.decode_event(event).name for event in events]
    assert names[-3:] == ["JobSubmitted", "JobCancelled", "JobPurged"]


def test_a_purge_after_the_window_releases_the_account_by_itself(stage: Stage) -> None:
    before = stage.cells()
    job_id = stage.submit()
    stage.chain.call(stage.processor.cancel_job(job_id), signer=OWNER)
    stage.clock.advance(Parameters().rate_window + 1)

    stage.chain.call(stage.processor.purge_job(job_id), signer=OWNER)

    assert stage.cells() == before


ROOT = bytes(4)


def test_only_messages_that_change_the_contracts_own_cell_write_it(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write costs an eighth of a message; ink! would make one for each that may write at all."""
    written: list[set[bytes]] = []
    run = Machine.run

    def spying(
        machine: Machine,
        entry: Literal["call", "deploy"],
        call: MachineCall,
        *,
        code_hash: bytes,
        load: Callable[[], bytes],
    ) -> MachineOutcome:
        outcome = run(machine, entry, call, code_hash=code_hash, load=load)
        written.append(set(outcome.cells))
        return outcome

    monkeypatch.setattr(Machine, "run", spying)
    call, chain = stage.processor, stage.chain

    def writes_root(message: ContractCall[object], signer: LocalAccount) -> bool:
        written.clear()
        chain.call(message, signer=signer)
        assert message.label in call.bundle.ink.messages
        assert call.bundle.ink.messages[message.label].mutates
        return ROOT in set().union(*written)

    submit = call.submit_confidential_job(PAYLOAD, b"\1" * 32, JobOptions(workers=(1,), ttl=60_000))
    assert writes_root(submit, OWNER)
    for _ in range(3):
        assert writes_root(submit, OWNER)
    done = [stage.completion(job_id, 1, Outcome.COMPLETED) for job_id in range(1, 5)]
    assert not writes_root(call.record_attestation(done[0]), OWNER)
    assert not writes_root(call.mark_job_processed(1), OWNER)
    assert not writes_root(call.complete_jobs(done[1:3]), ADMIN)
    assert not writes_root(call.cancel_job(4), OWNER)
    assert not writes_root(call.purge_job(4), OWNER)
    assert writes_root(submit, OWNER)
    stage.clock.advance(60_001)
    assert not writes_root(call.expire_job(5), OWNER)
    for job_id in (1, 2, 3, 5):
        chain.call(call.purge_job(job_id), signer=OWNER)
    stage.clock.advance(Parameters().rate_window)
    assert not writes_root(call.release_account(), OWNER)


def test_what_is_in_the_contracts_own_cell_is_written(stage: Stage) -> None:
    call, chain = stage.processor, stage.chain
    lower = replace(Parameters(), max_payload=256)

    chain.call(call.set_mode(Mode.HALTED), signer=ADMIN)
    chain.call(call.set_parameters(lower), signer=ADMIN)
    worker = register_test_worker(
        chain, call, Sr25519Signer.generate(), registrar=ADMIN, measurement=MEASUREMENT
    )
    following = register_test_worker(
        chain, call, Sr25519Signer.generate(), registrar=ADMIN, measurement=MEASUREMENT
    )
    assert chain.read(call.is_trusted(worker))
    chain.call(call.revoke_measurement(MEASUREMENT), signer=ADMIN)
    chain.call(call.propose_admin(OWNER.account_id), signer=ADMIN)
    chain.call(call.accept_admin(), signer=OWNER)

    assert chain.read(call.mode()) is Mode.HALTED
    assert chain.read(call.parameters()) == lower
    assert following == worker + 1
    assert not chain.read(call.is_trusted(worker))
    assert chain.read(call.admin()) == OWNER.account_id


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_what_a_job_stores(stage: Stage, workers: int) -> None:
    """Prints the figures of the documentation."""
    stage.submit(workers)
    before = stage.chain.storage_stats(stage.processor.contract)

    stage.submit(workers)

    after = stage.chain.storage_stats(stage.processor.contract)
    items, total = after.items - before.items, after.bytes - before.bytes
    print(f"{workers} workers: {items} items, {total} bytes of which {len(PAYLOAD)} are payload")
    assert items == 1
    assert total - len(PAYLOAD) <= 440


# The typed interface, message by message.


def test_reads_return_what_they_promise(stage: Stage) -> None:
    """The metadata's types are not in Python's: here each value is compared."""
    read, call = stage.chain.read, stage.processor
    job_id = stage.submit()

    assert read(call.get_job_counter()) == job_id
    assert read(call.attestation_status(job_id)) is AttestationStatus.NOT_FOUND
    assert read(call.verify_attestation(job_id)) is False
    assert read(call.get_attestation(job_id)) is None
    stage.record(job_id, 2, Outcome.COMPLETED)
    assert read(call.attestation_status(job_id)) is AttestationStatus.VALID
    assert read(call.verify_attestation(job_id)) is True
    attestation = read(call.get_attestation(job_id))
    completion = stage.completion(job_id, 2, Outcome.COMPLETED)
    assert attestation is not None
    assert attestation.worker == 2
    assert attestation.tee_worker_pubkey == stage.signers[2].public_key
    assert attestation.result_hash == completion.result_hash
    assert attestation.timestamp == stage.clock.now
    assert read(call.rate_limit_left(OWNER.account_id)) == Parameters().rate_limit - 1
    assert read(call.version()) == 1
    assert read(call.mode()) is Mode.RUNNING
    assert read(call.is_trusted(1)) is True
    assert read(call.is_trusted(99)) is False
    assert read(call.get_worker(99)) is None
    page = read(call.jobs_page(1, 1))
    assert page.items[0].status is JobStatus.ATTESTED
    assert page.items[0].workers == (1, 2, 3, 4)


def test_a_job_by_reference(stage: Stage) -> None:
    call = stage.processor.submit_job_reference(
        b"\5" * 32,
        1 << 20,
        b"https://blobs.example/",
        b"\1" * 32,
        JobOptions(workers=(3,), ttl=60_000),
    )

    job_id = stage.chain.call(call, signer=OWNER).value

    job = stage.chain.read(stage.processor.get_job(job_id))
    assert job is not None
    assert job.encrypted_payload == ReferencePayload(
        length=1 << 20, location=b"https://blobs.example/"
    )
    assert (job.payload_hash, job.workers) == (b"\5" * 32, (3,))


def test_workers_come_and_go(stage: Stage) -> None:
    chain, call = stage.chain, stage.processor

    def status(worker: WorkerId) -> WorkerStatus:
        found = chain.read(call.get_worker(worker))
        assert found is not None
        return found.status

    chain.call(call.suspend_worker(1), signer=ADMIN)
    assert status(1) is WorkerStatus.SUSPENDED
    chain.call(call.reinstate_worker(1), signer=ADMIN)
    assert status(1) is WorkerStatus.ACTIVE
    chain.call(call.revoke_worker(1, b"\7" * 32), signer=ADMIN)
    assert status(1) is WorkerStatus.REVOKED
    worker = chain.read(call.get_worker(2))
    assert worker is not None
    renewed = WorkerRegistration(
        signing_key=worker.signing_key,
        encryption_key=worker.encryption_key,
        measurement=worker.measurement,
        evidence_hash=b"\6" * 32,
        endpoint=worker.endpoint,
        valid_until=worker.valid_until + 1,
    )
    digest = registration_digest(renewed, genesis_hash=chain.genesis_hash, contract=call.contract)
    possession = stage.signers[2].sign(digest)
    chain.call(
        call.renew_worker(2, renewed.evidence_hash, renewed.valid_until, possession), signer=ADMIN
    )
    after = chain.read(call.get_worker(2))
    assert after == replace(
        worker, evidence_hash=renewed.evidence_hash, valid_until=renewed.valid_until
    )
    chain.call(call.revoke_measurement(MEASUREMENT), signer=ADMIN)
    assert chain.read(call.is_trusted(2)) is False


def test_the_admin_hands_over(stage: Stage) -> None:
    chain, call = stage.chain, stage.processor
    chain.call(call.revoke_role(ADMIN.account_id, Role.OPERATOR), signer=ADMIN)
    assert chain.read(call.has_role(ADMIN.account_id, Role.OPERATOR)) is False

    chain.call(call.propose_admin(OWNER.account_id), signer=ADMIN)
    chain.call(call.accept_admin(), signer=OWNER)

    assert chain.read(call.admin()) == OWNER.account_id
    assert refused(stage, call.set_parameters(Parameters()), ADMIN) == "NotAdmin"
