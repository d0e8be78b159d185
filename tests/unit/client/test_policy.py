"""Sealing under a policy (protocol rule 1.5 a): every refusal has sealed and sent nothing."""

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest

import orchestrator
from orchestrator.attestation import sign_statement
from orchestrator.client import AsyncJobClient, Submission
from orchestrator.client.chain_view import ChainView
from orchestrator.client.recipients import Recipient, VerifiedRecipient
from orchestrator.client.sealer import Sealer
from orchestrator.collateral import CollateralSource
from orchestrator.crypto import read_job_header, seal_result
from orchestrator.encoding import encode_output, registration_digest
from orchestrator.errors import (
    BlobNotFoundError,
    BlobUnavailableError,
    CollateralUnavailableError,
    ConfigError,
    DigestMismatchError,
    NotSentError,
    RefusedError,
    UntrustedWorkerError,
)
from orchestrator.evidence import (
    MAX_BUNDLE_BYTES,
    Collateral,
    Policy,
    TcbRules,
    VerifiedEvidence,
    dump_bundle,
    load_bundle,
)
from orchestrator.models import (
    Attestation,
    AttestationProof,
    Completion,
    InlinePayload,
    Job,
    Outcome,
    Statement,
    TaskInput,
    WorkerRegistration,
)
from orchestrator.simulator import Guest, Simulator
from orchestrator.testing.chain import FixedClock
from orchestrator.testing.local_worker import LocalWorker
from orchestrator.testing.owner_world import ADMIN, World

from .policy_world import DAY, NoBlobs, PolicyWorld


@pytest.fixture(scope="session")
def simulator() -> Simulator:
    return Simulator.create()


@pytest.fixture
def owner(world: World, simulator: Simulator) -> PolicyWorld:
    return PolicyWorld(world=world, simulator=simulator)


class StaleSource:
    """Collateral made up front, or none."""

    def __init__(self, answer: Collateral | None) -> None:
        self.answer = answer

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        del quote, now
        if self.answer is None:
            raise CollateralUnavailableError
        return self.answer

    def close(self) -> None:
        """Nothing is open."""


def _refused(owner: PolicyWorld, task: TaskInput, worker: int, code: str, **changes: Any) -> str:  # noqa: ANN401 - those of JobClient
    client = owner.client(**changes)
    with pytest.raises(UntrustedWorkerError) as refused:
        client.submit(task, workers=[worker])
    assert refused.value.code == code
    assert f"worker {worker}" in str(refused.value)
    owner.nothing_happened(client)
    return str(refused.value)


