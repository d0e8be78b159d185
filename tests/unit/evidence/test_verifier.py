"""For each of the fourteen checks: evidence that fails it and no other."""

import copy
import json
import pickle
import re
from collections.abc import Callable
from dataclasses import fields, replace
from hashlib import sha256
from pathlib import Path

import dcap_qvl
import pytest
from cryptography.x509 import ObjectIdentifier, UnrecognizedExtension

import orchestrator
from orchestrator.attestation import CheckOutcome
from orchestrator.errors import ConfigError
from orchestrator.evidence import (
    Attributes,
    EvidenceBundle,
    EvidenceCheck,
    EvidenceError,
    ExpectedBinding,
    IssuedChallenge,
    KeyStanding,
    Platforms,
    Policy,
    TcbRules,
    TdxMeasurements,
    Verdict,
    VerifiedEvidence,
    dump_bundle,
    evidence_hash,
    examine_evidence,
    verify_evidence,
)
from orchestrator.evidence import verifier as verifier_module
from orchestrator.models import PublicKey, Scheme, Worker, WorkerStatus
from orchestrator.simulator import Guest, Platform, RuntimeEvent, Simulator
from orchestrator.simulator.authority import sign
from tests.properties.evidence_world import (
    CHALLENGE,
    CONTRACT,
    ENCRYPTION_KEY,
    GENESIS,
    NOW,
    REPORT_DATA,
    SIGNING_KEY,
    base_bundle,
    simulated_policy,
)

DAY = 86_400_000
SGX_EXTENSION = ObjectIdentifier("1.2.840.113741.1.13.1")
SIMULATOR = Simulator.create()
POLICY = simulated_policy(SIMULATOR)
EXPECTED = ExpectedBinding(
    genesis_hash=GENESIS,
    contract=CONTRACT,
    signing_key=SIGNING_KEY,
    encryption_key=ENCRYPTION_KEY,
)
ISSUED = IssuedChallenge(value=CHALLENGE, issued_at=NOW - 1_000)
NOBODYS = KeyStanding(worker=None, renews=None)


def bundle_of(
    simulator: Simulator, *, version: int = 4, **collateral: int | bytes | bool
) -> EvidenceBundle:
    return replace(
        base_bundle(
            simulator.quote(REPORT_DATA, version=version),
            simulator.collateral(**{"now": NOW, **collateral}),  # type: ignore[arg-type]
        ),
        event_log=simulator.guest.event_log,
        compose=simulator.guest.compose,
    )


BUNDLE = bundle_of(SIMULATOR)


def examine(
    bundle: EvidenceBundle | bytes = BUNDLE,
    *,
    policy: Policy = POLICY,
    now: int = NOW,
    expected: ExpectedBinding = EXPECTED,
    challenge: IssuedChallenge | None = ISSUED,
    standing: KeyStanding | None = NOBODYS,
) -> Verdict:
    data = bundle if isinstance(bundle, bytes) else dump_bundle(bundle)
    return examine_evidence(
        data, policy=policy, now=now, expected=expected, challenge=challenge, standing=standing
    )


def outcomes(verdict: Verdict, outcome: CheckOutcome) -> list[str]:
    return [finding.check.value for finding in verdict.findings if finding.outcome is outcome]


def assert_fails_only(verdict: Verdict, code: str, *words: str) -> None:
    """The check failed, no other did, nothing came of it, and the finding says *words*."""
    assert outcomes(verdict, CheckOutcome.FAILED) == [code]
    assert verdict.evidence is None
    refused = verdict.refused_by
    assert refused is not None
    for word in words:
        assert word in f"{refused.detail} {refused.hint}"


def guest(**changes: object) -> Simulator:
    return replace(SIMULATOR, guest=replace(Guest(), **changes))  # type: ignore[arg-type]


def worker(**changes: object) -> Worker:
    one = Worker(
        worker=7,
        signing_key=SIGNING_KEY,
        encryption_key=ENCRYPTION_KEY,
        measurement=POLICY.measurements[0].measurement,
        evidence_hash=bytes(32),
        endpoint=b"http://worker.invalid",
        registered_at=NOW - DAY,
        valid_until=NOW,
        status=WorkerStatus.ACTIVE,
    )
    return replace(one, **changes)  # type: ignore[arg-type]


def test_good_evidence_passes_all_checks_and_says_what_was_shown() -> None:
    verdict = examine()

    assert [finding.check for finding in verdict.findings] == list(EvidenceCheck)
    assert outcomes(verdict, CheckOutcome.PASSED) == [f"E{place:02}" for place in range(1, 15)]
    assert verdict.refused_by is None
    evidence = verdict.evidence
    assert evidence is not None
    assert evidence.bundle == BUNDLE
    assert evidence.evidence_hash == evidence_hash(BUNDLE)
    assert evidence.policy_hash == POLICY.policy_hash
    assert evidence.measurement == POLICY.measurements[0].measurement
    assert (evidence.root, evidence.is_simulated) == ("simulated", True)
    assert (evidence.tcb_status, evidence.advisories) == ("UpToDate", ())
    assert evidence.evaluation_number == 20
    machine = SIMULATOR.platform
    assert (evidence.ppid, evidence.piid, evidence.fmspc) == (
        machine.ppid,
        machine.piid,
        machine.fmspc,
    )
    assert evidence.verified_at == NOW
    assert evidence.valid_until == NOW + POLICY.maximum_registration
    assert evidence.collateral_expires_at == NOW + 30 * DAY


