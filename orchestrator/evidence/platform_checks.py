"""Checks E04 to E08: the platform that a genuine quote comes from, against the policy."""

from dataclasses import dataclass
from typing import Final

from orchestrator.evidence.appraisal import Genuine
from orchestrator.evidence.finding import CheckFailedError
from orchestrator.evidence.instants import format_utc
from orchestrator.evidence.policy import Policy
from orchestrator.evidence.quote import Quote, SgxReport, TdxReport
from orchestrator.evidence.qvl import DEBUG_REFUSED
from orchestrator.evidence.tcb import REVOKED, converged
from orchestrator.evidence.verdict import EvidenceCheck

__all__ = [
    "TcbState",
    "check_advisories",
    "check_attributes",
    "check_evaluation_number",
    "check_platform",
    "check_tcb_status",
    "evaluation_number",
    "grace_ends",
    "tcb_state",
]

# Intel TDX Module ABI, TD ATTRIBUTES.
_TDX_DEBUG: Final = 0
_SEPT_VE_DISABLE: Final = 28
_TDX_BITS: Final = {
    4: "HGS_PLUS_PROF",
    5: "PERF_PROF",
    6: "PMT_PROF",
    27: "LASS",
    29: "MIGRATABLE",
    30: "PKS",
    31: "KL",
    62: "TPA",
    63: "PERFMON",
}
# Intel SDM, SECS.ATTRIBUTES.
_SGX_INIT, _SGX_DEBUG, _SGX_MODE64BIT = 0x01, 0x02, 0x04


@dataclass(frozen=True, kw_only=True)
class TcbState:
    """The status of a platform's TCB, its quoting enclave included, and what is wrong with it."""

    status: str
    advisories: tuple[str, ...]


def tcb_state(genuine: Genuine, quote: Quote) -> TcbState | None:
    """
    Return the TCB's state: the library's word, or ours where it stopped before it gave one.

    `None`: no TCB level fits.
    """
    if genuine.claims is not None:
        return TcbState(status=genuine.claims.status, advisories=genuine.claims.advisories)
    found = genuine.tcb_info.match(genuine.pck.svns(quote))
    enclave = genuine.qe_identity.match(quote.qe_isv_svn)
    if found is None or enclave is None:
        return None
    status, advisories = found
    more = tuple(one for one in enclave.advisories if one not in advisories)
    return TcbState(status=converged(status, enclave.status), advisories=advisories + more)


def _shortfall(genuine: Genuine, quote: Quote) -> str:
    """Return which versions are below Intel's newest, in words."""
    found = genuine.tcb_info.shortfall(genuine.pck.svns(quote))
    newest = max((one.isv_svn for one in genuine.qe_identity.levels), default=0)
    if quote.qe_isv_svn < newest:
        found = (*found, f"the quoting enclave's SVN is {quote.qe_isv_svn}, must be {newest}")
    return "; ".join(found)


def check_attributes(genuine: Genuine, quote: Quote, policy: Policy) -> str:
    """
    E04.

    1. No attribute is on that weakens the TD or enclave, and those it needs are on.
    2. It is no debug TD or enclave; one passes under a root that is not Intel's, if the policy says
       so. (`dcap-qvl` has no switch for that and refuses every one, after all else was good.)
    3. The library has nothing else against it.
    """
    # 1.
    report = quote.report
    is_debug = _check_tdx(report) if isinstance(report, TdxReport) else _check_sgx(report)
    # 2.
    found = "no debug, nothing that weakens it"
    if is_debug:
        what = "a debug TD: its host can read it" if quote.tee == "tdx" else "a debug enclave"
        if genuine.is_intel:
            raise CheckFailedError(
                what, "start it without debugging: no policy accepts one under Intel's root"
            )
        if not policy.attributes.debug:
            raise CheckFailedError(
                what, "start it without debugging, or set debug in the policy's [attributes]"
            )
        found = f"{what}, which the policy allows under the root {genuine.root.name!r}"
    # 3.
    refusal = genuine.refusal
    is_debug_refused = is_debug and refusal is not None and refusal.message == DEBUG_REFUSED
    if refusal is not None and refusal.check is EvidenceCheck.ATTRIBUTES and not is_debug_refused:
        raise CheckFailedError(refusal.message)
    return found if genuine.is_intel else f"{found}; simulated: proves no TEE"


def _check_tdx(report: TdxReport) -> bool:
    attributes = int.from_bytes(report.attributes, "little")
    if not attributes >> _SEPT_VE_DISABLE & 1:
        raise CheckFailedError(
            "SEPT_VE_DISABLE is off: the host could interrupt the TD at any memory access",
            "start the TD with SEPT_VE_DISABLE",
        )
    extra = [
        f"{_TDX_BITS.get(bit, 'reserved')} (bit {bit})"
        for bit in range(64)
        if attributes >> bit & 1 and bit not in (_TDX_DEBUG, _SEPT_VE_DISABLE)
    ]
    if extra:
        raise CheckFailedError(f"on, and must be off: {', '.join(extra)}", "start the TD without")
    if report.mr_service_td is not None and any(report.mr_service_td):
        raise CheckFailedError(
            "a service TD is bound to it, which may read or migrate it",
            "start the TD without a service TD",
        )
    return bool(attributes >> _TDX_DEBUG & 1)


def _check_sgx(report: SgxReport) -> bool:
    flags = int.from_bytes(report.attributes[:8], "little")
    if not flags & _SGX_INIT:
        raise CheckFailedError("INIT is off: the enclave was not initialised")
    if not flags & _SGX_MODE64BIT:
        raise CheckFailedError("MODE64BIT is off: a 32-bit enclave", "build it for 64 bits")
    return bool(flags & _SGX_DEBUG)


