"""A file that does not let its reader be talked into huge reads."""

import io
from collections.abc import Callable
from typing import Protocol

from imagesets.errors import InvalidArchiveError


class Binary(Protocol):
    """What a file must be able to do to be guarded."""

    def read(self, size: int, /) -> bytes: ...
    def seek(self, offset: int, whence: int, /) -> int: ...
    def tell(self) -> int: ...


class GuardedReader(io.RawIOBase):
    """A read-only view of a file that refuses reads over `max_read`; `check` sees positions, `look` bytes.

    The standard library's archive readers ask for as many bytes as a header says; a header of 40 bytes can
    say 10 GiB.

    Attributes:
        last_read: The bytes of the newest read.
    """

    def __init__(
        self,
        file: Binary,
        *,
        max_read: int,
        check: Callable[[int], None] = lambda _position: None,
        look: Callable[[bytes], None] = lambda _content: None,
    ) -> None:
        self._file = file
        self._max_read = max_read
        self._check = check
        self._look = look
        self.last_read = b""

    def readable(self) -> bool:
        """True: this is a reader."""
        return True

    def seekable(self) -> bool:
        """True: the file under it is."""
        return True

    def read(self, size: int | None = -1) -> bytes:
        """Up to `size` bytes; to the end counts as a read over the limit, where that much is left."""
        wanted = self._max_read + 1 if size is None or size < 0 else size
        if wanted > self._max_read and size is not None and size >= 0:
            raise InvalidArchiveError(
                f"a header asks to read {size} bytes at once",
                remedy="pack the archive anew with an ordinary tool",
            )
        self.last_read = self._file.read(wanted)
        if len(self.last_read) > self._max_read:
            raise InvalidArchiveError(
                f"the archive's directory is over {self._max_read} bytes long", remedy="send fewer files"
            )
        self._check(self._file.tell())
        self._look(self.last_read)
        return self.last_read

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill the buffer as far as there are bytes."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go there; a forward seek in a compressed stream unpacks what it passes, so it is checked before."""
        if whence == io.SEEK_SET:
            self._check(offset)
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        """The position in the (unpacked) stream."""
        return self._file.tell()

    def drain(self) -> None:
        """Read on to the end, so that a checksum behind the last byte is verified."""
        while self.read(self._max_read):
            pass
