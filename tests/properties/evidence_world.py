"""Evidence that the production verifier accepts, to be changed by the tests of it."""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from orchestrator.attestation import CheckOutcome
from orchestrator.crypto import EcdsaSigner, EncryptionKey
from orchestrator.encoding import report_data
from orchestrator.evidence import (
    Collateral,
    EvidenceBundle,
    EvidenceCheck,
    ExpectedBinding,
    IssuedChallenge,
    KeyStanding,
    Platforms,
    Policy,
    Root,
    TcbRules,
    TdxMeasurements,
    Verdict,
    dump_bundle,
    examine_evidence,
    load_collateral_json,
)
from orchestrator.evidence.intel_root import INTEL_ROOT
from orchestrator.evidence.policy import Attributes
from orchestrator.evidence.quote import TdxReport, parse_quote
from orchestrator.simulator import Simulator
from tests.unit.evidence.real import fixtures_folder

NOW = 1_790_000_000_000
NEAR_NOW = 1_786_622_400_000
GENESIS, CONTRACT, CHALLENGE = b"\1" * 32, b"\2" * 32, b"\3" * 32
SIGNING_KEY = EcdsaSigner.from_bytes(b"\4" * 32).public_key
ENCRYPTION_KEY = EncryptionKey.from_bytes(b"\5" * 32).public_key
INTEL = Root(name="intel", certificate=INTEL_ROOT, is_intel=True)


@dataclass(frozen=True, kw_only=True)
class Case:
    """A bundle with all that it is verified by; the bundle is accepted as it is."""

    bundle: EvidenceBundle
    policy: Policy
    now: int
    report_data_of: Callable[[EvidenceBundle], bytes]

    @property
    def data(self) -> bytes:
        return dump_bundle(self.bundle)

    def examine(self, data: bytes) -> Verdict:
        """Examine these bytes with everything else right."""
        return examine_evidence(
            data,
            policy=self.policy,
            now=self.now,
            expected=ExpectedBinding(
                genesis_hash=GENESIS,
                contract=CONTRACT,
                signing_key=SIGNING_KEY,
                encryption_key=ENCRYPTION_KEY,
            ),
            challenge=IssuedChallenge(value=CHALLENGE, issued_at=self.now - 1_000),
            standing=KeyStanding(worker=None, renews=None),
            report_data_of=self.report_data_of,
        )

    def accepts(self, data: bytes) -> bool:
        verdict = self.examine(data)
        assert (verdict.evidence is None) == (verdict.refused_by is not None)
        return verdict.evidence is not None

    def refused_by(self, **changes: object) -> EvidenceCheck:
        """The check that refuses the bundle with these fields changed."""
        return self.check_of(dump_bundle(replace(self.bundle, **changes)))  # type: ignore[arg-type]

    def check_of(self, data: bytes) -> EvidenceCheck:
        verdict = self.examine(data)
        assert verdict.evidence is None
        assert verdict.refused_by is not None
        return verdict.refused_by.check


def failed(verdict: Verdict) -> list[str]:
    """The codes of all checks that failed."""
    return [f.check.value for f in verdict.findings if f.outcome is CheckOutcome.FAILED]


def base_bundle(quote: bytes, collateral: Collateral | None) -> EvidenceBundle:
    return EvidenceBundle(
        producer="tests",
        genesis_hash=GENESIS,
        contract=CONTRACT,
        signing_key=SIGNING_KEY,
        encryption_key=ENCRYPTION_KEY,
        challenge=CHALLENGE,
        quote=quote,
        collateral=collateral,
    )


def bound_report_data(bundle: EvidenceBundle) -> bytes:
    return report_data(bundle.binding())


REPORT_DATA = bound_report_data(base_bundle(b"", None))


def simulated_policy(simulator: Simulator) -> Policy:
    """The strict policy that the simulator's evidence meets."""
    return Policy(
        policy_hash=b"\6" * 32,
        roots=(Root(name="simulated", certificate=simulator.root_certificate, is_intel=False),),
        measurements=(simulator.guest.measurements(),),
        tcb=TcbRules(statuses=frozenset({"UpToDate"}), minimum_evaluation_number=20),
        platforms=Platforms(allowed=frozenset({simulator.platform.ppid})),
        attributes=Attributes(debug=False),
        required_events=frozenset({"compose-hash", "system-ready"}),
    )


