"""
Checks E02 and E03: the quote is Intel's (or another named root's), and was so at the time.

`dcap-qvl` is asked once. Only if it refuses is it asked again, at a time at which the collateral
says it is valid: so a verdict tells an expired collateral from a forged quote, and the other
checks can still be made.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

from cryptography.x509 import (
    Certificate,
    load_der_x509_certificate,
    load_der_x509_crl,
    load_pem_x509_certificates,
)

from orchestrator.attestation import CheckOutcome
from orchestrator.errors import EncodingError
from orchestrator.evidence.bundle import Collateral
from orchestrator.evidence.finding import CheckFailedError, failed, not_checked, passed, run
from orchestrator.evidence.instants import format_utc, parse_utc
from orchestrator.evidence.intel_root import is_intel_root
from orchestrator.evidence.issuers import check_issuers
from orchestrator.evidence.policy import Policy, Root
from orchestrator.evidence.quote import Quote
from orchestrator.evidence.qvl import Claims, Pck, Refusal, read_pck, verify_quote
from orchestrator.evidence.tcb import QeIdentity, TcbInfo, parse_qe_identity, parse_tcb_info
from orchestrator.evidence.verdict import EvidenceCheck, EvidenceFinding

__all__ = ["Appraisal", "Genuine", "appraise"]

_FETCH = "fetch fresh collateral for this quote from a PCCS"


@dataclass(frozen=True, kw_only=True)
class Genuine:
    """
    A quote whose signatures are good, with what is signed about its platform.

    `refusal` is what the library refused after it had found the signatures good: E04 or E05. There
    are no `claims` then.
    """

    root: Root
    is_intel: bool
    pck: Pck
    tcb_info: TcbInfo
    qe_identity: QeIdentity
    claims: Claims | None
    refusal: Refusal | None
    expires_at: int  # ms


@dataclass(frozen=True, kw_only=True)
class Appraisal:
    """Both findings, and the genuine quote if it is one; `malformed`: E01 after all."""

    signatures: EvidenceFinding
    collateral: EvidenceFinding
    genuine: Genuine | None = None
    malformed: Refusal | None = None


@dataclass(frozen=True, kw_only=True)
class _Window:
    """When all parts of the collateral are valid, both ends included; seconds."""

    latest_issue: int
    earliest_expiry: int

    def check(self, now: int) -> str:
        """Return a sentence if *now* (ms) is inside."""
        issued, expires = self.latest_issue * 1000, self.earliest_expiry * 1000
        span = f"from {format_utc(issued)} to {format_utc(expires)}"
        if expires < issued:
            raise CheckFailedError(f"its parts are never valid together ({span})", _FETCH)
        if now < issued:
            raise CheckFailedError(
                f"it is valid {span}, not yet at {format_utc(now)}", "is the clock right?"
            )
        if now > expires:
            raise CheckFailedError(f"it was valid {span}, and expired at {format_utc(now)}", _FETCH)
        return f"valid {span}"


def appraise(
    data: bytes, quote: Quote, collateral: Collateral | None, *, policy: Policy, now: int
) -> Appraisal:
    """
    Return whether *quote*, whose bytes are *data*, is genuine under a root of *policy*.

    1. There is collateral: E03.
    2. The quote's chain ends in a root that the policy names: E02.
    3. The library accepts it at *now* (ms) or, where it does not, at a time that the collateral is
       valid at: E02, or what else it says.
    4. The root issued the signers of the collateral for what they sign: E02.
    5. *now* is inside the time that every part of the collateral is valid, exact to the ms: E03.
    """
    # 1.
    if collateral is None:
        return Appraisal(
            signatures=not_checked(EvidenceCheck.SIGNATURES, "not reached: there is no collateral"),
            collateral=failed(
                EvidenceCheck.COLLATERAL,
                "the bundle has no collateral",
                "give the verifier a source of collateral (PCCS, folder or file)",
            ),
        )
    # 2.
    root = next((one for one in policy.roots if one.certificate == quote.certificates[2]), None)
    if root is None:
        return _unknown_root(quote, policy)
    # 3.
    answer, window = _ask(data, quote, collateral, root=root, now=now)
    if isinstance(answer, Refusal) and not answer.is_late:
        return _refused(answer, window, quote, collateral, now)
    if isinstance(answer, Claims):
        window = _Window(latest_issue=answer.latest_issue, earliest_expiry=answer.earliest_expiry)
    # 4.
    try:
        check_issuers(collateral, root.certificate)
    except ValueError as error:
        return _refused(_misissued(str(error)), window, quote, collateral, now)
    # 5.
    pck = answer.pck if isinstance(answer, Claims) else read_pck(data)
    try:
        tcb_info = parse_tcb_info(collateral.tcb_info)
        qe_identity = parse_qe_identity(collateral.qe_identity)
    except EncodingError as error:
        return _refused(_unreadable(str(error)), None, quote, collateral, now)
    if window is None or isinstance(pck, Refusal):
        return _refused(_unreadable("dates or versions"), None, quote, collateral, now)
    is_intel = is_intel_root(root.certificate)
    what = "Intel's" if is_intel else "not Intel's (simulated: proves no TEE)"
    return Appraisal(
        signatures=passed(
            EvidenceCheck.SIGNATURES, f"good, up to the root {root.name!r}, which is {what}"
        ),
        collateral=run(EvidenceCheck.COLLATERAL, lambda: window.check(now)),
        genuine=Genuine(
            root=root,
            is_intel=is_intel,
            pck=pck,
            tcb_info=tcb_info,
            qe_identity=qe_identity,
            claims=answer if isinstance(answer, Claims) else None,
            refusal=answer if isinstance(answer, Refusal) else None,
            expires_at=window.earliest_expiry * 1000,
        ),
    )


def _unreadable(what: str) -> Refusal:
    # Signed, and read by the library, but not of the form that is known here.
    return Refusal(check=EvidenceCheck.COLLATERAL, message=f"it can't be read: {what}")


def _misissued(what: str) -> Refusal:
    return Refusal(
        check=EvidenceCheck.SIGNATURES,
        message=what,
        hint="another than the vendor signed it: fetch collateral from a PCCS that you trust",
    )


def _ask(
    data: bytes, quote: Quote, collateral: Collateral, *, root: Root, now: int
) -> tuple[Claims | Refusal, _Window | None]:
    seconds = now // 1000
    answer = verify_quote(data, collateral, root=root.certificate, now_seconds=seconds)
    if isinstance(answer, Claims):
        return answer, None
    window = _window(quote, collateral)
    if window is None or answer.is_late:
        return answer, window
    # At the very second of an expiry the library refuses some parts and accepts others.
    inside = min(max(seconds, window.latest_issue), window.earliest_expiry - 1)
    if inside == seconds or inside < window.latest_issue:
        return answer, window
    return verify_quote(data, collateral, root=root.certificate, now_seconds=inside), window


def _unknown_root(quote: Quote, policy: Policy) -> Appraisal:
    known = ", ".join(repr(root.name) for root in policy.roots) or "none"
    what = "Intel's root" if _has_intel_key(quote.certificates[2]) else "another root"
    return Appraisal(
        signatures=failed(
            EvidenceCheck.SIGNATURES,
            f"the quote's chain ends in {what}; the policy allows {known}",
            "if that root is to be trusted, name it in the policy's [roots]",
        ),
        collateral=not_checked(EvidenceCheck.COLLATERAL, "not reached: no allowed root"),
    )


def _has_intel_key(certificate: bytes) -> bool:
    """Say whether bytes that need not be a certificate are one with Intel's root key."""
    try:
        return is_intel_root(certificate)
    except ValueError:
        return False


