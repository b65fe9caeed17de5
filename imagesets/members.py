"""The regular files of an archive, one after the other, each checked before it is named to anybody.

Nothing here writes. tar and zip come out alike, so that everything after this file knows one kind of archive.
"""

import errno
import gzip
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Literal

from imagesets.errors import InvalidArchiveError
from imagesets.limits import ArchiveLimits
from imagesets.names import clean_name
from imagesets.reader import GuardedReader

ArchiveFormat = Literal["tar", "tar.gz", "zip"]

CHUNK_BYTES = 256 << 10
MAX_ZIP_DIRECTORY_BYTES = 128 << 20
ENTRY_MARK = b"PK\x01\x02"
REPACK = "pack the images again as tar, tar.gz or zip and send the archive anew"
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, gzip.BadGzipFile, struct.error)
"""What the standard library raises for malformed archives; anything else from it is caught as well, see
`walk`."""


@dataclass(frozen=True)
class Member:
    """One regular file. Its bytes can be read only until the next member is asked for."""

    name: str
    size_bytes: int
    stream: IO[bytes]

    def chunks(self) -> Iterator[bytes]:
        """The file's bytes, exactly `size_bytes` of them.

        Raises:
            InvalidArchiveError: The archive ends before, or a checksum disagrees.
        """
        left = self.size_bytes
        with _named(self.name):
            while chunk := self.stream.read(CHUNK_BYTES):
                left -= len(chunk)
                yield chunk
            if left:
                raise EOFError(f"{left} bytes are missing")


def archive_format(path: Path) -> ArchiveFormat:
    """Which archive the file is, told by its first bytes, never by its name."""
    with path.open("rb") as file:
        head = file.read(512)
    if not head:
        raise InvalidArchiveError("the archive is empty (0 bytes)", remedy=REPACK)
    if head.startswith(b"\x1f\x8b"):
        return "tar.gz"
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return "zip"
    if head[257:262] == b"ustar" or _is_old_tar(head):
        return "tar"
    raise InvalidArchiveError("the file is neither a tar, a gzipped tar nor a zip", remedy=REPACK)


def walk(path: Path, limits: ArchiveLimits) -> Iterator[Member]:
    """Every regular file of the archive, in its order, under its clean name.

    Folders are passed over. The bounds on number, size and compression hold while walking: a bomb is noticed
    after `max_ratio` times the archive's own bytes at the latest, and memory stays at a chunk plus the names.

    Raises:
        InvalidArchiveError: The archive is truncated, corrupt or hostile.
    """
    form = archive_format(path)
    gzipped = form == "tar.gz"
    members = _walk_zip(path, limits) if form == "zip" else _walk_tar(path, limits, gzipped=gzipped)
    with _named(None), closing(members):
        yield from _within_limits(members, path.stat().st_size, limits)


def _within_limits(members: Iterator[Member], archive_bytes: int, limits: ArchiveLimits) -> Iterator[Member]:
    total = 0
    seen: set[str] = set()
    for member in members:
        if member.name in seen:
            raise InvalidArchiveError(
                "the name comes twice", remedy="keep one of the two files", member=member.name
            )
        seen.add(member.name)
        total += member.size_bytes
        if member.size_bytes > limits.max_member_bytes:
            reason = f"unpacks to {member.size_bytes} bytes, more than {limits.max_member_bytes} for one file"
            raise InvalidArchiveError(reason, remedy="leave it out or make it smaller", member=member.name)
        check_total(total, archive_bytes, limits)
        yield member


def check_total(total: int, archive_bytes: int, limits: ArchiveLimits) -> None:
    """Refuse an archive that unpacks to too much, in bytes or against its own size."""
    if total > limits.max_total_bytes:
        reason = f"the archive unpacks to more than {limits.max_total_bytes} bytes"
        raise InvalidArchiveError(reason, remedy="send fewer or smaller images")
    if total > limits.ratio_floor_bytes and total > limits.max_ratio * archive_bytes:
        reason = f"the archive unpacks to over {limits.max_ratio:g} times its own size, as only a bomb does"
        raise InvalidArchiveError(reason, remedy="send real JPEG, PNG or WEBP images")


def _check_count(count: int, limits: ArchiveLimits) -> None:
    if count > limits.max_members:
        reason = f"the archive has more than {limits.max_members} members"
        raise InvalidArchiveError(reason, remedy="send fewer files")


