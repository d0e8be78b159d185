"""The contract's trusted list: `workers list|register|renew|rotate|suspend|reinstate|revoke`."""

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli import revocation
from orchestrator.cli.access import READ, SEND
from orchestrator.cli.admission import (
    EVIDENCE,
    RegistrationTokens,
    admission_document,
    explained_refusal,
    no_answer,
    open_registrar,
)
from orchestrator.cli.command import command
from orchestrator.cli.costs import explained, is_interactive
from orchestrator.cli.duties import warn_of_combined_roles
from orchestrator.cli.errors import ExitCode
from orchestrator.cli.output import Document, to_json
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_bytes32, parse_duration
from orchestrator.cli.verdicts import SIMULATED, show_verdict, verdict_document
from orchestrator.errors import (
    ContractError,
    InputError,
    InsufficientFundsError,
    RefusedError,
    WorkerRefusedError,
    WorkerUnavailableError,
)
from orchestrator.models import Role

if TYPE_CHECKING:
    from orchestrator.chain import ContractCall
    from orchestrator.models import Worker
    from orchestrator.registrar import Admission, Examined, Registrar
    from orchestrator.workers import WorkerClient

app = typer.Typer(help="The contract's list of trusted workers.", no_args_is_help=True)

WorkerArgument = Annotated[int, typer.Argument(metavar="WORKER", min=1, max=2**32 - 1)]
TokenFile = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE", help="File with a token of scope registration; else that of --tokens."
    ),
]
ValidFor = Annotated[
    str,
    typer.Option(
        metavar="DURATION",
        help="Such as 7d; as long as policy, collateral and contract allow, without it.",
    ),
]
AllowMeasurement = Annotated[
    bool,
    typer.Option(
        "--allow-measurement",
        help="Allow the measurement that the evidence matched, where the contract does not yet.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="Allow it without being asked.")]

MAX_ENDPOINT_BYTES = 128
REGISTRATION_WANTED = (
    "it wants a token of scope registration, given with --token-file or --tokens; at the worker:"
    " phala-jobs worker token add NAME --scope registration --output FILE"
)
UNVERIFIED_MS = 7 * 86_400_000
COLUMNS = ("worker", "status", "trusted", "valid_until", "endpoint", "scheme")
KEY_COLUMNS = ("worker", "signing_key")


def worker_document(worker: "Worker") -> Document:
    """A worker of the list, as JSON has it."""
    return {
        "worker": worker.worker,
        "status": worker.status.value,
        "endpoint": worker.endpoint.decode("utf-8", "replace"),
        "valid_until": worker.valid_until,
        "scheme": to_json(worker.signing_key.scheme),
        "signing_key": to_json(worker.signing_key.key),
        "encryption_key": to_json(worker.encryption_key),
        "measurement": to_json(worker.measurement),
    }


@command(app, "list", settings=READ, group="workers")
def list_workers(session: Session) -> None:
    """List the registered workers, and whether each is trusted now."""
    from orchestrator.chain.paging import all_workers

    chain, processor = session.chain, session.processor
    rows: list[Document] = [
        {**worker_document(worker), "trusted": chain.read(processor.is_trusted(worker.worker))}
        for worker in all_workers(chain, processor)
    ]
    session.output.rows("workers", rows, columns=COLUMNS)
    if rows and not session.output.as_json:
        # A table of its own: a key takes nearly all of a line of 80 columns.
        session.output.say("")
        session.output.rows("signing keys", rows, columns=KEY_COLUMNS)


@command(app, "register", settings=(*SEND, *EVIDENCE), group="workers")
def register(
    session: Session,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where the worker listens.")],
    token_file: TokenFile = None,
    valid_for: ValidFor = "",
    allow_measurement: AllowMeasurement = False,
    yes: Yes = False,
    unverified: Annotated[
        bool,
        typer.Option(
            "--unverified",
            help="For development: register on the worker's own word. It is no TEE proof at all.",
        ),
    ] = False,
    measurement: Annotated[
        str,
        typer.Option(
            metavar="HEX", help="With --unverified: the measurement to write down, 64 hex digits."
        ),
    ] = "",
) -> None:
    """
    Register a worker whose evidence meets the policy. Registrar only.

    It asks the worker for evidence that is bound to its keys, this chain, this contract and a
    random challenge, makes all the checks, shows the verdict, and sends only when none failed.
    """
    if len(url.encode("utf-8")) > MAX_ENDPOINT_BYTES:
        raise InputError(f"url: {len(url.encode())} bytes; the limit is {MAX_ENDPOINT_BYTES}")
    duration = parse_duration("valid_for", valid_for) if valid_for else None
    if unverified:
        from orchestrator.cli.unverified import register_unverified

        if allow_measurement or not measurement:
            raise InputError(
                "unverified: takes a --measurement of 64 hex digits that is allowed already"
                " (phala-jobs measurements allow), and no --allow-measurement"
            )
        measured = parse_bytes32("measurement", measurement)
        register_unverified(
            session,
            url,
            measurement=measured,
            valid_until=session.chain.now() + (duration or UNVERIFIED_MS),
            token=RegistrationTokens(session, token_file).token(url),
        )
        return
    if measurement:
        raise InputError(
            "measurement: it is read from verified evidence; only --unverified takes it as given"
        )

    async def steps(registrar: "Registrar", client: "WorkerClient") -> "Admission":
        examined = await _examined(session, registrar, client, url)
        await _allow(session, registrar, client, examined, asked=allow_measurement, yes=yes)
        return await _admitted(session, registrar, client, examined, duration)

    _with_worker(session, url, token_file, steps)


@command(app, "renew", settings=(*SEND, *EVIDENCE), group="workers")
def renew(
    session: Session,
    worker: WorkerArgument,
    token_file: TokenFile = None,
    valid_for: ValidFor = "",
) -> None:
    """Renew a worker on new evidence, with a new challenge. Registrar only."""
    duration = parse_duration("valid_for", valid_for) if valid_for else None
    known = _known(session, worker)
    url = known.endpoint.decode("utf-8", "replace")

    async def steps(registrar: "Registrar", client: "WorkerClient") -> "Admission":
        examined = await _examined(session, registrar, client, url, renews=known)
        return await _admitted(session, registrar, client, examined, duration)

    _with_worker(session, url, token_file, steps)


@command(app, "rotate", settings=(*SEND, *EVIDENCE), group="workers")
def rotate(
    session: Session,
    worker: WorkerArgument,
    token_file: TokenFile = None,
    valid_for: ValidFor = "",
    allow_measurement: AllowMeasurement = False,
    yes: Yes = False,
) -> None:
    """
    Let a worker make new keys, and register them as a new worker. Registrar only.

    Jobs sealed to the old keys still run, until the old registration ends; new jobs go to the new
    worker. Run it again when it was interrupted: it goes on where it was.
    """
    duration = parse_duration("valid_for", valid_for) if valid_for else None
    known = _known(session, worker)
    url = known.endpoint.decode("utf-8", "replace")

    async def steps(registrar: "Registrar", client: "WorkerClient") -> "Admission":
        from orchestrator.registrar import rotate_keys

        await rotate_keys(registrar, client, known)
        examined = await _examined(session, registrar, client, url)
        await _allow(session, registrar, client, examined, asked=allow_measurement, yes=yes)
        admission = await _admitted(session, registrar, client, examined, duration, replaces=worker)
        session.output.say(
            "orchestrators need its token by the new id where their --tokens file is by id: add a"
            f" line for worker {admission.worker.worker} or {url}, as for worker {worker}"
        )
        return admission

    _with_worker(session, url, token_file, steps)


def _known(session: Session, worker: int) -> "Worker":
    found = session.chain.read(session.processor.get_worker(worker))
    if found is None:
        raise RefusedError("WorkerNotFound", f"there is no worker {worker}")
    return found


def _with_worker(
    session: Session,
    url: str,
    token_file: Path | None,
    steps: "Callable[[Registrar, WorkerClient], Awaitable[Admission]]",
) -> None:
    """Do the steps with a client, which lives in one event loop, and explain refusals."""
    import asyncio

    from orchestrator.evidence import EvidenceError
    from orchestrator.workers.http import HttpWorkerClient

    token = RegistrationTokens(session, token_file).token(url)
    registrar = open_registrar(session)
    warn_of_combined_roles(session, Role.REGISTRAR, never_with=Role.OPERATOR)

    async def run() -> None:
        client = HttpWorkerClient(url, token)
        try:
            await steps(registrar, client)
        finally:
            await client.close()

    try:
        asyncio.run(run())
    except EvidenceError as refused:
        # The table was shown; JSON has one document, so the verdict goes into the error's.
        session.output.error(refused.code, str(refused), verdict=verdict_document(refused.verdict))
        raise typer.Exit(ExitCode.REFUSED) from None
    except ContractError as refusal:
        raise explained_refusal(session, refusal) from refusal
    except InsufficientFundsError as error:
        raise explained(session, error, session.signer.account_id) from error
    except WorkerRefusedError as error:
        if error.status not in (401, 403):
            raise
        raise WorkerRefusedError(error.status, REGISTRATION_WANTED) from error


async def _examined(
    session: Session,
    registrar: "Registrar",
    client: "WorkerClient",
    url: str,
    *,
    renews: "Worker | None" = None,
) -> "Examined":
    """Ask the worker, and show the verdict."""
    with session.output.progress(f"Asking {url} for its evidence"):
        try:
            examined = await registrar.examine(client, url=url, renews=renews)
        except WorkerUnavailableError as error:
            raise no_answer(url, error) from error
    show_verdict(session.output, examined.verdict)
    return examined


async def _allow(
    session: Session,
    registrar: "Registrar",
    client: "WorkerClient",
    examined: "Examined",
    *,
    asked: bool,
    yes: bool,
) -> None:
    """Allow the measurement at the contract where that is asked for, and confirmed."""
    evidence = examined.evidence
    if not asked or await registrar.is_allowed(evidence.measurement):
        return
    what = f"measurement set {evidence.measurement_set}, {evidence.measurement.hex()}"
    session.output.say(f"the contract does not allow {what} yet")
    if not yes:
        if not is_interactive():
            raise InputError("yes: there is no terminal to ask at whether to allow it; give --yes")
        if not typer.confirm("Allow workers of this measurement?", err=True):
            raise RefusedError("NotConfirmed", "nothing was sent")
    # Whoever has no token for the worker is told before the fee and the deposit.
    await registrar.require_possession(client, examined)
    session.send(
        session.processor.allow_measurement(evidence.measurement), "Allowing the measurement"
    )


async def _admitted(
    session: Session,
    registrar: "Registrar",
    client: "WorkerClient",
    examined: "Examined",
    valid_for: int | None,
    *,
    replaces: int | None = None,
) -> "Admission":
    """Register or renew, and print what it came to."""
    doing = "Renewing" if examined.renews is not None else "Registering"
    evidence = examined.evidence  # refused evidence ends here, before anything is announced
    with session.output.progress(f"{doing} the worker"):
        admission = await registrar.admit(client, examined, valid_for=valid_for)
    session.say_paid()
    session.output.result(
        {
            **_shown(session, admission_document(admission, examined)),
            **({} if replaces is None else {"replaces": replaces}),
            **session.paid_document(),
        }
    )
    if evidence.is_simulated:
        session.output.say(f"worker {admission.worker.worker} is {SIMULATED}")
    if admission.too_long:
        session.output.say(
            f"warning: it is registered {admission.too_long / 3_600_000:.1f} hours longer than the"
            " policy allows by the chain's time: this machine's clock is ahead"
        )
    return admission


def _shown(session: Session, document: Document) -> Document:
    """For people without the verdict, which they have as a table."""
    if session.output.as_json:
        return document
    return {name: value for name, value in document.items() if name != "verdict"}


@command(app, "suspend", settings=SEND, group="workers")
def suspend(session: Session, worker: WorkerArgument) -> None:
    """Stop trusting a worker for now. Registrar or Guardian."""
    _send(session, session.processor.suspend_worker(worker), f"Suspending worker {worker}")
    session.output.result({"worker": worker, "status": "Suspended"})


@command(app, "reinstate", settings=SEND, group="workers")
def reinstate(session: Session, worker: WorkerArgument) -> None:
    """Trust a suspended worker again. Registrar only."""
    _send(session, session.processor.reinstate_worker(worker), f"Reinstating worker {worker}")
    session.output.result({"worker": worker, "status": "Active"})


def _send(session: Session, call: "ContractCall[None]", what: str) -> None:
    try:
        session.send(call, what)
    except ContractError as refusal:
        raise explained_refusal(session, refusal) from refusal


revocation.declare(app)
