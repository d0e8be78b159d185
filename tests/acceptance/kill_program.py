"""
Runs orchestrators that die where they are told to, each in a process of its own.

Reads one JSON object per line, forks a child that makes an orchestrator and lets it run once, and
answers with the child's return code. Forking from a process that has imported everything and runs
no thread keeps a case at a few hundredths of a second.
"""

import asyncio
import json
import os
import signal
import sys
import time
import traceback
from pathlib import Path

from orchestrator.blobs.directory import DirectoryBlobStore
from orchestrator.chain.processor import JobProcessor
from orchestrator.chain.url import open_chain
from orchestrator.journal import Journal
from orchestrator.models import Worker
from orchestrator.service import (
    AdmissionPolicy,
    FailPoint,
    Moment,
    Orchestrator,
    OrchestratorSettings,
    Step,
)
from orchestrator.service.steps import no_fail_point
from orchestrator.testing import LocalAccount
from orchestrator.workers.http import HttpWorkerClient

SETTINGS = OrchestratorSettings(
    poll_seconds=0.01,
    group_seconds=0.01,
    retry_seconds=0.05,
    retry_max_seconds=0.5,
    long_poll_seconds=2,
    answer_seconds=5,
    shutdown_seconds=2,
    keep_results_days=1,
)


def die_at(name: str, when: str, skip: int) -> FailPoint:
    """Kill this very process, with no chance to clean up, when a step is reached the n-th time."""
    left = skip

    def fail_point(step: Step, moment: Moment) -> None:
        nonlocal left
        if (step.name, moment.value) == (name, when):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    return fail_point


def run_orchestrator(case: dict[str, object]) -> None:
    folder = Path(str(case["folder"]))
    chain = open_chain(f"local:{folder / 'chain.db'}")
    contract = bytes.fromhex(str(case["contract"]))
    journal = Journal(
        folder / f"{case['journal']}.db", genesis_hash=chain.genesis_hash, contract=contract
    )
    tokens = case["tokens"]
    assert isinstance(tokens, dict)

    def client(worker: Worker) -> HttpWorkerClient:
        return HttpWorkerClient(worker.endpoint.decode(), tokens.get(str(worker.worker)))

    die = case.get("die")
    orchestrator = Orchestrator(
        chain=chain,
        processor=JobProcessor(contract),
        account=LocalAccount.named(str(case["account"])),
        journal=journal,
        blobs=DirectoryBlobStore(folder / "blobs", durable=False),
        worker_clients=client,
        policy=AdmissionPolicy(
            owners=frozenset({LocalAccount.named(str(case["owner"])).account_id}),
            jobs_per_day=int(str(case["jobs_per_day"])),
        ),
        settings=SETTINGS,
        clock=lambda: time.time_ns() // 1_000_000,
        fail_point=die_at(*die) if isinstance(die, list) else no_fail_point,
    )
    asyncio.run(orchestrator.run_once(float(str(case["seconds"]))))


def main() -> None:
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run_orchestrator(json.loads(line))
                code = 0
            except BaseException:  # noqa: BLE001  # told to whoever reads stderr, and by the code
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