def test_what_a_simulator_shows_is_called_simulated() -> None:
    details = {finding.check: finding.detail for finding in examine().findings}

    for check in (EvidenceCheck.SIGNATURES, EvidenceCheck.ATTRIBUTES):
        assert "simulated: proves no TEE" in details[check]


def test_a_registration_ends_with_the_collateral_if_that_is_first() -> None:
    evidence = examine(bundle_of(SIMULATOR, valid_for=2 * DAY)).evidence

    assert evidence is not None
    assert evidence.valid_until == evidence.collateral_expires_at == NOW + 2 * DAY


def test_quotes_of_version_5_are_read_too() -> None:
    assert examine(bundle_of(SIMULATOR, version=5)).evidence is not None


def test_verify_returns_the_evidence_or_raises_with_the_whole_verdict() -> None:
    data = dump_bundle(BUNDLE)
    late = NOW + 31 * DAY

    evidence = verify_evidence(
        data, policy=POLICY, now=NOW, expected=EXPECTED, challenge=ISSUED, standing=NOBODYS
    )
    with pytest.raises(EvidenceError, match="E03: it was valid from") as refused:
        verify_evidence(
            data, policy=POLICY, now=late, expected=EXPECTED, challenge=None, standing=None
        )

    assert evidence == examine().evidence
    assert refused.value.code == "E03"
    assert refused.value.verdict == examine(now=late, challenge=None, standing=None)


def test_an_empty_policy_accepts_nothing() -> None:
    verdict = examine(policy=Policy(policy_hash=bytes(32)))

    assert verdict.evidence is None
    assert outcomes(verdict, CheckOutcome.FAILED) == ["E02"]


# 1.


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "document ends early"),
        (b"\xa0", "must be a map of"),
        (bytes((1 << 20) + 1), "at most 1048576"),
        (dump_bundle(BUNDLE) + b"\0", "follow the document"),
    ],
)
def test_e01_bytes_that_are_no_bundle(data: bytes, words: str) -> None:
    assert_fails_only(examine(data), "E01", words)


@pytest.mark.parametrize(
    ("quote", "words"),
    [
        (b"", "its header needs 48 bytes"),
        (BUNDLE.quote[:-1], "are left"),
        (BUNDLE.quote + b"\1", "what follows must be zeros"),
        (b"\6" + BUNDLE.quote[1:], "version 6"),
    ],
)
def test_e01_a_quote_that_is_none(quote: bytes, words: str) -> None:
    verdict = examine(replace(BUNDLE, quote=quote))

    assert_fails_only(verdict, "E01", words)
    assert outcomes(verdict, CheckOutcome.PASSED) == ["E13", "E14"]


def test_e01_zeros_may_follow_the_quote_as_platforms_pad_it() -> None:
    assert examine(replace(BUNDLE, quote=BUNDLE.quote + bytes(70))).evidence is not None


def test_e01_what_the_library_finds_malformed_after_all() -> None:
    other_vendor = bytearray(BUNDLE.quote)
    other_vendor[12] ^= 1

    assert_fails_only(
        examine(replace(BUNDLE, quote=bytes(other_vendor))), "E01", "Unknown QE vendor ID"
    )


# 2.


def test_e02_a_root_that_the_policy_does_not_name() -> None:
    assert_fails_only(
        examine(bundle_of(Simulator.create())), "E02", "another root", "allows 'simulated'"
    )


def test_e02_a_signature_that_is_not_over_these_bytes() -> None:
    changed = bytearray(BUNDLE.quote)
    changed[200] ^= 1

    assert_fails_only(
        examine(replace(BUNDLE, quote=bytes(changed))),
        "E02",
        "ISV enclave report signature is invalid",
    )


def test_e02_a_revoked_platform_certificate_says_so() -> None:
    assert_fails_only(
        examine(bundle_of(SIMULATOR, is_revoked=True)),
        "E02",
        "the platform's certificate is revoked",
    )


def test_e02_is_told_from_e03_when_both_fail() -> None:
    changed = bytearray(BUNDLE.quote)
    changed[200] ^= 1

    verdict = examine(replace(BUNDLE, quote=bytes(changed)), now=NOW + 31 * DAY, challenge=None)

    assert outcomes(verdict, CheckOutcome.FAILED) == ["E02", "E03"]


class _PanicError(BaseException):
    """What a panic of the library looks like: no `Exception`."""


