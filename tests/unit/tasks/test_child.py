"""What a child writes for whatever its task does; here in this process."""

import errno
import json
from collections.abc import Callable

import pytest

from orchestrator.encoding import encode_task_input
from orchestrator.errors import TaskError
from orchestrator.models import TaskInput
from orchestrator.tasks import Limits, Task
from orchestrator.tasks.child import FRAME_ROOM, execute, set_process_option


def frame_of(action: Callable[[], object], **limits: int) -> bytes:
    chosen = Task(run=lambda _data, _parameters: action(), limits=Limits(**limits))  # type: ignore[arg-type,return-value]  # tasks may do anything
    return execute(chosen, lambda: encode_task_input(TaskInput(task="t", input=b"in")))


def raising(error: BaseException) -> Callable[[], object]:
    def action() -> object:
        raise error

    return action


def test_an_output_is_framed_as_it_is() -> None:
    assert frame_of(lambda: b"out") == b"\x00out"


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (lambda: "text", "TaskFailed"),
        (lambda: bytes(11), "OutputTooLarge"),
        (raising(TaskError("Mine", "words")), "Mine"),
        (raising(TaskError("not a code")), "TaskFailed"),
        (raising(MemoryError()), "MemoryLimitExceeded"),
        (raising(SystemExit(3)), "TaskExited"),
        (raising(KeyboardInterrupt()), "TaskFailed"),
        (raising(ValueError("x" * 5_000)), "TaskFailed"),
        (raising(OSError(errno.EFBIG, "")), "OutputTooLarge"),
        (raising(OSError(errno.ENOMEM, "")), "MemoryLimitExceeded"),
        (raising(OSError("no number")), "TaskFailed"),
    ],
    ids=[
        "text",
        "large",
        "task_error",
        "bad_code",
        "memory",
        "exit",
        "interrupt",
        "value",
        "file_size",
        "no_memory",
        "os_error",
    ],
)
def test_a_failure_is_a_code_and_a_short_message(action: Callable[[], object], code: str) -> None:
    frame = frame_of(action, output_bytes=10)

    assert frame[:1] == b"\x01"
    found, message = json.loads(frame[1:])
    assert found == code
    assert len(message) <= 1_000


@pytest.mark.parametrize("letter", ["x", "\0", "\N{GRINNING FACE}", "\ud800"])
def test_a_message_of_any_letters_is_in_utf_8_and_keeps_to_its_room(letter: str) -> None:
    frame = frame_of(raising(ValueError(letter * 5_000)))

    assert len(frame) <= FRAME_ROOM
    _, message = json.loads(frame[1:].decode())
    assert len(message.encode()) >= 1_000


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_full_disk_is_the_hosts_trouble(number: int) -> None:
    assert frame_of(raising(OSError(number, "")))[:1] == b"\x02"


def test_an_unknown_process_option_is_an_error() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        set_process_option(99_999, 1)
