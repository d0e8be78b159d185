"""Watch jobs as they change: `watch`."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.access import READ
from orchestrator.cli.command import command
from orchestrator.cli.output import Document, JsonValue
from orchestrator.cli.secrets import find_account_id
from orchestrator.cli.session import Session
from orchestrator.errors import ChainUnavailableError, InputError
from orchestrator.models import JobStatus

if TYPE_CHECKING:
    from orchestrator.models import JobHead

WATCH = (*READ, "account", "account_file", "keys", "keys_unencrypted")
PANEL = "One's own jobs"
WATCH_SECONDS = 1.0
PURGED = "purged"
_OVER = frozenset({PURGED, *(status.value for status in JobStatus if status.is_final)})
_COLUMNS = (
    "job_id",
    "status",
    "stuck",
    "owner",
    "workers",
    "created_at",
    "deadline",
    "processed_at",
)
_LAST = 20
_LOOK_BACK = 500
_LOOKS_PER_WORKERS = 10  # a read of each worker is dear, and they change seldom


def watch(
    session: Session,
    jobs: Annotated[
        list[int] | None,
        typer.Argument(metavar="[JOB]...", help="Until all of these have ended."),
    ] = None,
    everyone: Annotated[
        bool, typer.Option("--all", help="Jobs of every owner, though an account is named.")
    ] = False,
) -> None:
    """
    Show jobs as they change: a live table on a terminal, else a line for each change.

    Without JOB it shows the last 20 jobs of the account, or of everybody where none is named, and
    what comes, until Ctrl-C. With --json each line is a document. It needs no passphrase.
    """
    wanted = sorted(set(jobs or ()))
    if wanted and wanted[0] < 1:
        raise InputError(f"job: {wanted[0]} is no job's id; they begin at 1")
    owner = None if everyone or wanted else find_account_id(session)
    watching = Watching(session, wanted, owner=owner)
    console = session.output.console()
    if session.output.as_json or not console.is_terminal:
        for changed in watching.looks():
            for row in changed:
                session.output.line(row, _words(row))
        return
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        for _ in watching.looks():
            table = session.output.table(watching.rows(), _COLUMNS)
            live.update(table, refresh=True)


class Watching:
    """What was last seen of the *wanted* jobs, or of the last ones of *owner* (`None`: anybody)."""

    def __init__(self, session: Session, wanted: Sequence[int], *, owner: bytes | None) -> None:
        from orchestrator.client.chain_view import ChainView

        self._session = session
        self._wanted = wanted
        self._owner = owner
        session.processor  # noqa: B018  # refuses a contract that is not ours
        self._view: ChainView = ChainView(session.chain, session.contract, session.bundle)
        self._seen: dict[int, Document] = {}
        self._counter = 0
        self._looks = 0

    def looks(self) -> Iterator[list[Document]]:
        """Look again and again, and yield what changed, until the wanted jobs have ended."""
        self._look_back()
        while True:
            try:
                yield self._look()
            except ChainUnavailableError as error:
                self._session.output.say(f"{error}; trying again")
            if self._wanted and all(row["status"] in _OVER for row in self._seen.values()):
                return
            self.pause(WATCH_SECONDS)

    def pause(self, seconds: float) -> None:
        """Wait before the next look."""
        time.sleep(seconds)

    def rows(self) -> list[Document]:
        """The jobs, oldest first."""
        return [self._seen[job_id] for job_id in sorted(self._seen)]

    def _look_back(self) -> None:
        """Find the jobs to begin with."""
        counter = self._view.job_counter()
        missing = [job_id for job_id in self._wanted if job_id > counter]
        if missing:
            raise InputError(f"job: there is no job {missing[0]} on this contract")
        self._counter = counter
        if self._wanted:
            self._seen = {job_id: {"job_id": job_id, "status": ""} for job_id in self._wanted}
            return
        found = self._view.heads(range(max(1, counter - _LOOK_BACK + 1), counter + 1))
        own = [job_id for job_id, head in found.items() if self._is_shown(head)]
        self._seen = {job_id: {"job_id": job_id, "status": ""} for job_id in own[-_LAST:]}

    def _look(self) -> list[Document]:
        open_jobs = {job_id for job_id, row in self._seen.items() if row["status"] not in _OVER}
        if not self._wanted:
            counter = self._view.job_counter()
            open_jobs |= set(range(self._counter + 1, counter + 1))
            self._counter = counter
        heads = self._view.heads(open_jobs)
        is_time = self._looks % _LOOKS_PER_WORKERS == 0
        self._looks += 1
        changed: list[Document] = []
        for job_id in sorted(open_jobs):
            head = heads.get(job_id)
            if head is not None and not self._wanted and not self._is_shown(head):
                continue
            if head is None and job_id not in self._seen:
                continue  # purged before it was seen
            before = self._seen.get(job_id, {})
            row = _row(head) if head else {**before, "status": PURGED, "stuck": None}
            is_new = row["status"] != before.get("status")
            if head is not None:
                row = {**row, "stuck": before.get("stuck")}
                if is_new or is_time:
                    with contextlib.suppress(ChainUnavailableError):  # stays what it was
                        row["stuck"] = self._why_stuck(head)
            if is_new or row["stuck"] != before.get("stuck"):
                changed.append(row)
            self._seen[job_id] = row
        return changed

    def _why_stuck(self, head: "JobHead") -> str | None:
        """Why none of its workers could finish the job, whichever of them has failed already."""
        from orchestrator.client.prospects import why_stuck

        return why_stuck(
            self._view.chain,
            self._view.processor,
            head.job_id,
            status=head.status,
            workers=head.workers,
        )

    def _is_shown(self, head: "JobHead") -> bool:
        return self._owner is None or head.owner == self._owner


def _row(head: "JobHead") -> dict[str, JsonValue]:
    from orchestrator.encoding import to_ss58

    return {
        "job_id": head.job_id,
        "status": head.status.value,
        "stuck": None,
        "owner": to_ss58(head.owner),
        "workers": list(head.workers),
        "created_at": head.created_at,
        "deadline": head.deadline,
        "processed_at": head.processed_at,
    }


def _words(row: Document) -> str:
    words = f"job {row['job_id']}: {row['status']}"
    stuck = row.get("stuck")
    return words if stuck is None else f"{words}; {stuck}: phala-jobs cancel {row['job_id']}"


def declare(app: typer.Typer) -> None:
    """Add the command to *app*."""
    command(app, "watch", settings=WATCH, panel=PANEL)(watch)
