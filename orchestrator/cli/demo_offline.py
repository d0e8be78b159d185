"""The demo's files for strangers: an attestation and a receipt, verified without a chain."""

import contextlib
import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.attestation import AttestationFile, attestation_file_of, dump_attestation_file
from orchestrator.cli.demo_children import command_line, environment
from orchestrator.cli.demo_pages import Pages, Summary, shortened
from orchestrator.cli.demo_stage import Stage
from orchestrator.cli.demo_trust import POLICY_FILE
from orchestrator.cli.errors import ExitCode
from orchestrator.cli.receipt_report import NOT_ALL
from orchestrator.cli.verdicts import SIMULATED
from orchestrator.encoding import blake2_256
from orchestrator.errors import RefusedError
from orchestrator.keystore.private_files import write_new_file
from orchestrator.models import Job, JobId
from orchestrator.receipts import MAX_RECEIPT_BYTES, StepName, dump_receipt, load_receipt

if TYPE_CHECKING:
    from orchestrator.client import Result

COMMAND_SECONDS = 30.0
# Of a receipt's steps these are one line of the page: the attestation's, and the evidence's.
_ABOVE = "the checks above"
_EVIDENCE = "E01 to E14"
_ATTESTATION_CHECKS = frozenset(
    {"job", "worker", "result hash", "times", "recorded in time", "signature", "result"}
)
# What a receipt of a chain without proofs leaves to somebody else's word.
_UNTOLD = frozenset(
    {
        *(StepName.BLOCK, StepName.STORAGE, StepName.CONTRACT, StepName.JOB_ROW),
        *(StepName.WORKER_ROW, StepName.ALLOWED, StepName.EVENTS, StepName.FINALITY),
        *("E13", "E14"),
    }
)


@dataclass(frozen=True, kw_only=True)
class Files:
    """What is written while the chain is there; `block` is one that is final, on a node."""

    folder: Path
    job_id: JobId
    key: bytes
    block: bytes | None

    @property
    def result(self) -> Path:
        """The sealed result."""
        return self.folder / "result.sealed"

    def words(self, name: str) -> list[str | Path]:
        """The arguments of `phala-jobs` that verify the file of that name."""
        if not name.endswith("receipt.json"):
            own: list[str | Path] = ["--accept-key", "0x" + self.key.hex()]
        else:
            own = ["--policy", self.folder / POLICY_FILE]
            if self.block is not None:
                own += ["--trusted-block", "0x" + self.block.hex()]
        return ["verify", self.folder / name, *own, "--result", self.result, "--json"]


def write_files(stage: Stage, evidence: Path, job: Job, result: "Result") -> Files:
    """
    Write the sealed result, attestation and receipt of a job, and a changed copy of both.

    Raises:
        RefusedError: The job has no attestation, or `phala-jobs receipt` failed.
    """
    folder = stage.folder
    file = _attestation_file(stage, job, result)
    write_new_file(folder / "attestation.json", dump_attestation_file(file).encode())
    write_new_file(folder / "tampered.json", dump_attestation_file(_tampered(file)).encode())
    receipt = folder / "receipt.json"
    words: list[str | Path] = [
        *("receipt", str(job.job_id), "--output", receipt, "--json"),
        *("--chain", stage.chain_url, "--contract", stage.contract_name),
        *("--evidence", evidence),
    ]
    with _running(folder, words) as process:
        done = process.wait()
    if done.code:
        raise RefusedError("DemoFailed", f"no receipt: {done.words}")
    number = json.loads(done.stdout)["block"]
    made = load_receipt(receipt.read_bytes()[:MAX_RECEIPT_BYTES])
    changed = replace(made, attestation=_tampered(made.attestation))
    write_new_file(folder / "tampered-receipt.json", dump_receipt(changed))
    files = Files(
        folder=folder,
        job_id=job.job_id,
        key=file.worker.signing_key.key,
        # Not the command's word: what the demo's own connection says is in the final chain.
        block=None if number is None else stage.chain.block_hash(number),
    )
    write_new_file(files.result, result.envelope)
    return files


def verify_files(files: Files, pages: Pages, summary: Summary) -> None:
    """Let `phala-jobs verify` judge the files, and show what it says; two pages."""
    names = ("attestation.json", "tampered.json", "receipt.json", "tampered-receipt.json")
    with contextlib.ExitStack() as stack:
        at_once = [stack.enter_context(_running(files.folder, files.words(name))) for name in names]
        good, bad, receipt, bad_receipt = (one.wait() for one in at_once)
    _show_attestation(files, pages, summary, good, bad)
    _show_receipt(files, pages, summary, receipt, bad_receipt)


def _show_attestation(
    files: Files, pages: Pages, summary: Summary, good: "_Done", bad: "_Done"
) -> None:
    pages.step("Anybody can verify it, without any chain")
    summary.check("verify accepts the finished job offline", good.code == 0)
    summary.check("verify refuses a tampered copy", bad.code == 1)
    pages.say("$ phala-jobs verify attestation.json --accept-key KEY --result result.sealed")
    pages.say(f"  KEY: 0x{files.key.hex()}")
    pages.table(
        ("  check", "outcome", "detail"),
        (
            (f"  {row['check']}", row["outcome"], shortened(str(row["detail"])))
            for row in good.rows("checks")
        ),
    )
    pages.say(f"  {good.words} (exit code {good.code})")
    pages.say("$ phala-jobs verify tampered.json      # with another result hash")
    pages.say(f"  {shortened(bad.words)} (exit code {bad.code})")


