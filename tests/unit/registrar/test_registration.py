"""Registering and renewing: on verified evidence alone, and whatever is refused changes nothing."""

from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.attestation import CheckOutcome
from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.crypto import EcdsaSigner
from orchestrator.encoding import blake2_256
from orchestrator.errors import (
    BlobUnavailableError,
    ChainUnavailableError,
    CollateralUnavailableError,
    ContractError,
    EncodingError,
    InputError,
    InvalidSignatureError,
    RefusedError,
    WorkerRefusedError,
)
from orchestrator.evidence import (
    Collateral,
    EvidenceCheck,
    EvidenceError,
    TdxMeasurements,
    VerifiedEvidence,
    load_bundle,
)
from orchestrator.models import WorkerStatus
from orchestrator.registrar import (
    EvidenceArchive,
    platform_ids,
    registration_of,
    rotate_keys,
)
from orchestrator.registrar.registration import CLOCK_MARGIN_MS
from orchestrator.testing.flaky_chain import Fault, FlakyChain
from tests.unit.registrar.world import (
    ADMIN,
    DAY,
    HOUR,
    POLICY_FILE,
    STRANGER,
    URL,
    World,
    lose_call,
)

Spoil = Callable[[World, pytest.MonkeyPatch], None]


async def test_a_worker_is_registered_on_what_was_verified(world: World) -> None:
    worker = await world.register()

    identity = await world.worker.identity()
    found = world.read(worker.worker)
    assert found == worker
    assert found.signing_key == identity.signing_key
    assert found.encryption_key == identity.encryption_key
    assert found.measurement == world.measurement
    assert found.endpoint == URL.encode()
    assert found.valid_until == world.clock() + world.policy.maximum_registration
    assert found.status is WorkerStatus.ACTIVE


async def test_evidence_policy_and_record_are_kept_and_the_worker_has_its_evidence(
    world: World,
) -> None:
    worker = await world.register()

    data = world.blobs.get(worker.evidence_hash, max_bytes=1 << 20)
    bundle = load_bundle(data)
    assert world.worker.evidence_kept == {worker.evidence_hash: data}
    assert bundle.policy_hash == blake2_256(POLICY_FILE)
    assert world.blobs.get(blake2_256(POLICY_FILE), max_bytes=100) == POLICY_FILE
    (record,) = world.records()
    assert record["worker"] == worker.worker
    assert record["evidence_hash"] == worker.evidence_hash.hex()
    assert record["valid_until"] == worker.valid_until
    assert record["is_simulated"] is True
    checks = record["checks"]
    assert isinstance(checks, list)
    assert [row["code"] for row in checks] == [check.value for check in EvidenceCheck]
    assert {row["outcome"] for row in checks} <= {"passed", "not checked"}


async def test_all_checks_that_can_be_made_are_made(world: World) -> None:
    examined = await world.registrar().examine(world.worker, url=URL)

    outcomes = {finding.check: finding.outcome for finding in examined.verdict.findings}
    assert set(outcomes) == set(EvidenceCheck)
    assert set(outcomes.values()) == {CheckOutcome.PASSED}


async def test_each_attempt_has_a_challenge_of_its_own(world: World) -> None:
    first = await world.registrar().examine(world.worker, url=URL)
    second = await world.registrar().examine(world.worker, url=URL)

    challenges = {one.evidence.bundle.challenge for one in (first, second)}
    assert len(challenges) == 2
    assert {len(challenge) for challenge in challenges} == {32}


# What is refused.


def _out_of_date(world: World, _: pytest.MonkeyPatch) -> None:
    world.change_simulator(lambda simulator: simulator.with_status("OutOfDate"))


def _other_software(world: World, _: pytest.MonkeyPatch) -> None:
    world.change_simulator(
        lambda simulator: replace(
            simulator, guest=replace(simulator.guest, compose=b'{"name":"another"}')
        )
    )


