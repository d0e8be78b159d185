"""The orchestrator service: `orchestrator run|once`."""

import time
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.access import SEND
from orchestrator.cli.command import command
from orchestrator.cli.output import Document
from orchestrator.cli.serving import serve_role, service_log
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_account, parse_duration
from orchestrator.cli.versions import program_version
from orchestrator.errors import ConfigError, InputError

if TYPE_CHECKING:
    from orchestrator.blobs.directory import DirectoryBlobStore
    from orchestrator.metrics import OrchestratorMetrics
    from orchestrator.models import Worker
    from orchestrator.service import Orchestrator, RunSummary
    from orchestrator.workers import WorkerClient

app = typer.Typer(
    help="Bring jobs to workers, and what workers sign to the chain.", no_args_is_help=True
)

SETTINGS = (
    *SEND,
    "orchestrator_folder",
    "orchestrator_listen",
    "orchestrator_certificate",
    "orchestrator_certificate_key",
    "orchestrator_trusted_proxies",
    "orchestrator_workers",
    "orchestrator_tokens",
    "orchestrator_owners",
    "orchestrator_jobs_per_day",
    "orchestrator_bytes_per_day",
    "orchestrator_concurrency",
    "orchestrator_keep_results",
    "orchestrator_from_block",
    "orchestrator_batch_jobs",
)
ANY_OWNER = "any"
MAX_TOKENS_BYTES = 1 << 20
REQUESTS_PER_SECOND = 50.0
REQUEST_BURST = 500


@command(app, "run", settings=SETTINGS, group="orchestrator")
def run(session: Session) -> None:
    """Work until it is stopped (Ctrl-C or SIGTERM), and serve sealed results meanwhile."""
    import asyncio

    from orchestrator.http_server import PeerRateLimit, parse_listen, require_usable
    from orchestrator.service import service_app

    settings = session.settings
    listen = parse_listen(
        settings.orchestrator_listen,
        certificate=settings.orchestrator_certificate,
        private_key=settings.orchestrator_certificate_key,
        trusted_proxies=settings.orchestrator_trusted_proxies,
    )
    require_usable(listen)
    orchestrator, blobs, metrics = _build(session)
    application = PeerRateLimit(
        service_app(orchestrator, blobs=blobs, metrics=metrics),
        per_second=REQUESTS_PER_SECOND,
        burst=REQUEST_BURST,
    )

    def ready(url: str) -> None:
        session.output.result({"listening": url, "contract": session.settings.contract})
        session.output.say("the orchestrator is running; Ctrl-C stops it")

    with service_log():
        summary = asyncio.run(serve_role(application, listen, work=orchestrator.run, ready=ready))
    session.output.say(f"stopped; {_words(summary)}")


@command(app, "once", settings=SETTINGS, group="orchestrator")
def once(
    session: Session,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="How long to work at most.")
    ] = "10m",
) -> None:
    """Do all that can be done now, and say what it came to."""
    import asyncio

    timeout_ms = parse_duration("timeout", timeout)
    orchestrator, _, _ = _build(session)
    with service_log(), session.output.progress("Working"):
        summary = asyncio.run(orchestrator.run_once(timeout_ms / 1_000))
    session.output.result(_document(summary))


