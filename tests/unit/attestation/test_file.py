"""Attestation files: strict to read, and each check of them fails alone."""

import json
from collections.abc import Callable
from dataclasses import replace

import pytest

from orchestrator.attestation import (
    AttestationFile,
    CheckOutcome,
    attestation_file_of,
    dump_attestation_file,
    is_accepted,
    load_attestation_file,
    verify_attestation_file,
)
from orchestrator.attestation.file_format import MAX_FILE_LENGTH
from orchestrator.crypto import EcdsaSigner, Sr25519Signer
from orchestrator.encoding import blake2_256
from orchestrator.errors import EncodingError
from orchestrator.models import JobStatus, Outcome
from tests.unit.attestation.scenario import (
    CONTRACT,
    CREATED_AT,
    GENESIS,
    SIGNERS,
    STRANGER,
    Scenario,
    valid_scenario,
)

Signer = EcdsaSigner | Sr25519Signer
each_signer = pytest.mark.parametrize("signer", SIGNERS, ids=["ecdsa", "sr25519"])
RESULT = b"sealed result"
CHECKS = [
    "job",
    "worker",
    "result hash",
    "times",
    "recorded in time",
    "signature",
    "accepted key",
    "result",
    "facts on the chain",
    "trusted today",
]


def _file(
    signer: Signer,
    change: Callable[[Scenario], Scenario] = lambda scenario: scenario,
    status: JobStatus = JobStatus.PROCESSED,
) -> AttestationFile:
    scenario = change(
        replace(
            valid_scenario(signer).with_job(
                status=status,
                processed_at=CREATED_AT + 40_000 if status is JobStatus.PROCESSED else None,
            ),
            result_hash=blake2_256(RESULT),
        )
    )
    return attestation_file_of(
        genesis_hash=GENESIS,
        contract=CONTRACT,
        job=scenario.job,
        worker=scenario.worker,
        completion=scenario.completion,
        recorded_at=scenario.now,
    )


def _failed(file: AttestationFile, **arguments: object) -> set[str]:
    checks = verify_attestation_file(file, **arguments)  # type: ignore[arg-type]  # the optional ones
    assert [check.name for check in checks] == CHECKS
    failed = {check.name for check in checks if check.outcome is CheckOutcome.FAILED}
    assert is_accepted(checks) is not bool(failed)
    return failed


def _not_checked(file: AttestationFile, **arguments: object) -> set[str]:
    checks = verify_attestation_file(file, **arguments)  # type: ignore[arg-type]  # the optional ones
    return {check.name for check in checks if check.outcome is CheckOutcome.NOT_CHECKED}


def test_times_are_written_as_the_caller_wants_them() -> None:
    file = _file(SIGNERS[0])
    processed = replace(
        file,
        job=replace(file.job, status=JobStatus.PROCESSED, processed_at=file.recorded_at),
    )

    checks = verify_attestation_file(processed, show_time=lambda ms: f"<{ms}>")

    details = {check.name: check.detail for check in checks}
    assert f"processed <{file.recorded_at}>" in details["job"]
    assert details["times"].startswith(f"made <{file.job.created_at}>, started <")
    assert details["times"].endswith(f"processed <{file.recorded_at}>")
    assert details["recorded in time"].startswith(f"recorded <{file.recorded_at}>, allowed from <")


@each_signer
def test_a_file_says_what_it_can_not_prove(signer: Signer) -> None:
    file = _file(signer)
    keys = {signer.public_key}

    assert _failed(file) == set()
    assert _not_checked(file) == {"accepted key", "result", "facts on the chain", "trusted today"}
    assert _not_checked(file, accepted_keys=keys, result=RESULT) == {
        "facts on the chain",
        "trusted today",
    }
    assert _failed(file, accepted_keys=keys, result=RESULT) == set()


@each_signer
@pytest.mark.parametrize("status", JobStatus)
def test_a_failure_can_be_part_of_a_job_in_any_state(signer: Signer, status: JobStatus) -> None:
    file = _file(signer, lambda s: replace(s, outcome=Outcome.FAILED), status=status)

    assert _failed(file) == set()


