"""
What the orchestrator writes down about each job, in one SQLite file of mode 0600.

The chain is the truth and the journal comes second: it saves work after a restart, and keeps what
the chain does not know (why something was refused, what a worker signed before, which workers are
no longer believed). Rules that this module keeps:

* A journal belongs to one format, one genesis and one contract; anything else is a `JournalError`.
* One process has it open at a time.
* Every method is one transaction. A killed process loses nothing that was returned; losing power
  may lose the last moments, which the chain then tells again.
* No payload, result or key is ever written to it.
"""

from orchestrator.journal.journal import Journal
from orchestrator.journal.records import (
    JobRecord,
    JobState,
    PageChanges,
    Refusal,
    SeenStatement,
    Usage,
)

__all__ = [
    "JobRecord",
    "JobState",
    "Journal",
    "PageChanges",
    "Refusal",
    "SeenStatement",
    "Usage",
]
