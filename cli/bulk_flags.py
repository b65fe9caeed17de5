"""The flags of `condu classify` that answer any number of images into a file."""

from pathlib import Path
from typing import Annotated

import typer

Input = Annotated[
    Path | None,
    typer.Option("--input", help="A folder of images, a tar (plain or compressed), or a list of files."),
]
OutputFile = Annotated[
    Path | None,
    typer.Option("--output", help="FILE.parquet, FILE.csv or FILE.jsonl: a row for each image of --input."),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace the output if it is there.")]
BatchSize = Annotated[
    int | None, typer.Option(min=1, max=4096, help="Images that go through a model at once; else 32.")
]
PartSize = Annotated[
    int | None,
    typer.Option(
        min=1, max=1_000_000, help="Images after which a stopped job loses nothing more; else 1024."
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        "--ray", metavar="ADDRESS", help="Spread the job over a Ray cluster: its address, auto or local."
    ),
]
Actors = Annotated[
    int | None,
    typer.Option(min=1, help="With --ray: how many hold the model; else one a GPU, or one a machine."),
]
