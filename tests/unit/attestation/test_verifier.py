"""Rows 1 to 13 of protocol 3.2: each alone, in order, and at each boundary."""

import itertools
from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.attestation import verify_recorded_statement, verify_statement
from orchestrator.crypto import EcdsaSigner, Sr25519Signer, verify_signature
from orchestrator.encoding import blake2_256, encode_statement
from orchestrator.errors import (
    InvalidSignatureError,
    JobStateError,
    StaleEvidenceError,
    StatementMismatchError,
    UntrustedWorkerError,
    VerificationError,
)
from orchestrator.models import JobStatus, Mode, Outcome, WorkerFailure
from tests.unit.attestation.scenario import (
    CONTRACT,
    CREATED_AT,
    FAULTS,
    GENESIS,
    PARAMETERS,
    SIGNERS,
    STRANGER,
    Scenario,
    valid_scenario,
    worker_of,
)

CLASSES: dict[str, type[VerificationError]] = {
    "WrongMode": JobStateError,
    "JobNotFound": JobStateError,
    "AlreadyAttested": JobStateError,
    "WrongStatus": JobStateError,
    "DeadlinePassed": JobStateError,
    "WorkerNotFound": UntrustedWorkerError,
    "KeyMismatch": InvalidSignatureError,
    "WorkerNotEligible": UntrustedWorkerError,
    "WorkerNotTrusted": UntrustedWorkerError,
    "AlreadyFailed": UntrustedWorkerError,
    "EmptyResultHash": StatementMismatchError,
    "StatementTimesInverted": StatementMismatchError,
    "StatementBeforeJob": StatementMismatchError,
    "StatementFromFuture": StaleEvidenceError,
    "StatementTooOld": StaleEvidenceError,
    "BadSignature": InvalidSignatureError,
}
U64_MAX = (1 << 64) - 1
each_signer = pytest.mark.parametrize("signer", SIGNERS, ids=["ecdsa", "sr25519"])


@each_signer
@pytest.mark.parametrize("mode", [Mode.RUNNING, Mode.DRAINING])
@pytest.mark.parametrize("outcome", Outcome)
def test_a_good_statement_is_returned_as_the_contract_rebuilds_it(
    signer: EcdsaSigner | Sr25519Signer, mode: Mode, outcome: Outcome
) -> None:
    scenario = replace(valid_scenario(signer).with_view(mode=mode), outcome=outcome)

    statement = scenario.verify()

    assert statement == scenario.statement
    assert (statement.genesis_hash, statement.contract) == (GENESIS, CONTRACT)
    assert statement.outcome is outcome


@each_signer
@pytest.mark.parametrize(
    ("code", "fault"),
    [pytest.param(code, fault, id=f"{row}_{code}_{name}") for row, code, name, fault in FAULTS],
)
def test_each_fault_alone_is_refused_with_its_code(
    signer: EcdsaSigner | Sr25519Signer, code: str, fault: Callable[[Scenario], Scenario]
) -> None:
    scenario = fault(valid_scenario(signer))

    with pytest.raises(VerificationError) as caught:
        scenario.verify()

    assert caught.value.code == code
    assert type(caught.value) is CLASSES[code]


def test_every_code_of_the_table_has_a_fault() -> None:
    assert {code for _, code, _, _ in FAULTS} == set(CLASSES)
    assert {row for row, _, _, _ in FAULTS} == set(range(1, 14))


def test_of_two_faults_the_earlier_row_decides() -> None:
    """The earlier fault is made last, so that the later one can't repair it."""
    undecided = []
    for (row, code, name, earlier), (row_2, _, name_2, later) in itertools.combinations(FAULTS, 2):
        if row == row_2:
            continue
        with pytest.raises(VerificationError) as caught:
            earlier(later(valid_scenario(SIGNERS[0]))).verify()
        if caught.value.code != code:
            undecided.append((name, name_2, caught.value.code))

    assert undecided == []


@each_signer
@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.with_job(deadline=s.now),
        lambda s: s.with_worker(valid_until=s.now),
        lambda s: replace(s, started_at=CREATED_AT - 60_000),
        lambda s: replace(s, started_at=s.finished_at),
        lambda s: replace(s, issued_at=s.finished_at),
        lambda s: replace(s, issued_at=s.now + 60_000),
        lambda s: replace(s, now=s.issued_at + 600_000),
        lambda s: s.with_job(workers=(1,)),
        lambda s: s.with_job(workers=(4, 3, 2, 1)),
        lambda s: s.with_job(
            failures=(WorkerFailure(worker=3, result_hash=b"\1" * 32, units=1, timestamp=1),)
        ),
        lambda s: replace(s, units=U64_MAX),
        lambda s: replace(s, result_hash=bytes(31) + b"\1"),
    ],
    ids=[
        "at_the_deadline",
        "at_the_end_of_the_registration",
        "started_as_early_as_the_skew_allows",
        "took_no_time",
        "issued_at_once",
        "issued_as_late_as_the_skew_allows",
        "as_old_as_allowed",
        "only_worker",
        "last_of_four_workers",
        "another_worker_failed",
        "most_units",
        "smallest_hash",
    ],
)
def test_every_boundary_is_inside(
    signer: EcdsaSigner | Sr25519Signer, change: Callable[[Scenario], Scenario]
) -> None:
    scenario = change(valid_scenario(signer))

    assert scenario.verify() == scenario.statement


