"""
A worker as a process of its own; the arguments are folder, when to die, and developer hold.

The hook that kills the process is an argument of the constructor: no setting, variable or option of
the program reaches it.
"""

import os
import signal
import sys
import time
from pathlib import Path

from orchestrator.worker import WorkerServer, WorkerSettings
from orchestrator.worker.outcomes import OutcomeStore, StoredOutcome


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    folder, when, hold = Path(sys.argv[1]), sys.argv[2], float(sys.argv[3])
    if when == "before_storing":
        OutcomeStore.add = lambda *_: die()  # type: ignore[assignment,method-assign]  # it does not return
    if when == "after_storing":
        add = OutcomeStore.add

        def add_and_die(
            self: OutcomeStore, outcome: StoredOutcome, envelope: bytes
        ) -> StoredOutcome:
            add(self, outcome, envelope)
            die()
            raise AssertionError

        OutcomeStore.add = add_and_die  # type: ignore[method-assign]  # that is the failpoint
    server = WorkerServer(
        WorkerSettings(
            folder=folder,
            tasks=("echo",),
            unsafe_without_chain=True,
            developer_hold_seconds=hold,
        ),
        None,
        clock=lambda: time.time_ns() // 1_000_000,
        on_signed=die if when == "after_signing" else lambda: None,
    )
    server.run(ready=lambda url: print(url, flush=True))


if __name__ == "__main__":
    main()
