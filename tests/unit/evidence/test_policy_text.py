"""Policies made from evidence, what a change of one does, and what is odd about one."""

from dataclasses import replace

import pytest

from orchestrator.errors import EncodingError, InputError
from orchestrator.evidence import (
    Attributes,
    EvidenceBundle,
    ExpectedBinding,
    Platforms,
    Policy,
    PolicyEffect,
    Root,
    SgxMeasurements,
    TcbRules,
    TdxMeasurements,
    compare_policies,
    dump_bundle,
    examine_evidence,
    load_policy,
    policy_from_evidence,
    policy_warnings,
    starter_policy,
)
from orchestrator.simulator import Guest, RuntimeEvent, Simulator
from tests.properties.evidence_world import (
    CONTRACT,
    ENCRYPTION_KEY,
    GENESIS,
    INTEL,
    NOW,
    REPORT_DATA,
    SIGNING_KEY,
    base_bundle,
)
from tests.unit.evidence.real import NOW as REAL_NOW
from tests.unit.evidence.real import near, real_collateral, real_quote

DAY = 86_400_000
SIMULATOR = Simulator.create()
ROOT = Root(name="my simulator", certificate=SIMULATOR.root_certificate, is_intel=False)


def bundle_of(simulator: Simulator) -> bytes:
    return dump_bundle(
        replace(
            base_bundle(simulator.quote(REPORT_DATA), simulator.collateral(now=NOW)),
            event_log=simulator.guest.event_log,
            compose=simulator.guest.compose,
        )
    )


def accepts(policy: Policy, data: bytes, now: int = NOW, quoted: bytes = REPORT_DATA) -> bool:
    verdict = examine_evidence(
        data,
        policy=policy,
        now=now,
        expected=ExpectedBinding(
            genesis_hash=GENESIS,
            contract=CONTRACT,
            signing_key=SIGNING_KEY,
            encryption_key=ENCRYPTION_KEY,
        ),
        challenge=None,
        standing=None,
        report_data_of=lambda _: quoted,
    )
    return verdict.evidence is not None


def made_from(data: bytes) -> Policy:
    return load_policy(policy_from_evidence(data, now=NOW, name="mine", roots=[ROOT]).encode())


def guest(**changes: object) -> Simulator:
    return replace(SIMULATOR, guest=replace(Guest(), **changes))  # type: ignore[arg-type]


def test_evidence_meets_the_policy_made_from_it_and_nothing_else_does() -> None:
    policy = made_from(bundle_of(SIMULATOR))

    assert accepts(policy, bundle_of(SIMULATOR))
    assert policy.measurements == (SIMULATOR.guest.measurements("mine"),)
    assert policy.platforms.allowed == {SIMULATOR.platform.piid}
    assert not policy.platforms.smt
    assert policy.tcb.minimum_evaluation_number == 20
    assert "system-ready" in policy.required_events
    assert set(policy.event_payloads) == {"key-provider"}
    for other in (
        Simulator.create(),
        guest(compose=b"{}"),
        guest(rtmr2=b"\7" * 48),
        guest(boot_events=()),
        SIMULATOR.with_status("SWHardeningNeeded"),
    ):
        assert not accepts(policy, bundle_of(other))


@pytest.mark.parametrize(
    "made",
    [
        guest(td_attributes=bytes.fromhex("0100001000000000")),
        guest(boot_events=(), compose=b"{}"),
        SIMULATOR.with_status("OutOfDate", advisories=("SIMULATED-SA-00001",)),
        guest(events=(RuntimeEvent(name='"] # x', payload=b"\1"),)),
    ],
)
def test_it_says_so_when_the_evidence_is_debug_bare_outdated_or_odd(made: Simulator) -> None:
    data = bundle_of(made)
    if not made.guest.all_events:
        data = dump_bundle(
            replace(
                base_bundle(made.quote(REPORT_DATA), made.collateral(now=NOW)),
                event_log=made.guest.event_log,
            )
        )

    policy = made_from(data)

    assert accepts(policy, data)
    assert '"] # x' not in policy.required_events


