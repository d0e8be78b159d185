"""The settings that there are: names, kinds, defaults, and what is said about each."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, get_args, get_type_hints

PREFIX = "PHALA_JOBS_"
SECTIONS = ("worker", "orchestrator", "registrar")
HOME_FOLDER = Path("~/.phala-jobs")
MAX_PLANCK = (1 << 128) - 1  # a chain's Balance is a u128


@dataclass(frozen=True, kw_only=True)
class Described:
    """
    What is said about a setting beside its type: help, a value for the sample file, bounds.

    Without a setting that `is_protecting` more is allowed, so one that is given must say something.
    """

    text: str
    example: str | None = None
    bounds: tuple[int, int] | None = None
    is_protecting: bool = False


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting there is; the sample file and the options' help are made from this."""

    chain: Annotated[
        str | None,
        Described(
            text=(
                "The chain: ws://HOST:PORT or wss://HOST is a node; local:PATH is an embedded chain"
                " in that file (development and tests)."
            ),
            example="ws://127.0.0.1:9944",
        ),
    ] = None
    contract: Annotated[
        str | None,
        Described(
            text="Address of the contract: SS58, or 0x and 64 hex digits.",
            example="5C4hrfjw9DjXZTzV3MwzrrAr9P1MJhSrvWGWqi1eSuyUpnhM",
            is_protecting=True,
        ),
    ] = None
    bundle: Annotated[
        Path | None,
        Described(
            text=(
                "The contract's .contract file, where it is another build than the one that ships"
                " with this program."
            ),
            example="/var/lib/phala-jobs/phala_job_processor.contract",
        ),
    ] = None
    max_fee_per_call: Annotated[
        int | None,
        Described(
            text="Most that the fee of one call may be, in planck; nothing dearer is sent.",
            example="10000000000",
            bounds=(0, MAX_PLANCK),
            is_protecting=True,
        ),
    ] = None
    max_spend_per_day: Annotated[
        int | None,
        Described(
            text=(
                "Most that fees and deposits together may come to on one day (UTC), in planck;"
                " returned deposits do not raise it."
            ),
            example="5000000000000",
            bounds=(0, MAX_PLANCK),
            is_protecting=True,
        ),
    ] = None
    spending_file: Annotated[
        Path,
        Described(
            text=(
                "File with what was spent today; all that share it share the limit per day."
                " Chains with different money want different files."
            ),
            example="~/.phala-jobs/spending.json",
        ),
    ] = HOME_FOLDER / "spending.json"
    account: Annotated[
        str | None,
        Described(text="Name of the account that signs, in the folder of keys.", example="alice"),
    ] = None
    account_file: Annotated[
        Path | None,
        Described(
            text=(
                "File with the secret of the account that signs, instead of a name: a mnemonic, a"
                " derivation such as //Alice, or a seed as 0x and 64 hex digits. Of account and"
                " account_file the stronger level's counts; both from one level are refused."
            ),
            example="/run/secrets/account",
        ),
    ] = None
    keys: Annotated[Path, Described(text="Folder of keys.", example="~/.phala-jobs/keys")] = (
        HOME_FOLDER / "keys"
    )
    passphrase_file: Annotated[
        Path | None,
        Described(text="File with the passphrase of the keys.", example="/run/secrets/passphrase"),
    ] = None
    passphrase_fd: Annotated[
        int | None,
        Described(
            text="Open file descriptor to read the passphrase of the keys from.", example="3"
        ),
    ] = None
    keys_unencrypted: Annotated[
        bool,
        Described(text="Allow keys without a passphrase, for development and machines' accounts."),
    ] = False
    trusted_nodes: Annotated[
        tuple[str, ...],
        Described(
            text=(
                "Chains, by URL, whose word on which workers are trusted is believed when a job is"
                " sealed without a policy; local: ones always are."
            ),
            example="wss://node.example.org",
        ),
    ] = ()
    accepted_worker_keys: Annotated[
        tuple[str, ...],
        Described(
            text=(
                "Signing keys, in hex, of the workers that jobs are sealed to and results taken"
                " from; all that the contract trusts, when none is named."
            ),
            example="0x031b84c5567b126440995d3ed5aaba0565d71e1834604819ff9c17f5e9d5dd078f",
            is_protecting=True,
        ),
    ] = ()
    policy: Annotated[
        Path | None,
        Described(
            text=(
                "Policy file: what TEE evidence must be. A registrar registers, and an owner seals,"
                " only where a worker's evidence meets it."
            ),
            example="/etc/phala-jobs/policy.toml",
            is_protecting=True,
        ),
    ] = None
    collateral: Annotated[
        str | None,
        Described(
            text=(
                "Where what Intel says about platforms comes from: the URL of a PCCS, folder:PATH,"
                " file:PATH, or simulated:FOLDER (no TEE); without it, what a worker's evidence"
                " holds."
            ),
            example="https://pccs.example.org",
            is_protecting=True,
        ),
    ] = None
    evidence: Annotated[
        Path,
        Described(
            text="Folder where evidence bundles are kept, by hash.",
            example="~/.phala-jobs/evidence",
        ),
    ] = HOME_FOLDER / "evidence"
    client: Annotated[
        Path,
        Described(
            text="Folder with the list of one's own submitted jobs.", example="~/.phala-jobs/client"
        ),
    ] = HOME_FOLDER / "client"
    blob_sources: Annotated[
        tuple[str, ...],
        Described(
            text="URLs of orchestrators that serve sealed results; else workers are asked.",
            example="http://127.0.0.1:9400",
        ),
    ] = ()
    worker_folder: Annotated[
        Path,
        Described(
            text="Folder of the worker: its keys, tokens, journal, blobs.",
            example="/var/lib/phala-jobs/worker",
        ),
    ] = HOME_FOLDER / "worker"
    worker_listen: Annotated[
        str, Described(text="Address and port to listen on; port 0 takes a free one.")
    ] = "127.0.0.1:9301"
    worker_certificate: Annotated[
        Path | None,
        Described(
            text="Certificate, with its chain, in PEM: the worker is reached over https.",
            example="/etc/phala-jobs/certificate.pem",
        ),
    ] = None
    worker_certificate_key: Annotated[
        Path | None,
        Described(
            text="File with the certificate's private key, in PEM, unencrypted.",
            example="/run/secrets/certificate-key.pem",
        ),
    ] = None
    worker_trusted_proxies: Annotated[
        tuple[str, ...],
        Described(
            text=(
                "Addresses or networks of proxies in front, whose X-Forwarded-For and"
                " X-Forwarded-Proto are believed."
            ),
            example="127.0.0.1",
        ),
    ] = ()
    worker_scheme: Annotated[
        str, Described(text="Scheme of the signing key made on the first start: ecdsa or sr25519.")
    ] = "ecdsa"
    worker_tasks: Annotated[
        tuple[str, ...],
        Described(
            text="Names of the tasks on offer; all that are installed, when none is named.",
            example="echo, onnx",
            is_protecting=True,
        ),
    ] = ()
    worker_models: Annotated[
        Path | None,
        Described(text="Folder of models for the onnx task.", example="/var/lib/phala-jobs/models"),
    ] = None
    worker_evidence: Annotated[
        str | None,
        Described(
            text=(
                "What the worker's evidence comes from: dstack, dstack:SOCKET, or simulated:FOLDER"
                " (no TEE: for development and tests)."
            ),
            example="dstack",
        ),
    ] = None
    worker_slots: Annotated[int, Described(text="Jobs executed at once.", bounds=(1, 1_024))] = 2
    worker_queue: Annotated[
        int, Described(text="Jobs accepted and waiting at most.", bounds=(1, 100_000))
    ] = 256
    orchestrator_folder: Annotated[
        Path,
        Described(
            text="Folder of the orchestrator: its journal and the sealed results.",
            example="/var/lib/phala-jobs/orchestrator",
        ),
    ] = HOME_FOLDER / "orchestrator"
    orchestrator_listen: Annotated[
        str,
        Described(
            text="Address and port to serve sealed results and metrics on; port 0 takes a free one."
        ),
    ] = "127.0.0.1:9400"
    orchestrator_certificate: Annotated[
        Path | None,
        Described(
            text="Certificate, with its chain, in PEM: results are served over https.",
            example="/etc/phala-jobs/certificate.pem",
        ),
    ] = None
    orchestrator_certificate_key: Annotated[
        Path | None,
        Described(
            text="File with the certificate's private key, in PEM, unencrypted.",
            example="/run/secrets/certificate-key.pem",
        ),
    ] = None
    orchestrator_trusted_proxies: Annotated[
        tuple[str, ...],
        Described(
            text=(
                "Addresses or networks of proxies in front, whose X-Forwarded-For and"
                " X-Forwarded-Proto are believed."
            ),
            example="127.0.0.1",
        ),
    ] = ()
    orchestrator_workers: Annotated[
        tuple[int, ...],
        Described(
            text="Ids of the workers to believe; all that the contract trusts, when none is named.",
            example="1, 2",
            is_protecting=True,
        ),
    ] = ()
    orchestrator_tokens: Annotated[
        Path | None,
        Described(
            text=(
                "TOML file with the token for each worker, by its id or (in quotes) its URL. Read"
                " again when it has changed."
            ),
            example="/run/secrets/worker-tokens.toml",
        ),
    ] = None
    orchestrator_owners: Annotated[
        tuple[str, ...],
        Described(
            text="Accounts whose jobs are admitted; the word any admits every owner.",
            example="5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY",
        ),
    ] = ()
    orchestrator_jobs_per_day: Annotated[
        int, Described(text="Jobs admitted of one owner per day.", bounds=(1, 10_000_000))
    ] = 1_000
    orchestrator_bytes_per_day: Annotated[
        int, Described(text="Payload bytes admitted of one owner per day.", bounds=(1, 1 << 50))
    ] = 1 << 30
    orchestrator_concurrency: Annotated[
        int,
        Described(
            text="Jobs worked on at once; up to four times as many wait at workers.",
            bounds=(1, 4_096),
        ),
    ] = 128
    orchestrator_keep_results: Annotated[
        int,
        Described(
            text="Days that the sealed results of closed jobs are stored; 0 keeps them for ever.",
            bounds=(0, 36_500),
        ),
    ] = 0
    orchestrator_from_block: Annotated[
        int,
        Described(
            text=(
                "Block that a new orchestrator reads events from: that of the contract's deployment"
                " (`contract deploy` prints it). An old one goes on where it was."
            ),
            bounds=(0, (1 << 32) - 1),
        ),
    ] = 0
    orchestrator_batch_jobs: Annotated[
        int,
        Described(
            text=(
                "Most jobs that one transaction records and marks; fewer where blocks are small."
            ),
            bounds=(1, 1_000),
        ),
    ] = 200
    registrar_folder: Annotated[
        Path,
        Described(
            text="Folder of the registrar: what it knows of workers, and cached collateral.",
            example="/var/lib/phala-jobs/registrar",
        ),
    ] = HOME_FOLDER / "registrar"
    registrar_listen: Annotated[
        str, Described(text="Address and port to serve metrics on; port 0 takes a free one.")
    ] = "127.0.0.1:9500"
    registrar_workers: Annotated[
        tuple[int, ...],
        Described(
            text="Ids of the workers to renew; all that are active, when none is named.",
            example="1, 2",
            is_protecting=True,
        ),
    ] = ()
    registrar_tokens: Annotated[
        Path | None,
        Described(
            text=(
                "TOML file with the token, of scope registration, for each worker, by its URL (in"
                " quotes)."
            ),
            example="/run/secrets/registration-tokens.toml",
        ),
    ] = None
    registrar_renew_before: Annotated[
        str, Described(text="How long before a registration ends it is renewed, such as 72h.")
    ] = "72h"
    registrar_interval: Annotated[
        str, Described(text="How often workers and collateral are looked at, such as 1h.")
    ] = "1h"


