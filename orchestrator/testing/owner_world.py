"""One owner, two workers, the real contract on an embedded chain, and chains that misbehave."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.processor import JobProcessor
from orchestrator.client import JobClient
from orchestrator.crypto import AccountKey, EcdsaSigner, OwnerSecret, Sr25519Signer
from orchestrator.errors import ChainUnavailableError
from orchestrator.models import Completion, JobId, Parameters
from orchestrator.testing.chain import FixedClock, LocalAccount, deploy_processor
from orchestrator.testing.local_worker import LocalWorker

__all__ = ["ADMIN", "MEASUREMENT", "OWNER", "SECRET", "MisbehavingChain", "World", "make_world"]

MEASUREMENT = bytes.fromhex("5e" * 32)
OWNER = AccountKey.from_uri("//Alice")
SECRET = OwnerSecret.from_bytes(bytes(range(32)))
ADMIN = LocalAccount.named("admin")


class MisbehavingChain:
    """
    The chain inside, until told otherwise.

    `answers` replaces what reads of a label say; `faults` are raised by calls to come: each is
    raised before or after the chain inside has done what was asked.
    """

    def __init__(self, inside: EmbeddedChain) -> None:
        self.inside = inside
        self.answers: dict[str, Callable[[Any], Any]] = {}
        self.faults: list[str] = []
        self.reads: list[str] = []
        self.sent = 0

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - whatever the chain inside has
        return getattr(self.inside, name)

    def read(self, call: Any) -> Any:  # noqa: ANN401 - as generic as the port
        self.reads.append(call.label)
        value = self.inside.read(call)
        return self.answers[call.label](value) if call.label in self.answers else value

    def call(self, call: Any, *, signer: Any) -> Any:  # noqa: ANN401 - as generic as the port
        return self._with_fault(lambda: self.inside.call(call, signer=signer), 1)

    def batch(self, calls: Sequence[Any], *, signer: Any) -> Any:  # noqa: ANN401 - the same
        return self._with_fault(lambda: self.inside.batch(calls, signer=signer), len(calls))

    def _with_fault(self, send: Callable[[], Any], count: int) -> Any:  # noqa: ANN401 - the same
        fault = self.faults.pop(0) if self.faults else None
        if fault == "before":
            raise ChainUnavailableError
        self.sent += count
        value = send()
        if fault == "after":
            raise ChainUnavailableError
        return value


@dataclass
class World:
    """Everything around one owner."""

    folder: Path
    clock: FixedClock
    chain: MisbehavingChain
    processor: JobProcessor
    blobs: DirectoryBlobStore
    workers: list[LocalWorker] = field(default_factory=list)
    clients: list[JobClient] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)

    def client(self, **changes: Any) -> JobClient:  # noqa: ANN401 - those of JobClient
        """Open a client for the owner, with other settings where *changes* says so."""
        settings: dict[str, Any] = {
            "chain": self.chain,
            "contract": self.processor.contract,
            "account": OWNER,
            "secret": SECRET,
            "state_dir": self.folder / "state",
            "trusted_node": True,
            "blob_sources": [self.blobs],
            "clock": self.clock,
            "sleep": self.sleep,
        }
        client = JobClient(**{**settings, **changes})
        self.clients.append(client)
        return client

    def sleep(self, seconds: float) -> None:
        """Let the time pass, and note it."""
        self.slept.append(seconds)
        self.clock.advance(max(1, int(seconds * 1_000)))

    def close(self) -> None:
        """Close all clients and the chain."""
        for client in self.clients:
            client.close()
        self.chain.close()

    def job_count(self) -> int:
        """How many jobs there ever were."""
        return self.chain.inside.read(self.processor.get_job_counter())

    def record(self, completion: Completion) -> None:
        """Carry a worker's statement to the contract."""
        self.chain.inside.call(self.processor.record_attestation(completion), signer=ADMIN)

    def process(self, job_id: JobId, worker: int = 0) -> Completion:
        """Let a worker turn the job's input to capitals, record and mark it."""
        completion = self.workers[worker].execute(job_id, lambda task: task.input.upper())
        self.record(completion)
        self.chain.inside.call(self.processor.mark_job_processed(job_id), signer=ADMIN)
        return completion


def make_world(
    folder: Path, *, parameters: Parameters | None = None, path: Path | str = ":memory:"
) -> World:
    """Deploy the contract on a new chain and register two workers, one per signature scheme."""
    clock = FixedClock()
    chain = EmbeddedChain(path, clock=clock)
    processor = deploy_processor(chain, admin=ADMIN, parameters=parameters, measurement=MEASUREMENT)
    world = World(
        folder=folder,
        clock=clock,
        chain=MisbehavingChain(chain),
        processor=processor,
        blobs=DirectoryBlobStore(folder / "blobs", durable=False),
    )
    for signer in (EcdsaSigner.from_bytes(b"\1" * 32), Sr25519Signer.from_bytes(b"\2" * 32)):
        world.workers.append(
            LocalWorker(
                chain,
                processor,
                signer=signer,
                registrar=ADMIN,
                measurement=MEASUREMENT,
                blobs=world.blobs,
            )
        )
    return world
