"""Pictures and prompts to features: L2-normalised float32 vectors, on the device where the model is."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F  # noqa: N812  # PyTorch's own name for it
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vlm.prompts import fill
from vlm.text_tower import encode_text
from vlm.tokenizer import Tokenizer

BATCH_SIZE = 64
Precision = Literal["float32", "bfloat16"]

Batch = tuple[Float[Tensor, "B 3 H W"], Int64[Tensor, " B"]]
"""Preprocessed pictures and their class numbers."""


@torch.inference_mode()
def image_features(
    model: nn.Module, images: Float[Tensor, "N 3 H W"], *, precision: Precision = "float32"
) -> Float[Tensor, "N D"]:
    """The image tower's features."""
    device = device_of(model)
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        parts = [_encoded(model, part.to(device)) for part in torch.split(images, BATCH_SIZE)]
    return F.normalize(torch.cat(parts).float(), dim=-1)


def _encoded(model: Any, images: Tensor) -> Tensor:
    # Convolutional towers run twice as fast on a CPU when channels lie beside each other; others do not care.
    # Normalised by the caller in float32: in bfloat16 lengths, and cosines with them, come out 0.4 % off.
    features: Tensor = model.encode_image(images.to(memory_format=torch.channels_last), normalize=False)
    return features


@torch.inference_mode()
def text_features(model: nn.Module, tokens: Int64[Tensor, "N L"]) -> Float[Tensor, "N D"]:
    """The text tower's features."""
    parts = torch.split(tokens, BATCH_SIZE)
    return torch.cat(
        [F.normalize(encode_text(model, part.to(device_of(model))), dim=-1).float() for part in parts]
    )


class TextMeans:
    """Per label, the mean over the templates of its prompts' features, `BATCH_SIZE` prompts at a time.

    A label set may have tens of thousands of prompts; who has other work for the device does it in between.
    """

    def __init__(self, labels: Sequence[str], templates: Sequence[str]) -> None:
        self._shape = (len(labels), len(templates), -1)
        self._prompts = [fill(template, label) for label in labels for template in templates]
        self._rows: list[Tensor] = []
        self.num_done = 0

    @property
    def num_left(self) -> int:
        """Prompts that are still to be encoded."""
        return len(self._prompts) - self.num_done

    def step(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        """Encode the next prompts."""
        prompts = self._prompts[self.num_done : self.num_done + BATCH_SIZE]
        self._rows.append(text_features(model, tokenizer(prompts)))
        self.num_done += len(prompts)

    @torch.inference_mode()
    def result(self) -> Float[Tensor, "C D"]:
        """The means, once no prompts are left; not normalised again."""
        return torch.cat(self._rows).view(*self._shape).mean(dim=1)


def mean_text_features(
    model: nn.Module, tokenizer: Tokenizer, *, labels: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, "C D"]:
    """Per label, the mean over the templates of its prompts' features; not normalised again."""
    means = TextMeans(labels, templates)
    while means.num_left:
        means.step(model, tokenizer)
    return means.result()


def device_of(model: nn.Module) -> torch.device:
    """Where the model's weights are."""
    return next(model.parameters()).device


def batched(examples: Iterable[tuple[Tensor, int]], *, batch_size: int = BATCH_SIZE) -> Iterator[Batch]:
    """Batches of (picture, class number) pairs, in their order; the last may be smaller."""
    pictures: list[Tensor] = []
    numbers: list[int] = []
    for picture, number in examples:
        pictures.append(picture)
        numbers.append(number)
        if len(pictures) == batch_size:
            yield torch.stack(pictures), torch.tensor(numbers)
            pictures, numbers = [], []
    if pictures:
        yield torch.stack(pictures), torch.tensor(numbers)
