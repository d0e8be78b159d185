"""A task can fail in any way it likes: the worker says how, and goes on."""

import json
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from orchestrator.encoding import encode_failure, encode_task_input
from orchestrator.errors import ConfigError, TaskError, TaskHostError
from orchestrator.models import TaskInput
from orchestrator.tasks import Limits
from orchestrator.tasks.sandbox import Sandbox, run_local

ODD = [
    "spin",
    "spin_stubbornly",
    "sleep",
    "sleep_long",
    "grow",
    "talk",
    "write_large_file",
    "segfault",
    "abort",
    "leave",
    "exit_politely",
    "kill_itself",
    "raise_value",
    "raise_surrogate",
    "write_frame",
    "raise_task_error",
    "raise_os_error",
    "return_text",
    "leave_children",
    "fork_bomb",
    "look_around",
    "write_file",
    "plain",
    "needs_more",
    "needs_wave",
    "no_task",
    "absent",
]


@pytest.fixture(scope="module")
def sandbox(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sandbox]:
    references = {name: f"tests.unit.tasks.odd_tasks:{name}" for name in ODD}
    references["echo"] = "orchestrator.tasks.echo:echo"
    made = Sandbox(
        references,
        folder=tmp_path_factory.mktemp("sandbox") / "running",
        environment={"PHALA_JOBS_MODELS": "/models"},
    )
    yield made
    made.close()


def run(sandbox: Sandbox, name: str, data: bytes = b"", **parameters: object) -> bytes:
    return sandbox.run(TaskInput(task=name, input=data, parameters=parameters)).output


def wait_until(condition: Callable[[], bool], seconds: float = 10) -> None:
    latest = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < latest
        time.sleep(0.01)


def processes_called(*words: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        try:
            line = (entry / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        except OSError:
            continue
        if [part.decode(errors="replace") for part in line] == list(words):
            found.append(int(entry.name))
    return found


@pytest.mark.parametrize("data", [b"", b"x", bytes(range(256)) * 20_000])
def test_echo_gives_back_what_it_got(sandbox: Sandbox, data: bytes) -> None:
    assert run(sandbox, "echo", data) == data


def test_the_catalogue_says_what_is_offered_and_why_the_rest_is_not(sandbox: Sandbox) -> None:
    assert sandbox.missing == ("needs_more",)
    assert set(sandbox.broken) == {"no_task", "absent"}
    assert "neither a Task nor a function" in sandbox.broken["no_task"]
    assert set(sandbox.tasks) == {*ODD, "echo"} - {"needs_more", "no_task", "absent"}
    assert sandbox.tasks["talk"] == Limits(output_bytes=1_000)


def test_a_bare_function_is_a_task_with_default_limits(sandbox: Sandbox) -> None:
    assert run(sandbox, "plain", b"abc") == b"cba"
    assert sandbox.tasks["plain"] == Limits()


def test_required_modules_are_loaded_by_a_process_of_their_own(sandbox: Sandbox) -> None:
    before = sandbox.pids

    assert run(sandbox, "needs_wave") == b"True"

    assert len(sandbox.pids) == len(before) + 1


@pytest.mark.parametrize(
    ("name", "parameters", "code"),
    [
        ("sleep", {}, "TimeLimitExceeded"),
        ("spin", {}, "CpuLimitExceeded"),
        ("spin_stubbornly", {}, "CpuLimitExceeded"),
        ("grow", {}, "MemoryLimitExceeded"),
        ("talk", {"length": 1_001}, "OutputTooLarge"),
        ("write_large_file", {}, "OutputTooLarge"),
        ("segfault", {}, "TaskCrashed"),
        ("abort", {}, "TaskCrashed"),
        ("leave", {"code": 5}, "TaskCrashed"),
        ("leave", {"code": 0}, "TaskCrashed"),
        ("exit_politely", {}, "TaskExited"),
        ("raise_value", {}, "TaskFailed"),
        ("raise_task_error", {}, "BadInput"),
        ("raise_task_error", {"code": "no code\n"}, "TaskFailed"),
        ("raise_os_error", {"errno": "EFBIG"}, "OutputTooLarge"),
        ("raise_os_error", {"errno": "ENOMEM"}, "MemoryLimitExceeded"),
        ("raise_os_error", {"errno": "ENOENT"}, "TaskFailed"),
        ("return_text", {}, "TaskFailed"),
        ("fork_bomb", {}, "TimeLimitExceeded"),
        ("unheard_of", {}, "UnknownTask"),
    ],
)
def test_a_task_that_fails_says_how_and_the_next_one_runs(
    sandbox: Sandbox, name: str, parameters: dict[str, object], code: str
) -> None:
    with pytest.raises(TaskError) as caught:
        sandbox.run(TaskInput(task=name, input=b"", parameters=parameters))

    assert caught.value.code == code
    assert run(sandbox, "echo", b"still here") == b"still here"


def test_a_message_without_an_encoding_is_a_failure_like_others(sandbox: Sandbox) -> None:
    with pytest.raises(TaskError) as caught:
        run(sandbox, "raise_surrogate", b"bad \xff")

    assert (caught.value.code, caught.value.detail) == ("TaskFailed", "ValueError: bad ?")
    encode_failure(caught.value.code, caught.value.detail)


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x01no JSON", "TaskCrashed"),
        (b"\x01[1, 2]", "TaskCrashed"),
        (b'\x01["Code", 2]', "TaskCrashed"),
        (b'\x01["no code", "words"]', "TaskCrashed"),
        (b'\x01["Code", "words", 3]', "TaskCrashed"),
        (b'\x01["Code", "\\ud800"]', "TaskCrashed"),
        (b"\x01\xff", "TaskCrashed"),
        (b"\x01" + b"[" * 8_000, "TaskCrashed"),
        (b'\x01["Code", "' + b"x" * 8_192 + b'"]', "TaskCrashed"),
        (b"\x02{}", "TaskCrashed"),
        (b'\x03["Code", "words"]', "TaskCrashed"),
        (b"\x00" + bytes(1_001), "OutputTooLarge"),
        (b'\x01["Code", "words"]', "Code"),
    ],
)
def test_a_result_that_a_task_wrote_itself_can_always_be_signed(
    sandbox: Sandbox, frame: bytes, code: str
) -> None:
    with pytest.raises(TaskError) as caught:
        run(sandbox, "write_frame", frame)

    assert caught.value.code == code
    encode_failure(caught.value.code, caught.value.detail)