@pytest.mark.parametrize("raised", [_PanicError("boom"), ValueError("news"), MemoryError()])
def test_e02_whatever_the_library_raises_refuses(
    raised: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    def burst(*_: object, **__: object) -> None:
        raise raised

    monkeypatch.setattr(dcap_qvl, "QuoteVerifier", burst)

    assert_fails_only(examine(), "E02")


def test_the_library_is_asked_once_for_good_evidence(monkeypatch: pytest.MonkeyPatch) -> None:
    real, asked = dcap_qvl.QuoteVerifier, []

    def counted(**arguments: bytes) -> object:
        asked.append(arguments)
        return real(**arguments)

    monkeypatch.setattr(dcap_qvl, "QuoteVerifier", counted)

    assert examine().evidence is not None
    assert asked == [{"root_ca_der": SIMULATOR.root_certificate}]


# 3.


def test_e03_no_collateral_says_where_it_comes_from() -> None:
    verdict = examine(replace(BUNDLE, collateral=None))

    assert_fails_only(verdict, "E03", "no collateral", "PCCS")


def test_e03_collateral_of_another_kind_of_platform() -> None:
    assert_fails_only(
        examine(bundle_of(SIMULATOR, fmspc=b"OTHER\0")), "E03", "Fmspc mismatch", "fetch it for"
    )


@pytest.mark.parametrize(
    ("now", "accepted"),
    [(NOW - 1, False), (NOW, True), (NOW + DAY, True), (NOW + DAY + 1, False)],
)
def test_e03_to_the_millisecond(now: int, accepted: bool) -> None:
    bundle = bundle_of(SIMULATOR, valid_for=DAY)

    verdict = examine(bundle, now=now, challenge=None)

    if accepted:
        assert verdict.evidence is not None
    else:
        assert_fails_only(verdict, "E03", "it ")


def test_e03_revocation_lists_that_end_before_the_rest() -> None:
    assert_fails_only(
        examine(bundle_of(SIMULATOR, crls_valid_for=1_000), now=NOW + 1_001),
        "E03",
        "and expired at",
    )


def test_e03_collateral_that_can_not_be_read() -> None:
    assert BUNDLE.collateral is not None
    garbled = replace(BUNDLE.collateral, root_ca_crl=b"no list")

    assert_fails_only(examine(replace(BUNDLE, collateral=garbled)), "E03", "root CA CRL")


def signed(field: str, change: Callable[[dict[str, object]], None]) -> EvidenceBundle:
    """Return the bundle with a document of its collateral changed, and signed again."""
    assert BUNDLE.collateral is not None
    document = json.loads(getattr(BUNDLE.collateral, field))
    change(document)
    text = json.dumps(document)
    signature = sign(SIMULATOR.authority.tcb_signer.key, text.encode())
    changed = {field: text, f"{field}_signature": signature}
    return replace(BUNDLE, collateral=replace(BUNDLE.collateral, **changed))  # type: ignore[arg-type]


def test_e03_parts_that_are_never_valid_together() -> None:
    def ends_before_the_rest_begins(document: dict[str, object]) -> None:
        document["issueDate"] = "2020-01-01T00:00:00Z"
        document["nextUpdate"] = "2020-02-01T00:00:00Z"

    assert_fails_only(
        examine(signed("qe_identity", ends_before_the_rest_begins)),
        "E03",
        "its parts are never valid together",
    )


@pytest.mark.parametrize("status", ["UpToDate", "Revoked"])
def test_e03_dates_that_only_the_library_can_read(status: str) -> None:
    def offset(document: dict[str, object]) -> None:
        levels = document["tcbLevels"]
        assert isinstance(levels, list)
        levels[0].update(tcbDate="2025-08-13T00:00:00+00:00", tcbStatus=status)

    assert_fails_only(examine(signed("tcb_info", offset)), "E03", "it can't be read: time")


def test_e03_a_platforms_certificate_that_expired() -> None:
    pck = SIMULATOR.platform.pck
    extension = pck.certificate.extensions.get_extension_for_oid(SGX_EXTENSION).value
    assert isinstance(extension, UnrecognizedExtension)
    short = SIMULATOR.authority.issue_pck(extension.value, until=NOW + 1_000)
    made = replace(SIMULATOR, platform=replace(SIMULATOR.platform, pck=short))

    assert examine(bundle_of(made), now=NOW + 1_000).evidence is not None
    assert_fails_only(examine(bundle_of(made), now=NOW + 1_001), "E03", "and expired at")


# 4.


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ("0100001000000000", "a debug TD"),
        ("0000000000000000", "SEPT_VE_DISABLE is off"),
        ("0200001000000000", "reserved (bit 1)"),
        ("2000001000000000", "PERF_PROF (bit 5)"),
        ("0001001000000000", "reserved (bit 8)"),
        ("0000003000000000", "MIGRATABLE (bit 29)"),
        ("0000005000000000", "PKS (bit 30)"),
        ("0000009000000000", "KL (bit 31)"),
        ("0000001001000000", "reserved (bit 32)"),
        ("0000001000000080", "PERFMON (bit 63)"),
    ],
)
def test_e04_attributes_that_weaken_a_td(attributes: str, words: str) -> None:
    made = bundle_of(guest(td_attributes=bytes.fromhex(attributes)))

    assert_fails_only(examine(made), "E04", words)


