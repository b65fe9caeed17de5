"""The two data sets that come as one array of pixels: their pictures are written out once, as PNG files."""

import gzip
import hashlib
import pickletools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bench.suites.building import read_idx
from bench.suites.contract import OnProgress
from bench.suites.mtil.facts import MNIST_CLASSES
from bench.suites.mtil.files import Files
from imagesets import ImageIndex, ImageRef
from imagesets.index import load_index, save_index

REPORT_EVERY = 512
BYTES_OF_A_PICTURE = 3 * 32 * 32
"""Of CIFAR: red, green and blue, 32 x 32 each."""


@dataclass(frozen=True)
class Pixels:
    """Pictures [N, H, W] or [N, H, W, 3] and the class number of each."""

    pictures: NDArray[np.uint8]
    labels: Sequence[int]


def mnist(files: Files, *, cache: Path, on_progress: OnProgress) -> ImageIndex:
    """MNIST: the official split, out of IDX files that may be gzipped."""
    names = {
        split: tuple(
            _idx_path(files, f"{prefix}-{what}") for what in ("images-idx3-ubyte", "labels-idx1-ubyte")
        )
        for split, prefix in (("train", "train"), ("test", "t10k"))
    }
    folder = cache / _digest(path for paths in names.values() for path in paths)
    if (folder / "index.json").exists():
        return load_index(folder / "index.json")
    parts = {}
    for split, (images, labels) in names.items():
        digits = _idx(files, labels)
        pixels = _idx(files, images)
        if pixels.size != 28 * 28 * digits.size:
            raise files.wrong(f"{labels} has {digits.size} labels, but {images.name} not as many pictures")
        parts[split] = Pixels(pixels.reshape(-1, 28, 28), digits.tolist())
    return _written(files, MNIST_CLASSES, parts, folder=folder, on_progress=on_progress)


def cifar100(files: Files, *, cache: Path, on_progress: OnProgress) -> ImageIndex:
    """CIFAR-100 by its fine labels: the official split, out of pickles that are read and never run."""
    paths = {name: files.path(f"cifar-100-python/{name}") for name in ("train", "test", "meta")}
    folder = cache / _digest(paths.values())
    if (folder / "index.json").exists():
        return load_index(folder / "index.json")
    names = _batch(files, paths["meta"], "fine_label_names").lists["fine_label_names"]
    parts = {}
    for split in ("train", "test"):
        batch = _batch(files, paths[split], "fine_labels")
        labels = [int(label) for label in batch.lists["fine_labels"]]
        try:
            pixels = batch.pictures(len(labels)).reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        except ValueError as error:
            raise files.wrong(f"{paths[split]} has {len(labels)} labels, but not as many pictures") from error
        parts[split] = Pixels(pixels, labels)
    classes = [str(name).replace("_", " ") for name in names]
    return _written(files, classes, parts, folder=folder, on_progress=on_progress)


class Unpacker(Protocol):
    """A reader that leaves pictures in the cache."""

    def __call__(self, files: Files, *, cache: Path, on_progress: OnProgress) -> ImageIndex:
        """The index of the pictures under `cache`."""


UNPACKERS: Mapping[str, Unpacker] = {"mnist": mnist, "cifar100": cifar100}


# ------------------------------------------------------------------------------------------------- pictures


def _digest(paths: Iterable[Path]) -> str:
    """The name of the folder for what these files hold: other files, another folder."""
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()[:16]


def _written(
    files: Files, classes: Sequence[str], parts: dict[str, Pixels], *, folder: Path, on_progress: OnProgress
) -> ImageIndex:
    """The index of the pictures, each written to a file of its own; goes on where a killed run stopped."""
    total, done = sum(len(part.labels) for part in parts.values()), 0
    refs: dict[str, list[ImageRef]] = {}
    for split, part in parts.items():
        (folder / split).mkdir(parents=True, exist_ok=True)
        refs[split] = []
        for number, label in enumerate(part.labels):
            path = folder / split / f"{number:05d}.png"
            if not path.exists():
                unfinished = path.with_suffix(".part")
                Image.fromarray(np.ascontiguousarray(part.pictures[number])).save(unfinished, "PNG")
                unfinished.replace(path)
            refs[split].append(ImageRef(path, label, f"{split}/{path.name}"))
            done += 1
            if done % REPORT_EVERY == 0 or done == total:
                on_progress(f"unpack {files.task}", done, total)
    index = files.index(classes, tuple(refs["train"]), tuple(refs["test"]))
    save_index(index, folder / "index.json")
    return index


# ------------------------------------------------------------------------------------------------- IDX files


def _idx_path(files: Files, name: str) -> Path:
    plain = files.data / "MNIST" / "raw" / name
    packed = plain.with_name(f"{name}.gz")
    return packed if packed.exists() and not plain.exists() else files.path(f"MNIST/raw/{name}")


def _idx(files: Files, path: Path) -> NDArray[np.uint8]:
    try:
        content = path.read_bytes()
        return read_idx(gzip.decompress(content) if path.suffix == ".gz" else content)
    except (OSError, EOFError, IndexError, ValueError) as error:
        raise files.wrong(f"{path} is not an IDX file ({error})") from error


# --------------------------------------------------------------------------------------------------- pickles

_STRINGS = frozenset({"STRING", "SHORT_BINSTRING", "BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE"})
_INTEGERS = frozenset({"INT", "BININT", "BININT1", "BININT2"})


@dataclass
class PickledBatch:
    """What is taken from a pickled dict: its lists of strings and whole numbers, and its one array of bytes.

    Only the opcodes are looked at: an unpickler would run what the file says.
    """

    lists: dict[str, list[str | int]] = field(default_factory=dict)
    array: str = ""
    is_column_major: bool = False

    def read(self, content: bytes) -> Self:
        """This batch, filled; ValueError when the content is no pickle."""
        key = ""  # the newest short string
        is_marked = False  # whether what comes now goes into the newest list
        newest: list[str | int] | None = None
        flag = False
        operand: Any
        for opcode, operand, _ in pickletools.genops(content):
            match opcode.name:
                case "EMPTY_LIST":
                    newest = self.lists[key] = []
                    is_marked = False
                case "MARK":
                    is_marked = True
                case "APPENDS":
                    is_marked = False
                case "NEWTRUE" | "NEWFALSE":
                    flag = opcode.name == "NEWTRUE"
                case name if name in _STRINGS or name in _INTEGERS:
                    if newest is not None and is_marked:
                        newest.append(operand)
                    elif name in _STRINGS:
                        newest = None
                        if len(operand) >= BYTES_OF_A_PICTURE:
                            self.array, self.is_column_major = operand, flag
                        else:
                            key = operand
        return self

    def pictures(self, num_pictures: int) -> NDArray[np.uint8]:
        """The array as [N, bytes of a picture]; ValueError when it has another size."""
        values = np.frombuffer(self.array.encode("latin-1"), dtype=np.uint8)
        if self.is_column_major:
            return values.reshape(BYTES_OF_A_PICTURE, num_pictures).T
        return values.reshape(num_pictures, BYTES_OF_A_PICTURE)


def _batch(files: Files, path: Path, wanted: str) -> PickledBatch:
    try:
        batch = PickledBatch().read(path.read_bytes())
    except (ValueError, OSError) as error:
        raise files.wrong(f"{path} is not a pickle ({error})") from error
    if wanted not in batch.lists:
        raise files.wrong(f"{path} has no list {wanted!r}")
    return batch