@dataclass(frozen=True, kw_only=True)
class Declared:
    """One setting as declared in `Settings`; `kinds` are the types that it can have."""

    name: str
    default: object
    hint: object
    kinds: tuple[object, ...]
    described: Described

    @property
    def is_list(self) -> bool:
        """Whether the setting holds several values."""
        return isinstance(self.default, tuple)


@functools.cache
def declared_settings() -> Mapping[str, Declared]:
    """Every setting by name, in the order of the sample file."""
    hints = get_type_hints(Settings, include_extras=True)
    found = {}
    for declared in fields(Settings):
        hint, described = get_args(hints[declared.name])
        found[declared.name] = Declared(
            name=declared.name,
            default=declared.default,
            hint=hint,
            kinds=get_args(hint) or (hint,),
            described=described,
        )
    return found


def variable(name: str) -> str:
    """The environment variable of a setting or option."""
    return PREFIX + name.upper()


def key_path(name: str) -> str:
    """The key in the file: `worker.listen` for `worker_listen`."""
    section, _, rest = name.partition("_")
    return f"{section}.{rest}" if section in SECTIONS else name


def option_name(name: str) -> str:
    """The option of a setting; a command that has a section's options leaves the section out."""
    section, _, rest = name.partition("_")
    return "--" + (rest if section in SECTIONS else name).replace("_", "-")


def default_file() -> Path:
    """Where the file is looked for when none is named; it need not exist."""
    return HOME_FOLDER.expanduser() / "config.toml"