def test_e04_a_debug_td_passes_under_another_root_where_the_policy_says_so_and_is_called_one() -> (
    None
):
    made = bundle_of(guest(td_attributes=bytes.fromhex("0100001000000000")))
    allowing = replace(POLICY, attributes=Attributes(debug=True))

    verdict = examine(made, policy=allowing)

    assert verdict.evidence is not None
    assert verdict.evidence.is_simulated
    detail = verdict.findings[3].detail
    assert "a debug TD" in detail
    assert "simulated: proves no TEE" in detail


def test_e04_a_debug_td_is_still_held_to_everything_else() -> None:
    debug = guest(td_attributes=bytes.fromhex("0100001000000000"))
    allowing = replace(POLICY, attributes=Attributes(debug=True))
    outdated = debug.with_status("OutOfDate", advisories=("SIMULATED-SA-00001",))
    old_enclave = replace(debug, releases=(replace(debug.releases[0], qe_status="OutOfDate"),))

    for made in (outdated, old_enclave):
        assert_fails_only(examine(bundle_of(made), policy=allowing), "E05", "OutOfDate")
    denying = replace(
        allowing,
        tcb=TcbRules(
            statuses=frozenset({"OutOfDate"}),
            denied_advisories=frozenset({"SIMULATED-SA-00001"}),
        ),
    )
    assert_fails_only(examine(bundle_of(outdated), policy=denying), "E06")


# 5.


@pytest.mark.parametrize(
    "status",
    [
        "SWHardeningNeeded",
        "ConfigurationNeeded",
        "ConfigurationAndSWHardeningNeeded",
        "OutOfDate",
        "OutOfDateConfigurationNeeded",
    ],
)
def test_e05_a_status_that_the_policy_does_not_name(status: str) -> None:
    made = bundle_of(SIMULATOR.with_status(status))
    naming = replace(POLICY, tcb=replace(POLICY.tcb, statuses=frozenset({status})))

    assert_fails_only(examine(made), "E05", f"{status}; the policy allows UpToDate")
    assert examine(made, policy=naming).evidence is not None


def test_e05_revoked_is_refused_by_every_policy() -> None:
    made = bundle_of(SIMULATOR.with_status("Revoked"))
    naming = replace(
        POLICY,
        tcb=TcbRules(statuses=frozenset({"Revoked", "UpToDate"}), grace={"Revoked": 10**15}),
    )

    for policy in (POLICY, naming):
        assert_fails_only(examine(made, policy=policy), "E05", "no policy accepts Revoked")


def test_e05_a_platform_that_no_level_fits_says_which_version_is_short() -> None:
    release = SIMULATOR.releases[0]
    raised = replace(release.levels[0], svns=release.levels[0].svns.raised())
    made = replace(SIMULATOR, releases=(replace(release, levels=(raised,)),))

    assert_fails_only(
        examine(bundle_of(made)),
        "E05",
        "No matching TCB level found: sgx_svn[0] is 4, must be 5",
    )


@pytest.mark.parametrize(("grace", "accepted"), [(DAY, True), (DAY - 1, False)])
def test_e05_grace_counts_from_the_missed_levels_date_to_the_millisecond(
    grace: int, accepted: bool
) -> None:
    made = bundle_of(SIMULATOR.tcb_recovery(now=NOW - DAY))
    policy = replace(POLICY, tcb=replace(POLICY.tcb, grace={"OutOfDate": grace}))

    verdict = examine(made, policy=policy)

    if accepted:
        assert verdict.evidence is not None
        assert "in grace until" in verdict.findings[4].detail
        # Nothing may rest on it any longer than that.
        assert verdict.evidence is not None
        assert verdict.evidence.valid_until == NOW
    else:
        assert_fails_only(verdict, "E05", "sgx_svn[0] is 4, must be 5", "its grace ended at")


def test_e05_another_recovery_gives_no_more_grace() -> None:
    first = SIMULATOR.tcb_recovery(now=NOW - 400 * DAY)
    second = first.tcb_recovery(now=NOW - 2 * DAY)

    for made, days in ((first, 400), (second, 400), (SIMULATOR.tcb_recovery(now=NOW - 2 * DAY), 2)):
        for grace, accepted in ((days * DAY, True), (days * DAY - 1, False)):
            policy = replace(POLICY, tcb=replace(POLICY.tcb, grace={"OutOfDate": grace}))
            verdict = examine(bundle_of(made), policy=policy)
            assert (verdict.evidence is not None) == accepted
            if not accepted:
                assert_fails_only(verdict, "E05", "its grace ended at")


def test_e05_an_outdated_quoting_enclave_counts_as_the_platforms() -> None:
    made = replace(SIMULATOR, releases=(replace(SIMULATOR.releases[0], qe_status="OutOfDate"),))

    assert_fails_only(examine(bundle_of(made)), "E05", "OutOfDate")


# 6. and 7.


