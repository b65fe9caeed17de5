"""The hyper-parameters of one training job, with the bounds that the api checks and the worker relies on."""

from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

UnitInterval = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]
MAX_WARMUP_ITERATIONS = 100


def _default_warmup(options: dict[str, Any]) -> int:
    """100 steps, but never more than a tenth of a short run."""
    return min(MAX_WARMUP_ITERATIONS, int(options["iterations"]) // 10)


class TrainingOptions(BaseModel):
    """How a task is fine-tuned; the defaults are the paper's (method.md, section 5)."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    iterations: int = Field(1000, ge=1, le=1_000_000, description="Optimizer steps.")
    batch_size: int = Field(64, ge=1, le=65_536, description="Images a step.")
    accumulation: int = Field(
        1,
        ge=1,
        description="Parts that a step's images are worked through in; more need less memory, the step is "
        "the same.",
    )
    learning_rate: float = Field(1e-5, gt=0, le=1, allow_inf_nan=False, description="Peak learning rate.")
    weight_decay: float = Field(0.0, ge=0, le=1, allow_inf_nan=False, description="AdamW's weight decay.")
    warmup_iterations: int = Field(
        default_factory=_default_warmup,
        ge=0,
        description="Linear warm-up, then cosine to zero; by default 100, or a tenth of a shorter run.",
    )
    label_smoothing: UnitInterval = Field(0.2, description="Share of the target spread over all classes.")
    betas: tuple[UnitInterval, UnitInterval] = Field((0.9, 0.999), description="AdamW's two betas.")
    gradient_clip: float | None = Field(
        None, gt=0, allow_inf_nan=False, description="Largest L2 norm of a gradient; null does not clip."
    )
    seed: int = Field(
        0, ge=0, lt=2**31, description="Seeds the split, the shots, the order of the images and augmentation."
    )
    test_fraction: float = Field(
        0.2, gt=0, lt=1, description="Share of the images held out, when the archive has no split of its own."
    )
    shots: int | None = Field(
        None,
        ge=1,
        description="Training images a class, drawn with the seed after the split; null takes all.",
    )
    augment: bool = Field(default=True, description="Random crops of 90 to 100% of the training images.")
    amp: bool = Field(
        default=True, description="Mixed precision on CUDA; a CPU trains in float32 either way."
    )
    checkpoint_every: int = Field(100, ge=1, description="Steps between training checkpoints.")
    keep: bool = Field(
        default=False,
        description="Keep images and fine-tuned checkpoint; every fusion then measures the task again.",
    )

    @model_validator(mode="after")
    def _has_an_image_for_each_part(self) -> Self:
        if self.accumulation > self.batch_size:
            raise ValueError(
                f"accumulation ({self.accumulation}) is more than batch_size ({self.batch_size}), which is "
                "split into so many parts: lower it, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _warms_up_within_the_run(self) -> Self:
        if self.warmup_iterations > self.iterations:
            raise ValueError(
                f"warmup_iterations ({self.warmup_iterations}) is more than iterations ({self.iterations}): "
                "lower it, or leave it out"
            )
        return self
