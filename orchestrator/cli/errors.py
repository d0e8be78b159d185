"""
What an error means to whoever ran the command: its exit code and its name in JSON.

0 done, 1 refused, 2 bad usage or input, 3 could not tell. 130 is Ctrl-C, as shells have it.
"""

from enum import IntEnum

from orchestrator.errors import (
    BlobNotFoundError,
    BlobUnavailableError,
    ChainUnavailableError,
    CollateralUnavailableError,
    ContractError,
    EncodingError,
    Error,
    InputError,
    QuoteUnavailableError,
    RefusedError,
    TaskError,
    WaitTimeoutError,
    WorkerProtocolError,
    WorkerUnavailableError,
)


class ExitCode(IntEnum):
    """How a command ended."""

    DONE = 0
    REFUSED = 1
    USAGE = 2
    UNKNOWN = 3


_BAD_INPUT = (InputError, EncodingError)
_COULD_NOT_TELL = (
    BlobNotFoundError,
    BlobUnavailableError,
    ChainUnavailableError,
    CollateralUnavailableError,
    QuoteUnavailableError,
    WaitTimeoutError,
    WorkerProtocolError,
    WorkerUnavailableError,
)


def exit_code(error: BaseException) -> ExitCode:
    """
    The exit code for an expected error.

    An `OSError` is the machine's refusal (a full disk, a port in use): its message
    names the place. Anything that is neither ours nor the machine's is a bug, and
    nothing can be told about what was asked for.
    """
    if isinstance(error, _BAD_INPUT):
        return ExitCode.USAGE
    if isinstance(error, _COULD_NOT_TELL):
        return ExitCode.UNKNOWN
    if isinstance(error, Error | OSError):
        return ExitCode.REFUSED
    return ExitCode.UNKNOWN


def error_code(error: BaseException) -> str:
    """A stable name: the rule or contract error that refused, else the error's class."""
    if isinstance(error, ContractError):
        return error.variant
    if isinstance(error, RefusedError | TaskError):
        return error.code
    return type(error).__name__


def error_message(error: BaseException) -> str:
    """One line for people."""
    if isinstance(error, Error):
        return " ".join(str(error).split())
    if isinstance(error, OSError):
        place = f"{error.filename}: " if error.filename is not None else ""
        return f"{place}{error.strerror or error}"
    return f"this is a bug in phala-jobs ({type(error).__name__}: {error}); --debug shows where"
