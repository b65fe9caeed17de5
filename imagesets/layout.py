"""Which class and which split each image of an archive belongs to, told from names and tables alone.

Three layouts: a folder per class; `train/` and `test/` with a folder per class in each; `classes.txt` (a
class a line) with `labels.csv` (columns path, label and, if wanted, split). All may lie in one wrapping
folder.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from imagesets.errors import InvalidArchiveError
from imagesets.limits import ArchiveLimits
from imagesets.names import checked_class, class_of_folder

Split = Literal["train", "test"]

LAYOUTS = (
    "put each image into a folder named after its class (cat/1.png), such folders into train/ and test/, "
    "or send classes.txt and labels.csv"
)


@dataclass(frozen=True)
class Placement:
    """Where one image belongs."""

    label: int
    split: Split


@dataclass(frozen=True)
class Layout:
    """Every class, and every image that belongs to one, by its name in the archive."""

    classes: tuple[str, ...]
    images: Mapping[str, Placement] = field(repr=False)

    @property
    def has_split(self) -> bool:
        """Whether the archive itself says which images are for testing."""
        return any(placement.split == "test" for placement in self.images.values())


def read_layout(images: Sequence[str], tables: Mapping[str, bytes], limits: ArchiveLimits) -> Layout:
    """The layout of an archive with these images and these tables (contents by name).

    Raises:
        InvalidArchiveError: No images, fewer than two classes, no known layout, or tables that contradict the
            files.
    """
    if not images:
        raise InvalidArchiveError("the archive holds no images (.jpg .jpeg .png .webp)", remedy=LAYOUTS)
    names = [name for name in tables if name.rsplit("/", 1)[-1] == "labels.csv" and name.count("/") <= 1]
    layout = (
        _by_table(images, tables, csv_name=min(names, key=len), limits=limits)
        if names
        else _by_folder(images)
    )
    _check_classes(layout, limits)
    return layout


def _check_classes(layout: Layout, limits: ArchiveLimits) -> None:
    if len(layout.classes) < 2:
        reason = f"the archive has one class only ({layout.classes[0]!r}); at least two are needed"
        raise InvalidArchiveError(reason, remedy=LAYOUTS)
    if len(layout.classes) > limits.max_classes:
        reason = f"the archive has {len(layout.classes)} classes, more than {limits.max_classes}"
        raise InvalidArchiveError(reason, remedy="split it into several tasks")
    placed = {(placement.label, placement.split) for placement in layout.images.values()}
    for label, split in sorted(placed):
        if split == "test" and (label, "train") not in placed:
            name = layout.classes[label]
            reason = "the class has test images but none to train on"
            raise InvalidArchiveError(
                reason, remedy="add training images or leave the class out", member=name
            )


# ---------------------------------------------------------------------------------------------------- folders


def _by_folder(images: Sequence[str]) -> Layout:
    parts = _unwrapped([tuple(name.split("/")) for name in images])
    has_split = {path[0] for path in parts} <= {"train", "test"} and all(len(path) == 3 for path in parts)
    wanted = 3 if has_split else 2
    for name, path in zip(images, parts, strict=True):
        if len(path) != wanted:
            where = "in no class folder" if len(path) < wanted else "too deep"
            raise InvalidArchiveError(f"the image lies {where}", remedy=LAYOUTS, member=name)
    folders = {path[-2]: class_of_folder(path[-2]) for path in parts}
    _check_same_class(folders)
    classes = tuple(sorted(folders.values()))
    label_of = {folder: classes.index(label) for folder, label in folders.items()}
    placements = {
        name: Placement(label_of[path[-2]], "test" if has_split and path[0] == "test" else "train")
        for name, path in zip(images, parts, strict=True)
    }
    return Layout(classes, placements)


def _unwrapped(parts: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The paths without the one folder that wraps them all, if there is one."""
    tops = {path[0] for path in parts}
    if len(tops) == 1 and tops.isdisjoint({"train", "test"}) and all(len(path) >= 3 for path in parts):
        return [path[1:] for path in parts]
    return parts