FAULTS: list[tuple[str, Callable[[Scenario], Scenario]]] = [
    ("job", lambda s: s.with_job(status=JobStatus.SUBMITTED, processed_at=None)),
    ("job", lambda s: s.with_job(status=JobStatus.FAILED, processed_at=None)),
    ("job", lambda s: s.with_job(status=JobStatus.EXPIRED, processed_at=None)),
    ("job", lambda s: s.with_job(status=JobStatus.CANCELLED)),
    ("job", lambda s: s.with_job(status=JobStatus.ATTESTED)),
    ("job", lambda s: s.with_job(processed_at=None)),
    ("job", lambda s: replace(s, job_id=8)),
    ("worker", lambda s: s.with_worker(signing_key=STRANGER)),
    ("worker", lambda s: s.with_job(workers=(2, 3))),
    ("worker", lambda s: s.with_job(workers=(1, 2, 1))),
    ("worker", lambda s: s.with_job(workers=(1, 2, 2))),
    ("result hash", lambda s: replace(s, result_hash=bytes(32))),
    ("times", lambda s: replace(s, finished_at=s.started_at - 1)),
    ("times", lambda s: replace(s, issued_at=s.finished_at - 1)),
    ("times", lambda s: replace(s, started_at=CREATED_AT - 600_001)),
    ("times", lambda s: replace(s, issued_at=s.now + 600_001)),
    (
        "times",
        lambda s: replace(
            s.with_job(deadline=s.now + 86_400_000, processed_at=s.now + 86_400_000).with_worker(
                valid_until=s.now + 86_400_000
            ),
            now=s.issued_at + 86_400_001,
        ),
    ),
    ("times", lambda s: s.with_job(processed_at=s.now - 1)),
    ("recorded in time", lambda s: s.with_job(deadline=s.now - 1)),
    ("recorded in time", lambda s: s.with_worker(valid_until=s.now - 1)),
    ("recorded in time", lambda s: replace(s.with_job(created_at=s.now + 1))),
    ("signature", lambda s: replace(s, signed={"units": 6})),
    ("signature", lambda s: replace(s, signed={"genesis_hash": bytes(32)})),
    ("signature", lambda s: replace(s, signed={"measurement": bytes(32)})),
    ("signature", lambda s: replace(s, units=1 << 64, signed={"units": 6})),
]


@each_signer
@pytest.mark.parametrize(
    ("check", "change"),
    [pytest.param(*fault, id=f"{fault[0]} {place}") for place, fault in enumerate(FAULTS)],
)
def test_each_check_of_a_file_fails_alone(
    signer: Signer, check: str, change: Callable[[Scenario], Scenario]
) -> None:
    assert _failed(_file(signer, change)) == {check}


@each_signer
def test_named_keys_and_a_given_result_are_checked(signer: Signer) -> None:
    file = _file(signer)

    assert _failed(file, accepted_keys=set()) == {"accepted key"}
    assert _failed(file, accepted_keys=[STRANGER]) == {"accepted key"}
    assert _failed(file, result=RESULT + b"\0") == {"result"}


@each_signer
def test_a_file_is_read_back_as_it_was(signer: Signer) -> None:
    for file in (
        _file(signer),
        _file(signer, lambda s: s.with_job(processed_at=None), status=JobStatus.ATTESTED),
        _file(signer, lambda s: replace(s.with_job(job_id=(1 << 128) - 1), job_id=(1 << 128) - 1)),
    ):
        text = dump_attestation_file(file)

        assert load_attestation_file(text) == file
        assert load_attestation_file(text.encode()) == file
        assert dump_attestation_file(load_attestation_file(text)) == text


def test_a_tampered_file_is_refused_wherever_it_is_changed() -> None:
    """Every value in the text is changed in turn; the file is not read, or a check fails."""
    file = _file(SIGNERS[0])
    document = json.loads(dump_attestation_file(file))
    # Not signed, and not bound by any check: only the chain could tell.
    free = {
        ("job", "owner"),
        ("job", "processed_at"),
        ("job", "deadline"),
        ("job", "created_at"),
        ("job", "workers", 0),
        ("worker", "encryption_key"),
        ("worker", "evidence_hash"),
        ("worker", "valid_until"),
        ("recorded_at",),
    }
    unnoticed = set()
    for path in _paths(document):
        changed = json.loads(dump_attestation_file(file))
        place = changed
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = _changed(place[path[-1]])
        try:
            loaded = load_attestation_file(json.dumps(changed))
        except EncodingError:
            continue
        if is_accepted(verify_attestation_file(loaded, accepted_keys=[SIGNERS[0].public_key])):
            unnoticed.add(path)

    assert unnoticed == free


def _paths(value: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in _paths(item, (*path, key))]
    if isinstance(value, list):
        return [leaf for key, item in enumerate(value) for leaf in _paths(item, (*path, key))]
    return [path]


