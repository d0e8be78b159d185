"""The simulated vendor: a root, the CA of PCK certificates, and the signer of TCB information."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from orchestrator.evidence import Collateral
from orchestrator.simulator.sgx_extension import SGX_EXTENSION
from orchestrator.simulator.tcb import TcbRelease, qe_identity_json, tcb_info_json

__all__ = ["DISCLAIMER", "Authority", "Issued", "sign"]

DISCLAIMER: Final = "SIMULATED, proves no TEE"
# Certificates outlive every simulated clock; what expires is the collateral.
_FROM: Final = datetime(2020, 1, 1, tzinfo=UTC)
_UNTIL: Final = datetime(2049, 12, 31, tzinfo=UTC)


@dataclass(frozen=True, kw_only=True)
class Issued:
    """A certificate and its private key."""

    certificate: x509.Certificate
    key: ec.EllipticCurvePrivateKey

    @property
    def pem(self) -> str:
        """The certificate alone, as PEM."""
        return self.certificate.public_bytes(Encoding.PEM).decode("ascii")


@dataclass(frozen=True, kw_only=True)
class Authority:
    """Issues certificates of machines, revocation lists and signed TCB information."""

    root: Issued
    platform_ca: Issued
    tcb_signer: Issued

    @classmethod
    def create(
        cls, *, platform_ca_until: int | None = None, tcb_signer_until: int | None = None
    ) -> "Authority":
        """Return one with new keys, whose certificates may expire early (ms)."""
        root = _issue("Root CA", None, path_length=1)
        return cls(
            root=root,
            platform_ca=_issue("PCK Platform CA", root, path_length=0, until=platform_ca_until),
            tcb_signer=_issue("TCB Signing", root, path_length=None, until=tcb_signer_until),
        )

    @property
    def root_certificate(self) -> bytes:
        """The root as DER: what a policy has to name."""
        return self.root.certificate.public_bytes(Encoding.DER)

    def issue_pck(self, extension: bytes, *, until: int | None = None) -> Issued:
        """Return a machine's certificate, with Intel's extension; it may expire early (ms)."""
        return _issue(
            "PCK Certificate", self.platform_ca, path_length=None, extension=extension, until=until
        )

    def pck_chain(self, pck: Issued) -> str:
        """Return the PEM chain that a quote carries."""
        return pck.pem + self.platform_ca.pem + self.root.pem

    def collateral(
        self,
        release: TcbRelease,
        *,
        fmspc: bytes,
        issued_at: int,
        expires_at: int,
        crls_expire_at: int | None = None,
        revoked: Sequence[x509.Certificate] = (),
    ) -> Collateral:
        """
        Return all that a verifier needs beside a quote; times in ms.

        The revocation lists may expire on their own, and *revoked* are the machines in them.
        """
        lists_end = expires_at if crls_expire_at is None else crls_expire_at
        tcb_info = tcb_info_json(release, fmspc=fmspc, issued_at=issued_at, expires_at=expires_at)
        qe_identity = qe_identity_json(release, issued_at=issued_at, expires_at=expires_at)
        signer_chain = self.tcb_signer.pem + self.root.pem
        return Collateral(
            pck_crl_issuer_chain=self.platform_ca.pem + self.root.pem,
            root_ca_crl=_crl(self.root, (), issued_at, lists_end),
            pck_crl=_crl(self.platform_ca, revoked, issued_at, lists_end),
            tcb_info_issuer_chain=signer_chain,
            tcb_info=tcb_info,
            tcb_info_signature=sign(self.tcb_signer.key, tcb_info.encode()),
            qe_identity_issuer_chain=signer_chain,
            qe_identity=qe_identity,
            qe_identity_signature=sign(self.tcb_signer.key, qe_identity.encode()),
        )


def sign(key: ec.EllipticCurvePrivateKey, data: bytes) -> bytes:
    """Return an ECDSA signature over SHA-256 of the data as Intel writes them: r, then s."""
    r, s = decode_dss_signature(key.sign(data, ec.ECDSA(SHA256())))
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


def _issue(
    role: str,
    issuer: Issued | None,
    *,
    path_length: int | None,
    extension: bytes | None = None,
    until: int | None = None,
) -> Issued:
    """Make a key and its certificate; a *path_length* makes it a CA, *until* (ms) ends it early."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.COMMON_NAME, f"{DISCLAIMER}: {role}"),
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, f"phala-jobs simulator ({DISCLAIMER})"),
        ]
    )
    is_ca = path_length is not None
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name if issuer is None else issuer.certificate.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(_FROM)
        .not_valid_after(_UNTIL if until is None else _moment(until))
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(
                (key if issuer is None else issuer.key).public_key()
            ),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(
                digital_signature=not is_ca,
                content_commitment=not is_ca,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=is_ca,
                crl_sign=is_ca,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=path_length), critical=True)
    )
    if extension is not None:
        oid = x509.ObjectIdentifier(SGX_EXTENSION)
        builder = builder.add_extension(x509.UnrecognizedExtension(oid, extension), critical=False)
    signer = key if issuer is None else issuer.key
    return Issued(certificate=builder.sign(signer, SHA256()), key=key)


def _crl(
    issuer: Issued, revoked: Sequence[x509.Certificate], issued_at: int, expires_at: int
) -> bytes:
    """A DER list of revoked certificates, which says nothing before *issued_at* (ms)."""
    builder = (
        x509.CertificateRevocationListBuilder()
        .issuer_name(issuer.certificate.subject)
        .last_update(_moment(issued_at))
        .next_update(_moment(expires_at))
        .add_extension(x509.CRLNumber(1), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.key.public_key()),
            critical=False,
        )
    )
    for certificate in revoked:
        entry = (
            x509.RevokedCertificateBuilder()
            .serial_number(certificate.serial_number)
            .revocation_date(_moment(issued_at))
            .build()
        )
        builder = builder.add_revoked_certificate(entry)
    return builder.sign(issuer.key, SHA256()).public_bytes(Encoding.DER)


def _moment(ms: int) -> datetime:
    return datetime.fromtimestamp(ms // 1000, tz=UTC)
