"""The worker's HTTP interface, protocol section 4, without a chain."""

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.attestation.statement import statement_of
from orchestrator.crypto import seal_job, verify_signature
from orchestrator.encoding import (
    blake2_256,
    encode_task_input,
    registration_digest,
    statement_digest,
)
from orchestrator.errors import (
    BlobNotFoundError,
    WorkerRefusedError,
    WorkerUnavailableError,
)
from orchestrator.models import Completion, Outcome, TaskInput, WorkerRegistration
from orchestrator.worker import TokenList, TokenScope
from orchestrator.worker.heads import JobFacts, UnsafeRequestHeads
from orchestrator.worker.outcomes import OutcomeStore, StoredOutcome
from orchestrator.workers import JobKey, JobRequest, WorkerJob, WorkerJobState
from orchestrator.workers.wire import dump_job_request, job_path
from tests.unit.worker.world import (
    CONTRACT,
    GENESIS,
    MEASUREMENT,
    OWNER,
    World,
    development_worker,
    until,
)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with development_worker(tmp_path / "worker") as made:
        yield made


async def refusal(world: World, request: JobRequest) -> str:
    """Return the words of a 422, and assert that nothing was signed."""
    with pytest.raises(WorkerRefusedError) as caught:
        await world.client().put_job(request)
    assert caught.value.status == 422
    await assert_unknown(world, request.key)
    return str(caught.value)


async def assert_unknown(world: World, key: JobKey) -> None:
    with pytest.raises(WorkerRefusedError) as caught:
        await world.client().get_job(key)
    assert caught.value.status == 404


def verified(job: WorkerJob, key: JobKey) -> Completion:
    """Return the completion, whose signature is that of its key over the statement."""
    assert job.completion is not None
    statement = statement_of(
        job.completion,
        genesis_hash=key.genesis,
        contract=key.contract,
        payload_hash=key.payload_hash,
        measurement=MEASUREMENT,
    )
    proof = job.completion.attestation_proof
    verify_signature(job.completion.tee_worker_pubkey, proof.signature, statement_digest(statement))
    return job.completion


async def test_a_job_is_executed_signed_and_sealed_to_its_owner(world: World) -> None:
    request = world.request(world.seal(b"hello"))

    job = await world.finish(request)

    assert job.state is WorkerJobState.DONE
    completion = verified(job, request.key)
    assert completion.attestation_proof.outcome is Outcome.COMPLETED
    assert await world.output(job) == b"hello"


async def test_times_are_in_order_and_signing_again_only_moves_the_last(world: World) -> None:
    request = world.request(world.seal(b"hello"))
    first = verified(await world.finish(request), request.key).attestation_proof

    world.clock.advance(60_000)
    second = verified(await world.client().get_job(request.key), request.key).attestation_proof
    world.clock.advance(-120_000)
    third = verified(await world.client().get_job(request.key), request.key).attestation_proof

    assert first.started_at <= first.finished_at <= first.issued_at
    assert second.issued_at == first.issued_at + 60_000
    assert third.issued_at == first.finished_at
    for other in (second, third):
        assert replace(other, issued_at=0, signature=first.signature) == replace(first, issued_at=0)


async def test_the_same_job_again_is_200_with_the_same_outcome(world: World) -> None:
    request = world.request(world.seal(b"hello"))
    first = await world.finish(request)

    assert await world.client().put_job(request) is False

    again = await world.client().get_job(request.key)
    assert again.completion is not None
    assert first.completion is not None
    assert again.completion.result_hash == first.completion.result_hash


async def test_a_waiting_job_with_another_head_is_422(tmp_path: Path) -> None:
    async with development_worker(tmp_path, developer_hold_seconds=600.0) as world:
        request = world.request(world.seal(b"hello"))
        assert await world.client().put_job(request) is True
        assert await world.client().put_job(request) is False

        other = replace(request, head=replace(request.head, deadline=request.head.deadline + 1))
        with pytest.raises(WorkerRefusedError, match=r"422: .*accepted with another"):
            await world.client().put_job(other)

        assert (await world.client().get_job(request.key)).state is WorkerJobState.RUNNING