def _check_same_class(folders: Mapping[str, str]) -> None:
    by_class: dict[str, str] = {}
    for folder, label in sorted(folders.items()):
        if label in by_class:
            reason = f"folders {by_class[label]!r} and {folder!r} both stand for the class {label!r}"
            raise InvalidArchiveError(reason, remedy="merge the two folders", member=folder)
        by_class[label] = folder


# ----------------------------------------------------------------------------------------------------- tables


def _by_table(
    images: Sequence[str], tables: Mapping[str, bytes], *, csv_name: str, limits: ArchiveLimits
) -> Layout:
    prefix = csv_name.removesuffix("labels.csv")
    list_name = f"{prefix}classes.txt"
    if list_name not in tables:
        remedy = f"add {list_name} with one class a line"
        raise InvalidArchiveError("labels.csv has no classes.txt beside it", remedy=remedy, member=csv_name)
    classes = _read_classes(tables[list_name], list_name)
    if len(classes) > limits.max_classes:  # before the rows are looked up in it
        raise InvalidArchiveError(
            f"more than {limits.max_classes} classes", remedy="split the task", member=list_name
        )
    label_of = {label: index for index, label in enumerate(classes)}
    present = set(images)
    placements: dict[str, Placement] = {}
    for line, row in _read_rows(tables[csv_name], csv_name):
        name, placement = _read_row(row, label_of, prefix=prefix, where=f"{csv_name} line {line}")
        if name not in present:
            raise InvalidArchiveError(
                f"names {row['path']!r:.120}, which is not an image in the archive",
                remedy="add the image or take the line out",
                member=f"{csv_name} line {line}",
            )
        if name in placements:
            remedy = "keep one line an image"
            raise InvalidArchiveError(
                f"names {name!r} a second time", remedy=remedy, member=f"{csv_name} line {line}"
            )
        placements[name] = placement
    if not placements:
        raise InvalidArchiveError(
            "the table has no rows", remedy="add a line for each image", member=csv_name
        )
    return Layout(classes, placements)


def _read_classes(content: bytes, name: str) -> tuple[str, ...]:
    lines: dict[str, int] = {}
    for number, line in enumerate(_decoded(content, name).splitlines(), start=1):
        if not (text := line.strip()):
            continue
        label = checked_class(text, member=f"{name} line {number}")
        if label in lines:
            reason = f"the class {label!r} stands on line {lines[label]} already"
            raise InvalidArchiveError(reason, remedy="name each class once", member=f"{name} line {number}")
        lines[label] = number
    if not lines:
        raise InvalidArchiveError("the class list is empty", remedy="write one class a line", member=name)
    return tuple(lines)


def _read_rows(content: bytes, name: str) -> list[tuple[int, dict[str, str]]]:
    reader = csv.DictReader(io.StringIO(_decoded(content, name), newline=""), strict=True)
    try:
        header = [column.strip() for column in reader.fieldnames or ()]
        reader.fieldnames = header
        if set(header) not in ({"path", "label"}, {"path", "label", "split"}):
            reason = f"the first line names the columns {header!r:.120}"
            raise InvalidArchiveError(reason, remedy="write path,label or path,label,split", member=name)
        rows = [(reader.line_num, row) for row in reader]
    except csv.Error as error:
        raise InvalidArchiveError(
            f"the table is malformed ({error})", remedy="write it as CSV", member=name
        ) from error
    for line, row in rows:
        if None in row or None in row.values():
            reason = f"the line has not {len(header)} fields"
            raise InvalidArchiveError(
                reason, remedy="quote fields that hold commas", member=f"{name} line {line}"
            )
    return rows


def _read_row(
    row: Mapping[str, str], label_of: Mapping[str, int], *, prefix: str, where: str
) -> tuple[str, Placement]:
    label = row["label"].strip()
    if label not in label_of:
        raise InvalidArchiveError(
            f"names the class {label!r:.120}", remedy="add it to classes.txt", member=where
        )
    split = row.get("split", "train").strip()
    if split not in ("train", "test"):
        raise InvalidArchiveError(
            f"names the split {split!r:.120}", remedy="write train or test", member=where
        )
    path = row["path"].strip().removeprefix("./")
    return f"{prefix}{path}", Placement(label_of[label], "test" if split == "test" else "train")


def _decoded(content: bytes, name: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidArchiveError("the file is not UTF-8", remedy="save it as UTF-8", member=name) from error
