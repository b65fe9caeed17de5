"""Bodies of uploads: a file, or a folder packed as a tar on the fly, with their length known beforehand."""

import tarfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cli.errors import CommandUsageError
from cli.transport import Call

Progress = Callable[[int, int], None]  # hears the bytes done and the bytes in all

CHUNK_BYTES = 1 << 20
SENT_BYTES = Callable[[int], None]


@dataclass(frozen=True)
class FileBody:
    """The bytes of one file."""

    path: Path

    @property
    def size_bytes(self) -> int:
        """Bytes that will be sent."""
        return self.path.stat().st_size

    def chunks(self) -> Iterator[bytes]:
        """The bytes, piece by piece."""
        with self.path.open("rb") as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


@dataclass(frozen=True)
class FolderBody:
    """A folder as a tar stream, never written to disk.

    The same files give the same bytes, so that a folder uploaded twice is one dataset: members are sorted;
    owner, times, modes and hidden files are left out. Links are refused by name.
    """

    path: Path
    members: tuple[tuple[Path, bytes, int], ...]

    @classmethod
    def of(cls, folder: Path) -> "FolderBody":
        """The folder as it is now; CommandUsageError for a link or for nothing to send."""
        files = sorted(file for file in folder.rglob("*") if not is_hidden(file.relative_to(folder)))
        for file in files:
            if file.is_symlink():
                raise CommandUsageError(f"{file} is a link", remedy="put the file itself into the folder")
        members = tuple(member_of(file, folder) for file in files if file.is_file())
        if not members:
            raise CommandUsageError(
                f"the folder {folder} holds no files", remedy="give a folder with one folder per class"
            )
        return cls(folder, members)

    @property
    def size_bytes(self) -> int:
        """Bytes that will be sent."""
        packed = sum(len(header) + padded(size_bytes) for _, header, size_bytes in self.members)
        return packed + 2 * tarfile.BLOCKSIZE

    def chunks(self) -> Iterator[bytes]:
        """The tar stream, piece by piece."""
        for file, header, size_bytes in self.members:
            yield header
            yield from exactly(file, size_bytes)
            yield bytes(padded(size_bytes) - size_bytes)
        yield bytes(2 * tarfile.BLOCKSIZE)


def body_of(path: Path) -> FileBody | FolderBody:
    """What to send for a path that the user named."""
    if path.is_dir():
        return FolderBody.of(path)
    if not path.is_file():
        raise CommandUsageError(
            f"there is no file {path}", remedy="give a .tar, .tar.gz or .zip, or a folder"
        )
    return FileBody(path)


def counted(chunks: Iterator[bytes], on_sent: SENT_BYTES) -> Iterator[bytes]:
    """The same chunks; `on_sent` hears the bytes handed over so far."""
    sent_bytes = 0
    on_sent(0)
    for chunk in chunks:
        yield chunk
        sent_bytes += len(chunk)
        on_sent(sent_bytes)


def member_of(file: Path, folder: Path) -> tuple[Path, bytes, int]:
    """A file, the tar header that says no more than its name and size, and that size."""
    entry = tarfile.TarInfo(file.relative_to(folder).as_posix())
    entry.size = file.stat().st_size
    return file, entry.tobuf(tarfile.PAX_FORMAT), entry.size


def exactly(file: Path, size_bytes: int) -> Iterator[bytes]:
    """The bytes of a file whose size was promised in its header."""
    left_bytes = size_bytes
    with file.open("rb") as stream:
        while left_bytes and (chunk := stream.read(min(CHUNK_BYTES, left_bytes))):
            left_bytes -= len(chunk)
            yield chunk
    if left_bytes:
        raise CommandUsageError(
            f"{file} shrank while it was being sent", remedy="try again when nothing writes to the folder"
        )


def padded(size_bytes: int) -> int:
    """The size rounded up to whole tar blocks."""
    return -(-size_bytes // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE


def is_hidden(relative: Path) -> bool:
    """Whether any part of the path starts with a dot."""
    return any(part.startswith(".") for part in relative.parts)


def upload(
    method: str,
    where: str,
    body: FileBody | FolderBody,
    *,
    params: Mapping[str, Any] | None,
    on_sent: Progress,
) -> Call:
    """The call that sends a body of known length, and tells how far it is."""
    size_bytes = body.size_bytes
    return Call(
        method,
        where,
        params=params,
        content=lambda: counted(body.chunks(), lambda sent_bytes: on_sent(sent_bytes, size_bytes)),
        headers={"Content-Length": str(size_bytes), "Content-Type": "application/octet-stream"},
    )
