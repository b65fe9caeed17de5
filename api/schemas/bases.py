"""Bodies about bases: the pre-trained models that everything else is learned on."""

from datetime import datetime
from typing import Any

from pydantic import Field

from api.schemas.fetching import Sha256, Url
from api.schemas.shapes import Answer, Digest, Name, RequestBody, example_of, with_example


class RegisterBaseBody(RequestBody):
    """A base whose weights the service fetches itself."""

    model_config = with_example(name="vit-b-16", architecture="ViT-B-16", pretrained="openai")

    name: Name
    architecture: str | None = Field(None, description="An architecture that open_clip knows by name.")
    config: dict[str, Any] | None = Field(
        None, description="An open_clip model config, in place of `architecture`."
    )
    pretrained: str | None = Field(
        None, description="The tag under which open_clip publishes weights of the architecture."
    )
    url: Url | None = Field(None, description="Of a safetensors file, in place of `pretrained`.")
    sha256: Sha256 = None


class BaseAnswer(Answer):
    """A base."""

    model_config = with_example(
        name="vit-b-16",
        digest="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        architecture="ViT-B-16",
        parameters=149_620_737,
        size_bytes=598_500_000,
        config={"embed_dim": 512, "vision_cfg": {"layers": 12}, "text_cfg": {"layers": 12}},
        preprocessing={"size": [224, 224], "interpolation": "bicubic"},
        created_at="2026-11-22T16:00:00Z",
    )

    name: Name
    digest: Digest = Field(description="Names the weights, their layout and dtypes; models are bound to it.")
    architecture: str | None = Field(
        description="The open_clip name, or null for a base with a config of its own."
    )
    parameters: int = Field(description="How many parameters a fusion works on.")
    size_bytes: int = Field(
        description="Bytes of the weights on disk; so much would one full checkpoint take."
    )
    config: dict[str, Any] = Field(description="The open_clip model config, in full.")
    preprocessing: dict[str, Any] = Field(
        description="How every image is prepared, in training and in answers."
    )
    created_at: datetime
    warnings: list[str] = Field([], description="What to know about the weights that were just sent.")


class BaseList(Answer):
    """All bases."""

    model_config = with_example(bases=[example_of(BaseAnswer)])

    bases: list[BaseAnswer]