def _refused(
    refusal: Refusal, window: _Window | None, quote: Quote, collateral: Collateral, now: int
) -> Appraisal:
    signatures = not_checked(EvidenceCheck.SIGNATURES, "not reached: the library stopped before")
    in_time = not_checked(EvidenceCheck.COLLATERAL, "not reached: the signatures are not good")
    if window is not None:
        outside = run(EvidenceCheck.COLLATERAL, lambda: window.check(now))
        in_time = outside if outside.outcome is CheckOutcome.FAILED else in_time
    match refusal.check:
        case EvidenceCheck.FORM:
            return Appraisal(signatures=signatures, collateral=in_time, malformed=refusal)
        case EvidenceCheck.COLLATERAL if in_time.outcome is CheckOutcome.FAILED:
            pass  # which part it is says less than the whole window
        case EvidenceCheck.COLLATERAL:
            in_time = failed(refusal.check, refusal.message, refusal.hint or _FETCH)
        case _:
            detail, hint = refusal.message, refusal.hint
            if _is_revoked(quote, collateral):
                detail = f"{detail}: the platform's certificate is revoked"
                hint = "its vendor withdrew this platform's certificate: it can't be trusted again"
            signatures = failed(EvidenceCheck.SIGNATURES, detail, hint)
    return Appraisal(signatures=signatures, collateral=in_time)


def _window(quote: Quote, collateral: Collateral) -> _Window | None:
    """Return the window that the collateral states, as the library computes it; nothing signed."""
    try:
        issued, expires = zip(*_validities(quote, collateral), strict=True)
    except Exception:  # noqa: BLE001 - what can't be read has no window; the library said why
        return None
    return _Window(latest_issue=max(issued), earliest_expiry=min(expires))


def _validities(quote: Quote, collateral: Collateral) -> Iterator[tuple[int, int]]:
    for text in (collateral.tcb_info, collateral.qe_identity):
        document = json.loads(text)
        yield parse_utc(document["issueDate"]), parse_utc(document["nextUpdate"])
    for data in (collateral.root_ca_crl, collateral.pck_crl):
        crl = load_der_x509_crl(data)
        if crl.next_update_utc is not None:
            expires = int(crl.next_update_utc.timestamp())
            yield int(crl.last_update_utc.timestamp()), expires
    for chain in (
        collateral.pck_crl_issuer_chain,
        collateral.tcb_info_issuer_chain,
        collateral.qe_identity_issuer_chain,
    ):
        yield from map(_validity, load_pem_x509_certificates(chain.encode()))
    yield from (_validity(load_der_x509_certificate(der)) for der in quote.certificates)


def _validity(certificate: Certificate) -> tuple[int, int]:
    return (
        int(certificate.not_valid_before_utc.timestamp()),
        int(certificate.not_valid_after_utc.timestamp()),
    )


def _is_revoked(quote: Quote, collateral: Collateral) -> bool:
    try:
        serial = load_der_x509_certificate(quote.certificates[0]).serial_number
        crl = load_der_x509_crl(collateral.pck_crl)
        return crl.get_revoked_certificate_by_serial_number(serial) is not None
    except Exception:  # noqa: BLE001 - only words depend on it: the library has refused already
        return False
