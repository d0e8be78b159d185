"""
Whole jobs: one owner, one orchestrator, two workers, on the embedded chain or on a node.

Worker and orchestrator are processes of the command line, as in the demo; the owner is this
process. A job is done when the contract says `JobProcessed`.
"""

import math
import os
import secrets
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.table import Table
from orchestrator.blobs.http import HttpBlobStore
from orchestrator.chain import Cursor
from orchestrator.chain.url import open_chain
from orchestrator.cli.demo_children import Child, Children
from orchestrator.cli.demo_stage import Stage
from orchestrator.cli.demo_trust import Trust
from orchestrator.client import JobClient, Submission
from orchestrator.models import Parameters, TaskInput

INPUT_BYTES = 4_096
PATIENCE_SECONDS = 180.0
# The order of the workers alternates, so that both are first choices equally often.
ORDERS = ((1, 2), (2, 1))
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class System:
    """The running system."""

    stage: Stage
    client: JobClient
    workers: tuple[Child, ...]
    orchestrator: Child

    def cpu_seconds(self) -> dict[str, float]:
        """CPU seconds used so far, per process with all that it started."""
        others = {child.name: _cpu_of_session(child.process.pid) for child in self.workers}
        if self.stage.node_process is not None:
            others["node"] = _cpu_of_session(self.stage.node_process)
        return {
            "owner": time.process_time(),
            "orchestrator": _cpu_of_session(self.orchestrator.process.pid),
            **others,
        }


@contextmanager
def running(
    folder: Path,
    *,
    node: Path | None = None,
    node_flags: Sequence[str] = (),
    options: Sequence[str] = (),
) -> Iterator[System]:
    """Start everything, with limits that do not limit; *options* are the orchestrator's."""
    with (
        Children(folder) as children,
        closing(Stage(folder, children, node, node_flags=node_flags)) as stage,
    ):
        generous = replace(Parameters(), rate_limit=1_000_000)
        stage.call(stage.processor.set_parameters(generous), stage.admin)
        workers = [stage.start_worker(place, folder, hold="0s", tasks="echo") for place in (1, 2)]
        limits = ("--jobs-per-day", "1000000", "--bytes-per-day", str(1 << 40))
        trust = Trust(stage, workers[0])
        tokens = {trust.register(one).worker: one.jobs_token for one in workers}
        orchestrator = stage.start_orchestrator(tokens, (*limits, *options))
        results = HttpBlobStore(orchestrator.text("listening"))
        with stage.job_client(results, trust.policy) as client:
            yield System(
                stage=stage,
                client=client,
                workers=tuple(worker.child for worker in workers),
                orchestrator=orchestrator,
            )


class Watcher(threading.Thread):
    """
    Notes when each `JobProcessed` is seen in a final block, and the orchestrator's memory.

    Times are ms since the epoch.
    """

    def __init__(self, system: System, *, expected: int, samples: Sequence[int] = ()) -> None:
        super().__init__(daemon=True)
        self.processed: dict[int, int] = {}
        self.memory: dict[int, int] = {}
        self.finished_at = 0.0
        self._system = system
        self._expected = expected
        self._samples = samples
        # Before anything is submitted: opening a chain takes longer than a job.
        head = system.stage.chain.finalized_head()
        self._start = Cursor(block=head.number, index=1 << 31)

    def run(self) -> None:
        stage = self._system.stage
        chain = open_chain(stage.chain_url)
        cursor = self._start
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(self.processed) < self._expected and time.monotonic() < deadline:
            page = chain.events(stage.contract, after=cursor)
            cursor = page.next
            for raw in page.events:
                event = stage.processor.decode_event(raw)
                if event.name == "JobProcessed":
                    self.processed[int(str(event.fields["job_id"]))] = _now()
            for sample in self._samples:
                if len(self.processed) >= sample and sample not in self.memory:
                    self.memory[sample] = _resident_kib(self._system.orchestrator.process.pid)
            time.sleep(0.02)
        self.finished_at = time.monotonic()
        chain.close()

    def result(self) -> dict[int, int]:
        """
        Wait for the end.

        Raises:
            TimeoutError: Some jobs were not processed in time.
        """
        self.join()
        if len(self.processed) < self._expected:
            message = f"{len(self.processed)} of {self._expected} jobs processed in time"
            raise TimeoutError(message)
        return self.processed


