"""A process of an owner that is killed at one step of submitting; `test_killed.py` starts it."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from orchestrator.chain.embedded import EmbeddedChain
from orchestrator.client import JobClient, Submission, job_list, sealer, submitter
from orchestrator.models import TaskInput
from orchestrator.testing.chain import FixedClock
from orchestrator.testing.owner_world import OWNER, SECRET

GROUPS = 20


def submissions(count: int) -> list[Submission]:
    """What the process submits, each with a key."""
    return [
        Submission(
            task=TaskInput(task="echo", input=f"input {number}".encode()),
            workers=(1,),
            key=f"key {number}",
        )
        for number in range(count)
    ]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _die_around(owner: type, name: str, *, after: bool, times: int = 1) -> None:
    """Let the *times*-th call of a method be the last thing that happens, done or not."""
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    def replaced(*args: Any, **kwargs: Any) -> Any:  # noqa: ANN401 - whatever the method takes
        nonlocal calls
        calls += 1
        if calls == times and not after:
            _die()
        value = original(*args, **kwargs)
        if calls == times:
            _die()
        return value

    setattr(owner, name, replaced)


# (class, method, whether it was done, which call of it); in the order in which they happen.
STEPS: dict[str, tuple[type, str, bool, int]] = {
    "before sealing": (sealer.Sealer, "seal", False, 1),
    "sealed": (sealer.Sealer, "seal", True, 1),
    "in the list, not committed": (job_list.JobList, "add", True, 1),
    "in the list": (submitter.Submitter, "_write_down", True, 1),
    "noted as being sent": (job_list.JobList, "mark", True, 1),
    "in the middle of the call": (EmbeddedChain, "_before_commit", True, 1),
    "called": (submitter.Submitter, "_call", True, 1),
    "before it is noted as submitted": (job_list.JobList, "mark_submitted", False, 1),
    "noted as submitted": (job_list.JobList, "mark_submitted", True, 1),
}
MANY_STEPS: dict[str, tuple[type, str, bool, int]] = {
    "in the middle of the second group": (EmbeddedChain, "_before_commit", True, 2),
    "second group called": (submitter.Submitter, "_call", True, 2),
}


def main() -> None:
    """Submit, and be killed on the way."""
    chain_file, contract, state, step = sys.argv[1:]
    owner, name, after, times = {**STEPS, **MANY_STEPS}[step]
    clock = FixedClock()
    client = JobClient(
        chain=EmbeddedChain(Path(chain_file), clock=clock, create=False),
        contract=bytes.fromhex(contract),
        account=OWNER,
        secret=SECRET,
        state_dir=Path(state),
        trusted_node=True,
        clock=clock,
    )
    _die_around(owner, name, after=after, times=times)
    client.submit_many(submissions(1 if step in STEPS else GROUPS))


if __name__ == "__main__":
    main()
