"""Numbers: what is counted, under which names, and what never becomes a label."""

from prometheus_client.parser import text_string_to_metric_families

from orchestrator.metrics import (
    MAX_REASONS,
    MAX_WORKERS,
    EventKind,
    OrchestratorMetrics,
    RegistrarEvent,
    RegistrarEventKind,
    RegistrarMetrics,
    ServiceEvent,
)


def samples(
    metrics: OrchestratorMetrics | RegistrarMetrics,
) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def test_every_kind_of_event_is_counted() -> None:
    metrics = OrchestratorMetrics(version="1.2.3")
    before = samples(metrics).items()

    for kind in EventKind:
        metrics.observe(
            ServiceEvent(kind=kind, job_id=5, worker=6, code="Why", seconds=2.0, planck=3)
        )

    grown = {name for (name, _), _ in samples(metrics).items() - before}
    assert {name for name in grown if name.endswith("_total")} == {
        "phala_jobs_submitted_total",
        "phala_jobs_admitted_total",
        "phala_jobs_refused_total",
        "phala_jobs_deferred_total",
        "phala_jobs_dispatched_total",
        "phala_jobs_processed_total",
        "phala_jobs_failed_total",
        "phala_jobs_cancelled_total",
        "phala_jobs_expired_total",
        "phala_jobs_purged_total",
        "phala_jobs_attestations_refused_total",
        "phala_jobs_worker_errors_total",
        "phala_jobs_worker_refusals_total",
        "phala_jobs_chain_errors_total",
        "phala_jobs_blob_errors_total",
        "phala_jobs_conflicts_total",
        "phala_jobs_low_balance_total",
        "phala_jobs_no_funds_total",
        "phala_jobs_fees_planck_total",
    }
    assert samples(metrics)[("phala_jobs_job_duration_seconds_sum", ())] == 2.0
    assert samples(metrics)[("phala_jobs_fees_planck_total", ())] == 3


def test_reasons_are_labels_and_jobs_are_not() -> None:
    metrics = OrchestratorMetrics(version="1")

    metrics.observe(
        ServiceEvent(kind=EventKind.ATTESTATION_REFUSED, job_id=77, worker=88, code="BadSignature")
    )

    found = samples(metrics)
    assert found[("phala_jobs_attestations_refused_total", (("reason", "BadSignature"),))] == 1
    assert not any("77" in str(key) or "88" in str(key) for key in found)


def test_number_of_reasons_is_bounded() -> None:
    metrics = OrchestratorMetrics(version="1")

    for number in range(MAX_REASONS + 50):
        metrics.observe(ServiceEvent(kind=EventKind.REFUSED, code=f"made up {number}"))

    labels = [labels for name, labels in samples(metrics) if name == "phala_jobs_refused_total"]
    assert len(labels) == MAX_REASONS + 1
    assert samples(metrics)[("phala_jobs_refused_total", (("reason", "other"),))] == 50


def test_gauges_hold_what_they_are_set_to() -> None:
    metrics = OrchestratorMetrics(version="1.2.3")

    metrics.set_pending(4)
    metrics.set_finalized_block(9)
    metrics.set_attestation_expiry(1_500)

    found = samples(metrics)
    assert found[("phala_jobs_pending", ())] == 4
    assert found[("phala_jobs_finalized_block", ())] == 9
    assert found[("phala_jobs_attestation_expiry_timestamp_seconds", ())] == 1.5
    assert found[("phala_jobs_build_info", (("version", "1.2.3"),))] == 1


def test_every_kind_of_registrar_event_is_counted_by_its_reason() -> None:
    metrics = RegistrarMetrics(version="1")

    for kind in RegistrarEventKind:
        metrics.observe(RegistrarEvent(kind=kind, worker=7, code="E05"))

    found = {key: value for key, value in samples(metrics).items() if key[0].endswith("_total")}
    assert found == {
        ("phala_jobs_registrations_total", ()): 1,
        ("phala_jobs_renewals_total", ()): 1,
        ("phala_jobs_renewal_failures_total", (("reason", "E05"),)): 1,
        ("phala_jobs_trust_alarms_total", (("reason", "E05"),)): 1,
    }


def test_registrations_are_told_by_worker_and_those_no_longer_looked_at_vanish() -> None:
    metrics = RegistrarMetrics(version="1")
    metrics.set_registrations({1: 5_000, 2: 9_000}, now=1_000)

    metrics.set_registrations({2: 7_000}, now=2_000)

    found = samples(metrics)
    assert found[("phala_jobs_attestation_expiry_timestamp_seconds", ())] == 7
    assert found[("phala_jobs_trust_looked_timestamp_seconds", ())] == 2
    assert [(key, value) for key, value in found.items() if "worker_att" in key[0]] == [
        (("phala_jobs_worker_attestation_expiry_timestamp_seconds", (("worker", "2"),)), 7)
    ]


def test_a_long_list_of_workers_has_its_first_end_alone() -> None:
    metrics = RegistrarMetrics(version="1")

    metrics.set_registrations({n: n * 1_000 for n in range(5, MAX_WORKERS + 6)}, now=0)

    found = samples(metrics)
    assert found[("phala_jobs_attestation_expiry_timestamp_seconds", ())] == 5
    assert not [key for key in found if "worker_att" in key[0]]


def test_collateral_and_evaluation_numbers_are_told_where_they_are_known() -> None:
    metrics = RegistrarMetrics(version="1")
    metrics.set_evaluation_numbers(in_use=18, newest=20)
    metrics.set_collateral_expiry(3_000)

    metrics.set_evaluation_numbers(in_use=19, newest=None)

    found = samples(metrics)
    name = "phala_jobs_tcb_evaluation_number"
    assert {key: value for key, value in found.items() if key[0] == name} == {
        (name, (("which", "in_use"),)): 19
    }
    assert found[("phala_jobs_collateral_expiry_timestamp_seconds", ())] == 3