def test_the_output_limit_is_not_one_byte_less(sandbox: Sandbox) -> None:
    assert run(sandbox, "talk", length=1_000) == bytes(1_000)


def test_input_beyond_its_limit_is_refused_before_anything_runs(sandbox: Sandbox) -> None:
    task_input = TaskInput(task="echo", input=b"12345")

    with pytest.raises(TaskError, match="InputTooLarge: 5 bytes, at most 4"):
        sandbox.run(task_input, limits=Limits(input_bytes=4))

    assert sandbox.run(task_input, limits=Limits(input_bytes=5)).output == b"12345"


@pytest.mark.parametrize(
    ("name", "parameters"),
    [("kill_itself", {}), ("raise_os_error", {"errno": "ENOSPC"})],
)
def test_trouble_that_may_be_the_hosts_is_never_the_tasks(
    sandbox: Sandbox, name: str, parameters: dict[str, object]
) -> None:
    with pytest.raises(TaskHostError):
        sandbox.run(TaskInput(task=name, input=b"", parameters=parameters))


def test_a_stopped_task_is_no_failure_of_the_task(sandbox: Sandbox) -> None:
    running = sandbox.start("sleep_long", encode_task_input(TaskInput(task="t", input=b"")))
    began = time.monotonic()

    threading.Timer(0.05, running.stop).start()
    with pytest.raises(TaskHostError, match="stopped"):
        running.wait()

    assert time.monotonic() - began < 10
    running.stop()


def test_nothing_that_a_task_started_outlives_it(sandbox: Sandbox) -> None:
    assert run(sandbox, "leave_children") == b"left"

    wait_until(lambda: not processes_called("/bin/sleep", "600"))
    wait_until(lambda: not processes_called("sleep", "601"))


def test_after_a_fork_bomb_the_forking_process_has_no_children(sandbox: Sandbox) -> None:
    with pytest.raises(TaskError, match="TimeLimitExceeded"):
        run(sandbox, "fork_bomb")

    children = Path(f"/proc/{sandbox.pids[0]}/task/{sandbox.pids[0]}/children")
    wait_until(lambda: not children.read_text().split())


