"""The images of a task on this machine's disk, class by class and split by split."""

import hashlib
import json
import os
from collections import defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from imagesets.errors import ImagesetError


@dataclass(frozen=True)
class ImageRef:
    """One image file: where it lies, the index of its class, and what the archive called it."""

    path: Path
    label: int
    name: str


@dataclass(frozen=True)
class ImageIndex:
    """The images of one task. `test` is empty until a split is given or made."""

    classes: tuple[str, ...]
    train: tuple[ImageRef, ...] = field(repr=False)
    test: tuple[ImageRef, ...] = field(repr=False)

    def to_dict(self, root: Path) -> dict[str, Any]:
        """The index as JSON-able values, its paths relative to `root`; `from_dict` is the inverse."""
        rows = {
            part: [[str(ref.path.relative_to(root)), ref.label, ref.name] for ref in getattr(self, part)]
            for part in ("train", "test")
        }
        return {"classes": list(self.classes), **rows}

    @classmethod
    def from_dict(cls, values: dict[str, Any], root: Path) -> Self:
        """The index that `to_dict` described, under `root`."""
        parts = (
            tuple(ImageRef(root / path, int(label), name) for path, label, name in values[part])
            for part in ("train", "test")
        )
        return cls(tuple(values["classes"]), *parts)


def save_index(index: ImageIndex, path: Path) -> None:
    """Write the index beside its images, whole or not at all."""
    part = path.with_suffix(".part")
    with part.open("w", encoding="utf-8") as file:
        json.dump(index.to_dict(path.parent), file)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def load_index(path: Path) -> ImageIndex:
    """The index that `save_index` wrote."""
    return ImageIndex.from_dict(json.loads(path.read_text(encoding="utf-8")), path.parent)


def split(index: ImageIndex, *, test_fraction: float, seed: int) -> ImageIndex:
    """The index with a held-out part: the given one where there is one, else a stratified draw.

    A class with two images or more gives at least one and keeps at least one. An image's place in the draw
    depends on the seed and its name alone, so that the same archive splits alike on every machine and under
    every Python.

    Raises:
        ImagesetError: The fraction is not within [0, 1).
    """
    if not 0.0 <= test_fraction < 1.0:
        raise ImagesetError(
            f"test_fraction is {test_fraction}; give a number from 0 up to, but not including, 1"
        )
    if index.test or test_fraction == 0.0:
        return index
    by_class: defaultdict[int, list[ImageRef]] = defaultdict(list)
    for ref in index.train:
        by_class[ref.label].append(ref)
    held_out: set[str] = set()
    for refs in by_class.values():
        count = min(max(round(test_fraction * len(refs)), 1), len(refs) - 1)
        held_out.update(ref.name for ref in _by_lot(refs, str(seed))[:count])
    return replace(
        index,
        train=tuple(ref for ref in index.train if ref.name not in held_out),
        test=tuple(ref for ref in index.train if ref.name in held_out),
    )


def draw_shots(index: ImageIndex, shots: int, *, seed: int) -> ImageIndex:
    """The index with at most `shots` training images a class; what is held out stays.

    As in `split`, an image's place in the draw depends on the seed and its name alone. The draw is another
    than the split's, so that the shots are not the images that just missed being held out.
    """
    by_class: defaultdict[int, list[ImageRef]] = defaultdict(list)
    for ref in index.train:
        by_class[ref.label].append(ref)
    drawn = {ref.name for refs in by_class.values() for ref in _by_lot(refs, f"shots:{seed}")[:shots]}
    return replace(index, train=tuple(ref for ref in index.train if ref.name in drawn))


def _by_lot(refs: list[ImageRef], lot: str) -> list[ImageRef]:
    return sorted(refs, key=lambda ref: hashlib.sha256(f"{lot}:{ref.name}".encode()).digest())
