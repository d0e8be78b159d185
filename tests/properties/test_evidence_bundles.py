"""Malformed collateral, event logs, compose documents and bundles: refused, and nothing raised."""

import json
import random
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import fields

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from orchestrator.encoding import decode_cbor, encode_cbor
from orchestrator.evidence import Collateral, VerifiedEvidence
from orchestrator.evidence.bundle import MAX_EVENT_LOG_BYTES
from orchestrator.simulator import Guest, Simulator
from orchestrator.simulator.authority import sign

from .evidence_world import NOW, Case, flipped, near_case, simulated_case

# Tens of thousands of cases each: the time-out is for a machine that does much else.
pytestmark = pytest.mark.timeout(1_800)

SIMULATOR = Simulator.create()
OTHER = Simulator.create()
COLLATERAL_FIELDS = [field.name for field in fields(Collateral)]
# Nobody relies on it: it says who made the bundle, and the chain has the hash of the whole.
UNSIGNED_FIELDS = {"producer"}
# A platform has a compose document or not: the event log has its hash. A quote may be padded.
LEGITIMATE = {("compose", "None"), ("quote", "padded")}

# What nothing signs in collateral, because nothing reads it for a decision:
# - the chain beside the quote: the certificates that count are those in the quote;
# - the chain of the PCK revocation list's issuer: the list is checked by the CA in the quote;
# - in the chains of the signer of TCB information, what comes after the signer: the root that
#   counts is the policy's. (Vendors reissue such certificates for the same key, so equality with
#   those in the quote is not asked for.)
# They can only shorten the time for which collateral is taken to be valid, which is tested.
BESIDE_THE_QUOTE = "pck_certificate_chain"
NOT_READ = {BESIDE_THE_QUOTE, "pck_crl_issuer_chain"}
SIGNER_CHAINS = {"tcb_info_issuer_chain", "qe_identity_issuer_chain"}
END = "-----END CERTIFICATE-----"
FLIPS = 400

CASES = {"simulated": lambda: simulated_case(SIMULATOR), "near/mpc": near_case}
cases = pytest.mark.parametrize("name", CASES)


def _facts(evidence: VerifiedEvidence) -> tuple[object, ...]:
    return (
        evidence.measurement,
        evidence.root,
        evidence.tcb_status,
        evidence.advisories,
        evidence.evaluation_number,
        evidence.fmspc,
        evidence.ppid,
        evidence.piid,
        evidence.bundle.binding(),
    )


