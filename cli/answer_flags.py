"""The flags of `condu classify`: one an option of an answer; None leaves the option to the service."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Task = Annotated[
    str | None, typer.Option(help="Ask this task's expert alone; by default whoever knows best.")
]
Label = Annotated[list[str] | None, typer.Option("--label", help="A label to choose from; repeat for each.")]
LabelsFile = Annotated[
    Path | None,
    typer.Option(exists=True, dir_okay=False, help="File with one label a line, instead of --label."),
]
LabelSet = Annotated[
    Literal["own", "union"] | None,
    typer.Option(help="Choose among the named task's own classes, or all that the model has learned."),
]
TopK = Annotated[int | None, typer.Option("--top-k", min=1, help="How many labels to tell.")]
K = Annotated[int | None, typer.Option("--k", min=0, help="How many experts answer when no task is named.")]
IncludeBase = Annotated[
    bool | None,
    typer.Option("--include-base/--no-include-base", help="Whether the base answers with them."),
]
Weighting = Annotated[
    Literal["uniform", "similarity", "softmax"] | None,
    typer.Option(help="What an expert's say depends on."),
]
Temperature = Annotated[float | None, typer.Option(help="Of the softmax weighting.")]
Space = Annotated[
    Literal["logits", "probabilities"] | None, typer.Option(help="What is averaged over the experts.")
]
Revision = Annotated[int | None, typer.Option(help="Ask an earlier revision; by default the head.")]
