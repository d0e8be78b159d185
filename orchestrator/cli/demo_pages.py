"""What the demo shows, one page a step, none longer than a screen; and what it asserts."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from orchestrator.cli.output import Document, JsonValue, Output, printable
from orchestrator.cli.verdicts import COLUMNS, SIMULATED

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from orchestrator.evidence import Verdict

DETAIL_CHARACTERS = 44
# What a verdict's table needs beside the details: codes, checks, outcomes and the gaps.
_VERDICT_CHARACTERS = 58


@dataclass
class Summary:
    """What was asserted, figures of the run, and the workers' verdicts in full."""

    assertions: dict[str, bool] = field(default_factory=dict)
    figures: dict[str, str | int] = field(default_factory=dict)
    verdicts: list[JsonValue] = field(default_factory=list)

    def check(self, name: str, passed: bool) -> None:
        """Note an assertion."""
        self.assertions[name] = passed

    def document(self) -> Document:
        """The summary as one JSON document."""
        return {
            "tee": SIMULATED,
            "passed": all(self.assertions.values()),
            "assertions": self.assertions,
            **self.figures,
            "verdicts": self.verdicts,
        }


class Pages:
    """Prints the pages on stdout; with `--json` only their titles, on stderr."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._number = 0
        self._console: Console | None = None if output.as_json else output.console()

    def step(self, title: str) -> None:
        """Begin a page."""
        self._number += 1
        heading = f"{self._number}. {title}"
        if self._console is None:
            self._output.say(f"{heading} ({SIMULATED})")
            return
        self._console.print()
        self._console.rule(f"[bold]{heading}[/bold]  [dim]{SIMULATED}[/dim]", align="left")

    def say(self, text: str) -> None:
        """Print a sentence."""
        if self._console is not None:
            self._console.print(printable(text), markup=False)

    def facts(self, facts: Mapping[str, object]) -> None:
        """Print names and values."""
        table = self._output.grid()
        for name, value in facts.items():
            table.add_row(printable(name), printable(str(value)))
        self._print(table)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """Print a table."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*(escape(printable(str(cell))) for cell in row))
        self._print(table)

    def verdict(self, verdict: "Verdict") -> None:
        """Print all checks, a line each: of the details as much as the line has room for."""
        width = 0 if self._console is None else self._console.width
        room = max(DETAIL_CHARACTERS // 2, width - _VERDICT_CHARACTERS)
        self.table(
            COLUMNS,
            (
                (f.check.value, f.check.title, f.outcome.value, shortened(f.detail, room))
                for f in verdict.findings
            ),
        )

    def _print(self, table: "Table") -> None:
        if self._console is not None:
            self._console.print(table)


def excerpt(data: bytes, length: int = 20) -> str:
    """The beginning of *data* in hex."""
    return data[:length].hex(" ", 4) + (" ..." if len(data) > length else "")


def short(data: bytes) -> str:
    """A hash or key, short enough for a table."""
    return f"0x{data[:6].hex()}...{data[-4:].hex()}"


def shortened(text: str, length: int = DETAIL_CHARACTERS) -> str:
    """The beginning of *text*, if it is longer than that."""
    return text if len(text) <= length else text[: length - 3] + "..."
