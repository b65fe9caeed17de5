"""Bodies about models: a base plus all that was learned on it."""

from datetime import datetime
from typing import Literal, Self

from pydantic import Field, model_validator

from api.schemas.shapes import Answer, Digest, Name, RequestBody, example_of, with_example
from vlm.adapters import DEFAULT_RANK, MAX_RANK

STORAGE_EXAMPLE = {
    "base_bytes": 598_500_000,
    "adapter_bytes": 0,
    "unified_bytes": 540_100_000,
    "trigger_bytes": {"pets": 18_700_000, "digits": 18_700_000},
    "prototype_bytes": 96_000,
    "buffer_bytes": 0,
    "marginal_bytes_per_task": 18_748_000,
    "full_checkpoint_bytes": 598_500_000,
    "total_bytes": 1_176_096_000,
}


class CreateModelBody(RequestBody):
    """A new model; its properties are fixed from here on."""

    model_config = with_example(
        name="animals", base="vit-b-16", tuning="full", rescaler_norm="global_l1", unified_dtype="float32"
    )

    name: Name
    base: Name = Field(description="The base it learns on.")
    tuning: Literal["full", "lora"] = Field(
        "full",
        description="What a task may change: all parameters of both towers, or low-rank adapters on them.",
    )
    lora_rank: int | None = Field(
        None, ge=1, le=MAX_RANK, description=f"Of the adapters, {DEFAULT_RANK} without it; for lora only."
    )
    lora_seed: int | None = Field(
        None,
        ge=0,
        lt=2**31,
        description="What all its adapters start from is drawn from it, 0 without it; for lora only.",
    )
    rescaler_norm: Literal["global_l1", "tensor_mean_l1"] = Field(
        "global_l1", description="The norm that rescalers preserve."
    )
    unified_dtype: Literal["float32", "bfloat16", "int8", "int4"] = Field(
        "float32", description="How the unified delta is stored."
    )

    @model_validator(mode="after")
    def _has_adapters_to_describe(self) -> Self:
        given = [name for name in ("lora_rank", "lora_seed") if getattr(self, name) is not None]
        if given and self.tuning == "full":
            raise ValueError(f"{given[0]} is given, but tuning is full: set tuning to lora, or leave it out")
        return self

    @property
    def rank(self) -> int:
        """Of the adapters."""
        return DEFAULT_RANK if self.lora_rank is None else self.lora_rank

    @property
    def seed(self) -> int:
        """Of the adapters' initialisation."""
        return self.lora_seed or 0


class StorageAnswer(Answer):
    """What a model's head takes on disk."""

    model_config = with_example(**STORAGE_EXAMPLE)

    base_bytes: int = Field(description="The base's weights; shared with every other model on it.")
    adapter_bytes: int = Field(description="What all adapters start from; 0 where the tuning is full.")
    unified_bytes: int = Field(description="The unified delta; one for all tasks.")
    trigger_bytes: dict[str, int] = Field(description="The mask of each task.")
    prototype_bytes: int = Field(description="The prototypes of all tasks together.")
    buffer_bytes: int = Field(description="Statistics (BatchNorm) kept whole with their tasks, together.")
    marginal_bytes_per_task: int = Field(description="Trigger, prototypes and buffers of a task, on average.")
    full_checkpoint_bytes: int = Field(
        description="One fine-tuned checkpoint (or adapter), kept whole: the alternative, once a task."
    )
    total_bytes: int = Field(description="All of the above that is there, and the manifest.")


class ModelAnswer(Answer):
    """A model as its head has it."""

    model_config = with_example(
        name="animals",
        base="vit-b-16",
        tuning="full",
        adapter=None,
        lora_rank=None,
        lora_seed=None,
        fusion="condu",
        rescaler_norm="global_l1",
        unified_dtype="float32",
        head_revision=2,
        tasks=["pets", "digits"],
        storage=STORAGE_EXAMPLE,
        created_at="2026-11-22T16:00:00Z",
    )

    name: Name
    base: Name
    tuning: str
    adapter: Digest | None = Field(description="What its adapters start from; null where the tuning is full.")
    lora_rank: int | None
    lora_seed: int | None
    fusion: str
    rescaler_norm: str
    unified_dtype: str
    head_revision: int | None = Field(description="Null until the first task is learned.")
    tasks: list[str] = Field(description="The tasks of the head, in the order they were learned.")
    storage: StorageAnswer
    created_at: datetime


class ModelList(Answer):
    """All models."""

    model_config = with_example(models=[example_of(ModelAnswer)])

    models: list[ModelAnswer]


class RemovedAnswer(Answer):
    """What was removed."""

    model_config = with_example(removed="animals", detail="its blobs stay on disk until the next sweep")

    removed: str
    detail: str


class FidelityAnswer(Answer):
    """How close an expert is to the checkpoint it was made from."""

    relative_l2: float = Field(description="||delta~ - delta|| / ||delta||; 0 is exact.")
    cosine: float = Field(description="Cosine between the expert's delta and the reference.")
    reference: str = Field(
        description="Measured against: the `original` fine-tune (at its own step) or the `previous revision`."
    )


class TriggerAnswer(FidelityAnswer):
    """What one task is in one revision."""

    task: Name
    rescaler: float
    density: float = Field(description="Share of the mask's bits that are set.")
    bits_cleared: int = Field(description="Bits that this revision's fusion took from the mask.")
    trigger_bytes: int
    accuracy: float | None = Field(
        description="Of its expert on the held-out images, in percent; null where nobody measured it."
    )


class RevisionAnswer(Answer):
    """The immutable state of a model after a fusion or a removal."""

    model_config = with_example(
        number=2,
        parent=1,
        is_head=True,
        cause="train",
        job="6f1c1c34-9a53-4a3f-8f0e-1f6a5a9f2b11",
        manifest="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        created_at="2026-11-22T16:00:00Z",
        expired_at=None,
        tasks=[
            {
                "task": "pets",
                "rescaler": 1.31,
                "density": 0.74,
                "bits_cleared": 38_123_456,
                "trigger_bytes": 18_700_000,
                "accuracy": 92.5,
                "relative_l2": 0.61,
                "cosine": 0.79,
                "reference": "previous revision",
            }
        ],
    )

    number: int
    parent: int | None
    is_head: bool
    cause: str = Field(description="`train`, `import`, `remove`, or `bundle` where it came in a bundle.")
    job: str | None = Field(description="The job that published it; null for a removal and for a bundle.")
    manifest: Digest
    created_at: datetime
    expired_at: datetime | None = Field(
        description="When its bytes were given up; such a revision cannot be used any more."
    )
    tasks: list[TriggerAnswer]


class RevisionList(Answer):
    """All revisions of a model, the newest first."""

    model_config = with_example(model="animals", head_revision=2, revisions=[example_of(RevisionAnswer)])

    model: Name
    head_revision: int | None
    revisions: list[RevisionAnswer]


class RollbackBody(RequestBody):
    """Where the head is to go."""

    model_config = with_example(revision=1)

    revision: int | None = Field(
        None, ge=1, description="The revision that becomes the head; without it, the head's parent."
    )


class RollbackAnswer(Answer):
    """Where the head went."""

    model_config = with_example(model="animals", head_revision=1, previous_revision=2, tasks=["pets"])

    model: Name
    head_revision: int | None
    previous_revision: int | None
    tasks: list[str]
