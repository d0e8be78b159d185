"""Each step of examining a receipt: what fails it, what it alone fails, what is left unchecked."""

import json
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import pytest

from orchestrator.attestation import AttestationFile, CheckOutcome
from orchestrator.chain.bundle import load_bundle as load_contract
from orchestrator.chain.cells import ContractCells
from orchestrator.chain.storage_keys import StorageProof
from orchestrator.crypto import AccountKey, EncryptionKey
from orchestrator.encoding import blake2_256
from orchestrator.errors import EncodingError
from orchestrator.evidence import Policy, load_policy
from orchestrator.receipts import (
    Receipt,
    ReceiptReport,
    dump_envelope,
    dump_receipt,
    evidence_steps,
    examine_receipt,
    load_receipt,
    prove_job,
    sign_envelope,
)
from orchestrator.receipts.dsse import load_envelope, pre_authentication
from orchestrator.simulator import Simulator

from .byte_changes import refusals
from .proving_chain import ProvingChain
from .world import (
    ADMIN,
    DAY,
    RESULT,
    ReceiptWorld,
    evidence_from,
    make_receipt_world,
    policy_text,
    proven_receipt,
)

CELLS = ContractCells(load_contract())
NOT_DECISIVE = {"result", "E13 challenge fresh", "events", "finality"}


@dataclass(frozen=True, kw_only=True)
class Made:
    """A receipt that verifies, the block that it is of, and where both come from."""

    world: ReceiptWorld
    chain: ProvingChain
    simulator: Simulator
    policy: bytes
    receipt: Receipt
    block: bytes

    def examine(self, receipt: Receipt | None = None, **more: object) -> ReceiptReport:
        given: dict[str, object] = {
            "trusted_block": self.block,
            "takes_own_policy": "policy" not in more,
            **more,
        }
        return examine_receipt(
            dump_receipt(receipt or self.receipt),
            cells=CELLS,
            **given,  # type: ignore[arg-type]  # by name
        )


def make(simulator: Simulator, policy: bytes, *, measurement: bytes | None = None) -> Made:
    chain = ProvingChain()
    world = make_receipt_world(
        chain,
        measurement=measurement or simulator.guest.measurements().measurement,
        evidence_of=evidence_from(simulator, chain, policy),
    )
    receipt, block = proven_receipt(world, policy)
    return Made(
        world=world,
        chain=chain,
        simulator=simulator,
        policy=policy,
        receipt=receipt,
        block=block,
    )


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return Simulator.create()


@pytest.fixture(scope="module")
def made(simulator: Simulator) -> Made:
    return make(simulator, policy_text(simulator).encode())


def failed(report: ReceiptReport) -> set[str]:
    return {step.name for step in report.failed}


def outcome_of(report: ReceiptReport, name: str) -> CheckOutcome:
    (step,) = (step for step in report.steps if step.name == name)
    return step.outcome


def test_every_step_of_a_good_receipt_passes(made: Made) -> None:
    report = made.examine(result=RESULT)

    assert not report.failed
    assert not report.missing
    left = {s.name for s in report.steps if s.outcome is not CheckOutcome.PASSED}
    assert left == NOT_DECISIVE - {"result"}
    assert report.receipt == made.receipt
    assert report.verified is not None
    assert report.verified.is_simulated
    assert "simulated: proves no TEE" in {
        step.detail.partition(";")[0] for step in report.steps if step.name == "measurement"
    }
    events = next(step for step in report.steps if step.name == "events")
    assert "JobSubmitted" in events.detail
    assert "JobProcessed" in events.detail


def of_file(**changes: object) -> Callable[[Receipt], Receipt]:
    return lambda receipt: replace(
        receipt,
        attestation=replace(receipt.attestation, **changes),  # type: ignore[arg-type]  # by name
    )


def of_part(part: str, **changes: object) -> Callable[[Receipt], Receipt]:
    return lambda receipt: replace(
        receipt,
        attestation=replace(
            receipt.attestation,
            **{part: replace(getattr(receipt.attestation, part), **changes)},
        ),
    )


