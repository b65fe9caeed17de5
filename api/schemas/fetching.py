"""Bodies of files that the service fetches itself."""

from typing import Annotated

from pydantic import Field

from api.schemas.shapes import Digest, RequestBody, with_example

Url = Annotated[str, Field(min_length=1, max_length=2000, description="An http or https URL of a file.")]
Sha256 = Annotated[
    str | None,
    Field(pattern="^[0-9a-f]{64}$", description="What the file's sha256 must be; refused if it is not."),
]
EXAMPLE_URL = "https://data.example.org/sets/flowers.tar"


class FetchBody(RequestBody):
    """A data set that is somewhere else."""

    model_config = RequestBody.model_config | with_example(url=EXAMPLE_URL, sha256=None)

    url: Url
    sha256: Sha256 = None


class FetchCheckpointBody(RequestBody):
    """A fine-tuned checkpoint that is somewhere else."""

    model_config = RequestBody.model_config | with_example(
        url="https://data.example.org/weights/pets.safetensors", classes=["cat", "dog"]
    )

    url: Url
    sha256: Sha256 = None
    classes: list[str] = Field(min_length=1, max_length=10_000, description="The classes of the task.")
    templates: list[str] | None = Field(None, max_length=1000, description="Prompts, each with one {}.")
    dataset: Digest | None = Field(None, description="A data set for prototypes and accuracy.")
