"""`demo`: what it shows, and that a claim that does not hold ends it with 1."""

import importlib.util
import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import SimpleNamespace

import pytest

from orchestrator.attestation import CheckOutcome
from orchestrator.chain.bundle import load_bundle
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.cli import (
    demo,
    demo_children,
    demo_offline,
    demo_run,
    demo_stage,
    demo_trust,
    output,
)
from orchestrator.cli.demo_children import Children
from orchestrator.cli.demo_pages import Pages, Summary, excerpt, short, shortened
from orchestrator.cli.demo_patients import (
    PART_BYTES,
    contains_part,
    has_leaked,
    search_apart,
)
from orchestrator.cli.output import Output
from orchestrator.cli.verdicts import SIMULATED
from orchestrator.encoding import blake2_256
from orchestrator.errors import Error, RefusedError, WaitTimeoutError
from orchestrator.evidence import EvidenceCheck, EvidenceFinding, Verdict
from orchestrator.models import JobStatus
from orchestrator.testing.chain import LocalAccount
from orchestrator.workers import JobKey

from .conftest import Run

LINES, COLUMNS = 24, 80  # what the smallest usual terminal shows at once


def _processes_of(folder: str) -> list[str]:
    """The command lines of processes that have to do with a folder."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if folder in words:
                found.append(words)
    return found


def test_the_demo_shows_twelve_pages_and_every_assertion_holds(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(_made(tmp_path / prefix)))

    monkeypatch.setattr(output, "WIDTH_WITHOUT_TERMINAL", COLUMNS)

    ran = run("demo")

    assert ran.exit_code == 0, ran.stderr
    pages = ran.stdout.split(SIMULATED + " ─")
    assert len(pages) == 13
    for page in pages:
        assert page.count("\n") <= LINES, page
        assert max(map(len, page.splitlines())) <= COLUMNS, page
    for words in (
        "the simulator's, not Intel's; simulated: proves no TEE",
        "4. The registrar verifies quotes, and registers",
        "E14   keys not revoked, expired or another's  passed   nobody's yet",
        "Worker 2: 14 of 14 passed; registered, evidence 0x",
        "if the policy allows Intel's root alone: refused by E02.",
        "workers 1, 2; the owner verified their evidence, and trusts no node",
        "7. The first worker is killed during the job",
        "worker 1 said     running",
        "JobProcessed",
        "recorded worker     2",
        "Wisconsin diagnostic breast cancer data (UCI 1993, CC BY 4.0)",
        "20 of 20 right; of all held-out patients 113 of 114.",
        "Searched all files for any 16 consecutive bytes of input or output:",
        "phala-jobs demo; --keep leaves the files",
        "true diagnosis",
        "job 1: worker 2 signed this result; not signed, so not proven offline:",
        "error: NotVerified: signature: BadSignatu... (exit code 1)",
        "E01 to E14           passed       12 of 14; E13 not checked, E14 not checked",
        "not everything could be checked; simulated: proves no TEE (exit code 3)",
        "An embedded chain proves nothing of its storage",
    ):
        assert words in ran.stdout, words
    assert "development worker, no TEE" not in ran.stdout + ran.stderr
    assert "demo: 19 assertions hold" in ran.stderr
    assert ran.stderr.endswith(f" s; {SIMULATED}\n")
    assert list(tmp_path.glob("phala-jobs-demo-*")) == []
    assert _processes_of(str(tmp_path)) == []


def _made(path: Path) -> Path:
    path.mkdir(mode=0o700)
    return path


@pytest.mark.parametrize("words", [(), ("--json",)])
def test_a_claim_that_does_not_hold_ends_the_demo_with_1(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    summary = Summary(assertions={"one": True, "two": False}, figures={"job_id": 1})
    monkeypatch.setattr(demo_run.Run, "play", lambda _: summary)

    ran = run("demo", *words)

    assert ran.exit_code == 1
    assert "the demo failed: not so: two" in ran.stderr
    if words:
        assert ran.document["passed"] is False
        assert ran.document["assertions"] == {"one": True, "two": False}
        assert ran.document["tee"] == SIMULATED


def test_the_folder_is_kept_when_asked_for(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_run.Run, "play", lambda _: Summary())

    ran = run("demo", "--keep")

    folder = Path(ran.stderr.split("kept: ")[1].splitlines()[0])
    assert ran.exit_code == 0
    assert folder.is_dir()
    folder.rmdir()


def test_what_is_missing_is_said_with_what_to_install(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "onnxruntime" else real(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)

    ran = run("demo")

    assert ran.exit_code == 2
    assert "the demo needs onnxruntime: pip install 'phala-jobs[demo]'" in ran.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_it_like_ctrl_c_and_cleans_up(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    monkeypatch.setattr(tempfile, "mkdtemp", lambda prefix: str(_made(tmp_path / prefix)))
    monkeypatch.setattr(demo_run.Run, "play", lambda _: signal.raise_signal(number))
    before = signal.getsignal(number)

    ran = run("demo")

    assert ran.exit_code == 130
    assert "interrupted; everything is removed" in ran.stderr
    assert list(tmp_path.glob("phala-jobs-demo-*")) == []
    assert signal.getsignal(number) is before


def test_outside_the_main_thread_signals_are_left_alone() -> None:
    entered: list[bool] = []

    def enter() -> None:
        with demo._ending_on_signals():
            entered.append(True)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()

    assert entered == [True]


def test_a_folder_that_can_not_be_removed_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "rmtree", lambda *_, **__: None)

    with pytest.raises(Error, match="could not be removed"):
        demo._remove(tmp_path)


class TestChildren:
    """The processes that the demo starts."""

    def test_a_process_that_ends_at_once_is_told_with_its_last_words(self, tmp_path: Path) -> None:
        with Children(tmp_path) as children, pytest.raises(Error) as caught:
            children.start("worker 1", ["worker", "run"])

        assert "the worker 1 did not start (exit code 2)" in str(caught.value)
        assert "is not set" in str(caught.value)

    @pytest.mark.parametrize(
        ("program", "seconds", "message"),
        [
            ("import time; time.sleep(60)", 0.2, "not ready after"),
            ("import time; print('[]', flush=True); time.sleep(60)", 1.0, "not ready after"),
            ("print('x' * 100_000)", 10.0, "no JSON document"),
        ],
    )
    def test_a_process_that_does_not_say_that_it_is_ready_is_told_and_ended(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        program: str,
        seconds: float,
        message: str,
    ) -> None:
        marked = f"{program} # {tmp_path}"
        monkeypatch.setattr(demo_children, "START_SECONDS", seconds)
        monkeypatch.setattr(demo_children, "command_line", lambda _: [sys.executable, "-c", marked])

        with Children(tmp_path) as children, pytest.raises(Error, match=message):
            children.start("worker 1", [])

        assert _processes_of(str(tmp_path)) == []

    def test_one_that_ignores_the_signal_is_killed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        program = (
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
            f" print('{{}}', flush=True); time.sleep(60) # {tmp_path}"
        )
        monkeypatch.setattr(demo_children, "STOP_SECONDS", 0.2)
        monkeypatch.setattr(
            demo_children, "command_line", lambda _: [sys.executable, "-c", program]
        )

        with Children(tmp_path) as children:
            children.start("worker 1", [])
            assert len(_processes_of(str(tmp_path))) == 1

        assert _processes_of(str(tmp_path)) == []

    def test_they_end_when_we_are_killed(self, tmp_path: Path) -> None:
        program = f"import time; print('{{}}', flush=True); time.sleep(60) # {tmp_path}/child"
        killed = (
            "import os, signal, sys; from pathlib import Path\n"
            "from orchestrator.cli import demo_children as d\n"
            f"d.command_line = lambda _: [sys.executable, '-c', {program!r}]\n"
            f"d.Children(Path({str(tmp_path)!r})).start('worker 1', [])\n"
            "os.kill(os.getpid(), signal.SIGKILL)\n"
        )

        done = subprocess.run([sys.executable, "-c", killed], check=False, timeout=60)

        assert done.returncode == -signal.SIGKILL
        deadline = time.monotonic() + 10
        while _processes_of(f"{tmp_path}/child") and time.monotonic() < deadline:
            time.sleep(0.02)
        assert _processes_of(f"{tmp_path}/child") == []

    def test_our_settings_do_not_reach_them(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("PHALA_JOBS_CHAIN", "local:mine")
        monkeypatch.setenv("PYTHONPATH", "/elsewhere")

        environment = demo_children.environment(tmp_path)

        assert "PHALA_JOBS_CHAIN" not in environment
        assert environment["HOME"] == str(tmp_path)
        assert environment["PYTHONPATH"].endswith(":/elsewhere")


def test_a_worker_that_never_says_running_is_not_said_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo_stage, "RUNNING_SECONDS", 0.2)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{closed.getsockname()[1]}"
        worker = SimpleNamespace(url=url)
        key = JobKey(genesis=bytes(32), contract=bytes(32), job_id=1, payload_hash=bytes(32))

        said = demo_stage.Stage.wait_until_running(None, worker, key)  # type: ignore[arg-type]  # of both, only the URL is used

    assert said is False


def test_a_job_that_is_never_processed_fails_the_demo(tmp_path: Path) -> None:
    class Client:
        def wait(self, job_id: int, *, timeout_seconds: float) -> JobStatus:
            raise WaitTimeoutError(f"job {job_id}: Submitted after {timeout_seconds} s")

    with pytest.raises(RefusedError, match="DemoFailed: the job was not processed"):
        demo_run.Run(Output(as_json=True), tmp_path, None)._wait(None, Client(), [], 1)  # type: ignore[arg-type]  # stands for the real ones


@pytest.mark.parametrize(
    ("outcome", "registered", "refused_by", "holds"),
    [
        (CheckOutcome.PASSED, b"", EvidenceCheck.SIGNATURES, (True, True, True)),
        (CheckOutcome.NOT_CHECKED, b"", EvidenceCheck.SIGNATURES, (False, True, True)),
        (CheckOutcome.PASSED, b"another", EvidenceCheck.SIGNATURES, (True, False, True)),
        (CheckOutcome.PASSED, b"", EvidenceCheck.COLLATERAL, (True, True, False)),
        (CheckOutcome.PASSED, b"", None, (True, True, False)),
    ],
)
def test_a_worker_that_is_registered_wrongly_fails_the_demo(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    outcome: CheckOutcome,
    registered: bytes,
    refused_by: EvidenceCheck | None,
    holds: tuple[bool, bool, bool],
) -> None:
    findings = [
        EvidenceFinding(check=check, outcome=CheckOutcome.PASSED, detail="fine")
        for check in EvidenceCheck
    ]
    findings[-1] = replace(findings[-1], outcome=outcome)
    verdict = Verdict(findings=tuple(findings), evidence=None)
    evidence = SimpleNamespace(bundle=b"bundle", evidence_hash=bytes(32))
    worker = SimpleNamespace(worker=1, verdict=verdict, evidence=evidence)
    refusal = None if refused_by is None else replace(findings[0], check=refused_by)
    trust = SimpleNamespace(
        register=lambda _: worker,
        registered_hash=lambda _: registered or blake2_256(b"bundle"),
        refusal_by_intel_alone=lambda _: refusal,
    )
    monkeypatch.setattr(demo_trust, "dump_bundle", lambda bundle: bundle)
    summary = Summary()

    demo_trust.register(trust, [worker], Pages(Output(as_json=False)), summary)  # type: ignore[arg-type, list-item]  # stand for the real ones

    assert tuple(summary.assertions.values()) == holds
    words = "accepted" if refused_by is None else f"refused by {refused_by.value}"
    assert f"Intel's root alone: {words}." in capsys.readouterr().out


def _receipt_steps(**outcomes: str) -> list[dict[str, str]]:
    names = ("canonical form", "signature", "block", "evidence", "E09 measurements", "E14 keys")
    return [
        {"step": name, "outcome": outcomes.get(name.split()[0], "passed"), "detail": "as said"}
        for name in names
    ]


NO_BLOCK = {"block": "not checked", "E14": "not checked"}


@pytest.mark.parametrize(
    ("block", "code", "outcomes", "holds"),
    [
        (b"\x11" * 32, 0, {}, True),
        (b"\x11" * 32, 3, NO_BLOCK, False),
        (b"\x11" * 32, 1, {"E09": "failed"}, False),
        (None, 3, NO_BLOCK, True),
        (None, 0, {}, False),  # nobody can tell, so saying that all is well is a fault
        (None, 3, {**NO_BLOCK, "E09": "not checked"}, False),
        (None, 3, {**NO_BLOCK, "evidence": "not checked"}, False),
        (None, 1, {**NO_BLOCK, "E09": "failed"}, False),
    ],
)
def test_a_receipt_holds_with_what_its_chain_can_prove(
    tmp_path: Path, block: bytes | None, code: int, outcomes: dict[str, str], holds: bool
) -> None:
    files = demo_offline.Files(folder=tmp_path, job_id=1, key=bytes(33), block=block)
    stdout = json.dumps({"steps": _receipt_steps(**outcomes)})
    good = demo_offline._Done(code=code, stdout=stdout, words="said")
    bad = demo_offline._Done(code=0, stdout="{}", words="said")
    summary = Summary()

    demo_offline._show_receipt(files, Pages(Output(as_json=True)), summary, good, bad)

    *_, told, refused = summary.assertions.values()
    assert told is holds
    assert refused is False  # the tampered one was accepted


def test_a_line_for_many_steps_fails_with_one_of_them() -> None:
    lines = demo_offline._grouped(_receipt_steps(E09="failed", E14="not checked"))

    assert lines == [
        ("  canonical form", "passed", "as said"),
        ("  the checks above", "passed", "1 of 1"),
        ("  block", "passed", "as said"),
        ("  evidence", "passed", "as said"),
        ("  E01 to E14", "failed", "0 of 2; E09 failed, E14 not checked"),
    ]


def test_a_receipt_that_is_not_made_fails_the_demo(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = "import sys; sys.exit('error: no')"
    monkeypatch.setattr(demo_offline, "command_line", lambda _: [sys.executable, "-c", program])
    monkeypatch.setattr(demo_offline, "_attestation_file", lambda *_: None)
    monkeypatch.setattr(demo_offline, "_tampered", lambda _: None)
    monkeypatch.setattr(demo_offline, "dump_attestation_file", lambda _: "")
    stage = SimpleNamespace(folder=tmp_path, chain_url="local:x", contract_name="5x")

    with pytest.raises(RefusedError, match="DemoFailed: no receipt: error: no"):
        demo_offline.write_files(stage, tmp_path, SimpleNamespace(job_id=1), None)  # type: ignore[arg-type]  # stand for the real ones


def test_a_job_without_an_attestation_fails_the_demo() -> None:
    chain = SimpleNamespace(read=lambda _: None)
    processor = SimpleNamespace(get_attestation=lambda _: None)
    stage = SimpleNamespace(chain=chain, processor=processor)

    with pytest.raises(RefusedError, match="job 1 has no attestation"):
        demo_offline._attestation_file(stage, SimpleNamespace(job_id=1), None)  # type: ignore[arg-type]  # stand for the real ones


def test_parts_of_a_secret_are_found_wherever_they_are(tmp_path: Path) -> None:
    secret = bytes(range(100))
    (tmp_path / "inner").mkdir()
    file = tmp_path / "inner" / "file"
    file.write_bytes(b"before" + secret[PART_BYTES : 2 * PART_BYTES] + b"after")

    assert has_leaked([tmp_path], [b"something else entirely, and long", secret])
    assert has_leaked([file], [secret])
    assert not has_leaked([tmp_path], [secret[::-1]])
    for start in range(len(secret) - PART_BYTES + 1):
        part = secret[start : start + PART_BYTES]
        assert contains_part(b"\xff" + part + b"\xff", secret), start
        assert not contains_part(b"\xff" + part[1:] + b"\xff", secret), start
    assert contains_part(b"a short one", b"short")
    assert not contains_part(b"a short one", b"shirt")


def test_looking_into_the_chains_files_takes_nothing_from_who_has_them_open(
    tmp_path: Path,
) -> None:
    path, secret = tmp_path / "chain.db", b"found only in the log"
    (tmp_path / "worker.log").write_bytes(secret)
    chain = EmbeddedChain(path)
    chain.upload(load_bundle().code, signer=LocalAccount.named("alice"))

    found = search_apart(
        {"chain": sorted(tmp_path.glob("chain.db*")), "log": [tmp_path / "worker.log"]}, [secret]
    )
    other = f"from orchestrator.chain.embedded import EmbeddedChain as E; E({str(path)!r}).close()"
    subprocess.run([sys.executable, "-c", other], check=True, timeout=60)

    assert found == {"chain": False, "log": True}
    # A process that thinks it is the last one removes it when it goes.
    assert (tmp_path / "chain.db-wal").exists()
    chain.close()


def test_pages_are_silent_with_json_but_for_their_titles(
    capsys: pytest.CaptureFixture[str],
) -> None:
    pages = Pages(Output(as_json=True))

    pages.step("A title")
    pages.say("words")
    pages.facts({"a": 1})
    pages.table(("a",), [(1,)])

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"1. A title ({SIMULATED})\n"


def test_excerpts_say_that_they_are_some() -> None:
    assert excerpt(b"\x01\x02", 2) == "0102"
    assert excerpt(b"\x01\x02\x03", 2) == "0102 ..."
    assert shortened("1234567", 6) == "123..."
    assert shortened("123456", 6) == "123456"
    assert short(bytes(range(32))) == "0x000102030405...1c1d1e1f"


def test_stdout_that_is_gone_is_no_error_of_the_children(tmp_path: Path) -> None:
    process = SimpleNamespace(stdout=None, wait=lambda: 0)

    with pytest.raises(EOFError, match="no output"):
        demo_children._read_document(process)  # type: ignore[arg-type]  # stands for a process