def with_units(receipt: Receipt) -> Receipt:
    completion = receipt.attestation.completion
    proof = replace(completion.attestation_proof, units=8)
    return of_part("completion", attestation_proof=proof)(receipt)


def without_node(receipt: Receipt) -> Receipt:
    assert receipt.proof is not None
    return replace(receipt, proof=replace(receipt.proof, nodes=receipt.proof.nodes[1:]))


def with_needless_node(receipt: Receipt) -> Receipt:
    assert receipt.proof is not None
    nodes = (*receipt.proof.nodes, b"needless")
    return replace(receipt, proof=replace(receipt.proof, nodes=nodes))


def with_other_header(receipt: Receipt) -> Receipt:
    """Of the same state: the last byte is of what the header says about the block."""
    assert receipt.proof is not None
    header = receipt.proof.header[:-2] + b"\1\0"
    return replace(receipt, proof=replace(receipt.proof, header=header))


E12 = "E12 binds keys, chain, contract, challenge"


@pytest.mark.parametrize(
    ("change", "steps"),
    [
        (with_other_header, {"block"}),
        (without_node, {"storage proof"}),
        (with_needless_node, {"storage proof"}),
        (of_file(contract=b"\x11" * 32), {"signature", "storage proof", E12}),
        (of_file(genesis_hash=b"\x11" * 32), {"signature", "contract", E12}),
        (of_file(recorded_at=1_767_225_600_001), {"times", "job's row"}),
        (of_part("job", owner=b"\x11" * 32), {"job's row"}),
        (of_part("job", created_at=1_767_225_599_999), {"job's row"}),
        (of_part("job", deadline=1_767_312_000_001), {"job's row"}),
        (of_part("job", payload_hash=b"\x11" * 32), {"signature", "job's row"}),
        (of_part("job", workers=(1, 2)), {"job's row"}),
        (of_part("job", job_id=2), {"job", "storage proof"}),
        (with_units, {"signature", "job's row"}),
        (of_part("completion", result_hash=b"\x11" * 32), {"signature", "job's row"}),
        (of_part("worker", valid_until=1_767_312_000_001), {"worker's row"}),
        (of_part("worker", encryption_key=b"\x11" * 32), {"worker's row", E12, "E14"}),
        (of_part("worker", evidence_hash=b"\x11" * 32), {"worker's row", "evidence"}),
        (
            of_part("worker", measurement=b"\x11" * 32),
            {"signature", "worker's row", "E09 measurements"},
        ),
        (lambda receipt: replace(receipt, evidence=b"\xa0"), {"evidence"}),
        (lambda receipt: replace(receipt, policy=receipt.policy + b"\n"), {"policy"}),
    ],
)
def test_each_change_is_refused_by_its_own_steps(
    made: Made, change: Callable[[Receipt], Receipt], steps: set[str]
) -> None:
    report = made.examine(change(made.receipt))

    assert {
        name.partition(" ")[0] if name[:3] == "E14" else name for name in failed(report)
    } == steps


def test_another_evidence_bundle_is_refused(made: Made) -> None:
    other = Simulator.create()
    bundle = evidence_from(other, made.chain, made.policy)
    signer = made.world.signer
    made_of = bundle(signer, EncryptionKey.generate(), made.world.processor)

    report = made.examine(replace(made.receipt, evidence=made_of))

    assert failed(report) == {"evidence"}


def test_the_contract_that_one_expects_is_compared(made: Made) -> None:
    contract = made.receipt.attestation.contract

    assert failed(made.examine(contract=bytes(32))) == {"expected contract"}
    assert outcome_of(made.examine(contract=contract), "expected contract") is CheckOutcome.PASSED


def test_a_result_is_compared_when_it_is_given(made: Made) -> None:
    assert failed(made.examine(result=RESULT + b"!")) == {"result"}
    assert outcome_of(made.examine(result=RESULT), "result") is CheckOutcome.PASSED


