"""
What the orchestrator's and the registrar's doings come to, as numbers for Prometheus.

A service emits frozen events to a hook; `OrchestratorMetrics.observe` and
`RegistrarMetrics.observe` are such hooks. No label holds a job id, key or address: reasons are
names from a fixed list, the contract's `Error` variants and our own codes.

One of a registrar's gauges is by worker: without its id nobody sees which one is about to end. The
id is a small number that only an account with the role `Registrar` can make more of; it is there
for the workers that are looked at now alone, and for none of more than `MAX_WORKERS`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    Info,
    generate_latest,
)

from orchestrator.models import JobId, WorkerId

__all__ = [
    "CONTENT_TYPE_LATEST",
    "EventKind",
    "OrchestratorMetrics",
    "RegistrarEvent",
    "RegistrarEventKind",
    "RegistrarMetrics",
    "ServiceEvent",
]

MAX_WORKERS = 1_000  # series; a list that is longer has its minimum alone
MAX_REASONS = 200  # more names than there are codes; a stranger's text must not become a label
_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1_800, 7_200, 86_400)


class EventKind(Enum):
    """What happened."""

    SUBMITTED = "submitted"
    ADMITTED = "admitted"
    REFUSED = "refused"
    DEFERRED = "deferred"
    DISPATCHED = "dispatched"
    PROCESSED = "processed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    PURGED = "purged"
    ATTESTATION_REFUSED = "attestation_refused"
    WORKER_ERROR = "worker_error"
    WORKER_REFUSED = "worker_refused"
    CHAIN_ERROR = "chain_error"
    BLOB_ERROR = "blob_error"
    CONFLICT = "conflict"
    FEE = "fee"
    LOW_BALANCE = "low_balance"
    NO_FUNDS = "no_funds"


@dataclass(frozen=True, kw_only=True)
class ServiceEvent:
    """
    One thing that happened; `code` is its reason.

    `seconds` is how long the job took from its submission, for events that close one. `planck` is
    the fee of a transaction that was for so many `jobs`.
    """

    kind: EventKind
    job_id: JobId | None = None
    worker: WorkerId | None = None
    code: str = ""
    detail: str = ""
    seconds: float | None = None
    planck: int = 0
    jobs: int = 0


class OrchestratorMetrics:
    """Counts events; every instance has a registry of its own."""

    def __init__(self, *, version: str) -> None:
        self.registry = CollectorRegistry()
        Info("phala_jobs_build", "The program.", registry=self.registry).info({"version": version})
        self._plain = {
            kind: Counter(f"phala_jobs_{name}", text, registry=self.registry)
            for kind, (name, text) in _PLAIN.items()
        }
        self._by_reason = {
            kind: Counter(name, text, [label], registry=self.registry)
            for kind, (name, text, label) in _BY_REASON.items()
        }
        self._duration = Histogram(
            "phala_jobs_job_duration_seconds",
            "From submission on the chain to processed.",
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._pending = self._gauge("pending", "Jobs that still need something.")
        self._block = self._gauge("finalized_block", "Number of the last block that was read.")
        self._expiry = self._gauge(
            "attestation_expiry_timestamp_seconds",
            "When the first of the trusted workers' registrations ends.",
        )
        self._fees = Counter(
            "phala_jobs_fees_planck", "Fees of our own transactions.", registry=self.registry
        )
        self._balance = self._gauge("balance_planck", "What our account has, without deposits.")
        self._reasons = _Reasons()

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"phala_jobs_{name}", text, registry=self.registry)

    def observe(self, event: ServiceEvent) -> None:
        """Count one event."""
        if event.kind in self._plain:
            self._plain[event.kind].inc()
        if event.kind in self._by_reason:
            self._by_reason[event.kind].labels(self._reasons.label(event.code)).inc()
        if event.kind is EventKind.PROCESSED and event.seconds is not None:
            self._duration.observe(event.seconds)
        if event.kind is EventKind.FEE:
            self._fees.inc(event.planck)

    def set_pending(self, jobs: int) -> None:
        """Set how many jobs still need something."""
        self._pending.set(jobs)

    def set_finalized_block(self, number: int) -> None:
        """Set the last block that was read."""
        self._block.set(number)

    def set_attestation_expiry(self, milliseconds: int) -> None:
        """Set when the first of the trusted workers' registrations ends."""
        self._expiry.set(milliseconds / 1_000)

    def set_balance(self, planck: int) -> None:
        """Set what our account has."""
        self._balance.set(planck)

    def render(self) -> bytes:
        """Return all numbers in the text format."""
        return generate_latest(self.registry)


class RegistrarEventKind(Enum):
    """What happened at a registrar."""

    REGISTERED = "registered"
    RENEWED = "renewed"
    RENEWAL_FAILED = "renewal_failed"
    ALARM = "alarm"


@dataclass(frozen=True, kw_only=True)
class RegistrarEvent:
    """One thing that happened; `code` is its reason: a check's (`E05`), or the name of an error."""

    kind: RegistrarEventKind
    worker: WorkerId | None = None
    code: str = ""
    detail: str = ""