class TestSealing:
    def test_the_key_sealed_to_is_that_of_the_evidence(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        """The node is not trusted, and the job runs through to its result."""
        worker = owner.worker()
        client = owner.client()

        job_id = client.submit(task, workers=[worker.worker])
        owner.world.process(job_id, owner.world.workers.index(worker))
        result = client.result(job_id)

        sealed = client.seal(task, workers=[worker.worker])
        bundle = load_bundle(owner.world.blobs.get(worker.evidence_hash, max_bytes=1 << 20))
        assert sealed.header.recipients[0] == bundle.encryption_key == worker.encryption_key
        assert result.output == b"SECRET WORDS"
        assert result.evidence is not None
        assert result.evidence.is_simulated
        assert result.evidence.bundle.signing_key == worker.signer.public_key

    def test_what_was_found_is_told_and_the_bundle_kept(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        worker = owner.worker()

        owner.client().submit(task, workers=[worker.worker])

        told = {number: verdict.evidence for number, verdict in owner.told}
        assert list(told) == [worker.worker]
        assert told[worker.worker] is not None
        assert owner.kept.has(worker.evidence_hash)

    def test_without_policy_the_node_has_to_be_trusted(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        worker = owner.worker()
        client = owner.client(policy=None)

        with pytest.raises(ConfigError, match=r"^trusted_node: "):
            client.submit(task, workers=[worker.worker])
        owner.nothing_happened(client)

    def test_trusting_the_node_does_not_replace_evidence(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        """With a policy configured, rule (a) is required."""
        _refused(owner, task, 1, "NoEvidence", trusted_node=True)

    def test_a_key_that_the_node_made_up_is_not_sealed_to(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        worker = owner.worker()
        theirs = owner.world.workers[0].encryption_key
        owner.world.chain.answers["get_worker"] = lambda row: replace(row, encryption_key=theirs)

        _refused(owner, task, worker.worker, "E12")

    def test_evidence_for_another_contract_is_refused(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        worker = owner.worker(
            damage=lambda data: dump_bundle(replace(load_bundle(data), contract=bytes(32)))
        )

        _refused(owner, task, worker.worker, "E12")

    @pytest.mark.parametrize(
        ("code", "change"),
        [
            ("E02", lambda policy: replace(policy, roots=())),
            ("E05", lambda policy: replace(policy, tcb=TcbRules(statuses=frozenset()))),
            (
                "E07",
                lambda policy: replace(
                    policy, tcb=replace(policy.tcb, minimum_evaluation_number=1_000)
                ),
            ),
            ("E09", lambda policy: replace(policy, measurements=())),
            ("E10", lambda policy: replace(policy, required_events=frozenset({"no such event"}))),
        ],
    )
    def test_a_named_worker_is_refused_by_name_and_code(
        self,
        owner: PolicyWorld,
        task: TaskInput,
        code: str,
        change: Callable[[Policy], Policy],
    ) -> None:
        worker = owner.worker()

        _refused(owner, task, worker.worker, code, policy=change(owner.policy))

    def test_an_empty_policy_allows_nobody(self, owner: PolicyWorld, task: TaskInput) -> None:
        worker = owner.worker()
        client = owner.client(policy=Policy(policy_hash=bytes(32)))

        with pytest.raises(UntrustedWorkerError):
            client.submit(task, workers=[worker.worker])
        owner.nothing_happened(client)

    def test_another_root_is_refused(self, owner: PolicyWorld, task: TaskInput) -> None:
        """Simulated evidence is accepted by a policy that names its root, and no other."""
        worker = owner.worker(simulator=replace(Simulator.create(), guest=owner.simulator.guest))

        _refused(owner, task, worker.worker, "E02")

    def test_a_platform_that_fell_behind_is_refused_by_newest_collateral(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        """The bundle was made before the recovery; an owner with a source of collateral knows."""
        worker = owner.worker()
        behind = owner.simulator.tcb_recovery(now=owner.world.clock.now)
        newest: CollateralSource = StaleSource(behind.collateral(now=owner.world.clock.now))

        owner.client().seal(task, workers=[worker.worker])
        _refused(owner, task, worker.worker, "E05", collateral=newest)

    def test_without_the_collateral_that_was_asked_for_nothing_is_sealed(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        worker = owner.worker()
        client = owner.client(collateral=StaleSource(None))

        with pytest.raises(CollateralUnavailableError):
            client.submit(task, workers=[worker.worker])
        owner.nothing_happened(client)

    def test_a_revoked_worker_is_refused(self, owner: PolicyWorld, task: TaskInput) -> None:
        worker = owner.worker()
        revoke = owner.world.processor.revoke_worker(worker.worker, bytes(32))
        owner.world.chain.inside.call(revoke, signer=ADMIN)

        _refused(owner, task, worker.worker, "WorkerNotTrusted")

    @pytest.mark.parametrize("revoked", ["worker", "measurement"])
    def test_a_revocation_is_looked_for_in_the_row_too(
        self, owner: PolicyWorld, task: TaskInput, revoked: str
    ) -> None:
        """Whatever the node says about who is trusted."""
        worker, processor = owner.worker(), owner.world.processor
        revoke = (
            processor.revoke_worker(worker.worker, bytes(32))
            if revoked == "worker"
            else processor.revoke_measurement(owner.measurement)
        )
        owner.world.chain.inside.call(revoke, signer=ADMIN)
        owner.world.chain.answers["is_trusted"] = lambda _: True

        _refused(owner, task, worker.worker, "E14")


class TestFetching:
    def test_the_owners_folder_is_asked_first(self, owner: PolicyWorld, task: TaskInput) -> None:
        worker, nowhere = owner.worker(), NoBlobs()
        owner.kept.put(owner.world.blobs.get(worker.evidence_hash, max_bytes=1 << 20))

        client = owner.client(blob_sources=[nowhere], worker_blobs=lambda _: nowhere)
        client.submit(task, workers=[worker.worker])

        assert nowhere.asked == 0

    def test_then_the_worker_then_the_sources(self, owner: PolicyWorld, task: TaskInput) -> None:
        worker, asked = owner.worker(), NoBlobs()

        client = owner.client(worker_blobs=lambda _: owner.world.blobs, blob_sources=[asked])
        client.submit(task, workers=[worker.worker])

        assert asked.asked == 0

    def test_evidence_that_nobody_has_refuses_nothing_for_good(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        worker = owner.worker()
        client = owner.client(blob_sources=[NoBlobs()])

        with pytest.raises(BlobNotFoundError, match=f"evidence of worker {worker.worker} "):
            client.submit(task, workers=[worker.worker])
        owner.nothing_happened(client)

        with pytest.raises(BlobUnavailableError, match="no worker to seal to"):
            client.submit(task)
        owner.nothing_happened(client)

    def test_other_bytes_are_refused(self, owner: PolicyWorld, task: TaskInput) -> None:
        worker = owner.worker()
        other = owner.world.blobs.get(owner.worker().evidence_hash, max_bytes=1 << 20)

        class Lying(NoBlobs):
            def get(self, digest: bytes, *, max_bytes: int) -> bytes:
                del digest
                assert max_bytes == MAX_BUNDLE_BYTES
                return other

        client = owner.client(blob_sources=[Lying()])

        with pytest.raises(DigestMismatchError):
            client.submit(task, workers=[worker.worker])
        owner.nothing_happened(client)
        assert not owner.kept.has(worker.evidence_hash)


class TestChoice:
    def test_a_refused_worker_is_skipped(self, owner: PolicyWorld, task: TaskInput) -> None:
        """Two have no evidence, one that of another application, one the right one."""
        owner.worker(simulator=replace(owner.simulator, guest=Guest(compose=b"another: app")))
        good = owner.worker()
        client = owner.client()

        client.submit_many([Submission(task=task)] * 8)

        assert {job.workers for job in client.jobs()} == {(good.worker,)}

    def test_when_none_is_left_each_worker_is_named_with_its_check(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        other = owner.worker(simulator=replace(owner.simulator, guest=Guest(mrtd=b"\xff" * 48)))
        client = owner.client()

        with pytest.raises(UntrustedWorkerError) as refused:
            client.submit(task)

        message = str(refused.value)
        assert refused.value.code == "WorkerNotTrusted"
        assert "NoEvidence: worker 1 " in message
        assert "NoEvidence: worker 2 " in message
        assert f"E09: the evidence of worker {other.worker} " in message
        owner.nothing_happened(client)

    def test_of_one_endpoint_only_the_newest_is_chosen(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        """A worker that made itself new keys goes on serving jobs for the old ones."""
        older = owner.worker(endpoint=b"https://worker.example.org")
        newer = owner.worker(endpoint=b"https://worker.example.org")
        client = owner.client()

        client.submit_many([Submission(task=task)] * 8)
        named = client.submit(task, workers=[older.worker])

        jobs = {job.job_id: job.workers for job in client.jobs()}
        assert jobs.pop(named) == (older.worker,)
        assert set(jobs.values()) == {(newer.worker,)}

    def test_of_one_endpoint_the_newest_is_chosen_without_a_policy_too(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        newest = [owner.worker(endpoint=b"https://worker.example.org") for _ in range(3)][-1]
        for worker in (1, 2):
            suspend = owner.world.processor.suspend_worker(worker)
            owner.world.chain.inside.call(suspend, signer=ADMIN)
        client = owner.client(policy=None, trusted_node=True)

        client.submit_many([Submission(task=task)] * 8)

        assert {job.workers for job in client.jobs()} == {(newest.worker,)}

    def test_when_the_newest_lost_its_trust_the_older_serves(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        older, newer = (owner.worker(endpoint=b"https://worker.example.org") for _ in range(2))
        revoke = owner.world.processor.revoke_worker(newer.worker, bytes(32))
        owner.world.chain.inside.call(revoke, signer=ADMIN)
        client = owner.client()

        client.submit(task)

        assert client.jobs()[0].workers == (older.worker,)


class Ticking(FixedClock):
    """A clock that goes on by a millisecond whenever somebody looks."""

    def __call__(self) -> int:
        self.now += 1
        return self.now


class TestTime:
    @pytest.mark.parametrize("runs_out", ["registration", "evidence"])
    @pytest.mark.parametrize("ahead", ["own clock", "chain"])
    def test_the_last_millisecond_seals_and_the_next_does_not(
        self, owner: PolicyWorld, task: TaskInput, runs_out: str, ahead: str
    ) -> None:
        """Whichever clock is ahead counts, for the registration as for the evidence."""
        lengths = {"registration": (DAY, 30 * DAY), "evidence": (30 * DAY, DAY)}[runs_out]
        worker = owner.worker(valid_for=lengths[0], collateral_for=lengths[1])
        end = owner.world.clock.now + DAY
        own = FixedClock(owner.world.clock.now)
        client = owner.client(clock=own)
        behind = owner.world.clock if ahead == "chain" else own

        behind.now = end
        sealed = client.seal(task, workers=[worker.worker])
        behind.now = end + 1
        with pytest.raises(UntrustedWorkerError) as refused:
            client.submit(task, workers=[worker.worker])

        assert sealed.envelope
        assert (
            refused.value.code == {"registration": "WorkerNotTrusted", "evidence": "E03"}[runs_out]
        )
        owner.nothing_happened(client)

    @pytest.mark.parametrize("lengths", [(1_000, 30 * DAY), (30 * DAY, 1_000)])
    @pytest.mark.parametrize("named", [True, False])
    def test_a_long_run_seals_nothing_after_the_end(
        self, owner: PolicyWorld, task: TaskInput, lengths: tuple[int, int], named: bool
    ) -> None:
        """The client remembers what it verified, and no longer than it holds."""
        worker = owner.worker(valid_for=lengths[0], collateral_for=lengths[1])
        for number in (1, 2):
            suspend = owner.world.processor.suspend_worker(number)
            owner.world.chain.inside.call(suspend, signer=ADMIN)
        clock = Ticking(owner.world.clock.now)
        client = owner.client(clock=clock)
        workers = (worker.worker,) if named else None

        with pytest.raises(UntrustedWorkerError):
            client.submit_many([Submission(task=task, workers=workers)] * 1_000)

        assert clock.now > owner.world.clock.now + 1_000
        owner.nothing_happened(client)

    def test_a_long_run_goes_on_with_those_that_are_left(
        self, make: Callable[..., World], simulator: Simulator, task: TaskInput
    ) -> None:
        owner = PolicyWorld(world=make(rate_limit=1_000), simulator=simulator)
        short, long = owner.worker(valid_for=100), owner.worker()
        client = owner.client(clock=Ticking(owner.world.clock.now))

        outcomes = client.submit_many([Submission(task=task)] * 100)

        refused = [outcome for outcome in outcomes if isinstance(outcome, NotSentError)]
        lost = f"worker {short.worker} has lost its trust since the sealing"
        assert all(lost in str(refusal) for refusal in refused)
        assert 0 < len(refused) < 100
        assert {job.workers for job in client.jobs()} == {(long.worker,)}

    def test_a_worker_of_another_version_than_it_is_registered_as_is_not_sealed_to(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        """Its own version is revoked, which a registrar got around by naming another."""
        worker, policy = _of_a_revoked_version(owner)

        said = _refused(owner, task, worker.worker, "E09", policy=policy)

        assert "'old', and the worker is registered with another measurement" in said

    def test_what_runs_out_while_others_evidence_is_fetched_is_not_sealed_to(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        first, slow = owner.worker(valid_for=DAY), owner.worker(valid_for=2 * DAY)
        owner.kept.put(owner.world.blobs.get(first.evidence_hash, max_bytes=1 << 20))

        class Slow(NoBlobs):
            def get(self, digest: bytes, *, max_bytes: int) -> bytes:
                owner.world.clock.advance(DAY + 1)
                return owner.world.blobs.get(digest, max_bytes=max_bytes)

        client = owner.client(blob_sources=[Slow()])

        with pytest.raises(UntrustedWorkerError, match=f"worker {first.worker}: .* ended at"):
            client.submit(task, workers=[first.worker, slow.worker])
        owner.nothing_happened(client)

    def test_what_was_sealed_in_time_is_not_sent_after_it(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        worker = owner.worker(valid_for=30 * DAY, collateral_for=DAY)
        client = owner.client()
        steps = client.submit_steps([Submission(task=task, workers=(worker.worker,))])
        owner.world.chain.faults = ["before"]
        with pytest.raises(Exception, match="reached"):
            next(steps)
        owner.world.clock.advance(DAY + 1)

        (outcome,) = client.resume()

        assert isinstance(outcome, NotSentError)
        assert outcome.variant == "E03"
        assert owner.world.job_count() == 0
        assert owner.world.chain.sent == 0

    def test_what_was_sealed_to_another_key_on_a_nodes_word_is_not_sent_under_a_policy(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        worker = owner.worker()
        theirs = owner.world.workers[0].encryption_key
        owner.world.chain.answers["get_worker"] = lambda row: replace(row, encryption_key=theirs)
        owner.world.chain.faults = ["before"]
        believing = owner.client(policy=None, trusted_node=True)
        with pytest.raises(Exception, match="reached"):
            believing.submit(task, workers=[worker.worker])
        owner.world.chain.answers.clear()

        (outcome,) = owner.client().resume()

        assert isinstance(outcome, NotSentError)
        assert outcome.variant == "KeyMismatch"
        assert owner.world.chain.sent == 0


def _renew(owner: PolicyWorld, worker: LocalWorker) -> None:
    """Renew the worker on new evidence, with collateral of now."""
    world = owner.world
    bundle = owner.bundle(owner.simulator, worker.signer.public_key, worker.encryption_key)
    row = world.chain.inside.read(world.processor.get_worker(worker.worker))
    assert row is not None
    valid_until = world.clock.now + DAY
    digest = registration_digest(
        WorkerRegistration(
            signing_key=row.signing_key,
            encryption_key=row.encryption_key,
            measurement=row.measurement,
            evidence_hash=world.blobs.put(bundle),
            endpoint=row.endpoint,
            valid_until=valid_until,
        ),
        genesis_hash=world.chain.inside.genesis_hash,
        contract=world.processor.contract,
    )
    renew = world.processor.renew_worker(
        worker.worker, world.blobs.put(bundle), valid_until, worker.signer.sign(digest)
    )
    world.chain.inside.call(renew, signer=ADMIN)


class Publishing:
    """Collateral as it is issued at a time, of a simulator that may be exchanged."""

    def __init__(self, simulator: Simulator) -> None:
        self.simulator = simulator
        self.issued_at: int | None = None

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        del quote
        return self.simulator.collateral(now=self.issued_at or now)

    def close(self) -> None:
        """Nothing is open."""


def _of_a_revoked_version(owner: PolicyWorld) -> tuple[LocalWorker, Policy]:
    """A worker of an old version that is registered as the new one, and a policy with both."""
    old = replace(owner.simulator, guest=replace(owner.simulator.guest, rtmr2=b"\x11" * 48))
    measurements = replace(old.guest.measurements(), name="old")
    world = owner.world
    for call in (
        world.processor.allow_measurement(measurements.measurement),
        world.processor.revoke_measurement(measurements.measurement),
    ):
        world.chain.inside.call(call, signer=ADMIN)
    both = (*owner.policy.measurements, measurements)
    return owner.worker(simulator=old), replace(owner.policy, measurements=both)


def _signed_at(
    owner: PolicyWorld, worker: LocalWorker, job: Job, at: int, output: bytes
) -> Completion:
    """What somebody with the worker's key makes of what is public about the job."""
    assert isinstance(job.encrypted_payload, InlinePayload)
    header = read_job_header(job.encrypted_payload.data)
    genesis_hash, contract = owner.world.chain.inside.genesis_hash, owner.world.processor.contract
    envelope = seal_result(
        encode_output(output),
        genesis=genesis_hash,
        contract=contract,
        job_id=job.job_id,
        payload_hash=job.payload_hash,
        worker_key=worker.signer.public_key,
        reply_nonce=header.nonce,
        reply_key=header.reply_key,
    )
    statement = Statement(
        genesis_hash=genesis_hash,
        contract=contract,
        job_id=job.job_id,
        payload_hash=job.payload_hash,
        outcome=Outcome.COMPLETED,
        result_hash=owner.world.blobs.put(envelope),
        units=1,
        measurement=owner.measurement,
        started_at=at,
        finished_at=at,
        issued_at=at,
    )
    proof = AttestationProof(
        outcome=statement.outcome,
        units=statement.units,
        started_at=at,
        finished_at=at,
        issued_at=at,
        signature=sign_statement(statement, worker.signer),
    )
    return Completion(
        job_id=job.job_id,
        result_hash=statement.result_hash,
        attestation_proof=proof,
        tee_worker_pubkey=worker.signer.public_key,
    )


class TestResults:
    def _processed(self, owner: PolicyWorld, task: TaskInput, **worker: Any) -> tuple[int, int]:  # noqa: ANN401 - those of PolicyWorld.worker
        made = owner.worker(**worker)
        job_id = owner.client().submit(task, workers=[made.worker])
        owner.world.process(job_id, owner.world.workers.index(made))
        return job_id, made.worker

    def test_evidence_that_ran_out_since_still_shows_who_signed(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        job_id, _ = self._processed(owner, task, collateral_for=DAY)
        owner.world.clock.advance(40 * DAY)

        result = owner.client().result(job_id)

        assert result.output == b"SECRET WORDS"
        assert result.evidence is not None
        assert result.evidence.verified_at == result.statement.issued_at

    def test_evidence_that_was_renewed_since_does_too(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        """The bundle that the chain names now was made after the statement."""
        job_id, worker = self._processed(owner, task, valid_for=2 * DAY, collateral_for=2 * DAY)
        owner.world.clock.advance(DAY + 1)
        _renew(owner, owner.world.workers[worker - 1])

        soon = owner.client().result(job_id)
        owner.world.clock.advance(60 * DAY)
        late = owner.client().result(job_id)

        assert soon.evidence is not None
        assert soon.evidence.verified_at == owner.world.clock.now - 60 * DAY
        assert late.evidence is not None
        assert late.evidence.verified_at == late.statement.issued_at
        assert late.evidence.evidence_hash != soon.evidence.evidence_hash

    def test_when_the_bundle_of_then_can_not_be_had_nothing_is_refused_for_good(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        job_id, worker = self._processed(owner, task, valid_for=2 * DAY, collateral_for=2 * DAY)
        made = owner.world.workers[worker - 1]
        owner.world.clock.advance(DAY + 1)
        _renew(owner, made)
        owner.world.clock.advance(60 * DAY)
        for store in (owner.kept, owner.world.blobs):
            store.delete(made.evidence_hash)

        with pytest.raises(BlobNotFoundError, match=f"evidence of worker {worker} "):
            owner.client().result(job_id)

    def test_earlier_bundles_are_those_of_the_worker_last_one_first(
        self, owner: PolicyWorld
    ) -> None:
        made, _ = owner.worker(), owner.worker()
        owner.world.clock.advance(DAY - 1)
        _renew(owner, made)
        view = ChainView(owner.world.chain, owner.world.processor.contract)

        hashes = list(view.evidence_hashes(made.worker))

        assert hashes == [view.worker(made.worker).evidence_hash, made.evidence_hash]

    @pytest.mark.parametrize("posing", [False, True])
    def test_a_key_that_leaked_after_its_evidence_ran_out_signs_nothing_that_is_shown(
        self, owner: PolicyWorld, task: TaskInput, posing: bool
    ) -> None:
        """With a node that lies: the worker was good once, and its key signs a time of then."""
        world, chain = owner.world, owner.world.chain.inside
        stolen, once = owner.worker(), chain.now()
        world.clock.advance(40 * DAY)
        good = owner.worker()
        client = owner.client()
        job_id = client.submit(task, workers=[good.worker])
        job = chain.read(world.processor.get_job(job_id))
        assert job is not None
        signed = _signed_at(owner, stolen, job, once, b"FORGED")
        worker = good.worker if posing else stolen.worker
        row = chain.read(world.processor.get_worker(stolen.worker))
        assert row is not None
        world.chain.answers = {
            "get_job": lambda job: replace(job, workers=(worker,), created_at=once),
            "get_attestation": lambda _: Attestation(
                job_id=job_id,
                result_hash=signed.result_hash,
                attestation_proof=signed.attestation_proof,
                tee_worker_pubkey=signed.tee_worker_pubkey,
                timestamp=chain.now(),
                worker=worker,
            ),
            "get_worker": lambda _: replace(row, worker=worker),
        }

        with pytest.raises(UntrustedWorkerError) as refused:
            client.result(job_id)
        assert refused.value.code == ("KeyMismatch" if posing else "WorkerNotEligible")
        # Elsewhere that can't be told, and it is said.
        elsewhere = owner.client(state_dir=world.folder / "elsewhere")
        assert not elsewhere.result(job_id).is_submission_known

    def test_a_key_of_the_worker_itself_that_leaked_later_does_not_choose_its_time(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        """Its evidence is judged at the signed time, so that is compared with the submission."""
        world, chain = owner.world, owner.world.chain.inside
        worker, once = owner.worker(valid_for=30 * DAY), chain.now()
        world.clock.advance(DAY)
        client = owner.client()
        job_id = client.submit(task, workers=[worker.worker])
        world.process(job_id, world.workers.index(worker))
        job = chain.read(world.processor.get_job(job_id))
        assert job is not None
        signed = _signed_at(owner, worker, job, once, b"FORGED")
        world.chain.answers["get_attestation"] = lambda attestation: replace(
            attestation,
            result_hash=signed.result_hash,
            attestation_proof=signed.attestation_proof,
        )
        world.chain.answers["get_job"] = lambda job: replace(job, created_at=once)

        with pytest.raises(RefusedError) as refused:
            client.result(job_id)
        assert refused.value.code == "StatementBeforeJob"

    def test_a_worker_of_another_version_than_it_is_registered_as_signs_nothing_that_is_shown(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        worker, policy = _of_a_revoked_version(owner)
        believing = owner.client(policy=None, trusted_node=True)
        job_id = believing.submit(task, workers=[worker.worker])
        owner.world.process(job_id, owner.world.workers.index(worker))

        with pytest.raises(RefusedError, match="registered with another measurement") as refused:
            owner.client(policy=policy).result(job_id)
        assert refused.value.code == "E09"

    @pytest.mark.parametrize("keys", [None, "workers"])
    def test_what_was_sealed_under_a_policy_is_not_opened_without_one(
        self, owner: PolicyWorld, task: TaskInput, keys: str | None
    ) -> None:
        """Accepted keys say who signed, and not that it met the policy."""
        job_id, worker = self._processed(owner, task)
        signer = owner.world.workers[worker - 1].signer.public_key
        client = owner.client(policy=None, accepted_worker_keys=[signer] if keys else None)
        policy_hash = owner.policy.policy_hash

        for opening in (client.result, client.failures):
            with pytest.raises(ConfigError, match=f"^policy: .*0x{policy_hash.hex()}.*--policy"):
                opening(job_id)

        believing = owner.client(policy=None, trusted_node=True).result(job_id)
        assert (believing.sealed_under, believing.evidence) == (policy_hash, None)
        # One that is not the one it was sealed under is one.
        another = replace(owner.policy, policy_hash=b"p" * 32)
        assert owner.client(policy=another).result(job_id).sealed_under == policy_hash

    def test_by_nobodys_word_no_result_is_opened(self, owner: PolicyWorld, task: TaskInput) -> None:
        """Neither of a job that was sealed by a node's word, nor of one that others submitted."""
        job_id = owner.client(policy=None, trusted_node=True).submit(task, workers=[1])
        owner.world.process(job_id)
        signer = owner.world.workers[0].signer.public_key
        elsewhere = {"state_dir": owner.world.folder / "elsewhere"}

        for changes in ({}, elsewhere):
            client = owner.client(policy=None, **changes)
            for opening in (client.result, client.failures):
                with pytest.raises(ConfigError, match=r"^trusted_node: .*no result"):
                    opening(job_id)

            named = owner.client(policy=None, accepted_worker_keys=[signer], **changes)
            assert named.result(job_id).output == b"SECRET WORDS"

    def test_what_was_signed_after_a_recovery_is_judged_by_it(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        """By the collateral of then, which the bundle holds, it would be up to date."""
        worker = owner.worker(valid_for=29 * DAY)
        source = Publishing(owner.simulator)
        client = owner.client(collateral=source)
        before, after = (client.submit(task, workers=[worker.worker]) for _ in range(2))
        owner.world.process(before, owner.world.workers.index(worker))
        owner.world.clock.advance(1_000)
        source.simulator = owner.simulator.tcb_recovery(now=owner.world.clock.now)
        source.issued_at = owner.world.clock.now
        owner.world.clock.advance(1_000)
        owner.world.process(after, owner.world.workers.index(worker))

        with pytest.raises(RefusedError) as refused:
            client.result(after)
        assert refused.value.code == "E05"
        assert client.result(before).evidence is not None
        # Without a source nobody told this owner.
        assert owner.client().result(after).evidence is not None

    def test_collateral_that_is_of_no_use_at_all_is_not_passed_over(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        job_id, _ = self._processed(owner, task)
        expired = owner.simulator.collateral(now=owner.world.clock.now - 60 * DAY)

        with pytest.raises(RefusedError) as refused:
            owner.client(collateral=StaleSource(expired)).result(job_id)
        assert refused.value.code == "E03"
        with pytest.raises(CollateralUnavailableError):
            owner.client(collateral=StaleSource(None)).result(job_id)

    def test_a_key_without_accepted_evidence_signs_nothing_that_is_shown(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        job_id, _ = self._processed(owner, task)
        strict = owner.client(policy=replace(owner.policy, measurements=()))

        with pytest.raises(RefusedError) as refused:
            strict.result(job_id)

        assert refused.value.code == "E09"
        assert "SECRET WORDS" not in str(refused.value)

    def test_a_worker_on_its_own_word_signs_nothing_that_is_shown(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        job_id = owner.client(policy=None, trusted_node=True).submit(task, workers=[1])
        owner.world.process(job_id)

        with pytest.raises(RefusedError) as refused:
            owner.client().result(job_id)

        assert refused.value.code == "NoEvidence"

    def test_a_report_of_a_failure_is_held_to_the_same(
        self, owner: PolicyWorld, task: TaskInput
    ) -> None:
        worker = owner.worker()
        client = owner.client()
        job_id = client.submit(task, workers=[worker.worker])
        owner.world.record(worker.fail(job_id, "TaskFailed", "why"))

        (shown,) = client.failures(job_id)
        strict = owner.client(policy=replace(owner.policy, measurements=()))
        (hidden,) = strict.failures(job_id)

        assert (shown.code, shown.message) == ("TaskFailed", "why")
        assert (hidden.code, hidden.message) == (None, None)
        assert hidden.trouble is not None
        assert hidden.trouble.startswith("E09")

    def test_evidence_out_of_reach_shows_nothing(self, owner: PolicyWorld, task: TaskInput) -> None:
        job_id, worker = self._processed(owner, task)
        owner.kept.delete(owner.world.workers[worker - 1].evidence_hash)
        client = owner.client(blob_sources=[NoBlobs()])

        with pytest.raises(BlobNotFoundError, match="evidence of worker"):
            client.result(job_id)


def test_jobs_are_sealed_in_one_place() -> None:
    """It takes recipients, whose types say why their keys are believed, and never bare keys."""
    package = Path(orchestrator.__file__).parent
    sealing = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "seal_job" in path.read_text(encoding="utf-8")
    }

    assert sealing == {"client/sealer.py", "crypto/__init__.py", "crypto/sealing.py"}
    assert get_type_hints(Sealer._seal_to)["recipients"] == Sequence[Recipient]
    assert get_type_hints(VerifiedRecipient)["evidence"] is VerifiedEvidence


async def test_asyncio_has_the_same(owner: PolicyWorld, task: TaskInput) -> None:
    worker = owner.worker()

    @contextmanager
    def opened() -> Any:  # noqa: ANN401 - a context manager of JobClient
        # Its thread closes it.
        owner.world.clients.remove(made := owner.client())
        with made:
            yield made

    async with AsyncJobClient(opened) as client:
        sealed = await client.seal(task)
        with pytest.raises(UntrustedWorkerError) as refused:
            await client.submit(task, workers=[1])

    assert refused.value.code == "NoEvidence"
    assert read_job_header(sealed.envelope).recipients[0] == worker.encryption_key
    assert owner.world.job_count() == 0