def with_boot(payloads: dict[str, bytes]) -> Simulator:
    """The machine with these payloads in its boot, also of events that it has not otherwise."""
    left = dict(payloads)
    boot = [
        replace(event, payload=left.pop(event.name, event.payload)) for event in Guest().all_events
    ]
    more = [RuntimeEvent(name=name, payload=payload) for name, payload in left.items()]
    return guest(boot_events=(*boot[:-1], *more, boot[-1]))


def test_a_host_with_keys_of_its_own_does_not_meet_it() -> None:
    known = {"mr-kms": b"\1" * 32, "os-image-hash": b"\2" * 300}
    reviewed = bundle_of(with_boot(known))
    text = policy_from_evidence(reviewed, now=NOW, name="mine", roots=[ROOT])
    policy = load_policy(text.encode())

    assert '# {"name":"simulated","id":""}' in text
    assert 'os-image-hash = "sha256:' in text
    assert set(policy.event_payloads) == {"key-provider", "mr-kms", "os-image-hash"}
    assert accepts(policy, reviewed)
    for name, payload in (
        ("key-provider", b'{"name":"kms","id":"of the host"}'),
        ("mr-kms", b"\3" * 32),
        ("os-image-hash", b"\2" * 299),
    ):
        assert not accepts(policy, bundle_of(with_boot({**known, name: payload})))


def test_a_set_without_a_name_is_called_by_its_hash() -> None:
    for simulator in (SIMULATOR, guest(compose=b"{}")):
        text = policy_from_evidence(bundle_of(simulator), now=NOW, roots=[ROOT])

        (one,) = load_policy(text.encode()).measurements

        assert one.name == f"tdx-{one.measurement.hex()[:12]}"
        assert one.measurement == simulator.guest.measurements().measurement


def test_the_text_says_that_a_simulator_proves_nothing() -> None:
    text = policy_from_evidence(bundle_of(SIMULATOR), now=NOW, name="mine", roots=[ROOT])

    assert "# simulated: proves no TEE" in text


@pytest.mark.parametrize("name", ["near", "sgx_quote", "tdx_quote"])
def test_real_evidence_meets_the_policy_made_from_it(name: str) -> None:
    bundle: EvidenceBundle = base_bundle(real_quote(name), real_collateral(name))
    if name == "near":
        bundle = replace(bundle, event_log=near().event_log, compose=near().compose)
    data, now = dump_bundle(bundle), REAL_NOW[name]
    quoted = bundle.quote[568:632] if name != "sgx_quote" else bundle.quote[368:432]

    policy = load_policy(policy_from_evidence(data, now=now, name=name).encode())

    assert [root.is_intel for root in policy.roots] == [True]
    assert accepts(policy, data, now, quoted)


def test_evidence_that_no_policy_accepts_makes_none() -> None:
    def refuse(data: bytes, words: str, now: int = NOW) -> None:
        with pytest.raises(InputError, match=words):
            policy_from_evidence(data, now=now, name="mine", roots=[ROOT])

    refuse(bundle_of(Simulator.create()), "E02: the quote's chain ends in another root")
    refuse(bundle_of(SIMULATOR), "E03: it was valid", NOW + 31 * DAY)
    refuse(bundle_of(SIMULATOR.with_status("Revoked")), "E05: no policy accepts")
    refuse(bundle_of(guest(td_attributes=bytes(8))), "SEPT_VE_DISABLE")
    forged = replace(
        base_bundle(SIMULATOR.quote(REPORT_DATA), SIMULATOR.collateral(now=NOW)), event_log=b"[]"
    )
    refuse(dump_bundle(forged), "does not give the quote's RTMR3")
    with pytest.raises(EncodingError):
        policy_from_evidence(b"", now=NOW, name="mine")
    with pytest.raises(InputError, match="name"):
        policy_from_evidence(bundle_of(SIMULATOR), now=NOW, name='a"\nintel = true', roots=[ROOT])


