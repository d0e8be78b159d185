"""What the simulator can show that must be refused, and the check that refuses it."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from hashlib import sha256

import pytest
from cryptography import x509

from orchestrator.collateral.facts import is_signed
from orchestrator.evidence import (
    EvidenceBundle,
    EvidenceCheck,
    Policy,
    TcbRules,
    dump_bundle,
)
from orchestrator.evidence.bundle import MAX_COMPOSE_BYTES
from orchestrator.evidence.intel_root import INTEL_ROOT
from orchestrator.evidence.policy import Attributes
from orchestrator.simulator import Authority, Guest, Platform, RuntimeEvent, Simulator
from orchestrator.simulator.authority import Issued, _crl, _issue, sign
from orchestrator.simulator.tcb import DAY

from .evidence_world import (
    INTEL,
    NOW,
    REPORT_DATA,
    Case,
    failed,
    flipped,
    simulated_case,
)

SIMULATOR = Simulator.create()
POLICY = simulated_case(SIMULATOR).policy
DEBUG = bytes([1]) + Guest().td_attributes[1:]
STATUSES = (
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
)


def case_of(simulator: Simulator, *, policy: Policy = POLICY, **collateral: object) -> Case:
    """The evidence of a changed simulator, by the policy of the unchanged one."""
    made = simulator.collateral(now=NOW, **collateral)  # type: ignore[arg-type]
    return replace(simulated_case(simulator, collateral=made), policy=policy)


def with_guest(**changes: object) -> Simulator:
    return replace(SIMULATOR, guest=replace(Guest(), **changes))  # type: ignore[arg-type]


def with_status(status: str, *advisories: str) -> Simulator:
    return SIMULATOR.with_status(status, advisories=advisories)


def expired(**until: int) -> Case:
    """One of the certificates ran out before the rest of the collateral does."""
    machine_until = until.pop("pck_until", None)
    authority = Authority.create(**until)
    platform = Platform.create(authority, certificate_until=machine_until)
    return simulated_case(Simulator(authority=authority, platform=platform))


def with_other_register(register: str) -> Case:
    return case_of(with_guest(**{register: b"\7" * 48}))


def with_platform(status: str) -> Case:
    return case_of(with_status(status))


def with_collateral(**changes: object) -> Case:
    """The unchanged simulator's evidence, with other parts in its collateral."""
    made = replace(SIMULATOR.collateral(now=NOW), **changes)  # type: ignore[arg-type]
    return replace(simulated_case(SIMULATOR, collateral=made), policy=POLICY)


def signed_by(signer: Issued, chain: str, *documents: str) -> Case:
    """Good TCB info or QE identity, signed by somebody else under the same root."""
    made = SIMULATOR.collateral(now=NOW)
    changes: dict[str, object] = {}
    for name in documents:
        text: str = getattr(made, name)
        changes[f"{name}_signature"] = sign(signer.key, text.encode())
        changes[f"{name}_issuer_chain"] = chain
    return with_collateral(**changes)


def signed_by_a_machine(*documents: str) -> Case:
    """Whoever got one machine's key out of it can sign with it: of whatever machine."""
    authority = SIMULATOR.authority
    broken = Platform.create(authority).pck
    return signed_by(broken, authority.pck_chain(broken), *documents)


def signed_by_a_machine_of_the_root() -> Case:
    authority = SIMULATOR.authority
    extension = SIMULATOR.platform.pck.certificate.extensions.get_extension_for_oid(
        x509.ObjectIdentifier("1.2.840.113741.1.13.1")
    )
    assert isinstance(extension.value, x509.UnrecognizedExtension)
    broken = _issue(
        "PCK Certificate", authority.root, path_length=None, extension=extension.value.value
    )
    return signed_by(broken, broken.pem + authority.root.pem, "tcb_info", "qe_identity")


def signed_by_a_leaf_of_the_platform_ca() -> Case:
    """It is no machine's, and still not one that the root issued for this."""
    authority = SIMULATOR.authority
    leaf = _issue("TCB Signing", authority.platform_ca, path_length=None)
    return signed_by(leaf, authority.pck_chain(leaf), "tcb_info", "qe_identity")