def test_without_a_trusted_block_that_step_is_missing_and_the_rest_is_done(made: Made) -> None:
    report = made.examine(trusted_block=None)

    assert not report.failed
    assert [step.name for step in report.missing] == ["block"]
    (step,) = report.missing
    assert "--trusted-block" in step.detail
    assert made.block.hex() in step.detail


def test_another_trusted_block_is_a_failure(made: Made) -> None:
    assert failed(made.examine(trusted_block=b"\x11" * 32)) == {"block"}


def test_without_a_proof_all_that_it_would_show_is_missing(made: Made) -> None:
    report = made.examine(replace(made.receipt, proof=None))

    assert not report.failed
    assert [step.name for step in report.missing] == [
        "block",
        "storage proof",
        "contract",
        "job's row",
        "worker's row",
        "measurement allowed",
        "E14 keys not revoked, expired or another's",
    ]


def reproven(made: Made) -> tuple[Receipt, bytes]:
    """The receipt with a new proof of the same, by a chain that has gone on or lies."""
    return proven_receipt(made.world, made.policy)


@pytest.fixture
def own(simulator: Simulator) -> Made:
    """One whose chain a test may change."""
    return make(simulator, policy_text(simulator).encode())


def test_code_that_is_not_known_is_not_read(own: Made) -> None:
    own.chain.code = b"\x11" * 32
    proof, block = reproven(own)

    report = own.examine(proof, trusted_block=block)

    assert failed(report) == {"contract"}
    assert outcome_of(report, "job's row") is CheckOutcome.NOT_CHECKED
    step = next(step for step in report.steps if step.name == "contract")
    assert "11" * 32 in step.detail
    assert "--bundle" in step.detail


def test_a_storage_version_that_is_not_known_is_not_read(own: Made) -> None:
    own.chain.changes[bytes(4)] = b"\x02" + bytes(200)
    proof = own.chain.prove(own.world.processor.contract, _keys(own))

    report = own.examine(replace(own.receipt, proof=proof), trusted_block=blake2_256(proof.header))

    assert failed(report) == {"storage proof"}
    step = next(step for step in report.steps if step.name == "storage proof")
    assert "the contract's storage is of version 2" in step.detail


def _keys(made: Made) -> list[bytes]:
    measurement = made.receipt.attestation.worker.measurement
    return [CELLS.root, CELLS.job(1), CELLS.worker(1), CELLS.measurement(measurement)]


def test_a_revoked_measurement_is_refused(own: Made) -> None:
    measurement = own.receipt.attestation.worker.measurement
    own.chain.call(own.world.processor.revoke_measurement(measurement), signer=ADMIN)
    receipt, block = reproven(own)

    report = own.examine(receipt, trusted_block=block)

    assert failed(report) == {"measurement allowed", "E14 keys not revoked, expired or another's"}


def test_a_revoked_worker_is_refused(own: Made) -> None:
    own.chain.call(own.world.processor.revoke_worker(1, bytes(32)), signer=ADMIN)
    receipt, block = reproven(own)

    report = own.examine(receipt, trusted_block=block)

    assert failed(report) == {"E14 keys not revoked, expired or another's"}
    step = next(step for step in report.steps if step.name == "worker's row")
    assert "it is Revoked" in step.detail


def test_another_measurement_than_was_measured_is_refused(simulator: Simulator) -> None:
    other = make(simulator, policy_text(simulator).encode(), measurement=b"\x22" * 32)

    report = other.examine()

    assert failed(report) == {"E09 measurements"}
    assert outcome_of(report, "measurement") is CheckOutcome.NOT_CHECKED


def test_evidence_is_judged_at_the_time_of_recording_or_at_another(made: Made) -> None:
    recorded = made.receipt.attestation.recorded_at

    assert not failed(made.examine(now=recorded))
    later = made.examine(now=recorded + 60 * DAY)
    assert "E03 collateral valid at the time" in failed(later)
    assert outcome_of(later, "measurement") is CheckOutcome.NOT_CHECKED
    assert outcome_of(later, "signature") is CheckOutcome.PASSED
    assert outcome_of(later, "time of judging") is CheckOutcome.PASSED


