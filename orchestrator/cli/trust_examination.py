"""
What `doctor` finds out about evidence: policy, stored bundles, collateral, and what will refuse.

Without a policy there is nothing to examine by, and each of these says so.
"""

import functools
from typing import TYPE_CHECKING

from orchestrator.cli.findings import Finding, Outcome, finding
from orchestrator.cli.output import shown_time
from orchestrator.cli.session import Session
from orchestrator.cli.trust import failure_words, look
from orchestrator.cli.values import shown_duration
from orchestrator.cli.verdicts import SIMULATED, no_source_words

if TYPE_CHECKING:
    from orchestrator.registrar.forecast import Failure, TrustForecast, WorkerForecast

_NO_POLICY = "no policy is set: workers' evidence is not examined"
# The checks of registrations and collateral have these.
_OF_OTHERS = ("RegistrationEnds", "CollateralEnds")
_Pairs = list[tuple["WorkerForecast", "Failure"]]


class TrustExamination:
    """The checks about evidence; registrations that end are for another."""

    def __init__(self, session: Session, *, window_ms: int) -> None:
        self._session = session
        self._window_ms = window_ms

    @functools.cached_property
    def _made(self) -> "TrustForecast":
        return look(self._session, window_ms=self._window_ms)

    def policy(self) -> Finding:
        """Whether the policy can be read, and allows anything."""
        policy, path = self._session.policy, self._session.settings.policy
        if policy is None:
            return finding("policy", Outcome.OK, _NO_POLICY)
        missing = [
            name
            for name, held in (
                ("root", policy.roots),
                ("measurement set", policy.measurements),
                ("TCB status", policy.tcb.statuses or policy.tcb.grace),
            )
            if not held
        ]
        if missing:
            return finding(
                "policy",
                Outcome.FAIL,
                f"{path} allows no {' and no '.join(missing)}: it refuses everything",
                "phala-jobs policy check says what is odd about it",
            )
        simulated = [root.name for root in policy.roots if not root.is_intel]
        words = f"{path}; measurement sets: {len(policy.measurements)}"
        if simulated:
            return finding(
                "policy",
                Outcome.WARN,
                f"{words}; roots that are not Intel's: {', '.join(simulated)}",
                f"evidence under such a root is {SIMULATED}",
            )
        return finding("policy", Outcome.OK, words)

    def evidence(self) -> Finding:
        """Whether the evidence of every worker is to be had."""
        if self._session.policy is None:
            return finding("evidence", Outcome.OK, _NO_POLICY)
        missing = [one for one in self._made.watched if not one.has_evidence]
        if missing:
            words = (
                f"worker {one.worker.worker}: {one.unknown or 'registered without any'}"
                for one in missing
            )
            return finding(
                "evidence",
                Outcome.WARN,
                "; ".join(words),
                "nobody can tell what will refuse these workers: whoever registered them has their"
                " evidence, if anybody",
            )
        return finding("evidence", Outcome.OK, f"that of {len(self._made.watched)} workers is here")

    def collateral(self) -> Finding:
        """Whether there is collateral, and the newest lasts."""
        if self._session.policy is None:
            return finding("collateral", Outcome.OK, _NO_POLICY)
        unknown = [one for one in self._made.watched if one.has_evidence and one.unknown]
        if unknown:
            return finding(
                "collateral",
                Outcome.UNKNOWN,
                "; ".join(f"worker {one.worker.worker}: {one.unknown}" for one in unknown),
                "is the collateral source in order?",
            )
        ends = self._made.collateral_ends_at
        if ends is None:
            return finding("collateral", Outcome.OK, "there is no evidence to have any for")
        if ends < self._made.until:
            return finding(
                "collateral",
                Outcome.FAIL,
                f"the newest ends on {shown_time(ends)}",
                "nobody can be registered or renewed after: is the collateral source in order?",
            )
        if self._session.settings.collateral is None:
            return finding(
                "collateral",
                Outcome.WARN,
                no_source_words(ends),
                "--collateral names a source of the newest, such as a PCCS",
            )
        return finding(
            "collateral", Outcome.OK, f"the newest lasts {shown_duration(self._window_ms)} and more"
        )

    def trust(self) -> Finding:
        """Whether the newest collateral and the policy would refuse a renewal."""
        if self._session.policy is None:
            return finding("trust", Outcome.OK, _NO_POLICY)
        made = self._made
        pairs: _Pairs = [(one, failure) for one in made.watched for failure in one.failures]
        failing = [
            (one, failure)
            for one, failure in pairs
            if failure.is_due(by=made.until) and failure.code not in _OF_OTHERS
        ]
        if failing:
            return self._told(Outcome.FAIL, failing)
        ahead = [(one, failure) for one, failure in pairs if failure.at is None]
        if ahead:
            return self._told(Outcome.WARN, ahead)
        return finding("trust", Outcome.OK, "nothing would refuse a renewal of those examined")

    def _told(self, outcome: Outcome, pairs: _Pairs) -> Finding:
        words = "; ".join(failure_words(one, failure, now=self._made.at) for one, failure in pairs)
        hints = dict.fromkeys(failure.hint for _, failure in pairs if failure.hint)
        return finding("trust", outcome, words, "; ".join(hints) or "phala-jobs trust status")