async def test_a_job_that_is_finished_while_the_same_one_is_checked_runs_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_go_on, facts = asyncio.Event(), UnsafeRequestHeads.facts

    async def slow_facts(heads: UnsafeRequestHeads, request: JobRequest) -> JobFacts:
        monkeypatch.setattr(UnsafeRequestHeads, "facts", facts)
        await may_go_on.wait()
        return await facts(heads, request)

    monkeypatch.setattr(UnsafeRequestHeads, "facts", slow_facts)
    request = world.request(world.seal(b"hello"))
    slow = asyncio.create_task(world.client().put_job(request))
    await until(lambda: UnsafeRequestHeads.facts is facts)
    await world.finish(request)

    may_go_on.set()

    assert await slow is False
    async with world.http() as client:
        assert "phala_jobs_worker_accepted_total 1.0" in (await client.get("/metrics")).text


async def test_the_envelope_may_have_come_before_as_a_blob(world: World) -> None:
    request = world.request(world.seal(b"hello"))
    assert request.envelope is not None
    digest = await world.client().put_blob(request.envelope)
    assert digest == request.key.payload_hash

    job = await world.finish(replace(request, envelope=None))

    assert await world.output(job) == b"hello"


async def test_without_envelope_and_blob_the_request_is_malformed(world: World) -> None:
    request = world.request(world.seal(b"hello"))

    assert "no such blob" in await refusal(world, replace(request, envelope=None))


async def test_bytes_that_do_not_hash_to_the_payload_hash_are_422(world: World) -> None:
    request = world.request(world.seal(b"hello"))
    assert request.envelope is not None

    words = await refusal(world, replace(request, envelope=request.envelope + b"!"))

    assert "payload_hash" in words


@pytest.mark.parametrize("field", ["owner", "public_key", "recipients"])
async def test_without_a_chain_a_header_unlike_the_head_is_422(world: World, field: str) -> None:
    request = world.request(world.seal(b"hello"))
    # A valid point, but not the one in the header.
    other: object = bytes([9]) + bytes(31)
    if field == "recipients":
        other = (other,)

    words = await refusal(world, replace(request, head=replace(request.head, **{field: other})))  # type: ignore[arg-type]  # the field's own type

    assert "head: not that of the envelope" in words


@pytest.mark.parametrize(
    "point", [bytes(32), b"\x01" + bytes(31), b"\xec" + b"\xff" * 30 + b"\x7f"]
)
async def test_a_reply_key_that_hides_nothing_is_422(world: World, point: bytes) -> None:
    request = world.request(world.seal(b"hello"), envelope=b"no envelope at all")

    words = await refusal(world, replace(request, head=replace(request.head, public_key=point)))

    assert "head.public_key" in words


async def test_an_envelope_that_is_none_is_a_signed_failure_without_reasons(world: World) -> None:
    request = world.request(world.seal(b"hello"), envelope=b"no envelope at all")
    # Sealed to the key on the chain, with a nonce of zeros: here the owner knows its secret.
    reply_key = world.secret.reply_key(bytes(16)).public_key
    request = replace(request, head=replace(request.head, public_key=reply_key))

    job = await world.finish(request)

    assert job.state is WorkerJobState.FAILED
    assert verified(job, request.key).attestation_proof.outcome is Outcome.FAILED
    assert await world.failure(job) == ("OpenFailed", None)


async def test_an_envelope_whose_body_was_changed_is_a_signed_failure(world: World) -> None:
    sealed = world.seal(b"hello")
    broken = sealed.envelope[:-1] + bytes([sealed.envelope[-1] ^ 1])
    request = world.request(sealed, envelope=broken)

    job = await world.finish(request)

    assert job.state is WorkerJobState.FAILED
    verified(job, request.key)
    assert await world.failure(job) == ("OpenFailed", None)


