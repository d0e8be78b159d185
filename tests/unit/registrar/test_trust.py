"""What will fail next for a worker: each reason alone, with its time, and what the watch tells."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from orchestrator.encoding import blake2_256
from orchestrator.errors import BlobNotFoundError
from orchestrator.evidence import (
    Collateral,
    TcbRules,
    TdxMeasurements,
    dump_bundle,
    load_bundle,
)
from orchestrator.metrics import RegistrarEventKind, RegistrarMetrics
from orchestrator.models import Worker
from orchestrator.registrar.forecast import (
    KnownWorker,
    TrustForecast,
    TrustLevel,
    WorkerForecast,
)
from orchestrator.registrar.trust import forecast_trust
from orchestrator.registrar.trust_watch import TrustWatch, alarms_of
from orchestrator.simulator import Simulator
from tests.unit.registrar.trust_world import ADMIN, DAY, HOUR, TrustWorld

WINDOW = 48 * HOUR


@pytest.fixture
def world(tmp_path: Path) -> Iterator[TrustWorld]:
    made = TrustWorld(tmp_path)
    yield made
    made.close()


def only(made: TrustForecast) -> WorkerForecast:
    (one,) = made.workers
    return one


def due(made: TrustForecast) -> list[str]:
    """The codes of what fails up to the forecast's end."""
    return [failure.code for failure in only(made).failures if failure.is_due(by=made.until)]


def forecast(
    world: TrustWorld,
    *,
    bundle: bytes | None = None,
    newest: Collateral | None = None,
    worker: Worker | None = None,
    window: int = WINDOW,
) -> TrustForecast:
    """Of the first worker, with what differs."""
    listed = world.worker(1)
    now = world.clock()
    return forecast_trust(
        [
            KnownWorker(
                worker=worker or listed,
                bundle=bundle or world.evidence(listed),
                newest=newest or world.source.collateral(b"q", now=now),
            )
        ],
        policy=world.policy,
        genesis_hash=world.chain.genesis_hash,
        contract=world.processor.contract,
        now=now,
        window=window,
    )


def test_a_worker_in_order_ends_with_its_registration_first(world: TrustWorld) -> None:
    world.add_worker()

    made = world.look()

    one = only(made)
    assert one.level is made.level is TrustLevel.FINE
    assert [(failure.code, failure.at) for failure in one.failures] == [
        ("RegistrationEnds", one.worker.valid_until + 1),
        ("CollateralEnds", made.collateral_ends_at + 1 if made.collateral_ends_at else None),
    ]
    assert (one.tcb_status, one.evaluation_number, one.newest_evaluation_number) == (
        "UpToDate",
        20,
        20,
    )
    assert one.is_simulated
    assert alarms_of(made) == ()


@pytest.mark.parametrize(("left", "level"), [(0, TrustLevel.FAILS), (1, TrustLevel.FINE)])
def test_the_window_ends_in_its_last_millisecond(
    world: TrustWorld, left: int, level: TrustLevel
) -> None:
    world.add_worker()
    ends_at = world.worker(1).valid_until + 1

    made = world.look(window=ends_at - world.clock() - left)

    assert made.level is level
    assert due(made) == (["RegistrationEnds"] if level is TrustLevel.FAILS else [])


def test_a_registration_that_has_ended_fails(world: TrustWorld) -> None:
    world.add_worker(valid_for=HOUR)
    world.clock.advance(HOUR + 1)

    made = world.look(window=0)

    assert due(made) == ["RegistrationEnds"]
    assert only(made).failures[0].detail == "its registration has ended"


def test_the_last_millisecond_of_a_registration_has_not_failed(world: TrustWorld) -> None:
    world.add_worker(valid_for=HOUR)
    world.clock.advance(HOUR)

    assert due(world.look(window=0)) == []


def test_an_outdated_machine_fails_now_and_says_what_is_short(world: TrustWorld) -> None:
    world.add_worker()
    world.simulator = world.simulator.tcb_recovery(now=world.clock())

    made = world.look(window=0)

    one = only(made)
    following = one.next_failure
    assert following is not None
    assert (following.code, following.at) == ("E05", world.clock())
    assert "sgx_svn[0] is 4, must be 5" in one.failures[0].detail
    assert (one.tcb_status, one.evaluation_number, one.newest_evaluation_number) == (
        "OutOfDate",
        20,
        21,
    )
    assert one.is_simulated
    (alarm,) = alarms_of(made)
    assert (alarm.kind, alarm.worker, alarm.code) == (RegistrarEventKind.ALARM, 1, "E05")


