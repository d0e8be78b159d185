"""
The one place that calls `dcap-qvl`, which checks Intel's signatures and names the TCB's status.

It is asked for facts alone, no policy of its own. What it refuses is a `ValueError` with a text
and no code; the table below says which check each text belongs to. A text that is not in it is
E02: whatever it is, the signatures are not shown to be good. A panic of the library, which is no
`Exception`, is a refusal too.

What it refuses last (its steps 8 to 10: TCB level, status, attributes) it refuses after all
signatures were good, and says so by the check of the refusal: E04 or E05.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, TypeVar

import dcap_qvl

from orchestrator.evidence.bundle import Collateral
from orchestrator.evidence.quote import Quote, TdxReport
from orchestrator.evidence.tcb import Svns
from orchestrator.evidence.verdict import EvidenceCheck

__all__ = ["DEBUG_REFUSED", "Claims", "Pck", "Refusal", "read_pck", "refusal_of", "verify_quote"]

T = TypeVar("T")

_PREFIX: Final = "Verification failed: "
_MAX_MESSAGE: Final = 200
DEBUG_REFUSED: Final = "Debug mode is enabled"
# Of Intel's extension to PCK certificates: the flags of section "Configuration".
_FLAG_OIDS: Final = tuple(f"1.2.840.113741.1.13.1.7.{place}" for place in (1, 2, 3))
_REFUSALS: Final = (
    (
        EvidenceCheck.FORM,
        (
            "Failed to decode quote",
            "Unsupported DCAP quote version",
            "SGX TEE quote must have version",
            "TDX TEE quote must have version",
            "Unsupported TEE type",
            "Unsupported DCAP attestation key type",
            "Unsupported DCAP PCK cert format",
            "Unknown QE vendor ID",
            "Invalid QE auth data length",
            "Failed to extract PCK certificates from quote",
            "Certificate chain is too short in quote",
        ),
    ),
    (
        EvidenceCheck.COLLATERAL,
        (
            "TCBInfo expired",
            "TCBInfo issue date is in the future",
            "QE Identity expired",
            "QE Identity issue date is in the future",
            "CrlExpired",
            "CertExpired",
            "CertNotValidYet",
            "Failed to decode TcbInfo",
            "Failed to decode QeIdentity",
            "Failed to parse TCB Info",
            "Failed to parse QE Identity",
            "Failed to parse root CA CRL",
            "Failed to parse PCK CRL",
            "Failed to parse CRL",
            "Failed to parse certificate for time window",
            "Failed to decode TCB FMSPC",
            "Certificate chain is too short for",
            "Fmspc mismatch",
            "SGX quote with non-SGX TCB info",
            "TDX quote with non-TDX TCB info",
            "Unsupported QE Identity id/version",
            "TDX TCB Info is missing tdxModule",
        ),
    ),
    (
        EvidenceCheck.ATTRIBUTES,
        (
            DEBUG_REFUSED,
            "SEPT_VE_DISABLE is not enabled",
            "Reserved bits in TD attributes are set",
            "TD profiling is enabled",
            "TD migration is enabled",
            "SERVTD_EXT is enabled",
            "Invalid MR service TD",
        ),
    ),
    (
        EvidenceCheck.TCB_STATUS,
        (
            "No matching TCB level found",
            "TCB status is invalid: Revoked",
            "TDX module identity check",
            "TDX module TCB level check",
        ),
    ),
)
# What a bare refusal of the text can't say.
_HINTS: Final = {
    "Failed to parse root CA CRL": "it has to be readable, and of the quote's own root",
    "Fmspc mismatch": "the collateral is of another kind of platform: fetch it for this quote",
    "SGX quote with non-SGX TCB info": "fetch the collateral for this quote",
    "TDX quote with non-TDX TCB info": "fetch the collateral for this quote",
    "Unsupported QE Identity id/version": "fetch the collateral for this quote",
}


@dataclass(frozen=True, kw_only=True)
class Pck:
    """
    What the platform's certificate says: FMSPC (6), PPID and PIID (16), versions, flags.

    A flag is `None` where the certificate does not have it: those of Intel's processor CA.
    """

    fmspc: bytes
    ppid: bytes
    piid: bytes | None
    cpu_svn: bytes
    pce_svn: int
    dynamic_platform: bool | None
    cached_keys: bool | None
    smt: bool | None

    def svns(self, quote: Quote) -> Svns:
        """Return the platform's versions, with those of TDX from the quote."""
        tdx = quote.report.tee_tcb_svn if isinstance(quote.report, TdxReport) else b""
        return Svns(sgx=tuple(self.cpu_svn), tdx=tuple(tdx), pce=self.pce_svn)


@dataclass(frozen=True, kw_only=True)
class Claims:
    """What is signed by Intel about a quote's platform; times in seconds, the window inclusive."""

    status: str
    advisories: tuple[str, ...]
    pck: Pck
    latest_issue: int
    earliest_expiry: int


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """What the library refused, and the check that this belongs to."""

    check: EvidenceCheck
    message: str
    hint: str = ""

    @property
    def is_late(self) -> bool:
        """Whether all signatures and dates were good when it refused."""
        return self.check in (EvidenceCheck.ATTRIBUTES, EvidenceCheck.TCB_STATUS)


