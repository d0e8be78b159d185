"""The embedded chain: calls and reads per second of CPU, one process."""

import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.completions import MEASUREMENT, completed
from benchmarks.table import Table, number, per_second
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.crypto import EcdsaSigner
from orchestrator.models import (
    Completion,
    JobOptions,
    Parameters,
)
from orchestrator.testing.chain import LocalAccount, deploy_processor, register_test_worker

PAYLOAD = bytes(range(256)) * 16
GROUP = 10


class _World:
    """A contract in a file with one worker, and statements by it."""

    def __init__(self, path: Path) -> None:
        self.chain = EmbeddedChain(path)
        self.account = LocalAccount.named("bench")
        self.processor = deploy_processor(
            self.chain,
            admin=self.account,
            measurement=MEASUREMENT,
            parameters=Parameters(rate_limit=1_000_000),
        )
        self.signer = EcdsaSigner.generate()
        self.worker = register_test_worker(
            self.chain,
            self.processor,
            self.signer,
            registrar=self.account,
            measurement=MEASUREMENT,
        )
        self.options = JobOptions(workers=(self.worker,), ttl=3_600_000)

    def submit(self) -> int:
        call = self.processor.submit_confidential_job(PAYLOAD, bytes([9]) * 32, self.options)
        return self.chain.call(call, signer=self.account).value

    def submit_group(self, count: int) -> list[int]:
        """Submit in one transaction: preparation, not measured."""
        call = self.processor.submit_confidential_job(PAYLOAD, bytes([9]) * 32, self.options)
        receipts = self.chain.batch([call] * count, signer=self.account)
        return [receipt.value for receipt in receipts if not isinstance(receipt, Exception)]

    def completion(self, job_id: int) -> Completion:
        return completed(self.chain, self.processor.contract, job_id, PAYLOAD, self.signer)


def measure() -> Table:
    """Measure each action on one growing file; a message is one block and one commit."""
    with tempfile.TemporaryDirectory() as folder:
        world = _World(Path(folder) / "chain.db")
        waiting = [world.completion(job) for job in world.submit_group(4_000)]
        first = waiting[-1].job_id

        def record() -> None:
            world.chain.call(
                world.processor.record_attestation(waiting.pop()), signer=world.account
            )

        def complete() -> None:
            group = [waiting.pop() for _ in range(GROUP)]
            world.chain.call(world.processor.complete_jobs(group), signer=world.account)

        actions: tuple[tuple[str, Callable[[], object], int], ...] = (
            ("submit 4 KiB", world.submit, 1),
            ("record_attestation, ECDSA", record, 1),
            ("complete_jobs of ten, per job", complete, GROUP),
            ("get_job", lambda: world.chain.read(world.processor.get_job(first)), 1),
            ("mode", lambda: world.chain.read(world.processor.mode()), 1),
        )
        rates = {name: per_second(run, min_seconds=0.5) * times for name, run, times in actions}
        world.chain.close()
    rows = [
        (name, number(rate), f"{1_000 / rate:.2f}", f"{rates['mode'] / rate:.2f}")
        for name, rate in rates.items()
    ]
    return Table(
        title="Embedded chain",
        columns=("what", "per second", "ms", "time / the smallest read"),
        rows=rows,
    )
