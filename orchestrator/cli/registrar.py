"""The registrar service: `registrar run|once`."""

import asyncio
import contextlib
import fcntl
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from orchestrator.cli.access import SEND
from orchestrator.cli.admission import EVIDENCE, RegistrationTokens, clock, open_registrar
from orchestrator.cli.command import command
from orchestrator.cli.duties import CombinedRoles, require_duty
from orchestrator.cli.errors import ExitCode
from orchestrator.cli.output import Document, shown_time
from orchestrator.cli.serving import serve_role, service_log
from orchestrator.cli.session import Session
from orchestrator.cli.trust import evidence_of
from orchestrator.cli.values import parse_duration
from orchestrator.cli.verdicts import SIMULATED
from orchestrator.cli.versions import program_version
from orchestrator.errors import ConfigError, InputError
from orchestrator.models import Role

if TYPE_CHECKING:
    from orchestrator.metrics import RegistrarEvent, RegistrarMetrics
    from orchestrator.registrar import Registrar, Renewals, RenewalSettings, Round, TrustWatch
    from orchestrator.workers import WorkerClient

app = typer.Typer(
    help="Renew workers on verified evidence, ahead of time, and warn before that fails.",
    no_args_is_help=True,
)

SETTINGS = (
    *SEND,
    *EVIDENCE,
    "registrar_folder",
    "registrar_listen",
    "registrar_workers",
    "registrar_renew_before",
    "registrar_interval",
)
LEAST_INTERVAL_MS = 1_000
REQUESTS_PER_SECOND = 50.0
REQUEST_BURST = 500
# Alarms that say that nobody can tell, not that something is wrong.
COULD_NOT_TELL = frozenset(
    {
        "BlobUnavailableError",
        "ChainUnavailableError",
        "CollateralSourceAway",
        "CollateralUnavailableError",
        "TrustUnknown",
    }
)


@command(app, "run", settings=SETTINGS, group="registrar")
def run(session: Session, allow_combined_roles: CombinedRoles = False) -> None:
    """
    Renew workers ahead of time until it is stopped (Ctrl-C or SIGTERM), and serve metrics.

    A renewal that fails is an alarm: in the log, in the metrics and in /healthz, and it is tried
    again.
    """
    from orchestrator.http_server import PeerRateLimit, parse_listen, require_usable
    from orchestrator.registrar import registrar_app

    listen = parse_listen(session.settings.registrar_listen)
    require_usable(listen)
    choices = _choices(session)
    _require_registrar(session, allow_combined_roles)
    with _folder(session), service_log():
        renewals, metrics = _build(session, choices)
        application = PeerRateLimit(
            registrar_app(renewals, metrics=metrics, interval=choices.interval),
            per_second=REQUESTS_PER_SECOND,
            burst=REQUEST_BURST,
        )

        def ready(url: str) -> None:
            session.output.result({"listening": url, "contract": session.settings.contract})
            session.output.say("the registrar is running; Ctrl-C stops it")

        asyncio.run(serve_role(application, listen, work=renewals.run, ready=ready))
    failing = ", ".join(map(str, sorted(renewals.failing))) or "none"
    session.output.say(f"stopped; {renewals.renewed} renewed; failing: {failing}")
    session.say_paid()


@command(app, "once", settings=SETTINGS, group="registrar")
def once(session: Session, allow_combined_roles: CombinedRoles = False) -> None:
    """
    Look at all workers once, renew those that are due, and say what it came to.

    For cron. The exit code is 0 when all is well, 1 when a renewal failed or there is an alarm, 3
    when all that is wrong is that something could not be told.
    """
    choices = _choices(session)
    _require_registrar(session, allow_combined_roles)
    with _folder(session), service_log():
        heard: list[RegistrarEvent] = []
        renewals, _ = _build(session, choices, heard.append)

        async def work() -> "Round":
            await renewals.settle()
            return await renewals.round()

        with session.output.progress("Looking at the workers"):
            made = asyncio.run(work())
    made = replace(made, alarms=(*heard, *made.alarms))
    session.say_paid()
    _show(session, made)
    code = _exit_code(made)
    if code is not ExitCode.DONE:
        raise typer.Exit(code)


def _exit_code(made: "Round") -> ExitCode:
    if made.failed or any(alarm.code not in COULD_NOT_TELL for alarm in made.alarms):
        return ExitCode.REFUSED
    return ExitCode.UNKNOWN if made.alarms else ExitCode.DONE


