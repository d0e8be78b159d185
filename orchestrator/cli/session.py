"""
What a running command has at hand: settings, output, and what it opens from them.

This is where adapters are chosen. Each is imported when it is first needed, so that `--help` and
commands that need no chain stay quick.
"""

import contextlib
import functools
from collections.abc import Iterator
from types import TracebackType
from typing import TYPE_CHECKING, Self, TypeVar

from orchestrator.cli.output import Output
from orchestrator.config import LoadedSettings, OriginKind, Settings, option_name, variable
from orchestrator.errors import ChainMismatchError, ConfigError

if TYPE_CHECKING:
    from orchestrator.blobs.http import HttpBlobStore
    from orchestrator.chain import Chain, ContractCall, Receipt
    from orchestrator.chain.processor import ContractEvent, JobProcessor
    from orchestrator.client import JobClient
    from orchestrator.keystore import Identity
    from orchestrator.models import Account, PublicKey

T = TypeVar("T")


class Session:
    """One command's settings, output and open things; leaving it closes them."""

    def __init__(self, *, loaded: LoadedSettings, output: Output) -> None:
        self.loaded = loaded
        self.output = output
        self.closing = contextlib.ExitStack()

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

    def chain_to_deploy_on(self) -> "Chain":
        """The chain of the settings; an embedded one is made where there is none."""
        return self._opened(create=True)

    def _opened(self, *, create: bool) -> "Chain":
        from orchestrator.chain.url import open_chain

        chain = open_chain(self.required("chain"), create=create)
        self.closing.callback(chain.close)
        return chain

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
            ChainMismatchError: There is none, it runs other code than our bundle's, or
                it was deployed with another chain's genesis hash.
        """
        from orchestrator.chain.bundle import load_bundle
        from orchestrator.chain.processor import JobProcessor

        bundle = load_bundle()
        found = self.chain.code_hash(self.contract)
        if found is None:
            raise ChainMismatchError(
                f"contract {self.required('contract')}: there is no contract at this address"
            )
        if found != bundle.code_hash:
            raise ChainMismatchError(
                f"contract {self.required('contract')} runs code 0x{found.hex()}, and this program"
                f" knows code 0x{bundle.code_hash.hex()}"
            )
        processor = JobProcessor(self.contract, bundle)
        named = self.chain.read(processor.genesis_hash())
        if named != self.chain.genesis_hash:
            raise ChainMismatchError(
                f"contract {self.required('contract')} was deployed for genesis 0x{named.hex()},"
                f" and this chain's is 0x{self.chain.genesis_hash.hex()}"
            )
        return processor

    def events(self) -> "Iterator[ContractEvent]":
        """All finalized events of the contract, from its first on."""
        from orchestrator.chain import Cursor

        after = Cursor(block=0, index=-1)
        while True:
            page = self.chain.events(self.contract, after=after)
            if not page.events:
                return
            for raw in page.events:
                yield self.processor.decode_event(raw)
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
            trusted_node=self._is_trusted(chain_url),
            accepted_worker_keys=self._accepted_keys(),
            blob_sources=[self._blobs_at(url) for url in self.settings.blob_sources],
            worker_blobs=lambda worker: self._blobs_at(worker.endpoint.decode("utf-8", "replace")),
        )
        self.closing.callback(client.close)
        return client

    def _is_trusted(self, chain_url: str) -> bool:
        """Whether the owner runs or trusts the node (protocol rule 1.5 b)."""
        return chain_url.startswith("local:") or chain_url in self.settings.trusted_nodes

    def _accepted_keys(self) -> "list[PublicKey] | None":
        """
        The signing keys that the owner accepts; `None` accepts all that the contract trusts.

        Raises:
            ConfigError: The setting is given and names no key: that must not mean all.
        """
        from orchestrator.cli.values import parse_public_key

        name = "accepted_worker_keys"
        keys = [parse_public_key(name, text) for text in self.settings.accepted_worker_keys]
        origin = self.loaded.origins[name]
        if not keys and origin.kind is not OriginKind.DEFAULT:
            raise ConfigError(f"{name} ({origin}): names no key; leave it out to accept all")
        return keys or None

    def _blobs_at(self, url: str) -> "HttpBlobStore":
        from orchestrator.blobs.http import HttpBlobStore

        store = HttpBlobStore(url)
        self.closing.callback(store.close)
        return store

    def send(self, call: "ContractCall[T]", what: str) -> "Receipt[T]":
        """Make a call, with progress; it returns once it is finalized."""
        signer = self.signer  # before the spinner, which would hide the question for a passphrase
        with self.output.progress(what):
            return self.chain.call(call, signer=signer)
