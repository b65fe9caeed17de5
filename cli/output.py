"""Where a command's words go: its result on stdout, everything said on the way on stderr."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cli.errors import CliError

if TYPE_CHECKING:
    from cli.client import Client

PIPED_WIDTH = 160  # columns of a table that goes to a pipe: a file has no width, and rich would cut at 80


class Output:
    """Prints for people, or one JSON document for a program; never both on stdout."""

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.stdout = Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False)
        self.stderr = Console(stderr=True, highlight=False)

    def result(self, document: Any) -> None:
        """The document on stdout when `--json` was given, nothing otherwise."""
        if self.as_json:
            sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
            sys.stdout.flush()

    def say(self, text: str = "") -> None:
        """A line of the result for people, in rich markup."""
        if not self.as_json:
            self.stdout.print(text, soft_wrap=True)

    def note(self, text: str) -> None:
        """A line about what is going on, in rich markup, on stderr."""
        self.stderr.print(text, soft_wrap=True)

    def table(
        self, headings: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None
    ) -> None:
        """A table for people; numbers are set to the right."""
        if self.as_json:
            return
        table = Table(
            title=title,
            title_justify="left",
            title_style="bold",
            box=None,
            pad_edge=False,
            padding=(0, 2, 0, 0),
        )
        for column, heading in enumerate(headings):
            numeric = bool(rows) and all(is_number(row[column]) for row in rows)
            table.add_column(heading, justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(escape("-" if cell is None else str(cell)) for cell in row))
        self.stdout.print(table)

    def fail(self, error: CliError) -> None:
        """The error: sentences on stderr, and its fields on stdout when `--json` was given."""
        self.stderr.print(f"[bold red]error:[/] {escape(error.title)}", soft_wrap=True)
        if error.detail and error.detail != error.title:
            self.stderr.print(f"  {escape(error.detail)}", soft_wrap=True)
        if error.remedy:
            self.stderr.print(f"  [bold]remedy:[/] {escape(error.remedy)}", soft_wrap=True)
        if error.next_command:
            self.stderr.print(f"  [bold]next:[/] {escape(error.next_command)}", soft_wrap=True)
        self.result({"error": error.to_dict()})


def is_number(cell: object) -> bool:
    """Whether a cell reads as a quantity: `12`, `93.4%`, `18.7 MB`, or nothing at all."""
    first = str(cell).lstrip("-").split(" ")[0].rstrip("%").replace(",", "")
    return cell is None or first.replace(".", "", 1).isdigit()


@contextmanager
def command(*, as_json: bool) -> Iterator[Output]:
    """The output of one command; an error a person can act on is printed and becomes the exit code."""
    output = Output(as_json=as_json)
    try:
        yield output
    except CliError as error:
        output.fail(error)
        raise typer.Exit(error.exit_code) from error


@contextmanager
def connected(url: str, *, as_json: bool) -> Iterator[tuple["Client", Output]]:
    """A client of the service at `url` and the output of one command."""
    from cli.client import Client

    with command(as_json=as_json) as output, Client(url) as client:
        yield client, output
