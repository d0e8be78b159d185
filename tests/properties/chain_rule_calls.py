"""Calls about workers and rules, drawn so that the contract accepts them, as `chain_calls` does."""

from collections.abc import Callable
from dataclasses import replace

from orchestrator.crypto.keys import load_signer
from orchestrator.encoding import registration_digest
from orchestrator.models import (
    Mode,
    Parameters,
    Role,
    Scheme,
    Signature,
    Signer,
    WorkerId,
    WorkerRegistration,
    WorkerStatus,
)
from tests.properties.chain_calls import HOUR, MINUTE, SECOND, AnyCall, JobCalls, Recipe
from tests.properties.chain_model import KnownWorker

# Enough for every state that a worker can be in; more would only cost time to compare.
_MANY_WORKERS = 24


class Calls(JobCalls):
    """Draws calls of all messages."""

    def rule_recipes(self) -> list[Recipe]:
        """Return how workers, roles, limits, mode and code change."""
        registrars = lambda: self.holders(Role.REGISTRAR)  # noqa: E731 - reads as a table
        urgent = 30 if self.model.mode is not Mode.RUNNING else 1
        return [
            Recipe(4, registrars, lambda _: self.register()),
            Recipe(4, registrars, lambda _: self.renew()),
            Recipe(2, registrars, lambda _: self.suspend()),
            Recipe(6, registrars, lambda _: self.reinstate()),
            Recipe(0.5, registrars, lambda _: self.revoke()),
            Recipe(2, registrars, lambda _: self.allow()),
            Recipe(0.3, registrars, lambda _: self.disallow()),
            Recipe(5, self.admins, lambda _: self.grant()),
            Recipe(2, self.admins, lambda _: self.take()),
            Recipe(2, self.admins, lambda _: self.propose()),
            Recipe(6, self.proposed, lambda _: self.processor.accept_admin()),
            Recipe(4, self.admins, lambda _: self.processor.set_parameters(self.parameters())),
            Recipe(1.5, self.admins, lambda _: self.switch()),
            Recipe(urgent, self.admins, lambda _: self.resume()),
            Recipe(20, self.admins, lambda _: self.replace_code()),
            Recipe(3, self.anyone, lambda _: self.look()),
        ]

    # Workers.

    def registration(self, signer: Signer | None = None) -> WorkerRegistration:
        """Return a registration that would be accepted; of a new worker without *signer*."""
        if signer is None:
            signer = load_signer(self.rng.choice(list(Scheme)), self.rng.randbytes(32))
            self.model.signers[signer.public_key] = signer
        limit = self.model.parameters.max_registration
        return WorkerRegistration(
            signing_key=signer.public_key,
            encryption_key=self.rng.randbytes(32),
            measurement=self.rng.choice(sorted(self.model.allowed) or [bytes(32)]),
            evidence_hash=self.rng.randbytes(32),
            endpoint=b"http://127.0.0.1:1"[: self.rng.choice([0, 18])],
            valid_until=self.model.now + self.rng.choice([4 * SECOND, HOUR, limit - MINUTE, limit]),
        )

    def possession(self, registration: WorkerRegistration) -> Signature:
        """Return the worker's own signature over its registration."""
        digest = registration_digest(
            registration,
            genesis_hash=self.model.genesis_hash,
            contract=self.processor.contract,
        )
        return self.model.signers[registration.signing_key].sign(digest)

    def register(self) -> AnyCall | None:
        if len(self.model.workers) >= _MANY_WORKERS and len(self.trusted()) > 4:
            return None
        registration = self.registration()
        return self.processor.register_worker(registration, self.possession(registration))

    def renew(
        self, worker: KnownWorker | None = None, valid_until: int | None = None
    ) -> AnyCall | None:
        if worker is None:
            worker = self._worker(
                lambda w: (
                    w.status is not WorkerStatus.REVOKED and w.measurement in self.model.allowed
                )
            )
        if worker is None:
            return None
        latest = self.model.now + self.model.parameters.max_registration
        registration = replace(
            self.registration(worker.signer),
            encryption_key=worker.encryption_key,
            measurement=worker.measurement,
            valid_until=latest if valid_until is None else valid_until,
        )
        return self.processor.renew_worker(
            worker.worker,
            registration.evidence_hash,
            registration.valid_until,
            self.possession(registration),
        )

    def suspend(self) -> AnyCall | None:
        if len(self.trusted()) < 4:
            return None
        return self._of_worker(self.processor.suspend_worker, WorkerStatus.ACTIVE)

    def reinstate(self) -> AnyCall | None:
        return self._of_worker(self.processor.reinstate_worker, WorkerStatus.SUSPENDED)

    def revoke(self) -> AnyCall | None:
        if len(self.trusted()) < 4:
            return None
        reason = self.rng.randbytes(32)
        return self._of_worker(
            lambda w: self.processor.revoke_worker(w, reason), WorkerStatus.ACTIVE
        )

    def _of_worker(
        self, make: Callable[[WorkerId], AnyCall], status: WorkerStatus
    ) -> AnyCall | None:
        worker = self._worker(lambda w: w.status is status)
        return None if worker is None else make(worker.worker)

    def _worker(self, wanted: Callable[[KnownWorker], bool]) -> KnownWorker | None:
        found = [worker for worker in self.model.workers.values() if wanted(worker)]
        return self.rng.choice(found) if found else None

    def allow(self) -> AnyCall:
        known = sorted(self.model.allowed)
        fresh = len(known) < 3 or self.rng.random() < 0.2
        return self.processor.allow_measurement(
            self.rng.randbytes(32) if fresh else self.rng.choice(known)
        )

    def disallow(self) -> AnyCall | None:
        known = sorted(self.model.allowed)
        if self.rng.random() < 0.5:
            return self.processor.revoke_measurement(self.rng.randbytes(32))
        return self.processor.revoke_measurement(self.rng.choice(known)) if len(known) > 2 else None

    # Rules.

    def grant(self) -> AnyCall:
        account, role = self.rng.choice(self.model.accounts), self.rng.choice(list(Role))
        return self.processor.grant_role(account.account_id, role)

    def take(self) -> AnyCall | None:
        role = self.rng.choice(list(Role))
        if len(self.holders(role)) < 3:
            return None
        return self.processor.revoke_role(self.rng.choice(self.holders(role)).account_id, role)

    def propose(self) -> AnyCall:
        return self.processor.propose_admin(self.rng.choice(self.model.accounts).account_id)

    def parameters(self) -> Parameters:
        """Return limits that are mostly generous, so that time passes for them in a short run."""
        pick = self.rng.choice
        return Parameters(
            max_payload=pick([256, 8_192, 12_288]),
            max_reference=pick([1, 1 << 30, 1 << 40]),
            min_ttl=10 * SECOND,
            max_ttl=pick([10 * SECOND, HOUR, 720 * HOUR]),
            rate_limit=pick([2, 30, 1_000, 1_000_000]),
            rate_window=pick([SECOND, SECOND, 5 * SECOND, MINUTE]),
            max_attestation_age=pick([SECOND, 10 * SECOND, 10 * MINUTE]),
            max_clock_skew=pick([0, MINUTE, 10 * MINUTE]),
            max_registration=pick([HOUR, 720 * HOUR]),
            mark_grace=pick([MINUTE, HOUR]),
        )

    def switch(self) -> AnyCall:
        modes = [mode for mode in Mode if mode is not self.model.mode]
        return self.processor.set_mode(self.rng.choice(modes))

    def resume(self) -> AnyCall | None:
        is_running = self.model.mode is Mode.RUNNING
        return None if is_running else self.processor.set_mode(Mode.RUNNING)

    def replace_code(self) -> AnyCall | None:
        if self.model.mode is not Mode.HALTED:
            return None
        return self.processor.set_code(self.rng.choice(self.codes))
