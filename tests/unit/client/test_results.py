"""What an owner accepts: each check fails alone, and nothing is shown then."""

from dataclasses import replace
from typing import Any

import pytest

from orchestrator.blobs import BlobStore
from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.client import JobClient, JobFailedError
from orchestrator.crypto import AccountKey, EncryptionKey, OwnerSecret, seal_result
from orchestrator.encoding import blake2_256, encode_cbor, encode_failure, encode_output
from orchestrator.errors import (
    BlobError,
    BlobNotFoundError,
    BlobTooLargeError,
    BlobUnavailableError,
    ChainMismatchError,
    DigestMismatchError,
    Error,
    InputError,
    InvalidSignatureError,
    JobStateError,
    OpenError,
    RefusedError,
    StatementMismatchError,
    UntrustedWorkerError,
)
from orchestrator.models import (
    Attestation,
    Completion,
    JobId,
    JobStatus,
    Outcome,
    TaskInput,
    Worker,
)
from orchestrator.testing.owner_world import ADMIN, MEASUREMENT, World
from tests.unit.client.shelf import Shelf


@pytest.fixture
def client(world: World) -> JobClient:
    return world.client()


@pytest.fixture
def job_id(client: JobClient, task: TaskInput) -> JobId:
    return client.submit(task, workers=[1, 2])


@pytest.fixture
def completion(world: World, job_id: JobId) -> Completion:
    return world.process(job_id)


def _refused(client: JobClient, job_id: JobId, code: str) -> RefusedError:
    with pytest.raises(RefusedError) as refused:
        client.result(job_id)
    assert refused.value.code == code
    assert "SECRET WORDS" not in str(refused.value)
    return refused.value


class TestAccepted:
    @pytest.mark.parametrize("worker", [0, 1])
    def test_result_of_either_scheme(
        self, world: World, client: JobClient, job_id: JobId, worker: int
    ) -> None:
        completion = world.process(job_id, worker)

        result = client.result(job_id)

        assert result.output == b"SECRET WORDS"
        assert result.job_id == job_id
        assert result.worker.worker == worker + 1
        assert result.completion == completion
        assert result.statement.payload_hash == client.jobs()[0].payload_hash
        assert result.statement.measurement == MEASUREMENT
        assert blake2_256(result.envelope) == completion.result_hash

    def test_nothing_confidential_is_in_the_repr(
        self, client: JobClient, completion: Completion
    ) -> None:
        result = client.result(completion.job_id)

        assert "SECRET WORDS" not in repr(result)
        assert result.envelope.hex() not in repr(result)
        assert repr(result.envelope) not in repr(result)

    def test_before_it_is_marked(self, world: World, client: JobClient, job_id: JobId) -> None:
        world.record(world.workers[0].execute(job_id, lambda task: task.input))

        assert client.status(job_id) is JobStatus.ATTESTED
        assert client.result(job_id).output == b"secret words"

    def test_after_purge_on_every_machine_of_the_owner(
        self, world: World, client: JobClient, completion: Completion
    ) -> None:
        before = client.result(completion.job_id)
        client.purge(completion.job_id)
        elsewhere = world.client(state_dir=world.folder / "elsewhere")

        assert client.result(completion.job_id) == before
        assert before.is_submission_known
        assert elsewhere.result(completion.job_id) == replace(before, is_submission_known=False)

    def test_a_rebuilt_list_knows_of_the_submission_what_the_node_says(
        self, world: World, completion: Completion
    ) -> None:
        elsewhere = world.client(state_dir=world.folder / "elsewhere")
        elsewhere.rebuild()

        assert not elsewhere.result(completion.job_id).is_submission_known

    def test_worker_whose_registration_ended(
        self, world: World, client: JobClient, completion: Completion
    ) -> None:
        world.clock.advance(40 * 86_400_000)

        assert client.result(completion.job_id).output == b"SECRET WORDS"

    def test_empty_output(self, world: World, client: JobClient, job_id: JobId) -> None:
        world.record(world.workers[0].execute(job_id, lambda _: b""))

        assert client.result(job_id).output == b""

    def test_accepted_worker_keys(self, world: World, completion: Completion) -> None:
        client = world.client(accepted_worker_keys=[world.workers[0].signer.public_key])

        assert client.result(completion.job_id).output == b"SECRET WORDS"


