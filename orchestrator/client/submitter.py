"""
From a task to a job on the chain, exactly once.

The list (`job_list`) knows what was about to be sent, the chain knows what came of it, and bytes
are sent again only when the chain does not have them.
"""

import hashlib
import hmac
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from orchestrator.chain import ContractCall, Receipt
from orchestrator.client.chain_view import ChainView
from orchestrator.client.entries import Entry, EntryState, NewEntry
from orchestrator.client.job_list import JobList
from orchestrator.client.sealer import Sealer, Submission, plaintext_of
from orchestrator.crypto import OwnerSecret
from orchestrator.encoding import blake2_256, encode_cbor
from orchestrator.errors import (
    ContractError,
    ContractTrappedError,
    InputError,
)
from orchestrator.models import (
    Account,
    JobId,
    JobOptions,
)

__all__ = ["SubmitProgress", "Submitter"]

_MAX_KEY_LENGTH = 128
_GROUP = 16
_LONGEST_PAUSE_SECONDS = 5.0
_SHORTEST_PAUSE_SECONDS = 0.05


@dataclass(frozen=True, kw_only=True)
class SubmitProgress:
    """How far `submit_many` is; it goes on after *wait_seconds*."""

    submitted: int
    refused: int
    total: int
    wait_seconds: float


