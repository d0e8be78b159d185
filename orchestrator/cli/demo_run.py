"""The demo's steps, in order, and what each of them asserts."""

import contextlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.blobs.http import HttpBlobStore
from orchestrator.cli.costs import planck
from orchestrator.cli.demo_children import Child, Children
from orchestrator.cli.demo_offline import verify_files, write_files
from orchestrator.cli.demo_pages import Pages, Summary, excerpt, short
from orchestrator.cli.demo_patients import (
    MODEL,
    PART_BYTES,
    SOURCE,
    Patients,
    contains_part,
    load_patients,
    predictions,
    search_apart,
)
from orchestrator.cli.demo_stage import Balances, Stage, StartedWorker
from orchestrator.cli.demo_trust import RegisteredWorker, register, write_policy
from orchestrator.cli.output import Output, shown_time
from orchestrator.encoding import blake2_256, to_ss58
from orchestrator.errors import RefusedError, WaitTimeoutError
from orchestrator.models import InlinePayload, Job, JobId, JobStatus, TaskInput, WorkerId
from orchestrator.workers import JobKey

if TYPE_CHECKING:
    from orchestrator.client import JobClient, Result
    from orchestrator.evidence import Verdict

TASK = "onnx"
WAIT_SECONDS = 40.0
TTL_MS = 600_000
# Longer than everything else: the first worker is killed while it holds the job.
HOLD = "120s"


