"""Evidence of real machines: what is accepted, what is refused, and by which check."""

from dataclasses import replace

import pytest

from orchestrator.attestation import CheckOutcome
from orchestrator.evidence import (
    INTEL_ROOT,
    EvidenceBundle,
    EvidenceCheck,
    ExpectedBinding,
    Policy,
    Root,
    SgxMeasurements,
    SgxReport,
    TcbRules,
    TdxMeasurements,
    TdxReport,
    Verdict,
    dump_bundle,
    examine_evidence,
    parse_quote,
)
from orchestrator.models import PublicKey, Scheme
from tests.unit.evidence import real

TODAY = 1_795_276_800_000  # 2026-11-21T16:00:00Z
EXPECTED = ExpectedBinding(
    genesis_hash=b"\1" * 32,
    contract=b"\2" * 32,
    signing_key=PublicKey(scheme=Scheme.SR25519, key=b"\3" * 32),
    encryption_key=b"\4" * 32,
)
SGX_STATUS = "ConfigurationAndSWHardeningNeeded"
SGX_ADVISORIES = ("INTEL-SA-00289", "INTEL-SA-00615")


def bundle_of(name: str) -> EvidenceBundle:
    bundle = EvidenceBundle(
        producer="tests",
        genesis_hash=EXPECTED.genesis_hash,
        contract=EXPECTED.contract,
        signing_key=EXPECTED.signing_key,
        encryption_key=EXPECTED.encryption_key,
        challenge=b"\5" * 32,
        quote=real.real_quote(name),
        collateral=real.real_collateral(name),
    )
    if name == "near":
        other = real.near()
        return replace(bundle, event_log=other.event_log, compose=other.compose)
    return bundle


def policy_of(name: str) -> Policy:
    """The strict policy for this sample's code."""
    report = parse_quote(real.real_quote(name)).report
    measurements: TdxMeasurements | SgxMeasurements
    if isinstance(report, TdxReport):
        measurements = TdxMeasurements(
            name=name,
            mrtd=report.mrtd,
            rtmr0=report.rtmr0,
            rtmr1=report.rtmr1,
            rtmr2=report.rtmr2,
            compose_hash=real.near().registers["compose_hash"] if name == "near" else None,
        )
    else:
        measurements = SgxMeasurements(name=name, mrenclave=report.mrenclave)
    return Policy(
        policy_hash=b"\6" * 32,
        roots=(Root(name="intel", certificate=INTEL_ROOT, is_intel=True),),
        measurements=(measurements,),
        tcb=TcbRules(statuses=frozenset({"UpToDate"})),
    )


def examine(name: str, *, policy: Policy | None = None, now: int | None = None) -> Verdict:
    # Only near/mpc says how its report data is made; what it says is compared, not taken over.
    layout = real.near().report_data if name == "near" else None
    quote = parse_quote(real.real_quote(name))
    return examine_evidence(
        dump_bundle(bundle_of(name)),
        policy=policy or policy_of(name),
        now=real.NOW[name] if now is None else now,
        expected=EXPECTED,
        challenge=None,
        standing=None,
        report_data_of=lambda _: layout or quote.report.report_data,
    )


def failed(verdict: Verdict) -> dict[EvidenceCheck, str]:
    return {f.check: f.detail for f in verdict.findings if f.outcome is CheckOutcome.FAILED}


def test_near_mpc_is_accepted_at_its_time_with_its_four_checks() -> None:
    verdict = examine("near")

    assert failed(verdict) == {}
    details = {finding.check: finding.detail for finding in verdict.findings}
    assert details[EvidenceCheck.TCB_STATUS] == "UpToDate"
    assert details[EvidenceCheck.EVENT_LOG] == "9 events give RTMR3"
    assert real.near().registers["compose_hash"].hex() in details[EvidenceCheck.APPLICATION]
    report = parse_quote(real.real_quote("near")).report
    assert real.near().report_data == report.report_data
    evidence = verdict.evidence
    assert evidence is not None
    assert (evidence.root, evidence.is_simulated, evidence.tee) == ("intel", False, "tdx")
    assert evidence.fmspc.hex() == "b0c06f000000"
    assert evidence.collateral_expires_at == 1_789_171_031_000
    assert evidence.valid_until == real.NEAR_NOW + 7 * 86_400_000


def test_near_mpc_is_refused_under_the_layout_of_the_protocol() -> None:
    verdict = examine_evidence(
        dump_bundle(bundle_of("near")),
        policy=policy_of("near"),
        now=real.NEAR_NOW,
        expected=EXPECTED,
        challenge=None,
        standing=None,
    )

    assert list(failed(verdict)) == [EvidenceCheck.REPORT_DATA]


def test_the_td_sample_is_accepted() -> None:
    policy = policy_of("tdx_quote")
    assert isinstance(policy.measurements[0], TdxMeasurements)

    assert failed(examine("tdx_quote")) == {}


def test_the_sgx_sample_is_refused_by_a_strict_policy_and_says_which_version_is_short() -> None:
    verdict = examine("sgx_quote")

    assert failed(verdict) == {
        EvidenceCheck.TCB_STATUS: (
            f"{SGX_STATUS} (sgx_svn[6] is 0, must be 12); the policy allows UpToDate"
        )
    }


