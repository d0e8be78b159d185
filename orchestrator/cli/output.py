"""
What a command prints: its result on stdout, words and progress on stderr.

With `--json` the result is exactly one JSON document. Bytes are `0x…` hex, times are milliseconds
since the epoch; the text form shows times as dates.
"""

import contextlib
import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum, IntEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

JsonValue: TypeAlias = (
    "bool | int | float | str | Sequence[JsonValue] | Mapping[str, JsonValue] | None"
)
Document: TypeAlias = Mapping[str, JsonValue]

WIDTH_WITHOUT_TERMINAL = 120  # rich assumes 80 columns for a pipe, and then cuts hashes in half
_TIMES = ("_at", "_until", "deadline", "timestamp")


def to_json(value: object) -> JsonValue:
    """Turn models, bytes and enums into what JSON can hold."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, IntEnum):
        return value.name.capitalize()
    if isinstance(value, Enum):
        return to_json(value.value)
    if isinstance(value, Mapping):
        return {str(key): to_json(held) for key, held in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(held) for held in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def shown(name: str, value: JsonValue) -> str:
    """One value for people; a name that ends like a time's is shown as a date."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int) and name.endswith(_TIMES):
        return shown_time(value)
    if isinstance(value, str | int | float):
        return str(value)
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {shown(key, held)}" for key, held in value.items()) or "-"
    return ", ".join(shown(name, held) for held in value) or "-"


def shown_time(ms: int) -> str:
    """A time as a date in UTC; one beyond the calendar as its milliseconds."""
    try:
        moment = datetime.fromtimestamp(ms / 1000, tz=UTC)
    except (OverflowError, ValueError, OSError):
        return f"{ms} ms"
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC")


def printable(text: str) -> str:
    """Replace control characters: what a worker or a chain says must not drive a terminal."""
    return "".join(
        c if c in "\n\t" or c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text
    )


class Output:
    """Prints what a command has to say, as text or as JSON."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json

    def result(self, document: Document) -> None:
        """Print the command's one result: JSON, or a line per field."""
        if self.as_json:
            self._print_json(document)
            return
        from rich.markup import escape

        table = self.grid()
        for name, value in document.items():
            table.add_row(name.replace("_", " "), escape(printable(shown(name, value))))
        self.console().print(table)

    def rows(
        self,
        name: str,
        rows: Sequence[Document],
        *,
        columns: Sequence[str] | None = None,
        **more: JsonValue,
    ) -> None:
        """Print a list as the command's one result: JSON, or a table of the *columns*."""
        if self.as_json:
            self._print_json({name: rows, **more})
            return
        if not rows:
            self.say(f"no {name}")
            return
        self.console().print(self.table(rows, columns or list(rows[0])))

    def table(self, rows: Sequence[Document], columns: Sequence[str]) -> "Table":
        """A table of the *columns* of rows; what a row does not have is shown as absent."""
        from rich.markup import escape
        from rich.table import Table

        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column.replace("_", " "), overflow="fold")
        for row in rows:
            texts = (shown(column, row.get(column)) for column in columns)
            table.add_row(*(escape(printable(text)) for text in texts))
        return table

    def line(self, document: Document, words: str) -> None:
        """Print one of many results: with `--json` a document on a line of its own, else words."""
        text = json.dumps(document) if self.as_json else printable(words)
        print(text, flush=True)  # noqa: T201  # printing is what this module is for

    def text(self, text: str) -> None:
        """Print a text of others' on stdout, as it is but for what would drive a terminal."""
        print(printable(text), flush=True)  # noqa: T201  # printing is what this module is for

    def error(self, code: str, message: str, **more: JsonValue) -> None:
        """Print why the command failed; with `--json` also as the one document on stdout."""
        if self.as_json:
            self._print_json({"error": code, "message": message, **more})
        self.say(f"error: {message}")

    def unknown(self, code: str, message: str, **more: JsonValue) -> None:
        """The same of what is neither done nor refused; people are not told of an error."""
        if self.as_json:
            self._print_json({"error": code, "message": message, **more})
        self.say(f"note: {message}")

    def say(self, text: str) -> None:
        """Print words for people on stderr."""
        print(printable(text), file=sys.stderr, flush=True)  # noqa: T201  # printing is what this module is for

    @contextlib.contextmanager
    def progress(self, text: str) -> Iterator[None]:
        """Show on stderr that something longer goes on: a spinner on a terminal, else a line."""
        if not sys.stderr.isatty():
            self.say(f"{text} ...")
            yield
            return
        with self.console(stderr=True).status(text):
            yield

    def console(self, *, stderr: bool = False) -> "Console":
        """A rich console on stdout, or on stderr."""
        from rich.console import Console

        console = Console(stderr=stderr, highlight=False, soft_wrap=False)
        if not console.is_terminal:
            console.width = WIDTH_WITHOUT_TERMINAL
        return console

    def grid(self) -> "Table":
        """An empty table of two columns, names and values."""
        from rich.table import Table

        table = Table(box=None, show_header=False, pad_edge=False)
        table.add_column(style="bold", no_wrap=True)
        table.add_column(overflow="fold")
        return table

    def _print_json(self, document: Document) -> None:
        # In ASCII: what others wrote can hold what no terminal should get, and no encoding has.
        text = json.dumps(document, indent=2)
        print(text, flush=True)  # noqa: T201  # printing is what this module is for