def test_an_evaluation_number_that_the_policy_wants_higher_fails_now(world: TrustWorld) -> None:
    world.add_worker()
    rules = replace(world.policy.tcb, minimum_evaluation_number=21)
    world.policy = replace(world.policy, tcb=rules)

    assert due(world.look(window=0)) == ["E07"]


def test_the_end_of_a_grace_is_told_to_the_second(world: TrustWorld) -> None:
    """An outdated machine is accepted for ten days after the date of the newest level."""
    world.add_worker(valid_for=20 * DAY)
    recovered_at = world.clock()
    world.simulator = world.simulator.tcb_recovery(now=recovered_at)
    grace = {"OutOfDate": 10 * DAY}
    world.policy = replace(
        world.policy, tcb=TcbRules(statuses=frozenset({"UpToDate"}), grace=grace)
    )
    world.clock.advance(HOUR)

    made = world.look(window=9 * DAY)

    one = only(made)
    assert (one.level, one.tcb_status) == (TrustLevel.FINE, "OutOfDate")
    following = one.next_failure
    assert following is not None
    assert following.code == "E05"
    assert following.at is not None
    assert abs(following.at - (recovered_at + 10 * DAY)) <= 2_000
    assert world.look(window=10 * DAY).level is TrustLevel.FAILS


def test_collateral_that_ends_before_anything_newer_comes_fails(world: TrustWorld) -> None:
    world.add_worker()
    now = world.clock()
    short = world.simulator.collateral(now=now, valid_for=DAY)

    made = forecast(world, newest=short)

    assert due(made) == ["CollateralEnds"]
    assert made.collateral_ends_at == now // 1_000 * 1_000 + DAY
    assert due(forecast(world, newest=short, window=DAY - 2_000)) == []


def test_collateral_that_has_ended_fails_now(world: TrustWorld) -> None:
    world.add_worker()
    ended = world.simulator.collateral(now=world.clock() - 2 * DAY, valid_for=DAY)

    assert due(forecast(world, newest=ended, window=0)) == ["E03"]


def test_a_recovery_ahead_is_a_warning_without_a_day(world: TrustWorld) -> None:
    world.add_worker()
    now = world.clock()
    world.simulator = world.simulator.tcb_recovery(now=now, effective_at=now + 90 * DAY)

    made = world.look(with_early=True)

    one = only(made)
    assert (one.level, one.newest_evaluation_number) == (TrustLevel.WARNING, 21)
    ahead = one.failures[-1]
    assert (ahead.code, ahead.at) == ("TcbRecoveryAhead", None)
    assert "TCB evaluation 21" in ahead.detail
    assert "E05" in ahead.detail
    assert [alarm.code for alarm in alarms_of(made)] == ["TcbRecoveryAhead"]
    assert world.look().level is TrustLevel.FINE


def test_a_recovery_in_effect_is_not_told_twice(world: TrustWorld) -> None:
    world.add_worker()
    world.simulator = world.simulator.tcb_recovery(now=world.clock())

    made = world.look(with_early=True)

    assert [alarm.code for alarm in alarms_of(made)] == ["E05"]


def test_what_is_early_of_another_root_raises_no_alarm(world: TrustWorld) -> None:
    """A source is trusted with being there: what it makes up must not be told as Intel's."""
    world.add_worker()
    now, listed = world.clock(), world.worker(1)
    stranger = Simulator.create().tcb_recovery(now=now).collateral(now=now)

    made = forecast_trust(
        [
            KnownWorker(
                worker=listed,
                bundle=world.evidence(listed),
                newest=world.source.collateral(b"q", now=now),
                early=stranger,
            )
        ],
        policy=world.policy,
        genesis_hash=world.chain.genesis_hash,
        contract=world.processor.contract,
        now=now,
        window=WINDOW,
    )

    assert (made.level, made.newest_evaluation_number) == (TrustLevel.FINE, 20)


def test_what_is_early_and_has_ended_raises_no_alarm(world: TrustWorld) -> None:
    world.add_worker()
    now, listed = world.clock(), world.worker(1)
    ended = world.simulator.collateral(now=now - 2 * DAY, valid_for=DAY)
    known = KnownWorker(
        worker=listed,
        bundle=world.evidence(listed),
        newest=world.source.collateral(b"q", now=now),
        early=ended,
    )

    made = forecast_trust(
        [known],
        policy=world.policy,
        genesis_hash=world.chain.genesis_hash,
        contract=world.processor.contract,
        now=now,
        window=WINDOW,
    )

    assert made.level is TrustLevel.FINE


