"""
Whatever is changed in a quote, it is refused: by the production verifier, all else being right.

There is no byte of a quote that nothing signs and that may change: the header and the TD's report
are signed by the attestation key; that key and the quoting enclave's data are in the enclave's
report, which the PCK certificate's key signs; the certificates are signed up to the root, whose
copy has to be the policy's; lengths and types have one value each, and the PEM one form. Zeros
that pad the quote carry nothing: they must be zeros, and only how many they are is open
(`PADDING`).
"""

import random
from collections import Counter
from dataclasses import replace

import pytest

from orchestrator.encoding import encode_cbor
from orchestrator.evidence import EvidenceCheck, dump_bundle
from orchestrator.simulator import Simulator

from .evidence_world import Case, fields_of_quote, flipped, near_case, simulated_case

# Tens of thousands of cases each: the time-out is for a machine that does much else.
pytestmark = pytest.mark.timeout(1_800)

KIB = 1 << 10
PADDING = "padding"

SIMULATOR = Simulator.create()


def padded_case() -> Case:
    """As platforms hand quotes out: with zeros up to a length of their choice."""
    case = simulated_case(SIMULATOR)
    padded = case.bundle.quote.ljust(len(case.bundle.quote) + 32, b"\0")
    return replace(case, bundle=replace(case.bundle, quote=padded))


CASES = {
    "simulated": lambda: simulated_case(SIMULATOR),
    "simulated, padded": padded_case,
    "simulated, version 5": lambda: simulated_case(SIMULATOR, version=5),
    "near/mpc": near_case,
}
cases = pytest.mark.parametrize("name", CASES)


class Mutants:
    """Puts other quotes into an accepted bundle, and counts what became of them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.quote = case.bundle.quote
        self.findings: Counter[str] = Counter()
        data = case.data
        held = encode_cbor(self.quote, extended=True)
        assert data.count(held) == 1
        self._before, _, self._after = data.partition(held)
        assert case.accepts(self.data(self.quote))

    def data(self, quote: bytes) -> bytes:
        return self._before + encode_cbor(quote, extended=True) + self._after

    def accepts(self, quote: bytes) -> bool:
        """Whether the bundle is accepted with this quote; an exception fails the test."""
        verdict = self.case.examine(self.data(quote))
        refused = verdict.refused_by
        assert (verdict.evidence is None) == (refused is not None)
        self.findings["accepted" if refused is None else refused.check.value] += 1
        return verdict.evidence is not None

    def report(self, what: str) -> None:
        total = sum(self.findings.values())
        counts = ", ".join(f"{code} {count:,}" for code, count in sorted(self.findings.items()))
        print(f"\n{what}: {total:,} quotes, {self.findings['accepted']} accepted ({counts})")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["simulated", "near/mpc"])
def test_no_flipped_bit_is_accepted(name: str) -> None:
    mutants = Mutants(CASES[name]())
    quote = mutants.quote

    accepted = [bit for bit in range(8 * len(quote)) if mutants.accepts(flipped(quote, bit))]

    mutants.report(f"every bit of {name} flipped")
    assert sum(mutants.findings.values()) == 8 * len(quote)
    assert accepted == []


@pytest.mark.slow
def test_no_flipped_bit_of_what_version_5_has_elsewhere_is_accepted() -> None:
    """Every bit but those of the certificates, which are as in version 4."""
    mutants = Mutants(simulated_case(SIMULATOR, version=5))
    quote = mutants.quote
    *_, (name, end, _) = fields_of_quote(quote, version=5)
    assert name == "PCK chain"

    accepted = [bit for bit in range(8 * end) if mutants.accepts(flipped(quote, bit))]

    mutants.report("every bit of version 5 flipped, without the certificates")
    assert accepted == []


@pytest.mark.slow
def test_no_flipped_bit_of_padding_is_accepted() -> None:
    mutants = Mutants(padded_case())
    quote = mutants.quote
    *_, (name, start, end) = fields_of_quote(quote)
    assert (name, end) == (PADDING, len(quote))

    accepted = [bit for bit in range(8 * start, 8 * end) if mutants.accepts(flipped(quote, bit))]

    mutants.report("every bit of padding flipped")
    assert sum(mutants.findings.values()) == 8 * 32
    assert accepted == []


@pytest.mark.slow
@cases
def test_no_truncated_quote_is_accepted(name: str) -> None:
    """At every length, so at every field; zeros that pad may be fewer."""
    mutants = Mutants(CASES[name]())
    quote = mutants.quote
    fields = list(fields_of_quote(quote, version=quote[0]))
    whole = next((start for field, start, _ in fields if field == PADDING), len(quote))
    assert not quote[whole:].strip(b"\0")

    accepted = [end for end in range(len(quote)) if mutants.accepts(quote[:end])]

    mutants.report(f"{name} cut off at every length")
    assert accepted == list(range(whole, len(quote)))


@pytest.mark.slow
@cases
def test_no_quote_with_a_changed_field_is_accepted(name: str) -> None:
    """Each field all zeros, all ones, and left out."""
    mutants = Mutants(CASES[name]())
    quote = mutants.quote
    accepted = []
    for field, start, end in fields_of_quote(quote, version=quote[0]):
        for value in (bytes(end - start), b"\xff" * (end - start), b""):
            mutant = quote[:start] + value + quote[end:]
            if field != PADDING and mutant != quote and mutants.accepts(mutant):
                accepted.append((field, value[:1]))

    mutants.report(f"{name} with each field overwritten or left out")
    assert accepted == []


@pytest.mark.slow
def test_no_random_quote_is_accepted() -> None:
    """Of any length up to 64 KiB: of noise alone, and of noise after a genuine beginning."""
    mutants = Mutants(simulated_case(SIMULATOR))
    seeded = random.Random(5)
    accepted = []
    lengths = [*range(2 * KIB), *range(2 * KIB, 64 * KIB, 61), 16 * KIB, 16 * KIB + 1, 64 * KIB]
    for length in lengths:
        noise = seeded.randbytes(length)
        kept = seeded.randrange(len(mutants.quote))
        begun = (mutants.quote[:kept] + noise)[: max(length, kept + 1)]
        accepted += [length for mutant in (noise, begun) if mutants.accepts(mutant)]

    mutants.report("random bytes")
    assert accepted == []
    assert mutants.findings["E01"] > len(lengths)


@pytest.mark.slow
@cases
def test_no_quote_with_something_behind_it_is_accepted(name: str) -> None:
    mutants = Mutants(CASES[name]())
    quote = mutants.quote

    accepted = [
        tail
        for tail in (b"\1", b"\0" * 100 + b"\1", quote, quote[:48], b"-----BEGIN CERTIFICATE-----")
        if mutants.accepts(quote + tail)
    ]

    mutants.report(f"{name} with something behind it")
    assert accepted == []


def test_a_quote_that_carries_the_other_half_of_another_is_refused() -> None:
    """Two genuine quotes of one machine, each signed, do not make a third."""
    case = simulated_case(SIMULATOR)
    quote, other = case.bundle.quote, SIMULATOR.quote(bytes(64))
    fields = {field: (start, end) for field, start, end in fields_of_quote(quote)}
    signature = fields["quote signature"][0]

    assert case.accepts(dump_bundle(case.bundle))
    assert case.refused_by(quote=quote[:signature] + other[signature:]) is EvidenceCheck.SIGNATURES
    assert case.refused_by(quote=other[:signature] + quote[signature:]) is EvidenceCheck.SIGNATURES
    assert case.refused_by(quote=other) is EvidenceCheck.REPORT_DATA