def simulated_case(
    simulator: Simulator, *, version: int = 4, collateral: Collateral | None = None
) -> Case:
    bundle = replace(
        base_bundle(
            simulator.quote(REPORT_DATA, version=version),
            simulator.collateral(now=NOW) if collateral is None else collateral,
        ),
        event_log=simulator.guest.event_log,
        compose=simulator.guest.compose,
        policy_hash=b"\6" * 32,
    )
    return Case(
        bundle=bundle,
        policy=simulated_policy(simulator),
        now=NOW + 60_000,
        report_data_of=bound_report_data,
    )


def near_case() -> Case:
    """A production TD's evidence; its report data binds other keys, in a layout of its own."""
    near = fixtures_folder() / "near-mpc"
    quote = bytes(json.loads((near / "quote.json").read_text()))
    info = json.loads((near / "tcb_info.json").read_text())
    compose = info["app_compose"].encode()
    report = parse_quote(quote).report
    assert isinstance(report, TdxReport)
    return Case(
        bundle=replace(
            base_bundle(quote, load_collateral_json((near / "collateral.json").read_bytes())),
            event_log=json.dumps(info["event_log"]).encode(),
            compose=compose,
            policy_hash=b"\6" * 32,
        ),
        policy=Policy(
            policy_hash=b"\6" * 32,
            roots=(INTEL,),
            measurements=(
                TdxMeasurements(
                    name="near",
                    mrtd=report.mrtd,
                    rtmr0=report.rtmr0,
                    rtmr1=report.rtmr1,
                    rtmr2=report.rtmr2,
                    compose_hash=bytes.fromhex(info["compose_hash"]),
                ),
            ),
            tcb=TcbRules(statuses=frozenset({"UpToDate"})),
        ),
        now=NEAR_NOW,
        report_data_of=lambda _: report.report_data,
    )


def flipped(data: bytes, bit: int) -> bytes:
    changed = bytearray(data)
    changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def fields_of_quote(quote: bytes, *, version: int = 4) -> Iterator[tuple[str, int, int]]:
    """Yield every field of a TDX quote that carries a PCK chain: name, start, end."""
    place = 0
    sizes = {2: 584, 3: 648}

    def number(length: int) -> int:
        return int.from_bytes(quote[place : place + length], "little")

    def field(name: str, length: int) -> tuple[str, int, int]:
        nonlocal place
        place += length
        return name, place - length, place

    for name, length in (
        ("version", 2),
        ("attestation key type", 2),
        ("TEE type", 4),
        ("QE SVN", 2),
        ("PCE SVN", 2),
        ("QE vendor", 16),
        ("user data", 20),
    ):
        yield field(name, length)
    size = 584
    if version == 5:
        size = sizes[number(2)]
        yield field("body type", 2)
        yield field("body size", 4)
    for name, length in (
        ("TEE TCB SVN", 16),
        ("MRSEAM", 48),
        ("MRSIGNERSEAM", 48),
        ("SEAM attributes", 8),
        ("TD attributes", 8),
        ("XFAM", 8),
        ("MRTD", 48),
        ("MRCONFIGID", 48),
        ("MROWNER", 48),
        ("MROWNERCONFIG", 48),
        ("RTMR0", 48),
        ("RTMR1", 48),
        ("RTMR2", 48),
        ("RTMR3", 48),
        ("report data", 64),
    ):
        yield field(name, length)
    if size == 648:
        yield field("TEE TCB SVN 2", 16)
        yield field("MRSERVICETD", 48)
    yield field("signature data length", 4)
    yield field("quote signature", 64)
    yield field("attestation key", 64)
    yield field("certification type", 2)
    yield field("certification length", 4)
    for name, length in (
        ("QE CPUSVN", 16),
        ("QE MISCSELECT", 4),
        ("QE reserved 1", 28),
        ("QE attributes", 16),
        ("QE MRENCLAVE", 32),
        ("QE reserved 2", 32),
        ("QE MRSIGNER", 32),
        ("QE reserved 3", 96),
        ("QE product", 2),
        ("QE ISV SVN", 2),
        ("QE reserved 4", 60),
        ("QE report data", 64),
    ):
        yield field(name, length)
    yield field("QE report signature", 64)
    length = number(2)
    yield field("QE authentication length", 2)
    yield field("QE authentication data", length)
    yield field("PCK chain type", 2)
    length = number(4)
    yield field("PCK chain length", 4)
    yield field("PCK chain", length)
    if place < len(quote):
        yield field("padding", len(quote) - place)
