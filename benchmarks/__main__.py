"""`python -m benchmarks [--write FILE]`: measure everything in one run, print the tables."""

import argparse
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from benchmarks import embedded, evidence, jobs, node_jobs, sealing, statements
from benchmarks.table import Table


def _tables() -> Iterator[Table]:
    yield sealing.measure()
    yield statements.measure()
    yield evidence.measure()
    yield embedded.measure()
    yield from jobs.measure()
    yield from node_jobs.measure()


def main() -> None:
    """Print each table when it is there; write them all to a file when asked."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--write", type=Path, metavar="FILE", help="also write the tables there")
    options = parser.parse_args()
    cores = os.cpu_count()
    machine = f"Python {platform.python_version()}, {cores} cores, {platform.machine()}."
    print(machine, end="\n\n")
    written = [f"# Measured by `make bench`\n\n{machine}\n"]
    for table in _tables():
        text = table.markdown()
        print(text, flush=True)
        written.append(text)
    if options.write is not None:
        options.write.write_text("\n".join(written), encoding="utf-8")


if __name__ == "__main__":
    main()
