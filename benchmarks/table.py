"""Tables of figures: measured here, printed as text."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

MIN_SECONDS = 0.6


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table of figures, with what they mean."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""

    def markdown(self) -> str:
        """Return the table as Markdown that reads as text too."""
        widths = [
            max(len(row[place]) for row in (self.columns, *self.rows))
            for place in range(len(self.columns))
        ]

        def line(cells: Sequence[str]) -> str:
            padded = [cell.ljust(width) for cell, width in zip(cells, widths, strict=True)]
            return "| " + " | ".join(padded) + " |"

        rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|"
        lines = [f"### {self.title}", "", line(self.columns), rule, *map(line, self.rows)]
        if self.note:
            lines += ["", self.note]
        return "\n".join(lines) + "\n"


def per_second(action: Callable[[], object], *, min_seconds: float = MIN_SECONDS) -> float:
    """How often *action* runs per second of this thread's CPU time, after one run to warm up."""
    action()
    count = 0
    start = time.thread_time()
    while (elapsed := time.thread_time() - start) < min_seconds or count < 3:
        action()
        count += 1
    return count / max(elapsed, 1e-9)


def number(value: float) -> str:
    """Return *value* with three significant digits or so."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
