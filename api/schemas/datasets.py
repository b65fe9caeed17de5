"""Bodies about data sets: uploaded archives of labelled images."""

from datetime import datetime

from pydantic import Field

from api.schemas.shapes import Answer, Digest, example_of, with_example

EXAMPLE = {
    "digest": "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    "classes": ["cat", "dog"],
    "images": 200,
    "format": "zip",
    "has_split": False,
    "size_bytes": 4_300_000,
}


class DatasetAnswer(Answer):
    """A data set that a task can be learned from."""

    model_config = with_example(**EXAMPLE)

    digest: Digest = Field(description="sha256 of the archive; names it in `POST .../tasks`.")
    classes: list[str]
    images: int
    format: str
    has_split: bool | None = Field(None, description="Whether it says which images are held out for testing.")
    size_bytes: int


class StoredDatasetAnswer(Answer):
    """A data set the catalog knows."""

    model_config = with_example(
        **{name: value for name, value in EXAMPLE.items() if name != "has_split"},
        created_at="2026-11-22T16:00:00Z",
        released_at=None,
    )

    digest: Digest
    classes: list[str]
    images: int
    format: str
    size_bytes: int
    created_at: datetime
    released_at: datetime | None = Field(
        description="When its bytes were given up; to use it again, upload it again."
    )


class DatasetList(Answer):
    """All data sets."""

    model_config = with_example(datasets=[example_of(StoredDatasetAnswer)])

    datasets: list[StoredDatasetAnswer]
