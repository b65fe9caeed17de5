"""Archives of a suite, unpacked once into the cache."""

import hashlib
from pathlib import Path

from bench.errors import BenchError
from bench.suites.contract import OnProgress
from imagesets import ImageIndex, ImagesetError, unpack_archive


def unpacked_archive(archive: Path, into: Path, *, on_progress: OnProgress) -> ImageIndex:
    """The index of the archive's images, under a folder of this very archive: a changed one is unpacked anew.

    Raises:
        BenchError: The archive is missing or cannot be used as an image set.
    """
    try:
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    except OSError as error:
        raise BenchError(
            f"{archive} cannot be read ({error.strerror})", remedy="put the archive there"
        ) from error
    try:
        return unpack_archive(
            archive,
            into / digest[:16],
            on_progress=lambda done, total: on_progress(f"unpack {archive.stem}", done, total),
        )
    except ImagesetError as error:
        raise BenchError(f"{archive}: {error}", remedy="pack it again as the message says") from error
