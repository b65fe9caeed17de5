"""Copies of remote blobs near by: a folder that all processes of a machine share, bounded in bytes.

A copy is named DIGEST.SUM, with the xxh3 of its bytes. What comes in was checked against its digest; every
process checks the (fast) sum of a copy before it first reads it, so a copy that was damaged meanwhile is
dropped instead of read. A copy appears by a rename, whole or not at all. Whoever brings one in holds the lock
of its first two digits, so that of several who miss a blob one fetches it; the lock of a process that dies is
free at once.
"""

import contextlib
import fcntl
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock

import xxhash

from store.blobs.contract import check_digest

_log = logging.getLogger(__name__)

_PIECE_BYTES = 4 * 2**20
_TOUCH_EVERY_S = 60.0
_UNFINISHED_S = 3600.0


class BlobCache:
    """Keeps the blobs that were used last, up to a bound.

    Args:
        folder: Made if it is not there.
        max_bytes: What all copies may have together; a larger blob is not kept.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self.incoming = folder / "incoming"
        self.incoming.mkdir(parents=True, exist_ok=True)
        # Copies whose sum this process has checked, with the moment when they were last marked as used.
        self._checked: dict[str, tuple[Path, float]] = {}
        self._guard = Lock()

    def find(self, digest: str) -> Path | None:
        """The copy of a blob, checked once in this process; None where there is none."""
        with self._guard:
            known = self._checked.get(digest)
        if known is None:
            known = self._check(digest)
        if known is None:
            return None
        path, marked_at = known
        now = time.monotonic()
        if now - marked_at >= _TOUCH_EVERY_S:
            try:
                os.utime(path)  # the least recently used are dropped first
            except OSError:
                self.forget(digest)
                return None
            with self._guard:
                self._checked[digest] = path, now
        return path

    def _check(self, digest: str) -> tuple[Path, float] | None:
        for path in self._folder_of(digest).glob(f"{digest}.*"):
            try:
                found = _sum_of(path)
            except OSError:
                continue  # another process dropped it just now
            if path.suffix[1:] == found:
                return path, float("-inf")
            _log.warning("the copy of blob %s near by is damaged: it is dropped", digest)
            path.unlink(missing_ok=True)
        return None

    def forget(self, digest: str) -> None:
        """Checks the copy again before it is read next: it may be gone."""
        with self._guard:
            self._checked.pop(digest, None)

    def drop(self, digest: str) -> None:
        """Removes the copy, if there is one."""
        self.forget(digest)
        for path in self._folder_of(digest).glob(f"{digest}.*"):
            path.unlink(missing_ok=True)

    def bring(self, digest: str, size_bytes: int, fetch: Callable[[Path], None]) -> Path | None:
        """The copy, fetched by at most one of all who ask; None where it cannot be kept.

        Args:
            digest: Of the blob.
            size_bytes: Its size; one larger than the bound is not kept.
            fetch: Writes the blob, checked against its digest, into the new file it is given.
        """
        if size_bytes > self.max_bytes:
            return None
        try:
            with self._locked(check_digest(digest)[:2]):
                copy = self.find(digest)
                if copy is None:
                    with self.new_file() as path:
                        fetch(path)
                        copy = self.adopt(digest, path)
                return copy
        except OSError as error:
            # A full disk near by is no reason not to answer.
            _log.warning("no copy of blob %s can be kept near by: %s", digest, error)
            return None

    @contextmanager
    def new_file(self) -> Iterator[Path]:
        """A new file in the folder's own file system; gone at the end of the block unless it was adopted."""
        handle, name = tempfile.mkstemp(dir=self.incoming)
        os.close(handle)
        try:
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    def adopt(self, digest: str, path: Path) -> Path | None:
        """Makes the new file the blob's copy and drops what is too much; None where it is larger than all."""
        size = path.stat().st_size
        if size > self.max_bytes:
            return None
        path.chmod(0o444)
        copy = self._folder_of(digest) / f"{digest}.{_sum_of(path)}"
        copy.parent.mkdir(exist_ok=True)
        path.rename(copy)
        with self._guard:
            self._checked[digest] = copy, time.monotonic()
        self._make_room(copy)
        return copy

    def _make_room(self, newest: Path) -> None:
        """Drops the least recently used copies beyond the bound, but the one that just came."""
        with self._locked("room"):
            found = [(status.st_mtime, status.st_size, path) for path, status in self._copies()]
            excess = sum(size for _, size, _ in found) - self.max_bytes
            others = iter(sorted(each for each in found if each[2] != newest))
            while excess > 0:
                _, size, path = next(others)
                path.unlink(missing_ok=True)
                excess -= size

    def _copies(self) -> Iterator[tuple[Path, os.stat_result]]:
        for path in self.folder.glob("[0-9a-f][0-9a-f]/*"):
            with contextlib.suppress(FileNotFoundError):
                yield path, path.stat()

    def discard_unfinished(self, *, older_than_s: float, delete: bool) -> int:
        """Bytes of files that never became a copy and were last touched so long ago; removed if `delete`."""
        size_bytes = 0
        for path in self.incoming.iterdir():
            with contextlib.suppress(FileNotFoundError):
                status = path.stat()
                if time.time() - status.st_mtime >= older_than_s:
                    size_bytes += status.st_size
                    if delete:
                        path.unlink()
        return size_bytes

    def _folder_of(self, digest: str) -> Path:
        return self.folder / check_digest(digest)[:2]

    @contextmanager
    def _locked(self, what: str) -> Iterator[None]:
        locks = self.folder / "locks"
        locks.mkdir(exist_ok=True)
        with (locks / what).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def _sum_of(path: Path) -> str:
    content = xxhash.xxh3_128()
    with path.open("rb") as file:
        while piece := file.read(_PIECE_BYTES):
            content.update(piece)
    return content.hexdigest()
