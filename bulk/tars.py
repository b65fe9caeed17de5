"""The images of a tar, plain or compressed, one after the other; nothing is ever unpacked to disk.

A member's name is only ever text in a row, so a name that points outside, is absolute or comes twice does no
harm and its image gets its answer. Links, devices and sparse files are passed over and counted.
"""

import bz2
import gzip
import lzma
import tarfile
import zlib
from collections.abc import Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import zstandard

from bulk.errors import InputError
from bulk.items import Item, too_large
from imagesets.errors import InvalidArchiveError
from imagesets.names import is_image, is_litter
from imagesets.reader import GuardedReader

Compression = Literal["none", "gzip", "bzip2", "xz", "zstd"]

MAGIC_BYTES = 512
MAX_HEADER_BYTES = 1 << 20
CHUNK_BYTES = 256 << 10
RATIO_FLOOR_BYTES = 8 << 20
"""Below this many unpacked bytes nobody asks how well they were packed."""
MAGIC: tuple[tuple[bytes, Compression], ...] = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
)
BROKEN = (
    tarfile.TarError,
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    ValueError,
    OverflowError,
    RecursionError,
    InvalidArchiveError,
    OSError,
)
"""What the libraries raise for malformed archives (gzip and bzip2 an OSError), and the disk for its own."""


@dataclass(frozen=True)
class TarBounds:
    """How much of a tar is believed.

    Attributes:
        max_image_bytes: A larger member is not read; it gets an error.
        max_ratio: Most times its own size that the tar may unpack to.
    """

    max_image_bytes: int
    max_ratio: float


def compression_of(head: bytes) -> Compression | None:
    """How the tar with these first bytes is compressed; None where it is no tar."""
    for magic, compression in MAGIC:
        if head.startswith(magic):
            return compression
    if len(head) == tarfile.BLOCKSIZE and not any(head):
        return "none"  # a tar of nothing
    try:
        tarfile.TarInfo.frombuf(head, "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return None
    return "none"


def survey_tar(path: Path, bounds: TarBounds) -> tuple[int, int]:
    """(images, other members) of the tar, walked to its very end.

    Raises:
        InputError: The tar is cut short, corrupt, or a bomb.
    """
    num_images = num_members = 0
    with _readable(path):
        for info, _ in _walk(path, bounds):
            num_members += not info.isdir()
            num_images += _is_taken(info)
    return num_images, num_members - num_images


class TarReader:
    """Reads a tar forward; what lies before the place it has reached is read by starting again."""

    def __init__(self, path: Path, bounds: TarBounds) -> None:
        self._path = path
        self._bounds = bounds
        self._members: Generator[tuple[tarfile.TarInfo, tarfile.TarFile]] | None = None
        self._next = 0

    def read(self, start: int, stop: int) -> Iterator[Item]:
        """The images with their bytes, as the tar orders them.

        Raises:
            InputError: The tar is not what it was when the job began.
        """
        if self._members is None or start < self._next:
            self.close()
            self._members, self._next = _walk(self._path, self._bounds), 0
        with _readable(self._path):
            while self._next < stop:
                info, tar = self._next_image()
                if self._next > start:
                    yield self._item(info, tar)

    def close(self) -> None:
        """Close the file."""
        if self._members is not None:
            self._members.close()
        self._members = None

    def _next_image(self) -> tuple[tarfile.TarInfo, tarfile.TarFile]:
        """The next image's header; its number is then behind us."""
        assert self._members is not None  # noqa: S101 - read() has opened it
        for info, tar in self._members:
            if _is_taken(info):
                self._next += 1
                return info, tar
        raise InputError(
            f"{self._path} holds fewer images than when the job began", remedy="bring the same tar back"
        )

    def _item(self, info: tarfile.TarInfo, tar: tarfile.TarFile) -> Item:
        name = info.name.encode(errors="surrogateescape").decode(errors="backslashreplace")
        if info.size > self._bounds.max_image_bytes:
            return Item(name, too_large(info.size, self._bounds.max_image_bytes))
        stream = tar.extractfile(info)
        content = bytearray()
        while stream is not None and (chunk := stream.read(CHUNK_BYTES)):
            content += chunk
        return Item(name, bytes(content))


def _walk(path: Path, bounds: TarBounds) -> Generator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """Every member in turn; its bytes can be read until the next is asked for."""
    with ExitStack() as stack:
        raw = stack.enter_context(path.open("rb"))
        compression = compression_of(raw.read(MAGIC_BYTES))
        raw.seek(0)
        packed_bytes = path.stat().st_size

        def check(position: int) -> None:
            if compression == "none":
                return  # plain tars have no bytes to unpack, only holes to skip
            if position > RATIO_FLOOR_BYTES and position > bounds.max_ratio * packed_bytes:
                raise InputError(
                    f"{path} unpacks to over {bounds.max_ratio:g} times its own size, as only a bomb does",
                    remedy="pack the images without compression, or raise CONDU_MAX_ARCHIVE_RATIO",
                )

        file = stack.enter_context(_unpacked(raw, compression))
        reader = GuardedReader(file, max_read=MAX_HEADER_BYTES, check=check)
        tar = stack.enter_context(tarfile.TarFile(fileobj=reader, mode="r"))
        while (info := tar.next()) is not None:
            tar.members.clear()  # type: ignore[attr-defined] # else a record of every member stays
            yield info, tar
        # tarfile takes anything it cannot read for the end; only a block of zeros is the end.
        if any(reader.last_read) or len(reader.last_read) != tarfile.BLOCKSIZE:
            raise InputError(
                f"{path} stops without its end mark: it was cut short", remedy="pack or copy it again"
            )
        if compression != "none":
            reader.drain()  # checksums come last


def _unpacked(raw: IO[bytes], compression: Compression | None) -> Any:
    if compression == "gzip":
        return gzip.GzipFile(fileobj=raw, mode="rb")
    if compression == "bzip2":
        return bz2.BZ2File(raw)
    if compression == "xz":
        return lzma.LZMAFile(raw)
    if compression == "zstd":
        return zstandard.ZstdDecompressor().stream_reader(raw, read_across_frames=True, closefd=False)
    return raw


def _is_taken(info: tarfile.TarInfo) -> bool:
    plain = info.isreg() and info.sparse is None and info.size >= 0
    parts = [part for part in info.name.split("/") if part not in ("", ".", "..")]
    return plain and is_image(info.name) and not is_litter("/".join(parts))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """What the readers of archives raise leaves as InputError."""
    try:
        yield
    except InputError:
        raise
    except BROKEN as error:
        raise InputError(
            f"{path} is cut short or corrupt ({type(error).__name__}: {error})",
            remedy="pack or copy it again",
        ) from error
