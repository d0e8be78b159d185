"""
What verifying a worker's evidence costs, beside dcap-qvl alone and beside tinfoil's own code.

The pure-Python `tinfoil` is measured in an interpreter of its own, as it brings many packages:
`python -m venv X && X/bin/pip install tinfoil`, then `TINFOIL_PYTHON=X/bin/python make bench`.
"""

import json
import os
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import dcap_qvl

from benchmarks.table import Table, per_second
from orchestrator.crypto import EcdsaSigner, EncryptionKey
from orchestrator.encoding import report_data
from orchestrator.evidence import (
    EvidenceBundle,
    ExpectedBinding,
    IssuedChallenge,
    KeyStanding,
    Policy,
    Root,
    TcbRules,
    TdxMeasurements,
    dump_bundle,
    dump_collateral_json,
    examine_evidence,
    load_collateral_json,
)
from orchestrator.evidence.intel_root import INTEL_ROOT
from orchestrator.evidence.quote import TdxReport, parse_quote
from orchestrator.simulator import Simulator

NOW = 1_790_000_000_000
NEAR_NOW = 1_786_622_400_000
AIM_MS = 2.0
ROUNDS = 5
TINFOIL = """
import sys, time
from tinfoil.attestation.abi_tdx import parse_quote
from tinfoil.attestation.verify_tdx import verify_tdx_quote
raw = sys.stdin.buffer.read()
def once(): verify_tdx_quote(parse_quote(raw), raw)
once()
best = 1e9
for _ in range(5):
    start = time.thread_time()
    for _ in range(100): once()
    best = min(best, (time.thread_time() - start) / 100)
print(best * 1000)
"""


@dataclass(frozen=True, kw_only=True)
class _Case:
    bundle: EvidenceBundle
    policy: Policy
    now: int
    report_data_of: Callable[[EvidenceBundle], bytes]

    def examiner(self) -> Callable[[], object]:
        """All fourteen checks, from the bundle's bytes."""
        bundle, data = self.bundle, dump_bundle(self.bundle)
        expected = ExpectedBinding(
            genesis_hash=bundle.genesis_hash,
            contract=bundle.contract,
            signing_key=bundle.signing_key,
            encryption_key=bundle.encryption_key,
        )
        challenge = IssuedChallenge(value=bundle.challenge, issued_at=self.now)

        def examine() -> object:
            return examine_evidence(
                data,
                policy=self.policy,
                now=self.now,
                expected=expected,
                challenge=challenge,
                standing=KeyStanding(worker=None, renews=None),
                report_data_of=self.report_data_of,
            ).evidence

        assert examine() is not None
        return examine

    def library(self) -> Callable[[], object]:
        """The library's verification alone, of parsed collateral."""
        assert self.bundle.collateral is not None
        collateral = dcap_qvl.QuoteCollateralV3.from_json(
            dump_collateral_json(self.bundle.collateral)
        )
        root = self.policy.roots[0].certificate
        return lambda: dcap_qvl.verify_with_root_ca(
            self.bundle.quote, collateral, root, self.now // 1000
        )


def _bundle(quote: bytes) -> EvidenceBundle:
    return EvidenceBundle(
        producer="benchmark",
        genesis_hash=b"\1" * 32,
        contract=b"\2" * 32,
        signing_key=EcdsaSigner.from_bytes(b"\4" * 32).public_key,
        encryption_key=EncryptionKey.from_bytes(b"\5" * 32).public_key,
        challenge=b"\3" * 32,
        quote=quote,
    )


def _bound(bundle: EvidenceBundle) -> bytes:
    return report_data(bundle.binding())


