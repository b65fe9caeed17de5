"""A data set's folder as its publisher laid it out; whatever is missing in it is named."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.errors import BenchError
from bench.suites.mtil.facts import NUM_CLASSES
from imagesets import ImageIndex, ImageRef

SPLIT_SEED = 42
TRAIN_SHARE = 0.8
"""The benchmark's own, of the data sets that come without a split."""

# The archive of this one is no longer online.
BY_HAND = frozenset({"stanford_cars"})


@dataclass(frozen=True)
class Files:
    """The files of one data set.

    Attributes:
        task: Whose they are.
        data: The folder of all data sets, as torchvision fills it.
    """

    task: str
    data: Path

    def path(self, relative: str) -> Path:
        """The file or folder of that name, if it is there."""
        path = self.data / relative
        if not path.exists():
            raise self.wrong(f"{path} is missing")
        return path

    def lines(self, relative: str) -> list[str]:
        """The lines of a text file that are not empty, without white space around them."""
        try:
            text = self.path(relative).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise self.wrong(f"{relative} is not UTF-8 text") from error
        return [stripped for line in text.splitlines() if (stripped := line.strip())]

    def pictures(self, folder: str, pattern: str = "*.jpg") -> list[str]:
        """The pictures in a class folder, sorted, by their names relative to the data folder."""
        found = sorted(path.name for path in self.path(folder).glob(pattern))
        if not found:
            raise self.wrong(f"{self.data / folder} holds no pictures ({pattern})")
        return [f"{folder}/{name}" for name in found]

    def refs(self, rows: Iterable[tuple[str, int]]) -> tuple[ImageRef, ...]:
        """The pictures with their labels, every file looked for."""
        refs = tuple(ImageRef(self.data / name, label, name) for name, label in rows)
        missing = [ref.name for ref in refs if not ref.path.is_file()]
        if missing:
            also = f" (and {len(missing) - 1} pictures more)" if len(missing) > 1 else ""
            raise self.wrong(f"{self.data / missing[0]} is missing{also}")
        return refs

    def index(
        self, classes: Sequence[str], train: tuple[ImageRef, ...], test: tuple[ImageRef, ...]
    ) -> ImageIndex:
        """The index, if it has the benchmark's number of classes and each has a picture to train on."""
        if len(classes) != NUM_CLASSES[self.task]:
            raise self.wrong(f"it has {len(classes)} classes, not {NUM_CLASSES[self.task]}")
        present = {ref.label for ref in train}
        for label, name in enumerate(classes):
            if label not in present:
                raise self.wrong(f"class {name!r} has no pictures to train on")
        return ImageIndex(tuple(classes), train, test)

    def drawn_index(self, classes: Sequence[str], refs: tuple[ImageRef, ...]) -> ImageIndex:
        """The index of a data set without a split of its own, split as the benchmark does.

        That is torch's `random_split`: pictures in the same order are split alike on every machine.
        """
        drawn = torch.randperm(len(refs), generator=torch.Generator().manual_seed(SPLIT_SEED)).tolist()
        num_train = int(TRAIN_SHARE * len(refs))
        train, test = (
            tuple(refs[position] for position in sorted(part))
            for part in (drawn[:num_train], drawn[num_train:])
        )
        return self.index(classes, train, test)

    def wrong(self, what: str) -> BenchError:
        """The error that says what is wrong with this data set."""
        remedy = "put the data set there as docs/suites.md shows"
        if self.task not in BY_HAND:
            remedy += f", or run: condu bench fetch mtil --data {self.data}"
        return BenchError(f"data set {self.task!r}: {what}", remedy=remedy)
