"""Who may sign collateral, under a root like Intel's and with chains like Intel's."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from orchestrator.evidence import INTEL_ROOT
from orchestrator.evidence import issuers as issuers_module
from orchestrator.evidence.issuers import check_issuers, list_issuer, tcb_signer
from orchestrator.simulator import Authority, Simulator
from tests.unit.evidence.real import real_collateral

AUTHORITY = Authority.create()
ROOT = AUTHORITY.root_certificate
CHAIN = AUTHORITY.tcb_signer.pem + AUTHORITY.root.pem
CA_CHAIN = AUTHORITY.platform_ca.pem + AUTHORITY.root.pem


def test_the_signer_is_that_which_the_root_issued() -> None:
    assert tcb_signer(CHAIN, ROOT) == AUTHORITY.tcb_signer.certificate
    assert list_issuer(CA_CHAIN, ROOT) == AUTHORITY.platform_ca.certificate
    lines = CHAIN.replace("-----\n", "-----\n\n")
    for spaced in (CHAIN.replace("\n", "\r\n") + "\n", lines):
        assert tcb_signer(spaced, ROOT) == tcb_signer(CHAIN, ROOT)


@pytest.mark.parametrize(
    ("chain", "words"),
    [
        ("", "can't be read"),
        (AUTHORITY.tcb_signer.pem, "one certificate, then this root"),
        (AUTHORITY.root.pem + AUTHORITY.tcb_signer.pem, "one certificate, then this root"),
        (CHAIN + AUTHORITY.root.pem, "one certificate, then this root"),
        (AUTHORITY.tcb_signer.pem + Authority.create().root.pem, "then this root"),
        (Authority.create().tcb_signer.pem + AUTHORITY.root.pem, "did not issue"),
        (AUTHORITY.tcb_signer.pem + "x\n" + AUTHORITY.root.pem, "more than certificates"),
        (CA_CHAIN, "is a CA"),
        (AUTHORITY.root.pem * 2, "is a CA"),
    ],
)
def test_another_chain_is_none_of_a_signer(chain: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        tcb_signer(chain, ROOT)


def test_the_issuer_of_the_list_is_a_ca() -> None:
    with pytest.raises(ValueError, match="no CA"):
        list_issuer(CHAIN, ROOT)


def test_under_intels_root_the_signer_has_the_name_of_intels(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(issuers_module, "is_intel_root", lambda _: True)

    with pytest.raises(ValueError, match="not 'Intel SGX TCB Signing'"):
        tcb_signer.__wrapped__(CHAIN, ROOT)


def test_a_fault_names_its_chain() -> None:
    collateral = Simulator(authority=AUTHORITY, platform=Simulator.create().platform).collateral(
        now=1_790_000_000_000
    )
    check_issuers(collateral, ROOT)

    with pytest.raises(ValueError, match="chain of the TCB info: it must be one certificate"):
        check_issuers(collateral, Authority.create().root_certificate)


@pytest.mark.parametrize("name", ["near", "tdx_quote", "sgx_quote", "tdx_quote_outdated"])
def test_intels_own_chains_have_that_form(name: str) -> None:
    collateral = real_collateral(name)

    check_issuers(collateral, INTEL_ROOT)

    authority = list_issuer(collateral.pck_crl_issuer_chain, INTEL_ROOT)
    root = x509.load_der_x509_certificate(INTEL_ROOT)
    for other in (
        authority.public_bytes(Encoding.PEM) + root.public_bytes(Encoding.PEM),
        root.public_bytes(Encoding.PEM) * 2,
    ):
        with pytest.raises(ValueError, match="is a CA"):
            tcb_signer(other.decode(), INTEL_ROOT)
