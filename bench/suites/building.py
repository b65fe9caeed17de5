"""Tasks built from packages: choose their pictures, write them as archives of the same bytes every time."""

import io
import tarfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Split = Literal["train", "test"]
# Above this the difference to the original is not seen, and the nets do not see it either.
_WEBP_QUALITY = 90
_SMALL_SIDE = 64


@dataclass(frozen=True)
class TaskImage:
    """One image of a task: `origin` says which drawing, font or set it comes from."""

    split: Split
    label: str
    picture: Image.Image
    origin: str


@dataclass(frozen=True)
class Sizes:
    """How many images a class may have."""

    train: int
    test: int


def read_idx(content: bytes) -> NDArray[np.uint8]:
    """The bytes of an IDX file after its header, whose length follows from the number of dimensions."""
    return np.frombuffer(content, dtype=np.uint8, offset=4 + 4 * content[3])


def numbered(label: str, split: Split, *, images: NDArray[np.uint8], rows: Iterable[int]) -> list[TaskImage]:
    """The pictures in those rows of [N, H, W], grey, each named by its row."""
    return [TaskImage(split, label, Image.fromarray(images[row]), f"image {row}") for row in rows]


def write_archive(
    path: Path, images: list[TaskImage], *, on_image: Callable[[int, int], None] = lambda _done, _total: None
) -> None:
    """A plain tar with SPLIT/CLASS/NNN.png (or .webp), sorted, without times and owners."""
    numbers: Counter[tuple[str, str]] = Counter()
    members: dict[str, bytes] = {}
    for done, image in enumerate(images, start=1):
        on_image(done, len(images))
        place = (image.split, image.label)
        suffix, content = encode(image.picture)
        members[f"{image.split}/{image.label}/{numbers[place]:03d}.{suffix}"] = content
        numbers[place] += 1
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(members):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(members[name]), 0o644
            archive.addfile(entry, io.BytesIO(members[name]))


def encode(picture: Image.Image) -> tuple[str, bytes]:
    """Grey pictures and small ones exactly, as PNG; large coloured drawings as WebP of high quality."""
    stream = io.BytesIO()
    if picture.mode == "L" or max(picture.size) <= _SMALL_SIDE:
        picture.save(stream, "PNG", optimize=True)
        return "png", stream.getvalue()
    picture.save(stream, "WEBP", quality=_WEBP_QUALITY, method=6)
    return "webp", stream.getvalue()
