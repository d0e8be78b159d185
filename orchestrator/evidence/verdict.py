"""
What became of the fourteen checks of one piece of evidence, and the value that stands for success.

`VerifiedEvidence` can be made by `orchestrator.evidence.verifier` alone: registering a worker and
sealing under a policy take it, so that neither can be done without the checks.
"""

from dataclasses import InitVar, dataclass
from enum import Enum
from typing import Final, NoReturn, SupportsIndex

from orchestrator.attestation import CheckOutcome
from orchestrator.errors import VerificationError
from orchestrator.evidence.bundle import EvidenceBundle

__all__ = ["EvidenceCheck", "EvidenceError", "EvidenceFinding", "Verdict", "VerifiedEvidence"]


class EvidenceCheck(Enum):
    """The checks, in their order; the value is the stable code."""

    FORM = "E01"
    SIGNATURES = "E02"
    COLLATERAL = "E03"
    ATTRIBUTES = "E04"
    TCB_STATUS = "E05"
    ADVISORIES = "E06"
    EVALUATION_NUMBER = "E07"
    PLATFORM = "E08"
    MEASUREMENTS = "E09"
    EVENT_LOG = "E10"
    APPLICATION = "E11"
    REPORT_DATA = "E12"
    CHALLENGE = "E13"
    KEYS = "E14"

    @property
    def title(self) -> str:
        """What is checked, in a few words."""
        return _TITLES[self]


_TITLES: Final = {
    EvidenceCheck.FORM: "size and form",
    EvidenceCheck.SIGNATURES: "signatures up to an allowed root",
    EvidenceCheck.COLLATERAL: "collateral valid at the time",
    EvidenceCheck.ATTRIBUTES: "no debug, attributes",
    EvidenceCheck.TCB_STATUS: "TCB status",
    EvidenceCheck.ADVISORIES: "advisories",
    EvidenceCheck.EVALUATION_NUMBER: "TCB evaluation number",
    EvidenceCheck.PLATFORM: "platform",
    EvidenceCheck.MEASUREMENTS: "measurements",
    EvidenceCheck.EVENT_LOG: "event log replays",
    EvidenceCheck.APPLICATION: "compose hash or app id",
    EvidenceCheck.REPORT_DATA: "binds keys, chain, contract, challenge",
    EvidenceCheck.CHALLENGE: "challenge fresh",
    EvidenceCheck.KEYS: "keys not revoked, expired or another's",
}


@dataclass(frozen=True, kw_only=True)
class EvidenceFinding:
    """One check: how it ended, a sentence for people, and what to do where it failed."""

    check: EvidenceCheck
    outcome: CheckOutcome
    detail: str
    hint: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class VerifiedEvidence:
    """
    Evidence that passed every check that could be made, for one policy at one time (ms).

    `measurement` is the hash of the matched set (protocol 3.3), `measurement_set` its name in the
    policy. `root` names the root that the quote's signatures end in; `is_simulated` says that it is
    not Intel's, so that nothing here proves a TEE. `valid_until` (ms) is the end of what may be
    registered on it: by the policy, a grace of its status included, and by the collateral, which
    runs out at `collateral_expires_at`. `ppid` and `piid` name the platform; SGX and simulated ones
    may have no `piid`.

    It can't be subclassed or pickled, and a copy of it is itself. That keeps a mistake from making
    one; code that is set on it can do anything in its own process.
    """

    bundle: EvidenceBundle
    evidence_hash: bytes
    policy_hash: bytes
    measurement: bytes
    measurement_set: str
    root: str
    is_simulated: bool
    tee: str
    tcb_status: str
    advisories: tuple[str, ...]
    evaluation_number: int
    fmspc: bytes
    ppid: bytes
    piid: bytes | None
    verified_at: int
    valid_until: int
    collateral_expires_at: int
    made_by: InitVar[object]

    def __post_init__(self, made_by: object) -> None:
        # An `InitVar`, so that `dataclasses.replace` can't carry it over into other facts.
        if made_by is not VERIFIER:
            raise TypeError(_ALONE)

    def __init_subclass__(cls) -> NoReturn:
        """Refuse: a subclass could skip the check above."""
        raise TypeError(_ALONE)

    def __copy__(self) -> "VerifiedEvidence":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "VerifiedEvidence":
        return self

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        """Refuse: what is read back from bytes was not verified."""
        raise TypeError(_ALONE)

    def __setstate__(self, state: object) -> NoReturn:
        """Refuse, for the same reason."""
        raise TypeError(_ALONE)


_ALONE: Final = "VerifiedEvidence is made by verify_evidence alone"
# The verifier's mark; nobody else may use it, which a test sees to.
VERIFIER: Final = object()


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """All findings, in the order of the checks, and the evidence if none failed."""

    findings: tuple[EvidenceFinding, ...]
    evidence: VerifiedEvidence | None

    @property
    def refused_by(self) -> EvidenceFinding | None:
        """The first check that failed."""
        return next((f for f in self.findings if f.outcome is CheckOutcome.FAILED), None)


class EvidenceError(VerificationError):
    """
    The evidence was refused.

    `code` is that of the first check that failed, `verdict` has all of them.
    """

    def __init__(self, verdict: Verdict) -> None:
        refused = verdict.refused_by
        if refused is None:
            raise ValueError("this evidence was not refused")
        hint = f"; {refused.hint}" if refused.hint else ""
        super().__init__(refused.check.value, f"{refused.detail}{hint}")
        self.verdict = verdict
