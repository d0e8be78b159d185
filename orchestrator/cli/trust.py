"""
What will fail next, before it does: `trust status`. `doctor` looks the same way.

`trust forget-collateral` is the way out where what a cache remembers is wrong.
"""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.access import READ
from orchestrator.cli.command import command
from orchestrator.cli.costs import is_interactive
from orchestrator.cli.errors import ExitCode
from orchestrator.cli.output import Document, JsonValue, shown_time
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_duration
from orchestrator.cli.verdicts import SIMULATED
from orchestrator.errors import BlobError, ConfigError, InputError, RefusedError

if TYPE_CHECKING:
    from orchestrator.collateral import CollateralSource
    from orchestrator.evidence import Policy
    from orchestrator.models import Worker
    from orchestrator.registrar.forecast import Failure, TrustForecast, WorkerForecast

app = typer.Typer(help="How long trust in the workers lasts.", no_args_is_help=True)

EVIDENCE = ("policy", "collateral", "evidence", "registrar_folder")
COLUMNS = (
    "worker",
    "status",
    "trust",
    "days_left",
    "collateral_days_left",
    "tcb_status",
    "tcb_evaluation",
    "next_failure",
    "next_failure_at",
)
# What ends is no failure to people before it is near.
_ENDS = ("RegistrationEnds", "CollateralEnds")
_WORKER_SECONDS = 15.0  # of one that does not answer; its evidence may be in the folder
_DAY_MS = 86_400_000


@command(app, "status", settings=(*READ, *EVIDENCE), group="trust")
def status(
    session: Session,
    window: Annotated[
        str,
        typer.Option(metavar="DURATION", help="What fails or ends sooner counts as failing."),
    ] = "72h",
) -> None:
    """
    Show for each worker how long it is trusted, what will fail next, and why.

    Its evidence is examined again with the newest collateral and the policy: what would refuse a
    renewal now is told while the registration still holds. It sends nothing. The exit code is 0
    when nothing fails within the window, 1 when something does, 3 when it could not be told.
    """
    session.required("policy")
    window_ms = parse_duration("window", window)
    with session.output.progress("Looking at workers, evidence and collateral"):
        made = look(session, window_ms=window_ms)
    _report(session, made)
    code = exit_code_of(made)
    if code is not ExitCode.DONE:
        raise typer.Exit(code)


@command(app, "forget-collateral", settings=("client", "registrar_folder"), group="trust")
def forget(
    session: Session,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Forget without being asked.")] = False,
) -> None:
    """
    Forget the collateral that is kept, and the highest TCB evaluation and newest lists with it.

    For when the source is refused as gone back (CollateralWentBack) and you know from elsewhere
    that what it gives is the newest: after this, its next answer is believed, whatever was there
    before. It is about the caches of this machine, the registrar's and that of your own commands.
    """
    from orchestrator.collateral.cache import forget_collateral

    folders = [folder for folder in _caches(session) if folder.is_dir()]
    for folder in folders:
        session.output.say(f"collateral is kept in {folder}")
    if folders and not yes:
        if not is_interactive():
            raise InputError("yes: there is no terminal to ask at whether to forget it; give --yes")
        session.output.say(
            "a middleman who hides a revocation or a TCB recovery is not noticed after this"
        )
        if not typer.confirm("Forget it, and believe the source's next answer?", err=True):
            raise RefusedError("NotConfirmed", "nothing was forgotten")
    forgotten = [path for folder in folders for path in forget_collateral(folder)]
    session.output.result({"forgotten": [str(path) for path in forgotten]})


def _caches(session: Session) -> tuple[Path, Path]:
    """Where collateral is kept: by the registrar, and by one's own commands."""
    settings = session.settings
    return (
        settings.registrar_folder.expanduser() / "collateral",
        settings.client.expanduser() / "collateral",
    )


def _source(session: Session, policy: "Policy") -> "CollateralSource | None":
    """
    Return where collateral comes from: as the registrar sees it, where its cache can be read.

    What it keeps stays as it is: files of another account would be none to it.
    """
    from orchestrator.collateral.opening import newest_of, open_collateral

    text, folder = session.settings.collateral, _caches(session)[0]
    if text is None:
        return None
    if os.access(folder, os.R_OK | os.X_OK):
        source = open_collateral(
            text,
            cache_folder=folder,
            roots=[root.certificate for root in policy.roots],
            is_read_only=True,
        )
        session.closing.callback(source.close)
        return newest_of(source)
    return None if session.collateral is None else newest_of(session.collateral)


def look(session: Session, *, window_ms: int) -> "TrustForecast":
    """
    Look at all workers once, under the policy of the settings.

    Raises:
        ConfigError: No policy is named, or the collateral source is none.
        InputError: The policy can't be read.
        ChainError: The workers can't be read.
    """
    from orchestrator.client.chain_view import ChainView
    from orchestrator.collateral.opening import open_early_collateral
    from orchestrator.registrar.trust_watch import TrustWatch

    policy = session.policy
    if policy is None:
        raise ConfigError("policy is not set: evidence is examined by one")
    chain, processor = session.chain, session.processor
    text = session.settings.collateral
    early = None if text is None else open_early_collateral(text)
    if early is not None:
        session.closing.callback(early.close)
    watch = TrustWatch(
        policy=policy,
        genesis_hash=chain.genesis_hash,
        contract=session.contract,
        evidence=evidence_of(session),
        collateral=_source(session, policy),
        early=early,
        is_measurement_allowed=lambda one: chain.read(processor.has_measurement(one)),
    )
    workers = list(ChainView(chain, session.contract, session.bundle).workers())
    return watch.look(workers, now=max(clock(), chain.now()), window=window_ms)