def with_pinned_payload(*boot: RuntimeEvent) -> Case:
    """A TD with this boot, by a policy that pins the key provider of the unchanged one."""
    pinned = {event.name: sha256(event.payload).digest() for event in BOOT if event == PROVIDER}
    policy = replace(POLICY, event_payloads=pinned)
    return case_of(with_guest(boot_events=boot), policy=policy)


BOOT = Guest().all_events
(PROVIDER,) = (event for event in BOOT if event.name == "key-provider")
OWN_PROVIDER = replace(PROVIDER, payload=b'{"name":"kms","id":"of the host"}')
SIGNER_CHAIN = SIMULATOR.authority.tcb_signer.pem + SIMULATOR.root_pem
CA_CHAIN = SIMULATOR.authority.platform_ca.pem + SIMULATOR.root_pem


NEGATIVE: dict[str, tuple[Callable[[], Case], EvidenceCheck]] = {
    "debug TD": (
        lambda: case_of(with_guest(td_attributes=DEBUG)),
        EvidenceCheck.ATTRIBUTES,
    ),
    "revoked PCK": (lambda: case_of(SIMULATOR, is_revoked=True), EvidenceCheck.SIGNATURES),
    **{
        f"{' and '.join(documents)} signed by a machine": (
            partial(signed_by_a_machine, *documents),
            EvidenceCheck.SIGNATURES,
        )
        for documents in (("tcb_info",), ("qe_identity",), ("tcb_info", "qe_identity"))
    },
    "TCB information signed by a machine that the root issued": (
        signed_by_a_machine_of_the_root,
        EvidenceCheck.SIGNATURES,
    ),
    "TCB information signed by a leaf of the platform CA": (
        signed_by_a_leaf_of_the_platform_ca,
        EvidenceCheck.SIGNATURES,
    ),
    **{
        f"a chain of signers with {name}": (
            partial(with_collateral, tcb_info_issuer_chain=chain),
            EvidenceCheck.SIGNATURES,
        )
        for name, chain in (
            ("the root twice", SIGNER_CHAIN + SIMULATOR.root_pem),
            ("words behind", SIGNER_CHAIN + "and more"),
        )
    },
    **{
        f"a chain of the list of PCKs with {name}": (
            partial(with_collateral, pck_crl_issuer_chain=chain),
            EvidenceCheck.SIGNATURES,
        )
        for name, chain in (
            ("nothing", ""),
            ("no certificate", "x"),
            ("words behind", CA_CHAIN + "and more"),
            ("no CA", SIGNER_CHAIN),
            ("the CA alone", SIMULATOR.authority.platform_ca.pem),
            ("a stranger's CA", Authority.create().platform_ca.pem + SIMULATOR.root_pem),
        )
    },
    "expired revocation lists": (
        lambda: case_of(SIMULATOR, crls_valid_for=1_000),
        EvidenceCheck.COLLATERAL,
    ),
    "expired collateral": (
        lambda: case_of(SIMULATOR, valid_for=1_000, crls_valid_for=DAY),
        EvidenceCheck.COLLATERAL,
    ),
    "expired PCK certificate": (
        lambda: expired(pck_until=NOW + 1_000),
        EvidenceCheck.COLLATERAL,
    ),
    "expired platform CA": (
        lambda: expired(platform_ca_until=NOW + 1_000),
        EvidenceCheck.COLLATERAL,
    ),
    "expired signer of TCB information": (
        lambda: expired(tcb_signer_until=NOW + 1_000),
        EvidenceCheck.COLLATERAL,
    ),
    "collateral of the future": (
        lambda: replace(case_of(SIMULATOR), now=NOW - 1_000),
        EvidenceCheck.COLLATERAL,
    ),
    "wrong FMSPC": (lambda: case_of(SIMULATOR, fmspc=b"others"), EvidenceCheck.COLLATERAL),
    "Revoked": (lambda: case_of(with_status("Revoked")), EvidenceCheck.TCB_STATUS),
    "quoting enclave out of date": (
        lambda: case_of(
            replace(SIMULATOR, releases=(replace(SIMULATOR.releases[0], qe_status="OutOfDate"),))
        ),
        EvidenceCheck.TCB_STATUS,
    ),
    "TDX module out of date": (
        lambda: case_of(
            replace(
                SIMULATOR, releases=(replace(SIMULATOR.releases[0], module_status="OutOfDate"),)
            )
        ),
        EvidenceCheck.TCB_STATUS,
    ),
    "after a TCB recovery": (
        lambda: case_of(SIMULATOR.tcb_recovery(now=NOW)),
        EvidenceCheck.TCB_STATUS,
    ),
    "evaluation number too low": (
        lambda: case_of(
            SIMULATOR,
            policy=replace(POLICY, tcb=replace(POLICY.tcb, minimum_evaluation_number=21)),
        ),
        EvidenceCheck.EVALUATION_NUMBER,
    ),
    "another machine": (
        lambda: case_of(replace(SIMULATOR, platform=Platform.create(SIMULATOR.authority))),
        EvidenceCheck.PLATFORM,
    ),
    "forged event": (
        lambda: replace(
            case_of(SIMULATOR),
            bundle=replace(
                case_of(SIMULATOR).bundle,
                event_log=replace(Guest(), events=(RuntimeEvent(name="forged"),)).event_log,
            ),
        ),
        EvidenceCheck.EVENT_LOG,
    ),
    "an event withheld": (
        lambda: replace(
            case_of(with_guest(events=(RuntimeEvent(name="bad"),))),
            bundle=replace(
                case_of(with_guest(events=(RuntimeEvent(name="bad"),))).bundle,
                event_log=Guest().event_log,
            ),
        ),
        EvidenceCheck.EVENT_LOG,
    ),
    "a required event is missing": (
        lambda: case_of(
            with_guest(boot_events=Guest().all_events[:-1]),
        ),
        EvidenceCheck.EVENT_LOG,
    ),
    "keys from a server of the host's own": (
        lambda: with_pinned_payload(
            *(OWN_PROVIDER if event == PROVIDER else event for event in BOOT)
        ),
        EvidenceCheck.EVENT_LOG,
    ),
    "a key provider that the application names": (
        lambda: with_pinned_payload(*(event for event in BOOT if event != PROVIDER), PROVIDER),
        EvidenceCheck.EVENT_LOG,
    ),
    "a key provider that the application names again": (
        lambda: with_pinned_payload(
            *(OWN_PROVIDER if event == PROVIDER else event for event in BOOT), PROVIDER
        ),
        EvidenceCheck.EVENT_LOG,
    ),
    "a compose hash that the application names": (
        lambda: case_of(
            with_guest(
                boot_events=(
                    *(event for event in BOOT if event.name != "compose-hash"),
                    *(event for event in BOOT if event.name == "compose-hash"),
                )
            )
        ),
        EvidenceCheck.APPLICATION,
    ),
    "another application": (
        lambda: case_of(with_guest(compose=b'{"name":"another"}')),
        EvidenceCheck.APPLICATION,
    ),
    **{
        f"another {register}": (
            partial(with_other_register, register),
            EvidenceCheck.MEASUREMENTS,
        )
        for register in ("mrtd", "rtmr0", "rtmr1", "rtmr2")
    },
    **{
        f"status {status}": (
            partial(with_platform, status),
            EvidenceCheck.TCB_STATUS,
        )
        for status in STATUSES
    },
}


