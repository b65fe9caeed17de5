"""`condu bench fetch`: what the tasks of a suite are made of, fetched and checked ahead of a run."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.commands.continual import CACHE
from cli.errors import CommandFailedError
from cli.options import JsonOption, example
from cli.output import Output, command
from cli.progress import work_gauge

if TYPE_CHECKING:
    from bench.errors import BenchError
    from bench.suites import OnProgress, SuiteTask

EXAMPLES = example("condu bench fetch mini", "condu bench fetch mtil --data FOLDER")


def fetch(
    suite: Annotated[str, typer.Argument(metavar="SUITE", help="mini, mtil, or a folder of tasks.")],
    *,
    data_folder: Annotated[
        Path | None,
        typer.Option("--data", metavar="FOLDER", help="Where the data sets of mtil lie, or shall lie."),
    ] = None,
    cache: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Keeps packages and images; give runs the same.")
    ] = CACHE,
    as_json: JsonOption = False,
) -> None:
    """Fetch the images of a suite, check them, and say what each task holds."""
    with command(as_json=as_json) as output:
        tasks, failures = _fetched(
            output, suite, data_folder=data_folder, cache=cache.expanduser() / "suites"
        )
        output.table(
            ["task", "classes", "train", "test"],
            [[name, *counts.values()] for name, counts in tasks.items()],
            title=f"suite {suite}",
        )
        if failures:
            first = next(iter(failures.values()))
            also = f" (and {len(failures) - 1} more)" if len(failures) > 1 else ""
            raise CommandFailedError(
                f"{first.message}{also}", detail=f"not whole: {', '.join(failures)}", remedy=first.remedy
            )
        output.result({"suite": suite, "tasks": tasks})


def _fetched(
    output: Output, name: str, *, data_folder: Path | None, cache: Path
) -> tuple[dict[str, dict[str, int]], dict[str, "BenchError"]]:
    """What each task holds, and what went wrong with the others: one that fails does not stop the rest."""
    from bench.errors import BenchError
    from bench.locks import alone
    from bench.suites import find_suite

    try:
        suite = find_suite(name, data_folder=data_folder)
    except BenchError as error:
        raise CommandFailedError(error.message, remedy=error.remedy) from error
    tasks: dict[str, dict[str, int]] = {}
    failures: dict[str, BenchError] = {}
    with work_gauge(output, f"fetch {name}") as show:
        for number, task in enumerate(suite.tasks):
            on_progress = _part_of(show, number, len(suite.tasks))
            try:
                with alone(cache / f"{suite.name}.lock"):  # a run may be at it
                    tasks[task] = _counts(suite.fetch(task, cache=cache, on_progress=on_progress))
            except BenchError as error:
                failures[task] = error
    return tasks, failures


def _part_of(show: Callable[[int, int, str], None], number: int, num_tasks: int) -> "OnProgress":
    """What reports one task's progress as its share of all tasks'."""
    return lambda what, done, total: show(number * total + done, num_tasks * total, what)


def _counts(task: "SuiteTask") -> dict[str, Any]:
    images = task.images
    return {"classes": len(images.classes), "train": len(images.train), "test": len(images.test)}
