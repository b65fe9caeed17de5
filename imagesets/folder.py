"""A folder of labelled images, read where it lies under the rules for archives."""

from pathlib import Path

from imagesets.errors import InvalidArchiveError
from imagesets.index import ImageIndex, ImageRef
from imagesets.layout import read_layout
from imagesets.limits import ArchiveLimits
from imagesets.names import is_image, is_litter, is_table


def index_folder(folder: Path, limits: ArchiveLimits | None = None) -> ImageIndex:
    """The index of the folder's images: what packing the folder, and unpacking it, would give.

    Args:
        folder: In one of the three layouts of `imagesets.layout`.
        limits: Of these, the number of classes and the size of a table; the defaults when None.

    Raises:
        InvalidArchiveError: The folder is in no known layout, or its tables contradict its files.
    """
    bounds = limits or ArchiveLimits()
    paths = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    names = sorted(name for name in paths if not is_litter(name))
    tables = {name: _read_table(paths[name], name, bounds) for name in names if is_table(name)}
    layout = read_layout([name for name in names if is_image(name)], tables, bounds)
    refs = {
        name: ImageRef(paths[name], placement.label, name)
        for name, placement in sorted(layout.images.items())
    }
    parts = (
        tuple(ref for name, ref in refs.items() if layout.images[name].split == part)
        for part in ("train", "test")
    )
    return ImageIndex(layout.classes, *parts)


def _read_table(path: Path, name: str, limits: ArchiveLimits) -> bytes:
    size = path.stat().st_size
    if size > limits.max_table_bytes:
        reason = f"the table has {size} bytes, more than {limits.max_table_bytes}"
        raise InvalidArchiveError(reason, remedy="split the task", member=name)
    return path.read_bytes()
