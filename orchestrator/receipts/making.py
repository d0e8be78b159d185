"""Making a receipt from a chain that proves its storage."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from orchestrator.attestation import AttestationFile
from orchestrator.chain.cells import ContractCells
from orchestrator.chain.storage_keys import StorageProof
from orchestrator.receipts.facts import StoredFacts, read_facts
from orchestrator.receipts.state import ProvenContract

__all__ = ["ProvenJob", "ProvesStorage", "prove_job"]


@runtime_checkable
class ProvesStorage(Protocol):
    """A chain that proves what it stores; `SubstrateChain` is one."""

    def prove(
        self, contract: bytes, cells: Sequence[bytes], *, number: int | None = None
    ) -> StorageProof:
        """Return a proof of cells of a contract in a finalized block, the last one by default."""
        ...


@dataclass(frozen=True, kw_only=True)
class ProvenJob:
    """What a block's state says about a job, with the nodes that show it and no other."""

    proof: StorageProof
    facts: StoredFacts
    block_hash: bytes
    block_number: int


def prove_job(
    chain: ProvesStorage, cells: ContractCells, known: AttestationFile, *, number: int | None = None
) -> ProvenJob:
    """
    Prove what is stored about a job whose attestation is *known*.

    The job, who signed and with which measurement never change; the rest is what the block of that
    *number*, or the last one, has.

    Raises:
        ChainError: The node can't prove it.
        InputError: There is no such block or contract.
        EncodingError: It sent something else.
        VerificationError: Its proof does not show the job, or the job has no attestation then.
    """
    asked = chain.prove(
        known.contract,
        [
            cells.root,
            cells.job(known.job.job_id),
            cells.worker(known.worker.worker),
            cells.measurement(known.worker.measurement),
        ],
        number=number,
    )
    state = ProvenContract(asked, known.contract)
    facts = read_facts(state.cell, cells, contract=known.contract, job_id=known.job.job_id)
    return ProvenJob(
        proof=StorageProof(header=asked.header, nodes=state.used()),
        facts=facts,
        block_hash=state.block_hash,
        block_number=state.block_number,
    )