def test_evidence_has_to_match_the_set_that_the_worker_is_registered_with(
    world: TrustWorld,
) -> None:
    """That another set of the policy matches does not renew it."""
    world.add_worker()
    (known,) = world.policy.measurements
    assert isinstance(known, TdxMeasurements)
    other = replace(known, name="other", mrtd=bytes(48))
    world.policy = replace(world.policy, measurements=(known, other))
    listed = replace(world.worker(1), measurement=other.measurement)

    assert due(forecast(world, worker=listed, window=0)) == ["E09"]


def test_a_set_that_the_policy_has_no_more_fails_now(world: TrustWorld) -> None:
    """Another set that matches too does not help: the contract keeps the worker's measurement."""
    world.add_worker()
    (known,) = world.policy.measurements
    assert isinstance(known, TdxMeasurements)
    world.policy = replace(world.policy, measurements=(replace(known, app_id=None, name="wider"),))

    made = world.look(window=0)

    assert due(made) == ["MeasurementNotInPolicy"]
    assert only(made).tcb_status is None


def test_a_revoked_measurement_fails_now(world: TrustWorld) -> None:
    world.add_worker()
    world.chain.call(world.processor.revoke_measurement(world.measurement), signer=ADMIN)

    assert due(world.look(window=0)) == ["E14"]


def test_a_suspended_worker_is_watched_and_a_revoked_one_is_not(world: TrustWorld) -> None:
    world.add_worker(valid_for=HOUR)
    world.add_worker(valid_for=HOUR)
    world.chain.call(world.processor.suspend_worker(1), signer=ADMIN)
    world.chain.call(world.processor.revoke_worker(2, bytes(32)), signer=ADMIN)

    made = world.look()

    assert [one.worker.worker for one in made.watched] == [1]
    assert [one.level for one in made.workers] == [TrustLevel.FAILS, TrustLevel.FINE]
    assert {alarm.worker for alarm in alarms_of(made)} == {1}


def test_keys_that_are_not_the_evidences_fail_now(world: TrustWorld) -> None:
    world.add_worker()
    other = replace(world.worker(1), encryption_key=b"\x05" * 32)

    assert due(forecast(world, worker=other, window=0)) == ["E12"]


def test_a_worker_on_its_own_word_fails_now(world: TrustWorld) -> None:
    world.add_worker()
    bare = replace(world.worker(1), evidence_hash=blake2_256(b""))

    made = forecast(world, worker=bare, window=0)

    assert due(made) == ["NoEvidence"]
    assert not only(made).has_evidence
    asked = world.watch().look([bare], now=world.clock(), window=0)
    assert due(asked) == ["NoEvidence"]


@pytest.mark.parametrize("data", [b"", b"no bundle", b"\xa0"])
def test_evidence_that_can_not_be_read_could_not_be_told(world: TrustWorld, data: bytes) -> None:
    world.add_worker()
    watch = TrustWatch(
        policy=world.policy,
        genesis_hash=world.chain.genesis_hash,
        contract=world.processor.contract,
        evidence=lambda _: data,
        collateral=world.source,
    )

    made = watch.look(world.workers(), now=world.clock())

    assert made.level is TrustLevel.UNKNOWN
    assert [alarm.code for alarm in alarms_of(made)] == ["TrustUnknown"]
    assert only(made).has_evidence


def test_evidence_whose_quote_is_none_could_not_be_told(world: TrustWorld) -> None:
    world.add_worker()
    broken = dump_bundle(replace(load_bundle(world.evidence(world.worker(1))), quote=b"none"))
    watch = TrustWatch(
        policy=world.policy,
        genesis_hash=world.chain.genesis_hash,
        contract=world.processor.contract,
        evidence=lambda _: broken,
        collateral=world.source,
        early=world.early,
    )
    world.early.is_away = True

    made = watch.look(world.workers(), now=world.clock())

    assert made.level is TrustLevel.UNKNOWN
    assert "quote: " in only(made).unknown