class TestRefused:
    def test_bytes_that_do_not_hash_to_the_result(
        self, world: World, completion: Completion
    ) -> None:
        envelope = world.blobs.get(completion.result_hash, max_bytes=1 << 20)
        shelf = Shelf(envelope[:-1] + bytes([envelope[-1] ^ 1]))

        with pytest.raises(DigestMismatchError):
            world.client(blob_sources=[shelf]).result(completion.job_id)

        assert shelf.asked == 1

    def test_worker_key_that_this_owner_does_not_accept(
        self, world: World, completion: Completion
    ) -> None:
        shelf = Shelf(BlobNotFoundError())
        client = world.client(
            accepted_worker_keys=[world.workers[1].signer.public_key], blob_sources=[shelf]
        )

        _refused(client, completion.job_id, "WorkerNotAccepted")
        assert shelf.asked == 0, "nothing is fetched"

    def test_empty_list_of_accepted_keys_accepts_none(
        self, world: World, completion: Completion
    ) -> None:
        _refused(world.client(accepted_worker_keys=[]), completion.job_id, "WorkerNotAccepted")

    def test_signature_of_another_statement(
        self, world: World, client: JobClient, completion: Completion
    ) -> None:
        """The chain's answer is changed in one number that the worker signed."""

        def change(attestation: Attestation) -> Attestation:
            proof = replace(attestation.attestation_proof, units=2)
            return replace(attestation, attestation_proof=proof)

        world.chain.answers["get_attestation"] = change

        with pytest.raises(InvalidSignatureError):
            client.result(completion.job_id)

    def test_signature_by_another_worker(
        self, world: World, client: JobClient, completion: Completion
    ) -> None:
        world.chain.answers["get_worker"] = lambda worker: replace(
            worker, signing_key=world.workers[1].signer.public_key
        )

        assert isinstance(_refused(client, completion.job_id, "KeyMismatch"), UntrustedWorkerError)

    def test_statement_with_another_measurement(
        self, world: World, client: JobClient, completion: Completion
    ) -> None:
        world.chain.answers["get_worker"] = lambda worker: replace(worker, measurement=bytes(32))
        world.chain.answers["has_measurement"] = lambda _: True

        with pytest.raises(InvalidSignatureError):
            client.result(completion.job_id)

    def test_worker_that_the_job_is_not_for(self, world: World, task: TaskInput) -> None:
        client = world.client()
        job_id = client.submit(task, workers=[1])
        world.record(world.workers[0].execute(job_id, lambda task: task.input))
        job = world.chain.read(world.processor.get_job(job_id))
        digest = world.blobs.put(b"of another worker")
        forged = world.workers[1].sign(job, Outcome.COMPLETED, digest)
        world.chain.answers["get_job"] = lambda job: replace(job, workers=(2,))
        world.chain.answers["get_attestation"] = lambda attestation: replace(
            attestation,
            worker=2,
            result_hash=forged.result_hash,
            attestation_proof=forged.attestation_proof,
            tee_worker_pubkey=forged.tee_worker_pubkey,
        )

        _refused(client, job_id, "WorkerNotEligible")

    def test_worker_with_another_encryption_key_than_it_was_sealed_to(
        self, world: World, client: JobClient, completion: Completion
    ) -> None:
        world.chain.answers["get_worker"] = lambda worker: replace(
            worker, encryption_key=EncryptionKey.generate().public_key
        )

        _refused(client, completion.job_id, "KeyMismatch")

    @pytest.mark.parametrize(
        ("field", "offset", "code"),
        [
            ("started_at", -7_200_001, "StatementBeforeJob"),
            ("issued_at", -7_200_001, "StatementBeforeJob"),
            ("issued_at", 7_200_001, "StatementFromFuture"),
        ],
    )
    def test_a_statement_is_not_older_than_its_job_nor_from_the_future(
        self, world: World, client: JobClient, job_id: JobId, field: str, offset: int, code: str
    ) -> None:
        """The contract has looked; a node that lies about it has not."""
        world.process(job_id)
        (listed,) = client.jobs(refresh=False)

        def signed_at(time: int) -> None:
            def change(attestation: Attestation) -> Attestation:
                times: dict[str, Any] = {field: time}
                proof = replace(attestation.attestation_proof, **times)
                return replace(attestation, attestation_proof=proof)

            world.chain.answers["get_attestation"] = change

        signed_at(listed.created_at + offset)
        _refused(client, job_id, code)
        signed_at(listed.created_at + offset - (1 if offset > 0 else -1))
        with pytest.raises(InvalidSignatureError):  # only this is left to say of it
            client.result(job_id)

    @pytest.mark.parametrize("label", ["get_job", "get_attestation", "get_worker"])
    @pytest.mark.parametrize("is_listed", [True, False])
    def test_a_node_that_answers_with_something_else_than_was_asked_for(
        self, world: World, task: TaskInput, label: str, is_listed: bool
    ) -> None:
        client = world.client() if is_listed else world.client(state_dir=world.folder / "elsewhere")
        submitting = world.client()
        first, second = (submitting.submit(task, workers=[1]) for _ in range(2))
        for job_id in (first, second):
            world.process(job_id)
        processor = world.processor
        call: Any = {
            "get_job": processor.get_job(first),
            "get_attestation": processor.get_attestation(first),
            "get_worker": processor.get_worker(2),
        }[label]
        other = world.chain.inside.read(call)
        world.chain.answers[label] = lambda _: other

        with pytest.raises(ChainMismatchError, match="the node answers with that of"):
            client.result(second)

    def test_other_payload_than_was_submitted(
        self, world: World, client: JobClient, completion: Completion
    ) -> None:
        """The chain says something else than the list of this owner."""
        world.chain.answers["get_job"] = lambda job: replace(job, payload_hash=bytes(32))

        with pytest.raises(StatementMismatchError, match="PayloadMismatch"):
            client.result(completion.job_id)

    @pytest.mark.parametrize("reason", ["WorkerRevoked", "MeasurementRevoked"])
    def test_revoked_unless_the_owner_accepts_that(
        self, world: World, client: JobClient, completion: Completion, reason: str
    ) -> None:
        call = {
            "WorkerRevoked": world.processor.revoke_worker(1, bytes(32)),
            "MeasurementRevoked": world.processor.revoke_measurement(MEASUREMENT),
        }[reason]
        world.chain.inside.call(call, signer=ADMIN)

        _refused(client, completion.job_id, reason)

        result = client.result(completion.job_id, accept_revoked_worker=True)
        assert result.output == b"SECRET WORDS"

    def test_job_of_somebody_else(self, world: World, completion: Completion) -> None:
        bob = world.client(account=AccountKey.from_uri("//Bob"))

        _refused(bob, completion.job_id, "NotJobOwner")

    def test_job_of_somebody_else_after_purge(
        self, world: World, client: JobClient, completion: Completion
    ) -> None:
        client.purge(completion.job_id)
        bob = world.client(account=AccountKey.from_uri("//Bob"))

        _refused(bob, completion.job_id, "NotJobOwner")

    def test_other_owner_secret(self, world: World, completion: Completion) -> None:
        client = world.client(secret=OwnerSecret.from_bytes(b"\7" * 32))

        with pytest.raises(OpenError, match=r"another owner secret .* keys restore BACKUP"):
            client.result(completion.job_id)

    def test_own_secret_and_yet_it_does_not_open(
        self, world: World, client: JobClient, job_id: JobId
    ) -> None:
        """A worker that seals to a key of its own does not make the owner doubt the backup."""
        job = world.chain.read(world.processor.get_job(job_id))
        envelope = seal_result(
            encode_output(b"SECRET WORDS"),
            genesis=world.chain.genesis_hash,
            contract=world.processor.contract,
            job_id=job_id,
            payload_hash=job.payload_hash,
            worker_key=world.workers[0].signer.public_key,
            reply_nonce=bytes(16),
            reply_key=EncryptionKey.generate().public_key,
        )
        digest = world.blobs.put(envelope)
        world.record(world.workers[0].sign(job, Outcome.COMPLETED, digest))

        with pytest.raises(OpenError, match="did not open"):
            client.result(job_id)

    @pytest.mark.parametrize(
        ("field", "code"),
        [
            ("genesis", "GenesisMismatch"),
            ("contract", "ContractMismatch"),
            ("job_id", "JobMismatch"),
            ("payload_hash", "PayloadMismatch"),
            ("worker_key", "WorkerMismatch"),
        ],
    )
    def test_signed_result_with_the_header_of_another(
        self, world: World, client: JobClient, job_id: JobId, field: str, code: str
    ) -> None:
        """A worker signs, correctly, the hash of a result that belongs elsewhere."""
        job = world.chain.read(world.processor.get_job(job_id))
        sealed = client._list.envelope(job_id)
        assert sealed is not None
        nonce = world.workers[0]._open(job_id)[1].header.nonce
        fields: dict[str, object] = {
            "genesis": world.chain.genesis_hash,
            "contract": world.processor.contract,
            "job_id": job_id,
            "payload_hash": job.payload_hash,
            "worker_key": world.workers[0].signer.public_key,
        }
        fields[field] = {
            "job_id": job_id + 1,
            "worker_key": world.workers[1].signer.public_key,
        }.get(field, bytes(32))
        envelope = seal_result(
            encode_output(b"SECRET WORDS"),
            reply_nonce=nonce,
            reply_key=job.public_key,
            **fields,  # type: ignore[arg-type]  # each is of its type
        )
        digest = world.blobs.put(envelope)
        world.record(world.workers[0].sign(job, Outcome.COMPLETED, digest))

        _refused(client, job_id, code)

    @pytest.mark.parametrize(
        "plaintext",
        [b"", b"SECRET WORDS", encode_failure("TaskFailed", "x"), encode_cbor({"output": "text"})],
    )
    def test_content_that_is_no_output(
        self, world: World, client: JobClient, job_id: JobId, plaintext: bytes
    ) -> None:
        world.record(world.workers[0].attest(job_id, Outcome.COMPLETED, plaintext))

        _refused(client, job_id, "ResultUnreadable")

    def test_no_envelope_at_all(self, world: World, client: JobClient, job_id: JobId) -> None:
        job = world.chain.read(world.processor.get_job(job_id))
        digest = world.blobs.put(b"SECRET WORDS")
        world.record(world.workers[0].sign(job, Outcome.COMPLETED, digest))

        _refused(client, job_id, "ResultUnreadable")


