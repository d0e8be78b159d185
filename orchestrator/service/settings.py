"""What an operator may choose about the service; admission is in `admission`."""

from dataclasses import dataclass

from orchestrator.errors import ConfigError
from orchestrator.models import PublicKey, WorkerId

__all__ = ["OrchestratorSettings"]


@dataclass(frozen=True, kw_only=True)
class OrchestratorSettings:
    """
    Times in seconds, sizes in bytes.

    `trusted_workers` and `trusted_keys` restrict the workers that are believed; `None`
    leaves it to the chain's trusted list. `concurrency` is how many jobs are worked on at
    once; up to four times as many may wait at workers, who have equal shares of that and at most
    `jobs_per_worker` each. `lease_seconds` is how long one worker may have a job before the
    next one is asked. `open_jobs` bounds how many jobs are followed at once: beyond it, no
    further events are read until some are closed; a quarter of it is one owner's share.
    `keep_days` is how long the journal remembers closed jobs, `keep_results_days` how long
    their sealed results are stored: 0 is for ever.

    Raises:
        ConfigError: A number is not positive, or larger than the protocol allows.
    """

    trusted_workers: frozenset[WorkerId] | None = None
    trusted_keys: frozenset[PublicKey] | None = None
    concurrency: int = 128
    jobs_per_worker: int = 32
    open_jobs: int = 20_000
    poll_seconds: float = 0.05
    long_poll_seconds: float = 20
    answer_seconds: float = 15
    lease_seconds: float = 600
    group_seconds: float = 0.02
    group_size: int = 10
    retry_seconds: float = 0.5
    retry_max_seconds: float = 60
    stale_answers: int = 3
    max_result_bytes: int = 64 << 20
    shutdown_seconds: float = 20
    expire_jobs: bool = True
    keep_days: int = 90
    keep_results_days: int = 0

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in ("trusted_workers", "trusted_keys", "expire_jobs"):
                continue
            above = -1 if name == "keep_results_days" else 0
            if value <= above:
                raise ConfigError(f"{name} must be greater than {above}, not {value}")
        if self.group_size > 10:
            raise ConfigError(f"group_size is at most 10, not {self.group_size}")