def check_tcb_status(
    genuine: Genuine, quote: Quote, policy: Policy, state: TcbState | None, now: int
) -> str:
    """
    E05.

    1. Intel's TCB info has a level for this platform.
    2. It is not revoked, whatever the policy says.
    3. The library has nothing against it.
    4. Its status is one of the policy's, or in grace: counted from the first level that it missed.
    """
    needs = _shortfall(genuine, quote)
    hint = "update the platform's firmware and microcode"
    # 1.
    if state is None:
        said = "no TCB level fits" if genuine.refusal is None else genuine.refusal.message
        raise CheckFailedError(f"{said}: {needs}", hint)
    because = f" ({needs})" if needs else ""
    status = state.status
    # 2.
    if status == REVOKED:
        raise CheckFailedError(f"{REVOKED}{because}", f"{hint}; no policy accepts {REVOKED}")
    # 3.
    refusal = genuine.refusal
    if refusal is not None and refusal.check is EvidenceCheck.TCB_STATUS:
        raise CheckFailedError(f"{refusal.message}{because}", hint)
    # 4.
    if status in policy.tcb.statuses:
        return f"{status}{because}"
    ends = grace_ends(genuine, quote, policy, state)
    if ends is None:
        allowed = ", ".join(sorted(policy.tcb.statuses)) or "none"
        raise CheckFailedError(
            f"{status}{because}; the policy allows {allowed}",
            f"{hint}, or change its configuration as the advisories say"
            if not needs
            else f"{hint}, or give {status} a grace in the policy's [tcb.grace]",
        )
    if now > ends:
        raise CheckFailedError(f"{status}{because}; its grace ended at {format_utc(ends)}", hint)
    return f"{status}{because}, in grace until {format_utc(ends)}"


def grace_ends(genuine: Genuine, quote: Quote, policy: Policy, state: TcbState) -> int | None:
    """
    Return when (ms) the grace of the status ends, `None` where it needs none or has none.

    It begins when the first of the parts that make the status what it is fell behind.
    """
    if state.status in policy.tcb.statuses or state.status not in policy.tcb.grace:
        return None
    parts = (
        *genuine.tcb_info.parts(genuine.pck.svns(quote)),
        *genuine.qe_identity.parts(quote.qe_isv_svn),
    )
    behind = [part.since for part in parts if part.status not in policy.tcb.statuses]
    begins = min(behind or [part.since for part in parts], default=None)
    return None if begins is None else begins * 1000 + policy.tcb.grace[state.status]


def check_advisories(policy: Policy, state: TcbState) -> str:
    """E06: none of the advisories that apply to the platform is denied."""
    denied = sorted(set(state.advisories) & policy.tcb.denied_advisories)
    if denied:
        raise CheckFailedError(
            f"applies to this platform and is denied: {', '.join(denied)}",
            "do what Intel says in the advisory, or take it off the policy's list",
        )
    return f"none denied of {', '.join(state.advisories)}" if state.advisories else "none apply"


def evaluation_number(genuine: Genuine) -> int:
    """Return the older of the two evaluations: that of the TCB info, that of the QE identity."""
    return min(genuine.tcb_info.evaluation_number, genuine.qe_identity.evaluation_number)


def check_evaluation_number(genuine: Genuine, policy: Policy) -> str:
    """E07: TCB info and QE identity are of an evaluation that is new enough."""
    least = policy.tcb.minimum_evaluation_number
    found = (
        f"TCB info {genuine.tcb_info.evaluation_number}, "
        f"QE identity {genuine.qe_identity.evaluation_number}"
    )
    if evaluation_number(genuine) < least:
        raise CheckFailedError(
            f"{found}; the policy wants {least} or more",
            "fetch newer collateral (a PCCS has it as update=early before it is the standard)",
        )
    return f"{found}; at least {least}"


def check_platform(genuine: Genuine, policy: Policy) -> str:
    """
    E08.

    1. Neither PPID nor PIID is denied.
    2. One of them is allowed, where the policy names any.
    3. The flags of its certificate are allowed, and it has those that are not.
    """
    pck, rules = genuine.pck, policy.platforms
    ids = {pck.ppid} if pck.piid is None else {pck.ppid, pck.piid}
    shown = f"PPID {pck.ppid.hex()}, PIID {'none' if pck.piid is None else pck.piid.hex()}"
    # 1.
    if ids & rules.denied:
        raise CheckFailedError(f"denied: {shown}", "this machine is not to be used")
    # 2.
    if rules.allowed and not ids & rules.allowed:
        raise CheckFailedError(
            f"not among the allowed: {shown}", "add one of them to allowed in [platforms]"
        )
    # 3.
    flags = (
        ("dynamic_platform", pck.dynamic_platform, rules.dynamic_platform),
        ("cached_keys", pck.cached_keys, rules.cached_keys),
        ("smt", pck.smt, rules.smt),
    )
    refused = [name for name, is_on, is_allowed in flags if is_on and not is_allowed]
    if refused:
        raise CheckFailedError(
            f"its certificate says {', '.join(refused)}, which the policy does not allow; {shown}",
            "change the machine's configuration, or allow it in [platforms]",
        )
    silent = [name for name, is_on, is_allowed in flags if is_on is None and not is_allowed]
    if silent:
        raise CheckFailedError(
            f"its certificate does not say whether {', '.join(silent)}, which the policy does not"
            f" allow; {shown}",
            "such machines can't be told apart: allow it in [platforms] or use another machine",
        )
    return shown
