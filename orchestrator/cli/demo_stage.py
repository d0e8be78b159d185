"""
What the demo plays on: a chain in a temporary folder, the contract, accounts, worker processes.

Everything here is done as the commands do it; the accounts are made for one run and forgotten.
"""

import asyncio
import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.blobs import BlobStore
from orchestrator.chain.bundle import Bundle, load_bundle
from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.chain.processor import JobProcessor
from orchestrator.cli.demo_children import Child, Children
from orchestrator.cli.workers import ask_registration
from orchestrator.crypto.accounts import generate_mnemonic
from orchestrator.crypto.keys import AccountKey, OwnerSecret
from orchestrator.encoding import blake2_256, to_ss58
from orchestrator.keystore.private_files import write_new_file
from orchestrator.models import Parameters, Role, WorkerId
from orchestrator.worker import TokenList, TokenScope
from orchestrator.workers import JobKey, WorkerJobState
from orchestrator.workers.http import HttpWorkerClient

if TYPE_CHECKING:
    from orchestrator.chain import ContractCall, Receipt
    from orchestrator.client import JobClient

T = TypeVar("T")

MEASUREMENT = blake2_256(b"phala-jobs demo: development workers, no TEE")
REGISTERED_FOR_MS = 86_400_000
RUNNING_SECONDS = 30.0


@dataclass(frozen=True, kw_only=True)
class RegisteredWorker:
    """A worker process and what the contract calls it."""

    worker: WorkerId
    url: str
    child: Child
    folder: Path
    jobs_token: str


class Stage:
    """The folder, the chain in it, the contract, the accounts; leaving it closes the chain."""

    def __init__(self, folder: Path, children: Children) -> None:
        self.folder = folder
        self.children = children
        self.bundle: Bundle = load_bundle()
        self.chain_url = f"local:{folder / 'chain.db'}"
        self.chain = EmbeddedChain(folder / "chain.db")
        self.admin = AccountKey.generate()
        self.registrar = AccountKey.generate()
        self._operator_phrase = generate_mnemonic()
        self.operator = AccountKey.from_uri(self._operator_phrase)
        self.owner = AccountKey.generate()
        self.owner_secret = OwnerSecret.generate()
        draft = JobProcessor(bytes(32), self.bundle)
        deployed = self.chain.deploy(
            self.bundle.code,
            draft.new(self.chain.genesis_hash, Parameters()),
            signer=self.admin,
        )
        self.contract = deployed.contract
        self.processor = JobProcessor(deployed.contract, self.bundle)
        self.call(self.processor.grant_role(self.registrar.account_id, Role.REGISTRAR), self.admin)
        self.call(self.processor.grant_role(self.operator.account_id, Role.OPERATOR), self.admin)
        self.call(self.processor.allow_measurement(MEASUREMENT), self.registrar)

    @property
    def contract_name(self) -> str:
        """The contract's address as people write it."""
        return to_ss58(self.contract)

    def call(self, call: "ContractCall[T]", signer: AccountKey) -> "Receipt[T]":
        """Make a call."""
        return self.chain.call(call, signer=signer)

    def start_worker(
        self, number: int, models: Path, *, hold: str, tasks: str = "onnx"
    ) -> RegisteredWorker:
        """Start a worker process, and register it on its own word."""
        folder = self.folder / f"worker-{number}"
        tokens = TokenList(folder)
        now = time.time_ns() // 1_000_000
        registration_token = tokens.add("registrar", TokenScope.REGISTRATION, now=now)
        jobs_token = tokens.add("orchestrator", TokenScope.JOBS, now=now)
        child = self.children.start(
            f"worker {number}",
            [
                *("worker", "run", "--json"),
                *("--chain", self.chain_url, "--contract", self.contract_name),
                *("--folder", folder, "--listen", "127.0.0.1:0"),
                *("--models", models, "--tasks", tasks, "--hold", hold),
            ],
        )
        url = child.text("listening")
        registration, possession = asyncio.run(
            ask_registration(
                url,
                token=registration_token,
                genesis_hash=self.chain.genesis_hash,
                contract=self.contract,
                measurement=MEASUREMENT,
                valid_until=self.chain.now() + REGISTERED_FOR_MS,
            )
        )
        call = self.processor.register_worker(registration, possession)
        worker = self.call(call, self.registrar).value
        return RegisteredWorker(
            worker=worker, url=url, child=child, folder=folder, jobs_token=jobs_token
        )

    def start_orchestrator(
        self, workers: list[RegisteredWorker], options: Sequence[str] = ()
    ) -> Child:
        """Start the orchestrator process, for one owner's jobs alone."""
        account, tokens = self.folder / "operator", self.folder / "tokens.toml"
        write_new_file(account, self._operator_phrase.encode("ascii"))
        lines = [f'{worker.worker} = "{worker.jobs_token}"\n' for worker in workers]
        write_new_file(tokens, "".join(lines).encode("ascii"))
        return self.children.start(
            "orchestrator",
            [
                *("orchestrator", "run", "--json"),
                *("--chain", self.chain_url, "--contract", self.contract_name),
                *("--account-file", account, "--folder", self.folder / "orchestrator"),
                *("--listen", "127.0.0.1:0", "--tokens", tokens),
                *("--owners", to_ss58(self.owner.account_id)),
                *options,
            ],
        )

    def job_client(self, results: BlobStore) -> "JobClient":
        """The owner's client; it gets results from this store alone."""
        from orchestrator.client import JobClient

        return JobClient(
            chain=self.chain,
            contract=self.contract,
            account=self.owner,
            secret=self.owner_secret,
            state_dir=self.folder / "owner",
            trusted_node=True,
            blob_sources=[results],
        )

    def wait_until_running(self, worker: RegisteredWorker, key: JobKey) -> bool:
        """Whether the worker came to say `running` of the job, in time."""
        return asyncio.run(_says_running(worker.url, key))

    def close(self) -> None:
        """Close the chain."""
        self.chain.close()


async def _says_running(url: str, key: JobKey) -> bool:
    from orchestrator.errors import WorkerError

    client = HttpWorkerClient(url)
    deadline = time.monotonic() + RUNNING_SECONDS
    try:
        while time.monotonic() < deadline:
            # The worker does not know the job before the orchestrator has handed it over.
            with contextlib.suppress(WorkerError):
                job = await client.get_job(key, wait_seconds=0)
                if job.state is WorkerJobState.RUNNING:
                    return True
            await asyncio.sleep(0.05)
        return False
    finally:
        await client.close()
