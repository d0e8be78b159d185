"""Attributes that the simulator can't show: those of enclaves, and a bound service TD."""

from dataclasses import replace

import pytest

from orchestrator.evidence import (
    INTEL_ROOT,
    Attributes,
    Policy,
    Quote,
    Root,
    SgxReport,
    parse_quote,
)
from orchestrator.evidence.appraisal import Genuine
from orchestrator.evidence.finding import CheckFailedError
from orchestrator.evidence.platform_checks import check_attributes, check_tcb_status, tcb_state
from orchestrator.evidence.quote import TdxReport
from orchestrator.evidence.qvl import Claims, Pck, Refusal
from orchestrator.evidence.tcb import QeIdentity, Svns, TcbInfo, TcbLevel
from orchestrator.evidence.verdict import EvidenceCheck
from orchestrator.simulator import Simulator

POLICY = Policy(policy_hash=bytes(32))
DEBUGGING = replace(POLICY, attributes=Attributes(debug=True))
PCK = Pck(
    fmspc=bytes(6),
    ppid=bytes(16),
    piid=None,
    cpu_svn=bytes(16),
    pce_svn=0,
    dynamic_platform=None,
    cached_keys=None,
    smt=None,
)
LEVEL = TcbLevel(svns=Svns(sgx=(0,) * 16, tdx=(), pce=0), date=0, status="UpToDate", advisories=())
SIMULATOR = Simulator.create()
TD_QUOTE = parse_quote(SIMULATOR.quote(bytes(64), version=5))


def genuine(*, is_intel: bool = True, refusal: Refusal | None = None) -> Genuine:
    return Genuine(
        root=Root(name="root", certificate=INTEL_ROOT, is_intel=is_intel),
        is_intel=is_intel,
        pck=PCK,
        tcb_info=TcbInfo(evaluation_number=1, levels=(LEVEL,), modules={}, kinds={}),
        qe_identity=QeIdentity(evaluation_number=1, levels=()),
        claims=None
        if refusal is not None
        else Claims(status="UpToDate", advisories=(), pck=PCK, latest_issue=0, earliest_expiry=1),
        refusal=refusal,
        expires_at=1,
    )


def enclave(flags: int) -> Quote:
    report = SgxReport(
        attributes=flags.to_bytes(8, "little") + bytes(8),
        mrenclave=bytes(32),
        mrsigner=bytes(32),
        isv_prod_id=0,
        isv_svn=0,
        report_data=bytes(64),
    )
    return replace(TD_QUOTE, version=3, report=report)


@pytest.mark.parametrize(
    ("flags", "words"), [(0x04, "INIT is off"), (0x01, "MODE64BIT is off"), (0x07, "a debug")]
)
def test_an_enclave_is_initialised_of_64_bits_and_not_debugged(flags: int, words: str) -> None:
    assert check_attributes(genuine(), enclave(0x05), POLICY)
    for policy in (POLICY, DEBUGGING):
        with pytest.raises(CheckFailedError, match=words):
            check_attributes(genuine(), enclave(flags), policy)


def test_a_debug_enclave_passes_under_another_root_where_the_policy_says_so() -> None:
    refused = Refusal(check=EvidenceCheck.ATTRIBUTES, message="Debug mode is enabled")
    simulated = genuine(is_intel=False, refusal=refused)

    assert "simulated: proves no TEE" in check_attributes(simulated, enclave(0x07), DEBUGGING)
    with pytest.raises(CheckFailedError, match="a debug enclave"):
        check_attributes(simulated, enclave(0x07), POLICY)


def test_a_td_is_not_bound_to_a_service_td() -> None:
    report = TD_QUOTE.report
    assert isinstance(report, TdxReport)
    bound = replace(TD_QUOTE, report=replace(report, mr_service_td=b"\1" * 48))

    assert check_attributes(genuine(), TD_QUOTE, POLICY)
    with pytest.raises(CheckFailedError, match="a service TD is bound"):
        check_attributes(genuine(), bound, POLICY)


@pytest.mark.parametrize("policy", [POLICY, DEBUGGING])
def test_what_the_library_has_against_the_attributes_counts_whatever_we_think(
    policy: Policy,
) -> None:
    other = Refusal(check=EvidenceCheck.ATTRIBUTES, message="SERVTD_EXT is enabled")

    for quote, words in ((enclave(0x05), "SERVTD_EXT"), (enclave(0x07), "SERVTD_EXT|debug")):
        with pytest.raises(CheckFailedError, match=words):
            check_attributes(genuine(is_intel=False, refusal=other), quote, policy)


def test_what_the_library_has_against_the_tcb_counts_whatever_we_think() -> None:
    late = Refusal(check=EvidenceCheck.TCB_STATUS, message="TDX module identity check")
    allowing = replace(POLICY, tcb=replace(POLICY.tcb, statuses=frozenset({"UpToDate"})))
    state = tcb_state(genuine(), TD_QUOTE)
    assert state is not None

    assert check_tcb_status(genuine(), TD_QUOTE, allowing, state, 0) == "UpToDate"
    with pytest.raises(CheckFailedError, match="TDX module identity check"):
        check_tcb_status(genuine(refusal=late), TD_QUOTE, allowing, state, 0)