def test_e06_a_denied_advisory() -> None:
    made = bundle_of(SIMULATOR.with_status("UpToDate", advisories=("SIMULATED-SA-00007",)))
    denying = replace(
        POLICY, tcb=replace(POLICY.tcb, denied_advisories=frozenset({"SIMULATED-SA-00007"}))
    )

    assert_fails_only(examine(made, policy=denying), "E06", "SIMULATED-SA-00007")
    assert examine(made).evidence is not None


def test_e07_an_evaluation_that_is_too_old() -> None:
    stricter = replace(POLICY, tcb=replace(POLICY.tcb, minimum_evaluation_number=21))

    assert_fails_only(
        examine(policy=stricter), "E07", "TCB info 20, QE identity 20", "wants 21 or more"
    )


# 8.


@pytest.mark.parametrize("kind", ["ppid", "piid"])
def test_e08_platforms_by_either_id(kind: str) -> None:
    one: bytes = getattr(SIMULATOR.platform, kind)
    allowing = replace(POLICY, platforms=Platforms(allowed=frozenset({one})))
    denying = replace(
        POLICY, platforms=Platforms(allowed=frozenset({one}), denied=frozenset({one}))
    )
    another = replace(POLICY, platforms=Platforms(allowed=frozenset({b"\7" * 16})))

    assert examine(policy=allowing).evidence is not None
    assert_fails_only(examine(policy=denying), "E08", "denied", one.hex())
    assert_fails_only(examine(policy=another), "E08", "not among the allowed", one.hex())


@pytest.mark.parametrize("flag", ["dynamic_platform", "cached_keys", "smt"])
def test_e08_flags_of_the_platforms_certificate(flag: str) -> None:
    machine = Platform.create(
        SIMULATOR.authority,
        dynamic_platform=flag == "dynamic_platform",
        cached_keys=flag == "cached_keys",
        smt=flag == "smt",
    )
    made = bundle_of(replace(SIMULATOR, platform=machine))
    anywhere = replace(POLICY, platforms=Platforms())
    strict = replace(
        POLICY,
        platforms=replace(Platforms(), **{flag: False}),  # type: ignore[arg-type]
    )

    assert examine(made, policy=anywhere).evidence is not None
    assert_fails_only(examine(made, policy=strict), "E08", flag)


# 9.


@pytest.mark.parametrize("register", ["mrtd", "rtmr0", "rtmr1", "rtmr2"])
def test_e09_a_register_that_no_set_has(register: str) -> None:
    made = bundle_of(guest(**{register: b"\7" * 48}))

    assert_fails_only(examine(made), "E09", "nearest is 'simulated'", f"other: {register}")


def test_e09_a_set_matches_whole_or_not_at_all() -> None:
    first, second = guest(mrtd=b"\7" * 48), guest(rtmr1=b"\7" * 48)
    both = guest(mrtd=b"\7" * 48, rtmr1=b"\7" * 48)
    policy = replace(
        POLICY,
        measurements=(first.guest.measurements("first"), second.guest.measurements("second")),
    )

    assert examine(bundle_of(first), policy=policy).evidence is not None
    assert_fails_only(examine(bundle_of(both), policy=policy), "E09", "no set matches whole")


def test_e09_a_policy_without_sets_for_the_tee() -> None:
    assert_fails_only(examine(policy=replace(POLICY, measurements=())), "E09", "no measurement set")


# 10.


def change_log(change: Callable[[list[dict[str, object]]], None]) -> EvidenceBundle:
    entries = json.loads(SIMULATOR.guest.event_log)
    change(entries)
    return replace(BUNDLE, event_log=json.dumps(entries).encode())


def forge_payload(entries: list[dict[str, object]]) -> None:
    entries[2]["event_payload"] = "00" * 32


def forge_payload_and_digest(entries: list[dict[str, object]]) -> None:
    forge_payload(entries)
    entries[2]["digest"] = RuntimeEvent(name="compose-hash", payload=bytes(32)).digest.hex()


def drop_last(entries: list[dict[str, object]]) -> None:
    entries.pop()


def drop_digests(entries: list[dict[str, object]]) -> None:
    for entry in entries:
        entry["digest"] = ""


def other_type(entries: list[dict[str, object]]) -> None:
    entries[1]["event_type"] = 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (forge_payload, "the digest of 'compose-hash' is not that of what the entry says"),
        (forge_payload_and_digest, "does not give the quote's RTMR3"),
        (drop_last, "the replay of 6 events does not give the quote's RTMR3"),
        (list.reverse, "does not give the quote's RTMR3"),
        (other_type, "event type 4"),
    ],
)
def test_e10_a_log_that_does_not_replay(
    change: Callable[[list[dict[str, object]]], None], words: str
) -> None:
    assert_fails_only(examine(change_log(change)), "E10", words)


def test_e10_digests_in_the_log_are_not_needed() -> None:
    assert examine(change_log(drop_digests)).evidence is not None


def test_e10_no_log_is_an_empty_one() -> None:
    assert_fails_only(examine(replace(BUNDLE, event_log=None)), "E10", "the replay of 0 events")
    bare = guest(boot_events=())
    policy = replace(
        POLICY,
        measurements=(replace(bare.guest.measurements(), compose_hash=None, app_id=None),),
        required_events=frozenset(),
    )
    for log in (None, b"[]"):
        made = replace(bundle_of(bare), event_log=log, compose=None)
        assert examine(made, policy=policy).evidence is not None


