"""
Whole jobs on a real node: a block for each transaction and a block each second, single and grouped.

Single: the orchestrator settles each job in a transaction of its own. Grouped: as it does by
itself, with as many jobs in one transaction as are ready.
"""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.jobs import System, flood, latencies, percentile, running
from benchmarks.table import Table
from orchestrator.chain.devnode import find_node

SINGLE = ("--batch-jobs", "1")


@dataclass(frozen=True, kw_only=True)
class Way:
    """How blocks are made and results are settled; how many jobs are measured, how often."""

    name: str
    flags: tuple[str, ...]
    options: tuple[str, ...]
    jobs: int
    steady_jobs: int
    rate: float


FINAL_AT_ONCE = ("--finalize-delay-sec", "0")
EACH_SECOND = ("--block-time", "1000", *FINAL_AT_ONCE)
WAYS = (
    Way(
        name="a block for each transaction, single",
        flags=FINAL_AT_ONCE,
        options=SINGLE,
        jobs=100,
        steady_jobs=60,
        rate=4.0,
    ),
    Way(
        name="a block for each transaction, grouped",
        flags=FINAL_AT_ONCE,
        options=(),
        jobs=200,
        steady_jobs=60,
        rate=4.0,
    ),
    Way(
        name="a block each second, single",
        flags=EACH_SECOND,
        options=SINGLE,
        jobs=20,
        steady_jobs=20,
        rate=0.4,
    ),
    Way(
        name="a block each second, grouped",
        flags=EACH_SECOND,
        options=(),
        jobs=200,
        steady_jobs=20,
        rate=0.4,
    ),
)


def _row(way: Way, system: System) -> tuple[str, ...]:
    flood(system, 4)
    before = system.cpu_seconds()
    _, seconds = flood(system, way.jobs)
    spent = {name: used - before[name] for name, used in system.cpu_seconds().items()}
    waits = latencies(system, way.steady_jobs, way.rate)
    used = sum(spent.values())
    return (
        way.name,
        f"{way.jobs / seconds:.1f}",
        f"{1_000 * used / way.jobs:.1f}",
        f"{spent['node'] / used:.0%}",
        f"{way.rate:g}",
        str(percentile(waits, 50)),
        str(percentile(waits, 95)),
    )


def measure() -> Iterator[Table]:
    """One table, or none with the reason when there is no node."""
    node = find_node()
    if node is None:
        print("whole jobs on a node: no node found (CONTRACTS_NODE, PATH, make node)", flush=True)
        return
    rows = []
    for way in WAYS:
        with (
            tempfile.TemporaryDirectory() as folder,
            running(Path(folder), node=node, node_flags=way.flags, options=way.options) as system,
        ):
            rows.append(_row(way, system))
    yield Table(
        title=f"Whole jobs on a node: `echo` of 4 KiB, {os.cpu_count()} cores",
        columns=(
            "blocks and settling",
            "jobs per second",
            "CPU ms per job",
            "of it in the node",
            "steady jobs per second",
            "p50 ms",
            "p95 ms",
        ),
        rows=rows,
        note="Jobs per second from the first submit until the last mark is seen to be final, all"
        " submitted at once; p50 and p95 from before sealing until the mark is final, at the steady"
        " rate. The node, the owner and this measurement share the machine.",
    )