@pytest.mark.parametrize(
    ("plaintext", "code"),
    [
        (b"not a task input", "BadTaskInput"),
        (encode_task_input(TaskInput(task="other", input=b"")), "UnknownTask"),
        (encode_task_input(TaskInput(task="onnx", input=b"")), "UnknownTask"),
    ],
    ids=["no_input", "no_task", "task_not_offered"],
)
async def test_an_input_that_can_not_be_run_is_a_signed_failure_with_its_reason(
    world: World, plaintext: bytes, code: str
) -> None:
    request = world.request(world.seal_plaintext(plaintext))

    job = await world.finish(request)

    assert job.state is WorkerJobState.FAILED
    verified(job, request.key)
    found, message = await world.failure(job)
    assert found == code
    assert message


async def test_a_job_that_another_worker_can_open_is_a_signed_failure(world: World) -> None:
    sealed = seal_job(
        b"x",
        genesis=GENESIS,
        contract=CONTRACT,
        owner=OWNER,
        secret=world.secret,
        recipients=[world.secret.reply_key(b"n" * 16).public_key],
    )
    request = world.request(sealed)
    recipients = sealed.header.recipients[:1]
    request = replace(request, head=replace(request.head, recipients=recipients))

    job = await world.finish(request)

    assert await world.failure(job) == ("OpenFailed", None)


async def test_a_clock_before_the_job_is_503_and_starts_nothing(world: World) -> None:
    request = world.request(world.seal(b"hello"))
    world.clock.advance(-60_001)

    with pytest.raises(WorkerUnavailableError, match=r"503.*clock is before the job"):
        await world.client().put_job(request)

    await assert_unknown(world, request.key)
    world.clock.advance(1)
    assert (await world.finish(request)).state is WorkerJobState.DONE


async def test_a_job_whose_deadline_is_over_is_409(world: World) -> None:
    request = world.request(world.seal(b"hello"))
    world.clock.now = request.head.deadline + 1

    with pytest.raises(WorkerRefusedError, match=r"409.*deadline"):
        await world.client().put_job(request)

    await assert_unknown(world, request.key)
    world.clock.advance(-1)
    assert (await world.finish(request)).state is WorkerJobState.DONE


async def test_a_worker_that_was_never_registered_is_503(world: World) -> None:
    request = world.request(world.seal(b"hello"))
    other = replace(request, key=replace(request.key, contract=b"d" * 32))

    with pytest.raises(WorkerUnavailableError, match=r"503.*register"):
        await world.client().put_job(other)


async def test_a_full_queue_is_429_and_says_when_to_come_back(tmp_path: Path) -> None:
    async with development_worker(tmp_path, developer_hold_seconds=600.0, queue=2) as world:
        for _ in range(3):
            assert await world.client().put_job(world.request(world.seal(b"x")))
        request = world.request(world.seal(b"one too many"))

        with pytest.raises(WorkerUnavailableError, match=r"429.*2 jobs") as caught:
            await world.client().put_job(request)

        assert caught.value.retry_after_seconds == 2
        await assert_unknown(world, request.key)
        identity = await world.client().identity()
        assert (identity.running, identity.waiting) == (1, 2)


async def test_a_queue_full_of_bytes_is_429(tmp_path: Path) -> None:
    async with development_worker(
        tmp_path, developer_hold_seconds=600.0, queue_bytes=3_000
    ) as world:
        assert await world.client().put_job(world.request(world.seal(bytes(2_000))))

        with pytest.raises(WorkerUnavailableError, match=r"429.*3000 bytes"):
            await world.client().put_job(world.request(world.seal(bytes(2_000))))


async def test_a_flood_is_either_accepted_or_429_and_all_accepted_finish(tmp_path: Path) -> None:
    async with development_worker(tmp_path, queue=10, slots=2) as world:
        requests = [world.request(world.seal(b"%d" % number)) for number in range(60)]

        async def try_once(request: JobRequest) -> bool:
            try:
                return await world.client().put_job(request)
            except WorkerUnavailableError as error:
                refusals.append(str(error))
                return False

        refusals: list[str] = []
        accepted = await asyncio.gather(*(try_once(request) for request in requests))

        assert 10 <= sum(accepted) < 60
        assert all("429" in words for words in refusals)
        for request, is_accepted in zip(requests, accepted, strict=True):
            if is_accepted:
                job = await world.client().get_job(request.key, wait_seconds=30)
                assert job.state is WorkerJobState.DONE


