"""Which error ends with which code."""

import inspect

import pytest

from orchestrator import errors
from orchestrator.cli.errors import ExitCode, error_code, error_message, exit_code


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InputError(), ExitCode.USAGE),
        (errors.ConfigError(), ExitCode.USAGE),
        (errors.EncodingError(), ExitCode.USAGE),
        (errors.RefusedError("x"), ExitCode.REFUSED),
        (errors.InvalidSignatureError("BadSignature"), ExitCode.REFUSED),
        (errors.ContractError("NotAdmin"), ExitCode.REFUSED),
        (errors.ChainMismatchError(), ExitCode.REFUSED),
        (errors.OpenError(), ExitCode.REFUSED),
        (errors.DigestMismatchError(), ExitCode.REFUSED),
        (errors.WorkerRefusedError(401), ExitCode.REFUSED),
        (errors.TaskError("TooSlow"), ExitCode.REFUSED),
        (errors.JournalError(), ExitCode.REFUSED),
        (OSError(28, "No space left on device", "/x"), ExitCode.REFUSED),
        (errors.ChainUnavailableError(), ExitCode.UNKNOWN),
        (errors.CollateralUnavailableError(), ExitCode.UNKNOWN),
        (errors.QuoteUnavailableError(), ExitCode.UNKNOWN),
        (errors.BlobNotFoundError(), ExitCode.UNKNOWN),
        (errors.BlobUnavailableError(), ExitCode.UNKNOWN),
        (errors.WorkerUnavailableError(), ExitCode.UNKNOWN),
        (errors.WorkerProtocolError(), ExitCode.UNKNOWN),
        (errors.WaitTimeoutError(), ExitCode.UNKNOWN),
        (ZeroDivisionError(), ExitCode.UNKNOWN),
    ],
)
def test_exit_codes(error: Exception, code: ExitCode) -> None:
    assert exit_code(error) is code


def test_every_error_of_ours_has_a_code_that_is_not_done() -> None:
    for name, kind in vars(errors).items():
        if inspect.isclass(kind) and issubclass(kind, errors.Error):
            arguments = [401] if "status" in inspect.signature(kind).parameters else ["x"]
            assert exit_code(kind(*arguments)) is not ExitCode.DONE, name


def test_the_name_of_an_error_is_the_rule_that_refused() -> None:
    assert error_code(errors.ContractError("NotAdmin")) == "NotAdmin"
    assert error_code(errors.RefusedError("DailyJobs")) == "DailyJobs"
    assert error_code(errors.TaskError("BadInput")) == "BadInput"
    assert error_code(errors.InputError("x")) == "InputError"


def test_messages_are_one_line_and_name_the_place() -> None:
    assert error_message(errors.InputError("a\n b")) == "a b"
    assert error_message(OSError(28, "No space left on device", "/x")) == (
        "/x: No space left on device"
    )
    assert error_message(OSError("odd")) == "odd"
    assert "bug" in error_message(ZeroDivisionError("division"))