def test_evidence_at_a_time_before_the_recording_says_nothing_about_it(made: Made) -> None:
    recorded = made.receipt.attestation.recorded_at

    early = made.examine(now=recorded - 1)

    assert not early.failed
    assert [step.name for step in early.missing] == ["time of judging"]
    assert f"{recorded - 1}, before the statement was recorded at {recorded}" in (
        early.missing[0].detail
    )


def test_the_registrar_s_policy_decides_only_for_who_takes_it(made: Made) -> None:
    """Whoever made the evidence may have made the policy: with a root of their own, say."""
    report = made.examine(takes_own_policy=False)

    assert not report.failed
    assert [step.name for step in report.missing] == ["policy"]
    assert "--policy names yours" in report.missing[0].detail


def test_the_reader_s_own_policy_decides(made: Made, simulator: Simulator) -> None:
    strict = load_policy(policy_text(simulator, minimum_evaluation_number=1_000).encode())
    same = load_policy((policy_text(simulator) + "\n").encode())

    assert failed(made.examine(policy=strict)) == {"E07 TCB evaluation number"}
    accepted = made.examine(policy=same)

    assert not accepted.failed
    assert not accepted.missing
    assert outcome_of(accepted, "receipt's policy") is CheckOutcome.PASSED
    assert outcome_of(accepted, "policy") is CheckOutcome.PASSED
    step = next(step for step in accepted.steps if step.name == "policy")
    assert "yours decides" in step.detail


@pytest.mark.parametrize("is_refused", [False, True])
def test_a_stranger_s_policy_is_read_only_when_the_rest_is_decided(
    simulator: Simulator, monkeypatch: pytest.MonkeyPatch, is_refused: bool
) -> None:
    read: list[bytes] = []

    def load(data: bytes) -> Policy:
        read.append(data)
        return load_policy(data)

    monkeypatch.setattr(evidence_steps, "load_policy", load)
    odd = make(simulator, b"no = policy\n")
    own = load_policy(policy_text(simulator).encode())

    report = odd.examine(policy=own, trusted_block=bytes(32) if is_refused else odd.block)

    assert failed(report) == ({"block"} if is_refused else set())
    assert read == ([] if is_refused else [b"no = policy\n"])
    assert not report.missing or is_refused
    wanted = CheckOutcome.NOT_CHECKED if is_refused else CheckOutcome.FAILED
    assert outcome_of(report, "receipt's policy") is wanted


def test_a_receipt_whose_own_policy_refuses_counts_only_where_no_other_decides(
    simulator: Simulator,
) -> None:
    lax = make(simulator, policy_text(simulator, minimum_evaluation_number=1_000).encode())

    assert failed(lax.examine()) == {"E07 TCB evaluation number"}
    report = lax.examine(policy=load_policy(policy_text(simulator).encode()))

    assert not report.failed
    assert outcome_of(report, "receipt's policy") is CheckOutcome.FAILED


def test_a_policy_that_is_none_is_refused(simulator: Simulator) -> None:
    odd = make(simulator, b"no = policy\n")

    report = odd.examine()

    assert failed(report) == {"policy"}
    assert outcome_of(report, "E01 size and form") is CheckOutcome.NOT_CHECKED


def test_an_envelope_is_read_and_its_signature_checked(made: Made) -> None:
    account = AccountKey.from_uri("//Carol")
    payload = dump_receipt(made.receipt)
    data = dump_envelope(sign_envelope(payload, account))

    def examine(envelope: bytes) -> ReceiptReport:
        return examine_receipt(
            envelope, cells=CELLS, trusted_block=made.block, takes_own_policy=True
        )

    report = examine(data)
    assert not report.failed
    assert not report.missing
    assert outcome_of(report, "envelope signature") is CheckOutcome.PASSED
    assert report.receipt == made.receipt
    other = replace(load_envelope(data), account_id=AccountKey.from_uri("//Dave").account_id)
    assert failed(examine(dump_envelope(other))) == {"envelope signature"}
    flipped = replace(load_envelope(data), signature=bytes(64))
    assert failed(examine(dump_envelope(flipped))) == {"envelope signature"}
    inner = replace(load_envelope(data), payload=payload.replace(b"Processed", b"Cancelled"))
    assert "envelope signature" in failed(examine(dump_envelope(inner)))
    assert failed(examine(data.replace(b'"sig"', b'"sag"'))) == {"canonical form"}