async def test_the_longest_envelope_is_accepted_and_one_byte_more_is_413(tmp_path: Path) -> None:
    async with development_worker(tmp_path, max_envelope_bytes=10_000) as world:
        request = world.request(world.seal(b"x"), envelope=bytes(10_000))
        assert await world.client().put_job(request)

        for size in (10_001, 30_000):
            other = world.request(world.seal(b"x"), envelope=bytes(size))
            with pytest.raises(WorkerRefusedError, match="413"):
                await world.client().put_job(other)
            with pytest.raises(WorkerRefusedError, match="413"):
                await world.client().put_blob(bytes(size))
            await assert_unknown(world, other.key)


async def test_a_large_job_does_its_work_beside_the_event_loop(world: World) -> None:
    data = bytes(1 << 20)

    job = await world.finish(world.request(world.seal(data)))

    assert await world.output(job) == data


def _body(world: World) -> dict[str, object]:
    body: dict[str, object] = json.loads(dump_job_request(world.request(world.seal(b"hello"))))
    return body


async def test_a_malformed_field_is_named(world: World) -> None:
    key = world.request(world.seal(b"hello")).key
    async with world.http(token=world.tokens[TokenScope.JOBS]) as client:
        for path, change, words in MALFORMED:
            body = _body(world)
            *outer, last = path.split(".")
            place = body
            for name in outer:
                place = place[name]  # type: ignore[assignment]  # objects all the way
            place[last] = change

            answer = await client.put(job_path(key), json=body)

            assert answer.status_code == 422, path
            assert words in answer.json()["error"], path
    await assert_unknown(world, key)


MALFORMED: list[tuple[str, object, str]] = [
    ("head.owner", "AA==", "body.head.owner: 1 bytes, must be 32"),
    ("head.owner", "!", "body.head.owner: must be base64"),
    ("head.owner", 5, "body.head.owner: must be base64"),
    ("head.public_key", None, "body.head.public_key: must be base64"),
    ("head.recipients", [], "body.head.recipients: must not be empty"),
    ("head.recipients", ["AA=="] * 5, "body.head.recipients: must be a list of at most 4"),
    ("head.recipients", ["AA=="], "body.head.recipients: 1 bytes"),
    ("head.created_at", -1, "body.head.created_at: must be a whole number"),
    ("head.created_at", True, "body.head.created_at: must be a whole number"),
    ("head.deadline", 1 << 64, "body.head.deadline: must be a whole number"),
    ("head.deadline", 1.5, "body.head.deadline: must be a whole number"),
    ("head.colour", 1, "body.head: unknown field 'colour'"),
    ("colour", 1, "body: unknown field 'colour'"),
    ("head", [], "body.head: must be an object"),
    ("envelope", 7, "body.envelope: must be base64"),
]


async def test_a_body_that_is_no_request_is_422(world: World) -> None:
    key = world.request(world.seal(b"hello")).key
    bodies = [b"", b"[]", b"nonsense", b"{}", b"\xff", b"[" * 100_000, b'{"head": {}}']

    async with world.http(token=world.tokens[TokenScope.JOBS]) as client:
        answers = [await client.put(job_path(key), content=body) for body in bodies]

    assert {answer.status_code for answer in answers} == {422}
    await assert_unknown(world, key)


HASH = "ab" * 32


PATHS = [
    f"/v1/jobs/0x{HASH}/{HASH}/1/{HASH}",
    f"/v1/jobs/{HASH.upper()}/{HASH}/1/{HASH}",
    f"/v1/jobs/{HASH}/{HASH[:-1]}/1/{HASH}",
    f"/v1/jobs/{HASH}/{HASH}/01/{HASH}",
    f"/v1/jobs/{HASH}/{HASH}/-1/{HASH}",
    f"/v1/jobs/{HASH}/{HASH}/{1 << 128}/{HASH}",
    f"/v1/jobs/{HASH}/{HASH}/x/{HASH}",
    f"/v1/jobs/{HASH}/{HASH}/1/{HASH}g",
    f"/v1/jobs/{HASH}/{HASH}/1/{HASH}?wait=-1",
    f"/v1/jobs/{HASH}/{HASH}/1/{HASH}?wait=nan",
    f"/v1/jobs/{HASH}/{HASH}/1/{HASH}?wait=soon",
    f"/v1/jobs/{HASH}/{HASH}/1/{HASH}?wait=inf",
    f"/v1/blobs/{HASH}00",
]