class TestNotYet:
    def test_open_job(self, client: JobClient, job_id: JobId) -> None:
        with pytest.raises(JobStateError, match=r"job 1 is not done yet \(Submitted\)"):
            client.result(job_id)

    def test_cancelled_and_purged_job(self, client: JobClient, job_id: JobId) -> None:
        client.cancel(job_id)
        client.purge(job_id)

        with pytest.raises(JobStateError, match="job 1 is Cancelled: no result"):
            client.result(job_id)

    @pytest.mark.parametrize("unknown", [0, 2, 1 << 100])
    def test_unknown_job(self, client: JobClient, job_id: JobId, unknown: int) -> None:
        with pytest.raises(InputError, match=f"there is no job {unknown}"):
            client.result(unknown)


class TestSources:
    def test_in_order_and_the_worker_last(self, world: World, completion: Completion) -> None:
        missing, wrong = Shelf(BlobNotFoundError()), Shelf(b"other bytes")
        asked: list[Worker] = []

        def worker_blobs(worker: Worker) -> BlobStore:
            asked.append(worker)
            return world.blobs

        client = world.client(blob_sources=[missing, wrong], worker_blobs=worker_blobs)

        assert client.result(completion.job_id).output == b"SECRET WORDS"
        assert (missing.asked, wrong.asked) == (1, 1)
        assert [worker.worker for worker in asked] == [1]

    def test_first_that_has_it_is_enough(self, world: World, completion: Completion) -> None:
        second = Shelf(BlobNotFoundError())

        world.client(blob_sources=[world.blobs, second]).result(completion.job_id)

        assert second.asked == 0

    def test_nowhere(self, world: World, completion: Completion) -> None:
        empty = DirectoryBlobStore(world.folder / "empty")

        with pytest.raises(BlobNotFoundError, match="neither in 1 blob sources nor at worker 1"):
            world.client(blob_sources=[empty], worker_blobs=lambda _: empty).result(
                completion.job_id
            )
        with pytest.raises(BlobNotFoundError, match="not in 1 blob sources, and workers are not"):
            world.client(blob_sources=[empty], worker_blobs=None).result(completion.job_id)

    def test_nobody_to_ask(self, world: World, completion: Completion) -> None:
        client = world.client(blob_sources=[], worker_blobs=None)

        with pytest.raises(
            BlobNotFoundError,
            match=r"no blob source was given, and workers are not asked \(worker_blobs\)",
        ):
            client.result(completion.job_id)

    @pytest.mark.parametrize("other", [BlobNotFoundError(), DigestMismatchError()])
    def test_unreachable_is_not_missing(
        self, world: World, completion: Completion, other: BlobError
    ) -> None:
        shelves = [Shelf(other), Shelf(BlobUnavailableError("no route"))]

        with pytest.raises(BlobUnavailableError, match="no route"):
            world.client(blob_sources=shelves).result(completion.job_id)

    def test_too_large(self, world: World, completion: Completion) -> None:
        with pytest.raises(BlobTooLargeError):
            world.client(blob_sources=[Shelf(BlobTooLargeError())]).result(completion.job_id)

    @pytest.mark.parametrize("kind", ["url", "bytes"])
    def test_worker_address_that_is_none(
        self, world: World, completion: Completion, kind: str
    ) -> None:
        def worker_blobs(_: Worker) -> BlobStore:
            if kind == "bytes":
                b"\xff".decode()
            raise InputError("not a URL")

        with pytest.raises(BlobNotFoundError):
            world.client(blob_sources=[], worker_blobs=worker_blobs).result(completion.job_id)