def test_under_intels_root_the_simulator_makes_no_policy() -> None:
    with pytest.raises(InputError, match="E02"):
        policy_from_evidence(bundle_of(SIMULATOR), now=NOW, name="mine")


# Changes.

BASE = Policy(
    policy_hash=bytes(32),
    roots=(INTEL,),
    measurements=(SIMULATOR.guest.measurements("one"),),
    tcb=TcbRules(statuses=frozenset({"UpToDate"}), minimum_evaluation_number=20),
    event_payloads={"key-provider": b"\1" * 32},
)
OTHER_SET = guest(mrtd=b"\7" * 48).guest.measurements("two")


def tcb(**changes: object) -> Policy:
    return replace(BASE, tcb=replace(BASE.tcb, **changes))  # type: ignore[arg-type]


def platforms(**changes: object) -> Policy:
    return replace(BASE, platforms=replace(Platforms(), **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("wider", "words"),
    [
        (replace(BASE, roots=(INTEL, ROOT)), "root 'my simulator'"),
        (replace(BASE, measurements=(*BASE.measurements, OTHER_SET)), "measurement set 'two'"),
        (tcb(statuses=frozenset({"UpToDate", "OutOfDate"})), "TCB status OutOfDate"),
        (tcb(grace={"OutOfDate": DAY}), "grace of OutOfDate"),
        (tcb(minimum_evaluation_number=19), "least evaluation number"),
        (replace(BASE, attributes=Attributes(debug=True)), "debug is"),
        (replace(BASE, maximum_age=DAY), "challenges may be as old as"),
        (replace(BASE, maximum_registration=8 * DAY), "registrations may last"),
    ],
)
def test_a_change_allows_more_and_its_reverse_less(wider: Policy, words: str) -> None:
    (more,) = compare_policies(BASE, wider)
    (less,) = compare_policies(wider, BASE)

    assert (more.effect, less.effect) == (PolicyEffect.MORE, PolicyEffect.LESS)
    assert words in more.text
    assert words in less.text


@pytest.mark.parametrize(
    ("narrower", "words"),
    [
        (tcb(denied_advisories=frozenset({"INTEL-SA-00837"})), "denied advisory INTEL-SA-00837"),
        (platforms(allowed=frozenset({b"\7" * 16})), "machine"),
        (platforms(denied=frozenset({b"\7" * 16})), "denied machine 0707"),
        (platforms(dynamic_platform=False), "dynamic_platform"),
        (platforms(cached_keys=False), "cached_keys"),
        (platforms(smt=False), "smt"),
        (replace(BASE, required_events=frozenset({"x"})), "required event x"),
        (replace(BASE, forbidden_events=frozenset({"x"})), "forbidden event x"),
        (
            replace(BASE, event_payloads={**BASE.event_payloads, "x": bytes(32)}),
            "payload of event x",
        ),
    ],
)
def test_a_change_allows_less_and_its_reverse_more(narrower: Policy, words: str) -> None:
    (less,) = compare_policies(BASE, narrower)
    (more,) = compare_policies(narrower, BASE)

    assert (less.effect, more.effect) == (PolicyEffect.LESS, PolicyEffect.MORE)
    assert words in less.text
    assert words in more.text


def test_another_machine_on_the_list_allows_more() -> None:
    one, two = frozenset({b"\1" * 16}), frozenset({b"\1" * 16, b"\2" * 16})

    (change,) = compare_policies(platforms(allowed=one), platforms(allowed=two))

    assert change.effect is PolicyEffect.MORE


def test_another_pinned_payload_allows_one_thing_more_and_one_less() -> None:
    other = replace(BASE, event_payloads={"key-provider": b"\2" * 32})

    more, less = compare_policies(BASE, other)

    assert (more.effect, less.effect) == (PolicyEffect.MORE, PolicyEffect.LESS)
    assert f"key-provider with payload sha256:{'02' * 32} is accepted" in more.text
    assert f"key-provider with payload sha256:{'01' * 32} is not" in less.text


def test_new_names_and_grace_without_effect_allow_the_same() -> None:
    renamed = replace(
        BASE,
        roots=(replace(INTEL, name="chips"),),
        measurements=(replace(BASE.measurements[0], name="uno"),),
        tcb=replace(BASE.tcb, grace={"UpToDate": DAY}),
    )

    changes = compare_policies(BASE, renamed)

    assert [change.effect for change in changes] == [PolicyEffect.NEITHER] * 3
    assert compare_policies(BASE, replace(BASE, policy_hash=b"\7" * 32)) == ()


# Warnings.


def test_a_strict_policy_raises_no_warning() -> None:
    assert policy_warnings(BASE) == ()


@pytest.mark.parametrize(
    ("policy", "words"),
    [
        (Policy(policy_hash=bytes(32)), "nothing is allowed: the policy names no root"),
        (replace(BASE, measurements=()), "names no measurement set"),
        (tcb(statuses=frozenset()), "names no TCB status"),
        (
            replace(BASE, required_events=frozenset({"x"}), forbidden_events=frozenset({"x"})),
            "required and forbidden at once: x",
        ),
        (
            replace(BASE, forbidden_events=frozenset({"key-provider"})),
            "required and forbidden at once: key-provider",
        ),
        (replace(BASE, event_payloads={}), "key-provider is not pinned in [events.payloads]"),
        (
            platforms(allowed=frozenset({b"\7" * 16}), denied=frozenset({b"\7" * 16})),
            "is allowed and denied",
        ),
        (replace(BASE, roots=(ROOT,)), "simulated, proves no TEE"),
        (replace(BASE, roots=(INTEL, ROOT)), "side by side"),
        (replace(BASE, attributes=Attributes(debug=True)), "debug has no effect"),
        (replace(BASE, roots=(ROOT,), attributes=Attributes(debug=True)), "debug TDs are allowed"),
        (tcb(statuses=frozenset({"OutOfDate"})), "OutOfDate is accepted without end"),
        (tcb(grace={"OutOfDate": 31 * DAY}), "the grace of OutOfDate is long: 31d"),
        (tcb(grace={"UpToDate": DAY}), "the grace of UpToDate has no effect"),
        (tcb(minimum_evaluation_number=0), "collateral of any evaluation"),
        (replace(BASE, maximum_age=2 * 3_600_000), "challenges may be 2h old"),
        (replace(BASE, maximum_registration=31 * DAY), "registrations may last 31d"),
        (replace(BASE, measurements=BASE.measurements * 2), "the same measurements"),
        (
            replace(
                BASE,
                measurements=(
                    SgxMeasurements(name="s", mrsigner=bytes(32), isv_prod_id=1, minimum_isv_svn=1),
                ),
            ),
            "whatever its signer signs",
        ),
    ],
)
def test_what_is_odd_is_said(policy: Policy, words: str) -> None:
    assert any(words in warning for warning in policy_warnings(policy))


def test_sets_that_name_no_application_are_pointed_out() -> None:
    whole = BASE.measurements[0]
    assert isinstance(whole, TdxMeasurements)
    by_id = replace(whole, compose_hash=None)
    bare = replace(whole, compose_hash=None, app_id=None)

    for one, words in ((by_id, "every compose document"), (bare, "no application is named")):
        assert any(words in w for w in policy_warnings(replace(BASE, measurements=(one,))))


def test_where_the_registers_are_the_application_no_key_provider_is_missed() -> None:
    whole = BASE.measurements[0]
    assert isinstance(whole, TdxMeasurements)
    bare = replace(whole, compose_hash=None, app_id=None)
    enclave = SgxMeasurements(name="e", mrenclave=bytes(32))

    for one in (bare, enclave):
        warnings = policy_warnings(replace(BASE, measurements=(one,), event_payloads={}))
        assert not any("key-provider" in warning for warning in warnings)


def test_the_starter_says_that_it_allows_nothing() -> None:
    warnings = policy_warnings(load_policy(starter_policy().encode()))

    assert warnings[0] == "nothing is allowed: the policy names no measurement set"
