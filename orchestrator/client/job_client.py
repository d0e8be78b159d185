"""The owner's side in one class: seal, submit, wait, open the result."""

import contextlib
import time
from collections.abc import Callable, Collection, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from orchestrator.blobs import BlobStore
from orchestrator.chain import Chain, ContractCall, Estimate, Receipt
from orchestrator.chain.bundle import Bundle
from orchestrator.client.blob_search import WorkerBlobs
from orchestrator.client.chain_view import ChainView
from orchestrator.client.entries import ListedJob, UnfinishedJob
from orchestrator.client.evidence import WorkerEvidence
from orchestrator.client.job_list import JobList
from orchestrator.client.rebuild import RebuildProgress, rebuild
from orchestrator.client.recipients import Recipients
from orchestrator.client.results import JobFailure, Result, Results
from orchestrator.client.sealer import DEFAULT_TTL_MS, OfferedTasks, Sealer, Submission
from orchestrator.client.submitter import TRAPPED, SubmitProgress, Submitter
from orchestrator.client.watch import WaitProgress, Watch
from orchestrator.collateral import CollateralSource
from orchestrator.crypto import OwnerSecret, SealedJob
from orchestrator.errors import ContractError, ContractTrappedError
from orchestrator.evidence import Policy, Verdict
from orchestrator.models import (
    Account,
    JobHead,
    JobId,
    JobOptions,
    JobStatus,
    PublicKey,
    TaskInput,
    Worker,
    WorkerId,
)

__all__ = ["JobClient"]

T = TypeVar("T")
P = TypeVar("P", WaitProgress, SubmitProgress)


def _clock() -> int:
    return time.time_ns() // 1_000_000


def _ignore(_receipt: Receipt[object]) -> None:
    """Nobody wants to know."""


def _ignore_verdict(_worker: Worker, _verdict: Verdict) -> None:
    """Nobody wants to know."""


