"""What a worker is told on start."""

from dataclasses import dataclass, field
from pathlib import Path

from orchestrator.errors import ConfigError
from orchestrator.http_server import Listen
from orchestrator.models import Scheme

__all__ = ["MAX_HOLD_SECONDS", "WorkerSettings"]

_DAY_MS = 86_400_000
MAX_HOLD_SECONDS = 30 * 86_400
_MIB = 1 << 20


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """
    Everything is kept under *folder*, which belongs to one worker process at a time.

    `unsafe_without_chain` lets the worker believe what requests say about jobs, and
    `developer_hold_seconds` makes it hold each job before executing it; both are for development,
    and are told to whoever asks the worker for its identity.
    """

    folder: Path
    listen: Listen = field(default_factory=Listen)
    scheme: Scheme = Scheme.ECDSA
    version: str = "0"
    contract: bytes | None = None
    unsafe_without_chain: bool = False
    developer_hold_seconds: float = 0.0
    tasks: tuple[str, ...] | None = None
    task_environment: dict[str, str] = field(default_factory=dict)
    slots: int = 2
    queue: int = 256
    queue_bytes: int = 64 * _MIB
    uploads_bytes: int = 256 * _MIB
    max_envelope_bytes: int = 20 * _MIB
    retention_ms: int = 7 * _DAY_MS
    requests_per_second: float = 20.0
    request_burst: int = 200

    def __post_init__(self) -> None:
        positive = (
            "slots",
            "queue",
            "queue_bytes",
            "uploads_bytes",
            "max_envelope_bytes",
            "requests_per_second",
            "request_burst",
        )
        for name in positive:
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name}: {getattr(self, name)}, must be greater than 0")
        for name in ("developer_hold_seconds", "retention_ms"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name}: {getattr(self, name)}, must not be negative")
        if self.developer_hold_seconds > MAX_HOLD_SECONDS:
            raise ConfigError(
                f"developer_hold_seconds: {self.developer_hold_seconds},"
                f" must be at most {MAX_HOLD_SECONDS}"
            )

    @property
    def development(self) -> tuple[str, ...]:
        """The developer options in use, in words."""
        words = []
        if self.unsafe_without_chain:
            words.append("believes requests, has no chain")
        if self.developer_hold_seconds:
            words.append(f"holds each job for {self.developer_hold_seconds:g} s")
        return tuple(words)
