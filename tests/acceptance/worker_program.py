"""A worker process for tests: `FOLDER CHAIN CONTRACT`; says its URL and stays until told to go."""

import sys
import time
from pathlib import Path

from orchestrator.chain.url import open_chain
from orchestrator.worker import WorkerServer, WorkerSettings


def main() -> None:
    folder, chain, contract = sys.argv[1:]
    server = WorkerServer(
        WorkerSettings(
            folder=Path(folder), contract=bytes.fromhex(contract), tasks=("echo",), slots=2
        ),
        open_chain(chain),
        clock=lambda: time.time_ns() // 1_000_000,
    )
    server.run(ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
