"""
Revoke every worker of a machine: `workers revoke --platform`.

Whatever is wrong with one worker, its evidence or its transaction, the others are judged and
revoked all the same, and what became of each is always said.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.admission import explained_refusal, open_archive
from orchestrator.cli.errors import ExitCode, error_code, error_message
from orchestrator.cli.output import Document, to_json
from orchestrator.cli.session import Session
from orchestrator.cli.trust import evidence_of
from orchestrator.errors import BlobNotFoundError, ContractError, EncodingError, Error

if TYPE_CHECKING:
    from orchestrator.models import Worker, WorkerId

_DONE = ("WorkerRevoked",)


def revoke_platform(
    session: Session, platform: bytes, reason: str, workers: "Sequence[Worker]"
) -> None:
    """
    Revoke those of *workers* whose evidence, the newest or an earlier one, is from *platform*.

    Raises:
        Exit: 3 where somebody could not be judged, 1 where somebody could not be revoked.
    """
    machine = _Machine(session, platform, reason)
    try:
        machine.revoke_all(workers)
    finally:  # also when it is interrupted
        machine.report()
    if machine.unreadable or machine.unknown:
        raise typer.Exit(ExitCode.UNKNOWN)
    if machine.failed:
        raise typer.Exit(ExitCode.REFUSED)


class _Machine:
    """A machine, and what became of its workers."""

    def __init__(self, session: Session, platform: bytes, reason: str) -> None:
        from orchestrator.encoding import blake2_256

        self._session = session
        self._platform = platform
        self._reason = blake2_256(reason.encode("utf-8"))
        self._archive = open_archive(session)
        self._evidence = evidence_of(session)
        _ = session.signer  # without one nobody is looked at
        self.revoked: list[int] = []
        self.failed: list[Document] = []
        self.unreadable: dict[int, str] = {}
        self.unknown = ""

    def revoke_all(self, workers: "Sequence[Worker]") -> None:
        """
        Judge by the newest evidence first, and by what is here: nobody waits for another.

        Earlier evidence counts as well: keys that were on the machine once may have been taken.
        """
        here = [worker for worker in workers if self._is_here(worker)]
        there = [worker for worker in workers if worker not in here]
        rest = [
            worker for worker in (*here, *there) if not self._judge(worker, [worker.evidence_hash])
        ]
        earlier = self._earlier()
        for worker in rest:
            hashes = earlier.get(worker.worker, set()) - {worker.evidence_hash}
            first = {one: self._is_here(replace(worker, evidence_hash=one)) for one in hashes}
            self._judge(worker, sorted(hashes, key=lambda one: (not first[one], one)))

    def report(self) -> None:
        """Say what became of everybody."""
        for failure in self.failed:
            self._session.output.say(
                f"worker {failure['worker']}: NOT revoked: {failure['message']}"
            )
        for worker, why in sorted(self.unreadable.items()):
            self._session.output.say(f"worker {worker}: its evidence can't be read: {why}")
        if self.unknown:
            self._session.output.say(f"earlier evidence is not known: {self.unknown}")
        self._session.output.result(
            {
                "platform": to_json(self._platform),
                "revoked": list(self.revoked),
                "unreadable": [
                    {"worker": worker, "why": why}
                    for worker, why in sorted(self.unreadable.items())
                ],
                "failed": list(self.failed),
                "earlier_unknown": self.unknown or None,
                "reason": to_json(self._reason),
            }
        )

    def _is_here(self, worker: "Worker") -> bool:
        try:
            return self._archive.holds(worker)
        except (Error, OSError):
            return False

    def _earlier(self) -> "dict[WorkerId, set[bytes]]":
        """The hashes of all evidence that events and the registrar's records know, by worker."""
        from orchestrator.client.chain_view import ChainView
        from orchestrator.registrar.platforms import recorded_evidence

        session = self._session
        folder = session.settings.evidence.expanduser()
        found = {worker: set(hashes) for worker, hashes in recorded_evidence(folder).items()}
        try:
            view = ChainView(session.chain, session.contract, session.bundle)
            for worker, hashes in view.evidence_by_worker().items():
                found.setdefault(worker, set()).update(hashes)
        except Error as error:
            self.unknown = error_message(error)
        return found

    def _judge(self, worker: "Worker", hashes: Iterable[bytes]) -> bool:
        """Revoke it where one of the bundles is from the machine; return whether one is."""
        for digest in hashes:
            try:
                is_from_there = self._platform in self._ids(replace(worker, evidence_hash=digest))
            except Exception as error:  # noqa: BLE001 - one worker's evidence must save no other
                words = error_message(error)
                if digest != worker.evidence_hash:
                    words = f"earlier evidence {to_json(digest)}: {words}"
                known = self.unreadable.get(worker.worker)
                self.unreadable[worker.worker] = words if known is None else f"{known}; {words}"
                if not isinstance(error, BlobNotFoundError | EncodingError):
                    return False  # it does not answer: not to be waited for again
                continue
            if is_from_there:
                self.unreadable.pop(worker.worker, None)
                self._send(worker.worker)
                return True
        return False

    def _ids(self, worker: "Worker") -> frozenset[bytes]:
        from orchestrator.evidence import load_bundle
        from orchestrator.registrar.forecast import NO_EVIDENCE
        from orchestrator.registrar.platforms import platform_ids

        if worker.evidence_hash == NO_EVIDENCE:
            raise BlobNotFoundError("it was registered without evidence")
        return platform_ids(load_bundle(self._evidence(worker)))

    def _send(self, worker: int) -> None:
        session = self._session
        try:
            session.send(
                session.processor.revoke_worker(worker, self._reason), f"Revoking worker {worker}"
            )
        except Exception as error:  # noqa: BLE001 - the next one is to be revoked all the same
            if error_code(error) in _DONE:
                self.revoked.append(worker)  # somebody else was quicker
                return
            told = explained_refusal(session, error) if isinstance(error, ContractError) else error
            self.failed.append(
                {"worker": worker, "error": error_code(error), "message": error_message(told)}
            )
        else:
            self.revoked.append(worker)
