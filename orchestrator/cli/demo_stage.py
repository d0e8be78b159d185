"""
What the demo plays on: a chain in a temporary folder, the contract, accounts, worker processes.

Everything here is done as the commands do it; the accounts are made for one run and forgotten.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from orchestrator.blobs import BlobStore
from orchestrator.blobs.http import HttpBlobStore
from orchestrator.chain import Block
from orchestrator.chain.bundle import Bundle, load_bundle
from orchestrator.chain.devnode import DevNode
from orchestrator.chain.processor import JobProcessor
from orchestrator.chain.url import open_chain
from orchestrator.cli.demo_children import Child, Children
from orchestrator.crypto.accounts import generate_mnemonic
from orchestrator.crypto.keys import AccountKey, OwnerSecret
from orchestrator.encoding import to_ss58
from orchestrator.keystore.private_files import write_new_file
from orchestrator.models import Parameters, Role, Worker, WorkerId
from orchestrator.simulator import create_simulator
from orchestrator.worker import TokenList, TokenScope
from orchestrator.workers import JobKey, WorkerJobState
from orchestrator.workers.http import HttpWorkerClient

if TYPE_CHECKING:
    from orchestrator.chain import ContractCall, Deployment, Receipt
    from orchestrator.client import JobClient
    from orchestrator.evidence import Policy, Verdict

T = TypeVar("T")

RUNNING_SECONDS = 30.0
# Final a second after it is made, so that waiting for finality is there to be seen.
FINALITY = ("--finalize-delay-sec", "1")


@dataclass(frozen=True, kw_only=True)
class StartedWorker:
    """A worker process, and the tokens of those who may use it."""

    url: str
    child: Child
    folder: Path
    jobs_token: str
    registration_token: str


@dataclass(frozen=True, kw_only=True)
class Step:
    """A call of ours that is final: what it was, where it is, what it cost."""

    what: str
    block: Block
    fee: int
    deposit: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Balances:
    """What the accounts that take part in a job have, in planck."""

    owner: int
    operator: int


class Stage:
    """
    The folder, the chain, the contract, the accounts, a simulated TEE platform.

    With *node*, the program of a development node, the chain is a real one, its data in the
    folder and the accounts those that have money there; else it is the embedded one. `close` ends
    it.
    """

    def __init__(
        self,
        folder: Path,
        children: Children,
        node: Path | None,
        *,
        node_flags: Sequence[str] = FINALITY,
    ) -> None:
        self.folder = folder
        self.children = children
        self.bundle: Bundle = load_bundle()
        self.steps: list[Step] = []
        self._ending = contextlib.ExitStack()
        self._node: DevNode | None = None
        with contextlib.ExitStack() as undo:
            undo.callback(self._ending.close)
            self._open(node, node_flags)
            undo.pop_all()

    def _open(self, node: Path | None, flags: Sequence[str]) -> None:
        if node is None:
            self.chain_url = f"local:{self.folder / 'chain.db'}"
        else:
            self._node = DevNode(node, base_path=self.folder / "node", flags=flags)
            self._ending.callback(self._node.close)
            self.chain_url = self._node.url
        self.chain = open_chain(self.chain_url, create=True)
        self._ending.callback(self.chain.close)
        self.admin, _ = self._account("//Alice")
        self.registrar, _ = self._account("//Bob")
        self.operator, self._operator_phrase = self._account("//Charlie")
        self.owner, _ = self._account("//Dave")
        self.owner_secret = OwnerSecret.generate()
        draft = JobProcessor(bytes(32), self.bundle)
        started = time.monotonic()
        deployed = self.chain.deploy(
            self.bundle.code,
            draft.new(self.chain.genesis_hash, Parameters()),
            signer=self.admin,
        )
        self.note("deploy the contract", deployed, started)
        self.contract = deployed.contract
        self.processor = JobProcessor(deployed.contract, self.bundle)
        self.call(self.processor.grant_role(self.registrar.account_id, Role.REGISTRAR), self.admin)
        self.call(self.processor.grant_role(self.operator.account_id, Role.OPERATOR), self.admin)
        self.simulator = self.folder / "simulator"
        create_simulator(self.simulator)

    def _account(self, uri: str) -> tuple[AccountKey, str]:
        """An account and what spells it: new, or on a node the one that has money there."""
        phrase = uri if self.is_node else generate_mnemonic()
        return AccountKey.from_uri(phrase), phrase

    def note(self, what: str, done: "Receipt[T] | Deployment", started: float) -> None:
        """Note a call that began at *started* of the monotonic clock, and is final now."""
        seconds = time.monotonic() - started
        self.steps.append(
            Step(what=what, block=done.block, fee=done.fee, deposit=done.deposit, seconds=seconds)
        )

    @property
    def is_node(self) -> bool:
        """Whether the chain is a real one, with blocks, fees and deposits."""
        return self._node is not None

    @property
    def node_process(self) -> int | None:
        """The node's process id."""
        return None if self._node is None else self._node.process.pid

    def balances(self) -> Balances:
        """What owner and operator have now; 0 where there is no money."""
        owner, operator = (
            self.chain.account(account.account_id).balance or 0
            for account in (self.owner, self.operator)
        )
        return Balances(owner=owner, operator=operator)

    @property
    def contract_name(self) -> str:
        """The contract's address as people write it."""
        return to_ss58(self.contract)

    def call(self, call: "ContractCall[T]", signer: AccountKey) -> "Receipt[T]":
        """Make a call."""
        started = time.monotonic()
        receipt = self.chain.call(call, signer=signer)
        self.note(call.label, receipt, started)
        return receipt

    def start_worker(
        self, number: int, models: Path, *, hold: str, tasks: str = "onnx"
    ) -> StartedWorker:
        """Start a worker process on the simulated platform; it is on no list yet."""
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
                *("--evidence", f"simulated:{self.simulator}"),
                *("--models", models, "--tasks", tasks, "--hold", hold),
            ],
        )
        return StartedWorker(
            url=child.text("listening"),
            child=child,
            folder=folder,
            jobs_token=jobs_token,
            registration_token=registration_token,
        )

    def start_orchestrator(
        self, tokens_of: Mapping[WorkerId, str], options: Sequence[str] = ()
    ) -> Child:
        """Start the orchestrator process, with each worker's token, for one owner's jobs alone."""
        account, tokens = self.folder / "operator", self.folder / "tokens.toml"
        write_new_file(account, self._operator_phrase.encode("ascii"))
        lines = [f'{worker} = "{token}"\n' for worker, token in tokens_of.items()]
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

    def job_client(
        self,
        results: BlobStore,
        policy: "Policy",
        on_verdict: "Callable[[Worker, Verdict], None]" = lambda _, __: None,
    ) -> "JobClient":
        """
        The owner's client, which trusts no node.

        It seals to keys out of evidence that it verified itself, which it asks the workers for. It
        gets results from this store alone.
        """
        from orchestrator.client import JobClient

        return JobClient(
            chain=self.chain,
            contract=self.contract,
            account=self.owner,
            secret=self.owner_secret,
            state_dir=self.folder / "owner",
            trusted_node=False,
            policy=policy,
            on_verdict=on_verdict,
            blob_sources=[results],
            worker_blobs=self._blobs_of,
        )

    def _blobs_of(self, worker: Worker) -> HttpBlobStore:
        store = HttpBlobStore(worker.endpoint.decode("ascii"))
        self._ending.callback(store.close)
        return store

    def wait_until_running(self, worker: StartedWorker, key: JobKey) -> bool:
        """Whether the worker came to say `running` of the job, in time."""
        return asyncio.run(_says_running(worker.url, key))

    def close(self) -> None:
        """Close the chain, and end the node."""
        self._ending.close()


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