async def test_a_path_that_names_nothing_is_422(world: World) -> None:
    async with world.http() as client:
        answers = [await client.get(path) for path in PATHS]

    assert {answer.status_code for answer in answers} == {422}
    assert all(answer.json()["error"] for answer in answers)


async def test_the_largest_job_id_is_one(world: World) -> None:
    request = world.request(world.seal(b"hello"))
    request = replace(request, key=replace(request.key, job_id=(1 << 128) - 1))

    assert (await world.finish(request)).state is WorkerJobState.DONE


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PUT", f"/v1/jobs/{HASH}/{HASH}/1/{HASH}"),
        ("DELETE", f"/v1/jobs/{HASH}/{HASH}/1/{HASH}"),
        ("PUT", f"/v1/blobs/{HASH}"),
        ("POST", "/v1/registration"),
        ("POST", "/v1/rotation"),
    ],
)
async def test_writing_needs_the_right_token_over_a_private_connection(
    world: World, method: str, path: str
) -> None:
    needed = TokenScope.REGISTRATION if method == "POST" else TokenScope.JOBS
    other = TokenScope.JOBS if method == "POST" else TokenScope.REGISTRATION

    async def status(token: str | None, **where: str) -> int:
        async with world.http(token=token, **where) as client:
            answer = await client.request(method, path, content=b"{}")
            assert (answer.status_code == 401) == ("www-authenticate" in answer.headers)
            return answer.status_code

    right, wrong = world.tokens[needed], world.tokens[other]
    assert await status(None) == 401
    assert await status("nobody-has-this") == 401
    assert await status(right[:-1]) == 401
    if "blobs" not in path:  # one scope puts payloads, the other evidence
        assert await status(wrong) == 403
    assert await status(right, peer="203.0.113.9") == 403
    assert await status(right, peer="") == 403
    assert await status(right, peer="203.0.113.9", scheme="https") not in (401, 403)
    assert await status(right, peer="::1") not in (401, 403)
    assert await status(right) not in (401, 403)


async def test_a_revoked_token_stops_counting_at_once(world: World) -> None:
    client = world.client()
    await client.put_blob(b"one")

    TokenList(world.settings.folder).revoke("jobs")

    with pytest.raises(WorkerRefusedError, match="401"):
        await client.put_blob(b"two")


async def test_a_damaged_token_list_lets_nobody_in(world: World) -> None:
    (world.settings.folder / "tokens.json").write_text("{")

    with pytest.raises(WorkerRefusedError, match="401"):
        await world.client().put_blob(b"x")


async def test_a_deleted_waiting_job_never_runs(tmp_path: Path) -> None:
    async with development_worker(tmp_path, developer_hold_seconds=600.0) as world:
        running, waiting = (world.request(world.seal(b"x")) for _ in range(2))
        await world.client().put_job(running)
        await world.client().put_job(waiting)

        await world.client().delete_job(waiting.key)

        await assert_unknown(world, waiting.key)
        assert (await world.client().get_job(running.key)).state is WorkerJobState.RUNNING


async def test_a_deleted_running_job_is_stopped_and_its_poll_answered(tmp_path: Path) -> None:
    async with development_worker(tmp_path, developer_hold_seconds=600.0) as world:
        request = world.request(world.seal(b"x"))
        await world.client().put_job(request)
        poll = asyncio.create_task(world.client().get_job(request.key, wait_seconds=60))
        await asyncio.sleep(0)

        await world.client().delete_job(request.key)

        with pytest.raises(WorkerRefusedError, match="404"):
            await poll