@pytest.mark.parametrize("name", NEGATIVE)
def test_it_is_refused_by_its_check(name: str) -> None:
    make, check = NEGATIVE[name]
    case = make()

    verdict = case.examine(case.data)

    assert verdict.evidence is None
    assert verdict.refused_by is not None
    assert verdict.refused_by.check is check
    assert failed(verdict) == [check.value]
    assert verdict.refused_by.hint


def test_nothing_of_it_is_wrong_with_the_unchanged_simulator() -> None:
    case = case_of(SIMULATOR)
    verdict = case.examine(case.data)
    assert failed(verdict) == []
    assert verdict.evidence is not None
    assert verdict.evidence.is_simulated
    assert verdict.evidence.ppid == SIMULATOR.platform.ppid
    assert verdict.evidence.piid == SIMULATOR.platform.piid


@pytest.mark.parametrize("bit", range(64))
def test_every_attribute_of_a_td_but_the_usual_ones_is_refused(bit: int) -> None:
    case = case_of(with_guest(td_attributes=flipped(Guest().td_attributes, bit)))

    assert failed(case.examine(case.data)) == ["E04"]


@pytest.mark.parametrize("status", STATUSES)
def test_a_status_that_the_policy_names_is_accepted_with_its_advisories(status: str) -> None:
    case = case_of(
        with_status(status, "SIM-1"),
        policy=replace(POLICY, tcb=TcbRules(statuses=frozenset({status}))),
    )
    verdict = case.examine(case.data)
    assert verdict.evidence is not None
    assert verdict.evidence.tcb_status == status
    assert verdict.evidence.advisories == ("SIM-1",)


