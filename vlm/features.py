"""Pictures and prompts to features: L2-normalised float32 vectors, on the device where the model is."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # PyTorch's own name for it
from jaxtyping import Float, Int64
from torch import Tensor, nn

from vlm.prompts import fill
from vlm.text_tower import encode_text
from vlm.tokenizer import Tokenizer

BATCH_SIZE = 64

Batch = tuple[Float[Tensor, "B 3 H W"], Int64[Tensor, " B"]]
"""Preprocessed pictures and their class numbers."""


@torch.inference_mode()
def image_features(model: nn.Module, images: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
    """The image tower's features."""
    encoder: Any = model
    parts = torch.split(images, BATCH_SIZE)
    return torch.cat(
        [encoder.encode_image(part.to(device_of(model)), normalize=True).float() for part in parts]
    )


@torch.inference_mode()
def text_features(model: nn.Module, tokens: Int64[Tensor, "N L"]) -> Float[Tensor, "N D"]:
    """The text tower's features."""
    parts = torch.split(tokens, BATCH_SIZE)
    return torch.cat(
        [F.normalize(encode_text(model, part.to(device_of(model))), dim=-1).float() for part in parts]
    )


@torch.inference_mode()
def mean_text_features(
    model: nn.Module, tokenizer: Tokenizer, *, labels: Sequence[str], templates: Sequence[str]
) -> Float[Tensor, "C D"]:
    """Per label, the mean over the templates of its prompts' features; not normalised again."""
    prompts = [fill(template, label) for label in labels for template in templates]
    rows = [
        text_features(model, tokenizer(prompts[start : start + BATCH_SIZE]))
        for start in range(0, len(prompts), BATCH_SIZE)
    ]
    return torch.cat(rows).view(len(labels), len(templates), -1).mean(dim=1)


@torch.inference_mode()
def logits(
    model: nn.Module, images: Float[Tensor, "N D"], class_weights: Float[Tensor, "C D"]
) -> Float[Tensor, "N C"]:
    """exp(logit_scale) times the cosine, plus the model's logit_bias where it has one."""
    scaled = model.get_parameter("logit_scale").exp() * images @ class_weights.T
    bias: Tensor | None = getattr(model, "logit_bias", None)
    return scaled if bias is None else scaled + bias


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