@contextmanager
def _named(member: str | None) -> Iterator[None]:
    """Foreign errors leave as InvalidArchiveError; the disk's own (OSError) leave as they are.

    But not a zip's seek to before its beginning, where its own directory leads.
    """
    try:
        yield
    except InvalidArchiveError:
        raise
    except BROKEN as error:
        raise InvalidArchiveError(
            f"the archive is cut short or corrupt ({error})", remedy=REPACK, member=member
        ) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise InvalidArchiveError(
            "the archive's directory leads outside of it", remedy=REPACK, member=member
        ) from error
    except (ValueError, OverflowError, RecursionError, NotImplementedError, RuntimeError) as error:
        # tarfile and zipfile leak these for odd headers: negative sizes, pax records in pax records, …
        reason = f"the archive is malformed ({type(error).__name__}: {error})"
        raise InvalidArchiveError(reason, remedy=REPACK, member=member) from error


# -------------------------------------------------------------------------------------------------------- tar


def _is_old_tar(head: bytes) -> bool:
    """Whether a block without magic is a tar header by its checksum, or all zeros: a tar of nothing."""
    if len(head) == tarfile.BLOCKSIZE and not any(head):
        return True
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


def _walk_tar(path: Path, limits: ArchiveLimits, *, gzipped: bool) -> Generator[Member]:
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("rb"))
        file = stack.enter_context(gzip.GzipFile(fileobj=raw, mode="rb")) if gzipped else raw
        archive_bytes = path.stat().st_size
        # tarfile reads a pax header in one piece, however long it says it is.
        reader = GuardedReader(
            file, max_read=1 << 20, check=lambda position: check_total(position, archive_bytes, limits)
        )
        tar = stack.enter_context(tarfile.TarFile(fileobj=reader, mode="r"))
        count = 0
        while (info := tar.next()) is not None:
            count += 1
            _check_count(count, limits)
            tar.members.clear()  # type: ignore[attr-defined] # else a record of every member stays
            name = _checked_tar_name(info, limits)
            if info.isreg() and name:
                stream = tar.extractfile(info)
                if stream is not None:
                    yield Member(name, info.size, stream)
        # tarfile takes anything it cannot read for the end; only two blocks of zeros are the end.
        if any(reader.last_read) or len(reader.last_read) != tarfile.BLOCKSIZE:
            raise InvalidArchiveError(
                "the archive stops without its end mark: it was cut short", remedy=REPACK
            )
        if gzipped:
            reader.drain()  # gzip's checksum comes last


def _checked_tar_name(info: tarfile.TarInfo, limits: ArchiveLimits) -> str:
    name = clean_name(info.name, limits)
    if info.issym() or info.islnk():
        reason = f"the member is a link (to {info.linkname!r:.120})"
        raise InvalidArchiveError(
            reason, remedy="pack the files themselves (tar --dereference)", member=info.name
        )
    if info.sparse is not None or not (info.isreg() or info.isdir()):
        reason = "the member is neither a plain file nor a folder (a device, pipe or sparse file)"
        raise InvalidArchiveError(reason, remedy="leave it out", member=info.name)
    try:
        tarfile.data_filter(info, "/nowhere")
    except tarfile.FilterError as error:
        raise InvalidArchiveError(str(error), remedy="leave it out", member=info.name) from error
    return name


# -------------------------------------------------------------------------------------------------------- zip


def _walk_zip(path: Path, limits: ArchiveLimits) -> Generator[Member]:
    # zipfile reads the whole directory of the archive at once (a usual entry has 120 bytes), and makes an
    # object of 700 bytes for each entry before anybody can count them.
    max_read = max(1 << 20, min(160 * limits.max_members, MAX_ZIP_DIRECTORY_BYTES))
    with path.open("rb") as raw:
        reader = GuardedReader(raw, max_read=max_read, look=partial(_count_entries, limits))
        with zipfile.ZipFile(reader) as archive:
            infos = archive.infolist()
            _check_count(len(infos), limits)
            for info in infos:
                name = _checked_zip_name(info, limits)
                if name and not info.is_dir():
                    with archive.open(info) as stream:
                        yield Member(name, info.file_size, stream)


def _count_entries(limits: ArchiveLimits, content: bytes) -> None:
    if content.startswith(ENTRY_MARK):
        _check_count(content.count(ENTRY_MARK), limits)


def _checked_zip_name(info: zipfile.ZipInfo, limits: ArchiveLimits) -> str:
    name = clean_name(info.orig_filename, limits)
    kind = stat.S_IFMT(info.external_attr >> 16)
    if kind == stat.S_IFLNK:
        raise InvalidArchiveError(
            "the member is a link", remedy="pack the files themselves", member=info.filename
        )
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        reason = "the member is neither a plain file nor a folder"
        raise InvalidArchiveError(reason, remedy="leave it out", member=info.filename)
    if info.flag_bits & 0x1:
        raise InvalidArchiveError(
            "the member is encrypted", remedy="send it without a password", member=info.filename
        )
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        reason = "the compression method is neither stored nor deflate"
        raise InvalidArchiveError(reason, remedy=REPACK, member=info.filename)
    return name