def verify_quote(
    quote: bytes, collateral: Collateral, *, root: bytes, now_seconds: int
) -> Claims | Refusal:
    """
    Return what Intel's signatures say of *quote* at that time, under this root (DER).

    The platform's certificates are those in the quote, never those beside it. Nothing is raised.
    """

    def ask() -> Claims:
        answer = dcap_qvl.QuoteVerifier(root_ca_der=root).verify_with_policy(
            quote,
            _collateral(collateral),
            now_seconds,
            dcap_qvl.QuotePolicy.claims_only(now_seconds),
        )
        return _claims(json.loads(answer.to_json()))

    return _guarded(ask)


def read_pck(quote: bytes) -> Pck | Refusal:
    """Return what the quote's platform certificate says. Its signature is **not** checked."""

    def ask() -> Pck:
        extension = dcap_qvl.parse_quote(quote).pck_extension()
        flags = [extension.get_value(oid) for oid in _FLAG_OIDS]
        dynamic_platform, cached_keys, smt = (
            None if flag is None else bytes(flag) != b"\0" for flag in flags
        )
        piid = extension.platform_instance_id
        return Pck(
            fmspc=bytes(extension.fmspc),
            ppid=bytes(extension.ppid),
            piid=None if piid is None else bytes(piid),
            cpu_svn=bytes(extension.cpu_svn),
            pce_svn=extension.pce_svn,
            dynamic_platform=dynamic_platform,
            cached_keys=cached_keys,
            smt=smt,
        )

    return _guarded(ask)


def _guarded(ask: Callable[[], T]) -> T | Refusal:
    try:
        return ask()
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a panic of the library is no `Exception`
        return refusal_of(error)


def refusal_of(error: BaseException) -> Refusal:
    """Return the check that an exception of the library belongs to, by the table."""
    text = str(error).removeprefix(_PREFIX)[:_MAX_MESSAGE]
    message = "".join(one if one.isprintable() else "?" for one in text)
    if not isinstance(error, ValueError):
        message = f"{type(error).__name__}: {message}"
    else:
        for check, beginnings in _REFUSALS:
            found = next((one for one in beginnings if message.startswith(one)), None)
            if found is not None:
                return Refusal(check=check, message=message, hint=_HINTS.get(found, ""))
    return Refusal(check=EvidenceCheck.SIGNATURES, message=message)


def _collateral(collateral: Collateral) -> dcap_qvl.QuoteCollateralV3:
    return dcap_qvl.QuoteCollateralV3(
        pck_crl_issuer_chain=collateral.pck_crl_issuer_chain,
        root_ca_crl=collateral.root_ca_crl,
        pck_crl=collateral.pck_crl,
        tcb_info_issuer_chain=collateral.tcb_info_issuer_chain,
        tcb_info=collateral.tcb_info,
        tcb_info_signature=collateral.tcb_info_signature,
        qe_identity_issuer_chain=collateral.qe_identity_issuer_chain,
        qe_identity=collateral.qe_identity,
        qe_identity_signature=collateral.qe_identity_signature,
    )


def _claims(document: dict[str, dict[str, dict[str, object]]]) -> Claims:
    """Return the claims in the library's JSON (its `claims_version` 1)."""
    values = _Values(document)
    if values.number("claims_version") != 1:
        raise TypeError("claims of another version than 1")
    pck = values.inner("platform").inner("pck")
    return Claims(
        status=values.inner("tcb").text("status"),
        advisories=values.inner("tcb").texts("advisory_ids"),
        pck=Pck(
            fmspc=pck.octets("fmspc"),
            ppid=pck.octets("ppid"),
            piid=None
            if pck.is_null("platform_instance_id")
            else pck.octets("platform_instance_id"),
            cpu_svn=pck.octets("cpu_svn"),
            pce_svn=pck.number("pce_svn"),
            dynamic_platform=pck.flag("dynamic_platform"),
            cached_keys=pck.flag("cached_keys"),
            smt=pck.flag("smt_enabled"),
        ),
        latest_issue=values.number("latest_issue_date"),
        earliest_expiry=values.number("earliest_expiration_date"),
    )


class _Values:
    """Typed reads from the library's JSON: another form than expected is a `TypeError`."""

    def __init__(self, document: object) -> None:
        if not isinstance(document, dict):
            raise TypeError("claims: not an object")
        self._document = document

    def inner(self, name: str) -> "_Values":
        return _Values(self._document[name])

    def is_null(self, name: str) -> bool:
        return self._document[name] is None

    def number(self, name: str) -> int:
        value = self._document[name]
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError(f"claims: {name} is no number")
        return value

    def text(self, name: str) -> str:
        value = self._document[name]
        if not isinstance(value, str):
            raise TypeError(f"claims: {name} is no text")
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        value = self._document[name]
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise TypeError(f"claims: {name} is no list of texts")
        return tuple(value)

    def octets(self, name: str) -> bytes:
        value = self._document[name]
        if not isinstance(value, list):
            raise TypeError(f"claims: {name} is no list of bytes")
        return bytes(value)

    def flag(self, name: str) -> bool | None:
        return {"True": True, "False": False, "Undefined": None}[self.text(name)]
