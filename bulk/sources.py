"""Where images come from: a folder, a tar or a list of files, each read in one fixed order.

The order is what makes a job resumable: image number 2048 is the same image in every run, on every machine.
"""

import hashlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from bulk.errors import InputError
from bulk.items import Item
from bulk.tars import MAGIC_BYTES, TarBounds, TarReader, compression_of, survey_tar
from imagesets.names import is_image, is_litter

Kind = Literal["folder", "tar", "list"]
MAX_LIST_LINE = 32_768


@dataclass(frozen=True)
class Survey:
    """An input as it was found when its job began.

    Attributes:
        kind: What it is.
        fingerprint: Equal fingerprints are, as far as one can tell without reading every image, equal inputs.
        num_images: Images to answer for.
        num_skipped: Files passed over: no image by their names, hidden, links, devices.
    """

    kind: Kind
    fingerprint: str
    num_images: int
    num_skipped: int


class Reader(Protocol):
    """Hands out the images of an input by their numbers. For one thread."""

    def read(self, start: int, stop: int) -> Iterator[Item]:
        """The images from number `start` up to, but not including, `stop`."""
        ...

    def close(self) -> None:
        """Give the input back."""
        ...


def kind_of(path: Path) -> Kind:
    """What the input is, told by its first bytes, never by its name.

    Raises:
        InputError: It is not there, or neither a folder, a tar nor text.
    """
    try:
        found = path.stat()
        if stat.S_ISDIR(found.st_mode):
            return "folder"
        if not stat.S_ISREG(found.st_mode):
            raise InputError(
                f"{path} is neither a file nor a folder", remedy="name a folder, a tar or a list"
            )
        with path.open("rb") as file:
            head = file.read(MAGIC_BYTES)
    except OSError as error:
        raise InputError(
            f"{path} cannot be read: {error.strerror}", remedy="name a folder, a tar or a list of files"
        ) from error
    if compression_of(head) is not None:
        return "tar"
    if b"\0" in head:
        raise InputError(
            f"{path} is neither a folder, a tar nor a list of files",
            remedy="pack the images as tar (plain, gzip, bzip2, xz or zstd), or give the folder",
        )
    return "list"


def survey(path: Path, bounds: TarBounds) -> Survey:
    """What there is to do; a tar is walked once, so that a broken one is told before any work is done.

    Raises:
        InputError: The input cannot be read, is cut short, or holds no image.
    """
    kind = kind_of(path)
    if kind == "tar":
        num_images, num_skipped = survey_tar(path, bounds)
    else:
        names, num_skipped = list_folder(path) if kind == "folder" else (list_lines(path), 0)
        num_images = len(names)
    if not num_images:
        raise InputError(
            f"{path} holds no image", remedy="images end in .jpg, .jpeg, .png or .webp; a list names them"
        )
    return Survey(kind, fingerprint(path, kind), num_images, num_skipped)


def fingerprint(path: Path, kind: Kind) -> str:
    """A digest of a folder's names and sizes, of a tar's size and time of change, or of a list's text."""
    content = hashlib.sha256()
    if kind == "folder":
        for name in list_folder(path)[0]:
            size_bytes = _size_bytes(path / name)
            content.update(f"{size_bytes} {name}\0".encode(errors="surrogateescape"))
    elif kind == "tar":
        found = path.stat()
        content.update(f"{found.st_size} {found.st_mtime_ns}".encode())
    else:
        content.update(path.read_bytes())
    return content.hexdigest()


def open_reader(path: Path, kind: Kind, bounds: TarBounds) -> Reader:
    """The reader for that kind of input."""
    if kind == "tar":
        return TarReader(path, bounds)
    if kind == "folder":
        return FileReader(path, list_folder(path)[0])
    return FileReader(path.parent, list_lines(path))


class FileReader:
    """Files named relative to a folder; opened by whoever decodes them."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._folder = folder
        self._names = names

    def read(self, start: int, stop: int) -> Iterator[Item]:
        """The files, unopened."""
        for name in self._names[start:stop]:
            yield Item(shown(name), self._folder / name)

    def close(self) -> None:
        """Nothing to give back."""


def list_folder(folder: Path) -> tuple[list[str], int]:
    """The images below the folder by their relative names, sorted, and how many other files there are.

    Links to folders are not followed, nor links to files that lie outside.

    Raises:
        InputError: A folder cannot be listed: leaving its images out would be a gap that nobody sees.
    """
    root = os.path.realpath(folder)
    names: list[str] = []
    num_skipped = 0

    def refuse(error: OSError) -> None:
        raise InputError(
            f"{error.filename} cannot be listed: {error.strerror}", remedy="see to its permissions"
        ) from error

    for place, folders, files in os.walk(root, onerror=refuse):
        folders[:] = [name for name in folders if not is_litter(name)]
        for file in files:
            path = os.path.join(place, file)  # noqa: PTH118 - a Path a file is slow with millions
            name = os.path.relpath(path, root)
            if is_image(file) and not is_litter(file) and _is_inside(path, root):
                names.append(name)
            else:
                num_skipped += 1
    return sorted(names, key=os.fsencode), num_skipped


def list_lines(path: Path) -> list[str]:
    """The names of a list, one a line, empty lines left out.

    Raises:
        InputError: The list is no text.
    """
    try:
        text = path.read_text(encoding="utf-8-sig", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}", remedy="see to its disk") from error
    lines = (line.rstrip("\r") for line in text.split("\n"))
    names = [line for line in lines if line.strip()]
    if "\0" in text or any(len(name) > MAX_LIST_LINE for name in names):
        raise InputError(f"{path} is no list of files", remedy="write one file name a line")
    return names


def shown(name: str) -> str:
    """The name as text that any file can hold: undecodable bytes as backslash, x and their number."""
    return os.fsencode(name).decode(errors="backslashreplace")


def _is_inside(path: str, root: str) -> bool:
    """Whether the file is a plain one below the root, itself or at the end of a link."""
    real = os.path.realpath(path)
    return (real == path or os.path.commonpath((real, root)) == root) and Path(real).is_file()


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1
