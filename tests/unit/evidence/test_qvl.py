"""What `dcap-qvl` says, pinned: which check its texts belong to, and what it leaves to us."""

import json
from dataclasses import replace

import dcap_qvl
import pytest

from orchestrator.evidence import INTEL_ROOT, Collateral, EvidenceCheck, parse_quote
from orchestrator.evidence.appraisal import _window
from orchestrator.evidence.qvl import Claims, Refusal, read_pck, refusal_of, verify_quote
from orchestrator.evidence.tcb import converged, parse_qe_identity, parse_tcb_info
from orchestrator.simulator import Guest, Platform, Simulator
from tests.properties.evidence_world import NOW
from tests.unit.evidence import real

SIMULATOR = Simulator.create()
SECONDS = NOW // 1000
REPORT_DATA = bytes(64)
SAMPLES = ["near", "tdx_quote", "sgx_quote"]
STATUSES = [
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
]


def ask(
    simulator: Simulator = SIMULATOR,
    *,
    quote: bytes | None = None,
    collateral: Collateral | None = None,
    now: int = SECONDS,
    root: bytes | None = None,
) -> Claims | Refusal:
    return verify_quote(
        simulator.quote(REPORT_DATA) if quote is None else quote,
        simulator.collateral(now=NOW) if collateral is None else collateral,
        root=simulator.root_certificate if root is None else root,
        now_seconds=now,
    )


def flipped(data: bytes, place: int) -> bytes:
    changed = bytearray(data)
    changed[place] ^= 1
    return bytes(changed)


def with_attributes(attributes: str) -> Simulator:
    return replace(SIMULATOR, guest=replace(Guest(), td_attributes=bytes.fromhex(attributes)))


QUOTE = SIMULATOR.quote(REPORT_DATA)
COLLATERAL = SIMULATOR.collateral(now=NOW)
DAY = 86_400


@pytest.mark.parametrize(
    ("answer", "check", "message"),
    [
        (ask(quote=b""), "E01", "Failed to decode quote"),
        (ask(quote=flipped(QUOTE, 2)), "E01", "Unsupported DCAP attestation key type"),
        (ask(quote=flipped(QUOTE, 12)), "E01", "Unknown QE vendor ID"),
        (ask(quote=flipped(QUOTE, 200)), "E02", "ISV enclave report signature is invalid"),
        (ask(quote=flipped(QUOTE, 700)), "E02", "QE report hash mismatch"),
        (ask(quote=flipped(QUOTE, 780)), "E02", "Signature is invalid for qe_report in quote"),
        # Its root's list is not this root's.
        (ask(root=INTEL_ROOT), "E03", "Failed to parse root CA CRL"),
        (ask(root=b"no root"), "E02", "Failed to load root ca"),
        (
            ask(collateral=SIMULATOR.collateral(now=NOW, is_revoked=True)),
            "E02",
            "Failed to verify certificate chain",
        ),
        (
            ask(collateral=replace(COLLATERAL, tcb_info_signature=bytes(64))),
            "E02",
            "Signature is invalid for tcb_info in quote_collateral",
        ),
        (
            ask(collateral=replace(COLLATERAL, tcb_info_signature=b"")),
            "E02",
            "Invalid key length",
        ),
        (
            ask(replace(SIMULATOR, releases=(replace(SIMULATOR.releases[0], qe_svn=9),))),
            "E02",
            "QE ISVSVN 6 is below minimum required 9 from QE Identity",
        ),
        (ask(now=SECONDS + 31 * DAY), "E03", None),
        (ask(now=SECONDS - 1), "E03", None),
        (ask(now=2**63), "E03", None),
        (ask(collateral=replace(COLLATERAL, tcb_info="{}")), "E03", "Failed to decode TcbInfo"),
        (
            ask(collateral=replace(COLLATERAL, qe_identity="")),
            "E03",
            "Failed to decode QeIdentity",
        ),
        (
            ask(collateral=replace(COLLATERAL, root_ca_crl=b"")),
            "E03",
            "Failed to parse root CA CRL",
        ),
        (ask(collateral=replace(COLLATERAL, pck_crl=b"")), "E03", "Failed to parse PCK CRL"),
        (
            ask(collateral=replace(COLLATERAL, tcb_info_issuer_chain="")),
            "E03",
            "Certificate chain is too short for TCB Info",
        ),
        (
            ask(collateral=SIMULATOR.collateral(now=NOW, fmspc=b"OTHER\0")),
            "E03",
            "Fmspc mismatch",
        ),
        (ask(with_attributes("0100001000000000")), "E04", "Debug mode is enabled"),
        (ask(with_attributes("0000000000000000")), "E04", "SEPT_VE_DISABLE is not enabled"),
        (ask(with_attributes("0000001100000000")), "E04", "Reserved bits in TD attributes are set"),
        (ask(SIMULATOR.with_status("Revoked")), "E05", "TCB status is invalid: Revoked"),
        (ask(now=-1), "E02", None),
    ],
)
def test_each_refusal_belongs_to_its_check(
    answer: Claims | Refusal, check: str, message: str | None
) -> None:
    assert isinstance(answer, Refusal)
    assert answer.check.value == check
    if message is not None:
        assert answer.message == message


def test_a_level_that_does_not_fit_is_e05() -> None:
    release = SIMULATOR.releases[0]
    raised = replace(release.levels[0], svns=release.levels[0].svns.raised())

    answer = ask(replace(SIMULATOR, releases=(replace(release, levels=(raised,)),)))

    assert answer == Refusal(check=EvidenceCheck.TCB_STATUS, message="No matching TCB level found")
    assert answer.is_late