class Counted:
    """Examines bundles and counts the checks that refuse them."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.findings: Counter[str] = Counter()
        document = decode_cbor(case.data, extended=True)
        assert isinstance(document, dict)
        self.document: dict[str, object] = document
        collateral = document["collateral"]
        assert isinstance(collateral, dict)
        self.collateral: dict[str, object] = collateral
        evidence = case.examine(case.data).evidence
        assert evidence is not None
        self.collateral_expires_at = evidence.collateral_expires_at
        self.facts = _facts(evidence)

    def accepts(self, data: bytes) -> bool:
        verdict = self.case.examine(data)
        refused = verdict.refused_by
        assert (verdict.evidence is None) == (refused is not None)
        self.findings["accepted" if refused is None else refused.check.value] += 1
        if verdict.evidence is None:
            return False
        # What is accepted says the same, and is valid for no longer.
        end = verdict.evidence.collateral_expires_at
        assert end <= self.collateral_expires_at
        assert _facts(verdict.evidence) == self.facts
        return True

    def accepts_with(self, **changes: object) -> bool:
        return self.accepts(encode_cbor({**self.document, **changes}, extended=True))

    def accepts_collateral(self, **changes: object) -> bool:
        return self.accepts_with(collateral={**self.collateral, **changes})

    def report(self, what: str, wrongly: Collection[object]) -> None:
        total = sum(self.findings.values())
        counts = ", ".join(f"{code} {count:,}" for code, count in sorted(self.findings.items()))
        print(f"\n{what}: {total:,} bundles, {len(wrongly)} accepted that say or prove something")
        print(f"    else ({counts}; accepted are those changed where nothing reads)")


def _without(document: dict[str, object], name: str) -> dict[str, object]:
    return {key: value for key, value in document.items() if key != name}


def _counts_alike(field: str, held: object, value: object) -> bool:
    """Whether what counts in the field is the same in both: all of it, but for what is not read."""
    if not isinstance(held, str) or not isinstance(value, str):
        return False
    if field in SIGNER_CHAINS:
        return _signer(held) == _signer(value)
    return field in NOT_READ


def _signer(chain: str) -> bytes:
    """The first certificate of a chain, whatever is around it."""
    first = chain.partition(END)[0] + END + "\n"
    return x509.load_pem_x509_certificate(first.encode()).public_bytes(Encoding.DER)


def _cut(value: object) -> Iterator[object]:
    """The value without its end, at about a hundred places."""
    if isinstance(value, bytes | str):
        step = max(1, len(value) // 100)
        yield from (value[:end] for end in range(0, len(value), step))


@pytest.mark.slow
@cases
def test_no_collateral_with_a_field_dropped_cut_or_of_another_type_is_accepted(name: str) -> None:
    counted = Counted(CASES[name]())
    accepted = []
    for field in COLLATERAL_FIELDS:
        if field == BESIDE_THE_QUOTE:
            continue
        held = counted.collateral[field]
        other: object = b"\0" if isinstance(held, str) else "\0"
        mutants: list[object] = [*_cut(held), None, other, 0, [held], {"": held}]
        accepted += [
            (field, repr(value)[:20])
            for value in mutants
            if counted.accepts_collateral(**{field: value})
            and not _counts_alike(field, held, value)
        ]
        without = _without(counted.collateral, field)
        accepted += [(field, "")] if counted.accepts_with(collateral=without) else []
    others: list[object] = [None, b"", "", 0, [], {}, {**counted.collateral, "more": b""}]
    for other in others:
        accepted += [("", repr(other)[:20])] if counted.accepts_with(collateral=other) else []

    counted.report(f"collateral of {name} without a field, cut, or of another type", accepted)
    assert accepted == []


@pytest.mark.slow
def test_no_collateral_with_fields_swapped_or_of_another_vendor_is_accepted() -> None:
    counted = Counted(simulated_case(SIMULATOR))
    own = counted.collateral
    foreign = {name: getattr(OTHER.collateral(now=NOW), name) for name in COLLATERAL_FIELDS}
    counting = [name for name in COLLATERAL_FIELDS if name not in NOT_READ]
    accepted = []
    for first in counting:
        for second in COLLATERAL_FIELDS:
            if own[first] != own[second]:
                swapped = {first: own[second], second: own[first]}
                accepted += [(first, second)] if counted.accepts_collateral(**swapped) else []
        # The texts of two vendors may be equal; what they sign is not.
        if foreign[first] != own[first]:
            taken = {first: foreign[first]}
            accepted += [(first, "foreign")] if counted.accepts_collateral(**taken) else []

    counted.report("collateral with fields swapped, and with those of another vendor", accepted)
    assert accepted == []


@pytest.mark.slow
@cases
def test_no_flipped_bit_of_collateral_that_counts_is_accepted(name: str) -> None:
    """A sample of each field's bits; text that is no text any more is refused as the bundle's."""
    counted = Counted(CASES[name]())
    data = counted.case.data
    seeded = random.Random(7)
    accepted = []
    for field, held in counted.collateral.items():
        if not isinstance(held, bytes | str) or field == BESIDE_THE_QUOTE:
            continue
        raw = held.encode() if isinstance(held, str) else held
        start = data.index(raw, data.index(encode_cbor(field, extended=True)))
        for bit in seeded.sample(range(8 * len(raw)), min(8 * len(raw), FLIPS)):
            if counted.accepts(flipped(data, 8 * start + bit)):
                changed = flipped(raw, bit)
                value = changed.decode() if isinstance(held, str) else changed
                accepted += [] if _counts_alike(field, held, value) else [(field, bit)]

    counted.report(f"bits of the collateral of {name} flipped", accepted)
    assert accepted == []


def _changed(document: object) -> Iterator[object]:
    """The JSON document with each part, at any depth, left out or of another kind."""
    if isinstance(document, dict):
        for key, held in document.items():
            yield {name: value for name, value in document.items() if name != key}
            yield from ({**document, key: value} for value in _changed(held))
    elif isinstance(document, list):
        yield []
        yield from ([*document[:1], value] for value in _changed(document[0]) if document)
    yield from (None, "", "zz", -1, 1 << 70, 0.5, True, [], {}, [[]], "9999-99-99T99:99:99Z")


@pytest.mark.slow
@pytest.mark.parametrize("which", ["tcb_info", "qe_identity"])
def test_signed_nonsense_is_no_exception(which: str) -> None:
    """
    Not even the vendor can make the verifier raise, by documents that it signs and that are none.

    What is accepted has all that decides, and leads to the same facts.
    """
    counted = Counted(simulated_case(SIMULATOR))
    signer = SIMULATOR.authority.tcb_signer.key
    accepted = []
    for document in _changed(json.loads(str(counted.collateral[which]))):
        text = json.dumps(document)
        signed = {which: text, f"{which}_signature": sign(signer, text.encode())}
        if counted.accepts_collateral(**signed) and not _says_enough(document):
            accepted.append(text[:40])

    counted.report(f"{which} signed, with each part left out or of another kind", accepted)
    assert accepted == []


def _says_enough(document: object) -> bool:
    """Whether a document of the vendor has what decides: its dates, its number and its levels."""
    needed = {"issueDate", "nextUpdate", "tcbEvaluationDataNumber", "tcbLevels"}
    return isinstance(document, dict) and all(document.get(name) for name in needed)


def _event(**changes: object) -> dict[str, object]:
    event = json.loads(Guest().event_log)[-1]
    assert isinstance(event, dict)
    return {**event, **changes}


def _bombs() -> Iterator[tuple[str, bytes]]:
    limit = MAX_EVENT_LOG_BYTES
    log = Guest().event_log
    yield "nothing", b""
    yield "brackets", b"[" * limit
    yield "nested", b"[" * (limit // 2) + b"]" * (limit // 2)
    yield "objects", b'{"a":' * (limit // 5)
    yield "nested in an event", log[:-1] + b',{"imr":' + b"[" * 100_000 + b"]" * 100_000 + b"}]"
    yield "a million events", b"[" + b",".join([b"{}"] * 1_000_000) + b"]"
    yield "as many events as fit", b"[" + b",".join([b"{}"] * (limit // 3 - 1)) + b"]"
    yield "a huge string", b'["' + b"a" * (limit - 4) + b'"]'
    yield "a string of 64 MiB", b'["' + b"a" * (64 << 20) + b'"]'
    yield "a huge number", b"[" + b"9" * (limit - 2) + b"]"
    yield "a huge exponent", b'[{"imr":1e999999999}]'
    yield "no text", b"\xff\xfe" + log
    yield "half a pair", log.replace(b"system-ready", b"\\ud800")
    yield "a name twice", log.replace(b'"imr":3', b'"imr":3,"imr":3')
    yield (
        "a payload twice",
        log.replace(b'"event_payload":"', b'"event_payload":"00","event_payload":"'),
    )
    yield (
        "a name twice, differently",
        log.replace(b'"event":"system-ready"', b'"event":"forged","event":"system-ready"'),
    )
    yield "cut", log[:-1]
    yield "something behind", log + b"[]"
    yield "an object", b'{"0":' + log + b"}"
    for literal in (b"null", b"true", b"3", b'"[]"', b"NaN", b"[]", b"[null]", b"[[]]", b"[3]"):
        yield literal.decode(), literal
    others: dict[str, list[object]] = {
        "imr": [-1, 4, 3.5, "3", True, None, [], 1 << 70],
        "event_type": [-1, 1 << 32, 0.5, "1", None, 0],
        "digest": ["zz", "00", None, 1, "0" * 96],
        "event_payload": ["0", "zz", None, 1, [], "00" * 100],
        "event": [None, 1, [], "a" * 200_000, "compose-hash"],
    }
    events = json.loads(log)
    for change in ({field: value} for field, values in others.items() for value in values):
        yield f"changed {str(change)[:40]}", json.dumps([*events[:-1], _event(**change)]).encode()
    for event in json.loads(log):
        without = [other for other in json.loads(log) if other != event]
        yield f"without {event['event']}", json.dumps(without).encode()
    yield "events doubled", json.dumps(json.loads(log) * 2).encode()
    yield "events reversed", json.dumps(json.loads(log)[::-1]).encode()


@pytest.mark.slow
def test_no_bomb_in_place_of_an_event_log_is_accepted() -> None:
    counted = Counted(simulated_case(SIMULATOR))

    accepted = [name for name, log in _bombs() if counted.accepts_with(event_log=log)]
    accepted += ["absent"] if counted.accepts_with(event_log=None) else []

    counted.report("event log bombs", accepted)
    assert accepted == []


@pytest.mark.slow
def test_no_flipped_bit_of_the_event_log_that_says_something_else_is_accepted() -> None:
    """A sample; what is accepted must read as the same events: a hex digit in another case."""
    counted = Counted(simulated_case(SIMULATOR))
    data, log = counted.case.data, Guest().event_log
    start = data.index(log)

    def read(text: bytes) -> list[tuple[object, ...]]:
        return [
            (e["imr"], e["event_type"], e["event"], bytes.fromhex(e["event_payload"]))
            for e in json.loads(text)
        ]

    accepted = [
        bit
        for bit in random.Random(13).sample(range(8 * len(log)), 2_000)
        if counted.accepts(flipped(data, 8 * start + bit)) and read(flipped(log, bit)) != read(log)
    ]

    counted.report("bits of the event log flipped", accepted)
    assert accepted == []


@pytest.mark.slow
def test_no_compose_document_but_the_measured_one_is_accepted() -> None:
    counted = Counted(simulated_case(SIMULATOR))
    compose = Guest().compose
    mutants = [b"", compose + b"\n", compose[:-1], b"\xff" * 1_000, bytes(100 << 20)]
    mutants += [flipped(compose, bit) for bit in range(8 * len(compose))]

    accepted = [value[:20] for value in mutants if counted.accepts_with(compose=value)]

    counted.report("other compose documents, one of 100 MiB", accepted)
    assert accepted == []


@pytest.mark.slow
def test_no_bundle_with_a_field_dropped_changed_or_of_another_type_is_accepted() -> None:
    counted = Counted(simulated_case(SIMULATOR))
    accepted = []
    for field, held in counted.document.items():
        if counted.accepts(encode_cbor(_without(counted.document, field), extended=True)):
            accepted.append((field, "dropped"))
        plain: list[object] = [None, 0, "", b"", [], {}, True, [held], -1]
        values = {repr(value): value for value in plain}
        if isinstance(held, bytes):
            values |= {"cut": held[:-1], "padded": held + b"\0", "flipped": flipped(held, 0)}
            values |= {"zeros": bytes(len(held)), "longer": held + b"\1"}
        for name, value in values.items():
            if field not in UNSIGNED_FIELDS | {"policy_hash"} and value != held:
                accepted += [(field, name)] if counted.accepts_with(**{field: value}) else []
    accepted += [("more", "")] if counted.accepts_with(more=b"") else []

    wrongly = set(accepted) - LEGITIMATE
    counted.report("bundles with a field dropped, changed or of another type", wrongly)
    assert set(accepted) == LEGITIMATE


@pytest.mark.slow
def test_no_cut_or_lengthened_bundle_is_accepted() -> None:
    counted = Counted(simulated_case(SIMULATOR))
    data = counted.case.data

    accepted = [end for end in range(len(data)) if counted.accepts(data[:end])]
    accepted += [len(tail) for tail in (b"\0", b"\xf6", data) if counted.accepts(data + tail)]
    accepted += [0] if counted.accepts(bytes(100 << 20)) else []

    counted.report("bundles cut off at every length, and with something behind", accepted)
    assert accepted == []


@pytest.mark.slow
def test_noise_in_place_of_a_bundle_is_refused() -> None:
    counted = Counted(simulated_case(SIMULATOR))
    seeded = random.Random(11)
    heads = (b"", b"\xac", b"\xbf", b"\x9f", b"\x5f", b"\x81" * 500, b"\xa1" * 500, b"\xd8")

    accepted = [
        head
        for head in heads
        for length in range(0, 2_000, 3)
        if counted.accepts(head + seeded.randbytes(length))
    ]

    counted.report("noise in place of a bundle", accepted)
    assert accepted == []
