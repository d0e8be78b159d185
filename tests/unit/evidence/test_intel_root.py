"""The pinned root is Intel's, and only its key makes a root Intel's."""

from hashlib import sha256, sha384

import dcap_qvl
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import load_der_x509_certificate, load_pem_x509_certificates

from orchestrator.evidence import INTEL_ROOT
from orchestrator.evidence.intel_root import is_intel_root
from orchestrator.simulator import Authority
from tests.unit.evidence.real import real_quote

# As Intel publishes it, and as others pin it.
FINGERPRINT = "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
# `root_key_id` of Intel's library: SHA-384 of the key's bytes.
KEY_ID = (
    "46e403bd34f05a3f2817ab9badcaacc7ffc98e0f261008cd30dae936cace18d5"
    "dcf58eef31463613de1570d516200993"
)


def test_the_pinned_root_has_intels_fingerprint_and_key() -> None:
    certificate = load_der_x509_certificate(INTEL_ROOT)
    key = certificate.public_key()
    assert isinstance(key, ec.EllipticCurvePublicKey)
    raw = key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)

    assert sha256(INTEL_ROOT).hexdigest() == FINGERPRINT
    assert sha384(raw).hexdigest() == KEY_ID
    certificate.verify_directly_issued_by(certificate)


@pytest.mark.parametrize("name", ["near", "tdx_quote", "sgx_quote", "tdx_quote_outdated"])
def test_real_quotes_end_in_the_pinned_root(name: str) -> None:
    assert dcap_qvl.parse_quote(real_quote(name)) is not None
    assert _last_certificate(real_quote(name)) == INTEL_ROOT


def _last_certificate(quote: bytes) -> bytes:
    chain = load_pem_x509_certificates(dcap_qvl.parse_quote(quote).cert_chain_pem_bytes())
    return chain[-1].public_bytes(Encoding.DER)


def test_another_root_is_not_intels_whatever_it_says() -> None:
    assert is_intel_root(INTEL_ROOT)
    assert not is_intel_root(Authority.create().root_certificate)
    with pytest.raises(ValueError, match="pars"):
        is_intel_root(b"no certificate")
