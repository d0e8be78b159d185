"""
What this package knows of the contract: its types, messages and errors (protocol section 2).

Each is compared with a bundle's metadata when the bundle is loaded, in order: SCALE encodes
variants by index and fields by position, so a difference here would be wrong bytes later.
"""

from collections.abc import Mapping
from dataclasses import fields
from enum import Enum

from orchestrator.chain.registry import Adapter, TypeShape
from orchestrator.chain.scale import Variant
from orchestrator.errors import ChainMismatchError, InputError
from orchestrator.models import (
    Attestation,
    AttestationProof,
    AttestationStatus,
    Completion,
    InlinePayload,
    Job,
    JobHead,
    JobOptions,
    JobStatus,
    Mode,
    Outcome,
    Page,
    Parameters,
    PublicKey,
    ReferencePayload,
    Role,
    Scheme,
    Signature,
    Worker,
    WorkerFailure,
    WorkerRegistration,
    WorkerStatus,
)

__all__ = ["ADAPTERS", "CONTRACT_ERRORS", "CONTRACT_NAME", "MESSAGES"]

CONTRACT_NAME = "phala_job_processor"

# Protocol 2.5, in order.
CONTRACT_ERRORS = (
    "NotAdmin",
    "MissingRole",
    "WrongMode",
    "JobNotFound",
    "NotJobOwner",
    "WrongStatus",
    "EmptyPayload",
    "PayloadTooLarge",
    "ReferenceTooLarge",
    "LocationTooLong",
    "EndpointTooLong",
    "NoWorkers",
    "TooManyWorkers",
    "DuplicateWorker",
    "WorkerNotFound",
    "WorkerNotTrusted",
    "TtlOutOfRange",
    "RateLimited",
    "DeadlinePassed",
    "DeadlineNotPassed",
    "WorkerNotEligible",
    "KeyMismatch",
    "InvalidKey",
    "EmptyResultHash",
    "StatementTooOld",
    "StatementFromFuture",
    "StatementTimesInverted",
    "StatementBeforeJob",
    "BadSignature",
    "AlreadyAttested",
    "AlreadyFailed",
    "AttestationNotValid",
    "MeasurementNotAllowed",
    "KeyAlreadyRegistered",
    "ValidityOutOfRange",
    "WorkerRevoked",
    "ParameterOutOfRange",
    "LimitOutOfRange",
    "TooManyItems",
    "AccountInUse",
    "NoPendingAdmin",
    "SetCodeFailed",
    "Overflow",
)

# Protocol 2.2: every message with its arguments in order.
MESSAGES: Mapping[str, tuple[str, ...]] = {
    "submit_confidential_job": ("encrypted_payload", "public_key", "options"),
    "submit_job_reference": ("payload_hash", "length", "location", "public_key", "options"),
    "record_attestation": ("job_id", "result_hash", "attestation_proof", "tee_worker_pubkey"),
    "verify_attestation": ("job_id",),
    "attestation_status": ("job_id",),
    "mark_job_processed": ("job_id",),
    "complete_jobs": ("completions",),
    "cancel_job": ("job_id",),
    "expire_job": ("job_id",),
    "purge_job": ("job_id",),
    "release_account": (),
    "register_worker": ("registration", "possession"),
    "renew_worker": ("worker", "evidence_hash", "valid_until", "possession"),
    "suspend_worker": ("worker",),
    "reinstate_worker": ("worker",),
    "revoke_worker": ("worker", "reason"),
    "allow_measurement": ("measurement",),
    "revoke_measurement": ("measurement",),
    "grant_role": ("account", "role"),
    "revoke_role": ("account", "role"),
    "propose_admin": ("account",),
    "accept_admin": (),
    "set_parameters": ("parameters",),
    "set_mode": ("mode",),
    "set_code": ("code_hash",),
    "get_job": ("job_id",),
    "get_attestation": ("job_id",),
    "get_job_counter": (),
    "get_worker": ("worker",),
    "worker_by_key": ("signing_key",),
    "is_trusted": ("worker",),
    "jobs_page": ("from", "limit"),
    "workers_page": ("from", "limit"),
    "parameters": (),
    "mode": (),
    "admin": (),
    "genesis_hash": (),
    "version": (),
    "has_role": ("account", "role"),
    "has_measurement": ("measurement",),
    "rate_limit_left": ("account",),
}


def _same(what: str, ours: tuple[str, ...], theirs: tuple[str, ...]) -> None:
    if ours != theirs:
        message = (
            f"the contract's {what} has {', '.join(theirs) or 'nothing'}, not {', '.join(ours)}"
        )
        raise ChainMismatchError(message)


class _StructAdapter:
    """A struct as one of our dataclasses, field by field."""

    def __init__(self, model: type[object]) -> None:
        self._model = model
        self._fields = tuple(field.name for field in fields(model))  # type: ignore[arg-type]  # the table below holds dataclasses only

    def check(self, shape: TypeShape) -> None:
        _same(shape.name, self._fields, shape.fields)

    def to_plain(self, value: object) -> object:
        if not isinstance(value, self._model):
            message = f"{type(value).__name__} is not a {self._model.__name__}"
            raise InputError(message)
        return {name: getattr(value, name) for name in self._fields}

    def from_plain(self, value: object) -> object:
        return self._model(**value)  # type: ignore[arg-type]  # `check` compared the fields