def test_e10_required_and_forbidden_events() -> None:
    requiring = replace(POLICY, required_events=frozenset({"system-ready", "gpu-attestation"}))
    forbidding = replace(POLICY, forbidden_events=frozenset({"key-provider"}))

    assert_fails_only(examine(policy=requiring), "E10", "not in the log: gpu-attestation")
    assert_fails_only(examine(policy=forbidding), "E10", "in the log: key-provider")


PINNED = replace(
    POLICY,
    event_payloads={"key-provider": sha256(b'{"name":"simulated","id":""}').digest()},
)
BOOT = Guest().all_events
PROVIDER = next(event for event in BOOT if event.name == "key-provider")
WITHOUT_PROVIDER = tuple(event for event in BOOT if event.name != "key-provider")


def test_e10_keys_from_a_server_of_the_hosts_own() -> None:
    own = replace(PROVIDER, payload=b'{"name":"kms","id":"of the host"}')
    boot = tuple(own if event.name == "key-provider" else event for event in BOOT)
    made = bundle_of(guest(boot_events=boot))

    assert examine(policy=PINNED).evidence is not None
    assert examine(made).evidence is not None
    assert_fails_only(
        examine(made, policy=PINNED),
        "E10",
        """'key-provider' is '{"name":"kms","id":"of the host"}'""",
        "the policy pins another payload",
        "a server of the host's own",
    )


@pytest.mark.parametrize(
    ("boot", "words"),
    [
        (WITHOUT_PROVIDER, "pinned and not in the log: key-provider"),
        ((PROVIDER, *BOOT), "2 events 'key-provider'"),
        ((*BOOT, replace(PROVIDER, payload=b"x")), "2 events 'key-provider'"),
        ((*WITHOUT_PROVIDER, PROVIDER), "'key-provider' comes after 'system-ready'"),
        (
            (*WITHOUT_PROVIDER, PROVIDER, RuntimeEvent(name="system-ready")),
            "'key-provider' comes after 'system-ready'",
        ),
        ((*WITHOUT_PROVIDER[:-1], replace(PROVIDER, payload=b"\xff\n")), "2 bytes of SHA-256"),
    ],
)
def test_e10_a_pinned_event_is_there_once_and_of_the_boot(
    boot: tuple[RuntimeEvent, ...], words: str
) -> None:
    policy = replace(PINNED, required_events=frozenset())

    assert_fails_only(examine(bundle_of(guest(boot_events=boot)), policy=policy), "E10", words)


def test_e10_where_no_event_says_ready_a_pinned_one_is_there_once() -> None:
    made = bundle_of(guest(boot_events=BOOT[:-1]))

    assert examine(made, policy=replace(PINNED, required_events=frozenset())).evidence is not None


# 11.


def test_e11_another_application_on_the_same_registers() -> None:
    made = bundle_of(guest(compose=b'{"name":"another"}'))

    assert_fails_only(examine(made), "E11", sha256(b'{"name":"another"}').hexdigest())


def test_e11_of_several_sets_that_match_the_one_with_the_application_counts() -> None:
    other = guest(compose=b'{"name":"another"}')
    policy = replace(
        POLICY, measurements=(other.guest.measurements("other"), SIMULATOR.guest.measurements())
    )

    evidence = examine(policy=policy).evidence

    assert evidence is not None
    assert evidence.measurement_set == "simulated"


@pytest.mark.parametrize("left_out", ["compose_hash", "app_id"])
def test_e11_hash_or_id_alone_will_do(left_out: str) -> None:
    one = replace(SIMULATOR.guest.measurements(), **{left_out: None})  # type: ignore[arg-type]
    policy = replace(PINNED, measurements=(one,))
    made = bundle_of(guest(compose=b'{"name":"another"}'))

    assert examine(policy=policy).evidence is not None
    assert_fails_only(examine(made, policy=policy), "E11")


def test_e11_an_app_id_alone_is_no_policy_without_a_pinned_key_provider() -> None:
    """Any host can claim the id, and give the TD keys of its own for any compose document."""
    one = replace(SIMULATOR.guest.measurements(), compose_hash=None)

    for pinned in ({}, {"mr-kms": bytes(32)}):
        with pytest.raises(ConfigError, match="names app_id alone"):
            replace(POLICY, measurements=(one,), event_payloads=pinned)


def test_e11_a_compose_document_that_is_not_the_one_that_runs() -> None:
    assert_fails_only(
        examine(replace(BUNDLE, compose=BUNDLE.compose + b"\n" if BUNDLE.compose else b"")),
        "E11",
        "byte for byte",
    )


def test_e11_without_the_document_the_hash_is_enough() -> None:
    assert examine(replace(BUNDLE, compose=None)).evidence is not None


def test_e11_a_second_event_of_that_name_is_not_the_systems() -> None:
    again = RuntimeEvent(name="compose-hash", payload=Guest().compose_hash)

    assert_fails_only(examine(bundle_of(guest(events=(again,)))), "E11", "2 events 'compose-hash'")