class Run:
    """One run of the demo in a folder; `play` does everything."""

    def __init__(self, output: Output, folder: Path, node: Path | None) -> None:
        self.pages = Pages(output)
        self.folder = folder
        self.node = node
        self.summary = Summary()

    def play(self) -> Summary:
        """Go through all steps; processes are ended whatever happens."""
        package = resources.files("orchestrator").joinpath("demo_data")
        with resources.as_file(package) as data, Children(self.folder) as children:
            patients = load_patients(data)
            stage = self._deploy(children)
            try:
                self._play(stage, patients)
            finally:
                stage.close()
        return self.summary

    def _play(self, stage: Stage, patients: Patients) -> None:
        started = self._start_workers(stage, patients)
        trust = write_policy(stage, started[0], self.pages)
        workers = register(trust, started, self.pages, self.summary)
        orchestrator = self._start_orchestrator(stage, workers)
        verdicts: dict[WorkerId, Verdict] = {}
        with (
            contextlib.closing(HttpBlobStore(orchestrator.text("listening"))) as results,
            stage.job_client(
                results,
                trust.policy,
                lambda worker, verdict: verdicts.__setitem__(worker.worker, verdict),
            ) as client,
        ):
            before = stage.balances()
            job_id = self._submit(stage, client, workers, patients, verdicts)
            self._kill(stage, workers[0].process, job_id)
            job = self._wait(stage, client, workers, job_id)
            result = client.result(job_id)
            self._show_result(result, patients)
            self._show_views(workers, job, result, patients)
            files = write_files(stage, trust.evidence_folder, job, result)
            if stage.is_node:
                self._show_costs(stage, client, job_id, before)
        verify_files(files, self.pages, self.summary)

    def _deploy(self, children: Children) -> Stage:
        self.pages.step("A chain, and the contract on it")
        stage = Stage(self.folder, children, self.node)
        self.pages.facts(
            {
                "chain": f"{stage.chain_url}, a development node: blocks, fees, finality"
                if stage.is_node
                else "embedded, one file; development and tests: no consensus, no fees",
                "contract": stage.contract_name,
                "code": f"{len(stage.bundle.code):,} bytes of ink! Wasm, hash "
                + short(stage.bundle.code_hash),
                "admin": to_ss58(stage.admin.account_id),
                "registrar": to_ss58(stage.registrar.account_id),
                "operator": to_ss58(stage.operator.account_id) + " (the orchestrator)",
                "owner": to_ss58(stage.owner.account_id) + " (the clinic)",
            }
        )
        return stage

    def _start_workers(self, stage: Stage, patients: Patients) -> list[StartedWorker]:
        self.pages.step("Two workers on a simulated TEE platform")
        workers = [
            stage.start_worker(1, patients.folder, hold=HOLD),
            stage.start_worker(2, patients.folder, hold="0s"),
        ]
        self.pages.table(
            ("worker", "process", "address", "folder"),
            (
                (number, one.child.process.pid, one.url, one.folder.name)
                for number, one in enumerate(workers, start=1)
            ),
        )
        self.pages.say(
            "Each is on nobody's list yet. The platform is a folder with a vendor's keys"
        )
        self.pages.say("and a machine: its quotes have Intel's format, and anybody can make them.")
        self.pages.say(f"Worker 1 has the developer option --hold {HOLD}, so that it can be caught")
        self.pages.say("in the middle of the job.")
        return workers

    def _start_orchestrator(self, stage: Stage, workers: list[RegisteredWorker]) -> Child:
        self.pages.step("An orchestrator, for this owner's jobs alone")
        orchestrator = stage.start_orchestrator(
            {one.worker: one.process.jobs_token for one in workers}
        )
        self.pages.facts(
            {
                "process": orchestrator.process.pid,
                "serves sealed results at": orchestrator.text("listening"),
                "may": "hand jobs to workers, record what they sign, and mark",
                "may not": "open a payload or a result: it has no key",
            }
        )
        return orchestrator

    def _submit(
        self,
        stage: Stage,
        client: "JobClient",
        workers: Sequence[RegisteredWorker],
        patients: Patients,
        verdicts: "dict[WorkerId, Verdict]",
    ) -> JobId:
        self.pages.step("Real patients, sealed to both and submitted")
        parameters: dict[str, object] = {"model": MODEL, "model_hash": patients.model_hash.hex()}
        job_id = client.submit(
            TaskInput(task=TASK, input=patients.table, parameters=parameters),
            workers=[worker.worker for worker in workers],
            ttl_ms=TTL_MS,
        )
        sealed = _payload(_job(stage, job_id))
        self.summary.figures |= {"job_id": job_id, "sealed_bytes": len(sealed)}
        self.summary.check(
            "the sealed payload holds no part of the input",
            not contains_part(sealed, patients.table),
        )
        verified = sorted(w for w, verdict in verdicts.items() if verdict.evidence is not None)
        self.summary.check(
            "the owner verified both workers' evidence itself, and trusted no node",
            verified == [worker.worker for worker in workers],
        )
        self.pages.facts(
            {
                "sealed to": f"workers {', '.join(map(str, verified))}; the owner verified their"
                " evidence, and trusts no node",
                "input": f"{len(patients.diagnoses)} held-out patients, 30 measurements each",
                "source": SOURCE,
                "first line": patients.table.splitlines()[1].decode()[:64] + "...",
                "plain": f"{len(patients.table):,} bytes",
                "sealed": f"{len(sealed):,} bytes, {excerpt(sealed)}",
                "job": f"{job_id}, payload hash {short(blake2_256(sealed))}",
            }
        )
        return job_id

    def _kill(self, stage: Stage, worker: StartedWorker, job_id: JobId) -> None:
        self.pages.step("The first worker is killed during the job")
        key = JobKey(
            genesis=stage.chain.genesis_hash,
            contract=stage.contract,
            job_id=job_id,
            payload_hash=_job(stage, job_id).payload_hash,
        )
        was_running = stage.wait_until_running(worker, key)
        stage.children.kill(worker.child)
        self.summary.check("worker 1 was killed while its status said running", was_running)
        self.pages.facts(
            {
                "worker 1 said": "running" if was_running else "nothing of the job",
                "then": f"SIGKILL to process {worker.child.process.pid} and its children, "
                f"ended with {worker.child.process.returncode}",
                "job on the chain": _job(stage, job_id).status.value,
            }
        )

    def _wait(
        self,
        stage: Stage,
        client: "JobClient",
        workers: Sequence[RegisteredWorker],
        job_id: JobId,
    ) -> Job:
        self.pages.step("The other one does it; contract verifies it")
        try:
            ended = client.wait(job_id, timeout_seconds=WAIT_SECONDS)
        except WaitTimeoutError as error:
            raise RefusedError(
                "DemoFailed", f"the job was not processed: {error}; demo --keep keeps the logs"
            ) from error
        job = _job(stage, job_id)
        attestation = stage.chain.read(stage.processor.get_attestation(job_id))
        verified = stage.chain.read(stage.processor.verify_attestation(job_id))
        recorded_by = None if attestation is None else attestation.worker
        self.summary.figures |= {"recorded_worker": recorded_by or 0, "status": ended.value}
        self.summary.check("the job is processed", ended is JobStatus.PROCESSED and job.processed)
        self.summary.check(
            "the recorded worker is the one that lives", recorded_by == workers[1].worker
        )
        self.summary.check("the contract verifies the attestation", verified)
        self.pages.table(
            ("event", "after", "what"),
            ((name, f"{ms / 1000:.2f} s", what) for name, ms, what in _history(stage, job)),
        )
        self.pages.facts(
            {
                "recorded worker": recorded_by,
                "verify_attestation": verified,
                "status": ended.value,
            }
        )
        return job

    def _show_result(self, result: "Result", patients: Patients) -> None:
        self.pages.step("The owner opens the result, truth beside it")
        rows = predictions(result.output)
        self.summary.check(
            "there is a prediction for every patient", len(rows) == len(patients.diagnoses)
        )
        beside = list(zip(rows, patients.diagnoses, strict=False))
        right = sum(said == true for (said, _), (_, true) in beside)
        self.summary.figures |= {"patients": len(rows), "right": right}
        self.pages.table(
            ("case", "model says", "malignant", "true diagnosis", ""),
            (
                (case, said, f"{chance:6.1%}", true, "" if said == true else "<- wrong")
                for (said, chance), (case, true) in beside
            ),
        )
        self.pages.say(
            f"{right} of {len(rows)} right; of all held-out patients {patients.accuracy}."
        )

    def _show_views(
        self,
        workers: Sequence[RegisteredWorker],
        job: Job,
        result: "Result",
        patients: Patients,
    ) -> None:
        self.pages.step("What each party could see")
        sealed = _payload(job)
        secrets = (patients.table, result.output)
        places = {
            "the chain's files": sorted(self.folder.glob("chain.db*")) or [self.folder / "node"],
            "the orchestrator's folder": [self.folder / "orchestrator"],
            "the workers' folders": [w.process.folder for w in workers],
            "the processes' logs": sorted(self.folder.glob("*.log")),
        }
        found = search_apart(places, secrets)
        for place, leaks in found.items():
            self.summary.check(f"no plaintext in {place}", not leaks)
        self.pages.table(
            ("who", "saw"),
            (
                ("the chain", f"payload {excerpt(sealed)}"),
                ("", f"result hash {short(result.completion.result_hash)}, worker, times, sizes"),
                ("the orchestrator", f"result {excerpt(result.envelope)}"),
                ("worker 1", "the plaintext, in memory; killed before it signed anything"),
                ("worker 2", "the plaintext, in memory, while it ran; in a TEE it alone."),
                ("", "This one only simulates one: its host could look."),
                ("the owner", patients.table.splitlines()[1].decode()[:48] + "..."),
                ("", result.output[:60].decode("utf-8", "replace") + "..."),
            ),
        )
        self.pages.say(
            f"Searched all files for any {PART_BYTES} consecutive bytes of input or output:"
        )
        self.pages.facts(
            {f"  in {place}": "FOUND" if leaks else "none" for place, leaks in found.items()}
        )

    def _show_costs(
        self, stage: Stage, client: "JobClient", job_id: JobId, before: Balances
    ) -> None:
        self.pages.step("What it cost, and what came back")
        held = stage.balances()
        client.purge(job_id)
        left = stage.balances()
        back = left.owner - held.owner
        owner, operator = before.owner - left.owner, before.operator - left.operator
        self.summary.check("purging gave the owner a deposit back", back > 0)
        self.summary.figures |= {
            "owner_paid_planck": owner,
            "operator_paid_planck": operator,
            "block": stage.chain.finalized_head().number,
        }
        self.pages.table(
            ("call", "block", "final after", "fee", "deposit"),
            (
                (
                    step.what,
                    f"{step.block.number} {short(step.block.hash)}",
                    f"{step.seconds:.2f} s",
                    planck(step.fee),
                    planck(step.deposit),
                )
                for step in stage.steps
            ),
        )
        self.pages.facts(
            {
                "the owner paid": f"{planck(owner)} for submitting and purging;"
                f" {planck(back)} came back at the purge, and the deposit for its account's own"
                " entry does with release_account",
                "the orchestrator paid": f"{planck(operator)} for recording and"
                " marking; no deposit",
            }
        )


def _job(stage: Stage, job_id: JobId) -> Job:
    job = stage.chain.read(stage.processor.get_job(job_id))
    if job is None:
        raise RefusedError("DemoFailed", f"job {job_id} is gone")
    return job


def _payload(job: Job) -> bytes:
    payload = job.encrypted_payload
    if not isinstance(payload, InlinePayload):
        raise RefusedError("DemoFailed", f"the payload of job {job.job_id} is not on the chain")
    return payload.data


def _history(stage: Stage, job: Job) -> list[tuple[str, int, str]]:
    """The job's events: name, milliseconds since it was submitted, and a few words."""
    from orchestrator.chain import Cursor

    page = stage.chain.events(stage.contract, after=Cursor(block=0, index=-1))
    rows = []
    for raw in page.events:
        event = stage.processor.decode_event(raw)
        if event.fields.get("job_id") != job.job_id:
            continue
        words = f"block {raw.block.number} {short(raw.block.hash)}, final,"
        words += f" {shown_time(raw.block.timestamp)}"
        if event.statement is not None:
            words += f", worker {event.statement['worker']}"
        rows.append((event.name, raw.block.timestamp - job.created_at, words))
    return rows
