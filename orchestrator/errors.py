"""
Every exception that this package raises on purpose.

::

    Error
    ├── InputError                  bad input: the field, the limit and the value are named
    │   └── ConfigError             a setting is missing or wrong
    ├── EncodingError               bytes are not a valid statement, envelope or record
    ├── OpenError                   a sealed payload did not open; never says why
    ├── RefusedError                a rule of ours refused; the code says which
    │   ├── JobFailedError          every worker failed the job; carries their reports
    │   └── VerificationError       evidence or a statement was refused
    │       ├── JobStateError       the job can't take an attestation (now, or ever)
    │       ├── UntrustedWorkerError
    │       ├── InvalidSignatureError
    │       ├── StatementMismatchError
    │       ├── StaleEvidenceError  too early or too late: ask the worker to sign again
    │       └── EvidenceError       TEE evidence was refused; carries the whole verdict
    ├── ChainError
    │   ├── ContractError           the contract refused; carries its Error variant
    │   │   └── NotSentError        refused here, before it was sent
    │   ├── ContractTrappedError    the call trapped or ran out of fuel
    │   ├── InsufficientFundsError  the account can't pay; nothing was sent
    │   ├── TooHeavyError           does not fit into a block; nothing was sent
    │   ├── SpendingLimitError      a limit of our own; nothing was sent
    │   ├── PrunedStateError        the node has thrown an old block's state away
    │   ├── ChainMismatchError      another genesis, contract, version or file format
    │   └── ChainUnavailableError   try again; says nothing about the job
    ├── BlobError
    │   ├── BlobNotFoundError
    │   ├── BlobTooLargeError
    │   ├── BlobUnavailableError    try again; says nothing about the blob
    │   └── DigestMismatchError
    ├── WorkerError
    │   ├── WorkerUnavailableError  no answer, too slow, busy, 5xx: try again or another one
    │   ├── WorkerRefusedError      the worker refused this job: 4xx
    │   └── WorkerProtocolError     the answer is not of protocol section 4
    ├── QuoteUnavailableError       the platform gives no quote now: try again
    ├── CollateralUnavailableError  no collateral for a quote now: try again
    ├── TaskError                   a task failed by itself or exceeded its own limit
    ├── TaskHostError               the host could not run a task; says nothing about the job
    ├── JournalError                the journal belongs to another chain, contract or version
    └── WaitTimeoutError            a wait ended; nothing is known to be wrong

All live here but `JobFailedError` and `EvidenceError`, which are in `orchestrator.client` and
`orchestrator.evidence` beside what they carry.

A `VerificationError` is final for its statement, never for the job. After `StaleEvidenceError`
the worker is asked to sign again, after any other the next worker is tried.
`ChainUnavailableError`, `BlobUnavailableError` and `WorkerUnavailableError` are never final.
"""


class Error(Exception):
    """Something went wrong in phala-jobs."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or self.__doc__ or type(self).__name__)


class InputError(Error):
    """The input is not usable."""


class ConfigError(InputError):
    """A setting is missing or wrong."""


class EncodingError(Error):
    """The bytes are not in their one valid form."""


class OpenError(Error):
    """The envelope did not open."""


class RefusedError(Error):
    """
    A rule refused.

    `code` is the check that refused, a stable name: the contract's `Error` variant
    where the contract has the same check.
    """

    def __init__(self, code: str, message: str | None = None) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code


class VerificationError(RefusedError):
    """Evidence was refused."""


class JobStateError(VerificationError):
    """The job can't take an attestation."""


class UntrustedWorkerError(VerificationError):
    """The worker is not one that may attest this job."""


class InvalidSignatureError(VerificationError):
    """The signature is not this worker's over these bytes."""


class StatementMismatchError(VerificationError):
    """The statement can't belong to this job."""


class StaleEvidenceError(VerificationError):
    """The statement is too old or from the future."""


class ChainError(Error):
    """The chain did not do what was asked."""


class ContractError(ChainError):
    """
    The contract refused the call and changed nothing.

    `variant` is the name of the contract's `Error` variant.
    """

    def __init__(self, variant: str, message: str | None = None) -> None:
        super().__init__(f"the contract refused: {variant}" + (f" ({message})" if message else ""))
        self.variant = variant


class NotSentError(ContractError):
    """
    A submission was refused here, before it was sent.

    `variant` is the contract's where it would have refused too.
    """

    def __init__(self, variant: str, message: str | None = None) -> None:
        super().__init__(variant, message)
        self.args = (f"not sent: {variant}" + (f" ({message})" if message else ""),)


class ContractTrappedError(ChainError):
    """The contract call trapped and changed nothing."""


class InsufficientFundsError(ChainError):
    """The account can't pay for the call, and nothing was sent."""


class TooHeavyError(ChainError):
    """The transaction does not fit into a block, and was not sent."""


class SpendingLimitError(ChainError):
    """The call costs more than this program may spend, and nothing was sent."""


class PrunedStateError(ChainError):
    """The node has thrown away the state of an old block; an archive node keeps it."""


class ChainMismatchError(ChainError):
    """This is another chain, contract, version or file format than expected."""


class ChainUnavailableError(ChainError):
    """The chain can't be reached now."""


class BlobError(Error):
    """A blob store did not do what was asked."""


class BlobNotFoundError(BlobError):
    """There is no such blob."""


class BlobTooLargeError(BlobError):
    """The blob is larger than allowed."""


class BlobUnavailableError(BlobError):
    """The blob store can't be reached now."""


class DigestMismatchError(BlobError):
    """The bytes do not hash to their name."""


class WorkerError(Error):
    """A worker did not do what was asked."""


class WorkerUnavailableError(WorkerError):
    """
    The worker can't be used now.

    `retry_after_seconds` is what the worker asked for, if it did.
    """

    def __init__(
        self, message: str | None = None, *, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(message)
        self.retry_after_seconds = retry_after_seconds


class WorkerRefusedError(WorkerError):
    """The worker refused the request."""

    def __init__(self, status: int, message: str | None = None) -> None:
        super().__init__(f"the worker answered {status}" + (f": {message}" if message else ""))
        self.status = status


class WorkerProtocolError(WorkerError):
    """The worker's answer is not of the protocol."""


class QuoteUnavailableError(Error):
    """The platform gives no quote now."""


class CollateralUnavailableError(Error):
    """There is no collateral for the quote now."""


class TaskError(Error):
    """
    A task failed by itself or exceeded its own limit.

    `code` is a stable name that goes into the sealed failure report.
    """

    def __init__(self, code: str, message: str | None = None) -> None:
        super().__init__(f"{code}: {message}" if message else code)
        self.code = code
        self.detail = message or ""


class TaskHostError(Error):
    """The host could not run the task to its end; that says nothing about the task."""


class JournalError(Error):
    """The journal belongs to something else."""


class WaitTimeoutError(Error):
    """The wait ended before the event came."""

    def __init__(self, message: str | None = None, *, stuck: str | None = None) -> None:
        """*stuck* is why it can't come as things are, where that is known."""
        super().__init__(message)
        self.stuck = stuck