@pytest.mark.parametrize("name", ["compose-hash", "app-id"])
def test_e11_what_the_application_says_of_itself_names_it_not(name: str) -> None:
    """It can emit events once the system is ready, and a host may have left out the system's."""
    event = next(one for one in BOOT if one.name == name)
    boot = (*(one for one in BOOT if one.name != name), event)

    assert_fails_only(
        examine(bundle_of(guest(boot_events=boot))), "E11", f"{name!r} comes after 'system-ready'"
    )


def named_only_by_the_host() -> tuple[Simulator, Policy]:
    """A TD without events, whose MRCONFIGID holds the compose hash that a policy names."""
    silent = guest(boot_events=())
    (wanted,) = POLICY.measurements
    assert isinstance(wanted, TdxMeasurements)
    named = replace(wanted, app_id=None)
    return silent, replace(POLICY, measurements=(named,), required_events=frozenset())


def test_e11_a_hash_that_only_the_host_chose_names_no_application() -> None:
    silent, policy = named_only_by_the_host()

    verdict = examine(replace(bundle_of(silent), compose=None), policy=policy)

    assert_fails_only(verdict, "E11", "compose hash none")


def test_e11_the_hosts_word_must_not_contradict_the_log() -> None:
    other = tuple(
        replace(event, payload=b"o" * 32) if event.name == "compose-hash" else event
        for event in Guest().all_events
    )

    verdict = examine(bundle_of(guest(boot_events=other)))

    assert_fails_only(verdict, "E11", "MRCONFIGID names another compose hash")


def test_e11_an_app_id_of_another_length() -> None:
    events = (
        RuntimeEvent(name="app-id", payload=b"\1"),
        RuntimeEvent(name="compose-hash", payload=Guest().compose_hash),
        RuntimeEvent(name="system-ready"),
    )

    assert_fails_only(
        examine(bundle_of(guest(boot_events=events))), "E11", "'app-id' is 1 bytes, must be 20"
    )


# 12.


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("genesis_hash", b"\7" * 32),
        ("contract", b"\7" * 32),
        ("signing_key", PublicKey(scheme=Scheme.SR25519, key=b"\7" * 32)),
        ("encryption_key", b"\7" * 32),
    ],
)
def test_e12_evidence_for_something_else(name: str, value: object) -> None:
    other = replace(EXPECTED, **{name: value})  # type: ignore[arg-type]
    # The bundle says what is expected, but the quote was made for something else.
    claimed = replace(BUNDLE, **{name: value})  # type: ignore[arg-type]

    assert_fails_only(examine(expected=other), "E12", name.replace("_", " "))
    assert_fails_only(examine(claimed, expected=other), "E12", "report data is not that of")


def test_e12_the_quote_answers_the_bundles_challenge() -> None:
    claimed = replace(BUNDLE, challenge=b"\7" * 32)

    assert_fails_only(
        examine(claimed, challenge=replace(ISSUED, value=b"\7" * 32)), "E12", "report data"
    )


def test_e12_a_layout_that_fails_refuses() -> None:
    def broken(_: EvidenceBundle) -> bytes:
        raise RuntimeError("a mistake")

    verdict = examine_evidence(
        dump_bundle(BUNDLE),
        policy=POLICY,
        now=NOW,
        expected=EXPECTED,
        challenge=None,
        standing=None,
        report_data_of=broken,
    )

    assert_fails_only(verdict, "E12", "the check itself failed: RuntimeError")


# 13.


def test_e13_a_challenge_that_was_not_issued_was_used_or_is_too_old_or_to_come() -> None:
    limit = POLICY.maximum_age
    cases = {
        "not the challenge": replace(ISSUED, value=b"\7" * 32),
        "used before": replace(ISSUED, is_used=True),
        f"{limit + 1} ms old, at most {limit}": replace(ISSUED, issued_at=NOW - limit - 1),
        "which is to come": replace(ISSUED, issued_at=NOW + 1),
    }

    for words, issued in cases.items():
        assert_fails_only(examine(challenge=issued), "E13", words)
    for issued_at in (NOW, NOW - limit):
        assert examine(challenge=replace(ISSUED, issued_at=issued_at)).evidence is not None


def test_e13_who_did_not_issue_it_can_not_tell() -> None:
    verdict = examine(challenge=None)

    assert outcomes(verdict, CheckOutcome.NOT_CHECKED) == ["E13"]
    assert verdict.findings[12].detail == "only the issuer could tell"
    assert verdict.evidence is not None


# 14.


def test_e14_keys_for_a_new_worker_are_nobodys() -> None:
    for status in WorkerStatus:
        standing = KeyStanding(worker=worker(status=status), renews=None)
        assert_fails_only(examine(standing=standing), "E14", "worker 7's")