def test_what_is_signed_is_dsse_s_encoding() -> None:
    """The example of DSSE's own specification has another payload type; the rule is the same."""
    assert pre_authentication(b"hello world") == (
        b"DSSEv1 39 application/vnd.phala-jobs.receipt+json 11 hello world"
    )


def test_every_form_but_one_is_refused(made: Made) -> None:
    data = dump_receipt(made.receipt)
    assert load_receipt(data) == made.receipt
    for other, words in {
        data + b"\n": "written differently from its one form, from byte",
        data.replace(b"\n  ", b"\n   ", 1): "written differently",
        data.replace(b'"version": 1', b'"version": 2', 1): "version: 2",
        data.replace(b'"policy":', b'"polic\\u0079":', 1): "written differently",
        data.replace(b'"events"', b'"extra": 1, "events"'): "extra: unknown",
        data.replace(b'"phala-jobs receipt"', b'"phala-jobs letter"'): "format: must be",
        data.replace(b'"evidence": "', b'"evidence": "!'): "evidence: must be base64",
        data.replace(b'"proof": {', b'"proof": 7, "x": {'): "proof: must be an object",
        b"{": "not JSON",
        b"": "not JSON",
        b" " * (5 << 20): "at most",
        b"[" * 100_000: "not JSON",
    }.items():
        report = examine_receipt(other, cells=CELLS, trusted_block=made.block)
        assert failed(report) == {"canonical form"}, other[:50]
        assert words in report.steps[0].detail


def test_nodes_have_one_order(made: Made) -> None:
    assert made.receipt.proof is not None
    lines = dump_receipt(made.receipt).split(b"\n")
    at = next(n for n, line in enumerate(lines) if b'"nodes"' in line) + 1
    lines[at], lines[at + 1] = lines[at + 1], lines[at]

    report = examine_receipt(b"\n".join(lines), cells=CELLS, trusted_block=made.block)

    assert failed(report) == {"canonical form"}


def test_proving_keeps_what_is_needed_and_no_more(made: Made) -> None:
    """A node may send more than was asked for."""

    class Generous(ProvingChain):
        def prove(
            self, contract: bytes, cells: Sequence[bytes], *, number: int | None = None
        ) -> StorageProof:
            proof = made.chain.prove(contract, cells, number=number)
            return replace(proof, nodes=(*proof.nodes, b"needless"))

    file: AttestationFile = made.receipt.attestation
    proven = prove_job(Generous(), CELLS, file)

    assert made.receipt.proof is not None
    assert set(proven.proof.nodes) == set(made.receipt.proof.nodes)
    assert proven.block_hash == made.block


def test_no_state_that_somebody_makes_up_raises(own: Made) -> None:
    """Who names no block can be shown any state at all: it ends as steps, whatever it holds."""
    source = random.Random(7)
    contract, keys = own.world.processor.contract, _keys(own)
    stored = own.chain.cells(contract)
    outcomes = Counter[str]()
    for _ in range(500):
        key = source.choice(keys)
        cell = bytearray(stored[key])
        for _ in range(source.choice((1, 1, 2, 20))):
            cell[source.randrange(len(cell))] = source.randrange(256)
        own.chain.changes = {
            key: bytes(cell[: source.choice((len(cell), source.randrange(1, 90)))])
        }
        proof = own.chain.prove(contract, keys)

        report = own.examine(replace(own.receipt, proof=proof), trusted_block=None)

        outcomes[", ".join(sorted(failed(report))) or "none"] += 1
    assert outcomes["storage proof"] > 10
    assert outcomes["job's row"] > 10
    assert outcomes["worker's row"] > 5