def _show(session: Session, made: "Round") -> None:
    rows: list[Document] = [
        {
            "worker": one.worker,
            "endpoint": one.endpoint,
            "outcome": one.outcome.value,
            "tee": SIMULATED if one.is_simulated else None,
            "simulated": one.is_simulated,
            "valid_until": one.valid_until,
            "code": one.code or None,
            "detail": one.detail or None,
        }
        for one in made.workers
    ]
    alarms: list[Document] = [
        {"worker": one.worker, "code": one.code, "detail": one.detail} for one in made.alarms
    ]
    columns = ("worker", "outcome", "valid_until", "endpoint", "code", "tee")
    known = {one.is_simulated for one in made.workers}
    session.output.rows(
        "workers",
        rows,
        columns=columns,
        alarms=alarms,
        looked_at=made.at,
        simulated=True if True in known else (None if None in known or not known else False),
        **session.paid_document(),
    )
    if session.output.as_json:
        return
    for alarm in made.alarms:
        who = "" if alarm.worker is None else f"worker {alarm.worker}: "
        session.output.say(f"ALARM: {who}{alarm.code}: {alarm.detail}")
    for one in made.workers:
        if one.is_simulated:
            session.output.say(f"worker {one.worker} is {SIMULATED}")
    for failed in made.failed:
        until = shown_time(failed.valid_until)
        session.output.say(
            f"ALARM: worker {failed.worker}, valid until {until}, is not renewed: {failed.detail}"
        )


def _choices(session: Session) -> "RenewalSettings":
    """
    The settings of `registrar.*`.

    Raises:
        InputError: A duration is none, or the workers are looked at too often.
    """
    from orchestrator.registrar import RenewalSettings

    settings = session.settings
    interval = parse_duration("registrar.interval", settings.registrar_interval)
    if interval < LEAST_INTERVAL_MS:
        raise InputError(f"registrar.interval: {settings.registrar_interval!r}, at least 1s")
    return RenewalSettings(
        workers=frozenset(settings.registrar_workers) or None,
        renew_before=parse_duration("registrar.renew_before", settings.registrar_renew_before),
        interval=interval,
    )


def _require_registrar(session: Session, allow_combined_roles: bool) -> None:
    require_duty(
        session, Role.REGISTRAR, never_with=Role.OPERATOR, allow_combined=allow_combined_roles
    )


def _build(
    session: Session,
    choices: "RenewalSettings",
    hear: "Callable[[RegistrarEvent], None]" = lambda _: None,
) -> "tuple[Renewals, RegistrarMetrics]":
    """
    The service with everything that the settings choose for it.

    *hear* hears what is wrong with the source of collateral: that is in no round's alarms.
    """
    from orchestrator.chain.answers import shown
    from orchestrator.metrics import RegistrarEvent, RegistrarEventKind, RegistrarMetrics
    from orchestrator.registrar import Renewals, alarms_of
    from orchestrator.workers.http import HttpWorkerClient

    tokens = RegistrationTokens(session)
    metrics = RegistrarMetrics(version=program_version())
    log = logging.getLogger("orchestrator.registrar")

    def hear_source(code: str, detail: str) -> None:
        log.error("ALARM: %s: %s", code, shown(detail))
        alarm = RegistrarEvent(kind=RegistrarEventKind.ALARM, code=code, detail=shown(detail))
        metrics.observe(alarm)
        hear(alarm)

    registrar = open_registrar(session, on_alarm=hear_source)
    if choices.renew_before >= registrar.policy.maximum_registration:
        raise ConfigError(
            "registrar.renew_before: not shorter than the policy's maximum registration: every"
            " worker would be renewed each time that it is looked at"
        )
    watch = _watch(session, registrar, metrics)

    def client(url: str) -> "WorkerClient":
        return HttpWorkerClient(url, tokens.token(url))

    renewals = Renewals(
        registrar,
        clients=client,
        settings=choices,
        clock=clock,
        # Whichever clock is later: what has ended by the chain's is not trusted.
        forecast=lambda workers: alarms_of(
            watch.look(workers, now=max(clock(), session.chain.now()))
        ),
        on_event=metrics.observe,
    )
    return renewals, metrics


def _watch(session: Session, registrar: "Registrar", metrics: "RegistrarMetrics") -> "TrustWatch":
    """What tells in each round what will fail next."""
    from orchestrator.collateral.opening import open_early_collateral
    from orchestrator.registrar import TrustWatch

    chain, processor, text = session.chain, session.processor, session.settings.collateral
    early = None if text is None else open_early_collateral(text)
    if early is not None:
        session.closing.callback(early.close)
    return TrustWatch(
        policy=registrar.policy,
        genesis_hash=chain.genesis_hash,
        contract=session.contract,
        evidence=evidence_of(session),
        collateral=registrar.collateral,
        early=early,
        is_measurement_allowed=lambda one: chain.read(processor.has_measurement(one)),
        metrics=metrics,
    )


@contextlib.contextmanager
def _folder(session: Session) -> Iterator[Path]:
    """
    The registrar's folder, for this process alone.

    Raises:
        InputError: Another registrar works there, or others may enter it.
    """
    from orchestrator.keystore.private_files import create_private_file, ensure_private_directory

    folder = ensure_private_directory(session.settings.registrar_folder)
    create_private_file(folder / "lock")
    descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise InputError(f"folder {folder}: another registrar works there") from error
        yield folder
    finally:
        os.close(descriptor)