@each_signer
def test_times_saturate_at_both_ends(signer: EcdsaSigner | Sr25519Signer) -> None:
    """As `u64` does in the contract: nothing wraps around, nothing is an error of its own."""
    early = replace(
        valid_scenario(signer).with_job(created_at=59_999, deadline=U64_MAX),
        started_at=0,
        finished_at=0,
        issued_at=0,
        now=0,
    )
    late = replace(
        valid_scenario(signer)
        .with_job(created_at=U64_MAX, deadline=U64_MAX)
        .with_worker(valid_until=U64_MAX),
        started_at=U64_MAX,
        finished_at=U64_MAX,
        issued_at=U64_MAX,
        now=U64_MAX - 1,
    )

    assert early.verify() == early.statement
    assert late.verify() == late.statement


@each_signer
@pytest.mark.parametrize(
    "change",
    [
        {"units": 1 << 64},
        {"units": -1},
        {"job_id": 1 << 128},
        {"result_hash": b"\1" * 31},
    ],
    ids=str,
)
def test_what_has_no_encoding_has_no_signature(
    signer: EcdsaSigner | Sr25519Signer, change: dict[str, int]
) -> None:
    """A worker's answer may hold anything; it is refused, it is not a crash."""
    scenario = valid_scenario(signer)
    if "job_id" in change:
        scenario = scenario.with_job(job_id=change["job_id"])
    signature = scenario.completion.attestation_proof.signature
    broken = replace(scenario, **change)  # type: ignore[arg-type]  # wrong on purpose
    completion = broken._completion(signature)

    with pytest.raises(InvalidSignatureError) as caught:
        verify_statement(completion, view=broken.view, now=broken.now)

    assert caught.value.code == "BadSignature"


@each_signer
def test_a_recorded_statement_is_verified_whatever_the_time(
    signer: EcdsaSigner | Sr25519Signer,
) -> None:
    scenario = valid_scenario(signer).with_job(status=JobStatus.ATTESTED, deadline=0)

    statement = verify_recorded_statement(
        scenario.completion,
        genesis_hash=GENESIS,
        contract=CONTRACT,
        payload_hash=scenario.job.payload_hash,
        worker=replace(worker_of(signer), valid_until=0),
    )

    assert statement == scenario.statement


@each_signer
@pytest.mark.parametrize(
    ("code", "change"),
    [
        ("WorkerNotFound", {"signing_key": STRANGER}),
        ("BadSignature", {"measurement": bytes(32)}),
        ("BadSignature", {"genesis_hash": bytes(32)}),
        ("BadSignature", {"contract": bytes(32)}),
        ("BadSignature", {"payload_hash": bytes(32)}),
    ],
    ids=["key", "measurement", "genesis", "contract", "payload"],
)
def test_a_recorded_statement_of_something_else_is_refused(
    signer: EcdsaSigner | Sr25519Signer, code: str, change: dict[str, object]
) -> None:
    scenario = valid_scenario(signer)
    arguments: dict[str, object] = {
        "genesis_hash": GENESIS,
        "contract": CONTRACT,
        "payload_hash": scenario.job.payload_hash,
        "worker": scenario.worker,
    }
    if change.keys() <= arguments.keys():
        arguments |= change
    else:
        arguments["worker"] = replace(scenario.worker, **change)  # type: ignore[arg-type]  # of the field's type

    with pytest.raises(VerificationError) as caught:
        verify_recorded_statement(scenario.completion, **arguments)  # type: ignore[arg-type]  # typed above

    assert caught.value.code == code


@each_signer
def test_a_recorded_statement_needs_a_signature_of_its_keys_scheme(
    signer: EcdsaSigner | Sr25519Signer,
) -> None:
    fault = next(fault for _, code, _, fault in FAULTS if code == "KeyMismatch")
    scenario = fault(valid_scenario(signer))

    with pytest.raises(InvalidSignatureError) as caught:
        verify_recorded_statement(
            scenario.completion,
            genesis_hash=GENESIS,
            contract=CONTRACT,
            payload_hash=scenario.job.payload_hash,
            worker=scenario.worker,
        )

    assert caught.value.code == "KeyMismatch"


@each_signer
def test_no_flipped_bit_of_a_statement_is_accepted(signer: EcdsaSigner | Sr25519Signer) -> None:
    encoded = encode_statement(valid_scenario(signer).statement)
    signature = signer.sign(blake2_256(encoded))
    accepted = []
    for bit in range(8 * len(encoded)):
        flipped = bytearray(encoded)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            verify_signature(signer.public_key, signature, blake2_256(bytes(flipped)))
        except InvalidSignatureError:
            continue
        accepted.append(bit)

    print(f"{8 * len(encoded)} bits of a statement flipped, {len(accepted)} accepted")
    assert accepted == []


def test_defaults_of_the_contract_are_what_the_scenarios_use() -> None:
    assert (PARAMETERS.max_clock_skew, PARAMETERS.max_attestation_age) == (60_000, 600_000)
