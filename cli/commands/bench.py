"""`condu bench`: the store against its peers, in one run on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from cli.commands import fetching, load_bench, parity, serving_bench
from cli.commands.continual import EXAMPLES, continual
from cli.errors import CommandFailedError
from cli.options import example
from cli.output import command
from cli.progress import count_gauge

app = typer.Typer(
    no_args_is_help=True,
    help="Measure the store against its peers, in one run on this machine; what the numbers mean stands in "
    "docs/benchmarks.md.",
)

FileOption = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", dir_okay=False, help="Write every number to this file."),
]
ParametersOption = Annotated[
    int | None, typer.Option("--parameters", min=10_000, metavar="N", help="Size of the model.")
]
TasksOption = Annotated[
    int | None, typer.Option("--tasks", min=2, max=1000, metavar="N", help="How many tasks are learned.")
]
QuickOption = Annotated[
    bool, typer.Option("--quick", help="Small sizes, to see that it works: such times mean nothing.")
]


@app.command(
    epilog=example(
        "condu bench fusion --json fusion.json", "condu bench fusion --parameters 5000000 --tasks 5"
    )
)
def fusion(
    *,
    json_file: FileOption = None,
    parameters: ParametersOption = None,
    tasks: TasksOption = None,
    quick: QuickOption = False,
) -> None:
    """Measure how fast and in how much memory one more task is fused."""
    measure("fusion", json_file, parameters=parameters, tasks=tasks, quick=quick)


@app.command(epilog=example("condu bench rebuild --json rebuild.json"))
def rebuild(
    *,
    json_file: FileOption = None,
    parameters: ParametersOption = None,
    tasks: TasksOption = None,
    quick: QuickOption = False,
) -> None:
    """Measure how fast an expert is rebuilt, warm and from a cold disk."""
    measure("rebuild", json_file, parameters=parameters, tasks=tasks, quick=quick)


@app.command(epilog=example("condu bench storage --json storage.json", "condu bench storage --tasks 8"))
def storage(
    *,
    json_file: FileOption = None,
    parameters: ParametersOption = None,
    tasks: TasksOption = None,
    quick: QuickOption = False,
) -> None:
    """Measure what tasks take on disk."""
    measure("storage", json_file, parameters=parameters, tasks=tasks, quick=quick)


app.command("continual", epilog=EXAMPLES)(continual)
app.command("fetch", epilog=fetching.EXAMPLES)(fetching.fetch)
app.command("load", epilog=load_bench.EXAMPLES)(load_bench.load)
app.command("parity", epilog=parity.EXAMPLES)(parity.parity)
app.command("serving", epilog=serving_bench.EXAMPLES)(serving_bench.serving)


def measure(
    name: str, json_file: Path | None, *, parameters: int | None, tasks: int | None, quick: bool
) -> None:
    """Run one benchmark, show its tables, and write its document where that was asked for."""
    from bench.documents import Request, run, write
    from bench.tables import machine_line, tables

    with command(as_json=False) as output:
        request = Request(num_parameters=parameters, num_tasks=tasks, is_quick=quick)
        try:
            with count_gauge(output, f"bench {name}") as on_progress:
                document = run(name, request, on_progress)
            if json_file:
                write(document, json_file)
        except (AssertionError, MemoryError, OSError) as error:
            raise CommandFailedError(
                f"the {name} benchmark stopped: {error}",
                detail="no time is reported where an implementation computed something else, or did not end",
                remedy="free memory and disk space, or measure a smaller model with --parameters",
            ) from error
        for table in tables(document):
            output.table(table.headings, table.rows, title=table.title)
            output.say()
        output.note(machine_line(document))
        if quick:
            output.note("--quick: these sizes are too small for their times to mean anything")
