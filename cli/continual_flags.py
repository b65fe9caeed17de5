"""The flags of `condu bench continual`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

ResultsOption = Annotated[
    Path,
    typer.Option(
        "--json",
        metavar="FILE",
        dir_okay=False,
        help="The results, written after every row; a run that was killed goes on from this file. "
        "Tables and figures go beside it.",
    ),
]
Suite = Annotated[
    str, typer.Option(metavar="NAME", help="mini, mtil, or a folder with a folder or an archive a task.")
]
Order = Annotated[str, typer.Option(metavar="ORDER", help="I, II, or a file with a task a line.")]
Setting = Annotated[str, typer.Option(metavar="SETTING", help="mtil, task-agnostic or few-shot.")]
Tuning = Annotated[Literal["full", "lora"], typer.Option(help="What a task may change.")]
Methods = Annotated[
    str, typer.Option(metavar="LIST", help="Methods, separated by commas; all runs every one.")
]
Seed = Annotated[int, typer.Option(min=0, metavar="N", help="Of every draw.")]
Shots = Annotated[
    int | None, typer.Option(min=1, metavar="N", help="Images a class in the few-shot setting (5).")
]
DataFolder = Annotated[
    Path | None, typer.Option("--data", metavar="FOLDER", help="Where the data sets of mtil lie.")
]
Cache = Annotated[
    Path, typer.Option(metavar="FOLDER", help="Keeps images, fine-tunes and revisions between runs.")
]
Weights = Annotated[
    Path | None,
    typer.Option(metavar="FILE", help="The base's safetensors; without it, the demo base.", dir_okay=False),
]
Architecture = Annotated[
    str | None, typer.Option(metavar="NAME", help="The base's open_clip architecture, or a config file.")
]
Reference = Annotated[
    Path | None,
    typer.Option(metavar="FOLDER", help="Pictures with a .txt caption beside each, for zscl."),
]
Training = Annotated[
    list[str] | None,
    typer.Option(metavar="NAME=VALUE", help="A hyper-parameter for every task; may be repeated."),
]
LoraRank = Annotated[int, typer.Option(min=1, metavar="R", help="Of the adapters.")]
RescalerNorm = Annotated[
    Literal["global_l1", "tensor_mean_l1"], typer.Option(help="The norm that rescalers keep.")
]
UnifiedDtype = Annotated[
    Literal["float32", "bfloat16", "int8", "int4"], typer.Option(help="How the unified delta is stored.")
]
K = Annotated[int, typer.Option(min=0, metavar="N", help="Experts an unnamed image may have.")]
IncludeBase = Annotated[bool, typer.Option(help="Whether the base answers with them.")]
Weighting = Annotated[
    Literal["uniform", "similarity", "softmax"], typer.Option(help="What an expert's say depends on.")
]
Temperature = Annotated[float, typer.Option(metavar="T", help="Of softmax.")]
Space = Annotated[Literal["logits", "probabilities"], typer.Option(help="What is averaged over the experts.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="cpu, cuda, cuda:N or auto.")]
