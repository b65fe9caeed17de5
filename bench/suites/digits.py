"""MNIST: handwritten digits, 28 x 28, white on black; the test set is the data set's own."""

import random

import numpy as np

from bench.suites.building import Sizes, Split, TaskImage, numbered, read_idx
from bench.suites.packages import DIGITS, PackageCache, read_members

SEED = 20261122
SIZES = Sizes(train=80, test=20)

TEMPLATES = ('a photo of the number: "{}".', "a handwritten {}.", "the digit {}.")


def mnist(cache: PackageCache) -> list[TaskImage]:
    """A draw of each digit; no writer of the test set is among those of the training set."""
    files = dict(read_members(cache.fetch(DIGITS), prefix="package/data/"))
    chooser = random.Random(SEED)  # noqa: S311
    found: list[TaskImage] = []
    parts: tuple[tuple[Split, str, int], ...] = (
        ("test", "t10k", SIZES.test),
        ("train", "train", SIZES.train),
    )
    for split, prefix, count in parts:
        images = read_idx(files[f"package/data/{prefix}-images-idx3-ubyte"]).reshape(-1, 28, 28)
        digits = read_idx(files[f"package/data/{prefix}-labels-idx1-ubyte"])
        for digit in range(10):
            rows = chooser.sample(np.flatnonzero(digits == digit).tolist(), count)
            found += numbered(str(digit), split, images=images, rows=rows)
    return found