def _old_evidence(world: World, patch: pytest.MonkeyPatch) -> None:
    honest = world.worker.evidence

    async def replayed(**asked: object) -> bytes:
        return await honest(**{**asked, "challenge": b"\x01" * 32})  # type: ignore[arg-type]  # as asked

    patch.setattr(world.worker, "evidence", replayed)


def _evidence_of_another(world: World, patch: pytest.MonkeyPatch) -> None:
    another = world.another_worker()

    async def borrowed(**asked: object) -> bytes:
        return await another.evidence(**{**asked, "signing_key": None})  # type: ignore[arg-type]  # as asked

    patch.setattr(world.worker, "evidence", borrowed)


def _garbage(world: World, patch: pytest.MonkeyPatch) -> None:
    async def garbage(**_: object) -> bytes:
        return b"\x00garbage"

    patch.setattr(world.worker, "evidence", garbage)


@pytest.mark.parametrize(
    ("spoil", "code"),
    [
        (_garbage, "E01"),
        (_out_of_date, "E05"),
        (_old_evidence, "E13"),
        (_evidence_of_another, "E12"),
    ],
)
async def test_refused_evidence_registers_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch, spoil: Spoil, code: str
) -> None:
    spoil(world, monkeypatch)
    before = world.head()

    with pytest.raises(EvidenceError) as refused:
        await world.register()

    assert refused.value.code == code
    assert world.head() == before
    assert world.worker.evidence_kept == {}
    assert not any(world.folder.glob("*/*"))


async def test_other_software_registers_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _other_software(world, monkeypatch)
    before = world.head()

    with pytest.raises(EvidenceError) as refused:
        await world.register()

    assert refused.value.code in ("E09", "E11")
    assert world.head() == before


async def test_keys_that_are_registered_are_not_registered_again(world: World) -> None:
    await world.register()
    before = world.head()

    with pytest.raises(EvidenceError) as refused:
        await world.register()

    assert refused.value.code == "E14"
    assert world.head() == before


async def test_a_measurement_that_the_contract_does_not_allow_is_named(world: World) -> None:
    world.chain.call(world.processor.revoke_measurement(world.measurement), signer=ADMIN)
    before = world.head()

    with pytest.raises(RefusedError) as refused:
        await world.register()

    assert refused.value.code == "MeasurementNotAllowed"
    assert f"phala-jobs measurements allow {world.measurement.hex()}" in str(refused.value)
    assert world.head() == before
    assert world.worker.evidence_kept == {}


