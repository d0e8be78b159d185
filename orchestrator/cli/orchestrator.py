"""The orchestrator service: `orchestrator run|once`."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.access import READ, SEND
from orchestrator.cli.command import command
from orchestrator.cli.costs import is_interactive
from orchestrator.cli.duties import CombinedRoles, require_duty
from orchestrator.cli.output import Document, to_json
from orchestrator.cli.serving import serve_role, service_log
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_account, parse_duration
from orchestrator.cli.versions import program_version
from orchestrator.cli.worker_tokens import WorkerTokens
from orchestrator.errors import ConfigError, InputError, RefusedError
from orchestrator.models import Role, WorkerId, WorkerStatus

if TYPE_CHECKING:
    from orchestrator.blobs.directory import DirectoryBlobStore
    from orchestrator.metrics import OrchestratorMetrics
    from orchestrator.service import Orchestrator, RunSummary

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
REQUESTS_PER_SECOND = 50.0
REQUEST_BURST = 500


@command(app, "run", settings=SETTINGS, group="orchestrator")
def run(session: Session, allow_combined_roles: CombinedRoles = False) -> None:
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
    orchestrator, blobs, metrics = _build(session, allow_combined_roles)
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
    allow_combined_roles: CombinedRoles = False,
) -> None:
    """Do all that can be done now, and say what it came to."""
    import asyncio

    timeout_ms = parse_duration("timeout", timeout)
    orchestrator, _, _ = _build(session, allow_combined_roles)
    with service_log(), session.output.progress("Working"):
        summary = asyncio.run(orchestrator.run_once(timeout_ms / 1_000))
    session.output.result(_document(summary))


@command(app, "trust", settings=(*READ, "orchestrator_folder"), group="orchestrator")
def trust(
    session: Session,
    worker: Annotated[int, typer.Argument(metavar="WORKER", min=1, max=2**32 - 1)],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do it without being asked.")] = False,
) -> None:
    """
    Believe a worker again that has signed two different things about one job.

    It shows what the worker signed, and asks. It is refused while an orchestrator runs there.
    """
    from orchestrator.journal import Journal

    path = session.settings.orchestrator_folder / "journal.db"
    if not path.is_file():
        raise InputError(f"folder {path.parent}: there is no journal of an orchestrator")
    journal = Journal(
        path, genesis_hash=session.chain.genesis_hash, contract=session.processor.contract
    )
    session.closing.callback(journal.close)
    why = journal.distrusted().get(worker)
    if why is None:
        raise RefusedError("NotDistrusted", f"worker {worker} is not one that is believed no more")
    evidence = to_json(journal.evidence(worker))
    session.output.say(f"worker {worker} is believed no more: {why}; it signed: {evidence}")
    if not yes:
        if not is_interactive():
            raise InputError("yes: there is no terminal to ask at; give --yes")
        if not typer.confirm("Believe it again?", err=True):
            raise RefusedError("NotConfirmed", "nothing was changed")
    journal.trust(worker)
    found = session.chain.read(session.processor.get_worker(worker))
    if found is not None and found.status is WorkerStatus.SUSPENDED:
        session.output.say(
            f"it is suspended at the contract: phala-jobs workers reinstate {worker}"
        )
    session.output.result(
        {
            "worker": worker,
            "believed": True,
            "was": why,
            "evidence": evidence,
            "status": None if found is None else found.status.value,
        }
    )


def _build(
    session: Session, allow_combined_roles: bool
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
    tokens = WorkerTokens(
        settings.orchestrator_tokens, endpoint_of=lambda worker: _endpoint(session, worker)
    )
    processor, account = session.processor, session.signer
    require_duty(
        session, Role.OPERATOR, never_with=Role.REGISTRAR, allow_combined=allow_combined_roles
    )
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
        worker_tokens=tokens.token,
        policy=policy,
        settings=choices,
        clock=lambda: time.time_ns() // 1_000_000,
        on_event=metrics.observe,
    )
    return orchestrator, blobs, metrics


def _endpoint(session: Session, worker: WorkerId) -> bytes | None:
    found = session.chain.read(session.processor.get_worker(worker))
    return None if found is None else found.endpoint


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
