"""
Which jobs an orchestrator works on: an operator's decision, made before anything is spent on a job.

The contract limits what one account may submit; how many accounts there are is nobody's limit, so
an orchestrator outside development works for a list of owners.
"""

from dataclasses import dataclass
from enum import Enum

from orchestrator.crypto.keys import verify_reply_key
from orchestrator.encoding import to_ss58
from orchestrator.errors import ConfigError, InputError
from orchestrator.journal import Usage
from orchestrator.models import InlinePayload, Job

__all__ = ["OWNER_NOT_ALLOWED", "Admission", "AdmissionPolicy", "Refused"]

DAY = 86_400_000
OWNER_NOT_ALLOWED = "OwnerNotAllowed"


class Admission(Enum):
    """What is decided about a job that is not admitted."""

    REFUSED = "refused"
    DEFERRED = "deferred"


@dataclass(frozen=True, kw_only=True)
class Refused:
    """Why a job is not admitted, or not today."""

    decision: Admission
    code: str
    detail: str


@dataclass(frozen=True, kw_only=True)
class AdmissionPolicy:
    """
    Owners, and what each of them may have done per day (UTC).

    `owners` is the list of accounts; an empty one admits nobody, `None` everybody,
    which is for development. A job that is over a day's allowance waits for the next
    day, unless no day would ever be enough.
    """

    owners: frozenset[bytes] | None = frozenset()
    jobs_per_day: int = 1_000
    bytes_per_day: int = 1 << 30

    def __post_init__(self) -> None:
        for name in ("jobs_per_day", "bytes_per_day"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")

    def has_owner(self, owner: bytes) -> bool:
        """Whether the account is on the list."""
        return self.owners is None or owner in self.owners

    def decide(self, job: Job, *, used: Usage) -> Refused | None:
        """
        Say why *job* is not admitted now, `None` when it is; *used* is the owner's use today.

        1. The owner is on the list.
        2. The payload is stored on the chain.
        3. A result can be sealed to the job's key.
        4. The owner has a job and the payload's bytes left today.
        """
        if not self.has_owner(job.owner):
            return _refused(OWNER_NOT_ALLOWED, f"owner {to_ss58(job.owner)} is not on the list")
        if not isinstance(job.encrypted_payload, InlinePayload):
            return _refused(
                "PayloadByReference",
                f"payload of {job.encrypted_payload.length} bytes by reference; "
                "this version takes payloads stored on the chain",
            )
        try:
            verify_reply_key(job.public_key)
        except InputError as error:
            return _refused("InvalidKey", f"public_key: {error}")
        return self._allowance(len(job.encrypted_payload.data), used)

    def _allowance(self, size: int, used: Usage) -> Refused | None:
        if size > self.bytes_per_day:
            return _refused(
                "PayloadOverDailyBytes",
                f"payload of {size} bytes, limit {self.bytes_per_day} bytes per day",
            )
        if used.jobs + 1 > self.jobs_per_day:
            return _deferred("DailyJobs", f"limit of {self.jobs_per_day} jobs per day is used up")
        if used.bytes + size > self.bytes_per_day:
            return _deferred(
                "DailyBytes",
                f"payload of {size} bytes, {used.bytes} of {self.bytes_per_day} used today",
            )
        return None


def payload_size(job: Job) -> int:
    """How many bytes of payload the job has on the chain or elsewhere."""
    payload = job.encrypted_payload
    return len(payload.data) if isinstance(payload, InlinePayload) else payload.length


def _refused(code: str, detail: str) -> Refused:
    return Refused(decision=Admission.REFUSED, code=code, detail=detail)


def _deferred(code: str, detail: str) -> Refused:
    return Refused(decision=Admission.DEFERRED, code=code, detail=detail)
