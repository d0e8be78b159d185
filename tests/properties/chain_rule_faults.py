"""Calls about workers and rules that the contract refuses, for each reason that it can have."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from orchestrator.crypto.keys import AccountKey
from orchestrator.models import (
    Mode,
    Parameters,
    Role,
    Scheme,
    Signature,
    WorkerId,
    WorkerRegistration,
    WorkerStatus,
)
from tests.properties.chain_calls import HOUR, MINUTE, SECOND, AnyCall, Recipe, by
from tests.properties.chain_model import KnownWorker
from tests.properties.chain_rule_calls import Calls

Recipes = Mapping[str, Sequence[Recipe]]

_WRONG_PARAMETERS: Sequence[dict[str, int]] = (
    {"max_payload": 255},
    {"min_ttl": 10 * SECOND - 1},
    {"rate_limit": 0},
    {"max_clock_skew": 10 * MINUTE + 1},
    {"mark_grace": MINUTE - 1},
    {"max_reference": 2**64 - 1},
    {"min_ttl": HOUR, "max_ttl": HOUR - 1},
)


class WorkerFaults:
    """How to provoke each `Error` variant of the messages about workers and measurements."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.model = calls.model
        self.rng = calls.rng
        self.processor = calls.processor

    def recipes(self) -> Recipes:
        now, limit = self.model.now, self.model.parameters.max_registration
        some = next(iter(self.model.workers.values()))
        suspended, active = WorkerStatus.SUSPENDED, WorkerStatus.ACTIVE
        return {
            "EndpointTooLong": [self._registering(lambda r: replace(r, endpoint=bytes(129)))],
            "InvalidKey": [self._registering(lambda r: replace(r, encryption_key=bytes(32)))],
            "MeasurementNotAllowed": [
                self._registering(lambda r: replace(r, measurement=self.rng.randbytes(32))),
                self._sent(self._allow_again),
            ],
            "KeyAlreadyRegistered": [
                self._registering(lambda r: replace(r, encryption_key=some.encryption_key)),
                self._registering(lambda r: replace(r, signing_key=some.signer.public_key)),
            ],
            "ValidityOutOfRange": [
                self._registering(lambda r: replace(r, valid_until=now - 1)),
                self._registering(lambda r: replace(r, valid_until=now + limit + HOUR)),
                self._registering(lambda r: replace(r, valid_until=2**64 - 1)),
                self._sent(lambda: self._renewing(lambda worker: worker.valid_until)),
                self._sent(lambda: self._renewing(lambda _: now + limit + HOUR)),
            ],
            "BadSignature": [self._sent(lambda: self._forged(other_scheme=False))],
            "KeyMismatch": [self._sent(lambda: self._forged(other_scheme=True))],
            "WorkerRevoked": [
                self._of("suspend_worker", WorkerStatus.REVOKED),
                self._of("reinstate_worker", WorkerStatus.REVOKED),
                self._sent(self.calls.revoke),
            ],
            "WrongStatus": [
                self._of("suspend_worker", suspended),
                self._of("reinstate_worker", active),
            ],
            "WorkerNotFound": [
                self._sent(lambda: self.processor.suspend_worker(0)),
                self._sent(lambda: self.processor.revoke_worker(2**32 - 1, bytes(32))),
            ],
        }

    def _sent(self, make: Callable[[], AnyCall | None]) -> Recipe:
        return by(lambda: self.calls.holders(Role.REGISTRAR), lambda _: make())

    def _registering(self, change: Callable[[WorkerRegistration], WorkerRegistration]) -> Recipe:
        """Return a registration with something wrong, signed by the worker all the same."""

        def make() -> AnyCall | None:
            if not self.model.allowed:
                return None
            registration = change(self.calls.registration())
            return self.processor.register_worker(registration, self.calls.possession(registration))

        return self._sent(make)

    def _allow_again(self) -> AnyCall:
        if not self.model.revoked:
            return self.processor.revoke_measurement(self.rng.randbytes(32))
        return self.processor.allow_measurement(self.rng.choice(sorted(self.model.revoked)))

    def _of(self, name: str, status: WorkerStatus) -> Recipe:
        def make() -> AnyCall | None:
            found = [w.worker for w in self.model.workers.values() if w.status is status]
            message: Callable[[WorkerId], AnyCall] = getattr(self.processor, name)
            return message(self.rng.choice(found)) if found else None

        return self._sent(make)

    def _forged(self, *, other_scheme: bool) -> AnyCall | None:
        if not self.model.allowed:
            return None
        registration = self.calls.registration()
        is_sr25519 = (registration.signing_key.scheme is Scheme.SR25519) is not other_scheme
        forgery = (
            Signature(scheme=Scheme.SR25519, data=bytes(64))
            if is_sr25519
            else Signature(scheme=Scheme.ECDSA, data=bytes(65))
        )
        return self.processor.register_worker(registration, forgery)

    def _renewing(self, until: Callable[[KnownWorker], int]) -> AnyCall | None:
        found = [
            worker
            for worker in self.model.workers.values()
            if worker.status is not WorkerStatus.REVOKED
            and worker.measurement in self.model.allowed
        ]
        if not found:
            return None
        worker = self.rng.choice(found)
        return self.calls.renew(worker, valid_until=until(worker))


