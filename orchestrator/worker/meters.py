"""What a worker counts, for Prometheus; no label names a job, a key or an address."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from orchestrator.models import Outcome

__all__ = ["Meters"]

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)


class Meters:
    """One worker's numbers."""

    def __init__(self, *, version: str) -> None:
        self._registry = CollectorRegistry()
        registry = self._registry
        build = Gauge(
            "phala_jobs_build_info", "What is running.", ["role", "version"], registry=registry
        )
        build.labels(role="worker", version=version).set(1)
        self._accepted = Counter(
            "phala_jobs_worker_accepted", "Jobs put into the queue.", registry=registry
        )
        self._finished = Counter(
            "phala_jobs_worker_finished", "Jobs with an outcome.", ["outcome"], registry=registry
        )
        self._put_back = Counter(
            "phala_jobs_worker_put_back",
            "Runs that the host could not bring to an end.",
            registry=registry,
        )
        self._refused = Counter(
            "phala_jobs_worker_requests_refused",
            "Requests refused, by HTTP status.",
            ["status"],
            registry=registry,
        )
        self._duration = Histogram(
            "phala_jobs_worker_job_duration_seconds",
            "From the start of a job to its stored outcome.",
            buckets=_SECONDS,
            registry=registry,
        )
        self._running = Gauge("phala_jobs_worker_running", "Jobs that run.", registry=registry)
        self._waiting = Gauge("phala_jobs_worker_waiting", "Jobs that wait.", registry=registry)
        for outcome in Outcome:
            self._finished.labels(outcome=outcome.name.lower())

    def accepted(self) -> None:
        """Count a job that was put into the queue."""
        self._accepted.inc()

    def finished(self, outcome: Outcome, milliseconds: int) -> None:
        """Count an outcome."""
        self._finished.labels(outcome=outcome.name.lower()).inc()
        self._duration.observe(max(0, milliseconds) / 1_000)

    def put_back(self) -> None:
        """Count a run that has to be made again."""
        self._put_back.inc()

    def refused(self, status: int) -> None:
        """Count a refused request."""
        self._refused.labels(status=str(status)).inc()

    def text(self, *, running: int, waiting: int) -> bytes:
        """Return everything in Prometheus's text format."""
        self._running.set(running)
        self._waiting.set(waiting)
        return generate_latest(self._registry)
