"""Archives of labelled images: inspect one without unpacking it, unpack it safely, index it, split it."""

from imagesets.archive import ArchiveSummary, inspect_archive, unpack_archive
from imagesets.errors import ImagesetError, InvalidArchiveError
from imagesets.folder import index_folder
from imagesets.index import ImageIndex, ImageRef, draw_shots, split
from imagesets.limits import ArchiveLimits

__all__ = [
    "ArchiveLimits",
    "ArchiveSummary",
    "ImageIndex",
    "ImageRef",
    "ImagesetError",
    "InvalidArchiveError",
    "draw_shots",
    "index_folder",
    "inspect_archive",
    "split",
    "unpack_archive",
]