def _show_receipt(
    files: Files, pages: Pages, summary: Summary, good: "_Done", bad: "_Done"
) -> None:
    pages.step("A receipt: the worker's evidence is in it too")
    rows = good.rows("steps")
    if files.block is not None:
        summary.check("verify accepts the receipt offline, by a trusted block", good.code == 0)
        option = " --trusted-block BLOCK \\\n   "
    else:
        is_rest_passed = all(row["outcome"] == "passed" or _is_untold(row["step"]) for row in rows)
        summary.check(
            "verify accepts of the receipt all that needs no chain, and says what does",
            good.code == ExitCode.UNKNOWN and is_rest_passed,
        )
        option = ""
    summary.check("verify refuses a tampered receipt", bad.code == 1)
    pages.say(f"$ phala-jobs receipt {files.job_id} -o receipt.json")
    pages.say(
        f"$ phala-jobs verify receipt.json --policy {POLICY_FILE}{option} --result result.sealed"
    )
    if files.block is not None:
        pages.say(f"  BLOCK: 0x{files.block.hex()}")
    pages.table(("  step", "outcome", "detail"), _grouped(rows))
    pages.say(f"  {_ended(good)} (exit code {good.code})")
    if files.block is None:
        pages.say("  An embedded chain proves nothing of its storage; a node does:")
        pages.say("  phala-jobs demo --chain node.")
    pages.say("$ phala-jobs verify tampered-receipt.json      # with another result hash")
    pages.say(f"  {shortened(bad.words)} (exit code {bad.code})")
    node = "" if files.block is None else " --chain node"
    pages.say(f"To repeat it: phala-jobs demo{node}; --keep leaves the files.")


def _ended(done: "_Done") -> str:
    """What the command said at last; of what could not be told, that there is something."""
    return f"{NOT_ALL}; {SIMULATED}" if done.code == ExitCode.UNKNOWN else shortened(done.words, 60)


def _is_untold(step: str) -> bool:
    return step in _UNTOLD or step.split(" ", maxsplit=1)[0] in _UNTOLD


def _grouped(steps: Sequence[Mapping[str, str]]) -> list[tuple[str, str, str]]:
    """A line for each step that matters, but one for those that were shown before."""
    groups: dict[str, list[Mapping[str, str]]] = {}
    for step in steps:
        name = step["step"]
        if name == StepName.OWN_POLICY:
            continue  # the same file here, so it says the same
        if name in _ATTESTATION_CHECKS:
            name = _ABOVE
        elif name[:1] == "E" and name[1:3].isdecimal():
            name = _EVIDENCE
        groups.setdefault(name, []).append(step)
    return [_line(name, held) for name, held in groups.items()]


def _line(name: str, held: Sequence[Mapping[str, str]]) -> tuple[str, str, str]:
    if name not in (_ABOVE, _EVIDENCE):
        return f"  {name}", held[0]["outcome"], shortened(held[0]["detail"])
    others = [one for one in held if one["outcome"] != "passed"]
    words = ", ".join(f"{one['step'][:3]} {one['outcome']}" for one in others)
    outcome = "failed" if any(one["outcome"] == "failed" for one in others) else "passed"
    return f"  {name}", outcome, f"{len(held) - len(others)} of {len(held)}; {words}".rstrip("; ")


@dataclass(frozen=True, kw_only=True)
class _Done:
    """A command that ended: exit code, JSON document, and what it said."""

    code: int
    stdout: str
    words: str

    def rows(self, name: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = json.loads(self.stdout).get(name, [])
        return found


@dataclass(frozen=True)
class _Running:
    process: "subprocess.Popen[str]"

    def wait(self) -> _Done:
        stdout, stderr = self.process.communicate(timeout=COMMAND_SECONDS)
        return _Done(code=self.process.returncode, stdout=stdout, words=stderr.strip())


@contextlib.contextmanager
def _running(folder: Path, words: Sequence[str | Path]) -> Iterator[_Running]:
    """`phala-jobs` with *words*, which ends whatever happens meanwhile."""
    with subprocess.Popen(
        command_line(words),
        env=environment(folder),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield _Running(process)
        finally:
            process.kill()


def _attestation_file(stage: Stage, job: Job, result: "Result") -> AttestationFile:
    attestation = stage.chain.read(stage.processor.get_attestation(job.job_id))
    if attestation is None:
        raise RefusedError("DemoFailed", f"job {job.job_id} has no attestation")
    return attestation_file_of(
        genesis_hash=stage.chain.genesis_hash,
        contract=stage.contract,
        job=job,
        worker=result.worker,
        completion=result.completion,
        recorded_at=attestation.timestamp,
    )


def _tampered(file: AttestationFile) -> AttestationFile:
    """The file with another result in it."""
    return replace(
        file, completion=replace(file.completion, result_hash=blake2_256(b"another result"))
    )