def test_e14_keys_of_a_worker_are_its_own() -> None:
    own = KeyStanding(worker=worker(), renews=7)

    assert examine(standing=own).evidence is not None
    assert_fails_only(examine(standing=replace(own, renews=8)), "E14", "not worker 8's")
    assert_fails_only(examine(standing=replace(own, worker=None)), "E14", "nobody is registered")
    other = replace(own, worker=worker(encryption_key=b"\7" * 32))
    assert_fails_only(examine(standing=other), "E14", "registered with other keys")


@pytest.mark.parametrize("is_renewal", [True, False])
def test_e14_revoked_is_for_ever(is_renewal: bool) -> None:
    own = KeyStanding(worker=worker(status=WorkerStatus.REVOKED), renews=7, is_renewal=is_renewal)
    measurement = KeyStanding(
        worker=worker(), renews=7, is_renewal=is_renewal, is_measurement_revoked=True
    )

    assert_fails_only(examine(standing=own), "E14", "which is revoked")
    assert_fails_only(examine(standing=measurement), "E14", "measurement of worker 7 is revoked")


def test_e14_a_new_worker_of_a_revoked_measurement() -> None:
    assert_fails_only(
        examine(standing=replace(NOBODYS, is_measurement_revoked=True)), "E14", "revoked"
    )


@pytest.mark.parametrize("changes", [{"status": WorkerStatus.SUSPENDED}, {"valid_until": NOW - 1}])
def test_e14_suspended_or_expired_keys_are_renewed_but_not_used(
    changes: dict[str, object],
) -> None:
    standing = KeyStanding(worker=worker(**changes), renews=7)

    assert_fails_only(examine(standing=standing), "E14", "not trusted now")
    assert examine(standing=replace(standing, is_renewal=True)).evidence is not None


def test_e14_without_the_chain_nobody_can_tell() -> None:
    verdict = examine(standing=None)

    assert outcomes(verdict, CheckOutcome.NOT_CHECKED) == ["E14"]
    assert verdict.findings[13].detail == "only the chain could tell"
    assert verdict.evidence is not None


# All of them.


def test_everything_that_is_wrong_is_said_at_once() -> None:
    made = bundle_of(guest(mrtd=b"\7" * 48, td_attributes=bytes(8)).with_status("OutOfDate"))
    policy = replace(
        POLICY,
        tcb=replace(POLICY.tcb, minimum_evaluation_number=21),
        platforms=Platforms(denied=frozenset({SIMULATOR.platform.ppid})),
        required_events=frozenset({"absent"}),
    )

    verdict = examine(
        made,
        policy=policy,
        now=NOW + 31 * DAY,
        expected=replace(EXPECTED, contract=b"\7" * 32),
        standing=KeyStanding(worker=None, renews=1),
    )

    assert outcomes(verdict, CheckOutcome.FAILED) == [
        "E03", "E04", "E05", "E07", "E08", "E09", "E10", "E12", "E13", "E14",
    ]  # fmt: skip
    assert outcomes(verdict, CheckOutcome.NOT_CHECKED) == ["E11"]


def test_a_check_that_breaks_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> str:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(verifier_module, "check_platform", broken)

    assert_fails_only(examine(), "E08", "the check itself failed: RuntimeError")


def test_an_appraisal_that_breaks_refuses(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a mistake")

    monkeypatch.setattr(verifier_module, "appraise", broken)

    assert_fails_only(examine(), "E02", "the check itself failed: RuntimeError")


def test_verified_evidence_is_made_by_the_verifier_alone() -> None:
    evidence = examine().evidence
    assert evidence is not None
    facts = {field.name: getattr(evidence, field.name) for field in fields(evidence)}

    with pytest.raises(TypeError, match="verify_evidence alone"):
        VerifiedEvidence(**facts, made_by=object())
    with pytest.raises((TypeError, ValueError), match="made_by"):
        replace(evidence, is_simulated=False)  # type: ignore[call-arg]  # that is the test


def test_verified_evidence_is_not_made_from_other_verified_evidence() -> None:
    evidence = examine().evidence
    assert evidence is not None

    assert copy.copy(evidence) is evidence
    assert copy.deepcopy(evidence) is evidence
    with pytest.raises(TypeError, match="verify_evidence alone"):
        pickle.dumps(evidence)
    with pytest.raises(TypeError, match="verify_evidence alone"):
        type("Mine", (VerifiedEvidence,), {"__post_init__": lambda *_: None})
    with pytest.raises(TypeError, match="verify_evidence alone"):
        object.__new__(VerifiedEvidence).__setstate__([])
    for one in (evidence, evidence.bundle, evidence.bundle.collateral):
        assert not hasattr(one, "__dict__")
    # An empty one has no fact that anything could go by.
    empty = object.__new__(VerifiedEvidence)
    for field in fields(VerifiedEvidence):
        with pytest.raises(AttributeError):
            getattr(empty, field.name)


def test_the_verifiers_mark_is_used_by_the_verifier_alone() -> None:
    folder = Path(orchestrator.__file__).parent

    users = {
        str(path.relative_to(folder))
        for path in folder.rglob("*.py")
        if re.search(r"\bVERIFIER\b", path.read_text())
    }

    assert users == {"evidence/verdict.py", "evidence/verifier.py"}
