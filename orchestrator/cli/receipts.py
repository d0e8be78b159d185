"""Write a job's receipt: `receipt`. Whoever gets the file checks it with `verify`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.access import READ, FromBlock
from orchestrator.cli.attestations import attestation_of
from orchestrator.cli.command import command
from orchestrator.cli.output import shown_time, to_json
from orchestrator.cli.session import Session
from orchestrator.cli.values import read_input
from orchestrator.errors import BlobError, InputError, RefusedError

if TYPE_CHECKING:
    from orchestrator.attestation import AttestationFile
    from orchestrator.receipts import ProvenJob, Receipt, ReceiptEvent

SIGN = (
    "account",
    "account_file",
    "keys",
    "keys_unencrypted",
    "passphrase_file",
    "passphrase_fd",
)
SETTINGS = (*READ, "policy", "evidence", *SIGN)


def receipt(
    session: Session,
    job: Annotated[int, typer.Argument(metavar="JOB", min=1)],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to; receipt-JOB.json if not."),
    ] = None,
    dsse: Annotated[
        bool,
        typer.Option("--dsse", help="Wrap it in a DSSE envelope, signed by the account."),
    ] = False,
    evidence_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="The worker's evidence bundle, if no folder has it."),
    ] = None,
    block: Annotated[
        int | None,
        typer.Option(
            metavar="NUMBER", min=1, help="Prove what this block has, not the last one, on a node."
        ),
    ] = None,
    from_block: FromBlock = 0,
) -> None:
    """
    Write one file that shows anybody, offline, who computed a job's result and on which evidence.

    It needs no key but for --dsse. It is verified before it is written; on a node the hash of the
    block that proves it is said, which whoever verifies needs from a source of their own.
    """
    from orchestrator.keystore.private_files import write_new_file
    from orchestrator.receipts import dump_envelope, dump_receipt, sign_envelope

    path = output or Path(f"receipt-{job}.json")
    made, proven = _make(session, job, evidence_file, block, from_block)
    data = dump_receipt(made)
    _require_good(session, data, proven)
    if dsse:
        data = dump_envelope(sign_envelope(data, session.signer))
    write_new_file(path, data)
    block_hash = None if proven is None else to_json(proven.block_hash)
    if proven is None:
        session.output.say("this chain gives no proofs: verify will say what is not checked")
    session.output.result(
        {
            "job_id": job,
            "written": str(path),
            "bytes": len(data),
            "block": None if proven is None else proven.block_number,
            "block_hash": block_hash,
            "signed": dsse,
        }
    )


def declare(app: typer.Typer) -> None:
    """Add the command to *app*."""
    command(app, "receipt", settings=SETTINGS, panel="Anybody")(receipt)


def _make(
    session: Session, job: int, evidence_file: Path | None, block: int | None, from_block: int
) -> "tuple[Receipt, ProvenJob | None]":
    from orchestrator.chain.cells import ContractCells
    from orchestrator.receipts import ProvesStorage, Receipt, prove_job

    file, proven = attestation_of(session, job), None
    if isinstance(session.chain, ProvesStorage):
        proven = prove_job(session.chain, ContractCells(session.bundle), file, number=block)
        file = proven.facts.attestation
    elif block is not None:
        raise InputError("block: this chain gives no proofs of its storage, so it has none of it")
    evidence = _evidence(session, file, evidence_file)
    return Receipt(
        attestation=file,
        evidence=evidence,
        policy=_policy(session, evidence),
        proof=None if proven is None else proven.proof,
        events=_events(session, job, from_block),
    ), proven


def _evidence(session: Session, file: "AttestationFile", given: Path | None) -> bytes:
    """The bundle that the worker is registered with: the file's, the folder's, or the worker's."""
    from orchestrator.encoding import blake2_256
    from orchestrator.evidence import MAX_BUNDLE_BYTES

    wanted = file.worker.evidence_hash
    if given is not None:
        data = read_input("evidence_file", given, max_bytes=MAX_BUNDLE_BYTES)
        if blake2_256(data) != wanted:
            raise InputError(
                f"evidence_file {given}: not what worker {file.worker.worker} is registered with"
            )
        return data
    if session.evidence_folder.has(wanted):
        return session.evidence_folder.get(wanted, max_bytes=MAX_BUNDLE_BYTES)
    worker = session.chain.read(session.processor.get_worker(file.worker.worker))
    url = "" if worker is None else worker.endpoint.decode("utf-8", "replace")
    try:
        return session.blobs_at(url).get(wanted, max_bytes=MAX_BUNDLE_BYTES)
    except (BlobError, InputError) as error:
        raise InputError(
            f"evidence 0x{wanted.hex()}: neither in {session.settings.evidence} nor at the worker"
            f" ({error}); give it with --evidence-file"
        ) from error


def _policy(session: Session, evidence: bytes) -> bytes:
    """The policy file whose hash the bundle holds: the setting's, or the folder's."""
    from orchestrator.encoding import blake2_256
    from orchestrator.evidence import MAX_POLICY_BYTES, load_bundle

    wanted = load_bundle(evidence).policy_hash
    if wanted is None:
        raise RefusedError("NoPolicy", "the evidence names no policy: nobody has registered it")
    settings = session.settings
    if settings.policy is not None:
        data = read_input("policy", settings.policy.expanduser(), max_bytes=MAX_POLICY_BYTES)
        if blake2_256(data) == wanted:
            return data
    if session.evidence_folder.has(wanted):
        return session.evidence_folder.get(wanted, max_bytes=MAX_POLICY_BYTES)
    raise InputError(
        f"policy 0x{wanted.hex()}, by which the worker was registered: not in {settings.evidence};"
        " ask the registrar for it, and give it with --policy"
    )


def _events(session: Session, job: int, from_block: int) -> "tuple[ReceiptEvent, ...]":
    """The job's events, in order."""
    from orchestrator.receipts import ReceiptEvent

    found: list[ReceiptEvent] = []
    with session.output.progress("Looking for the job's events"):
        for event in session.events(first_block=from_block):
            if event.fields.get("job_id") != job:
                continue
            raw = event.raw
            found.append(
                ReceiptEvent(
                    block=raw.block.number,
                    block_hash=raw.block.hash,
                    index=raw.index,
                    topics=raw.topics,
                    data=raw.data,
                )
            )
    return tuple(found)


def _require_good(session: Session, data: bytes, proven: "ProvenJob | None") -> None:
    """Refuse to write what nobody would accept."""
    from orchestrator.chain.cells import ContractCells
    from orchestrator.receipts import examine_receipt

    report = examine_receipt(
        data,
        cells=ContractCells(session.bundle),
        trusted_block=None if proven is None else proven.block_hash,
        show_time=shown_time,
    )
    if report.failed:
        reasons = "; ".join(f"{step.name}: {step.detail}" for step in report.failed)
        later = "" if proven is None else " (an earlier --block may be one where it was)"
        raise RefusedError("NotVerified", f"this receipt would not be accepted: {reasons}{later}")
