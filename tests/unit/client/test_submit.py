"""Submitting: what is refused before anything is sent, and what happens exactly once."""

import contextlib
import stat
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from orchestrator.chain import Cursor, EventPage
from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.processor import JobProcessor
from orchestrator.client import JobClient, Submission
from orchestrator.client.chain_view import ChainView
from orchestrator.crypto import (
    AccountKey,
    EcdsaSigner,
    OwnerSecret,
    open_job,
    read_job_header,
    verify_job_header,
)
from orchestrator.encoding import encode_task_input
from orchestrator.errors import (
    ChainMismatchError,
    ChainUnavailableError,
    ConfigError,
    ContractError,
    ContractTrappedError,
    InputError,
    NotSentError,
    UntrustedWorkerError,
)
from orchestrator.models import (
    InlinePayload,
    JobStatus,
    Mode,
    Parameters,
    PublicKey,
    TaskInput,
    Worker,
)
from orchestrator.testing.chain import register_test_worker
from orchestrator.testing.owner_world import ADMIN, MEASUREMENT, OWNER, SECRET, World

T = TypeVar("T")


def _nothing_happened(world: World, client: JobClient) -> None:
    assert world.job_count() == 0
    assert world.chain.sent == 0
    assert client.unfinished() == []
    assert client.jobs(refresh=False) == []


class TestOfferedTasks:
    """Workers are asked what they offer, before anything is sealed."""

    @pytest.mark.parametrize(
        "offers",
        [
            {1: ("other",), 2: ("task",)},  # one offers it
            {1: ("other",)},  # the second does not say
            {},
        ],
    )
    def test_one_that_may_do_it_is_enough(
        self, world: World, offers: dict[int, tuple[str, ...]]
    ) -> None:
        client = world.client(offered_tasks=lambda _: offers)

        assert client.submit(TaskInput(task="task", input=b""), workers=[1, 2]) == 1

    def test_nobody_offers_it(self, world: World) -> None:
        client = world.client(offered_tasks=lambda _: {1: ("b", "a"), 2: ()})

        with pytest.raises(InputError, match=r"'task' is not on offer; worker 1, 2 offers a, b "):
            client.submit(TaskInput(task="task", input=b""), workers=[1, 2])

        _nothing_happened(world, client)

    def test_a_long_offer_is_cut(self, world: World) -> None:
        offer = tuple(f"t{number:03}" for number in range(21))
        client = world.client(offered_tasks=lambda _: {1: offer})

        with pytest.raises(InputError, match=r"t019, \.\.\. \(") as caught:
            client.submit(TaskInput(task="task", input=b""), workers=[1])

        assert "t020" not in str(caught.value)

    def test_each_worker_is_asked_once_for_many_jobs(self, world: World) -> None:
        asked: list[int] = []

        def offered(workers: Sequence[Worker]) -> dict[int, tuple[str, ...]]:
            asked.extend(worker.worker for worker in workers)
            return {1: ("task",)}

        client = world.client(offered_tasks=offered)
        jobs = [
            Submission(task=TaskInput(task="task", input=bytes([number])), workers=workers)
            for number, workers in enumerate([(1,), (2, 1), (1, 2)])
        ]

        assert client.submit_many(jobs) == [1, 2, 3]
        assert asked == [1, 2]

    def test_what_was_sealed_before_is_not_asked_about(self, world: World, task: TaskInput) -> None:
        world.client().submit(task, key="mine")
        client = world.client(offered_tasks=lambda _: {1: (), 2: ()})

        assert client.submit(task, key="mine") == 1


def _nested(levels: int) -> object:
    return [_nested(levels - 1)] if levels else []


def _finish(steps: Generator[object, None, T]) -> T:
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value


def test_submitted_job_is_what_a_worker_accepts(world: World, task: TaskInput) -> None:
    client = world.client()

    job_id = client.submit(task, workers=[2, 1], ttl_ms=120_000)

    job = world.chain.read(world.processor.get_job(job_id))
    assert job is not None
    assert job.owner == OWNER.account_id
    assert job.workers == (2, 1)
    assert job.deadline == job.created_at + 120_000
    assert isinstance(job.encrypted_payload, InlinePayload)
    recipients = [
        world.chain.read(world.processor.get_worker(worker)).encryption_key for worker in (2, 1)
    ]
    verify_job_header(
        read_job_header(job.encrypted_payload.data),
        genesis=world.chain.genesis_hash,
        contract=world.processor.contract,
        owner=OWNER.account_id,
        reply_key=job.public_key,
        recipients=recipients,
    )