def evidence_of(session: Session) -> "Callable[[Worker], bytes]":
    """
    Return what gives a worker's evidence by its hash on the chain: from the folder, else from it.

    It raises `BlobError` where neither has it. Nothing is written.
    """
    from orchestrator.blobs.directory import DirectoryBlobStore
    from orchestrator.blobs.http import HttpBlobStore
    from orchestrator.evidence import MAX_BUNDLE_BYTES

    folder = session.settings.evidence.expanduser()
    kept = DirectoryBlobStore(folder) if folder.is_dir() else None

    def get(worker: "Worker") -> bytes:
        if kept is not None:
            try:
                return kept.get(worker.evidence_hash, max_bytes=MAX_BUNDLE_BYTES)
            except BlobError:
                pass  # the worker may have it
        url = worker.endpoint.decode("utf-8", "replace")
        try:
            store = HttpBlobStore(url, timeout_seconds=_WORKER_SECONDS)
        except ConfigError as error:
            raise BlobError(f"not in {folder}, and its endpoint is none") from error
        try:
            return store.get(worker.evidence_hash, max_bytes=MAX_BUNDLE_BYTES)
        finally:
            store.close()

    return get


def clock() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def exit_code_of(made: "TrustForecast") -> ExitCode:
    """What a forecast means to whoever asked."""
    from orchestrator.registrar.forecast import TrustLevel

    return {TrustLevel.FAILS: ExitCode.REFUSED, TrustLevel.UNKNOWN: ExitCode.UNKNOWN}.get(
        made.level, ExitCode.DONE
    )


def failure_words(one: "WorkerForecast", failure: "Failure", *, now: int) -> str:
    """A failure in one line."""
    if failure.at is None:
        when = "on a day not known yet"
    elif failure.at <= now:
        when = "now"
    else:
        when = f"from {shown_time(failure.at)}"
    return f"worker {one.worker.worker}: {failure.code} {when}: {failure.detail}"


def _report(session: Session, made: "TrustForecast") -> None:
    output = session.output
    rows = [_row(one, now=made.at) for one in made.workers]
    if not output.as_json:
        pairs = zip(rows, made.workers, strict=True)
        rows = [{**row, **_for_people(one, until=made.until)} for row, one in pairs]
    output.rows(
        "workers",
        rows,
        columns=COLUMNS,
        trust=made.level.value,
        looked_at=made.at,
        window_until=made.until,
        collateral_until=made.collateral_ends_at,
        tcb_evaluation_in_use=made.evaluation_number,
        tcb_evaluation_newest=made.newest_evaluation_number,
        simulated=made.is_simulated,
        collateral_source=session.collateral_source,
    )
    session.warn_of_no_source(made.collateral_ends_at)
    if output.as_json:
        return
    for one in made.watched:
        ends = shown_time(one.worker.valid_until)
        output.say(f"worker {one.worker.worker}: registered until {ends}")
        for failure in one.failures:
            if failure.at is None or failure.is_due(by=made.until):
                hint = f"; {failure.hint}" if failure.hint else ""
                output.say(f"warning: {failure_words(one, failure, now=made.at)}{hint}")
        if one.unknown:
            output.say(f"worker {one.worker.worker}: could not tell: {one.unknown}")
        if one.is_simulated is None:
            output.say(f"worker {one.worker.worker}: not known whether it is simulated")
        elif one.is_simulated:
            output.say(f"worker {one.worker.worker}: {SIMULATED}")


def _row(one: "WorkerForecast", *, now: int) -> Document:
    worker, following = one.worker, one.next_failure
    row: dict[str, JsonValue] = {
        "worker": worker.worker,
        "status": worker.status.value,
        "trust": one.level.value if one.is_watched else None,
        "days_left": _days(worker.valid_until - now) if one.is_watched else None,
        "collateral_days_left": None
        if one.collateral_ends_at is None
        else _days(one.collateral_ends_at - now),
        "tcb_status": one.tcb_status,
        "tcb_evaluation": _evaluation(one),
        "next_failure": None if following is None else following.code,
        "next_failure_at": None if following is None else following.at,
        "valid_until": worker.valid_until,
        "collateral_until": one.collateral_ends_at,
        "tcb_evaluation_in_use": one.evaluation_number,
        "tcb_evaluation_newest": one.newest_evaluation_number,
        "simulated": one.is_simulated,
        "unknown": one.unknown or None,
        "failures": [
            {
                "code": failure.code,
                "at": failure.at,
                "detail": failure.detail,
                "hint": failure.hint or None,
            }
            for failure in one.failures
        ],
    }
    return row


def _for_people(one: "WorkerForecast", *, until: int) -> Document:
    """The next failure without what ends as it should: lines of their own say when."""
    if not one.is_watched:
        return {}
    failures = (
        failure for failure in one.failures if failure.code not in _ENDS or failure.is_due(by=until)
    )
    following = next(failures, None)
    return {
        "next_failure": "none" if following is None else following.code,
        "next_failure_at": None if following is None else following.at,
    }


def _evaluation(one: "WorkerForecast") -> str | None:
    if one.evaluation_number is None and one.newest_evaluation_number is None:
        return None
    in_use, newest = (
        "?" if number is None else str(number)
        for number in (one.evaluation_number, one.newest_evaluation_number)
    )
    return f"{in_use} / {newest}"


def _days(ms: int) -> float:
    """Days to one place, rounded down: nothing lasts longer than it says."""
    return ms * 10 // _DAY_MS / 10
