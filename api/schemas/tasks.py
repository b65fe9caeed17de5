"""Bodies about tasks: what is to be learned, and what was."""

from typing import Any

from pydantic import Field

from api.schemas.models import FidelityAnswer
from api.schemas.shapes import Answer, Digest, Name, RequestBody, example_of, with_example
from catalog.training_options import TrainingOptions
from vlm.prompts import DEFAULT_TEMPLATES

DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


class SubmitTaskBody(RequestBody):
    """A task to be trained."""

    model_config = with_example(
        name="pets",
        dataset=DIGEST,
        templates=["a photo of a {}, a type of pet."],
        training={"iterations": 1000, "learning_rate": 1e-5},
    )

    name: Name
    dataset: Digest = Field(description="The digest that `PUT /v1/datasets` gave.")
    templates: tuple[str, ...] = Field(
        DEFAULT_TEMPLATES, description="Prompts, each with one {} for the class."
    )
    training: TrainingOptions = Field(
        default_factory=lambda: TrainingOptions.model_validate({}),
        description="Hyper-parameters; each has a default.",
    )


class JobRef(Answer):
    """A job that was accepted."""

    id: str
    state: str


class JobTicket(Answer):
    """The answer to work that takes long: look at the job, whose address is in the Location header."""

    model_config = with_example(job={"id": "6f1c1c34-9a53-4a3f-8f0e-1f6a5a9f2b11", "state": "queued"})

    job: JobRef


class FidelityAt(FidelityAnswer):
    """How close the expert was in one revision."""

    revision: int
    accuracy: float | None = Field(
        description="Of its expert in that revision; null where nobody measured it."
    )
    rescaler: float
    density: float
    bits_cleared: int


class TaskFidelity(FidelityAnswer):
    """How close the expert is now, and was in every revision since it was learned."""

    history: list[FidelityAt]


class TaskAccuracy(Answer):
    """Top-1 on the held-out images, in percent; all but `now` from when the task was learned."""

    individual: float | None = Field(
        description="The fresh fine-tune, before fusion; null, as the others, where no images were held out."
    )
    expert: float | None = Field(description="The expert, after the fusion of its own step.")
    zero_shot: float | None = Field(description="The base, untouched.")
    now: float | None = Field(
        description="The expert as the head has it; measured at every fusion where the images were kept."
    )
    unmeasured: str | None = Field(description="Why `now` is null.")


class TaskImages(Answer):
    """The images a task was learned from."""

    train: int
    test: int
    skipped: int = Field(description="Broken images that were left out.")


TASK_EXAMPLE: dict[str, Any] = {
    "name": "pets",
    "model": "animals",
    "revision": 2,
    "revision_learned": 1,
    "classes": ["cat", "dog"],
    "templates": ["a photo of a {}."],
    "rescaler": 1.31,
    "density": 0.74,
    "bits_cleared": 38_123_456,
    "l1_norm": 12_345.6,
    "fidelity": {
        "relative_l2": 0.61,
        "cosine": 0.79,
        "reference": "previous revision",
        "history": [
            {
                "revision": 1,
                "accuracy": 93.5,
                "rescaler": 1.0,
                "density": 0.99,
                "bits_cleared": 0,
                "relative_l2": 0.0,
                "cosine": 1.0,
                "reference": "original",
            }
        ],
    },
    "accuracy": {"individual": 93.5, "expert": 93.5, "zero_shot": 88.0, "now": 92.5, "unmeasured": None},
    "images": {"train": 160, "test": 40, "skipped": 1},
    "trigger_bytes": 18_700_000,
    "expert_digest": DIGEST,
    "dataset": DIGEST,
    "training": {"iterations": 1000},
}


class TaskAnswer(Answer):
    """A task as the head has it."""

    model_config = with_example(**TASK_EXAMPLE)

    name: Name
    model: Name
    revision: int = Field(description="The head, from which these numbers are.")
    revision_learned: int
    classes: list[str]
    templates: list[str]
    rescaler: float = Field(description="lambda: what the masked unified delta is multiplied by.")
    density: float
    bits_cleared: int
    l1_norm: float = Field(description="Norm of the task's original delta, which every expert of it keeps.")
    fidelity: TaskFidelity
    accuracy: TaskAccuracy
    images: TaskImages
    trigger_bytes: int
    expert_digest: Digest = Field(description="The ETag of the expert's checkpoint.")
    dataset: Digest | None
    training: dict[str, Any] | None = Field(description="The hyper-parameters; null for an imported task.")


class TaskList(Answer):
    """The tasks of a model's head, in the order they were learned."""

    model_config = with_example(model="animals", revision=2, tasks=[example_of(TaskAnswer)])

    model: Name
    revision: int | None
    tasks: list[TaskAnswer]


class TaskRemovedAnswer(Answer):
    """What a removal did, and what it did not."""

    model_config = with_example(
        model="animals",
        task="pets",
        revision=3,
        tasks=["digits"],
        detail="task 'pets' is no longer served; its imprint on the unified delta remains until a roll back",
    )

    model: Name
    task: Name
    revision: int = Field(description="The new head.")
    tasks: list[str]
    detail: str
