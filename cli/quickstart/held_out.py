"""The held-out images of a task, read from its archive as they are: the service decodes them."""

import tarfile
from collections import defaultdict
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path, PurePosixPath


@dataclass(frozen=True)
class HeldOutImage:
    """One image the task did not train on."""

    name: str
    content: bytes
    label: str


def read_held_out(archive: Path, *, at_most: int) -> tuple[HeldOutImage, ...]:
    """Images of the archive's `test/` folder, the same ones in the same order every time.

    Classes take turns, so that the first `at_most` are as many of each class as of the next.
    """
    by_class: defaultdict[str, list[HeldOutImage]] = defaultdict(list)
    with tarfile.open(archive) as tar:
        for member in sorted(tar.getmembers(), key=lambda member: member.name):
            parts = PurePosixPath(member.name).parts
            if member.isfile() and "test" in parts[:-2] and (file := tar.extractfile(member)) is not None:
                label = parts[-2].replace("_", " ")
                by_class[label].append(HeldOutImage(member.name, file.read(), label))
    in_turn = (image for images in zip_longest(*by_class.values()) for image in images if image is not None)
    return tuple(image for image, _ in zip(in_turn, range(at_most), strict=False))