class RuleFaults:
    """How to provoke each `Error` variant of the messages about roles, limits, mode and code."""

    def __init__(self, calls: Calls) -> None:
        self.calls = calls
        self.model = calls.model
        self.rng = calls.rng
        self.processor = calls.processor

    def recipes(self) -> Recipes:
        calls, processor = self.calls, self.processor
        anyone, admins, others = calls.anyone, calls.admins, self._others
        registrar, operator, guardian = Role.REGISTRAR, Role.OPERATOR, Role.GUARDIAN
        account, role = self.rng.choice(self.model.accounts).account_id, Role.OPERATOR
        code = self.rng.choice(calls.codes)
        return {
            "NotAdmin": [
                by(others, lambda _: processor.grant_role(account, role)),
                by(others, lambda _: processor.revoke_role(account, role)),
                by(others, lambda _: processor.propose_admin(account)),
                by(others, lambda _: processor.set_parameters(calls.parameters())),
                by(others, lambda _: processor.set_code(code)),
                by(self._guardians, lambda _: calls.resume()),
            ],
            "MissingRole": [
                by(self._without(registrar), lambda _: calls.register()),
                by(self._without(registrar), lambda _: calls.allow()),
                by(self._without(registrar), lambda _: processor.revoke_measurement(bytes(32))),
                by(self._without(registrar), lambda _: calls.renew()),
                by(self._without(registrar), lambda _: processor.revoke_worker(1, bytes(32))),
                by(self._without(registrar), lambda _: processor.reinstate_worker(1)),
                by(self._without(registrar, guardian), lambda _: processor.suspend_worker(1)),
                by(self._without(operator), lambda _: calls.complete()),
                by(self._nobody_special, lambda _: processor.set_mode(Mode.HALTED)),
            ],
            "WrongMode": [
                by(admins, lambda _: processor.set_mode(self.model.mode)),
                by(anyone, self._submit_anyway),
                by(admins, lambda _: None if self._is_halted() else processor.set_code(code)),
            ],
            "ParameterOutOfRange": [
                by(admins, lambda _: processor.set_parameters(self._wrong_parameters()))
            ],
            "LimitOutOfRange": [
                by(anyone, lambda _: processor.jobs_page(1, 0)),
                by(anyone, lambda _: processor.workers_page(1, 51)),
            ],
            "TooManyItems": [by(lambda: calls.holders(operator), lambda _: self._too_many())],
            "NoPendingAdmin": [by(self._not_proposed, lambda _: processor.accept_admin())],
            "SetCodeFailed": [by(admins, lambda _: self._set_unknown_code())],
        }

    def _others(self) -> Sequence[AccountKey]:
        return [a for a in self.model.accounts if a.account_id != self.model.admin]

    def _without(self, *roles: Role) -> Callable[[], Sequence[AccountKey]]:
        held = self.model.roles
        return lambda: [
            account
            for account in self.model.accounts
            if not any((account.account_id, role) in held for role in roles)
        ]

    def _nobody_special(self) -> Sequence[AccountKey]:
        return [a for a in self._without(Role.GUARDIAN)() if a.account_id != self.model.admin]

    def _guardians(self) -> Sequence[AccountKey]:
        guardians = self.calls.holders(Role.GUARDIAN)
        return [a for a in guardians if a.account_id != self.model.admin]

    def _not_proposed(self) -> Sequence[AccountKey]:
        return [a for a in self.model.accounts if a.account_id != self.model.proposed]

    def _is_halted(self) -> bool:
        return self.model.mode is Mode.HALTED

    def _submit_anyway(self, caller: AccountKey) -> AnyCall | None:
        return None if self.model.mode is Mode.RUNNING else self.calls.submit(caller)

    def _wrong_parameters(self) -> Parameters:
        return replace(self.calls.parameters(), **self.rng.choice(_WRONG_PARAMETERS))

    def _too_many(self) -> AnyCall | None:
        pair = self.calls.open_pair()
        if pair is None or self._is_halted():
            return None
        return self.processor.complete_jobs([self.calls.completion(*pair)] * 11)

    def _set_unknown_code(self) -> AnyCall:
        if not self._is_halted():
            return self.processor.set_mode(Mode.HALTED)
        return self.processor.set_code(self.rng.randbytes(32))
