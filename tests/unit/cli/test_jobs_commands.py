"""`submit`, `jobs`, `status`, `result`, `cancel`, `expire`, `purge`, `verify`."""

import base64
import contextlib
import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.processor import JobProcessor
from orchestrator.cli import secrets
from orchestrator.cli.output import Output
from orchestrator.cli.session import Session
from orchestrator.client import JobClient
from orchestrator.encoding import blake2_256
from orchestrator.errors import ChainUnavailableError, InsufficientFundsError
from orchestrator.keystore import Identity
from orchestrator.models import AttestationStatus, PublicKey, Scheme
from orchestrator.workers import WorkerIdentity
from orchestrator.workers.wire import dump_identity, load_identity

from .conftest import Run
from .priced import PricedChain
from .world import ADMIN, World, blob_server


@pytest.fixture
def owner(run: Run, world: World, home: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """
    A world whose settings name an owner's identity.

    In the settings file, below the account file of the environment: //Alice signs the rest.
    """
    monkeypatch.setenv("PHALA_JOBS_KEYS_UNENCRYPTED", "true")
    file = home / ".phala-jobs" / "config.toml"
    file.parent.mkdir(mode=0o700)
    file.write_text('account = "owner"\n')
    made = run("keys", "new", "owner")
    assert made.exit_code == 0, made.stderr
    return world


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "input"
    path.write_bytes(b"\x00\xffsecret input")
    return path


def _job_counter(world: World) -> int:
    with world.chain() as chain:
        return chain.read(world.processor.get_job_counter())


def test_a_job_goes_from_submission_to_the_opened_result(
    run: Run, owner: World, data: Path, tmp_path: Path
) -> None:
    submitted = run("submit", "echo", data, "--worker", 1, "--worker", 2, "--json")
    before = run("status", 1, "--json").document
    early = run("result", 1, "--json")
    owner.attest(1)
    after = run("status", 1, "--json").document
    output = tmp_path / "output"
    result = run("result", 1, "-o", output, "--json")
    shown = run("result", 1)

    assert submitted.document == {"job_id": 1, "fee": 0, "deposit": 0}, submitted.stderr
    assert (before["status"], before["workers"]) == ("Submitted", [1, 2])
    assert "attested_by" not in before
    assert (early.exit_code, early.document["error"]) == (1, "WrongStatus")
    assert (after["status"], after["processed"]) == ("Processed", True)
    assert (after["attested_by"], after["attestation"], after["units"]) == (1, "Valid", 7)
    assert result.exit_code == 0, result.stderr
    assert result.document["worker"] == 1
    assert output.read_bytes() == b"\x00\xffsecret input"
    assert output.stat().st_mode & 0o777 == 0o600
    assert shown.stdout_bytes == b"\x00\xffsecret input"


def test_text_status_has_dates(run: Run, owner: World, data: Path) -> None:
    run("submit", "echo", data)

    ran = run("status", 1)

    assert ran.exit_code == 0
    assert "UTC" in ran.stdout
    assert "Submitted" in ran.stdout


def test_without_a_worker_s_name_two_are_chosen(run: Run, owner: World, data: Path) -> None:
    run("submit", "echo", data)

    assert sorted(run("status", 1, "--json").document["workers"]) == [1, 2]


def test_a_job_that_is_waited_for_says_how_it_ended(run: Run, owner: World, data: Path) -> None:
    words = ("submit", "echo", data, "--key", "mine", "--json")
    run(*words)
    owner.attest(1, worker=run("status", 1, "--json").document["workers"][0])

    ran = run(*words, "--wait")

    assert ran.document["status"] == "Processed", ran.stderr
    assert _job_counter(owner) == 1


def test_a_wait_that_ends_first_could_not_tell(run: Run, owner: World, data: Path) -> None:
    ran = run("submit", "echo", data, "--wait", "--timeout", "10ms", "--json")

    assert ran.exit_code == 3
    assert ran.document["error"] == "WaitTimeoutError"
    assert ran.document["job_id"] == 1
    assert ran.document["message"] == (
        "job 1 is still Submitted after 0.01 s; it goes on: phala-jobs status 1"
        " (submitting again makes another job)"
    )


def test_a_job_whose_workers_are_all_revoked_is_shown_as_stuck(
    run: Run, owner: World, data: Path
) -> None:
    words = ("submit", "echo", data, "--worker", 1, "--worker", 2, "--key", "mine")
    run(*words)
    run("workers", "revoke", "--worker", 1, "--reason", "lost")
    one_left = run("status", 1, "--json")
    run("workers", "revoke", "--worker", 2, "--reason", "lost")

    both, as_text = run("status", 1, "--json"), run("status", 1)
    waited = run(*words, "--wait", "--timeout", "10ms", "--json")

    assert one_left.document["stuck"] is None
    assert "cancel" not in one_left.stderr
    assert both.document["stuck"] == "all of its workers are revoked"
    assert both.document["status"] == "Submitted"
    assert as_text.stderr == "all of its workers are revoked: phala-jobs cancel 1\n"
    assert waited.exit_code == 3
    assert waited.document["stuck"] == "all of its workers are revoked"
    assert waited.document["message"] == (
        "job 1 is still Submitted after 0.01 s; all of its workers are revoked: phala-jobs cancel 1"
        " (submitting again waits for it again)"
    )
    run("cancel", 1)
    assert run("status", 1, "--json").document["stuck"] is None


@pytest.fixture
def offering(owner: World) -> World:
    """Workers 1 and 2 are one with two pairs of keys, which offers `echo` and `word_count`."""
    keys = [worker.signer.public_key for worker in owner.workers.values()]
    owner.blobs["identity"] = dump_identity(
        WorkerIdentity(
            signing_key=keys[0],
            encryption_key=bytes(32),
            version="1",
            tasks=("word_count", "echo"),
            slots=1,
            queue=1,
            running=0,
            waiting=0,
            tee=None,
            development=(),
            retired_keys=tuple(keys[1:]),
        )
    )
    return owner


@pytest.mark.parametrize("more", [(), ("--dry-run",), ("--worker", 1)])
def test_a_task_that_no_worker_offers_is_refused_before_it_costs_anything(
    run: Run, offering: World, data: Path, more: tuple[str | int, ...]
) -> None:
    ran = run("submit", "ehco", data, *more, "--json")

    assert ran.exit_code == 2
    assert "task: 'ehco' is not on offer; worker " in ran.document["message"]
    assert "offers echo, word_count (--any-task" in ran.document["message"]
    assert _job_counter(offering) == 0
    assert run("jobs", "--json").document == {"jobs": [], "unfinished": 0}


@pytest.mark.parametrize("words", [("echo",), ("ehco", "--any-task")])
def test_a_task_on_offer_or_wanted_all_the_same_is_submitted(
    run: Run, offering: World, data: Path, words: tuple[str, ...]
) -> None:
    task, *more = words

    assert run("submit", task, data, *more, "--json").document["job_id"] == 1


@pytest.mark.parametrize("answer", ["nothing", "garbage", "another"])
def test_workers_that_do_not_say_what_they_offer_are_sealed_to(
    run: Run, offering: World, data: Path, answer: str
) -> None:
    if answer == "nothing":
        del offering.blobs["identity"]
    elif answer == "garbage":
        offering.blobs["identity"] = b"{"
    else:
        known = load_identity(offering.blobs["identity"])
        another = replace(known, signing_key=PublicKey(scheme=Scheme.ECDSA, key=b"\x02" * 33))
        offering.blobs["identity"] = dump_identity(replace(another, retired_keys=()))

    assert run("submit", "ehco", data, "--json").document["job_id"] == 1


def test_ctrl_c_while_waiting_says_that_the_job_goes_on(
    run: Run, owner: World, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(JobClient, "wait", interrupt)

    ran = run("submit", "echo", data, "--wait")

    assert ran.exit_code == 130
    assert "job 1 goes on: phala-jobs status 1, or watch 1" in ran.stderr


def test_a_submission_that_could_not_be_paid_says_what_the_account_has(
    run: Run,
    owner: World,
    priced: type[PricedChain],
    data: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise InsufficientFundsError

    monkeypatch.setattr(JobClient, "submit", refuse)
    priced.balance = 7

    ran = run("submit", "echo", data)

    assert ran.exit_code == 1
    assert "has 7 planck; the sealed job is kept" in ran.stderr


def test_a_wait_under_a_key_can_be_taken_up_again(run: Run, owner: World, data: Path) -> None:
    ran = run("submit", "echo", data, "--key", "mine", "--wait", "--timeout", "10ms")

    assert ran.exit_code == 3
    assert "(submitting again waits for it again)" in ran.stderr


def test_a_job_that_failed_ends_the_wait_as_refused(run: Run, owner: World, data: Path) -> None:
    words = ("submit", "echo", data, "--worker", 1, "--key", "mine", "--wait")
    run(*words, "--timeout", "10ms")
    owner.fail(1, worker=1, code="BadInput", message="row 1")

    as_json, as_text = run(*words, "--json"), run(*words)

    assert (as_json.exit_code, as_text.exit_code) == (1, 1)
    assert as_text.stderr.endswith("error: job 1 failed; phala-jobs result 1 shows why\n")
    assert as_text.stdout == ""
    assert as_json.document == {
        "error": "JobFailed",
        "message": "job 1 failed; phala-jobs result 1 shows why",
        "job_id": 1,
        "status": "Failed",
    }


def test_a_job_that_was_cancelled_or_expired_ends_the_wait_as_refused(
    run: Run, owner: World, data: Path
) -> None:
    words = [("submit", "echo", data, "--ttl", "60s", "--key", key) for key in ("a", "b", "c")]
    for submission in words:
        assert run(*submission).exit_code == 0
    run("cancel", 1)
    with owner.chain() as chain:
        chain.advance_time(61_000)
    run("expire", 2)

    cancelled, expired, late = (run(*submission, "--wait", "--json") for submission in words)

    assert (cancelled.exit_code, cancelled.document["error"]) == (1, "JobCancelled")
    assert (expired.exit_code, expired.document["error"]) == (1, "JobExpired")
    assert (late.exit_code, late.document["error"]) == (1, "DeadlinePassed")
    assert [ran.document["job_id"] for ran in (cancelled, expired, late)] == [1, 2, 3]


@pytest.mark.parametrize(
    "words",
    [
        ("submit", "echo", "-"),
        ("jobs", "--rebuild"),
        ("jobs", "--resume"),
        ("result", "1"),
        ("cancel", "1"),
        ("expire", "1"),
        ("purge", "1"),
        ("mode", "set", "Halted"),
    ],
)
def test_the_key_is_unlocked_before_a_spinner_could_hide_the_question(
    run: Run, owner: World, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    steps: list[str] = []
    progress, load = Output.progress, secrets.load_identity

    def noted(output: Output, text: str) -> contextlib.AbstractContextManager[None]:
        steps.append("progress")
        return progress(output, text)

    def unlock(session: Session) -> Identity:
        steps.append("unlock")
        return load(session)

    monkeypatch.delenv("PHALA_JOBS_ACCOUNT_FILE")
    monkeypatch.setattr(Output, "progress", noted)
    monkeypatch.setattr(secrets, "load_identity", unlock)

    run(*words, stdin=b"x")

    assert steps[:2] == ["unlock", "progress"]


@pytest.mark.parametrize(
    ("more", "stdin", "message"),
    [
        (("-",), b"", "input -: empty"),
        (("/nonexistent",), b"", "input /nonexistent: No such file"),
        (("/",), b"", "input /: Is a directory"),
        (("-",), b"x" * (16 << 20) + b"x", "longer than the limit of 16777216 bytes"),
        (("-",), b"x" * 9_000, "8192"),
        (("-", "--ttl", "1s"), b"x", "1000"),
        (("-", "--ttl", "soon"), b"x", "ttl: 'soon'"),
        (("-", "--parameter", "x"), b"x", "parameter 'x'"),
        (("-", *("--worker", "1") * 2), b"x", "1"),
    ],
)
def test_bad_input_is_named_and_nothing_is_submitted(
    run: Run, owner: World, more: tuple[str, ...], stdin: bytes, message: str
) -> None:
    ran = run("submit", "echo", *more, stdin=stdin)

    assert ran.exit_code == 2, ran.stderr
    assert message in ran.stderr
    assert _job_counter(owner) == 0
    assert run("jobs", "--json").document == {"jobs": [], "unfinished": 0}


def test_a_worker_that_is_not_trusted_gets_no_job(run: Run, owner: World, data: Path) -> None:
    run("workers", "suspend", 2)

    ran = run("submit", "echo", data, "--worker", 2, "--json")

    assert ran.exit_code == 1
    assert ran.document["error"] == "WorkerNotTrusted"
    assert _job_counter(owner) == 0


def test_without_an_identity_nothing_is_submitted(run: Run, world: World, data: Path) -> None:
    ran = run("submit", "echo", data)

    assert ran.exit_code == 2
    assert "account is not set" in ran.stderr


def test_a_wrong_passphrase_submits_nothing(
    run: Run, world: World, data: Path, tmp_path: Path
) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    for path, text in ((right, "right"), (wrong, "wrong")):
        path.touch(mode=0o600)
        path.write_text(text)
    run("keys", "new", "owner", "--passphrase-file", right)
    words = ("submit", "echo", data, "--account", "owner", "--passphrase-file")

    refused = run(*words, wrong)
    allowed = run(*words, right)

    assert refused.exit_code == 2
    assert "passphrase" in refused.stderr
    assert allowed.exit_code == 0, allowed.stderr
    assert _job_counter(world) == 1


def test_the_list_is_rebuilt_from_the_chain(
    run: Run, owner: World, data: Path, tmp_path: Path
) -> None:
    run("submit", "echo", data)
    elsewhere = ("--client", tmp_path / "elsewhere", "--json")

    empty = run("jobs", *elsewhere).document["jobs"]
    rebuilt = run("jobs", "--rebuild", *elsewhere).document["jobs"]
    usual = run("jobs", "--json").document["jobs"]

    assert empty == []
    assert [(job["job_id"], job["status"]) for job in rebuilt] == [(1, "Submitted")]
    assert [job["job_id"] for job in usual] == [1]


def test_interrupted_submissions_are_told_and_finished(
    run: Run, owner: World, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unavailable(*_: object, **__: object) -> None:
        raise ChainUnavailableError("gone")

    with monkeypatch.context() as patch:
        patch.setattr(EmbeddedChain, "batch", unavailable)
        patch.setattr(EmbeddedChain, "call", unavailable)
        failed = run("submit", "echo", data, "--json")

    listed = run("jobs", "--json")
    resumed = run("jobs", "--resume", "--json")

    assert failed.exit_code == 3
    assert listed.document == {"jobs": [], "unfinished": 1}
    assert "1 submissions are unfinished" in listed.stderr
    assert [job["job_id"] for job in resumed.document["jobs"]] == [1]
    assert _job_counter(owner) == 1


def test_a_job_is_cancelled_and_purged(run: Run, owner: World, data: Path) -> None:
    run("submit", "echo", data)

    early = run("purge", 1, "--json")
    cancelled = run("cancel", 1, "--json")
    purged = run("purge", 1, "--json")
    gone = run("status", 1, "--json")

    assert (early.exit_code, early.document["error"]) == (1, "WrongStatus")
    assert cancelled.document["status"] == "Cancelled"
    assert purged.document == {"job_id": 1, "purged": True, "fee": 0, "deposit": 0}
    assert gone.exit_code == 2
    assert "or it was purged" in gone.document["message"]
    listed = run("jobs", "--json").document["jobs"]
    assert [job["status"] for job in listed] == ["Cancelled (purged)"]


def test_anybody_expires_a_job_after_its_deadline(run: Run, owner: World, data: Path) -> None:
    run("submit", "echo", data, "--ttl", "60s")

    early = run("expire", 1, "--json")
    with owner.chain() as chain:
        chain.advance_time(61_000)
    late = run("expire", 1, "--json")

    assert (early.exit_code, early.document["error"]) == (1, "DeadlineNotPassed")
    assert late.document == {"job_id": 1, "status": "Expired"}


def test_a_stranger_s_job_is_not_cancelled(
    run: Run, owner: World, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("submit", "echo", data)
    run("keys", "new", "stranger")

    ran = run("cancel", 1, "--account", "stranger", "--json")

    assert (ran.exit_code, ran.document["error"]) == (1, "NotJobOwner")
    assert run("status", 1, "--json").document["status"] == "Submitted"


def test_a_job_that_never_was_is_bad_usage(run: Run, owner: World) -> None:
    assert run("status", 9).exit_code == 2
    assert run("status", 0).exit_code == 2
    assert run("result", 9).exit_code == 2
    assert run("verify", 9).exit_code == 2


def test_a_result_that_nobody_has_could_not_be_told(
    run: Run, owner: World, data: Path, tmp_path: Path
) -> None:
    run("submit", "echo", data, "--worker", 1)
    owner.attest(1)
    owner.blobs.clear()
    output = tmp_path / "output"

    ran = run("result", 1, "-o", output, "--json")

    assert ran.exit_code == 3
    assert ran.document["error"] == "BlobNotFoundError"
    assert not output.exists()


def test_a_result_comes_from_its_worker_when_no_orchestrator_has_it(
    run: Run, owner: World, data: Path
) -> None:
    run("submit", "echo", data, "--worker", 1)
    owner.attest(1)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"

        ran = run("result", 1, "--blob-sources", nobody, "--json")

    document = ran.document
    assert ran.exit_code == 0, ran.stderr
    assert base64.b64decode(document["output_base64"]) == b"\x00\xffsecret input"


def test_a_result_comes_from_the_orchestrator_when_its_worker_is_gone(
    run: Run, owner: World, data: Path
) -> None:
    run("submit", "echo", data, "--worker", 1)
    owner.attest(1)
    with blob_server(dict(owner.blobs)) as url:
        owner.blobs.clear()

        ran = run("result", 1, "--blob-sources", url)

    assert ran.exit_code == 0, ran.stderr
    assert ran.stdout_bytes == b"\x00\xffsecret input"


def test_what_workers_reported_of_a_failed_job_is_for_its_owner(
    run: Run, owner: World, data: Path, tmp_path: Path
) -> None:
    run("submit", "echo", data, "--worker", 1, "--worker", 2)
    owner.fail(1, worker=1, code="BadInput", message="row 1")
    lost = owner.fail(1, worker=2, code="TimeLimitExceeded", message="")
    del owner.blobs[blake2_256(lost).hex()]
    output = tmp_path / "output"

    as_json = run("result", 1, "-o", output, "--json")
    as_text = run("result", 1)

    first, second = as_json.document["failures"]
    assert (as_json.exit_code, as_text.exit_code) == (1, 1)
    assert as_json.document["error"] == "JobFailed"
    assert (first["worker"], first["code"], first["message"]) == (1, "BadInput", "row 1")
    assert (second["worker"], second["code"]) == (2, None)
    assert "neither in 0 blob sources nor at worker 2" in second["trouble"]
    assert "worker 1 failed: BadInput: row 1" in as_text.stderr
    assert "worker 2 failed: result " in as_text.stderr
    assert as_text.stdout == ""
    assert not output.exists()


class TestVerify:
    """`verify`, offline and against the chain."""

    @pytest.fixture
    def finished(self, run: Run, owner: World, data: Path, tmp_path: Path) -> Path:
        """An attestation file of a finished job; the sealed result beside it."""
        run("submit", "echo", data, "--worker", 1)
        owner.attest(1)
        path = tmp_path / "attestation.json"
        ran = run(
            *("result", 1, "-o", tmp_path / "opened", "--sealed", tmp_path / "sealed"),
            *("--save-attestation", path),
        )
        assert ran.exit_code == 0, ran.stderr
        return path

    @pytest.mark.parametrize("name", ["get_job", "get_attestation"])
    def test_a_node_that_answers_with_another_job(
        self,
        run: Run,
        finished: Path,
        owner: World,
        data: Path,
        monkeypatch: pytest.MonkeyPatch,
        name: str,
    ) -> None:
        run("submit", "echo", data, "--worker", 1)
        owner.attest(2)
        assert run("verify", 2).exit_code == 0
        ask = getattr(JobProcessor, name)
        monkeypatch.setattr(JobProcessor, name, lambda self, _: ask(self, 1))

        ran = run("verify", 2)

        assert ran.exit_code != 0
        assert "job 2: the node answers with that of 1" in ran.stderr

    @pytest.fixture
    def key(self, owner: World) -> str:
        return "0x" + owner.workers[1].signer.public_key.key.hex()

    def test_a_finished_job_is_verified_without_any_chain(
        self,
        run: Run,
        finished: Path,
        key: str,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        for name in ("CHAIN", "CONTRACT", "ACCOUNT_FILE"):
            monkeypatch.delenv(f"PHALA_JOBS_{name}")

        ran = run(
            *("verify", finished, "--accept-key", key, "--result", tmp_path / "sealed", "--json")
        )

        outcomes = {check["check"]: check["outcome"] for check in ran.document["checks"]}
        assert ran.exit_code == 0, ran.stderr
        assert ran.document["verified"] is True
        assert ran.document["key_accepted"] is True
        assert outcomes["signature"] == "passed"
        assert outcomes["accepted key"] == "passed"
        assert outcomes["result"] == "passed"
        assert outcomes["trusted today"] == "not checked"
        assert "not compared" not in ran.stderr
        assert ran.stderr.endswith(
            "; not signed, so not proven offline: owner, times of the job, status\n"
        )

    def test_without_accepted_keys_it_could_not_tell(self, run: Run, finished: Path) -> None:
        ran = run("verify", finished)
        as_json = run("verify", finished, "--json")

        assert ran.exit_code == 3
        assert "not compared with any that you accept" in ran.stderr
        assert "signature" in ran.stdout
        assert as_json.exit_code == 3
        assert as_json.document["error"] == "KeyNotCompared"
        assert "give --accept-key" in as_json.document["message"]
        assert as_json.document["key_accepted"] is False
        assert as_json.document["verified"] is False, "anybody can make a key and sign with it"

    def test_another_key_than_the_accepted_one_is_refused(
        self, run: Run, owner: World, finished: Path
    ) -> None:
        other = owner.workers[2].signer.public_key.key.hex()

        ran = run("verify", finished, "--accept-key", other, "--json")

        assert ran.exit_code == 1
        assert ran.document["error"] == "NotVerified"
        assert "accepted key" in ran.document["message"]
        outcomes = {check["check"]: check["outcome"] for check in ran.document["checks"]}
        assert (outcomes["accepted key"], outcomes["signature"]) == ("failed", "passed")
        assert (ran.document["verified"], ran.document["key_accepted"]) == (False, False)

    def test_another_result_is_refused(self, run: Run, finished: Path, tmp_path: Path) -> None:
        other = tmp_path / "other"
        other.write_bytes(b"other bytes")

        ran = run("verify", finished, "--result", other)

        assert ran.exit_code == 1
        assert "failed" in ran.stdout
        assert "NotVerified: result: is not the sealed result of this job; --result takes" in (
            ran.stderr
        )

    def test_no_changed_field_of_the_file_is_accepted(
        self, run: Run, finished: Path, key: str
    ) -> None:
        """Every value in the file that is bytes, changed by one digit, alone."""
        original = json.loads(finished.read_text())
        texts = [path for path, value in _leaves(original) if _is_hex(value)]
        assert len(texts) >= 6
        accepted = []
        for path in texts:
            changed = json.loads(finished.read_text())
            _change(changed, path)
            finished.write_text(json.dumps(changed))
            if run("verify", finished, "--accept-key", key).exit_code == 0:
                accepted.append(path)
            finished.write_text(json.dumps(original))

        # What the worker did not sign: whose job it is, and what else is registered of the worker.
        assert {path[-1] for path in accepted} <= {"owner", "encryption_key", "evidence_hash"}

    @pytest.mark.parametrize("data", [b"", b"{}", b"\x00\xff", b"[" * 5_000, b"x" * (2 << 20)])
    def test_a_file_that_is_none_is_bad_input(
        self, run: Run, home: Path, tmp_path: Path, data: bytes
    ) -> None:
        path = tmp_path / "file"
        path.write_bytes(data)

        ran = run("verify", path)

        assert ran.exit_code == 2, ran.stderr
        assert "bug" not in ran.stderr

    @pytest.mark.parametrize("text", ["", "zz", "ab" * 31])
    def test_an_accepted_key_that_is_none_is_bad_input(
        self, run: Run, finished: Path, text: str
    ) -> None:
        ran = run("verify", finished, "--accept-key", text)

        assert ran.exit_code == 2
        assert "is no signing key of 33 (ECDSA) or 32 (sr25519) bytes" in ran.stderr

    @pytest.mark.parametrize("key", ["\ud800", "\x1b[31m\x9b2J"])
    def test_an_unknown_key_of_the_file_is_shown_printable(
        self, run: Run, finished: Path, key: str
    ) -> None:
        finished.write_text(json.dumps(json.loads(finished.read_text()) | {key: 1}))

        ran = run("verify", finished, "--json")

        assert ran.exit_code == 2, ran.stderr
        assert ran.document["message"].endswith(f"{ascii(key)[1:-1]}: unknown")
        assert "bug" not in ran.stderr

    def test_against_the_chain_today_s_trust_counts(self, run: Run, finished: Path) -> None:
        before = run("verify", 1, "--json")
        run("workers", "suspend", 1)
        after = run("verify", 1, "--json")

        assert before.exit_code == 0, before.stderr
        assert before.document["verified"] is True
        assert before.document["checks"][-1]["outcome"] == "passed"
        details = {check["check"]: check["detail"] for check in before.document["checks"]}
        assert details["times"].count(" UTC") == 6
        assert details["accepted key"] == "the key that the contract lists for worker 1"
        assert "not proven" not in before.stderr
        assert after.exit_code == 1
        suspended = AttestationStatus.WORKER_SUSPENDED.value
        assert f"the contract says {suspended}" in after.document["message"]

    def test_a_file_is_compared_with_the_chain_when_asked_for(
        self, run: Run, finished: Path, key: str
    ) -> None:
        document = json.loads(finished.read_text())
        true = run("verify", finished, "--against-chain", "--json")
        for path, value in _leaves(document):
            if path[-1] == "created_at":
                _set(document, path, int(str(value)) + 1)
        finished.write_text(json.dumps(document))
        offline = run("verify", finished, "--accept-key", key, "--json")
        changed = run("verify", finished, "--against-chain", "--json")

        outcomes = {check["check"]: check["outcome"] for check in true.document["checks"]}
        assert true.exit_code == 0, true.stderr
        assert true.document["verified"] is True, "the contract has registered the key"
        assert "not compared" not in true.stderr
        assert outcomes["facts on the chain"] == "passed"
        assert outcomes["trusted today"] == "passed"
        assert offline.exit_code == 0, "no signature covers when the job was submitted"
        assert changed.exit_code == 1
        message = changed.document["message"]
        assert message == "NotVerified: facts on the chain: the contract has recorded others"

    def test_a_purged_job_could_not_be_compared(self, run: Run, finished: Path, key: str) -> None:
        run("purge", 1)

        as_text = run("verify", finished, "--against-chain")
        as_json = run("verify", finished, "--against-chain", "--accept-key", key, "--json")

        assert (as_text.exit_code, as_json.exit_code) == (3, 3), as_text.stderr
        assert "not checked  the job was purged" in as_text.stdout
        assert as_json.document["error"] == "JobPurged"
        assert as_json.document["verified"] is False
        assert as_json.document["key_accepted"] is True
        outcomes = {check["check"]: check["outcome"] for check in as_json.document["checks"]}
        assert (outcomes["signature"], outcomes["trusted today"]) == ("passed", "not checked")

    @pytest.mark.parametrize(
        ("name", "value", "message"),
        [
            ("job_id", "9", "the contract never had this job"),
            ("contract", "0x" + "00" * 32, "the file is of another chain or contract"),
            ("genesis_hash", "0x" + "00" * 32, "the file is of another chain or contract"),
        ],
    )
    def test_a_job_of_elsewhere_is_not_taken_for_a_purged_one(
        self, run: Run, finished: Path, name: str, value: object, message: str
    ) -> None:
        document = json.loads(finished.read_text())
        places = [path for path, _ in _leaves(document) if path[-1] == name]
        assert places
        for path in places:
            _set(document, path, value)
        finished.write_text(json.dumps(document))

        ran = run("verify", finished, "--against-chain", "--json")

        assert ran.exit_code == 1, ran.stdout
        assert f"facts on the chain: {message}" in ran.document["message"]

    def test_a_job_without_attestation_is_refused(
        self, run: Run, owner: World, data: Path, tmp_path: Path
    ) -> None:
        run("submit", "echo", data)
        path = tmp_path / "early.json"

        verified = run("verify", 1, "--json")
        saved = run("status", 1, "--save-attestation", path, "--json")

        assert (verified.exit_code, verified.document["error"]) == (1, "NotFound")
        assert saved.exit_code == 1
        assert not path.exists()

    def test_the_status_saves_the_file_too(self, run: Run, finished: Path, tmp_path: Path) -> None:
        path = tmp_path / "second.json"

        ran = run("status", 1, "--save-attestation", path, "--json")

        assert ran.document["attestation_file"] == str(path)
        assert path.read_bytes() == finished.read_bytes()


def _leaves(value: object, path: tuple[str, ...] = ()) -> list[tuple[tuple[str, ...], object]]:
    if isinstance(value, dict):
        return [leaf for name, held in value.items() for leaf in _leaves(held, (*path, name))]
    return [(path, value)]


def _is_hex(value: object) -> bool:
    return isinstance(value, str) and len(value.removeprefix("0x")) >= 64


def _change(document: dict[str, object], path: tuple[str, ...]) -> None:
    text = dict(_leaves(document))[path]
    assert isinstance(text, str)
    _set(document, path, text[:-1] + ("0" if text[-1] != "0" else "1"))


def _set(document: dict[str, object], path: tuple[str, ...], value: object) -> None:
    place: object = document
    for name in path[:-1]:
        assert isinstance(place, dict)
        place = place[name]
    assert isinstance(place, dict)
    place[path[-1]] = value


def test_a_submission_signs_with_the_owner_s_account_alone(
    run: Run, owner: World, data: Path
) -> None:
    run("submit", "echo", data)

    with owner.chain() as chain:
        job = chain.read(owner.processor.get_job(1))

    assert job is not None
    assert job.owner != ADMIN.account_id
