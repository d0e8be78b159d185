"""
From a task to a job on the chain, exactly once.

The list (`job_list`) knows what was about to be sent, the chain knows what came of it, and bytes
are sent again only when the chain does not have them and nothing that was sent is on its way any
more.

An entry without a key is sent by its holder alone: who submits the same content beside it wants a
job of its own. One with a key is the same job for all, and whoever comes first sends it; only its
holder gives it up.
"""

import hashlib
import hmac
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

from orchestrator.chain import ContractCall, Receipt
from orchestrator.client.chain_view import ChainView
from orchestrator.client.entries import Entry, EntryState, NewEntry
from orchestrator.client.job_list import JobList
from orchestrator.client.recipients import Recipient, Recipients
from orchestrator.client.sealer import Sealer, Submission, plaintext_of
from orchestrator.crypto import OwnerSecret, read_job_header
from orchestrator.encoding import blake2_256, encode_cbor
from orchestrator.errors import (
    ContractError,
    ContractTrappedError,
    InputError,
    InsufficientFundsError,
    NotSentError,
    SpendingLimitError,
    TooHeavyError,
    UntrustedWorkerError,
)
from orchestrator.models import (
    Account,
    JobId,
    JobOptions,
    WorkerId,
)

__all__ = ["TRAPPED", "SubmitProgress", "Submitter"]

# The variant of a submission on which the contract trapped: the service's name for the same.
TRAPPED = "ContractTrapped"
_MAX_KEY_LENGTH = 128
_GROUP = 16
_LONGEST_PAUSE_SECONDS = 5.0
_SHORTEST_PAUSE_SECONDS = 0.05
# A chain with an older last block than this is known to rest, and judges a call in a new block.
_RESTING_SECONDS = 11.0
# How long to wait for what may be on its way; then somebody may try again later.
_PENDING_SECONDS = 120.0


@dataclass(frozen=True, kw_only=True)
class SubmitProgress:
    """How far `submit_many` is; it goes on after *wait_seconds*."""

    submitted: int
    refused: int
    total: int
    wait_seconds: float


@dataclass(kw_only=True)
class _Run:
    """
    Submissions on their way: what is still open, and what came of the others, by their place.

    The next *alone* entries are sent each by itself.
    """

    session: str
    wait_for_rate: bool
    total: int
    outcomes: dict[int, JobId | ContractError] = field(default_factory=dict)
    open_entries: dict[int, Entry] = field(default_factory=dict)
    alone: int = 0

    def close(self, index: int, outcome: JobId | ContractError) -> None:
        self.outcomes[index] = outcome
        del self.open_entries[index]


