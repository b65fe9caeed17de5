"""Bundles: what an installation tells another of a model beside its blobs, and what an import answers."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from api.schemas.models import ModelAnswer
from api.schemas.shapes import Digest, Name, example_of, with_example

MAX_TRAINING_CHARACTERS = 100_000

Count = Annotated[int, Field(ge=0, lt=2**62)]
Percent = Annotated[float, Field(ge=0, le=100)]


class Facts(BaseModel):
    """A part of a bundle's catalog section; it comes from anywhere: strict types, bounded numbers."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class BaseFacts(Facts):
    """How the base is built and what images go through before it."""

    name: Name
    architecture: Annotated[str, Field(max_length=200)] | None
    config: dict[str, Any]
    preprocessing: dict[str, Any]


class ModelFacts(Facts):
    """The fixed properties of the model."""

    name: Name
    tuning: Literal["full", "lora"]
    fusion: Annotated[str, Field(max_length=63)]
    rescaler_norm: Annotated[str, Field(max_length=63)]
    unified_dtype: Annotated[str, Field(max_length=63)]


class TaskFacts(Facts):
    """What is known of a task beside the manifest: what it was learned from, and how well."""

    name: Name
    num_train: Count
    num_test: Count
    images_skipped: Count
    accuracy_individual: Percent | None
    accuracy_expert: Percent | None
    accuracy_base: Percent | None
    dataset: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None
    training: dict[str, Any] | None
    bits_cleared: Count
    relative_l2: Annotated[float, Field(ge=0)]
    cosine: Annotated[float, Field(ge=-1.001, le=1.001)]
    reference: Literal["original", "previous revision"]


class BundleFacts(Facts):
    """The whole catalog section; the tasks stand in the order of the manifest."""

    base: BaseFacts
    model: ModelFacts
    revision: Annotated[int, Field(ge=1)] | None
    tasks: list[TaskFacts]


class BundleImportAnswer(ModelAnswer):
    """The model that a bundle became."""

    model_config = with_example(
        **example_of(ModelAnswer) | {"head_revision": 1},
        bundle="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        base_is_new=True,
    )

    bundle: Digest = Field(description="The bundle's own digest, as its export gave it in `ETag`.")
    base_is_new: bool = Field(
        description="Whether the base came with the bundle; false where it was here, under whatever name."
    )


def is_bounded(training: dict[str, Any] | None) -> bool:
    """Whether the record of a training is small enough to be shown with every task."""
    return training is None or len(json.dumps(training)) <= MAX_TRAINING_CHARACTERS