def test_owner_can_read_the_own_job_again(world: World, task: TaskInput) -> None:
    job_id = world.client().submit(task)

    job = world.chain.read(world.processor.get_job(job_id))
    header = read_job_header(job.encrypted_payload.data)
    opened = open_job(job.encrypted_payload.data, SECRET.reply_key(header.nonce))

    assert opened.plaintext == encode_task_input(task)


def test_seal_sends_nothing(world: World, task: TaskInput) -> None:
    client = world.client()

    sealed = client.seal(task, workers=[1])

    assert sealed.header.owner == OWNER.account_id
    assert task.input not in sealed.envelope
    _nothing_happened(world, client)


def test_default_workers_are_up_to_two_trusted_ones(world: World, task: TaskInput) -> None:
    client = world.client()
    world.chain.call(world.processor.suspend_worker(1), signer=ADMIN)

    job_id = client.submit(task)

    assert world.chain.read(world.processor.get_job(job_id)).workers == (2,)


def test_default_workers_are_accepted_ones(world: World, task: TaskInput) -> None:
    client = world.client(accepted_worker_keys=[world.workers[1].signer.public_key])

    client.submit_many([Submission(task=task)] * 16)

    assert {job.workers for job in client.jobs()} == {(2,)}


def test_default_workers_have_usable_keys(world: World, task: TaskInput) -> None:
    """One that registered a key nothing can be sealed to does not spoil the others' jobs."""
    worker = register_test_worker(
        world.chain.inside,
        world.processor,
        EcdsaSigner.generate(),
        registrar=ADMIN,
        measurement=MEASUREMENT,
        encryption_key=(1).to_bytes(32, "little"),
    )
    client = world.client()

    client.submit_many([Submission(task=task)] * 16)

    chosen = [job.workers for job in client.jobs()]
    assert worker not in {worker for workers in chosen for worker in workers}
    assert {len(workers) for workers in chosen} == {2}


def test_the_list_knows_the_job(world: World, task: TaskInput) -> None:
    client = world.client()

    job_id = client.submit(task, workers=[1], key="patient 17")

    (listed,) = client.jobs()
    job = world.chain.read(world.processor.get_job(job_id))
    assert listed.job_id == job_id
    assert listed.key == "patient 17"
    assert listed.payload_hash == job.payload_hash
    assert listed.workers == (1,)
    assert listed.status is JobStatus.SUBMITTED
    assert not listed.purged


def test_nothing_secret_is_in_the_state_folder(world: World, task: TaskInput) -> None:
    client = world.client()
    client.submit(task)

    files = [path for path in (world.folder / "state").rglob("*") if path.is_file()]
    stored = b"".join(path.read_bytes() for path in files)

    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    assert stat.S_IMODE((world.folder / "state").stat().st_mode) == 0o700
    assert len([path for path in files if "sqlite3" in path.name]) >= 2, "the journal is there too"
    for secret in (task.input, SECRET.to_bytes(), OWNER.to_bytes(), OWNER.to_bytes()[:32]):
        assert secret not in stored