def test_no_policy_accepts_a_revoked_tcb() -> None:
    rules = TcbRules(statuses=frozenset({"Revoked"}), grace={"Revoked": 3_650 * DAY})
    case = case_of(with_status("Revoked"), policy=replace(POLICY, tcb=rules))
    verdict = case.examine(case.data)
    assert failed(verdict) == ["E05"]


def test_a_denied_advisory_is_refused() -> None:
    case = case_of(
        with_status("OutOfDate", "SIM-1", "SIM-2"),
        policy=replace(
            POLICY,
            tcb=TcbRules(statuses=frozenset({"OutOfDate"}), denied_advisories=frozenset({"SIM-2"})),
        ),
    )
    assert failed(case.examine(case.data)) == ["E06"]


@pytest.mark.parametrize("name", [*NEGATIVE, "nothing wrong"])
@pytest.mark.parametrize("debug", [False, True])
def test_under_intels_root_all_of_it_is_refused(name: str, debug: bool) -> None:
    """Also with a policy that allows all it can: every status, debug, any machine."""
    made = case_of(SIMULATOR) if name == "nothing wrong" else NEGATIVE[name][0]()
    lenient = replace(
        POLICY,
        roots=(INTEL,),
        tcb=TcbRules(statuses=frozenset({"UpToDate", *STATUSES, "Revoked"})),
        platforms=type(POLICY.platforms)(),
        attributes=Attributes(debug=debug),
        required_events=frozenset(),
    )
    for policy in (lenient, replace(made.policy, roots=(INTEL,))):
        verdict = replace(made, policy=policy).examine(made.data)
        assert verdict.evidence is None
        assert "E02" in failed(verdict) or "E03" in failed(verdict)


def test_a_root_that_only_says_it_is_intels_is_not_taken_for_it() -> None:
    """No policy lets a debug TD pass under a root that it calls Intel's."""
    root = replace(POLICY.roots[0], is_intel=True)
    case = case_of(
        with_guest(td_attributes=DEBUG),
        policy=replace(POLICY, roots=(root,), attributes=Attributes(debug=True)),
    )
    verdict = case.examine(case.data)
    assert verdict.evidence is None or verdict.evidence.is_simulated


def test_with_the_pinned_key_provider_it_is_accepted() -> None:
    case = with_pinned_payload(*BOOT)

    assert case.accepts(case.data)


def test_a_revoked_signer_of_tcb_information_is_refused() -> None:
    authority = SIMULATOR.authority
    revoking = _crl(authority.root, [authority.tcb_signer.certificate], NOW, NOW + DAY)

    case = with_collateral(root_ca_crl=revoking)

    assert failed(case.examine(case.data)) == ["E02"]


