"""Questions to the service about held-out images, and how many it answers rightly."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from cli.answers import ImageAnswer
from cli.client import Client
from cli.quickstart.held_out import HeldOutImage

IMAGES_A_REQUEST = 50


@dataclass(frozen=True)
class Answered:
    """An image and what the service said of it."""

    image: HeldOutImage
    answer: ImageAnswer

    @property
    def label(self) -> str | None:
        """The most probable label; None for an image the service could not read."""
        return self.answer.predictions[0].label if self.answer.predictions else None

    @property
    def is_right(self) -> bool:
        return self.label == self.image.label


def ask(
    client: Client,
    model: str,
    images: Sequence[HeldOutImage],
    *,
    labels: Sequence[str] = (),
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
    **options: Any,
) -> list[Answered]:
    """The service's answers, image by image, over as many requests as it takes."""
    answered: list[Answered] = []
    for start in range(0, len(images), IMAGES_A_REQUEST):
        batch = images[start : start + IMAGES_A_REQUEST]
        answer = client.classify(
            model,
            [(image.name, image.content) for image in batch],
            labels=labels,
            options={"top_k": 1, **options},
        )
        answered += [Answered(image, result) for image, result in zip(batch, answer.results, strict=True)]
        on_progress(len(answered), len(images))
    return answered


def accuracy_of(answered: Sequence[Answered]) -> float:
    """Top-1 in percent; an image the service could not read counts as wrong."""
    return 100.0 * sum(found.is_right for found in answered) / len(answered)
