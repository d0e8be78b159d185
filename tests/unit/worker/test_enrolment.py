"""What a worker does to get on the trusted list: evidence, possession, new keys."""

import asyncio
import errno
import json
import logging
from base64 import b64encode
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from starlette.types import Message, Scope

from orchestrator.crypto.keys import verify_signature
from orchestrator.encoding import blake2_256, registration_digest, report_data
from orchestrator.errors import (
    QuoteUnavailableError,
    WorkerRefusedError,
    WorkerUnavailableError,
)
from orchestrator.evidence import EvidenceBundle, dump_bundle, load_bundle
from orchestrator.models import PublicKey, WorkerId, WorkerRegistration
from orchestrator.quotes import PlatformEvidence
from orchestrator.testing import LocalAccount, register_test_worker
from orchestrator.worker import TokenScope
from orchestrator.worker.identity import MAX_PAIRS, WorkerKeys, load_or_make_keys
from orchestrator.worker.outcomes import EVIDENCE_PER_KEY, WorkerBlobs
from orchestrator.worker.running import AcceptedJob
from orchestrator.workers import JobRequest, WorkerJobState
from orchestrator.workers.http import HttpWorkerClient
from tests.unit.worker.world import (
    CONTRACT,
    GENESIS,
    MEASUREMENT,
    ChainWorld,
    World,
    chain_worker,
    development_worker,
    until,
)

CHALLENGE = b"h" * 32
DAY = 86_400_000


class Quotes:
    """A platform whose quotes are held while `hold` is clear, or fail with `error`."""

    name = "scripted: proves no TEE"

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.most_at_once = 0
        self.error: Exception | None = None
        self.compose = b"compose"
        self.is_closed = False
        self.hold = asyncio.Event()
        self.hold.set()
        self._at_once = 0

    async def quote(self, data: bytes) -> PlatformEvidence:
        self.asked.append(data)
        self._at_once += 1
        self.most_at_once = max(self.most_at_once, self._at_once)
        try:
            await self.hold.wait()
        finally:
            self._at_once -= 1
        if self.error is not None:
            raise self.error
        return PlatformEvidence(quote=b"quote" + data, event_log=b"log", compose=self.compose)

    async def close(self) -> None:
        self.is_closed = True


class Caller:
    """Asks for evidence as a stranger, and hangs up when told."""

    def __init__(self) -> None:
        self.has_gone = asyncio.Event()
        self.status: int | None = None
        self._has_asked = False

    async def ask(self, world: World) -> None:
        path = "/v1/evidence"
        scope: Scope = {
            "type": "http",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [],
            "client": ("127.0.0.1", 1),
        }
        await world.server.app(scope, self._receive, self._send)

    async def _receive(self) -> Message:
        if not self._has_asked:
            self._has_asked = True
            return {"type": "http.request", "body": json.dumps(_question()).encode()}
        await self.has_gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Message) -> None:
        self.status = message.get("status", self.status)


@pytest.fixture
async def quotes() -> Quotes:
    return Quotes()


@pytest.fixture
async def world(tmp_path: Path, quotes: Quotes) -> AsyncIterator[World]:
    async with development_worker(tmp_path, quotes=quotes, version="9.8") as made:
        yield made


def registrar(world: World) -> HttpWorkerClient:
    return world.client(TokenScope.REGISTRATION)


async def evidence(
    client: HttpWorkerClient, signing_key: PublicKey | None = None
) -> EvidenceBundle:
    data = await client.evidence(
        genesis=GENESIS, contract=CONTRACT, challenge=CHALLENGE, signing_key=signing_key
    )
    return load_bundle(data)


async def register(world: World, pair: WorkerKeys | None = None) -> None:
    """Register a pair at a worker without a chain, the newest if not told."""
    await registrar(world).registration(
        genesis=GENESIS,
        contract=CONTRACT,
        measurement=MEASUREMENT,
        evidence_hash=bytes(32),
        valid_until=1,
        signing_key=None if pair is None else pair.signing_key,
    )


async def rotate(world: World) -> WorkerKeys:
    await registrar(world).rotate(genesis=GENESIS, contract=CONTRACT)
    return world.pair


def waiting(world: World) -> int:
    """How many wait for evidence, the one whose quote is being made included."""
    return world.server._enrolment._queue.waiting


def blobs(world: World) -> WorkerBlobs:
    return world.server._blobs