def test_evidence_that_is_not_here_hides_no_other_worker(world: TrustWorld) -> None:
    world.add_worker()
    world.add_worker()
    missing = world.worker(1)
    world.blobs.delete(missing.evidence_hash)

    made = world.look()

    assert [one.level for one in made.workers] == [TrustLevel.UNKNOWN, TrustLevel.FINE]
    assert made.level is TrustLevel.UNKNOWN
    assert "its evidence: no blob" in made.workers[0].unknown
    assert not made.workers[0].has_evidence
    assert [failure.code for failure in made.workers[0].failures] == ["RegistrationEnds"]


def test_a_bundle_that_was_never_had_says_so_without_a_reason(world: TrustWorld) -> None:
    world.add_worker()

    made = forecast_trust(
        [KnownWorker(worker=world.worker(1), bundle=None, newest=None)],
        policy=world.policy,
        genesis_hash=world.chain.genesis_hash,
        contract=world.processor.contract,
        now=world.clock(),
        window=0,
    )

    assert only(made).unknown == "its evidence is not to be had"


def test_without_collateral_the_registrations_end_is_told_all_the_same(world: TrustWorld) -> None:
    world.add_worker(valid_for=DAY)
    world.source.is_away = True

    made = world.look()

    one = only(made)
    assert (one.level, one.evaluation_number) == (TrustLevel.FAILS, 20)
    assert [alarm.code for alarm in alarms_of(made)] == ["RegistrationEnds", "TrustUnknown"]
    assert "away" in one.unknown


def test_without_a_source_the_evidences_own_collateral_serves(world: TrustWorld) -> None:
    world.add_worker()
    world.simulator = world.simulator.tcb_recovery(now=world.clock())
    watch = world.watch(with_source=False)

    made = watch.look(world.workers(), now=world.clock())

    assert made.level is TrustLevel.FINE
    assert made.newest_evaluation_number == 20


def test_nothing_early_to_be_had_is_no_trouble(world: TrustWorld) -> None:
    world.add_worker()
    world.early.is_away = True

    assert world.look(with_early=True).level is TrustLevel.FINE


def test_a_source_is_asked_once_for_workers_of_one_kind(
    world: TrustWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        world.add_worker()
    asked: list[int] = []
    original = world.source.collateral

    def collateral(quote: bytes, *, now: int) -> Collateral:
        asked.append(now)
        return original(quote, now=now)

    monkeypatch.setattr(world.source, "collateral", collateral)

    world.look()

    assert asked == [world.clock()]


def test_numbers_are_set_at_each_look(world: TrustWorld) -> None:
    world.add_worker(valid_for=3 * DAY)
    world.add_worker(valid_for=5 * DAY)
    world.simulator = world.simulator.tcb_recovery(now=world.clock())
    metrics = RegistrarMetrics(version="1")
    watch = TrustWatch(
        policy=world.policy,
        genesis_hash=world.chain.genesis_hash,
        contract=world.processor.contract,
        evidence=world.evidence,
        collateral=world.source,
        metrics=metrics,
    )

    made = watch.look(world.workers(), now=world.clock())

    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
    }
    ends = [one.worker.valid_until / 1_000 for one in made.workers]
    assert found["phala_jobs_attestation_expiry_timestamp_seconds",] == ends[0]
    assert found["phala_jobs_worker_attestation_expiry_timestamp_seconds", "2"] == ends[1]
    assert found["phala_jobs_tcb_evaluation_number", "in_use"] == 20
    assert found["phala_jobs_tcb_evaluation_number", "newest"] == 21
    assert made.collateral_ends_at is not None
    collateral = found["phala_jobs_collateral_expiry_timestamp_seconds",]
    assert collateral == made.collateral_ends_at / 1_000
    assert found["phala_jobs_trust_looked_timestamp_seconds",] == world.clock() / 1_000


def test_no_workers_are_fine(world: TrustWorld) -> None:
    made = world.look()

    assert (made.level, made.collateral_ends_at) == (TrustLevel.FINE, None)
    assert (made.evaluation_number, made.newest_evaluation_number) == (None, None)


def test_an_error_of_the_evidence_folder_is_told(world: TrustWorld) -> None:
    world.add_worker()

    def absent(_: Worker) -> bytes:
        raise BlobNotFoundError

    watch = TrustWatch(
        policy=world.policy,
        genesis_hash=world.chain.genesis_hash,
        contract=world.processor.contract,
        evidence=absent,
        collateral=None,
    )

    made = watch.look(world.workers(), now=world.clock())

    assert only(made).unknown == "its evidence: There is no such blob."
