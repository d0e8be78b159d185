"""
Examining a receipt with nothing but its bytes: no network, no chain, no clock.

What a receipt shows, it shows of one block. That the block is one of the chain, and final, nobody
can tell from a file: whoever reads it says so by naming the block's hash.
"""

from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.attestation import CheckOutcome, verify_attestation_file
from orchestrator.chain.bundle import Bundle
from orchestrator.chain.cells import ContractCells
from orchestrator.encoding import to_ss58
from orchestrator.errors import ChainMismatchError, EncodingError, InvalidSignatureError
from orchestrator.evidence import Policy, VerifiedEvidence
from orchestrator.receipts.dsse import DsseEnvelope, load_envelope, verify_envelope
from orchestrator.receipts.evidence_steps import take_evidence_steps
from orchestrator.receipts.proof_steps import take_proof_steps
from orchestrator.receipts.receipt import Receipt, load_receipt
from orchestrator.receipts.steps import Step, StepName

__all__ = ["ReceiptReport", "examine_receipt"]

# Of an attestation file's checks: the key is the worker's that the proof and the evidence are
# about, and the chain's facts are steps of their own.
_NOT_OURS = ("accepted key", "facts on the chain", "trusted today")


@dataclass(frozen=True, kw_only=True)
class ReceiptReport:
    """
    Every step in its order; `receipt` and `verified` are what was read, as far as that went.

    Nothing in them is to be believed while a step has failed or is missing.
    """

    steps: tuple[Step, ...]
    receipt: Receipt | None
    verified: VerifiedEvidence | None

    @property
    def failed(self) -> list[Step]:
        """The steps that refuse the receipt."""
        return [step for step in self.steps if step.is_failed]

    @property
    def missing(self) -> list[Step]:
        """The steps that matter and were not taken."""
        return [step for step in self.steps if step.is_missing]


def examine_receipt(
    data: bytes,
    *,
    cells: ContractCells,
    trusted_block: bytes | None = None,
    now: int | None = None,
    policy: Policy | None = None,
    takes_own_policy: bool = False,
    contract: bytes | None = None,
    result: bytes | None = None,
    show_time: Callable[[int], str] = str,
) -> ReceiptReport:
    """
    Take every step that can be taken on a receipt, or on a DSSE envelope that holds one.

    *cells* are those of the build by which the contract's storage is read. Evidence is examined at
    the time when the statement was recorded, or at *now* (ms), by *policy*, which is the reader's,
    or else by the receipt's, which decides only where the reader *takes_own_policy*.

    1. `canonical form`: the file is the one form of what it says.
    2. `envelope signature`: of an envelope, the named account signed it.
    3. `expected contract`: it is of *contract*, where one is given. `time of judging`: *now*, where
       it is given, is not before the statement was recorded: earlier evidence shows nothing of it.
    4. `job`, `worker`, `result hash`, `times`, `recorded in time`, `signature`: as of an
       attestation file (`verify_attestation_file`); `result`: *result* hashes to the result hash.
    5. `block` to `measurement allowed`: see `take_proof_steps`.
    6. `evidence` to `receipt's policy`: see `take_evidence_steps`.
    7. `events`, `finality`: never checked; a file proves neither.

    Does **not** raise for what is wrong with the file: the caller looks at the steps.
    """
    is_envelope, envelope = _is_envelope(data), None
    try:
        if is_envelope:
            envelope = load_envelope(data)
        receipt = load_receipt(data if envelope is None else envelope.payload)
    except EncodingError as error:
        failed = Step(name=StepName.FORM, outcome=CheckOutcome.FAILED, detail=str(error))
        return ReceiptReport(steps=(failed,), receipt=None, verified=None)
    steps = [_passed(StepName.FORM, "the file is the one form of what it says")]
    if envelope is not None:
        steps.append(_envelope_step(envelope))
    file = receipt.attestation
    if contract is not None:
        steps.append(_expected_step(file.contract, contract))
    if now is not None:
        steps.append(_time_step(file.recorded_at, now, show_time))
    steps += [
        Step(
            name=check.name,
            outcome=check.outcome,
            detail=check.detail,
            is_decisive=check.name != StepName.RESULT or result is not None,
        )
        for check in verify_attestation_file(file, result=result, show_time=show_time)
        if check.name not in _NOT_OURS
    ]
    proven = take_proof_steps(
        file,
        receipt.proof,
        cells=cells,
        trusted_block=trusted_block,
        show_time=show_time,
    )
    shown = take_evidence_steps(
        file,
        evidence=receipt.evidence,
        policy=receipt.policy,
        reader_policy=policy,
        takes_own=takes_own_policy,
        is_refused=any(step.is_failed for step in (*steps, *proven.steps)),
        facts=proven.facts,
        now=file.recorded_at if now is None else now,
        show_time=show_time,
    )
    steps += [*proven.steps, *shown.steps, _events_step(receipt, cells.bundle), _FINALITY]
    return ReceiptReport(steps=tuple(steps), receipt=receipt, verified=shown.verified)


def _is_envelope(data: bytes) -> bool:
    return data.lstrip().startswith(b"{") and b'"payloadType"' in data[:200]


def _envelope_step(envelope: DsseEnvelope) -> Step:
    account = to_ss58(envelope.account_id)
    try:
        verify_envelope(envelope)
    except InvalidSignatureError as error:
        detail = f"{account}: {error}"
        return Step(name=StepName.ENVELOPE, outcome=CheckOutcome.FAILED, detail=detail)
    return _passed(StepName.ENVELOPE, f"{account} signed it; whose account that is, you must know")


def _expected_step(found: bytes, expected: bytes) -> Step:
    if found == expected:
        return _passed(StepName.EXPECTED, "the receipt is of the contract that you named")
    detail = f"the receipt is of {to_ss58(found)}, you named {to_ss58(expected)}"
    return Step(name=StepName.EXPECTED, outcome=CheckOutcome.FAILED, detail=detail)


def _time_step(recorded_at: int, now: int, show_time: Callable[[int], str]) -> Step:
    if now >= recorded_at:
        return _passed(StepName.TIME, f"the evidence is judged at {show_time(now)}")
    return Step(
        name=StepName.TIME,
        outcome=CheckOutcome.NOT_CHECKED,
        detail=f"the evidence is judged at {show_time(now)}, before the statement was recorded at"
        f" {show_time(recorded_at)}: that says nothing about the statement",
    )


def _events_step(receipt: Receipt, bundle: Bundle) -> Step:
    names = []
    for event in receipt.events:
        try:
            name, _ = bundle.ink.decode_event(event.topics, event.data)
        except ChainMismatchError:
            name = "unknown"
        names.append(f"{name} in block {event.block}")
    return Step(
        name=StepName.EVENTS,
        outcome=CheckOutcome.NOT_CHECKED,
        detail=", ".join(names) or "none",
        is_decisive=False,
    )


def _passed(name: str, detail: str) -> Step:
    return Step(name=name, outcome=CheckOutcome.PASSED, detail=detail)


_FINALITY = Step(
    name=StepName.FINALITY,
    outcome=CheckOutcome.NOT_CHECKED,
    detail="no file proves that a block is final; whoever names its hash vouches",
    is_decisive=False,
)
