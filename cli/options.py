"""Options and arguments that several commands share, declared once."""

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_URL = "http://127.0.0.1:8000"

JsonOption = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on stdout, and nothing else there.")
]
UrlOption = Annotated[str, typer.Option("--url", envvar="CONDU_URL", help="Where the service listens.")]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", file_okay=False, help="Folder with all data; else CONDU_DATA, else condu-data."),
]
ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="Name of the model.")]
TaskArgument = Annotated[str, typer.Argument(metavar="TASK", help="Name of the task.")]
BaseArgument = Annotated[str, typer.Argument(metavar="BASE", help="Name of the base.")]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.")]
WatchOption = Annotated[
    bool, typer.Option("--watch/--no-watch", help="Wait for the job and show its progress, or leave at once.")
]
TemplateOption = Annotated[
    list[str] | None, typer.Option("--template", help="Prompt with {} for the class name; repeat for more.")
]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def example(*lines: str) -> str:
    """The epilog of a command's help: what one would type."""
    return "\n\n".join(["Example:", *(f"  {line}" for line in lines)])
