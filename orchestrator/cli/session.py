"""
What a running command has at hand: settings, output, and what it opens from them.

This is where adapters are chosen. Each is imported when it is first needed, so that `--help` and
commands that need no chain stay quick.
"""

import contextlib
import functools
from collections.abc import Generator, Iterator, Mapping, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from orchestrator.cli.costs import Paid, explained
from orchestrator.cli.output import Document, Output
from orchestrator.config import LoadedSettings, Settings, option_name, variable
from orchestrator.errors import ChainMismatchError, ConfigError, InsufficientFundsError

if TYPE_CHECKING:
    from orchestrator.blobs.directory import DirectoryBlobStore
    from orchestrator.blobs.http import HttpBlobStore
    from orchestrator.chain import Chain, ContractCall, Cursor, RawEvent, Receipt
    from orchestrator.chain.bundle import Bundle
    from orchestrator.chain.processor import ContractEvent, JobProcessor
    from orchestrator.chain.spending import SpendingLimits
    from orchestrator.client import JobClient
    from orchestrator.collateral import CollateralSource
    from orchestrator.evidence import Policy, Verdict
    from orchestrator.keystore import Identity
    from orchestrator.models import Account, PublicKey, Worker, WorkerId

T = TypeVar("T")


class Session:
    """One command's settings, output and open things; leaving it closes them."""

    def __init__(self, *, loaded: LoadedSettings, output: Output) -> None:
        self.loaded = loaded
        self.output = output
        self.closing = contextlib.ExitStack()
        self.paid = Paid()
        self.verdicts: dict[WorkerId, Verdict] = {}
        self.is_any_task = False  # whether a task is sealed that workers do not offer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.closing.__exit__(kind, error, trace)

    @property
    def settings(self) -> Settings:
        """The settings' values."""
        return self.loaded.settings

    def required(self, name: str) -> str:
        """The value of a setting that has no default; a `ConfigError` says how to give it."""
        value = getattr(self.settings, name)
        if value is None:
            raise ConfigError(
                f"{name} is not set: give {option_name(name)}, {variable(name)}, or {name} in the"
                " settings file"
            )
        return str(value)

    @functools.cached_property
    def chain(self) -> "Chain":
        """The chain of the settings, which has to be there."""
        return self._opened(create=False)

    def another_chain(self) -> "Chain":
        """Another connection to the same chain, for another thread."""
        return self._opened(create=False)

    def create_chain(self) -> None:
        """Let `chain` be one that is made, where an embedded one is not there yet."""
        self.chain = self._opened(create=True)

    def _opened(self, *, create: bool) -> "Chain":
        from orchestrator.chain.url import open_chain

        chain = open_chain(self.required("chain"), create=create, spending=self.spending)
        self.closing.callback(chain.close)
        return chain

    @functools.cached_property
    def spending(self) -> "SpendingLimits | None":
        """What this program may spend, `None` without a limit."""
        from orchestrator.chain.spending import SpendingLimits

        settings = self.settings
        if settings.max_fee_per_call is None and settings.max_spend_per_day is None:
            return None
        return SpendingLimits(
            per_call=settings.max_fee_per_call,
            per_day=settings.max_spend_per_day,
            ledger_file=settings.spending_file,
        )

    @functools.cached_property
    def bundle(self) -> "Bundle":
        """The build of the contract that the settings name, else the one of this package."""
        from orchestrator.chain.bundle import load_bundle

        return load_bundle(self.settings.bundle)

    @functools.cached_property
    def contract(self) -> bytes:
        """The contract's address, of the settings."""
        from orchestrator.encoding import from_ss58
        from orchestrator.errors import InputError

        text = self.required("contract")
        try:
            return from_ss58(text)
        except InputError as error:
            raise ConfigError(f"contract {text!r}: {error}") from error

    @functools.cached_property
    def processor(self) -> "JobProcessor":
        """
        The contract's messages, for a contract that is there, runs our code, and knows its chain.

        Raises:
            ChainMismatchError: There is none, it runs other code than our bundle's, it was
                deployed with another chain's genesis hash, or its version is unknown.
        """
        bundle = self.bundle
        found = self.chain.code_hash(self.contract)
        if found is None:
            raise ChainMismatchError(
                f"contract {self.required('contract')}: there is no contract at this address"
            )
        if found != bundle.code_hash:
            raise ChainMismatchError(
                f"contract {self.required('contract')} runs code 0x{found.hex()}, and"
                f" {self.settings.bundle or 'this program'} has code 0x{bundle.code_hash.hex()}:"
                " give the .contract file of what it runs with --bundle, or contract upgrade"
            )
        processor = self.unchecked_processor
        self.require_same_chain(processor)
        return processor

    @functools.cached_property
    def unchecked_processor(self) -> "JobProcessor":
        """The contract's messages, whatever it runs."""
        from orchestrator.chain.processor import JobProcessor

        return JobProcessor(self.contract, self.bundle)

    def require_same_chain(self, processor: "JobProcessor") -> None:
        """
        Refuse a contract of another chain, or of a version that is not known here.

        Raises:
            ChainMismatchError: It is one.
        """
        from orchestrator.chain.bundle import CONTRACT_VERSIONS

        named = self.chain.read(processor.genesis_hash())
        if named != self.chain.genesis_hash:
            raise ChainMismatchError(
                f"contract {self.required('contract')} was deployed for genesis 0x{named.hex()},"
                f" and this chain's is 0x{self.chain.genesis_hash.hex()}"
            )
        version = self.chain.read(processor.version())
        if version not in CONTRACT_VERSIONS:
            known = ", ".join(map(str, CONTRACT_VERSIONS))
            raise ChainMismatchError(
                f"contract {self.required('contract')} is of version {version}, and this program"
                f" knows {known}"
            )

    def events(self, *, first_block: int = 0) -> "Iterator[ContractEvent]":
        """All finalized events of the contract, from a block on."""
        from orchestrator.chain import Cursor

        for raw in self.raw_events(Cursor(block=first_block, index=-1)):
            yield self.processor.decode_event(raw)

    def raw_events(self, after: "Cursor") -> "Generator[RawEvent, None, Cursor]":
        """
        The finalized events after a place, up to the head; returns where to go on.

        A node looks at some blocks for each page, so there may be empty ones before the head.
        """
        head = self.chain.finalized_head().number
        while True:
            page = self.chain.events(self.contract, after=after)
            yield from page.events
            if page.next <= after or (not page.events and page.next.block >= head):
                return max(after, page.next)
            after = page.next

    @functools.cached_property
    def signer(self) -> "Account":
        """The account that signs, from a file or the folder of keys."""
        from orchestrator.cli.secrets import load_account

        return load_account(self)

    @functools.cached_property
    def identity(self) -> "Identity":
        """The identity that the setting `account` names: an account and the secret for results."""
        from orchestrator.cli.secrets import load_identity

        return load_identity(self)

    @functools.cached_property
    def client(self) -> "JobClient":
        """The owner's side, for that identity."""
        from orchestrator.client import JobClient

        chain_url = self.required("chain")
        self.processor  # noqa: B018  # refuses a contract that is not ours before keys are asked for
        client = JobClient(
            chain=self.chain,
            contract=self.contract,
            account=self.identity.account,
            secret=self.identity.secret,
            state_dir=self.settings.client,
            trusted_node=self.is_trusted_chain(chain_url),
            accepted_worker_keys=self._accepted_keys(),
            policy=self.policy,
            evidence=self.evidence_folder if self.policy is not None else None,
            collateral=self.collateral if self.policy is not None else None,
            on_verdict=lambda worker, verdict: self.verdicts.__setitem__(worker.worker, verdict),
            blob_sources=[self.blobs_at(url) for url in self.settings.blob_sources],
            worker_blobs=lambda worker: self.blobs_at(worker.endpoint.decode("utf-8", "replace")),
            offered_tasks=self._offered_tasks,
            bundle=self.bundle,
            on_receipt=self.paid.add,
        )
        self.closing.callback(client.close)
        return client

    def _offered_tasks(self, workers: Sequence["Worker"]) -> Mapping["WorkerId", tuple[str, ...]]:
        if self.is_any_task:
            return {}
        from orchestrator.cli.offers import offered_tasks

        return offered_tasks(workers)

    @functools.cached_property
    def policy(self) -> "Policy | None":
        """
        The policy that the settings name, `None` when they name none.

        Raises:
            InputError: Its file can't be read, or is no policy.
        """
        path = self.settings.policy
        if path is None:
            return None
        from orchestrator.cli.values import read_policy_file

        return read_policy_file(path.expanduser())[0]

    @functools.cached_property
    def evidence_folder(self) -> "DirectoryBlobStore":
        """The folder where evidence bundles are kept, made when it is not there."""
        from orchestrator.blobs.directory import DirectoryBlobStore

        return DirectoryBlobStore(self.settings.evidence.expanduser())

    @functools.cached_property
    def collateral(self) -> "CollateralSource | None":
        """
        Where what Intel says comes from, `None` when it is what workers' evidence holds.

        Nothing is kept without a policy: its roots say whose signatures are worth keeping.
        """
        from orchestrator.collateral.opening import open_collateral

        if self.settings.collateral is None:
            return None
        source = open_collateral(
            self.settings.collateral,
            cache_folder=None
            if self.policy is None
            else self.settings.client.expanduser() / "collateral",
            roots=[root.certificate for root in self.policy.roots] if self.policy else (),
        )
        self.closing.callback(source.close)
        return source

    def say_verdicts(self) -> None:
        """Say what became of the evidence of workers that were to be sealed to."""
        from orchestrator.cli.verdicts import verdict_words

        for worker, verdict in sorted(self.verdicts.items()):
            self.output.say(f"worker {worker}: {verdict_words(verdict)}")
        accepted = [one.evidence for one in self.verdicts.values() if one.evidence is not None]
        if accepted:
            self.warn_of_no_source(min(one.collateral_expires_at for one in accepted))

    def warn_of_no_source(self, ends: int | None) -> None:
        """Say, where no source of collateral is set, what judges: it ends at *ends* (ms)."""
        from orchestrator.cli.verdicts import no_source_words

        if self.settings.collateral is None:
            self.output.say(f"warning: {no_source_words(ends)}")

    @property
    def collateral_source(self) -> str:
        """Whence the collateral is that judges evidence, for JSON."""
        return "evidence" if self.settings.collateral is None else "settings"

    def verdicts_document(self) -> Document:
        """The same, whole, for JSON."""
        from orchestrator.cli.verdicts import verdict_document

        if not self.output.as_json or self.policy is None:
            return {}
        verdicts = sorted(self.verdicts.items())
        return {
            "evidence": [{"worker": w, **verdict_document(verdict)} for w, verdict in verdicts],
            "collateral_source": self.collateral_source,
        }

    def is_trusted_chain(self, chain_url: str) -> bool:
        """Whether the owner runs or trusts the node (protocol rule 1.5 b)."""
        return chain_url.startswith("local:") or chain_url in self.settings.trusted_nodes

    def _accepted_keys(self) -> "list[PublicKey] | None":
        """The signing keys that the owner accepts; `None` accepts all that the contract trusts."""
        from orchestrator.cli.values import parse_public_key

        name = "accepted_worker_keys"
        keys = [parse_public_key(name, text) for text in self.settings.accepted_worker_keys]
        return keys or None

    def blobs_at(self, url: str) -> "HttpBlobStore":
        from orchestrator.blobs.http import HttpBlobStore

        store = HttpBlobStore(url)
        self.closing.callback(store.close)
        return store

    def send(self, call: "ContractCall[T]", what: str) -> "Receipt[T]":
        """Make a call, with progress; it returns once it is finalized."""
        signer = self.signer  # before the spinner, which would hide the question for a passphrase
        with self.output.progress(what):
            try:
                receipt = self.chain.call(call, signer=signer)
            except InsufficientFundsError as error:
                raise explained(self, error, signer.account_id) from error
        self.paid.add(receipt)
        self.say_paid()
        return receipt

    def paid_document(self) -> Document:
        """What was paid, for JSON; for people `say_paid` has said it."""
        return self.paid.document() if self.output.as_json else {}

    def say_paid(self, *, returned: str = "") -> None:
        """Say what was paid, where anything was; *returned* says what returns a deposit."""
        words = self.paid.words(returned=returned)
        if words:
            self.output.say(words)
