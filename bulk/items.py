"""One image of an input: its name, and its bytes or why there are none."""

import stat
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from vlm.errors import ImageRejectedError
from vlm.preprocessing import Preprocessing


@dataclass(frozen=True)
class Failure:
    """Why an image has no answer.

    Attributes:
        reason: One stable word: what the service says of a broken image, or `missing`, `unreadable`.
        detail: What is wrong and what to do, as a sentence.
    """

    reason: str
    detail: str


@dataclass(frozen=True)
class Item:
    """An image as it stands in the input.

    Attributes:
        name: What the input calls it.
        content: Its bytes, the file that holds them, or why it cannot be had.
    """

    name: str
    content: bytes | Path | Failure


@dataclass(frozen=True)
class ImageLimits:
    """How large an image may be: the settings of the same names."""

    image_limit_bytes: int
    max_image_pixels: int


def load(item: Item, preprocessing: Preprocessing, limits: ImageLimits) -> Tensor | Failure:
    """The picture as the image tower takes it, or why there is none; nothing foreign is raised."""
    content = item.content
    if isinstance(content, Path):
        content = _read(content, limits.image_limit_bytes)
    if isinstance(content, Failure):
        return content
    try:
        return preprocessing.load(content, max_pixels=limits.max_image_pixels)
    except ImageRejectedError as error:
        return Failure(error.reason, str(error))


def too_large(size_bytes: int, limit_bytes: int) -> Failure:
    """Said of an image whose file alone is too large to look into."""
    return Failure(
        "too_large",
        f"the image has {size_bytes} bytes; at most {limit_bytes} are read: raise CONDU_IMAGE_LIMIT_BYTES",
    )


def _read(path: Path, limit_bytes: int) -> bytes | Failure:
    try:
        # Asked before opening: opening a pipe would wait for a writer that never comes.
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return Failure("unreadable", "this is no file; name one")
        if found.st_size > limit_bytes:
            return too_large(found.st_size, limit_bytes)
        return path.read_bytes()
    except FileNotFoundError:
        return Failure("missing", "there is no such file; correct the name, or put the file there")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return Failure("unreadable", f"the file cannot be read ({reason}); see to its disk and permissions")
