"""One's own jobs: `submit`, `jobs`, `status`, `result`, `cancel`, `expire`, `purge`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from orchestrator.cli.access import LIMITS, READ, SEND
from orchestrator.cli.attestations import attestation_of, save_attestation_file
from orchestrator.cli.command import command
from orchestrator.cli.costs import cost_document, cost_words, explained, require_funds
from orchestrator.cli.errors import ExitCode, error_code, error_message, exit_code
from orchestrator.cli.output import Document, JsonValue, to_json
from orchestrator.cli.results import show_output
from orchestrator.cli.session import Session
from orchestrator.cli.values import parse_duration, parse_task_parameters, read_input
from orchestrator.cli.verdicts import evidence_document, evidence_words
from orchestrator.errors import InsufficientFundsError, SpendingLimitError

if TYPE_CHECKING:
    from orchestrator.chain import Cost
    from orchestrator.client import JobFailedError
    from orchestrator.models import Job

OWNER = (
    *READ,
    *LIMITS,
    "account",
    "keys",
    "keys_unencrypted",
    "passphrase_file",
    "passphrase_fd",
    "client",
    "trusted_nodes",
    "accepted_worker_keys",
)
EVIDENCE = ("policy", "evidence", "collateral", "blob_sources")
SEAL = (*OWNER, *EVIDENCE)
UNKNOWN_SUBMISSION = (
    "note: this machine's list did not send job {}: to whom it was sealed, and when, is what the"
    " node says"
)
UNDER_NO_POLICY = (
    "warning: job {} was sealed under a policy, and whose key signed its result is what the trusted"
    " node says: --policy looks at the evidence"
)
MAX_INPUT_BYTES = 16 << 20
PANEL = "One's own jobs"

JobArgument = Annotated[int, typer.Argument(metavar="JOB", min=1)]


def submit(
    session: Session,
    task: Annotated[str, typer.Argument(metavar="TASK", help="The task, such as echo.")],
    data: Annotated[Path, typer.Argument(metavar="INPUT", help="A file, or - for stdin.")],
    *,
    parameter: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be repeated.")
    ] = None,
    worker: Annotated[
        list[int] | None,
        typer.Option(metavar="ID", help="Seal to this worker; up to 4, in order of preference."),
    ] = None,
    ttl: Annotated[str, typer.Option(metavar="DURATION", help="Time until the deadline.")] = "1h",
    key: Annotated[
        str | None, typer.Option(help="Your name for this job: submitted again, it is the same.")
    ] = None,
    any_task: Annotated[
        bool, typer.Option("--any-task", help="Also one that none of its workers says to offer.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what it would cost; send nothing.")
    ] = False,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the job has ended.")] = False,
    timeout: Annotated[
        str, typer.Option(metavar="DURATION", help="How long to wait at most.")
    ] = "10m",
) -> None:
    """
    Seal a file to workers and submit it.

    With --policy only workers whose TEE evidence meets that file are sealed to; it is verified
    here, and neither node nor registrar nor orchestrator is trusted with what is sealed. Without,
    the node has to be trusted. (evidence fetch asks a worker with a challenge of one's own.)
    A task that none of its workers says to offer is refused; one that does not answer may do it.
    After a crash the same command finishes it; give --key to be safe always. With --wait the exit
    code tells how the job ended: 0 processed, 1 failed, cancelled or expired, 3 not ended yet.
    On a chain with money it costs a fee, and a deposit that comes back: the job's with purge, the
    account's own with account release.
    """
    from orchestrator.models import TaskInput

    content = read_input("input", data, max_bytes=MAX_INPUT_BYTES)
    ttl_ms, timeout_ms = parse_duration("ttl", ttl), parse_duration("timeout", timeout)
    task_input = TaskInput(
        task=task, input=content, parameters=parse_task_parameters(parameter or ())
    )
    session.is_any_task = any_task
    client = session.client  # before the spinner, which would hide the question for a passphrase
    if dry_run:
        with session.output.progress("Sealing and asking what it costs"):
            cost = client.estimate(task_input, workers=worker or None, ttl_ms=ttl_ms).cost
        session.say_verdicts()
        _show_cost(session, cost)
        return
    try:
        with session.output.progress("Sealing and submitting"):
            job_id = client.submit(task_input, workers=worker or None, ttl_ms=ttl_ms, key=key)
    except (InsufficientFundsError, SpendingLimitError) as error:
        if isinstance(error, InsufficientFundsError):
            error = explained(session, error, session.identity.account.account_id)
        kept = "the sealed job is kept: jobs --resume, or the same command again, sends it"
        raise type(error)(f"{error}; {kept}") from error
    session.say_verdicts()
    session.say_paid(returned=f"; phala-jobs purge {job_id} and account release return it")
    document: dict[str, JsonValue] = {
        "job_id": job_id,
        **session.paid_document(),
        **session.verdicts_document(),
    }
    if wait:
        document["status"] = _wait(session, job_id, timeout_ms, has_key=key is not None)
    session.output.result(document)


def _show_cost(session: Session, cost: "Cost | None") -> None:
    """Print what a submission would cost, and whether the account could pay it."""
    balance = require_funds(session, cost, session.identity.account.account_id)
    words = cost_words(cost, balance=balance)
    if cost is not None and cost.deposit > 0:
        words += "; purge and account release return the deposit"
    session.output.say(f"Nothing was sent. It {words}.")
    session.output.result(
        {"dry_run": True, **cost_document(cost, balance=balance), **session.verdicts_document()}
    )


def _wait(session: Session, job_id: int, timeout_ms: int, *, has_key: bool) -> str:
    """The status that the job ended with; ends the command unless that is success."""
    from orchestrator.errors import JobStateError, WaitTimeoutError
    from orchestrator.models import JobStatus

    client = session.client
    try:
        with session.output.progress(f"Waiting for job {job_id}"):
            ended = client.wait(job_id, timeout_seconds=timeout_ms / 1_000)
    except KeyboardInterrupt:
        session.output.say(f"job {job_id} goes on: phala-jobs status {job_id}, or watch {job_id}")
        raise
    except WaitTimeoutError as error:
        again = "waits for it again" if has_key else "makes another job"
        what = "status" if error.stuck is None else "cancel"
        message = f"{error}: phala-jobs {what} {job_id} (submitting again {again})"
        session.output.error(error_code(error), message, job_id=job_id, stuck=error.stuck)
        raise typer.Exit(exit_code(error)) from None
    except JobStateError as error:
        session.output.error(error_code(error), error_message(error), job_id=job_id)
        raise typer.Exit(exit_code(error)) from None
    endings = {
        JobStatus.FAILED: f"failed; phala-jobs result {job_id} shows why",
        JobStatus.CANCELLED: "was cancelled",
        JobStatus.EXPIRED: "expired: nobody attested it before its deadline",
    }
    if ended in endings:
        message = f"job {job_id} {endings[ended]}"
        session.output.error(f"Job{ended.value}", message, job_id=job_id, status=ended.value)
        raise typer.Exit(ExitCode.REFUSED)
    return ended.value


def list_jobs(
    session: Session,
    rebuild: Annotated[
        bool, typer.Option("--rebuild", help="Restore the list from the chain first.")
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Finish submissions that were interrupted first.")
    ] = False,
) -> None:
    """List one's own jobs, as this machine's list and the chain know them."""
    from orchestrator.errors import ContractError

    client = session.client
    if rebuild:
        with session.output.progress("Rebuilding the list from the chain"):
            client.rebuild()
    if resume:
        with session.output.progress("Finishing interrupted submissions"):
            outcomes = client.resume()
        for refusal in (outcome for outcome in outcomes if isinstance(outcome, ContractError)):
            session.output.say(f"a submission was given up: {refusal}")
        session.say_verdicts()
    rows: list[Document] = [
        {
            "job_id": job.job_id,
            "key": job.key,
            "status": job.status.value + (" (purged)" if job.purged else ""),
            "workers": list(job.workers),
            "created_at": job.created_at,
        }
        for job in client.jobs()
    ]
    unfinished = client.unfinished()
    if unfinished:
        session.output.say(f"{len(unfinished)} submissions are unfinished: jobs --resume")
    session.output.rows("jobs", rows, unfinished=len(unfinished))


def status(
    session: Session,
    job: JobArgument,
    save_attestation: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="New file with all that `verify` needs, offline."),
    ] = None,
) -> None:
    """Print what the contract knows about a job, and whether its workers can still finish it."""
    from orchestrator.client.prospects import why_stuck
    from orchestrator.errors import InputError

    found = session.chain.read(session.processor.get_job(job))
    if found is None:
        raise InputError(f"job: there is no job {job} on this contract, or it was purged")
    stuck = why_stuck(
        session.chain,
        session.processor,
        job,
        status=found.status,
        workers=found.workers,
        failed={failure.worker for failure in found.failures},
    )
    document = {**job_document(found), "stuck": stuck}
    attestation = session.chain.read(session.processor.get_attestation(job))
    if attestation is not None:
        recorded = session.chain.read(session.processor.attestation_status(job))
        document |= {
            "attested_by": attestation.worker,
            "attestation": recorded.value,
            "result_hash": to_json(attestation.result_hash),
            "units": attestation.attestation_proof.units,
            "started_at": attestation.attestation_proof.started_at,
            "finished_at": attestation.attestation_proof.finished_at,
            "recorded_at": attestation.timestamp,
        }
    if save_attestation is not None:
        save_attestation_file(attestation_of(session, job), save_attestation)
        document["attestation_file"] = str(save_attestation)
    session.output.result(document)
    if stuck is not None:
        session.output.say(f"{stuck}: phala-jobs cancel {job}")


def job_document(job: "Job") -> dict[str, "JsonValue"]:
    """A job's head, as JSON has it."""
    from orchestrator.encoding import to_ss58
    from orchestrator.models import InlinePayload

    payload = job.encrypted_payload
    length = len(payload.data) if isinstance(payload, InlinePayload) else payload.length
    return {
        "job_id": job.job_id,
        "status": job.status.value,
        "processed": job.processed,
        "owner": to_ss58(job.owner),
        "workers": list(job.workers),
        "failed_workers": [failure.worker for failure in job.failures],
        "payload_bytes": length,
        "payload_hash": "0x" + job.payload_hash.hex(),
        "created_at": job.created_at,
        "deadline": job.deadline,
        "processed_at": job.processed_at,
    }


def result(
    session: Session,
    job: JobArgument,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="A new file to write.")
    ] = None,
    sealed: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="New file for the sealed bytes too, for `verify`."),
    ] = None,
    save_attestation: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="New file with all that `verify` needs, offline."),
    ] = None,
    accept_revoked: Annotated[
        bool, typer.Option("--accept-revoked", help="Also by a worker that was revoked since.")
    ] = False,
) -> None:
    """
    Fetch a job's sealed result, make every check, open it, and print or write it.

    With --policy the evidence of the key that signed has to meet that file at the time of signing.
    A job that was submitted with --policy needs it here too, or the node among --trusted-nodes.
    """
    from orchestrator.client import JobFailedError
    from orchestrator.keystore.private_files import write_new_file

    client = session.client
    try:
        with session.output.progress(f"Fetching and checking the result of job {job}"):
            opened = client.result(job, accept_revoked_worker=accept_revoked)
    except JobFailedError as error:
        _report_failures(session, error)
        raise typer.Exit(ExitCode.REFUSED) from None
    if sealed is not None:
        write_new_file(sealed, opened.envelope)
    if save_attestation is not None:
        save_attestation_file(attestation_of(session, job), save_attestation)
    facts: dict[str, JsonValue] = {
        "job_id": job,
        "worker": opened.worker.worker,
        "result_hash": to_json(opened.completion.result_hash),
        "units": opened.statement.units,
        "is_submission_known": opened.is_submission_known,
    }
    if opened.evidence is not None:
        session.output.say(f"worker {opened.worker.worker}: {evidence_words(opened.evidence)}")
        session.warn_of_no_source(opened.evidence.collateral_expires_at)
        if not opened.is_submission_known:
            session.output.say(UNKNOWN_SUBMISSION.format(job))
        if session.output.as_json:
            facts["evidence"] = evidence_document(opened.evidence)
            facts["collateral_source"] = session.collateral_source
    elif opened.sealed_under is not None:
        session.output.say(UNDER_NO_POLICY.format(job))
    show_output(session, opened.output, output, facts)


