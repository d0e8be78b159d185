"""The contract's trusted list: `workers list|register|suspend|reinstate|revoke`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.access import READ, SEND
from orchestrator.cli.command import command
from orchestrator.cli.output import Document, to_json
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_bytes32, parse_duration, shown_duration
from orchestrator.errors import ContractError, InputError, WorkerUnavailableError

if TYPE_CHECKING:
    from orchestrator.models import Signature, Worker, WorkerRegistration

app = typer.Typer(help="The contract's list of trusted workers.", no_args_is_help=True)

WorkerArgument = Annotated[int, typer.Argument(metavar="WORKER", min=1, max=2**32 - 1)]

NOT_A_TEE = (
    "This worker is registered on its own word: development worker, no TEE. Nothing here proves"
    " where its keys are or what software it runs."
)
MAX_ENDPOINT_BYTES = 128
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
    chain, processor = session.chain, session.processor
    rows: list[Document] = []
    start: int | None = 1
    while start is not None:
        page = chain.read(processor.workers_page(start, 50))
        rows += [
            {**worker_document(worker), "trusted": chain.read(processor.is_trusted(worker.worker))}
            for worker in page.items
        ]
        start = page.next
    session.output.rows("workers", rows, columns=COLUMNS)
    if rows and not session.output.as_json:
        # A table of its own: a key takes nearly all of a line of 80 columns.
        session.output.say("")
        session.output.rows("signing keys", rows, columns=KEY_COLUMNS)


@command(app, "register", settings=SEND, group="workers")
def register(
    session: Session,
    url: Annotated[str, typer.Argument(metavar="URL", help="Where the worker listens.")],
    unverified: Annotated[
        bool,
        typer.Option(
            "--unverified", help="Register on the worker's own word. It is no TEE proof at all."
        ),
    ] = False,
    measurement: Annotated[
        str, typer.Option(metavar="HEX", help="The measurement to write down, 64 hex digits.")
    ] = "",
    token_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="File with a token of scope registration."),
    ] = None,
    valid_for: Annotated[str, typer.Option(metavar="DURATION", help="Such as 7d.")] = "7d",
) -> None:
    """
    Register a worker. Registrar only.

    Only --unverified exists yet: the worker signs that it owns its keys, and the
    measurement is whatever you write. It is no TEE proof.
    """
    import asyncio

    from orchestrator.cli.secrets import read_secret_file

    if not unverified:
        raise InputError(
            "unverified: this version verifies no TEE evidence; give --unverified to register a"
            " development worker on its own word"
        )
    if len(url.encode("utf-8")) > MAX_ENDPOINT_BYTES:
        raise InputError(f"url: {len(url.encode())} bytes; the limit is {MAX_ENDPOINT_BYTES}")
    measured = parse_bytes32("measurement", measurement)
    valid_until = session.chain.now() + parse_duration("valid_for", valid_for)
    token = read_secret_file("token_file", token_file) if token_file is not None else None
    session.output.say(NOT_A_TEE)
    with session.output.progress(f"Asking {url} for its signature"):
        try:
            registration, possession = asyncio.run(
                ask_registration(
                    url,
                    token=token,
                    genesis_hash=session.chain.genesis_hash,
                    contract=session.contract,
                    measurement=measured,
                    valid_until=valid_until,
                )
            )
        except WorkerUnavailableError as error:
            raise WorkerUnavailableError(
                f"no worker answers at {url}; is worker run running? ({error})"
            ) from error
    call = session.processor.register_worker(registration, possession)
    try:
        receipt = session.send(call, "Registering the worker")
    except ContractError as refusal:
        raise _explained(session, refusal, measured) from refusal
    session.output.result(
        {
            "worker": receipt.value,
            "endpoint": url,
            "valid_until": valid_until,
            "measurement": to_json(measured),
            "signing_key": to_json(registration.signing_key.key),
            "encryption_key": to_json(registration.encryption_key),
            "verified": False,
            "tee": "none: development worker, no TEE",
        }
    )


def _explained(session: Session, refusal: ContractError, measurement: bytes) -> ContractError:
    """The refusal with its limit, or with what to do about it."""
    if refusal.variant == "MeasurementNotAllowed":
        allow = f"phala-jobs measurements allow {measurement.hex()}"
        return ContractError(refusal.variant, allow)
    if refusal.variant == "ValidityOutOfRange":
        longest = session.chain.read(session.processor.parameters()).max_registration
        return ContractError(
            refusal.variant, f"valid_for: the contract takes up to {shown_duration(longest)}"
        )
    return refusal


async def ask_registration(
    url: str,
    *,
    token: str | None,
    genesis_hash: bytes,
    contract: bytes,
    measurement: bytes,
    valid_until: int,
) -> "tuple[WorkerRegistration, Signature]":
    """
    The worker's keys, and its signature over its registration, verified.

    Does **not** check where those keys are: this is no TEE proof.

    Raises:
        WorkerError: The worker did not answer as it should.
        InvalidSignatureError: The signature is not one that the contract would take.
    """
    from orchestrator.crypto.keys import verify_signature
    from orchestrator.encoding import blake2_256, registration_digest
    from orchestrator.models import WorkerRegistration
    from orchestrator.workers.http import HttpWorkerClient

    client = HttpWorkerClient(url, token)
    try:
        identity = await client.identity()
        registration = WorkerRegistration(
            signing_key=identity.signing_key,
            encryption_key=identity.encryption_key,
            measurement=measurement,
            evidence_hash=blake2_256(b""),  # the hash of the evidence that there is: none
            endpoint=url.encode("utf-8"),
            valid_until=valid_until,
        )
        possession = await client.registration(
            genesis=genesis_hash,
            contract=contract,
            measurement=measurement,
            evidence_hash=registration.evidence_hash,
            valid_until=valid_until,
        )
    finally:
        await client.close()
    digest = registration_digest(registration, genesis_hash=genesis_hash, contract=contract)
    verify_signature(registration.signing_key, possession, digest)
    return registration, possession


@command(app, "suspend", settings=SEND, group="workers")
def suspend(session: Session, worker: WorkerArgument) -> None:
    """Stop trusting a worker for now. Registrar or Guardian."""
    session.send(session.processor.suspend_worker(worker), f"Suspending worker {worker}")
    session.output.result({"worker": worker, "status": "Suspended"})


@command(app, "reinstate", settings=SEND, group="workers")
def reinstate(session: Session, worker: WorkerArgument) -> None:
    """Trust a suspended worker again. Registrar only."""
    session.send(session.processor.reinstate_worker(worker), f"Reinstating worker {worker}")
    session.output.result({"worker": worker, "status": "Active"})


@command(app, "revoke", settings=SEND, group="workers")
def revoke(
    session: Session,
    worker: WorkerArgument,
    reason: Annotated[
        str, typer.Option(help="Why: its blake2-256 hash goes into the event.")
    ] = "unspecified",
) -> None:
    """Revoke a worker for ever. Registrar only."""
    from orchestrator.encoding import blake2_256

    hashed = blake2_256(reason.encode("utf-8"))
    session.send(session.processor.revoke_worker(worker, hashed), f"Revoking worker {worker}")
    session.output.result({"worker": worker, "status": "Revoked", "reason": to_json(hashed)})