def _simulated() -> _Case:
    simulator = Simulator.create()
    return _Case(
        bundle=replace(
            _bundle(simulator.quote(_bound(_bundle(b"")))),
            collateral=simulator.collateral(now=NOW),
            event_log=simulator.guest.event_log,
            compose=simulator.guest.compose,
        ),
        policy=Policy(
            policy_hash=bytes(32),
            roots=(Root(name="own", certificate=simulator.root_certificate, is_intel=False),),
            measurements=(simulator.guest.measurements(),),
            tcb=TcbRules(statuses=frozenset({"UpToDate"})),
        ),
        now=NOW,
        report_data_of=_bound,
    )


def _real(folder: Path) -> _Case:
    """A production TD's evidence; its report data is of its own layout."""
    quote = bytes(json.loads((folder / "quote.json").read_text()))
    info = json.loads((folder / "tcb_info.json").read_text())
    report = parse_quote(quote).report
    assert isinstance(report, TdxReport)
    measurements = TdxMeasurements(
        name="real",
        mrtd=report.mrtd,
        rtmr0=report.rtmr0,
        rtmr1=report.rtmr1,
        rtmr2=report.rtmr2,
        compose_hash=bytes.fromhex(info["compose_hash"]),
    )
    return _Case(
        bundle=replace(
            _bundle(quote),
            collateral=load_collateral_json((folder / "collateral.json").read_bytes()),
            event_log=json.dumps(info["event_log"]).encode(),
            compose=info["app_compose"].encode(),
        ),
        policy=Policy(
            policy_hash=bytes(32),
            roots=(Root(name="intel", certificate=INTEL_ROOT, is_intel=True),),
            measurements=(measurements,),
            tcb=TcbRules(statuses=frozenset({"UpToDate"})),
        ),
        now=NEAR_NOW,
        report_data_of=lambda _: report.report_data,
    )


def _tinfoil_ms(quote: bytes) -> float | None:
    """What tinfoil's check of the same quote's signatures costs, where it is installed."""
    python = os.environ.get("TINFOIL_PYTHON")
    if python is None:
        return None
    ran = subprocess.run([python, "-c", TINFOIL], input=quote, capture_output=True, check=True)
    return float(ran.stdout)


def _row(name: str, case: _Case, tinfoil: str) -> tuple[str, ...]:
    # In turns, so that both see the same machine; the best of each is what the work costs.
    examine, library = case.examiner(), case.library()
    turns = [(per_second(examine), per_second(library)) for _ in range(ROUNDS)]
    ours, alone = (1000 / max(rates) for rates in zip(*turns, strict=True))
    verdict = "met" if ours - alone < AIM_MS else "MISSED"
    return name, f"{ours:.2f}", f"{alone:.2f}", f"{ours - alone:.2f} ({verdict})", tinfoil


def measure() -> Table:
    """One bundle verified whole, beside the quoting library alone on the same quote."""
    rows = [_row("simulated TDX quote", _simulated(), "refused: not Intel's root")]
    fixtures = os.environ.get("PHALA_JOBS_FIXTURES")
    note = ""
    if fixtures:
        case = _real(Path(fixtures) / "near-mpc")
        ms = _tinfoil_ms(case.bundle.quote)
        shown = "not installed" if ms is None else f"{ms:.2f}"
        rows.append(_row("TDX quote of a production TD", case, shown))
    else:
        note = "A real quote is measured where PHALA_JOBS_FIXTURES names the folder of fixtures. "
    return Table(
        title="Verifying evidence: milliseconds per bundle",
        columns=(
            "evidence",
            "all checks",
            "dcap-qvl alone",
            f"difference (aim: below {AIM_MS:.0f})",
            "tinfoil, signatures only",
        ),
        rows=rows,
        note=note
        + "All checks begin with the bundle's bytes; dcap-qvl alone is given parsed collateral."
        " tinfoil checks the quote's chain and signatures, no collateral; it is optional: `python"
        " -m venv X && X/bin/pip install tinfoil`, then `TINFOIL_PYTHON=X/bin/python make bench`.",
    )


if __name__ == "__main__":
    print(measure().markdown())
