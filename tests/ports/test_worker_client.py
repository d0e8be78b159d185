"""One suite for every `WorkerClient`, and all that a worker can do to the one over HTTP."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from pathlib import Path

import dcap_qvl
import httpx
import pytest

from orchestrator.crypto import EcdsaSigner, OwnerSecret, seal_job
from orchestrator.crypto.keys import verify_signature
from orchestrator.encoding import (
    blake2_256,
    encode_task_input,
    registration_digest,
    report_data,
)
from orchestrator.errors import (
    BlobNotFoundError,
    BlobTooLargeError,
    ConfigError,
    DigestMismatchError,
    WorkerError,
    WorkerProtocolError,
    WorkerRefusedError,
    WorkerUnavailableError,
)
from orchestrator.evidence import MAX_BUNDLE_BYTES, load_bundle
from orchestrator.models import Outcome, PublicKey, Signature, TaskInput, WorkerRegistration
from orchestrator.quotes.simulated import SimulatedQuoteSource
from orchestrator.simulator import Simulator, create_simulator
from orchestrator.testing import FixedClock
from orchestrator.testing.faulty_http import FaultyHttpServer, HttpFault
from orchestrator.testing.workers import ScriptedWorker
from orchestrator.worker import TokenList, TokenScope, WorkerServer, WorkerSettings
from orchestrator.workers import (
    JobKey,
    JobRequest,
    RequestHead,
    WorkerClient,
    WorkerJob,
    WorkerJobState,
)
from orchestrator.workers.http import HttpWorkerClient
from orchestrator.workers.wire import load_job

GENESIS, CONTRACT, OWNER, MEASUREMENT = b"g" * 32, b"c" * 32, b"o" * 32, b"m" * 32
KEY = JobKey(genesis=GENESIS, contract=CONTRACT, job_id=7, payload_hash=b"p" * 32)
REQUEST = JobRequest(
    key=KEY,
    head=RequestHead(
        owner=OWNER, public_key=b"k" * 32, recipients=(b"r" * 32,), created_at=1, deadline=2
    ),
    envelope=b"sealed",
)


@dataclass
class Subject:
    """A client for jobs and one for registering, and the clock of the worker behind them."""

    client: WorkerClient
    registrar: WorkerClient
    clock: FixedClock
    simulator: Simulator

    async def register(self, signing_key: PublicKey | None = None) -> Signature:
        return await self.registrar.registration(
            genesis=GENESIS,
            contract=CONTRACT,
            measurement=MEASUREMENT,
            evidence_hash=bytes(32),
            valid_until=1,
            signing_key=signing_key,
        )

    async def request(self, job_id: int = 1) -> JobRequest:
        key = (await self.client.identity()).encryption_key
        sealed = seal_job(
            encode_task_input(TaskInput(task="echo", input=b"hello")),
            genesis=GENESIS,
            contract=CONTRACT,
            owner=OWNER,
            secret=OwnerSecret.generate(),
            recipients=[key],
        )
        return JobRequest(
            key=JobKey(
                genesis=GENESIS,
                contract=CONTRACT,
                job_id=job_id,
                payload_hash=blake2_256(sealed.envelope),
            ),
            head=RequestHead(
                owner=OWNER,
                public_key=sealed.header.reply_key,
                recipients=(key,),
                created_at=self.clock(),
                deadline=self.clock() + 600_000,
            ),
            envelope=sealed.envelope,
        )


@pytest.fixture(params=["scripted", "http"])
async def subject(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Subject]:
    clock = FixedClock()
    simulator = create_simulator(tmp_path / "simulator")
    quotes = SimulatedQuoteSource(tmp_path / "simulator", clock=clock)
    if request.param == "scripted":
        scripted = ScriptedWorker(
            signer=EcdsaSigner.generate(), measurement=MEASUREMENT, clock=clock, quotes=quotes
        )
        yield Subject(scripted, scripted, clock, simulator)
        await scripted.close()
        return
    folder = tmp_path / "worker"
    settings = WorkerSettings(folder=folder, tasks=("echo",), unsafe_without_chain=True)
    tokens = TokenList(folder)
    jobs, registrar = (tokens.add(scope.value, scope, now=1) for scope in TokenScope)
    server = WorkerServer(settings, None, clock=clock, quotes=quotes)
    stop, urls = asyncio.Event(), asyncio.Queue[str]()
    serving = asyncio.create_task(server.serve(stop=stop, ready=urls.put_nowait))
    url = await urls.get()
    client = HttpWorkerClient(url, jobs)
    registering = HttpWorkerClient(url, registrar)
    made = Subject(client, registering, clock, simulator)
    await made.register()
    yield made
    await registering.close()
    await client.close()
    stop.set()
    await serving


async def test_a_job_goes_through_and_its_result_is_there(subject: Subject) -> None:
    request = await subject.request()

    assert await subject.client.put_job(request) is True
    job = await subject.client.get_job(request.key, wait_seconds=20)

    assert job.state is WorkerJobState.DONE
    assert job.completion is not None
    assert job.completion.job_id == 1
    assert job.completion.attestation_proof.outcome is Outcome.COMPLETED
    result = await subject.client.get_blob(job.completion.result_hash, max_bytes=1 << 20)
    assert blake2_256(result) == job.completion.result_hash
    assert len(result) == job.result_length


async def test_the_same_job_again_is_not_new(subject: Subject) -> None:
    request = await subject.request()

    assert await subject.client.put_job(request) is True
    assert await subject.client.put_job(request) is False


async def test_a_final_answer_is_signed_anew_each_time(subject: Subject) -> None:
    request = await subject.request()
    await subject.client.put_job(request)
    first = (await subject.client.get_job(request.key, wait_seconds=20)).completion

    subject.clock.advance(5_000)
    second = (await subject.client.get_job(request.key)).completion

    assert first is not None
    assert second is not None
    assert second.result_hash == first.result_hash
    later = second.attestation_proof.issued_at - first.attestation_proof.issued_at
    assert later == 5_000


async def test_an_unknown_job_is_404(subject: Subject) -> None:
    with pytest.raises(WorkerRefusedError) as caught:
        await subject.client.get_job(KEY)

    assert caught.value.status == 404


async def test_a_deleted_job_is_deleted(subject: Subject) -> None:
    await subject.client.delete_job((await subject.request()).key)


async def test_a_blob_that_is_not_there_is_not_found(subject: Subject) -> None:
    with pytest.raises(BlobNotFoundError):
        await subject.client.get_blob(b"n" * 32, max_bytes=10)


async def test_a_result_above_the_limit_is_too_large(subject: Subject) -> None:
    request = await subject.request()
    await subject.client.put_job(request)
    job = await subject.client.get_job(request.key, wait_seconds=20)
    assert job.completion is not None
    assert job.result_length is not None

    with pytest.raises(BlobTooLargeError):
        await subject.client.get_blob(job.completion.result_hash, max_bytes=job.result_length - 1)


@pytest.mark.parametrize("is_old", [False, True])
async def test_evidence_is_bound_to_the_newest_keys_or_those_named(
    subject: Subject, *, is_old: bool
) -> None:
    old = await subject.client.identity()
    new = await subject.registrar.rotate(genesis=GENESIS, contract=CONTRACT)
    keys = old if is_old else new

    data = await subject.client.evidence(
        genesis=GENESIS,
        contract=CONTRACT,
        challenge=b"h" * 32,
        signing_key=old.signing_key if is_old else None,
    )

    bundle = load_bundle(data)
    assert (bundle.signing_key, bundle.encryption_key) == (keys.signing_key, keys.encryption_key)
    assert (bundle.genesis_hash, bundle.contract) == (GENESIS, CONTRACT)
    assert bundle.challenge == b"h" * 32
    assert bundle.event_log == subject.simulator.guest.event_log
    assert bundle.compose == subject.simulator.guest.compose
    quoted = dcap_qvl.parse_quote(bundle.quote).report.report_data
    assert quoted == report_data(bundle.binding())
    assert keys.tee == "simulated TDX: proves no TEE"


async def test_evidence_is_kept_under_its_hash(subject: Subject) -> None:
    data = await subject.client.evidence(genesis=GENESIS, contract=CONTRACT, challenge=b"h" * 32)

    digest = await subject.registrar.put_evidence(data)

    assert digest == blake2_256(data)
    assert await subject.client.get_blob(digest, max_bytes=1 << 20) == data


async def test_possession_is_of_the_newest_key_or_of_the_one_named(subject: Subject) -> None:
    old = await subject.client.identity()
    new = await subject.registrar.rotate(genesis=GENESIS, contract=CONTRACT)

    for keys, named in ((new, None), (old, old.signing_key), (new, new.signing_key)):
        registration = WorkerRegistration(
            signing_key=keys.signing_key,
            encryption_key=keys.encryption_key,
            measurement=MEASUREMENT,
            evidence_hash=bytes(32),
            endpoint=b"",
            valid_until=1,
        )
        digest = registration_digest(registration, genesis_hash=GENESIS, contract=CONTRACT)
        verify_signature(keys.signing_key, await subject.register(named), digest)


async def test_keys_of_somebody_else_are_422(subject: Subject) -> None:
    other = EcdsaSigner.generate().public_key

    with pytest.raises(WorkerRefusedError) as registration:
        await subject.register(other)
    with pytest.raises(WorkerRefusedError) as evidence:
        await subject.client.evidence(
            genesis=GENESIS, contract=CONTRACT, challenge=b"h" * 32, signing_key=other
        )

    assert (registration.value.status, evidence.value.status) == (422, 422)


async def test_after_a_rotation_jobs_for_the_old_keys_are_signed_by_them(subject: Subject) -> None:
    old = await subject.client.identity()
    request = await subject.request(1)

    new = await subject.registrar.rotate(genesis=GENESIS, contract=CONTRACT)
    await subject.register()
    assert await subject.client.put_job(request) is True
    job = await subject.client.get_job(request.key, wait_seconds=20)
    newer = await subject.request(2)
    await subject.client.put_job(newer)
    newer_job = await subject.client.get_job(newer.key, wait_seconds=20)

    assert (await subject.client.identity()).signing_key == new.signing_key
    assert new.signing_key != old.signing_key
    assert new.retired_keys == (old.signing_key,)
    assert [new.serves(key) for key in (old.signing_key, new.signing_key)] == [True, True]
    assert not old.serves(new.signing_key)
    assert job.completion is not None
    assert job.completion.tee_worker_pubkey == old.signing_key
    assert job.state is WorkerJobState.DONE
    assert newer_job.completion is not None
    assert newer_job.completion.tee_worker_pubkey == new.signing_key


# Over HTTP alone: what a worker can answer.

Call = Callable[[HttpWorkerClient], Awaitable[object]]
CALLS: dict[str, Call] = {
    "identity": lambda client: client.identity(),
    "registration": lambda client: client.registration(
        genesis=GENESIS,
        contract=CONTRACT,
        measurement=MEASUREMENT,
        evidence_hash=bytes(32),
        valid_until=1,
    ),
    "rotate": lambda client: client.rotate(genesis=GENESIS, contract=CONTRACT),
    "get_job": lambda client: client.get_job(KEY),
}
EXPECTED: dict[HttpFault, type[WorkerError]] = {
    HttpFault.GARBAGE: WorkerProtocolError,
    HttpFault.NOTHING: WorkerUnavailableError,
    HttpFault.SILENT: WorkerUnavailableError,
    HttpFault.SLOW: WorkerUnavailableError,
    HttpFault.ERROR: WorkerUnavailableError,
    HttpFault.REDIRECT: WorkerProtocolError,
    HttpFault.ENDLESS: WorkerProtocolError,
    HttpFault.HUGE: WorkerProtocolError,
    HttpFault.NOT_HTTP: WorkerProtocolError,
}


@pytest.mark.parametrize("fault", list(HttpFault))
async def test_a_faulty_server_is_a_typed_error_in_bounded_time(fault: HttpFault) -> None:
    server = FaultyHttpServer(fault)
    async with server.serve() as url, asyncio.timeout(10):
        for call in CALLS.values():
            client = HttpWorkerClient(url, "token", timeout_seconds=0.3)
            with pytest.raises(EXPECTED[fault]):
                await call(client)
            await client.close()

    # A request that may be repeated is, once, when its connection ended without an answer.
    assert len(CALLS) <= server.requests <= 2 * len(CALLS)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (HttpFault.GARBAGE, DigestMismatchError),
        (HttpFault.HUGE, BlobTooLargeError),
        (HttpFault.ENDLESS, BlobTooLargeError),
        (HttpFault.SLOW, WorkerUnavailableError),
        (HttpFault.ERROR, WorkerUnavailableError),
    ],
)
async def test_a_blob_of_a_faulty_server_is_a_typed_error(
    fault: HttpFault, expected: type[Exception]
) -> None:
    async with FaultyHttpServer(fault).serve() as url, asyncio.timeout(10):
        client = HttpWorkerClient(url, blob_seconds=0.3)
        with pytest.raises(expected):
            await client.get_blob(b"n" * 32, max_bytes=100_000)
        await client.close()


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        (HttpFault.HUGE, WorkerProtocolError),
        (HttpFault.ENDLESS, WorkerProtocolError),
        (HttpFault.SLOW, WorkerUnavailableError),
        (HttpFault.SILENT, WorkerUnavailableError),
        (HttpFault.ERROR, WorkerUnavailableError),
    ],
)
async def test_evidence_of_a_faulty_server_is_a_typed_error(
    fault: HttpFault, expected: type[Exception]
) -> None:
    async with FaultyHttpServer(fault).serve() as url, asyncio.timeout(10):
        is_slow = fault in (HttpFault.SLOW, HttpFault.SILENT)
        client = HttpWorkerClient(url, evidence_seconds=0.3 if is_slow else 10)
        with pytest.raises(expected):
            await client.evidence(genesis=GENESIS, contract=CONTRACT, challenge=bytes(32))
        await client.close()


@pytest.mark.parametrize("more", [0, 1])
async def test_evidence_is_no_longer_than_a_bundle(more: int) -> None:
    client = answering(200, bytes(MAX_BUNDLE_BYTES + more))
    asked = client.evidence(genesis=GENESIS, contract=CONTRACT, challenge=bytes(32))

    if more:
        with pytest.raises(WorkerProtocolError, match="longer than 1048576 bytes"):
            await asked
    else:
        assert await asked == bytes(MAX_BUNDLE_BYTES)
    await client.close()


async def test_a_worker_that_is_not_there_is_unavailable() -> None:
    client = HttpWorkerClient("http://127.0.0.1:9")

    with pytest.raises(WorkerUnavailableError):
        await client.identity()
    await client.close()


@pytest.mark.parametrize("error", [OverflowError("port"), UnicodeError("label"), ValueError("x")])
async def test_what_a_library_says_in_its_own_words_is_unavailable(error: Exception) -> None:
    def handle(_: httpx.Request) -> httpx.Response:
        raise error

    client = HttpWorkerClient("http://127.0.0.1:9", transport=httpx.MockTransport(handle))

    with pytest.raises(WorkerUnavailableError, match=str(error)):
        await client.delete_job(KEY)
    await client.close()


async def test_a_redirect_to_no_host_is_unavailable() -> None:
    client = answering(302, headers={"location": "http://xn--a/"})

    with pytest.raises(WorkerUnavailableError):
        await client.identity()
    await client.close()


Answer = tuple[int, dict[str, str], bytes]


def answering(
    status: int, body: object = b"", headers: dict[str, str] | None = None
) -> HttpWorkerClient:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()

    def handle(_: httpx.Request) -> httpx.Response:
        return httpx.Response(status, stream=httpx.ByteStream(content), headers=headers)

    return HttpWorkerClient("http://127.0.0.1:9", transport=httpx.MockTransport(handle))


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7.0), ("999999", 3_600.0), ("-1", None), ("soon", None), ("1e9", None), (None, None)],
)
async def test_a_full_worker_says_when_to_come_back(
    header: str | None, seconds: float | None
) -> None:
    client = answering(429, {"error": "full"}, {} if header is None else {"retry-after": header})

    with pytest.raises(WorkerUnavailableError, match=r"429.*full") as caught:
        await client.put_job(REQUEST)

    assert caught.value.retry_after_seconds == seconds
    await client.close()


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 413, 422])
async def test_a_refusal_has_its_status_and_printable_words(status: int) -> None:
    client = answering(status, b"\x1b[2J because \x00" + b"x" * 10_000)

    with pytest.raises(WorkerRefusedError, match="because") as caught:
        await client.put_job(REQUEST)

    assert caught.value.status == status
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400
    await client.close()


@pytest.mark.parametrize("status", [201, 204, 299])
async def test_another_success_than_the_two_is_not_of_the_protocol(status: int) -> None:
    client = answering(status)

    with pytest.raises(WorkerProtocolError, match=f"answered {status} to a job"):
        await client.put_job(REQUEST)
    await client.close()


async def test_compression_is_not_asked_for_and_not_undone() -> None:
    """A few bytes of gzip can hold 10 GiB."""
    client = answering(200, b"\x1f\x8b" + bytes(20), {"content-encoding": "gzip"})

    with pytest.raises(WorkerProtocolError, match="not JSON"):
        await client.get_job(KEY)
    await client.close()


def final_answer() -> dict[str, object]:
    """Return an answer that is of the protocol."""
    b64 = {32: "AAAA" * 10 + "AAA=", 33: "AAAA" * 11, 65: "AAAA" * 21 + "AAA="}
    return {
        "state": "done",
        "statement": {
            "genesis": "Z2dn" * 10 + "Z2c=",
            "contract": "Y2Nj" * 10 + "Y2M=",
            "job_id": "7",
            "payload_hash": "cHBw" * 10 + "cHA=",
            "outcome": "completed",
            "result_hash": b64[32],
            "units": 1,
            "measurement": b64[32],
            "started_at": 1,
            "finished_at": 2,
            "issued_at": 3,
        },
        "signing_key": {"scheme": "ecdsa", "key": b64[33]},
        "signature": {"scheme": "ecdsa", "data": b64[65]},
        "result_length": 10,
        "something_newer": True,
    }


def test_an_answer_of_the_protocol_is_read() -> None:
    job = load_job(json.dumps(final_answer()).encode(), KEY)

    assert job.state is WorkerJobState.DONE
    assert job.result_length == 10
    assert job.completion is not None
    assert job.completion.attestation_proof.issued_at == 3


@pytest.mark.parametrize(
    ("path", "change", "words"),
    [
        ("state", "finished", "answer.state: unknown"),
        ("state", 5, "answer.state: must be text"),
        ("state", "failed", "answer.statement.outcome: not that of the state"),
        ("statement", None, "answer.statement: must be an object"),
        ("statement.genesis", "AAAA" * 10 + "AAA=", "answer.statement: about another job"),
        ("statement.contract", "AAAA" * 10 + "AAA=", "answer.statement: about another job"),
        ("statement.payload_hash", "AAAA" * 10 + "AAA=", "answer.statement: about another job"),
        ("statement.job_id", "8", "answer.statement: about another job"),
        ("statement.job_id", 7, "answer.statement.job_id: must be text"),
        ("statement.job_id", "07", "answer.statement.job_id: must be decimal"),
        ("statement.job_id", "\u0667", "answer.statement.job_id: must be decimal"),
        ("statement.job_id", "9" * 60, "answer.statement.job_id: must be decimal"),
        ("statement.outcome", "maybe", "answer.statement.outcome: not that of the state"),
        ("statement.result_hash", "AAAA", "answer.statement.result_hash: 3 bytes, must be 32"),
        ("statement.units", -1, "answer.statement.units: must be a whole number"),
        ("statement.started_at", 1.0, "answer.statement.started_at: must be a whole number"),
        ("statement.finished_at", "2", "answer.statement.finished_at: must be a whole number"),
        ("statement.issued_at", 1 << 64, "answer.statement.issued_at: must be a whole number"),
        ("signing_key.scheme", "rsa", "scheme: 'rsa', must be ecdsa or sr25519"),
        ("signing_key.key", "AAAA", "answer.signing_key.key: 3 bytes, must be 33"),
        ("signature", {}, "answer.signature.scheme: missing"),
        ("signature.data", "AAAA", "answer.signature.data: 3 bytes, must be 65"),
        ("signature.scheme", "sr25519", "answer.signature.data: 65 bytes, must be 64"),
        ("result_length", None, "answer.result_length: must be a whole number"),
        ("result_length", True, "answer.result_length: must be a whole number"),
    ],
)
async def test_an_answer_that_is_not_of_the_protocol_names_the_field(
    path: str, change: object, words: str
) -> None:
    answer = final_answer()
    *outer, last = path.split(".")
    place = answer
    for name in outer:
        place = place[name]  # type: ignore[assignment]  # objects all the way
    place[last] = change
    client = answering(200, answer)

    with pytest.raises(WorkerProtocolError) as caught:
        await client.get_job(KEY)

    assert words in str(caught.value)
    await client.close()


@pytest.mark.parametrize("state", ["queued", "running"])
async def test_an_answer_that_is_not_final_has_a_state_alone(state: str) -> None:
    client = answering(200, {"state": state, "statement": "ignored"})

    assert await client.get_job(KEY) == WorkerJob(state=WorkerJobState(state))
    await client.close()


IDENTITY: dict[str, object] = {
    "signing_key": {"scheme": "sr25519", "key": "AAAA" * 10 + "AAA="},
    "encryption_key": "AAAA" * 10 + "AAA=",
    "version": "1",
    "tasks": ["echo"],
    "capacity": {"slots": 1, "queue": 2},
    "load": {"running": 0, "waiting": 0},
    "tee": "tdx",
    "development": [],
}


async def test_an_identity_of_the_protocol_is_read() -> None:
    client = answering(200, IDENTITY)

    identity = await client.identity()

    assert (identity.tasks, identity.slots, identity.queue) == (("echo",), 1, 2)
    assert identity.tee == "tdx"
    assert identity.retired_keys == ()  # one of before rotation does not name them
    await client.close()


@pytest.mark.parametrize(
    "change",
    [
        {"tasks": "echo"},
        {"tasks": [1]},
        {"tasks": ["x"] * 1_001},
        {"version": "\x1b[2J"},
        {"version": "x" * 201},
        {"tee": 5},
        {"capacity": {"slots": 1 << 32, "queue": 2}},
        {"encryption_key": "AA=="},
        {"signing_key": {"scheme": "ecdsa", "key": "AAAA" * 10 + "AAA="}},
        {"retired_keys": None},
        {"retired_keys": ["key"]},
        {"retired_keys": [{"scheme": "ecdsa", "key": "AAAA" * 10 + "AAA="}]},
        {"retired_keys": [{"scheme": "sr25519", "key": "AAAA" * 10 + "AAA="}] * 17},
    ],
)
async def test_an_identity_that_is_none_is_not_of_the_protocol(change: dict[str, object]) -> None:
    client = answering(200, {**IDENTITY, **change})

    with pytest.raises(WorkerProtocolError):
        await client.identity()
    await client.close()


@pytest.mark.parametrize(
    "url",
    [
        "",
        "worker",
        "ftp://worker",
        "http://",
        "http://host:port",
        "http://user:password@127.0.0.1",
        "http://127.0.0.1/?a=b",
        "http://127.0.0.1/#a",
        "http://127.0.0.1:0",
        "http://127.0.0.1:99999",
        "http://a..b",
        "http://" + "a" * 64 + ".example",
        "http://xn--a",
    ],
)
def test_a_url_that_is_none_is_a_wrong_setting(url: str) -> None:
    with pytest.raises(ConfigError, match="worker URL"):
        HttpWorkerClient(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:65535",
        "http://127.0.0.1:1/prefix",
        "http://[::ffff:1.2.3.4]:1",
        "https://" + "a" * 63 + ".example.",
        "https://b\u00fccher.example",
    ],
)
async def test_a_url_at_the_limits_is_one(url: str) -> None:
    await HttpWorkerClient(url).close()


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "[::1]", "localhost"])
async def test_a_token_may_go_to_this_machine_in_the_clear(host: str) -> None:
    await HttpWorkerClient(f"http://{host}:9", "token").close()


@pytest.mark.parametrize("host", ["10.0.0.1", "worker.example", "localhost.example", "[::2]"])
async def test_a_token_goes_elsewhere_over_https_alone(host: str) -> None:
    with pytest.raises(ConfigError, match="a token is sent over https alone"):
        HttpWorkerClient(f"http://{host}", "token")
    await HttpWorkerClient(f"https://{host}", "token").close()
    await HttpWorkerClient(f"http://{host}").close()


@pytest.mark.parametrize("token", ["", "a b", "a\r\nx: y", "ä"])
def test_a_token_that_would_break_the_header_is_refused(token: str) -> None:
    with pytest.raises(ConfigError, match="token: must be printable") as caught:
        HttpWorkerClient("https://worker.example", token)

    assert not token or token not in str(caught.value)


async def test_the_token_is_sent_and_shown_nowhere() -> None:
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["authorization"])
        return httpx.Response(500, stream=httpx.ByteStream(b""))

    transport = httpx.MockTransport(handle)
    client = HttpWorkerClient("https://worker.example/", "very-secret", transport=transport)

    with pytest.raises(WorkerUnavailableError) as caught:
        await client.put_job(replace(REQUEST, envelope=None))

    assert seen == ["Bearer very-secret"]
    assert "very-secret" not in f"{caught.value!r} {client!r}"
    await client.close()


TOKEN = "very-secret"
ECHOES = (
    f"debug page: Authorization: Bearer {TOKEN} x",
    f"{TOKEN[:4]}: {TOKEN}",
    "x" * 295 + TOKEN,  # cut in the middle
    'authorization: "bearer  of-somebody-else" ' + TOKEN,
)


@pytest.mark.parametrize("echo", ECHOES)
@pytest.mark.parametrize("status", [200, 400, 404, 429, 500])
async def test_a_token_that_an_answer_echoes_is_in_no_words(status: int, echo: str) -> None:
    """Debug pages and proxies show what they were sent; words go to logs and reports."""
    transport = httpx.MockTransport(lambda _: httpx.Response(status, stream=_bytes(echo.encode())))
    client = HttpWorkerClient("https://worker.example", TOKEN, transport=transport)

    with pytest.raises(WorkerError) as caught:
        await client.identity()

    words = f"{caught.value} {caught.value!r}"
    assert not any(part in words for part in (TOKEN, TOKEN[:5], "of-somebody-else"))
    await client.close()


async def test_words_without_a_token_are_shown_as_they_are() -> None:
    words = "a token of this worker is needed"
    transport = httpx.MockTransport(lambda _: httpx.Response(401, stream=_bytes(words.encode())))
    for token in (None, TOKEN):
        client = HttpWorkerClient("https://worker.example", token, transport=transport)

        with pytest.raises(WorkerRefusedError, match=words):
            await client.identity()

        await client.close()


@pytest.mark.parametrize("ask", ["identity", "evidence", "registration"])
async def test_an_answer_that_has_the_token_in_it_is_none(ask: str) -> None:
    answer = json.dumps({**IDENTITY, "tee": f"Bearer {TOKEN}"}).encode()
    transport = httpx.MockTransport(lambda _: httpx.Response(200, stream=_bytes(answer)))
    client = HttpWorkerClient("https://worker.example", TOKEN, transport=transport)
    asking: dict[str, Call] = {
        **CALLS,
        "evidence": lambda client: client.evidence(
            genesis=GENESIS, contract=CONTRACT, challenge=bytes(32)
        ),
    }

    with pytest.raises(WorkerProtocolError, match="has the token in it") as caught:
        await asking[ask](client)

    assert TOKEN not in f"{caught.value!r}"
    await client.close()


async def test_the_token_is_in_no_words_about_a_broken_answer() -> None:
    def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError(f"illegal header: {request.headers['authorization']}")

    client = HttpWorkerClient(
        "https://worker.example", TOKEN, transport=httpx.MockTransport(handle)
    )

    with pytest.raises(WorkerProtocolError, match="illegal header") as caught:
        await client.identity()

    assert TOKEN not in f"{caught.value!r}{caught.value.__cause__!r}"
    await client.close()


def _bytes(data: bytes) -> httpx.ByteStream:
    return httpx.ByteStream(data)