class JobClient:
    """
    An owner's jobs on one contract.

    With a *policy*, nothing is sealed to a worker, sent for one, or taken from one, whose TEE
    evidence does not meet it; the evidence that the chain names is verified here, so that neither
    node nor registrar nor orchestrator is trusted with confidentiality (protocol rule 1.5 a).
    Bundles are kept in *evidence*; *collateral* has the newest that Intel says, else what bundles
    hold counts; *on_verdict* is told what became of each worker's evidence when it was to be
    sealed to. Without a policy the workers' keys are what *chain* says they are, and sealing needs
    *trusted_node*, by which the owner says that the node is run or trusted by them (rule 1.5 b);
    so does opening, unless *accepted_worker_keys* name who may have signed.
    *blob_sources* are asked for results in order, the orchestrator's first; *worker_blobs* gives
    the store of the worker itself, asked last (for evidence, first). With *accepted_worker_keys*
    (signing keys) nothing is sealed to another worker, sent for one, or taken from one, whatever
    the contract says; that alone leaves to the node which encryption key is a worker's. *bundle* is
    the build that the contract runs, when it is not the package's. *on_receipt* is told of every
    call that was made, and what it cost. With *offered_tasks*, which asks workers what they offer,
    a task that none of them offers is refused before it is sealed.

    An instance is used by the thread that made it (`AsyncJobClient` sees to that); any
    number of processes may work for one owner in one *state_dir*. The chain stays the caller's
    to close.
    """

    def __init__(  # noqa: PLR0913 - all by keyword, and all that an owner has to say
        self,
        *,
        chain: Chain,
        contract: bytes,
        account: Account,
        secret: OwnerSecret,
        state_dir: Path,
        trusted_node: bool,
        blob_sources: Sequence[BlobStore] = (),
        worker_blobs: WorkerBlobs | None = None,
        accepted_worker_keys: Collection[PublicKey] | None = None,
        policy: Policy | None = None,
        evidence: BlobStore | None = None,
        collateral: CollateralSource | None = None,
        on_verdict: Callable[[Worker, Verdict], None] = _ignore_verdict,
        offered_tasks: OfferedTasks | None = None,
        bundle: Bundle | None = None,
        on_receipt: Callable[[Receipt[object]], None] | None = None,
        clock: Callable[[], int] = _clock,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """
        Open the owner's job list.

        Raises:
            InputError: Other users may read it, or it is damaged.
            ChainMismatchError: It is of another version.
        """
        self._account = account
        self._on_receipt = on_receipt or _ignore
        self._secret = secret
        self._offered_tasks = offered_tasks
        self._sleep = sleep
        self._list = JobList(
            state_dir,
            genesis_hash=chain.genesis_hash,
            contract=contract,
            owner=account.account_id,
        )
        self._view = ChainView(chain, contract, bundle, check_chain=self._list.check_chain)
        verifier = None
        if policy is not None:
            verifier = WorkerEvidence(
                self._view,
                policy=policy,
                kept=evidence,
                sources=blob_sources,
                worker_blobs=worker_blobs,
                collateral=collateral,
                on_verdict=on_verdict,
                clock=clock,
            )
        self._recipients = Recipients(
            self._view,
            accepted_keys=accepted_worker_keys,
            evidence=verifier,
            trusted_node=trusted_node,
            clock=clock,
        )
        self._submitter = Submitter(
            self._view,
            self._list,
            self._recipients,
            account=account,
            secret=secret,
            clock=clock,
            on_receipt=self._on_receipt,
        )
        self._watch = Watch(self._view, self._list, owner=account.account_id, clock=clock)
        self._results = Results(
            self._view,
            self._list,
            owner=account.account_id,
            secret=secret,
            sources=blob_sources,
            worker_blobs=worker_blobs,
            accepted_keys=accepted_worker_keys,
            evidence=verifier,
            trusted_node=trusted_node,
            clock=clock,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the job list."""
        self._list.close()

    def seal(
        self,
        task: TaskInput,
        *,
        workers: Sequence[WorkerId] | None = None,
        ttl_ms: int = DEFAULT_TTL_MS,
    ) -> SealedJob:
        """
        Return *task*, sealed to trusted workers, after all checks of `submit`; nothing is sent.

        Raises:
            ConfigError: There is no policy, and the node was not said to be trusted.
            InputError: The task is too large, or a time or a number outside its limits.
            UntrustedWorkerError: A worker, or every worker, is not trusted or not accepted, or its
                evidence does not meet the policy: the code is then the check's, `E01` to `E14`.
            BlobError: A worker's evidence can't be had (now).
            CollateralUnavailableError: There is no collateral for a worker's evidence now.
            ChainMismatchError: The contract is not for this chain, or of another version.
        """
        submission = Submission(task=task, workers=_tuple(workers), ttl_ms=ttl_ms)
        return self._sealer().seal(submission)[0]

    def estimate(
        self,
        task: TaskInput,
        *,
        workers: Sequence[WorkerId] | None = None,
        ttl_ms: int = DEFAULT_TTL_MS,
    ) -> Estimate[JobId]:
        """
        What `submit` of *task* would cost now, and the id that the job would get; sends nothing.

        Raises:
            ContractError: The contract would refuse.
            Error: Those of `seal`.
        """
        submission = Submission(task=task, workers=_tuple(workers), ttl_ms=ttl_ms)
        sealed, chosen = self._sealer().seal(submission)
        call = self._view.processor.submit_confidential_job(
            sealed.envelope,
            sealed.header.reply_key,
            JobOptions(workers=chosen, ttl=ttl_ms),
        )
        return self._view.chain.estimate(call, caller=self._account.account_id)

    def submit(
        self,
        task: TaskInput,
        *,
        workers: Sequence[WorkerId] | None = None,
        ttl_ms: int = DEFAULT_TTL_MS,
        key: str | None = None,
    ) -> JobId:
        """
        Seal *task* to *workers* (or up to two trusted ones), submit it and return the job's id.

        After a crash or a `ChainUnavailableError`, submitting the same again finishes what was
        begun and never makes a second job. With a *key* that holds for ever: the same
        key and content are the same job.

        Raises:
            ContractError: The contract refused, or a worker lost its trust before anything was
                sent (`NotSentError`); nothing is left behind.
            ContractTrappedError: So did the contract's code fail; nothing is left behind.
            ChainUnavailableError: Whether it was submitted is not known; `resume` finds out.
            Error: Those of `seal`.
        """
        submission = Submission(task=task, workers=_tuple(workers), ttl_ms=ttl_ms, key=key)
        steps = self._submitter.steps([submission], self._sealer(), wait_for_rate=False)
        (outcome,) = self._drive(steps, None)
        if not isinstance(outcome, ContractError):
            return outcome
        if outcome.variant == TRAPPED:
            raise ContractTrappedError(str(outcome))
        raise outcome

    def submit_many(
        self,
        submissions: Sequence[Submission],
        *,
        progress: Callable[[SubmitProgress], None] | None = None,
    ) -> list[JobId | ContractError]:
        """
        Submit several jobs, a group at a time, and return an id or the contract's refusal of each.

        All are checked and sealed before the first is sent. Past the rate limit it waits for
        the next window and goes on. Killed, it is finished by `resume`, or by being called
        again: without keys, only those not yet submitted are known to be the same. Others may
        submit beside it: the same content is then a job of theirs, the same key the same job.

        Raises:
            ChainUnavailableError: The rest can be finished by `resume`.
            Error: Those of `seal`; nothing was sent then.
        """
        return self._drive(self.submit_steps(submissions), progress)

    def submit_steps(
        self, submissions: Sequence[Submission]
    ) -> Generator[SubmitProgress, None, list[JobId | ContractError]]:
        """
        `submit_many` for callers who do the waiting themselves.

        While the generator lives nobody else finishes its jobs; close it to give them up.
        """
        return self._submitter.steps(submissions, self._sealer(), wait_for_rate=True)

    def resume(
        self, *, progress: Callable[[SubmitProgress], None] | None = None
    ) -> list[JobId | ContractError]:
        """
        Finish every submission that was begun and left behind, oldest first.

        Each is looked for on the chain, and sent again only if it is not there.
        """
        return self._drive(self.resume_steps(), progress)

    def resume_steps(self) -> Generator[SubmitProgress, None, list[JobId | ContractError]]:
        """`resume` for callers who do the waiting themselves."""
        return self._submitter.resume()

    def wait(
        self,
        job_id: JobId,
        *,
        timeout_seconds: float,
        progress: Callable[[WaitProgress], None] | None = None,
    ) -> JobStatus:
        """
        Wait until the job is processed, failed, cancelled or expired, and say which.

        Time is that of the own clock. A chain that can't be reached for a while is no reason
        to stop.

        Raises:
            WaitTimeoutError: It is none of these yet.
            JobStateError: Its deadline has passed: nobody can attest it any more.
            InputError: There is no such job.
        """
        return self._drive(self.wait_steps(job_id, timeout_seconds=timeout_seconds), progress)

    def wait_steps(
        self, job_id: JobId, *, timeout_seconds: float
    ) -> Generator[WaitProgress, None, JobStatus]:
        """`wait` for callers who do the waiting themselves."""
        return self._watch.steps(job_id, timeout_seconds=timeout_seconds)

    def status(self, job_id: JobId) -> JobStatus:
        """
        The job's status at the finalized head; of a purged one, that which it ended with.

        Raises:
            InputError: There is no such job.
        """
        self._view.require_contract()
        return self._watch.look(job_id)[0]

    def result(self, job_id: JobId, *, accept_revoked_worker: bool = False) -> Result:
        """
        Return the job's result, also when the job is purged.

        1. The job is this owner's, and its payload the one that was submitted.
        2. The worker is one that the job was sealed to, by the list that sent it, has the key that
           signed, and is one that the owner accepts; neither it nor its measurement was revoked,
           unless the caller accepts that. It did not sign before the job was submitted, nor in the
           future. Under a policy its evidence meets that, at the time of signing: evidence runs
           out, and what was signed before stays signed.
        3. The sealed bytes hash to the result hash that the chain recorded.
        4. The statement's signature is by that key, over this chain, contract, job and payload.
        5. The result's header names the same, and it opens with the owner's secret.

        Does **not** need the job to be marked processed. Where the list did not send the job, whom
        it was sealed to and when is the node's word: `Result.is_submission_known` says so.

        A job that was sealed under a policy is opened under one, or by a node said to be trusted.

        Raises:
            ConfigError: There is no policy, and the node was not said to be trusted.
            JobFailedError: Every worker failed; the error has their opened reports.
            JobStateError: There is no result, or not yet.
            RefusedError: A check failed; the code says which.
            OpenError: It is not sealed to this owner's secret.
            BlobNotFoundError: No store has it.
            BlobUnavailableError: A store that may have it can't be reached now.
        """
        return self._results.result(job_id, accept_revoked=accept_revoked_worker)

    def failures(
        self, job_id: JobId, *, accept_revoked_worker: bool = False
    ) -> tuple[JobFailure, ...]:
        """The failures that workers signed, opened, also when another worker completed the job."""
        return self._results.failures(job_id, accept_revoked=accept_revoked_worker)

    def cancel(self, job_id: JobId) -> None:
        """
        Cancel the job; not an error when it is cancelled already.

        Raises:
            ContractError: The job is not this account's or can't be cancelled (any more).
        """
        self._end(self._view.processor.cancel_job(job_id), job_id, JobStatus.CANCELLED)

    def expire(self, job_id: JobId) -> None:
        """
        Close a job whose deadline has passed; not an error when it is expired already.

        Raises:
            ContractError: Its deadline has not passed, or it was attested or closed.
        """
        self._end(self._view.processor.expire_job(job_id), job_id, JobStatus.EXPIRED)

    def purge(self, job_id: JobId) -> None:
        """
        Remove a finished job from the contract's storage; not an error when it is gone already.

        Its deposit comes back to the owner. The result can be opened for as long as a blob
        store keeps it.

        Raises:
            ContractError: The job is not finished, not this account's, or never was.
        """
        self._view.require_contract()
        # Nobody else can change a finished job: this is how it ended.
        head = self._view.heads([job_id]).get(job_id)
        try:
            self._call(self._view.processor.purge_job(job_id))
        except ContractError as refusal:
            if refusal.variant != "JobNotFound" or self._list.job(job_id) is None:
                raise
            self._watch.look(job_id)
        else:
            self._list.update(job_id, status=head.status if head else None, purged=True)

    def jobs(self, *, refresh: bool = True) -> list[ListedJob]:
        """
        The owner's jobs as this machine knows them, oldest first.

        With *refresh* the chain is asked about those that are not finished yet.
        """
        if refresh:
            self._view.require_contract()
            self._watch.refresh()
        return self._list.jobs()

    def unfinished(self) -> list[UnfinishedJob]:
        """
        Submissions that were begun and left behind; `resume` finishes them.

        What a process is at work on is not among them.
        """
        return self._list.unfinished()

    def rebuild(self, *, progress: Callable[[RebuildProgress], None] | None = None) -> int:
        """
        Restore the list from the chain and return how many jobs of this owner there are.

        Jobs that exist are found by paging, purged ones by their events, as far back as the node
        keeps them. Keys of submissions are only in the lost list and do not come back.
        """
        self._view.require_contract()
        return rebuild(self._view, self._list, owner=self._account.account_id, progress=progress)

    def _sealer(self) -> Sealer:
        return Sealer(
            self._view,
            self._recipients,
            owner=self._account.account_id,
            secret=self._secret,
            offered_tasks=self._offered_tasks,
        )

    def _end(self, call: ContractCall[None], job_id: JobId, status: JobStatus) -> None:
        self._view.require_contract()
        try:
            self._call(call)
        except ContractError as refusal:
            if refusal.variant != "WrongStatus":
                raise
            head = self._view.heads([job_id]).get(job_id)
            if head is None:
                raise
            if head.status is not status:
                raise ContractError(refusal.variant, _why_not(head, status)) from None
        self._list.update(job_id, status=status)

    def _call(self, call: ContractCall[None]) -> None:
        self._on_receipt(self._view.chain.call(call, signer=self._account))

    def _drive(self, steps: Generator[P, None, T], progress: Callable[[P], None] | None) -> T:
        # Closed also when the caller's progress or sleep raises: what is open is left behind then.
        with contextlib.closing(steps):
            while True:
                try:
                    step = next(steps)
                except StopIteration as end:
                    value: T = end.value
                    return value
                if progress:
                    progress(step)
                if step.wait_seconds:
                    self._sleep(step.wait_seconds)


def _why_not(head: JobHead, wanted: JobStatus) -> str:
    job = f"job {head.job_id} is {head.status.value}"
    if wanted is JobStatus.CANCELLED and head.status is JobStatus.ATTESTED:
        return f"{job}; it can be cancelled if it is not marked within mark_grace"
    return f"{job}; only a Submitted one can be {wanted.value.lower()}"


def _tuple(workers: Sequence[WorkerId] | None) -> tuple[WorkerId, ...] | None:
    return None if workers is None else tuple(workers)