async def test_possession_of_another_key_registers_nobody(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    stolen, thief = world.worker, EcdsaSigner.generate()
    before = world.head()
    monkeypatch.setattr(stolen.signer, "sign", thief.sign)

    with pytest.raises(InvalidSignatureError):
        await world.register()

    assert world.head() == before
    assert not any(world.folder.glob("*/*"))


async def test_a_worker_that_does_not_keep_its_evidence_is_not_registered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(_: bytes) -> bytes:
        raise WorkerRefusedError(507, "full")

    monkeypatch.setattr(world.worker, "put_evidence", refuse)
    before = world.head()

    with pytest.raises(WorkerRefusedError):
        await world.register()

    assert world.head() == before
    assert world.records() == []
    assert [path.read_bytes() for path in _kept(world)] == [POLICY_FILE]


async def test_what_may_be_registered_all_the_same_is_kept(world: World) -> None:
    faults = [*[Fault.BEFORE] * 3, None]
    world.wrapped = FlakyChain(world.chain, lose_call("register_worker", faults))

    with pytest.raises(ChainUnavailableError):
        await world.register()

    (digest,) = world.worker.evidence_kept
    assert world.blobs.has(digest)
    assert world.records() == []


async def test_a_record_that_can_not_be_written_undoes_no_registration(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object, **__: object) -> None:
        raise BlobUnavailableError("the disk is full")

    monkeypatch.setattr(EvidenceArchive, "write_record", full)

    worker = await world.register()

    assert world.read(1) == worker
    assert "ALARM: worker 1: no record is kept: the disk is full" in caplog.text


def _kept(world: World) -> list[Path]:
    """The blobs in the registrar's folder."""
    return [path for path in world.folder.rglob("*") if path.is_file()]


async def test_what_can_not_be_kept_is_not_registered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    registrar = world.registrar()

    def full(*_: bytes) -> None:
        raise BlobUnavailableError("the disk is full")

    monkeypatch.setattr(registrar.archive, "keep", full)
    examined = await registrar.examine(world.worker, url=URL)
    before = world.head()

    with pytest.raises(BlobUnavailableError):
        await registrar.admit(world.worker, examined)

    assert world.head() == before
    assert world.worker.evidence_kept == {}


async def test_an_account_without_the_role_registers_nobody(world: World) -> None:
    world.account = STRANGER
    before = world.head()

    with pytest.raises(ContractError, match="MissingRole"):
        await world.register()

    assert world.head() == before
    assert world.receipts == []
    assert world.worker.evidence_kept == {}
    assert not any(world.folder.glob("*/*"))


async def test_evidence_that_got_old_since_it_was_verified_registers_nobody(world: World) -> None:
    registrar = world.registrar()
    examined = await registrar.examine(world.worker, url=URL)
    before = world.head()
    world.clock.advance(world.policy.maximum_age + 1)

    with pytest.raises(EvidenceError) as refused:
        await registrar.admit(world.worker, examined)

    assert refused.value.code == "E13"
    assert world.head() == before
    assert world.worker.evidence_kept == {}


async def test_collateral_that_ended_since_it_was_verified_registers_nobody(world: World) -> None:
    world.set_policy(maximum_age=30 * DAY)
    world.machine.collateral_for = HOUR
    registrar = world.registrar()
    examined = await registrar.examine(world.worker, url=URL)
    before = world.head()
    world.clock.advance(HOUR + 1)

    with pytest.raises(EvidenceError) as refused:
        await registrar.admit(world.worker, examined)

    assert refused.value.code == "E03"
    assert world.head() == before


async def test_keys_that_were_revoked_since_they_were_verified_are_not_renewed(
    world: World,
) -> None:
    worker = await world.register()
    world.clock.advance(5 * DAY)
    registrar = world.registrar()
    examined = await registrar.examine(world.worker, url=URL, renews=worker)
    world.chain.call(world.processor.revoke_worker(1, bytes(32)), signer=ADMIN)
    before = world.head()

    with pytest.raises(EvidenceError) as refused:
        await registrar.admit(world.worker, examined)

    assert refused.value.code == "E14"
    assert world.head() == before


async def test_collateral_of_our_own_source_replaces_the_workers(world: World) -> None:
    ours = world.machine.simulator.collateral(now=world.clock(), valid_for=2 * DAY)

    registrar = world.registrar(_Source(ours))
    examined = await registrar.examine(world.worker, url=URL)

    assert examined.evidence.bundle.collateral == ours
    assert examined.evidence.valid_until <= world.clock() + 2 * DAY


async def test_without_collateral_of_our_own_source_nothing_is_taken_from_the_worker(
    world: World,
) -> None:
    with pytest.raises(CollateralUnavailableError):
        await world.registrar(_Source(None)).examine(world.worker, url=URL)


class _Source:
    """Gives what it was made with."""

    def __init__(self, collateral: Collateral | None) -> None:
        self._collateral = collateral

    def collateral(self, quote: bytes, *, now: int) -> Collateral:
        del quote, now
        if self._collateral is None:
            raise CollateralUnavailableError
        return self._collateral

    def close(self) -> None:
        """Nothing is open."""


# How long.


async def test_it_lasts_as_long_as_the_shortest_limit(world: World) -> None:
    registrar = world.registrar()
    examined = await registrar.examine(world.worker, url=URL)

    admission = await registrar.admit(world.worker, examined, valid_for=5 * HOUR)

    assert admission.worker.valid_until == world.clock() + 5 * HOUR


async def test_collateral_that_ends_sooner_ends_the_registration(world: World) -> None:
    world.machine.collateral_for = 3 * DAY

    worker = await world.register()

    assert world.clock() + 2 * DAY < worker.valid_until <= world.clock() + 3 * DAY


async def test_the_contracts_limit_is_kept_with_a_margin_for_its_clock(world: World) -> None:
    limits = world.chain.read(world.processor.parameters())
    shorter = replace(limits, max_registration=2 * HOUR)
    world.chain.call(world.processor.set_parameters(shorter), signer=ADMIN)

    worker = await world.register()

    assert worker.valid_until == world.clock() + 2 * HOUR - CLOCK_MARGIN_MS


async def test_what_has_ended_already_is_not_registered(world: World) -> None:
    registrar = world.registrar()
    examined = await registrar.examine(world.worker, url=URL)
    before = world.head()

    with pytest.raises(RefusedError, match="ValidityOutOfRange"):
        await registrar.admit(world.worker, examined, valid_for=0)

    assert world.head() == before


async def test_a_registration_is_never_longer_than_its_evidence(world: World) -> None:
    evidence = (await world.registrar().examine(world.worker, url=URL)).evidence

    with pytest.raises(RefusedError, match="ValidityOutOfRange"):
        registration_of(evidence, endpoint=b"", valid_until=evidence.valid_until + 1)


def test_a_registration_can_not_be_made_of_anything_else() -> None:
    with pytest.raises(TypeError):
        VerifiedEvidence(made_by=object())  # type: ignore[call-arg]  # nobody else can make one


async def test_what_only_looks_like_verified_evidence_is_not_registered(world: World) -> None:
    evidence = (await world.registrar().examine(world.worker, url=URL)).evidence
    facts = {field.name: getattr(evidence, field.name) for field in fields(evidence)}
    alike = SimpleNamespace(**facts)

    made = registration_of(evidence, endpoint=b"", valid_until=evidence.valid_until)
    assert made.measurement == evidence.measurement
    with pytest.raises(TypeError, match="only verified evidence"):
        registration_of(alike, endpoint=b"", valid_until=evidence.valid_until)  # type: ignore[arg-type]


# Renewing.


async def test_renewing_extends_on_new_evidence(world: World) -> None:
    worker = await world.register()
    world.clock.advance(5 * DAY)

    admission = await world.registrar().renew(world.worker, worker)

    found = world.read(worker.worker)
    assert found == admission.worker
    assert found.worker == worker.worker
    assert found.valid_until == world.clock() + world.policy.maximum_registration
    assert found.evidence_hash != worker.evidence_hash
    assert world.blobs.has(found.evidence_hash)
    assert [record["worker"] for record in world.records()] == [worker.worker] * 2


async def test_a_renewal_that_gains_nothing_is_not_sent(world: World) -> None:
    worker = await world.register()
    before = world.head()

    with pytest.raises(RefusedError, match="NothingGained"):
        await world.registrar().renew(world.worker, worker)

    assert world.head() == before
    assert world.read(worker.worker) == worker


async def test_a_platform_that_is_out_of_date_by_now_is_not_renewed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = await world.register()
    world.clock.advance(5 * DAY)
    _out_of_date(world, monkeypatch)

    with pytest.raises(EvidenceError) as refused:
        await world.registrar().renew(world.worker, worker)

    assert refused.value.code == "E05"
    assert world.read(worker.worker) == worker


async def test_a_revoked_worker_is_not_renewed(world: World) -> None:
    worker = await world.register()
    world.chain.call(world.processor.revoke_worker(worker.worker, bytes(32)), signer=ADMIN)
    world.clock.advance(DAY)
    before = world.head()

    with pytest.raises(EvidenceError) as refused:
        await world.registrar().renew(world.worker, world.read(worker.worker))

    assert refused.value.code == "E14"
    assert world.head() == before


async def test_somebody_else_at_the_workers_url_is_not_renewed(world: World) -> None:
    worker = await world.register()
    world.clock.advance(5 * DAY)

    with pytest.raises(RefusedError, match="AnotherWorkerAnswers"):
        await world.registrar().renew(world.another_worker(), worker)

    assert world.read(worker.worker) == worker


async def test_a_worker_whose_set_left_the_policy_is_not_renewed(world: World) -> None:
    worker = await world.register()
    world.clock.advance(5 * DAY)
    world.set_policy(measurements=())

    with pytest.raises(RefusedError, match="MeasurementNotInPolicy"):
        await world.registrar().renew(world.worker, worker)

    assert world.read(worker.worker) == worker


async def test_of_two_sets_that_match_the_registered_one_renews(world: World) -> None:
    worker = await world.register()
    world.clock.advance(5 * DAY)
    registered = world.policy.measurements[0]
    assert isinstance(registered, TdxMeasurements)
    world.add_measurements(replace(registered, name="wider", app_id=None))

    admission = await world.registrar().renew(world.worker, worker)

    assert admission.evidence.measurement == worker.measurement
    assert admission.evidence.measurement_set == registered.name


# Rotating.


async def test_rotated_keys_are_a_new_worker_and_the_old_one_stays(world: World) -> None:
    old = await world.register()
    registrar = world.registrar()

    identity = await rotate_keys(registrar, world.worker, old)
    new = await world.register()

    assert new.worker == old.worker + 1
    assert new.endpoint == old.endpoint
    assert new.signing_key == identity.signing_key != old.signing_key
    assert new.encryption_key != old.encryption_key
    assert world.read(old.worker) == old


async def test_a_rotation_that_was_interrupted_goes_on_with_the_same_keys(world: World) -> None:
    old = await world.register()
    first = await rotate_keys(world.registrar(), world.worker, old)

    second = await rotate_keys(world.registrar(), world.worker, old)

    assert second.signing_key == first.signing_key
    assert second.retired_keys == (old.signing_key,)


async def test_meanwhile_the_old_keys_can_be_renewed(world: World) -> None:
    old = await world.register()
    await rotate_keys(world.registrar(), world.worker, old)
    world.clock.advance(5 * DAY)

    admission = await world.registrar().renew(world.worker, old)

    assert admission.worker.signing_key == old.signing_key
    assert admission.worker.valid_until > old.valid_until


async def test_an_older_worker_is_not_rotated_in_place_of_its_successor(world: World) -> None:
    old = await world.register()
    await rotate_keys(world.registrar(), world.worker, old)
    await world.register()
    keys = await world.worker.identity()

    with pytest.raises(RefusedError, match="worker 2 answers"):
        await rotate_keys(world.registrar(), world.worker, old)

    assert await world.worker.identity() == keys


async def test_a_stranger_at_the_workers_url_is_not_asked_for_keys(world: World) -> None:
    worker, stranger = await world.register(), world.another_worker()
    keys = await stranger.identity()

    with pytest.raises(RefusedError, match="does not have the keys of worker 1"):
        await rotate_keys(world.registrar(), stranger, worker)

    assert await stranger.identity() == keys


# Answers that are lost.


@pytest.mark.parametrize("fault", [Fault.BEFORE, Fault.AFTER, Fault.LATER])
@pytest.mark.parametrize("is_renewal", [False, True])
async def test_a_lost_answer_makes_one_registration_and_one_renewal(
    world: World, fault: Fault, is_renewal: bool
) -> None:
    worker = await world.register() if is_renewal else None
    world.clock.advance(5 * DAY)
    lost = [fault, None]
    label = "renew_worker" if is_renewal else "register_worker"
    world.wrapped = FlakyChain(world.chain, lose_call(label, lost))
    before = world.head()

    if worker is None:
        await world.register()
    else:
        await world.registrar().renew(world.worker, worker)

    assert lost == []
    assert world.head() == before + 1
    page = world.chain.read(world.processor.workers_page(1, 50))
    assert page.total == 1
    assert page.items[0].valid_until == world.clock() + world.policy.maximum_registration


async def test_a_chain_that_is_gone_leaves_it_unknown(world: World) -> None:
    world.wrapped = FlakyChain(
        world.chain, lambda asked: Fault.BEFORE if asked == "register_worker" else None
    )

    with pytest.raises(ChainUnavailableError):
        await world.register()

    assert world.chain.read(world.processor.workers_page(1, 50)).total == 0


async def test_a_refusal_of_what_has_taken_effect_already_is_none(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when a call of an earlier run, whose answer was lost, comes first."""
    call = world.chain.call

    def twice(*words: object, **named: object) -> object:
        call(*words, **named)  # type: ignore[arg-type]  # handed on
        return call(*words, **named)  # type: ignore[arg-type]  # handed on

    monkeypatch.setattr(world.chain, "call", twice)

    worker = await world.register()

    assert world.read(worker.worker) == worker
    assert world.chain.read(world.processor.workers_page(1, 50)).total == 1


async def test_a_call_that_left_no_trace_is_not_believed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(world.chain, "call", lambda *_, **__: None)

    with pytest.raises(ChainUnavailableError, match="does not show its effect"):
        await world.register()


async def test_what_is_killed_before_it_is_sent_is_simply_done_again(world: World) -> None:
    """All that an attempt leaves behind is evidence that nobody has registered."""
    registrar = world.registrar()
    first = await registrar.examine(world.worker, url=URL)
    world.archive.keep(b"bundle", POLICY_FILE)
    world.archive.write_record(first.verdict, url=URL, valid_until=1, worker=1)

    worker = await world.register()

    assert world.read(worker.worker).evidence_hash != first.evidence.evidence_hash


# The archive, and the machine in it.


def test_the_archive_says_where_it_can_not_be_made(tmp_path: Path) -> None:
    (tmp_path / "records").write_text("a file")

    with pytest.raises(BlobUnavailableError, match="records"):
        EvidenceArchive(DirectoryBlobStore(tmp_path), tmp_path)


async def test_a_record_that_can_not_be_written_is_told_of(world: World) -> None:
    examined = await world.registrar().examine(world.worker, url=URL)
    archive = world.archive
    (world.folder / "records").rmdir()

    with pytest.raises(BlobUnavailableError, match="records"):
        archive.write_record(examined.verdict, url=URL, valid_until=1, worker=1)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"is_simulated": "no"}'])
async def test_a_record_that_says_nothing_tells_nothing(world: World, text: str) -> None:
    worker = await world.register()
    known = world.archive.is_simulated(worker)

    (record,) = (world.folder / "records").iterdir()
    record.write_text(text)

    assert known is True
    assert world.archive.is_simulated(worker) is None


async def test_refused_evidence_has_no_record(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    _out_of_date(world, monkeypatch)
    examined = await world.registrar().examine(world.worker, url=URL)

    with pytest.raises(InputError):
        world.archive.write_record(examined.verdict, url=URL, valid_until=1, worker=1)

    assert world.records() == []


async def test_the_machine_is_in_the_evidence(world: World) -> None:
    bundle = (await world.registrar().examine(world.worker, url=URL)).evidence.bundle

    machine = world.machine.simulator.platform
    assert platform_ids(bundle) == {machine.ppid, machine.piid}


@pytest.mark.parametrize("quote", [b"", b"\x00" * 5_000])
async def test_a_quote_of_no_machine_is_told_of(world: World, quote: bytes) -> None:
    bundle = (await world.registrar().examine(world.worker, url=URL)).evidence.bundle

    with pytest.raises(EncodingError, match="its platform can't be read"):
        platform_ids(replace(bundle, quote=quote))
