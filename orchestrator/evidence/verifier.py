"""
Decides whether evidence is good enough for a policy: fourteen checks in a fixed order.

Nothing here does I/O or reads a clock. Nothing that a bundle may hold raises: it ends as a finding.
"""

from collections.abc import Callable
from functools import partial

from orchestrator.attestation import CheckOutcome
from orchestrator.encoding import blake2_256
from orchestrator.errors import EncodingError
from orchestrator.evidence.application_checks import (
    attested_application,
    check_event_log,
    matching_sets,
    select_set,
)
from orchestrator.evidence.appraisal import Genuine, appraise
from orchestrator.evidence.binding_checks import (
    ExpectedBinding,
    IssuedChallenge,
    KeyStanding,
    check_challenge,
    check_keys,
    check_report_data,
)
from orchestrator.evidence.bundle import EvidenceBundle, load_bundle
from orchestrator.evidence.event_log import RuntimeEvent
from orchestrator.evidence.finding import failed, not_checked, passed, run
from orchestrator.evidence.platform_checks import (
    check_advisories,
    check_attributes,
    check_evaluation_number,
    check_platform,
    check_tcb_status,
    evaluation_number,
    grace_ends,
    tcb_state,
)
from orchestrator.evidence.policy import MeasurementSet, Policy
from orchestrator.evidence.quote import Quote, parse_quote
from orchestrator.evidence.report_data import protocol_report_data
from orchestrator.evidence.verdict import (
    VERIFIER,
    EvidenceCheck,
    EvidenceError,
    EvidenceFinding,
    Verdict,
    VerifiedEvidence,
)

__all__ = [
    "ExpectedBinding",
    "IssuedChallenge",
    "KeyStanding",
    "examine_evidence",
    "verify_evidence",
]

_NO_QUOTE = "not reached: there is no quote that can be read"
_NOT_GENUINE = "not reached: the quote is not shown to be genuine"
# These have to be passed; the others are unknown to who did not issue, or can't see the chain.
_NEEDED = tuple(EvidenceCheck)[:12]


def verify_evidence(
    data: bytes,
    *,
    policy: Policy,
    now: int,
    expected: ExpectedBinding,
    challenge: IssuedChallenge | None,
    standing: KeyStanding | None,
    report_data_of: Callable[[EvidenceBundle], bytes] = protocol_report_data,
) -> VerifiedEvidence:
    """
    Return the evidence in the bundle *data* once all checks of `examine_evidence` are passed.

    Raises:
        EvidenceError: A check failed; it has the whole verdict.
    """
    verdict = examine_evidence(
        data,
        policy=policy,
        now=now,
        expected=expected,
        challenge=challenge,
        standing=standing,
        report_data_of=report_data_of,
    )
    if verdict.evidence is None:
        raise EvidenceError(verdict)
    return verdict.evidence


def examine_evidence(
    data: bytes,
    *,
    policy: Policy,
    now: int,
    expected: ExpectedBinding,
    challenge: IssuedChallenge | None,
    standing: KeyStanding | None,
    report_data_of: Callable[[EvidenceBundle], bytes] = protocol_report_data,
) -> Verdict:
    """
    Return what became of each check of the bundle *data* under *policy* at *now* (ms).

    1. E01: the bundle can be read, its quote too, and nothing but zeros follows it.
    2. E02: its signatures are good up to a root that the policy names.
    3. E03: its collateral is valid at *now*.
    4. E04: no debug TD or enclave, no attribute that weakens it.
    5. E05: its TCB status is in the policy, or in grace.
    6. E06: no advisory that applies is denied.
    7. E07: TCB info and QE identity are of an evaluation that is new enough.
    8. E08: the platform is allowed.
    9. E09: its registers are all those of a measurement set, the registered one if there is one.
    10. E10: the event log replays, has what it must have and nothing that it must not.
    11. E11: the application is that of the set.
    12. E12: it binds exactly the *expected* keys, chain and contract, and its challenge.
    13. E13: that is the *challenge* that was issued: unused, not too old.
    14. E14: the keys' *standing* on the chain allows it.

    All that can be checked is, whatever failed before. Without *challenge* E13, without *standing*
    E14 is "not checked", which refuses nothing.
    """
    case = _Case(
        data=data,
        policy=policy,
        now=now,
        expected=expected,
        challenge=challenge,
        standing=standing,
        report_data_of=report_data_of,
    )
    return case.examine()


