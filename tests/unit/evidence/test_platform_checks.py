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
from orchestrator.evidence.platform_checks import (
    TcbState,
    check_attributes,
    check_platform,
    check_tcb_status,
    grace_ends,
    tcb_state,
)
from orchestrator.evidence.quote import TdxReport
from orchestrator.evidence.qvl import Claims, Pck, Refusal
from orchestrator.evidence.tcb import QeIdentity, SvnLevel, Svns, TcbInfo, TcbLevel
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


@pytest.mark.parametrize("flag", ["dynamic_platform", "cached_keys", "smt"])
def test_a_certificate_that_does_not_say_is_refused_where_it_matters(flag: str) -> None:
    strict = replace(POLICY, platforms=replace(POLICY.platforms, **{flag: False}))  # type: ignore[arg-type]
    says_no = replace(genuine(), pck=replace(PCK, **{flag: False}))  # type: ignore[arg-type]

    assert check_platform(genuine(), POLICY)
    assert check_platform(says_no, strict)
    with pytest.raises(CheckFailedError, match=f"does not say whether {flag}"):
        check_platform(genuine(), strict)


# Since when a platform is behind: dates in days here.

GRACE = replace(
    POLICY,
    tcb=replace(
        POLICY.tcb,
        statuses=frozenset({"UpToDate", "SWHardeningNeeded"}),
        grace={"OutOfDate": 5, "OutOfDateConfigurationNeeded": 5},
    ),
)
OUTDATED = TcbState(status="OutOfDate", advisories=())
DAY_S = 86_400


def level(first: int, pce: int, day: int, status: str) -> TcbLevel:
    """A level of TDX platforms whose first version is *first*."""
    svns = Svns(sgx=(first,) + (0,) * 15, tdx=(0,) * 16, pce=pce)
    return TcbLevel(svns=svns, date=day * DAY_S, status=status, advisories=())


def svn_level(svn: int, day: int, status: str) -> SvnLevel:
    return SvnLevel(isv_svn=svn, date=day * DAY_S, status=status, advisories=())


GOOD_LEVELS = (level(0, 0, 900, "UpToDate"),)
GOOD_ENCLAVE = (svn_level(TD_QUOTE.qe_isv_svn, 900, "UpToDate"),)
SVN = TD_QUOTE.qe_isv_svn


def ends(
    levels: tuple[TcbLevel, ...] = GOOD_LEVELS,
    *,
    first: int = 0,
    pce: int = 0,
    modules: tuple[SvnLevel, ...] = (),
    enclave: tuple[SvnLevel, ...] = GOOD_ENCLAVE,
    status: str = "OutOfDate",
) -> int | None:
    """Return the day at which a grace of 5 ms would end 5 ms after its begin."""
    made = genuine()
    pck = replace(PCK, cpu_svn=bytes([first]) + bytes(15), pce_svn=pce)
    info = replace(made.tcb_info, levels=levels, modules={"TDX_01": modules} if modules else {})
    case = replace(
        made, pck=pck, tcb_info=info, qe_identity=replace(made.qe_identity, levels=enclave)
    )
    end = grace_ends(case, TD_QUOTE, GRACE, TcbState(status=status, advisories=()))
    return None if end is None else (end - 5) // (DAY_S * 1000)


LEVELS = (
    level(3, 13, 300, "UpToDate"),
    level(2, 13, 200, "OutOfDate"),
    level(2, 11, 150, "OutOfDate"),
    level(2, 5, 10, "OutOfDate"),
    level(1, 11, 100, "OutOfDate"),
)


@pytest.mark.parametrize(
    ("first", "pce", "day"),
    [
        (2, 13, 300),  # it missed the newest alone
        (2, 11, 200),
        (1, 13, 150),  # each recovery since moves nothing
        (1, 11, 150),
        (2, 5, 100),  # its PCE was outdated first
    ],
)
def test_a_grace_begins_with_the_first_level_that_was_missed(
    first: int, pce: int, day: int
) -> None:
    assert ends(LEVELS, first=first, pce=pce) == day


def test_a_platform_that_missed_nothing_counts_from_its_own_level() -> None:
    alone = (level(0, 0, 70, "OutOfDate"),)
    needing = (level(3, 0, 70, "UpToDate"), level(0, 0, 70, "OutOfDateConfigurationNeeded"))

    # Intel's are never dated so: the earlier date is the safe one.
    odd = (level(3, 0, 60, "UpToDate"), level(0, 0, 70, "OutOfDate"))

    assert ends(alone) == 70
    assert ends(odd) == 60
    assert ends(needing, status="OutOfDateConfigurationNeeded") == 70


def test_an_outdated_module_or_enclave_counts_from_its_own_levels() -> None:
    module = TD_QUOTE.report
    assert isinstance(module, TdxReport)
    svn = module.tee_tcb_svn[0]
    modules = (
        svn_level(svn + 2, 400, "UpToDate"),
        svn_level(svn + 1, 350, "OutOfDate"),
        svn_level(svn, 30, "OutOfDate"),
    )
    enclaves = (
        svn_level(SVN + 2, 500, "UpToDate"),
        svn_level(SVN + 1, 450, "OutOfDate"),
        svn_level(SVN, 40, "OutOfDate"),
    )

    assert ends(modules=modules) == 350
    assert ends(enclave=enclaves) == 450
    assert ends(modules=modules, enclave=enclaves) == 350
    assert (
        ends((level(3, 0, 950, "UpToDate"), level(0, 0, 9, "OutOfDate")), enclave=enclaves) == 450
    )
    # A part that the policy accepts as it is has no say.
    hardening = (level(0, 0, 20, "SWHardeningNeeded"),)
    assert ends(hardening, enclave=enclaves) == 450


def test_no_grace_where_no_level_fits_or_none_is_given() -> None:
    assert ends((level(1, 0, 900, "UpToDate"),), enclave=()) is None
    assert grace_ends(genuine(), TD_QUOTE, POLICY, OUTDATED) is None
    accepted = TcbState(status="UpToDate", advisories=())
    assert grace_ends(genuine(), TD_QUOTE, GRACE, accepted) is None
