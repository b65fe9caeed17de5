"""What is to be learned, once it is known."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlm.features import Batch, batched
from worker.datasets.preparing import PreparedImages
from worker.jobs.assignment import Assignment


@dataclass(frozen=True)
class Lesson:
    """A task before it is learned.

    Attributes:
        classes: Their names; class numbers of the images index into them.
        templates: All of them.
        images: None where the user gave none.
        training: What is recorded of how it was trained.
        is_kept: Whether the checkpoint stays after the job.
    """

    classes: tuple[str, ...]
    templates: tuple[str, ...]
    images: PreparedImages | None
    training: dict[str, Any] | None
    is_kept: bool

    @property
    def train(self) -> tuple[int, ...]:
        """Positions of the images trained on."""
        return self.images.train if self.images else ()

    @property
    def test(self) -> tuple[int, ...]:
        """Positions of the images held out."""
        return self.images.test if self.images else ()

    def batches(self, work: Assignment, positions: Iterable[int]) -> Iterator[Batch]:
        """Those images as evaluation sees them, never augmented, with their class numbers."""
        if self.images is None:
            return iter(())
        max_pixels = work.bench.settings.max_image_pixels
        pictures = self.images.pictures(work.base.preprocessing, max_pixels=max_pixels)
        return batched(pictures.examples(positions))


class Origin(ABC):
    """Where a fine-tuned checkpoint comes from."""

    cause: Literal["train", "import"]

    @abstractmethod
    def keeps(self, work: Assignment) -> bool:
        """Whether images and checkpoint stay after the job."""

    @abstractmethod
    def describe(self, work: Assignment) -> Lesson:
        """What is to be learned: reads the request and prepares the images."""

    @abstractmethod
    def obtain(self, work: Assignment, lesson: Lesson) -> Path:
        """The fine-tuned checkpoint as a file in the job's folder."""
