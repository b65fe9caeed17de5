"""A fingerprint of pictures that finds near-copies, and choices without them."""

from collections import defaultdict

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from bench.suites.building import Sizes, TaskImage

# Of 256 bits; drawings that differ in less look the same at 96 pixels.
NEAR_COPY_BITS = 14


def fingerprint(picture: Image.Image) -> NDArray[np.uint8]:
    """256 bits of horizontal and vertical gradients (dHash, 8 x 16 each way), packed into 32 bytes."""
    grey = ImageOps.grayscale(picture)
    wide = np.asarray(grey.resize((17, 8), Image.Resampling.BOX), dtype=np.int16)
    tall = np.asarray(grey.resize((8, 17), Image.Resampling.BOX), dtype=np.int16)
    bits = np.concatenate([(wide[:, 1:] > wide[:, :-1]).ravel(), (tall[1:] > tall[:-1]).ravel()])
    return np.packbits(bits)


def distances(fingerprints: NDArray[np.uint8], others: NDArray[np.uint8]) -> NDArray[np.uint16]:
    """Differing bits of every fingerprint against every other, [N, M]."""
    table = np.array([byte.bit_count() for byte in range(256)], dtype=np.uint16)
    result = np.zeros((len(fingerprints), len(others)), dtype=np.uint16)
    for byte in range(fingerprints.shape[1]):
        result += table[fingerprints[:, byte, None] ^ others[None, :, byte]]
    return result


def without_copies(images: list[TaskImage]) -> list[TaskImage]:
    """The images without those whose near-copy comes earlier; test images come first, so they stay."""
    ordered = [image for image in images if image.split == "test"] + [
        image for image in images if image.split == "train"
    ]
    prints = np.stack([fingerprint(image.picture) for image in ordered])
    apart = distances(prints, prints)
    kept: list[int] = []
    for row in range(len(ordered)):
        if not kept or int(apart[row, kept].min()) >= NEAR_COPY_BITS:
            kept.append(row)
    return [ordered[row] for row in kept]


def cut(images: list[TaskImage], sizes: Sizes) -> list[TaskImage]:
    """The first images of each class, as many as may be."""
    room: defaultdict[str, dict[str, int]] = defaultdict(lambda: {"train": sizes.train, "test": sizes.test})
    result = []
    for image in images:
        if room[image.label][image.split] > 0:
            room[image.label][image.split] -= 1
            result.append(image)
    return result
