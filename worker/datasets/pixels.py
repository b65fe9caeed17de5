"""The pictures of a data set at the model's own size: decoded once, kept as bytes, given back exactly."""

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Self, TypeVar

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from imagesets import ImageRef
from vlm.errors import ImageRejectedError
from vlm.preprocessing import Preprocessing

DECODERS = min(8, os.cpu_count() or 1)
AHEAD = 64
"""Pictures that may be decoded ahead of their consumer, so that memory stays bounded."""

Item = TypeVar("Item")
Result = TypeVar("Result")
Pixels = UInt8[np.ndarray, "H W 3"]


@dataclass(frozen=True)
class Rejected:
    """An image that cannot be decoded, and why."""

    name: str
    reason: str


class Pictures:
    """Images as the evaluation transform leaves them before normalisation: uint8, [height, width, 3].

    Read from a cache file where there is one, else decoded each time; the values are the same bit for bit.

    Args:
        images: The files.
        preprocessing: The base's own.
        max_pixels: What is larger was refused when the images were screened.
        cache: What `write_cache` wrote for exactly these images, or None.
    """

    def __init__(
        self, images: Sequence[ImageRef], preprocessing: Preprocessing, *, max_pixels: int, cache: Path | None
    ) -> None:
        self.images = images
        self._preprocessing = preprocessing
        self._max_pixels = max_pixels
        shape = (len(images), *preprocessing.size, 3)
        self._cache = None if cache is None else np.memmap(cache, dtype=np.uint8, mode="r", shape=shape)

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, position: int) -> Pixels:
        """The picture at that position."""
        if self._cache is not None:
            return np.asarray(self._cache[position])
        return decoded_pixels(self.images[position].path, self._preprocessing, max_pixels=self._max_pixels)

    def tensor(self, position: int) -> Float[Tensor, "3 H W"]:
        """The picture as the image tower takes it: equal to `Preprocessing.load` of its file."""
        scaled = (
            torch.from_numpy(np.array(self.pixels(position))).permute(2, 0, 1).contiguous().float().div(255)
        )
        mean, std = (
            torch.tensor(values).view(3, 1, 1)
            for values in (self._preprocessing.mean, self._preprocessing.std)
        )
        return scaled.sub_(mean).div_(std)

    def examples(self, positions: Iterable[int]) -> Iterator[tuple[Tensor, int]]:
        """(picture, class number) at each position, in order; decoded in threads where there is no cache."""
        for position, picture in in_order(self.tensor, positions):
            yield picture, self.images[position].label


def decoded_pixels(path: Path, preprocessing: Preprocessing, *, max_pixels: int) -> Pixels:
    """The bytes from which the evaluation transform makes its tensor.

    The transform ends in x / 255, minus mean, divided by std; that is undone exactly, for float rounding is a
    ten-thousandth of a step.

    Raises:
        ImageRejectedError: As `Preprocessing.load`.
    """
    picture = preprocessing.load(path, max_pixels=max_pixels)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (preprocessing.mean, preprocessing.std))
    whole = picture.mul(std).add_(mean).mul_(255).round_().clamp_(0, 255).to(torch.uint8)
    return whole.permute(1, 2, 0).contiguous().numpy()


def screen_images(
    images: Sequence[ImageRef],
    preprocessing: Preprocessing,
    *,
    max_pixels: int,
    cache: Path | None,
    on_progress: Callable[[int, int], None],
) -> tuple[list[ImageRef], list[Rejected]]:
    """The images that can be decoded, and those that cannot; every one is decoded once.

    Args:
        images: The files.
        preprocessing: The base's own.
        max_pixels: What is larger is refused.
        cache: Where the pictures of the good images go, in their order; None keeps no pictures.
        on_progress: Called with (images done, images in all); may raise to stop.
    """
    good: list[ImageRef] = []
    rejected: list[Rejected] = []

    def attempt(position: int) -> Pixels | Rejected:
        image = images[position]
        try:
            return decoded_pixels(image.path, preprocessing, max_pixels=max_pixels)
        except ImageRejectedError as error:
            return Rejected(image.name, f"{error.reason}: {error}")

    with _CacheFile(cache) as file:
        for position, outcome in in_order(attempt, range(len(images))):
            if isinstance(outcome, Rejected):
                rejected.append(outcome)
            else:
                good.append(images[position])
                file.add(outcome)
            on_progress(position + 1, len(images))
        file.finish()
    return good, rejected


def in_order(
    work: Callable[[Item], Result], items: Iterable[Item], *, ahead: int = AHEAD
) -> Iterator[tuple[Item, Result]]:
    """(item, work(item)) in the given order, computed some ahead in threads (Pillow releases the GIL)."""
    waiting: deque[tuple[Item, Future[Result]]] = deque()
    with ThreadPoolExecutor(DECODERS, thread_name_prefix="decode") as pool:
        try:
            for item in items:
                waiting.append((item, pool.submit(work, item)))
                if len(waiting) >= ahead:
                    done, future = waiting.popleft()
                    yield done, future.result()
            while waiting:
                done, future = waiting.popleft()
                yield done, future.result()
        finally:
            for _, future in waiting:
                future.cancel()


class _CacheFile:
    """Collects pictures into a file that gets its name when it is finished."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._temporary: Path | None = None

    def __enter__(self) -> Self:
        if self._path is not None:
            handle, name = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
            self._temporary = Path(name)
            self._file = os.fdopen(handle, "wb")
        return self

    def __exit__(self, *_: object) -> None:
        if self._temporary is not None:
            self._file.close()
            self._temporary.unlink(missing_ok=True)

    def add(self, pixels: Pixels) -> None:
        if self._temporary is not None:
            self._file.write(pixels.tobytes())

    def finish(self) -> None:
        if self._temporary is not None and self._path is not None:
            self._file.flush()
            os.fsync(self._file.fileno())
            self._temporary.replace(self._path)
