"""
Which workers this orchestrator believes (protocol section 5, checks 3 and 5).

The chain's trusted list is where it begins; an operator may narrow it. A worker that has signed
two different things about one job is believed no more, whatever the chain says, until an operator
says otherwise (`phala-jobs orchestrator trust`).
"""

from orchestrator.errors import ContractError
from orchestrator.journal import SeenStatement
from orchestrator.metrics import EventKind, ServiceEvent
from orchestrator.models import Completion, Worker, WorkerId, WorkerStatus
from orchestrator.service.parts import Parts
from orchestrator.service.steps import Step

__all__ = ["TrustedWorkers", "seen_statement"]

CONFLICT = "ConflictingStatements"


class TrustedWorkers:
    """The orchestrator's own list, and what workers have signed so far."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._distrusted = parts.journal.distrusted()

    def objection(self, worker: Worker) -> tuple[str, str] | None:
        """Code and words for why the worker is not on our own list, `None` when it is."""
        settings = self._parts.settings
        why = self._distrusted.get(worker.worker)
        if why is not None:
            return (why, f"worker {worker.worker} is no longer believed")
        if settings.trusted_workers is not None and worker.worker not in settings.trusted_workers:
            return ("WorkerNotListed", f"worker {worker.worker} is not on this orchestrator's list")
        if settings.trusted_keys is not None and worker.signing_key not in settings.trusted_keys:
            return ("WorkerNotListed", f"worker {worker.worker}'s key is not on the list")
        return None

    async def chain_objection(self, worker: Worker) -> tuple[str, str] | None:
        """The same for the chain's list, as last read."""
        if worker.status is not WorkerStatus.ACTIVE:
            return ("WorkerNotTrusted", f"worker {worker.worker} is {worker.status.value}")
        now = self._parts.ledger.now()
        if now > worker.valid_until:
            return (
                "WorkerNotTrusted",
                f"worker {worker.worker} is valid until {worker.valid_until}, now {now}",
            )
        if not await self._parts.ledger.has_measurement(worker.measurement):
            return ("WorkerNotTrusted", f"worker {worker.worker}'s measurement is not allowed")
        return None

    def remember(self, seen: SeenStatement) -> SeenStatement:
        """Write a statement down, its signature verified; return the first one of its kind."""
        with self._parts.steps.at(Step.WRITE_STATEMENT):
            return self._parts.journal.remember_statement(seen)

    async def distrust(self, first: SeenStatement, second: SeenStatement) -> None:
        """Believe the worker no more, raise the alarm, and suspend it if we may."""
        parts = self._parts
        with parts.steps.at(Step.WRITE_DISTRUST):
            is_new = parts.journal.distrust(
                worker=second.worker,
                code=CONFLICT,
                evidence=[_evidence(first), _evidence(second)],
                at=parts.ledger.now(),
            )
        self._distrusted[second.worker] = CONFLICT
        if is_new:
            parts.emit(
                ServiceEvent(
                    kind=EventKind.CONFLICT,
                    job_id=second.job_id,
                    worker=second.worker,
                    code=CONFLICT,
                    detail=f"results 0x{first.result_hash.hex()} and 0x{second.result_hash.hex()}",
                )
            )
        await self.suspend_distrusted()

    async def suspend_distrusted(self) -> None:
        """Suspend on the chain whom we believe no more, if our account is a Guardian."""
        parts = self._parts
        waiting = parts.journal.unsuspended()
        if not waiting or not (await parts.ledger.rules()).is_guardian:
            return
        for worker in waiting:
            await self._suspend(worker)

    async def _suspend(self, worker: WorkerId) -> None:
        parts = self._parts
        with parts.steps.at(Step.SUSPEND_WORKER):
            try:
                await parts.ledger.suspend(worker)
            except ContractError as error:
                # It is suspended or revoked already, or our role is gone; the log says which.
                parts.emit(
                    ServiceEvent(
                        kind=EventKind.CHAIN_ERROR,
                        worker=worker,
                        code=error.variant,
                        detail="suspend_worker",
                    )
                )
                if error.variant == "MissingRole":
                    parts.ledger.forget_rules()
                    return
        with parts.steps.at(Step.WRITE_SUSPENDED):
            parts.journal.set_suspended(worker)


def seen_statement(
    completion: Completion, worker: WorkerId, *, payload_hash: bytes
) -> SeenStatement:
    """What is kept of a statement whose signature was verified as *worker*'s."""
    proof = completion.attestation_proof
    return SeenStatement(
        job_id=completion.job_id,
        worker=worker,
        payload_hash=payload_hash,
        outcome=proof.outcome,
        result_hash=completion.result_hash,
        units=proof.units,
        started_at=proof.started_at,
        finished_at=proof.finished_at,
        issued_at=proof.issued_at,
        signature=proof.signature.data,
    )


def _evidence(seen: SeenStatement) -> dict[str, object]:
    shown = {**vars(seen), "outcome": seen.outcome.name}
    return {
        name: value.hex() if isinstance(value, bytes) else value for name, value in shown.items()
    }