def test_the_sgx_sample_is_accepted_where_its_status_is_and_its_advisories_are_not_denied() -> None:
    strict = policy_of("sgx_quote")
    tolerant = replace(strict, tcb=TcbRules(statuses=frozenset({SGX_STATUS})))
    denying = replace(
        strict,
        tcb=TcbRules(
            statuses=frozenset({SGX_STATUS}), denied_advisories=frozenset(SGX_ADVISORIES[1:])
        ),
    )

    accepted = examine("sgx_quote", policy=tolerant).evidence
    assert accepted is not None
    assert (accepted.tee, accepted.tcb_status, accepted.piid) == ("sgx", SGX_STATUS, None)
    assert accepted.advisories == SGX_ADVISORIES
    assert list(failed(examine("sgx_quote", policy=denying))) == [EvidenceCheck.ADVISORIES]


def test_an_sgx_quote_has_no_log_no_document_and_needs_a_set_of_its_own() -> None:
    policy = replace(policy_of("sgx_quote"), tcb=TcbRules(statuses=frozenset({SGX_STATUS})))
    quote = parse_quote(real.real_quote("sgx_quote"))

    def check(policy: Policy, **changes: bytes) -> list[EvidenceCheck]:
        bundle = replace(bundle_of("sgx_quote"), **changes)  # type: ignore[arg-type]
        verdict = examine_evidence(
            dump_bundle(bundle),
            policy=policy,
            now=real.NOW["sgx_quote"],
            expected=EXPECTED,
            challenge=None,
            standing=None,
            report_data_of=lambda _: quote.report.report_data,
        )
        return list(failed(verdict))

    assert check(policy) == []
    assert check(policy, event_log=b"[]") == [EvidenceCheck.EVENT_LOG]
    assert check(policy, compose=b"{}") == [EvidenceCheck.APPLICATION]
    assert check(replace(policy, required_events=frozenset({"system-ready"}))) == [
        EvidenceCheck.EVENT_LOG
    ]
    for_tdx = replace(policy, measurements=policy_of("tdx_quote").measurements)
    assert check(for_tdx) == [EvidenceCheck.MEASUREMENTS]


def test_an_sgx_set_by_signer_wants_product_and_version() -> None:
    report = parse_quote(real.real_quote("sgx_quote")).report
    assert isinstance(report, SgxReport)
    tcb = TcbRules(statuses=frozenset({SGX_STATUS}))

    def check(**changes: object) -> list[EvidenceCheck]:
        one = SgxMeasurements(
            name="signer",
            mrsigner=report.mrsigner,
            isv_prod_id=report.isv_prod_id,
            minimum_isv_svn=report.isv_svn,
        )
        changed = replace(one, **changes)  # type: ignore[arg-type]  # one field at a time
        policy = replace(policy_of("sgx_quote"), tcb=tcb, measurements=(changed,))
        return list(failed(examine("sgx_quote", policy=policy)))

    assert check() == []
    assert check(mrsigner=b"\7" * 32) == [EvidenceCheck.MEASUREMENTS]
    assert check(isv_prod_id=report.isv_prod_id + 1) == [EvidenceCheck.MEASUREMENTS]
    assert check(minimum_isv_svn=report.isv_svn + 1) == [EvidenceCheck.MEASUREMENTS]
    assert check(mrenclave=b"\7" * 32) == [EvidenceCheck.MEASUREMENTS]
    nothing = {"mrsigner": None, "isv_prod_id": None, "minimum_isv_svn": None}
    assert check(**nothing) == [EvidenceCheck.MEASUREMENTS]


def test_the_outdated_sample_is_refused_with_the_librarys_words_and_the_version_that_is_short() -> (
    None
):
    verdict = examine("tdx_quote_outdated")

    assert failed(verdict) == {
        EvidenceCheck.TCB_STATUS: (
            "No matching TCB level found: sgx_svn[7] (SEAMLDR ACM) is 3, must be 5"
        )
    }
    assert verdict.evidence is None


@pytest.mark.parametrize("name", list(real.NOW))
def test_all_of_it_is_refused_today(name: str) -> None:
    tolerant = replace(policy_of(name), tcb=TcbRules(statuses=frozenset({"UpToDate", SGX_STATUS})))

    verdict = examine(name, policy=tolerant, now=TODAY)

    assert verdict.refused_by is not None
    assert verdict.refused_by.check is EvidenceCheck.COLLATERAL
    assert "expired at 2026-11-21" in verdict.refused_by.detail
    others = set(failed(verdict)) - {EvidenceCheck.COLLATERAL}
    assert others == ({EvidenceCheck.TCB_STATUS} if name == "tdx_quote_outdated" else set())


@pytest.mark.parametrize(
    ("now", "accepted"),
    [
        (1_786_617_937_999, False),
        (1_786_617_938_000, True),
        (1_789_171_031_000, True),
        (1_789_171_031_001, False),
    ],
)
def test_collateral_is_valid_from_its_latest_issue_to_its_earliest_end_to_the_ms(
    now: int, accepted: bool
) -> None:
    verdict = examine("near", now=now)

    assert list(failed(verdict)) == ([] if accepted else [EvidenceCheck.COLLATERAL])
    assert (verdict.evidence is not None) is accepted
