"""The flags of `condu task add` that become the job's training options.

Declared by hand so that `--help` loads neither pydantic models nor the catalog; a test holds the list against
catalog.training_options, which alone knows the defaults and the bounds.
"""

from typing import Annotated, Any

import typer

PANEL = "Training (what is not given, the service chooses)"


def flag(help_text: str, *names: str) -> Any:
    """An option of the training panel."""
    return typer.Option(*names, help=help_text, rich_help_panel=PANEL, show_default=False)


Iterations = Annotated[int | None, flag("Optimizer steps.")]
BatchSize = Annotated[int | None, flag("Images a step.")]
Accumulation = Annotated[
    int | None, flag("Parts that a step's images are worked through in; more need less memory.")
]
LearningRate = Annotated[float | None, flag("Peak learning rate.")]
WeightDecay = Annotated[float | None, flag("AdamW's weight decay.")]
WarmupIterations = Annotated[int | None, flag("Steps of linear warm-up; then cosine to zero.")]
LabelSmoothing = Annotated[float | None, flag("Share of the target spread over all classes.")]
Betas = Annotated[tuple[float, float] | None, flag("AdamW's two betas.")]
GradientClip = Annotated[float | None, flag("Largest L2 norm of a gradient.")]
Seed = Annotated[int | None, flag("Seeds the split, the shots, the order of the images and augmentation.")]
TestFraction = Annotated[float | None, flag("Share held out when the images have no split of their own.")]
Shots = Annotated[int | None, flag("Training images a class (few-shot); all of them when not given.")]
Augment = Annotated[bool | None, flag("Random crops of the images while training.", "--augment/--no-augment")]
Amp = Annotated[bool | None, flag("Mixed precision on CUDA.", "--amp/--no-amp")]
CheckpointEvery = Annotated[int | None, flag("Steps between training checkpoints.")]
Keep = Annotated[
    bool | None, flag("Keep the images and the fine-tuned checkpoint after the job.", "--keep/--no-keep")
]


def given(**flags: Any) -> dict[str, Any]:
    """The training options that were given on the command line."""
    return {name: value for name, value in flags.items() if value is not None}
