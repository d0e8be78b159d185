"""
Replaces a contract's code in place, so that it can be interrupted anywhere and run again.

Everything that can be refused is refused before the contract is halted. What it halts it notes in
a file first: a later run resumes the mode from before only if it was this program, and nobody
else, that halted the contract.
"""

import contextlib
import json
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.cli.costs import planck
from orchestrator.cli.output import Document, to_json
from orchestrator.cli.session import Session
from orchestrator.errors import (
    ChainMismatchError,
    ContractError,
    InputError,
    RefusedError,
)
from orchestrator.models import Mode

if TYPE_CHECKING:
    from orchestrator.chain import ContractCall, Cost

_MAX_NOTE_BYTES = 65_536
_PAGE = 50
_ERA_BLOCKS = 64  # what was sent and is not in one of so many blocks never will be


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is to be done: the mode now and afterwards, and what it costs at most."""

    mode: Mode
    then: Mode
    cost: "Cost | None"


@dataclass(frozen=True, kw_only=True)
class _Note:
    """
    What a run writes down: the mode to come back to, the block before it halted the contract.

    `stored` is a digest of each thing stored, as the code before read it, once it was taken.
    """

    mode: Mode
    block: int
    stored: dict[str, str] | None = None


class Upgrade:
    """One contract and the build that it is to run; *then* is the mode that is wanted after."""

    def __init__(self, session: Session, *, then: Mode | None) -> None:
        self._session = session
        self._then = then
        self._bundle = session.bundle
        self._processor = session.unchecked_processor
        self._note: _Note | None = None
        # Fee and deposit together, as the account's balance shows them.
        self._upload_cost: int | None = None

    def plan(self) -> Plan | None:
        """
        Return what is to be done, `None` when it is done already; nothing is sent.

        1. The contract is there, is of this chain and of a version that is known here.
        2. The build keeps its storage where that version keeps it.
        3. The account is the contract's admin.
        4. The chain takes the build's code.

        Raises:
            ChainMismatchError: 1 or 2.
            RefusedError: 3.
            ChainError: 4.
        """
        from orchestrator.chain.bundle import load_bundle
        from orchestrator.chain.layout import require_same_layout

        session, chain = self._session, self._session.chain
        if self._running() is None:
            raise ChainMismatchError(
                f"contract {session.required('contract')}: there is no contract at this address"
            )
        session.require_same_chain(self._processor)
        require_same_layout(self._bundle, load_bundle())
        self._require_admin()
        mode = chain.read(self._processor.mode())
        self._note = self._read_note() if mode is Mode.HALTED else None
        is_done = self._running() == self._bundle.code_hash and self._note is None
        if is_done and self._then in (None, mode):
            return None
        then = self._then or (self._note.mode if self._note else mode)
        if mode is Mode.HALTED and then is Mode.HALTED:
            session.output.say(
                "The contract is halted, and stays so: this program did not halt it. See --then."
            )
        return Plan(mode=mode, then=then, cost=self._cost(mode))

    def carry_out(self, plan: Plan | None) -> Document:
        """
        Do what the plan says, and return what became of the contract.

        Raises:
            ChainMismatchError: What is stored does not read as before; the contract
                stays halted.
            ChainError: A step failed; run again, it goes on there.
        """
        session, before = self._session, self._running()
        if plan is not None:
            self._halt(plan)
            if before != self._bundle.code_hash:
                self._replace_code()
            self._require_same_stored()
            if plan.then is not Mode.HALTED:
                self._set_mode(plan.then)
            self._note_file.unlink(missing_ok=True)
            session.say_paid()
            if self._upload_cost:
                session.output.say(f"the upload took {planck(self._upload_cost)}, deposit included")
        return {
            "contract": session.required("contract"),
            "upgraded": before != self._bundle.code_hash,
            "code_hash_before": to_json(before),
            "code_hash": to_json(self._bundle.code_hash),
            "version": session.chain.read(self._processor.version()),
            "mode": session.chain.read(self._processor.mode()).value,
            **session.paid_document(),
            **({"upload_cost": self._upload_cost} if session.output.as_json else {}),
        }

    def _halt(self, plan: Plan) -> None:
        """Halt the contract, unless it is, and write down what is stored."""
        chain = self._session.chain
        if self._note is None:
            self._note = _Note(mode=plan.mode, block=chain.finalized_head().number)
            self._write_note(self._note)
        if plan.mode is not Mode.HALTED:
            self._set_mode(Mode.HALTED)
        if self._note.stored is None:
            # Nobody submits any more, and the code is still the one from before.
            self._note = replace(self._note, stored=self._stored())
            self._write_note(self._note)

    def _replace_code(self) -> None:
        session = self._session
        signer = session.signer
        with session.output.progress("Uploading the code"):
            had = self._balance()
            session.chain.upload(self._bundle.code, signer=signer)
            has = self._balance()
        if had is not None and has is not None:
            self._upload_cost = had - has
        self._send(self._processor.set_code(self._bundle.code_hash), "Setting the code")

    def _require_same_stored(self) -> None:
        """
        Refuse code that is not the new one, or that reads what is stored as something else.

        Raises:
            ChainMismatchError: It is, or does; the contract stays halted.
        """
        trouble = self._trouble()
        if trouble:
            raise ChainMismatchError(
                f"{trouble}; the contract stays halted: go back with contract upgrade --bundle and"
                " the build that it ran before"
            )

    def _trouble(self) -> str | None:
        if self._running() != self._bundle.code_hash:
            return "the contract does not run the new code"
        try:
            self._session.require_same_chain(self._processor)
            before, now = (self._note.stored if self._note else None) or {}, self._stored()
        except ChainMismatchError as error:
            return str(error)
        # A job that was purged meanwhile is in one of them.
        if any(now[name] != before[name] for name in now.keys() & before.keys()):
            return "the new code reads what is stored as something else"
        return None

    def _stored(self) -> dict[str, str]:
        """A digest of what no message changes while the contract is halted, from each table."""
        read, processor = self._session.chain.read, self._processor
        counter = read(processor.get_job_counter())
        heads = read(processor.jobs_page(max(1, counter - _PAGE + 1), _PAGE)).items
        workers = read(processor.workers_page(1, _PAGE)).items
        found = {
            "counter": counter,
            "parameters": read(processor.parameters()),
            "admin": read(processor.admin()),
            # A job may be cancelled or expired meanwhile; what it is does not change.
            **{
                f"job {head.job_id}": (head.owner, head.payload_hash, head.deadline, head.workers)
                for head in heads
            },
            # Nor do a worker's keys, though it may be suspended or renewed.
            **{
                f"worker {worker.worker}": (worker.signing_key, worker.encryption_key)
                for worker in workers
            },
        }
        return {
            name: blake2b(repr(value).encode(), digest_size=16).hexdigest()
            for name, value in found.items()
        }

    def _balance(self) -> int | None:
        return self._session.chain.account(self._session.signer.account_id).balance

    def _running(self) -> bytes | None:
        return self._session.chain.code_hash(self._session.contract)

    def _require_admin(self) -> None:
        from orchestrator.encoding import to_ss58

        admin = self._session.chain.read(self._processor.admin())
        account = self._session.signer.account_id
        if admin != account:
            raise RefusedError(
                "NotAdmin", f"the contract's admin is {to_ss58(admin)}, not {to_ss58(account)}"
            )

    def _cost(self, mode: Mode) -> "Cost | None":
        """
        What all steps cost at most.

        A code that is not there yet can't be set, not even to try. A deployment of the code
        stores it, too, and an instance of it besides, so it costs more.
        """
        from orchestrator.chain import Cost
        from orchestrator.models import Parameters

        chain, account = self._session.chain, self._session.signer.account_id
        constructor = self._processor.new(chain.genesis_hash, Parameters())
        salt = self._session.contract + self._bundle.code_hash
        deploying = chain.estimate_deploy(
            self._bundle.code, constructor, deployer=account, salt=salt
        ).cost
        other = Mode.RUNNING if mode is Mode.HALTED else Mode.HALTED
        setting = chain.estimate(self._processor.set_mode(other), caller=account).cost
        if deploying is None or setting is None:
            return None
        return Cost(
            fee=deploying.fee + 3 * setting.fee,
            deposit=deploying.deposit,
            ref_time=deploying.ref_time + 3 * setting.ref_time,
            proof_size=deploying.proof_size + 3 * setting.proof_size,
        )

    def _set_mode(self, mode: Mode) -> None:
        try:
            self._send(self._processor.set_mode(mode), f"Setting mode {mode.value}")
        except ContractError as refusal:
            # `WrongMode` says that it is the mode already: an earlier run came this far.
            if refusal.variant != "WrongMode":
                raise

    def _send(self, call: "ContractCall[None]", what: str) -> None:
        signer = self._session.signer
        with self._session.output.progress(what):
            self._session.paid.add(self._session.chain.call(call, signer=signer))

    # The note.

    @property
    def _note_file(self) -> Path:
        from orchestrator.keystore.private_files import ensure_private_directory

        session = self._session
        folder = ensure_private_directory(session.settings.client)
        chain = session.chain.genesis_hash.hex()[:16]
        return folder / f"upgrade-{chain}-{session.contract.hex()}.json"

    def _write_note(self, note: _Note) -> None:
        from orchestrator.keystore.private_files import write_new_file

        new = self._note_file.with_suffix(".new")
        new.unlink(missing_ok=True)
        text = json.dumps({"mode": note.mode.value, "block": note.block, "stored": note.stored})
        write_new_file(new, text.encode("ascii"))
        new.replace(self._note_file)

    def _read_note(self) -> _Note | None:
        """What an earlier run wrote down, if it halted the contract and nobody else did since."""
        from orchestrator.keystore.private_files import read_private_file

        if not self._note_file.exists():
            return None
        raw = read_private_file(self._note_file, max_bytes=_MAX_NOTE_BYTES)
        try:
            found = json.loads(raw)
            stored = found["stored"]
            note = _Note(
                mode=Mode(found["mode"]),
                block=int(found["block"]),
                stored=None if stored is None else {str(k): str(stored[k]) for k in stored},
            )
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise InputError(f"{self._note_file}: damaged; remove it and give --then") from error
        changes = self._mode_changes(first_block=note.block + 1)
        is_ours = [mode for _, mode in changes] == (
            [] if note.mode is Mode.HALTED else [Mode.HALTED]
        ) and all(block <= note.block + _ERA_BLOCKS for block, _ in changes)
        return note if is_ours else None

    def _mode_changes(self, *, first_block: int) -> list[tuple[int, object]]:
        from orchestrator.chain import Cursor

        found = []
        for raw in self._session.raw_events(Cursor(block=first_block, index=-1)):
            # The code that ran before may have events which the new build does not know.
            with contextlib.suppress(ChainMismatchError):
                event = self._processor.decode_event(raw)
                if event.name == "ModeChanged":
                    found.append((raw.block.number, event.fields["mode"]))
        return found