@pytest.mark.parametrize("policy", [b"a=" + b"[" * 50_000, b"a" + b".a" * 50_000 + b"=1"])
def test_a_policy_that_is_a_bomb_is_refused(simulator: Simulator, policy: bytes) -> None:
    assert failed(make(simulator, policy).examine()) == {"policy"}


def test_events_that_are_none_are_named_unknown(made: Made) -> None:
    (first, *_) = made.receipt.events
    odd = (
        replace(first, data=b"\xff" * 40),
        replace(first, topics=()),
        replace(first, topics=(bytes(32),)),
    )

    report = made.examine(replace(made.receipt, events=odd))

    assert not report.failed
    events = next(step for step in report.steps if step.name == "events")
    assert events.detail.count("unknown in block") == 3


def test_in_an_envelope_no_byte_can_be_changed_not_even_of_the_events(made: Made) -> None:
    data = dump_envelope(sign_envelope(dump_receipt(made.receipt), AccountKey.from_uri("//Carol")))
    places = random.Random(3).sample(range(len(data)), 300)
    ends = [*range(80), *range(len(data) - 260, len(data))]

    found = refusals(data, [*places, *ends], cells=CELLS, trusted_block=made.block, changes=3)

    assert sum(found.values()) == 3 * (300 + 340)
    assert not [name for name in found if name.startswith("nobody")]
    assert found["envelope signature"] > 100


def test_a_block_without_a_record_of_that_form_or_without_a_time_shows_nothing(own: Made) -> None:
    contract = own.world.processor.contract
    own.chain.record = b"\0" * 80
    odd = own.chain.prove(contract, _keys(own))
    own.chain.record, own.chain.has_time = None, False
    timeless = own.chain.prove(contract, _keys(own))

    for proof, words in ((odd, "record of the contract has another form"), (timeless, "no time")):
        report = own.examine(
            replace(own.receipt, proof=proof), trusted_block=blake2_256(proof.header)
        )
        assert failed(report) == {"storage proof"}
        assert words in next(s.detail for s in report.steps if s.name == "storage proof")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("policy", "\ud800", "policy: not text that a file can hold"),
        ("policy", 7, "policy: must be text"),
        ("events", {}, "events: must be a list of at most 100"),
        ("events", [7], "events[0]: must be an object"),
        ("evidence", "A" * (2 << 20) + "AAAA", "evidence: 2097156 long, at most 2097152"),
        ("attestation", [], "attestation: must be an object"),
        ("proof", {"header": "0x0", "nodes": []}, "proof.header: must be 0x and an even number"),
        ("proof", {"header": "0x", "nodes": ["!"]}, "proof.nodes[0]: must be base64"),
    ],
)
def test_a_part_of_another_form_is_named(made: Made, key: str, value: object, words: str) -> None:
    document = json.loads(dump_receipt(made.receipt)) | {key: value}
    data = (json.dumps(document, indent=2) + "\n").encode()

    report = examine_receipt(data, cells=CELLS, trusted_block=made.block)

    assert failed(report) == {"canonical form"}
    assert words in report.steps[0].detail


@pytest.mark.parametrize("signatures", [[], {}, [{}], [{"keyid": "5", "sig": ""}]])
def test_an_envelope_has_one_signature(made: Made, signatures: object) -> None:
    account = AccountKey.from_uri("//Carol")
    document = json.loads(dump_envelope(sign_envelope(dump_receipt(made.receipt), account)))
    data = (json.dumps(document | {"signatures": signatures}, indent=2) + "\n").encode()

    report = examine_receipt(data, cells=CELLS, trusted_block=made.block)

    assert failed(report) == {"canonical form"}
    assert "signatures" in report.steps[0].detail


def test_what_no_receipt_can_hold_is_not_written(made: Made) -> None:
    with pytest.raises(EncodingError, match="policy: not UTF-8"):
        dump_receipt(replace(made.receipt, policy=b"\xff"))