async def test_deleting_a_finished_job_drops_the_bytes_and_keeps_the_outcome(world: World) -> None:
    request = world.request(world.seal(b"hello"))
    assert request.envelope is not None
    await world.client().put_blob(request.envelope)
    job = await world.finish(request)
    completion = verified(job, request.key)

    await world.client().delete_job(request.key)

    for digest in (completion.result_hash, request.key.payload_hash):
        with pytest.raises(BlobNotFoundError):
            await world.client().get_blob(digest, max_bytes=1 << 20)
    again = await world.client().get_job(request.key)
    assert verified(again, request.key).result_hash == completion.result_hash
    assert await world.client().put_job(request) is False


async def test_a_job_deleted_as_it_finishes_leaves_no_bytes(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished, may_store, add = threading.Event(), threading.Event(), OutcomeStore.add
    envelopes: list[bytes] = []

    def add_later(store: OutcomeStore, outcome: StoredOutcome, envelope: bytes) -> StoredOutcome:
        finished.set()
        may_store.wait(10)
        envelopes.append(envelope)
        return add(store, outcome, envelope)

    monkeypatch.setattr(OutcomeStore, "add", add_later)
    request = world.request(world.seal(b"hello"))
    await world.client().put_job(request)
    await until(finished.is_set)

    await world.client().delete_job(request.key)
    with pytest.raises(WorkerUnavailableError, match="the job is being stopped"):
        await world.client().put_job(request)
    may_store.set()
    job = await world.client().get_job(request.key, wait_seconds=10)

    assert verified(job, request.key).result_hash == blake2_256(envelopes[0])
    with pytest.raises(BlobNotFoundError):
        await world.client().get_blob(blake2_256(envelopes[0]), max_bytes=1 << 20)


async def test_deleting_an_unknown_job_is_done_already(world: World) -> None:
    await world.client().delete_job(world.request(world.seal(b"x")).key)


async def test_a_long_poll_ends_with_its_time(tmp_path: Path) -> None:
    async with development_worker(tmp_path, developer_hold_seconds=600.0) as world:
        request = world.request(world.seal(b"x"))
        await world.client().put_job(request)

        job = await world.client().get_job(request.key, wait_seconds=0.05)

        assert job == WorkerJob(state=WorkerJobState.RUNNING)


async def test_a_stranger_is_not_waited_with(tmp_path: Path) -> None:
    async with development_worker(tmp_path, developer_hold_seconds=600.0) as world:
        request = world.request(world.seal(b"x"))
        await world.client().put_job(request)

        async with asyncio.timeout(10):
            job = await world.client(None).get_job(request.key, wait_seconds=50)

        assert job == WorkerJob(state=WorkerJobState.RUNNING)


async def test_registration_is_signed_and_remembered(world: World) -> None:
    contract, measurement = b"d" * 32, b"n" * 32
    client = world.client(TokenScope.REGISTRATION)
    identity = await client.identity()

    signature = await client.registration(
        genesis=GENESIS,
        contract=contract,
        measurement=measurement,
        evidence_hash=b"e" * 32,
        valid_until=77,
    )

    registration = WorkerRegistration(
        signing_key=identity.signing_key,
        encryption_key=identity.encryption_key,
        measurement=measurement,
        evidence_hash=b"e" * 32,
        endpoint=b"whatever the registrar likes",
        valid_until=77,
    )
    digest = registration_digest(registration, genesis_hash=GENESIS, contract=contract)
    verify_signature(identity.signing_key, signature, digest)


async def test_a_malformed_registration_is_422(world: World) -> None:
    async with world.http(token=world.tokens[TokenScope.REGISTRATION]) as client:
        answer = await client.post("/v1/registration", json={"genesis": "AA=="})
        large = await client.post("/v1/registration", content=bytes(20_000))

    assert answer.status_code == 422
    assert "body.genesis" in answer.json()["error"]
    assert large.status_code == 413


async def test_identity_says_what_the_worker_is_and_is_not(tmp_path: Path) -> None:
    async with development_worker(tmp_path, developer_hold_seconds=1.5, version="9.8") as world:
        identity = await world.client(None).identity()

    assert identity.tee is None
    assert identity.development == ("believes requests, has no chain", "holds each job for 1.5 s")
    assert identity.tasks == ("echo",)
    assert identity.version == "9.8"
    assert (identity.slots, identity.queue) == (1, 256)
    assert identity.encryption_key == world.encryption_key


async def test_evidence_is_not_there_and_says_so(world: World) -> None:
    async with world.http() as client:
        answer = await client.post("/v1/evidence", json={})

    assert answer.status_code == 501
    assert "development worker, no TEE" in answer.json()["error"]


async def test_health_and_metrics(world: World) -> None:
    await world.finish(world.request(world.seal(b"x")))
    with pytest.raises(WorkerRefusedError):
        await world.client().put_job(replace(world.request(world.seal(b"x")), envelope=None))

    async with world.http() as client:
        health = await client.get("/healthz")
        metrics = (await client.get("/metrics")).text

    assert health.json() == {"status": "ok"}
    assert "phala_jobs_worker_accepted_total 1.0" in metrics
    assert 'phala_jobs_worker_finished_total{outcome="completed"} 1.0' in metrics
    assert 'phala_jobs_worker_requests_refused_total{status="422"} 1.0' in metrics
    assert 'phala_jobs_build_info{role="worker",version="0"} 1.0' in metrics


async def test_strangers_are_limited_and_token_holders_are_not(tmp_path: Path) -> None:
    async with development_worker(tmp_path, request_burst=5, requests_per_second=0.001) as world:
        async with world.http(peer="203.0.113.5") as stranger:
            answers = [await stranger.get("/v1/identity") for _ in range(7)]
        async with world.http(peer="203.0.113.6") as other:
            assert (await other.get("/v1/identity")).status_code == 200
        async with world.http(token=world.tokens[TokenScope.JOBS]) as known:
            statuses = {(await known.get("/healthz")).status_code for _ in range(20)}

    assert [answer.status_code for answer in answers] == [200] * 5 + [429] * 2
    assert int(answers[-1].headers["retry-after"]) > 0
    assert statuses == {200}


async def test_results_are_for_everybody_because_they_are_sealed(world: World) -> None:
    job = await world.finish(world.request(world.seal(b"hello")))
    assert job.completion is not None
    path = f"/v1/blobs/{job.completion.result_hash.hex()}"

    async with world.http() as client:
        found = await client.get(path)
        head = await client.head(path)
        missing = await client.head(f"/v1/blobs/{HASH}")

    assert blake2_256(found.content) == job.completion.result_hash
    assert found.headers["content-type"] == "application/octet-stream"
    assert int(head.headers["content-length"]) == len(found.content) == job.result_length
    assert missing.status_code == 404


async def test_a_blob_must_hash_to_its_name(world: World) -> None:
    async with world.http(token=world.tokens[TokenScope.JOBS]) as client:
        answer = await client.put(f"/v1/blobs/{HASH}", content=b"other")
        missing = await client.get(f"/v1/blobs/{HASH}")

    assert answer.status_code == 422
    assert missing.status_code == 404


async def test_blobs_beyond_the_room_for_them_are_503(tmp_path: Path) -> None:
    async with development_worker(tmp_path, uploads_bytes=1_000) as world:
        client = world.client()
        await client.put_blob(bytes(600))
        await client.put_blob(bytes(600))

        with pytest.raises(WorkerUnavailableError, match=r"503"):
            await client.put_blob(bytes(401))

        await client.put_blob(bytes(400))


async def test_no_answer_and_no_log_shows_a_secret(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    job = await world.finish(world.request(world.seal(b"a very secret plaintext")))
    (keys,) = json.loads((world.settings.folder / "worker-keys.json").read_text())["keys"]
    secrets = [bytes.fromhex(keys[name]) for name in ("signing_secret", "encryption_secret")]

    async with world.http() as client:
        answers = [(await client.get(path)).content for path in ("/v1/identity", "/metrics")]
    assert job.completion is not None
    shown = b"".join(answers) + caplog.text.encode()
    database = b"".join(
        path.read_bytes() for path in world.settings.folder.iterdir() if "worker.db" in path.name
    )

    for secret in secrets:
        for form in (secret, secret.hex().encode(), base64.b64encode(secret)):
            assert form not in shown + database
    assert b"a very secret plaintext" not in shown + database
