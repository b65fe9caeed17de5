"""Inspect an archive of images without writing; unpack one so that it can be done again after a crash.

No name of the archive ever becomes a path: images are written under numbers, and the index remembers what
they were called.
"""

import errno
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from imagesets.errors import InvalidArchiveError
from imagesets.index import ImageIndex, ImageRef, load_index, save_index
from imagesets.layout import Layout, read_layout
from imagesets.limits import ArchiveLimits
from imagesets.members import ArchiveFormat, Member, archive_format, walk
from imagesets.names import is_image, is_litter, is_table

INDEX_NAME = "index.json"
REPORT_EVERY = 64
"""Images between two calls of `on_progress`."""


@dataclass(frozen=True)
class ArchiveSummary:
    """What an archive holds, told without unpacking or decoding it.

    Attributes:
        format: How it is packed.
        classes: Class names: sorted for folders, in the order of classes.txt for tables.
        num_images: Images that belong to a class.
        num_ignored: Other files, and images that the table does not name.
        has_split: Whether the archive says which images are for testing.
        unpacked_bytes: Bytes of the images that count.
    """

    format: ArchiveFormat
    classes: tuple[str, ...]
    num_images: int
    num_ignored: int
    has_split: bool
    unpacked_bytes: int


def inspect_archive(path: Path, limits: ArchiveLimits | None = None) -> ArchiveSummary:
    """What the archive holds. Images are not decoded; nothing is written.

    Args:
        path: The archive.
        limits: Bounds to keep; the defaults of ArchiveLimits when None.

    Raises:
        InvalidArchiveError: The archive is hostile, broken, or in no known layout.
    """
    return _plan(path, limits or ArchiveLimits())[1]


def unpack_archive(
    path: Path,
    into: Path,
    limits: ArchiveLimits | None = None,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> ImageIndex:
    """The index of the archive's images, unpacked into the folder.

    Killed and called again, it goes on where it stopped; called once more after that, it reads the index it
    left. Each image is written to a temporary name and renamed. Memory stays at one chunk plus the names.

    Args:
        path: The archive, unchanged between calls with the same folder.
        into: A folder of this archive's own; made if missing.
        limits: Bounds to keep; the defaults of ArchiveLimits when None.
        on_progress: Called with (images done, images in all).

    Raises:
        InvalidArchiveError: As `inspect_archive`; also when an image's bytes are corrupt.
        OSError: The disk is full (ENOSPC) or failing.
    """
    marker = into / INDEX_NAME
    if marker.exists():
        return load_index(marker)
    bounds = limits or ArchiveLimits()
    layout, summary = _plan(path, bounds)
    folder = into / "images"
    folder.mkdir(parents=True, exist_ok=True)
    _check_room(folder, summary.unpacked_bytes)
    refs: dict[str, ImageRef] = {}
    for member in walk(path, bounds):
        placement = layout.images.get(member.name)
        if placement is None:
            continue
        suffix = PurePosixPath(member.name).suffix.lower()
        ref = ImageRef(folder / f"{len(refs):08d}{suffix}", placement.label, member.name)
        _write(member, ref.path)
        refs[member.name] = ref
        if on_progress is not None and (len(refs) % REPORT_EVERY == 0 or len(refs) == summary.num_images):
            on_progress(len(refs), summary.num_images)
    index = _index(layout, refs)
    os.sync()  # one flush for all files: the index must not outlive a power cut that its images do not
    save_index(index, marker)
    return index


def _plan(path: Path, limits: ArchiveLimits) -> tuple[Layout, ArchiveSummary]:
    sizes: dict[str, int] = {}
    tables: dict[str, bytes] = {}
    num_files = 0
    for member in walk(path, limits):
        if is_litter(member.name):
            continue
        num_files += 1
        if is_image(member.name):
            sizes[member.name] = member.size_bytes
        elif is_table(member.name):
            tables[member.name] = _read_table(member, limits)
    layout = read_layout(list(sizes), tables, limits)
    summary = ArchiveSummary(
        format=archive_format(path),
        classes=layout.classes,
        num_images=len(layout.images),
        num_ignored=num_files - len(layout.images) - len(tables),
        has_split=layout.has_split,
        unpacked_bytes=sum(sizes[name] for name in layout.images),
    )
    return layout, summary


def _read_table(member: Member, limits: ArchiveLimits) -> bytes:
    if member.size_bytes > limits.max_table_bytes:
        reason = f"the table has {member.size_bytes} bytes, more than {limits.max_table_bytes}"
        raise InvalidArchiveError(reason, remedy="split the task", member=member.name)
    return b"".join(member.chunks())


def _write(member: Member, path: Path) -> None:
    if path.exists() and path.stat().st_size == member.size_bytes:
        return  # from the run before this one
    part = path.with_name(f"{path.name}.part")
    with part.open("wb") as file:
        for chunk in member.chunks():
            file.write(chunk)
    part.replace(path)


def _check_room(folder: Path, wanted_bytes: int) -> None:
    """Say that the disk is too small before filling it."""
    usage = os.statvfs(folder)
    free = usage.f_bavail * usage.f_frsize
    present = sum(file.stat().st_size for file in folder.iterdir())
    if wanted_bytes - present > free:
        message = f"the images need {wanted_bytes - present} bytes and {free} are free"
        raise OSError(errno.ENOSPC, message, str(folder))


def _index(layout: Layout, refs: dict[str, ImageRef]) -> ImageIndex:
    train = tuple(ref for name, ref in refs.items() if layout.images[name].split == "train")
    test = tuple(ref for name, ref in refs.items() if layout.images[name].split == "test")
    return ImageIndex(layout.classes, train, test)
