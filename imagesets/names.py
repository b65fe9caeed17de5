"""What a member's name may be, and what it says about the member."""

import unicodedata
from pathlib import PurePosixPath

from imagesets.errors import InvalidArchiveError
from imagesets.limits import ArchiveLimits

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})
TABLE_NAMES = frozenset({"classes.txt", "labels.csv"})
LITTER = frozenset({"__MACOSX", "Thumbs.db", "desktop.ini"})
"""What operating systems leave in archives; skipped like hidden files."""

MAX_CLASS_CHARACTERS = 200


def clean_name(raw: str, limits: ArchiveLimits) -> str:
    """The member's path with `./` and a trailing slash removed; empty for the archive's own root folder.

    Raises:
        InvalidArchiveError: The name points outside, is too long, or cannot be read as text.
    """
    remedy = "pack the files again under plain relative names"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in raw):
        raise InvalidArchiveError(
            "the name holds control or undecodable characters", remedy=remedy, member=raw
        )
    if raw.startswith("/") or (len(raw) > 1 and raw[1] == ":" and raw[0].isalpha()):
        raise InvalidArchiveError("the path is absolute", remedy=remedy, member=raw)
    if "\\" in raw:
        raise InvalidArchiveError("the name holds a backslash", remedy=remedy, member=raw)
    parts = [part for part in raw.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise InvalidArchiveError("the path leaves the archive ('..')", remedy=remedy, member=raw)
    name = "/".join(parts)
    too_long = len(name.encode()) > limits.max_name_bytes
    if too_long or any(len(part.encode()) > limits.max_part_bytes for part in parts):
        reason = f"the name is longer than {limits.max_name_bytes} bytes ({limits.max_part_bytes} a folder)"
        raise InvalidArchiveError(reason, remedy="shorten it", member=raw)
    return name


def is_litter(name: str) -> bool:
    """Whether the member is a hidden file or left there by an operating system."""
    return any(part.startswith(".") or part in LITTER for part in name.split("/"))


def is_image(name: str) -> bool:
    """Whether the name ends like an image that the service decodes (JPEG, PNG, WEBP)."""
    return PurePosixPath(name).suffix.lower() in IMAGE_SUFFIXES


def is_table(name: str) -> bool:
    """Whether the member is a class list or a label table."""
    return PurePosixPath(name).name in TABLE_NAMES


def class_of_folder(folder: str) -> str:
    """The class a folder stands for: its name with underscores read as spaces."""
    return checked_class(" ".join(folder.replace("_", " ").split()), member=folder)


def checked_class(label: str, *, member: str) -> str:
    """The label itself, if it can name a class."""
    if not label or len(label) > MAX_CLASS_CHARACTERS or not label.isprintable():
        reason = f"a class name has 1 to {MAX_CLASS_CHARACTERS} printable characters"
        raise InvalidArchiveError(reason, remedy="rename the class", member=member)
    return label
