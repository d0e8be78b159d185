"""
What the orchestrator's doings come to, as numbers for Prometheus.

A service emits frozen `ServiceEvent`s to a hook; `OrchestratorMetrics.observe` is such a hook. No
label holds a job id, key or address: reasons are names from a fixed list, the contract's `Error`
variants and our own codes.
"""

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

__all__ = ["CONTENT_TYPE_LATEST", "EventKind", "OrchestratorMetrics", "ServiceEvent"]

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
        self._reasons: set[str] = set()

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(f"phala_jobs_{name}", text, registry=self.registry)

    def observe(self, event: ServiceEvent) -> None:
        """Count one event."""
        if event.kind in self._plain:
            self._plain[event.kind].inc()
        if event.kind in self._by_reason:
            self._by_reason[event.kind].labels(self._reason(event.code)).inc()
        if event.kind is EventKind.PROCESSED and event.seconds is not None:
            self._duration.observe(event.seconds)
        if event.kind is EventKind.FEE:
            self._fees.inc(event.planck)

    def _reason(self, code: str) -> str:
        if code not in self._reasons and len(self._reasons) >= MAX_REASONS:
            return "other"
        self._reasons.add(code)
        return code

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