def _now() -> int:
    return time.time_ns() // 1_000_000


def _task() -> TaskInput:
    return TaskInput(task="echo", input=secrets.token_bytes(INPUT_BYTES))


def flood(system: System, count: int, samples: Sequence[int] = ()) -> tuple["Watcher", float]:
    """Submit *count* jobs as fast as it goes; return what was seen, and the seconds it took."""
    watcher = Watcher(system, expected=count, samples=samples)
    watcher.start()
    start = time.monotonic()
    system.client.submit_many(
        [Submission(task=_task(), workers=ORDERS[place % 2]) for place in range(count)]
    )
    watcher.result()
    return watcher, watcher.finished_at - start


def throughput(system: System, count: int) -> Table:
    """Jobs per second from the first submit to the last mark, and CPU per job by process."""
    before = system.cpu_seconds()
    _, seconds = flood(system, count)
    spent = {name: used - before[name] for name, used in system.cpu_seconds().items()}
    rows = [
        ("jobs per second", f"{count / seconds:.1f}"),
        *(
            (f"CPU ms per job, {name}", f"{1_000 * used / count:.1f}")
            for name, used in spent.items()
        ),
        ("CPU ms per job, all", f"{1_000 * sum(spent.values()) / count:.1f}"),
        (
            "of the machine's CPU time",
            f"{sum(spent.values()) / seconds / (os.cpu_count() or 1):.0%}",
        ),
    ]
    return Table(
        title=f"Throughput: {count} `echo` jobs of 4 KiB, {os.cpu_count()} cores",
        columns=("what", "figure"),
        rows=rows,
        note="Everything runs on this machine, the owner and this measurement included.",
    )


def latency(system: System, count: int, rate: float) -> Table:
    """From before sealing until the mark is seen to be final, at a steady *rate* per second."""
    waits = latencies(system, count, rate)
    return Table(
        title=f"Latency: {count} jobs, {rate:g} per second",
        columns=("what", "ms"),
        rows=[(f"p{share}", str(percentile(waits, share))) for share in (50, 95, 99)],
    )


def latencies(system: System, count: int, rate: float) -> list[int]:
    """How long (ms) each of *count* jobs took, in order of length."""
    watcher = Watcher(system, expected=count)
    watcher.start()
    start = time.monotonic()
    submitted: dict[int, int] = {}
    for place in range(count):
        time.sleep(max(0.0, start + place / rate - time.monotonic()))
        began = _now()
        submitted[system.client.submit(_task(), workers=ORDERS[place % 2])] = began
    processed = watcher.result()
    return sorted(processed[job] - began for job, began in submitted.items())


def memory(system: System, few: int, many: int) -> Table:
    """The orchestrator's resident memory after *few* jobs and after *many*."""
    watcher, _ = flood(system, many, samples=(few, many))
    at_few, at_many = watcher.memory[few], watcher.memory[many]
    return Table(
        title="The orchestrator's memory",
        columns=("after", "MiB", f"ratio to {few} jobs"),
        rows=[
            (f"{few} jobs", f"{at_few / 1_024:.1f}", "1.00"),
            (f"{many} jobs", f"{at_many / 1_024:.1f}", f"{at_many / at_few:.2f}"),
        ],
    )


def measure() -> list[Table]:
    """A system for throughput and latency, and a fresh one for memory."""
    tables = []
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as system:
        flood(system, 20)
        tables += [throughput(system, 600), latency(system, 200, 10.0)]
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as system:
        tables.append(memory(system, 500, 2_000))
    return tables


def percentile(ordered: Sequence[int], share: int) -> int:
    """Return the value that *share* percent of the ordered values do not exceed."""
    return ordered[max(0, math.ceil(len(ordered) * share / 100) - 1)]


def _resident_kib(pid: int) -> int:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1])
    return 0


def _cpu_of_session(session: int) -> float:
    """CPU seconds of all processes of a session, and of those of their children that ended."""
    ticks = 0
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it ended meanwhile
        if int(fields[3]) == session:
            ticks += sum(map(int, fields[11:15]))
    return ticks / _TICKS
