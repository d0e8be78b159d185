"""A contract on a node, with one worker, people, and statements by the worker."""

import time
from dataclasses import dataclass
from typing import TypeVar

from benchmarks.completions import MEASUREMENT, completed
from orchestrator.chain import ContractCall
from orchestrator.chain.substrate import SubstrateChain
from orchestrator.crypto import EcdsaSigner, Sr25519Signer
from orchestrator.crypto.accounts import AccountKey
from orchestrator.models import (
    Completion,
    JobId,
    JobOptions,
    Parameters,
    Role,
    Scheme,
    Signer,
)
from orchestrator.testing.chain import deploy_processor, register_test_worker

__all__ = ["ADMIN", "CARRIER", "MEASUREMENT", "OPERATOR", "OWNER", "ChainWorld", "Measured"]

T = TypeVar("T")

ADMIN, OWNER, CARRIER, OPERATOR = (
    AccountKey.from_uri(f"//{name}") for name in ("Alice", "Bob", "Charlie", "Dave")
)
# Short, so that a job's whole life and its account's release fit into a run.
WINDOW_MS = 3_000
TTL_MS = 10_000


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a message used, and its sender paid; no fee is paid for a read."""

    ref_time: int
    proof_size: int
    deposit: int = 0
    fee: int | None = None


class ChainWorld:
    """A fresh contract on *chain* whose worker signs by *scheme*."""

    def __init__(self, chain: SubstrateChain, scheme: Scheme) -> None:
        self.chain = chain
        self.processor = deploy_processor(
            chain,
            admin=ADMIN,
            measurement=MEASUREMENT,
            parameters=Parameters(
                rate_limit=1_000_000, rate_window=WINDOW_MS, min_ttl=TTL_MS, max_payload=8_192
            ),
            roles={Role.REGISTRAR: ADMIN, Role.OPERATOR: OPERATOR, Role.GUARDIAN: ADMIN},
            # Each contract has an address of its own on one node.
            salt=scheme.name.encode() + chain.finalized_head().hash,
        )
        self.signer: Signer = (
            EcdsaSigner.generate() if scheme is Scheme.ECDSA else Sr25519Signer.generate()
        )
        self.worker = register_test_worker(
            chain, self.processor, self.signer, registrar=ADMIN, measurement=MEASUREMENT
        )

    def pass_time(self, milliseconds: int) -> None:
        """Wait, and have a block made: a dry run sees the time of the last one."""
        time.sleep((milliseconds + 200) / 1_000)
        self.chain.call(self.processor.allow_measurement(MEASUREMENT), signer=ADMIN)

    def submission(self, payload: bytes, *, ttl: int = 3_600_000) -> ContractCall[JobId]:
        """The call that submits a job for the worker."""
        options = JobOptions(workers=(self.worker,), ttl=ttl)
        return self.processor.submit_confidential_job(payload, bytes([9]) * 32, options)

    def submit(self, payload: bytes, count: int = 1, *, ttl: int = 3_600_000) -> list[JobId]:
        """Submit jobs in one transaction: preparation, not measured."""
        receipts = self.chain.batch([self.submission(payload, ttl=ttl)] * count, signer=OWNER)
        return [receipt.value for receipt in receipts if not isinstance(receipt, Exception)]

    def completion(self, job_id: JobId, payload: bytes) -> Completion:
        """What the worker says about a job that it completed."""
        return completed(self.chain, self.processor.contract, job_id, payload, self.signer)

    def foreseen(self, call: ContractCall[object], caller: bytes) -> Measured:
        """What a call would use; for reads, and where several are to be tried on one state."""
        cost = self.chain.estimate(call, caller=caller).cost
        assert cost is not None
        return Measured(
            ref_time=cost.ref_time, proof_size=cost.proof_size, deposit=cost.deposit, fee=cost.fee
        )

    def made(self, call: ContractCall[T], signer: AccountKey) -> tuple[T, Measured]:
        """Make a call: what it used by its dry run, and what its sender paid by its block."""
        cost = self.chain.estimate(call, caller=signer.account_id).cost
        assert cost is not None
        receipt = self.chain.call(call, signer=signer)
        measured = Measured(
            ref_time=cost.ref_time,
            proof_size=cost.proof_size,
            deposit=receipt.deposit,
            fee=receipt.fee,
        )
        return receipt.value, measured