class TestEvidence:
    async def test_is_bound_to_the_keys_the_contract_and_the_challenge(
        self, world: World, quotes: Quotes
    ) -> None:
        bundle = await evidence(world.client(None))

        assert bundle == EvidenceBundle(
            producer="phala-jobs worker 9.8",
            genesis_hash=GENESIS,
            contract=CONTRACT,
            signing_key=world.pair.signing_key,
            encryption_key=world.encryption_key,
            challenge=CHALLENGE,
            quote=b"quote" + report_data(bundle.binding()),
            event_log=b"log",
            compose=b"compose",
        )
        assert quotes.asked == [report_data(bundle.binding())]

    async def test_says_what_it_is(self, world: World) -> None:
        async with world.http() as client:
            answer = await client.post("/v1/evidence", json=_question())

        assert answer.headers["content-type"] == "application/cbor"
        assert load_bundle(answer.content).challenge == CHALLENGE
        assert (await world.client(None).identity()).tee == "scripted: proves no TEE"

    async def test_can_be_for_older_keys(self, world: World) -> None:
        old = world.pair
        new = await rotate(world)

        newest = await evidence(world.client(None))
        older = await evidence(world.client(None), old.signing_key)

        assert newest.signing_key == new.signing_key
        assert newest.encryption_key == new.encryption_key.public_key
        assert older.signing_key == old.signing_key
        assert older.encryption_key == old.encryption_key.public_key

    async def test_is_refused_for_keys_of_somebody_else(self, world: World, quotes: Quotes) -> None:
        other = PublicKey(scheme=world.settings.scheme, key=b"\2" + b"x" * 32)

        with pytest.raises(WorkerRefusedError, match="not one of this worker's") as caught:
            await evidence(world.client(None), other)

        assert caught.value.status == 422
        assert quotes.asked == []

    @pytest.mark.parametrize(
        "change",
        [
            {"challenge": "aGFsbG8="},
            {"challenge": None},
            {"genesis": "!"},
            {"contract": ""},
            {"signing_key": None},
            {"signing_key": {"scheme": "rsa", "key": ""}},
            {"more": 1},
        ],
    )
    async def test_a_question_that_is_none_is_422(
        self, world: World, quotes: Quotes, change: dict[str, object]
    ) -> None:
        async with world.http() as client:
            answer = await client.post("/v1/evidence", json={**_question(), **change})

        assert answer.status_code == 422
        assert quotes.asked == []

    async def test_a_platform_that_gives_none_is_503_and_its_words_stay_here(
        self, world: World, quotes: Quotes, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        quotes.error = QuoteUnavailableError("/var/run/dstack.sock: no such file")

        async with world.http() as client:
            answer = await client.post("/v1/evidence", json=_question())

        assert answer.status_code == 503
        assert answer.headers["retry-after"] == "10"
        assert "sock" not in answer.text
        assert "dstack.sock: no such file" in caplog.text
        quotes.error = None
        assert (await evidence(world.client(None))).challenge == CHALLENGE

    async def test_what_fits_in_no_bundle_is_503(self, world: World, quotes: Quotes) -> None:
        quotes.compose = bytes(300_000)

        with pytest.raises(WorkerUnavailableError, match="gives no quote now"):
            await evidence(world.client(None))

    async def test_quotes_are_made_one_at_a_time(self, world: World, quotes: Quotes) -> None:
        quotes.hold.clear()
        asking = [asyncio.create_task(evidence(world.client(None))) for _ in range(3)]
        await until(lambda: len(quotes.asked) == 1)
        quotes.hold.set()
        await asyncio.gather(*asking)

        assert len(quotes.asked) == 3
        assert quotes.most_at_once == 1

    async def test_strangers_do_not_keep_a_registrar_waiting_outside(
        self, world: World, quotes: Quotes
    ) -> None:
        quotes.hold.clear()
        strangers = [asyncio.create_task(evidence(world.client(None))) for _ in range(4)]
        await until(lambda: waiting(world) == 4)
        with pytest.raises(WorkerUnavailableError, match="too many ask for evidence"):
            await evidence(world.client(None))
        known = [asyncio.create_task(evidence(registrar(world))) for _ in range(12)]
        await until(lambda: waiting(world) == 16)
        with pytest.raises(WorkerUnavailableError, match="too many ask for evidence") as caught:
            await evidence(registrar(world))
        quotes.hold.set()
        answers = await asyncio.gather(*strangers, *known)

        assert caught.value.retry_after_seconds == 2
        assert len(answers) == len(quotes.asked) == 16
        assert (await evidence(world.client(None))).challenge == CHALLENGE

    async def test_who_has_a_token_goes_before_strangers(
        self, world: World, quotes: Quotes
    ) -> None:
        quotes.hold.clear()
        ended: list[str] = []

        async def ask(name: str, client: HttpWorkerClient) -> None:
            await evidence(client)
            ended.append(name)

        asking = [asyncio.create_task(ask("first", world.client(None)))]
        await until(lambda: len(quotes.asked) == 1)
        asking.append(asyncio.create_task(ask("stranger", world.client(None))))
        await until(lambda: waiting(world) == 2)
        asking.append(asyncio.create_task(ask("registrar", registrar(world))))
        await until(lambda: waiting(world) == 3)
        quotes.hold.set()
        await asyncio.gather(*asking)

        assert ended == ["first", "registrar", "stranger"]

    async def test_who_hangs_up_leaves_the_queue_and_gets_no_quote(
        self, world: World, quotes: Quotes
    ) -> None:
        quotes.hold.clear()
        first = asyncio.create_task(evidence(world.client(None)))
        await until(lambda: len(quotes.asked) == 1)
        callers = [Caller() for _ in range(3)]
        asking = [asyncio.create_task(caller.ask(world)) for caller in callers]
        await until(lambda: waiting(world) == 4)

        for caller in callers:
            caller.has_gone.set()
        await asyncio.gather(*asking)

        assert waiting(world) == 1  # while the first one's quote is still being made
        another = asyncio.create_task(evidence(world.client(None)))
        await until(lambda: waiting(world) == 2)
        quotes.hold.set()
        await asyncio.gather(first, another)
        assert len(quotes.asked) == 2
        assert {caller.status for caller in callers} == {400}

    async def test_who_has_gone_already_gets_no_quote(self, world: World, quotes: Quotes) -> None:
        caller = Caller()
        caller.has_gone.set()

        await caller.ask(world)

        assert caller.status == 400
        assert quotes.asked == []
        assert waiting(world) == 0
        assert (await evidence(world.client(None))).challenge == CHALLENGE

    async def test_one_that_is_stopped_holds_nobody_up(self, world: World, quotes: Quotes) -> None:
        quotes.hold.clear()
        first = asyncio.create_task(evidence(world.client(None)))
        await until(lambda: len(quotes.asked) == 1)
        caller = Caller()
        stopped = asyncio.create_task(caller.ask(world))
        await until(lambda: waiting(world) == 2)
        last = asyncio.create_task(evidence(world.client(None)))
        await until(lambda: waiting(world) == 3)

        stopped.cancel()
        quotes.hold.set()
        async with asyncio.timeout(10):
            await asyncio.gather(first, last)

        assert len(quotes.asked) == 2
        assert waiting(world) == 0

    async def test_its_source_is_closed_with_the_worker(self, tmp_path: Path) -> None:
        source = Quotes()
        async with development_worker(tmp_path / "other", quotes=source):
            assert not source.is_closed

        assert source.is_closed


class TestPossession:
    @pytest.mark.parametrize("is_old", [False, True])
    async def test_is_shown_for_the_newest_keys_or_those_named(
        self, world: World, *, is_old: bool
    ) -> None:
        old = world.pair
        new = await rotate(world)
        pair = old if is_old else new

        signature = await registrar(world).registration(
            genesis=GENESIS,
            contract=CONTRACT,
            measurement=MEASUREMENT,
            evidence_hash=b"e" * 32,
            valid_until=77,
            signing_key=old.signing_key if is_old else None,
        )

        registration = WorkerRegistration(
            signing_key=pair.signing_key,
            encryption_key=pair.encryption_key.public_key,
            measurement=MEASUREMENT,
            evidence_hash=b"e" * 32,
            endpoint=b"",
            valid_until=77,
        )
        digest = registration_digest(registration, genesis_hash=GENESIS, contract=CONTRACT)
        verify_signature(pair.signing_key, signature, digest)

    async def test_is_not_shown_for_keys_of_somebody_else(self, world: World) -> None:
        with pytest.raises(WorkerRefusedError, match="not one of this worker's") as caught:
            await registrar(world).registration(
                genesis=GENESIS,
                contract=CONTRACT,
                measurement=MEASUREMENT,
                evidence_hash=bytes(32),
                valid_until=1,
                signing_key=PublicKey(scheme=world.settings.scheme, key=b"\2" + b"x" * 32),
            )

        assert caught.value.status == 422


class TestKeptEvidence:
    async def test_is_served_and_outlives_payloads_and_the_process(
        self, world: World, tmp_path: Path
    ) -> None:
        data = dump_bundle(await evidence(world.client(None)))
        payload = await world.client().put_blob(b"payload")

        digest = await registrar(world).put_evidence(data)
        world.clock.advance(400 * DAY)
        world.server.prune()

        assert digest == blake2_256(data)
        assert not blobs(world).has(payload)
        assert await world.client(None).get_blob(digest, max_bytes=1 << 20) == data
        async with world.http() as client:
            head = await client.head(f"/v1/blobs/{digest.hex()}")
        assert (head.status_code, head.headers["content-length"]) == (200, str(len(data)))
        await world.server.shut_down()
        async with development_worker(tmp_path) as again:
            assert await again.client(None).get_blob(digest, max_bytes=1 << 20) == data

    async def test_is_this_workers_or_refused(self, world: World) -> None:
        mine = await evidence(world.client(None))
        other = PublicKey(scheme=world.settings.scheme, key=b"\2" + b"x" * 32)
        for changed in (
            replace(mine, signing_key=other),
            replace(mine, encryption_key=b"x" * 32),
        ):
            data = dump_bundle(changed)

            with pytest.raises(WorkerRefusedError, match="not of this worker's keys") as caught:
                await registrar(world).put_evidence(data)

            assert caught.value.status == 422
            assert not blobs(world).has(blake2_256(data))

    @pytest.mark.parametrize("end", [b"\0", None])
    async def test_is_a_bundle_or_refused(self, world: World, end: bytes | None) -> None:
        data = dump_bundle(await evidence(world.client(None)))
        changed = data[:-1] if end is None else data + end

        with pytest.raises(WorkerRefusedError) as caught:
            await registrar(world).put_evidence(changed)

        assert caught.value.status == 422
        assert not blobs(world).has(blake2_256(changed))

    async def test_is_put_with_the_registrars_token_alone(self, world: World) -> None:
        data = dump_bundle(await evidence(world.client(None)))

        await world.client().put_evidence(data)  # so it is a payload
        world.clock.advance(DAY)
        world.server.prune()
        with pytest.raises(WorkerRefusedError) as caught:
            await world.client(None).put_evidence(data)

        assert caught.value.status == 401
        assert not blobs(world).has(blake2_256(data))

    async def test_the_newest_few_of_each_pair_are_kept(self, world: World) -> None:
        first = world.pair
        of_first = [await _kept(world, bytes([n]) * 32) for n in range(EVIDENCE_PER_KEY + 1)]
        await rotate(world)
        of_second = [await _kept(world, bytes([n]) * 32) for n in range(EVIDENCE_PER_KEY)]
        again = await _kept(world, bytes([2]) * 32, first.signing_key)  # it is the newest now
        newer = await _kept(world, b"n" * 32, first.signing_key)

        has = blobs(world).has
        assert again == of_first[2]
        assert [has(digest) for digest in of_first] == [False, False, True, True, True]
        assert has(newer)
        assert all(has(digest) for digest in of_second)


async def _kept(world: World, challenge: bytes, signing_key: PublicKey | None = None) -> bytes:
    data = await world.client(None).evidence(
        genesis=GENESIS, contract=CONTRACT, challenge=challenge, signing_key=signing_key
    )
    return await registrar(world).put_evidence(data)


class TestRotation:
    """Without a chain."""

    async def test_makes_new_keys_and_tells_of_the_old_ones(self, world: World) -> None:
        old = world.pair

        identity = await registrar(world).rotate(genesis=GENESIS, contract=CONTRACT)

        assert identity.signing_key == world.pair.signing_key != old.signing_key
        assert identity.encryption_key == world.encryption_key
        assert identity.retired_keys == (old.signing_key,)
        assert identity.serves(old.signing_key)
        assert await world.client(None).identity() == identity

    async def test_waits_for_the_newest_keys_to_be_registered(self, world: World) -> None:
        await rotate(world)
        before = world.pair.signing_key

        with pytest.raises(WorkerRefusedError, match="not registered yet") as caught:
            await rotate(world)
        assert caught.value.status == 409
        assert world.pair.signing_key == before

        await register(world)
        assert (await rotate(world)).signing_key != before

    async def test_keeps_no_more_pairs_than_allowed(self, world: World) -> None:
        for _ in range(MAX_PAIRS - 1):
            await rotate(world)
            await register(world)
        before = _pairs(world)

        with pytest.raises(WorkerRefusedError, match="pairs are in use") as caught:
            await rotate(world)

        assert caught.value.status == 409
        assert _pairs(world) == before

    async def test_keys_in_use_at_another_contract_stay(self, world: World) -> None:
        """Whoever may register may name contracts of its own."""
        before = [world.pair.signing_key]
        for number in range(MAX_PAIRS - 1):
            await _register_at(world, bytes([number]) * 32)
            await registrar(world).rotate(genesis=bytes([number]) * 32, contract=CONTRACT)
            before.append(world.pair.signing_key)
        await _register_at(world, b"o" * 32)

        with pytest.raises(WorkerRefusedError, match="pairs are in use") as caught:
            await registrar(world).rotate(genesis=b"o" * 32, contract=CONTRACT)

        assert caught.value.status == 409
        assert _pairs(world) == before

    async def test_the_newest_keys_are_registered_at_the_contract_named(self, world: World) -> None:
        before = _pairs(world)

        with pytest.raises(WorkerRefusedError, match="not registered yet"):
            await registrar(world).rotate(genesis=GENESIS, contract=b"x" * 32)

        assert _pairs(world) == before

    async def test_two_at_once_are_one_and_a_refusal(self, world: World) -> None:
        results = await asyncio.gather(rotate(world), rotate(world), return_exceptions=True)

        assert sum(isinstance(result, WorkerRefusedError) for result in results) == 1
        assert len(_pairs(world)) == 2

    async def test_jobs_sealed_to_the_old_keys_still_run_and_are_signed_by_them(
        self, world: World
    ) -> None:
        old = world.pair
        request = world.request(world.seal(b"sealed to the old key"))
        await rotate(world)
        await register(world)

        job = await world.finish(request)
        new_job = await world.finish(world.request(world.seal(b"sealed to the new key")))

        assert job.state is WorkerJobState.DONE
        assert job.completion is not None
        assert job.completion.tee_worker_pubkey == old.signing_key
        assert await world.output(job) == b"sealed to the old key"
        assert new_job.completion is not None
        assert new_job.completion.tee_worker_pubkey == world.pair.signing_key
        assert await world.output(new_job) == b"sealed to the new key"

    async def test_what_was_signed_before_is_signed_by_the_same_key_after(
        self, world: World
    ) -> None:
        request = world.request(world.seal(b"x"))
        before = (await world.finish(request)).completion

        await rotate(world)
        after = (await world.client().get_job(request.key)).completion

        assert before is not None
        assert after is not None
        assert after.tee_worker_pubkey == before.tee_worker_pubkey
        assert after.result_hash == before.result_hash

    async def test_nothing_is_signed_by_other_keys_when_those_of_the_outcome_are_gone(
        self, world: World
    ) -> None:
        request = world.request(world.seal(b"x"))
        waiting = world.request(world.seal(b"y"))
        await world.finish(request)
        old = world.pair.signing_key
        await rotate(world)
        forget(world, old)

        with pytest.raises(WorkerRefusedError, match="the key that signed") as caught:
            await world.client().get_job(request.key)
        assert caught.value.status == 410

        await register(world)
        job = await world.finish(waiting)  # the newest keys are all that there are
        assert job.state is WorkerJobState.FAILED
        assert await world.failure(job) == ("OpenFailed", None)

    async def test_a_job_whose_keys_go_while_it_waits_is_not_signed(
        self, world: World, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.WARNING)
        request = world.request(world.seal(b"x"))
        facts = await world.server._heads.facts(request)
        job = AcceptedJob(key=request.key, facts=facts, envelope=request.envelope or b"")
        await rotate(world)
        forget(world, facts.signing_key)

        world.server._execution.accept(job)
        await until(lambda: "the keys that the job was sealed to are gone" in caplog.text)

        assert world.server._outcomes.find(request.key) is None

    async def test_keys_that_can_not_be_stored_are_503(
        self, world: World, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def fail(*_: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        before, identity = _pairs(world), await world.client(None).identity()
        with monkeypatch.context() as patch:
            patch.setattr("orchestrator.worker.identity._replace", fail)
            with pytest.raises(WorkerUnavailableError, match="can't store its keys"):
                await rotate(world)

        assert _pairs(world) == before
        assert await world.client(None).identity() == identity


async def _register_at(world: World, genesis: bytes) -> None:
    await registrar(world).registration(
        genesis=genesis,
        contract=CONTRACT,
        measurement=MEASUREMENT,
        evidence_hash=bytes(32),
        valid_until=1,
    )


def forget(world: World, key: PublicKey) -> None:
    ring = world.server._enrolment._keys
    ring.pairs = tuple(pair for pair in ring.pairs if pair.signing_key != key)


def _pairs(world: World) -> list[PublicKey]:
    ring = load_or_make_keys(world.settings.folder, world.settings.scheme)
    return [pair.signing_key for pair in ring.pairs]


class TestOnAChain:
    @pytest.fixture
    async def world(self, tmp_path: Path) -> AsyncIterator[ChainWorld]:
        async with chain_worker(tmp_path) as made:
            yield made

    async def rotate(self, world: ChainWorld) -> WorkerKeys:
        await registrar(world).rotate(
            genesis=world.chain.genesis_hash, contract=world.processor.contract
        )
        return world.pair

    def register(
        self, world: ChainWorld, *, valid_for: int = DAY, measurement: bytes = MEASUREMENT
    ) -> WorkerId:
        return register_test_worker(
            world.chain,
            world.processor,
            world.pair.signer,
            registrar=LocalAccount.named("admin"),
            measurement=measurement,
            encryption_key=world.encryption_key,
            valid_for=valid_for,
        )

    async def test_rotation_waits_for_the_chain(self, world: ChainWorld) -> None:
        await self.rotate(world)
        before = _pairs(world)

        with pytest.raises(WorkerRefusedError, match="not registered yet") as caught:
            await self.rotate(world)
        assert caught.value.status == 409
        assert _pairs(world) == before

        self.register(world)
        await self.rotate(world)
        assert len(_pairs(world)) == 3

    async def test_a_job_for_the_old_keys_runs_while_the_new_ones_are_not_registered(
        self, world: ChainWorld
    ) -> None:
        old = world.pair
        request = world.submit(world.sealed())
        await self.rotate(world)

        job = await world.finish(request)

        assert job.state is WorkerJobState.DONE
        assert job.completion is not None
        assert job.completion.tee_worker_pubkey == old.signing_key

    async def test_of_two_that_are_ours_the_first_signs(self, world: ChainWorld) -> None:
        old = world.pair
        await self.rotate(world)
        second = self.register(world)

        first = await world.finish(self.submit_to(world, old, (*world.workers, second)))
        other = await world.finish(self.submit_to(world, old, (second, *world.workers)))

        assert first.completion is not None
        assert first.completion.tee_worker_pubkey == old.signing_key
        assert other.completion is not None
        assert other.completion.tee_worker_pubkey == world.pair.signing_key

    @pytest.mark.parametrize("what", ["is suspended", "is over", "may not be"])
    async def test_of_two_that_are_ours_one_that_is_trusted_signs(
        self, world: ChainWorld, what: str
    ) -> None:
        """Nobody could record the other's statement, and there is no second one."""
        old, admin = world.pair, LocalAccount.named("admin")
        await self.rotate(world)
        newer = b"n" * 32
        world.chain.call(world.processor.allow_measurement(newer), signer=admin)
        second = self.register(world, valid_for=2 * DAY, measurement=newer)
        first = world.chain.read(world.processor.get_worker(world.workers[0]))
        assert first is not None
        if what == "is over":
            world.clock.advance(first.valid_until - 60_000 - world.clock())
            self.make_block(world)
        request = self.submit_to(world, old, (*world.workers, second))
        if what == "is over":
            world.clock.advance(120_000)
            self.make_block(world)
        elif what == "is suspended":
            world.chain.call(world.processor.suspend_worker(first.worker), signer=admin)
        else:
            world.chain.call(world.processor.revoke_measurement(MEASUREMENT), signer=admin)

        job = await world.finish(request)

        assert job.state is WorkerJobState.DONE
        assert job.completion is not None
        assert job.completion.tee_worker_pubkey == world.pair.signing_key

    async def test_of_two_that_are_ours_the_first_signs_when_none_is_trusted(
        self, world: ChainWorld
    ) -> None:
        old, admin = world.pair, LocalAccount.named("admin")
        await self.rotate(world)
        workers = (*world.workers, self.register(world))
        request = self.submit_to(world, old, workers)
        for worker in workers:
            world.chain.call(world.processor.suspend_worker(worker), signer=admin)

        job = await world.finish(request)

        assert job.completion is not None
        assert job.completion.tee_worker_pubkey == old.signing_key

    def submit_to(
        self, world: ChainWorld, old: WorkerKeys, workers: tuple[WorkerId, ...]
    ) -> JobRequest:
        keys = {world.workers[0]: old.encryption_key.public_key}
        sealed = world.sealed(
            recipients=[keys.get(worker, world.encryption_key) for worker in workers]
        )
        return world.submit(sealed, workers=workers)

    async def test_pairs_go_only_when_no_job_for_them_can_be_open(self, world: ChainWorld) -> None:
        await self.rotate(world)
        self.register(world, valid_for=20 * DAY)
        for _ in range(MAX_PAIRS - 2):
            await self.rotate(world)
            self.register(world, valid_for=20 * DAY)
        full = _pairs(world)
        first = world.chain.read(world.processor.get_worker(world.workers[0]))
        assert first is not None
        with pytest.raises(WorkerRefusedError, match="pairs are in use") as caught:
            await self.rotate(world)
        assert caught.value.status == 409
        assert _pairs(world) == full

        # Until then a job for the first pair may be open, and after it one for the others.
        world.clock.advance(first.valid_until + 30 * DAY - 10_000 - world.clock())
        self.make_block(world)
        with pytest.raises(WorkerRefusedError, match="pairs are in use"):
            await self.rotate(world)
        world.clock.advance(20_000)
        self.make_block(world)
        await self.rotate(world)

        assert _pairs(world)[:-1] == full[1:]

    async def test_revoked_pairs_go_at_once(self, world: ChainWorld) -> None:
        """Whoever has their keys may have the newest too, so there must be room for new ones."""
        workers = list(world.workers)
        for _ in range(MAX_PAIRS - 1):
            await self.rotate(world)
            workers.append(self.register(world))
        full, admin = _pairs(world), LocalAccount.named("admin")
        world.chain.call(world.processor.suspend_worker(workers[0]), signer=admin)
        with pytest.raises(WorkerRefusedError, match="pairs are in use"):
            await self.rotate(world)
        for worker in workers[
            1:
        ]:  # the newest is kept nevertheless, or nothing would be registered
            world.chain.call(world.processor.revoke_worker(worker, b"r" * 32), signer=admin)

        await self.rotate(world)

        assert _pairs(world)[:-1] == [full[0], full[-1]]

    def make_block(self, world: ChainWorld) -> None:
        world.chain.upload(world.processor.bundle.code, signer=world.account)

    async def test_a_worker_is_asked_about_its_own_contract_alone(self, world: ChainWorld) -> None:
        before = _pairs(world)
        for genesis, contract in (
            (world.chain.genesis_hash, CONTRACT),
            (GENESIS, world.processor.contract),
        ):
            with pytest.raises(WorkerRefusedError, match="not those that this worker") as caught:
                await registrar(world).rotate(genesis=genesis, contract=contract)
            assert caught.value.status == 422

        assert _pairs(world) == before

    async def test_evidence_for_another_contract_is_422(self, tmp_path: Path) -> None:
        source = Quotes()
        async with chain_worker(tmp_path / "tee", quotes=source) as world:
            with pytest.raises(WorkerRefusedError, match="not those that this worker") as caught:
                await evidence(world.client(None))

            assert caught.value.status == 422
            assert source.asked == []
            data = await world.client(None).evidence(
                genesis=world.chain.genesis_hash,
                contract=world.processor.contract,
                challenge=CHALLENGE,
            )
            mine = load_bundle(data)
            other = replace(mine, contract=CONTRACT)
            with pytest.raises(WorkerRefusedError, match="not those that this worker"):
                await registrar(world).put_evidence(dump_bundle(other))
            assert await registrar(world).put_evidence(data) == blake2_256(data)


def _question() -> dict[str, str]:
    return {
        name: b64encode(value).decode()
        for name, value in (
            ("genesis", GENESIS),
            ("contract", CONTRACT),
            ("challenge", CHALLENGE),
        )
    }
