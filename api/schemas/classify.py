"""Bodies of classification."""

from typing import Literal

from pydantic import Field

from api.schemas.shapes import Answer, Digest, Name, RequestBody, with_example

DIGEST = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"


MAX_LABEL_SETS = 100


class ClassifyFields(RequestBody):
    """How to answer. Without `task`, each image finds the experts that know images like it."""

    task: str | None = Field(None, description="That task's expert alone answers.")
    labels: tuple[str, ...] | None = Field(None, description="What to choose among, instead of a label set.")
    label_set: Literal["own", "union"] | None = Field(
        None,
        description="`own`, the classes of the task that is named; `union`, all that the model has learned. "
        "Without it, `own` where a task is named, else `union`.",
    )
    label_sets: dict[Name, tuple[str, ...]] | None = Field(
        None,
        min_length=1,
        max_length=MAX_LABEL_SETS,
        description="Several sets of labels by name: each is chosen among by itself, from one "
        "look at the image. In a form, as JSON.",
    )
    templates: tuple[str, ...] | None = Field(
        None, description="Prompts, each with one {}; else the task's own."
    )
    top_k: int = Field(5, description="How many labels an answer has.")
    k: int = Field(4, description="How many experts an image may have, when no task is named.")
    include_base: bool = Field(
        default=True, description="Whether the base answers too, when no task is named."
    )
    weighting: Literal["uniform", "similarity", "softmax"] = Field(
        "uniform", description="How the experts' answers are weighed."
    )
    temperature: float = Field(0.05, description="Of the `softmax` weighting.")
    space: Literal["logits", "probabilities"] = Field(
        "logits", description="What is averaged over the experts."
    )
    timeout_s: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="Seconds after which the answer is of no use; the service's own limit holds as well.",
    )
    revision: int | None = Field(
        None, ge=1, description="An older revision to answer from; without it, the head."
    )


class ClassifyBody(ClassifyFields):
    """Images as base64, and how to answer."""

    model_config = with_example(images=["/9j/4AAQSkZJRgABAQ..."], task="pets", labels=["cat", "dog"], top_k=2)

    images: tuple[str, ...] = Field(description="Each a JPEG, PNG or WEBP, encoded as base64.")


class PredictionAnswer(Answer):
    """A label and how likely it is among the labels asked for."""

    label: str
    probability: float


class ExpertAnswer(Answer):
    """One who took part in an answer."""

    task: Name | None = Field(description="Null for the base.")
    weight: float = Field(description="Its share; the shares of an image sum to 1.")
    digest: Digest = Field(description="Of its weights.")
    similarity: float | None = Field(
        description="How near the image is to its prototypes, where it was chosen by that."
    )


class ImageError(Answer):
    """Why an image has no answer."""

    reason: str = Field(description="`empty`, `not_an_image`, `too_large` or `broken`.")
    detail: str


class ImageAnswer(Answer):
    """The answer for one image, or its error."""

    predictions: list[PredictionAnswer] = Field(
        description="The likeliest first; empty where `label_sets` were asked for."
    )
    label_sets: dict[Name, list[PredictionAnswer]] | None = Field(
        None, description="The same for each of the `label_sets` that were asked for."
    )
    experts: list[ExpertAnswer]
    error: ImageError | None = None


class ClassifyAnswer(Answer):
    """The answers in the order of the images, all from one revision."""

    model_config = with_example(
        model="animals",
        revision=2,
        results=[
            {
                "predictions": [{"label": "cat", "probability": 0.97}, {"label": "dog", "probability": 0.03}],
                "experts": [{"task": "pets", "weight": 1.0, "digest": DIGEST, "similarity": None}],
                "error": None,
            },
            {
                "predictions": [],
                "experts": [],
                "error": {"reason": "not_an_image", "detail": "this is not a JPEG, PNG or WEBP image"},
            },
        ],
    )

    model: Name
    revision: int | None = Field(description="Null while the model has learned nothing and the base answers.")
    results: list[ImageAnswer]
