"""`condu bench parity`: the store against the method's formulas, on checkpoints that the caller names."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.errors import CommandFailedError
from cli.options import example
from cli.output import Output, command
from cli.progress import count_gauge

EXAMPLES = example(
    "condu bench parity --base base.safetensors --fine-tunes FOLDER --json parity.json",
    "condu bench parity --base adapters.safetensors --fine-tunes FOLDER --json lora.json --passes 100",
)


def parity(
    *,
    base: Annotated[
        Path,
        typer.Option(
            metavar="FILE", dir_okay=False, help="The base's safetensors file, or the adapters' frozen start."
        ),
    ],
    fine_tunes: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Fine-tuned checkpoints of it, TASK.safetensors each, learned in that order.",
        ),
    ],
    json_file: Annotated[
        Path,
        typer.Option("--json", metavar="FILE", dir_okay=False, help="Every number; figures go beside it."),
    ],
    passes: Annotated[
        int, typer.Option(min=3, metavar="N", help="Extra passes without a new task, for the theorem.")
    ] = 30,
) -> None:
    """Hold the store's fusion against the plain formulas, entry by entry, in both norms of the rescaler."""
    with command(as_json=False) as output:
        document, files = _compared(output, base, fine_tunes, json_file=json_file, num_passes=passes)
        _show(output, document, files)


def _compared(
    output: Output, base: Path, folder: Path, *, json_file: Path, num_passes: int
) -> tuple[dict[str, Any], list[Path]]:
    from bench.documents import write
    from bench.errors import BenchError
    from bench.parity.plots import draw_parity
    from bench.parity.run import run_parity

    try:
        json_file.parent.mkdir(parents=True, exist_ok=True)  # before minutes are spent on what cannot be kept
        with count_gauge(output, "bench parity") as on_progress:
            document = run_parity(base, folder, num_passes=num_passes, on_progress=on_progress)
        write(document, json_file)
        return document, draw_parity(document, json_file.parent, stem=json_file.stem)
    except BenchError as error:
        raise CommandFailedError(error.message, remedy=error.remedy) from error
    except (MemoryError, OSError) as error:
        raise CommandFailedError(
            f"the comparison stopped: {error}", remedy="free memory and disk space, or give fewer fine-tunes"
        ) from error


def _show(output: Output, document: Mapping[str, Any], files: Sequence[Path]) -> None:
    from bench.parity.summary import disagreement, parity_tables
    from bench.tables import machine_line

    for table in parity_tables(document):
        output.table(table.headings, table.rows, title=table.title)
        output.say()
    output.note(machine_line(document))
    output.note("figures: " + ", ".join(str(path) for path in files))
    where = disagreement(document)
    if where is not None:
        raise CommandFailedError(
            f"the store departs from the formulas at {where}",
            detail="what is counted there stands in the JSON file",
            remedy="report it with the JSON file: one of the two computes the method wrongly",
        )