class Submitter:
    """Brings submissions to the chain; several processes may do so for one owner."""

    def __init__(
        self,
        view: ChainView,
        job_list: JobList,
        *,
        account: Account,
        secret: OwnerSecret,
        clock: Callable[[], int],
    ) -> None:
        self._view = view
        self._list = job_list
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
        the list has unfinished are finished, not doubled. An outcome is a job id or the
        contract's refusal; without *wait_for_rate* `RateLimited` is one.

        Raises:
            InputError: A submission is not usable; nothing was sent.
            UntrustedWorkerError: A worker is not trusted; nothing was sent.
            ChainUnavailableError: The rest is in the list, to be finished later.
        """
        self._view.require_contract()
        with self._list.sending_lock():
            outcomes, open_entries = self._write_down(submissions, sealer)
        return (
            yield from self._run(
                open_entries, outcomes, len(submissions), wait_for_rate=wait_for_rate
            )
        )

    def resume(self) -> Generator[SubmitProgress, None, list[JobId | ContractError]]:
        """Finish what the list has unfinished, like `steps`; the outcomes are oldest first."""
        self._view.require_contract()
        open_entries = dict(enumerate(self._list.unfinished_entries()))
        return self._run(open_entries, {}, len(open_entries), wait_for_rate=True)

    def _run(
        self,
        open_entries: dict[int, Entry],
        outcomes: dict[int, JobId | ContractError],
        total: int,
        *,
        wait_for_rate: bool,
    ) -> Generator[SubmitProgress, None, list[JobId | ContractError]]:
        waited = 0.0
        while open_entries:
            with self._list.sending_lock():
                self._settle(outcomes, open_entries)
                group = self._next_group(open_entries, waited, wait_for_rate=wait_for_rate)
                is_limited = self._send(outcomes, open_entries, group, wait_for_rate=wait_for_rate)
            pause = self._pause_seconds() if is_limited or (open_entries and not group) else 0.0
            # A window begins with a job: after one was tried, the wait is for a whole one again.
            waited = pause if group else waited + pause
            refused = sum(isinstance(outcome, ContractError) for outcome in outcomes.values())
            yield SubmitProgress(
                submitted=len(outcomes) - refused,
                refused=refused,
                total=total,
                wait_seconds=pause,
            )
        return [outcomes[index] for index in range(total)]

    def _write_down(
        self, submissions: Sequence[Submission], sealer: Sealer
    ) -> tuple[dict[int, JobId | ContractError], dict[int, Entry]]:
        outcomes: dict[int, JobId | ContractError] = {}
        open_entries: dict[int, Entry] = {}
        keys = [submission.key for submission in submissions if submission.key is not None]
        if len(set(keys)) != len(keys):
            raise InputError("key: two of the submissions have the same")
        counter = self._view.job_counter()
        block = self._view.chain.finalized_head().number
        left_behind = self._list.unfinished_entries()
        by_key = {entry.key: entry for entry in left_behind if entry.key is not None}
        # Each for one submission only, the oldest first.
        by_content: dict[bytes, list[Entry]] = {}
        for entry in reversed(left_behind):
            if entry.key is None:
                by_content.setdefault(entry.fingerprint, []).append(entry)
        with self._list.transaction():
            for index, submission in enumerate(submissions):
                fingerprint = self._fingerprint(submission)
                job_id = self._known_job(submission.key, fingerprint)
                if job_id is not None:
                    outcomes[index] = job_id
                    continue
                if submission.key is not None:
                    begun = by_key.get(submission.key)
                else:
                    same_content = by_content.get(fingerprint)
                    begun = same_content.pop() if same_content else None
                open_entries[index] = begun or self._add(
                    submission, sealer, fingerprint=fingerprint, counter=counter, block=block
                )
        return outcomes, open_entries

    def _add(
        self,
        submission: Submission,
        sealer: Sealer,
        *,
        fingerprint: bytes,
        counter: int,
        block: int,
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

    def _settle(
        self, outcomes: dict[int, JobId | ContractError], open_entries: dict[int, Entry]
    ) -> None:
        """Ask the list, and for what was perhaps sent the chain, what is already done."""
        perhaps_sent: dict[bytes, int] = {}
        for index, entry in list(open_entries.items()):
            state, job_id, refusal = self._list.state_of(entry.entry)
            if job_id is not None:
                outcomes[index] = job_id
                del open_entries[index]
            elif state is EntryState.REFUSED:
                # Another process of this owner sent the same bytes meanwhile.
                outcomes[index] = ContractError(refusal, "when another process sent it")
                del open_entries[index]
            elif state is EntryState.SENDING:
                perhaps_sent[entry.payload_hash] = index
        if not perhaps_sent:
            return
        entries = [open_entries[index] for index in perhaps_sent.values()]
        found = self._view.find_payloads(
            self._account.account_id,
            perhaps_sent,
            counter=min(entry.counter for entry in entries),
            block=min(entry.block for entry in entries),
        )
        self._list.mark_submitted(
            [
                (open_entries[perhaps_sent[payload_hash]].entry, job_id, block)
                for payload_hash, (job_id, block) in found.items()
            ]
        )
        for payload_hash, (job_id, _) in found.items():
            index = perhaps_sent[payload_hash]
            outcomes[index] = job_id
            del open_entries[index]

    def _next_group(
        self, open_entries: dict[int, Entry], waited: float, *, wait_for_rate: bool
    ) -> list[int]:
        size = _GROUP
        if wait_for_rate and open_entries:
            processor = self._view.processor
            left = self._view.chain.read(processor.rate_limit_left(self._account.account_id))
            # A chain without new blocks answers with the time of its last one: well after a whole
            # window by our own clock, the next call finds out.
            window_seconds = self._view.parameters().rate_window / 1_000
            is_over = waited > window_seconds + _LONGEST_PAUSE_SECONDS
            size = min(_GROUP, left) if left else int(is_over)
        return list(open_entries)[:size]

    def _send(
        self,
        outcomes: dict[int, JobId | ContractError],
        open_entries: dict[int, Entry],
        group: list[int],
        *,
        wait_for_rate: bool,
    ) -> bool:
        """Send a group and say whether some of it has to wait for the next window."""
        if not group:
            return False
        entries = [open_entries[index] for index in group]
        self._list.mark([entry.entry for entry in entries], EntryState.SENDING)
        answers = self._call(entries)
        submitted, postponed = [], []
        for index, entry, answer in zip(group, entries, answers, strict=True):
            if not isinstance(answer, ContractError):
                outcomes[index] = answer.value
                submitted.append((entry.entry, answer.value, answer.block.number))
            elif wait_for_rate and answer.variant == "RateLimited":
                postponed.append(entry.entry)
                continue
            else:
                outcomes[index] = answer
                self._list.mark_refused(entry.entry, answer.variant)
            del open_entries[index]
        self._list.mark_submitted(submitted)
        self._list.mark(postponed, EntryState.SEALED)
        return bool(postponed)

    def _call(self, entries: Sequence[Entry]) -> list[Receipt[JobId] | ContractError]:
        calls = [self._message(entry) for entry in entries]
        if len(calls) > 1:
            return self._view.chain.batch(calls, signer=self._account)
        try:
            return [self._view.chain.call(calls[0], signer=self._account)]
        except ContractError as refusal:
            return [refusal]
        except ContractTrappedError:
            self._list.mark_refused(entries[0].entry, "trapped")
            raise

    def _message(self, entry: Entry) -> ContractCall[JobId]:
        return self._view.processor.submit_confidential_job(
            entry.envelope,
            entry.public_key,
            JobOptions(workers=entry.workers, ttl=entry.ttl),
        )

    def _pause_seconds(self) -> float:
        twentieth = self._view.parameters().rate_window / 20_000
        return min(_LONGEST_PAUSE_SECONDS, max(_SHORTEST_PAUSE_SECONDS, twentieth))