def _report_failures(session: Session, error: "JobFailedError") -> None:
    """Print what each worker reported, which its owner alone can open."""
    failures: list[Document] = [
        {
            "worker": failure.worker,
            "code": failure.code,
            "message": failure.message,
            "trouble": failure.trouble,
        }
        for failure in error.failures
    ]
    for failure in failures:
        session.output.say(
            f"worker {failure['worker']} failed: {failure['code'] or failure['trouble']}"
            + (f": {failure['message']}" if failure["message"] else "")
        )
    session.output.error(error.code, error_message(error), failures=failures)


def cancel(session: Session, job: JobArgument) -> None:
    """Withdraw one's own job."""
    client = session.client
    with session.output.progress(f"Cancelling job {job}"):
        client.cancel(job)
    session.say_paid()
    session.output.result({"job_id": job, "status": "Cancelled", **session.paid_document()})


def expire(session: Session, job: JobArgument) -> None:
    """Close a job whose deadline has passed; anyone may."""
    session.send(session.processor.expire_job(job), f"Expiring job {job}")
    session.output.result({"job_id": job, "status": "Expired"})


def purge(session: Session, job: JobArgument) -> None:
    """Remove one's own ended job from the chain; its deposit comes back."""
    client = session.client
    with session.output.progress(f"Purging job {job}"):
        client.purge(job)
    session.say_paid()
    session.output.result({"job_id": job, "purged": True, **session.paid_document()})


def declare(app: typer.Typer) -> None:
    """Add the commands to *app*."""
    command(app, "submit", settings=SEAL, panel=PANEL)(submit)
    command(app, "jobs", settings=SEAL, panel=PANEL)(list_jobs)
    command(app, "status", settings=READ, panel=PANEL)(status)
    command(app, "result", settings=SEAL, panel=PANEL)(result)
    command(app, "cancel", settings=OWNER, panel=PANEL)(cancel)
    command(app, "expire", settings=SEND, panel=PANEL)(expire)
    command(app, "purge", settings=OWNER, panel=PANEL)(purge)
