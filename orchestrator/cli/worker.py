"""A worker: `worker run`, and who may use it: `worker token add|list|revoke`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.access import READ
from orchestrator.cli.command import command
from orchestrator.cli.output import Document, JsonValue
from orchestrator.cli.serving import service_log
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_duration
from orchestrator.cli.versions import program_version

if TYPE_CHECKING:
    from collections.abc import Callable

    from orchestrator.quotes import QuoteSource
    from orchestrator.worker import WorkerSettings

app = typer.Typer(help="Execute jobs.", no_args_is_help=True)
token = typer.Typer(help="Who may hand jobs to a worker, or register it.", no_args_is_help=True)
app.add_typer(token, name="token")

FOLDER = ("worker_folder",)
RUN = (
    *READ,
    "worker_folder",
    "worker_listen",
    "worker_certificate",
    "worker_certificate_key",
    "worker_trusted_proxies",
    "worker_scheme",
    "worker_tasks",
    "worker_models",
    "worker_evidence",
    "worker_slots",
    "worker_queue",
)
NO_TEE = "development worker, no TEE"

TokenName = Annotated[str, typer.Argument(metavar="NAME", help="What to call the token.")]


@command(app, "run", settings=RUN, group="worker")
def run(
    session: Session,
    unsafe_without_chain: Annotated[
        bool,
        typer.Option(
            "--unsafe-without-chain", help="Developer option: believe what requests say of jobs."
        ),
    ] = False,
    hold: Annotated[
        str,
        typer.Option(metavar="DURATION", help="Developer option: wait before executing a job."),
    ] = "0s",
) -> None:
    """Execute jobs until it is stopped (Ctrl-C or SIGTERM); the first start makes its keys."""
    from orchestrator.http_server import require_usable
    from orchestrator.worker import WorkerServer

    chosen = _settings(session, unsafe_without_chain=unsafe_without_chain, hold=hold)
    require_usable(chosen.listen)
    chain = None
    if not unsafe_without_chain:
        session.processor  # noqa: B018  # refuses a contract that is not ours
        chain = session.chain

    def clock() -> int:
        return time.time_ns() // 1_000_000

    quotes = _quote_source(session.settings.worker_evidence, clock)
    tee = f"none: {NO_TEE}" if quotes is None else quotes.name
    server = WorkerServer(chosen, chain, clock=clock, quotes=quotes)
    session.closing.callback(server.close)
    for name, why in server.tasks_not_offered.items():
        session.output.say(f"task {name} is not offered: {why}")

    def ready(url: str) -> None:
        document: dict[str, JsonValue] = {"listening": url, "tee": tee}
        if chosen.development or session.output.as_json:
            document["development"] = list(chosen.development)
        session.output.result(document)
        what = NO_TEE if quotes is None else f"worker, {quotes.name}"
        session.output.say(f"{what}: running; Ctrl-C stops it")

    with service_log():
        server.run(ready=ready)
    session.output.say("stopped")


def _settings(session: Session, *, unsafe_without_chain: bool, hold: str) -> "WorkerSettings":
    from orchestrator.cli.task import task_environment
    from orchestrator.errors import InputError
    from orchestrator.http_server import parse_listen
    from orchestrator.models import Scheme
    from orchestrator.worker import WorkerSettings

    settings = session.settings
    schemes = {scheme.name.lower(): scheme for scheme in Scheme}
    if settings.worker_scheme not in schemes:
        raise InputError(f"worker.scheme: {settings.worker_scheme!r} is neither ecdsa nor sr25519")
    return WorkerSettings(
        folder=settings.worker_folder,
        listen=parse_listen(
            settings.worker_listen,
            certificate=settings.worker_certificate,
            private_key=settings.worker_certificate_key,
            trusted_proxies=settings.worker_trusted_proxies,
        ),
        scheme=schemes[settings.worker_scheme],
        version=program_version(),
        contract=None if unsafe_without_chain else session.contract,
        unsafe_without_chain=unsafe_without_chain,
        developer_hold_seconds=_parse_hold(hold),
        tasks=settings.worker_tasks or None,
        task_environment=task_environment(session),
        slots=settings.worker_slots,
        queue=settings.worker_queue,
    )


def _quote_source(text: str | None, clock: "Callable[[], int]") -> "QuoteSource | None":
    """Return what evidence comes from; each adapter is imported only when it is chosen."""
    from orchestrator.errors import ConfigError

    if text is None:
        return None
    kind, _, place = text.partition(":")
    if kind == "dstack" and (place or ":" not in text):
        from orchestrator.quotes.dstack import DSTACK_SOCKET, DstackQuoteSource

        return DstackQuoteSource(place or DSTACK_SOCKET)
    if kind == "simulated" and place:
        from orchestrator.quotes.simulated import SimulatedQuoteSource

        return SimulatedQuoteSource(Path(place), clock=clock)
    raise ConfigError(
        f"worker.evidence: {text[:200]!r}, must be dstack, dstack:SOCKET or simulated:FOLDER"
    )


def _parse_hold(text: str) -> float:
    from orchestrator.errors import InputError
    from orchestrator.worker.settings import MAX_HOLD_SECONDS

    seconds = parse_duration("hold", text) / 1_000
    if seconds > MAX_HOLD_SECONDS:
        raise InputError(f"hold: {text!r}, must be at most {MAX_HOLD_SECONDS // 86_400}d")
    return seconds


@command(token, "add", settings=FOLDER, group="worker_token")
def add(
    session: Session,
    name: TokenName,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="A new file for the token.")
    ],
    scope: Annotated[
        str, typer.Option(metavar="jobs|registration", help="What the token allows.")
    ] = "jobs",
) -> None:
    """Make a token and write it to a new file; the worker keeps only its hash."""
    from orchestrator.errors import InputError
    from orchestrator.keystore.private_files import write_new_file
    from orchestrator.worker import TokenList, TokenScope

    if scope not in {known.value for known in TokenScope}:
        raise InputError(f"scope: {scope!r} is neither jobs nor registration")
    if output.exists():
        raise InputError(f"output {output}: exists already; nothing is overwritten")
    tokens = TokenList(session.settings.worker_folder)
    made = tokens.add(name, TokenScope(scope), now=time.time_ns() // 1_000_000)
    try:
        write_new_file(output, made.encode("ascii") + b"\n")
    except InputError:
        tokens.revoke(name)  # nobody has it
        raise
    session.output.result({"name": name, "scope": scope, "written": str(output)})


@command(token, "list", settings=FOLDER, group="worker_token")
def list_tokens(session: Session) -> None:
    """List the tokens by name; the tokens themselves are nowhere."""
    from orchestrator.worker import TokenList

    rows: list[Document] = [
        {"name": entry.name, "scope": entry.scope, "created_at": entry.created_at}
        for entry in TokenList(session.settings.worker_folder).entries()
    ]
    session.output.rows("tokens", rows)


@command(token, "revoke", settings=FOLDER, group="worker_token")
def revoke(session: Session, name: TokenName) -> None:
    """Stop a token from counting, at once, also for a running worker."""
    from orchestrator.worker import TokenList

    TokenList(session.settings.worker_folder).revoke(name)
    session.output.result({"name": name, "revoked": True})