def _build(
    session: Session,
) -> "tuple[Orchestrator, DirectoryBlobStore, OrchestratorMetrics]":
    """The service with everything that the settings choose for it."""
    from orchestrator.blobs.directory import DirectoryBlobStore
    from orchestrator.journal import Journal
    from orchestrator.keystore.private_files import ensure_private_directory
    from orchestrator.metrics import OrchestratorMetrics
    from orchestrator.service import AdmissionPolicy, Orchestrator, OrchestratorSettings

    settings = session.settings
    policy = AdmissionPolicy(
        owners=_owners(session),
        jobs_per_day=settings.orchestrator_jobs_per_day,
        bytes_per_day=settings.orchestrator_bytes_per_day,
    )
    choices = OrchestratorSettings(
        trusted_workers=frozenset(settings.orchestrator_workers) or None,
        concurrency=settings.orchestrator_concurrency,
        keep_results_days=settings.orchestrator_keep_results,
        from_block=settings.orchestrator_from_block,
        batch_jobs=settings.orchestrator_batch_jobs,
    )
    tokens = _Tokens(settings.orchestrator_tokens)
    processor, account = session.processor, session.signer
    _require_operator(session)
    folder = ensure_private_directory(settings.orchestrator_folder)
    journal = Journal(
        folder / "journal.db", genesis_hash=session.chain.genesis_hash, contract=session.contract
    )
    session.closing.callback(journal.close)
    blobs = DirectoryBlobStore(folder / "blobs")
    metrics = OrchestratorMetrics(version=program_version())
    orchestrator = Orchestrator(
        chain=session.chain,
        sender=session.another_chain(),
        processor=processor,
        account=account,
        journal=journal,
        blobs=blobs,
        worker_clients=tokens.client,
        policy=policy,
        settings=choices,
        clock=lambda: time.time_ns() // 1_000_000,
        on_event=metrics.observe,
    )
    return orchestrator, blobs, metrics


def _require_operator(session: Session) -> None:
    """
    Without the role nothing could be recorded, and no job would tell why.

    Raises:
        RefusedError: The account does not have the role.
    """
    from orchestrator.encoding import to_ss58
    from orchestrator.errors import RefusedError
    from orchestrator.models import Role

    account = session.signer.account_id
    if not session.chain.read(session.processor.has_role(account, Role.OPERATOR)):
        name = to_ss58(account)
        raise RefusedError(
            "MissingRole",
            f"account {name} has no role Operator at this contract; the admin runs:"
            f" phala-jobs roles grant {name} operator",
        )


def _owners(session: Session) -> frozenset[bytes] | None:
    """
    The accounts whose jobs are admitted; `None` for all.

    Raises:
        ConfigError: None is named: it would refuse every job.
    """
    named = session.settings.orchestrator_owners
    if ANY_OWNER in named:
        session.output.say("every owner's jobs are admitted: for development only")
        return None
    if not named:
        raise ConfigError(
            "orchestrator.owners is empty: give --owners ADDRESS[,ADDRESS], or --owners any"
            " (development)"
        )
    return frozenset(parse_account("orchestrator.owners", owner) for owner in named)


class _Tokens:
    """Makes the workers' clients, each with its token from the file."""

    def __init__(self, path: Path | None) -> None:
        self._tokens: dict[str, str] = {} if path is None else _read_tokens(path)

    def client(self, worker: "Worker") -> "WorkerClient":
        """The worker's client."""
        from orchestrator.workers.http import HttpWorkerClient

        return HttpWorkerClient(
            worker.endpoint.decode("utf-8", "replace"), self._tokens.get(str(worker.worker))
        )


def _read_tokens(path: Path) -> dict[str, str]:
    """
    The tokens by worker id.

    Raises:
        InputError: The file can't be read, others may read it, or it is of another
            form; shows nothing of what it holds.
    """
    from orchestrator.keystore.private_files import read_private_file

    data = read_private_file(path, max_bytes=MAX_TOKENS_BYTES)
    try:
        found = tomllib.loads(data.decode("utf-8"))
    except ValueError:
        found = None  # the cause would quote a token
    if found is None or not all(
        key.isdecimal() and isinstance(value, str) for key, value in found.items()
    ):
        raise InputError(f'orchestrator.tokens {path}: must be TOML with lines such as 1 = "token"')
    return found


def _document(summary: "RunSummary") -> Document:
    return {
        "counts": {kind.value: count for kind, count in summary.counts.items()},
        "refusals": dict(summary.refusals),
        "open": summary.open,
        "fees_planck": summary.fees,
    }


def _words(summary: "RunSummary") -> str:
    counts = {kind.value: count for kind, count in summary.counts.items()}
    return f"{counts.get('processed', 0)} jobs processed, {summary.open} open"
