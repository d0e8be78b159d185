"""
Who may sign collateral: certificates that one root issued for that, and no others.

`dcap-qvl` takes any end-entity certificate under the root as signer of TCB info and QE identity.
A machine's own certificate is one too: with the key of a single broken machine, its owner could
call every outdated machine up to date. So the two chains are held here against the form that
Intel's have, and so is that of the list of PCKs.
"""

from functools import lru_cache
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import (
    BasicConstraints,
    Certificate,
    ExtensionNotFound,
    InvalidVersion,
    NameOID,
    ObjectIdentifier,
    load_der_x509_certificate,
    load_pem_x509_certificates,
)

from orchestrator.evidence.bundle import Collateral
from orchestrator.evidence.intel_root import is_intel_root

__all__ = ["check_issuers", "list_issuer", "tcb_signer"]

# What marks a machine's certificate: Intel's extension for PCK certificates.
_PCK_EXTENSION: Final = ObjectIdentifier("1.2.840.113741.1.13.1")
_INTEL_SIGNER: Final = "Intel SGX TCB Signing"


def check_issuers(collateral: Collateral, root: bytes) -> None:
    """
    See that *root* (DER) issued each of the three signers of *collateral* for what it signs.

    Raises:
        ValueError: It did not: names the chain, and what is wrong with it.
    """
    for name, chain, issuer in (
        ("TCB info", collateral.tcb_info_issuer_chain, tcb_signer),
        ("QE identity", collateral.qe_identity_issuer_chain, tcb_signer),
        ("list of revoked PCKs", collateral.pck_crl_issuer_chain, list_issuer),
    ):
        try:
            issuer(chain, root)
        except ValueError as error:
            raise ValueError(f"chain of the {name}: {error}") from error


@lru_cache(maxsize=16)
def tcb_signer(chain: str, root: bytes) -> Certificate:
    """
    Return the signer of a chain (PEM) of TCB info or QE identity, which *root* (DER) issued.

    1. The chain is the signer and this very root, and nothing else.
    2. The root issued the signer itself.
    3. The signer is neither a CA nor a machine; under Intel's root it has the name of Intel's.

    Raises:
        ValueError: One of these is not so.
    """
    signer = _issued(chain, root)  # 1. and 2.
    if _is_ca(signer):
        raise ValueError("its signer is a CA")
    if _has_pck_extension(signer):
        raise ValueError("its signer is a machine (it has the extension of PCK certificates)")
    names = [one.value for one in signer.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    if is_intel_root(root) and names != [_INTEL_SIGNER]:
        raise ValueError(f"its signer is not {_INTEL_SIGNER!r}")
    return signer


@lru_cache(maxsize=16)
def list_issuer(chain: str, root: bytes) -> Certificate:
    """
    Return the CA of a chain (PEM) of a list of revoked PCKs, which *root* (DER) issued itself.

    Raises:
        ValueError: The chain is not that CA and this very root, and nothing else.
    """
    issuer = _issued(chain, root)
    if not _is_ca(issuer):
        raise ValueError("its issuer is no CA")
    return issuer


def _issued(chain: str, root: bytes) -> Certificate:
    try:
        certificates = load_pem_x509_certificates(chain.encode())
        issuer = load_der_x509_certificate(root)
    except (ValueError, InvalidVersion) as error:
        raise ValueError("it can't be read") from error
    if len(certificates) != 2 or certificates[1].public_bytes(Encoding.DER) != root:
        raise ValueError("it must be one certificate, then this root")
    # Readers of PEM differ on what stands between certificates, so nothing may.
    pem = "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)
    if "".join(pem.split()) != "".join(chain.split()):
        raise ValueError("it holds more than certificates")
    try:
        certificates[0].verify_directly_issued_by(issuer)
    except (InvalidSignature, TypeError, UnsupportedAlgorithm, ValueError) as error:
        raise ValueError("this root did not issue its first certificate") from error
    return certificates[0]


def _is_ca(certificate: Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(BasicConstraints).value.ca
    except ExtensionNotFound:
        return False


def _has_pck_extension(certificate: Certificate) -> bool:
    return any(one.oid == _PCK_EXTENSION for one in certificate.extensions)
