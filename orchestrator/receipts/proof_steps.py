"""What a receipt's storage proof shows: that the contract recorded what the receipt says."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from orchestrator.attestation import AttestationFile, CheckOutcome
from orchestrator.chain.cells import ContractCells
from orchestrator.chain.storage_keys import StorageProof
from orchestrator.encoding import blake2_256
from orchestrator.errors import EncodingError, VerificationError
from orchestrator.receipts.facts import StoredFacts, read_facts
from orchestrator.receipts.state import ProvenContract
from orchestrator.receipts.steps import Step, StepName

__all__ = ["ProofSteps", "take_proof_steps"]

_NO_PROOF = "the receipt is of a chain that gives no proofs of its storage"
_NO_BLOCK = (
    "give --trusted-block with the hash of a block that you know to be final"
    " (this one says that it is {block})"
)
_NOT_REACHED = "not reached"
_AFTER_BLOCK = (
    StepName.STORAGE,
    StepName.CONTRACT,
    StepName.JOB_ROW,
    StepName.WORKER_ROW,
    StepName.ALLOWED,
)


@dataclass(frozen=True, kw_only=True)
class ProofSteps:
    """The steps, and what is stored if all the proof's nodes fit together; times in ms."""

    steps: tuple[Step, ...]
    facts: StoredFacts | None


def take_proof_steps(
    claimed: AttestationFile,
    proof: StorageProof | None,
    *,
    cells: ContractCells,
    trusted_block: bytes | None,
    show_time: Callable[[int], str],
) -> ProofSteps:
    """
    Compare what the receipt says with what its proof shows.

    1. `block`: the header hashes to *trusted_block*.
    2. `storage proof`: its nodes lead from the header's state root to the contract's record, its
       own trie, and there to the contract's cell, the job's row, the worker's, and the
       measurement's; none is left over.
    3. `contract`: it runs the code that *cells* are of, so that they mean what they are read as,
       and was deployed for the receipt's chain.
    4. `job's row`: job, statement, signature and time of recording are those of the receipt.
    5. `worker's row`: so are the worker's keys, measurement, evidence hash and end.
    6. `measurement allowed`: the worker's measurement is not revoked.
    """
    if proof is None:
        return _ended([], (StepName.BLOCK, *_AFTER_BLOCK), _NO_PROOF)
    steps = [_block_step(proof, trusted_block)]  # 1.
    # 2., as far as it takes to know what code reads the cells.
    try:
        state = ProvenContract(proof, claimed.contract)
    except (EncodingError, VerificationError) as error:
        return _ended([*steps, _failed(StepName.STORAGE, error)], _AFTER_BLOCK[1:])
    known = cells.bundle.code_hash
    if state.code_hash != known:
        unread = Step(name=StepName.STORAGE, outcome=CheckOutcome.NOT_CHECKED, detail=_NOT_REACHED)
        words = (
            f"the contract runs code 0x{state.code_hash.hex()}, and this program reads the cells"
            f" of 0x{known.hex()}: give its .contract file with --bundle"
        )
        return _ended([*steps, unread, _failed(StepName.CONTRACT, words)], _AFTER_BLOCK[2:])
    try:
        facts = read_facts(
            state.cell,
            cells,
            contract=claimed.contract,
            job_id=claimed.job.job_id,
        )
        state.require_all_used()
    except (EncodingError, VerificationError) as error:
        return _ended([*steps, _failed(StepName.STORAGE, error)], _AFTER_BLOCK[1:])
    steps.append(
        _passed(
            StepName.STORAGE,
            f"{len(proof.nodes)} nodes lead from the header of block {state.block_number}"
            f" ({show_time(state.timestamp)}) to the contract's cells, and none is left over",
        )
    )
    steps += _compared(claimed, facts)
    return ProofSteps(steps=tuple(steps), facts=facts)


def _block_step(proof: StorageProof, trusted_block: bytes | None) -> Step:
    found = blake2_256(proof.header)
    if trusted_block is None:
        detail = _NO_BLOCK.format(block=f"0x{found.hex()}")
        return Step(name=StepName.BLOCK, outcome=CheckOutcome.NOT_CHECKED, detail=detail)
    if found != trusted_block:
        return _failed(
            StepName.BLOCK, f"the header is of 0x{found.hex()}, you trust 0x{trusted_block.hex()}"
        )
    return _passed(StepName.BLOCK, "the header is that of the block that you trust")


def _compared(claimed: AttestationFile, facts: StoredFacts) -> list[Step]:
    """Steps 3 to 6."""
    stored = facts.attestation
    genesis = f"0x{stored.genesis_hash.hex()}"
    job_of = replace(claimed, genesis_hash=stored.genesis_hash, worker=stored.worker)
    # The key is the worker's, of which the row of the job has the number alone.
    of_row = replace(
        stored,
        completion=replace(
            stored.completion, tee_worker_pubkey=claimed.completion.tee_worker_pubkey
        ),
    )
    worker = facts.worker
    return [
        _compare(
            StepName.CONTRACT,
            "it runs the code that this program knows, and was deployed for this chain",
            f"it was deployed for the chain {genesis}",
            is_same=claimed.genesis_hash == stored.genesis_hash,
        ),
        _compare(
            StepName.JOB_ROW,
            "the contract has recorded this statement and signature for this job",
            "the contract has recorded something else about the job",
            is_same=job_of == of_row,
        ),
        _compare(
            StepName.WORKER_ROW,
            f"the contract has registered worker {worker.worker} with these keys, this measurement"
            f" and this evidence; it is {worker.status.value}",
            f"the contract has registered something else about worker {worker.worker}",
            is_same=claimed.worker == stored.worker,
        ),
        _compare(
            StepName.ALLOWED,
            "the contract allows the worker's measurement",
            "the worker's measurement is revoked",
            is_same=not facts.is_measurement_revoked,
        ),
    ]


def _compare(name: str, same: str, other: str, *, is_same: bool) -> Step:
    return _passed(name, same) if is_same else _failed(name, other)


def _passed(name: str, detail: str) -> Step:
    return Step(name=name, outcome=CheckOutcome.PASSED, detail=detail)


def _failed(name: str, why: object) -> Step:
    return Step(name=name, outcome=CheckOutcome.FAILED, detail=str(why))


def _ended(steps: list[Step], rest: tuple[str, ...], why: str = _NOT_REACHED) -> ProofSteps:
    missing = (Step(name=name, outcome=CheckOutcome.NOT_CHECKED, detail=why) for name in rest)
    return ProofSteps(steps=(*steps, *missing), facts=None)