def test_texts_that_are_not_known_and_what_is_no_value_error_are_e02() -> None:
    assert refusal_of(ValueError("Verification failed: news")).check is EvidenceCheck.SIGNATURES
    panic = type("PanicException", (BaseException,), {})("TCBInfo expired")
    assert refusal_of(panic) == Refusal(
        check=EvidenceCheck.SIGNATURES, message="PanicException: TCBInfo expired"
    )
    assert len(refusal_of(ValueError("x" * 10_000)).message) == 200


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_who_wants_to_stop_can(
    interrupt: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(**_: object) -> None:
        raise interrupt

    monkeypatch.setattr(dcap_qvl, "QuoteVerifier", stop)

    with pytest.raises(interrupt):
        ask()


def test_no_collateral_puts_another_platforms_certificate_in_the_quotes_place() -> None:
    """The library would take a chain beside the quote; it is not given one."""
    other = Simulator.create()
    beside = replace(
        COLLATERAL, pck_certificate_chain=other.authority.pck_chain(other.platform.pck)
    )

    assert ask(quote=QUOTE, collateral=beside) == ask(quote=QUOTE, collateral=COLLATERAL)


@pytest.mark.parametrize("name", SAMPLES)
def test_the_library_and_we_agree_about_real_platforms(name: str) -> None:
    data, collateral = real.real_quote(name), real.real_collateral(name)

    claims = verify_quote(data, collateral, root=INTEL_ROOT, now_seconds=real.NOW[name] // 1000)

    assert isinstance(claims, Claims)
    assert_agrees(claims, data, collateral)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("qe_status", ["UpToDate", "OutOfDate"])
def test_the_library_and_we_agree_about_simulated_platforms(status: str, qe_status: str) -> None:
    made = SIMULATOR.with_status(status, advisories=("SIMULATED-SA-00001",))
    made = replace(made, releases=(replace(made.releases[0], qe_status=qe_status),))
    data, collateral = made.quote(REPORT_DATA), made.collateral(now=NOW)

    claims = ask(made, quote=data, collateral=collateral)

    assert isinstance(claims, Claims)
    assert_agrees(claims, data, collateral)


@pytest.mark.parametrize("flag", ["dynamic_platform", "cached_keys", "smt"])
def test_the_library_and_we_agree_about_flags(flag: str) -> None:
    machine = Platform.create(
        SIMULATOR.authority,
        dynamic_platform=flag == "dynamic_platform",
        cached_keys=flag == "cached_keys",
        smt=flag == "smt",
    )
    made = replace(SIMULATOR, platform=machine)
    data = made.quote(REPORT_DATA)

    claims = ask(made, quote=data)

    assert isinstance(claims, Claims)
    assert claims.pck == read_pck(data)
    assert getattr(claims.pck, flag) is True


def assert_agrees(claims: Claims, data: bytes, collateral: Collateral) -> None:
    """Platform, window and TCB as we read them are what the library says."""
    quote = parse_quote(data)
    assert read_pck(data) == claims.pck
    window = _window(quote, collateral)
    assert window is not None
    assert (window.latest_issue, window.earliest_expiry) == (
        claims.latest_issue,
        claims.earliest_expiry,
    )
    found = parse_tcb_info(collateral.tcb_info).match(claims.pck.svns(quote))
    enclave = parse_qe_identity(collateral.qe_identity).match(quote.qe_isv_svn)
    assert found is not None
    assert enclave is not None
    assert converged(found[0], enclave.status) == claims.status
    assert set(found[1]) | set(enclave.advisories) == set(claims.advisories)


def test_what_is_no_quote_has_no_platform() -> None:
    answer = read_pck(b"no quote")

    assert isinstance(answer, Refusal)
    assert answer.check in (EvidenceCheck.FORM, EvidenceCheck.SIGNATURES)


@pytest.mark.parametrize(
    "changes",
    [
        {"claims_version": 2},
        {"tcb": None},
        {"latest_issue_date": "1"},
        {"tcb": {"status": 1, "advisory_ids": []}},
        {"tcb": {"status": "UpToDate", "advisory_ids": [1]}},
        {"platform": {"pck": {"fmspc": "b0c06f000000"}}},
    ],
)
def test_claims_of_another_form_are_refused(
    changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer library may say less or otherwise: nothing is taken for granted."""
    real_verifier = dcap_qvl.QuoteVerifier

    class Answer:
        def __init__(self, text: str) -> None:
            self._text = text

        def to_json(self) -> str:
            return json.dumps({**json.loads(self._text), **changes})

    class Verifier:
        def __init__(self, *, root_ca_der: bytes) -> None:
            self._verifier = real_verifier(root_ca_der=root_ca_der)

        def verify_with_policy(
            self,
            quote: bytes,
            collateral: dcap_qvl.QuoteCollateralV3,
            now: int,
            policy: dcap_qvl.QuotePolicy,
        ) -> Answer:
            answer = self._verifier.verify_with_policy(quote, collateral, now, policy)
            return Answer(answer.to_json())

    assert isinstance(ask(), Claims)
    monkeypatch.setattr(dcap_qvl, "QuoteVerifier", Verifier)

    answer = ask()

    assert isinstance(answer, Refusal)
    assert answer.check is EvidenceCheck.SIGNATURES
