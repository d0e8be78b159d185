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

    `batch_jobs` is how many jobs one transaction may settle. A job needs about 0.5e9 ps of weight
    in `complete_jobs` of ten, and what a transaction declares has a margin, so that 200 take about
    a tenth of the 1.5e12 ps that a block has for calls: room for others, and what is ready
    later does not wait for another block. `pending_seconds` is how long
    to wait for what may be on its way before looking again. `from_block` is where a new journal
    begins to read events: the block of the contract's deployment. The balance is low when it
    pays for fewer than `low_balance_jobs`.

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
    batch_jobs: int = 200
    pending_seconds: float = 60
    retry_seconds: float = 0.5
    retry_max_seconds: float = 60
    stale_answers: int = 3
    max_result_bytes: int = 64 << 20
    shutdown_seconds: float = 20
    expire_jobs: bool = True
    keep_days: int = 90
    keep_results_days: int = 0
    from_block: int = 0
    low_balance_jobs: int = 1_000

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if name in ("trusted_workers", "trusted_keys", "expire_jobs"):
                continue
            above = -1 if name in ("keep_results_days", "from_block") else 0
            if value <= above:
                raise ConfigError(f"{name} must be greater than {above}, not {value}")
        if self.group_size > 10:
            raise ConfigError(f"group_size is at most 10, not {self.group_size}")
