"""
What collateral says of itself, and whose platform a quote is of: enough to choose and to keep it.

What a quote is worth is not judged here. Signatures are checked where what is kept decides about
what comes later: a stranger's file must not drive out a good one.
"""

import json
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import dcap_qvl
from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256

from orchestrator.errors import CollateralUnavailableError, EncodingError
from orchestrator.evidence import Collateral
from orchestrator.evidence.bundle import MAX_QUOTE_BYTES
from orchestrator.evidence.issuers import list_issuer, tcb_signer

__all__ = ["CollateralFacts", "PlatformKind", "is_signed", "platform_of", "read_facts", "serve"]

# Of what can't be read the library says not all by a `ValueError`.
_BAD_FORM: Final = (
    ValueError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
_CAS: Final = ("platform", "processor")


@dataclass(frozen=True, kw_only=True, order=True)
class PlatformKind:
    """What collateral is for: `tdx` or `sgx`, the FMSPC in upper-case hex, which CA of PCKs."""

    tee: str
    fmspc: str
    ca: str

    def __str__(self) -> str:
        return f"{self.tee.upper()} platform {self.fmspc} ({self.ca})"


@dataclass(frozen=True, kw_only=True)
class CollateralFacts:
    """
    Whose it is, when it holds (ms, both ends included), and how new each of its parts is.

    `evaluation_numbers` and `dated` are those of TCB information and QE identity, `listed` (ms) are
    when the root's list and that of PCKs were made; always in this order.
    """

    kind: PlatformKind
    issued_at: int
    expires_at: int
    evaluation_numbers: tuple[int, int]
    dated: tuple[int, int]
    listed: tuple[int, int]

    @property
    def evaluation_number(self) -> int:
        """The lower of both documents' TCB evaluation numbers."""
        return min(self.evaluation_numbers)


def platform_of(quote: bytes) -> PlatformKind:
    """
    Return the kind of platform that a quote is of, as the quote says.

    Raises:
        EncodingError: It can't be parsed, or does not say.
    """
    if len(quote) > MAX_QUOTE_BYTES:
        raise EncodingError(f"quote: {len(quote)} bytes, at most {MAX_QUOTE_BYTES}")
    try:
        parsed = dcap_qvl.parse_quote(quote)
        tee = "tdx" if parsed.is_tdx() else "sgx"
        return PlatformKind(tee=tee, fmspc=parsed.fmspc().upper(), ca=parsed.ca())
    except (KeyboardInterrupt, SystemExit, GeneratorExit):
        raise
    except BaseException as error:  # a panic of the library is no `Exception`
        raise EncodingError(f"quote: {' '.join(str(error).split())[:200]}") from error


def read_facts(collateral: Collateral) -> CollateralFacts:
    """
    Return what the collateral says; no signature is checked.

    Raises:
        EncodingError: A list, certificate or document in it is not of its form.
    """
    try:
        return _read_facts(collateral)
    except (*_BAD_FORM, KeyError, TypeError, OverflowError, RecursionError) as error:
        words = f"{type(error).__name__}: {error}"
        raise EncodingError(f"collateral: {' '.join(words.split())[:200]}") from error


def _read_facts(collateral: Collateral) -> CollateralFacts:
    tcb_info, identity = json.loads(collateral.tcb_info), json.loads(collateral.qe_identity)
    root_list = x509.load_der_x509_crl(collateral.root_ca_crl)
    pck_list = x509.load_der_x509_crl(collateral.pck_crl)
    issuer = pck_list.issuer.rfc4514_string().lower()
    dated = _ms(tcb_info["issueDate"]), _ms(identity["issueDate"])
    listed = _stamp(root_list.last_update_utc), _stamp(pck_list.last_update_utc)
    ends = [_ms(document["nextUpdate"]) for document in (tcb_info, identity)]
    ends += [
        _stamp(one.next_update_utc)
        for one in (root_list, pck_list)
        if one.next_update_utc is not None
    ]
    for chain in _chains(collateral):
        ends += [_stamp(certificate.not_valid_after_utc) for certificate in chain]
    return CollateralFacts(
        kind=PlatformKind(
            tee="tdx" if tcb_info.get("id") == "TDX" else "sgx",
            fmspc=bytes.fromhex(tcb_info["fmspc"]).hex().upper(),
            ca=next((ca for ca in _CAS if f"pck {ca} ca" in issuer), "unknown"),
        ),
        issued_at=max(*dated, *listed),
        expires_at=min(ends),
        evaluation_numbers=(_evaluation(tcb_info), _evaluation(identity)),
        dated=dated,
        listed=listed,
    )


def serve(
    collateral: Collateral, facts: CollateralFacts, kind: PlatformKind, *, now: int, where: str
) -> Collateral:
    """
    Return the collateral if it is for that platform, and valid at *now* (ms).

    Raises:
        CollateralUnavailableError: It is not; *where* it comes from is in the message.
    """
    if facts.kind != kind:
        raise CollateralUnavailableError(f"{where}: has that of a {facts.kind}, not of a {kind}")
    if not facts.issued_at <= now <= facts.expires_at:
        state = "has ended" if now > facts.expires_at else "is of the future"
        raise CollateralUnavailableError(f"{where}: what it has for a {kind} {state}")
    return collateral


def is_signed(collateral: Collateral, roots: Collection[bytes]) -> bool:
    """
    Whether all of the collateral is signed by one of the *roots* (DER), at whatever time.

    1. Both documents, by a signer of such that the root issued: the verifier's own rule.
    2. The root's list by the root, the list of PCKs by a CA that the root issued.

    Does **not** check what is revoked, nor any time: the verifier does.
    """
    return any(_is_signed_under(collateral, root) for root in roots)


def _is_signed_under(collateral: Collateral, root: bytes) -> bool:
    try:
        for chain, signature, text in (
            (
                collateral.tcb_info_issuer_chain,
                collateral.tcb_info_signature,
                collateral.tcb_info,
            ),
            (
                collateral.qe_identity_issuer_chain,
                collateral.qe_identity_signature,
                collateral.qe_identity,
            ),
        ):
            _verify(tcb_signer(chain, root), signature, text)
        authority = list_issuer(collateral.pck_crl_issuer_chain, root)
        lists = (
            (collateral.root_ca_crl, x509.load_der_x509_certificate(root)),
            (collateral.pck_crl, authority),
        )
        return all(
            x509.load_der_x509_crl(listed).is_signature_valid(_key(certificate))
            for listed, certificate in lists
        )
    except (*_BAD_FORM, TypeError, InvalidSignature):
        return False


def _verify(certificate: x509.Certificate, signature: bytes, text: str) -> None:
    half = len(signature) // 2  # r and s, one after the other
    r, s = (int.from_bytes(part, "big") for part in (signature[:half], signature[half:]))
    _key(certificate).verify(encode_dss_signature(r, s), text.encode(), ec.ECDSA(SHA256()))


def _key(certificate: x509.Certificate) -> ec.EllipticCurvePublicKey:
    key = certificate.public_key()
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise TypeError("the certificate's key is of another kind")
    return key


def _chains(collateral: Collateral) -> list[list[x509.Certificate]]:
    return [
        x509.load_pem_x509_certificates(chain.encode())
        for chain in (
            collateral.tcb_info_issuer_chain,
            collateral.qe_identity_issuer_chain,
            collateral.pck_crl_issuer_chain,
        )
    ]


def _evaluation(document: dict[str, object]) -> int:
    number = document["tcbEvaluationDataNumber"]
    if type(number) is not int:
        raise TypeError("tcbEvaluationDataNumber is no number")
    return number


def _ms(text: object) -> int:
    if not isinstance(text, str):
        raise TypeError("a date is no text")
    return _stamp(datetime.fromisoformat(text))


def _stamp(moment: datetime) -> int:
    if moment.tzinfo is None:
        raise ValueError("a date has no time zone")
    return int(moment.timestamp()) * 1_000