def _changed(value: object) -> object:
    if isinstance(value, str):
        digit = "1" if value[-1] != "1" else "2"
        return value[:-1] + digit
    assert isinstance(value, int)
    return value + 1


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("format",), "other", "format: must be"),
        (("format",), 1, "format: must be text"),
        (("version",), 2, "version: 2, this program reads 1"),
        (("version",), True, "version: must be an integer"),
        (("genesis_hash",), "0x" + "0" * 62, "genesis_hash: must be 0x and 64"),
        (("genesis_hash",), "0x" + "A" * 64, "lower-case"),
        (("genesis_hash",), "0" * 66, "genesis_hash: must be 0x"),
        (("genesis_hash",), None, "genesis_hash: must be text"),
        (("contract",), "5Grwva", "contract: must be 0x"),
        (("job",), [], "job: must be an object"),
        (("job", "job_id"), 7, "job.job_id: must be text"),
        (("job", "job_id"), "07", "job.job_id: must be a decimal"),
        (("job", "job_id"), "-7", "job.job_id: must be a decimal"),
        (("job", "job_id"), "\u0667", "job.job_id: must be a decimal"),
        (("job", "job_id"), "", "job.job_id: must be a decimal"),
        (("job", "job_id"), "9" * 39, "job.job_id: must be an integer of 128"),
        (("job", "job_id"), "9" * 5_000, "job.job_id: must be a decimal"),
        (("job", "status"), "Done", "job.status: must be one of Submitted"),
        (("job", "created_at"), -1, "job.created_at: must be an integer of 64"),
        (("job", "created_at"), 1 << 64, "job.created_at"),
        (("job", "created_at"), 1.0, "job.created_at"),
        (("job", "processed_at"), "x", "job.processed_at"),
        (("job", "workers"), [], "job.workers: must be a list of 1 to 4"),
        (("job", "workers"), [1, 2, 3, 4, 5], "job.workers"),
        (("job", "workers"), [1 << 32], r"job.workers\[0\]"),
        (("job", "more"), 1, "job.more: unknown"),
        (("more",), 1, "more: unknown"),
        (("worker", "more"), 1, "worker.more: unknown"),
        (("worker", "signing_key", "scheme"), "ed25519", "signing_key.scheme: must be one of"),
        (("worker", "signing_key", "key"), "0x" + "0" * 64, "signing_key.key: must be 0x and 66"),
        (("worker", "signing_key", "more"), 1, "worker.signing_key.more: unknown"),
        (("statement", "more"), 1, "statement.more: unknown"),
        (("statement", "outcome"), "Maybe", "statement.outcome: must be one of"),
        (("statement", "outcome"), 1, "statement.outcome: must be one of"),
        (("statement", "signature", "data"), "0x00", "signature.data: must be 0x and 130"),
        (("statement", "signature", "more"), 1, "statement.signature.more: unknown"),
    ],
)
def test_a_file_of_another_form_is_refused_with_the_place(
    path: tuple[str, ...], value: object, reason: str
) -> None:
    document = json.loads(dump_attestation_file(_file(SIGNERS[0])))
    place = document
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value

    with pytest.raises(EncodingError, match=reason):
        load_attestation_file(json.dumps(document))


@pytest.mark.parametrize(
    ("key", "shown"),
    [
        ("\ud800", r"\ud800"),
        ("\x1b[2J\x9b", r"\x1b[2J\x9b"),
        ("\u202e", r"\u202e"),
        ("x" * 60_000, "x" * 40 + "..."),
    ],
)
def test_an_unknown_key_is_named_in_a_few_printable_letters(key: str, shown: str) -> None:
    document = json.loads(dump_attestation_file(_file(SIGNERS[0])))
    document["job"][key] = 1

    with pytest.raises(EncodingError) as caught:
        load_attestation_file(json.dumps(document, ensure_ascii=len(key) < 10))

    assert str(caught.value) == f"job.{shown}: unknown"


def test_a_missing_key_is_named() -> None:
    for path in _paths(json.loads(dump_attestation_file(_file(SIGNERS[0])))):
        document = json.loads(dump_attestation_file(_file(SIGNERS[0])))
        place = document
        for key in path[:-1]:
            place = place[key]
        if isinstance(place, list):
            continue
        del place[path[-1]]

        with pytest.raises(EncodingError, match=f"{'.'.join(map(str, path))}: missing"):
            load_attestation_file(json.dumps(document))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"null", "must be an object"),
        (b"[]", "must be an object"),
        (b"{}", "format: missing"),
        (b"NaN", "NaN is not JSON"),
        (b'{"format": Infinity}', "Infinity is not JSON"),
        (b'{"a": 1, "a": 1}', "a key is there twice"),
        (b"[" * 60_000, "not JSON"),
        (b"9" * 60_000, "not JSON"),
        (b" " * (MAX_FILE_LENGTH + 1), "65537 long, at most 65536"),
    ],
    ids=[
        "empty",
        "binary",
        "null",
        "list",
        "no keys",
        "nan",
        "infinity",
        "key twice",
        "nested",
        "huge number",
        "too long",
    ],
)
def test_what_is_no_file_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(EncodingError, match=reason):
        load_attestation_file(data)
