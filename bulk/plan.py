"""What a bulk job is: asked for by somebody, written down beside its output, handed to whoever answers."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bulk.errors import ResumeError
from bulk.items import ImageLimits
from bulk.sources import Kind, Survey
from bulk.tars import TarBounds
from catalog import Settings
from vlm.bases import BaseRef
from vlm.prediction_options import PredictionOptions

VERSION = 1
PART_SIZE = 1024
BATCH_SIZE = 32


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is asked for.

    Attributes:
        model: Name of the model.
        input: A folder, a tar or a list of files.
        output: The file to write; its suffix says in which form.
        options: How to answer.
        revision: An earlier revision; None for the head as it is when the job begins.
        part_size: Images whose rows are kept together when the job is stopped.
        batch_size: Images that go through a model at once; of no influence on anything but rounding.
        is_overwriting: Whether a file that is there may be replaced.
    """

    model: str
    input: Path
    output: Path
    options: PredictionOptions
    revision: int | None = None
    part_size: int = PART_SIZE
    batch_size: int = BATCH_SIZE
    is_overwriting: bool = False


@dataclass(frozen=True, kw_only=True)
class Job:
    """A request that was begun: which images, and which revision answers for all of them."""

    model: str
    revision: int | None
    manifest: str | None
    base: str
    input: Survey
    options: Mapping[str, Any]
    part_size: int

    @property
    def num_parts(self) -> int:
        """Parts in all; the last may be a short one."""
        return -(-self.input.num_images // self.part_size)

    def part(self, number: int) -> range:
        """The numbers of the part's images."""
        start = number * self.part_size
        return range(start, min(start + self.part_size, self.input.num_images))

    def to_dict(self) -> dict[str, Any]:
        """The job as JSON-able values."""
        return {"version": VERSION, **asdict(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Job":
        """What `to_dict` gave.

        Raises:
            ResumeError: Another version of condu wrote it.
        """
        if values.get("version") != VERSION:
            raise ResumeError(
                f"the unfinished job is of version {values.get('version')}; this condu reads {VERSION}",
                remedy="go on with the version that began it, or remove the folder of parts",
            )
        fields = {name: value for name, value in values.items() if name in cls.__dataclass_fields__}
        return cls(**{**fields, "input": Survey(**values["input"])})

    def differences(self, request: Request, kind: Kind, fingerprint: str) -> list[str]:
        """What of the request is not this job's, in words."""
        told = {
            f"the model is {self.model}": request.model != self.model,
            f"the revision is {self.revision}": request.revision not in (None, self.revision),
            "the input is not what it was": (kind, fingerprint) != (self.input.kind, self.input.fingerprint),
            "its options are others": options_dict(request.options) != dict(self.options),
            f"its parts have {self.part_size} images": request.part_size != self.part_size,
        }
        return [words for words, differs in told.items() if differs]


@dataclass(frozen=True, kw_only=True)
class Work:
    """All that one process needs to answer for any part of a job; plain values, so that it may travel.

    Attributes:
        settings: The installation's: where its blobs are, on which device it answers, what it believes.
        job: Which images, and who answers.
        base: The model's base.
        input: Where the images are, in full.
        options: How to answer.
        suffix: The form of the output.
        batch_size: Images that go through a model at once.
    """

    settings: Settings
    job: Job
    base: BaseRef
    input: Path
    options: PredictionOptions
    suffix: str
    batch_size: int

    @property
    def image_limits(self) -> ImageLimits:
        """How large an image may be."""
        return ImageLimits(self.settings.image_limit_bytes, self.settings.max_image_pixels)

    @property
    def tar_bounds(self) -> TarBounds:
        """How much of a tar is believed."""
        return tar_bounds(self.settings)


def tar_bounds(settings: Settings) -> TarBounds:
    """How much of a tar is believed by this installation."""
    return TarBounds(settings.image_limit_bytes, settings.max_archive_ratio)


def options_dict(options: PredictionOptions) -> dict[str, Any]:
    """The options as JSON gives them back."""
    return {
        name: list(value) if isinstance(value, tuple) else value for name, value in asdict(options).items()
    }
