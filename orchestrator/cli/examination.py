"""
What can be found out about chain, contract, account and workers without sending anything.

What can't be judged because of an earlier finding is `unknown`, with that finding's name.
"""

import contextlib
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

from orchestrator.cli.costs import planck
from orchestrator.cli.errors import ExitCode, error_message, exit_code
from orchestrator.cli.findings import Finding, Outcome
from orchestrator.cli.findings import finding as _finding
from orchestrator.cli.output import shown_time
from orchestrator.cli.secrets import find_account_id
from orchestrator.cli.session import Session
from orchestrator.cli.trust_examination import TrustExamination
from orchestrator.cli.values import shown_duration
from orchestrator.errors import (
    BlobError,
    ChainMismatchError,
    ChainUnavailableError,
    ContractError,
    Error,
    InputError,
    InsufficientFundsError,
    WorkerError,
)
from orchestrator.models import JobOptions, Mode, Role, WorkerStatus

if TYPE_CHECKING:
    from orchestrator.chain import Cost
    from orchestrator.models import Parameters, Worker

OLD_HEAD_MS = 60_000
_PUBLIC_KEY = b"\x09" + bytes(31)  # any that is not zero: nothing is sent


class Examination:
    """All checks, in order; each method of `_CHECKS` is one and returns what it found."""

    def __init__(
        self, session: Session, *, window_ms: int, submits: int, clock: Callable[[], int]
    ) -> None:
        self._session = session
        self._window_ms = window_ms
        self._submits = submits
        self._clock = clock
        self._evidence = TrustExamination(session, window_ms=window_ms)
        self._failed: dict[str, str] = {}
        self._cost: Cost | None = None
        self._is_estimated = False

    def findings(self) -> list[Finding]:
        """Make every check."""
        found = []
        for name, needed, check in self._checks():
            finding = self._made(name, needed, check)
            if finding.outcome in (Outcome.FAIL, Outcome.UNKNOWN):
                self._failed[name] = finding.found
            found.append(finding)
        return found

    def _checks(self) -> list[tuple[str, tuple[str, ...], Callable[[], Finding]]]:
        """Name, what it needs, and how."""
        on_chain = ("node",)
        known = ("node", "contract", "code hash")
        at_contract = (*known, "genesis hash", "version")
        return [
            ("node", (), self._node),
            ("clock", on_chain, self._clocks),
            ("head", on_chain, self._head),
            ("contract", on_chain, self._contract),
            ("code hash", ("node", "contract"), self._code),
            ("genesis hash", known, self._genesis),
            ("version", known, self._version),
            ("mode", at_contract, self._mode),
            ("workers", at_contract, self._workers),
            ("registrations", at_contract, self._registrations),
            ("policy", (), self._evidence.policy),
            ("evidence", (*at_contract, "policy"), self._evidence.evidence),
            ("collateral", (*at_contract, "policy"), self._evidence.collateral),
            ("trust", (*at_contract, "policy"), self._evidence.trust),
            ("account", (), self._account),
            ("limits", (*at_contract, "account"), self._limits),
            ("money", ("node", "account"), self._money),
            ("roles", (*at_contract, "account"), self._roles),
            ("spending limits", (), self._spending),
            ("trusted node", (), self._trusted_node),
            ("workers' endpoints", at_contract, self._endpoints),
            ("orchestrators", (), self._orchestrators),
        ]

    def _made(self, name: str, needed: tuple[str, ...], check: Callable[[], Finding]) -> Finding:
        """What a check found; an error is a finding too, `unknown` where it tells nothing."""
        missing = next((other for other in needed if other in self._failed), None)
        if missing is not None:
            return _finding(name, Outcome.UNKNOWN, f"not judged, because of: {missing}")
        try:
            return check()
        except Error as error:
            is_unknown = exit_code(error) is ExitCode.UNKNOWN
            outcome = Outcome.UNKNOWN if is_unknown else Outcome.FAIL
            return _finding(name, outcome, error_message(error))

    # The chain.

    def _node(self) -> Finding:
        url = self._session.required("chain")
        try:
            chain = self._session.chain
        except ChainUnavailableError as error:
            return _finding(
                "node",
                Outcome.UNKNOWN,
                error_message(error),
                "is the node running, and the URL"
                " right? phala-jobs chain run starts one for development",
            )
        except ChainMismatchError as error:
            return _finding(
                "node",
                Outcome.FAIL,
                error_message(error),
                "the contract needs a chain with"
                " pallet-contracts, such as substrate-contracts-node",
            )
        kind = "embedded chain" if url.startswith("local:") else "answers, has pallet-contracts"
        return _finding("node", Outcome.OK, f"{url}: {kind}, genesis 0x{chain.genesis_hash.hex()}")

    def _clocks(self) -> Finding:
        """The chain must not be ahead of us: what we sign and wait for would be late."""
        ahead = self._session.chain.finalized_head().timestamp - self._clock()
        if ahead > self._skew():
            return _finding(
                "clock",
                Outcome.FAIL,
                f"the chain's last block is {shown_duration(ahead)} ahead of this machine's clock",
                "set this machine's clock (NTP); on an embedded chain somebody has advanced time",
            )
        return _finding("clock", Outcome.OK, "this machine's clock is not behind the chain's")

    def _skew(self) -> int:
        """What the contract allows between clocks; its default where it can't be asked."""
        from orchestrator.models import Parameters

        with contextlib.suppress(Error):
            return self._parameters().max_clock_skew
        return Parameters().max_clock_skew

    def _head(self) -> Finding:
        head = self._session.chain.finalized_head()
        age = max(0, self._clock() - head.timestamp)
        found = f"finalized block {head.number} of {shown_time(head.timestamp)}"
        if age <= OLD_HEAD_MS or self._session.required("chain").startswith("local:"):
            return _finding("head", Outcome.OK, found)
        seconds = shown_duration(age // 1_000 * 1_000)
        return _finding(
            "head",
            Outcome.WARN,
            f"{found}, {seconds} ago",
            "an idle development chain makes a block only for a transaction, and this is no fault;"
            " any other node is behind, or this machine's clock is ahead",
        )

    # The contract.

    def _contract(self) -> Finding:
        name = self._session.required("contract")
        found = self._session.chain.code_hash(self._session.contract)
        if found is None:
            return _finding(
                "contract",
                Outcome.FAIL,
                f"there is no contract at {name} on this chain",
                "another chain, or another address: contract deploy printed it",
            )
        return _finding("contract", Outcome.OK, name)

    def _code(self) -> Finding:
        found = self._session.chain.code_hash(self._session.contract) or b""
        known = self._session.bundle.code_hash
        if found != known:
            return _finding(
                "code hash",
                Outcome.FAIL,
                f"the contract runs 0x{found.hex()}, and this program has 0x{known.hex()}",
                "another contract, or another build of it: give its .contract file with --bundle,"
                " or let its admin upgrade it: phala-jobs contract upgrade",
            )
        return _finding("code hash", Outcome.OK, f"0x{found.hex()}, as expected")

    def _genesis(self) -> Finding:
        named = self._session.chain.read(self._session.unchecked_processor.genesis_hash())
        if named != self._session.chain.genesis_hash:
            return _finding(
                "genesis hash",
                Outcome.FAIL,
                f"the contract was deployed for 0x{named.hex()}, which is another chain",
                "deploy it anew on this one: signatures for it would count elsewhere",
            )
        return _finding("genesis hash", Outcome.OK, "the contract was deployed for this chain")

    def _version(self) -> Finding:
        from orchestrator.chain.bundle import CONTRACT_VERSIONS

        version = self._session.chain.read(self._session.unchecked_processor.version())
        if version not in CONTRACT_VERSIONS:
            known = ", ".join(map(str, CONTRACT_VERSIONS))
            return _finding(
                "version",
                Outcome.FAIL,
                f"the contract is of version {version}, and this program knows {known}",
                "use the program's release for that contract",
            )
        return _finding("version", Outcome.OK, f"contract and protocol {version}")

    def _parameters(self) -> "Parameters":
        return self._session.chain.read(self._session.processor.parameters())

    def _mode(self) -> Finding:
        mode = self._session.chain.read(self._session.processor.mode())
        if mode is Mode.RUNNING:
            return _finding("mode", Outcome.OK, mode.value)
        closed = "no job is taken" if mode is Mode.DRAINING else "no job is taken or recorded"
        return _finding(
            "mode",
            Outcome.WARN,
            f"{mode.value}: {closed}",
            "the admin: phala-jobs mode set running",
        )

    def _workers(self) -> Finding:
        found = f"{len(self._listed)} registered, {len(self._trusted)} trusted now"
        if self._trusted:
            return _finding("workers", Outcome.OK, found)
        return _finding(
            "workers", Outcome.FAIL, found, "nobody can take a job: phala-jobs workers list"
        )

    @functools.cached_property
    def _listed(self) -> "list[Worker]":
        from orchestrator.client.chain_view import ChainView

        session = self._session
        return list(ChainView(session.chain, session.contract, session.bundle).workers())

    @functools.cached_property
    def _trusted(self) -> "list[Worker]":
        read, processor = self._session.chain.read, self._session.processor
        return [worker for worker in self._listed if read(processor.is_trusted(worker.worker))]

    def _registrations(self) -> Finding:
        now = self._session.chain.now()
        ending = [
            f"worker {worker.worker} {'on' if worker.valid_until >= now else 'since'}"
            f" {shown_time(worker.valid_until)}"
            for worker in self._listed
            if worker.status is WorkerStatus.ACTIVE and worker.valid_until < now + self._window_ms
        ]
        if ending:
            return _finding(
                "registrations",
                Outcome.FAIL,
                "ending, or ended: " + ", ".join(ending),
                "the registrar renews or registers them anew, or revokes those that are gone; jobs"
                " are not sealed to them after",
            )
        within = shown_duration(self._window_ms)
        return _finding("registrations", Outcome.OK, f"none of an active worker ends in {within}")

    # The account.

    def _account_id(self) -> bytes:
        account = find_account_id(self._session)
        if account is None:
            raise InputError("no account is named: give --account or --account-file")
        return account

    def _account(self) -> Finding:
        from orchestrator.encoding import to_ss58

        return _finding("account", Outcome.OK, to_ss58(self._account_id()))

    def _limits(self) -> Finding:
        """Let the chain try the largest job there can be, without sending it."""
        chain, processor = self._session.chain, self._session.processor
        limits, account = self._parameters(), self._account_id()
        workers = tuple(worker.worker for worker in self._trusted)[:4]
        call = processor.submit_confidential_job(
            bytes(limits.max_payload),
            _PUBLIC_KEY,
            JobOptions(workers=workers or (1,), ttl=limits.min_ttl),
        )
        size = f"a job of {limits.max_payload} bytes"
        try:
            self._cost = chain.estimate(call, caller=account).cost
        except ContractError as refusal:
            outcome = Outcome.WARN
            hint = {
                "RateLimited": "the account has used up its rate window: wait, or another account",
                "WrongMode": "the contract takes no jobs now",
            }.get(refusal.variant, "see the other checks")
            return _finding(
                "limits",
                outcome,
                f"{size} gets through to the contract, which refuses it now: {refusal.variant}",
                hint,
            )
        except InsufficientFundsError as error:
            return _finding("limits", Outcome.UNKNOWN, f"{size} can't be tried: {error}", _FAUCET)
        self._is_estimated = True
        left = chain.read(processor.rate_limit_left(account))
        return _finding(
            "limits", Outcome.OK, f"{size} would be taken; {left} more in this rate window"
        )

    def _money(self) -> Finding:
        balance = self._session.chain.account(self._account_id()).balance
        if balance is None:
            return _finding("money", Outcome.OK, "this chain has no money")
        has = f"the account has {planck(balance)}"
        if balance == 0:
            return _finding("money", Outcome.FAIL, has, _FAUCET)
        if not self._is_estimated or self._cost is None:
            return _finding("money", Outcome.OK, f"{has}; what a job costs is not known now")
        each = self._cost.fee + max(0, self._cost.deposit)
        count = balance // each if each else 0
        found = (
            f"{has}, enough for {count:,} of the largest jobs (fee {self._cost.fee:,}, deposit"
            f" {self._cost.deposit:,} until purged)"
        )
        if count < self._submits:
            return _finding("money", Outcome.WARN if count else Outcome.FAIL, found, _FAUCET)
        return _finding("money", Outcome.OK, found)

    def _roles(self) -> Finding:
        read, processor, account = (
            self._session.chain.read,
            self._session.processor,
            self._account_id(),
        )
        held = ["admin"] if read(processor.admin()) == account else []
        held += [role.value for role in Role if read(processor.has_role(account, role))]
        found = ", ".join(held) or "none: enough to submit jobs, and to carry statements"
        return _finding("roles", Outcome.OK, found)

    def _spending(self) -> Finding:
        limits = self._session.spending
        if limits is None:
            return _finding("spending limits", Outcome.OK, "none are set")
        parts = []
        if limits.per_call is not None:
            parts.append(f"fee of a call at most {planck(limits.per_call)}")
        if limits.per_day is not None:
            spent = limits.spent_today()
            parts.append(f"{planck(spent)} of {planck(limits.per_day)} spent today")
            if spent >= limits.per_day:
                return _finding(
                    "spending limits", Outcome.WARN, "; ".join(parts), "nothing more is sent today"
                )
        return _finding("spending limits", Outcome.OK, "; ".join(parts))

    def _trusted_node(self) -> Finding:
        url = self._session.required("chain")
        if self._session.settings.policy is not None:
            return _finding(
                "trusted node", Outcome.OK, "not needed: jobs are sealed by evidence and policy"
            )
        if self._session.is_trusted_chain(url):
            return _finding("trusted node", Outcome.OK, "jobs are sealed to workers it names")
        return _finding(
            "trusted node",
            Outcome.WARN,
            f"{url} is not among trusted_nodes: without a policy submit seals nothing",
            f"if it is your own node, or you trust it: --trusted-nodes {url}",
        )

    # Services.

    def _endpoints(self) -> Finding:
        import asyncio

        silent = []
        for worker in self._trusted:
            trouble = asyncio.run(_ask_worker(worker))
            if trouble:
                silent.append(f"worker {worker.worker}: {trouble}")
        if silent:
            return _finding(
                "workers' endpoints",
                Outcome.WARN,
                "; ".join(silent),
                "is worker run running there, and its endpoint to be reached from here?",
            )
        answer = f"all {len(self._trusted)} answer" if self._trusted else "no trusted worker to ask"
        return _finding("workers' endpoints", Outcome.OK, answer)

    def _orchestrators(self) -> Finding:
        urls = self._session.settings.blob_sources
        if not urls:
            return _finding("orchestrators", Outcome.OK, "none is set; results come from workers")
        silent = []
        for url in urls:
            try:
                self._session.blobs_at(url).has(bytes(32))
            except BlobError as error:
                silent.append(f"{url}: {error_message(error)}")
        if silent:
            return _finding(
                "orchestrators", Outcome.WARN, "; ".join(silent), "is orchestrator run running?"
            )
        return _finding("orchestrators", Outcome.OK, f"all {len(urls)} answer")


_FAUCET = "send it money; on a development chain //Alice has some"


async def _ask_worker(worker: "Worker") -> str:
    """Why the worker is not to be used, empty when it answers as itself."""
    from orchestrator.workers.http import HttpWorkerClient

    try:
        client = HttpWorkerClient(worker.endpoint.decode("utf-8", "replace"), timeout_seconds=5.0)
    except Error as error:
        return error_message(error)
    try:
        identity = await client.identity()
    except WorkerError as error:
        return error_message(error)
    finally:
        await client.close()
    if not identity.serves(worker.signing_key):
        return "another worker answers at its endpoint"
    return ""
