"""Blobs as files in a folder: FOLDER/ab/abcdef..., written beside and linked into place.

A write goes to FOLDER/incoming, is flushed to disk, and gets its name by link(2), which fails if the name is
taken, so two writers of the same bytes never tear each other's file. The folder is flushed too: after
`commit` a power cut loses nothing.
"""

import contextlib
import errno
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from store.blobs.contract import Blob, Blobs, BlobWriter, StoredBlob, check_digest, not_found, too_short
from store.errors import BlobsUnavailableError


class FileBlobs(Blobs):
    """Keeps every blob as a read-only file under the folder, which is made if it is not there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._incoming = folder / "incoming"
        self._incoming.mkdir(parents=True, exist_ok=True)

    def writer(self) -> BlobWriter:
        return _FileWriter(self)

    def read(self, digest: str, start: int = 0, length: int | None = None) -> memoryview:
        try:
            return read_range(self.path(digest), start, length, digest=digest)
        except FileNotFoundError:
            raise not_found(digest) from None

    def copy_to(self, digest: str, path: Path) -> None:
        try:
            link_or_copy(self.path(digest), path)
        except FileNotFoundError:
            raise not_found(digest) from None
        except OSError as error:
            raise unavailable(f"copy blob {digest} to {path}", error) from error

    def size_bytes(self, digest: str) -> int:
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            raise not_found(digest) from None

    def contains(self, digest: str) -> bool:
        return self.path(digest).exists()

    def delete(self, digest: str, *, unless_younger_than_s: float = 0.0) -> int:
        path = self.path(digest)
        # A name of its own: two sweepers must not take each other's file for theirs.
        doomed = self._incoming / f"{digest}.{uuid.uuid4().hex}"
        try:
            path.rename(doomed)
            status = doomed.stat()
        except FileNotFoundError:
            return 0
        # Looked at only now that no writer can touch it: whoever wrote it again before the rename made it
        # young, whoever comes after finds the name free and links a copy of his own.
        if time.time() - status.st_mtime < unless_younger_than_s:
            with contextlib.suppress(FileExistsError):
                os.link(doomed, path)
            doomed.unlink(missing_ok=True)
            return 0
        doomed.unlink(missing_ok=True)
        return status.st_size

    def list(self) -> Iterator[StoredBlob]:
        now = time.time()
        for path in sorted(self.folder.glob("[0-9a-f][0-9a-f]/*")):
            if (status := _status(path)) is not None:
                yield StoredBlob(path.name, status.st_size, now - status.st_mtime)

    def discard_unfinished(self, *, older_than_s: float, delete: bool) -> int:
        size_bytes = 0
        for path in self._incoming.iterdir():
            status = _status(path)
            if status is not None and time.time() - status.st_mtime >= older_than_s:
                size_bytes += status.st_size
                if delete:
                    path.unlink(missing_ok=True)
        return size_bytes

    def path(self, digest: str) -> Path:
        """The file that holds (or would hold) the blob."""
        return self.folder / check_digest(digest)[:2] / digest


class _FileWriter(BlobWriter):
    def __init__(self, blobs: FileBlobs) -> None:
        super().__init__()
        self._blobs = blobs
        try:
            handle, name = tempfile.mkstemp(dir=blobs.folder / "incoming")
        except OSError as error:
            raise unavailable("start a blob", error) from error
        os.close(handle)
        self._path = Path(name)

    def _append(self, piece: bytes | bytearray | memoryview) -> None:
        append_to(self._path, piece)

    def _publish(self, blob: Blob) -> None:
        final = self._blobs.path(blob.digest)
        try:
            with self._path.open("rb") as file:
                os.fchmod(file.fileno(), 0o444)
                os.fsync(file.fileno())
            final.parent.mkdir(exist_ok=True)
            while not self._linked(final):
                pass  # a sweeper removed it between our two looks
            _sync_folder(final.parent)
        except OSError as error:
            raise unavailable(f"publish blob {blob.digest}", error) from error

    def _linked(self, final: Path) -> bool:
        try:
            os.link(self._path, final)
        except FileExistsError:
            try:
                os.utime(final)  # written again: the sweeper's grace period starts anew
            except FileNotFoundError:
                return False
        return True

    def _discard(self) -> None:
        self._path.unlink(missing_ok=True)


def _status(path: Path) -> os.stat_result | None:
    """The file's status; None where another sweeper removed it meanwhile."""
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_range(path: Path, start: int, length: int | None, *, digest: str) -> memoryview:
    """Bytes [start, start + length) of the file that holds the blob, or all from start.

    Raises:
        FileNotFoundError: There is no such file.
        CorruptBlobError: It ends before the range does.
        BlobsUnavailableError: The disk refused.
    """
    # Opened for each range: a fusion into a thousand tasks must not hold a thousand files open.
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            stop = size if length is None else start + length
            content = bytearray(max(min(stop, size) - start, 0))
            file.seek(start)
            if file.readinto(content) < stop - start:
                raise too_short(digest, wanted=stop, size_bytes=size)
            return memoryview(content)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise unavailable(f"read blob {digest}", error) from error


def append_to(path: Path, piece: bytes | bytearray | memoryview) -> None:
    """Appends the bytes to the file of a blob that is being written."""
    # Opened for each piece, like reads: a fusion writes the masks of all its tasks side by side.
    try:
        # Never made anew: a file that somebody removed meanwhile would begin in the middle of the blob.
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND), "ab", buffering=0) as file:
            rest = memoryview(piece).cast("B")
            while len(rest):
                rest = rest[file.write(rest) :]
    except OSError as error:
        raise unavailable("write a blob", error) from error


def link_or_copy(source: Path, path: Path) -> None:
    """Makes the file readable under the new path too; copied where that is on another file system."""
    try:
        os.link(source, path)
    except OSError as error:
        if error.errno not in {errno.EXDEV, errno.EMLINK, errno.EPERM}:
            raise
        shutil.copyfile(source, path)


def unavailable(what: str, error: OSError) -> BlobsUnavailableError:
    """The error for a disk that refused, with what to do about it."""
    return BlobsUnavailableError(
        f"cannot {what}: {error.strerror}; free disk space (`condu sweep --delete`) or mend the storage, "
        "then try again"
    )