def test_a_child_inherits_no_environment_descriptor_or_argument(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_WORKER", "hush")
    with (tmp_path / "open").open("w") as held:
        os.set_inheritable(held.fileno(), True)
        fresh = Sandbox(
            {"look_around": "tests.unit.tasks.odd_tasks:look_around"},
            folder=tmp_path / "jobs",
            environment={"PHALA_JOBS_MODELS": "/models"},
        )
        try:
            seen = json.loads(run(fresh, "look_around"))
        finally:
            fresh.close()

    allowed = {
        "HOME",
        "LANG",
        "OMP_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "ORT_DISABLE_TELEMETRY",
        "PATH",
        "PHALA_JOBS_MODELS",
    }
    # Python itself adds LC_CTYPE where the locale asks for it.
    assert set(seen["environment"]) - {"LC_CTYPE"} == {*allowed, "TMPDIR"}
    names = {entry.partition("=")[0] for entry in seen["initial_environment"]}
    assert names - {"LC_CTYPE"} <= allowed
    assert "hush" not in json.dumps(seen)
    assert seen["environment"]["ORT_DISABLE_TELEMETRY"] == "1"
    assert seen["environment"]["HOME"] == seen["folder"] == seen["temporary"]
    assert seen["files"] == []
    # Empty input, output and error; the task's own output; the listing of this folder itself.
    targets = {name: target for name, target in seen["descriptors"].items() if name != "3"}
    assert {name for name in targets if int(name) < 3} == {"0", "1", "2"}
    assert {targets[name] for name in ("0", "1", "2")} == {"/dev/null"}
    assert {target for name, target in targets.items() if int(name) > 2} == {
        "/memfd:phala-jobs (deleted)"
    }
    assert seen["core"] == [0, 0]
    assert seen["leader"] is True
    assert seen["threads"] == 1
    assert seen["privileges"] == 1


def test_no_two_children_have_the_same_randomness(sandbox: Sandbox) -> None:
    numbers = {json.loads(run(sandbox, "look_around"))["random"] for _ in range(3)}

    assert len(numbers) == 3


def test_a_jobs_folder_is_gone_with_the_job(sandbox: Sandbox) -> None:
    path = Path(run(sandbox, "write_file", b"plaintext").decode())

    assert not path.exists()
    assert not path.parent.exists()


def test_a_killed_forking_process_is_replaced_and_its_job_has_not_failed(
    sandbox: Sandbox,
) -> None:
    running = sandbox.start("sleep_long", encode_task_input(TaskInput(task="t", input=b"")))
    killed = sandbox.pids[0]

    os.kill(killed, 9)
    with pytest.raises(TaskHostError, match="the forking process ended"):
        running.wait()

    assert run(sandbox, "echo", b"again") == b"again"
    assert sandbox.pids[0] != killed


def test_a_stopped_forking_process_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.tasks.running._GRACE_SECONDS", 0.1)
    monkeypatch.setattr("orchestrator.tasks.forking._STOP_SECONDS", 0.1)
    names = ("stop_the_forking_process", "plain")
    made = Sandbox(
        {name: f"tests.unit.tasks.odd_tasks:{name}" for name in names}, folder=tmp_path / "jobs"
    )
    try:
        (stopped,) = made.pids
        given = TaskInput(task="stop_the_forking_process", input=b"")
        with pytest.raises(TaskHostError, match="does not answer"):
            made.run(given, limits=Limits(time_seconds=0.5))

        assert run(made, "plain", b"abc") == b"cba"
        assert made.pids != (stopped,)
    finally:
        made.close()


def test_a_task_whose_modules_can_not_be_imported_is_no_longer_offered(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ("needs_what_can_not_be_imported", "plain")
    made = Sandbox(
        {name: f"tests.unit.tasks.odd_tasks:{name}" for name in names}, folder=tmp_path / "jobs"
    )
    try:
        assert set(made.tasks) == set(names)
        for _ in range(2):
            with pytest.raises(TaskHostError, match="can't be loaded"):
                run(made, "needs_what_can_not_be_imported")

        assert set(made.tasks) == {"plain"}
        assert "ZeroDivisionError" in made.broken["needs_what_can_not_be_imported"]
        assert caplog.text.count("is no longer offered: ZeroDivisionError") == 1
        assert len(made.pids) == 1
        assert run(made, "plain", b"abc") == b"cba"
    finally:
        made.close()


def test_a_task_that_can_not_be_loaded_here_is_not_the_jobs_fault(sandbox: Sandbox) -> None:
    with pytest.raises(TaskHostError, match="no_task can't be loaded"):
        run(sandbox, "no_task")


def test_many_threads_share_a_sandbox(sandbox: Sandbox) -> None:
    answers: list[bytes] = []
    threads = [
        threading.Thread(
            target=lambda number=number: answers.append(run(sandbox, "echo", b"%d" % number))
        )
        for number in range(20)
    ]

    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert sorted(answers) == sorted(b"%d" % number for number in range(20))


def test_a_closed_sandbox_runs_nothing(tmp_path: Path) -> None:
    made = Sandbox({"echo": "orchestrator.tasks.echo:echo"}, folder=tmp_path / "jobs")
    made.close()
    made.close()

    (tmp_path / "jobs").mkdir()
    with pytest.raises(TaskHostError, match="shutting down"):
        run(made, "echo")
    assert list((tmp_path / "jobs").iterdir()) == []


def test_without_a_folder_for_the_job_the_host_is_to_blame(tmp_path: Path) -> None:
    made = Sandbox({"echo": "orchestrator.tasks.echo:echo"}, folder=tmp_path / "jobs")
    try:
        (tmp_path / "jobs").rmdir()
        with pytest.raises(TaskHostError, match="no folder"):
            run(made, "echo")
    finally:
        made.close()


def test_a_child_that_can_not_be_shut_in_is_the_hosts_trouble(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox = Sandbox({"echo": "orchestrator.tasks.echo:echo"}, folder=tmp_path / "jobs")
    monkeypatch.setattr("tempfile.mkdtemp", lambda **_: str(tmp_path / "gone"))
    try:
        with pytest.raises(TaskHostError, match="killed by signal 9"):
            sandbox.run(TaskInput(task="echo", input=b"data"))
    finally:
        sandbox.close()


def test_the_folder_may_be_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sandbox = Sandbox({"echo": "orchestrator.tasks.echo:echo"}, folder=Path("jobs"))
    try:
        assert sandbox.run(TaskInput(task="echo", input=b"data")).output == b"data"
    finally:
        sandbox.close()


def test_what_a_killed_worker_left_in_the_folder_goes(tmp_path: Path) -> None:
    (tmp_path / "jobs" / "job-old").mkdir(parents=True)
    (tmp_path / "jobs" / "job-old" / "plaintext").write_text("x")

    Sandbox({}, folder=tmp_path / "jobs").close()

    assert not (tmp_path / "jobs").exists()


def test_a_folder_that_can_not_be_made_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="file"):
        Sandbox({}, folder=tmp_path / "file" / "jobs")


def test_tasks_run_on_linux_alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sys.platform", "darwin")

    with pytest.raises(ConfigError, match="Linux alone"):
        Sandbox({}, folder=tmp_path)


def test_a_task_whose_import_ends_the_process_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ends_it.py").write_text("import os\nos._exit(1)\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    with pytest.raises(TaskHostError, match="ended or hung"):
        Sandbox({"bad": "ends_it:run"}, folder=tmp_path / "jobs")


def test_run_local_runs_one_task_and_keeps_nothing() -> None:
    done = run_local("echo", b"hello", {"ignored": 1})

    assert done.output == b"hello"
    assert done.cpu_ms >= 0


def test_run_local_says_which_tasks_there_are() -> None:
    with pytest.raises(TaskError, match="UnknownTask: 'nope', there are echo, onnx"):
        run_local("nope", b"")


@pytest.mark.parametrize(
    ("reference", "words"),
    [("needs_more", "not installed"), ("no_task", "neither a Task")],
)
def test_run_local_says_why_a_task_can_not_be_run(
    monkeypatch: pytest.MonkeyPatch, reference: str, words: str
) -> None:
    monkeypatch.setattr(
        "orchestrator.tasks.sandbox.find_tasks",
        lambda: {"odd": f"tests.unit.tasks.odd_tasks:{reference}"},
    )

    with pytest.raises(ConfigError, match=words):
        run_local("odd", b"")
