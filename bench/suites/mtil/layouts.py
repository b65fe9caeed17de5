"""The data sets that consist of picture files, each read from the layout its publisher gave it."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy.io import loadmat
from scipy.io.matlab import MatReadError

from bench.suites.mtil.facts import CALTECH_CLASSES, EUROSAT_CLASSES, FLOWER_CLASSES
from bench.suites.mtil.files import Files
from imagesets import ImageIndex, ImageRef


def aircraft(files: Files) -> ImageIndex:
    """FGVC-Aircraft by variant: the official training and test lists."""
    folder = "fgvc-aircraft-2013b/data"
    classes = files.lines(f"{folder}/variants.txt")

    def part(split: str) -> tuple[ImageRef, ...]:
        lists = f"{folder}/images_variant_{split}.txt"
        rows = (line.partition(" ") for line in files.lines(lists))
        return files.refs(
            (f"{folder}/images/{image}.jpg", _number_of(files, label, classes, where=lists))
            for image, _, label in rows
        )

    return files.index([name.replace("_", " ") for name in classes], part("train"), part("test"))


def caltech101(files: Files) -> ImageIndex:
    """Caltech-101 without its background class: a random split."""
    rows = (
        (picture, label)
        for label, folder in enumerate(CALTECH_CLASSES)
        for picture in files.pictures(f"caltech101/101_ObjectCategories/{folder}")
    )
    return files.drawn_index(tuple(CALTECH_CLASSES.values()), files.refs(rows))


def dtd(files: Files) -> ImageIndex:
    """Describable Textures: the training and test lists of its first partition."""
    parts = {split: files.lines(f"dtd/dtd/labels/{split}1.txt") for split in ("train", "test")}
    classes = sorted({line.partition("/")[0] for line in parts["train"]})

    def part(split: str) -> tuple[ImageRef, ...]:
        where = f"dtd/dtd/labels/{split}1.txt"
        return files.refs(
            (f"dtd/dtd/images/{line}", _number_of(files, line.partition("/")[0], classes, where=where))
            for line in parts[split]
        )

    return files.index([name.replace("_", " ") for name in classes], part("train"), part("test"))


def eurosat(files: Files) -> ImageIndex:
    """EuroSAT in red, green and blue: a random split."""
    rows = (
        (picture, label)
        for label, folder in enumerate(EUROSAT_CLASSES)
        for picture in files.pictures(f"eurosat/2750/{folder}")
    )
    return files.drawn_index(tuple(EUROSAT_CLASSES.values()), files.refs(rows))


def flowers(files: Files) -> ImageIndex:
    """Oxford Flowers 102: the official training and test lists; what they call validation is left out."""
    labels = _matlab(files, "flowers-102/imagelabels.mat", "labels")
    lists = "flowers-102/setid.mat"

    def part(numbers: np.ndarray) -> tuple[ImageRef, ...]:
        if numbers.min() < 1 or numbers.max() > len(labels):
            raise files.wrong(f"{lists} names pictures that imagelabels.mat gives no label")
        return files.refs(
            (f"flowers-102/jpg/image_{number:05d}.jpg", int(labels[number - 1]) - 1) for number in numbers
        )

    train, test = (part(_matlab(files, lists, name)) for name in ("trnid", "tstid"))
    return files.index(FLOWER_CLASSES, train, test)


def food(files: Files) -> ImageIndex:
    """Food-101: the official training and test lists."""
    lists = {split: _json(files, f"food-101/meta/{split}.json") for split in ("train", "test")}
    classes = sorted(lists["train"])

    def part(split: str) -> tuple[ImageRef, ...]:
        where = f"food-101/meta/{split}.json"
        return files.refs(
            (f"food-101/images/{picture}.jpg", _number_of(files, label, classes, where=where))
            for label, pictures in lists[split].items()
            for picture in pictures
        )

    return files.index([name.replace("_", " ") for name in classes], part("train"), part("test"))


def oxford_pet(files: Files) -> ImageIndex:
    """Oxford-IIIT Pet by breed: trains on the official training and validation list."""
    folder = "oxford-iiit-pet"
    names: dict[int, str] = {}

    def part(split: str) -> tuple[ImageRef, ...]:
        rows = [line.split() for line in files.lines(f"{folder}/annotations/{split}.txt")]
        if any(len(row) != 4 for row in rows):
            raise files.wrong(
                f"{folder}/annotations/{split}.txt has a line that is not NAME BREED SPECIES NUMBER"
            )
        for image, breed, *_ in rows:
            names.setdefault(int(breed), image.rpartition("_")[0])
        return files.refs((f"{folder}/images/{image}.jpg", int(breed) - 1) for image, breed, *_ in rows)

    train, test = part("trainval"), part("test")
    classes = [" ".join(word.title() for word in names[breed].split("_")) for breed in sorted(names)]
    return files.index(classes, train, test)


def stanford_cars(files: Files) -> ImageIndex:
    """Stanford Cars: the official split; the labels of the test pictures come in a file of their own."""
    folder = "stanford_cars"

    def part(annotations: str, pictures: str) -> tuple[ImageRef, ...]:
        rows = _matlab(files, f"{folder}/{annotations}", "annotations")
        return files.refs((f"{folder}/{pictures}/{row['fname']}", int(row["class"]) - 1) for row in rows)

    classes = [
        str(name).replace("_", " ")
        for name in _matlab(files, f"{folder}/devkit/cars_meta.mat", "class_names")
    ]
    train = part("devkit/cars_train_annos.mat", "cars_train")
    return files.index(classes, train, part("cars_test_annos_withlabels.mat", "cars_test"))


def sun397(files: Files) -> ImageIndex:
    """SUN397: a random split of the scenes, class by class in the order of ClassName.txt.

    The benchmark draws from the files in whatever order its file system lists them; here that order is the
    alphabetical one. The numbers are the same, which pictures are held out is not.
    """
    folders = files.lines("SUN397/ClassName.txt")  # such as /a/apartment_building/outdoor
    rows = (
        (picture, label)
        for label, folder in enumerate(folders)
        for picture in files.pictures(f"SUN397{folder}", "sun_*.jpg")
    )
    return files.drawn_index([folder[3:].replace("_", " ") for folder in folders], files.refs(rows))


READERS: Mapping[str, Callable[[Files], ImageIndex]] = {
    reader.__name__: reader
    for reader in (aircraft, caltech101, dtd, eurosat, flowers, food, oxford_pet, stanford_cars, sun397)
}


def _number_of(files: Files, label: str, classes: list[str], *, where: str) -> int:
    try:
        return classes.index(label)
    except ValueError:
        raise files.wrong(f"{where} names a class {label!r} that is not among the {len(classes)}") from None


def _json(files: Files, relative: str) -> dict[str, list[str]]:
    try:
        values: dict[str, list[str]] = json.loads(files.path(relative).read_text(encoding="utf-8"))
    except ValueError as error:
        raise files.wrong(f"{relative} is not JSON ({error})") from error
    return values


def _matlab(files: Files, relative: str, name: str) -> Any:
    """One variable of a MATLAB file, as an array of one dimension."""
    path = files.path(relative)
    try:
        return np.atleast_1d(loadmat(path, squeeze_me=True)[name])
    except KeyError:
        raise files.wrong(f"{path} has no variable {name!r}") from None
    except (MatReadError, ValueError, TypeError, OSError) as error:
        raise files.wrong(f"{path} is not a MATLAB file ({error})") from error
