"""From a picture to a tensor: one way for training, prototypes and serving, recorded with the base."""

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
import torchvision.transforms.functional as F  # noqa: N812  # the name torchvision's own documents use
from jaxtyping import Float
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image
from torch import Tensor
from torchvision.transforms import Compose, InterpolationMode, Normalize, ToTensor

from vlm.errors import UnknownArchitectureError
from vlm.images import DEFAULT_MAX_PIXELS, decode_image

Interpolation = Literal["bicubic", "bilinear"]
ResizeMode = Literal["shortest", "longest", "squash"]

AUGMENT_SCALE = (0.9, 1.0)
AUGMENT_RATIO = (3 / 4, 4 / 3)
"""The released training code's crop: RandomResizedCrop, bicubic, no flip."""
CROP_ATTEMPTS = 10

MAX_SIZE = 4096


@dataclass(frozen=True)
class Preprocessing:
    """What is done to every picture before the image tower sees it.

    Attributes:
        size: (height, width) of the tower's input.
        mean: Per channel, subtracted from values in 0..1.
        std: Per channel, divided by.
        interpolation: How pixels are resampled.
        resize_mode: `shortest`: the shorter edge fits, then the centre is cropped; `longest`: the longer edge
            fits,
            padded with `fill_color`; `squash`: both edges fit.
        fill_color: 0..255, what `longest` pads with.
        jpeg_draft: JPEGs are decoded at 1/2, 1/4 or 1/8 of their size as long as both edges stay at least
            this many
            times `size`: five times faster on photographs. 0 decodes in full.
    """

    size: tuple[int, int]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: Interpolation = "bicubic"
    resize_mode: ResizeMode = "shortest"
    fill_color: int = 0
    jpeg_draft: int = 2

    def __post_init__(self) -> None:
        if len(self.size) != 2 or not all(_is_whole(edge, 1, MAX_SIZE) for edge in self.size):
            raise UnknownArchitectureError(
                f"preprocessing size {self.size}: two edges of 1..{MAX_SIZE} pixels"
            )
        if len(self.mean) != 3 or len(self.std) != 3 or not all(map(_is_number, (*self.mean, *self.std))):
            raise UnknownArchitectureError(
                f"preprocessing mean {self.mean}, std {self.std}: three numbers each"
            )
        if min(self.std) <= 0:
            raise UnknownArchitectureError(f"preprocessing std {self.std}: each is divided by, so above 0")
        if not _is_whole(self.fill_color, 0, 255) or not _is_whole(self.jpeg_draft, 0, MAX_SIZE):
            raise UnknownArchitectureError(
                "preprocessing fill_color is 0..255, and jpeg_draft a factor from 0"
            )
        if self.interpolation not in get_args(Interpolation):
            raise UnknownArchitectureError(
                f"preprocessing interpolation {self.interpolation!r}: use one of {get_args(Interpolation)}"
            )
        if self.resize_mode not in get_args(ResizeMode):
            raise UnknownArchitectureError(
                f"preprocessing resize_mode {self.resize_mode!r}: use one of {get_args(ResizeMode)}"
            )

    def load(self, content: bytes | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Float[Tensor, "3 H W"]:
        """The tensor of an encoded image: what the worker trains on and what the api classifies.

        Raises:
            ImageRejectedError: As `decode_image`.
        """
        return self(self.decode(content, max_pixels=max_pixels))

    def decode(self, content: bytes | Path, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Image.Image:
        """The picture as RGB, decoded no larger than this preprocessing can use."""
        edge = self.jpeg_draft * max(self.size)
        return decode_image(content, max_pixels=max_pixels, draft_size=(edge, edge) if edge else None)

    def __call__(self, image: Image.Image) -> Float[Tensor, "3 H W"]:
        """The tensor of a picture, equal to open_clip's own evaluation transform."""
        return self._tensor(self._crop(image))

    def augment(self, image: Image.Image, *, generator: torch.Generator) -> Float[Tensor, "3 H W"]:
        """The tensor of a random crop of 90 to 100% of a picture: the training augmentation.

        Reproducible from `generator`'s state, so that a resumed training sees the images the first attempt
        would have.
        """
        top, left, height, width = _random_crop(image, generator)
        crop = F.resized_crop(image, top, left, height, width, list(self.size), InterpolationMode.BICUBIC)
        return self._tensor(crop.convert("RGB"))

    def _tensor(self, image: Image.Image) -> Float[Tensor, "3 H W"]:
        """What torchvision's ToTensor and Normalize make of a picture, bit for bit.

        In numpy, because every thread that has torch compute on an image gets helper threads of its own,
        which then stand in the way of the model's.
        """
        pixels = np.asarray(image).transpose(2, 0, 1).astype(np.float32, order="C")
        pixels /= np.float32(255)
        pixels -= self._columns(self.mean)
        pixels /= self._columns(self.std)
        return torch.from_numpy(pixels)

    @staticmethod
    def _columns(values: tuple[float, float, float]) -> "np.ndarray[Any, np.dtype[np.float32]]":
        return np.array(values, dtype=np.float32)[:, None, None]

    @cached_property
    def _crop(self) -> Callable[[Image.Image], Image.Image]:
        """The part of open_clip's evaluation transform that makes a picture of a picture."""
        config = PreprocessCfg(
            size=self.size,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            resize_mode=self.resize_mode,
            fill_color=self.fill_color,
        )
        steps = image_transform_v2(config, is_train=False).transforms
        crop: Callable[[Image.Image], Image.Image] = Compose(
            [step for step in steps if not isinstance(step, ToTensor | Normalize)]
        )
        return crop

    def to_dict(self) -> dict[str, Any]:
        """The same as JSON-able values."""
        return {
            key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """What `to_dict` gave.

        Raises:
            UnknownArchitectureError: A missing, unknown or impossible value.
        """
        known: dict[str, Any] = {
            key: tuple(value) if isinstance(value, list) else value for key, value in values.items()
        }
        try:
            return cls(**known)
        except TypeError as error:
            raise UnknownArchitectureError(f"preprocessing does not read: {error}") from error


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: object, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _random_crop(image: Image.Image, generator: torch.Generator) -> tuple[int, int, int, int]:
    """(top, left, height, width) as torchvision's RandomResizedCrop draws them, from an own generator."""
    area = image.width * image.height
    for _ in range(CROP_ATTEMPTS):
        scale, ratio, x, y = torch.rand(4, generator=generator).tolist()
        target = area * (AUGMENT_SCALE[0] + scale * (AUGMENT_SCALE[1] - AUGMENT_SCALE[0]))
        low, high = (math.log(bound) for bound in AUGMENT_RATIO)
        aspect = math.exp(low + ratio * (high - low))
        width, height = round(math.sqrt(target * aspect)), round(math.sqrt(target / aspect))
        if 0 < width <= image.width and 0 < height <= image.height:
            return int(y * (image.height - height + 1)), int(x * (image.width - width + 1)), height, width
    width = min(image.width, round(image.height * AUGMENT_RATIO[1]))
    height = min(image.height, round(image.width / AUGMENT_RATIO[0]))
    return (image.height - height) // 2, (image.width - width) // 2, height, width