class TestFailures:
    def _fail(self, world: World, job_id: JobId, worker: int, message: str | None) -> Completion:
        completion = world.workers[worker].fail(job_id, "TaskFailed", message)
        world.record(completion)
        return completion

    def test_job_that_every_worker_failed(
        self, world: World, client: JobClient, job_id: JobId
    ) -> None:
        self._fail(world, job_id, 0, "private reason")
        self._fail(world, job_id, 1, None)

        with pytest.raises(JobFailedError) as failed:
            client.result(job_id)

        error = failed.value
        assert error.code == "JobFailed"
        assert error.job_id == job_id
        assert [(one.worker, one.code, one.message, one.trouble) for one in error.failures] == [
            (1, "TaskFailed", "private reason", None),
            (2, "TaskFailed", None, None),
        ]
        assert "private reason" not in f"{error} {error!r} {error.failures!r}"
        assert "TaskFailed" not in f"{error} {error!r} {error.failures!r}"

    def test_after_purge(self, world: World, client: JobClient, job_id: JobId) -> None:
        self._fail(world, job_id, 0, "private reason")
        self._fail(world, job_id, 1, "other")
        client.purge(job_id)

        with pytest.raises(JobFailedError) as failed:
            client.result(job_id)

        assert [one.message for one in failed.value.failures] == ["private reason", "other"]

    def test_failure_before_another_worker_completed(
        self, world: World, client: JobClient, job_id: JobId
    ) -> None:
        first = self._fail(world, job_id, 0, "private reason")
        world.process(job_id, 1)

        (failure,) = client.failures(job_id)

        assert failure.completion == first
        assert failure.message == "private reason"
        assert client.result(job_id).worker.worker == 2

    def test_no_failures(self, client: JobClient, completion: Completion) -> None:
        assert client.failures(completion.job_id) == ()

    def test_report_that_is_lost_does_not_hide_the_other(
        self, world: World, client: JobClient, job_id: JobId
    ) -> None:
        first = self._fail(world, job_id, 0, "private reason")
        self._fail(world, job_id, 1, "other")
        world.blobs.delete(first.result_hash)

        lost, other = client.failures(job_id)

        assert (lost.code, lost.message) == (None, None)
        assert lost.trouble is not None
        assert first.result_hash.hex() in lost.trouble
        assert other.message == "other"

    def test_report_that_is_none(self, world: World, client: JobClient, job_id: JobId) -> None:
        world.record(world.workers[0].attest(job_id, Outcome.FAILED, encode_output(b"private")))

        (failure,) = client.failures(job_id)

        assert failure.code is None
        assert failure.trouble is not None
        assert "private" not in failure.trouble


def test_lying_list_of_events_is_refused(
    world: World, client: JobClient, completion: Completion, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After purge the events are all there is; one with other fields is not read as another."""
    client.purge(completion.job_id)
    decode = client._view.processor.decode_event

    for name, value in [("units", "1"), ("result_hash", 7), ("outcome", 1), ("signature", b"")]:

        def change(raw: object, name: str = name, value: object = value) -> object:
            event = decode(raw)  # type: ignore[arg-type]  # passed on
            fields = {**event.fields, name: value} if name in event.fields else event.fields
            return replace(event, fields=fields)

        monkeypatch.setattr(client._view.processor, "decode_event", change)
        with pytest.raises(Error, match="event AttestationRecorded"):
            client.result(completion.job_id)