class _Case:
    """One examination: what is asked, and the findings so far."""

    def __init__(
        self,
        *,
        data: bytes,
        policy: Policy,
        now: int,
        expected: ExpectedBinding,
        challenge: IssuedChallenge | None,
        standing: KeyStanding | None,
        report_data_of: Callable[[EvidenceBundle], bytes],
    ) -> None:
        self.data = data
        self.policy = policy
        self.now = now
        self.expected = expected
        self.challenge = challenge
        self.standing = standing
        self.report_data_of = report_data_of
        self.findings: dict[EvidenceCheck, EvidenceFinding] = {}

    def examine(self) -> Verdict:
        bundle, quote = self._read()  # 1.
        genuine = self._appraise(bundle, quote)  # 2., 3.
        matched = None
        if bundle is None or quote is None or genuine is None:
            reason = _NO_QUOTE if quote is None else _NOT_GENUINE
            for check in _NEEDED[3:]:
                self._add(not_checked(check, reason))
        else:
            self._check_platform(genuine, quote)  # 4. to 8.
            matched = self._check_application(bundle, quote)  # 9. to 11.
            self._run(  # 12.
                EvidenceCheck.REPORT_DATA,
                partial(check_report_data, bundle, quote, self.expected, self.report_data_of),
            )
        self._check_freshness(bundle)  # 13.
        self._check_keys()  # 14.
        findings = tuple(self.findings[check] for check in EvidenceCheck)
        evidence = None
        if bundle is not None and quote is not None and genuine is not None:
            evidence = self._evidence(bundle, quote, genuine, matched)
        return Verdict(findings=findings, evidence=evidence)

    def _read(self) -> tuple[EvidenceBundle | None, Quote | None]:
        bundle = None
        try:
            bundle = load_bundle(self.data)
            quote = parse_quote(bundle.quote)
        except EncodingError as error:
            hint = (
                "ask the worker again" if bundle is None else "send the platform's quote as it is"
            )
            self._add(failed(EvidenceCheck.FORM, str(error), hint))
            return bundle, None
        self._add(
            passed(
                EvidenceCheck.FORM,
                f"bundle of {len(self.data)} bytes by {bundle.producer!r}, {quote.tee.upper()} "
                f"quote version {quote.version} of {quote.length}",
            )
        )
        return bundle, quote

    def _appraise(self, bundle: EvidenceBundle | None, quote: Quote | None) -> Genuine | None:
        if bundle is None or quote is None:
            self._add(not_checked(EvidenceCheck.SIGNATURES, _NO_QUOTE))
            self._add(not_checked(EvidenceCheck.COLLATERAL, _NO_QUOTE))
            return None
        try:
            appraisal = appraise(
                bundle.quote, quote, bundle.collateral, policy=self.policy, now=self.now
            )
        except Exception as error:  # noqa: BLE001 - whatever goes wrong here refuses
            detail = f"the check itself failed: {type(error).__name__}"
            self._add(failed(EvidenceCheck.SIGNATURES, detail))
            self._add(not_checked(EvidenceCheck.COLLATERAL, _NOT_GENUINE))
            return None
        if appraisal.malformed is not None:
            self._add(failed(EvidenceCheck.FORM, appraisal.malformed.message))
        self._add(appraisal.signatures)
        self._add(appraisal.collateral)
        return appraisal.genuine

    def _check_platform(self, genuine: Genuine, quote: Quote) -> None:
        policy = self.policy
        self._run(EvidenceCheck.ATTRIBUTES, partial(check_attributes, genuine, quote, policy))
        state = tcb_state(genuine, quote)
        self._run(
            EvidenceCheck.TCB_STATUS,
            partial(check_tcb_status, genuine, quote, policy, state, self.now),
        )
        if state is None:
            self._add(not_checked(EvidenceCheck.ADVISORIES, "not reached: no TCB level fits"))
        else:
            self._run(EvidenceCheck.ADVISORIES, partial(check_advisories, policy, state))
        self._run(
            EvidenceCheck.EVALUATION_NUMBER, partial(check_evaluation_number, genuine, policy)
        )
        self._run(EvidenceCheck.PLATFORM, partial(check_platform, genuine, policy))

    def _check_application(self, bundle: EvidenceBundle, quote: Quote) -> MeasurementSet | None:
        sets: tuple[MeasurementSet, ...] = ()
        events: tuple[RuntimeEvent, ...] = ()
        matched: MeasurementSet | None = None

        def measurements() -> str:
            nonlocal sets
            sets = matching_sets(quote, self.policy, self.expected.measurement)
            return f"all registers of {', '.join(repr(one.name) for one in sets)}"

        def event_log() -> str:
            nonlocal events
            events, sentence = check_event_log(quote, bundle.event_log, self.policy)
            return sentence

        def application() -> str:
            nonlocal matched
            says = attested_application(quote, events, bundle.compose)
            matched, sentence = select_set(sets, says)
            return sentence

        self._run(EvidenceCheck.MEASUREMENTS, measurements)  # 9.
        self._run(EvidenceCheck.EVENT_LOG, event_log)  # 10.
        needed = (EvidenceCheck.MEASUREMENTS, EvidenceCheck.EVENT_LOG)
        if all(self.findings[check].outcome is CheckOutcome.PASSED for check in needed):
            self._run(EvidenceCheck.APPLICATION, application)  # 11.
        else:
            reason = "not reached: registers or event log are not shown to be good"
            self._add(not_checked(EvidenceCheck.APPLICATION, reason))
        return matched

    def _check_freshness(self, bundle: EvidenceBundle | None) -> None:
        challenge = self.challenge
        if challenge is None:
            self._add(not_checked(EvidenceCheck.CHALLENGE, "only the issuer could tell"))
        elif bundle is None:
            self._add(not_checked(EvidenceCheck.CHALLENGE, _NO_QUOTE))
        else:
            self._run(
                EvidenceCheck.CHALLENGE,
                partial(check_challenge, bundle, challenge, self.policy, self.now),
            )

    def _check_keys(self) -> None:
        if self.standing is None:
            self._add(not_checked(EvidenceCheck.KEYS, "only the chain could tell"))
        else:
            self._run(
                EvidenceCheck.KEYS, partial(check_keys, self.expected, self.standing, self.now)
            )

    def _evidence(
        self,
        bundle: EvidenceBundle,
        quote: Quote,
        genuine: Genuine,
        matched: MeasurementSet | None,
    ) -> VerifiedEvidence | None:
        outcomes = {check: finding.outcome for check, finding in self.findings.items()}
        state = tcb_state(genuine, quote)
        if (
            CheckOutcome.FAILED in outcomes.values()
            or any(outcomes[check] is not CheckOutcome.PASSED for check in _NEEDED)
            or matched is None
            or state is None
        ):
            return None
        ends = (
            self.now + self.policy.maximum_registration,
            genuine.expires_at,
            grace_ends(genuine, quote, self.policy, state),
        )
        return VerifiedEvidence(
            bundle=bundle,
            evidence_hash=blake2_256(self.data),
            policy_hash=self.policy.policy_hash,
            measurement=matched.measurement,
            measurement_set=matched.name,
            root=genuine.root.name,
            is_simulated=not genuine.is_intel,
            tee=quote.tee,
            tcb_status=state.status,
            advisories=state.advisories,
            evaluation_number=evaluation_number(genuine),
            fmspc=genuine.pck.fmspc,
            ppid=genuine.pck.ppid,
            piid=genuine.pck.piid,
            verified_at=self.now,
            valid_until=min(end for end in ends if end is not None),
            collateral_expires_at=genuine.expires_at,
            made_by=VERIFIER,
        )

    def _add(self, finding: EvidenceFinding) -> None:
        self.findings[finding.check] = finding

    def _run(self, check: EvidenceCheck, ask: Callable[[], str]) -> None:
        self._add(run(check, ask))
