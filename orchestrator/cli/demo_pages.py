"""What the demo shows: one page a step, none longer than a screen."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.cli.output import Output, printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

NO_TEE = "development worker, no TEE"


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
            self._output.say(f"{heading} ({NO_TEE})")
            return
        self._console.print()
        self._console.rule(f"[bold]{heading}[/bold]  [dim]{NO_TEE}[/dim]", align="left")

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

    def _print(self, table: "Table") -> None:
        if self._console is not None:
            self._console.print(table)


def excerpt(data: bytes, length: int = 20) -> str:
    """The beginning of *data* in hex."""
    return data[:length].hex(" ", 4) + (" ..." if len(data) > length else "")


def short(data: bytes) -> str:
    """A hash or key, short enough for a table."""
    return f"0x{data[:6].hex()}...{data[-4:].hex()}"
