"""
The contract's messages and events, typed: `JobProcessor` is pure and talks to no chain.

Every method is the contract message of the same name (protocol 2.2) and returns the encoded call,
to be handed to a `Chain`. Nothing is checked here but the types of arguments: the rules are the
contract's.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, TypeVar, cast

from orchestrator.chain import ContractCall, RawEvent
from orchestrator.chain.bundle import Bundle, load_bundle
from orchestrator.chain.scale import Variant
from orchestrator.errors import ChainMismatchError, ContractError, InputError
from orchestrator.models import (
    Attestation,
    AttestationStatus,
    Completion,
    Job,
    JobHead,
    JobId,
    JobOptions,
    JobStatus,
    Mode,
    Outcome,
    Page,
    Parameters,
    PublicKey,
    Role,
    Signature,
    Worker,
    WorkerId,
    WorkerRegistration,
)

__all__ = ["ContractEvent", "JobProcessor"]

T = TypeVar("T")

_CONTRACT_BYTES = 32
# The dry run would have accepted an item, and the block did not: its job has changed in between.
_OVERTAKEN = "WrongStatus"
_Items: TypeAlias = "list[ContractError | None]"
_Raws: TypeAlias = "tuple[RawEvent, ...]"


@dataclass(frozen=True, kw_only=True)
class ContractEvent:
    """
    One decoded event of the contract.

    `fields` holds models where the contract has a struct or an enum, else bytes and integers.
    """

    name: str
    fields: Mapping[str, object]
    raw: RawEvent

    @property
    def statement(self) -> Mapping[str, object] | None:
        """
        The worker's statement that was recorded, `None` when the event tells of none.

        Its fields are those of `AttestationRecorded`. A `JobProcessed` holds them too when its
        statement was recorded and its job marked in one step: there is no other event then.
        """
        if self.name == "AttestationRecorded":
            return self.fields
        statement = self.fields.get("statement")
        if self.name != "JobProcessed" or not isinstance(statement, Mapping):
            return None
        shared = {name: self.fields[name] for name in ("job_id", "result_hash")}
        return {**shared, "outcome": Outcome.COMPLETED, **statement}


class JobProcessor:
    """The contract at one address, by one bundle's metadata (the package's unless given)."""

    def __init__(self, contract: bytes, bundle: Bundle | None = None) -> None:
        if len(contract) != _CONTRACT_BYTES:
            message = f"contract: {len(contract)} bytes, not {_CONTRACT_BYTES}"
            raise InputError(message)
        self.contract = contract
        self.bundle = bundle or load_bundle()
        self._ink = self.bundle.ink

    def new(self, genesis_hash: bytes, parameters: Parameters) -> ContractCall[None]:
        """Return the constructor call, for `Chain.deploy`."""
        return ContractCall(
            contract=self.contract,
            label="new",
            data=self._ink.encode_constructor(
                "new", genesis_hash=genesis_hash, parameters=parameters
            ),
            decode=lambda data: self._ink.decode_construction("new", data),
        )

    def decode_event(self, raw: RawEvent) -> ContractEvent:
        """
        Return the decoded event.

        Raises:
            ChainMismatchError: It is another contract's, or not in this metadata.
        """
        name, fields = self._ink.decode_event(raw.topics, raw.data)
        return ContractEvent(name=name, fields=fields, raw=raw)

    # Jobs.

    def submit_confidential_job(
        self, encrypted_payload: bytes, public_key: bytes, options: JobOptions
    ) -> ContractCall[JobId]:
        """Submit a job whose sealed payload is stored in the contract."""
        call: ContractCall[JobId] = self._call(
            "submit_confidential_job",
            encrypted_payload=encrypted_payload,
            public_key=public_key,
            options=options,
        )
        return replace(call, settle=self._first("JobSubmitted", "job_id"))

    def submit_job_reference(
        self,
        payload_hash: bytes,
        length: int,
        location: bytes,
        public_key: bytes,
        options: JobOptions,
    ) -> ContractCall[JobId]:
        """Submit a job whose sealed payload is stored elsewhere."""
        call: ContractCall[JobId] = self._call(
            "submit_job_reference",
            payload_hash=payload_hash,
            length=length,
            location=location,
            public_key=public_key,
            options=options,
        )
        return replace(call, settle=self._first("JobSubmitted", "job_id"))

    def record_attestation(self, completion: Completion) -> ContractCall[None]:
        """Record a worker's signed statement; anyone may carry it."""
        return self._call(
            "record_attestation",
            job_id=completion.job_id,
            result_hash=completion.result_hash,
            attestation_proof=completion.attestation_proof,
            tee_worker_pubkey=completion.tee_worker_pubkey,
        )

    def complete_jobs(
        self, completions: Sequence[Completion]
    ) -> ContractCall[list[ContractError | None]]:
        """Record and mark several jobs; each item succeeds (`None`) or fails by itself."""
        call = self._call("complete_jobs", _item_results, completions=tuple(completions))
        return replace(
            call,
            settle=self._settle_items(tuple(completions)),
            refusals=lambda items: [error for error in items if error is not None],
        )

    def verify_attestation(self, job_id: JobId) -> ContractCall[bool]:
        """Ask whether the job's attestation is valid today."""
        return self._call("verify_attestation", job_id=job_id)

    def attestation_status(self, job_id: JobId) -> ContractCall[AttestationStatus]:
        """Ask what the job's attestation is worth today."""
        return self._call("attestation_status", job_id=job_id)

    def mark_job_processed(self, job_id: JobId) -> ContractCall[None]:
        """Accept an attested job's result."""
        return self._call("mark_job_processed", job_id=job_id)

    def cancel_job(self, job_id: JobId) -> ContractCall[None]:
        """Withdraw a job."""

        def is_attested(page: object) -> bool:
            heads = cast("Page[JobHead]", page).items
            return [(head.job_id, head.status) for head in heads] == [(job_id, JobStatus.ATTESTED)]

        # The owner of an attested job that nobody marks may withdraw it after some time.
        question = self._call("jobs_page", is_attested, **{"from": job_id, "limit": 1})
        call: ContractCall[None] = self._call("cancel_job", job_id=job_id)
        return replace(call, turned_by_time={"WrongStatus": question})

    def expire_job(self, job_id: JobId) -> ContractCall[None]:
        """Close a job whose deadline has passed."""
        return self._call("expire_job", job_id=job_id)

    def purge_job(self, job_id: JobId) -> ContractCall[None]:
        """Remove a finished job's storage."""
        return self._call("purge_job", job_id=job_id)

    def release_account(self) -> ContractCall[None]:
        """Remove the caller's rate cell."""
        return self._call("release_account")

    def get_job(self, job_id: JobId) -> ContractCall[Job | None]:
        """Read a job with its payload."""
        return self._call("get_job", job_id=job_id)

    def get_attestation(self, job_id: JobId) -> ContractCall[Attestation | None]:
        """Read a job's attestation."""
        return self._call("get_attestation", job_id=job_id)

    def get_job_counter(self) -> ContractCall[int]:
        """Read the last job id that was given out; 0 before the first."""
        return self._call("get_job_counter")

    def jobs_page(self, from_id: JobId, limit: int) -> ContractCall[Page[JobHead]]:
        """Read job heads by id, purged ids skipped."""
        return self._call("jobs_page", **{"from": from_id, "limit": limit})

    def rate_limit_left(self, account: bytes) -> ContractCall[int]:
        """Read how many jobs the account may still submit in its window."""
        return self._call("rate_limit_left", account=account)

    # Workers.

    def register_worker(
        self, registration: WorkerRegistration, possession: Signature
    ) -> ContractCall[WorkerId]:
        """Enter a worker into the trusted list."""
        call: ContractCall[WorkerId] = self._call(
            "register_worker", registration=registration, possession=possession
        )
        return replace(call, settle=self._first("WorkerRegistered", "worker"))

    def renew_worker(
        self, worker: WorkerId, evidence_hash: bytes, valid_until: int, possession: Signature
    ) -> ContractCall[None]:
        """Extend a worker's registration."""
        return self._call(
            "renew_worker",
            worker=worker,
            evidence_hash=evidence_hash,
            valid_until=valid_until,
            possession=possession,
        )

    def suspend_worker(self, worker: WorkerId) -> ContractCall[None]:
        """Suspend a worker."""
        return self._call("suspend_worker", worker=worker)

    def reinstate_worker(self, worker: WorkerId) -> ContractCall[None]:
        """Lift a suspension."""
        return self._call("reinstate_worker", worker=worker)

    def revoke_worker(self, worker: WorkerId, reason: bytes) -> ContractCall[None]:
        """Revoke a worker for ever."""
        return self._call("revoke_worker", worker=worker, reason=reason)

    def allow_measurement(self, measurement: bytes) -> ContractCall[None]:
        """Allow workers of a measurement."""
        return self._call("allow_measurement", measurement=measurement)

    def revoke_measurement(self, measurement: bytes) -> ContractCall[None]:
        """Revoke a measurement, and the trust in all its workers, for ever."""
        return self._call("revoke_measurement", measurement=measurement)

    def get_worker(self, worker: WorkerId) -> ContractCall[Worker | None]:
        """Read a worker."""
        return self._call("get_worker", worker=worker)

    def worker_by_key(self, signing_key: PublicKey) -> ContractCall[Worker | None]:
        """Read the worker that registered a signing key."""
        return self._call("worker_by_key", signing_key=signing_key)

    def workers_page(self, from_id: WorkerId, limit: int) -> ContractCall[Page[Worker]]:
        """Read workers by id."""
        return self._call("workers_page", **{"from": from_id, "limit": limit})

    def is_trusted(self, worker: WorkerId) -> ContractCall[bool]:
        """Ask whether a worker is trusted now."""
        return self._call("is_trusted", worker=worker)

    def has_measurement(self, measurement: bytes) -> ContractCall[bool]:
        """Ask whether a measurement is allowed."""
        return self._call("has_measurement", measurement=measurement)

    # Administration.

    def grant_role(self, account: bytes, role: Role) -> ContractCall[None]:
        """Give an account a role."""
        return self._call("grant_role", account=account, role=role)

    def revoke_role(self, account: bytes, role: Role) -> ContractCall[None]:
        """Take a role from an account."""
        return self._call("revoke_role", account=account, role=role)

    def has_role(self, account: bytes, role: Role) -> ContractCall[bool]:
        """Ask whether an account has a role."""
        return self._call("has_role", account=account, role=role)

    def propose_admin(self, account: bytes) -> ContractCall[None]:
        """Propose another admin, who has to accept."""
        return self._call("propose_admin", account=account)

    def accept_admin(self) -> ContractCall[None]:
        """Become the admin, as proposed."""
        return self._call("accept_admin")

    def admin(self) -> ContractCall[bytes]:
        """Read who the admin is."""
        return self._call("admin")

    def set_parameters(self, parameters: Parameters) -> ContractCall[None]:
        """Change the limits."""
        return self._call("set_parameters", parameters=parameters)

    def parameters(self) -> ContractCall[Parameters]:
        """Read the limits."""
        return self._call("parameters")

    def set_mode(self, mode: Mode) -> ContractCall[None]:
        """Change which messages are accepted."""
        return self._call("set_mode", mode=mode)

    def mode(self) -> ContractCall[Mode]:
        """Read which messages are accepted."""
        return self._call("mode")

    def set_code(self, code_hash: bytes) -> ContractCall[None]:
        """Replace the contract's code in place."""
        return self._call("set_code", code_hash=code_hash)

    def genesis_hash(self) -> ContractCall[bytes]:
        """Read the genesis hash that the contract was deployed with."""
        return self._call("genesis_hash")

    def version(self) -> ContractCall[int]:
        """Read the version of the contract's storage."""
        return self._call("version")

    def _first(self, name: str, field: str) -> Callable[[int, tuple[RawEvent, ...]], int]:
        """Settle on what the event of this name says; the dry run may have been overtaken."""

        def settle(_foreseen: int, events: tuple[RawEvent, ...]) -> int:
            for raw in events:
                event = self.decode_event(raw)
                if event.name == name:
                    return cast("int", event.fields[field])
            message = f"the call emitted no {name}"
            raise ChainMismatchError(message)

        return settle

    def _settle_items(self, completions: Sequence[Completion]) -> Callable[[_Items, _Raws], _Items]:
        """Settle each item on whether the block holds its events; several may be of one job."""

        def settle(foreseen: _Items, events: _Raws) -> _Items:
            told = deque(self.decode_event(raw) for raw in events)
            return [
                None
                if _took_effect(item, told)
                else error or ContractError(_OVERTAKEN, "complete_jobs")
                for item, error in zip(completions, foreseen, strict=True)
            ]

        return settle

    def _call(
        self, label: str, convert: Callable[[object], T] | None = None, /, **arguments: object
    ) -> ContractCall[T]:
        def decode(data: bytes) -> T:
            value = self._ink.decode_result(label, data)
            # The metadata gives the type: adapters built the value, and `load_bundle` compared
            # every type that has one.
            return convert(value) if convert else cast("T", value)

        return ContractCall(
            contract=self.contract,
            label=label,
            data=self._ink.encode_message(label, **arguments),
            decode=decode,
        )


def _took_effect(item: Completion, told: deque[ContractEvent]) -> bool:
    """Take the item's events off the front (they come in the items' order), if there are any."""
    ours = {"job_id": item.job_id, "result_hash": item.result_hash}
    proof = item.attestation_proof
    if proof.outcome is Outcome.FAILED:
        recorded = _take(told, "AttestationRecorded", {**ours, "signature": proof.signature})
        if recorded:
            _take(told, "JobFailed", {"job_id": item.job_id})
        return recorded
    statement = told[0].statement if told else None
    if statement is not None and statement["signature"] != proof.signature:
        return False
    return _take(told, "JobProcessed", ours)


def _take(told: deque[ContractEvent], name: str, fields: Mapping[str, object]) -> bool:
    is_next = bool(told) and told[0].name == name and fields.items() <= told[0].fields.items()
    if is_next:
        told.popleft()
    return is_next


def _item_results(value: object) -> list[ContractError | None]:
    return [_item_error(item) for item in cast("tuple[Variant, ...]", value)]


def _item_error(item: Variant) -> ContractError | None:
    if item.name == "Ok":
        return None
    return ContractError(cast("Variant", item.value).name, "complete_jobs")