def test_one_broken_machine_calls_no_outdated_one_up_to_date() -> None:
    """Its key signs the TCB info of before, under a higher number, for any machine."""
    outdated = SIMULATOR.tcb_recovery(now=NOW - DAY)
    broken = Platform.create(SIMULATOR.authority).pck
    chain = SIMULATOR.authority.pck_chain(broken)
    before = SIMULATOR.collateral(now=NOW)
    number = '"tcbEvaluationDataNumber":'
    tcb_info, identity = (
        text.replace(f"{number}20", f"{number}99") for text in (before.tcb_info, before.qe_identity)
    )
    forged = replace(
        outdated.collateral(now=NOW),
        tcb_info=tcb_info,
        tcb_info_signature=sign(broken.key, tcb_info.encode()),
        tcb_info_issuer_chain=chain,
        qe_identity=identity,
        qe_identity_signature=sign(broken.key, identity.encode()),
        qe_identity_issuer_chain=chain,
    )

    honest = case_of(outdated)
    case = replace(simulated_case(outdated, collateral=forged), policy=POLICY)

    assert failed(honest.examine(honest.data)) == ["E05"]
    assert failed(case.examine(case.data)) == ["E02"]
    assert not is_signed(forged, [SIMULATOR.root_certificate])


def test_a_debug_td_is_accepted_where_the_policy_names_root_and_debug() -> None:
    case = case_of(
        with_guest(td_attributes=DEBUG), policy=replace(POLICY, attributes=Attributes(debug=True))
    )
    verdict = case.examine(case.data)
    assert verdict.evidence is not None
    assert verdict.evidence.is_simulated


def test_collateral_of_another_simulator_is_refused() -> None:
    other = replace(Simulator.create(), platform=SIMULATOR.platform)
    bundle: EvidenceBundle = replace(
        case_of(SIMULATOR).bundle, collateral=other.collateral(now=NOW)
    )
    case = case_of(SIMULATOR)
    assert case.check_of(dump_bundle(bundle)) is EvidenceCheck.COLLATERAL


def test_a_forger_who_copies_intels_root_and_names_is_refused() -> None:
    """The chains end in Intel's own certificate, under the names that Intel has: not its key."""
    own = Simulator.create()
    intel = Issued(
        certificate=x509.load_der_x509_certificate(INTEL_ROOT), key=own.authority.root.key
    )
    authority = Authority(
        root=intel,
        platform_ca=_issue("PCK Platform CA", intel, path_length=0),
        tcb_signer=_issue("TCB Signing", intel, path_length=None),
    )
    forger = replace(own, authority=authority, platform=Platform.create(authority))
    for policy in (POLICY, replace(POLICY, measurements=(forger.guest.measurements(),))):
        case = case_of(forger, policy=replace(policy, roots=(INTEL,)))
        verdict = case.examine(case.data)
        assert verdict.evidence is None
        assert set(failed(verdict)) & {"E02", "E03"}
        # The names are right: what is wrong is a signature, not that a root is unknown.
        assert "the policy allows" not in str(verdict.findings)


def test_chains_that_nothing_reads_hide_no_expiry() -> None:
    """The dates that count are those of the certificates in the quote."""
    end = NOW + 30_000
    case = expired(platform_ca_until=end)
    assert case.bundle.collateral is not None
    collateral = replace(
        case.bundle.collateral,
        pck_certificate_chain=SIMULATOR.authority.pck_chain(SIMULATOR.platform.pck),
    )
    data = dump_bundle(replace(case.bundle, collateral=collateral))

    before = replace(case, now=end - 1).examine(data).evidence

    assert before is not None
    assert before.collateral_expires_at == end
    assert replace(case, now=end + 1).examine(data).evidence is None


def test_a_quote_of_another_authority_for_the_same_machine_is_refused() -> None:
    other = Simulator.create()
    case = case_of(SIMULATOR)
    assert case.refused_by(quote=other.quote(REPORT_DATA)) is EvidenceCheck.SIGNATURES


def test_a_compose_document_of_the_greatest_length_is_no_trouble() -> None:
    guest = Guest(compose=b"x" * MAX_COMPOSE_BYTES)
    simulator = replace(SIMULATOR, guest=guest)
    case = case_of(simulator, policy=replace(POLICY, measurements=(guest.measurements(),)))
    assert case.accepts(case.data)