class _EnumAdapter:
    """An enum without content as one of our enums; `names` are the contract's, in our order."""

    def __init__(self, names: Mapping[Enum, str]) -> None:
        self._names = dict(names)
        self._members = {name: member for member, name in names.items()}
        self._variants = {member: Variant(name) for member, name in names.items()}

    def check(self, shape: TypeShape) -> None:
        _same(shape.name, tuple(self._names.values()), shape.variants)

    def to_plain(self, value: object) -> object:
        if not isinstance(value, Enum) or value not in self._variants:
            expected = type(next(iter(self._names))).__name__
            message = f"{type(value).__name__} is not a {expected}"
            raise InputError(message)
        return self._variants[value]

    def from_plain(self, value: object) -> object:
        return self._members[_variant(value).name]


class _SchemeAdapter:
    """`PublicKey` and `Signature`: an enum of byte arrays, one for each scheme."""

    _NAMES: Mapping[Scheme, str] = {Scheme.SR25519: "Sr25519", Scheme.ECDSA: "Ecdsa"}

    def __init__(self, model: type[PublicKey] | type[Signature]) -> None:
        self._model = model
        self._schemes = {name: scheme for scheme, name in self._NAMES.items()}

    def check(self, shape: TypeShape) -> None:
        _same(shape.name, tuple(self._NAMES.values()), shape.variants)

    def to_plain(self, value: object) -> object:
        if not isinstance(value, self._model):
            message = f"{type(value).__name__} is not a {self._model.__name__}"
            raise InputError(message)
        data = value.key if isinstance(value, PublicKey) else value.data
        return Variant(self._NAMES[value.scheme], data)

    def from_plain(self, value: object) -> object:
        variant = _variant(value)
        scheme, data = self._schemes[variant.name], variant.value
        if not isinstance(data, bytes):
            message = f"the contract's {self._model.__name__} does not hold bytes"
            raise ChainMismatchError(message)
        if self._model is PublicKey:
            return PublicKey(scheme=scheme, key=data)
        return Signature(scheme=scheme, data=data)


class _PayloadAdapter:
    """`Payload`: the bytes, or where they are."""

    def check(self, shape: TypeShape) -> None:
        _same(shape.name, ("Inline", "Reference"), shape.variants)

    def to_plain(self, value: object) -> object:
        if isinstance(value, InlinePayload):
            return Variant("Inline", value.data)
        if isinstance(value, ReferencePayload):
            return Variant("Reference", {"length": value.length, "location": value.location})
        message = f"{type(value).__name__} is not a payload"
        raise InputError(message)

    def from_plain(self, value: object) -> object:
        held = _variant(value).value
        if isinstance(held, bytes):
            return InlinePayload(data=held)
        if isinstance(held, dict) and set(held) == {"length", "location"}:
            return ReferencePayload(**held)
        message = "the contract's Payload is neither bytes nor a reference"
        raise ChainMismatchError(message)


class _ErrorAdapter:
    """`Error`: checked here, raised by `chain.ink` as a `ContractError`."""

    def check(self, shape: TypeShape) -> None:
        _same(shape.name, CONTRACT_ERRORS, shape.variants)

    def to_plain(self, value: object) -> object:
        return value

    def from_plain(self, value: object) -> object:
        return value


def _variant(value: object) -> Variant:
    if not isinstance(value, Variant):
        message = f"{type(value).__name__} is not a variant"
        raise ChainMismatchError(message)
    return value


def _by_value(members: type[Enum]) -> _EnumAdapter:
    return _EnumAdapter({member: str(member.value) for member in members})


ADAPTERS: Mapping[str, Adapter] = {
    "AttestationProof": _StructAdapter(AttestationProof),
    "AttestationStatus": _by_value(AttestationStatus),
    "Completion": _StructAdapter(Completion),
    "ConfidentialJob": _StructAdapter(Job),
    "Error": _ErrorAdapter(),
    "JobAttestation": _StructAdapter(Attestation),
    "JobHead": _StructAdapter(JobHead),
    "JobOptions": _StructAdapter(JobOptions),
    "JobStatus": _by_value(JobStatus),
    "Mode": _by_value(Mode),
    "Outcome": _EnumAdapter({member: member.name.capitalize() for member in Outcome}),
    "Page": _StructAdapter(Page),
    "Parameters": _StructAdapter(Parameters),
    "Payload": _PayloadAdapter(),
    "PublicKey": _SchemeAdapter(PublicKey),
    "Role": _by_value(Role),
    "Signature": _SchemeAdapter(Signature),
    "Worker": _StructAdapter(Worker),
    "WorkerFailure": _StructAdapter(WorkerFailure),
    "WorkerRegistration": _StructAdapter(WorkerRegistration),
    "WorkerStatus": _by_value(WorkerStatus),
}