class Submitter:
    """Brings submissions to the chain; several processes may do so for one owner."""

    def __init__(
        self,
        view: ChainView,
        job_list: JobList,
        recipients: Recipients,
        *,
        account: Account,
        secret: OwnerSecret,
        clock: Callable[[], int],
        on_receipt: Callable[[Receipt[object]], None],
    ) -> None:
        self._view = view
        self._on_receipt = on_receipt
        self._list = job_list
        self._recipients = recipients
        self._account = account
        self._fingerprint_key = hmac.digest(
            secret.to_bytes(), b"phala-job-processor/fingerprint/v1", "sha256"
        )
        self._clock = clock

    def steps(
        self, submissions: Sequence[Submission], sealer: Sealer, *, wait_for_rate: bool
    ) -> Generator[SubmitProgress, None, list[JobId | ContractError]]:
        """
        Submit all, a group at a time; what is yielded says how long to wait before going on.

        All are checked, sealed and in the list before the first is sent. Submissions that
        the list has left behind are finished, not doubled. An outcome is a job id or the
        refusal, the contract's or our own (`NotSentError`); without *wait_for_rate*
        `RateLimited` is one. To give up before the end, close the generator.

        Raises:
            InputError: A submission is not usable; nothing was sent.
            UntrustedWorkerError: A worker is not trusted; nothing was sent.
            ChainUnavailableError: The rest is in the list, to be finished later.
        """
        self._view.require_contract()
        with self._list.session() as session:
            run = _Run(session=session, wait_for_rate=wait_for_rate, total=len(submissions))
            with self._list.sending_lock():
                self._write_down(run, submissions, sealer)
            return (yield from self._finish(run))

    def resume(self) -> Generator[SubmitProgress, None, list[JobId | ContractError]]:
        """
        Finish what the list has left behind, like `steps`; the outcomes are oldest first.

        What another session is at work on is left to it.
        """
        self._view.require_contract()
        with self._list.session() as session:
            with self._list.sending_lock(), self._list.transaction():
                left_behind, _ = self._list.unfinished_entries()
                claimed = self._list.claim(left_behind, session)
            run = _Run(session=session, wait_for_rate=True, total=len(claimed))
            run.open_entries.update(enumerate(claimed))
            return (yield from self._finish(run))

    def _finish(self, run: _Run) -> Generator[SubmitProgress, None, list[JobId | ContractError]]:
        tried_at = self._clock()
        while run.open_entries:
            with self._list.sending_lock():
                self._settle(run)
                group = self._next_group(run, (self._clock() - tried_at) / 1_000)
                is_limited = self._send(run, self._sendable(run, group))
            pause = self._pause_seconds() if is_limited or (run.open_entries and not group) else 0.0
            if group:
                # A window begins with a job: after a try, the wait is for a whole one again.
                tried_at = self._clock()
            refused = sum(isinstance(outcome, ContractError) for outcome in run.outcomes.values())
            yield SubmitProgress(
                submitted=len(run.outcomes) - refused,
                refused=refused,
                total=run.total,
                wait_seconds=pause,
            )
        return [run.outcomes[index] for index in range(run.total)]

    def _write_down(self, run: _Run, submissions: Sequence[Submission], sealer: Sealer) -> None:
        keys = [submission.key for submission in submissions if submission.key is not None]
        if len(set(keys)) != len(keys):
            raise InputError("key: two of the submissions have the same")
        counter = self._view.job_counter()
        block = self._view.chain.finalized_head().number
        left_behind, held = self._list.unfinished_entries()
        # The same key is the same job, whoever holds its entry.
        by_key = {entry.key: entry for entry in (*left_behind, *held) if entry.key is not None}
        of_others = {entry.entry for entry in held}
        # Of those without a key each is for one submission only, the oldest first.
        by_content: dict[bytes, list[Entry]] = {}
        for entry in reversed(left_behind):
            if entry.key is None:
                by_content.setdefault(entry.fingerprint, []).append(entry)
        with self._list.transaction():
            for index, submission in enumerate(submissions):
                fingerprint = self._fingerprint(submission)
                job_id = self._known_job(submission.key, fingerprint)
                if job_id is not None:
                    run.outcomes[index] = job_id
                    continue
                if submission.key is not None:
                    begun = by_key.get(submission.key)
                else:
                    same_content = by_content.get(fingerprint)
                    begun = same_content.pop() if same_content else None
                if begun is None:
                    begun = self._add(
                        submission,
                        sealer,
                        fingerprint=fingerprint,
                        counter=counter,
                        block=block,
                        session=run.session,
                    )
                elif begun.entry not in of_others:
                    (begun,) = self._list.claim([begun], run.session)
                run.open_entries[index] = begun

    def _add(
        self,
        submission: Submission,
        sealer: Sealer,
        *,
        fingerprint: bytes,
        counter: int,
        block: int,
        session: str,
    ) -> Entry:
        sealed, workers = sealer.seal(submission)
        return self._list.add(
            NewEntry(
                key=submission.key,
                fingerprint=fingerprint,
                payload_hash=blake2_256(sealed.envelope),
                envelope=sealed.envelope,
                public_key=sealed.header.reply_key,
                workers=workers,
                ttl=submission.ttl_ms,
                counter=counter,
                block=block,
                created_at=self._clock(),
                session=session,
                policy_hash=self._recipients.policy_hash,
            )
        )

    def _known_job(self, key: str | None, fingerprint: bytes) -> JobId | None:
        if key is None:
            return None
        if not 1 <= len(key) <= _MAX_KEY_LENGTH:
            raise InputError(f"key: {len(key)} characters, 1 to {_MAX_KEY_LENGTH} are possible")
        known, job_id = self._list.entry_by_key(key)
        if known is not None and not hmac.compare_digest(known, fingerprint):
            raise InputError(f"key: {key!r} was used for another submission")
        return job_id

    def _fingerprint(self, submission: Submission) -> bytes:
        content = encode_cbor(
            {
                "task": hashlib.sha256(plaintext_of(submission.task)).digest(),
                "workers": list(submission.workers or ()),
                "ttl": submission.ttl_ms,
            }
        )
        return hmac.digest(self._fingerprint_key, content, "sha256")

    def _settle(self, run: _Run) -> None:
        """
        Ask the list, and for what was perhaps sent the chain, what is already done.

        Raises:
            ChainUnavailableError: What was perhaps sent may still be on its way.
        """
        perhaps_sent: dict[bytes, int] = {}
        for index, entry in list(run.open_entries.items()):
            state, job_id, refusal = self._list.state_of(entry.entry)
            if job_id is not None:
                run.close(index, job_id)
            elif state is EntryState.REFUSED:
                run.close(index, ContractError(refusal, "when another process sent it"))
            elif state is EntryState.SENDING:
                perhaps_sent[entry.payload_hash] = index
        if not perhaps_sent:
            return
        for signer in (None, self._account):
            self._look_for(run, perhaps_sent, signer)
            if not perhaps_sent:
                return
        # Known not to be there: only when they are sent once more, there is a doubt again.
        absent = [run.open_entries[index].entry for index in perhaps_sent.values()]
        self._list.mark(absent, EntryState.SEALED)

    def _look_for(self, run: _Run, perhaps_sent: dict[bytes, int], signer: Account | None) -> None:
        """Close what is a job, once nothing is on its way; a *signer* pays to know all of that."""
        account = self._account.account_id
        self._view.chain.wait_for_pending(account, timeout_seconds=_PENDING_SECONDS, signer=signer)
        entries = [run.open_entries[index] for index in perhaps_sent.values()]
        found = self._view.find_payloads(
            account,
            perhaps_sent,
            counter=min(entry.counter for entry in entries),
            block=min(entry.block for entry in entries),
        )
        self._list.mark_submitted(
            [
                (run.open_entries[perhaps_sent[payload_hash]].entry, job_id, block)
                for payload_hash, (job_id, block) in found.items()
            ]
        )
        for payload_hash, (job_id, _) in found.items():
            run.close(perhaps_sent.pop(payload_hash), job_id)

    def _next_group(self, run: _Run, waited: float) -> list[int]:
        size = 1 if run.alone else _GROUP
        if run.wait_for_rate and run.open_entries:
            processor = self._view.processor
            left = self._view.chain.read(processor.rate_limit_left(self._account.account_id))
            # A chain without new blocks answers with the time of its last one: well after a whole
            # window by our own clock, the next call finds out.
            window_seconds = self._view.parameters().rate_window / 1_000
            is_over = waited > max(window_seconds + _LONGEST_PAUSE_SECONDS, _RESTING_SECONDS)
            size = min(size, left) if left else int(is_over)
        return list(run.open_entries)[:size]

    def _sendable(self, run: _Run, group: Sequence[int]) -> list[int]:
        """
        Refuse what of *group* must not be sent, and return the rest.

        1. The bytes in the list are those that were sealed.
        2. Each worker is still one to seal to. What is sent is public, also when the contract
           refuses it, and a worker is revoked because somebody else may have its key.
        3. They are sealed to these workers' keys. What was sealed on a node's word may be sent
           under a policy.
        """
        recipients: dict[WorkerId, Recipient | NotSentError] = {}
        sendable = []
        for index in group:
            entry = run.open_entries[index]
            for worker in entry.workers:
                if worker not in recipients:
                    recipients[worker] = self._recipient(worker)
            refusal = _why_not_sent(entry, [recipients[worker] for worker in entry.workers])
            if refusal is None:
                sendable.append(index)
            else:
                run.close(index, refusal)
                if entry.session == run.session:
                    self._list.mark_refused(entry.entry, refusal.variant)
        return sendable

    def _recipient(self, worker: WorkerId) -> Recipient | NotSentError:
        try:
            return self._recipients.worker(worker)
        except UntrustedWorkerError as error:
            return NotSentError(
                error.code, f"worker {worker} has lost its trust since the sealing: {error}"
            )

    def _send(self, run: _Run, group: Sequence[int]) -> bool:
        """Send a group and say whether some of it has to wait for the next window."""
        if not group:
            return False
        entries = [run.open_entries[index] for index in group]
        self._list.mark([entry.entry for entry in entries], EntryState.SENDING)
        try:
            answers = self._call(entries)
        except (InsufficientFundsError, SpendingLimitError):
            # Nothing was sent. What several calls came to, the chain is asked all the same.
            if len(entries) == 1:
                self._list.mark([entry.entry for entry in entries], EntryState.SEALED)
            raise
        if answers is None:
            run.alone = len(entries)
            return False
        run.alone = max(0, run.alone - len(entries))
        submitted, not_sent, is_limited = [], [], False
        for index, entry, answer in zip(group, entries, answers, strict=True):
            if not isinstance(answer, ContractError):
                self._on_receipt(answer)
                run.close(index, answer.value)
                submitted.append((entry.entry, answer.value, answer.block.number))
            elif run.wait_for_rate and answer.variant == "RateLimited":
                not_sent.append(entry.entry)
                is_limited = True
            else:
                run.close(index, answer)
                if entry.session == run.session:
                    self._list.mark_refused(entry.entry, answer.variant)
                else:
                    not_sent.append(entry.entry)
        self._list.mark_submitted(submitted)
        self._list.mark(not_sent, EntryState.SEALED)
        return is_limited

    def _call(self, entries: Sequence[Entry]) -> list[Receipt[JobId] | ContractError] | None:
        """
        The answers to entries that are sent together.

        `None` when the contract trapped on one of several, or no block has room for all: what
        came of each the chain says, and they are to be sent again by themselves.
        """
        calls = [self._message(entry) for entry in entries]
        try:
            if len(calls) > 1:
                return self._view.chain.batch(calls, signer=self._account)
            return [self._view.chain.call(calls[0], signer=self._account)]
        except ContractError as refusal:
            return [refusal]
        except TooHeavyError:
            if len(calls) > 1:
                return None
            raise
        except ContractTrappedError as trap:
            return None if len(calls) > 1 else [ContractError(TRAPPED, str(trap))]

    def _message(self, entry: Entry) -> ContractCall[JobId]:
        return self._view.processor.submit_confidential_job(
            entry.envelope,
            entry.public_key,
            JobOptions(workers=entry.workers, ttl=entry.ttl),
        )

    def _pause_seconds(self) -> float:
        twentieth = self._view.parameters().rate_window / 20_000
        return min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, twentieth))


def _why_not_sent(
    entry: Entry, recipients: Sequence[Recipient | NotSentError]
) -> NotSentError | None:
    if blake2_256(entry.envelope) != entry.payload_hash:
        return NotSentError("PayloadMismatch", "the list's bytes were changed")
    keys: list[bytes] = []
    for recipient in recipients:
        if isinstance(recipient, NotSentError):
            return recipient
        keys.append(recipient.encryption_key)
    header = read_job_header(entry.envelope)
    if header.recipients != (*keys, header.reply_key):
        return NotSentError("KeyMismatch", "it is sealed to other keys than its workers have")
    return None