class TestChecksBeforeSending:
    def test_node_that_is_not_said_to_be_trusted(self, world: World, task: TaskInput) -> None:
        client = world.client(trusted_node=False)

        with pytest.raises(ConfigError, match=r"^trusted_node: "):
            client.submit(task)

        _nothing_happened(world, client)

    def test_payload_too_large(self, world: World) -> None:
        client = world.client()
        task = TaskInput(task="echo", input=bytes(8_192))

        with pytest.raises(
            InputError, match=r"payload: \d+ bytes when sealed, the contract's max_payload is 8192"
        ) as refused:
            client.submit(task)

        assert "larger payloads by reference come later" in str(refused.value)
        _nothing_happened(world, client)

    def test_largest_payload_that_fits_is_taken(self, make: Callable[..., World]) -> None:
        task = TaskInput(task="echo", input=bytes(3_000))
        length = len(make().client().seal(task, workers=[1]).envelope)
        exact, short = make(max_payload=length), make(max_payload=length - 1)

        assert exact.client().submit(task, workers=[1]) == 1
        with pytest.raises(
            InputError, match=f"payload: {length} bytes .*; about 2999 bytes of input fit"
        ):
            short.client().submit(task, workers=[1])
        assert short.job_count() == 0

    @pytest.mark.parametrize("ttl_ms", [0, 59_999, 604_800_001])
    def test_ttl_out_of_range(self, world: World, task: TaskInput, ttl_ms: int) -> None:
        client = world.client()

        with pytest.raises(InputError, match=f"ttl: {ttl_ms} ms, the contract takes 60000 to"):
            client.submit(task, ttl_ms=ttl_ms)

        _nothing_happened(world, client)

    @pytest.mark.parametrize("ttl_ms", [60_000, 604_800_000])
    def test_ttl_at_the_limits(self, world: World, task: TaskInput, ttl_ms: int) -> None:
        assert world.client().submit(task, ttl_ms=ttl_ms) == 1

    @pytest.mark.parametrize(
        ("workers", "message"),
        [
            ([], "0 given, 1 to 4"),
            ([1, 2, 3, 4, 5], "5 given, 1 to 4"),
            ([1, 1], "names one twice"),
        ],
    )
    def test_number_of_workers(
        self, world: World, task: TaskInput, workers: list[int], message: str
    ) -> None:
        client = world.client()

        with pytest.raises(InputError, match=message):
            client.submit(task, workers=workers)

        _nothing_happened(world, client)

    def test_unknown_worker(self, world: World, task: TaskInput) -> None:
        client = world.client()

        with pytest.raises(UntrustedWorkerError, match="there is no worker 9"):
            client.submit(task, workers=[9])

        _nothing_happened(world, client)

    @pytest.mark.parametrize("reason", ["suspended", "revoked", "measurement"])
    def test_worker_that_the_contract_does_not_trust(
        self, world: World, task: TaskInput, reason: str
    ) -> None:
        client = world.client()
        processor = world.processor
        call = {
            "suspended": processor.suspend_worker(1),
            "revoked": processor.revoke_worker(1, bytes(32)),
            "measurement": processor.revoke_measurement(MEASUREMENT),
        }[reason]
        world.chain.inside.call(call, signer=ADMIN)

        with pytest.raises(UntrustedWorkerError, match="worker 1 is not trusted"):
            client.submit(task, workers=[1])

        _nothing_happened(world, client)

    def test_node_whose_workers_do_not_advance(self, world: World, task: TaskInput) -> None:
        client = world.client()
        world.chain.answers["workers_page"] = lambda page: replace(page, next=1)

        with pytest.raises(ChainMismatchError, match=r"workers_page: .* go on at 1 after 1"):
            client.submit(task)

        _nothing_happened(world, client)

    def test_no_trusted_worker_at_all(self, world: World, task: TaskInput) -> None:
        client = world.client()
        world.chain.inside.call(world.processor.revoke_measurement(MEASUREMENT), signer=ADMIN)

        with pytest.raises(
            UntrustedWorkerError,
            match=r"\d registered, and no worker is trusted .*: phala-jobs workers list",
        ):
            client.submit(task)

        _nothing_happened(world, client)

    def test_no_worker_is_registered(
        self, world: World, task: TaskInput, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = world.client()
        monkeypatch.setattr(ChainView, "workers", lambda _: iter(()))

        with pytest.raises(UntrustedWorkerError, match="WorkerNotTrusted: no worker is registered"):
            client.submit(task)

        _nothing_happened(world, client)

    def test_worker_expired_by_the_own_clock_only(self, world: World, task: TaskInput) -> None:
        """A chain that stands still still says that the worker is trusted."""
        late = world.clock.now + 86_400_001
        client = world.client(clock=lambda: late)

        with pytest.raises(UntrustedWorkerError, match=f"it is {late}"):
            client.submit(task, workers=[1])

        _nothing_happened(world, client)

    def test_worker_expired_by_the_chain_only(self, world: World, task: TaskInput) -> None:
        early = world.clock.now
        client = world.client(clock=lambda: early)
        world.clock.advance(86_400_001)
        world.chain.answers["is_trusted"] = lambda _: True

        with pytest.raises(UntrustedWorkerError, match="registered until"):
            client.submit(task, workers=[1])

        _nothing_happened(world, client)

    def test_worker_at_its_last_millisecond(self, world: World, task: TaskInput) -> None:
        world.clock.advance(86_400_000)

        assert world.client().submit(task, workers=[1]) == 1

    @pytest.mark.parametrize(
        "value", [object(), {1: 2}, _nested(20)], ids=["object", "key", "deep"]
    )
    def test_task_that_has_no_encoding(self, world: World, value: object) -> None:
        client = world.client()

        with pytest.raises(InputError, match=r"^task: "):
            client.submit(TaskInput(task="echo", input=b"", parameters={"value": value}))

        _nothing_happened(world, client)

    def test_low_order_worker_key(self, world: World, task: TaskInput) -> None:
        client = world.client()
        worker = register_test_worker(
            world.chain.inside,
            world.processor,
            EcdsaSigner.generate(),
            registrar=ADMIN,
            measurement=MEASUREMENT,
            encryption_key=(1).to_bytes(32, "little"),
        )

        with pytest.raises(InputError, match=f"worker {worker}: its encryption key"):
            client.submit(task, workers=[worker])

        _nothing_happened(world, client)

    def test_worker_that_the_owner_does_not_accept(self, world: World, task: TaskInput) -> None:
        """Whatever the contract says: whoever is registrar must not become a reader."""
        client = world.client(accepted_worker_keys=[world.workers[1].signer.public_key])

        for workers in ([1], [2, 1]):
            with pytest.raises(UntrustedWorkerError, match="worker 1 is not one that this") as no:
                client.submit(task, workers=workers)
            assert no.value.code == "WorkerNotAccepted"

        _nothing_happened(world, client)
        assert client.submit(task, workers=[2]) == 1

    @pytest.mark.parametrize("accepted", [[], [EcdsaSigner.generate().public_key]])
    def test_no_accepted_worker_at_all(
        self, world: World, task: TaskInput, accepted: list[PublicKey]
    ) -> None:
        client = world.client(accepted_worker_keys=accepted)

        with pytest.raises(UntrustedWorkerError, match="accepted by this owner"):
            client.submit(task)

        _nothing_happened(world, client)

    def test_contract_deployed_for_another_chain(self, world: World, task: TaskInput) -> None:
        bundle = load_bundle()
        draft = JobProcessor(bytes(32), bundle)
        deployment = world.chain.deploy(
            bundle.code, draft.new(b"\7" * 32, Parameters()), signer=ADMIN
        )
        client = world.client(contract=deployment.contract)

        with pytest.raises(ChainMismatchError, match="deployed for the chain 0x0707"):
            client.submit(task)

        _nothing_happened(world, client)

    def test_no_contract(self, world: World, task: TaskInput) -> None:
        client = world.client(contract=bytes(32))

        with pytest.raises(ChainMismatchError, match="there is none at 0x0000"):
            client.submit(task)

        assert world.chain.sent == 0

    def test_contract_of_another_version(self, world: World, task: TaskInput) -> None:
        client = world.client()
        world.chain.answers["version"] = lambda _: 2

        with pytest.raises(ChainMismatchError, match="version 2, this program knows"):
            client.submit(task)

        del world.chain.answers["version"]
        _nothing_happened(world, client)

    def test_key_too_long_or_used_for_something_else(self, world: World, task: TaskInput) -> None:
        client = world.client()
        client.submit(task, key="a")

        for key, message in (("k" * 129, "129 characters"), ("", "0 characters")):
            with pytest.raises(InputError, match=message):
                client.submit(task, key=key)
        with pytest.raises(InputError, match="'a' was used for another submission"):
            client.submit(task, key="a", ttl_ms=60_000)

        assert world.job_count() == 1
        assert client.unfinished() == []


class TestRefusals:
    def test_contract_refuses_and_nothing_is_left(self, world: World, task: TaskInput) -> None:
        client = world.client()
        world.chain.inside.call(world.processor.set_mode(Mode.HALTED), signer=ADMIN)

        with pytest.raises(ContractError) as refused:
            client.submit(task, key="k")

        assert refused.value.variant == "WrongMode"
        assert client.unfinished() == []
        assert client.jobs(refresh=False) == []
        world.chain.inside.call(world.processor.set_mode(Mode.RUNNING), signer=ADMIN)
        assert client.submit(task, key="k") == 1, "a refused submission gives its key back"

    def test_rate_limit_of_a_single_submit_is_a_refusal(
        self, make: Callable[..., World], task: TaskInput
    ) -> None:
        world = make(rate_limit=1)
        client = world.client()
        client.submit(task)

        with pytest.raises(ContractError) as refused:
            client.submit(task)

        assert refused.value.variant == "RateLimited"
        assert world.slept == []
        assert client.unfinished() == []

    def test_trap_is_a_refusal(
        self, world: World, task: TaskInput, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        client = world.client()

        def trap(call: Any, *, signer: Any) -> None:  # noqa: ANN401 - as generic as the port
            raise ContractTrappedError

        monkeypatch.setattr(world.chain, "call", trap)
        with pytest.raises(ContractTrappedError):
            client.submit(task)

        assert client.unfinished() == []


class TestExactlyOnce:
    @pytest.mark.parametrize("fault", ["before", "after"])
    def test_unknown_outcome_then_the_same_again(
        self, world: World, task: TaskInput, fault: str
    ) -> None:
        client = world.client()
        world.chain.faults = [fault]
        with pytest.raises(ChainUnavailableError):
            client.submit(task)
        (unfinished,) = client.unfinished()
        assert unfinished.perhaps_sent
        assert client.jobs(refresh=False) == []

        job_id = client.submit(task)

        assert job_id == 1
        assert world.job_count() == 1
        assert client.unfinished() == []
        (listed,) = client.jobs()
        assert listed.payload_hash == unfinished.payload_hash, "the same bytes"
        assert world.chain.sent == 1

    @pytest.mark.parametrize("fault", ["before", "after"])
    def test_unknown_outcome_then_resume_by_another_process(
        self, world: World, task: TaskInput, fault: str
    ) -> None:
        client = world.client()
        world.chain.faults = [fault]
        with pytest.raises(ChainUnavailableError):
            client.submit(task)
        client.close()

        outcomes = world.client().resume()

        assert outcomes == [1]
        assert world.job_count() == 1

    def test_resume_without_anything_to_do_sends_nothing(
        self, world: World, task: TaskInput
    ) -> None:
        client = world.client()
        client.submit(task)

        assert client.resume() == []
        assert world.chain.sent == 1

    def test_other_content_is_another_job(self, world: World, task: TaskInput) -> None:
        client = world.client()
        world.chain.faults = ["before"]
        with pytest.raises(ChainUnavailableError):
            client.submit(task)

        client.submit(TaskInput(task="echo", input=b"other"))

        assert world.job_count() == 1
        assert len(client.unfinished()) == 1

    def test_finished_submission_made_again_is_a_new_job(
        self, world: World, task: TaskInput
    ) -> None:
        client = world.client()

        assert [client.submit(task), client.submit(task)] == [1, 2]

    def test_key_makes_it_the_same_job_for_ever(self, world: World, task: TaskInput) -> None:
        first = world.client().submit(task, key="k")
        world.process(first)

        assert world.client().submit(task, key="k") == first
        assert world.job_count() == 1

    def test_key_and_unknown_outcome(self, world: World, task: TaskInput) -> None:
        client = world.client()
        world.chain.faults = ["after"]
        with pytest.raises(ChainUnavailableError):
            client.submit(task, key="k")

        assert client.submit(task, key="k") == 1
        assert world.job_count() == 1

    def test_job_of_an_unknown_outcome_that_was_purged_meanwhile(
        self, world: World, task: TaskInput
    ) -> None:
        """`jobs_page` does not know it any more; the events do."""
        client = world.client()
        world.chain.faults = ["after"]
        with pytest.raises(ChainUnavailableError):
            client.submit(task)
        elsewhere = world.client(state_dir=world.folder / "elsewhere")
        elsewhere.cancel(1)
        elsewhere.purge(1)

        assert client.submit(task) == 1
        assert world.job_count() == 1
        assert client.status(1) is JobStatus.CANCELLED

    def test_node_whose_jobs_do_not_advance(self, world: World, task: TaskInput) -> None:
        client = world.client()
        world.chain.faults = ["after"]
        with pytest.raises(ChainUnavailableError):
            client.submit(task)
        world.chain.answers["jobs_page"] = lambda page: replace(page, next=1, items=())

        with pytest.raises(ChainMismatchError, match=r"jobs_page: .* go on at 1 after 1"):
            client.resume()

        assert len(client.unfinished()) == 1
        assert world.chain.sent == 1

    def test_node_that_keeps_no_events(
        self, world: World, task: TaskInput, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """`jobs_page` is enough for a job that exists."""
        client = world.client()
        world.chain.faults = ["after"]
        with pytest.raises(ChainUnavailableError):
            client.submit(task)

        def events(contract: bytes, *, after: Cursor, limit: int) -> EventPage:
            return EventPage(events=(), next=after)

        monkeypatch.setattr(world.chain.inside, "events", events)

        assert client.submit(task) == 1
        assert world.job_count() == 1

    def test_list_and_chain_are_written_under_the_lock(
        self, world: World, task: TaskInput, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """So that what another process finds unfinished really was left behind."""
        client = world.client()
        original = client._list.sending_lock
        held: list[bool] = []
        seen: list[str] = []

        @contextlib.contextmanager
        def lock() -> Iterator[None]:
            with original():
                held.append(True)
                yield
                held.pop()

        def watch(owner: object, name: str) -> None:
            inner = getattr(owner, name)

            def watched(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever it takes
                assert held, name
                seen.append(name)
                return inner(*args, **kwargs)

            monkeypatch.setattr(owner, name, watched)

        monkeypatch.setattr(client._list, "sending_lock", lock)
        for name in ("unfinished_entries", "add", "state_of", "mark", "mark_submitted"):
            watch(client._list, name)
        watch(world.chain, "call")

        client.submit(task)

        assert set(seen) == {
            "unfinished_entries",
            "add",
            "state_of",
            "mark",
            "call",
            "mark_submitted",
        }

    def test_jobs_of_others_do_not_hide_the_own(self, world: World, task: TaskInput) -> None:
        """The scan goes from the counter of then over all pages."""
        client = world.client()
        bob = world.client(account=AccountKey.from_uri("//Bob"), state_dir=world.folder / "bob")
        world.chain.faults = ["after"]
        with pytest.raises(ChainUnavailableError):
            client.submit(task)
        bob.submit_many([Submission(task=task, ttl_ms=60_000)] * 55)

        assert client.submit(task) == 1
        assert world.job_count() == 56

    def test_owners_and_contracts_have_lists_of_their_own(
        self, world: World, task: TaskInput
    ) -> None:
        world.client().submit(task)
        bob = world.client(account=AccountKey.from_uri("//Bob"))

        assert bob.jobs() == []

    def test_changed_bytes_are_not_sent(self, world: World, task: TaskInput) -> None:
        """And do not keep the others back."""
        client = world.client()
        world.chain.faults = ["before", "before"]
        for key in ("a", "b"):
            with pytest.raises(ChainUnavailableError):
                client.submit(task, key=key)
        client._list._file.run("UPDATE entries SET envelope = zeroblob(300) WHERE key = 'a'")

        changed, submitted = client.resume()

        assert isinstance(changed, NotSentError)
        assert str(changed).startswith("not sent: PayloadMismatch (")
        assert submitted == 1
        assert world.chain.sent == 1
        assert client.unfinished() == []


class TestSeveralAtOnce:
    """Two clients stand for two processes: nothing that they share is in memory."""

    def test_the_same_content_is_a_job_for_each(self, world: World, task: TaskInput) -> None:
        client, other = world.client(), world.client()
        steps = client.submit_steps([Submission(task=task)] * 20)
        assert next(steps).submitted == 16

        assert other.submit_many([Submission(task=task)] * 4) == [17, 18, 19, 20]

        assert _finish(steps) == [*range(1, 17), *range(21, 25)]
        assert world.job_count() == 24

    def test_a_refusal_of_the_same_content_is_not_the_others(
        self, make: Callable[..., World], task: TaskInput
    ) -> None:
        world = make(rate_limit=1, rate_window=10_000)
        client, other = world.client(), world.client()
        steps = client.submit_steps([Submission(task=task)] * 2)
        next(steps)

        with pytest.raises(ContractError) as refused:
            other.submit(task)

        assert refused.value.variant == "RateLimited"
        world.clock.advance(10_001)
        assert _finish(steps) == [1, 2]
        assert client.unfinished() == []

    def test_resume_leaves_the_living_alone(self, world: World, task: TaskInput) -> None:
        client, other = world.client(), world.client()
        steps = client.submit_steps([Submission(task=task)] * 20)
        next(steps)

        assert other.unfinished() == []
        assert other.resume() == []

        assert world.job_count() == 16
        assert _finish(steps) == list(range(1, 21))

    @pytest.mark.parametrize("end", ["steps", "client"])
    def test_what_was_given_up_is_finished_by_others(
        self, world: World, task: TaskInput, end: str
    ) -> None:
        client, other = world.client(), world.client()
        steps = client.submit_steps([Submission(task=task)] * 20)
        next(steps)

        ends = {"steps": steps.close, "client": client.close}
        ends[end]()

        assert len(other.unfinished()) == 4
        assert other.submit_many([Submission(task=task)] * 5) == [17, 18, 19, 20, 21]
        assert world.job_count() == 21

    def test_the_same_key_is_one_job_whoever_sends_it(self, world: World) -> None:
        client, other = world.client(), world.client()
        submissions = _keyed(20)
        steps = client.submit_steps(submissions)
        next(steps)

        assert other.submit_many(submissions) == list(range(1, 21))

        assert _finish(steps) == list(range(1, 21))
        assert world.job_count() == 20

    def test_who_does_not_hold_an_entry_does_not_give_it_up(
        self, make: Callable[..., World]
    ) -> None:
        world = make(rate_limit=1, rate_window=10_000)
        client, other = world.client(), world.client()
        submissions = _keyed(2)
        steps = client.submit_steps(submissions)
        next(steps)

        with pytest.raises(ContractError) as refused:
            other.submit(submissions[1].task, workers=[1], key=submissions[1].key)

        assert refused.value.variant == "RateLimited"
        world.clock.advance(10_001)
        assert _finish(steps) == [1, 2]

    def test_who_accepts_fewer_workers_does_not_give_it_up(self, world: World) -> None:
        client = world.client()
        other = world.client(accepted_worker_keys=[])
        submissions = _keyed(17)
        steps = client.submit_steps(submissions)
        next(steps)

        with pytest.raises(NotSentError) as refused:
            other.submit(submissions[16].task, workers=[1], key=submissions[16].key)

        assert refused.value.variant == "WorkerNotAccepted"
        assert world.chain.sent == 16
        assert _finish(steps) == list(range(1, 18))

    def test_what_its_holder_gave_up_is_given_up(self, make: Callable[..., World]) -> None:
        world = make(rate_limit=1, rate_window=10_000)
        client, other = world.client(), world.client()
        submissions = _keyed(2)
        steps = client.submit_steps(submissions)
        next(steps)
        same = other.submit_steps(submissions)
        next(same)
        world.clock.advance(10_001)
        world.chain.inside.call(world.processor.set_mode(Mode.HALTED), signer=ADMIN)

        (_, refused), (_, also) = _finish(steps), _finish(same)

        assert isinstance(refused, ContractError)
        assert isinstance(also, ContractError)
        assert (refused.variant, also.variant) == ("WrongMode", "WrongMode")
        assert "when another process sent it" in str(also)
        assert world.job_count() == 1
        assert client.unfinished() == []


class TestTrustLostAfterSealing:
    """A payload that was sealed is published only while its workers are trusted."""

    @pytest.mark.parametrize("reason", ["suspended", "revoked", "measurement"])
    def test_nothing_more_is_sent(
        self, make: Callable[..., World], task: TaskInput, reason: str
    ) -> None:
        world = make(rate_limit=1, rate_window=10_000)
        client = world.client()
        steps = client.submit_steps(
            [Submission(task=task, workers=(1,)), Submission(task=task, workers=(2, 1))]
        )
        next(steps)
        processor = world.processor
        call = {
            "suspended": processor.suspend_worker(1),
            "revoked": processor.revoke_worker(1, bytes(32)),
            "measurement": processor.revoke_measurement(MEASUREMENT),
        }[reason]
        world.chain.inside.call(call, signer=ADMIN)
        world.clock.advance(10_001)

        first, second = _finish(steps)

        assert first == 1
        assert isinstance(second, NotSentError)
        assert second.variant == "WorkerNotTrusted"
        assert world.chain.sent == 1
        assert client.unfinished() == []

    def test_the_others_are_sent(self, world: World, task: TaskInput) -> None:
        client = world.client()
        world.chain.faults = ["before"]
        with pytest.raises(ChainUnavailableError):
            client.submit_many([Submission(task=task, workers=(1 + n % 2,)) for n in range(4)])
        world.chain.inside.call(world.processor.revoke_worker(1, bytes(32)), signer=ADMIN)

        outcomes = client.resume()

        assert outcomes[1::2] == [1, 2]
        assert all(isinstance(outcome, NotSentError) for outcome in outcomes[::2])
        assert world.chain.sent == 2

    def test_trust_is_asked_for_once_a_group(self, world: World, task: TaskInput) -> None:
        client = world.client()
        world.chain.reads.clear()

        client.submit_many([Submission(task=task, workers=(1, 2))] * 16)

        assert world.chain.reads.count("is_trusted") == 4, "before sealing, and before sending"

    def test_worker_that_the_owner_does_not_accept_any_more(
        self, world: World, task: TaskInput
    ) -> None:
        world.chain.faults = ["before"]
        with pytest.raises(ChainUnavailableError):
            world.client().submit(task, workers=[1])
        client = world.client(accepted_worker_keys=[world.workers[1].signer.public_key])

        (outcome,) = client.resume()

        assert isinstance(outcome, NotSentError)
        assert outcome.variant == "WorkerNotAccepted"
        assert world.chain.sent == 0

    def test_a_submit_says_so_and_leaves_nothing_behind(
        self, world: World, task: TaskInput
    ) -> None:
        client = world.client()
        world.chain.faults = ["before"]
        with pytest.raises(ChainUnavailableError):
            client.submit(task, workers=[1], key="k")
        world.chain.inside.call(world.processor.suspend_worker(1), signer=ADMIN)

        with pytest.raises(NotSentError, match=r"^not sent: WorkerNotTrusted \(worker 1 has lost"):
            client.submit(task, workers=[1], key="k")

        assert client.unfinished() == []
        world.chain.inside.call(world.processor.reinstate_worker(1), signer=ADMIN)
        assert client.submit(task, workers=[1], key="k") == 1, "the key is given back"


def _keyed(count: int) -> list[Submission]:
    return [
        Submission(
            task=TaskInput(task="echo", input=f"input {number}".encode()),
            workers=(1,),
            key=f"key {number}",
        )
        for number in range(count)
    ]


def test_state_folder_of_others_is_refused(world: World, tmp_path: Path) -> None:
    (world.folder / "open").mkdir(mode=0o755)

    with pytest.raises(InputError, match="lets other users in"):
        world.client(state_dir=world.folder / "open")


def test_secret_is_not_shown(world: World) -> None:
    client = world.client(secret=OwnerSecret.from_bytes(b"S" * 32))

    assert "S" * 32 not in repr(client)
    assert (b"S" * 32).hex() not in repr(client)


def test_what_is_to_be_sealed_is_not_shown() -> None:
    task = TaskInput(task="echo", input=b"PLAIN words", parameters={"PLAIN name": "PLAIN value"})

    for shown in (repr(task), repr(Submission(task=task, workers=(1,)))):
        assert "PLAIN" not in shown
        assert "echo" in shown


def test_recipients_are_the_keys_on_the_chain(world: World, task: TaskInput) -> None:
    sealed = world.client().seal(task, workers=[1, 2])

    keys = [world.chain.read(world.processor.get_worker(w)).encryption_key for w in (1, 2)]
    assert list(sealed.header.recipients) == [*keys, sealed.header.reply_key]


def test_what_a_submission_would_cost_is_asked_and_nothing_is_sent(
    world: World, task: TaskInput
) -> None:
    client = world.client()

    estimate = client.estimate(task, workers=[2, 1], ttl_ms=120_000)

    assert estimate.value == 1
    assert estimate.cost is None
    _nothing_happened(world, client)


def test_an_estimate_says_what_the_contract_would_refuse(world: World, task: TaskInput) -> None:
    world.chain.inside.call(world.processor.set_mode(Mode.DRAINING), signer=ADMIN)

    with pytest.raises(ContractError, match="WrongMode"):
        world.client().estimate(task)


def test_who_wants_to_know_is_told_of_every_call(world: World, task: TaskInput) -> None:
    told: list[object] = []
    client = world.client(on_receipt=lambda receipt: told.append(receipt.value))

    first, second = client.submit(task), client.submit(task)
    client.cancel(first)
    client.purge(first)
    client.submit(task, key="k")
    client.submit(task, key="k")

    assert told == [first, second, None, None, 3]


def test_a_client_decodes_by_the_build_that_it_is_given(world: World, task: TaskInput) -> None:
    other = replace(load_bundle(), version="9.9.9")

    client = world.client(bundle=other)

    assert client.submit(task) == 1
    assert client._view.processor.bundle is other