class RegistrarMetrics:
    """Counts a registrar's events and tells when things end; it has a registry of its own."""

    def __init__(self, *, version: str) -> None:
        self.registry = CollectorRegistry()
        Info("phala_jobs_build", "The program.", registry=self.registry).info({"version": version})
        self._registered = self._counter("registrations", "Workers registered.")
        self._renewed = self._counter("renewals", "Registrations renewed.")
        self._failed = self._counter("renewal_failures", "Renewals that failed.", "reason")
        self._alarms = self._counter("trust_alarms", "Alarms about workers' evidence.", "reason")
        self._expiry = self._gauge(
            "attestation_expiry_timestamp_seconds",
            "When the first of the workers' registrations ends; 0 without a worker.",
        )
        self._worker_expiry = self._gauge(
            "worker_attestation_expiry_timestamp_seconds",
            "When a worker's registration ends.",
            "worker",
        )
        self._collateral = self._gauge(
            "collateral_expiry_timestamp_seconds",
            "When the first of the platforms' newest collateral ends; 0 without any.",
        )
        self._numbers = self._gauge(
            "tcb_evaluation_number",
            "TCB evaluation number: the lowest in use, and the newest known.",
            "which",
        )
        self._looked = self._gauge(
            "trust_looked_timestamp_seconds", "When workers and collateral were last looked at."
        )
        self._reasons = _Reasons()

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"phala_jobs_{name}", text, labels, registry=self.registry)

    def _gauge(self, name: str, text: str, *labels: str) -> Gauge:
        return Gauge(f"phala_jobs_{name}", text, labels, registry=self.registry)

    def observe(self, event: RegistrarEvent) -> None:
        """Count one event."""
        match event.kind:
            case RegistrarEventKind.REGISTERED:
                self._registered.inc()
            case RegistrarEventKind.RENEWED:
                self._renewed.inc()
            case RegistrarEventKind.RENEWAL_FAILED:
                self._failed.labels(self._reasons.label(event.code)).inc()
            case RegistrarEventKind.ALARM:
                self._alarms.labels(self._reasons.label(event.code)).inc()

    def set_registrations(self, valid_until: Mapping[WorkerId, int], *, now: int) -> None:
        """Set when the registrations of the workers that are looked at end; times in ms."""
        self._looked.set(now / 1_000)
        self._worker_expiry.clear()
        self._expiry.set(min(valid_until.values(), default=0) / 1_000)
        if len(valid_until) <= MAX_WORKERS:
            for worker, until in valid_until.items():
                self._worker_expiry.labels(str(worker)).set(until / 1_000)

    def set_collateral_expiry(self, milliseconds: int) -> None:
        """Set when the first of the newest collateral ends."""
        self._collateral.set(milliseconds / 1_000)

    def set_evaluation_numbers(self, *, in_use: int | None, newest: int | None) -> None:
        """Set the lowest TCB evaluation number in use and the newest known; `None`: not known."""
        self._numbers.clear()
        for which, number in (("in_use", in_use), ("newest", newest)):
            if number is not None:
                self._numbers.labels(which).set(number)

    def render(self) -> bytes:
        """Return all numbers in the text format."""
        return generate_latest(self.registry)


class _Reasons:
    """Keeps the number of different labels within its limit."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def label(self, code: str) -> str:
        if code not in self._seen and len(self._seen) >= MAX_REASONS:
            return "other"
        self._seen.add(code)
        return code


_PLAIN = {
    EventKind.SUBMITTED: ("submitted", "Jobs seen on the chain."),
    EventKind.ADMITTED: ("admitted", "Jobs admitted by the policy."),
    EventKind.DISPATCHED: ("dispatched", "Jobs handed to a worker."),
    EventKind.PROCESSED: ("processed", "Jobs marked processed."),
    EventKind.FAILED: ("failed", "Jobs that failed at all of their workers."),
    EventKind.CANCELLED: ("cancelled", "Jobs cancelled by their owner."),
    EventKind.EXPIRED: ("expired", "Jobs whose deadline passed."),
    EventKind.PURGED: ("purged", "Jobs found purged."),
    EventKind.CONFLICT: (
        "conflicts",
        "Workers that contradicted themselves.",
    ),
    EventKind.LOW_BALANCE: ("low_balance", "Times that the balance became low."),
}
_BY_REASON = {
    EventKind.REFUSED: ("phala_jobs_refused", "Jobs not admitted.", "reason"),
    EventKind.DEFERRED: ("phala_jobs_deferred", "Jobs that wait for another day.", "reason"),
    EventKind.ATTESTATION_REFUSED: (
        "phala_jobs_attestations_refused",
        "Statements refused, by this program or by the contract.",
        "reason",
    ),
    EventKind.WORKER_ERROR: ("phala_jobs_worker_errors", "Workers that gave no answer.", "kind"),
    EventKind.WORKER_REFUSED: (
        "phala_jobs_worker_refusals",
        "Requests that workers refused.",
        "reason",
    ),
    EventKind.CHAIN_ERROR: ("phala_jobs_chain_errors", "Calls that the chain failed.", "kind"),
    EventKind.NO_FUNDS: (
        "phala_jobs_no_funds",
        "Transactions that our account, or its limits, did not pay for.",
        "reason",
    ),
    EventKind.BLOB_ERROR: ("phala_jobs_blob_errors", "Results that could not be kept.", "kind"),
}
